//! What is wrong with the configuration: code, file, line, what, and the mend.

use calbridge_core::document::{Fault, Place, Problem};
use calbridge_core::mapping::MappingProblem;
use serde::Serialize;
use thiserror::Error;

/// One thing wrong with the configuration or the mapping file that it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Error)]
#[error("{}{message} ({code})", at(file, *line))]
pub struct ConfigProblem {
    /// The file, or words for another source.
    pub file: String,
    /// Line, from 1; 0 where the source has no lines.
    pub line: usize,
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub code: &'static str,
    /// What is wrong and how to mend it; never a secret.
    pub message: String,
}

fn at(file: &str, line: usize) -> String {
    if line == 0 { format!("{file}: ") } else { format!("{file}:{line}: ") }
}

/// The file with the configuration cannot be read.
pub(super) const UNREADABLE: &str = "CB1001";
/// A secret is missing, given twice, or its file cannot be used.
pub(super) const SECRET: &str = "CB1009";
/// A value has not the form of an address, id or name.
pub(super) const FORM: &str = "CB1010";
/// An enrolment cannot be used.
pub(super) const ENROLMENT: &str = "CB1011";
/// An environment variable sets what it may not.
pub(super) const ENVIRONMENT: &str = "CB1012";
/// Two values contradict each other.
pub(super) const CONTRADICTION: &str = "CB1013";
/// The endpoints file of the local sandbox cannot be used.
pub(super) const ENDPOINTS: &str = "CB1014";
/// An address does not answer.
pub(super) const UNREACHABLE: &str = "CB1015";
/// A secret's file can be read by everybody on the machine; a warning.
pub(super) const SECRET_OPEN: &str = "CB1016";
/// The mapping file cannot be read.
pub(super) const MAPPING_UNREADABLE: &str = "CB1101";

impl ConfigProblem {
    /// Makes a problem at a place.
    pub(super) fn new(place: &Place, code: &'static str, message: impl Into<String>) -> Self {
        Self { file: place.source.to_string(), line: place.line, code, message: message.into() }
    }
}

impl From<Problem> for ConfigProblem {
    fn from(problem: Problem) -> Self {
        let code = match problem.fault {
            Fault::Syntax => "CB1002",
            Fault::UnknownKey => "CB1003",
            Fault::WrongType => "CB1004",
            Fault::MissingKey => "CB1005",
            Fault::DuplicateKey => "CB1006",
            Fault::OutOfRange => "CB1007",
            Fault::UnknownChoice => "CB1008",
        };
        Self::new(&problem.place, code, problem.message)
    }
}

impl From<MappingProblem> for ConfigProblem {
    fn from(problem: MappingProblem) -> Self {
        Self { file: problem.file, line: problem.line, code: problem.code, message: problem.message }
    }
}
