//! Reading YAML files that people write: a tree that knows the line of everything, and a reader that finds all faults.
//!
//! Owns syntax, limits and the words of the messages. Knows nothing of mappings or configuration, and does no IO: the
//! caller gives the text. No input makes it panic.

mod nearest;
mod problem;
mod reader;
mod tree;

pub use nearest::nearest;
pub use problem::{Fault, Place, Problem};
pub use reader::{Found, Report, Section};
pub use tree::{Entry, Node, Shape, overlay, parse};
