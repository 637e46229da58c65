//! One meeting in several enrolled mailboxes is one Salesforce Event.

use calbridge_sandbox::history::{Cloud, EffectKind};
use calbridge_sandbox::{Options, Profile};
use serde_json::{Value, json};

use crate::support::Rehearsal;
use crate::support::look::gives;
use crate::support::meetings::{id_of, with_attendees};

/// Has the first person invite the two others; returns the organiser's event.
async fn invited(rehearsal: &Rehearsal, subject: &str) -> String {
    let addresses = [1, 2].map(|number| rehearsal.person(number).mailbox().address.clone());
    let body = with_attendees(subject, &[&addresses[0], &addresses[1]]);
    let event = id_of(&rehearsal.person(0).create_in_outlook(&body).unwrap());
    rehearsal
        .until("all have a copy and Salesforce has the meeting", |r| {
            (0..3).all(|number| r.outlook(number).len() == 1) && !r.salesforce().is_empty()
        })
        .await;
    rehearsal.rest().await;
    event
}

fn the_one(rehearsal: &Rehearsal) -> Value {
    let mut rows = rehearsal.salesforce();
    assert_eq!(rows.len(), 1, "one Event: {rows:#?}");
    rows.remove(0)
}

async fn is_one_event_all_its_life(options: Options) {
    let rehearsal = Rehearsal::start(options, "").await;
    let event = invited(&rehearsal, "Three").await;
    let row = the_one(&rehearsal);
    assert_eq!(row["OwnerId"], rehearsal.person(0).mailbox().salesforce_user_id.as_str(), "the organiser's");
    assert_eq!(rehearsal.written(), (0, 1));

    let organiser = rehearsal.person(0);
    organiser.update_in_outlook(&event, &json!({"subject": "Three, renamed"})).unwrap();
    rehearsal.until("the new subject is in Salesforce", |r| the_one(r)["Subject"] == "Three, renamed").await;
    let later = json!({"start": {"dateTime": "2026-12-02T10:00:00", "timeZone": "UTC"},
        "end": {"dateTime": "2026-12-02T11:00:00", "timeZone": "UTC"}});
    rehearsal.rest().await;
    organiser.update_in_outlook(&event, &later).unwrap();
    let moved = "2026-12-02T10:00:00.000+0000";
    rehearsal.until("the new time is in Salesforce", |r| the_one(r)["StartDateTime"] == moved).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 3), "the creation and one write an edit");

    // One attendee removes their copy: the meeting goes on.
    let copy = id_of(&rehearsal.outlook(1)[0]);
    rehearsal.person(1).delete_in_outlook(&copy).unwrap();
    rehearsal.until("the copy is gone", |r| r.outlook(1).is_empty()).await;
    rehearsal.rest().await;
    assert_eq!(id_of(&the_one(&rehearsal)), id_of(&row));
    assert_eq!(rehearsal.written(), (0, 3), "a vanished copy writes nothing");
    organiser.update_in_outlook(&event, &json!({"location": {"displayName": "Hall"}})).unwrap();
    rehearsal.until("the place is in Salesforce", |r| the_one(r)["Location"] == "Hall").await;
    rehearsal.rest().await;

    organiser.delete_in_outlook(&event).unwrap();
    rehearsal.until("the meeting is over", |r| r.salesforce().is_empty()).await;
    rehearsal.rest().await;
    assert!((0..3).all(|number| rehearsal.outlook(number).is_empty()));
    let writes = rehearsal.writes(Cloud::Salesforce);
    let kinds: Vec<EffectKind> = writes.iter().map(|write| write.kind).collect();
    assert_eq!(
        kinds,
        [EffectKind::Create, EffectKind::Update, EffectKind::Update, EffectKind::Update, EffectKind::Delete]
    );
    assert!(writes.iter().all(|write| write.record == id_of(&row)));
    assert!(rehearsal.writes(Cloud::Outlook).is_empty());
    let story = rehearsal.story(&event).await;
    assert!(gives(&story, "attendee_copy") && gives(&story, "copy_vanished"), "{story:#}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_of_three_mailboxes_is_one_event_through_edits_a_vanished_copy_and_its_deletion() {
    is_one_event_all_its_life(Options { speed: 10.0, ..Options::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_follow_late_and_noisily_are_still_one_event() {
    is_one_event_all_its_life(Options { speed: 10.0, profile: Profile::Office, ..Options::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_organiser_a_meeting_speaks_through_one_copy_and_then_through_another() {
    let everybody = Rehearsal::without_engine(Options { speed: 10.0, ..Options::default() }, "").await;
    let address = |number: usize| everybody.person(number).mailbox().address.clone();
    let only = format!("enrolments:\n  - mailbox: {}\n  - mailbox: {}\n", address(1), address(2));
    let mut rehearsal = everybody.with_settings(&only);
    rehearsal.start_engine_with(2).await;

    let body = with_attendees(
        "From outside",
        &[&rehearsal.person(1).mailbox().address, &rehearsal.person(2).mailbox().address],
    );
    let event = id_of(&rehearsal.person(0).create_in_outlook(&body).unwrap());
    rehearsal.until("Salesforce has the meeting", |r| !r.salesforce().is_empty()).await;
    rehearsal.rest().await;
    let owner = the_one(&rehearsal)["OwnerId"].clone();
    let speaking = [1, 2].into_iter().find(|n| owner == rehearsal.person(*n).mailbox().salesforce_user_id.as_str());
    let speaking = speaking.expect("one of the two owns it");

    let copy = id_of(&rehearsal.outlook(speaking)[0]);
    rehearsal.person(speaking).delete_in_outlook(&copy).unwrap();
    rehearsal.rest().await;
    the_one(&rehearsal);
    rehearsal.person(0).update_in_outlook(&event, &json!({"subject": "From outside, renamed"})).unwrap();
    rehearsal.until("the other copy speaks now", |r| the_one(r)["Subject"] == "From outside, renamed").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 2));

    rehearsal.person(0).delete_in_outlook(&event).unwrap();
    rehearsal.until("the meeting is over", |r| r.salesforce().is_empty()).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 3));
    assert_eq!(rehearsal.engine_mails(), 0);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_first_contact_a_shared_meeting_is_its_organisers_whoever_is_looked_at_first() {
    let settings = "sync:\n  first_contact: outlook\n";
    let mut rehearsal = Rehearsal::without_engine(Options { speed: 10.0, ..Options::default() }, settings).await;
    let address = |number: usize| rehearsal.person(number).mailbox().address.clone();
    for organiser in 0..3 {
        let (one, two) = (address((organiser + 1) % 3), address((organiser + 2) % 3));
        let body = with_attendees(&format!("Organised by {organiser}"), &[&one, &two]);
        rehearsal.person(organiser).create_in_outlook(&body).unwrap();
    }
    rehearsal.start_engine().await;
    rehearsal.until("all crossed", |r| r.salesforce().len() == 3).await;
    rehearsal.rest().await;
    for row in rehearsal.salesforce() {
        let owner = (0..3).find(|n| row["OwnerId"] == rehearsal.person(*n).mailbox().salesforce_user_id.as_str());
        let owner = owner.expect("one of the three owns it");
        assert_eq!(row["Subject"], format!("Organised by {owner}"));
    }
    assert_eq!(rehearsal.written(), (0, 3));
    rehearsal.assert_clean();
    rehearsal.end().await;
}
