//! The story of one meeting across both systems, for people.
//!
//! [`timeline`] builds it from what the store knows, [`verdict`] says in one line where the meeting stands, [`render`]
//! prints it. Pure functions: the command line and the web page show the same story.

mod message;
pub mod render;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod verdict;

pub use message::message;
pub use render::{json, text};
pub use timeline::{Timeline, story};
pub use verdict::Verdict;
