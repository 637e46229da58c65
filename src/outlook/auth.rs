//! Tokens from Entra, by client credentials: one source for Graph and for Event Hubs.
//!
//! Own code rather than `azure_identity`, which refuses a local authority and loses the reason that Entra gives.
//! Tokens live in real time, whatever a rehearsal's clock says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::error::{self, clean, remote, root_cause};
use crate::http::{self, ReadError};
use crate::ports::{RemoteError, Retry};

/// What to ask Entra for, to call Graph: <https://learn.microsoft.com/graph/auth-v2-service>.
pub const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";
/// What to ask Entra for, to read Event Hubs.
pub const EVENT_HUBS_SCOPE: &str = "https://eventhubs.azure.net/.default";

/// A token with less life left than this is replaced before it is used; half its life for short-lived ones.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// The same for Event Hubs: the SDK asks again 6 minutes before the end and expects a longer-lived token then.
const RENEW_BEFORE_FOR_HUBS: Duration = Duration::from_mins(12);
/// Longest life of a token that is believed; Entra gives at most 28 hours.
/// <https://learn.microsoft.com/entra/identity/conditional-access/concept-continuous-access-evaluation>
const LONGEST_LIFE: Duration = Duration::from_hours(28);
/// Least time that a token for Event Hubs has left, however short tokens live: given an old one again when it asks 6 minutes
/// (and up to 5 s) before the end, the SDK takes it for one that cannot be renewed, or asks without a pause.
const LEAST_FOR_HUBS: Duration = Duration::from_secs(370);
/// For how long a refused sign-in answers everyone, so that a wrong secret is not tried once per request.
const REMEMBER_REFUSAL: Duration = Duration::from_secs(5);

/// Who we are at Entra.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Authority; `https://login.microsoftonline.com` outside rehearsals. Plain `http` only on loopback.
    pub authority: String,
    /// Tenant id (a guid) or one of the tenant's domains.
    pub tenant: String,
    /// Application (client) id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: SecretString,
}

/// Gives out tokens, cached by scope; one request at a time fetches a new one and all others wait for it.
pub struct TokenSource {
    http: reqwest::Client,
    settings: AuthSettings,
    endpoint: Url,
    slots: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Slot>>>>,
}

/// A token in force.
#[derive(Debug, Clone)]
pub struct Bearer {
    secret: SecretString,
    serial: u64,
    obtained: Instant,
    lifetime: Duration,
}

#[derive(Debug, Default)]
struct Slot {
    bearer: Option<Bearer>,
    serial: u64,
    refused: Option<(Instant, RemoteError)>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    expires_in: u64,
}

/// Owned strings: Entra's description holds JSON escapes, which borrowed ones cannot take.
#[derive(Deserialize, Default)]
struct Denied {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Bearer {
    /// Returns the token for an `Authorization` header.
    pub fn secret(&self) -> &str {
        self.secret.expose_secret()
    }

    fn left(&self) -> Duration {
        self.lifetime.saturating_sub(self.obtained.elapsed())
    }

    fn outlasts(&self, margin: Duration) -> bool {
        self.left() > margin.min(self.lifetime / 2)
    }
}

impl TokenSource {
    /// Makes a source; asks for nothing yet.
    ///
    /// # Errors
    /// `CB1314` when the authority is no usable address.
    pub fn new(http: reqwest::Client, settings: AuthSettings) -> Result<Self, RemoteError> {
        let mut endpoint = secure_url(&settings.authority, "outlook.authority_url")?;
        endpoint
            .path_segments_mut()
            .map_err(|()| unusable("outlook.authority_url", &settings.authority))?
            .pop_if_empty()
            .extend([settings.tenant.as_str(), "oauth2", "v2.0", "token"]);
        Ok(Self { http, settings, endpoint, slots: Mutex::default() })
    }

    /// Returns a token that lives for a while yet.
    ///
    /// # Errors
    /// `CB1302` with Entra's own words when it refuses, `CB1301` when it cannot be reached.
    pub async fn token(&self, scope: &str) -> Result<Bearer, RemoteError> {
        self.token_outlasting(scope, RENEW_BEFORE, Duration::ZERO).await
    }

    /// Forgets a token that a service refused on a connection which began at `since`; one fetched later is kept, so that
    /// several refused connections cost one new sign-in.
    pub async fn forget(&self, scope: &str, since: Instant) {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        slot.bearer.take_if(|bearer| bearer.obtained <= since);
    }

    /// Returns another token than `refused`, which a service did not accept; fetched once, however many ask.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub async fn replace(&self, scope: &str, refused: &Bearer) -> Result<Bearer, RemoteError> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        match &slot.bearer {
            Some(bearer) if bearer.serial != refused.serial && bearer.outlasts(RENEW_BEFORE) => Ok(bearer.clone()),
            _ => self.fetch(scope, &mut slot).await,
        }
    }

    async fn token_outlasting(&self, scope: &str, margin: Duration, least: Duration) -> Result<Bearer, RemoteError> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        match &slot.bearer {
            Some(bearer) if bearer.outlasts(margin) && bearer.left() > least => Ok(bearer.clone()),
            _ => self.fetch(scope, &mut slot).await,
        }
    }

    fn slot(&self, scope: &str) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(scope.to_owned()).or_default())
    }

    async fn fetch(&self, scope: &str, slot: &mut Slot) -> Result<Bearer, RemoteError> {
        if let Some((at, refusal)) = &slot.refused
            && at.elapsed() < REMEMBER_REFUSAL
        {
            return Err(refusal.clone());
        }
        match self.ask(scope).await {
            Ok(granted) => {
                slot.serial += 1;
                slot.refused = None;
                let bearer = Bearer {
                    secret: granted.access_token,
                    serial: slot.serial,
                    obtained: Instant::now(),
                    lifetime: Duration::from_secs(granted.expires_in).min(LONGEST_LIFE),
                };
                slot.bearer = Some(bearer.clone());
                Ok(bearer)
            }
            Err(error) => {
                if error.code == error::SIGN_IN {
                    slot.refused = Some((Instant::now(), error.clone()));
                }
                // A token that is still alive serves until Entra answers again.
                match &slot.bearer {
                    Some(bearer) if error.code != error::SIGN_IN && !bearer.left().is_zero() => Ok(bearer.clone()),
                    _ => Err(error),
                }
            }
        }
    }

    async fn ask(&self, scope: &str) -> Result<Granted, RemoteError> {
        let unreachable = |error: &reqwest::Error| {
            remote(
                error::UNREACHABLE,
                format!(
                    "Entra cannot be reached ({}); check the network and `outlook.authority_url`",
                    root_cause(error)
                ),
                Retry::After(Duration::ZERO),
            )
        };
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", self.settings.client_id.as_str()),
            ("client_secret", self.settings.client_secret.expose_secret()),
            ("scope", scope),
        ];
        let answer =
            self.http.post(self.endpoint.clone()).form(&form).send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let body = http::body(answer).await.map_err(|error| match &error {
            ReadError::Transport(error) => unreachable(error),
            ReadError::TooLarge => {
                remote(error::TOO_LARGE, format!("Entra: {error}"), Retry::After(Duration::from_secs(30)))
            }
        })?;
        if status.is_redirection() {
            return Err(remote(
                error::REDIRECTED,
                "Entra's answer sends the sign-in to another address, which is not followed; check \
                 `outlook.authority_url` and proxies",
                Retry::After(Duration::from_secs(30)),
            ));
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                remote(
                    error::UNREADABLE,
                    format!("Entra's answer is no token ({:?} at column {})", error.classify(), error.column()),
                    Retry::After(Duration::ZERO),
                )
            });
        }
        let denied: Denied = serde_json::from_slice(&body).unwrap_or_default();
        let retry = if status.is_server_error() || status.as_u16() == 429 {
            Retry::After(Duration::from_secs(1))
        } else {
            Retry::Never
        };
        let code = if retry == Retry::Never { error::SIGN_IN } else { error::UNAVAILABLE };
        Err(remote(
            code,
            format!(
                "Entra refuses the sign-in of the app (HTTP {}, {}): {}",
                status.as_u16(),
                clean(&denied.error),
                reason(&denied.error_description)
            ),
            retry,
        ))
    }
}

/// Keeps the AADSTS line, without the trace ids that follow it.
fn reason(description: &str) -> String {
    let line = description.split(['\r', '\n']).next().unwrap_or_default();
    let line = line.split(" Trace ID:").next().unwrap_or_default();
    let words = clean(line);
    if words.is_empty() { "no reason given".to_owned() } else { words }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

/// The same source in the form that the Event Hubs SDK asks for.
#[derive(Debug, Clone)]
pub struct HubCredential(Arc<TokenSource>);

impl HubCredential {
    /// Wraps a source.
    pub fn new(source: Arc<TokenSource>) -> Self {
        Self(source)
    }
}

#[async_trait]
impl TokenCredential for HubCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let scope = scopes.first().copied().unwrap_or(EVENT_HUBS_SCOPE);
        let bearer = self
            .0
            .token_outlasting(scope, RENEW_BEFORE_FOR_HUBS, LEAST_FOR_HUBS)
            .await
            .map_err(|error| azure_core::Error::new(azure_core::error::ErrorKind::Credential, error))?;
        let left = azure_core::time::Duration::try_from(bearer.left()).unwrap_or(azure_core::time::Duration::ZERO);
        Ok(AccessToken::new(bearer.secret().to_owned(), OffsetDateTime::now_utc() + left))
    }
}

/// Reads an address that secrets are sent to: `https`, or `http` on loopback.
pub(super) fn secure_url(text: &str, setting: &str) -> Result<Url, RemoteError> {
    let url = Url::parse(text).map_err(|_parse| unusable(setting, text))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err(unusable(setting, text)),
    }
}

fn unusable(setting: &str, text: &str) -> RemoteError {
    remote(
        error::SETTINGS,
        format!("`{setting}` is `{text}`; give an https address (http only for this machine)"),
        Retry::Never,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use axum::{Form, Json, Router};
    use serde_json::json;

    use super::*;
    use crate::outlook::testing::serve;

    #[derive(Clone, Default)]
    struct Authority {
        asked: Arc<AtomicU32>,
        expires_in: u64,
    }

    async fn grant(
        State(authority): State<Authority>,
        Form(form): Form<BTreeMap<String, String>>,
    ) -> axum::response::Response {
        let number = authority.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if form["client_secret"] != "right" {
            let description = "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1\r\nTimestamp: now";
            let body = json!({"error": "invalid_client", "error_description": description});
            return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
        }
        let token = format!("token-{number}");
        Json(json!({"access_token": token, "expires_in": authority.expires_in, "token_type": "Bearer"})).into_response()
    }

    async fn source(secret: &str, expires_in: u64) -> (Arc<TokenSource>, Arc<AtomicU32>) {
        let authority = Authority { expires_in, ..Authority::default() };
        let asked = Arc::clone(&authority.asked);
        let router = Router::new().route("/tenant/oauth2/v2.0/token", post(grant)).with_state(authority);
        let settings = AuthSettings {
            authority: serve(router).await,
            tenant: "tenant".into(),
            client_id: "app".into(),
            client_secret: SecretString::from(secret.to_owned()),
        };
        let source = TokenSource::new(crate::outlook::testing::http(), settings).unwrap();
        (Arc::new(source), asked)
    }

    #[tokio::test]
    async fn many_callers_cost_one_sign_in() {
        let (source, asked) = source("right", 3600).await;
        let calls = (0..20).map(|_| source.token(GRAPH_SCOPE));
        let tokens = futures::future::try_join_all(calls).await.unwrap();
        assert!(tokens.iter().all(|token| token.secret() == "token-1"));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn many_refused_callers_cost_one_new_sign_in() {
        let (source, asked) = source("right", 3600).await;
        let old = source.token(GRAPH_SCOPE).await.unwrap();
        let calls = (0..20).map(|_| source.replace(GRAPH_SCOPE, &old));
        let tokens = futures::future::try_join_all(calls).await.unwrap();
        assert!(tokens.iter().all(|token| token.secret() == "token-2"));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_wrong_secret_shows_the_reason_and_is_not_tried_again_and_again() {
        let (source, asked) = source("wrong", 3600).await;
        let error = source.token(GRAPH_SCOPE).await.unwrap_err();
        assert_eq!(error.code, error::SIGN_IN);
        assert!(error.message.contains("AADSTS7000215: Invalid client secret provided."), "{error}");
        assert!(!error.message.contains("Trace ID"), "{error}");
        assert_eq!(source.token(GRAPH_SCOPE).await.unwrap_err(), error);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_token_that_is_over_is_replaced() {
        let (source, asked) = source("right", 0).await;
        source.token(GRAPH_SCOPE).await.unwrap();
        source.token(GRAPH_SCOPE).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_hub_credential_uses_its_own_scope_and_real_time() {
        let (source, _asked) = source("right", 3600).await;
        let token = HubCredential::new(source).get_token(&[EVENT_HUBS_SCOPE], None).await.unwrap();
        let left = token.expires_on - OffsetDateTime::now_utc();
        assert!((3590..=3600).contains(&left.whole_seconds()), "{left}");
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        assert!(secure_url("http://127.0.0.1:8080", "x").is_ok());
        assert!(secure_url("http://localhost:8080", "x").is_ok());
        assert_eq!(secure_url("http://graph.example", "x").unwrap_err().code, error::SETTINGS);
        assert!(secure_url("nonsense", "x").is_err());
    }
}
