//! Calendar exports: each single event is in Salesforce at the right instant, the others are listed with a reason.
//!
//! What must become of a file stands beside it (`tests/data/calendars/README.md`), computed by hand or by another program, never
//! by code of ours. Each run prints the counts of every file, whether it passes or not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use calbridge_sandbox::Options;
use calbridge_sandbox::person::LoadedCalendar;
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;

use crate::support::process::Bench;
use crate::support::{Rehearsal, until_stored};

/// Sandbox time at the start: every event of the files in `tests/data/calendars` lies less than a year ahead.
const START: &str = "2026-03-01T08:00:00Z";

/// Calendars beside the repository; they are not part of it.
const SHARED: &str = "../shared/data/calendars";

/// What must become of one event, or of a line that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// In Salesforce at these instants.
    At { start: DateTime<Utc>, end: DateTime<Utc> },
    /// In Salesforce on these whole days.
    Days { first: NaiveDate, number: i64 },
    /// In the mailbox only, for the reason of this name.
    Stays(String),
    /// Not in the mailbox; words of the loader's reason.
    Left(String),
}

/// A row of an `.expect` file.
#[derive(Debug, Clone)]
struct Expected {
    /// Line of the calendar, from 1.
    line: usize,
    fate: Fate,
    /// Subject in Salesforce, where given.
    subject: Option<String>,
}

impl Expected {
    fn read(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut next = || words.next().unwrap_or_else(|| panic!("`{text}` is complete"));
        let line = next().parse().unwrap_or_else(|error| panic!("`{text}`: {error}"));
        let instant = |word: &str| -> DateTime<Utc> {
            let full =
                if word.len() == "2026-03-01T08:00Z".len() { word.replace('Z', ":00Z") } else { word.to_owned() };
            full.parse().unwrap_or_else(|error| panic!("`{text}`: {error}"))
        };
        let fate = match next() {
            "at" => Fate::At { start: instant(next()), end: instant(next()) },
            "days" => Fate::Days { first: next().parse().unwrap(), number: next().parse().unwrap() },
            "stays" => Fate::Stays(next().to_owned()),
            "left" => return Self { line, fate: Fate::Left(words.collect::<Vec<_>>().join(" ")), subject: None },
            other => panic!("`{text}`: `{other}` is no fate"),
        };
        let subject = words.collect::<Vec<_>>().join(" ");
        Self { line, fate, subject: Some(subject).filter(|subject| !subject.is_empty()) }
    }

    /// Tells whether a Salesforce event is due to it.
    fn appears(&self) -> bool {
        matches!(self.fate, Fate::At { .. } | Fate::Days { .. })
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/calendars").join(name)
}

/// Reads the rows of an `.expect` file; the name of a file before them (`== NAME`) counts for those that follow.
fn expectations(path: &Path) -> BTreeMap<String, Vec<Expected>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut of = String::new();
    let mut files = BTreeMap::new();
    for row in text.lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
        if let Some(name) = row.strip_prefix("== ") {
            name.clone_into(&mut of);
            continue;
        }
        files.entry(of.clone()).or_insert_with(Vec::new).push(Expected::read(row));
    }
    files
}

/// The calendars of a folder by name.
fn calendars(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "ics")).collect();
    names.sort();
    names
}

/// The counts of files, printed as a table with what stayed behind under it.
#[derive(Default)]
struct Counts {
    table: String,
    reasons: String,
    appear: usize,
}

impl Counts {
    fn add(&mut self, name: &str, expected: &[Expected], loaded: &LoadedCalendar, stayed: &[(usize, String)]) {
        let at = expected.iter().filter(|row| matches!(row.fate, Fate::At { .. })).count();
        let days = expected.iter().filter(|row| matches!(row.fate, Fate::Days { .. })).count();
        let (loaded_events, left) = (loaded.created.len(), loaded.not_loaded.len());
        writeln!(self.table, "{name:<52}{loaded_events:>7}{at:>7}{days:>8}{:>7}{left:>10}", stayed.len()).unwrap();
        for (line, reason) in stayed {
            writeln!(self.reasons, "  {name}:{line}: stays in Outlook: {reason}").unwrap();
        }
        for row in &loaded.not_loaded {
            writeln!(self.reasons, "  {name}:{}: {} not loaded: {}", row.line, row.what, row.reason).unwrap();
        }
        self.appear += at + days;
    }

    /// Prints past the capturing of the test harness: the counts of a run that passes are wanted too.
    fn print(&self, what: &str) {
        let head = format!("{:<52}{:>7}{:>7}{:>8}{:>7}{:>10}", what, "loaded", "timed", "all-day", "stay", "left out");
        let text = format!("\n{head}\n{}{}\n", self.table, self.reasons);
        std::io::stdout().lock().write_all(text.as_bytes()).unwrap();
    }
}

/// Waits until the engine has told all about an event; returns its story.
async fn told(rehearsal: &Rehearsal, id: &str) -> Value {
    until_stored(&format!("the story of {id} is told"), async || {
        let mut stories = rehearsal.trace(id).await;
        let is_told = |story: &Value| {
            story["lines"].as_array().is_some_and(|lines| !lines.is_empty()) && story["verdict"]["is"] != "waiting"
        };
        if stories.len() == 1 && is_told(&stories[0]) { stories.pop() } else { None }
    })
    .await
}

/// Asserts what became of a file's events and lines, and counts them.
async fn assert_as_expected(
    rehearsal: &Rehearsal,
    name: &str,
    loaded: &LoadedCalendar,
    expected: &[Expected],
    counts: &mut Counts,
) {
    let owner = rehearsal.person(0).mailbox().salesforce_user_id.clone();
    let in_mailbox: Vec<&Expected> = expected.iter().filter(|row| !matches!(row.fate, Fate::Left(_))).collect();
    let lines: Vec<usize> = loaded.created.iter().map(|event| event.line).collect();
    let expected_lines: Vec<usize> = in_mailbox.iter().map(|row| row.line).collect();
    assert_eq!(lines, expected_lines, "{name}: these lines begin events of the mailbox: {:#?}", loaded.not_loaded);

    let mut stayed = Vec::new();
    for (event, row) in loaded.created.iter().zip(in_mailbox) {
        let place = format!("{name}:{}", row.line);
        let story = told(rehearsal, &event.id).await;
        if let Fate::Stays(reason) = &row.fate {
            assert_eq!(story["verdict"]["is"], "not_synced", "{place}: {story:#}");
            assert_eq!(story["verdict"]["reason"]["name"], reason.as_str(), "{place}: {story:#}");
            let words = story["verdict"]["reason"]["words"].as_str().unwrap_or_default();
            stayed.push((row.line, format!("{reason}, {words}")));
            continue;
        }
        assert_eq!(story["verdict"]["is"], "in_step", "{place}: {story:#}");
        let rows = rehearsal.salesforce();
        let record = rows.iter().find(|record| record["Id"] == story["identity"]["salesforce_id"]);
        let record = record.unwrap_or_else(|| panic!("{place} is in Salesforce: {story:#}"));
        assert_eq!(record["OwnerId"], owner.as_str(), "{place}");
        if let Some(subject) = &row.subject {
            assert_eq!(record["Subject"], subject.as_str(), "{place}");
        }
        match &row.fate {
            Fate::At { start, end } => {
                let written = |instant: &DateTime<Utc>| instant.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string();
                assert_eq!(record["IsAllDayEvent"], false, "{place}");
                assert_eq!(record["StartDateTime"], written(start), "{place}");
                assert_eq!(record["EndDateTime"], written(end), "{place}");
            }
            Fate::Days { first, number } => {
                assert_eq!(record["IsAllDayEvent"], true, "{place}");
                assert_eq!(record["ActivityDate"], first.to_string(), "{place}");
                assert_eq!(record["DurationInMinutes"].as_i64(), Some(number * 1440), "{place}: {record:#}");
            }
            Fate::Stays(_) | Fate::Left(_) => unreachable!("handled above"),
        }
    }

    let left: Vec<(usize, &str)> = expected
        .iter()
        .filter_map(|row| if let Fate::Left(words) = &row.fate { Some((row.line, words.as_str())) } else { None })
        .collect();
    assert_eq!(loaded.not_loaded.len(), left.len(), "{name}: {:#?}", loaded.not_loaded);
    assert_eq!(loaded.not_loaded_beyond, 0, "{name}");
    for (row, (line, words)) in loaded.not_loaded.iter().zip(left) {
        assert!(row.line == line && row.reason.contains(words), "{name}:{line} `{words}`: {row:?}");
    }
    counts.add(name, expected, loaded, &stayed);
}

fn options() -> Options {
    Options { mailboxes: 1, start_at: Some(START.parse().unwrap()), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn calendars_that_are_there_at_the_first_contact_cross_at_the_right_instants_and_the_rest_says_why_not() {
    let names = calendars(&data(""));
    assert!(names.len() >= 10, "{names:?}");
    let options = Options { calendars: names.iter().map(|name| data(name)).collect(), ..options() };
    let rehearsal = Rehearsal::start(options, "sync:\n  first_contact: outlook\n").await;
    let mut counts = Counts::default();
    for (name, loaded) in names.iter().zip(rehearsal.sandbox.loaded_calendars()) {
        let mut expected = expectations(&data(name).with_extension("expect"));
        let expected = expected.remove("").unwrap_or_default();
        assert!(expected.iter().any(Expected::appears), "{name}: something crosses");
        assert_as_expected(&rehearsal, name, loaded, &expected, &mut counts).await;
    }
    rehearsal.settled().await;
    assert_eq!(rehearsal.salesforce().len(), counts.appear, "and nothing else is there");
    counts.print("calendars of our own");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calendars_of_many_programs_imported_beside_a_running_engine_cross_at_the_right_instants() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(SHARED);
    if !folder.is_dir() {
        let note = format!("\nskipped: the calendars in `{SHARED}`, a folder that is not there\n");
        std::io::stdout().lock().write_all(note.as_bytes()).unwrap();
        return;
    }
    let mut expected = expectations(&data("shared.expect"));
    let names = calendars(&folder);
    let rehearsal = Rehearsal::start(options(), "").await;
    let person = rehearsal.person(0);
    let mut counts = Counts::default();
    for name in &names {
        let loaded = person.load_calendar(&std::fs::read(folder.join(name)).unwrap()).unwrap();
        let expected = expected.remove(name).unwrap_or_else(|| panic!("`shared.expect` tells of {name}"));
        assert_as_expected(&rehearsal, name, &loaded, &expected, &mut counts).await;
    }
    assert!(expected.is_empty(), "files that `shared.expect` tells of are missing: {:?}", expected.keys());
    rehearsal.settled().await;
    assert_eq!(rehearsal.salesforce().len(), counts.appear, "and nothing else is there");
    counts.print(SHARED);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_tells_of_each_event_of_a_calendar_in_its_trace() {
    let options = Options { calendars: vec![data("zones.ics")], ..options() };
    let bench = Bench::set_up(options, "sync:\n  first_contact: outlook\n").await;
    let loaded = bench.rehearsal.sandbox.loaded_calendars()[0].clone();
    let running = bench.run().await;
    let mut verdicts = Vec::new();
    for event in &loaded.created {
        let story = bench.story_until(&event.id, |story| story["verdict"]["is"] != "waiting").await;
        let reason = story["verdict"]["reason"]["name"].as_str().unwrap_or_default().to_owned();
        verdicts.push(format!("{} {reason}", story["verdict"]["is"].as_str().unwrap()).trim().to_owned());
    }
    let expected = ["in_step", "in_step", "in_step", "in_step", "not_synced series_not_mapped", "not_synced private"];
    assert_eq!(verdicts, expected);
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}
