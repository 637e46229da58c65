//! `switch`, `act`, `counters`, `oracle`, `cut-hub`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::client::{Client, Where, segment};
use super::output;

/// `switch`
#[derive(Debug, Args)]
pub(super) struct SwitchCommand {
    #[command(flatten)]
    place: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Switches to set; without any, all are shown
    #[arg(value_name = "NAME=VALUE")]
    changes: Vec<String>,
}

/// `counters`
#[derive(Debug, Args)]
pub(super) struct CountersCommand {
    #[command(flatten)]
    place: Where,
    /// Print JSON, changes per record included
    #[arg(long)]
    json: bool,
}

/// `oracle`
#[derive(Debug, Args)]
pub(super) struct OracleCommand {
    #[command(flatten)]
    place: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Seconds (sandbox time) of quiet after which differences count [default: 30]
    #[arg(long, value_name = "N")]
    settle_secs: Option<u32>,
    /// Client ids of the bridge, comma separated [default: every application]
    #[arg(long, value_name = "IDS")]
    bridge: Option<String>,
    /// Meetings with attendees flow from Outlook to Salesforce only
    #[arg(long)]
    attendees_one_way: bool,
}

/// `act`
#[derive(Debug, Args)]
pub(super) struct ActCommand {
    #[command(flatten)]
    place: Where,
    /// Name, such as `take_licence`; the sandbox's README lists them
    name: String,
    /// Details: `person=ADDRESS`, `record=ID`, `records=ID,ID`
    #[arg(value_name = "NAME=VALUE")]
    details: Vec<String>,
}

/// `cut-hub`
#[derive(Debug, Args)]
pub(super) struct CutHubCommand {
    #[command(flatten)]
    place: Where,
}

/// Shows or sets switches.
pub(super) async fn switch(command: SwitchCommand) -> anyhow::Result<Outcome> {
    let client = Client::connect(&command.place)?;
    let switches = if command.changes.is_empty() {
        client.call(Method::GET, "/switches", None).await?
    } else {
        let mut changes = Map::new();
        for change in &command.changes {
            let (name, value) =
                change.split_once('=').with_context(|| format!("`{change}` is not of the form NAME=VALUE"))?;
            changes.insert(name.trim().to_owned(), parse_value(value.trim())?);
        }
        client.call(Method::PATCH, "/switches", Some(&Value::Object(changes))).await?
    };
    if command.json {
        output::print_json(&switches)?;
    } else {
        let rows = switches.as_object().into_iter().flatten();
        let lines: Vec<String> = rows.map(|(name, value)| format!("{name}={value}")).collect();
        output::print(&lines.join("\n"))?;
    }
    Ok(Outcome::Done)
}

fn parse_value(text: &str) -> anyhow::Result<Value> {
    match text {
        "true" | "on" | "yes" => Ok(json!(true)),
        "false" | "off" | "no" => Ok(json!(false)),
        number => match number.parse::<u64>() {
            Ok(number) => Ok(json!(number)),
            Err(_) => bail!("`{text}` is neither true, false nor a count"),
        },
    }
}

/// Shows counters.
pub(super) async fn counters(command: CountersCommand) -> anyhow::Result<Outcome> {
    let client = Client::connect(&command.place)?;
    let counters = client.call(Method::GET, "/counters", None).await?;
    if command.json {
        output::print_json(&counters)?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["who", "what", "count"]);
    for (caller, kinds) in counters["calls"].as_object().into_iter().flatten() {
        for (kind, count) in kinds.as_object().into_iter().flatten() {
            table.add_row([caller.clone(), kind.clone(), count.to_string()]);
        }
    }
    for (what, key) in [("request units", "units"), ("mails sent", "mails")] {
        for (caller, count) in counters[key].as_object().into_iter().flatten() {
            table.add_row([caller.clone(), what.to_owned(), count.to_string()]);
        }
    }
    for (fault, count) in counters["faults"].as_object().into_iter().flatten() {
        table.add_row(["fault".to_owned(), fault.clone(), count.to_string()]);
    }
    for ((actor, what), count) in changes_by_actor(&counters) {
        table.add_row([actor, what, count.to_string()]);
    }
    table.add_row(["graph", "notifications", &counters["notifications"].to_string()]);
    table.add_row(["salesforce", "change events", &counters["change_events"].to_string()]);
    output::print(&table.to_string())?;
    Ok(Outcome::Done)
}

/// Sums the changes of all records by author and kind.
fn changes_by_actor(counters: &Value) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for record in counters["records"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let actor = format!("{} {}", text(&record["actor"]["kind"]), text(&record["actor"]["id"]));
        for kind in ["creates", "updates", "touches", "deletes"] {
            let count = record[kind].as_u64().unwrap_or_default();
            if count > 0 {
                *sums.entry((actor.clone(), format!("{} {kind}", text(&record["cloud"])))).or_default() += count;
            }
        }
    }
    sums
}

/// Shows the oracle's verdicts.
pub(super) async fn oracle(command: OracleCommand) -> anyhow::Result<Outcome> {
    let client = Client::connect(&command.place)?;
    let mut query = Vec::new();
    if let Some(seconds) = command.settle_secs {
        query.push(format!("settle_secs={seconds}"));
    }
    if let Some(bridge) = &command.bridge {
        query.push(format!("bridge={}", segment(bridge)));
    }
    if command.attendees_one_way {
        query.push("attendees_one_way=true".to_owned());
    }
    let report = client.call(Method::GET, &format!("/oracle?{}", query.join("&")), None).await?;
    if command.json {
        output::print_json(&report)?;
    } else {
        query.push("format=table".to_owned());
        output::print(&client.text(&format!("/oracle?{}", query.join("&"))).await?)?;
    }
    let verdicts = ["lost", "duplicated", "looped", "diverged", "mailed"];
    let clean = verdicts.iter().all(|verdict| report[verdict].as_array().is_some_and(Vec::is_empty));
    Ok(if clean { Outcome::Done } else { Outcome::NotClean })
}

/// Does something to the clouds at once.
pub(super) async fn act(command: ActCommand) -> anyhow::Result<Outcome> {
    let client = Client::connect(&command.place)?;
    let mut body = Map::new();
    for detail in &command.details {
        let (name, value) =
            detail.split_once('=').with_context(|| format!("`{detail}` is not of the form NAME=VALUE"))?;
        let value = match name {
            "records" => value.split(',').map(str::trim).collect(),
            _ => json!(value),
        };
        body.insert(name.to_owned(), value);
    }
    let path = format!("/acts/{}", segment(&command.name));
    output::print_json(&client.call(Method::POST, &path, Some(&Value::Object(body))).await?)?;
    Ok(Outcome::Done)
}

/// Cuts all Event Hubs connections.
pub(super) async fn cut_hub(command: CutHubCommand) -> anyhow::Result<Outcome> {
    let client = Client::connect(&command.place)?;
    output::print_json(&client.call(Method::POST, "/hub/cut", None).await?)?;
    Ok(Outcome::Done)
}
