//! `person` and `calendar`: a person's hands on the command line.

use std::path::PathBuf;

use anyhow::Context;
use calbridge_sandbox::endpoints::Mailbox;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::Outcome;
use super::client::{Client, Where, segment};
use super::draft::{Defaults, Draft};
use super::output;

/// `person`
#[derive(Debug, Args)]
pub(super) struct PersonCommand {
    #[command(flatten)]
    place: Where,
    /// Who acts: a mailbox address of the endpoints file [default: the first one]
    #[arg(long = "as", value_name = "ADDRESS")]
    who: Option<String>,
    #[command(subcommand)]
    side: Side,
}

#[derive(Debug, Subcommand)]
enum Side {
    /// Act in Outlook
    Outlook {
        #[command(subcommand)]
        act: Act,
    },
    /// Act in Salesforce
    Salesforce {
        #[command(subcommand)]
        act: Act,
    },
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Create a meeting; prints its id
    Create(Box<Draft>),
    /// Change a meeting
    Update {
        /// Its id
        id: String,
        #[command(flatten)]
        draft: Box<Draft>,
    },
    /// Delete a meeting (in Outlook, from the organiser's calendar, this cancels it for everybody)
    Delete {
        /// Its id
        id: String,
    },
    /// List what is there now, as JSON
    List,
}

/// `calendar`
#[derive(Debug, Args)]
pub(super) struct CalendarCommand {
    #[command(flatten)]
    place: Where,
    /// Whose mailbox [default: the first one]
    #[arg(long, value_name = "ADDRESS")]
    mailbox: Option<String>,
    /// Print the whole answer as JSON
    #[arg(long)]
    json: bool,
    /// The calendar export (.ics)
    file: PathBuf,
}

/// Runs `person`.
pub(super) async fn run(command: PersonCommand) -> anyhow::Result<Outcome> {
    let client = Client::connect(&command.place)?;
    let mailbox = find(&client, command.who.as_deref())?;
    let (side, act) = match command.side {
        Side::Outlook { act } => ("outlook", act),
        Side::Salesforce { act } => ("salesforce", act),
    };
    let base = format!("/people/{}/{side}/events", segment(&mailbox.address));
    match act {
        Act::Create(draft) => {
            let now = now(&client).await?;
            let body = words(&draft, side, &mailbox, Some(now))?;
            let created = client.call(Method::POST, &base, Some(&body)).await?;
            output::print(created.get("id").and_then(Value::as_str).context("the answer has no id")?)?;
        }
        Act::Update { id, draft } => {
            let body = words(&draft, side, &mailbox, None)?;
            client.call(Method::PATCH, &format!("{base}/{}", segment(&id)), Some(&body)).await?;
        }
        Act::Delete { id } => {
            client.call(Method::DELETE, &format!("{base}/{}", segment(&id)), None).await?;
        }
        Act::List => {
            let path = match side {
                "outlook" => format!("/mailboxes/{}/events", segment(&mailbox.address)),
                _ => "/salesforce/events".to_owned(),
            };
            output::print_json(&client.call(Method::GET, &path, None).await?)?;
        }
    }
    Ok(Outcome::Done)
}

/// Runs `calendar`.
pub(super) async fn load_calendar(command: CalendarCommand) -> anyhow::Result<Outcome> {
    let client = Client::connect(&command.place)?;
    let bytes = std::fs::read(&command.file).with_context(|| format!("read `{}`", command.file.display()))?;
    let mailbox = find(&client, command.mailbox.as_deref())?;
    let path = format!("/calendars?mailbox={}", segment(&mailbox.address));
    let loaded = client.post_bytes(&path, bytes).await?;
    if command.json {
        output::print_json(&loaded)?;
        return Ok(Outcome::Done);
    }
    let rows = |key: &str| loaded.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let created = rows("created");
    let mut lines = vec![format!("{} events loaded into {}", created.len(), mailbox.address)];
    for event in created {
        for note in event["notes"].as_array().into_iter().flatten() {
            lines.push(format!("  line {}: {}", event["line"], note.as_str().unwrap_or_default()));
        }
    }
    let not_loaded = rows("not_loaded");
    if !not_loaded.is_empty() {
        lines.push(format!("{} not loaded:", not_loaded.len()));
    }
    for row in not_loaded {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        lines.push(format!("  line {}: {} {:?}: {}", row["line"], text("what"), text("subject"), text("reason")));
    }
    output::print(&lines.join("\n"))?;
    Ok(Outcome::Done)
}

fn find(client: &Client, who: Option<&str>) -> anyhow::Result<Mailbox> {
    let mut everybody = client.endpoints.mailboxes.iter();
    let found = match who {
        Some(who) => everybody.find(|mailbox| mailbox.address.eq_ignore_ascii_case(who)),
        None => everybody.next(),
    };
    found.cloned().with_context(|| {
        let some = client.endpoints.mailboxes.iter().take(10);
        let known: Vec<&str> = some.map(|mailbox| mailbox.address.as_str()).collect();
        format!("nobody has the address `{}`; there are {}", who.unwrap_or_default(), known.join(", "))
    })
}

fn words(draft: &Draft, side: &str, mailbox: &Mailbox, now: Option<DateTime<Utc>>) -> anyhow::Result<Value> {
    let defaults = Defaults { zone: mailbox.zone.parse().unwrap_or(chrono_tz::Tz::UTC), now };
    if side == "outlook" { draft.for_outlook(defaults) } else { draft.for_salesforce(defaults) }
}

async fn now(client: &Client) -> anyhow::Result<DateTime<Utc>> {
    let clock = client.call(Method::GET, "/clock", None).await?;
    clock.get("now").and_then(Value::as_str).context("the sandbox has no clock")?.parse().context("parse its time")
}
