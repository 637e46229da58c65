//! calbridge, the engine: keeps meetings in Outlook and Salesforce in step, both ways.
//!
//! The rule that decides what is written lives in `calbridge_core`; this crate listens, stores, reads and writes.
//! A module may use those to its left: `core` <- [`ports`] <- { `outlook`, `salesforce`, `store` } <- `engine` <- { `cli`, `web` }.

pub mod cli;
pub mod clock;
pub mod config;
pub mod duties;
pub mod engine;
pub mod http;
pub mod mistakes;
pub mod outlook;
pub mod points;
pub mod ports;
pub mod rate_limit;
pub mod salesforce;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod trace;
pub mod web;
