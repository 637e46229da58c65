//! The arguments and their help.

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed, or the answer is no (a check or test that did not pass)
  2  wrong arguments, configuration or mapping file; or the database belongs to another process
  3  nothing was found";

/// Keeps meetings in Outlook and Salesforce in step, both ways.
#[derive(Debug, Parser)]
#[command(name = "calbridge", version, about, max_term_width = 100, after_help = EXIT_CODES)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sync until stopped
    ///
    /// Listens to both sides, writes what has to be written, and records every decision. SIGTERM and ctrl-c finish what is
    /// under way and stop. Probes and metrics answer on `web.address`.
    #[command(
        after_help = "Examples:\n  calbridge run --config calbridge.yaml\n  calbridge run --sandbox-endpoints target/sandbox.json\n  calbridge run --restored --config calbridge.yaml"
    )]
    Run(RunArgs),

    /// Prove that everything is in order before running
    ///
    /// Reads configuration and mapping, tries every address, then does on both sides what the engine will do: signs in,
    /// finds the users, reads, and looks for the fields and permissions that writes need. Writes nothing. A failure names
    /// what is missing.
    #[command(after_help = "Example:\n  calbridge check --config calbridge.yaml")]
    Check(CheckArgs),

    /// Tell the story of a meeting
    ///
    /// Finds meetings by any id (Outlook event, change key, iCalUId, Salesforce, link), by words of the subject, or by
    /// mailbox and day. Says first how things stand, then what happened on both sides in order. Works beside a running
    /// engine, on a stopped one, and for deleted meetings.
    #[command(
        after_help = "Examples:\n  calbridge trace 00U5e000001abcdEAA --config calbridge.yaml\n  calbridge trace \"quarterly review\" --config calbridge.yaml\n  calbridge trace --mailbox anna@contoso.com --on 2026-12-01 --config calbridge.yaml"
    )]
    Trace(TraceArgs),

    /// Show how things stand
    ///
    /// Links, what waits and since when, open writes, dead letters, streams and their positions, enrolments.
    #[command(after_help = "Example:\n  calbridge status --config calbridge.yaml --json")]
    Status(DataArgs),

    /// See and decide what waits for approval
    ///
    /// A hold is a write that calbridge does not make by itself: one of many deletions at once, a change that no person made
    /// and that would mail attendees, too many mails by one author, a pair whose common past is lost. It blocks nothing else.
    #[command(
        after_help = "Examples:\n  calbridge holds list --config calbridge.yaml\n  calbridge holds approve 0199f0c2-8d1e --config calbridge.yaml\n  calbridge holds discard --all --reason mail_fuse --config calbridge.yaml"
    )]
    Holds(HoldsArgs),

    /// See and mend what failed
    ///
    /// A dead letter is a meeting that failed and needs a person, or a message that could not be read. It blocks nothing else,
    /// and a new edit of the meeting tries again.
    #[command(
        after_help = "Examples:\n  calbridge dead-letters list --config calbridge.yaml\n  calbridge dead-letters retry --all --config calbridge.yaml\n  calbridge dead-letters keep outlook 0199f0c2-8d1e --config calbridge.yaml"
    )]
    DeadLetters(DeadLettersArgs),

    /// Check and test mapping files
    Mapping(MappingArgs),

    /// Explain a reason or an error code
    ///
    /// Prints what it means, where it comes from and what to do: by code (`CB2014`) or by name (`conflict_outlook_wins`).
    /// Without an argument, lists all of them.
    #[command(after_help = "Examples:\n  calbridge explain needs_adopt\n  calbridge explain CB1009")]
    Explain(ExplainArgs),

    /// Print what can be configured
    Config(ConfigurationArgs),
}

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file; a file overrides the built-in defaults key by key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Take addresses, credentials, mailboxes and clock from a local sandbox's endpoints file
    #[arg(long, value_name = "FILE")]
    pub sandbox_endpoints: Option<PathBuf>,
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// The database was restored from a backup: read everything again and trust what the records say
    ///
    /// Where Redis is used this is noticed without being told. Once is enough; again does no harm.
    #[arg(long)]
    pub restored: bool,
}

/// Arguments of commands that print data.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Only read configuration and mapping; try no address
    #[arg(long)]
    pub offline: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `trace`.
#[derive(Debug, clap::Args)]
pub struct TraceArgs {
    /// Any id of the meeting, or words of its subject
    #[arg(value_name = "ANYTHING", required_unless_present = "mailbox", conflicts_with = "mailbox")]
    pub anything: Vec<String>,

    /// Meetings of this mailbox
    #[arg(long, value_name = "ADDRESS", requires = "on")]
    pub mailbox: Option<String>,

    /// Day, in the mailbox's zone
    #[arg(long, value_name = "DATE", requires = "mailbox")]
    pub on: Option<NaiveDate>,

    /// Show field values too (subjects, places, bodies)
    #[arg(long)]
    pub values: bool,

    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `holds`.
#[derive(Debug, clap::Args)]
pub struct HoldsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: HoldsCommand,
}

/// The commands of `holds`.
#[derive(Debug, Subcommand)]
pub enum HoldsCommand {
    /// List what is held
    List(ListArgs),
    /// Do what is held
    Approve(PickArgs),
    /// Do not do what is held
    ///
    /// A held deletion is forgotten and what is there stays, no longer synced. Of a held mail Outlook's values are put back
    /// in Salesforce, so that both sides agree again; nobody is mailed.
    Discard(PickArgs),
}

/// Arguments of `dead-letters`.
#[derive(Debug, clap::Args)]
pub struct DeadLettersArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

/// The commands of `dead-letters`.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List what failed
    List(ListArgs),
    /// Show one of them with its story
    Show(ShowArgs),
    /// Try again
    Retry(PickArgs),
    /// Leave it alone until the next edit
    Skip(PickArgs),
    /// Make both sides hold one side's values
    Keep(KeepArgs),
}

/// Arguments of lists.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those with this reason, by name or code
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,

    /// Only those of this mailbox
    #[arg(long, value_name = "ADDRESS")]
    pub mailbox: Option<String>,

    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of commands that show one.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Id of the list (its beginning is enough), or any id of the meeting
    #[arg(value_name = "ID")]
    pub id: String,

    /// Show field values too (subjects, places, bodies)
    #[arg(long)]
    pub values: bool,

    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of commands that decide about some.
#[derive(Debug, clap::Args)]
pub struct PickArgs {
    /// Ids of the list (their beginnings are enough), or any id of the meetings
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,

    /// All of them
    #[arg(long)]
    pub all: bool,

    /// Only those with this reason, by name or code
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,

    /// Only those of this mailbox
    #[arg(long, value_name = "ADDRESS")]
    pub mailbox: Option<String>,

    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dead-letters keep`.
#[derive(Debug, clap::Args)]
pub struct KeepArgs {
    /// Whose values
    #[arg(value_enum)]
    pub side: KeptSide,

    /// Which ones.
    #[command(flatten)]
    pub pick: PickArgs,
}

/// A side as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeptSide {
    /// Outlook.
    Outlook,
    /// Salesforce.
    Salesforce,
}

/// Arguments of `mapping`.
#[derive(Debug, clap::Args)]
pub struct MappingArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: MappingCommand,
}

/// The commands of `mapping`.
#[derive(Debug, Subcommand)]
pub enum MappingCommand {
    /// Find everything that is wrong with a mapping file
    #[command(after_help = "Example:\n  calbridge mapping lint mappings/acme.yaml")]
    Lint(MappingFileArgs),

    /// Run the `tests:` of a mapping file
    #[command(after_help = "Example:\n  calbridge mapping test mappings/acme.yaml")]
    Test(MappingFileArgs),

    /// Print the built-in mapping, as a beginning of one's own
    #[command(after_help = "Example:\n  calbridge mapping default > mappings/acme.yaml")]
    Default,
}

/// Arguments of commands about one mapping file.
#[derive(Debug, clap::Args)]
pub struct MappingFileArgs {
    /// Mapping file; the built-in one if none is given
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// A reason's name, or a code such as CB2014
    #[arg(value_name = "REASON")]
    pub reason: Option<String>,
}

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct ConfigurationArgs {
    /// What to print.
    #[command(subcommand)]
    pub command: ConfigurationCommand,
}

/// The commands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigurationCommand {
    /// Print the reference of all options, in Markdown
    Reference,
    /// Print the built-in defaults, in YAML, as a beginning of one's own
    Default,
}
