//! Calls to Graph: tokens, headers, limits, throttling, single requests. Many at a time are `batch`'s business.
//!
//! A call ends in a [`Reply`] whatever its status, or in a [`CallFailure`] that says whether it can have had an effect.
//! What a status means for a read or a write is decided by the callers.

use std::sync::Arc;
use std::time::Duration;

use calbridge_core::written::TOO_LATE;
use chrono::{DateTime, Utc};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::auth::{Bearer, GRAPH_SCOPE, TokenSource};
use super::error::{self, CallFailure, GraphFault, remote};
use crate::http;
use crate::ports::{Clock, RemoteError, Retry};
use crate::rate_limit::RateLimits;

/// Pause after a 429 that names none; Outlook always names one.
pub(super) const UNNAMED_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause taken from an answer; Graph names seconds to minutes, and a mailbox must not stand still for a year
/// because of one wrong header.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_hours(1);
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
    /// Latest time at which it may leave; none where no harm comes of it.
    pub(super) send_by: Option<DateTime<Utc>>,
}

/// Budget of calls that concern no mailbox.
pub(super) const TENANT: &str = "tenant";

impl Call {
    /// Makes a call without body and precondition.
    pub(super) fn new(key: impl Into<String>, method: Method, path: impl Into<String>) -> Self {
        Self { key: key.into(), method, path: path.into(), if_match: None, prefer: None, body: None, send_by: None }
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

    pub(super) fn prefer(&self) -> String {
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

    /// Tells whether Graph asks to come again later.
    ///
    /// A 503 that names no pause comes from somewhere on the way and says nothing about what happened behind it.
    pub(super) fn asks_to_wait(&self) -> bool {
        self.is_throttled() || (self.status == 503 && self.retry_after.is_some())
    }

    /// Tells whether Graph turned the request away before looking at it.
    ///
    /// Only throttling says so. An outage may strike behind the effect of a write, with a pause or without.
    pub(super) fn is_throttled(&self) -> bool {
        self.status == 429
    }

    /// Tells whether the same request may be sent again without asking what became of the first.
    pub(super) fn may_repeat(&self, method: &Method) -> bool {
        self.is_throttled() || *method == Method::GET
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
    clock: Arc<dyn Clock>,
    limits: RateLimits,
    patience: Duration,
}

impl GraphClient {
    /// Makes a client; `base` includes the version, such as `https://graph.microsoft.com/v1.0`.
    pub(super) fn new(
        http: reqwest::Client,
        base: &str,
        tokens: Arc<TokenSource>,
        clock: Arc<dyn Clock>,
        limits: RateLimits,
        patience: Duration,
    ) -> Result<Self, RemoteError> {
        let base = super::auth::secure_url(base.trim_end_matches('/'), "outlook.graph_url")?;
        Ok(Self { http, base, tokens, clock, limits, patience })
    }

    /// Returns the longest pause that a single call waits for.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Returns the budgets of the mailboxes.
    pub(super) fn limits(&self) -> &RateLimits {
        &self.limits
    }

    /// Returns the source of tokens.
    pub(super) fn tokens(&self) -> &Arc<TokenSource> {
        &self.tokens
    }

    /// Sends one request.
    pub(super) async fn send(&self, call: Call) -> Answered {
        self.send_to(self.url(&call)?, &call).await
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
        self.exchange(url, call, self.patience).await
    }

    /// Sends one request whose permit the caller holds.
    pub(super) async fn send_admitted(&self, call: &Call, patience: Duration) -> Answered {
        self.exchange(self.url(call)?, call, patience).await
    }

    /// Starts a `$batch` request.
    pub(super) fn post_batch(&self, token: &Bearer) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}/$batch", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", token.secret()))
            .header("client-request-id", Uuid::new_v4().to_string())
    }

    /// Refuses a call that waited for its budget or token until nobody counts on it any more.
    pub(super) fn refuse_when_late(&self, call: &Call) -> Result<(), CallFailure> {
        match call.send_by {
            Some(by) if self.clock.now() > by => {
                let why = "it waited too long for its turn and was not sent";
                Err(CallFailure::NotSent(remote(TOO_LATE, why, Retry::After(Duration::ZERO))))
            }
            _ => Ok(()),
        }
    }

    fn url(&self, call: &Call) -> Result<Url, CallFailure> {
        let url = format!("{}{}", self.base, call.path);
        Url::parse(&url).map_err(|_parse| CallFailure::NotSent(unusable_link()))
    }

    async fn exchange(&self, url: Url, call: &Call, patience: Duration) -> Answered {
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
            self.refuse_when_late(call)?;
            let reply = answer(request).await?;
            match reply.status {
                401 if !renewed => {
                    renewed = true;
                    token = self.renewed(&token).await?;
                }
                _ if reply.asks_to_wait() => {
                    let pause = self.pause(&call.key, &reply);
                    if waited || pause > patience || !reply.may_repeat(&call.method) {
                        return Ok(reply);
                    }
                    waited = true;
                    tokio::time::sleep(pause).await;
                }
                _ => return Ok(reply),
            }
        }
    }

    fn refuse_while_paused(&self, key: &str) -> Result<(), CallFailure> {
        match self.limits.paused_for(key) {
            Some(pause) if pause > self.patience => Err(CallFailure::NotSent(too_busy(pause))),
            _ => Ok(()),
        }
    }

    pub(super) fn pause(&self, key: &str, reply: &Reply) -> Duration {
        let pause = reply.retry_after.unwrap_or(UNNAMED_PAUSE);
        self.limits.pause(key, pause);
        pause
    }

    pub(super) async fn token(&self) -> Result<Bearer, CallFailure> {
        self.tokens.token(GRAPH_SCOPE).await.map_err(CallFailure::NotSent)
    }

    pub(super) async fn renewed(&self, token: &Bearer) -> Result<Bearer, CallFailure> {
        self.tokens.replace(GRAPH_SCOPE, token).await.map_err(CallFailure::NotSent)
    }
}

pub(super) fn too_busy(pause: Duration) -> RemoteError {
    remote(error::THROTTLED, "calls of this mailbox are held back, as Graph asked", Retry::After(pause))
}

fn unusable_link() -> RemoteError {
    remote(
        error::LINK_LEADS_AWAY,
        "a link of Graph does not lead to `outlook.graph_url`; it is not followed, because the token would go there too",
        Retry::After(Duration::from_mins(1)),
    )
}

pub(super) async fn answer(request: reqwest::RequestBuilder) -> Answered {
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

pub(super) fn seconds(text: &str) -> Option<Duration> {
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
pub(super) mod tests;
