//! REST calls: addresses, headers, the session, the org's limits. What rows mean is not known here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use url::Url;

use super::auth::{Authenticator, Session};
use super::error::{Failure, Kind};
use super::settings::{Settings, SettingsError};
use crate::http;
use crate::ports::{Clock, RemoteError};
use crate::rate_limit::RateLimits;

/// How our writes name themselves in `changeOrigin` (`;client=calbridge/1`).
///
/// <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_calloptions.htm>
pub(super) const CALL_OPTIONS: &str = "client=calbridge/1";

/// Calls Salesforce's REST API; shared by everything that talks to one org.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    auth: Authenticator,
    clock: Arc<dyn Clock>,
    limits: RateLimits,
    key: String,
    prefix: String,
    short_pause: Duration,
    long_pause: Duration,
    usage: Mutex<Option<ApiUsage>>,
}

/// What the org has used of its API calls in the rolling 24 hours, as the newest answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiUsage {
    /// Calls used, by everybody.
    pub used: u32,
    /// Calls allowed.
    pub limit: u32,
}

/// A successful answer; holds record values, so it is never printed.
pub(super) struct Reply(Vec<u8>);

impl Reply {
    /// Reads the body.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.0)
            .map_err(|_other_form| Failure::new(Kind::Unreadable, "salesforce's answer has an unexpected form"))
    }
}

/// One call; holds record values, so it is never printed.
pub(super) struct Call<'a> {
    method: Method,
    path: &'a str,
    query: Vec<(&'static str, String)>,
    body: Option<&'a Json>,
    unless_modified_since: Option<String>,
    send_by: Option<DateTime<Utc>>,
    kind: &'static str,
}

impl<'a> Call<'a> {
    /// Starts a call; `path` follows `/services/data/vXX.X`, or is absolute when it begins with `/services/`.
    pub(super) fn new(method: Method, path: &'a str, kind: &'static str) -> Self {
        Self { method, path, query: Vec::new(), body: None, unless_modified_since: None, send_by: None, kind }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: &'a Json) -> Self {
        self.body = Some(body);
        self
    }

    /// Names the latest time at which the call may leave.
    pub(super) fn send_by(mut self, time: Option<DateTime<Utc>>) -> Self {
        self.send_by = time;
        self
    }

    pub(super) fn unless_modified_since(mut self, http_date: Option<String>) -> Self {
        self.unless_modified_since = http_date;
        self
    }
}

impl Client {
    /// Prepares calls to one org; calls nobody yet.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
        limits: RateLimits,
        settings: &Settings,
    ) -> Result<Arc<Self>, SettingsError> {
        let version = &settings.api_version;
        let is_version = version.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor));
        if !is_version {
            return Err(SettingsError::ApiVersion(version.clone()));
        }
        Ok(Arc::new(Self {
            auth: Authenticator::new(http.clone(), Arc::clone(&clock), settings)?,
            http,
            clock,
            limits,
            key: format!("salesforce:{}", settings.connection),
            prefix: format!("/services/data/v{version}"),
            short_pause: settings.short_pause,
            long_pause: settings.long_pause,
            usage: Mutex::new(None),
        }))
    }

    /// Returns the session, signing in if there is none.
    ///
    /// # Errors
    /// [`RemoteError`] `CB1354` when the sign-in is refused, `CB1350`.. when it cannot be reached.
    pub async fn session(&self) -> Result<Arc<Session>, RemoteError> {
        Ok(self.auth.session().await?)
    }

    /// Returns a session newer than `stale`; signs in at most once however many callers ask.
    ///
    /// # Errors
    /// As [`Client::session`].
    pub async fn renew(&self, stale: &Session) -> Result<Arc<Session>, RemoteError> {
        Ok(self.auth.renew(stale).await?)
    }

    /// Returns what the newest answer said about the org's API calls; none before the first one.
    pub fn usage(&self) -> Option<ApiUsage> {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls; a session that has ended is renewed once and the call repeated, since a 401 had no effect.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let session = self.auth.session().await?;
        match self.send(&call, &session).await {
            Err(failure) if failure.kind == Kind::Session => {
                let session = self.auth.renew(&session).await?;
                self.send(&call, &session).await
            }
            result => result,
        }
    }

    /// Returns the path of a resource with its version, as the parts of a composite call name it.
    pub(super) fn path(&self, resource: &str) -> String {
        format!("{}{resource}", self.prefix)
    }

    async fn send(&self, call: &Call<'_>, session: &Session) -> Result<Reply, Failure> {
        // While the whole org pauses, callers get an answer at once: their meetings wait in the queue, not in here.
        if let Some(left) = self.limits.paused_for(&self.key) {
            return Err(Failure::new(Kind::RequestLimit, "calls to salesforce pause").retry_after(left));
        }
        let _permit = self.limits.admit(&self.key).await;
        if call.send_by.is_some_and(|by| self.clock.now() > by) {
            return Err(Failure::new(Kind::TooLate, "it waited too long for its turn and was not sent"));
        }
        let mut request = self
            .http
            .request(call.method.clone(), self.address(session, call)?)
            .bearer_auth(session.token())
            .header("Sforce-Call-Options", HeaderValue::from_static(CALL_OPTIONS));
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if let Some(body) = call.body {
            request = request.json(body);
        }
        if let Some(http_date) = &call.unless_modified_since {
            request = request.header("If-Unmodified-Since", http_date);
        }
        metrics::counter!("calbridge_remote_calls_total", "side" => "salesforce", "kind" => call.kind).increment(1);
        let answer = request.send().await.map_err(|error| Failure::from_transport(&error))?;
        let status = answer.status();
        self.note_usage(answer.headers());
        let asked = retry_after(answer.headers());
        let body = http::body(answer).await.map_err(|error| Failure::from_body(&error))?;
        if status.is_success() {
            return Ok(Reply(body));
        }
        let mut failure = Failure::from_answer(status.as_u16(), &body);
        failure.retry_after = asked;
        tracing::debug!(
            kind = call.kind,
            status = status.as_u16(),
            error.code = failure.kind.code(),
            "salesforce refused a call"
        );
        Err(self.pause_org(failure))
    }

    fn note_usage(&self, headers: &HeaderMap) {
        let header = headers.get("Sforce-Limit-Info").and_then(|value| value.to_str().ok());
        if let Some(usage) = header.and_then(api_usage) {
            metrics::gauge!("calbridge_salesforce_api_calls_used").set(f64::from(usage.used));
            metrics::gauge!("calbridge_salesforce_api_calls_limit").set(f64::from(usage.limit));
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = Some(usage);
        }
    }

    fn address(&self, session: &Session, call: &Call<'_>) -> Result<Url, Failure> {
        let path = if call.path.starts_with("/services/") {
            call.path.to_owned()
        } else {
            format!("{}{}", self.prefix, call.path)
        };
        let url = session.base().join(&path);
        // A path such as `//host` would lead the token elsewhere.
        url.ok()
            .filter(|url| url.origin() == session.base().origin())
            .ok_or_else(|| Failure::new(Kind::Unreadable, "salesforce named an address outside its instance"))
    }

    /// Holds every call to the org back where the answer says that the org, not the record, is the trouble.
    fn pause_org(&self, failure: Failure) -> Failure {
        let pause = match failure.kind {
            // Salesforce names no time; a concurrency limit falls within seconds, the daily one within a rolling day.
            Kind::RequestLimit if failure.message.contains("Concurrent") => self.short_pause,
            Kind::RequestLimit => self.long_pause,
            // What stands before it may name one.
            Kind::Unavailable | Kind::Throttled => failure.retry_after.unwrap_or(self.short_pause),
            _ => return failure,
        };
        self.limits.pause(&self.key, pause);
        tracing::warn!(
            error.code = failure.kind.code(),
            retry_after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "calls to salesforce pause: {}",
            failure.message
        );
        failure.retry_after(pause)
    }
}

/// Reads `Retry-After` in seconds, the form of every gateway seen so far; a day at most.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get("Retry-After")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(86_400)))
}

/// Reads `Sforce-Limit-Info: api-usage=18/5000`.
fn api_usage(header: &str) -> Option<ApiUsage> {
    let usage = header.split([';', ',']).find_map(|part| part.trim().strip_prefix("api-usage="))?;
    let (used, limit) = usage.split_once('/')?;
    Some(ApiUsage { used: used.parse().ok()?, limit: limit.parse().ok()? })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_header_is_read_with_and_without_the_apps_share() {
        let usage = |used, limit| Some(ApiUsage { used, limit });
        assert_eq!(api_usage("api-usage=18/5000"), usage(18, 5000));
        assert_eq!(api_usage("per-app-api-usage=17/250(appName=a), api-usage=25/5000"), usage(25, 5000));
        assert_eq!(api_usage("api-usage=x"), None);
    }
}
