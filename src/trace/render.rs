//! Prints stories: for a terminal of 100 columns, and as JSON.

use std::fmt::Write as _;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;

use super::timeline::{Line, Timeline};
use super::verdict::Verdict;

/// Widest line printed.
const WIDTH: usize = 100;
/// Where the words of a line begin, after both times and the side.
const WORDS_AT: usize = 53;
/// Where the details below a line begin.
const DETAILS_AT: usize = 6;

/// Prints stories as text, one after the other; says so when there is none.
pub fn text(stories: &[Timeline]) -> String {
    if stories.is_empty() {
        return format!("{}\n", sentence(&Verdict::NeverSeen, Tz::UTC));
    }
    let mut out = String::new();
    for (number, story) in stories.iter().enumerate() {
        if number > 0 {
            let _written = writeln!(out, "\n{}\n", "-".repeat(WIDTH));
        }
        one(&mut out, story);
    }
    out
}

/// Prints stories as one JSON list.
pub fn json(stories: &[Timeline]) -> String {
    let mut out = serde_json::to_string_pretty(stories).expect("stories are plain data with text keys");
    out.push('\n');
    out
}

fn one(out: &mut String, story: &Timeline) {
    let zone = Tz::from_str(&story.zone).unwrap_or(Tz::UTC);
    put(out, 0, 2, &sentence(&story.verdict, zone));
    out.push('\n');
    for (name, value) in names(story) {
        put(out, 2, 16, &format!("{name:<14}{value}"));
    }
    if story.lines.is_empty() {
        return;
    }
    let _written = writeln!(out, "\n{:<25}{:<16}{:<12}what", "UTC", zone_title(zone), "side");
    for line in &story.lines {
        event(out, line, zone);
    }
}

/// Says where the meeting stands.
fn sentence(verdict: &Verdict, zone: Tz) -> String {
    let when = |at: &DateTime<Utc>| both_times(*at, zone);
    match verdict {
        Verdict::InStep { since } => format!("in step since {}", when(since)),
        Verdict::Waiting { waits_for, until } => match until {
            Some(until) => format!("waiting for {waits_for} until {}", when(until)),
            None => format!("waiting for {waits_for}"),
        },
        Verdict::Held { since, reason, todo } => {
            format!("held since {}: {} ({}); {todo}", when(since), reason.words, reason.code)
        }
        Verdict::DeadLetter { since, reason, detail, todo } => {
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            format!("dead letter since {}: {} ({}){detail}; {todo}", when(since), reason.words, reason.code)
        }
        Verdict::Deleted { since, reason } => {
            format!("deleted since {}: {} ({})", when(since), reason.words, reason.code)
        }
        Verdict::NotSynced { since, reason } => {
            format!("not synced since {}: {} ({})", when(since), reason.words, reason.code)
        }
        Verdict::NeverSeen => "never seen: no notification, round or link names it".to_owned(),
    }
}

fn names(story: &Timeline) -> Vec<(&'static str, String)> {
    let id = &story.identity;
    let mut names = Vec::new();
    let mut add = |name, value: Option<String>| names.extend(value.map(|value| (name, value)));
    add("connection", (!id.connection.is_empty()).then(|| id.connection.clone()));
    add("link", id.link_id.clone());
    let mailbox = match (&id.mailbox, &id.address) {
        (Some(mailbox), Some(address)) => Some(format!("{mailbox} ({address})")),
        (mailbox, _) => mailbox.clone(),
    };
    add("mailbox", mailbox);
    add("Outlook", id.outlook_event_id.clone());
    add("change key", id.outlook_change_key.clone());
    add("iCalUId", id.ical_uid.clone());
    add("Salesforce", id.salesforce_id.clone());
    add("modstamp", id.salesforce_modstamp.map(utc));
    for copy in &id.copies {
        add("copy", Some(copy.clone()));
    }
    add("mails", Some(story.mails.clone()));
    names
}

fn event(out: &mut String, line: &Line, zone: Tz) {
    let at = line.at.format("%Y-%m-%d %H:%M:%S%.3f");
    let there = line.at.with_timezone(&zone).format("%m-%d %H:%M:%S");
    let side = line.side.unwrap_or("both");
    let head = format!("{at}  {there}  {side:<10}  {}", line.what);
    put(out, 0, WORDS_AT, &head);
    for reason in &line.reasons {
        put(out, DETAILS_AT, DETAILS_AT + 2, &format!("{} {}: {}", reason.code, reason.name, reason.words));
    }
    if let Some(error) = &line.error {
        put(out, DETAILS_AT, DETAILS_AT + 2, &format!("answer: {error}"));
    }
    let facts = facts(line);
    if !facts.is_empty() {
        put(out, DETAILS_AT, DETAILS_AT + 2, &facts.join(" | "));
    }
    for (image, fields) in &line.values {
        for (name, value) in fields {
            let value = value.replace('\n', " / ");
            put(out, DETAILS_AT, DETAILS_AT + 2, &format!("{image} {name} = {value}"));
        }
    }
}

fn facts(line: &Line) -> Vec<String> {
    let mut facts = Vec::new();
    if !line.versions.is_empty() {
        facts.push(format!("version {}", line.versions.join(", ")));
    }
    if !line.positions.is_empty() {
        facts.push(format!("position {}", line.positions.join(", ")));
    }
    if let Some(latency) = line.latency_ms {
        facts.push(format!("{latency} ms after the first notification"));
    }
    if line.calls > 0 {
        facts.push(format!("{} request units", line.calls));
    }
    if let Some(token) = &line.token {
        facts.push(format!("token {token}"));
    }
    if line.mails > 0 {
        let author = line.mail_author.as_deref().map(|author| format!(" (change by {author})")).unwrap_or_default();
        facts.push(format!("mails expected: {}{author}", line.mails));
    }
    facts
}

fn both_times(at: DateTime<Utc>, zone: Tz) -> String {
    if zone == Tz::UTC {
        return utc(at);
    }
    let there = at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S");
    format!("{} ({there} {zone})", utc(at))
}

fn utc(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true).replace('T', " ").replace('Z', " UTC")
}

/// Returns the last part of a zone's name, short enough for its column.
fn zone_title(zone: Tz) -> String {
    let name = zone.name();
    name.rsplit('/').next().unwrap_or(name).chars().take(14).collect()
}

/// Appends a text, wrapped: the first line begins at `first`, the others at `rest`. Long ids break where they must.
fn put(out: &mut String, first: usize, rest: usize, text: &str) {
    let mut line = " ".repeat(first);
    let mut used = first;
    // A line that holds nothing but its indentation takes the next word whatever its length.
    let mut empty = true;
    for word in text.split_inclusive(' ') {
        let mut word: Vec<char> = word.chars().filter(|c| !c.is_control()).collect();
        loop {
            let bare = word.iter().rev().skip_while(|c| **c == ' ').count();
            if used + bare <= WIDTH {
                line.extend(word.iter());
                used += word.len();
                empty = false;
                break;
            }
            if empty || bare > WIDTH - rest {
                let room = WIDTH.saturating_sub(used).max(1);
                line.extend(word.drain(..room.min(bare)));
            }
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(rest);
            used = rest;
            empty = true;
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
