//! Errors of the Pub/Sub API: a gRPC status with the trailers `error-code`, `rpc-id` and `type`.
//!
//! <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/handling-errors.html>. A wrong token was
//! seen to give UNAUTHENTICATED (<https://github.com/pozil/pub-sub-api-java-client/issues/3>); the gRPC codes of the others
//! are unconfirmed where the documentation names none.

use rand::Rng;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::world::World;

const PREFIX: &str = "sfdc.platform.eventbus.grpc.";

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    AuthHeaders,
    Auth,
    UnknownTopic,
    EmptyTopic,
    TopicPermission,
    UnknownSchema,
    TopicMismatch,
    RequestedEvents,
    FetchRequest,
    ReplayIdMissing,
    ReplayIdCorrupted,
    NoManagedSubscription,
    Unavailable,
    DeliveriesExhausted,
}

impl Fault {
    fn parts(self) -> (Code, &'static str, &'static str) {
        match self {
            Self::AuthHeaders => (
                Code::InvalidArgument,
                "service.auth.headers.invalid",
                "The accesstoken, instanceurl and tenantid headers are required",
            ),
            Self::Auth => (
                Code::Unauthenticated,
                "service.auth.error",
                "An authentication exception occurred. Provide valid authentication via metadata headers",
            ),
            Self::UnknownTopic => (Code::NotFound, "topic.not.found", "The topic does not exist"),
            Self::EmptyTopic => (Code::InvalidArgument, "topic.validation.empty", "The topic name is empty"),
            Self::TopicPermission => {
                (Code::PermissionDenied, "topic.meta.permission", "Change events can not be published by clients")
            }
            Self::UnknownSchema => (Code::NotFound, "schema.validation.failed", "The schema id is unknown"),
            Self::TopicMismatch => (
                Code::InvalidArgument,
                "subscription.fetch.topic.mismatch",
                "The topic differs from the one of the first request",
            ),
            Self::RequestedEvents => (
                Code::InvalidArgument,
                "subscription.fetch.requested.events.invalid",
                "num_requested must be greater than 0",
            ),
            Self::FetchRequest => {
                (Code::InvalidArgument, "subscription.fetch.request.invalid", "The fetch request is missing or invalid")
            }
            Self::ReplayIdMissing => (
                Code::InvalidArgument,
                "subscription.fetch.replayid.validation.failed",
                "The replay preset CUSTOM needs a replay id",
            ),
            Self::ReplayIdCorrupted => (
                Code::InvalidArgument,
                "subscription.fetch.replayid.corrupted",
                "The Replay ID validation failed. Ensure that the Replay ID is valid",
            ),
            Self::NoManagedSubscription => (
                Code::NotFound,
                "managed.subscription.developer.name.not.found",
                "The org has no managed event subscription",
            ),
            Self::DeliveriesExhausted => (
                Code::ResourceExhausted,
                "subscription.limit.exceeded",
                "You have exceeded the event delivery limit for your org",
            ),
            Self::Unavailable => (Code::Unavailable, "service.unavailable", "The service is shutting down"),
        }
    }
}

/// One call: its method and its id.
#[derive(Debug, Clone)]
pub(super) struct Rpc {
    pub(super) id: String,
    /// What meters count it as.
    pub(super) kind: &'static str,
    name: &'static str,
}

impl Rpc {
    pub(super) fn new(world: &World, name: &'static str, kind: &'static str) -> Self {
        let id = world.draw(|random| Uuid::from_u128(random.random())).to_string();
        Self { id, kind, name }
    }

    /// Makes the status of a failure.
    pub(super) fn fail(&self, fault: Fault) -> Status {
        let (code, suffix, message) = fault.parts();
        let mut trailers = MetadataMap::new();
        for (key, value) in [("error-code", format!("{PREFIX}{suffix}")), ("rpc-id", self.id.clone())] {
            if let Ok(value) = MetadataValue::try_from(value) {
                trailers.insert(key, value);
            }
        }
        trailers.insert("type", MetadataValue::from_static(self.name));
        Status::with_metadata(code, format!("{message}. rpcId: {}", self.id), trailers)
    }
}
