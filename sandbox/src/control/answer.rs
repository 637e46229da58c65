//! Answers of the control API: JSON bodies, and refusals of one shape.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::person::PersonError;

/// A refusal: `{"error": "<what is wrong and what to do>"}`, with the cloud's own words where it refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    cloud: Option<Value>,
}

impl Refusal {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), cloud: None }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into(), cloud: None }
    }

    pub(super) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, message: message.into(), cloud: None }
    }
}

impl From<PersonError> for Refusal {
    fn from(error: PersonError) -> Self {
        let message = error.to_string();
        let (status, cloud) = match error {
            PersonError::Outlook(error) => {
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
                (status, Some(json!({ "code": error.code, "message": error.message })))
            }
            PersonError::Salesforce(errors) => {
                let codes: Vec<String> = errors.iter().map(ToString::to_string).collect();
                let gone = errors.iter().any(|error| error.status == StatusCode::NOT_FOUND);
                (if gone { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST }, Some(json!(codes)))
            }
            PersonError::Calendar(_) => (StatusCode::BAD_REQUEST, None),
        };
        Self { status, message, cloud }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message });
        if let Some(cloud) = self.cloud {
            body["cloud"] = cloud;
        }
        (self.status, Json(body)).into_response()
    }
}

/// Reads a body as a JSON object.
pub(super) fn object(body: &Bytes) -> Result<serde_json::Map<String, Value>, Refusal> {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Refusal::bad_request("the body is not a JSON object; send `{...}`")),
        Err(error) => Err(Refusal::bad_request(format!("the body is not JSON: {error}"))),
    }
}
