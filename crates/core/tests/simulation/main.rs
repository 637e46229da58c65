//! The pure core against a made-up world on virtual time: random schedules, faults, then a calm drain and a judgement.
//!
//! - `CALBRIDGE_SCHEDULES=100000000 cargo test -p calbridge-core --test simulation -- --nocapture random` runs more
//!   schedules than the usual number and prints how many it did a second.
//! - `CALBRIDGE_SEED=N` runs just the schedule of that seed and prints its history; a failure names its seed.
//! - `CALBRIDGE_SHRINK=N` looks for the smallest schedule that fails as that seed does, and prints it.
//! - `CALBRIDGE_TWICE=1` runs each seed twice instead of one in sixteen, and compares both histories.
//! - `CALBRIDGE_FROM=N` starts at another seed than 0, so that several machines can share the work.
//! - `CALBRIDGE_EXPLORE_EDITS=N CALBRIDGE_EXPLORE_FAULTS=N` set the bound of the exhaustive exploration.

#![expect(clippy::unwrap_used, reason = "in a test a panic is a finding, and here helpers are tests too")]

mod calbridge;
mod card;
mod explore;
mod histories;
mod mistakes;
mod mutants;
mod oracle;
mod people;
mod random;
mod report;
mod setting;
mod shrink;
mod sim;
mod store;
mod swarm;
mod tally;
mod world;
mod writes;

/// A schedule is mostly small allocations; this allocator makes them in half the time of the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob, not configuration")]
    std::env::var(name).ok()?.parse().ok()
}
