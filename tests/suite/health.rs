//! What machines ask a running engine: is it alive, is it ready, what has it counted; and how it stops.

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::{Value, json};

use crate::support::Rehearsal;
use crate::support::meetings::{in_outlook, in_salesforce};
use crate::support::process::Bench;

/// More than any test asks for.
const ALL: u32 = u32::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_never_makes_the_engine_look_dead_and_readiness_names_what_is_missing() {
    let bench = Bench::set_up(Options::default(), "").await;
    let faults = &bench.rehearsal.sandbox.world().faults;
    faults.change(|switches| switches.salesforce_unavailable_next = ALL);
    let running = bench.start();
    let told = bench.answers("/readyz", |status, text| status == 503 && text.contains("learning")).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["ready"], &told["not_ready"]), (&json!(false), &json!(["engine", "enrolments"])), "{told:#}");
    assert_eq!(bench.ask("/healthz").await, Some((200, "ok\n".to_owned())));
    running.log_until("the outage", |line| line.contains("salesforce failed")).await;
    assert_eq!(bench.ask("/healthz").await.map(|(status, _)| status), Some(200), "the outage is known by now");

    faults.change(|switches| switches.salesforce_unavailable_next = 0);
    let told = bench.answers("/readyz", |status, _| status == 200).await;
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["not_ready"], json!([]));

    // Ready does not mean subscribed yet: without a subscription nothing would be notified below.
    let all = bench.rehearsal.sandbox.endpoints().mailboxes.len();
    let subscribed = |r: &Rehearsal| r.sandbox.tenant().subscriptions(None).len() >= all;
    bench.rehearsal.until("every mailbox is subscribed", subscribed).await;
    // Both remotes go away while there is something to do.
    faults.change(|switches| (switches.salesforce_unavailable_next, switches.outlook_unavailable_next) = (ALL, ALL));
    bench.rehearsal.person(0).create_in_outlook(&in_outlook("During the outage")).unwrap();
    running
        .log_until("the outage of outlook", |line| line.contains("could not be read") && line.contains("outlook"))
        .await;
    assert_eq!(bench.ask("/healthz").await.map(|(status, _)| status), Some(200));
    faults.change(|switches| (switches.salesforce_unavailable_next, switches.outlook_unavailable_next) = (0, 0));
    bench.rehearsal.until("it crossed after the outage", |r| r.salesforce().len() == 1).await;
    let ended = running.stop().await;
    assert_eq!(ended.code, 0, "{ended:?}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_from_the_start_everything_that_an_operator_watches() {
    let bench = Bench::set_up(Options::default(), "").await;
    let faults = &bench.rehearsal.sandbox.world().faults;
    let running = bench.run().await;
    let watched = [
        "calbridge_crossings_total{to=\"outlook\"}",
        "calbridge_crossings_total{to=\"salesforce\"}",
        "calbridge_writes_total{side=\"outlook\"",
        "calbridge_writes_total{side=\"salesforce\"",
        "calbridge_echoes_total{side=\"outlook\"}",
        "calbridge_echoes_total{side=\"salesforce\"}",
        "calbridge_duplicates_total",
        "calbridge_mails_expected_total 0",
        "calbridge_oldest_waiting_seconds",
        "calbridge_dead_letters_open 0",
        "calbridge_dead_letters_total",
        "calbridge_subscription_expiry_seconds ",
    ];
    let has_all = |_: u16, text: &str| watched.iter().all(|name| text.contains(name));
    let text = bench.answers("/metrics", has_all).await;
    assert!(!text.contains("calbridge_crossings_total{to=\"salesforce\"} 1"), "{text}");
    let expiry = value(&text, "calbridge_subscription_expiry_seconds").unwrap();
    assert!(expiry > 3600.0, "subscriptions live for days: {expiry}");

    let person = bench.rehearsal.person(0);
    faults.change(|switches| switches.hub_duplicate_next = 1);
    person.create_in_outlook(&in_outlook("Counted")).unwrap();
    person.create_in_salesforce(in_salesforce("Counted too")).unwrap();
    bench.rehearsal.until("both crossed", |r| r.salesforce().len() == 2 && r.outlook(0).len() == 2).await;
    let counted = |text: &str| {
        ["calbridge_crossings_total{to=\"outlook\"}", "calbridge_crossings_total{to=\"salesforce\"}"]
            .iter()
            .all(|name| value(text, name) == Some(1.0))
            && sum(text, "calbridge_echoes_total") >= 1.0
            && sum(text, "calbridge_stream_lag_seconds") >= 0.0
            && text.contains("calbridge_stream_lag_seconds{stream=\"event_hubs/")
            && text.contains("calbridge_stream_lag_seconds{stream=\"pubsub/")
            && sum(text, "calbridge_duplicates_total") >= 1.0
    };
    let text = bench.answers("/metrics", |_, text| counted(text)).await;
    assert!((sum(&text, "calbridge_writes_total") - 2.0).abs() < 0.5, "{text}");
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

/// Returns the value of a metric by its name and labels.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Adds up the values of a metric over all labels.
fn sum(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_under_way_ends_with_0_and_the_next_start_goes_on() {
    let bench = Bench::set_up(Options::default(), "").await;
    let running = bench.run().await;
    let person = bench.rehearsal.person(0);
    let all = 25;
    for number in 0..all {
        person.create_in_outlook(&in_outlook(&format!("Meeting {number}"))).unwrap();
    }
    bench.rehearsal.until("the first is in Salesforce", |r| !r.salesforce().is_empty()).await;
    let ended = running.stop().await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.complaints.contains("finishing what is under way"), "{ended:?}");
    assert!(ended.complaints.lines().last().unwrap().contains("stopped"), "{ended:?}");
    let status = bench.rehearsal.store().await.status().await.unwrap();
    assert_eq!(status.intents, 0, "no write was left without its answer: {status:?}");
    assert!(bench.ask("/healthz").await.is_none(), "nobody listens any more");

    let running = bench.run().await;
    bench.rehearsal.until("all are in Salesforce", |r| r.salesforce().len() >= all).await;
    bench.rehearsal.settled().await;
    assert_eq!(bench.rehearsal.writes(Cloud::Salesforce).len(), all, "each once");
    assert_eq!(bench.rehearsal.salesforce().len(), all);
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}
