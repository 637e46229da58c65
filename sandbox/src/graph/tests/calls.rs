//! Single calls: identity, errors, preferences, queries, batches.

use super::*;
use crate::history::EffectKind;
use crate::tap::{Exchange, Heard, Payload};

#[tokio::test]
async fn calls_without_a_good_token_are_refused_with_the_envelope() {
    let bench = Bench::new(Profile::Quiet);
    for token in [None, Some("rubbish".to_owned()), Some(bench.tenant.entra().issue(Audience::Graph, -1))] {
        let mut request = Request::get("/v1.0/users").header("client-request-id", "mine");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let reply = bench.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((reply.status, &reply.body["error"]["code"]), (401, &json!("InvalidAuthenticationToken")));
        assert_eq!(reply.body["error"]["innerError"]["client-request-id"], "mine");
        assert!(reply.headers.contains_key("request-id") && reply.headers.contains_key("www-authenticate"));
    }
}

#[tokio::test]
async fn a_missing_role_is_a_403() {
    let mut bench = Bench::new(Profile::Quiet);
    bench.tenant.entra().grant(&["Calendars.Read"]);
    bench.token = bench.tenant.entra().issue(Audience::Graph, 60);
    assert_eq!(bench.get("/users").await.body["error"]["code"], "Authorization_RequestDenied");
    let reply = bench.post(&format!("/users/{ANNA}/events"), meeting("2026-11-23T09:00", "2026-11-23T10:00")).await;
    assert_eq!((reply.status, &reply.body["error"]["code"]), (403, &json!("ErrorAccessDenied")));
    assert_eq!(bench.get(&format!("/users/{ANNA}/events")).await.status, 200);
}

#[tokio::test]
async fn a_body_over_four_megabytes_is_refused_and_one_that_breaks_off_asks_nothing() {
    let bench = Bench::new(Profile::Quiet);
    let heard = bench.world.tap.listen();
    let path = format!("/v1.0/users/{ANNA}/events");
    let reply = bench.send(Request::post(&path).body(Body::from(vec![b' '; 5 * 1024 * 1024])).unwrap()).await;
    assert_eq!((reply.status, &reply.body["error"]["code"]), (413, &json!("RequestEntityTooLarge")));
    let broken = futures::stream::iter([Ok("{"), Err(std::io::Error::other("the client is gone"))]);
    let request = Request::post(&path).body(Body::from_stream(broken)).unwrap();
    let response = router(Arc::clone(&bench.tenant)).oneshot(request).await.unwrap();
    assert!(axum::body::to_bytes(response.into_body(), 1024).await.is_err(), "the connection is broken");
    bench.world.tap.close();
    assert_eq!(heard.iter().count(), 1, "half a request is no exchange");
}

#[tokio::test]
async fn token_endpoint_and_discovery_answer() {
    let bench = Bench::new(Profile::Quiet);
    let form = format!(
        "client_id={CLIENT}&client_secret=secret&grant_type=client_credentials&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default"
    );
    let request = Request::post("/contoso.example/oauth2/v2.0/token").body(Body::from(form)).unwrap();
    let reply = bench.send(request).await;
    assert_eq!((reply.status, &reply.body["token_type"]), (200, &json!("Bearer")));
    let request = Request::get("/contoso.example/v2.0/.well-known/openid-configuration").header("host", "login.test:1");
    let reply = bench.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.body["token_endpoint"], "http://login.test:1/contoso.example/oauth2/v2.0/token");
    assert_eq!(bench.world.meters.read().calls[CLIENT]["entra.token"], 1);
}

#[tokio::test]
async fn an_event_is_created_read_changed_and_deleted() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({"body": {"contentType": "text", "content": "bring cake"}})).await;
    assert_eq!((&made["type"], &made["isOrganizer"]), (&json!("singleInstance"), &json!(true)));
    assert_eq!(made["@odata.etag"], format!("W/\"{}\"", made["changeKey"].as_str().unwrap()));
    assert_eq!(made["body"]["contentType"], "html");
    let path = format!("/users/{ANNA}/events/{}", id(&made));

    let changed = bench.patch(&path, json!({"location": {"displayName": "Room 7"}})).await.body;
    assert_ne!(changed["changeKey"], made["changeKey"]);
    let seen = bench.get(&path).await.body;
    assert_eq!(seen["location"]["displayName"], "Room 7");
    assert_eq!(seen["start"], json!({"dateTime": "2026-11-23T09:00:00.0000000", "timeZone": "UTC"}));

    assert_eq!(bench.call("DELETE", &path, &[], Value::Null).await.status, 204);
    let gone = bench.get(&path).await;
    assert_eq!((gone.status, &gone.body["error"]["code"]), (404, &json!("ErrorItemNotFound")));
    let kinds: Vec<_> = bench.world.history.since(0).iter().map(|effect| effect.kind).collect();
    assert_eq!(kinds, [EffectKind::Create, EffectKind::Update, EffectKind::Delete]);
}

#[tokio::test]
async fn preferences_are_applied_and_named() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({"body": {"contentType": "html", "content": "<p>bring <b>cake</b></p>"}})).await;
    let prefer =
        "outlook.timezone=\"Pacific Standard Time\", outlook.body-content-type=\"text\", IdType=\"ImmutableId\"";
    let reply =
        bench.call("GET", &format!("/users/{ANNA}/events/{}", id(&made)), &[("prefer", prefer)], Value::Null).await;
    assert_eq!(reply.body["start"]["dateTime"], "2026-11-23T01:00:00.0000000");
    assert_eq!(reply.body["start"]["timeZone"], "Pacific Standard Time");
    assert_eq!(reply.body["body"], json!({"contentType": "text", "content": "bring cake"}));
    assert_ne!(reply.body["id"], made["id"]);
    assert_eq!(reply.headers["preference-applied"].to_str().unwrap(), prefer);
    let by_immutable = bench.get(&format!("/users/{ANNA}/events/{}", id(&reply.body))).await;
    assert_eq!(by_immutable.body["id"], made["id"]);
}

#[tokio::test]
async fn ids_are_checked() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({})).await;
    let reply = bench.get(&format!("/users/{ANNA}/events/{}", id(&made).to_lowercase())).await;
    assert_eq!((reply.status, &reply.body["error"]["code"]), (400, &json!("ErrorInvalidIdMalformed")));
    assert_eq!(bench.get(&format!("/users/{BEN}/events/{}", id(&made))).await.status, 404);
    assert_eq!(bench.get("/users/nobody@contoso.example/events").await.status, 404);
    assert_eq!(bench.get("/me/events").await.status, 400);
}

#[tokio::test]
async fn stale_etag_is_412_unless_switched_off() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    let old = made["@odata.etag"].as_str().unwrap();
    let headers = [("if-match", old)];
    let write = |subject: &'static str| bench.call("PATCH", &path, &headers, json!({"subject": subject}));
    assert_eq!(write("one").await.status, 200);
    let refused = write("two").await;
    assert_eq!((refused.status, &refused.body["error"]["code"]), (412, &json!("ErrorIrresolvableConflict")));
    assert_eq!(bench.call("DELETE", &path, &[("if-match", old)], Value::Null).await.status, 412);
    bench.world.faults.change(|switches| switches.outlook_if_match = false);
    assert_eq!(write("three").await.status, 200);
}

#[tokio::test]
async fn a_repeated_transaction_id_makes_no_second_event() {
    let bench = Bench::new(Profile::Quiet);
    let first = bench.event(json!({"transactionId": "t-1"})).await;
    let second = bench.event(json!({"transactionId": "t-1", "subject": "other"})).await;
    assert_eq!((&second["id"], &second["transactionId"]), (&first["id"], &json!("t-1")));
    bench.world.faults.change(|switches| switches.outlook_transaction_id = false);
    assert_ne!(bench.event(json!({"transactionId": "t-1"})).await["id"], first["id"]);
}

#[tokio::test]
async fn extended_properties_are_found_but_not_echoed() {
    let bench = Bench::new(Profile::Quiet);
    bench.event(json!({})).await;
    let made = bench.event(json!({"singleValueExtendedProperties": [{"id": PROPERTY, "value": "link-1"}]})).await;
    assert!(made.get("singleValueExtendedProperties").is_none());
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    let seen = bench.get(&format!("{path}?$expand=singleValueExtendedProperties($filter=id eq '{PROPERTY}')")).await;
    assert_eq!(seen.body["singleValueExtendedProperties"], json!([{"id": PROPERTY, "value": "link-1"}]));
    let filter = format!("singleValueExtendedProperties/Any(ep: ep/id eq '{PROPERTY}' and ep/value eq 'link-1')");
    let found = bench.get(&format!("/users/{ANNA}/events?$filter={filter}&$select=subject")).await.body;
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
    assert_eq!(found["value"][0]["id"], made["id"]);
    assert!(found["value"][0].get("start").is_none() && found["value"][0].get("@odata.etag").is_some());

    bench.patch(&path, json!({"singleValueExtendedProperties": [{"id": PROPERTY, "value": "link-2"}]})).await;
    let effect = bench.world.history.since(0).pop().unwrap();
    assert_eq!(effect.kind, EffectKind::Touch);
}

#[tokio::test]
async fn lists_filter_order_count_and_page() {
    let bench = Bench::new(Profile::Quiet);
    for hour in 10..15 {
        bench
            .event(json!({"subject": format!("s{hour}"),
            "start": {"dateTime": format!("2026-11-23T{hour}:00:00"), "timeZone": "UTC"},
            "end": {"dateTime": format!("2026-11-23T{hour}:30:00"), "timeZone": "UTC"}}))
            .await;
    }
    let mut url = format!(
        "/users/{ANNA}/events?$filter=start/dateTime ge '2026-11-23T11:00:00'&$orderby=start/dateTime desc&$top=3&$count=true"
    );
    let mut subjects = Vec::new();
    loop {
        let page = bench.get(&url).await.body;
        assert_eq!(page["@odata.count"], 4);
        subjects.extend(page["value"].as_array().unwrap().iter().map(|event| event["subject"].clone()));
        match page["@odata.nextLink"].as_str() {
            Some(next) => url = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(subjects, ["s14", "s13", "s12", "s11"]);
    let uid = bench.list(ANNA).await[0]["iCalUId"].clone();
    let found = bench.get(&format!("/users/{ANNA}/events?$filter=iCalUId eq '{}'", uid.as_str().unwrap())).await;
    assert_eq!(found.body["value"][0]["subject"], "s10");
    let view = format!(
        "/users/{ANNA}/calendarView?startDateTime=2026-11-23T12:00:00%2B01:00&endDateTime=2026-11-23T12:45:00Z"
    );
    let seen = bench.get(&view).await.body;
    assert_eq!(seen["value"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_batch_answers_each_item_and_fails_what_depends_on_a_failure() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    let json_type = json!({"Content-Type": "application/json"});
    let reply = bench
        .post("/$batch", json!({"requests": [
            {"id": "1", "method": "PATCH", "url": path, "headers": {"content-type": "application/json", "if-match": "W/\"x\""},
                "body": {"subject": "a"}},
            {"id": "2", "method": "PATCH", "url": path, "headers": json_type, "body": {"subject": "b"}, "dependsOn": ["1"]},
            {"id": "3", "method": "GET", "url": path.trim_start_matches('/')},
            {"id": "4", "method": "DELETE", "url": path, "dependsOn": ["3"]},
        ]}))
        .await;
    let statuses: Vec<_> = reply.body["responses"].as_array().unwrap().iter().map(|r| r["status"].clone()).collect();
    assert_eq!((reply.status, statuses), (200, vec![json!(412), json!(424), json!(200), json!(204)]));
    assert_eq!(reply.body["responses"][2]["body"]["subject"], "Review");
    let counts = bench.world.meters.read();
    assert_eq!((counts.calls[CLIENT]["graph.batch"], counts.units[CLIENT]), (1, 5));
    let twice = json!({"requests": [{"id": "a", "method": "GET", "url": "/users"}, {"id": "A", "method": "GET", "url": "/users"}]});
    assert_eq!(bench.post("/$batch", twice).await.status, 400);
    let many: Vec<Value> = (0..21).map(|n| json!({"id": n.to_string(), "method": "GET", "url": "/users"})).collect();
    assert_eq!(bench.post("/$batch", json!({"requests": many})).await.status, 400);
}

#[tokio::test]
async fn injected_faults_come_once_each() {
    let bench = Bench::new(Profile::Quiet);
    bench.world.faults.change(|switches| {
        switches.outlook_throttle_next = 1;
        switches.outlook_unavailable_next = 1;
    });
    let list = format!("/users/{ANNA}/events");
    let unavailable = bench.get(&list).await;
    assert_eq!((unavailable.status, unavailable.headers.contains_key("retry-after")), (503, true));
    let throttled = bench.get(&list).await;
    assert_eq!((throttled.status, &throttled.body["error"]["code"]), (429, &json!("ApplicationThrottled")));
    assert!(throttled.headers.contains_key("retry-after"));
    assert_eq!(bench.get(&list).await.status, 200);
}

#[tokio::test]
async fn a_cut_answer_leaves_its_effect() {
    let bench = Bench::new(Profile::Quiet);
    bench.world.faults.change(|switches| switches.outlook_cut_answer_next = 1);
    let request = Request::post(format!("/v1.0/users/{ANNA}/events"))
        .header("authorization", format!("Bearer {}", bench.token))
        .body(Body::from(meeting("2026-11-23T09:00:00", "2026-11-23T10:00:00").to_string()))
        .unwrap();
    let response = router(Arc::clone(&bench.tenant)).oneshot(request).await.unwrap();
    assert!(axum::body::to_bytes(response.into_body(), usize::MAX).await.is_err());
    assert_eq!(bench.list(ANNA).await.len(), 1);
}

#[tokio::test]
async fn users_settings_and_id_translation_answer() {
    let bench = Bench::new(Profile::Quiet);
    let found = bench.get(&format!("/users?$filter=mail eq '{BEN}'&$select=id,mail")).await.body;
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
    let user = found["value"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(bench.get(&format!("/users/{user}/mailboxSettings")).await.body["timeZone"], "Pacific Standard Time");
    let zone = bench.get(&format!("/users/{ANNA}/mailboxSettings/timeZone")).await.body;
    assert_eq!(zone["value"], "W. Europe Standard Time");
    let made = bench.event(json!({})).await;
    let asked = json!({"inputIds": [made["id"]], "sourceIdType": "restId", "targetIdType": "restImmutableEntryId"});
    let translated = bench.post(&format!("/users/{ANNA}/translateExchangeIds"), asked).await.body;
    let target = id(&json!({"id": translated["value"][0]["targetId"]}));
    assert_eq!(bench.get(&format!("/users/{ANNA}/events/{target}")).await.body["iCalUId"], made["iCalUId"]);
}

#[tokio::test]
async fn spoilt_tokens_are_issued_while_switched_on() {
    let mut bench = Bench::new(Profile::Quiet);
    bench.world.faults.change(|switches| switches.outlook_expired_tokens_next = 1);
    let form = format!(
        "client_id={CLIENT}&client_secret=secret&grant_type=client_credentials&scope=https://graph.microsoft.com/.default"
    );
    for status in [401, 200] {
        let request = Request::post("/contoso.example/oauth2/v2.0/token");
        let reply = bench.send(request.body(Body::from(form.clone())).unwrap()).await;
        bench.token = reply.body["access_token"].as_str().unwrap().to_owned();
        assert_eq!(bench.get("/users").await.status, status);
    }
}

#[tokio::test]
async fn stale_reads_show_the_state_before_the_last_change() {
    let bench = Bench::new(Profile::Quiet);
    let stale = || bench.world.faults.change(|switches| switches.outlook_stale_reads_next = 1);
    let made = bench.event(json!({})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    stale();
    assert_eq!(bench.get(&path).await.status, 404);
    assert_eq!(bench.get(&path).await.status, 200);
    bench.patch(&path, json!({"subject": "new"})).await;
    stale();
    assert_eq!(bench.get(&path).await.body["subject"], "Review");
    bench.call("DELETE", &path, &[], Value::Null).await;
    stale();
    assert_eq!(bench.get(&path).await.body["subject"], "new");
    assert_eq!(bench.get(&path).await.status, 404);
}

#[tokio::test]
async fn names_that_an_event_does_not_have_are_refused() {
    let bench = Bench::new(Profile::Quiet);
    let path = format!("/users/{ANNA}/events");
    for option in [
        "$select=subject,nonsense",
        "$orderby=nonsense%20desc",
        "$expand=nonsense",
        "$filter=startsWith(subject,'a')%20and%20nonsense%20eq%20'x'",
    ] {
        let reply = bench.get(&format!("{path}?{option}")).await;
        assert_eq!((reply.status, &reply.body["error"]["code"]), (400, &json!("BadRequest")), "{option}");
        let wanted = "Could not find a property named 'nonsense' on type 'microsoft.graph.event'.";
        assert_eq!(reply.body["error"]["message"], wanted, "{option}");
    }
    for option in ["$select=*", "$orderby=start/dateTime", "$filter=attendees/any(a:a/emailAddress/address%20eq%20'x')"]
    {
        assert_eq!(bench.get(&format!("{path}?{option}")).await.status, 200, "{option}");
    }
}

#[tokio::test]
async fn unknown_paths_and_versions_are_refused_with_the_segment_named() {
    let bench = Bench::new(Profile::Quiet);
    let reply = bench.get(&format!("/users/{ANNA}/nonsense")).await;
    assert_eq!((reply.status, &reply.body["error"]["code"]), (400, &json!("BadRequest")));
    let reply = bench.send(Request::get("/beta/users").body(Body::empty()).unwrap()).await;
    assert_eq!((reply.status, &reply.body["error"]["message"]), (400, &json!("Invalid version: beta")));
    let batch = json!({"requests": [{"id": "1", "method": "GET", "url": format!("/v1.0/users/{ANNA}")}]});
    let reply = bench.post("/$batch", batch).await;
    assert_eq!(reply.body["responses"][0]["status"], 400);
    let reply = bench.send(Request::get("/contoso.example/oauth2/v2.0/token").body(Body::empty()).unwrap()).await;
    assert_eq!((reply.status, &reply.body["error_codes"]), (400, &json!([900_561])));
}

#[tokio::test]
async fn the_tap_hears_what_was_asked_and_answered_without_the_token() {
    let bench = Bench::new(Profile::Quiet);
    let heard = bench.world.tap.listen();
    let made = bench.event(json!({"subject": "Heard"})).await;
    let path = format!("/v1.0/users/{ANNA}/events/{}?a=%20b", made["id"].as_str().unwrap());
    let request = |method: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(&path).header("prefer", "IdType=\"ImmutableId\"");
        request.header("authorization", format!("Bearer {}", bench.token)).body(Body::from(body)).unwrap()
    };
    assert_eq!(bench.send(request("PATCH", "no json")).await.status, 400);
    bench.world.faults.change(|switches| switches.outlook_cut_answer_next = 1);
    let response = router(Arc::clone(&bench.tenant)).oneshot(request("DELETE", "")).await.unwrap();
    assert!(axum::body::to_bytes(response.into_body(), 1024).await.is_err(), "the client sees a broken connection");
    bench.get("/users/nobody/nothing").await;
    bench.world.tap.close();
    let exchanges: Vec<Exchange> = heard
        .iter()
        .map(|heard| match heard {
            Heard::Exchange(exchange) => *exchange,
            other @ Heard::HubMessage(_) => panic!("{other:?}"),
        })
        .collect();
    let brief: Vec<(&str, &str, u16, bool)> =
        exchanges.iter().map(|one| (one.method.as_str(), one.query.as_str(), one.status, one.cut)).collect();
    assert_eq!(
        brief,
        [
            ("POST", "", 201, false),
            ("PATCH", "a=%20b", 400, false),
            ("DELETE", "a=%20b", 204, true),
            ("GET", "", 400, false)
        ]
    );
    assert_eq!(exchanges[0].path, format!("/users/{ANNA}/events"));
    assert!(matches!(&exchanges[0].body, Payload::Json(body) if body["subject"] == "Heard"));
    assert!(matches!(&exchanges[0].answer, Payload::Json(body) if body["id"] == made["id"]));
    assert_eq!((&exchanges[1].body, &exchanges[2].answer), (&Payload::Other, &Payload::None));
    assert!(exchanges[1].headers.contains(&("prefer".to_owned(), "IdType=\"ImmutableId\"".to_owned())));
    assert!(!format!("{exchanges:?}").contains(&bench.token), "credentials stay out");
}

#[tokio::test]
async fn tokens_are_refused_as_often_as_switched() {
    let bench = Bench::new(Profile::Quiet);
    bench.world.faults.change(|switches| switches.outlook_refuse_tokens_next = 1);
    let refused = bench.get(&format!("/users/{ANNA}/events")).await;
    assert_eq!((refused.status, &refused.body["error"]["code"]), (401, &json!("InvalidAuthenticationToken")));
    assert_eq!(bench.get(&format!("/users/{ANNA}/events")).await.status, 200);
    bench.world.faults.change(|switches| switches.outlook_revoke_tokens = true);
    assert_eq!(bench.get(&format!("/users/{ANNA}/events")).await.status, 401);
}
