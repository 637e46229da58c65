//! Where output goes, and how a command ends.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::ConfigProblem;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// It failed, or the answer is no.
    Failed,
    /// Wrong arguments, configuration or mapping; or the database belongs to another process.
    Refused,
    /// Nothing was found.
    NotFound,
}

impl Exit {
    /// Returns the exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::NotFound => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Two streams: data and complaints.
pub struct Output<'a> {
    data: Box<dyn Write + Send + 'a>,
    complaints: Box<dyn Write + Send + 'a>,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

impl<'a> Output<'a> {
    /// Writes to the process's stdout and stderr.
    pub fn standard() -> Self {
        Self::to(std::io::stdout(), std::io::stderr())
    }

    /// Writes anywhere.
    pub fn to(data: impl Write + Send + 'a, complaints: impl Write + Send + 'a) -> Self {
        Self { data: Box::new(data), complaints: Box::new(complaints) }
    }

    /// Prints data.
    pub fn print(&mut self, text: &str) {
        // A reader that went away (`| head`) is no reason to fail.
        let _closed = writeln!(self.data, "{text}").and_then(|()| self.data.flush());
    }

    /// Prints data as JSON.
    pub fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.print(&text),
            Err(error) => self.complain(&format!("cannot print this as JSON: {error}")),
        }
    }

    /// Prints a complaint.
    pub fn complain(&mut self, text: &str) {
        let _closed = writeln!(self.complaints, "{text}").and_then(|()| self.complaints.flush());
    }

    /// Prints problems with files, one a line.
    pub fn problems(&mut self, problems: &[ConfigProblem]) {
        for problem in problems {
            self.complain(&problem.to_string());
        }
        let noun = if problems.len() == 1 { "problem" } else { "problems" };
        self.complain(&format!("{} {noun}; `calbridge explain CODE` tells more about each code", problems.len()));
    }
}
