//! The engine against the local sandbox, over real sockets: one binary, one file per promise.

mod attendees;
mod bursts;
mod copies;
mod crossings;
mod office;
mod privacy;
mod redis;
mod restarts;
mod support;
