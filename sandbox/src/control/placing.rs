//! Placing messages as they are on the hub and on the event bus, to see what a reader makes of them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Refusal, object};
use crate::assembly::Clouds;
use crate::event_hubs::{Numbered, RawBody};
use crate::salesforce::{PlacedEvent, PlacedReplay};

/// How a message is placed on the hub.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HubQuery {
    #[serde(default)]
    partition: usize,
    #[serde(default)]
    form: Form,
    #[serde(default)]
    numbered: Numbered,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// One data section.
    #[default]
    Data,
    /// Two data sections, each one half.
    Sections,
    /// A text as AMQP value.
    Value,
    /// A list of lines as AMQP sequence.
    Sequence,
    /// Nothing.
    Empty,
}

/// `POST /hub/messages`
pub(super) async fn on_the_hub(
    State(clouds): State<Arc<Clouds>>,
    query: Result<Query<HubQuery>, QueryRejection>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let text = || String::from_utf8_lossy(&body).into_owned();
    let raw = match query.form {
        Form::Data => RawBody::Sections(vec![body.to_vec()]),
        Form::Sections => {
            let (one, two) = body.split_at(body.len() / 2);
            RawBody::Sections(vec![one.to_vec(), two.to_vec()])
        }
        Form::Value => RawBody::Text(text()),
        Form::Sequence => RawBody::Sequence(text().lines().map(str::to_owned).collect()),
        Form::Empty => RawBody::Nothing,
    };
    let sequence = clouds.hub.place(query.partition, raw, query.numbered).ok_or_else(|| {
        let last = clouds.hub.partitions().saturating_sub(1);
        Refusal::not_found(format!("there is no partition {}; they are 0 to {last}", query.partition))
    })?;
    Ok((StatusCode::CREATED, Json(json!({ "partition": query.partition, "sequence": sequence }))))
}

/// `POST /salesforce/change-events`
pub(super) async fn on_the_bus(State(clouds): State<Arc<Clouds>>, body: Bytes) -> Result<StatusCode, Refusal> {
    let wanted = object(&body)?;
    let event: Wanted = serde_json::from_value(Value::Object(wanted))
        .map_err(|error| Refusal::bad_request(format!("the event cannot be read: {error}")))?;
    let payload = match event.payload {
        Some(text) => Some(
            STANDARD.decode(text).map_err(|error| Refusal::bad_request(format!("`payload` is no base64: {error}")))?,
        ),
        None => None,
    };
    let schema_id = event.schema_id.unwrap_or_else(|| clouds.org.change_event_schema().0);
    if let Some(text) = &event.schema {
        clouds.org.place_schema(&schema_id, text);
    }
    clouds.org.place_change_event(PlacedEvent { schema_id, payload, replay: event.replay });
    Ok(StatusCode::CREATED)
}

/// The body of `POST /salesforce/change-events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Id of the schema; that of today's events unless told.
    schema_id: Option<String>,
    /// Text that `GetSchema` gives for this id from now on.
    schema: Option<String>,
    /// Base64; none for an event without a body.
    payload: Option<String>,
    #[serde(default)]
    replay: PlacedReplay,
}
