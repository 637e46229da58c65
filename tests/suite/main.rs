//! The engine against the local sandbox, over real sockets: one binary, one file per promise.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as the tests themselves do")]

mod attendees;
mod bursts;
mod calendars;
mod chaos;
mod commands;
mod compose;
mod contract;
mod copies;
mod crash_points;
mod crossings;
mod enrolment;
mod faults;
mod guards;
mod health;
mod hostile_files;
mod hostile_hub;
mod hostile_pubsub;
mod instances;
mod kills;
mod load;
mod logs;
mod mails;
mod observe;
mod office;
mod overwritten;
mod privacy;
mod redis;
mod restarts;
mod restored;
mod stamp_fields;
mod support;
mod tokens;
mod trace;
