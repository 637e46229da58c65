//! The demo: a local sandbox of Outlook and Salesforce and the engine between them, in one process, and people who act on
//! both sides. Needs nothing but this program: no service, no account, no network beyond loopback.
//!
//! ```text
//!   main ──> stage (sandbox + engine) ──> story, calendar (people act; crossings are shown) ──> ending (trace, table)
//!                                                             recording ──> recipe (what the naive way would have done)
//! ```

mod after;
mod calendar;
mod ending;
mod recipe;
mod recording;
mod screen;
mod stage;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use calbridge::clock::EngineClock;
use calbridge::ports::Clock as _;
use calbridge_sandbox::Profile;
use clap::Parser;

use crate::calendar::Export;
use crate::screen::{Screen, Tone, second};
use crate::stage::{Setup, Stage};
use crate::story::Told;

/// How noisily the clouds notify. Faults have their tests; a demonstration shows none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Noise {
    /// One notification per change, at once
    Quiet,
    /// What offices see: notifications that are late, repeated and too many
    Office,
}

impl From<Noise> for Profile {
    fn from(noise: Noise) -> Self {
        match noise {
            Noise::Quiet => Self::Quiet,
            Noise::Office => Self::Office,
        }
    }
}

/// Shows meetings crossing between Outlook and Salesforce, over the real protocols, on this machine alone.
///
/// Starts a local sandbox of both clouds and calbridge between them, lets people act on both sides, loads a calendar file,
/// and says at the end what it took. Takes about half a minute.
#[derive(Debug, Parser)]
#[command(
    name = "demo",
    max_term_width = 100,
    after_help = "\
Exit codes:
  0  everything crossed, and the sandbox's oracle found nothing lost, duplicated, looped or diverged
  1  something did not; the last lines say what
  2  wrong arguments, or a calendar file that cannot be read

Examples:
  cargo run --example demo
  cargo run --example demo -- --calendar my-export.ics
  cargo run --example demo -- --profile office --keep-running"
)]
struct Args {
    /// Calendar export to load instead of the bundled one; may be repeated
    ///
    /// If its events are past, the clocks of sandbox and engine are moved to the day before the first one; the events stay
    /// as they are.
    #[arg(long = "calendar", value_name = "FILE.ics")]
    calendars: Vec<PathBuf>,

    /// Leave sandbox and engine running at the end and print what to try next
    #[arg(long)]
    keep_running: bool,

    /// Seconds of the clock per real second; all times shown are the clock's [default: 1; office: 10]
    #[arg(long, value_name = "X", value_parser = speed)]
    speed: Option<f64>,

    /// How noisily the clouds notify: at once and once, or late, repeatedly and in bursts as in real offices
    #[arg(long, value_enum, default_value_t = Noise::Quiet)]
    profile: Noise,

    /// No colours and no moving lines (also when the output is no terminal, or NO_COLOR is set)
    #[arg(long)]
    plain: bool,

    /// Show the log of sandbox and engine on stderr
    #[arg(long)]
    verbose: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_invalid| "not a number".to_owned())?;
    if (0.5..=100.0).contains(&speed) { Ok(speed) } else { Err("give a number from 0.5 to 100".to_owned()) }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let screen = Screen::new(args.plain);
    if args.verbose {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    }
    let exports = match Export::open(&args.calendars) {
        Ok(exports) => exports,
        Err(error) => {
            screen.paragraph(Tone::Bad, 0, &format!("{error:#}"));
            return ExitCode::from(2);
        }
    };
    match run(&args, &screen, &exports).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.gap();
            screen.paragraph(Tone::Bad, 0, &format!("The demo could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Plays everything; true if all is as it should be.
async fn run(args: &Args, screen: &Screen, exports: &[Export]) -> anyhow::Result<bool> {
    let began = Instant::now();
    let now = EngineClock::wall().now();
    let start_at = calendar::start_at(exports, now);
    let speed = args.speed.unwrap_or(if args.profile == Noise::Office { 10.0 } else { 1.0 });
    let setup = Setup { profile: args.profile.into(), speed, start_at };
    introduce(screen, &setup, start_at < now);
    let stage = Stage::start(&setup, screen).await?;
    screen.outcome(stage.clock.now(), "listening: 3 mailboxes over Event Hubs, the Salesforce org over Pub/Sub");

    let mut told = Told::default();
    let good = tokio::select! {
        good = play(&stage, screen, exports, &mut told) => good,
        asked = after::asked_to_stop() => {
            asked?;
            screen.waited();
            screen.paragraph(Tone::Plain, 0, "Stopped before the end.");
            stage.end().await?;
            return Ok(false);
        }
    };
    match &good {
        Ok(_) => {
            let took = began.elapsed().as_secs_f64();
            let next = match args.profile {
                Noise::Quiet => " Next: `-- --profile office`, where notifications are late, repeated and too many.",
                Noise::Office => "",
            };
            screen.paragraph(Tone::Quiet, 3, &format!("The whole run took {took:.0} s.{next}"));
        }
        Err(error) => screen.paragraph(Tone::Bad, 0, &format!("Something did not cross: {error:#}")),
    }
    if args.keep_running {
        after::keep_running(&stage, screen).await?;
    }
    stage.end().await?;
    Ok(good.unwrap_or(false))
}

async fn play(stage: &Stage, screen: &Screen, exports: &[Export], told: &mut Told) -> anyhow::Result<bool> {
    story::play(stage, screen, told).await?;
    for (number, export) in (9..).zip(exports) {
        calendar::cross(stage, screen, number, export, told).await?;
    }
    screen.title("Now nobody does anything: whatever still echoes must end by itself");
    let (report, writes) = ending::judged(stage, screen).await?;
    let text = format!("both sides have been at rest for {} s; {writes} since then", ending::SETTLE_SECS);
    screen.outcome(report.judged_at, &text);
    ending::trace_of(stage, screen, told).await?;
    ending::table(stage, screen, &report).await?;
    Ok(ending::verdict(screen, &report, told))
}

fn introduce(screen: &Screen, setup: &Setup, moved: bool) {
    screen.paragraph(Tone::Title, 0, "calbridge keeps meetings in Outlook and Salesforce in step. Watch it:");
    screen.gap();
    let text = "Outlook (Microsoft Graph, Event Hubs) and Salesforce (REST, Pub/Sub) are local sandboxes in this process, \
                reached over their real protocols. Ada, Ben and Chiara have a mailbox and a Salesforce user each.";
    screen.paragraph(Tone::Plain, 3, text);
    let why = if moved { ", moved back because the calendar file is past" } else { "" };
    let fast = if (setup.speed - 1.0).abs() < f64::EPSILON {
        String::new()
    } else {
        format!(" and runs {} times as fast as the wall clock", setup.speed)
    };
    let text = format!(
        "The clock shows {}{why}{fast}. Times are UTC; all times and latencies are this clock's. calbridge waits until a \
         meeting has been quiet for 0.75 s before it writes.",
        second(setup.start_at)
    );
    screen.paragraph(Tone::Plain, 3, &text);
    screen.gap();
}
