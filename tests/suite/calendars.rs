//! Calendar exports: each single event is in Salesforce at the right instant, the others are listed with a reason.
//!
//! The instants below were computed by hand from the text of the files, not by code of ours.

use std::path::{Path, PathBuf};

use calbridge_sandbox::Options;
use serde_json::Value;

use crate::support::process::Bench;

/// A single event as Salesforce must show it: subject, start, end.
type Timed = (&'static str, &'static str, &'static str);

/// An all-day event as Salesforce must show it: subject, first day, days.
type Days = (&'static str, &'static str, i64);

/// What a file must become.
struct Expected {
    /// Sandbox time at the start, before everything in the file.
    start_at: &'static str,
    timed: &'static [Timed],
    days: &'static [Days],
    /// In the mailbox, not in Salesforce: subject and reason.
    left: &'static [(&'static str, &'static str)],
    /// Not even in the mailbox: subject and words of the reason.
    not_loaded: &'static [(&'static str, &'static str)],
}

async fn assert_crosses(path: PathBuf, expected: Expected) {
    let options =
        Options { calendars: vec![path], start_at: Some(expected.start_at.parse().unwrap()), ..Options::default() };
    let bench = Bench::set_up(options, "sync:\n  first_contact: outlook\n").await;
    let loaded = bench.rehearsal.sandbox.loaded_calendars()[0].clone();
    let running = bench.run().await;
    let singles = expected.timed.len() + expected.days.len();
    bench.rehearsal.until("all single events are in Salesforce", |r| r.salesforce().len() >= singles).await;

    let subject_of = |id: &str| -> String {
        let events = bench.rehearsal.outlook(0);
        let event = events.iter().find(|event| event["id"] == id).expect("what was loaded is in the mailbox");
        event["subject"].as_str().unwrap().to_owned()
    };
    let mut left = Vec::new();
    for event in &loaded.created {
        let story = bench.story_until(&event.id, |story| story["verdict"]["is"] != "waiting").await;
        match story["verdict"]["is"].as_str().unwrap() {
            "in_step" => {}
            "not_synced" => {
                left.push((subject_of(&event.id), story["verdict"]["reason"]["name"].as_str().unwrap().to_owned()));
            }
            other => panic!("{other}: {story:#}"),
        }
    }
    let left: Vec<(&str, &str)> = left.iter().map(|(subject, reason)| (subject.as_str(), reason.as_str())).collect();
    assert_eq!(left, expected.left);
    assert_eq!(loaded.not_loaded.len(), expected.not_loaded.len(), "{:#?}", loaded.not_loaded);
    for (row, (subject, words)) in loaded.not_loaded.iter().zip(expected.not_loaded) {
        assert_eq!(row.subject.as_deref(), Some(*subject));
        assert!(row.reason.contains(words), "{row:?}");
    }

    bench.rehearsal.settled().await;
    let rows = bench.rehearsal.salesforce();
    assert_eq!(rows.len(), singles, "{rows:#?}");
    let owner = bench.rehearsal.person(0).mailbox().salesforce_user_id.clone();
    let row = |subject: &str| -> &Value {
        let found: Vec<&Value> = rows.iter().filter(|row| row["Subject"] == subject).collect();
        assert_eq!(found.len(), 1, "`{subject}` is there once: {rows:#?}");
        assert_eq!(found[0]["OwnerId"], owner.as_str());
        found[0]
    };
    for (subject, start, end) in expected.timed {
        let row = row(subject);
        assert_eq!(row["IsAllDayEvent"], false, "{subject}");
        assert_eq!(row["StartDateTime"], format!("{start}:00.000+0000"), "{subject}");
        assert_eq!(row["EndDateTime"], format!("{end}:00.000+0000"), "{subject}");
    }
    for (subject, first, days) in expected.days {
        let row = row(subject);
        assert_eq!(row["IsAllDayEvent"], true, "{subject}");
        assert_eq!(row["ActivityDate"], *first, "{subject}");
        assert_eq!(row["DurationInMinutes"].as_i64().unwrap(), days * 1440, "{subject}: {row:#}");
    }
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

/// Finds an export that is not part of this repository; none (with a printed note) where it is not there.
#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
fn export(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/calendars").join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: `../shared/data/calendars/{name}` is not there");
    None
}

fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_exchange_with_zones_of_its_own_crosses_at_the_right_instants() {
    let Some(path) = export("ms_timezones.ics") else { return };
    let expected = Expected {
        start_at: "2020-09-01T08:00:00Z",
        timed: &[
            // 09:00 in Berlin's summer; 08:30 in Pacific daylight time.
            ("test", "2020-09-10T07:00", "2020-09-10T07:30"),
            ("Not the actual summary 1", "2020-09-15T15:30", "2020-09-15T16:30"),
        ],
        days: &[],
        left: &[
            ("Log Yesterday's Jira time", "series_not_mapped"),
            ("Not the actual summary either", "series_not_mapped"),
        ],
        not_loaded: &[],
    };
    assert_crosses(path, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_outlook_on_the_web_with_descriptions_as_zones_crosses_at_the_right_instants() {
    let Some(path) = export("Office-2012-owa.ics") else { return };
    let expected = Expected {
        start_at: "2020-10-20T08:00:00Z",
        timed: &[
            // 13:30 in Sydney's summer (+11); in Eastern daylight time; in Eastern standard time, from 1 November on.
            ("TEST Syd", "2020-10-28T02:30", "2020-10-28T04:00"),
            ("TEST", "2020-10-28T17:30", "2020-10-28T19:00"),
            ("TEST 3", "2020-11-02T18:30", "2020-11-02T20:00"),
        ],
        days: &[],
        left: &[("TEST2", "series_not_mapped")],
        not_loaded: &[],
    };
    assert_crosses(path, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_name_a_zone_leads_to_the_right_instant_and_what_stays_behind_says_why() {
    let expected = Expected {
        start_at: "2026-03-01T08:00:00Z",
        timed: &[
            ("In universal time", "2026-03-10T09:00", "2026-03-10T09:30"),
            // The clocks go from 02:00 to 03:00 in between: one hour passes.
            ("Across the change of clocks", "2026-03-29T00:30", "2026-03-29T01:30"),
            ("In a zone that only this file knows", "2026-03-12T04:15", "2026-03-12T05:30"),
            // Two days before the United States put their clocks forward.
            ("In a Windows zone, quoted", "2026-03-07T00:00", "2026-03-07T01:00"),
        ],
        days: &[],
        left: &[("Every week", "series_not_mapped"), ("Nobody else's business", "private")],
        not_loaded: &[("Called off", "cancelled")],
    };
    assert_crosses(own("zones.ics"), expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_days_stay_on_their_days_and_a_night_keeps_its_instants() {
    let expected = Expected {
        start_at: "2026-04-20T08:00:00Z",
        timed: &[("Past midnight", "2026-05-21T03:00", "2026-05-21T05:30")],
        days: &[
            ("One whole day", "2026-05-01", 1),
            (
                "Three whole days with a name that has to be folded because it is longer than one line may be",
                "2026-05-10",
                3,
            ),
        ],
        left: &[],
        not_loaded: &[("Buy flowers", "")],
    };
    assert_crosses(own("days.ics"), expected).await;
}
