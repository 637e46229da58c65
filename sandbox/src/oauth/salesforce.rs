//! Salesforce's token endpoint: client credentials and JWT bearer, userinfo, and the sessions they open.
//!
//! Flows: <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_client_credentials_flow.htm>,
//! <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_jwt_flow_ca.htm>.
//! The password flow is not offered: the vendor retires it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::salesforce::{Org, short_id};

/// How long a session lives after its last use; the default session timeout of an org.
const SESSION: TimeDelta = TimeDelta::hours(2);
/// Audiences that name Salesforce itself.
const VENDOR_AUDIENCES: [&str; 2] = ["https://login.salesforce.com", "https://test.salesforce.com"];
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The key pair that signs assertions of the JWT bearer flow.
pub struct JwtKey {
    private_pem: String,
    public: DecodingKey,
}

impl JwtKey {
    /// Makes a new RSA key pair of 2048 bits.
    ///
    /// # Errors
    /// [`KeyError`] when the cryptographic library refuses.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
        let public = DecodingKey::from_rsa_pem(pair.public_key_pem().as_bytes())?;
        Ok(Self { private_pem: pair.serialize_pem(), public })
    }

    /// Returns the private key as PKCS#8 PEM.
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// Writes the private key to a PEM file for clients.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn write_private_pem(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, &self.private_pem)
    }
}

impl std::fmt::Debug for JwtKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JwtKey")
    }
}

/// Why a key pair could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Generation failed.
    #[error("could not generate an RSA key: {0}")]
    Generate(#[from] rcgen::Error),
    /// The public half could not be read back.
    #[error("could not read the public key: {0}")]
    Read(#[from] jsonwebtoken::errors::Error),
}

/// What an access token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Consumer key of the app.
    pub(crate) client_id: String,
    /// 18-character id of the user the app runs as.
    pub(crate) user_id: String,
    expires: DateTime<Utc>,
}

/// All open sessions.
#[derive(Default)]
pub(crate) struct Tokens {
    sessions: Mutex<BTreeMap<String, Session>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tokens({} open)", self.lock().len())
    }
}

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.sessions.lock().expect("no session update panics while holding the lock")
    }

    fn open(&self, token: String, session: Session) {
        self.lock().insert(token, session);
    }

    /// Ends a session; tells whether there was one.
    fn close(&self, token: &str) -> bool {
        self.lock().remove(token).is_some()
    }

    fn close_all(&self) {
        self.lock().clear();
    }

    /// Finds a live session and prolongs it.
    fn use_session(&self, token: &str, now: DateTime<Utc>) -> Option<Session> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(token)?;
        if session.expires <= now {
            sessions.remove(token);
            return None;
        }
        session.expires = now + SESSION;
        Some(session.clone())
    }
}

impl Org {
    /// Returns the session of an access token; none when it is unknown, expired or revoked.
    pub(crate) fn session(&self, token: &str) -> Option<Session> {
        if self.world.faults.read().salesforce_revoke_tokens {
            self.world.faults.change(|switches| switches.salesforce_revoke_tokens = false);
            self.tokens.close_all();
        }
        self.tokens.use_session(token, self.world.clock.now())
    }

    /// Opens a session for a user without a grant; returns the access token.
    pub fn issue_token(&self, client_id: &str, user_id: &str) -> String {
        let secret: String =
            self.world.draw(|random| (0..96).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect());
        let token = format!("{}!AQ{secret}", short_id(&self.identity.org_id));
        let expires = self.world.clock.now() + SESSION;
        let session = Session { client_id: client_id.to_owned(), user_id: user_id.to_owned(), expires };
        self.tokens.open(token.clone(), session);
        token
    }

    /// Returns the base address that a request came through.
    pub(crate) fn base_address(&self, uri: &Uri, headers: &HeaderMap) -> String {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let authority = uri.authority().map(axum::http::uri::Authority::as_str).or(host).unwrap_or_default();
        let addresses = self.addresses.read().expect("no address update panics while holding the lock").clone();
        let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
        if !addresses.https.is_empty() && port(authority) == port(&addresses.https) {
            return format!("https://{authority}");
        }
        if authority.is_empty() { addresses.http } else { format!("http://{authority}") }
    }
}

/// Returns the access token of an `Authorization: Bearer` or `OAuth` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth")).then(|| token.trim())
}

/// Routes of the authorisation server.
pub(crate) fn routes() -> Router<Arc<Org>> {
    Router::new()
        .route("/services/oauth2/token", post(token))
        .route("/services/oauth2/revoke", get(revoke).post(revoke))
        .route("/services/oauth2/introspect", post(introspect))
        .route("/services/oauth2/userinfo", get(userinfo).post(userinfo))
        .route("/id/{org}/{user}", get(identity))
}

/// An OAuth error answer.
#[derive(Debug)]
struct Refusal(&'static str, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.0, "error_description": self.1 });
        (StatusCode::BAD_REQUEST, no_store(), axum::Json(body)).into_response()
    }
}

fn no_store() -> [(header::HeaderName, &'static str); 1] {
    [(header::CACHE_CONTROL, "no-cache, no-store")]
}

async fn token(State(org): State<Arc<Org>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let form = form(&uri, &headers, &body);
    let value = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let caller = value("client_id").unwrap_or("unknown").to_owned();
    org.world.meters.call(&caller, "salesforce.token");
    let base = org.base_address(&uri, &headers);
    let (client_id, user_id) = match value("grant_type") {
        Some("client_credentials") => client_credentials(&org, value("client_id"), value("client_secret"))?,
        Some(JWT_BEARER) => jwt_bearer(&org, value("assertion"), &base)?,
        Some(_) => return Err(Refusal("unsupported_grant_type", "grant type not supported")),
        None => return Err(Refusal("invalid_request", "must provide grant type")),
    };
    let access_token = org.issue_token(&client_id, &user_id);
    let id = format!("{base}/id/{}/{user_id}", org.identity.org_id);
    let issued_at = org.world.clock.now().timestamp_millis().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(org.identity.client_secret.as_bytes()).expect("any key length serves");
    mac.update(id.as_bytes());
    mac.update(issued_at.as_bytes());
    let answer = json!({
        "access_token": access_token,
        "signature": STANDARD.encode(mac.finalize().into_bytes()),
        "scope": "api web id",
        "instance_url": base,
        "id": id,
        "token_type": "Bearer",
        "issued_at": issued_at,
    });
    Ok((no_store(), axum::Json(answer)).into_response())
}

fn form(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> BTreeMap<String, String> {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut form: BTreeMap<String, String> = query
        .chain(url::form_urlencoded::parse(body))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let basic = basic.and_then(|value| value.strip_prefix("Basic ")).and_then(|value| STANDARD.decode(value).ok());
    if let Some((id, secret)) = basic.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()?.split_once(':')) {
        form.insert("client_id".to_owned(), id.to_owned());
        form.insert("client_secret".to_owned(), secret.to_owned());
    }
    form
}

fn client_credentials(
    org: &Org,
    client_id: Option<&str>,
    client_secret: Option<&str>,
) -> Result<(String, String), Refusal> {
    let client_id = client_id.ok_or(Refusal("invalid_client_id", "client identifier invalid"))?;
    if client_id != org.identity.client_id {
        return Err(Refusal("invalid_client_id", "client identifier invalid"));
    }
    if client_secret != Some(org.secret.read().expect("no rotation panics while holding the lock").as_str()) {
        return Err(Refusal("invalid_client", "invalid client credentials"));
    }
    Ok((client_id.to_owned(), org.integration_user_id().to_owned()))
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    exp: Value,
}

impl Claims {
    /// Returns the end of validity in seconds since 1970; the vendor's own example writes it as text.
    fn expires(&self) -> Option<f64> {
        match &self.exp {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

fn jwt_bearer(org: &Org, assertion: Option<&str>, base: &str) -> Result<(String, String), Refusal> {
    let assertion = assertion.ok_or(Refusal("invalid_request", "missing required parameter: assertion"))?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Claims>(assertion, &org.identity.jwt_key.public, &validation);
    let claims = claims.map_err(|_error| Refusal("invalid_grant", "invalid assertion"))?.claims;
    let expires = claims.expires().ok_or(Refusal("invalid_grant", "invalid assertion"))?;
    // The sandbox's clock may run elsewhere than the wall clock; a client may keep either.
    let clocks = [super::entra::wall_clock().timestamp(), org.world.clock.now().timestamp()];
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below the limit")]
    if clocks.into_iter().all(|now| expires <= now as f64) {
        return Err(Refusal("invalid_grant", "assertion is expired"));
    }
    if claims.iss != org.identity.client_id {
        return Err(Refusal("invalid_client_id", "client identifier invalid"));
    }
    let named = match &claims.aud {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let addresses = org.addresses.read().expect("no address update panics while holding the lock").clone();
    let ours = [VENDOR_AUDIENCES[0], VENDOR_AUDIENCES[1], base, &addresses.http, &addresses.https];
    let known = |audience: &str| {
        let audience = audience.trim_end_matches('/').trim_end_matches("/services/oauth2/token");
        !audience.is_empty() && ours.contains(&audience)
    };
    if !named.into_iter().any(known) {
        return Err(Refusal("invalid_grant", "audience is invalid"));
    }
    let user_id = org.find_user(&claims.sub).ok_or(Refusal("invalid_grant", "user hasn't approved this consumer"))?;
    Ok((claims.iss, user_id))
}

/// Ends a session.
///
/// <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_revoke_token.htm>
async fn revoke(State(org): State<Arc<Org>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Refusal> {
    let form = form(&uri, &headers, &body);
    let closed = form.get("token").is_some_and(|token| org.tokens.close(token));
    closed.then_some(StatusCode::OK).ok_or(Refusal("invalid_token", "the token is unknown or was revoked before"))
}

/// Tells an app about a token of its own; only the sandbox's one app can ask.
///
/// <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oidc_token_introspection.htm>
async fn introspect(
    State(org): State<Arc<Org>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let form = form(&uri, &headers, &body);
    let value = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
    client_credentials(&org, value("client_id"), value("client_secret"))?;
    let token = value("token").ok_or(Refusal("invalid_request", "missing required parameter: token"))?;
    let Some(session) = org.session(token) else {
        return Ok((no_store(), axum::Json(json!({ "active": false }))).into_response());
    };
    let username = {
        let state = org.state.lock().expect("no transaction panics while holding the lock");
        state.rows.get(&session.user_id).and_then(|row| row.cell("Username").as_text()).map(str::to_owned)
    };
    let answer = json!({
        "active": true,
        "scope": "api web id",
        "client_id": session.client_id,
        "username": username,
        "sub": format!("{}/id/{}/{}", org.base_address(&uri, &headers), org.identity.org_id, session.user_id),
        "token_type": "access_token",
        "exp": session.expires.timestamp(),
        "iat": (session.expires - SESSION).timestamp(),
        "nbf": (session.expires - SESSION).timestamp(),
    });
    Ok((no_store(), axum::Json(answer)).into_response())
}

async fn userinfo(State(org): State<Arc<Org>>, uri: Uri, headers: HeaderMap) -> Response {
    user_answer(&org, &uri, &headers)
}

async fn identity(
    State(org): State<Arc<Org>>,
    UrlPath((_, _)): UrlPath<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    user_answer(&org, &uri, &headers)
}

fn user_answer(org: &Org, uri: &Uri, headers: &HeaderMap) -> Response {
    let Some(session) = bearer(headers).and_then(|token| org.session(token)) else {
        return (StatusCode::FORBIDDEN, "Bad_OAuth_Token").into_response();
    };
    org.world.meters.call(&session.client_id, "salesforce.userinfo");
    let base = org.base_address(uri, headers);
    let org_id = &org.identity.org_id;
    let user_id = &session.user_id;
    let state = org.state.lock().expect("no transaction panics while holding the lock");
    let text = |field: &str| -> String {
        let row = state.rows.get(user_id);
        row.and_then(|row| row.cell(field).as_text()).unwrap_or_default().to_owned()
    };
    let answer = json!({
        "sub": format!("{base}/id/{org_id}/{user_id}"),
        "user_id": user_id,
        "organization_id": org_id,
        "preferred_username": text("Username"),
        "username": text("Username"),
        "nickname": text("LastName"),
        "name": text("Name"),
        "family_name": text("LastName"),
        "email": text("Email"),
        "email_verified": true,
        "zoneinfo": text("TimeZoneSidKey"),
        "user_type": "STANDARD",
        "active": true,
        "language": "en_US",
        "locale": "en_US",
        "utcOffset": 0,
        "urls": {
            "rest": format!("{base}/services/data/v{{version}}/"),
            "sobjects": format!("{base}/services/data/v{{version}}/sobjects/"),
            "query": format!("{base}/services/data/v{{version}}/query/"),
        },
    });
    axum::Json(answer).into_response()
}
