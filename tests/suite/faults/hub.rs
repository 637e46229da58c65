//! Faults on the way of Outlook's notifications: connections, links, partitions, copies, order, delays, subscriptions.

use calbridge_core::reason::Reason;
use calbridge_sandbox::Act;
use serde_json::json;

use super::{NO_SWEEPS, SWEEPS, all_crossed, befall, event_id, linked, office, row, work, works_despite};
use crate::support::Rehearsal;

/// Lets something befall the hub, and people work at the same moment; nothing but notifications may tell of it.
async fn works_when(act: &Act) -> Rehearsal {
    let rehearsal = linked(office(), NO_SWEEPS).await;
    assert!(befall(&rehearsal, act) > 0, "somebody was connected");
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    rehearsal
}

#[tokio::test(flavor = "multi_thread")]
async fn amqp_connection_cut() {
    works_when(&Act::CutHub).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amqp_link_cut() {
    works_when(&Act::DetachReaders).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_stolen() {
    works_when(&Act::StealPartitions).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_token_revocation() {
    let rehearsal = works_despite(NO_SWEEPS, |switches| switches.hub_revoke_tokens = true).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_duplicates() {
    let rehearsal = works_despite(NO_SWEEPS, |switches| switches.hub_duplicate_next = 3).await;
    // Word of a deletion carries no version to know it again by; it is read once more.
    assert!(rehearsal.duplicates().await >= 1, "they are counted");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_reorder() {
    let rehearsal = linked(office(), NO_SWEEPS).await;
    rehearsal.switch(|switches| switches.hub_reorder_next = 1);
    let (person, event) = (rehearsal.person(0), event_id(&rehearsal, "Gone O"));
    // The deletion below overtakes this edit: what comes last is older than what came first.
    person.update_in_outlook(&event, &json!({"subject": "Edited and then deleted"})).unwrap();
    person.delete_in_outlook(&event).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().len() == 3).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (2, 2 + 1), "deleted once, and not brought back by the late edit");
    assert!(row(&rehearsal, "Gone O").is_none() && row(&rehearsal, "Edited and then deleted").is_none());
    assert_eq!(rehearsal.sandbox.world().faults.read().hub_reorder_next, 0);
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_delays() {
    works_despite(NO_SWEEPS, |switches| switches.hub_delay_ms = 20_000).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_validation_noise() {
    let rehearsal = works_despite(NO_SWEEPS, |switches| switches.hub_validation_noise_next = 3).await;
    let rejects = rehearsal.status().await.rejects;
    let noise = rejects.iter().filter(|row| row.reason == Reason::ValidationMessage).map(|row| row.count);
    assert!(noise.sum::<u64>() >= 3, "they are counted: {rejects:?}");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_expiry() {
    // Nobody tells: until the renewal finds out, the comparison finds what people do.
    let rehearsal = linked(office(), SWEEPS).await;
    assert_eq!(befall(&rehearsal, &Act::ExpireSubscriptions), 1);
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_removal() {
    let rehearsal = works_when(&Act::RemoveSubscriptions).await;
    assert_eq!(rehearsal.sandbox.tenant().subscriptions(None).len(), 1, "it was made anew");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_missed() {
    let rehearsal = linked(office(), NO_SWEEPS).await;
    rehearsal.switch(|switches| switches.hub_drop_next = 3);
    work(&rehearsal);
    rehearsal.until("three are lost", |r| r.sandbox.world().faults.read().hub_drop_next == 0).await;
    assert_eq!(befall(&rehearsal, &Act::MissNotifications), 1);
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}
