//! `plan` and `settle`, one question at a time: every cell of their tables, and the laws that hold for any input.

mod cover;
mod intents;
mod laws;
mod merge;
mod presence;
mod scene;
mod settle;
mod unlinked;
