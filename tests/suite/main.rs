//! The engine against the local sandbox, over real sockets: one binary, one file per promise.

mod crossings;
mod support;
