//! Mapping: which field becomes which, and how values convert.

mod apply;
mod compile;
mod spec;

pub use apply::Law;
pub use compile::{Kind, Mapping, Rule, TIME};
pub use spec::{Conflict, Direction, FieldSpec, Initial, MappingProblem, MappingSpec, Problems};
