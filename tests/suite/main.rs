//! The engine against the local sandbox, over real sockets: one binary, one file per promise.

mod calendars;
mod commands;
mod crossings;
mod enrolment;
mod health;
mod logs;
mod observe;
mod stamp_fields;
mod support;
mod trace;
