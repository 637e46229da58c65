//! Rows, errors and switches through the router; `many.rs` and `sessions.rs` hold the rest.

mod faults;
mod limits;
mod many;
mod sessions;

use std::sync::OnceLock;

use axum::http::Request as HttpRequest;
use tower::ServiceExt as _;

use super::super::ids::short as short_id;
use super::super::org::{NewUser, OrgIdentity};
use super::*;
use crate::clock::SandboxClock;
use crate::history::EffectKind;
use crate::oauth::salesforce::JwtKey;
use crate::options::Profile;
use crate::world::World;

const EVENTS: &str = "/services/data/v66.0/sobjects/Event";

fn key() -> Arc<JwtKey> {
    static KEY: OnceLock<Arc<JwtKey>> = OnceLock::new();
    Arc::clone(KEY.get_or_init(|| Arc::new(JwtKey::generate().unwrap())))
}

struct Client {
    org: Arc<Org>,
    token: String,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn code(&self) -> &str {
        self.body[0]["errorCode"].as_str().unwrap_or_default()
    }
}

fn client() -> Client {
    let clock = SandboxClock::new("2026-11-20T12:00:00Z".parse().unwrap(), 1.0);
    let world = World::new(clock, Profile::Quiet, 7);
    let identity = OrgIdentity::draw(&world, key());
    let org = Org::new(world, identity);
    let user = NewUser {
        username: "ada@example.com".into(),
        email: "ada@example.com".into(),
        name: "Ada Example".into(),
        zone: "Europe/Paris".into(),
    };
    org.add_user(user);
    let token = org.issue_token("app", org.integration_user_id());
    Client { org, token }
}

impl Client {
    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let mut request = HttpRequest::builder().method(method).uri(uri).header("host", "127.0.0.1:9");
        request = request.header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = router(Arc::clone(&self.org)).oneshot(request.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn get(&self, uri: &str) -> Reply {
        self.send("GET", uri, &[], &Value::Null).await
    }

    async fn create(&self, fields: Value) -> String {
        let reply = self.send("POST", EVENTS, &[], &with_times(fields)).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.body["id"].as_str().unwrap().to_owned()
    }

    async fn query(&self, soql: &str) -> Reply {
        let soql: String = url::form_urlencoded::byte_serialize(soql.as_bytes()).collect();
        self.get(&format!("/services/data/v66.0/query?q={soql}")).await
    }
}

fn with_times(mut fields: Value) -> Value {
    let object = fields.as_object_mut().unwrap();
    object.entry("StartDateTime").or_insert(json!("2026-11-20T17:00:00Z"));
    object.entry("DurationInMinutes").or_insert(json!(30));
    fields
}

#[tokio::test]
async fn a_row_lives_through_create_read_update_and_delete() {
    let client = client();
    let id = client.create(json!({"Subject": "Review"})).await;
    assert_eq!(id.len(), 18);
    let short = short_id(&id);
    let read = client.get(&format!("{EVENTS}/{short}?fields=Subject,StartDateTime,OwnerId")).await;
    assert_eq!(read.body["Subject"], "Review");
    assert_eq!(read.body["StartDateTime"], "2026-11-20T17:00:00.000+0000");
    assert_eq!(read.body["OwnerId"], client.org.integration_user_id());
    assert!(read.body.get("Location").is_none());
    assert!(read.headers["sforce-limit-info"].to_str().unwrap().starts_with("api-usage="));

    let update = client.send("PATCH", &format!("{EVENTS}/{id}"), &[], &json!({"Location": "Room 1"})).await;
    assert_eq!((update.status, update.body), (204, Value::Null));
    let delete = client.send("DELETE", &format!("{EVENTS}/{id}"), &[], &Value::Null).await;
    assert_eq!(delete.status, 204);
    let gone = client.get(&format!("{EVENTS}/{id}")).await;
    assert_eq!((gone.status, gone.code()), (404, "ENTITY_IS_DELETED"));
    let kinds: Vec<EffectKind> = client.org.world.history.since(0).into_iter().map(|effect| effect.kind).collect();
    assert_eq!(kinds, [EffectKind::Create, EffectKind::Update, EffectKind::Delete]);
}

#[tokio::test]
async fn stamps_alone_are_a_touch_in_the_history() {
    let client = client();
    let id = client.create(json!({"Subject": "Review"})).await;
    client.send("PATCH", &format!("{EVENTS}/{id}"), &[], &json!({"Calbridge_Token__c": "t1"})).await;
    let effects = client.org.world.history.since(1);
    assert_eq!(effects[0].kind, EffectKind::Touch);
    assert_eq!(effects[0].changed["Calbridge_Token__c"], "t1");
    assert_eq!(effects[0].actor, Actor::App("app".into()));
}

#[tokio::test]
async fn the_version_grows_with_each_write_of_a_record() {
    let client = client();
    let id = client.create(json!({})).await;
    let mut last = String::new();
    for subject in ["a", "b", "c"] {
        client.send("PATCH", &format!("{EVENTS}/{id}"), &[], &json!({ "Subject": subject })).await;
        let stamp = client.get(&format!("{EVENTS}/{id}")).await.body["SystemModstamp"].as_str().unwrap().to_owned();
        assert!(stamp > last, "{stamp} after {last}");
        last = stamp;
    }
}

#[tokio::test]
async fn unknown_versions_objects_ids_and_methods_are_told_apart() {
    let client = client();
    for (method, uri, status, code) in [
        ("GET", "/services/data/v45.0/limits", 404, "NOT_FOUND"),
        ("GET", "/services/data/v66.0/sobjects/Meeting/describe", 404, "NOT_FOUND"),
        ("GET", "/services/data/v66.0/sobjects/Event/00U000000000001", 404, "NOT_FOUND"),
        ("GET", "/services/data/v66.0/sobjects/Event/nonsense", 404, "NOT_FOUND"),
        ("PUT", "/services/data/v66.0/sobjects/Event", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/services/data/v66.0/sobjects/Event", 400, "JSON_PARSER_ERROR"),
    ] {
        let reply = client.send(method, uri, &[], &Value::Null).await;
        assert_eq!((reply.status, reply.code()), (status, code), "{method} {uri}");
    }
    let slash = client.send("POST", &format!("{EVENTS}/"), &[], &with_times(json!({}))).await;
    assert_eq!(slash.status, 201);
}

#[tokio::test]
async fn versions_need_no_token_and_the_rest_does() {
    let mut client = client();
    client.token = "wrong".into();
    assert_eq!(client.get("/services/data").await.body.as_array().unwrap().len(), 23);
    let labels = client.get("/services/data/").await.body;
    let label = |version: &str| {
        let all = labels.as_array().unwrap();
        all.iter().find(|one| one["version"] == version).unwrap()["label"].as_str().unwrap().to_owned()
    };
    assert_eq!(label("66.0"), "Spring '26");
    assert_eq!(label("67.0"), "Summer '26");
    assert_eq!(label("68.0"), "Winter '27");
    assert_eq!(label("65.0"), "Winter '26");
    let refused = client.get("/services/data/v66.0/limits").await;
    assert_eq!((refused.status, refused.code()), (401, "INVALID_SESSION_ID"));
}

#[tokio::test]
async fn revoked_tokens_are_refused_once_switched() {
    let client = client();
    client.org.world.faults.change(|switches| switches.salesforce_revoke_tokens = true);
    assert_eq!(client.get("/services/data/v66.0/limits").await.code(), "INVALID_SESSION_ID");
    let again = Client { token: client.org.issue_token("app", client.org.integration_user_id()), ..client };
    assert_eq!(again.get("/services/data/v66.0/limits").await.status, 200);
}

#[tokio::test]
async fn switches_make_calls_fail_with_the_documented_codes() {
    let client = client();
    client.org.world.faults.change(|switches| {
        switches.salesforce_unavailable_next = 1;
        switches.salesforce_limit_next = 1;
        switches.salesforce_lock_next = 1;
    });
    let unavailable = client.get("/services/data/v66.0/limits").await;
    assert_eq!((unavailable.status, unavailable.code()), (503, "SERVER_UNAVAILABLE"));
    let limit = client.get("/services/data/v66.0/limits").await;
    assert_eq!((limit.status, limit.code()), (403, "REQUEST_LIMIT_EXCEEDED"));
    assert!(limit.headers.contains_key("sforce-limit-info"));
    let lock = client.send("POST", EVENTS, &[], &with_times(json!({}))).await;
    assert_eq!((lock.status, lock.code()), (400, "UNABLE_TO_LOCK_ROW"));
    assert_eq!(client.send("POST", EVENTS, &[], &with_times(json!({}))).await.status, 201);
}

#[tokio::test]
async fn a_second_record_with_the_same_link_is_refused_naming_the_first() {
    let client = client();
    let id = client.create(json!({"Calbridge_Link__c": "L1"})).await;
    let twin = client.send("POST", EVENTS, &[], &with_times(json!({"Calbridge_Link__c": "L1"}))).await;
    assert_eq!((twin.status, twin.code()), (400, "DUPLICATE_VALUE"));
    assert!(twin.body[0]["message"].as_str().unwrap().ends_with(short_id(&id)));
    client.org.world.faults.change(|switches| switches.salesforce_link_unique = false);
    client.create(json!({"Calbridge_Link__c": "L1"})).await;
    let many = client.send("PATCH", &format!("{EVENTS}/Calbridge_Link__c/L1"), &[], &json!({"Subject": "x"})).await;
    assert_eq!((many.status, many.body.as_array().unwrap().len()), (300, 2));
}

#[tokio::test]
async fn upsert_creates_then_updates_and_can_be_told_not_to_create() {
    let client = client();
    let uri = format!("{EVENTS}/Calbridge_Link__c/a%2Fb");
    let none = client.send("PATCH", &format!("{uri}?updateOnly=true"), &[], &with_times(json!({}))).await;
    assert_eq!(none.status, 404);
    let first = client.send("PATCH", &uri, &[], &with_times(json!({"Subject": "one"}))).await;
    assert_eq!((first.status, &first.body["created"]), (201, &json!(true)));
    let second = client.send("PATCH", &uri, &[], &json!({"Subject": "two"})).await;
    assert_eq!((second.status, &second.body["created"]), (200, &json!(false)));
    assert_eq!(second.body["id"], first.body["id"]);
    let read = client.get(&uri).await;
    assert_eq!((&read.body["Subject"], &read.body["Calbridge_Link__c"]), (&json!("two"), &json!("a/b")));
    client.org.world.faults.change(|switches| switches.salesforce_link_field = false);
    assert_eq!(client.send("PATCH", &uri, &[], &json!({})).await.status, 404);
}

#[tokio::test]
async fn a_precondition_older_than_the_record_fails() {
    let client = client();
    let id = client.create(json!({})).await;
    let uri = format!("{EVENTS}/{id}");
    let patch = json!({"Subject": "x"});
    let past = [("if-unmodified-since", "Thu, 01 Jan 2026 00:00:00 GMT")];
    let future = [("if-unmodified-since", "Fri, 01 Jan 2027 00:00:00 GMT")];
    assert_eq!(client.send("PATCH", &uri, &past, &patch).await.status, 412);
    assert_eq!(client.send("PATCH", &uri, &[("if-unmodified-since", "soon")], &patch).await.status, 400);
    assert_eq!(client.send("PATCH", &uri, &future, &patch).await.status, 204);
    assert_eq!(client.send("DELETE", &uri, &past, &Value::Null).await.status, 204);
}

#[tokio::test]
async fn describe_follows_the_switches() {
    let client = client();
    let field = |reply: &Reply, name: &str| {
        reply.body["fields"].as_array().unwrap().iter().find(|field| field["name"] == name).cloned()
    };
    let reply = client.get(&format!("{EVENTS}/describe")).await;
    let link = field(&reply, "Calbridge_Link__c").unwrap();
    assert_eq!((&link["unique"], &link["externalId"]), (&json!(true), &json!(true)));
    assert_eq!(field(&reply, "ShowAs").unwrap()["restrictedPicklist"], true);
    assert_eq!(field(&reply, "Subject").unwrap()["length"], 255);
    assert!(field(&reply, "ActivityRecurrence2Id").is_none());
    client.org.world.faults.change(|switches| {
        switches.salesforce_link_unique = false;
        switches.salesforce_token_field = false;
    });
    let reply = client.get(&format!("{EVENTS}/describe")).await;
    assert_eq!(field(&reply, "Calbridge_Link__c").unwrap()["unique"], false);
    assert!(field(&reply, "Calbridge_Token__c").is_none());
}

#[tokio::test]
async fn a_cut_answer_breaks_off_after_the_effect() {
    let client = client();
    client.org.world.faults.change(|switches| switches.salesforce_cut_answer_next = 1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, router(Arc::clone(&client.org))).into_future());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = http.post(format!("http://{address}{EVENTS}")).bearer_auth(&client.token);
    let outcome = sent.body(with_times(json!({})).to_string()).send().await;
    let lost = match outcome {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(lost);
    assert_eq!(client.org.records().len(), 1);
    server.abort();
}

#[tokio::test]
async fn a_trigger_edits_in_the_transaction_of_an_api_write() {
    let client = client();
    client.org.world.faults.change(|switches| switches.salesforce_trigger_edits = true);
    let id = client.create(json!({"Location": "Room 1"})).await;
    assert_eq!(client.get(&format!("{EVENTS}/{id}")).await.body["Location"], "Room 1 (checked)");
    let actors: Vec<Actor> = client.org.world.history.since(0).into_iter().map(|effect| effect.actor).collect();
    assert_eq!(actors, [Actor::App("app".into()), Actor::Automation("trigger".into())]);
    assert_eq!(client.org.world.meters.read().change_events, 1);
}

#[tokio::test]
async fn inviting_a_user_makes_a_child_event_that_follows_its_parent() {
    let client = client();
    let id = client.create(json!({"Subject": "Review"})).await;
    let ada = client.org.find_user("ada@example.com").unwrap();
    let uri = "/services/data/v66.0/sobjects/EventRelation";
    let relation = client.send("POST", uri, &[], &json!({"EventId": id, "RelationId": ada})).await;
    assert_eq!(relation.status, 201, "{}", relation.body);
    client.send("PATCH", &format!("{EVENTS}/{id}"), &[], &json!({"Subject": "Moved"})).await;
    let found = client.query("SELECT Id, Subject, OwnerId FROM Event WHERE IsChild = true").await;
    let child = &found.body["records"][0];
    assert_eq!((&child["Subject"], &child["OwnerId"]), (&json!("Moved"), &json!(ada)));
    let child_uri = format!("{EVENTS}/{}", child["Id"].as_str().unwrap());
    let refused = client.send("PATCH", &child_uri, &[], &json!({"Subject": "Mine"})).await;
    assert_eq!(refused.code(), "INSUFFICIENT_ACCESS_OR_READONLY");
    client.send("DELETE", &format!("{EVENTS}/{id}"), &[], &Value::Null).await;
    assert_eq!(client.query("SELECT COUNT() FROM Event").await.body["totalSize"], 0);
}

#[test]
fn call_options_are_read_with_either_separator() {
    for (text, expected) in [
        ("client=calbridge/1", Some("calbridge/1")),
        ("client=calbridge/1; defaultNamespace=x", Some("calbridge/1")),
        ("defaultNamespace=x,client=calbridge/1", Some("calbridge/1")),
        ("defaultNamespace=x", None),
    ] {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("sforce-call-options"),
            HeaderValue::from_str(text).unwrap(),
        )]);
        assert_eq!(client_tag(&headers).as_deref(), expected, "{text}");
    }
}
