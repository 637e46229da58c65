//! `serve`: runs the sandbox.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use calbridge_sandbox::person::LoadedCalendar;
use calbridge_sandbox::{Endpoints, Options, Profile, Sandbox};
use chrono::{DateTime, Utc};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Outcome;

/// `serve`
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Write addresses and credentials to this file when all servers accept connections (removed at the end)
    #[arg(long, value_name = "FILE", default_value = "sandbox-endpoints.json")]
    endpoints: PathBuf,
    /// Load this calendar export into the first mailbox (may be given several times)
    #[arg(long = "calendar", value_name = "FILE.ics")]
    calendars: Vec<PathBuf>,
    /// Mailboxes, each with a Salesforce user of the same address
    #[arg(long, value_name = "N", default_value_t = 3)]
    mailboxes: usize,
    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How noisily the clouds notify: one notification per change, or the bursts that offices see
    #[arg(long, value_enum, default_value_t = Profile::Quiet)]
    profile: Profile,
    /// First of eight fixed ports: control, graph http, graph https, amqp, amqps, salesforce http, https, pub/sub;
    /// 0 takes free ports
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_base: u16,
    /// Sandbox time at start, RFC 3339 such as 2020-09-01T08:00:00Z [default: the present]
    #[arg(long, value_name = "T")]
    start_at: Option<DateTime<Utc>>,
    /// Sandbox seconds per real second
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    speed: f64,
    /// Event Hubs partitions
    #[arg(long, value_name = "N", default_value_t = 4)]
    partitions: usize,
    /// Folder for the CA certificate and the Salesforce key [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Runs the sandbox until it is told to stop.
pub(super) async fn run(command: Serve) -> anyhow::Result<Outcome> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;

    let options = Options {
        mailboxes: command.mailboxes,
        seed: command.seed,
        profile: command.profile,
        port_base: command.port_base,
        calendars: command.calendars,
        start_at: command.start_at,
        speed: command.speed,
        partitions: command.partitions,
        state_dir: command.state_dir,
    };
    let sandbox = Box::pin(Sandbox::start(options)).await.context("failed to start")?;
    for loaded in sandbox.loaded_calendars() {
        report_calendar(loaded);
    }
    write_endpoints(&command.endpoints, sandbox.endpoints())?;
    let file = command.endpoints.display();
    tracing::info!("ready at {}; endpoints are in {file}", sandbox.endpoints().control_url);

    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping on Ctrl-C"),
    }
    sandbox.stop().await;
    if let Err(error) = std::fs::remove_file(&command.endpoints) {
        tracing::debug!(%error, "endpoints file was already gone");
    }
    Ok(Outcome::Done)
}

/// Writes beside the file and renames, so that nobody ever reads half of it.
fn write_endpoints(path: &Path, endpoints: &Endpoints) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = || format!("write endpoints file `{}`", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(context)?;
    serde_json::to_writer_pretty(&mut file, endpoints).with_context(context)?;
    file.write_all(b"\n").with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}

/// Logs counts and reasons; subjects of a real calendar stay out of logs.
fn report_calendar(loaded: &LoadedCalendar) {
    let file = loaded.file.as_deref().unwrap_or_default();
    let (created, skipped) = (loaded.created.len(), loaded.not_loaded.len() + loaded.not_loaded_beyond);
    tracing::info!("{file}: loaded {created} events, left out {skipped}");
    for row in &loaded.not_loaded {
        tracing::info!("{file} line {}: {} left out: {}", row.line, row.what, row.reason);
    }
}
