//! Signing in: one token for the whole process, fetched once however many calls find it expired.
//!
//! Salesforce tells no lifetime, so a session is used until a call is answered 401 and is then renewed, by one caller
//! while the others wait: <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_client_credentials_flow.htm>.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calbridge_core::ids::SalesforceId;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use url::Url;

use super::error::{Failure, Kind, cleaned};
use super::settings::{Grant, Settings, SettingsError, trusted_base};
use crate::http;
use crate::ports::Clock;
use crate::secret::LiveSecret;

/// Lifetime of an assertion in seconds.
///
/// Salesforce's documents ask for a short one (3 to 5 minutes in its samples); 3 leaves room for clocks that differ.
const ASSERTION_SECONDS: i64 = 180;

/// After a refused sign-in, callers get the same refusal for this long instead of each asking again; and for as long
/// after a session was renewed no other is opened, because where the fresh one is refused as well, a third would be too.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A signed-in session.
#[derive(Clone)]
pub struct Session {
    token: SecretString,
    base: Url,
    org: SalesforceId,
    user: String,
    serial: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("base", &self.base.as_str())
            .field("org", &self.org)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Returns the access token.
    pub fn token(&self) -> &str {
        self.token.expose_secret()
    }

    /// Returns the instance that calls go to.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Returns the instance without a slash at its end, as the Pub/Sub API wants it.
    pub fn instance_url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Returns the 18-character organisation id.
    pub fn org(&self) -> &SalesforceId {
        &self.org
    }

    /// Returns the id of the user that calls run as, as the authorisation server spelt it.
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// Gives out the session and renews it.
pub struct Authenticator {
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    login: Url,
    grant: Ready,
    state: Mutex<State>,
}

/// The grant with its secret in use.
enum Ready {
    Credentials { client_id: String, client_secret: LiveSecret },
    Jwt { client_id: String, username: String, audience: String, private_key_pem: LiveSecret },
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    serial: u64,
    refused: Option<(Instant, Failure)>,
    renewed: Option<Instant>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("login", &self.login.as_str()).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretString,
    instance_url: String,
    #[serde(default)]
    id: String,
}

#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
struct UserInfo {
    organization_id: String,
    #[serde(default)]
    user_id: String,
}

impl Authenticator {
    /// Reads the grant; asks nobody yet.
    ///
    /// # Errors
    /// [`SettingsError`] for an unusable address or key.
    pub fn new(http: reqwest::Client, clock: Arc<dyn Clock>, settings: &Settings) -> Result<Self, SettingsError> {
        let login = trusted_base(&settings.login_url)?;
        let grant = match &settings.grant {
            Grant::ClientCredentials { client_id, client_secret } => {
                Ready::Credentials { client_id: client_id.clone(), client_secret: LiveSecret::new(client_secret) }
            }
            Grant::JwtBearer { client_id, username, private_key_pem, audience } => {
                key_of(private_key_pem.text()).map_err(SettingsError::PrivateKey)?;
                Ready::Jwt {
                    client_id: client_id.clone(),
                    username: username.clone(),
                    audience: audience.clone().unwrap_or_else(|| login.as_str().trim_end_matches('/').to_owned()),
                    private_key_pem: LiveSecret::new(private_key_pem),
                }
            }
        };
        Ok(Self { http, clock, login, grant, state: Mutex::default() })
    }

    /// Returns the session, signing in if there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut state = self.state.lock().await;
        if let Some(session) = &state.session {
            return Ok(Arc::clone(session));
        }
        self.replace(&mut state).await
    }

    /// Returns a session that is newer than `stale`, signing in unless another caller already did.
    ///
    /// Where the session was renewed a moment ago it is the same once more: then Salesforce refuses them all.
    pub(super) async fn renew(&self, stale: &Session) -> Result<Arc<Session>, Failure> {
        let mut state = self.state.lock().await;
        let just_renewed = state.renewed.is_some_and(|at| at.elapsed() < REFUSAL_HOLDS);
        match &state.session {
            Some(session) if session.serial > stale.serial || just_renewed => return Ok(Arc::clone(session)),
            _ => state.session = None,
        }
        let session = self.replace(&mut state).await?;
        state.renewed = Some(Instant::now());
        Ok(session)
    }

    async fn replace(&self, state: &mut State) -> Result<Arc<Session>, Failure> {
        if let Some((at, failure)) = &state.refused
            && at.elapsed() < REFUSAL_HOLDS
        {
            return Err(failure.clone());
        }
        match self.sign_in(state.serial + 1).await {
            Ok(session) => {
                state.serial = session.serial;
                state.refused = None;
                metrics::counter!("calbridge_token_renewals_total", "side" => "salesforce").increment(1);
                tracing::debug!(org = %session.org, "signed in to salesforce");
                Ok(Arc::clone(state.session.insert(Arc::new(session))))
            }
            Err(failure) => {
                state.refused = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn sign_in(&self, serial: u64) -> Result<Session, Failure> {
        let kept = self.grant.secret();
        let secret = kept.current();
        let answer = match self.ask(&secret).await {
            // With a key of our own the refusal of a wrong one is an `invalid_grant`, so any refusal may mean the secret.
            Err(failure) if failure.kind == Kind::SignIn => match kept.other_than(&secret).await {
                Some(other) => self.ask(&other).await?,
                None => return Err(failure),
            },
            answer => answer?,
        };
        let base = trusted_base(&answer.instance_url)
            .map_err(|error| Failure::new(Kind::SignIn, format!("salesforce named an unusable instance: {error}")))?;
        let (org, user) = match org_and_user(&answer.id) {
            Some(found) => found,
            None => self.user_info(&base, &answer.access_token).await?,
        };
        Ok(Session { token: answer.access_token, base, org, user, serial })
    }

    async fn ask(&self, secret: &SecretString) -> Result<TokenAnswer, Failure> {
        let url = self.login.join("/services/oauth2/token").map_err(|_no_base| unreadable("the login address"))?;
        let form = self.form(secret)?;
        let answer = self.http.post(url).form(&form).send().await.map_err(|error| Failure::from_transport(&error))?;
        let status = answer.status().as_u16();
        let body = http::body(answer).await.map_err(|error| Failure::from_body(&error))?;
        if (300..400).contains(&status) {
            return Err(Failure::redirected(status));
        }
        if status != 200 {
            return Err(refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|_not_a_token| unreadable("the token"))
    }

    fn form(&self, secret: &SecretString) -> Result<Vec<(&'static str, String)>, Failure> {
        match &self.grant {
            Ready::Credentials { client_id, client_secret: _ } => Ok(vec![
                ("grant_type", "client_credentials".to_owned()),
                ("client_id", client_id.clone()),
                ("client_secret", secret.expose_secret().to_owned()),
            ]),
            Ready::Jwt { client_id, username, audience, private_key_pem: _ } => {
                let unsigned = |why| Failure::new(Kind::SignIn, format!("the assertion cannot be signed: {why}"));
                let key = key_of(secret).map_err(unsigned)?;
                let claims = Claims {
                    iss: client_id,
                    sub: username,
                    aud: audience,
                    exp: self.clock.now().timestamp() + ASSERTION_SECONDS,
                };
                let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key)
                    .map_err(|error| unsigned(error.to_string()))?;
                Ok(vec![("grant_type", JWT_BEARER.to_owned()), ("assertion", assertion)])
            }
        }
    }

    async fn user_info(&self, base: &Url, token: &SecretString) -> Result<(SalesforceId, String), Failure> {
        let url = base.join("/services/oauth2/userinfo").map_err(|_no_base| unreadable("the instance address"))?;
        let answer = self
            .http
            .get(url)
            .bearer_auth(token.expose_secret())
            .send()
            .await
            .map_err(|error| Failure::from_transport(&error))?;
        let body = http::body(answer).await.map_err(|error| Failure::from_body(&error))?;
        let info: UserInfo = serde_json::from_slice(&body).map_err(|_no_info| unreadable("the user info"))?;
        let org = SalesforceId::parse(&info.organization_id).map_err(|_no_id| unreadable("the organisation id"))?;
        Ok((org, info.user_id))
    }
}

impl Ready {
    fn secret(&self) -> &LiveSecret {
        match self {
            Self::Credentials { client_secret, .. } => client_secret,
            Self::Jwt { private_key_pem, .. } => private_key_pem,
        }
    }
}

/// Reads an RSA key; the error says what is wrong with it and nothing of it.
fn key_of(pem: &SecretString) -> Result<EncodingKey, String> {
    EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes()).map_err(|error| error.to_string())
}

/// Reads `https://HOST/id/ORG/USER`.
fn org_and_user(id: &str) -> Option<(SalesforceId, String)> {
    let url = Url::parse(id).ok()?;
    let mut parts = url.path_segments()?.rev();
    let user = parts.next()?.to_owned();
    let org = SalesforceId::parse(parts.next()?).ok()?;
    Some((org, user))
}

fn refusal(status: u16, body: &[u8]) -> Failure {
    match serde_json::from_slice::<TokenRefusal>(body) {
        Ok(refusal) => {
            let (error, description) = (cleaned(&refusal.error), cleaned(&refusal.error_description));
            let mend = mend(&refusal.error);
            Failure::new(Kind::SignIn, format!("salesforce refuses the sign-in: `{error}` ({description}); {mend}"))
        }
        Err(_) if status >= 500 => Failure::new(Kind::Unavailable, format!("the sign-in was answered {status}")),
        Err(_) => Failure::new(
            Kind::SignIn,
            format!("the sign-in was answered {status}; check that `login_url` is the My Domain host"),
        ),
    }
}

/// Says what usually helps: <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_flow_errors.htm>.
fn mend(error: &str) -> &'static str {
    match error {
        "invalid_client_id" => "check the consumer key of the External Client App",
        "invalid_client" => "check the consumer secret",
        "invalid_grant" => "check that the app is authorised for the user and that the audience fits the login host",
        "inactive_user" => "activate the integration user",
        "inactive_org" => "the org is locked or expired",
        "unsupported_grant_type" => "enable the flow in the app and use the My Domain host",
        "rate_limit_exceeded" => "too many sign-ins; wait",
        _ => "check the app's OAuth settings",
    }
}

fn unreadable(what: &str) -> Failure {
    Failure::new(Kind::Unreadable, format!("salesforce's answer cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_url_names_org_and_user() {
        let (org, user) =
            org_and_user("https://login.salesforce.com/id/00D5000000Gv7qJEAR/0055000000Gv7qJAAR").unwrap();
        assert!(org.as_str().starts_with("00D5000000Gv7qJ"));
        assert_eq!(user, "0055000000Gv7qJAAR");
        assert!(org_and_user("").is_none());
    }

    #[test]
    fn a_refused_sign_in_shows_the_oauth_error_and_the_mend() {
        let failure =
            refusal(400, br#"{"error":"invalid_grant","error_description":"user hasn't approved this consumer"}"#);
        assert!(failure.message.contains("`invalid_grant`"), "{}", failure.message);
        assert!(failure.message.contains("user hasn't approved this consumer"), "{}", failure.message);
        assert!(failure.message.contains("authorised for the user"), "{}", failure.message);
    }
}
