//! Exchange mails attendees of its own accord: nobody is mailed whom no person meant to mail, and nobody twice.

use calbridge_core::case::Instruction;
use calbridge_sandbox::Options;
use serde_json::{Value, json};

use crate::support::look::gives;
use crate::support::meetings::{fields, id_of, with_attendees};
use crate::support::{Rehearsal, alone};

const GUESTS: [&str; 4] =
    ["one@elsewhere.example", "two@elsewhere.example", "three@elsewhere.example", "four@elsewhere.example"];

fn quick() -> Options {
    Options { speed: 10.0, ..Options::default() }
}

/// Has the first person invite four people; returns both ids.
async fn invited(rehearsal: &Rehearsal, subject: &str) -> (String, String) {
    let event = id_of(&rehearsal.person(0).create_in_outlook(&with_attendees(subject, &GUESTS)).unwrap());
    rehearsal.until("it is in Salesforce", |r| find(&r.salesforce(), "Subject", subject).is_some()).await;
    rehearsal.rest().await;
    (event, id_of(find(&rehearsal.salesforce(), "Subject", subject).unwrap()))
}

fn find<'a>(records: &'a [Value], field: &str, value: &str) -> Option<&'a Value> {
    records.iter().find(|record| record[field] == value)
}

fn moved(hour: u32) -> Value {
    json!({
        "StartDateTime": format!("2026-12-09T{hour:02}:00:00Z"),
        "EndDateTime": format!("2026-12-09T{:02}:00:00Z", hour + 1),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn three_moves_within_a_minute_end_at_the_last_time_with_two_mails_an_attendee_at_most() {
    let rehearsal = Rehearsal::start(quick(), "").await;
    let (event, id) = invited(&rehearsal, "Moved").await;
    for hour in [9, 11, 14] {
        rehearsal.person(0).update_in_salesforce(&id, &fields(moved(hour))).unwrap();
        rehearsal.pass(chrono::TimeDelta::seconds(20)).await;
    }
    rehearsal
        .until("the last time is in Outlook", |r| {
            let start = r.outlook(0)[0]["start"]["dateTime"].as_str().unwrap_or_default().to_owned();
            start.starts_with("2026-12-09T14:00")
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.engine_mails(), 8, "four people, two mails each");
    assert!(rehearsal.sandbox.oracle().is_clean(), "{:#?}", rehearsal.sandbox.oracle());
    let story = rehearsal.story(&event).await;
    assert_eq!(story["mails_expected"], 8);
    let author = rehearsal.person(0).mailbox().salesforce_user_id.clone();
    assert!(story["mails"].as_str().unwrap().contains(author.as_str()), "{}", story["mails"]);
    assert!(gives(&story, "mail_waits"), "{story:#}");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_400_meetings_changed_at_once_by_one_user_20_mail_and_380_wait_and_mail_nobody_when_discarded() {
    const MEETINGS: usize = 400;
    let _busy = alone().await;
    let rehearsal = Rehearsal::start(Options { speed: 5.0, ..Options::default() }, "").await;
    for number in 0..MEETINGS {
        rehearsal.person(0).create_in_outlook(&with_attendees(&format!("Meeting {number}"), &GUESTS)).unwrap();
    }
    rehearsal.until("all are in Salesforce", |r| r.salesforce().len() == MEETINGS).await;
    rehearsal.rest().await;
    for record in rehearsal.salesforce() {
        rehearsal.person(0).update_in_salesforce(&id_of(&record), &fields(json!({"Location": "Hall 7"}))).unwrap();
    }
    rehearsal.until_held(MEETINGS as u64 - 20).await;
    let in_hall = |r: &Rehearsal| r.outlook(0).iter().filter(|e| e["location"]["displayName"] == "Hall 7").count();
    assert_eq!((in_hall(&rehearsal), rehearsal.engine_mails()), (20, 80));
    assert_eq!(rehearsal.status().await.holds.get("mail_fuse"), Some(&380));

    assert_eq!(rehearsal.answer_holds(Instruction::Discard).await, 380);
    rehearsal
        .until("Outlook's place is back in Salesforce", |r| {
            r.salesforce().iter().filter(|row| row["Location"] == "Hall 7").count() == 20
        })
        .await;
    rehearsal.rest().await;
    assert_eq!((in_hall(&rehearsal), rehearsal.engine_mails()), (20, 80), "nobody else was mailed");
    assert!(rehearsal.status().await.holds.is_empty());
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_automation_changes_mails_nobody_until_a_person_approves_it() {
    let rehearsal = Rehearsal::without_engine(quick(), "").await;
    let flow = rehearsal.person(2).mailbox().address.clone();
    let mut rehearsal = rehearsal.with_settings(&format!("salesforce:\n  automation_users: {flow}\n"));
    rehearsal.start_engine().await;
    let (event, id) = invited(&rehearsal, "Touched by a flow").await;
    rehearsal.person(2).update_in_salesforce(&id, &fields(json!({"Location": "Flow hall"}))).unwrap();
    rehearsal.until_held(1).await;
    assert_eq!(rehearsal.engine_mails(), 0);
    let story = rehearsal.story(&event).await;
    assert!(gives(&story, "mail_needs_person"), "{story:#}");
    assert_eq!(story["verdict"]["is"], "held");

    // Outlook's changes of the same meeting cross meanwhile.
    rehearsal.person(0).update_in_outlook(&event, &json!({"subject": "Renamed"})).unwrap();
    rehearsal.until("the name crossed", |r| r.salesforce()[0]["Subject"] == "Renamed").await;
    rehearsal.until_held(1).await;

    assert_eq!(rehearsal.answer_holds(Instruction::Approve).await, 1);
    rehearsal.until("the place crossed", |r| r.outlook(0)[0]["location"]["displayName"] == "Flow hall").await;
    rehearsal.rest().await;
    assert_eq!((rehearsal.engine_mails(), rehearsal.status().await.holds.len()), (4, 0));
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_in_salesforce_cancels_the_meeting_with_one_mail_an_attendee_after_a_minute() {
    let rehearsal = Rehearsal::start(quick(), "").await;
    let (event, id) = invited(&rehearsal, "Called off").await;
    let deleted_at = rehearsal.clock.now();
    rehearsal.person(0).delete_in_salesforce(&id).unwrap();
    rehearsal.until("it is cancelled", |r| r.outlook(0).is_empty()).await;
    assert!(rehearsal.clock.now() - deleted_at >= chrono::TimeDelta::seconds(60), "time to bring it back");
    rehearsal.rest().await;
    assert_eq!(rehearsal.engine_mails(), 4);
    assert_eq!(rehearsal.story(&event).await["mails_expected"], 4);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_meeting_with_attendees_is_never_written() {
    let rehearsal = Rehearsal::start(quick(), "").await;
    let mut past = with_attendees("Long over", &GUESTS);
    past["start"] = json!({"dateTime": "2026-11-20T10:00:00", "timeZone": "UTC"});
    past["end"] = json!({"dateTime": "2026-11-20T11:00:00", "timeZone": "UTC"});
    let event = id_of(&rehearsal.person(0).create_in_outlook(&past).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    let id = id_of(&rehearsal.salesforce()[0]);
    rehearsal.person(0).update_in_salesforce(&id, &fields(json!({"Subject": "Tidied up"}))).unwrap();
    rehearsal.rest().await;
    rehearsal.person(0).delete_in_salesforce(&id).unwrap();
    rehearsal.rest().await;
    assert_eq!((rehearsal.outlook(0).len(), rehearsal.engine_mails()), (1, 0));
    assert!(gives(&rehearsal.story(&event).await, "past_meeting"));
    rehearsal.end().await;
}
