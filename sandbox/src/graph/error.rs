//! Errors as Graph answers them: status, code, message.

use serde_json::{Value, json};

/// A refusal in Graph's terms.
///
/// Clients branch on `code`, never on the message; codes and statuses are those of `facts/graph.md` section 5
/// (<https://learn.microsoft.com/en-us/graph/errors>).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct GraphError {
    /// HTTP status.
    pub status: u16,
    /// Graph error code.
    pub code: &'static str,
    /// Text for people.
    pub message: String,
    /// Seconds after which to try again, for 429 and 503.
    pub retry_after: Option<u64>,
}

impl GraphError {
    /// Makes an error.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    pub(crate) fn item_not_found() -> Self {
        Self::new(404, "ErrorItemNotFound", "The specified object was not found in the store.")
    }

    pub(crate) fn malformed_id() -> Self {
        Self::new(400, "ErrorInvalidIdMalformed", "Id is malformed.")
    }

    pub(crate) fn user_not_found(id: &str) -> Self {
        Self::new(
            404,
            "Request_ResourceNotFound",
            format!("Resource '{id}' does not exist or one of its queried reference-property objects are not present."),
        )
    }

    pub(crate) fn invalid_user(id: &str) -> Self {
        Self::new(404, "ErrorInvalidUser", format!("The requested user '{id}' is invalid."))
    }

    /// Says that the mailbox cannot be reached, as for one whose licence was taken.
    ///
    /// <https://learn.microsoft.com/en-us/graph/errors>; the words as clients quote them.
    pub(crate) fn without_licence() -> Self {
        let message = "The mailbox is either inactive, soft-deleted, or is hosted on-premise.";
        Self::new(404, "MailboxNotEnabledForRESTAPI", message)
    }

    pub(crate) fn property(message: impl Into<String>) -> Self {
        Self::new(400, "ErrorPropertyValidationFailure", message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, "ErrorInvalidRequest", message)
    }

    pub(crate) fn conflict() -> Self {
        Self::new(
            412,
            "ErrorIrresolvableConflict",
            "The send or update operation could not be performed because the change key passed in the request does not \
             match the current change key for the item.",
        )
    }

    /// Says that a path leads nowhere; Graph names the segment that it does not know, with status 400.
    ///
    /// Seen in <https://github.com/microsoftgraph/msgraph-sdk-javascript/issues/1178> and
    /// <https://github.com/microsoftgraph/microsoft-graph-docs/issues/21648>.
    pub(crate) fn no_route(segment: &str) -> Self {
        Self::bad_request(format!("Resource not found for the segment '{segment}'."))
    }

    pub(crate) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Renders the error envelope; `request` and `client_request` are the ids that the headers carry too.
    pub(crate) fn envelope(&self, date: &str, request: &str, client_request: &str) -> Value {
        json!({"error": {"code": self.code, "message": self.message,
            "innerError": {"date": date, "request-id": request, "client-request-id": client_request}}})
    }
}
