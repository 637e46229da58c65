//! `plan` and `settle`, one question at a time: every cell of their tables, and the laws that hold for any input.

#![expect(clippy::unwrap_used, reason = "in a test a panic is a finding, and here helpers are tests too")]

mod answers;
mod audit;
mod authors;
mod backups;
mod caution;
mod cover;
mod generations;
mod intents;
mod laws;
mod mapping_laws;
mod merge;
mod presence;
mod restored;
mod returns;
mod scene;
mod settle;
mod unlinked;
