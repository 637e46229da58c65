//! Series: occurrences, exceptions, deleted occurrences.

use super::*;

const WEEK: &str = "startDateTime=2026-11-23T00:00:00Z&endDateTime=2026-11-28T00:00:00Z";

async fn daily(bench: &Bench, more: Value) -> Value {
    let mut body = json!({"recurrence": {"pattern": {"type": "daily", "interval": 1},
        "range": {"type": "endDate", "startDate": "2026-11-23", "endDate": "2026-11-30"}}});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    bench.event(body).await
}

async fn view(bench: &Bench, mailbox: &str) -> Vec<Value> {
    let reply = bench.get(&format!("/users/{mailbox}/calendarView?{WEEK}&$top=50")).await;
    reply.body["value"].as_array().unwrap().clone()
}

#[tokio::test]
async fn views_show_occurrences_and_lists_show_the_master() {
    let bench = Bench::new(Profile::Quiet);
    let master = daily(&bench, json!({})).await;
    assert_eq!((&master["type"], bench.list(ANNA).await.len()), (&json!("seriesMaster"), 1));
    let occurrences = view(&bench, ANNA).await;
    assert_eq!(occurrences.len(), 5);
    let second = &occurrences[1];
    assert_eq!(second["start"]["dateTime"], "2026-11-24T09:00:00.0000000");
    assert_eq!(second["originalStart"], "2026-11-24T09:00:00.0000000Z");
    assert_eq!((&second["type"], &second["seriesMasterId"]), (&json!("occurrence"), &master["id"]));
    assert_ne!(second["iCalUId"], master["iCalUId"]);
    let again = bench.get(&format!("/users/{ANNA}/events/{}", id(second))).await.body;
    assert_eq!(again["id"], second["id"]);
    let instances = bench.get(&format!("/users/{ANNA}/events/{}/instances?{WEEK}&$top=2", id(&master))).await.body;
    assert!(instances["value"].as_array().unwrap().len() == 2 && instances["@odata.nextLink"].is_string());
}

#[tokio::test]
async fn editing_an_occurrence_makes_an_exception_and_touches_the_master() {
    let bench = Bench::new(Profile::Quiet);
    let master = daily(&bench, json!({"attendees": invite(&[BEN])})).await;
    let occurrence = view(&bench, ANNA).await.swap_remove(1);
    let path = format!("/users/{ANNA}/events/{}", id(&occurrence));
    let changed = bench.patch(&path, json!({"subject": "Special"})).await.body;
    assert_eq!((&changed["type"], &changed["id"]), (&json!("exception"), &occurrence["id"]));
    let seen = bench.get(&format!("/users/{ANNA}/events/{}", id(&master))).await.body;
    assert_ne!(seen["changeKey"], master["changeKey"]);
    let copies = view(&bench, BEN).await;
    assert_eq!((copies.len(), &copies[1]["subject"], &copies[2]["subject"]), (5, &json!("Special"), &json!("Review")));
    let crossing = json!({"start": {"dateTime": "2026-11-25T11:00:00", "timeZone": "UTC"},
        "end": {"dateTime": "2026-11-25T12:00:00", "timeZone": "UTC"}});
    assert_eq!(bench.patch(&path, crossing).await.body["error"]["code"], "ErrorOccurrenceCrossingBoundary");
}

#[tokio::test]
async fn a_deleted_occurrence_stays_away_in_every_mailbox() {
    let bench = Bench::new(Profile::Quiet);
    let master = daily(&bench, json!({"attendees": invite(&[BEN])})).await;
    let occurrence = view(&bench, ANNA).await.swap_remove(1);
    let path = format!("/users/{ANNA}/events/{}", id(&occurrence));
    assert_eq!(bench.call("DELETE", &path, &[], Value::Null).await.status, 204);
    assert_eq!(bench.get(&path).await.status, 404);
    assert_eq!((view(&bench, ANNA).await.len(), view(&bench, BEN).await.len()), (4, 4));
    let selected = format!("/users/{ANNA}/events/{}?$select=cancelledOccurrences", id(&master));
    let cancelled = bench.get(&selected).await.body["cancelledOccurrences"].clone();
    assert!(cancelled[0].as_str().unwrap().ends_with(".2026-11-24"));
}

#[tokio::test]
async fn series_keep_their_wall_clock_time_over_the_change_to_winter() {
    let bench = Bench::new(Profile::Quiet);
    bench.event(json!({
        "start": {"dateTime": "2026-10-24T09:00:00", "timeZone": "W. Europe Standard Time"},
        "end": {"dateTime": "2026-10-24T10:00:00", "timeZone": "W. Europe Standard Time"},
        "recurrence": {"pattern": {"type": "daily", "interval": 1}, "range": {"type": "noEnd", "startDate": "2026-10-24"}}}))
        .await;
    let window = "startDateTime=2026-10-24T00:00:00Z&endDateTime=2026-10-26T00:00:00Z";
    let seen = bench.get(&format!("/users/{ANNA}/calendarView?{window}")).await.body;
    let starts: Vec<_> =
        seen["value"].as_array().unwrap().iter().map(|e| e["start"]["dateTime"].as_str().unwrap()).collect();
    assert_eq!(starts, ["2026-10-24T07:00:00.0000000", "2026-10-25T08:00:00.0000000"]);
}

#[tokio::test]
async fn a_new_pattern_discards_exceptions_in_every_mailbox() {
    let bench = Bench::new(Profile::Quiet);
    let master = daily(&bench, json!({"attendees": invite(&[BEN])})).await;
    let occurrence = view(&bench, ANNA).await.swap_remove(1);
    bench.patch(&format!("/users/{ANNA}/events/{}", id(&occurrence)), json!({"subject": "Special"})).await;
    let pattern = json!({"recurrence": {"pattern": {"type": "daily", "interval": 2},
        "range": {"type": "numbered", "startDate": "2026-11-23", "numberOfOccurrences": 2}}});
    bench.patch(&format!("/users/{ANNA}/events/{}", id(&master)), pattern).await;
    for mailbox in [ANNA, BEN] {
        let seen = view(&bench, mailbox).await;
        assert_eq!((seen.len(), &seen[1]["subject"]), (2, &json!("Review")), "{mailbox}");
    }
    assert_eq!(bench.tenant.events(BEN).len(), 1);
}
