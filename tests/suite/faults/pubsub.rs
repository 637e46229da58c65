//! Faults on the way of Salesforce's change events: copies, delays, gaps, positions, schemas, streams, allocations.

use calbridge_sandbox::Act;

use super::{NO_SWEEPS, SWEEPS, all_crossed, befall, linked, office, row_id, work, works_despite};

#[tokio::test(flavor = "multi_thread")]
async fn change_event_duplicates() {
    works_despite(NO_SWEEPS, |switches| switches.salesforce_duplicate_next = 5).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn change_event_delays() {
    works_despite(NO_SWEEPS, |switches| switches.salesforce_delay_ms = 20_000).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_delayed_and_reordered_against_each_other() {
    let rehearsal = works_despite(NO_SWEEPS, |switches| {
        switches.salesforce_delay_ms = 3_000;
        switches.hub_delay_ms = 10_000;
        switches.hub_reorder_next = 2;
    })
    .await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_id_expired() {
    let mut rehearsal = linked(office(), NO_SWEEPS).await;
    rehearsal.stop_engine().await;
    work(&rehearsal);
    befall(&rehearsal, &Act::ForgetChangeEvents);
    rehearsal.start_engine().await;
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gap() {
    let rehearsal = linked(office(), NO_SWEEPS).await;
    let records = ["Kept S", "Gone S"].map(|subject| row_id(&rehearsal, subject));
    rehearsal.switch(|switches| switches.salesforce_drop_next = 2);
    work(&rehearsal);
    assert_eq!(rehearsal.sandbox.world().faults.read().salesforce_drop_next, 0, "nobody was told of either");
    for record in records {
        befall(&rehearsal, &Act::Gap { record });
    }
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overflow() {
    let rehearsal = linked(office(), NO_SWEEPS).await;
    rehearsal.switch(|switches| switches.salesforce_drop_next = 3);
    work(&rehearsal);
    assert_eq!(rehearsal.sandbox.world().faults.read().salesforce_drop_next, 0, "nobody was told of any");
    befall(&rehearsal, &Act::Overflow);
    all_crossed(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_change_mid_stream() {
    let rehearsal = linked(office(), NO_SWEEPS).await;
    let schema = || rehearsal.sandbox.org().change_event_schema().0;
    let (before, asked) = (schema(), rehearsal.calls("pubsub.get_schema"));
    rehearsal.switch(|switches| switches.salesforce_extra_field = true);
    assert_ne!(schema(), before);
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    assert_eq!(rehearsal.calls("pubsub.get_schema"), asked + 1, "the new schema was fetched once");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_ended_by_server() {
    let rehearsal = linked(office(), NO_SWEEPS).await;
    let streams = rehearsal.calls("pubsub.subscribe");
    rehearsal.switch(|switches| switches.salesforce_end_stream_next = 1);
    assert!(befall(&rehearsal, &Act::EndStreams) > 0, "somebody listened");
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    assert!(rehearsal.calls("pubsub.subscribe") >= streams + 2, "it ended twice");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_allocation_exhausted() {
    // The stream is closed for a day; the comparisons carry what people do in Salesforce.
    let rehearsal = works_despite(SWEEPS, |switches| switches.salesforce_deliveries_exhausted = true).await;
    rehearsal.end().await;
}
