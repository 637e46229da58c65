//! Create, update and delete reach the other side, field by field.

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::json;

use crate::support::Rehearsal;
use crate::support::meetings::{in_outlook, in_salesforce};

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_made_in_outlook_appears_in_salesforce_and_follows_edits_of_both_sides() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let person = rehearsal.person(0);
    let made = person.create_in_outlook(&in_outlook("Review")).unwrap();
    let event = made["id"].as_str().unwrap();
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    let row = rehearsal.salesforce().remove(0);
    assert_eq!(row["Subject"], "Review");
    assert_eq!(row["StartDateTime"], "2026-12-01T09:00:00.000+0000");
    assert_eq!(row["EndDateTime"], "2026-12-01T10:00:00.000+0000");
    assert_eq!(row["Location"], "Room 1");
    assert_eq!(row["Description"], "agenda\nas always");
    assert_eq!(row["ShowAs"], "Busy");
    assert_eq!(row["OwnerId"], person.mailbox().salesforce_user_id.as_str());

    let id = row["Id"].as_str().unwrap();
    let patch = json!({"Subject": "Review, moved", "StartDateTime": "2026-12-02T09:00:00Z",
        "EndDateTime": "2026-12-02T09:30:00Z", "Location": "Room 2", "ShowAs": "Free"});
    person.update_in_salesforce(id, patch.as_object().unwrap()).unwrap();
    rehearsal.until("the edit is in Outlook", |r| r.outlook(0)[0]["subject"] == "Review, moved").await;
    let back = rehearsal.outlook(0).remove(0);
    assert_eq!(back["start"]["dateTime"], "2026-12-02T09:00:00.0000000");
    assert_eq!(back["end"]["dateTime"], "2026-12-02T09:30:00.0000000");
    assert_eq!(back["originalStartTimeZone"], "W. Europe Standard Time", "the organiser's zone is kept");
    assert_eq!(back["location"]["displayName"], "Room 2");
    assert_eq!(back["showAs"], "free");

    person.delete_in_outlook(event).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().is_empty()).await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.writes(Cloud::Salesforce).len(), 2, "one creation, one deletion");
    assert_eq!(rehearsal.writes(Cloud::Outlook).len(), 1, "one update");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_made_in_salesforce_appears_in_outlook_and_its_deletion_follows() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let person = rehearsal.person(1);
    let id = person.create_in_salesforce(in_salesforce("Visit")).unwrap();
    rehearsal.until("it is in Outlook", |r| r.outlook(1).len() == 1).await;
    let event = rehearsal.outlook(1).remove(0);
    assert_eq!(event["subject"], "Visit");
    assert_eq!(event["start"]["dateTime"], "2026-12-01T09:00:00.0000000");
    assert_eq!(event["location"]["displayName"], "Room 1");
    assert!(event["body"]["content"].as_str().unwrap().contains("agenda"));
    assert_eq!(event["showAs"], "busy");

    person.delete_in_salesforce(&id).unwrap();
    rehearsal.until("it is gone from Outlook", |r| r.outlook(1).is_empty()).await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.writes(Cloud::Salesforce).len(), 0);
    rehearsal.end().await;
}
