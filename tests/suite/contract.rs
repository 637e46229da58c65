//! All Graph traffic of the suite is as Microsoft describes it: that the judge finds faults, that nothing escapes it, and
//! that the engine's own operations are among what it judged. What it is: `support/contract`.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calbridge::engine;
use calbridge::http::{self, HttpOptions};
use calbridge_sandbox::history::EffectKind;
use calbridge_sandbox::oauth::entra::Audience;
use calbridge_sandbox::tap::{Exchange, Heard, Payload};
use calbridge_sandbox::{Options, Profile, SandboxClock, World};
use serde_json::{Value, json};

use crate::support::Rehearsal;
use crate::support::contract::{Contract, Fault, Watch, described};
use crate::support::look::gives;
use crate::support::meetings::{id_of, in_outlook, in_salesforce};

/// A description of one kind of thing, made for these tests: it has one of everything that can be done wrong.
fn small() -> Contract {
    let json_body = |schema: Value| json!({"content": {"application/json": {"schema": schema}}});
    let thing = json!({"$ref": "#/components/schemas/thing"});
    let mut made = json_body(thing.clone());
    made["required"] = json!(true);
    let failure = json!({"$ref": "#/components/responses/error"});
    Contract::read(&json!({
        "paths": {
            "/things/{id}": {"patch": {
                "parameters": [
                    {"name": "at", "in": "query", "required": true, "schema": {"type": "string", "format": "date-time"}},
                    {"name": "If-Match", "in": "header", "required": true, "schema": {"type": "string"}},
                ],
                "requestBody": made,
                "responses": {"200": json_body(thing.clone()), "204": {"description": "none"}, "4XX": failure},
            }},
            "/things/newest": {"get": {"responses": {"200": json_body(thing)}}},
            "/$batch": {"post": {
                "requestBody": json_body(json!({"type": "object"})),
                "responses": {"200": json_body(json!({"type": "object"}))},
            }},
        },
        "components": {
            "responses": {"error": json_body(json!({"type": "object", "required": ["error"]}))},
            "schemas": {
                "thing": {"type": "object", "required": ["id"], "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "kind": {"anyOf": [{"enum": ["big", "small"]}, {"type": "null"}]},
                    "made": {"type": ["string", "null"], "format": "date-time"},
                }},
                "microsoft.graph.changeNotificationCollection": {"type": "object", "required": ["value"], "properties": {
                    "value": {"type": "array", "items": {"type": "object", "properties": {
                        "subscriptionId": {"type": "string", "format": "uuid"},
                    }}},
                }},
            },
        },
    }))
}

const ID: &str = "3f0d2b9c-6f0e-4f0a-9a52-0b8a3f6f4c11";

fn right() -> Exchange {
    let json_type = ("content-type".to_owned(), "application/json;odata.metadata=minimal".to_owned());
    Exchange {
        method: "PATCH".to_owned(),
        path: "/things/a%2Fb".to_owned(),
        query: "at=2026-11-21T09%3A00%3A00Z".to_owned(),
        headers: vec![("if-match".to_owned(), "W/\"1\"".to_owned()), json_type.clone()],
        body: Payload::Json(json!({"id": ID, "kind": "big", "made": "2026-11-21T09:00:00.0000000Z"})),
        status: 200,
        answer_headers: vec![json_type],
        answer: Payload::Json(json!({"id": ID, "kind": null, "made": null})),
        cut: false,
    }
}

fn set(payload: &mut Payload, name: &str, value: Value) {
    if let Payload::Json(body) = payload {
        body[name] = value;
    }
}

fn one(faults: &[Fault]) -> (&str, &str, &str) {
    assert_eq!(faults.len(), 1, "{faults:#?}");
    (faults[0].part, &faults[0].pointer, &faults[0].message)
}

#[test]
fn an_exchange_as_described_has_no_fault() {
    let contract = small();
    let (operation, faults) = contract.judge(&right());
    assert_eq!((operation, faults), (Some("PATCH /things/{id}"), Vec::new()));
    let empty = Exchange { status: 204, answer: Payload::None, ..right() };
    assert_eq!(contract.judge(&empty).1, Vec::new());
}

#[test]
fn every_kind_of_wrong_exchange_is_found_with_its_place() {
    type Spoil = fn(&mut Exchange);
    let cases: Vec<(Spoil, (&str, &str, &str))> = vec![
        (|e| e.path = "/thing/1".to_owned(), ("path", "", "no such operation")),
        (|e| e.path = "/things/".to_owned(), ("path", "", "no such operation")),
        (|e| e.method = "PUT".to_owned(), ("path", "", "no such operation")),
        (|e| e.query.clear(), ("query", "", "`at` is missing")),
        (|e| e.query = "at=tomorrow".to_owned(), ("query", "", "date-time")),
        (|e| e.query.push_str("&%24select=id"), ("query", "", "`$select` is no parameter")),
        (|e| e.query.push_str("&at=2026-11-21T09%3A00%3A00Z"), ("query", "", "given twice")),
        (|e| drop(e.headers.remove(0)), ("header", "", "`If-Match` is missing")),
        (|e| drop(e.headers.remove(1)), ("request body", "", "Content-Type")),
        (|e| e.body = Payload::None, ("request body", "", "missing")),
        (|e| e.body = Payload::Other, ("request body", "", "no JSON")),
        (|e| set(&mut e.body, "id", json!(7)), ("request body", "/id", "string")),
        (|e| set(&mut e.body, "id", json!("7")), ("request body", "/id", "uuid")),
        (|e| set(&mut e.body, "kind", json!("Big")), ("request body", "/kind", "\"Big\"")),
        (|e| e.status = 201, ("status", "", "201 is not declared")),
        (|e| e.status = 500, ("status", "", "500 is not declared")),
        (|e| e.status = 404, ("response body", "", "error")),
        (|e| e.status = 204, ("response body", "", "has none")),
        (|e| e.answer = Payload::None, ("response body", "", "missing")),
        (|e| e.answer = Payload::Other, ("response body", "", "no JSON")),
        (|e| e.answer_headers.clear(), ("response body", "", "Content-Type")),
        (|e| e.answer = Payload::Json(json!({})), ("response body", "", "id")),
        (|e| set(&mut e.answer, "made", json!("2026-11-21 09:00")), ("response body", "/made", "date-time")),
        (|e| set(&mut e.answer, "kind", json!(["big"])), ("response body", "/kind", "[\"big\"]")),
    ];
    let contract = small();
    for (number, (spoil, expected)) in cases.into_iter().enumerate() {
        let mut exchange = right();
        spoil(&mut exchange);
        let (_, faults) = contract.judge(&exchange);
        let (part, pointer, message) = one(&faults);
        assert_eq!((part, pointer), (expected.0, expected.1), "case {number}: {faults:#?}");
        assert!(message.contains(expected.2), "case {number}: {message}");
    }
}

#[test]
fn a_word_of_a_path_goes_before_a_variable() {
    let exchange = Exchange { method: "GET".to_owned(), path: "/things/newest".to_owned(), ..right() };
    assert_eq!(small().judge(&exchange).0, Some("GET /things/newest"));
}

#[test]
fn each_item_of_a_batch_is_judged_as_an_exchange_of_its_own() {
    let item = |id: &str, kind: &str| {
        json!({"id": id, "method": "PATCH", "url": "things/1?at=2026-11-21T09:00:00Z", "body": {"id": ID, "kind": kind},
            "headers": {"If-Match": "W/\"1\"", "Content-Type": "application/json"}})
    };
    let answer = |id: &str, status: u16| json!({"id": id, "status": status});
    let batch = |requests: Value, responses: Value| Exchange {
        method: "POST".to_owned(),
        path: "/$batch".to_owned(),
        query: String::new(),
        body: Payload::Json(json!({ "requests": requests })),
        answer: Payload::Json(json!({ "responses": responses })),
        ..right()
    };
    let contract = small();
    let (items, faults) = contract.items(&batch(
        json!([item("1", "big"), item("2", "Big"), item("3", "big")]),
        json!([answer("3", 418), answer("1", 204), answer("2", 204)]),
    ));
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(contract.judge(&items[0]).1.is_empty());
    let wrong = contract.judge(&items[1]).1;
    assert_eq!((one(&wrong).0, one(&wrong).1), ("request body", "/kind"));
    let bodiless = contract.judge(&items[2]).1;
    assert_eq!((one(&bodiless).0, one(&bodiless).2), ("response body", "it is missing"));

    let (items, faults) =
        contract.items(&batch(json!([item("1", "big"), item("2", "big")]), json!([answer("1", 204)])));
    assert_eq!((items.len(), one(&faults).1), (1, "/requests/1"));
    let doubled = json!([answer("1", 204), answer("1", 204)]);
    let (items, faults) = contract.items(&batch(json!([item("1", "big")]), doubled));
    assert!(items.is_empty() && faults.len() == 2, "{faults:#?}");
}

#[test]
fn a_hub_message_is_a_collection_of_notifications_or_the_validation_message() {
    let contract = small();
    let judge = |message: Value| contract.message(&Payload::Json(message));
    assert_eq!(judge(json!({"value": [{"subscriptionId": ID}]})), (1, Vec::new()));
    let wrong = judge(json!({"value": [{"subscriptionId": ID}, {"subscriptionId": "7"}]})).1;
    assert_eq!(one(&wrong).1, "/value/1/subscriptionId");
    assert_eq!(one(&judge(json!({"value": []})).1).1, "/value");
    assert_eq!(one(&judge(json!([])).1).0, "message");
    assert_eq!(one(&contract.message(&Payload::Other).1).2, "it is no JSON");
    let validation = |request: &str, resource: &str| {
        let change =
            format!("Validation: Testing client application reachability for subscription Request-Id: {request}");
        json!({"value": [{"subscriptionId": "NA", "subscriptionExpirationDateTime": "NA", "clientState": "NA",
            "changeType": change, "resource": resource, "resourceData": {"@odata.type": "NA", "@odata.id": "NA", "id": "NA"}}]})
    };
    assert_eq!(judge(validation(ID, "NA")), (0, Vec::new()));
    assert_eq!(judge(validation("7", "NA")).1.len(), 1);
    assert_eq!(judge(validation(ID, "Users/1")).1.len(), 1);
}

#[test]
fn wrong_things_of_each_kind_are_found_by_graphs_own_description() {
    let Some(contract) = described() else { return };
    let json_type = ("content-type".to_owned(), "application/json".to_owned());
    let event =
        json!({"id": "A", "subject": "x", "start": {"dateTime": "2026-11-21T09:00:00.0000000", "timeZone": "UTC"}});
    let exchange = |method: &str, path: &str, status: u16, body: Payload, answer: Payload| Exchange {
        method: method.to_owned(),
        path: path.to_owned(),
        query: String::new(),
        headers: vec![json_type.clone()],
        body,
        status,
        answer_headers: vec![json_type.clone()],
        answer,
        cut: false,
    };
    let (events, some) = ("/users/1/events", |body: &Value| Payload::Json(body.clone()));
    let create = |body: &Value, answer: &Value| exchange("POST", events, 201, some(body), some(answer));
    assert_eq!(contract.judge(&create(&event, &event)), (Some("POST /users/{user-id}/events"), Vec::new()));
    let with = |name: &str, value: Value| {
        let mut changed = event.clone();
        changed[name] = value;
        changed
    };
    let subscription = json!({"changeType": "updated", "notificationUrl": "EventHub:x", "resource": "users/1/events"});
    let delta = json!({"value": [{"id": "A"}, {"id": "B", "@removed": {"reason": "vanished"}}]});
    let cases = [
        (create(&with("showAs", json!("Busy")), &event), "request body", "/showAs"),
        (create(&with("isAllDay", json!("yes")), &event), "request body", "/isAllDay"),
        (create(&event, &with("lastModifiedDateTime", json!("today"))), "response body", "/lastModifiedDateTime"),
        (create(&event, &with("attendees", json!([{"type": "Optional"}]))), "response body", "/attendees/0/type"),
        (create(&event, &json!({"subject": "x"})), "response body", ""),
        (exchange("POST", events, 200, some(&event), some(&event)), "status", ""),
        (exchange("DELETE", "/users/1/events/A", 200, Payload::None, Payload::None), "status", ""),
        (exchange("GET", "/users/1/calendarView/delta", 200, Payload::None, some(&delta)), "response body", ""),
        (exchange("GET", "/users/1/messages", 200, Payload::None, some(&event)), "path", ""),
        (
            exchange("PATCH", "/users/1/events/A", 412, some(&json!({})), some(&json!({"error": "x"}))),
            "response body",
            "/error",
        ),
        (exchange("POST", "/subscriptions", 201, some(&subscription), some(&json!({"id": "A"}))), "request body", ""),
    ];
    for (exchange, part, pointer) in cases {
        let (_, faults) = contract.judge(&exchange);
        let found = faults.iter().any(|fault| fault.part == part && fault.pointer == pointer);
        assert!(found, "{part} at `{pointer}`: {faults:#?}");
    }
    let notification = json!({"value": [{"subscriptionId": ID, "subscriptionExpirationDateTime": "2026-11-28T09:12:13.0000000+00:00",
        "tenantId": "contoso", "changeType": "updated", "resource": "Users/1/Events/A"}]});
    assert_eq!(one(&contract.message(&Payload::Json(notification)).1).1, "/value/0/tenantId");
}

/// Tells whether something fails a test, and returns its words.
fn fails(act: impl FnOnce()) -> Option<String> {
    let caught = catch_unwind(AssertUnwindSafe(act)).err()?;
    Some(caught.downcast_ref::<String>().expect("the failure is a text").clone())
}

#[test]
fn what_was_wrong_fails_the_test_at_its_end_even_one_that_does_not_ask() {
    if described().is_none() {
        return;
    }
    let world = World::new(SandboxClock::new(chrono::DateTime::UNIX_EPOCH, 1.0), Profile::Quiet, 1);
    let wrong = || Heard::HubMessage(Payload::Json(json!({"value": [{"subscriptionId": 7}]})));
    let watch = Watch::on(&world);
    world.tap.tell(wrong());
    let said = fails(|| drop(watch.finish())).expect("finishing fails");
    assert!(said.contains("hub message: message at `/value/0/subscriptionId`"), "{said}");

    let watch = Watch::on(&world);
    world.tap.tell(wrong());
    let said = fails(|| drop(watch)).expect("dropping fails");
    assert!(said.contains("/value/0/subscriptionId"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_over_the_wire_fails_the_rehearsal_and_is_named() {
    let rehearsal = Rehearsal::without_engine(Options::default(), "").await;
    if described().is_none() {
        return rehearsal.end().await;
    }
    let endpoints = rehearsal.sandbox.endpoints().clone();
    let client = http::client(&HttpOptions { timeout: Duration::from_secs(30), ca_file: None }).unwrap();
    let token = rehearsal.sandbox.tenant().entra().issue(Audience::Graph, 600);
    let mailbox = &endpoints.mailboxes[0].user_id;
    let mut event = in_outlook("Wrong");
    event["showAs"] = json!("BUSY");
    let batch = json!({"requests": [{"id": "1", "method": "POST", "url": format!("/users/{mailbox}/events"), "body": event,
        "headers": {"Content-Type": "application/json"}}]});
    for (path, body) in [(format!("/users/{mailbox}/events"), &event), ("/$batch".to_owned(), &batch)] {
        let sent =
            client.post(format!("{}{path}", endpoints.microsoft.graph_http)).bearer_auth(&token).json(body).send();
        assert!(sent.await.unwrap().status().is_success(), "the cloud itself takes any letter case");
    }
    let unknown = client.get(format!("{}/users/{mailbox}/messages", endpoints.microsoft.graph_http));
    assert_eq!(unknown.bearer_auth(&token).send().await.unwrap().status().as_u16(), 400);
    let ended = tokio::spawn(rehearsal.end()).await.expect_err("the rehearsal fails").into_panic();
    let said = ended.downcast_ref::<String>().expect("the failure is a text");
    assert!(said.contains("3 things"), "{said}");
    assert_eq!(
        said.matches(&format!("POST /users/{mailbox}/events -> 201: request body at `/showAs`")).count(),
        2,
        "{said}"
    );
    assert!(said.contains(&format!("GET /users/{mailbox}/messages -> 400: path")), "{said}");
}

#[test]
fn no_test_of_the_suite_starts_a_sandbox_that_is_not_watched() {
    fn look_into(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look_into(&path, found);
            } else if std::fs::read_to_string(&path).unwrap().contains(concat!("Sandbox::", "start(")) {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    look_into(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite"), &mut found);
    assert_eq!(found, ["mod.rs"], "start it through `Rehearsal`, which watches it");
}

/// Operations that the engine makes use of in a day.
const USED: [&str; 12] = [
    "DELETE /users/{user-id}/events/{event-id}",
    "GET /subscriptions",
    "GET /users/{user-id}",
    "GET /users/{user-id}/calendarView",
    "GET /users/{user-id}/calendarView/delta",
    "GET /users/{user-id}/events",
    "GET /users/{user-id}/events/{event-id}",
    "GET /users/{user-id}/mailboxSettings",
    "PATCH /users/{user-id}/events/{event-id}",
    "POST /$batch",
    "POST /subscriptions",
    "POST /users/{user-id}/events",
];

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_engine_asks_graph_in_a_day_is_judged() {
    let rehearsal = Rehearsal::start(Options::default(), "sync:\n  late_apply_secs: 1\n").await;
    let person = rehearsal.person(0);
    let first = id_of(&person.create_in_outlook(&in_outlook("Made in Outlook")).unwrap());
    person.create_in_outlook(&in_outlook("Beside it")).unwrap();
    rehearsal.until("both are in Salesforce", |r| r.salesforce().len() == 2).await;
    rehearsal.settled().await;
    person.update_in_outlook(&first, &json!({"subject": "Moved on"})).unwrap();
    rehearsal.until("the edit crossed", |r| r.salesforce().iter().any(|row| row["Subject"] == "Moved on")).await;
    rehearsal.settled().await;

    // Made in Salesforce, with the answer lost: the engine looks for its stamp.
    rehearsal.switch(|switches| switches.outlook_cut_answer_next = 1);
    let record = person.create_in_salesforce(in_salesforce("Made in Salesforce")).unwrap();
    rehearsal.until("it is in Outlook", |r| r.outlook(0).len() == 3).await;
    rehearsal.settled().await;
    let change = json!({"Location": "Room 2"});
    person.update_in_salesforce(&record, change.as_object().unwrap()).unwrap();
    rehearsal
        .until("the place crossed", |r| r.outlook(0).iter().any(|e| e["location"]["displayName"] == "Room 2"))
        .await;
    rehearsal.settled().await;
    person.delete_in_salesforce(&record).unwrap();
    rehearsal.until("it is deleted", |r| r.app_effects().iter().any(|effect| effect.kind == EffectKind::Delete)).await;
    rehearsal.settled().await;
    assert!(!gives(&rehearsal.story(&first).await, "dead_letter"));
    let findings = Box::pin(engine::check(&rehearsal.config, Arc::clone(&rehearsal.clock))).await.unwrap();
    assert!(findings.iter().all(|finding| finding.ok), "{findings:#?}");

    let totals = rehearsal.end_and_count().await;
    if described().is_none() {
        return;
    }
    totals.print();
    let judged: BTreeSet<&str> = totals.operations.keys().map(String::as_str).collect();
    let missing: Vec<&str> = USED.into_iter().filter(|operation| !judged.contains(operation)).collect();
    assert!(missing.is_empty(), "not judged: {missing:?} beside {judged:#?}");
    assert!(totals.items > 0 && totals.notifications > 0, "{totals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_subscriptions_is_judged() {
    let options = Options { speed: 1000.0, ..Options::default() };
    let mut rehearsal = Rehearsal::without_engine(options, "outlook:\n  subscription_lifetime_mins: 60\n").await;
    rehearsal.start_engine_behind().await;
    rehearsal.until("subscriptions are renewed", |r| r.calls("graph.renew_subscription") >= 3).await;
    let totals = rehearsal.end_and_count().await;
    if described().is_some() {
        assert!(totals.operations.contains_key("PATCH /subscriptions/{subscription-id}"), "{totals}");
    }
}
