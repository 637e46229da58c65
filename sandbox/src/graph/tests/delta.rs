//! Delta rounds.

use super::*;

const VIEW: &str = "calendarView/delta?startDateTime=2026-11-20T00:00:00Z&endDateTime=2026-12-20T00:00:00Z";

/// Follows a round to its end: all values, and the delta link.
async fn round(bench: &Bench, first: &str, page_size: &str) -> (Vec<Value>, String) {
    let mut url = first.to_owned();
    let mut values = Vec::new();
    loop {
        let prefer = format!("odata.maxpagesize={page_size}");
        let reply = bench.call("GET", &url, &[("prefer", &prefer)], Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(reply.headers["preference-applied"].to_str().unwrap().contains("odata.track-changes"));
        values.extend(reply.body["value"].as_array().unwrap().clone());
        match (reply.body["@odata.nextLink"].as_str(), reply.body["@odata.deltaLink"].as_str()) {
            (Some(next), None) => url = next.to_owned(),
            (None, Some(delta)) => return (values, delta.to_owned()),
            other => panic!("exactly one link expected, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn rounds_tell_each_change_and_each_removal() {
    let bench = Bench::new(Profile::Quiet);
    let (nothing, link) = round(&bench, &format!("/users/{ANNA}/{VIEW}"), "2").await;
    assert!(nothing.is_empty());
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(bench.event(json!({})).await);
    }
    let (five, link) = round(&bench, &link, "2").await;
    assert_eq!(five.len(), 5);
    bench.patch(&format!("/users/{ANNA}/events/{}", id(&made[1])), json!({"subject": "new"})).await;
    bench.call("DELETE", &format!("/users/{ANNA}/events/{}", id(&made[2])), &[], Value::Null).await;
    let away = json!({"start": {"dateTime": "2027-06-01T09:00:00", "timeZone": "UTC"},
        "end": {"dateTime": "2027-06-01T10:00:00", "timeZone": "UTC"}});
    bench.patch(&format!("/users/{ANNA}/events/{}", id(&made[3])), away).await;
    let (changes, link) = round(&bench, &link, "10").await;
    assert_eq!(changes.len(), 3);
    assert_eq!(changes[0]["subject"], "new");
    assert_eq!(changes[1], json!({"id": made[2]["id"], "@removed": {"reason": "deleted"}}));
    assert_eq!(changes[2]["@removed"]["reason"], "deleted");
    assert!(round(&bench, &link, "10").await.0.is_empty());
}

#[tokio::test]
async fn first_round_pages_and_skips_what_lies_outside() {
    let bench = Bench::new(Profile::Quiet);
    for month in ["11", "12"] {
        for day in 25..28 {
            bench
                .event(json!({"start": {"dateTime": format!("2026-{month}-{day}T09:00:00"), "timeZone": "UTC"},
                "end": {"dateTime": format!("2026-{month}-{day}T10:00:00"), "timeZone": "UTC"}}))
                .await;
        }
    }
    let spelled = VIEW.replace("delta?", "microsoft.graph.delta()?");
    assert_eq!(round(&bench, &format!("/users/{ANNA}/{spelled}"), "2").await.0.len(), 3);
    assert_eq!(round(&bench, &format!("/users/{ANNA}/events/delta"), "4").await.0.len(), 6);
}

#[tokio::test]
async fn forgotten_sync_state_is_410() {
    let bench = Bench::new(Profile::Quiet);
    let (_, link) = round(&bench, &format!("/users/{ANNA}/{VIEW}"), "10").await;
    bench.world.faults.change(|switches| switches.outlook_delta_gone_next = 1);
    let gone = bench.get(&link).await;
    assert_eq!((gone.status, &gone.body["error"]["code"]), (410, &json!("SyncStateNotFound")));
    assert_eq!(bench.get(&link).await.status, 200);
    bench.tenant.forget_delta_links();
    assert_eq!(bench.get(&link).await.status, 410);
    assert_eq!(bench.get(&format!("/users/{ANNA}/{VIEW}&$select=subject")).await.status, 400);
}

#[tokio::test]
async fn a_series_comes_with_its_occurrences() {
    let bench = Bench::new(Profile::Quiet);
    let master = bench
        .event(json!({"recurrence": {"pattern": {"type": "daily", "interval": 1},
        "range": {"type": "numbered", "startDate": "2026-11-23", "numberOfOccurrences": 3}}}))
        .await;
    let (values, _) = round(&bench, &format!("/users/{ANNA}/{VIEW}"), "10").await;
    let types: Vec<_> = values.iter().map(|value| value["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["seriesMaster", "occurrence", "occurrence", "occurrence"]);
    assert_eq!(values[1]["seriesMasterId"], master["id"]);
    assert!(values[1].get("subject").is_none());
}
