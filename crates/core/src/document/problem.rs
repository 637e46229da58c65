//! One thing wrong with a file: where, what, and the mend.

use std::fmt;
use std::sync::Arc;

/// A place in a file, or the name of another source of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Path of the file as the person gave it, or words such as an environment variable's name.
    pub source: Arc<str>,
    /// Line, from 1; 0 where the source has no lines.
    pub line: usize,
    /// Column, from 1; 0 where the source has no lines.
    pub column: usize,
}

impl Place {
    /// Makes the place of a whole source without lines.
    pub fn whole(source: impl Into<Arc<str>>) -> Self {
        Self { source: source.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.source) } else { write!(f, "{}:{}", self.source, self.line) }
    }
}

/// What kind of thing is wrong; callers give each kind its stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Not YAML, or over a limit.
    Syntax,
    /// A key that has no meaning here.
    UnknownKey,
    /// A value of another type than expected.
    WrongType,
    /// A key that must be there is not.
    MissingKey,
    /// The same key twice in one mapping.
    DuplicateKey,
    /// A number or text outside its range.
    OutOfRange,
    /// Not one of the choices.
    UnknownChoice,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Syntax,
        Self::UnknownKey,
        Self::WrongType,
        Self::MissingKey,
        Self::DuplicateKey,
        Self::OutOfRange,
        Self::UnknownChoice,
    ];
}

/// One thing wrong, with the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What kind.
    pub fault: Fault,
    /// What is wrong and how to mend it.
    pub message: String,
}
