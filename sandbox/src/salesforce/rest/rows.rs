//! sObject Rows: one record by id or by external id, with preconditions and upsert.
//!
//! <https://developer.salesforce.com/docs/platform/api-rest/guide/dome-upsert.html>

use axum::http::{StatusCode, header};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::super::cell::Cell;
use super::super::error::SalesforceError;
use super::super::ids;
use super::super::schema::{Field, LINK, Object, TOKEN};
use super::super::tx::{Row, Tx};
use super::{ApiAnswer, ApiRequest, Version, routes};
use crate::faults::Strike;

pub(super) fn create(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    let fields = request.object()?;
    let id = lockable(tx, |tx| tx.create(object, &fields))?;
    Ok(new_record(object, &id, None, version))
}

pub(super) fn get(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let (object, id) = addressed(request)?;
    present(tx, object, &id, version, request)
}

pub(super) fn update(tx: &mut Tx<'_>, _: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let (object, id) = addressed(request)?;
    let fields = request.object()?;
    let row = tx.live(object, &id)?;
    if changed_since(row, request)? {
        let message = "The record was modified after the time of If-Unmodified-Since";
        return Err(SalesforceError::with(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED", message));
    }
    lockable(tx, |tx| tx.update(object, &id, &fields))?;
    Ok(ApiAnswer::no_content())
}

/// Deletes a record; no precondition is supported here.
pub(super) fn delete(tx: &mut Tx<'_>, _: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let (object, id) = addressed(request)?;
    lockable(tx, |tx| tx.delete(object, &id))?;
    Ok(ApiAnswer::no_content())
}

pub(super) fn get_by_external_id(
    tx: &mut Tx<'_>,
    version: &Version,
    request: &ApiRequest,
) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    let field = external_id(tx, object, request.part(2))?;
    match find(tx, object, field, request.part(3)).as_slice() {
        [] => Err(SalesforceError::not_found()),
        [id] => present(tx, object, id, version, request),
        many => Ok(choices(object, many, version)),
    }
}

pub(super) fn delete_by_external_id(
    tx: &mut Tx<'_>,
    version: &Version,
    request: &ApiRequest,
) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    let field = external_id(tx, object, request.part(2))?;
    match find(tx, object, field, request.part(3)).as_slice() {
        [] => Err(SalesforceError::not_found()),
        [id] => {
            lockable(tx, |tx| tx.delete(object, id))?;
            Ok(ApiAnswer::no_content())
        }
        many => Ok(choices(object, many, version)),
    }
}

pub(super) fn upsert(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    let field = external_id(tx, object, request.part(2))?;
    let update_only = request.query("updateOnly").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let fields = request.object()?;
    match upsert_row(tx, object, field, request.part(3), &fields, update_only)? {
        Upserted::Created(id) => Ok(new_record(object, &id, Some(true), version)),
        Upserted::Updated(id) => Ok(ApiAnswer::ok(created(&id, Some(false)))),
        Upserted::Ambiguous(many) => Ok(choices(object, &many, version)),
    }
}

/// What an upsert did.
#[derive(Debug)]
pub(super) enum Upserted {
    Created(String),
    Updated(String),
    /// Several records carry the external id; nothing was written.
    Ambiguous(Vec<String>),
}

/// Creates or changes the record with an external id.
pub(super) fn upsert_row(
    tx: &mut Tx<'_>,
    object: Object,
    field: &'static Field,
    value: &str,
    fields: &Map<String, Value>,
    update_only: bool,
) -> Result<Upserted, SalesforceError> {
    let mut fields = fields.clone();
    fields.retain(|name, _| !name.eq_ignore_ascii_case(field.name));
    match find(tx, object, field, value).as_slice() {
        [] if update_only => Err(SalesforceError::not_found()),
        [] if field.name == "Id" => Err(SalesforceError::not_found()),
        [] => {
            fields.insert(field.name.to_owned(), Value::from(value));
            lockable(tx, |tx| tx.create(object, &fields)).map(Upserted::Created)
        }
        [id] => {
            lockable(tx, |tx| tx.update(object, id, &fields))?;
            Ok(Upserted::Updated(id.clone()))
        }
        many => Ok(Upserted::Ambiguous(many.to_vec())),
    }
}

/// Finds a field that upsert accepts: the id or an external id.
pub(super) fn external_id(tx: &Tx<'_>, object: Object, name: &str) -> Result<&'static Field, SalesforceError> {
    let field = object.field(name, &tx.switches);
    field.filter(|field| matches!(field.name, "Id" | LINK | TOKEN)).ok_or_else(|| {
        let message = format!("Provided external ID field does not exist or is not accessible: {name}");
        SalesforceError::with(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    })
}

/// Runs a row's write unless the switch says that its lock is taken.
pub(super) fn lockable<T>(
    tx: &mut Tx<'_>,
    write: impl FnOnce(&mut Tx<'_>) -> Result<T, SalesforceError>,
) -> Result<T, SalesforceError> {
    if tx.org.world.strikes(Strike::SalesforceLock) {
        let message = "unable to obtain exclusive access to this record";
        return Err(SalesforceError::bad("UNABLE_TO_LOCK_ROW", message));
    }
    tx.attempt(write)
}

/// Writes a record with its `attributes`, all fields or the named ones.
pub(super) fn record_json(
    tx: &Tx<'_>,
    row: &Row,
    version: &Version,
    names: Option<&[&str]>,
) -> Result<Value, SalesforceError> {
    let object = row.object;
    let mut record = Map::new();
    let url = format!("/services/data/v{}/sobjects/{}/{}", version.0, object.name(), row.id);
    record.insert("attributes".to_owned(), json!({ "type": object.name(), "url": url }));
    let Some(names) = names else {
        for field in object.fields(&tx.switches).filter(|field| !field.event_only) {
            record.insert(field.name.to_owned(), row.cell(field.name).to_json());
        }
        return Ok(Value::Object(record));
    };
    for name in names {
        let field = object.field(name, &tx.switches).ok_or_else(|| {
            let message = format!("No such column '{name}' on entity '{}'", object.name());
            SalesforceError::bad("INVALID_FIELD", message)
        })?;
        record.insert(field.name.to_owned(), row.cell(field.name).to_json());
    }
    // The id comes along even where it was not asked for.
    record.entry("Id").or_insert_with(|| Value::from(row.id.as_str()));
    Ok(Value::Object(record))
}

fn addressed(request: &ApiRequest) -> Result<(Object, String), SalesforceError> {
    let object = routes::object(request.part(1))?;
    let id = ids::normalise(request.part(2)).ok_or_else(|| {
        let message = "Provided external ID field does not exist or is not accessible: ".to_owned() + request.part(2);
        SalesforceError::with(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    })?;
    Ok((object, id))
}

fn find(tx: &Tx<'_>, object: Object, field: &'static Field, value: &str) -> Vec<String> {
    if field.name == "Id" {
        let id = ids::normalise(value).filter(|id| tx.live(object, id).is_ok());
        return id.into_iter().collect();
    }
    tx.by_external_id(object, field.name, value)
}

fn present(
    tx: &Tx<'_>,
    object: Object,
    id: &str,
    version: &Version,
    request: &ApiRequest,
) -> Result<ApiAnswer, SalesforceError> {
    let row = tx.live(object, id)?;
    if changed_since(row, request)? {
        let message = "The record was modified after the time of If-Unmodified-Since";
        return Err(SalesforceError::with(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED", message));
    }
    let modified = row.cell("LastModifiedDate").as_datetime().unwrap_or_default();
    if let Some(since) = http_date(request, "if-modified-since")?
        && modified <= since
    {
        return Ok(ApiAnswer { status: StatusCode::NOT_MODIFIED, ..ApiAnswer::no_content() });
    }
    let names: Option<Vec<&str>> =
        request.query("fields").map(|list| list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect());
    let mut answer = ApiAnswer::ok(record_json(tx, row, version, names.as_deref())?);
    let stamp = modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    answer.headers.push((header::LAST_MODIFIED, stamp));
    Ok(answer)
}

fn changed_since(row: &Row, request: &ApiRequest) -> Result<bool, SalesforceError> {
    let since = http_date(request, "if-unmodified-since")?;
    let modified = row.cell("LastModifiedDate").as_datetime();
    Ok(since.is_some_and(|since| modified.is_some_and(|modified| modified > since)))
}

/// Reads a date header; it has whole seconds, so edits within one second pass unseen, as on a real org.
///
/// <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest_conditional_requests.htm>
fn http_date(request: &ApiRequest, name: &str) -> Result<Option<DateTime<Utc>>, SalesforceError> {
    let Some(text) = request.header(name) else {
        return Ok(None);
    };
    match DateTime::parse_from_rfc2822(text) {
        Ok(at) => Ok(Some(at.to_utc())),
        Err(_) => Err(SalesforceError::bad("INVALID_HEADER", format!("Invalid value for header {name}"))),
    }
}

fn created(id: &str, flag: Option<bool>) -> Value {
    let mut body = json!({ "id": id, "success": true, "errors": [] });
    if let Some(flag) = flag {
        body["created"] = Value::from(flag);
    }
    body
}

fn new_record(object: Object, id: &str, flag: Option<bool>, version: &Version) -> ApiAnswer {
    let mut answer = ApiAnswer::new(StatusCode::CREATED, created(id, flag));
    answer.headers.push((header::LOCATION, format!("/services/data/v{}/sobjects/{}/{id}", version.0, object.name())));
    answer
}

fn choices(object: Object, many: &[String], version: &Version) -> ApiAnswer {
    let url = |id: &String| format!("/services/data/v{}/sobjects/{}/{id}", version.0, object.name());
    ApiAnswer::new(StatusCode::MULTIPLE_CHOICES, many.iter().map(url).collect())
}

/// Returns the id that a collection row names, 18 characters.
pub(super) fn row_id(record: &Map<String, Value>) -> Result<String, SalesforceError> {
    let value = record.iter().find(|(name, _)| name.eq_ignore_ascii_case("id")).map(|(_, value)| value);
    let text = value.and_then(Value::as_str).unwrap_or_default();
    if text.is_empty() {
        return Err(SalesforceError::bad("MISSING_ARGUMENT", "Id not specified in an update call"));
    }
    ids::normalise(text).ok_or_else(|| SalesforceError::malformed_id("Id", text))
}

/// Returns the text of an external id in a row's fields.
pub(super) fn external_value(record: &Map<String, Value>, field: &'static Field) -> Option<String> {
    let value = record.iter().find(|(name, _)| name.eq_ignore_ascii_case(field.name)).map(|(_, value)| value)?;
    let text = match value {
        Value::String(text) => Cell::text(text.trim()),
        Value::Number(number) => Cell::Text(number.to_string()),
        _ => Cell::Null,
    };
    text.as_text().map(str::to_owned)
}
