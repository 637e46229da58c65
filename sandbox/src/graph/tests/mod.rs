//! The stand-in through its router, as a client sees it, without a network.

mod calls;
mod delta;
mod faults;
mod limits;
mod meetings;
mod notifications;
mod series;
mod webhooks;

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::{NewMailbox, Tenant, TenantIdentity, router};
use crate::clock::SandboxClock;
use crate::oauth::entra::Audience;
use crate::options::Profile;
use crate::world::World;

pub(super) const ANNA: &str = "anna@contoso.example";
pub(super) const BEN: &str = "ben@contoso.example";
pub(super) const CARL: &str = "carl@contoso.example";
pub(super) const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
pub(super) const PROPERTY: &str = "String {66f5a359-4659-4830-9070-00047ec6ac6e} Name calbridgeId";

/// A tenant of three mailboxes, whose clock (of [`Bench::new`]) stands practically still: only [`Bench::advance`] moves time.
pub(super) struct Bench {
    pub tenant: Arc<Tenant>,
    pub world: Arc<World>,
    pub token: String,
    published: Arc<Mutex<Vec<Value>>>,
}

pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Bench {
    pub(super) fn new(profile: Profile) -> Self {
        Self::on(profile, 0.001)
    }

    pub(super) fn on(profile: Profile, speed: f64) -> Self {
        let epoch = DateTime::parse_from_rfc3339("2026-11-21T09:00:00Z").unwrap().with_timezone(&Utc);
        let world = World::new(SandboxClock::new(epoch, speed), profile, 7);
        let identity = TenantIdentity {
            tenant_id: Uuid::from_u128(0xC0),
            domain: "contoso.example".to_owned(),
            client_id: CLIENT.to_owned(),
            client_secret: "secret".to_owned(),
            hub: "graph".to_owned(),
        };
        let published = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&published);
        let publish = Arc::new(move |body: Vec<u8>| {
            sink.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        });
        let tenant = Tenant::new(Arc::clone(&world), identity, publish);
        for (address, zone) in [(ANNA, "Europe/Berlin"), (BEN, "Pacific Standard Time"), (CARL, "UTC")] {
            let name = address.split('@').next().unwrap_or_default().to_owned();
            tenant.add_mailbox(NewMailbox { address: address.to_owned(), name, zone: zone.to_owned(), user_id: None });
        }
        let token = tenant.entra().issue(Audience::Graph, 60);
        Self { tenant, world, token, published }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Reply {
        let response = router(Arc::clone(&self.tenant)).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(super) async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        let path = path.strip_prefix("http://graph.test").map_or_else(|| format!("/v1.0{path}"), str::to_owned);
        let mut request = Request::builder().method(method).uri(path.replace(' ', "%20")).header("host", "graph.test");
        request = request.header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call("POST", path, &[], body).await
    }

    pub(super) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.call("PATCH", path, &[], body).await
    }

    /// Creates an event in Anna's mailbox and returns it.
    pub(super) async fn event(&self, more: Value) -> Value {
        let mut body = meeting("2026-11-23T09:00:00", "2026-11-23T10:00:00");
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let reply = self.post(&format!("/users/{ANNA}/events"), body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.body
    }

    /// Subscribes to a mailbox through the hub and returns the subscription.
    pub(super) async fn subscribe(&self, mailbox: &str) -> Value {
        let user = self.get(&format!("/users/{mailbox}")).await.body["id"].as_str().unwrap().to_owned();
        let expiration = (self.world.clock.now() + TimeDelta::days(6)).to_rfc3339();
        let reply = self
            .post(
                "/subscriptions",
                json!({"changeType": "created,updated,deleted", "resource": format!("users/{user}/events"),
                    "notificationUrl": HUB, "clientState": "state", "expirationDateTime": expiration}),
            )
            .await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.body
    }

    /// Takes the notifications published since the last look, validation messages left out.
    pub(super) fn notifications(&self) -> Vec<Value> {
        let messages = std::mem::take(&mut *self.published.lock().unwrap());
        let items = messages.iter().flat_map(|message| message["value"].as_array().unwrap().clone());
        items.filter(|item| item["subscriptionId"] != "NA").collect()
    }

    pub(super) fn messages(&self) -> Vec<Value> {
        std::mem::take(&mut *self.published.lock().unwrap())
    }

    /// Does what falls due within some seconds.
    pub(super) fn advance(&self, seconds: i64) {
        self.tenant.step(self.world.clock.now() + TimeDelta::seconds(seconds));
    }

    pub(super) async fn list(&self, mailbox: &str) -> Vec<Value> {
        let reply = self.get(&format!("/users/{mailbox}/events?$top=100")).await;
        reply.body["value"].as_array().unwrap().clone()
    }
}

pub(super) const HUB: &str = "EventHub:https://localhost:5671/eventhubname/graph?tenantId=contoso.example";

pub(super) fn meeting(start: &str, end: &str) -> Value {
    json!({"subject": "Review", "start": {"dateTime": start, "timeZone": "UTC"},
        "end": {"dateTime": end, "timeZone": "UTC"}})
}

pub(super) fn invite(addresses: &[&str]) -> Value {
    addresses.iter().map(|address| json!({"type": "required", "emailAddress": {"address": address}})).collect()
}

pub(super) fn id(event: &Value) -> String {
    event["id"].as_str().unwrap().replace('=', "%3D")
}

pub(super) fn kinds(notifications: &[Value]) -> Vec<String> {
    notifications.iter().map(|item| item["changeType"].as_str().unwrap_or("-").to_owned()).collect()
}
