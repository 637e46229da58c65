//! Limits per mailbox and per app, through the router; `outlook_answer_ms` keeps requests under way.

use std::pin::pin;

use futures::poll;

use super::*;
use crate::faults::Switches;

/// So long that no request is answered within a test.
const FOR_EVER: u32 = 3_600_000;

fn set(bench: &Bench, change: impl FnOnce(&mut Switches)) {
    bench.world.faults.change(change);
}

fn is_throttled(status: &Value, body: &Value) -> bool {
    *status == json!(429) && body["error"]["code"] == "ApplicationThrottled"
}

fn item(number: usize, mailbox: &str) -> Value {
    json!({"id": number.to_string(), "method": "GET", "url": format!("/users/{mailbox}/events")})
}

fn refusals(bench: &Bench, limit: &str) -> u64 {
    bench.world.meters.read().refusals.get(CLIENT).and_then(|limits| limits.get(limit)).copied().unwrap_or_default()
}

#[tokio::test]
async fn the_documented_numbers_are_in_force_from_the_start() {
    let switches = Bench::new(Profile::Quiet).world.faults.read();
    let numbers = (switches.outlook_requests_per_mailbox, switches.outlook_requests_at_once);
    assert_eq!((numbers, switches.outlook_requests_per_app), ((10_000, 4), 130_000));
    assert_eq!((switches.salesforce_requests_per_day, switches.salesforce_long_requests), (100_000, 25));
}

#[tokio::test]
async fn a_fifth_request_at_once_to_one_mailbox_is_refused_and_another_mailbox_is_not() {
    let bench = Bench::on(Profile::Quiet, 1.0);
    let events = format!("/users/{ANNA}/events");
    set(&bench, |switches| switches.outlook_answer_ms = FOR_EVER);
    {
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut call = Box::pin(bench.get(&events));
            assert!(poll!(&mut call).is_pending());
            held.push(call);
        }
        let user = bench.tenant.lock().mailbox_of(ANNA).unwrap();
        // By id it is the same mailbox.
        let fifth = bench.get(&format!("/users/{user}/events")).await;
        assert_eq!((fifth.status, fifth.headers["retry-after"].to_str().unwrap()), (429, "1"));
        assert_eq!(fifth.body["error"]["code"], "ApplicationThrottled");
        assert_eq!(fifth.body["error"]["message"], "Application is over its MailboxConcurrency limit.");
        let ben = format!("/users/{BEN}/events");
        let mut other = pin!(bench.get(&ben));
        assert!(poll!(&mut other).is_pending(), "it was let in");
    }
    // Clients that hang up free no seats: what has come is worked on.
    set(&bench, |switches| switches.outlook_answer_ms = 0);
    assert_eq!(bench.get(&events).await.status, 429);
    assert_eq!(refusals(&bench, "graph.mailbox_concurrency"), 2);
}

#[tokio::test]
async fn items_of_a_batch_take_seats_of_their_mailbox_four_at_a_time() {
    let bench = Bench::on(Profile::Quiet, 1_000.0);
    set(&bench, |switches| switches.outlook_answer_ms = 1);
    let requests: Vec<Value> = (0..20).map(|number| item(number, ANNA)).collect();
    let alone = bench.post("/$batch", json!({ "requests": requests })).await;
    let statuses: Vec<&Value> = alone.body["responses"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, vec![&json!(200); 20]);

    set(&bench, |switches| switches.outlook_answer_ms = FOR_EVER * 1_000);
    let events = format!("/users/{ANNA}/events");
    let mut held = (Box::pin(bench.get(&events)), Box::pin(bench.get(&events)));
    assert!(poll!(&mut held.0).is_pending() && poll!(&mut held.1).is_pending());
    set(&bench, |switches| switches.outlook_answer_ms = 1);
    let mixed = [item(0, ANNA), item(1, BEN), item(2, ANNA), item(3, ANNA), item(4, ANNA)];
    let reply = bench.post("/$batch", json!({ "requests": mixed })).await;
    assert_eq!(reply.status, 200, "the batch as a whole is answered");
    let throttled: Vec<bool> = reply.body["responses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| is_throttled(&one["status"], &one["body"]))
        .collect();
    assert_eq!(throttled, [false, false, false, true, true], "{}", reply.body);
    assert_eq!(reply.body["responses"][3]["headers"]["Retry-After"], "1");
    assert_eq!(refusals(&bench, "graph.mailbox_concurrency"), 2);
}

#[tokio::test]
async fn every_request_counts_against_the_ten_minutes_also_failing_ones_and_items() {
    let bench = Bench::new(Profile::Quiet);
    set(&bench, |switches| switches.outlook_requests_per_mailbox = 4);
    assert_eq!(bench.get(&format!("/users/{ANNA}/events/AAMk")).await.status, 400);
    let requests = [item(0, ANNA), item(1, ANNA), item(2, ANNA), item(3, ANNA)];
    let reply = bench.post("/$batch", json!({ "requests": requests })).await;
    let statuses: Vec<&Value> = reply.body["responses"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [&json!(200), &json!(200), &json!(200), &json!(429)]);
    let wait: u64 = reply.body["responses"][3]["headers"]["Retry-After"].as_str().unwrap().parse().unwrap();
    assert!((590..=601).contains(&wait), "{wait}");
    assert_eq!(bench.get(&format!("/users/{BEN}/events")).await.status, 200);
    assert_eq!(refusals(&bench, "graph.mailbox_requests"), 1);
}

#[tokio::test]
async fn an_app_past_its_own_limit_is_refused_whatever_it_asks() {
    let bench = Bench::new(Profile::Quiet);
    set(&bench, |switches| switches.outlook_requests_per_app = 1);
    assert_eq!(bench.get("/users").await.status, 200);
    let refused = bench.get("/users").await;
    assert_eq!((refused.status, &refused.body["error"]["code"]), (429, &json!("TooManyRequests")));
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refusals(&bench, "graph.app_requests"), 1);
    set(&bench, |switches| switches.outlook_requests_per_app = 0);
    assert_eq!(bench.get("/users").await.status, 200, "0 switches the limit off");
}

#[tokio::test]
async fn an_item_runs_after_those_it_depends_on() {
    let bench = Bench::on(Profile::Quiet, 1_000.0);
    set(&bench, |switches| switches.outlook_answer_ms = 5);
    let event = bench.event(json!({})).await;
    let url = format!("/users/{ANNA}/events/{}", id(&event));
    let requests = json!([
        {"id": "a", "method": "DELETE", "url": url},
        {"id": "b", "method": "GET", "url": url, "dependsOn": ["a"]},
    ]);
    let reply = bench.post("/$batch", json!({ "requests": requests })).await;
    assert_eq!(reply.body["responses"][0]["status"], 204);
    assert_eq!(reply.body["responses"][1]["status"], 404, "{}", reply.body);
}
