//! Many edits in a short time are one write; edits that cancel out are none.

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use chrono::TimeDelta;
use serde_json::json;

use crate::support::Rehearsal;
use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};

/// Time between two edits of a burst: ten of them take 225 ms.
const STEP: TimeDelta = TimeDelta::milliseconds(25);

#[tokio::test(flavor = "multi_thread")]
async fn ten_edits_in_outlook_within_a_quarter_of_a_second_are_one_write() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&in_outlook("Burst")).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    let notified = rehearsal.sandbox.world().meters.read().notifications;
    for number in 0..10 {
        person.update_in_outlook(&event, &json!({"subject": format!("Burst {number}")})).unwrap();
        rehearsal.pass(STEP).await;
    }
    rehearsal.until("the last edit is in Salesforce", |r| r.salesforce()[0]["Subject"] == "Burst 9").await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.written(), (0, 2), "the creation and one update");
    assert_eq!(rehearsal.sandbox.world().meters.read().notifications - notified, 10);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_edits_in_salesforce_within_a_quarter_of_a_second_are_one_write() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let person = rehearsal.person(0);
    let id = person.create_in_salesforce(in_salesforce("Burst")).unwrap();
    rehearsal.until("it is in Outlook", |r| r.outlook(0).len() == 1).await;
    rehearsal.settled().await;
    for number in 0..10 {
        person.update_in_salesforce(&id, &fields(json!({"Location": format!("Room {number}")}))).unwrap();
        rehearsal.pass(STEP).await;
    }
    rehearsal.until("the last edit is in Outlook", |r| r.outlook(0)[0]["location"]["displayName"] == "Room 9").await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.writes(Cloud::Outlook).len(), 2, "the creation and one update");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_that_is_made_and_edited_at_once_crosses_with_one_write() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&in_outlook("Made")).unwrap());
    let id = person.create_in_salesforce(in_salesforce("Entered")).unwrap();
    for number in 0..10 {
        person.update_in_outlook(&event, &json!({"subject": format!("Made {number}")})).unwrap();
        person.update_in_salesforce(&id, &fields(json!({"Subject": format!("Entered {number}")}))).unwrap();
    }
    rehearsal.until("both crossed", |r| r.salesforce().len() == 2 && r.outlook(0).len() == 2).await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.written(), (1, 1));
    assert!(rehearsal.salesforce().iter().any(|row| row["Subject"] == "Made 9"));
    assert!(rehearsal.outlook(0).iter().any(|event| event["subject"] == "Entered 9"));
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_that_cancel_out_are_no_write() {
    let rehearsal = Rehearsal::start(Options { speed: 5.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&in_outlook("Undone")).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    let id = id_of(&rehearsal.salesforce()[0]);
    person.update_in_outlook(&event, &json!({"subject": "Changed"})).unwrap();
    person.update_in_outlook(&event, &json!({"subject": "Undone"})).unwrap();
    person.update_in_salesforce(&id, &fields(json!({"Location": "Room 7"}))).unwrap();
    person.update_in_salesforce(&id, &fields(json!({"Location": "Room 1"}))).unwrap();
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 1), "only the creation");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_that_is_made_and_deleted_at_once_never_crosses() {
    let rehearsal = Rehearsal::start(Options { speed: 5.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&in_outlook("Short")).unwrap());
    person.delete_in_outlook(&event).unwrap();
    let id = person.create_in_salesforce(in_salesforce("Brief")).unwrap();
    person.delete_in_salesforce(&id).unwrap();
    rehearsal.rest().await;
    assert!(rehearsal.app_effects().is_empty(), "{:#?}", rehearsal.app_effects());
    assert!(rehearsal.salesforce().is_empty() && rehearsal.outlook(0).is_empty());
    rehearsal.end().await;
}
