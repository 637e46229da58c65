//! Faults by name, as a client of Graph meets them.

use super::*;
use crate::actor::Actor;
use crate::mails::MailKind;

#[tokio::test]
async fn outages_strike_before_or_after_the_effect() {
    let bench = Bench::new(Profile::Quiet);
    let events = format!("/users/{ANNA}/events");
    let body = || meeting("2026-11-23T09:00:00", "2026-11-23T10:00:00");
    let faults = &bench.world.faults;
    faults.change(|switches| switches.outlook_internal_error_next = 1);
    assert_eq!(bench.post(&events, body()).await.status, 500);
    faults.change(|switches| switches.outlook_gateway_timeout_next = 1);
    assert_eq!(bench.post(&events, body()).await.status, 504);
    assert!(bench.list(ANNA).await.is_empty());
    faults.change(|switches| switches.outlook_unavailable_after_next = 1);
    let reply = bench.post(&events, body()).await;
    assert_eq!((reply.status, reply.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(bench.list(ANNA).await.len(), 1, "it took effect");
    faults.change(|switches| switches.outlook_throttle_bare_next = 1);
    let reply = bench.get(&events).await;
    assert_eq!((reply.status, reply.headers.get("retry-after")), (429, None));
}

#[tokio::test]
async fn a_late_write_takes_effect_although_nobody_was_answered() {
    let bench = Bench::on(Profile::Quiet, 1_000.0);
    bench.world.faults.change(|switches| switches.outlook_late_apply_next = 1);
    let request = Request::builder()
        .method("POST")
        .uri(format!("/v1.0/users/{ANNA}/events"))
        .header("authorization", format!("Bearer {}", bench.token))
        .body(Body::from(meeting("2026-11-23T09:00:00", "2026-11-23T10:00:00").to_string()))
        .unwrap();
    let response = router(Arc::clone(&bench.tenant)).oneshot(request).await.unwrap();
    assert!(axum::body::to_bytes(response.into_body(), usize::MAX).await.is_err(), "the connection is cut");
    let mut history = bench.world.history.watch();
    while bench.world.history.is_empty() {
        history.changed().await.unwrap();
    }
    assert_eq!(bench.list(ANNA).await.len(), 1);
}

#[tokio::test]
async fn an_event_that_changes_underneath_answers_412_only_where_versions_are_honoured() {
    let bench = Bench::new(Profile::Quiet);
    let event = bench.event(json!({})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&event));
    let tag = event["@odata.etag"].as_str().unwrap();
    let change = || json!({"subject": "Other"});
    bench.world.faults.change(|switches| switches.outlook_changed_underneath_next = 1);
    assert_eq!(bench.call("PATCH", &path, &[("if-match", tag)], change()).await.status, 412);
    bench.world.faults.change(|switches| {
        switches.outlook_changed_underneath_next = 1;
        switches.outlook_if_match = false;
    });
    assert_eq!(bench.call("PATCH", &path, &[("if-match", tag)], change()).await.status, 200);
}

#[tokio::test]
async fn a_mailbox_without_licence_is_not_found_and_comes_back_whole() {
    let bench = Bench::new(Profile::Quiet);
    let event = bench.event(json!({})).await;
    bench.subscribe(ANNA).await;
    bench.tenant.set_licensed(ANNA, false);
    let view = format!("/users/{ANNA}/calendarView/delta?startDateTime=2026-11-01&endDateTime=2026-12-01");
    for path in [format!("/users/{ANNA}/events/{}", id(&event)), format!("/users/{ANNA}/events"), view] {
        let reply = bench.get(&path).await;
        assert_eq!(
            (reply.status, &reply.body["error"]["code"]),
            (404, &json!("MailboxNotEnabledForRESTAPI")),
            "{path}"
        );
    }
    assert_eq!(bench.get(&format!("/users/{ANNA}")).await.status, 200, "the user is there");
    assert!(bench.notifications().is_empty(), "nobody is told of a deletion");
    bench.tenant.set_licensed(ANNA, true);
    assert_eq!(bench.list(ANNA).await.len(), 1);
}

#[test]
fn subscriptions_end_with_or_without_a_word() {
    let bench = Bench::new(Profile::Quiet);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(bench.subscribe(ANNA));
    assert_eq!(bench.tenant.expire_subscriptions(), 1);
    assert!(bench.tenant.subscriptions(None).is_empty());
    assert_eq!(bench.tenant.each_subscription(Tenant::drop_subscription), 0);
}

#[tokio::test]
async fn a_notification_that_is_overtaken_comes_after_the_next() {
    let bench = Bench::new(Profile::Quiet);
    bench.subscribe(ANNA).await;
    bench.world.faults.change(|switches| switches.hub_reorder_next = 1);
    let first = bench.event(json!({"subject": "First"})).await;
    let second = bench.event(json!({"subject": "Second"})).await;
    bench.advance(10);
    let told: Vec<String> = bench
        .notifications()
        .iter()
        .map(|item| item["resourceData"]["@odata.etag"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(told, [&second, &first].map(|event| event["@odata.etag"].as_str().unwrap().to_owned()));
}

#[tokio::test]
async fn the_ledger_tells_author_kind_and_recipients_of_every_mail() {
    let bench = Bench::new(Profile::Quiet);
    let event = bench.event(json!({"attendees": invite(&[BEN, "guest@elsewhere.example"])})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&event));
    bench.patch(&path, json!({"subject": "Moved", "attendees": invite(&[BEN, CARL])})).await;
    bench.call("DELETE", &path, &[], Value::Null).await;
    let past = bench
        .event(json!({"attendees": invite(&[BEN]), "start": {"dateTime": "2026-11-01T09:00:00", "timeZone": "UTC"},
            "end": {"dateTime": "2026-11-01T10:00:00", "timeZone": "UTC"}}))
        .await;
    bench.patch(&format!("/users/{ANNA}/events/{}", id(&past)), json!({"showAs": "free"})).await;
    let mails = bench.world.mails.all();
    assert!(mails.iter().all(|mail| mail.actor == Actor::App(CLIENT.to_owned())));
    let told: Vec<(MailKind, usize, bool)> =
        mails.iter().map(|mail| (mail.kind, mail.recipients.len(), mail.past)).collect();
    let expected = [
        (MailKind::Invitation, 2, false),
        (MailKind::Update, 1, false),
        (MailKind::Invitation, 1, false),
        (MailKind::Cancellation, 1, false),
        (MailKind::Cancellation, 2, false),
        (MailKind::Invitation, 1, true),
    ];
    assert_eq!(told, expected, "who is busy is nobody's mail");
    let counted: u64 = bench.world.meters.read().mails.values().sum();
    assert_eq!(counted, 8, "counters and ledger agree");
}

#[tokio::test]
async fn the_hostile_profile_strikes_and_can_be_calmed() {
    let bench = Bench::new(Profile::Hostile);
    let events = format!("/users/{ANNA}/events");
    let mut failed = 0;
    for _ in 0..400 {
        failed += u32::from(bench.get(&events).await.status != 200);
    }
    assert!((1..100).contains(&failed), "{failed} of 400 calls");
    bench.world.faults.change(crate::faults::Switches::calm);
    for _ in 0..400 {
        assert_eq!(bench.get(&events).await.status, 200);
    }
}
