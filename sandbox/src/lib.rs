//! Local stand-ins of Microsoft Graph, Azure Event Hubs and Salesforce, in one process, on loopback only.
//!
//! One [`World`] is the truth behind all protocols; each protocol folder is a view of it:
//!
//! ```text
//!   event_hubs/  AMQP 1.0            graph/  REST, $batch, delta, subscriptions     salesforce/  REST, SOQL, Pub/Sub gRPC
//!        \                              |                                             /
//!         `----------- world: clock, faults, history, meters, hub log, Outlook, Salesforce
//!                                       |
//!                        control/  act as a person, switch faults, read verdicts
//! ```
//!
//! The sandbox shares no wire types with the engine: a shared type hides a shared mistake.

pub mod actor;
pub mod acts;
mod assembly;
pub mod calendar_file;
pub mod clock;
mod control;
pub mod endpoints;
pub mod event_hubs;
pub mod faults;
pub mod graph;
pub mod history;
pub mod late;
pub mod mails;
pub mod meters;
pub mod moments;
pub mod net;
pub mod oauth;
pub mod options;
pub mod oracle;
pub mod person;
mod roster;
pub mod salesforce;
pub mod tap;
pub mod tls;
pub mod world;

pub use actor::Actor;
pub use acts::Act;
pub use assembly::{Sandbox, SandboxError, UnknownPerson};
pub use clock::SandboxClock;
pub use endpoints::Endpoints;
pub use options::{Options, Profile};
pub use person::Person;
pub use world::World;
