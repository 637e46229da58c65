//! A scripted REST server: records every call, answers by a closure, gives tokens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use calbridge_core::ids::ConnectionId;
use secrecy::SecretString;
use serde_json::{Value as Json, json};

use super::super::client::Client;
use super::super::settings::{Grant, Settings};
use super::super::{SalesforceCalendar, StampFields};
use crate::clock::EngineClock;
use crate::http::{HttpOptions, client};
use crate::ports::Clock;
use crate::rate_limit::{Quota, RateLimits};

pub(super) const ORG: &str = "00D5000000Gv7qJEAR";
pub(super) const USER: &str = "0055000000Gv7qJAAR";

/// One call, as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Json,
}

impl Seen {
    pub(super) fn is(&self, method: &Method, path: &str) -> bool {
        self.method == *method && self.path.ends_with(path)
    }

    pub(super) fn soql(&self) -> String {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(name, _)| name == "q").map(|(_, value)| value.into_owned()).collect()
    }
}

type Script = dyn Fn(&Seen) -> (u16, Json) + Send + Sync;

struct Inner {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    tokens: AtomicUsize,
    base: String,
}

/// The running server.
#[derive(Clone)]
pub(super) struct StandIn(Arc<Inner>);

impl StandIn {
    /// Starts it; `script` answers every call except token requests.
    pub(super) async fn start(script: impl Fn(&Seen) -> (u16, Json) + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stand_in = Self(Arc::new(Inner {
            script: Box::new(script),
            seen: Mutex::default(),
            tokens: AtomicUsize::new(0),
            base,
        }));
        let router = Router::new().fallback(answer).with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        stand_in
    }

    /// Answers only sign-ins and a describe with both stamp fields.
    pub(super) async fn quiet() -> Self {
        Self::start(|_| (404, json!([{ "errorCode": "NOT_FOUND", "message": "" }]))).await
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    pub(super) fn tokens(&self) -> usize {
        self.0.tokens.load(Ordering::SeqCst)
    }

    pub(super) fn settings(&self) -> Settings {
        let grant = Grant::ClientCredentials {
            client_id: "key".to_owned(),
            client_secret: SecretString::from("secret").into(),
        };
        let fields = ["time", "Subject"].map(str::to_owned).to_vec();
        let mut settings = Settings::new(ConnectionId::new("c"), self.0.base.clone(), grant, fields);
        settings.short_pause = Duration::from_hours(1);
        settings.long_pause = Duration::from_hours(2);
        settings
    }

    pub(super) fn calendar(&self) -> SalesforceCalendar {
        let settings = self.settings();
        SalesforceCalendar::new(client_with(&settings), clock(), &settings).unwrap()
    }
}

pub(super) fn client_with(settings: &Settings) -> Arc<Client> {
    let http = client(&HttpOptions { timeout: Duration::from_secs(10), ca_file: None }).unwrap();
    Client::new(http, clock(), limits(), settings).unwrap()
}

pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(EngineClock::wall())
}

pub(super) fn limits() -> RateLimits {
    RateLimits::new(Quota { in_flight: 10, units: std::num::NonZeroU32::MAX, period: Duration::ZERO })
}

/// A describe that has the given stamp fields.
pub(super) fn describe(stamps: StampFields) -> Json {
    let field = |name: &str, unique: bool| json!({ "name": name, "createable": true, "updateable": true, "unique": unique, "length": 36 });
    let mut fields = vec![field("Subject", false)];
    if stamps.link {
        fields.push(field("Calbridge_Link__c", stamps.link_unique));
    }
    if stamps.token {
        fields.push(field("Calbridge_Token__c", false));
    }
    json!({ "createable": true, "updateable": true, "deletable": true, "fields": fields })
}

async fn answer(
    State(stand_in): State<StandIn>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let inner = &stand_in.0;
    if uri.path() == "/services/oauth2/token" {
        let serial = inner.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = json!({
            "access_token": format!("token-{serial}"), "instance_url": inner.base,
            "id": format!("{}/id/{ORG}/{USER}", inner.base), "token_type": "Bearer",
        });
        return axum::Json(answer).into_response();
    }
    let seen = Seen {
        method,
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let (status, answer) = (inner.script)(&seen);
    inner.seen.lock().unwrap().push(seen);
    let status = StatusCode::from_u16(status).unwrap();
    if answer.is_null() { status.into_response() } else { (status, axum::Json(answer)).into_response() }
}
