//! Mapping: which field becomes which, and how values convert.

mod apply;
mod compile;
mod known;
mod parse;
mod spec;
mod tests_in_file;

pub use apply::Law;
pub use compile::{Kind, Mapping, Rule, TIME};
pub use spec::{Conflict, Direction, FieldSpec, Initial, MappingProblem, MappingSpec, Problems, TestSpec};
pub use tests_in_file::{TestFailure, TestOutcome};
