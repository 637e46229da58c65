//! Errors as Salesforce words them: a code, a message, the fields concerned.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// One error of a REST answer or of one row of a collection.
///
/// Codes: <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm>
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct SalesforceError {
    /// HTTP status that goes with the code on a single-row call.
    pub status: StatusCode,
    /// Stable code such as `FIELD_INTEGRITY_EXCEPTION`.
    pub code: &'static str,
    /// Text for people; like the real one it may quote the caller's own values.
    pub message: String,
    /// API names of the fields concerned.
    pub fields: Vec<String>,
}

impl SalesforceError {
    /// Makes an error with status 400.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, code, message)
    }

    /// Makes an error with any status.
    pub(crate) fn with(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), fields: Vec::new() }
    }

    /// Names one more field.
    pub(crate) fn field(mut self, field: &str) -> Self {
        self.fields.push(field.to_owned());
        self
    }

    /// Says that no such record or resource exists.
    pub(crate) fn not_found() -> Self {
        Self::with(StatusCode::NOT_FOUND, "NOT_FOUND", "The requested resource does not exist")
    }

    /// Says that the record lies in the recycle bin.
    pub(crate) fn deleted() -> Self {
        Self::with(StatusCode::NOT_FOUND, "ENTITY_IS_DELETED", "entity is deleted")
    }

    /// Says that a text is not a record id.
    pub(crate) fn malformed_id(field: &str, value: &str) -> Self {
        Self::bad("MALFORMED_ID", format!("{field}: id value of incorrect type: {value}")).field(field)
    }

    /// Returns the element of a single-row error body.
    pub(crate) fn to_json(&self) -> Value {
        let mut body = json!({ "message": self.message, "errorCode": self.code });
        if !self.fields.is_empty() || self.status == StatusCode::BAD_REQUEST {
            body["fields"] = json!(self.fields);
        }
        body
    }

    /// Returns the element of a collection row's `errors`, where the code is called `statusCode`.
    pub(crate) fn to_row_json(&self) -> Value {
        json!({ "statusCode": self.code, "message": self.message, "fields": self.fields })
    }
}
