//! Generated types and stubs of the Salesforce Pub/Sub API (`eventbus.v1`), nothing hand-written.
//!
//! The only code that the engine and the sandbox share: both sides of the wire are generated from one published
//! definition, <https://github.com/forcedotcom/pub-sub-api/blob/main/pubsub_api.proto>.
#![allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]

tonic::include_proto!("eventbus.v1");
