//! Under `mail.policy: never`, meetings with attendees flow from Outlook to Salesforce only.

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::json;

use crate::support::Rehearsal;
use crate::support::look::gives;
use crate::support::meetings::{fields, id_of, in_outlook, with_attendees};

const NEVER: &str = "mail:\n  policy: never\n";

/// Has the first person invite somebody; returns both ids.
async fn invited(rehearsal: &Rehearsal, guest: &str) -> (String, String) {
    let event = id_of(&rehearsal.person(0).create_in_outlook(&with_attendees("Invited", &[guest])).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    (event, id_of(&rehearsal.salesforce()[0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_salesforce_of_a_meeting_with_attendees_stays_there_and_says_why() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, NEVER).await;
    let (event, id) = invited(&rehearsal, "guest@elsewhere.example").await;
    let edit = json!({"Subject": "Only in Salesforce", "Location": "Lobby", "StartDateTime": "2026-12-09T09:00:00Z",
        "EndDateTime": "2026-12-09T10:00:00Z"});
    rehearsal.person(0).update_in_salesforce(&id, &fields(edit)).unwrap();
    rehearsal.rest().await;
    assert!(rehearsal.app_effects().iter().all(|effect| effect.cloud == Cloud::Salesforce), "Outlook is left alone");
    assert_eq!(rehearsal.outlook(0)[0]["subject"], "Invited");
    assert_eq!(rehearsal.salesforce()[0]["Subject"], "Only in Salesforce");
    let story = rehearsal.story(&id).await;
    assert!(gives(&story, "attendees_need_mail_policy"), "{story:#}");
    assert_eq!(story["mails_expected"], 0);

    // What Outlook changes still crosses; fields that it leaves alone keep what Salesforce says.
    rehearsal.person(0).update_in_outlook(&event, &json!({"subject": "From Outlook"})).unwrap();
    rehearsal.until("Outlook's edit crossed", |r| r.salesforce()[0]["Subject"] == "From Outlook").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.salesforce()[0]["Location"], "Lobby");
    assert_eq!(rehearsal.written(), (0, 2));
    assert_eq!(rehearsal.engine_mails(), 0);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_in_salesforce_of_a_meeting_with_attendees_neither_cancels_it_nor_brings_it_back() {
    let mut rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, NEVER).await;
    let guest = rehearsal.person(1).mailbox().address.clone();
    let (event, id) = invited(&rehearsal, &guest).await;
    rehearsal.person(0).delete_in_salesforce(&id).unwrap();
    rehearsal.rest().await;
    assert_eq!((rehearsal.outlook(0).len(), rehearsal.outlook(1).len()), (1, 1), "the meeting takes place");
    assert!(rehearsal.salesforce().is_empty());
    let story = rehearsal.story(&event).await;
    assert!(gives(&story, "attendees_need_mail_policy") && gives(&story, "deleted_in_salesforce"), "{story:#}");

    rehearsal.person(0).update_in_outlook(&event, &json!({"subject": "Edited later"})).unwrap();
    rehearsal.rest().await;
    rehearsal.stop_engine().await;
    rehearsal.person(0).update_in_outlook(&event, &json!({"location": {"displayName": "Hall"}})).unwrap();
    rehearsal.start_engine().await;
    rehearsal.rest().await;
    assert!(rehearsal.salesforce().is_empty(), "deleted stays deleted");
    assert_eq!(rehearsal.written(), (0, 1), "only the creation");
    assert_eq!(rehearsal.engine_mails(), 0);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_that_gains_and_loses_its_attendees_flows_as_it_stands() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, NEVER).await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&in_outlook("Alone")).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    let id = id_of(&rehearsal.salesforce()[0]);
    person
        .update_in_outlook(&event, &json!({"attendees": with_attendees("", &["guest@elsewhere.example"])["attendees"]}))
        .unwrap();
    rehearsal.rest().await;
    person.update_in_salesforce(&id, &fields(json!({"Location": "Held back"}))).unwrap();
    rehearsal.rest().await;
    assert_eq!(rehearsal.outlook(0)[0]["location"]["displayName"], "Room 1");

    // Without attendees nobody is mailed: what was held back may cross now.
    person.update_in_outlook(&event, &json!({"attendees": []})).unwrap();
    rehearsal.until("the place crossed", |r| r.outlook(0)[0]["location"]["displayName"] == "Held back").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (1, 1));
    assert_eq!(rehearsal.engine_mails(), 0);
    rehearsal.end().await;
}
