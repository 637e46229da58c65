//! First contact: enrolling over calendars that people have filled for years.

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::{Map, Value, json};

use crate::support::meetings::{in_outlook, in_salesforce};
use crate::support::process::Bench;

/// Events of each kind in each filled calendar.
const FILLED: u32 = 4;

fn outlook_at(subject: &str, day: u32) -> Value {
    let mut event = in_outlook(subject);
    event["start"]["dateTime"] = json!(format!("2026-12-{day:02}T10:00:00"));
    event["end"]["dateTime"] = json!(format!("2026-12-{day:02}T11:00:00"));
    event
}

fn salesforce_at(subject: &str, day: u32) -> Map<String, Value> {
    let mut event = in_salesforce(subject);
    event.insert("StartDateTime".to_owned(), json!(format!("2026-12-{day:02}T15:00:00.000Z")));
    event.insert("EndDateTime".to_owned(), json!(format!("2026-12-{day:02}T16:00:00.000Z")));
    event
}

/// Fills both calendars of two people, at different times; returns the ids of all Outlook events.
fn fill(bench: &Bench) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..2 {
        let person = bench.rehearsal.person(number);
        for day in 1..=FILLED {
            let made = person.create_in_outlook(&outlook_at(&format!("Outlook {number} {day}"), day)).unwrap();
            ids.push(made["id"].as_str().unwrap().to_owned());
            person.create_in_salesforce(salesforce_at(&format!("Salesforce {number} {day}"), day)).unwrap();
        }
    }
    ids
}

fn options() -> Options {
    let start_at = "2026-11-23T08:00:00Z".parse().unwrap();
    Options { mailboxes: 2, start_at: Some(start_at), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolling_over_filled_calendars_with_the_defaults_writes_nothing_and_a_new_meeting_crosses() {
    let bench = Bench::set_up(options(), "").await;
    let ids = fill(&bench);
    let all = u64::from(4 * FILLED);
    for start in ["the first start", "a restart"] {
        let running = bench.run().await;
        bench.status_until("every event was looked at", |status| status.journal >= all && status.waiting == 0).await;
        assert!(bench.touched(Cloud::Outlook).is_empty(), "{start}: {:#?}", bench.touched(Cloud::Outlook));
        assert!(bench.touched(Cloud::Salesforce).is_empty(), "{start}: {:#?}", bench.touched(Cloud::Salesforce));
        assert_eq!(running.stop().await.code, 0);
    }
    let story = bench.story_until(&ids[0], |_| true).await;
    assert_eq!(story["verdict"]["is"], "not_synced");
    assert_eq!(story["verdict"]["reason"]["name"], "before_enrolment");

    let running = bench.run().await;
    bench.rehearsal.person(0).create_in_outlook(&outlook_at("New after enrolling", 9)).unwrap();
    bench.rehearsal.person(1).create_in_salesforce(salesforce_at("New here too", 10)).unwrap();
    let has = |rows: Vec<Value>, field: &str, subject: &str| rows.iter().any(|row| row[field] == subject);
    bench
        .rehearsal
        .until("both new ones crossed", |r| {
            has(r.salesforce(), "Subject", "New after enrolling") && has(r.outlook(1), "subject", "New here too")
        })
        .await;
    bench.rehearsal.settled().await;
    assert_eq!(bench.rehearsal.writes(Cloud::Salesforce).len(), 1);
    assert_eq!(bench.rehearsal.writes(Cloud::Outlook).len(), 1);
    assert_eq!(bench.mails(), 0);
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_first_contact_outlook_each_outlook_event_appears_once_except_where_the_other_side_may_have_it() {
    let bench = Bench::set_up(options(), "sync:\n  first_contact: outlook\n").await;
    let ids = fill(&bench);
    let (ada, ben) = (bench.rehearsal.person(0), bench.rehearsal.person(1));
    let twin = ada.create_in_outlook(&outlook_at("Harvest", 20)).unwrap()["id"].as_str().unwrap().to_owned();
    let mut candidate = salesforce_at("Harvest", 20);
    candidate.insert("StartDateTime".to_owned(), json!("2026-12-20T09:00:00.000Z"));
    candidate.insert("EndDateTime".to_owned(), json!("2026-12-20T10:00:00.000Z"));
    ada.create_in_salesforce(candidate).unwrap();
    let mut meeting = outlook_at("Together", 21);
    meeting["attendees"] = json!([
        {"emailAddress": {"address": ben.mailbox().address, "name": ben.mailbox().name}, "type": "required"}
    ]);
    ada.create_in_outlook(&meeting).unwrap();
    bench.rehearsal.until("the guest has a copy", |r| r.outlook(1).len() == FILLED as usize + 1).await;

    let created = ids.len() + 1;
    let before = bench.rehearsal.salesforce().len();
    for start in ["the first start", "a restart"] {
        let running = bench.run().await;
        bench.rehearsal.until("all are in Salesforce", |r| r.salesforce().len() >= before + created).await;
        let held = bench.story_until(&twin, |story| story["verdict"]["is"] == "held").await;
        assert_eq!(held["verdict"]["reason"]["name"], "needs_adopt", "{start}");
        bench.rehearsal.settled().await;
        let subjects: Vec<Value> = bench.rehearsal.salesforce().iter().map(|row| row["Subject"].clone()).collect();
        for number in 0..2 {
            for day in 1..=FILLED {
                let wanted = format!("Outlook {number} {day}");
                assert_eq!(subjects.iter().filter(|subject| **subject == wanted).count(), 1, "{start}: {wanted}");
            }
        }
        for wanted in ["Together", "Harvest"] {
            assert_eq!(subjects.iter().filter(|subject| **subject == wanted).count(), 1, "{start}: {wanted}");
        }
        assert_eq!(bench.rehearsal.writes(Cloud::Salesforce).len(), created, "{start}");
        assert!(bench.rehearsal.writes(Cloud::Outlook).is_empty(), "{start}");
        assert_eq!(bench.mails(), 0, "{start}");
        assert_eq!(running.stop().await.code, 0);
    }

    // A person knows that they are two meetings.
    let running = bench.run().await;
    let approved = bench.call(&["holds", "approve", "--all", "--reason", "needs_adopt"]).await;
    assert_eq!(approved.code, 0, "{approved:?}");
    bench
        .rehearsal
        .until("it is in Salesforce too", |r| {
            r.salesforce().iter().filter(|row| row["Subject"] == "Harvest").count() == 2
        })
        .await;
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}
