//! HTTP: reads requests, checks tokens, injects faults, and answers with Graph's headers.
//!
//! One HTTP request and one item of a `$batch` take the same way ([`Front::answer`]); only the first also passes the token
//! check and the faults of whole requests. Query options are in `options.rs`, the calls themselves in the other files.

mod batch;
mod events;
mod options;
mod path;
mod prefer;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use self::path::Route;
use self::prefer::Prefer;
use super::error::GraphError;
use super::limits::Seat;
use super::tenant::Tenant;
use crate::actor::Actor;
use crate::faults::Strike;
use crate::history::Cloud;
use crate::late::apply_late;
use crate::moments::{Prey, Step, Verdict};
use crate::oauth::entra::{Audience, Claims, TokenFault};
use crate::tap::{Exchange, Heard, Payload};

/// Largest request body that is read; Graph takes 4 MB.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// What stays as it is in a link's query; the dollar sign of option names among it, because readers look for it.
const UNESCAPED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'$').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const JSON_TYPE: &str =
    "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";

/// Outages that strike before a request has an effect: 500, 503, 504.
const BEFORE: [Strike; 3] = [Strike::OutlookInternalError, Strike::OutlookUnavailable, Strike::OutlookGatewayTimeout];
/// Outages that strike after a write has had its effect.
const AFTER: [Strike; 3] =
    [Strike::OutlookInternalErrorAfter, Strike::OutlookUnavailableAfter, Strike::OutlookGatewayTimeoutAfter];

/// Serves Graph and Entra for listeners without TLS: links in answers start with `http`.
pub fn router(tenant: Arc<Tenant>) -> Router {
    routed(tenant, "http")
}

/// Serves Graph and Entra for listeners with TLS: links in answers start with `https`.
pub fn secure_router(tenant: Arc<Tenant>) -> Router {
    routed(tenant, "https")
}

fn routed(tenant: Arc<Tenant>, scheme: &'static str) -> Router {
    Router::new().fallback(handle).with_state(Front { tenant, scheme })
}

/// The tenant behind one kind of listener.
#[derive(Debug, Clone)]
struct Front {
    tenant: Arc<Tenant>,
    scheme: &'static str,
}

/// One Graph call, from HTTP or from a batch.
#[derive(Debug)]
struct Call {
    method: Method,
    /// Path after `/v1.0`, as sent.
    path: String,
    query: Vec<(String, String)>,
    prefer: Prefer,
    if_match: Option<String>,
    body: Option<Value>,
    /// Scheme, host and port as the client sees them.
    base: String,
    /// Client id of the caller.
    caller: String,
}

/// What a call is answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    /// The effect took place, but the client is not to learn of it.
    cut: bool,
}

impl Answer {
    fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body), cut: false }
    }

    fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None, cut: false }
    }
}

impl Call {
    fn actor(&self) -> Actor {
        Actor::App(self.caller.clone())
    }

    fn body(&self) -> Result<&Value, GraphError> {
        self.body.as_ref().ok_or_else(|| GraphError::bad_request("Empty Payload. JSON content expected."))
    }

    fn last_segment(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn context(&self, what: &str) -> String {
        format!("{}/v1.0/$metadata#{what}", self.base)
    }

    /// Returns the first value of a query parameter, its name compared without regard to case.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Makes an absolute link to the same path with other query parameters.
    fn link(&self, query: &[(&str, &str)]) -> String {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, UNESCAPED).to_string();
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        format!("{}/v1.0{}?{}", self.base, self.path, query.join("&"))
    }
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

async fn handle(State(front): State<Front>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = header("host").or_else(|| head.uri.authority().map(ToString::to_string));
    let base = format!("{}://{}", front.scheme, host.as_deref().unwrap_or("localhost"));
    let client_request = header("client-request-id");
    let ids = Ids::new(client_request);
    let versioned = path.strip_prefix("/v1.0").filter(|rest| rest.starts_with('/'));
    let asked = Asked { method: &head.method, path: versioned.unwrap_or(&path), query: &query, headers: &head.headers };
    let body = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(error) if is_too_large(&error) => {
            let error = GraphError::new(413, "RequestEntityTooLarge", "The request body is larger than 4 MB.");
            return front.reply(&asked, &|| Payload::Other, front.refuse(&error, &ids), &ids);
        }
        // The client went away in the middle of its request: nobody reads an answer, and nothing was asked.
        Err(_hung_up) => return broken(),
    };
    if let Some(path) = versioned {
        let answer = front.serve(&asked, path, body.clone(), base, &ids).await;
        return front.reply(&asked, &|| Payload::of(&body), answer, &ids);
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let entra = front.tenant.entra();
    let answer = match (head.method.as_str(), segments.as_slice()) {
        ("POST", [tenant, "oauth2", "v2.0", "token"]) => {
            Some(entra.token(tenant, &body, header("authorization").as_deref()))
        }
        (method, [_, "oauth2", "v2.0", "token"]) => Some(entra.wrong_verb(method)),
        ("GET", segments) => entra.discovery(segments, &base, &query),
        _ => None,
    };
    if let Some((status, answer)) = answer {
        return plain_json(status, &answer);
    }
    // Whatever else there is would be a version of Graph.
    let error = GraphError::bad_request(format!("Invalid version: {}", segments.first().copied().unwrap_or_default()));
    front.reply(&asked, &|| Payload::of(&body), front.refuse(&error, &ids), &ids)
}

/// Tells whether a body could not be read because it is over the limit; otherwise its sender went away.
fn is_too_large(error: &axum::Error) -> bool {
    // The type of this error belongs to a crate that is not ours to name.
    std::error::Error::source(error).is_some_and(|source| source.to_string() == "length limit exceeded")
}

/// Tells whether a request changes meetings: by itself, or by a call in its batch.
fn writes(method: &Method, path: &str, body: &[u8]) -> bool {
    if path.eq_ignore_ascii_case("/$batch") {
        let calls = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let calls = calls.get("requests").and_then(Value::as_array).cloned().unwrap_or_default();
        return calls.iter().any(|call| call.get("method").and_then(Value::as_str) != Some("GET"));
    }
    *method != Method::GET && path.starts_with("/users/")
}

/// The head of one HTTP request to Graph.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
}

/// The ids of one request.
#[derive(Debug, Clone)]
struct Ids {
    request: String,
    client: String,
}

impl Ids {
    fn new(client: Option<String>) -> Self {
        let request = Uuid::new_v4().to_string();
        let client = client.unwrap_or_else(|| request.clone());
        Self { request, client }
    }
}

impl Front {
    /// Serves a request in a task of its own: one that has come is worked on even when its client is gone.
    async fn serve(&self, asked: &Asked<'_>, path: &str, body: Bytes, base: String, ids: &Ids) -> Answer {
        let (front, ids, path) = (self.clone(), ids.clone(), path.to_owned());
        let (method, query, headers) = (asked.method.clone(), asked.query.to_owned(), asked.headers.clone());
        let served = tokio::spawn(async move {
            let prey = |step| Prey { cloud: Cloud::Outlook, writes: writes(&method, &path, &body), step };
            let told = || format!("{method} {path}?{query}\n{}", String::from_utf8_lossy(&body));
            let moments = &front.tenant.world.moments;
            let lost = Answer { cut: true, ..Answer::empty(503) };
            if moments.pass(prey(Step::Arrived), told).await == Verdict::Vanish {
                return lost;
            }
            let answer = front.graph(&method, &path, &query, &headers, &body, base, &ids).await;
            match moments.pass(prey(Step::Done), told).await {
                Verdict::GoOn => answer,
                Verdict::Vanish => lost,
            }
        });
        served.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one HTTP request, taken apart once")]
    async fn graph(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: &Bytes,
        base: String,
        ids: &Ids,
    ) -> Answer {
        let claims = match self.authorise(headers) {
            Ok(claims) => claims,
            Err(error) => {
                let mut answer = self.refuse(&error, ids);
                answer.headers.push(("www-authenticate", "Bearer realm=\"\", error=\"invalid_token\"".to_owned()));
                return answer;
            }
        };
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let prefer = match Prefer::parse(preferences) {
            Ok(prefer) => prefer,
            Err(error) => return self.refuse(&error, ids),
        };
        let body = if body.is_empty() { Ok(None) } else { serde_json::from_slice(body).map(Some) };
        let call = Call {
            method: method.clone(),
            path: path.to_owned(),
            query: parse_query(query),
            prefer,
            if_match: header("if-match"),
            body: None,
            base,
            caller: claims.appid.clone(),
        };
        let route = match Route::find(method, path) {
            Ok(route) => route,
            Err(error) => return self.refuse(&error, ids),
        };
        let meters = &self.tenant.world.meters;
        meters.call(&call.caller, route.name(method));
        if let Some(error) = self.outage(BEFORE) {
            meters.units(&call.caller, 1);
            return self.refuse(&error, ids);
        }
        let Ok(body) = body else {
            let error = GraphError::bad_request("Unable to read JSON request payload. Please ensure it is valid JSON.");
            return self.refuse(&error, ids);
        };
        let call = Call { body, ..call };
        if matches!(route, Route::Batch) {
            return match self.batch(&call, &claims, ids).await {
                Ok(answer) => answer,
                Err(error) => self.refuse(&error, ids),
            };
        }
        self.answer(route, call, &claims, ids).await
    }

    /// Answers one call, from HTTP or from a batch.
    async fn answer(&self, route: Route, call: Call, claims: &Claims, ids: &Ids) -> Answer {
        let world = &self.tenant.world;
        world.meters.units(&call.caller, 1);
        let writes = route.mailbox().is_some() && call.method != Method::GET;
        let outcome = match self.admit(&route, &call, claims) {
            Ok(_) if writes && world.strikes(Strike::OutlookLateApply) => {
                let front = self.clone();
                apply_late(world, async move {
                    // Nobody is left to be told how it went.
                    let _unheard = front.perform(&route, &call).await;
                });
                let lost = GraphError::new(504, "UnknownError", "The request timed out at the gateway.");
                return Answer { cut: true, ..self.refuse(&lost, ids) };
            }
            Ok(seat) => {
                let mut outcome = self.perform(&route, &call).await;
                if writes
                    && outcome.is_ok()
                    && let Some(error) = self.outage(AFTER)
                {
                    outcome = Err(error);
                }
                let under_way = world.faults.read().outlook_answer_ms;
                if under_way > 0 {
                    world.clock.sleep(Duration::from_millis(under_way.into())).await;
                }
                drop(seat);
                outcome
            }
            Err(error) => Err(error),
        };
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(error) => return self.refuse(&error, ids),
        };
        let mut applied = call.prefer.applied.clone();
        if matches!(route, Route::ViewDelta(_) | Route::EventsDelta(_)) {
            applied.push("odata.track-changes".to_owned());
        }
        if !applied.is_empty() {
            answer.headers.push(("preference-applied", applied.join(", ")));
        }
        answer.cut = writes && self.tenant.world.strikes(Strike::OutlookCutAnswer);
        answer
    }

    /// Lets a call in, or refuses it for a limit or for its permissions; whatever comes of it counts.
    fn admit(&self, route: &Route, call: &Call, claims: &Claims) -> Result<Option<Seat>, GraphError> {
        let (tenant, world) = (&self.tenant, &self.tenant.world);
        // A name that is no mailbox has no limit of its own: the call is about to fail.
        let mailbox = route.mailbox().and_then(|name| tenant.lock().mailbox_id(name).ok());
        let seat = tenant.limits.enter(&call.caller, mailbox, &world.faults.read(), world.clock.now());
        let seat = seat.map_err(|past| {
            world.meters.refused(&call.caller, past.name());
            past.error()
        })?;
        let roles: &[&str] = route.roles(&call.method);
        if !roles.is_empty() && !claims.roles.iter().any(|role| roles.contains(&role.as_str())) {
            let (code, message) = match route {
                Route::Users | Route::UsersDelta | Route::User(_) => {
                    ("Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
                }
                _ => ("ErrorAccessDenied", "Access is denied. Check credentials and try again."),
            };
            return Err(GraphError::new(403, code, message));
        }
        if route.mailbox().is_some() {
            let message = "Application is over its MailboxConcurrency limit.";
            let throttled = GraphError::new(429, "ApplicationThrottled", message);
            if world.strikes(Strike::OutlookThrottle) {
                return Err(throttled.after(1));
            }
            if world.strikes(Strike::OutlookThrottleBare) {
                return Err(throttled);
            }
        }
        if let Some(mailbox) = mailbox
            && !tenant.lock().mailbox(mailbox)?.licensed
        {
            return Err(GraphError::without_licence());
        }
        Ok(seat)
    }

    /// Returns the error of an outage that strikes now, of the three kinds that there are.
    fn outage(&self, strikes: [Strike; 3]) -> Option<GraphError> {
        let world = &self.tenant.world;
        let [internal, unavailable, gateway] = strikes;
        if world.strikes(internal) {
            return Some(GraphError::new(500, "ErrorInternalServerError", "An internal server error occurred."));
        }
        if world.strikes(unavailable) {
            let message = "The service is temporarily unavailable.";
            return Some(GraphError::new(503, "ServiceNotAvailable", message).after(1));
        }
        world.strikes(gateway).then(|| GraphError::new(504, "UnknownError", "The request timed out at the gateway."))
    }

    async fn perform(&self, route: &Route, call: &Call) -> Result<Answer, GraphError> {
        let tenant = &self.tenant;
        match (call.method.as_str(), route) {
            (_, Route::Me) => {
                Err(GraphError::bad_request("/me request is only valid with delegated authentication flow."))
            }
            ("GET", Route::Subscriptions) => {
                let list = tenant.subscriptions(Some(&call.caller));
                Ok(Answer::json(200, json!({"@odata.context": call.context("subscriptions"), "value": list})))
            }
            ("POST", Route::Subscriptions) => {
                let made = tenant.create_subscription(&call.caller, call.body()?, call.prefer.form).await?;
                Ok(Answer::json(201, entity(call, "subscriptions/$entity", made)))
            }
            ("GET", Route::Subscription(id)) => {
                Ok(Answer::json(200, entity(call, "subscriptions/$entity", tenant.subscription(&call.caller, id)?)))
            }
            ("PATCH", Route::Subscription(id)) => {
                let renewed = tenant.renew_subscription(&call.caller, id, call.body()?).await?;
                Ok(Answer::json(200, entity(call, "subscriptions/$entity", renewed)))
            }
            ("DELETE", Route::Subscription(id)) => {
                tenant.delete_subscription(&call.caller, id)?;
                Ok(Answer::empty(204))
            }
            ("POST", Route::Reauthorize(id)) => {
                tenant.reauthorize_subscription(&call.caller, id)?;
                Ok(Answer::empty(204))
            }
            _ => match self.directory(route, call)? {
                Some(answer) => Ok(answer),
                None => self.calendar(route, call),
            },
        }
    }

    fn authorise(&self, headers: &HeaderMap) -> Result<Claims, GraphError> {
        let refuse = |message: &str| GraphError::new(401, "InvalidAuthenticationToken", message);
        let header = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            return Err(refuse("Access token is empty."));
        };
        if self.tenant.world.strikes(Strike::OutlookRefuseTokens) {
            return Err(refuse("CompactToken validation failed with reason code: 80049228."));
        }
        self.tenant.entra().check(token.trim(), Audience::Graph).map_err(|fault| match fault {
            TokenFault::Foreign => refuse("CompactToken parsing failed with error code: 80049217"),
            TokenFault::Expired => refuse("Access token has expired or is not yet valid."),
            TokenFault::Revoked => refuse("CompactToken validation failed with reason code: 80049228."),
            TokenFault::WrongAudience => refuse("Access token validation failure. Invalid audience."),
        })
    }

    fn refuse(&self, error: &GraphError, ids: &Ids) -> Answer {
        let date = self.tenant.world.clock.now().format("%Y-%m-%dT%H:%M:%S").to_string();
        let mut answer = Answer::json(error.status, error.envelope(&date, &ids.request, &ids.client));
        if let Some(seconds) = error.retry_after {
            answer.headers.push(("retry-after", seconds.to_string()));
        }
        answer
    }

    /// Makes the HTTP answer, and tells the tap of the exchange.
    fn reply(&self, asked: &Asked<'_>, body: &dyn Fn() -> Payload, answer: Answer, ids: &Ids) -> Response<Body> {
        let tap = &self.tenant.world.tap;
        let (on, cut) = (tap.is_on(), answer.cut);
        let sent = if on { answer.body.clone().map_or(Payload::None, Payload::Json) } else { Payload::None };
        let response = self.finish(answer, ids);
        if on {
            tap.tell(Heard::Exchange(Box::new(Exchange {
                method: asked.method.to_string(),
                path: asked.path.to_owned(),
                query: asked.query.to_owned(),
                headers: texts(asked.headers),
                body: body(),
                status: response.status().as_u16(),
                answer_headers: texts(response.headers()),
                answer: sent,
                cut,
            })));
        }
        if cut { broken() } else { response }
    }

    fn finish(&self, answer: Answer, ids: &Ids) -> Response<Body> {
        let body = answer.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let diagnostic = json!({"ServerInfo": {"DataCenter": "Local Sandbox", "Slice": "E", "Ring": "0",
            "ScaleUnit": "000", "RoleInstance": self.scheme}});
        let mut headers = vec![
            ("request-id", ids.request.clone()),
            ("client-request-id", ids.client.clone()),
            ("x-ms-ags-diagnostic", diagnostic.to_string()),
            ("odata-version", "4.0".to_owned()),
            ("cache-control", "private".to_owned()),
        ];
        if answer.status != 204 && answer.status != 202 {
            headers.push(("content-type", JSON_TYPE.to_owned()));
        }
        headers.extend(answer.headers);
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// An error of the body makes the server close the connection before it has written the head.
fn broken() -> Response<Body> {
    let broken = futures::stream::once(async {
        Err::<Bytes, _>(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "answer cut by the sandbox"))
    });
    Response::new(Body::from_stream(broken))
}

/// Returns headers as text, in lower case, without those that hold credentials.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|(name, _)| *name != "authorization" && *name != "cookie");
    kept.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// Puts the context in front of a single resource.
fn entity(call: &Call, what: &str, mut resource: Value) -> Value {
    resource["@odata.context"] = json!(call.context(what));
    resource
}

fn plain_json(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert("cache-control", HeaderValue::from_static("no-store, no-cache"));
    response
}
