//! Change events of Salesforce through the Pub/Sub API (gRPC): a stream of Avro payloads becomes signals.
//!
//! ```text
//!   subscription  one stream: credit, replay ids, receipts        verdict  what an error means for the stream
//!     └─ avro     payload + schema -> header                      connection  address, TLS, session headers
//!          ├─ changed_fields  bitmaps -> names
//!          └─ values          changed mapped fields and their values
//! ```
//!
//! <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/pub-sub-api-intro.html>

mod avro;
mod changed_fields;
mod connection;
mod listener;
mod schema_limits;
mod signals;
mod subscription;
mod values;
mod verdict;

use std::time::Duration;

pub use listener::ChangeEvents;

#[cfg(test)]
pub(super) use avro::tests as avro_samples;
pub(super) use connection::probe;
#[cfg(test)]
pub(super) use listener::ReadCheckpoint;

/// Pause between an accepted first subscription and reporting ready.
///
/// Events published just after subscribing with preset LATEST can be missed. Observed by redpanda-data/connect
/// (48a4b646e4, `subscribeSettleDelay`): 3 s is enough; 5 s leaves margin. Unconfirmed by Salesforce's documents.
pub const SUBSCRIBE_SETTLE: Duration = Duration::from_secs(5);
