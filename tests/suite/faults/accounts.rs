//! Records and people that go out of sight: none of it is the deletion of a meeting.

use calbridge_sandbox::history::{Cloud, EffectKind};
use calbridge_sandbox::{Act, Options};
use chrono::TimeDelta;
use serde_json::json;

use super::{
    NO_SWEEPS, SWEEPS, all_crossed, befall, crossed, event, event_id, linked, office, place_of, row, row_id, work,
};
use crate::support::Rehearsal;
use crate::support::look::gives;
use crate::support::meetings::{fields, in_outlook, in_salesforce};

/// Asserts that the engine deleted nothing so far.
fn nothing_deleted(rehearsal: &Rehearsal) {
    for cloud in [Cloud::Outlook, Cloud::Salesforce] {
        let deleted = rehearsal.writes(cloud).into_iter().filter(|write| write.kind == EffectKind::Delete);
        assert_eq!(deleted.count(), 0, "nothing is deleted in {cloud:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_archived() {
    let rehearsal = linked(office(), SWEEPS).await;
    let records = ["Kept O", "Kept S"].map(|subject| row_id(&rehearsal, subject)).to_vec();
    assert_eq!(befall(&rehearsal, &Act::ArchiveEvents { records }), 2);
    rehearsal.pass(TimeDelta::seconds(65)).await;
    rehearsal.rest().await;
    nothing_deleted(&rehearsal);
    assert_eq!(rehearsal.outlook(0).len(), 4, "they stay in Outlook");
    // Archived or not, what people do with them goes on crossing.
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recycle_bin_purged() {
    let mut rehearsal = linked(office(), SWEEPS).await;
    let person = rehearsal.person(0);
    person.delete_in_salesforce(&row_id(&rehearsal, "Gone S")).unwrap();
    rehearsal.until("the deletion crossed", |r| event(r, "Gone S").is_none()).await;
    rehearsal.rest().await;
    let before = rehearsal.written();
    assert_eq!(befall(&rehearsal, &Act::PurgeRecycleBin), 1);
    rehearsal.pass(TimeDelta::seconds(65)).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), before, "the purge is no news");

    // Purged before anybody read it: the person's deletion crosses all the same, once.
    rehearsal.stop_engine().await;
    person.delete_in_salesforce(&row_id(&rehearsal, "Kept S")).unwrap();
    assert_eq!(befall(&rehearsal, &Act::PurgeRecycleBin), 1);
    rehearsal.start_engine().await;
    rehearsal.until("the deletion crossed", |r| event(r, "Kept S").is_none()).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (before.0 + 1, before.1), "no other meeting is touched, and none comes back");
    assert_eq!((rehearsal.outlook(0).len(), rehearsal.salesforce().len()), (2, 2));
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_deactivated() {
    let mut rehearsal = linked(Options { mailboxes: 2, ..office() }, NO_SWEEPS).await;
    let (owner, colleague) = (rehearsal.person(0), rehearsal.person(1));
    let person = owner.mailbox().address.clone();
    befall(&rehearsal, &Act::DeactivateUser { person: person.clone() });
    // A restart looks the people up once more.
    rehearsal.stop_engine().await;
    rehearsal.start_engine_behind().await;
    colleague.update_in_salesforce(&row_id(&rehearsal, "Kept S"), &fields(json!({"Location": "Hall"}))).unwrap();
    owner.update_in_outlook(&event_id(&rehearsal, "Kept O"), &json!({"subject": "Renamed O"})).unwrap();
    rehearsal
        .until("both crossed", |r| {
            row(r, "Renamed O").is_some() && event(r, "Kept S").is_some_and(|event| place_of(&event) == "Hall")
        })
        .await;
    rehearsal.rest().await;
    nothing_deleted(&rehearsal);
    assert_eq!((rehearsal.outlook(0).len(), rehearsal.salesforce().len()), (4, 4));

    // A new meeting cannot be given to somebody who has left: it waits for a person, and says so.
    let made = owner.create_in_outlook(&in_outlook("New O")).unwrap()["id"].as_str().unwrap().to_owned();
    while rehearsal.status().await.dead_letters == 0 {
        rehearsal.pass(TimeDelta::seconds(1)).await;
    }
    let story = rehearsal.story(&made).await;
    assert!(gives(&story, "refused") && story.to_string().contains("CB1361"), "{story:#}");
    assert!(row(&rehearsal, "New O").is_none());
    befall(&rehearsal, &Act::ActivateUser { person });
    owner.update_in_outlook(&made, &json!({"location": {"displayName": "Hall"}})).unwrap();
    rehearsal.until("it crossed", |r| row(r, "New O").is_some()).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mailbox_licence_lost() {
    let rehearsal = linked(office(), SWEEPS).await;
    let person = rehearsal.person(0).mailbox().address.clone();
    befall(&rehearsal, &Act::TakeLicence { person: person.clone() });
    let (id, gone) = (row_id(&rehearsal, "Kept S"), row_id(&rehearsal, "Gone S"));
    rehearsal.person(0).update_in_salesforce(&id, &fields(json!({"Location": "Hall"}))).unwrap();
    rehearsal.person(0).delete_in_salesforce(&gone).unwrap();
    rehearsal.person(0).create_in_salesforce(in_salesforce("New S")).unwrap();
    rehearsal.pass(TimeDelta::seconds(100)).await;
    nothing_deleted(&rehearsal);
    assert_eq!(rehearsal.written(), (2, 2), "nothing is written meanwhile");
    assert_eq!(rehearsal.salesforce().len(), 4, "what the person left is there");
    let story = rehearsal.story(&id).await;
    assert!(gives(&story, "read_failed") && story.to_string().contains("CB1308"), "{story:#}");

    befall(&rehearsal, &Act::GiveLicence { person });
    let owner = rehearsal.person(0);
    owner.update_in_outlook(&event_id(&rehearsal, "Kept O"), &json!({"subject": "Renamed O"})).unwrap();
    owner.delete_in_outlook(&event_id(&rehearsal, "Gone O")).unwrap();
    owner.create_in_outlook(&in_outlook("New O")).unwrap();
    rehearsal.until("everything crossed", crossed).await;
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mailbox_without_licence_holds_up_no_other() {
    let rehearsal = linked(Options { mailboxes: 2, ..office() }, SWEEPS).await;
    let person = rehearsal.person(1).mailbox().address.clone();
    befall(&rehearsal, &Act::TakeLicence { person });
    rehearsal.pass(TimeDelta::seconds(70)).await;
    // Only a comparison can find these.
    rehearsal.switch(|switches| {
        switches.hub_drop_next = 1;
        switches.salesforce_drop_next = 1;
    });
    let owner = rehearsal.person(0);
    owner.update_in_outlook(&event_id(&rehearsal, "Kept O"), &json!({"subject": "Renamed O"})).unwrap();
    owner.update_in_salesforce(&row_id(&rehearsal, "Kept S"), &fields(json!({"Location": "Hall"}))).unwrap();
    rehearsal
        .until("both were found", |r| {
            row(r, "Renamed O").is_some() && event(r, "Kept S").is_some_and(|event| place_of(&event) == "Hall")
        })
        .await;
    rehearsal.rest().await;
    rehearsal.assert_clean();
    rehearsal.end().await;
}
