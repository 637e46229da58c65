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
use tracing::warn;
use url::Url;

use super::error::{self, clean, remote, root_cause};
use crate::http::{self, ReadError};
use crate::ports::{RemoteError, Retry};
use crate::secret::{LiveSecret, Secret};

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
/// Least time that a token for Event Hubs has left, however fresh: the SDK asks for another 6 minutes (and up to 5 s) before
/// the end, and given the same once more it asks no further.
const LEAST_FOR_HUBS: Duration = Duration::from_secs(370);
/// A token for Event Hubs younger than this is the best there is, however short its life.
const FRESH: Duration = Duration::from_secs(3);
/// For how long a failed sign-in answers everyone, so that a wrong secret or an outage is not tried once per request.
const REMEMBER_FAILURE: Duration = Duration::from_secs(5);
/// After a token was replaced because a service refused it, no other is fetched for this long: where the fresh one is
/// refused as well, a third would be too.
const REPLACE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Who we are at Entra.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Authority; `https://login.microsoftonline.com` outside rehearsals. Plain `http` only on loopback.
    pub authority: String,
    /// Tenant id (a guid) or one of the tenant's domains.
    pub tenant: String,
    /// Application (client) id.
    pub client_id: String,
    /// Client secret; one in a file is read again when Entra refuses it.
    pub client_secret: Secret,
}

/// Gives out tokens, cached by scope; one request at a time fetches a new one and all others wait for it.
pub struct TokenSource {
    http: reqwest::Client,
    settings: AuthSettings,
    secret: LiveSecret,
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
    failed: Option<(Instant, RemoteError)>,
    replaced: Option<Instant>,
}

/// Why there is no token.
struct Refusal {
    error: RemoteError,
    /// Entra does not know the secret.
    of_secret: bool,
}

impl From<RemoteError> for Refusal {
    fn from(error: RemoteError) -> Self {
        Self { error, of_secret: false }
    }
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
        let secret = LiveSecret::new(&settings.client_secret);
        Ok(Self { http, settings, secret, endpoint, slots: Mutex::default() })
    }

    /// Returns a token that lives for a while yet.
    ///
    /// # Errors
    /// `CB1302` with Entra's own words when it refuses, `CB1301` when it cannot be reached.
    pub async fn token(&self, scope: &str) -> Result<Bearer, RemoteError> {
        self.token_that(scope, |bearer| bearer.outlasts(RENEW_BEFORE)).await
    }

    /// Returns another token than `refused`, which a service did not accept; fetched once, however many ask.
    ///
    /// Where the one before was replaced a moment ago it is the same once more: then the service refuses them all.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub async fn replace(&self, scope: &str, refused: &Bearer) -> Result<Bearer, RemoteError> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        match &slot.bearer {
            Some(bearer) if bearer.serial != refused.serial && bearer.outlasts(RENEW_BEFORE) => Ok(bearer.clone()),
            Some(bearer) if slot.replaced.is_some_and(|at| at.elapsed() < REPLACE_AGAIN_AFTER) => Ok(bearer.clone()),
            _ => {
                // It must not serve while Entra cannot be reached either.
                slot.bearer = slot.bearer.take().filter(|bearer| bearer.serial != refused.serial);
                let bearer = self.fetch(scope, &mut slot).await?;
                slot.replaced = Some(Instant::now());
                Ok(bearer)
            }
        }
    }

    async fn token_that(&self, scope: &str, will_do: impl Fn(&Bearer) -> bool) -> Result<Bearer, RemoteError> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        match &slot.bearer {
            Some(bearer) if will_do(bearer) => Ok(bearer.clone()),
            _ => self.fetch(scope, &mut slot).await,
        }
    }

    fn slot(&self, scope: &str) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(scope.to_owned()).or_default())
    }

    async fn fetch(&self, scope: &str, slot: &mut Slot) -> Result<Bearer, RemoteError> {
        let remembered = slot.failed.as_ref().filter(|(at, _)| at.elapsed() < REMEMBER_FAILURE);
        let failure = match remembered.map(|(_, failure)| failure.clone()) {
            Some(failure) => failure,
            None => match self.sign_in(scope).await {
                Ok(granted) => {
                    slot.serial += 1;
                    slot.failed = None;
                    metrics::counter!("calbridge_token_renewals_total", "side" => "outlook").increment(1);
                    let bearer = Bearer {
                        secret: granted.access_token,
                        serial: slot.serial,
                        obtained: Instant::now(),
                        lifetime: Duration::from_secs(granted.expires_in).min(LONGEST_LIFE),
                    };
                    return Ok(slot.bearer.insert(bearer).clone());
                }
                Err(failure) => {
                    slot.failed = Some((Instant::now(), failure.clone()));
                    if slot.bearer.as_ref().is_some_and(|bearer| !bearer.left().is_zero()) {
                        warn!(error.code = failure.code, error = %failure, "no new token; the present one serves until it ends");
                    }
                    failure
                }
            },
        };
        match &slot.bearer {
            Some(bearer) if !bearer.left().is_zero() => Ok(bearer.clone()),
            _ => Err(failure),
        }
    }

    /// Asks for a token; when Entra refuses the secret, once more with what its file holds by now.
    async fn sign_in(&self, scope: &str) -> Result<Granted, RemoteError> {
        let secret = self.secret.current();
        match self.ask(scope, &secret).await {
            Err(refusal) if refusal.of_secret => match self.secret.other_than(&secret).await {
                Some(other) => self.ask(scope, &other).await.map_err(|refusal| refusal.error),
                None => Err(refusal.error),
            },
            answer => answer.map_err(|refusal| refusal.error),
        }
    }

    async fn ask(&self, scope: &str, secret: &SecretString) -> Result<Granted, Refusal> {
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
            ("client_secret", secret.expose_secret()),
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
            )
            .into());
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                let text = format!("Entra's answer is no token ({:?} at column {})", error.classify(), error.column());
                remote(error::UNREADABLE, text, Retry::After(Duration::ZERO)).into()
            });
        }
        let denied: Denied = serde_json::from_slice(&body).unwrap_or_default();
        let words =
            format!("HTTP {}, {}): {}", status.as_u16(), clean(&denied.error), reason(&denied.error_description));
        if status.is_server_error() || status.as_u16() == 429 {
            let text = format!("Entra gives no token at present ({words}");
            return Err(remote(error::UNAVAILABLE, text, Retry::After(Duration::from_secs(1))).into());
        }
        let text = format!("Entra refuses the sign-in of the app ({words}; {}", mend(&denied.error_description));
        let error = remote(error::SIGN_IN, text, Retry::Never);
        // A wrong secret and an expired one alike: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
        Err(Refusal { error, of_secret: denied.error == "invalid_client" })
    }
}

/// Says what usually helps: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
fn mend(description: &str) -> &'static str {
    match description.split(':').next().unwrap_or_default() {
        "AADSTS7000215" => "give the value of the client secret, not its id, as `outlook.client_secret` or in its file",
        "AADSTS7000222" => "make a new client secret and put it into `outlook.client_secret` or its file",
        "AADSTS700016" => "check `outlook.client_id` and `outlook.tenant_id`",
        "AADSTS90002" => "check `outlook.tenant_id`",
        _ => "check the app registration; `calbridge explain CB1302` says more",
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

/// The same source in the form that the Event Hubs SDK asks for; one for each reader.
#[derive(Debug)]
pub struct HubCredential {
    source: Arc<TokenSource>,
    given: Mutex<Option<Bearer>>,
}

impl HubCredential {
    /// Wraps a source.
    pub fn new(source: Arc<TokenSource>) -> Self {
        Self { source, given: Mutex::default() }
    }

    /// Has the token replaced that was given out last, because the hub refused it; at most one is fetched for all readers.
    ///
    /// # Errors
    /// As [`TokenSource::replace`].
    pub async fn replace(&self) -> Result<(), RemoteError> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).take();
        match given {
            Some(refused) => self.source.replace(EVENT_HUBS_SCOPE, &refused).await.map(drop),
            None => Ok(()),
        }
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
        // The SDK never renews a token again for which it was given one of the same end.
        let will_do = |bearer: &Bearer| {
            let fresh = bearer.obtained.elapsed() < FRESH && bearer.left() > LEAST_FOR_HUBS;
            fresh || bearer.left() > RENEW_BEFORE_FOR_HUBS
        };
        let bearer = self
            .source
            .token_that(scope, will_do)
            .await
            .map_err(|error| azure_core::Error::new(azure_core::error::ErrorKind::Credential, error))?;
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(bearer.clone());
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
        /// Answers 503 from the second request on.
        fails_later: bool,
    }

    async fn grant(
        State(authority): State<Authority>,
        Form(form): Form<BTreeMap<String, String>>,
    ) -> axum::response::Response {
        let number = authority.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if authority.fails_later && number > 1 {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        if form["client_secret"] != "right" {
            let description = "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1\r\nTimestamp: now";
            let body = json!({"error": "invalid_client", "error_description": description});
            return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
        }
        let token = format!("token-{number}");
        Json(json!({"access_token": token, "expires_in": authority.expires_in, "token_type": "Bearer"})).into_response()
    }

    async fn source(secret: &str, expires_in: u64) -> (Arc<TokenSource>, Arc<AtomicU32>) {
        let secret = SecretString::from(secret.to_owned());
        at(Authority { expires_in, ..Authority::default() }, secret.into()).await
    }

    async fn at(authority: Authority, client_secret: Secret) -> (Arc<TokenSource>, Arc<AtomicU32>) {
        let asked = Arc::clone(&authority.asked);
        let router = Router::new().route("/tenant/oauth2/v2.0/token", post(grant)).with_state(authority);
        let settings = AuthSettings {
            authority: serve(router).await,
            tenant: "tenant".into(),
            client_id: "app".into(),
            client_secret,
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
        assert!(error.message.ends_with("`outlook.client_secret` or in its file"), "{error}");
        assert_eq!(source.token(GRAPH_SCOPE).await.unwrap_err(), error);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_secret_that_changed_in_its_file_is_tried_before_giving_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = Secret::in_file(SecretString::from("wrong".to_owned()), path.clone());
        std::fs::write(&path, "right\n").unwrap();
        let (source, asked) = at(Authority { expires_in: 3600, ..Authority::default() }, secret).await;
        assert_eq!(source.token(GRAPH_SCOPE).await.unwrap().secret(), "token-2");
        // The other audience starts from what is known by now.
        assert_eq!(source.token(EVENT_HUBS_SCOPE).await.unwrap().secret(), "token-3");
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn while_entra_is_away_a_living_token_serves_and_each_call_does_not_ask_again() {
        let authority = Authority { expires_in: 3600, fails_later: true, ..Authority::default() };
        let (source, asked) = at(authority, SecretString::from("right".to_owned()).into()).await;
        let first = source.token(GRAPH_SCOPE).await.unwrap();
        for _ in 0..20 {
            assert_eq!(source.token_that(GRAPH_SCOPE, |_| false).await.unwrap().secret(), first.secret());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        // One that a service refuses does not serve.
        assert_eq!(source.replace(GRAPH_SCOPE, &first).await.unwrap_err().code, error::UNAVAILABLE);
    }

    #[tokio::test]
    async fn the_hub_is_given_a_token_of_another_end_each_time_it_renews_a_short_lived_one() {
        let (source, asked) = source("right", 372).await;
        let credential = HubCredential::new(Arc::clone(&source));
        let first = credential.get_token(&[EVENT_HUBS_SCOPE], None).await.unwrap();
        assert_eq!(credential.get_token(&[EVENT_HUBS_SCOPE], None).await.unwrap().token.secret(), first.token.secret());
        let slot = source.slot(EVENT_HUBS_SCOPE);
        slot.lock().await.bearer.as_mut().unwrap().obtained -= FRESH;
        let second = credential.get_token(&[EVENT_HUBS_SCOPE], None).await.unwrap();
        assert!(second.token.secret() != first.token.secret());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
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
