//! The pure core of calbridge: decides what is written. No async, no clock, no IO, no randomness.
//!
//! Two functions carry it. [`plan`](plan::plan) looks at one meeting on both sides and says what to do; [`settle`](settle::settle) takes in
//! what a remote answered. The engine around them reads, records intents, sends, and stores.
//!
//! ```text
//!   signals -> notices --.
//!   reads of both sides --+-> Case --plan(rules, now, fresh)--> Plan --> intents --> write --settle--> Link
//!   correlation row -----'
//! ```

pub mod case;
pub mod document;
pub mod ids;
pub mod link;
pub mod mapping;
pub mod observed;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod settle;
pub mod side;
pub mod signal;
pub mod value;
pub mod written;
