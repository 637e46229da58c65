//! What people do, and what happens to connections.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Refusal, object};
use crate::assembly::Clouds;
use crate::person::{LoadedCalendar, Person, PersonError};
use crate::salesforce::{Change, Road};

fn person(clouds: &Clouds, address: &str) -> Result<Person, Refusal> {
    clouds.person(address).map_err(|error| Refusal::not_found(error.to_string()))
}

/// `POST /people/{address}/outlook/events`
pub(super) async fn create_in_outlook(
    State(clouds): State<Arc<Clouds>>,
    Path(address): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let event = Value::Object(object(&body)?);
    let created = person(&clouds, &address)?.create_in_outlook(&event)?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// `PATCH /people/{address}/outlook/events/{id}`
pub(super) async fn update_in_outlook(
    State(clouds): State<Arc<Clouds>>,
    Path((address, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let patch = Value::Object(object(&body)?);
    Ok(Json(person(&clouds, &address)?.update_in_outlook(&id, &patch)?))
}

/// `DELETE /people/{address}/outlook/events/{id}`
pub(super) async fn delete_in_outlook(
    State(clouds): State<Arc<Clouds>>,
    Path((address, id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    person(&clouds, &address)?.delete_in_outlook(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /people/{address}/salesforce/events`
pub(super) async fn create_in_salesforce(
    State(clouds): State<Arc<Clouds>>,
    Path(address): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let fields = object(&body)?;
    let id = person(&clouds, &address)?.create_in_salesforce(fields)?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

/// `PATCH /people/{address}/salesforce/events/{id}`
pub(super) async fn update_in_salesforce(
    State(clouds): State<Arc<Clouds>>,
    Path((address, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let fields = object(&body)?;
    person(&clouds, &address)?.update_in_salesforce(&id, &fields)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /people/{address}/salesforce/events/{id}`
pub(super) async fn delete_in_salesforce(
    State(clouds): State<Arc<Clouds>>,
    Path((address, id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    person(&clouds, &address)?.delete_in_salesforce(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is done to many events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    /// Salesforce ids.
    ids: Vec<String>,
    /// New values; none deletes.
    update: Option<Map<String, Value>>,
    #[serde(default)]
    road: Road,
}

impl Many {
    fn read(body: &Bytes) -> Result<Self, Refusal> {
        serde_json::from_value(Value::Object(object(body)?)).map_err(|error| {
            let form = "`{\"ids\": [...], \"update\": {...}}`, without `update` to delete";
            Refusal::bad_request(format!("the body is not {form}: {error}"))
        })
    }

    fn change(&self) -> Change<'_> {
        self.update.as_ref().map_or(Change::Delete, Change::Update)
    }
}

/// `POST /people/{address}/salesforce/many`
pub(super) async fn change_many(
    State(clouds): State<Arc<Clouds>>,
    Path(address): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let many = Many::read(&body)?;
    let person = person(&clouds, &address)?.mailbox().address.clone();
    clouds.org.change_many(&person, many.road, &many.ids, many.change()).map_err(PersonError::Salesforce)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /salesforce/flow`
pub(super) async fn flow(State(clouds): State<Arc<Clouds>>, body: Bytes) -> Result<StatusCode, Refusal> {
    let many = Many::read(&body)?;
    clouds.org.automate(&many.ids, many.change()).map_err(PersonError::Salesforce)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where a calendar goes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalendarQuery {
    /// Address of the mailbox; the first one unless told.
    mailbox: Option<String>,
}

/// `POST /calendars`
pub(super) async fn load_calendar(
    State(clouds): State<Arc<Clouds>>,
    query: Result<Query<CalendarQuery>, axum::extract::rejection::QueryRejection>,
    body: Bytes,
) -> Result<(StatusCode, Json<LoadedCalendar>), Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let first = clouds.endpoints.mailboxes.first().map(|mailbox| mailbox.address.clone()).unwrap_or_default();
    let owner = person(&clouds, &query.mailbox.unwrap_or(first))?;
    let loaded = owner.load_calendar(&body)?;
    Ok((StatusCode::CREATED, Json(loaded)))
}

/// `POST /hub/cut`
pub(super) async fn cut_hub(State(clouds): State<Arc<Clouds>>) -> Json<Value> {
    Json(json!({ "connections_cut": clouds.hub_handle.cut_connections() }))
}

/// `POST /salesforce/forget-change-events`
pub(super) async fn forget_change_events(State(clouds): State<Arc<Clouds>>) -> StatusCode {
    clouds.org.forget_change_events();
    StatusCode::NO_CONTENT
}
