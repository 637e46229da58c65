//! `status`: how things stand, from the database alone.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::args::DataArgs;
use super::backend::{Backend, Failure};
use super::config;
use super::output::{Exit, Output};
use crate::clock::EngineClock;
use crate::config::Config;
use crate::ports::{Clock, EnrolmentRow, OpenLetter, Store, StoreError, StoreStatus, SubscriptionRow};

/// Most dead letters that are listed.
const DEAD_LETTERS: usize = 20;

struct Seen {
    now: DateTime<Utc>,
    status: StoreStatus,
    enrolments: Vec<EnrolmentRow>,
    subscriptions: Vec<SubscriptionRow>,
    dead_letters: Vec<OpenLetter>,
}

/// Reads the database and prints how things stand.
pub(super) async fn run(args: &DataArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            output.problems(&problems);
            return Exit::Refused;
        }
    };
    let seen = match backend.open_store(&config).await {
        Ok(store) => read(&config, &*store).await,
        Err(failure) => {
            output.complain(&failure.to_string());
            return match failure {
                Failure::Refused(_) => Exit::Refused,
                Failure::Failed(_) => Exit::Failed,
            };
        }
    };
    match seen {
        Ok(seen) if args.json => output.json(&as_json(&config, &seen)),
        Ok(seen) => output.print(as_text(&config, &seen).trim_end()),
        Err(error) => {
            output.complain(&error.to_string());
            return Exit::Failed;
        }
    }
    Exit::Done
}

async fn read(config: &Config, store: &dyn Store) -> Result<Seen, StoreError> {
    Ok(Seen {
        now: EngineClock::wall().now(),
        status: store.status().await?,
        enrolments: store.enrolments(&config.connection).await?,
        subscriptions: store.subscriptions(&config.connection).await?,
        dead_letters: store.letters(false, DEAD_LETTERS).await?,
    })
}

fn as_json(config: &Config, seen: &Seen) -> Value {
    json!({
        "connection": config.connection,
        "at": moment(seen.now),
        "store": seen.status,
        "enrolments": seen.enrolments.iter().map(|row| json!({
            "mailbox": row.address,
            "mailbox_id": row.enrolment.mailbox,
            "salesforce_user": row.enrolment.user,
            "zone": row.zone,
            "enrolled_at": moment(row.enrolment.enrolled_at),
            "first_round_done": row.first_round_done,
        })).collect::<Vec<_>>(),
        "subscriptions": seen.subscriptions.iter().map(|row| json!({
            "id": row.id,
            "mailbox_id": row.mailbox,
            "expires_at": moment(row.expires_at),
        })).collect::<Vec<_>>(),
        "dead_letters": seen.dead_letters.iter().map(|open| (&open.id, &open.letter)).map(|(id, letter)| json!({
            "id": id,
            "meeting": letter.link,
            "record": letter.record.as_ref().map(calbridge_core::ids::RecordId::key),
            "reason": letter.reason,
            "code": letter.reason.code(),
            "detail": letter.detail,
            "at": moment(letter.at),
            "message": letter.message,
        })).collect::<Vec<_>>(),
    })
}

fn as_text(config: &Config, seen: &Seen) -> String {
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("writing to a String cannot fail");
    let status = &seen.status;
    line(format!("connection {} at {}", config.connection, moment(seen.now)));
    line(match status.oldest_waiting {
        _ if status.waiting == 0 => "nothing waits".to_owned(),
        Some(since) => format!("{} meetings wait, the oldest since {}", status.waiting, moment(since)),
        None => format!("{} meetings wait", status.waiting),
    });
    let links: Vec<String> = status.links.iter().map(|(state, count)| format!("{count} {state}")).collect();
    line(format!("links: {}", if links.is_empty() { "none".to_owned() } else { links.join(", ") }));
    line(format!(
        "open writes: {}; journal: {} rows; duplicates dropped: {}",
        status.intents,
        status.journal,
        status.duplicates.values().sum::<u64>()
    ));
    line(format!("\nstreams: {}", status.checkpoints.len()));
    for (stream, position) in &status.checkpoints {
        line(format!("  {stream}  at {}", brief(position)));
    }
    line(format!("\nenrolments: {}", seen.enrolments.len()));
    for row in &seen.enrolments {
        let first = if row.first_round_done { "in step since the first round" } else { "first round still to come" };
        line(format!(
            "  {}  -> {}  {}  enrolled {}  {first}",
            row.address,
            row.enrolment.user,
            row.zone,
            moment(row.enrolment.enrolled_at)
        ));
    }
    let soonest = seen.subscriptions.iter().map(|row| row.expires_at).min();
    line(match soonest {
        Some(at) => format!("\nGraph subscriptions: {}, the first ends {}", seen.subscriptions.len(), moment(at)),
        None => "\nGraph subscriptions: none".to_owned(),
    });
    line(format!("\nmessages set aside: {}", status.rejects.iter().map(|reject| reject.count).sum::<u64>()));
    for reject in &status.rejects {
        line(format!(
            "  {}  {} ({}): {}  {}, last {}",
            reject.count,
            reject.reason,
            reject.reason.code(),
            reject.detail,
            if reject.stream.is_empty() { reject.side.name() } else { &reject.stream },
            moment(reject.last_at)
        ));
    }
    line(format!("\ndead letters: {}", status.dead_letters));
    for letter in seen.dead_letters.iter().map(|open| &open.letter) {
        if let Some(about) = &letter.message {
            line(format!(
                "  {}  message {}  {} ({}): {}, {} bytes, {} times",
                moment(about.last_at),
                about.id,
                letter.reason,
                letter.reason.code(),
                letter.detail,
                about.size,
                about.times
            ));
            continue;
        }
        let meeting = match (&letter.link, &letter.record) {
            (Some(link), _) => link.to_string(),
            (None, Some(record)) => record.key(),
            (None, None) => "(no meeting)".to_owned(),
        };
        line(format!(
            "  {}  {meeting}  {} ({}): {}",
            moment(letter.at),
            letter.reason,
            letter.reason.code(),
            letter.reason.words()
        ));
    }
    if status.dead_letters > 0 {
        if seen.dead_letters.len() < usize::try_from(status.dead_letters).unwrap_or(usize::MAX) {
            line(format!("  these are the newest {}", seen.dead_letters.len()));
        }
        line("  `calbridge dead-letters list` names them, `calbridge explain REASON` says what to do".to_owned());
    }
    line(format!("\nholds: {}", status.holds.values().sum::<u64>()));
    for (reason, count) in &status.holds {
        line(format!("  {count}  {reason}"));
    }
    if !status.holds.is_empty() {
        line("  `calbridge holds list` names them, `calbridge holds approve|discard` decides".to_owned());
    }
    text
}

fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Positions may be long tokens; their beginning tells them apart.
fn brief(text: &str) -> String {
    if text.chars().count() <= 40 {
        return text.to_owned();
    }
    let head: String = text.chars().take(37).collect();
    format!("{head}...")
}
