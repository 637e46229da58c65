//! Salesforce: signing in, reading and writing Event rows, and listening to their change events.
//!
//! ```text
//!   auth ──> client (REST, errors, limits) ──> calendar (port `Calendar`) <── wire (rows <-> fields)
//!     └────> pubsub (port `Listener`): gRPC stream of change events -> signals
//! ```
//!
//! Knows `core`, `ports`, the clock and the rate limits; nothing of Outlook, the store's backends or the config.

mod auth;
mod calendar;
mod catchup;
mod check;
mod client;
mod error;
pub mod pubsub;
mod settings;
mod wire;
mod writes;

#[cfg(test)]
mod tests;

pub use auth::{Authenticator, Session};
pub use calendar::{SalesforceCalendar, StampFields};
pub use client::{ApiUsage, Client};
pub use settings::{Grant, PubSubSettings, Settings, SettingsError};
