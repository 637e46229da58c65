//! Judges all Graph traffic of the suite by Microsoft's own description of Graph, wherever that lies beside the repository.
//!
//! Every [`Rehearsal`](super::Rehearsal) is watched from its first to its last request, so no test can forget it: a fault
//! fails the test that caused it. The description is converted from Microsoft's metadata and lies outside the repository
//! (`../shared/data`); where it is missing this is said once, and nothing is judged.
//!
//! ```text
//!   sandbox ── tap ──> watch.rs (a thread of its own) ──> judge.rs: exchange, items of a $batch, hub messages
//!                            │ totals                         │
//!                            v                                v
//!                  target/tmp/graph-contract.txt         spec.rs: operations, parameters, schemas
//! ```

mod judge;
mod spec;
mod watch;

pub(crate) use judge::Fault;
pub(crate) use spec::Contract;
pub(crate) use watch::{Totals, Watch, described};
