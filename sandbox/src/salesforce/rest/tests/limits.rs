//! The org's limits, through the router.

use chrono::TimeDelta;

use super::*;

fn refusals(client: &Client, limit: &str) -> u64 {
    let refusals = client.org.world.meters.read().refusals;
    refusals.get("app").and_then(|limits| limits.get(limit)).copied().unwrap_or_default()
}

#[tokio::test]
async fn the_days_calls_are_told_with_every_answer_and_refused_past_the_limit() {
    let client = client();
    client.org.world.faults.change(|switches| switches.salesforce_requests_per_day = 3);
    let limits = "/services/data/v66.0/limits";
    let told = |reply: &Reply| reply.headers["sforce-limit-info"].to_str().unwrap().to_owned();
    assert_eq!(told(&client.get(limits).await), "api-usage=1/3");
    assert_eq!(client.get(limits).await.body["DailyApiRequests"], json!({"Max": 3, "Remaining": 1}));
    assert_eq!(client.get("/services/data/v66.0/nothing").await.status, 404, "a failing call counts too");
    let refused = client.get(limits).await;
    assert_eq!((refused.status, refused.code()), (403, "REQUEST_LIMIT_EXCEEDED"));
    assert_eq!(refused.body[0]["message"], "TotalRequests Limit exceeded.");
    assert_eq!(told(&refused), "api-usage=4/3");
    assert_eq!(refusals(&client, "salesforce.requests_per_day"), 1);
    client.org.world.faults.change(|switches| switches.salesforce_requests_per_day = 0);
    assert_eq!(client.get(limits).await.status, 200, "0 switches the limit off");
}

#[tokio::test]
async fn with_too_many_long_calls_under_way_every_other_is_refused() {
    let client = client();
    client.org.world.faults.change(|switches| switches.salesforce_long_requests = 2);
    let long_ago = client.org.world.clock.now() - TimeDelta::minutes(1);
    let first = client.org.usage.run(long_ago);
    assert_eq!(client.query("SELECT Id FROM Event").await.status, 200);
    let _second = client.org.usage.run(long_ago);
    let refused = client.query("SELECT Id FROM Event").await;
    assert_eq!((refused.status, refused.code()), (403, "REQUEST_LIMIT_EXCEEDED"));
    assert_eq!(refused.body[0]["message"], "ConcurrentRequests (Concurrent API Requests) Limit exceeded.");
    assert_eq!(refusals(&client, "salesforce.long_requests"), 1);
    drop(first);
    assert_eq!(client.query("SELECT Id FROM Event").await.status, 200);
}

#[tokio::test]
async fn a_call_that_is_answered_late_took_effect_and_is_under_way() {
    let client = client();
    client.org.world.faults.change(|switches| switches.salesforce_answer_ms = 3_600_000);
    let body = with_times(json!({"Subject": "Late"}));
    let mut creating = Box::pin(client.send("POST", EVENTS, &[], &body));
    assert!(futures::poll!(&mut creating).is_pending());
    // The request is worked on in a task of its own, which gets its turn now.
    tokio::task::yield_now().await;
    assert_eq!(client.org.records().len(), 1);
    let soon = client.org.world.clock.now() + TimeDelta::seconds(30);
    assert_eq!(client.org.usage.long(soon), 1);
    drop(creating);
    assert_eq!(client.org.usage.long(soon), 1, "a client that hangs up ends nothing");
}
