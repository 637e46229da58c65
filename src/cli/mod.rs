//! The command line: reads arguments and configuration, calls the engine through [`Backend`], prints.
//!
//! Data goes to stdout, logs and problems to stderr. Owns exit codes and words; decides nothing about meetings.

mod args;
mod backend;
mod check;
mod config;
mod explain;
mod letters;
mod live;
mod mapping;
mod output;
pub mod pages;
mod run;
mod status;
mod trace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use args::{Args, Command};
pub use backend::{Backend, Failure, RunContext, TraceAnswer, TraceRequest};
pub use live::LiveBackend;
pub use output::{Exit, Output};

/// Runs the command line of this process.
pub fn start(backend: &dyn Backend) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let mut output = Output::standard();
            output.complain(&format!("cannot start the runtime: {error}"));
            return Exit::Failed.into();
        }
    };
    let mut output = Output::standard();
    runtime.block_on(execute(std::env::args_os(), backend, &mut output)).into()
}

/// Runs one command line; the first argument is the program's name.
pub async fn execute(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    backend: &dyn Backend,
    output: &mut Output<'_>,
) -> Exit {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            output.complain(error.render().to_string().trim_end());
            return Exit::Refused;
        }
        Err(help) => {
            output.print(help.render().to_string().trim_end());
            return Exit::Done;
        }
    };
    match args.command {
        Command::Run(args) => Box::pin(run::run(&args, backend, output)).await,
        Command::Check(args) => Box::pin(check::run(&args, backend, output)).await,
        Command::Trace(args) => Box::pin(trace::run(&args, backend, output)).await,
        Command::Status(args) => Box::pin(status::run(&args, backend, output)).await,
        Command::Holds(args) => Box::pin(letters::holds(&args, backend, output)).await,
        Command::DeadLetters(args) => Box::pin(letters::dead_letters(&args, backend, output)).await,
        Command::Mapping(args) => mapping::run(&args, output),
        Command::Explain(args) => explain::run(&args, output),
        Command::Config(args) => config::run(&args, output),
    }
}

#[cfg(test)]
mod tests;
