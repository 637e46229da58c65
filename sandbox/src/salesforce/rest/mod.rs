//! The REST API: who calls, which fault strikes, and the headers that every answer carries.
//!
//! Resources are plain functions over a transaction (`routes.rs` names them), so that a composite request reuses them.

mod collections;
mod composite;
mod describe;
mod query;
mod replication;
mod routes;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::error::SalesforceError;
use super::org::{Org, rest_origin};
use super::tx::{Author, Tx};
use crate::actor::Actor;
use crate::faults::Strike;
use crate::history::Cloud;
use crate::late::apply_late;
use crate::moments::{Prey, Step, Verdict};
use crate::oauth::salesforce::{bearer, routes as oauth_routes};

/// Oldest and newest API version served.
const VERSIONS: std::ops::RangeInclusive<u32> = 46..=68;
/// Largest request body accepted.
const BODY_LIMIT: usize = 50 * 1024 * 1024;

/// Outages that strike before a request has an effect: 500, 503, 504.
const BEFORE: [Strike; 3] =
    [Strike::SalesforceInternalError, Strike::SalesforceUnavailable, Strike::SalesforceGatewayTimeout];
/// Outages that strike after a write has had its effect.
const AFTER: [Strike; 3] =
    [Strike::SalesforceInternalErrorAfter, Strike::SalesforceUnavailableAfter, Strike::SalesforceGatewayTimeoutAfter];
/// Reads that may be served by a replica that lags behind.
const LAGGING: [&str; 5] = [
    "salesforce.get",
    "salesforce.get_by_external_id",
    "salesforce.get_many",
    "salesforce.query",
    "salesforce.query_all",
];

/// Returns the org's HTTP API: `/services/data/...`, `/services/oauth2/...` and `/id/...`.
pub fn router(org: Arc<Org>) -> Router {
    oauth_routes().fallback(data).with_state(org)
}

/// One call of a resource.
#[derive(Debug, Clone)]
struct ApiRequest {
    method: Method,
    /// Path below the version, decoded, without empty parts.
    path: Vec<String>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
}

impl ApiRequest {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn part(&self, index: usize) -> &str {
        self.path.get(index).map(String::as_str).unwrap_or_default()
    }

    /// Reads the body as a JSON object.
    fn object(&self) -> Result<serde_json::Map<String, Value>, SalesforceError> {
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(SalesforceError::bad("JSON_PARSER_ERROR", "The HTTP entity body is not a JSON object")),
            Err(error) => {
                let message =
                    format!("The HTTP entity body is not valid JSON, line {}:{}", error.line(), error.column());
                Err(SalesforceError::bad("JSON_PARSER_ERROR", message))
            }
        }
    }
}

/// The answer of a resource.
#[derive(Debug, Clone)]
struct ApiAnswer {
    status: StatusCode,
    body: Option<Value>,
    headers: Vec<(HeaderName, String)>,
}

impl ApiAnswer {
    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body: Some(body), headers: Vec::new() }
    }

    fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, body)
    }

    fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: None, headers: Vec::new() }
    }
}

impl From<SalesforceError> for ApiAnswer {
    fn from(error: SalesforceError) -> Self {
        Self::new(error.status, json!([error.to_json()]))
    }
}

/// The API version of a call, `66.0`.
#[derive(Debug, Clone)]
struct Version(String);

type Resource = fn(&mut Tx<'_>, &Version, &ApiRequest) -> Result<ApiAnswer, SalesforceError>;

async fn data(State(org): State<Arc<Org>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut parts = head.uri.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned);
    if (parts.next().as_deref(), parts.next().as_deref()) != (Some("services"), Some("data")) {
        return plain(SalesforceError::not_found().into());
    }
    let Some(version) = parts.next() else {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return plain(routes::not_allowed(&head.method).into());
        }
        org.world.meters.call("anonymous", "salesforce.versions");
        return plain(ApiAnswer::ok(versions()));
    };
    let decode = |part: String| percent_decode_str(&part).decode_utf8_lossy().into_owned();
    let path: Vec<String> = parts.map(decode).collect();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        let message = "request body exceeds 50 megabytes";
        return plain(
            SalesforceError::with(StatusCode::PAYLOAD_TOO_LARGE, "EXCEEDED_MAX_SIZE_REQUEST", message).into(),
        );
    };
    let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let query: Vec<(String, String)> = query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let mut method = head.method;
    if let Some((_, other)) = query.iter().find(|(name, _)| name == "_HttpMethod")
        && let Ok(other) = other.parse()
    {
        method = other;
    }
    let target = head.uri.to_string();
    let request = ApiRequest { method, path, query, headers: head.headers, body };
    // A task of its own: a request that has come is worked on even when its client is gone.
    let served = tokio::spawn(async move {
        let prey = |step| Prey { cloud: Cloud::Salesforce, writes: writes(&request), step };
        let told = || format!("{} {target}\n{}", request.method, String::from_utf8_lossy(&request.body));
        let moments = &org.world.moments;
        if moments.pass(prey(Step::Arrived), told).await == Verdict::Vanish {
            return cut();
        }
        if writes(&request) && org.world.strikes(Strike::SalesforceLateApply) {
            let world = Arc::clone(&org.world);
            apply_late(&world, async move {
                // Nobody is left to be told how it went.
                drop(answer(&org, &version, &request));
            });
            return cut();
        }
        let running = org.usage.run(org.world.clock.now());
        let answered = answer(&org, &version, &request);
        let under_way = org.world.faults.read().salesforce_answer_ms;
        if under_way > 0 {
            org.world.clock.sleep(Duration::from_millis(under_way.into())).await;
        }
        drop(running);
        match moments.pass(prey(Step::Done), told).await {
            Verdict::GoOn => answered,
            Verdict::Vanish => cut(),
        }
    });
    served.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Tells whether a call changes rows.
fn writes(request: &ApiRequest) -> bool {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    !reads && routes::find(request).is_ok_and(|(kind, _)| kind != "salesforce.get_many")
}

fn answer(org: &Org, version: &str, request: &ApiRequest) -> Response {
    let known = version.strip_prefix('v').and_then(|number| number.strip_suffix(".0")?.parse().ok());
    let Some(version) = known.filter(|number| VERSIONS.contains(number)).map(|number| Version(format!("{number}.0")))
    else {
        return plain(SalesforceError::not_found().into());
    };
    let now = org.world.clock.now();
    let refused = org.world.strikes(Strike::SalesforceRefuseSessions);
    let session = bearer(&request.headers).and_then(|token| org.session(token)).filter(|_| !refused);
    let found = routes::find(request);
    let kind = found.as_ref().map_or("salesforce.unknown", |(kind, _)| *kind);
    let caller = session.as_ref().map_or_else(|| "anonymous".to_owned(), |session| session.client_id.clone());
    let caller = caller.as_str();
    org.world.meters.call(caller, kind);
    org.world.meters.units(caller, 1);
    let Some(session) = session else {
        let error = SalesforceError::with(StatusCode::UNAUTHORIZED, "INVALID_SESSION_ID", "Session expired or invalid");
        return plain(error.into());
    };
    let used = org.usage.count(now);
    let switches = org.world.faults.read();
    let allowed = u64::from(switches.salesforce_requests_per_day);
    let most_long = usize::try_from(switches.salesforce_long_requests).unwrap_or(usize::MAX);
    let limit_info = format!("api-usage={used}/{allowed}");
    let limit_exceeded =
        |message: &str| SalesforceError::with(StatusCode::FORBIDDEN, "REQUEST_LIMIT_EXCEEDED", message).into();
    if let Some(refused) = throttled(org) {
        return refused;
    }
    if let Some(broken) = outage(org, BEFORE) {
        return broken;
    }
    let answer = if allowed > 0 && used > allowed {
        org.world.meters.refused(caller, "salesforce.requests_per_day");
        limit_exceeded("TotalRequests Limit exceeded.")
    } else if most_long > 0 && org.usage.long(now) >= most_long {
        org.world.meters.refused(caller, "salesforce.long_requests");
        limit_exceeded("ConcurrentRequests (Concurrent API Requests) Limit exceeded.")
    } else if org.world.strikes(Strike::SalesforceLimit) {
        limit_exceeded("TotalRequests Limit exceeded.")
    } else if org.world.strikes(Strike::SalesforceConcurrentLimit) {
        limit_exceeded("ConcurrentRequests (Concurrent API Requests) Limit exceeded.")
    } else {
        match found {
            Ok((_, resource)) => {
                let client = client_tag(&request.headers);
                let author = Author {
                    actor: Actor::App(session.client_id),
                    user_id: session.user_id,
                    origin: rest_origin(&version.0, client.as_deref()),
                };
                let mut tx = Tx::begin(org, author);
                let stale = LAGGING.contains(&kind) && org.world.strikes(Strike::SalesforceStaleReads);
                if stale {
                    tx.look_back(org.world.lag());
                }
                match resource(&mut tx, &version, request) {
                    // What a lagging replica shows is not what is.
                    Ok(answer) if stale => answer,
                    Ok(answer) => {
                        tx.commit();
                        answer
                    }
                    Err(error) => error.into(),
                }
            }
            Err(error) => error.into(),
        }
    };
    let wrote = writes(request) && answer.status.is_success();
    if wrote && org.world.strikes(Strike::SalesforceCutAnswer) {
        return cut();
    }
    if let Some(broken) = wrote.then(|| outage(org, AFTER)).flatten() {
        return broken;
    }
    let mut response = plain(answer);
    if let Ok(value) = HeaderValue::from_str(&limit_info) {
        response.headers_mut().insert("sforce-limit-info", value);
    }
    response
}

/// Refuses a call with 429, with or without saying when to come again.
///
/// Salesforce's own limits answer 403; a 429 comes from what stands before it (unconfirmed), so it has no error code.
fn throttled(org: &Org) -> Option<Response> {
    let mut response = (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests").into_response();
    if org.world.strikes(Strike::SalesforceThrottle) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return Some(response);
    }
    org.world.strikes(Strike::SalesforceThrottleBare).then_some(response)
}

/// Answers with an outage that strikes now, of the three kinds that there are.
fn outage(org: &Org, strikes: [Strike; 3]) -> Option<Response> {
    let [internal, unavailable, gateway] = strikes;
    if org.world.strikes(internal) {
        let message = "An unexpected error occurred. Please include this ErrorId if you contact support";
        let error = SalesforceError::with(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN_EXCEPTION", message);
        return Some(plain(error.into()));
    }
    if org.world.strikes(unavailable) {
        let message = "The server is temporarily unavailable";
        let error = SalesforceError::with(StatusCode::SERVICE_UNAVAILABLE, "SERVER_UNAVAILABLE", message);
        return Some(plain(error.into()));
    }
    org.world.strikes(gateway).then(|| (StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout").into_response())
}

fn plain(answer: ApiAnswer) -> Response {
    let mut response = match answer.body {
        Some(body) => (answer.status, [(header::CONTENT_TYPE, "application/json;charset=UTF-8")], body.to_string())
            .into_response(),
        None => answer.status.into_response(),
    };
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Makes a response whose connection breaks before the client can read an answer.
fn cut() -> Response {
    let broken = futures::stream::once(async {
        Err::<Bytes, _>(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "cut by the sandbox"))
    });
    Response::new(Body::from_stream(broken))
}

fn versions() -> Value {
    // Releases are named by season: 66 is Spring '26, 67 Summer '26, 68 Winter '27, and three versions make a year.
    let label = |number: u32| {
        let season = ["Spring", "Summer", "Winter"][usize::try_from(number % 3).unwrap_or_default()];
        let year = 26 + i64::from(number).div_euclid(3) - 22 + i64::from(number % 3 == 2);
        format!("{season} '{year}")
    };
    let one = |number: u32| {
        json!({
            "label": label(number), "url": format!("/services/data/v{number}.0"), "version": format!("{number}.0")
        })
    };
    VERSIONS.map(one).collect()
}

/// Reads the client id of `Sforce-Call-Options`; parts are separated by `;` in current documents, `,` in older ones.
///
/// <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_calloptions.htm>
fn client_tag(headers: &HeaderMap) -> Option<String> {
    let options = headers.get("sforce-call-options")?.to_str().ok()?;
    let parts = options.split([';', ',']);
    let named = parts.filter_map(|part| part.split_once('='));
    let client = named.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("client"))?;
    Some(client.1.trim().to_owned())
}

#[cfg(test)]
mod tests;
