//! Outlook as Microsoft Graph shows it: mailboxes, events, meetings, subscriptions, notifications.
//!
//! ```text
//!   routes/   HTTP: paths, headers, query options, $batch          webhook.rs
//!      |                                                              |
//!   acts.rs  what is done  -->  changes.rs  the one place where events change  -->  notifications.rs --> hub (publisher)
//!      |  meeting.rs copies and answers     |  due.rs what follows later, bursts
//!      |  series.rs recurrence.rs occurrences
//!   tenant.rs mailbox.rs content.rs  what is stored;  input.rs view.rs  JSON in and out;  filter.rs delta.rs  queries
//! ```
//!
//! Does not own the hub (a publisher is passed in) nor the listeners. What is unconfirmed about Graph says so where it is
//! decided, and is a switch in `faults.rs` where it matters to a client.

mod acts;
mod changes;
mod content;
mod delta;
mod due;
mod error;
mod filter;
mod ids;
mod input;
mod limits;
mod mailbox;
mod meeting;
mod notifications;
mod recurrence;
mod routes;
mod series;
mod subscriptions;
mod tenant;
#[cfg(test)]
mod tests;
mod view;
mod webhook;
mod zones;

pub use error::GraphError;
pub use mailbox::NewMailbox;
pub use routes::{router, secure_router};
pub use tenant::{EXCHANGE, Publisher, Tenant, TenantIdentity};
