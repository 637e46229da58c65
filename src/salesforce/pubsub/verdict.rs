//! What a gRPC error means for the stream. Salesforce names the cause in the trailer `error-code`.
//!
//! <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/handling-errors.html> and, for what may be tried
//! again, <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/retry-rpc-calls.html>.

use tonic::{Code, Status};

const PREFIX: &str = "sfdc.platform.eventbus.grpc.";

/// What to do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Open the stream again after a pause, from the last event handed over.
    Retry,
    /// Get a new token first.
    Renew,
    /// The replay id is unknown or too old: start from the earliest event kept, and look at everything.
    Restart,
    /// The org's deliveries are used up: wait long.
    LimitReached,
    /// Config or permissions are wrong.
    Fatal(String),
}

/// Judges an error.
pub(super) fn of(status: &Status) -> Verdict {
    match error_code(status) {
        Some(code) => of_code(&code).unwrap_or_else(|| of_status(status)),
        None => of_status(status),
    }
}

/// Tells whether a schema look-up failed because there is no such schema; anything else may pass or breaks the stream.
pub(super) fn names_unknown_schema(status: &Status) -> bool {
    match error_code(status) {
        Some(code) => code == "schema.validation.failed",
        None => matches!(status.code(), Code::NotFound | Code::InvalidArgument),
    }
}

/// Describes an error without the server's text.
pub(super) fn words(status: &Status) -> String {
    match error_code(status) {
        Some(code) => format!("the pub/sub api answered {code} ({:?})", status.code()),
        None => format!("the pub/sub api answered {:?}", status.code()),
    }
}

/// Finds the part of the error code after its prefix, in the trailers or in the text.
fn error_code(status: &Status) -> Option<String> {
    let trailer = status.metadata().get("error-code").and_then(|value| value.to_str().ok());
    let text = trailer.unwrap_or(status.message());
    let (_, rest) = text.split_once(PREFIX)?;
    let code: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '.').take(100).collect();
    let code = code.trim_end_matches('.');
    (!code.is_empty()).then(|| code.to_owned())
}

fn of_code(code: &str) -> Option<Verdict> {
    let fatal = |what: &str| Verdict::Fatal(format!("the pub/sub api refuses the subscription ({code}); {what}"));
    Some(match code {
        "service.unavailable"
        | "topic.api.unavailable"
        | "schema.api.unavailable"
        | "subscription.internal.error"
        | "subscription.fetch.replay.repeated"
        | "subscription.fetch.overflow"
        | "concurrent.client.limit.exceeded"
        | "service.protection.triggered"
        | "service.protection.stream.limit.triggered" => Verdict::Retry,
        "service.auth.error" => Verdict::Renew,
        "subscription.fetch.replayid.corrupted" => Verdict::Restart,
        "subscription.limit.exceeded" => Verdict::LimitReached,
        "topic.not.found" | "topic.validation.empty" => fatal("select Event in Change Data Capture and check `topic`"),
        "topic.meta.permission" | "schema.meta.permission" | "subscription.topic.cannot.subscribe" => {
            fatal("give the integration user `View All Data`")
        }
        "service.tenant.license" => fatal("the org's edition lacks the Pub/Sub API"),
        "service.auth.headers.invalid" | "service.auth.refresh.invalid" => {
            fatal("the session headers are wrong; check `login_url`")
        }
        "schema.validation.failed"
        | "subscription.fetch.topic.mismatch"
        | "subscription.fetch.requested.events.invalid"
        | "subscription.fetch.request.invalid"
        | "subscription.fetch.replayid.validation.failed" => fatal("this is a fault of calbridge; report it"),
        _ => return None,
    })
}

fn of_status(status: &Status) -> Verdict {
    match status.code() {
        Code::Unauthenticated => Verdict::Renew,
        Code::PermissionDenied => {
            Verdict::Fatal(format!("{}; give the integration user `View All Data`", words(status)))
        }
        Code::Unimplemented => Verdict::Fatal(format!("{}; check that the endpoint is the Pub/Sub API", words(status))),
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    fn status(code: Code, error_code: &str) -> Status {
        let mut trailers = MetadataMap::new();
        trailers.insert("error-code", format!("{PREFIX}{error_code}").parse().unwrap());
        Status::with_metadata(code, "something rpcId: 1", trailers)
    }

    #[test]
    fn trailers_decide() {
        assert_eq!(of(&status(Code::Internal, "service.unavailable")), Verdict::Retry);
        assert_eq!(of(&status(Code::Unauthenticated, "service.auth.error")), Verdict::Renew);
        assert_eq!(of(&status(Code::InvalidArgument, "subscription.fetch.replayid.corrupted")), Verdict::Restart);
        assert_eq!(of(&status(Code::ResourceExhausted, "subscription.limit.exceeded")), Verdict::LimitReached);
        assert!(matches!(of(&status(Code::NotFound, "topic.not.found")), Verdict::Fatal(_)));
    }

    #[test]
    fn without_trailers_the_text_or_the_status_decides() {
        let named = Status::invalid_argument(
            "The Replay ID validation failed. sfdc.platform.eventbus.grpc.subscription.fetch.replayid.corrupted rpcId: 1",
        );
        assert_eq!(of(&named), Verdict::Restart);
        assert_eq!(of(&Status::unavailable("RST_STREAM closed stream")), Verdict::Retry);
        assert_eq!(of(&Status::unauthenticated("")), Verdict::Renew);
        assert_eq!(of(&status(Code::Unknown, "something.new")), Verdict::Retry);
    }
}
