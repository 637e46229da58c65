//! Faults of Salesforce's REST API and of what its org does beside it: throttling, outages before and after the effect,
//! lost answers, sessions, lagging reads, locks, limits, triggers, automation.

use calbridge_sandbox::Actor;
use calbridge_sandbox::history::Cloud;
use chrono::TimeDelta;
use serde_json::json;

use super::{all_crossed, ends_having_told, linked, office, place_of, row_id, work, works_despite};
use crate::support::Rehearsal;
use crate::support::look::gives;
use crate::support::meetings::{id_of, in_outlook};

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_429_with_retry_after() {
    works_despite("", |switches| switches.salesforce_throttle_next = 4).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_429_without_retry_after() {
    works_despite("", |switches| switches.salesforce_throttle_bare_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_500_before_the_effect() {
    works_despite("", |switches| switches.salesforce_internal_error_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_503_before_the_effect() {
    works_despite("", |switches| switches.salesforce_unavailable_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_504_before_the_effect() {
    works_despite("", |switches| switches.salesforce_gateway_timeout_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_500_after_the_effect() {
    let rehearsal = works_despite("", |switches| switches.salesforce_internal_error_after_next = 2).await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_503_after_the_effect() {
    let rehearsal = works_despite("", |switches| {
        switches.salesforce_unavailable_after_next = 2;
        switches.salesforce_link_unique = false;
    })
    .await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_504_after_the_effect() {
    let rehearsal = works_despite("", |switches| switches.salesforce_gateway_timeout_after_next = 2).await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_answer_cut() {
    let rehearsal = works_despite("", |switches| switches.salesforce_cut_answer_next = 2).await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_late_apply() {
    let rehearsal = works_despite("", |switches| switches.salesforce_late_apply_next = 2).await;
    rehearsal.until("nothing is late any more", |r| r.sandbox.world().late.waiting() == 0).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (2 + 3, 2 + 3), "what came late did nothing a second time");
    rehearsal.assert_clean();
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_token_expiry() {
    works_despite("", |switches| switches.salesforce_refuse_sessions_next = 1).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_token_revocation() {
    let rehearsal = works_despite("", |switches| switches.salesforce_revoke_tokens = true).await;
    assert!(!rehearsal.sandbox.world().faults.read().salesforce_revoke_tokens, "it was carried out");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_stale_reads() {
    works_despite("", |switches| switches.salesforce_stale_reads_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_unable_to_lock_row() {
    let rehearsal = works_despite("", |switches| switches.salesforce_lock_next = 2).await;
    ends_having_told(rehearsal, "write_failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_request_limit_exceeded_by_requests_at_once() {
    works_despite("", |switches| switches.salesforce_concurrent_limit_next = 1).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_request_limit_exceeded_for_the_day() {
    let mut rehearsal = linked(office(), "").await;
    rehearsal.switch(|switches| switches.salesforce_limit_next = 1);
    work(&rehearsal);
    // The engine asks nothing more for minutes; what people do waits and says why.
    let waiting = row_id(&rehearsal, "Kept S");
    loop {
        let story = rehearsal.story(&waiting).await;
        if gives(&story, "read_failed") && story.to_string().contains("CB1356") {
            break;
        }
        rehearsal.pass(TimeDelta::seconds(1)).await;
    }
    assert_eq!(rehearsal.written().1, 2, "nothing more was written");
    // Somebody bought more requests and started anew.
    rehearsal.stop_engine().await;
    rehearsal.start_engine_behind().await;
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}

/// One meeting made in Outlook; what becomes of its place when the org marks the places of what the engine writes.
async fn marked(rehearsal: &Rehearsal, mark: &str) -> String {
    let event = id_of(&rehearsal.person(0).create_in_outlook(&in_outlook("Marked")).unwrap());
    let place = format!("Room 1 {mark}");
    rehearsal.until("the mark is in Outlook", |r| place_of(&r.outlook(0)[0]) == place.as_str()).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.salesforce()[0]["Location"], place.as_str());
    assert_eq!(rehearsal.written(), (1, 1), "the creation, and the mark on its way back");

    rehearsal.person(0).update_in_outlook(&event, &json!({"subject": "Marked again"})).unwrap();
    rehearsal.until("the subject crossed", |r| r.salesforce()[0]["Subject"] == "Marked again").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (1, 2), "one write for the edit, none for a mark that is there");
    rehearsal.assert_clean();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_trigger_edits_in_the_same_transaction() {
    let rehearsal = Rehearsal::start(office(), "").await;
    rehearsal.switch(|switches| switches.salesforce_trigger_edits = true);
    let event = marked(&rehearsal, "(checked)").await;
    assert!(gives(&rehearsal.story(&event).await, "salesforce_changed"));
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_async_automation_afterwards() {
    let rehearsal = Rehearsal::start(office(), "").await;
    rehearsal.switch(|switches| switches.salesforce_automation_secs = 3);
    let event = marked(&rehearsal, "(reviewed)").await;
    assert!(gives(&rehearsal.story(&event).await, "salesforce_changed"));
    let effects = rehearsal.sandbox.world().history.since(0);
    let flow = Actor::Automation("flow".to_owned());
    assert_eq!(effects.iter().filter(|effect| effect.cloud == Cloud::Salesforce && effect.actor == flow).count(), 1);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_collections_untagged() {
    let rehearsal = linked(office(), "").await;
    rehearsal.switch(|switches| switches.salesforce_collections_tagged = false);
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    ends_having_told(rehearsal, "echo").await;
}
