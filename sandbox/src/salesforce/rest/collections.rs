//! sObject Collections: up to 200 rows in one call and one transaction, answered row by row.
//!
//! <https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-sobjects-collections-create.html>

use serde_json::{Map, Value, json};

use super::super::error::SalesforceError;
use super::super::ids;
use super::super::org::rest_origin;
use super::super::schema::Object;
use super::super::tx::Tx;
use super::rows::{Upserted, external_id, external_value, lockable, record_json, row_id, upsert_row};
use super::{ApiAnswer, ApiRequest, Version, routes};

/// Rows of a writing call.
const MAX_ROWS: usize = 200;
/// Rows of a reading call.
const MAX_READ: usize = 2000;

pub(super) fn create(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let (records, all_or_none) = records(request)?;
    Ok(each(tx, version, &records, all_or_none, |tx, record| {
        let object = typed(record)?;
        tx.create(object, record).map(|id| success(&id, None))
    }))
}

pub(super) fn update(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let (records, all_or_none) = records(request)?;
    Ok(each(tx, version, &records, all_or_none, |tx, record| {
        let object = typed(record)?;
        let id = row_id(record)?;
        let mut fields = record.clone();
        fields.retain(|name, _| !name.eq_ignore_ascii_case("id"));
        tx.update(object, &id, &fields).map(|()| success(&id, None))
    }))
}

pub(super) fn upsert(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(2))?;
    let field = external_id(tx, object, request.part(3))?;
    let (records, all_or_none) = records(request)?;
    Ok(each(tx, version, &records, all_or_none, |tx, record| {
        let Some(value) = external_value(record, field) else {
            let message = format!("{} not specified", field.name);
            return Err(SalesforceError::bad("MISSING_ARGUMENT", message));
        };
        match upsert_row(tx, object, field, &value, record, false)? {
            Upserted::Created(id) => Ok(success(&id, Some(true))),
            Upserted::Updated(id) => Ok(success(&id, Some(false))),
            Upserted::Ambiguous(many) => {
                let message = format!("{}: more than one record found for external id field: {many:?}", field.name);
                Err(SalesforceError::bad("DUPLICATE_EXTERNAL_ID", message))
            }
        }
    }))
}

pub(super) fn delete(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let all_or_none = request.query("allOrNone").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let list: Vec<&str> = request.query("ids").unwrap_or_default().split(',').filter(|id| !id.is_empty()).collect();
    check_count(list.len(), MAX_ROWS)?;
    let records: Vec<Map<String, Value>> =
        list.into_iter().map(|id| Map::from_iter([("id".to_owned(), Value::from(id))])).collect();
    Ok(each(tx, version, &records, all_or_none, |tx, record| {
        let id = row_id(record)?;
        let object = Object::ALL.into_iter().find(|object| id.starts_with(object.prefix()));
        let object = object.ok_or_else(|| SalesforceError::malformed_id("Id", &id))?;
        tx.delete(object, &id).map(|()| success(&id, None))
    }))
}

/// Reads many records; an unknown id gives null in its place.
pub(super) fn retrieve(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(2))?;
    let (ids, fields) = if request.method == axum::http::Method::GET {
        let list = |name: &str| -> Vec<String> {
            let texts = request.query(name).unwrap_or_default().split(',');
            texts.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
        };
        (list("ids"), list("fields"))
    } else {
        let body = request.object()?;
        let list = |name: &str| -> Vec<String> {
            let values = body.get(name).and_then(Value::as_array).into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        (list("ids"), list("fields"))
    };
    check_count(ids.len(), MAX_READ)?;
    if fields.is_empty() {
        return Err(SalesforceError::bad("MISSING_ARGUMENT", "The fields parameter is required"));
    }
    let names: Vec<&str> = fields.iter().map(String::as_str).collect();
    let mut answer = Vec::with_capacity(ids.len());
    for id in &ids {
        let id = ids::normalise(id).ok_or_else(|| SalesforceError::malformed_id("ids", id))?;
        answer.push(match tx.live(object, &id) {
            Ok(row) => record_json(tx, row, version, Some(&names))?,
            Err(_) => Value::Null,
        });
    }
    Ok(ApiAnswer::ok(Value::Array(answer)))
}

fn records(request: &ApiRequest) -> Result<(Vec<Map<String, Value>>, bool), SalesforceError> {
    let body = request.object()?;
    let all_or_none = body.get("allOrNone").and_then(Value::as_bool).unwrap_or(false);
    let Some(list) = body.get("records").and_then(Value::as_array) else {
        return Err(SalesforceError::bad("JSON_PARSER_ERROR", "The records list is missing"));
    };
    check_count(list.len(), MAX_ROWS)?;
    let objects = list.iter().map(|record| record.as_object().cloned());
    let records = objects.collect::<Option<Vec<_>>>();
    let records = records.ok_or_else(|| SalesforceError::bad("JSON_PARSER_ERROR", "Each record must be an object"))?;
    Ok((records, all_or_none))
}

fn check_count(count: usize, max: usize) -> Result<(), SalesforceError> {
    if count == 0 {
        return Err(SalesforceError::bad("MISSING_ARGUMENT", "The request names no record"));
    }
    if count > max {
        let message = format!("record limit reached. cannot submit more than {max} records in this request");
        return Err(SalesforceError::bad("LIMIT_EXCEEDED", message));
    }
    Ok(())
}

/// Writes row by row; with `all_or_none` one failure takes the others back.
fn each(
    tx: &mut Tx<'_>,
    version: &Version,
    records: &[Map<String, Value>],
    all_or_none: bool,
    mut write: impl FnMut(&mut Tx<'_>, &Map<String, Value>) -> Result<Value, SalesforceError>,
) -> ApiAnswer {
    if !tx.switches.salesforce_collections_tagged {
        tx.author.origin = rest_origin(&version.0, None);
    }
    let start = tx.mark();
    let results: Vec<Result<Value, SalesforceError>> =
        records.iter().map(|record| lockable(tx, |tx| write(tx, record))).collect();
    let failed = results.iter().any(Result::is_err);
    if failed && all_or_none {
        tx.return_to(start);
    }
    let rolled_back = SalesforceError::bad(
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "Record rolled back because not all records were valid and the request was using AllOrNone header",
    );
    let answers = results.into_iter().map(|result| match result {
        Ok(_) if failed && all_or_none => failure(&rolled_back),
        Ok(success) => success,
        Err(error) => failure(&of_row(error)),
    });
    ApiAnswer::ok(answers.collect())
}

/// Words an unknown id as rows do; only single-row calls have a resource that may not exist.
fn of_row(error: SalesforceError) -> SalesforceError {
    if error.code == "NOT_FOUND" {
        SalesforceError::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
    } else {
        error
    }
}

fn typed(record: &Map<String, Value>) -> Result<Object, SalesforceError> {
    let name = record.get("attributes").and_then(|attributes| attributes.get("type")).and_then(Value::as_str);
    let name = name.ok_or_else(|| SalesforceError::bad("INVALID_TYPE", "attributes.type is missing"))?;
    Object::named(name)
        .ok_or_else(|| SalesforceError::bad("INVALID_TYPE", format!("sObject type '{name}' is not supported.")))
}

fn success(id: &str, created: Option<bool>) -> Value {
    let mut row = json!({ "id": id, "success": true, "errors": [] });
    if let Some(created) = created {
        row["created"] = Value::from(created);
    }
    row
}

fn failure(error: &SalesforceError) -> Value {
    json!({ "success": false, "errors": [error.to_row_json()] })
}
