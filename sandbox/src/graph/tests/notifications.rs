//! Subscriptions and what they are told.

use super::*;

#[tokio::test]
async fn each_change_is_told_once_under_the_quiet_profile() {
    let bench = Bench::new(Profile::Quiet);
    let subscription = bench.subscribe(ANNA).await;
    let validation = bench.messages();
    assert_eq!(validation[0]["value"][0]["subscriptionId"], "NA");
    assert!(validation[0]["value"][0]["changeType"].as_str().unwrap().starts_with("Validation: Testing"));

    let made = bench.event(json!({})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    let changed = bench.patch(&path, json!({"subject": "x"})).await.body;
    bench.call("DELETE", &path, &[], Value::Null).await;
    let told = bench.notifications();
    assert_eq!(kinds(&told), ["created", "updated", "deleted"]);
    assert_eq!(told[1]["resourceData"]["@odata.etag"], changed["@odata.etag"]);
    assert_eq!(told[1]["resourceData"]["id"], made["id"]);
    assert_eq!((&told[0]["clientState"], &told[0]["subscriptionId"]), (&json!("state"), &subscription["id"]));
    assert_eq!(bench.world.meters.read().notifications, 3);
}

#[tokio::test]
async fn attendee_copies_are_told_in_their_own_mailbox() {
    let bench = Bench::new(Profile::Quiet);
    bench.subscribe(ANNA).await;
    bench.subscribe(BEN).await;
    let made = bench.event(json!({"attendees": invite(&[BEN])})).await;
    bench.call("DELETE", &format!("/users/{ANNA}/events/{}", id(&made)), &[], Value::Null).await;
    let told = bench.notifications();
    assert_eq!(kinds(&told), ["created", "created", "deleted", "deleted"]);
    assert_ne!(told[0]["resource"], told[1]["resource"]);
}

#[tokio::test]
async fn offices_hear_bursts_duplicates_and_late_copies() {
    let bench = Bench::new(Profile::Office);
    bench.subscribe(ANNA).await;
    bench.subscribe(BEN).await;
    bench.messages();
    let made = bench.event(json!({"attendees": invite(&[BEN])})).await;
    assert!(bench.messages().is_empty() && bench.list(BEN).await.is_empty());
    for second in 1..120 {
        bench.advance(second);
    }
    let messages = bench.messages();
    let items: Vec<_> = messages.iter().flat_map(|message| message["value"].as_array().unwrap().clone()).collect();
    assert!(messages.iter().all(|message| message["value"].as_array().unwrap().len() <= 10));
    let of = |event: &Value, kind: &str| {
        let keys = items.iter().filter(|item| item["resourceData"]["id"] == event["id"] && item["changeType"] == kind);
        let keys: std::collections::BTreeSet<_> =
            keys.map(|item| item["resourceData"]["@odata.etag"].to_string()).collect();
        keys.len()
    };
    assert_eq!(of(&made, "created"), 1);
    assert!((1..=3).contains(&of(&made, "updated")));
    let copy = bench.list(BEN).await.swap_remove(0);
    assert_eq!(of(&copy, "created"), 1);
    let touches = bench.world.history.since(0).into_iter().filter(|e| e.kind == crate::history::EffectKind::Touch);
    assert_eq!(touches.count(), of(&made, "updated") + of(&copy, "updated"));
    assert_eq!(bench.world.meters.read().notifications, items.len() as u64);
}

#[tokio::test]
async fn lost_and_doubled_hub_messages_can_be_injected() {
    let bench = Bench::new(Profile::Quiet);
    bench.subscribe(ANNA).await;
    bench.world.faults.change(|switches| switches.hub_drop_next = 1);
    bench.event(json!({})).await;
    assert!(bench.notifications().is_empty());
    bench.world.faults.change(|switches| switches.hub_duplicate_next = 1);
    bench.event(json!({})).await;
    assert_eq!(kinds(&bench.notifications()), ["created", "created"]);
}

#[tokio::test]
async fn subscriptions_are_listed_renewed_and_deleted() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.subscribe(ANNA).await;
    let path = format!("/subscriptions/{}", made["id"].as_str().unwrap());
    assert_eq!(bench.get("/subscriptions").await.body["value"][0]["id"], made["id"]);
    let later = "2026-11-25T09:00:00.0000000Z";
    let renewed = bench.patch(&path, json!({"expirationDateTime": later})).await;
    assert_eq!((renewed.status, &renewed.body["expirationDateTime"]), (200, &json!(later)));
    assert_eq!(bench.post(&format!("{path}/reauthorize"), Value::Null).await.status, 204);
    assert_eq!(bench.call("DELETE", &path, &[], Value::Null).await.status, 204);
    assert_eq!(bench.patch(&path, json!({"expirationDateTime": later})).await.status, 404);
    bench.messages();
    bench.event(json!({})).await;
    assert!(bench.notifications().is_empty());
}

#[tokio::test]
async fn subscription_rules_are_held() {
    let bench = Bench::new(Profile::Quiet);
    let good = json!({"changeType": "updated", "resource": format!("users/{ANNA}/events"), "notificationUrl": HUB,
        "expirationDateTime": "2026-11-22T09:00:00Z"});
    for (name, value, status) in [
        ("expirationDateTime", "2026-12-22T09:00:00Z", 400),
        ("notificationUrl", "EventHub:https://localhost/eventhubname/other?tenantId=contoso.example", 400),
        ("notificationUrl", "EventHub:https://localhost/eventhubname/graph?tenantId=other.example", 400),
        ("notificationUrl", "https://127.0.0.1:1/closed", 400),
        ("resource", "users/nobody@contoso.example/events", 404),
        ("changeType", "renamed", 400),
        ("notificationUrl", "EventHub:https://v.vault.azure.net/secrets/hub?tenantId=contoso.example", 201),
    ] {
        let mut body = good.clone();
        body[name] = json!(value);
        assert_eq!(bench.post("/subscriptions", body).await.status, status, "{name} {value}");
    }
    let twin = bench.post("/subscriptions", good.clone()).await;
    assert_eq!((twin.status, &twin.body["error"]["code"]), (409, &json!("Conflict")));
    bench.world.faults.change(|switches| switches.outlook_duplicate_subscription_conflict = false);
    let mut short = good;
    short["expirationDateTime"] = json!("2026-11-21T09:05:00Z");
    let raised = bench.post("/subscriptions", short).await;
    assert!(raised.body["expirationDateTime"].as_str().unwrap().starts_with("2026-11-21T09:45:00"));
}

#[tokio::test]
async fn expiry_is_announced_and_then_carried_out() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench
        .post(
            "/subscriptions",
            json!({"changeType": "updated", "resource": format!("users/{ANNA}/events"), "notificationUrl": HUB,
                "lifecycleNotificationUrl": HUB, "expirationDateTime": "2026-11-21T11:00:00Z"}),
        )
        .await
        .body;
    bench.messages();
    bench.advance(30 * 60);
    assert!(bench.messages().is_empty());
    bench.advance(61 * 60);
    bench.advance(62 * 60);
    bench.advance(80 * 60);
    bench.advance(121 * 60);
    let events: Vec<_> = bench.notifications().iter().map(|item| item["lifecycleEvent"].clone()).collect();
    assert_eq!(events, ["reauthorizationRequired", "reauthorizationRequired", "subscriptionRemoved"]);
    assert_eq!(bench.get(&format!("/subscriptions/{}", made["id"].as_str().unwrap())).await.status, 404);
}

#[tokio::test]
async fn run_delivers_what_falls_due() {
    let epoch = DateTime::parse_from_rfc3339("2026-11-21T09:00:00Z").unwrap().with_timezone(&Utc);
    let world = World::new(SandboxClock::new(epoch, 1000.0), Profile::Office, 3);
    let bench = Bench::new(Profile::Office);
    let tenant = Tenant::new(Arc::clone(&world), bench.tenant.identity.clone(), Arc::new(|_| {}));
    for address in [ANNA, BEN] {
        let (name, zone) = ("x".to_owned(), "UTC".to_owned());
        tenant.add_mailbox(NewMailbox { address: address.to_owned(), name, zone, user_id: None });
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&tenant).run(stop.clone()));
    let mut changes = world.history.watch();
    let mut body = meeting("2026-11-23T09:00:00", "2026-11-23T10:00:00");
    body["attendees"] = invite(&[BEN]);
    tenant.create_event(&crate::actor::Actor::Person(ANNA.to_owned()), ANNA, &body).unwrap();
    while tenant.events(BEN).is_empty() {
        changes.changed().await.unwrap();
    }
    stop.cancel();
    running.await.unwrap();
}
