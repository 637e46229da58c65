//! Entry: hands the process to the command line.

use std::process::ExitCode;

use calbridge::cli::{self, LiveBackend};

fn main() -> ExitCode {
    cli::start(&LiveBackend)
}
