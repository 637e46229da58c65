//! Calendar files: loads them into a mailbox and compares what arrives in Salesforce with what the file says.
//!
//! The time that the file names is read here once more, for people to see; the instant it stands for is the sandbox's
//! reading of the file (zones described in it included), and what Salesforce holds is compared with that.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use calbridge::ports::{JournalKind, Traced};
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use calbridge_sandbox::calendar_file::{self, EventStart};
use calbridge_sandbox::history::{Cloud, Effect, EffectKind};
use calbridge_sandbox::oracle::{Field, Shown};
use calbridge_sandbox::person::LoadedEvent;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde_json::Value;

use crate::screen::{Screen, Tone, count, minute, seconds, short};
use crate::stage::{Crossing, Stage};
use crate::story;

/// The calendar that is loaded when none is given.
const BUNDLED: &[u8] = include_bytes!("calendar.ics");

/// A calendar file, not loaded yet.
#[derive(Debug)]
pub(crate) struct Export {
    name: String,
    bytes: Vec<u8>,
}

impl Export {
    /// Opens the given files, or the bundled one.
    pub(crate) fn open(files: &[PathBuf]) -> anyhow::Result<Vec<Self>> {
        if files.is_empty() {
            return Ok(vec![Self { name: "the bundled calendar.ics".to_owned(), bytes: BUNDLED.to_vec() }]);
        }
        files.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read calendar file `{}`", path.display()))?;
        calendar_file::read(&bytes, HOME).with_context(|| format!("calendar file `{}`", path.display()))?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.display().to_string());
        Ok(Self { name, bytes })
    }

    /// Returns when the first single event begins.
    fn first(&self) -> Option<DateTime<Utc>> {
        let file = calendar_file::read(&self.bytes, HOME).ok()?;
        let starts = file.events.iter().filter(|event| !event.series).map(|event| match event.start {
            EventStart::At(instant) => instant,
            EventStart::On(day) => day.and_time(NaiveTime::MIN).and_utc(),
        });
        starts.min()
    }
}

/// Zone of the mailbox that files are loaded into.
const HOME: chrono_tz::Tz = chrono_tz::Europe::Berlin;

/// Returns what the clock should show: the present, or a day before the first event of files that are past.
pub(crate) fn start_at(exports: &[Export], now: DateTime<Utc>) -> DateTime<Utc> {
    let first = exports.iter().filter_map(Export::first).min();
    match first {
        Some(first) if first < now => first - chrono::TimeDelta::days(1),
        _ => now,
    }
}

/// Loads a file into Ada's mailbox and shows what became of each event.
pub(crate) async fn cross(
    stage: &Stage,
    screen: &Screen,
    number: usize,
    export: &Export,
    told: &mut story::Told,
) -> anyhow::Result<()> {
    let ada = stage.person(0);
    screen.title(&format!("{number}  A calendar file: {}", export.name));
    let (seen, at) = (stage.seen(), stage.clock.now());
    let loaded = ada.load_calendar(&export.bytes)?;
    let history = stage.sandbox.world().history.since(seen);
    let made = history.iter().filter(|effect| {
        effect.cloud == Cloud::Outlook && effect.kind == EffectKind::Create && effect.actor.is_person()
    });
    let made: Vec<&Effect> = made.collect();
    if made.len() != loaded.created.len() {
        bail!("{} of {} events of the file are in the mailbox", made.len(), loaded.created.len());
    }
    let singles = loaded.created.iter().filter(|event| !event.series).count() as u64;
    let series = loaded.created.len() as u64 - singles;
    screen.act(at, &format!("Ada imports it into Outlook: {}, {series} recurring", count(singles, "single event")));

    let text = String::from_utf8_lossy(&export.bytes).into_owned();
    let mut right = 0;
    let mut others = Vec::new();
    for (event, effect) in loaded.created.iter().zip(made) {
        let subject = effect.changed.get("subject").and_then(Value::as_str).unwrap_or_default();
        let subject = if subject.is_empty() { "(no subject)" } else { subject };
        match fate(stage, screen, &effect.record).await? {
            Fate::Crossed(row) => {
                let differs = differs(stage, event, effect, &row);
                show(stage, screen, seen, (event, effect), &row, &written(&text, event.line), differs.as_deref())
                    .await?;
                match differs {
                    None => right += 1,
                    Some(what) => told.faults.push(format!("\"{subject}\" of {}: {what}", export.name)),
                }
            }
            Fate::Stays { why, fault } => {
                if fault {
                    told.faults.push(format!("\"{subject}\" of {} is not in Salesforce: {why}", export.name));
                }
                others.push(format!("\"{subject}\" (line {}): {why}", event.line));
                told.staying.push(effect.record.clone());
            }
        }
    }
    for row in &loaded.not_loaded {
        let subject = row.subject.as_ref().map(|subject| format!(" \"{subject}\"")).unwrap_or_default();
        others.push(format!("{}{subject} (line {}): {}", row.what, row.line, row.reason));
    }
    if loaded.not_loaded_beyond > 0 {
        others.push(format!("and {} more that could not be read", loaded.not_loaded_beyond));
    }
    let crossed = match singles {
        0 => "No single event is in it.".to_owned(),
        _ if right == 0 => format!("0 of {} crossed.", count(singles, "single event")),
        _ => format!("{right} of {} crossed, at the right time.", count(singles, "single event")),
    };
    let stay = if others.is_empty() { "" } else { " What stays behind, and why:" };
    screen.paragraph(Tone::Plain, 3, &format!("{crossed}{stay}"));
    for other in others {
        screen.paragraph(Tone::Plain, 3, &format!("--  {other}"));
    }
    Ok(())
}

/// What became of an event.
enum Fate {
    /// It is this row of Salesforce.
    Crossed(Value),
    /// It is in Outlook only; a fault, unless a rule of calbridge or of Salesforce keeps it there.
    Stays { why: String, fault: bool },
}

/// Waits until the engine is done with a record.
async fn fate(stage: &Stage, screen: &Screen, record: &str) -> anyhow::Result<Fate> {
    stage
        .until(screen, &format!("{} is in Salesforce or says why not", short(record)), async || {
            Ok(stage.traced(record).await?.and_then(|traced| fate_of(stage, &traced)))
        })
        .await
}

fn fate_of(stage: &Stage, traced: &Traced) -> Option<Fate> {
    let link = traced.link.as_ref();
    if let Some(letter) = traced.dead_letters.last() {
        let why = format!("{}: {}", worded(letter.reason), letter.detail);
        return Some(Fate::Stays { why, fault: letter.reason != Reason::Refused });
    }
    if let Some(replica) = link.and_then(|link| link.replicas.salesforce.as_ref())
        && link.is_some_and(|link| link.intents.salesforce.is_none())
    {
        let row = stage.sandbox.org().get(replica.record.remote_id());
        return row.filter(|row| row["IsDeleted"] != true).map(Fate::Crossed);
    }
    let decided = traced.journal.iter().rev().find(|row| row.kind == JournalKind::Decided)?;
    let reason = decided.reasons.first()?;
    let stays = |fault| Some(Fate::Stays { why: worded(*reason), fault });
    match decided.outcome? {
        Outcome::Skip => stays(false),
        Outcome::Hold | Outcome::DeadLetter | Outcome::Deleted => stays(true),
        Outcome::InStep | Outcome::Write | Outcome::Deferred | Outcome::Wait => None,
    }
}

fn worded(reason: Reason) -> String {
    format!("{} ({} {reason})", reason.words(), reason.code())
}

/// Says in what a Salesforce row differs from the event of the file; none means in nothing.
fn differs(stage: &Stage, event: &LoadedEvent, effect: &Effect, row: &Value) -> Option<String> {
    let start = text(row, "StartDateTime");
    let wrong = match event.start {
        EventStart::At(instant) => {
            (row["IsAllDayEvent"] == true || moment(&start) != Some(instant)).then(|| minute(instant))
        }
        EventStart::On(day) => {
            let there = text(row, "ActivityDate").parse::<NaiveDate>().ok();
            (row["IsAllDayEvent"] != true || there != Some(day)).then(|| day.to_string())
        }
    };
    if let Some(expected) = wrong {
        return Some(format!("Salesforce begins at {start}, the file says {expected}"));
    }
    let outlook = stage.sandbox.tenant().get_event(&effect.scope, &effect.record).ok()?;
    let outlook = Shown::of_outlook(outlook.as_object()?);
    let salesforce = Shown::of_salesforce(row.as_object()?);
    let wrong = Field::ALL.into_iter().find(|field| !Shown::agrees(&outlook, &salesforce, *field))?;
    Some(format!("{} differs: {} in Salesforce", wrong.name(), salesforce.value(wrong)))
}

async fn show(
    stage: &Stage,
    screen: &Screen,
    seen: usize,
    (event, effect): (&LoadedEvent, &Effect),
    row: &Value,
    written: &str,
    differs: Option<&str>,
) -> anyhow::Result<()> {
    let there = match event.start {
        EventStart::At(_) => moment(&text(row, "StartDateTime")).map_or_else(|| text(row, "StartDateTime"), minute),
        EventStart::On(_) => format!("all day, {}", days(row)),
    };
    let subject = text(row, "Subject");
    let (tone, verdict) = match differs {
        None => (Tone::Good, format!("OK  \"{subject}\"")),
        Some(what) => (Tone::Bad, format!("DIFFERS  \"{subject}\": {what}")),
    };
    screen.paragraph(tone, 3, &verdict);
    screen.paragraph(Tone::Plain, 7, &format!("{written}  =  {there}"));
    let id = text(row, "Id");
    let writes: Vec<Effect> = stage.writes_since(seen).into_iter().filter(|write| write.record == id).collect();
    let Some(first) = writes.first() else { return Ok(()) };
    let crossing = Crossing {
        at: first.at,
        kind: first.kind,
        to: (Cloud::Salesforce, id),
        latency_ms: (first.at - effect.at).num_milliseconds(),
    };
    let signals = stage.signals_in(&effect.record, effect.at).await?;
    screen.paragraph(Tone::Quiet, 7, &story::line(&effect.record, &crossing));
    let counts = story::in_and_out(signals, writes.len() as u64);
    screen.paragraph(Tone::Quiet, 7, &format!("{} after the import; {counts}", seconds(crossing.latency_ms)));
    Ok(())
}

fn days(row: &Value) -> String {
    let first = text(row, "ActivityDate");
    let last = moment(&text(row, "EndDateTime")).map(|end| end.date_naive().to_string());
    match last {
        Some(last) if last != first => format!("{first} to {last}"),
        _ => first,
    }
}

fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

fn moment(written: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_str(written, "%Y-%m-%dT%H:%M:%S%.f%z").ok().map(|time| time.to_utc())
}

/// Returns the begin of the event on a line of the file, in the file's own words.
fn written(text: &str, line: usize) -> String {
    let mut lines = text.lines().skip(line.saturating_sub(1)).skip_while(|line| !line.starts_with("DTSTART"));
    let mut property = lines.next().unwrap_or_default().to_owned();
    for more in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        property.extend(more.chars().skip(1));
    }
    let Some((head, value)) = property.rsplit_once(':') else { return String::new() };
    let value = value.trim_matches('"');
    let zone = head.split_once("TZID=").map(|(_, zone)| zone.trim_matches('"').to_owned());
    let zone = zone.unwrap_or_else(|| if value.ends_with('Z') { "UTC".to_owned() } else { String::new() });
    let bare = value.trim_end_matches('Z');
    let time =
        NaiveDateTime::parse_from_str(bare, "%Y%m%dT%H%M%S").map(|time| time.format("%Y-%m-%d %H:%M").to_string());
    let day = || NaiveDate::parse_from_str(bare, "%Y%m%d").map(|day| format!("all day, from {day}"));
    let time = time.or_else(|_not_a_time| day()).unwrap_or_else(|_neither| bare.to_owned());
    format!("{time} {zone}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_calendar_has_six_events_that_cross_one_private_and_one_series() {
        let file = calendar_file::read(BUNDLED, HOME).unwrap();
        assert!(file.not_loaded.is_empty(), "{:?}", file.not_loaded);
        assert_eq!(file.events.iter().filter(|event| event.series).count(), 1);
        assert_eq!(file.events.len(), 8);
        let at = |number: usize| match file.events[number].start {
            EventStart::At(instant) => minute(instant),
            EventStart::On(day) => day.to_string(),
        };
        assert_eq!(at(0), "2027-03-16 09:00 UTC");
        assert_eq!(at(1), "2027-03-16 15:30 UTC");
        assert_eq!(at(2), "2027-03-14 22:00 UTC");
        assert_eq!(at(3), "2027-03-17 13:00 UTC");
        assert_eq!(at(4), "2027-03-18 22:30 UTC");
        assert_eq!(at(5), "2027-03-17");
    }

    #[test]
    fn the_begin_is_quoted_from_folded_lines_and_odd_quotes() {
        let text = "BEGIN:VEVENT\nDTSTART;TZID=\"(GMT+10:00) Canber\n ra, Sydney\":20201028T133000\nEND:VEVENT\n";
        assert_eq!(written(text, 1), "2020-10-28 13:30 (GMT+10:00) Canberra, Sydney");
        assert_eq!(
            written("DTSTART;TZID=\"W. Europe Standard Time:20200609T090000\"", 1),
            "2020-06-09 09:00 W. Europe Standard Time"
        );
        assert_eq!(written("DTSTART;VALUE=DATE:20270317", 1), "all day, from 2027-03-17");
    }

    #[test]
    fn the_clock_moves_for_files_that_are_past_only() {
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let export = |day: &str| Export {
            name: String::new(),
            bytes: format!("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:{day}T100000Z\nEND:VEVENT\nEND:VCALENDAR\n")
                .into_bytes(),
        };
        assert_eq!(minute(start_at(&[export("20200910"), export("20210910")], now)), "2020-09-09 10:00 UTC");
        assert_eq!(start_at(&[export("20290910")], now), now);
    }
}
