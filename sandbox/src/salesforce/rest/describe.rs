//! What there is: resources, objects, fields, limits, change event schemas.

#![expect(clippy::unnecessary_wraps, reason = "every resource has the one signature that routes.rs calls")]

use serde_json::{Map, Value, json};

use super::super::error::SalesforceError;
use super::super::schema::{Field, Kind, LINK, Object, TOKEN};
use super::super::tx::Tx;
use super::{ApiAnswer, ApiRequest, Version, routes};

pub(super) fn resources(_: &mut Tx<'_>, version: &Version, _: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let names = ["sobjects", "query", "queryAll", "composite", "limits"];
    let url = |name: &str| (name.to_owned(), Value::from(format!("/services/data/v{}/{name}", version.0)));
    Ok(ApiAnswer::ok(Value::Object(names.into_iter().map(url).collect())))
}

pub(super) fn limits(tx: &mut Tx<'_>, _: &Version, _: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let max = u64::from(tx.switches.salesforce_requests_per_day);
    let remaining = max.saturating_sub(tx.org.usage.used(tx.now));
    let delivered = tx.org.world.meters.read().change_events;
    Ok(ApiAnswer::ok(json!({
        "DailyApiRequests": { "Max": max, "Remaining": remaining },
        "DailyDeliveredPlatformEvents": { "Max": 50_000, "Remaining": 50_000_u64.saturating_sub(delivered) },
        "DailyStreamingApiEvents": { "Max": 1_000_000, "Remaining": 1_000_000 },
        "DataStorageMB": { "Max": 1024, "Remaining": 1000 },
    })))
}

pub(super) fn global(_: &mut Tx<'_>, version: &Version, _: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let objects: Vec<Value> = Object::ALL.into_iter().map(|object| summary(object, version).into()).collect();
    Ok(ApiAnswer::ok(json!({ "encoding": "UTF-8", "maxBatchSize": 200, "sobjects": objects })))
}

pub(super) fn basic(_: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    Ok(ApiAnswer::ok(json!({ "objectDescribe": summary(object, version), "recentItems": [] })))
}

pub(super) fn full(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    let mut answer = summary(object, version);
    let unique = tx.switches.salesforce_link_unique;
    let fields = object.fields(&tx.switches).filter(|field| !field.event_only);
    answer.insert("fields".to_owned(), fields.map(|field| describe(field, unique)).collect());
    answer.insert("childRelationships".to_owned(), json!([]));
    answer.insert("recordTypeInfos".to_owned(), json!([]));
    Ok(ApiAnswer::ok(answer.into()))
}

pub(super) fn event_schema_by_id(
    tx: &mut Tx<'_>,
    _: &Version,
    request: &ApiRequest,
) -> Result<ApiAnswer, SalesforceError> {
    let schema = tx.org.schema_by_id(request.part(2)).ok_or_else(SalesforceError::not_found)?;
    schema_answer(&schema.json)
}

pub(super) fn event_schema_by_name(
    tx: &mut Tx<'_>,
    _: &Version,
    request: &ApiRequest,
) -> Result<ApiAnswer, SalesforceError> {
    let object = request.part(1).strip_suffix("ChangeEvent").and_then(Object::named);
    let object = object.filter(|object| object.is_writable()).ok_or_else(SalesforceError::not_found)?;
    schema_answer(&tx.org.event_schema(object, &tx.switches).json)
}

fn schema_answer(schema: &str) -> Result<ApiAnswer, SalesforceError> {
    serde_json::from_str(schema).map(ApiAnswer::ok).map_err(|_error| SalesforceError::not_found())
}

fn summary(object: Object, version: &Version) -> Map<String, Value> {
    let name = object.name();
    let base = format!("/services/data/v{}/sobjects/{name}", version.0);
    let writable = object.is_writable();
    let summary = json!({
        "name": name,
        "label": object.label(),
        "labelPlural": format!("{}s", object.label()),
        "keyPrefix": object.prefix(),
        "custom": false,
        "createable": writable,
        "updateable": writable,
        "deletable": writable,
        "undeletable": object == Object::Event,
        "queryable": true,
        "retrieveable": true,
        "replicateable": true,
        "searchable": true,
        "triggerable": true,
        "urls": {
            "sobject": base,
            "describe": format!("{base}/describe"),
            "rowTemplate": format!("{base}/{{ID}}"),
        },
    });
    if let Value::Object(summary) = summary { summary } else { Map::new() }
}

fn describe(field: &Field, link_unique: bool) -> Value {
    let external = matches!(field.name, LINK | TOKEN);
    let text =
        matches!(field.kind, Kind::Text | Kind::Combobox | Kind::TextArea | Kind::Picklist(_) | Kind::Restricted(_));
    let values: &[&str] = match field.kind {
        Kind::Picklist(values) | Kind::Restricted(values) => values,
        _ => &[],
    };
    let entry = |value: &&str| {
        json!({
            "value": value, "label": value, "active": true, "validFor": null,
            "defaultValue": field.name == "ShowAs" && *value == "Busy",
        })
    };
    let targets: &[&str] = if let Kind::Reference(targets) = field.kind { targets } else { &[] };
    let soap = match field.kind {
        Kind::Id | Kind::Reference(_) => "tns:ID",
        Kind::DateTime => "xsd:dateTime",
        Kind::Date => "xsd:date",
        Kind::Int => "xsd:int",
        Kind::Bool => "xsd:boolean",
        _ => "xsd:string",
    };
    json!({
        "name": field.name,
        "label": field.label,
        "type": field.kind.describe(),
        "soapType": soap,
        "length": field.length,
        "byteLength": field.length * 3,
        "digits": if field.kind == Kind::Int { 8 } else { 0 },
        "precision": 0,
        "scale": 0,
        "createable": field.create,
        "updateable": field.update,
        "nillable": field.nillable(),
        "defaultedOnCreate": field.kind == Kind::Bool || field.name == "OwnerId" || field.system,
        "defaultValue": if field.kind == Kind::Bool { json!(false) } else { Value::Null },
        "unique": field.name == LINK && link_unique,
        "externalId": external,
        "idLookup": external || field.name == "Id",
        "caseSensitive": false,
        "custom": field.is_custom(),
        "calculated": false,
        "autoNumber": false,
        "filterable": field.filter,
        "sortable": field.filter,
        "groupable": field.filter && field.kind != Kind::DateTime,
        "aggregatable": field.filter,
        "restrictedPicklist": matches!(field.kind, Kind::Restricted(_)),
        "picklistValues": values.iter().map(entry).collect::<Vec<_>>(),
        "referenceTo": targets,
        "relationshipName": field.name.strip_suffix("Id").filter(|_| !targets.is_empty()),
        "polymorphicForeignKey": targets.len() > 1,
        "htmlFormatted": false,
        "extraTypeInfo": if text && field.kind == Kind::TextArea { json!("plaintextarea") } else { Value::Null },
    })
}
