//! Calendar exports that real programs wrote, where the folder with them is present.

use std::path::PathBuf;

use chrono_tz::Tz;

use super::{CalendarFile, EventStart, read};

/// Reads one export; none (with a printed note) where the folder is absent.
fn export(name: &str) -> Option<CalendarFile> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "shared", "data", "calendars"].iter().collect();
    let path = folder.join(name);
    let Ok(bytes) = std::fs::read(&path) else {
        println!("skipped: {name} is not there");
        return None;
    };
    Some(read(&bytes, Tz::Europe__Berlin).unwrap())
}

/// `(subject, start)` of single events and of series, in the order of the file.
fn rows(file: &CalendarFile, series: bool) -> Vec<(String, String)> {
    file.events
        .iter()
        .filter(|event| event.series == series)
        .map(|event| {
            let start = match event.start {
                EventStart::At(instant) => instant.format("%Y-%m-%dT%H:%MZ").to_string(),
                EventStart::On(date) => date.to_string(),
            };
            (event.body["subject"].as_str().unwrap_or_default().to_owned(), start)
        })
        .collect()
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(subject, start)| ((*subject).to_owned(), (*start).to_owned())).collect()
}

#[test]
fn windows_zones_with_their_own_rules_give_the_right_instants() {
    let Some(file) = export("ms_timezones.ics") else { return };
    assert_eq!(
        rows(&file, false),
        pairs(&[("test", "2020-09-10T07:00Z"), ("Not the actual summary 1", "2020-09-15T15:30Z")])
    );
    assert_eq!(
        rows(&file, true),
        pairs(&[
            ("Log Yesterday's Jira time", "2020-06-09T07:00Z"),
            ("Not the actual summary either", "2020-07-07T19:00Z")
        ])
    );
    assert!(file.not_loaded.is_empty(), "{:?}", file.not_loaded);
}

#[test]
fn descriptions_instead_of_zone_names_give_the_right_instants() {
    let Some(file) = export("Office-2012-owa.ics") else {
        return;
    };
    assert_eq!(
        rows(&file, false),
        pairs(&[("TEST Syd", "2020-10-28T02:30Z"), ("TEST", "2020-10-28T17:30Z"), ("TEST 3", "2020-11-02T18:30Z")])
    );
    assert_eq!(rows(&file, true), pairs(&[("TEST2", "2020-11-05T18:30Z")]));
    assert_eq!(file.events[3].notes.len(), 1);
}

#[test]
fn a_zone_that_the_file_describes_is_used() {
    let Some(file) = export("exchange-custom-tz.ics") else {
        return;
    };
    assert_eq!(rows(&file, false), pairs(&[("Test event", "2019-04-30T02:00Z")]));
}

#[test]
fn every_kind_of_time_is_read_as_what_it_is() {
    let Some(file) = export("mixed-timezone-handling.ics") else {
        return;
    };
    assert_eq!(
        rows(&file, false),
        pairs(&[
            // The file names US/Pacific as its zone: 01:30 on that day is winter time.
            ("No Timezone", "2002-10-28T09:20Z"),
            ("UTC Timezone", "2002-10-28T01:20Z"),
            ("Inline Timezone", "2002-10-28T06:20Z"),
            ("Date Only (Explicit)", "2002-10-28"),
            ("Date Only (Implicit)", "2002-10-28"),
        ])
    );
}

#[test]
fn whole_days_of_many_programs_keep_their_dates() {
    let Some(file) = export("sabredav-school-holidays.ics") else {
        return;
    };
    assert_eq!(rows(&file, false), pairs(&[("Sommerferien Sachsen", "2018-07-02")]));
    assert_eq!(file.events[0].body["end"]["dateTime"], "2018-08-11T00:00:00.0000000");
}

#[test]
fn cancelled_events_are_listed_and_tentative_ones_stay_tentative() {
    let Some(file) = export("tentative-apple-calendar.ics") else {
        return;
    };
    assert_eq!(
        rows(&file, false),
        pairs(&[
            ("Tentative", "2022-07-04T23:00Z"),
            ("Confirmed", "2022-07-05T16:00Z"),
            ("No Status", "2022-07-07T16:00Z"),
        ])
    );
    assert_eq!(file.events[0].body["showAs"], "tentative");
    assert_eq!(file.not_loaded.len(), 1);
    assert_eq!(file.not_loaded[0].subject.as_deref(), Some("Cancelled"));
}

#[test]
fn tasks_are_listed_as_tasks() {
    let Some(file) = export("utf8-french-calendar.ics") else {
        return;
    };
    assert!(file.events.is_empty());
    assert!(file.not_loaded.iter().all(|row| row.what == "VTODO"));
    assert_eq!(file.not_loaded.len(), 2);
}

#[test]
fn each_event_of_every_export_is_loaded_or_listed() {
    for (name, events, listed) in [
        ("biweekly-exdate-until.ics", 2, 0),
        ("daily-count-exdate-recurrence-id.ics", 1, 1),
        ("exchange_whole_day_moved_recurrence.ics", 1, 1),
        ("exchange_whole_day_moved_recurrence_offset_tz.ics", 1, 1),
        ("germany_at_end_of_day_repeating.ics", 0, 1),
        ("recurrence-sequence.ics", 1, 6),
        ("whole_day_moved_over_dst_change_berlin.ics", 1, 1),
        ("windows-quoted-tz-rrule.ics", 1, 0),
    ] {
        let Some(file) = export(name) else { continue };
        assert_eq!((file.events.len(), file.not_loaded.len()), (events, listed), "{name}: {:?}", file.not_loaded);
    }
    let Some(festival) = export("festival-multiday-rrule.ics") else {
        return;
    };
    assert_eq!(festival.events.len() + festival.not_loaded.len(), 128, "{:?}", festival.not_loaded);
    assert!(festival.events.len() > 120, "{:?}", festival.not_loaded);
}
