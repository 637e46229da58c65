//! A Salesforce org: Event rows behind REST and SOQL, Change Data Capture behind the Pub/Sub API.
//!
//! ```text
//!   rest/  rows, collections, composite, describe      pubsub/  Subscribe, GetSchema, GetTopic
//!     |       \__ soql/  SELECT                            |
//!     v                                                    v
//!   tx.rs  one transaction ------ commit ------------> changes.rs  retained change events (avro.rs)
//!     |__ rows.rs, relations.rs, times.rs: what may change          `--> world.history
//! ```
//!
//! People act through [`Org::create`] and its siblings, which share everything below REST with API clients.
//! It keeps no recurring series and speaks no CometD yet.

mod automation;
mod avro;
mod cell;
mod changes;
mod error;
mod ids;
mod input;
mod many;
mod org;
mod placed;
mod pubsub;
mod relations;
mod rest;
mod rows;
mod schema;
mod soql;
mod times;
mod tx;
mod upheaval;
mod usage;

pub use error::SalesforceError;
pub use ids::{normalise as normalise_id, short as short_id};
pub use many::{Change, Road};
pub use org::{NewUser, Org, OrgIdentity};
pub use placed::{PlacedEvent, PlacedReplay};
pub use pubsub::router as pubsub;
pub use rest::router;
