//! Failures of Salesforce calls: what happened, whether it can have taken effect, and what the ports are told.
//!
//! Salesforce's own messages may quote record values, so they are dropped unless the code is known to speak of
//! settings only; codes and field names are kept. Code list:
//! <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm>.

use std::time::Duration;

use calbridge_core::observed::Why;
use calbridge_core::side::Side;
use calbridge_core::written::{TOO_LATE, WriteResult};
use serde::Deserialize;

use super::wire::LINK_FIELD;
use crate::http::ReadError;
use crate::ports::{RemoteError, Retry};

/// Longest part of a remote message that is kept, in characters.
const MESSAGE_LIMIT: usize = 200;

/// A failed call or row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) message: String,
    /// When to try again, if that is known better than the kind tells.
    pub(super) retry_after: Option<Duration>,
}

/// What kind of failure it was; each has one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No connection was made: nothing was sent.
    Unreachable,
    /// It waited too long for its turn: nothing was sent.
    TooLate,
    /// Sent, but no whole answer came back.
    NoAnswer,
    /// 5xx that does not say that nothing happened.
    ServerFault,
    /// Salesforce says that it took nothing in.
    Unavailable,
    /// No token: the authorisation server refuses.
    SignIn,
    /// A fresh token was refused too.
    Session,
    /// A request limit of the org.
    RequestLimit,
    /// Turned away by what stands before the org, with 429.
    Throttled,
    /// A row or its parent is locked.
    Locked,
    /// No such row, or a deleted one.
    Gone,
    /// The unique field holds this value elsewhere.
    Duplicate,
    /// The row changed since.
    Precondition,
    /// The row cannot be accepted.
    Refused,
    /// The user may not do this.
    Forbidden,
    /// The answer is not what the API documents.
    Unreadable,
    /// A page marker is no longer known.
    Cursor,
    /// A field that was asked for is not there (or not visible).
    UnknownField,
    /// The answer sends the call elsewhere.
    Redirected,
    /// The answer is larger than any that is read.
    TooLarge,
}

impl Kind {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::TooLate => TOO_LATE,
            Self::Cursor => "CB1310",
            Self::Unreachable => "CB1350",
            Self::NoAnswer => "CB1351",
            Self::ServerFault => "CB1352",
            Self::Unavailable => "CB1353",
            Self::SignIn => "CB1354",
            Self::Session => "CB1355",
            Self::RequestLimit | Self::Throttled => "CB1356",
            Self::Locked => "CB1357",
            Self::Gone => "CB1358",
            Self::Duplicate => "CB1359",
            Self::Precondition => "CB1360",
            Self::Refused => "CB1361",
            Self::Forbidden => "CB1362",
            Self::Unreadable => "CB1363",
            Self::UnknownField => "CB1364",
            Self::Redirected => "CB1367",
            Self::TooLarge => "CB1368",
        }
    }

    fn retry(self) -> Retry {
        match self {
            Self::Unreachable | Self::NoAnswer | Self::ServerFault | Self::Unavailable | Self::Throttled => {
                Retry::After(Duration::from_secs(5))
            }
            Self::TooLate => Retry::After(Duration::ZERO),
            Self::Locked => Retry::After(Duration::from_secs(1)),
            Self::RequestLimit | Self::SignIn | Self::Session => Retry::After(Duration::from_secs(30)),
            Self::Unreadable | Self::Redirected | Self::TooLarge => Retry::After(Duration::from_mins(1)),
            // Permissions and fields are mended by people; asking again now and then finds out.
            Self::Forbidden | Self::UnknownField => Retry::After(Duration::from_mins(5)),
            Self::Gone | Self::Duplicate | Self::Precondition | Self::Refused | Self::Cursor => Retry::Never,
        }
    }
}

impl Failure {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    pub(super) fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Names a failure to get an answer; only a connection that was never made proves that nothing was sent.
    pub(super) fn from_transport(error: &reqwest::Error) -> Self {
        if error.is_connect() || error.is_builder() {
            Self::new(Kind::Unreachable, "salesforce cannot be reached; check the address and the network")
        } else if error.is_timeout() {
            Self::new(Kind::NoAnswer, "salesforce did not answer in time")
        } else {
            Self::new(Kind::NoAnswer, "the connection to salesforce broke before the answer was whole")
        }
    }

    /// Names a failure to read an answer; the request was sent.
    pub(super) fn from_body(error: &ReadError) -> Self {
        match error {
            ReadError::Transport(error) => Self::from_transport(error),
            ReadError::TooLarge => {
                Self::new(Kind::TooLarge, format!("salesforce: {error}; check that nothing answers in its place"))
            }
        }
    }

    /// Names an answer that sends the call to another address, which is never followed.
    pub(super) fn redirected(status: u16) -> Self {
        Self::new(
            Kind::Redirected,
            format!(
                "salesforce answered {status}: the call is sent to another address, which is not followed; check \
                 `login_url` and proxies"
            ),
        )
    }

    /// Names an answer that is no success.
    pub(super) fn from_answer(status: u16, body: &[u8]) -> Self {
        if status == 412 {
            return Self::new(Kind::Precondition, "the salesforce event changed in the meantime");
        }
        if (300..400).contains(&status) {
            return Self::redirected(status);
        }
        let errors: Vec<RowError> = serde_json::from_slice(body).unwrap_or_default();
        match errors.first() {
            Some(error) => Self::from_row(error, Some(status)),
            None => Self::from_status(status),
        }
    }

    fn from_status(status: u16) -> Self {
        let said = format!("salesforce answered {status}");
        match status {
            401 => Self::new(Kind::Session, format!("{said}: the session is not valid")),
            403 => Self::new(Kind::Forbidden, format!("{said}; check the integration user's permissions")),
            // Not of Salesforce's own limits, which answer 403; whatever stands before it turned the call away.
            429 => Self::new(Kind::Throttled, format!("{said}: too many requests")),
            404 | 410 => Self::new(Kind::Gone, format!("{said}: no such resource")),
            500..=599 => Self::new(Kind::ServerFault, said),
            _ => Self::new(Kind::Unreadable, format!("{said} without an error code")),
        }
    }

    /// Names an error of a row or of a whole call; a call has a status.
    pub(super) fn from_row(error: &RowError, status: Option<u16>) -> Self {
        let kind = match error.code.as_str() {
            "INVALID_SESSION_ID" => Kind::Session,
            "REQUEST_LIMIT_EXCEEDED" => Kind::RequestLimit,
            "SERVER_UNAVAILABLE" => Kind::Unavailable,
            "UNABLE_TO_LOCK_ROW" => Kind::Locked,
            "ENTITY_IS_DELETED" | "NOT_FOUND" => Kind::Gone,
            // Without a field it is the record itself that is unknown; with one, a record that it points to.
            "INVALID_CROSS_REFERENCE_KEY" if error.fields.is_empty() => Kind::Gone,
            "DUPLICATE_VALUE" | "DUPLICATE_EXTERNAL_ID" if error.is_about_our_link() => Kind::Duplicate,
            "INVALID_QUERY_LOCATOR" => Kind::Cursor,
            "INVALID_FIELD" => Kind::UnknownField,
            "INSUFFICIENT_ACCESS_OR_READONLY"
            | "INSUFFICIENT_ACCESS"
            | "API_DISABLED_FOR_ORG"
            | "INVALID_TYPE"
            | "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY" => Kind::Forbidden,
            "UNKNOWN_EXCEPTION" | "QUERY_TIMEOUT" | "OPERATION_TOO_LARGE" => Kind::ServerFault,
            _ => match status {
                Some(500..=599) => Kind::ServerFault,
                Some(403) => Kind::Forbidden,
                _ => Kind::Refused,
            },
        };
        Self::new(kind, error.words())
    }

    pub(super) fn why(&self) -> Why {
        let pause = self.retry_after.or(match self.kind.retry() {
            Retry::After(pause) => Some(pause),
            Retry::Never => None,
        });
        Why {
            code: self.kind.code().to_owned(),
            message: self.message.clone(),
            retry_after_ms: pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Says what became of a write that failed this way.
    pub(super) fn into_write_result(self) -> WriteResult {
        let why = self.why();
        match self.kind {
            // An outage may strike behind the effect of a write.
            Kind::NoAnswer
            | Kind::ServerFault
            | Kind::Unavailable
            | Kind::Unreadable
            | Kind::Redirected
            | Kind::TooLarge => WriteResult::Unknown(why),
            Kind::Unreachable
            | Kind::TooLate
            | Kind::SignIn
            | Kind::Session
            | Kind::RequestLimit
            | Kind::Throttled
            | Kind::Locked => WriteResult::NotNow(why),
            Kind::Gone => WriteResult::Gone(why),
            Kind::Duplicate => WriteResult::AlreadyExists(why),
            Kind::Precondition => WriteResult::Conflict(why),
            Kind::Refused | Kind::Forbidden | Kind::Cursor | Kind::UnknownField => WriteResult::Refused(why),
        }
    }
}

impl From<Failure> for RemoteError {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.kind.code(),
            retry: failure.retry_after.map_or(failure.kind.retry(), Retry::After),
            message: failure.message,
            side: Side::Salesforce,
        }
    }
}

/// One error of a call (`errorCode`) or of a row in a collection (`statusCode`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct RowError {
    #[serde(alias = "errorCode", alias = "statusCode")]
    pub(super) code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    pub(super) fields: Vec<String>,
}

impl RowError {
    fn words(&self) -> String {
        let mut words = format!("salesforce answered {}", cleaned(&self.code));
        if !self.fields.is_empty() {
            let fields: Vec<String> = self.fields.iter().take(10).map(|field| cleaned(field)).collect();
            words = format!("{words} on `{}`", fields.join("`, `"));
        }
        if self.speaks_of_settings() {
            words = format!("{words}: {}", cleaned(&self.message));
        }
        words
    }

    /// Tells whether it is the link field that another record shares, not a unique field of the org's own.
    fn is_about_our_link(&self) -> bool {
        let names_a_field = !self.fields.is_empty() || self.message.contains("__c");
        !names_a_field
            || self.message.contains(LINK_FIELD)
            || self.fields.iter().any(|field| field.eq_ignore_ascii_case(LINK_FIELD))
    }

    /// Tells whether Salesforce's text for this code is fixed or written by an admin, so that it quotes no values.
    fn speaks_of_settings(&self) -> bool {
        !self.message.is_empty()
            && matches!(
                self.code.as_str(),
                "FIELD_CUSTOM_VALIDATION_EXCEPTION"
                    | "FIELD_INTEGRITY_EXCEPTION"
                    | "REQUIRED_FIELD_MISSING"
                    | "REQUEST_LIMIT_EXCEEDED"
                    | "UNABLE_TO_LOCK_ROW"
                    | "INSUFFICIENT_ACCESS_OR_READONLY"
                    | "INSUFFICIENT_ACCESS"
                    | "API_DISABLED_FOR_ORG"
                    | "INVALID_FIELD_FOR_INSERT_UPDATE"
                    | "SERVER_UNAVAILABLE"
            )
    }
}

/// Cuts a remote text to one bounded line without what it quotes and without addresses.
pub(super) fn cleaned(text: &str) -> String {
    let mut kept = String::new();
    let mut quoted_by = None;
    let mut before = ' ';
    for c in text.chars() {
        // The apostrophe of `hasn't` opens no quotation.
        let opens = matches!(c, '"' | '`') || (c == '\'' && !before.is_alphanumeric());
        before = c;
        match quoted_by {
            Some(quote) if c == quote => quoted_by = None,
            Some(_) => {}
            None if opens => {
                quoted_by = Some(c);
                kept.push('…');
            }
            None if c.is_control() => kept.push(' '),
            None => kept.push(c),
        }
    }
    let words: Vec<&str> = kept.split_whitespace().map(|word| if word.contains('@') { "…" } else { word }).collect();
    words.join(" ").chars().take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str, message: &str) -> Failure {
        let body = serde_json::json!([{ "errorCode": code, "message": message, "fields": [] }]);
        Failure::from_answer(status, body.to_string().as_bytes())
    }

    #[test]
    fn each_answer_becomes_the_result_that_keeps_writes_safe() {
        type Expect = fn(&WriteResult) -> bool;
        let not_now: Expect = |result| matches!(result, WriteResult::NotNow(_));
        let unknown: Expect = |result| matches!(result, WriteResult::Unknown(_));
        let cases: [(u16, &str, Expect); 11] = [
            (400, "UNABLE_TO_LOCK_ROW", not_now),
            (403, "REQUEST_LIMIT_EXCEEDED", not_now),
            (503, "SERVER_UNAVAILABLE", unknown),
            (401, "INVALID_SESSION_ID", not_now),
            (500, "UNKNOWN_EXCEPTION", unknown),
            (502, "ODD", unknown),
            (404, "ENTITY_IS_DELETED", |result| matches!(result, WriteResult::Gone(_))),
            (404, "NOT_FOUND", |result| matches!(result, WriteResult::Gone(_))),
            (400, "DUPLICATE_VALUE", |result| matches!(result, WriteResult::AlreadyExists(_))),
            (400, "STRING_TOO_LONG", |result| matches!(result, WriteResult::Refused(_))),
            (412, "", |result| matches!(result, WriteResult::Conflict(_))),
        ];
        for (status, code, expect) in cases {
            let result = answered(status, code, "").into_write_result();
            assert!(expect(&result), "{status} {code} became {result:?}");
        }
        assert!(unknown(&Failure::from_answer(503, b"<html>proxy</html>").into_write_result()));
        assert!(unknown(&Failure::from_answer(200, b"").into_write_result()));
        assert!(not_now(&Failure::from_answer(429, b"Too Many Requests").into_write_result()));
    }

    #[test]
    fn another_unique_field_of_the_org_is_no_sign_that_our_record_exists() {
        let ours =
            answered(400, "DUPLICATE_VALUE", "duplicate value found: Calbridge_Link__c duplicates value on record");
        assert_eq!(ours.kind, Kind::Duplicate);
        let theirs = answered(400, "DUPLICATE_VALUE", "duplicate value found: Booking__c duplicates value on record");
        assert_eq!(theirs.kind, Kind::Refused);
    }

    #[test]
    fn values_in_remote_messages_are_dropped() {
        let failure = answered(400, "STRING_TOO_LONG", "Subject: data value too large: Merger with Acme");
        assert_eq!(failure.message, "salesforce answered STRING_TOO_LONG");
        let failure =
            answered(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "Room \"Blue Whale\" needs\nmary@example.com to agree");
        assert!(!failure.message.contains("Blue Whale"), "{}", failure.message);
        assert!(!failure.message.contains('@'), "{}", failure.message);
        assert!(failure.message.contains("to agree"), "{}", failure.message);
    }
}
