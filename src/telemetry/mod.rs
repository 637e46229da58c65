//! Telemetry: logs and metrics from one typed event per fact, so that they cannot disagree.
//!
//! Owns the names, the subscriber and the recorder. Never sees subjects, bodies, addresses or tokens: no event has a field
//! for them.

pub mod events;
mod init;
pub mod names;

pub use init::{InitError, Metrics, logs, metrics};
