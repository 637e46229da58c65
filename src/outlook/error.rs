//! What can go wrong with Outlook, by stable code; each has a page in `docs/errors/`.
//!
//! Graph's own words are kept only after `clean`: a refusal may quote a subject or an address.

use std::time::Duration;

use calbridge_core::observed::Why;
use calbridge_core::side::Side;
use serde_json::Value;

use crate::http::ReadError;
use crate::ports::{RemoteError, Retry};

/// No connection, or no answer in time.
pub const UNREACHABLE: &str = "CB1301";
/// Entra gives no token.
pub const SIGN_IN: &str = "CB1302";
/// Graph refuses a fresh token.
pub const TOKEN_REFUSED: &str = "CB1303";
/// Graph says that the app may not.
pub const FORBIDDEN: &str = "CB1304";
/// Too many requests.
pub const THROTTLED: &str = "CB1305";
/// Graph failed inside.
pub const UNAVAILABLE: &str = "CB1306";
/// There is no such event.
pub const NOT_FOUND: &str = "CB1307";
/// There is no such mailbox, or it has no calendar.
pub const NO_MAILBOX: &str = "CB1308";
/// Graph refuses what was sent.
pub const REFUSED: &str = "CB1309";
/// The delta link has expired.
pub const CURSOR_EXPIRED: &str = "CB1310";
/// The event changed between read and write.
pub const CHANGED: &str = "CB1311";
/// The answer is not what Graph documents.
pub const UNREADABLE: &str = "CB1312";
/// The mailbox is being moved or its store is offline.
pub const MAILBOX_OFFLINE: &str = "CB1313";
/// An address in the settings cannot be used.
pub const SETTINGS: &str = "CB1314";
/// A value has no form that Outlook could hold.
pub const NOT_WRITABLE: &str = "CB1315";

/// An answer sends the call elsewhere.
pub const REDIRECTED: &str = "CB1316";
/// An answer is larger than any that is read.
pub const TOO_LARGE: &str = "CB1317";
/// A link in an answer leads to another address.
pub const LINK_LEADS_AWAY: &str = "CB1318";

/// The hub cannot be reached.
pub const HUB_UNREACHABLE: &str = "CB1401";
/// The hub refuses the credentials.
pub const HUB_SIGN_IN: &str = "CB1402";
/// There is no such hub or consumer group.
pub const HUB_MISSING: &str = "CB1403";
/// Messages were dropped by the hub before they were read.
pub const HUB_POSITION_LOST: &str = "CB1404";
/// Another reader took the partition.
pub const HUB_STOLEN: &str = "CB1405";
/// Graph refuses a subscription.
pub const SUBSCRIPTION: &str = "CB1410";
/// A subscription ended without our doing.
pub const SUBSCRIPTION_LOST: &str = "CB1411";

/// Pause after which a mailbox that is being moved is tried again; moves take hours.
const OFFLINE_PAUSE: Duration = Duration::from_mins(1);
/// Pause after an answer that cannot be right.
const SOON: Retry = Retry::After(Duration::from_mins(1));
/// Longest text of a remote that is kept, in characters.
const KEPT_CHARACTERS: usize = 200;

/// Makes an error of this side.
pub(super) fn remote(code: &'static str, message: impl Into<String>, retry: Retry) -> RemoteError {
    RemoteError { code, message: message.into(), retry, side: Side::Outlook }
}

/// Says the same in the core's words.
pub(super) fn why(error: &RemoteError) -> Why {
    Why {
        code: error.code.to_owned(),
        message: error.message.clone(),
        retry_after_ms: match error.retry {
            Retry::After(pause) if !pause.is_zero() => Some(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            Retry::After(_) | Retry::Never => None,
        },
    }
}

/// Whether a failed call can have had an effect.
#[derive(Debug, Clone)]
pub(super) enum CallFailure {
    /// It certainly never reached the remote.
    NotSent(RemoteError),
    /// It was sent, and no readable answer came.
    Lost(RemoteError),
}

impl CallFailure {
    /// Returns what happened.
    pub(super) fn error(&self) -> &RemoteError {
        match self {
            Self::NotSent(error) | Self::Lost(error) => error,
        }
    }

    /// Reads why an answer could not be read; the request was sent.
    pub(super) fn from_body(error: &ReadError) -> Self {
        match error {
            ReadError::Transport(error) => Self::from_request(error),
            ReadError::TooLarge => {
                Self::Lost(remote(TOO_LARGE, format!("Graph: {error}; check that nothing answers in its place"), SOON))
            }
        }
    }

    /// Reads why a request came to nothing.
    pub(super) fn from_request(error: &reqwest::Error) -> Self {
        let (what, sent) = if error.is_connect() {
            ("no connection to Graph", false)
        } else if error.is_builder() {
            ("the request to Graph could not be built", false)
        } else if error.is_timeout() {
            ("Graph did not answer in time", true)
        } else {
            ("the connection to Graph broke", true)
        };
        let cause = root_cause(error);
        let error = remote(
            UNREACHABLE,
            format!("{what} ({cause}); check the network and `outlook.graph_url`"),
            Retry::After(Duration::ZERO),
        );
        if sent { Self::Lost(error) } else { Self::NotSent(error) }
    }
}

/// Returns the innermost cause: the outer ones repeat the URL, which holds mailbox and event.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    clean(&cause.to_string())
}

/// Graph's error envelope: <https://learn.microsoft.com/graph/errors>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GraphFault {
    /// HTTP status.
    pub(super) status: u16,
    /// `error.code`; empty where the body has none.
    pub(super) code: String,
    /// `error.message`, cleaned.
    pub(super) message: String,
    /// `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

impl GraphFault {
    /// Reads a failed answer; a body that is no envelope leaves the code empty.
    pub(super) fn read(status: u16, body: &Value, retry_after: Option<Duration>) -> Self {
        let text = |name: &str| body.pointer(&format!("/error/{name}")).and_then(Value::as_str).unwrap_or_default();
        Self {
            status,
            code: text("code").chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(80).collect(),
            message: clean(text("message")),
            retry_after,
        }
    }

    fn is(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| code.eq_ignore_ascii_case(&self.code))
    }

    /// Tells whether the answer means that this very item is not there.
    pub(super) fn is_item_missing(&self) -> bool {
        self.status == 404 && self.is(&["ErrorItemNotFound"])
    }

    /// Tells whether a delta link is of no more use.
    ///
    /// <https://learn.microsoft.com/graph/delta-query-overview>
    pub(super) fn is_cursor_expired(&self) -> bool {
        self.status == 410
            || ((400..500).contains(&self.status)
                && self.is(&["syncStateNotFound", "syncStateInvalid", "resyncRequired"]))
    }

    /// Tells whether the mailbox is away for a while though it exists.
    pub(super) fn is_mailbox_offline(&self) -> bool {
        self.is(&["ErrorMailboxMoveInProgress", "ErrorMailboxStoreUnavailable"])
    }

    /// Makes it an error with code and advice.
    pub(super) fn to_error(&self) -> RemoteError {
        let soon = Retry::After(self.retry_after.unwrap_or_default());
        let (code, words, retry) = match self.status {
            _ if self.is_mailbox_offline() => (
                MAILBOX_OFFLINE,
                "the mailbox is being moved or offline",
                Retry::After(self.retry_after.unwrap_or(OFFLINE_PAUSE)),
            ),
            _ if self.is_cursor_expired() => (CURSOR_EXPIRED, "the delta link has expired", Retry::Never),
            401 => (TOKEN_REFUSED, "Graph refuses the token", Retry::After(Duration::from_secs(30))),
            403 => (
                FORBIDDEN,
                "the app may not do this; grant `Calendars.ReadWrite` and admin consent",
                Retry::After(Duration::from_mins(1)),
            ),
            404 if self.is_item_missing() => (NOT_FOUND, "there is no such event", Retry::Never),
            404 => {
                (NO_MAILBOX, "there is no such mailbox, or it has no calendar", Retry::After(Duration::from_mins(1)))
            }
            409 | 412 => (CHANGED, "the event changed meanwhile", Retry::After(Duration::ZERO)),
            429 => (THROTTLED, "Graph asks to slow down", soon),
            423 | 500.. => (UNAVAILABLE, "Graph is not available", soon),
            300..=399 => (
                REDIRECTED,
                "the answer sends the call to another address, which is not followed; check `outlook.graph_url` and proxies",
                Retry::After(Duration::from_mins(1)),
            ),
            408 => (UNREACHABLE, "Graph waited too long for the request", soon),
            _ => (REFUSED, "Graph refuses the request", Retry::Never),
        };
        let named = if self.code.is_empty() { "no code" } else { &self.code };
        let mut message = format!("{words} (HTTP {}, {named})", self.status);
        if !self.message.is_empty() {
            message.push_str(": ");
            message.push_str(&self.message);
        }
        remote(code, message, retry)
    }
}

/// Removes what may be personal from a remote's words: anything quoted, anything with an at sign; and shortens it.
pub(super) fn clean(text: &str) -> String {
    let mut kept = String::new();
    let mut quote: Option<char> = None;
    let mut previous = ' ';
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            // An apostrophe inside a word opens nothing.
            None if matches!(c, '"' | '`') || (c == '\'' && !previous.is_alphanumeric()) => {
                quote = Some(c);
                kept.push('…');
            }
            None if c == '“' => {
                quote = Some('”');
                kept.push('…');
            }
            None => kept.push(c),
        }
        previous = c;
    }
    let words: Vec<&str> = kept.split_whitespace().map(|word| if word.contains('@') { "…" } else { word }).collect();
    words.join(" ").chars().take(KEPT_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_the_remote_lose_quotes_and_addresses() {
        let text = "The value 'Dinner with Eve' of \"subject\" is bad\r\nfor eve@example.com, it's too long";
        assert_eq!(clean(text), "The value … of … is bad for … it's too long");
        assert_eq!(clean(&"a".repeat(500)).chars().count(), KEPT_CHARACTERS);
    }

    #[test]
    fn a_fault_keeps_its_code_and_gets_ours() {
        let body = json!({"error": {"code": "ErrorItemNotFound", "message": "The specified object was not found."}});
        let fault = GraphFault::read(404, &body, None);
        assert!(fault.is_item_missing());
        let error = fault.to_error();
        assert_eq!(error.code, NOT_FOUND);
        assert!(error.message.contains("ErrorItemNotFound"), "{error}");
    }

    #[test]
    fn a_missing_mailbox_is_not_a_missing_event() {
        for code in ["MailboxNotEnabledForRESTAPI", "ResourceNotFound", "ErrorInvalidUser"] {
            let fault = GraphFault::read(404, &json!({"error": {"code": code}}), None);
            assert!(!fault.is_item_missing());
            assert_eq!(fault.to_error().code, NO_MAILBOX);
        }
    }

    #[test]
    fn expired_cursors_are_known_by_status_or_by_code_in_any_case() {
        let by_code = GraphFault::read(400, &json!({"error": {"code": "SyncStateNotFound"}}), None);
        let by_status = GraphFault::read(410, &Value::Null, None);
        assert_eq!(by_code.to_error().code, CURSOR_EXPIRED);
        assert_eq!(by_status.to_error().code, CURSOR_EXPIRED);
    }

    #[test]
    fn throttling_carries_the_pause_that_the_remote_asks_for() {
        let fault = GraphFault::read(429, &Value::Null, Some(Duration::from_secs(7)));
        assert_eq!(why(&fault.to_error()).retry_after_ms, Some(7000));
    }
}
