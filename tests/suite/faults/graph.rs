//! Faults of Graph: throttling, outages before and after the effect, lost answers, tokens, lagging reads, preconditions.

use calbridge_sandbox::oauth::entra::Audience;
use serde_json::json;

use super::{all_crossed, ends_having_told, event_id, linked, office, work, works_despite};
use crate::support::meetings::in_outlook;

#[tokio::test(flavor = "multi_thread")]
async fn graph_429_with_retry_after() {
    works_despite("", |switches| switches.outlook_throttle_next = 4).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_429_without_retry_after() {
    works_despite("", |switches| switches.outlook_throttle_bare_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_500_before_the_effect() {
    works_despite("", |switches| switches.outlook_internal_error_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_503_before_the_effect() {
    works_despite("", |switches| switches.outlook_unavailable_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_504_before_the_effect() {
    works_despite("", |switches| switches.outlook_gateway_timeout_next = 2).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_500_after_the_effect() {
    let rehearsal = works_despite("", |switches| switches.outlook_internal_error_after_next = 3).await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_503_after_the_effect() {
    let rehearsal = works_despite("", |switches| {
        switches.outlook_unavailable_after_next = 3;
        switches.outlook_transaction_id = false;
    })
    .await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_504_after_the_effect() {
    let rehearsal = works_despite("", |switches| switches.outlook_gateway_timeout_after_next = 3).await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_answer_cut() {
    let rehearsal = works_despite("", |switches| switches.outlook_cut_answer_next = 2).await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_late_apply() {
    let rehearsal = works_despite("", |switches| switches.outlook_late_apply_next = 2).await;
    rehearsal.until("nothing is late any more", |r| r.sandbox.world().late.waiting() == 0).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (2 + 3, 2 + 3), "what came late did nothing a second time");
    rehearsal.assert_clean();
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_token_expiry() {
    let rehearsal = linked(office(), "").await;
    let entra = rehearsal.sandbox.tenant().entra();
    let signed_in = entra.issued_for(Audience::Graph);
    rehearsal.switch(|switches| {
        switches.outlook_revoke_tokens = true;
        switches.outlook_expired_tokens_next = 1;
    });
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    assert!(
        rehearsal.sandbox.tenant().entra().issued_for(Audience::Graph) >= signed_in + 2,
        "the expired one, and another"
    );
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_token_revocation() {
    let rehearsal = works_despite("", |switches| switches.outlook_revoke_tokens = true).await;
    assert!(!rehearsal.sandbox.world().faults.read().outlook_revoke_tokens, "it was carried out");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_stale_reads() {
    let rehearsal = works_despite("", |switches| switches.outlook_stale_reads_next = 3).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_412_changed_underneath() {
    let rehearsal = works_despite("", |switches| switches.outlook_changed_underneath_next = 2).await;
    ends_having_told(rehearsal, "changed_underneath").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_if_match_ignored() {
    let rehearsal = works_despite("", |switches| {
        switches.outlook_if_match = false;
        switches.outlook_changed_underneath_next = 1;
        switches.outlook_cut_answer_next = 1;
    })
    .await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_transaction_id_forgotten() {
    let rehearsal = works_despite("", |switches| {
        switches.outlook_transaction_id = false;
        switches.outlook_cut_answer_next = 3;
    })
    .await;
    ends_having_told(rehearsal, "write_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_delta_link_forgotten() {
    let rehearsal = linked(office(), super::SWEEPS).await;
    rehearsal.switch(|switches| {
        switches.outlook_delta_gone_next = 1;
        switches.hub_drop_next = 2;
    });
    let person = rehearsal.person(0);
    person.update_in_outlook(&event_id(&rehearsal, "Kept O"), &json!({"subject": "Renamed O"})).unwrap();
    person.create_in_outlook(&in_outlook("New O")).unwrap();
    rehearsal
        .until("the comparison found both", |r| {
            super::row(r, "Renamed O").is_some() && super::row(r, "New O").is_some()
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (2, 2 + 2));
    assert_eq!(rehearsal.sandbox.world().faults.read().outlook_delta_gone_next, 0);
    rehearsal.assert_clean();
    rehearsal.end().await;
}
