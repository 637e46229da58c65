//! The command line: `serve` runs the sandbox, everything else talks to a running one through its control API.
//!
//! Data goes to stdout, logs and errors to stderr.

mod client;
mod draft;
mod output;
mod person;
mod reading;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The oracle reached a verdict.
const NOT_CLEAN: u8 = 3;

/// What a command ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All went well.
    Done,
    /// The oracle reached a verdict.
    NotClean,
}

#[derive(Debug, Parser)]
#[command(
    name = "calbridge-sandbox",
    version,
    about = "A local sandbox of Microsoft Graph, Event Hubs and Salesforce, on loopback only",
    long_about = "A local sandbox of Microsoft Graph, Event Hubs and Salesforce, on loopback only.\n\n\
        Start it with `serve`, connect any client to the addresses in its endpoints file, act as a person on either side \
        with `person`, and read what happened with `counters` and `oracle`.",
    after_help = "Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 the oracle found a lost, duplicated, looped or \
        diverged meeting, or a mail without cause.\n\nData goes to stdout, logs and errors go to stderr."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sandbox until Ctrl-C or SIGTERM
    Serve(serve::Serve),
    /// Act as a person in Outlook or Salesforce
    Person(person::PersonCommand),
    /// Show all switches, or set some: `switch outlook_if_match=false hub_drop_next=2`
    Switch(reading::SwitchCommand),
    /// Let something befall the clouds at once: `act take_licence person=ada.berger@contoso.example`, `act calm`
    Act(reading::ActCommand),
    /// Show API calls, request units, mails, notifications and changes
    Counters(reading::CountersCommand),
    /// Show what was lost, duplicated, looped, diverged or mailed without cause (exit code 3 if anything was)
    Oracle(reading::OracleCommand),
    /// Load a calendar export (.ics) into a mailbox of the running sandbox
    Calendar(person::CalendarCommand),
    /// Cut all Event Hubs connections
    CutHub(reading::CutHubCommand),
}

/// Runs the command line and returns the process's exit code.
pub(crate) async fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Serve(command) => Box::pin(serve::run(command)).await,
        Command::Person(command) => person::run(command).await,
        Command::Switch(command) => reading::switch(command).await,
        Command::Act(command) => reading::act(command).await,
        Command::Counters(command) => reading::counters(command).await,
        Command::Oracle(command) => reading::oracle(command).await,
        Command::Calendar(command) => person::load_calendar(command).await,
        Command::CutHub(command) => reading::cut_hub(command).await,
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NotClean) => ExitCode::from(NOT_CLEAN),
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
