//! Acts upon the clouds, by name.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::answer::{Refusal, object};
use crate::acts::Act;
use crate::assembly::Clouds;

/// `POST /acts/{name}`
pub(super) async fn act(
    State(clouds): State<Arc<Clouds>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let mut wanted = if body.is_empty() { Map::new() } else { object(&body)? };
    wanted.insert("act".to_owned(), Value::String(name));
    let act: Act = serde_json::from_value(Value::Object(wanted))
        .map_err(|error| Refusal::bad_request(format!("no such act: {error}; see the sandbox's README")))?;
    let affected = clouds.act(&act).map_err(|error| Refusal::not_found(error.to_string()))?;
    Ok(Json(json!({ "affected": affected })))
}
