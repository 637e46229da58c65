//! Calls to Graph: tokens, headers, limits, throttling, single requests and `$batch`.
//!
//! A call ends in a [`Reply`] whatever its status, or in a [`CallFailure`] that says whether it can have had an effect.
//! What a status means for a read or a write is decided by the callers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use super::auth::{Bearer, GRAPH_SCOPE, TokenSource};
use super::error::{self, CallFailure, GraphFault, remote};
use crate::http;
use crate::ports::{RemoteError, Retry};
use crate::rate_limit::{Permit, RateLimits};

/// Most requests that one `$batch` takes: <https://learn.microsoft.com/graph/json-batching>.
const BATCH_SIZE: usize = 20;
/// Requests of one batch that Outlook runs at once: <https://learn.microsoft.com/graph/throttling-limits>.
const BATCH_PLACES: u32 = 4;
/// Batches under way at once.
const BATCHES_IN_FLIGHT: usize = 4;
/// Rounds of one batch: the first, one after a refused token, one after a short pause.
const BATCH_ROUNDS: u32 = 3;
/// Pause after a 429 that names none; Outlook always names one.
const UNNAMED_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause taken from an answer; Graph names seconds to minutes, and a mailbox must not stand still for a year
/// because of one wrong header.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// Ids stay when an event moves between folders, bodies come as text: both must be asked for on every request.
/// <https://learn.microsoft.com/graph/outlook-immutable-id>
const PREFER: &str = r#"IdType="ImmutableId", outlook.body-content-type="text""#;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Whose budget it spends: a mailbox, or [`TENANT`].
    pub(super) key: String,
    /// Method.
    pub(super) method: Method,
    /// Path below the base address, with its query, percent-encoded; starts with `/`.
    pub(super) path: String,
    /// `If-Match`.
    pub(super) if_match: Option<String>,
    /// Further preferences, beside those that every request has.
    pub(super) prefer: Option<String>,
    /// JSON body.
    pub(super) body: Option<Value>,
}

/// Budget of calls that concern no mailbox.
pub(super) const TENANT: &str = "tenant";

impl Call {
    /// Makes a call without body and precondition.
    pub(super) fn new(key: impl Into<String>, method: Method, path: impl Into<String>) -> Self {
        Self { key: key.into(), method, path: path.into(), if_match: None, prefer: None, body: None }
    }

    /// Makes a GET.
    pub(super) fn get(key: impl Into<String>, path: impl Into<String>) -> Self {
        Self::new(key, Method::GET, path)
    }

    /// Gives it a body.
    pub(super) fn with_body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn prefer(&self) -> String {
        match &self.prefer {
            Some(further) => format!("{PREFER}, {further}"),
            None => PREFER.to_owned(),
        }
    }
}

/// What Graph answered.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// HTTP status.
    pub(super) status: u16,
    /// JSON body; null where there is none.
    pub(super) body: Value,
    /// `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

/// How a call ended.
pub(super) type Answered = Result<Reply, CallFailure>;

impl Reply {
    /// Tells whether it is a 2xx.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Tells whether Graph turned the request away before looking at it.
    ///
    /// A 503 that names no pause comes from somewhere on the way and says nothing about what happened behind it.
    pub(super) fn is_held_back(&self) -> bool {
        self.status == 429 || (self.status == 503 && self.retry_after.is_some())
    }

    /// Reads the error envelope.
    pub(super) fn fault(&self) -> GraphFault {
        GraphFault::read(self.status, &self.body, self.retry_after)
    }

    /// Returns the body of a 2xx, or the error.
    pub(super) fn success(self) -> Result<Value, RemoteError> {
        if self.is_success() { Ok(self.body) } else { Err(self.fault().to_error()) }
    }
}

/// Reads a JSON value into one of our types; the error names the path, never the value.
pub(super) fn read<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, RemoteError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        remote(
            error::UNREADABLE,
            format!("Graph's {what} cannot be read at `{}`", error.path()),
            Retry::After(Duration::ZERO),
        )
    })
}

/// Percent-encodes one piece of a path or query; event ids hold `=` and `/` in older forms.
pub(super) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Calls Graph for one tenant.
#[derive(Debug)]
pub(super) struct GraphClient {
    http: reqwest::Client,
    base: Url,
    tokens: Arc<TokenSource>,
    limits: RateLimits,
    patience: Duration,
}

impl GraphClient {
    /// Makes a client; `base` includes the version, such as `https://graph.microsoft.com/v1.0`.
    pub(super) fn new(
        http: reqwest::Client,
        base: &str,
        tokens: Arc<TokenSource>,
        limits: RateLimits,
        patience: Duration,
    ) -> Result<Self, RemoteError> {
        let base = super::auth::secure_url(base.trim_end_matches('/'), "outlook.graph_url")?;
        Ok(Self { http, base, tokens, limits, patience })
    }

    /// Returns the source of tokens.
    pub(super) fn tokens(&self) -> &Arc<TokenSource> {
        &self.tokens
    }

    /// Sends one request.
    pub(super) async fn send(&self, call: Call) -> Answered {
        let url = format!("{}{}", self.base, call.path);
        let url = Url::parse(&url).map_err(|_parse| CallFailure::NotSent(unusable_link()))?;
        self.send_to(url, &call).await
    }

    /// Follows a link that Graph gave; one that leads elsewhere is not followed, because the token would go there too.
    pub(super) async fn follow(&self, key: &str, link: &str) -> Answered {
        match self.own(link) {
            Some(url) => self.send_to(url, &Call::get(key, "")).await,
            None => Err(CallFailure::NotSent(unusable_link())),
        }
    }

    /// Refuses a link of an answer that leads to another address than the calls go to.
    pub(super) fn expect_own(&self, link: Option<&str>) -> Result<(), RemoteError> {
        match link {
            Some(link) if self.own(link).is_none() => Err(unusable_link()),
            _ => Ok(()),
        }
    }

    fn own(&self, link: &str) -> Option<Url> {
        let url = Url::parse(link).ok()?;
        let below = url.path().strip_prefix(self.base.path())?;
        let same = url.origin() == self.base.origin() && url.username().is_empty() && url.password().is_none();
        (same && (below.is_empty() || below.starts_with('/') || self.base.path().ends_with('/'))).then_some(url)
    }

    async fn send_to(&self, url: Url, call: &Call) -> Answered {
        self.refuse_while_paused(&call.key)?;
        let _permit = self.limits.admit(&call.key).await;
        let mut token = self.token().await?;
        let (mut renewed, mut waited) = (false, false);
        loop {
            let mut request = self
                .http
                .request(call.method.clone(), url.clone())
                .header(AUTHORIZATION, format!("Bearer {}", token.secret()))
                .header("Prefer", call.prefer())
                .header("client-request-id", Uuid::new_v4().to_string());
            if let Some(etag) = &call.if_match {
                request = request.header("If-Match", etag);
            }
            if let Some(body) = &call.body {
                request = request.json(body);
            }
            let reply = answer(request).await?;
            match reply.status {
                401 if !renewed => {
                    renewed = true;
                    token = self.renewed(&token).await?;
                }
                _ if reply.is_held_back() => {
                    let pause = self.pause(&call.key, &reply);
                    if waited || pause > self.patience {
                        return Ok(reply);
                    }
                    waited = true;
                    tokio::time::sleep(pause).await;
                }
                _ => return Ok(reply),
            }
        }
    }

    /// Sends many requests in as few calls as possible; order kept.
    pub(super) async fn send_all(&self, calls: Vec<Call>) -> Vec<Answered> {
        let mut chunks = Vec::new();
        let mut rest = calls.into_iter().peekable();
        while rest.peek().is_some() {
            chunks.push(rest.by_ref().take(BATCH_SIZE).collect::<Vec<_>>());
        }
        stream::iter(chunks)
            .map(|chunk| self.send_chunk(chunk))
            .buffered(BATCHES_IN_FLIGHT)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    async fn send_chunk(&self, mut calls: Vec<Call>) -> Vec<Answered> {
        match calls.pop() {
            Some(only) if calls.is_empty() => vec![Box::pin(self.send(only)).await],
            Some(last) => {
                calls.push(last);
                Box::pin(self.batch(&calls)).await
            }
            None => Vec::new(),
        }
    }

    async fn batch(&self, calls: &[Call]) -> Vec<Answered> {
        let mut answers: Vec<Option<Answered>> =
            calls.iter().map(|call| self.refuse_while_paused(&call.key).err().map(Err)).collect();
        let mut open: Vec<usize> =
            (0..calls.len()).filter(|index| answers.get(*index).is_some_and(Option::is_none)).collect();
        let _permits = self.admit(calls, &open).await;
        let (mut renewed, mut waited) = (false, false);
        for round in 1..=BATCH_ROUNDS {
            if open.is_empty() {
                break;
            }
            let token = match self.token().await {
                Ok(token) => token,
                Err(failure) => {
                    settle(&mut answers, &open, &Err(failure));
                    break;
                }
            };
            let replies = match self.batch_round(calls, &open, &token).await {
                Ok(replies) => replies,
                Err(failure) => {
                    settle(&mut answers, &open, &Err(failure));
                    break;
                }
            };
            let mut again = Vec::new();
            let mut pause = Duration::ZERO;
            let mut refused = false;
            for (index, reply) in open.iter().copied().zip(replies) {
                let Some(reply) = reply else {
                    let lost = remote(error::UNREADABLE, "Graph's batch lacks an answer", Retry::After(Duration::ZERO));
                    settle(&mut answers, &[index], &Err(CallFailure::Lost(lost)));
                    continue;
                };
                let last = round == BATCH_ROUNDS;
                match reply.status {
                    401 if !renewed && !last => {
                        refused = true;
                        again.push(index);
                        continue;
                    }
                    _ if reply.is_held_back() => {
                        let asked = calls.get(index).map_or(UNNAMED_PAUSE, |call| self.pause(&call.key, &reply));
                        if !waited && !last && asked <= self.patience {
                            pause = pause.max(asked);
                            again.push(index);
                            continue;
                        }
                    }
                    _ => {}
                }
                settle(&mut answers, &[index], &Ok(reply));
            }
            if refused {
                renewed = true;
                if let Err(failure) = self.renewed(&token).await {
                    settle(&mut answers, &again, &Err(failure));
                    break;
                }
            }
            if !pause.is_zero() {
                waited = true;
                tokio::time::sleep(pause).await;
            }
            open = again;
        }
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(CallFailure::NotSent(too_busy(Duration::ZERO)))))
            .collect()
    }

    /// Sends one `$batch`; the answers are in the order of `open`. A failure of the whole counts for each item.
    async fn batch_round(
        &self,
        calls: &[Call],
        open: &[usize],
        token: &Bearer,
    ) -> Result<Vec<Option<Reply>>, CallFailure> {
        let requests: Vec<Value> =
            open.iter().filter_map(|index| calls.get(*index).map(|call| item(*index, call))).collect();
        let request = self
            .http
            .post(format!("{}/$batch", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", token.secret()))
            .header("client-request-id", Uuid::new_v4().to_string())
            .json(&json!({ "requests": requests }));
        let reply = answer(request).await?;
        if !reply.is_success() {
            return Ok(open.iter().map(|_| Some(reply.clone())).collect());
        }
        let mut by_id: BTreeMap<String, Reply> = BTreeMap::new();
        let responses = reply.body.get("responses").and_then(Value::as_array);
        for response in responses.into_iter().flatten() {
            if let Some((id, reply)) = item_reply(response) {
                by_id.insert(id, reply);
            }
        }
        Ok(open.iter().map(|index| by_id.remove(&index.to_string())).collect())
    }

    async fn admit(&self, calls: &[Call], open: &[usize]) -> Vec<Permit> {
        let mut units: BTreeMap<&str, u32> = BTreeMap::new();
        for call in open.iter().filter_map(|index| calls.get(*index)) {
            *units.entry(&call.key).or_default() += 1;
        }
        let mut permits = Vec::with_capacity(units.len());
        // In the order of the keys, so that two batches never wait for each other.
        for (key, units) in units {
            permits.push(self.limits.admit_load(key, units.min(BATCH_PLACES), units).await);
        }
        permits
    }

    fn refuse_while_paused(&self, key: &str) -> Result<(), CallFailure> {
        match self.limits.paused_for(key) {
            Some(pause) if pause > self.patience => Err(CallFailure::NotSent(too_busy(pause))),
            _ => Ok(()),
        }
    }

    fn pause(&self, key: &str, reply: &Reply) -> Duration {
        let pause = reply.retry_after.unwrap_or(UNNAMED_PAUSE);
        self.limits.pause(key, pause);
        pause
    }

    async fn token(&self) -> Result<Bearer, CallFailure> {
        self.tokens.token(GRAPH_SCOPE).await.map_err(CallFailure::NotSent)
    }

    async fn renewed(&self, token: &Bearer) -> Result<Bearer, CallFailure> {
        self.tokens.replace(GRAPH_SCOPE, token).await.map_err(CallFailure::NotSent)
    }
}

fn settle(answers: &mut [Option<Answered>], indexes: &[usize], answer: &Answered) {
    for index in indexes {
        if let Some(place) = answers.get_mut(*index) {
            *place = Some(answer.clone());
        }
    }
}

fn too_busy(pause: Duration) -> RemoteError {
    remote(error::THROTTLED, "calls of this mailbox are held back, as Graph asked", Retry::After(pause))
}

fn unusable_link() -> RemoteError {
    remote(
        error::LINK_LEADS_AWAY,
        "a link of Graph does not lead to `outlook.graph_url`; it is not followed, because the token would go there too",
        Retry::After(Duration::from_mins(1)),
    )
}

fn item(index: usize, call: &Call) -> Value {
    let mut headers = Map::new();
    headers.insert("Prefer".to_owned(), call.prefer().into());
    headers.insert("client-request-id".to_owned(), Uuid::new_v4().to_string().into());
    if let Some(etag) = &call.if_match {
        headers.insert("If-Match".to_owned(), etag.as_str().into());
    }
    let mut item = Map::new();
    item.insert("id".to_owned(), index.to_string().into());
    item.insert("method".to_owned(), call.method.as_str().into());
    item.insert("url".to_owned(), call.path.as_str().into());
    if let Some(body) = &call.body {
        headers.insert("Content-Type".to_owned(), "application/json".into());
        item.insert("body".to_owned(), body.clone());
    }
    item.insert("headers".to_owned(), Value::Object(headers));
    Value::Object(item)
}

fn item_reply(response: &Value) -> Option<(String, Reply)> {
    let id = match response.get("id")? {
        Value::String(id) => id.clone(),
        other => other.to_string(),
    };
    let status = response.get("status")?.as_u64().and_then(|status| u16::try_from(status).ok())?;
    let retry_after = response.get("headers").and_then(Value::as_object).and_then(|headers| {
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after")).and_then(|(_, value)| match value {
            Value::String(text) => seconds(text),
            other => other.as_u64().map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE)),
        })
    });
    let body = response.get("body").cloned().unwrap_or(Value::Null);
    Some((id, Reply { status, body, retry_after }))
}

async fn answer(request: reqwest::RequestBuilder) -> Answered {
    let answer = request.send().await.map_err(|error| CallFailure::from_request(&error))?;
    let status = answer.status().as_u16();
    let retry_after = retry_after(answer.headers());
    let body = http::body(answer).await.map_err(|error| CallFailure::from_body(&error))?;
    let body = if body.is_empty() {
        Value::Null
    } else {
        match serde_json::from_slice(&body) {
            Ok(body) => body,
            // A gateway's error page; the status says enough.
            Err(_) if !(200..300).contains(&status) => Value::Null,
            Err(_) => {
                return Err(CallFailure::Lost(remote(
                    error::UNREADABLE,
                    "Graph's answer is no JSON",
                    Retry::After(Duration::ZERO),
                )));
            }
        }
    };
    Ok(Reply { status, body, retry_after })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok().and_then(seconds)
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(pause) => Some(pause.min(LONGEST_PAUSE)),
        // More than a duration can hold is as absurd as a year; less than nothing says nothing.
        Err(_absurd) if seconds > 0.0 => Some(LONGEST_PAUSE),
        Err(_absurd) => None,
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
