//! Microsoft Entra's token endpoint: client credentials with a secret, for Graph and Event Hubs.
//!
//! Form of answers and errors: <https://learn.microsoft.com/en-us/graph/auth-v2-service> and
//! <https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes>. Tokens look like JWTs and are signed
//! with a key that dies with the sandbox. Their life is counted in real time, not in sandbox time, because clients count
//! `expires_in` on their own clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::faults::Strike;
use crate::graph::TenantIdentity;
use crate::world::World;

/// Roles granted to the app registration from the start.
const ROLES: &[&str] = &["Calendars.ReadWrite", "User.Read.All", "MailboxSettings.Read"];

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Microsoft Graph.
    Graph,
    /// Azure Event Hubs.
    EventHubs,
}

/// Tokens of one audience: each has a number, and those below the floor are revoked.
#[derive(Debug, Default)]
struct Issued {
    next: AtomicU64,
    floor: AtomicU64,
}

impl Audience {
    fn uri(self) -> &'static str {
        match self {
            Self::Graph => "https://graph.microsoft.com",
            Self::EventHubs => "https://eventhubs.azure.net",
        }
    }
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Resource that the token is for.
    pub aud: String,
    /// Issuer.
    pub iss: String,
    /// Time of issue, seconds since 1970.
    pub iat: i64,
    /// Not valid before, seconds since 1970.
    pub nbf: i64,
    /// Expiry, seconds since 1970.
    pub exp: i64,
    /// Client id.
    pub appid: String,
    /// Kind of identity, `app`.
    pub idtyp: String,
    /// Object id of the service principal.
    pub oid: String,
    /// Application permissions.
    pub roles: Vec<String>,
    /// Subject.
    pub sub: String,
    /// Tenant id.
    pub tid: String,
    /// Unique id of the token.
    pub uti: String,
    /// Version of the token format.
    pub ver: String,
    /// Number of the token among those for its audience.
    pub xms_sandbox_number: u64,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not one of ours.
    #[error("the token was not issued here")]
    Foreign,
    /// Out of date.
    #[error("the token has expired")]
    Expired,
    /// Taken back before its time.
    #[error("the token was revoked")]
    Revoked,
    /// Made for another resource.
    #[error("the token is for another audience")]
    WrongAudience,
}

struct Registration {
    tenant_id: Uuid,
    domain: String,
    client_id: String,
    object_id: Uuid,
}

/// The token service of one tenant with one registered application.
pub struct Entra {
    world: Arc<World>,
    registration: Registration,
    /// The one secret that is good now.
    secret: RwLock<String>,
    key: [u8; 32],
    roles: RwLock<Vec<String>>,
    graph: Issued,
    hubs: Issued,
}

impl std::fmt::Debug for Entra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entra").field("tenant_id", &self.registration.tenant_id).finish_non_exhaustive()
    }
}

/// Returns the present on the wall clock, which clients count the life of tokens on.
pub(crate) fn wall_clock() -> DateTime<Utc> {
    #[expect(clippy::disallowed_methods, reason = "a token's life is real time: clients do not know the sandbox clock")]
    Utc::now()
}

impl Entra {
    pub(crate) fn new(world: &Arc<World>, identity: &TenantIdentity) -> Self {
        let mut key = [0; 32];
        let mut object = [0; 16];
        world.draw(|random| {
            random.fill_bytes(&mut key);
            random.fill_bytes(&mut object);
        });
        Self {
            world: Arc::clone(world),
            registration: Registration {
                tenant_id: identity.tenant_id,
                domain: identity.domain.clone(),
                client_id: identity.client_id.clone(),
                object_id: uuid::Builder::from_random_bytes(object).into_uuid(),
            },
            secret: RwLock::new(identity.client_secret.clone()),
            key,
            graph: Issued::default(),
            hubs: Issued::default(),
            roles: RwLock::new(ROLES.iter().map(|role| (*role).to_owned()).collect()),
        }
    }

    /// Replaces the application permissions that later tokens carry.
    pub fn grant(&self, roles: &[&str]) {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        *self.roles.write().expect("no grant panics while holding the lock") = roles;
    }

    /// Replaces the client secret and returns the new one; the old one is refused, its tokens stay good.
    pub fn rotate_secret(&self) -> String {
        let drawn = uuid::Builder::from_random_bytes(self.world.draw(rand::Rng::random)).into_uuid();
        let secret = format!("sandbox~{}", drawn.simple());
        self.secret.write().expect("no rotation panics while holding the lock").clone_from(&secret);
        secret
    }

    /// Takes back all tokens of an audience but the newest `kept`.
    pub fn revoke(&self, audience: Audience, kept: u64) {
        let issued = self.issued(audience);
        issued.floor.store(issued.next.load(Ordering::SeqCst).saturating_sub(kept), Ordering::SeqCst);
    }

    /// Returns how many tokens of an audience were issued.
    pub fn issued_for(&self, audience: Audience) -> u64 {
        self.issued(audience).next.load(Ordering::SeqCst)
    }

    fn issued(&self, audience: Audience) -> &Issued {
        match audience {
            Audience::Graph => &self.graph,
            Audience::EventHubs => &self.hubs,
        }
    }

    /// Carries the switches out that take tokens back.
    fn revoke_if_switched(&self, audience: Audience) {
        let switches = self.world.faults.read();
        let asked = match audience {
            Audience::Graph => switches.outlook_revoke_tokens,
            Audience::EventHubs => switches.hub_revoke_tokens,
        };
        if asked {
            self.world.faults.change(|switches| match audience {
                Audience::Graph => switches.outlook_revoke_tokens = false,
                Audience::EventHubs => switches.hub_revoke_tokens = false,
            });
            self.revoke(audience, 0);
        }
    }

    /// Returns a check of Event Hubs tokens for the hub's claims-based security.
    pub fn hub_check(self: &Arc<Self>) -> Arc<dyn Fn(&str) -> bool + Send + Sync> {
        let entra = Arc::clone(self);
        Arc::new(move |token| entra.check(token, Audience::EventHubs).is_ok())
    }

    /// Issues a token that lives for `life` real seconds; a negative life gives an expired one.
    pub fn issue(&self, audience: Audience, life: i64) -> String {
        let now = wall_clock().timestamp();
        let registration = &self.registration;
        let claims = Claims {
            aud: audience.uri().to_owned(),
            iss: format!("https://sts.windows.net/{}/", registration.tenant_id),
            iat: now,
            nbf: now,
            exp: now + life,
            appid: registration.client_id.clone(),
            idtyp: "app".to_owned(),
            oid: registration.object_id.to_string(),
            roles: self.roles.read().expect("no grant panics while holding the lock").clone(),
            sub: registration.object_id.to_string(),
            tid: registration.tenant_id.to_string(),
            uti: Uuid::new_v4().simple().to_string(),
            ver: "1.0".to_owned(),
            xms_sandbox_number: self.issued(audience).next.fetch_add(1, Ordering::SeqCst),
        };
        let claims = serde_json::to_vec(&claims).expect("claims are plain texts and numbers");
        let head = URL_SAFE_NO_PAD.encode(br#"{"typ":"JWT","alg":"HS256"}"#);
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it was not issued here, is out of date or revoked, or is meant for another resource.
    pub fn check(&self, token: &str, audience: Audience) -> Result<Claims, TokenFault> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Foreign)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_error| TokenFault::Foreign)?;
        self.mac(signed).verify_slice(&signature).map_err(|_error| TokenFault::Foreign)?;
        let claims = signed.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
        let claims: Option<Claims> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
        let claims = claims.ok_or(TokenFault::Foreign)?;
        if claims.aud != audience.uri() {
            return Err(TokenFault::WrongAudience);
        }
        self.revoke_if_switched(audience);
        if claims.xms_sandbox_number < self.issued(audience).floor.load(Ordering::SeqCst) {
            return Err(TokenFault::Revoked);
        }
        if claims.exp <= wall_clock().timestamp() { Err(TokenFault::Expired) } else { Ok(claims) }
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any key length is allowed");
        mac.update(text.as_bytes());
        mac
    }

    fn knows_tenant(&self, tenant: &str) -> bool {
        tenant.eq_ignore_ascii_case(&self.registration.tenant_id.to_string())
            || tenant.eq_ignore_ascii_case(&self.registration.domain)
    }

    /// Answers `POST /{tenant}/oauth2/v2.0/token`: status and body.
    pub(crate) fn token(&self, tenant: &str, form: &[u8], authorization: Option<&str>) -> (u16, Value) {
        let mut form: BTreeMap<String, String> = url::form_urlencoded::parse(form).into_owned().collect();
        if let Some((id, secret)) = authorization.and_then(basic) {
            form.entry("client_id".to_owned()).or_insert(id);
            form.entry("client_secret".to_owned()).or_insert(secret);
        }
        let caller = form.get("client_id").cloned().unwrap_or_default();
        self.world.meters.call(&caller, "entra.token");
        if self.world.strikes(Strike::EntraUnavailable) {
            let text = "The service is temporarily unavailable. Please retry later.".to_owned();
            return Refusal::new(503, "temporarily_unavailable", 90033, text).answer();
        }
        match self.authenticate(tenant, &form) {
            Ok(audience) => {
                // A switch that asks to take tokens back means those issued before this one.
                self.revoke_if_switched(audience);
                let spoilt = audience == Audience::Graph && self.world.strikes(Strike::OutlookExpiredTokens);
                let switches = self.world.faults.read();
                let life = match audience {
                    Audience::Graph => switches.outlook_token_life_secs,
                    Audience::EventHubs => switches.hub_token_life_secs,
                };
                let token = self.issue(audience, if spoilt { -1 } else { i64::from(life) });
                let answer =
                    json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token});
                (200, answer)
            }
            Err(refusal) => refusal.answer(),
        }
    }

    fn authenticate(&self, tenant: &str, form: &BTreeMap<String, String>) -> Result<Audience, Refusal> {
        let field = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if !self.knows_tenant(tenant) {
            let text = format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
            return Err(Refusal::new(400, "invalid_request", 90002, text));
        }
        let missing = |name: &str| {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            Refusal::new(400, "invalid_request", 900_144, text)
        };
        let grant = field("grant_type").ok_or_else(|| missing("grant_type"))?;
        if grant != "client_credentials" {
            let text = format!("The app requested an unsupported grant type '{grant}'.");
            return Err(Refusal::new(400, "unsupported_grant_type", 70003, text));
        }
        let client = field("client_id").ok_or_else(|| missing("client_id"))?;
        let scope = field("scope").ok_or_else(|| missing("scope"))?;
        if !client.eq_ignore_ascii_case(&self.registration.client_id) {
            let text = format!("Application with identifier '{client}' was not found in the directory '{tenant}'.");
            return Err(Refusal::new(400, "unauthorized_client", 700_016, text));
        }
        let audience = audience_of(scope)?;
        match (field("client_secret"), field("client_assertion")) {
            (Some(secret), _) if secret == *self.secret.read().expect("no rotation panics while holding the lock") => {
                Ok(audience)
            }
            (Some(_), _) => {
                let text = format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, \
                     not the client secret ID, for a secret added to app '{client}'."
                );
                Err(Refusal::new(401, "invalid_client", 7_000_215, text))
            }
            (None, Some(_)) => {
                let text = "Client assertion failed signature validation.".to_owned();
                Err(Refusal::new(401, "invalid_client", 700_027, text))
            }
            (None, None) => {
                let text =
                    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                Err(Refusal::new(401, "invalid_client", 7_000_218, text.to_owned()))
            }
        }
    }

    /// Answers another method than POST at the token endpoint.
    #[expect(clippy::unused_self, reason = "answers of the directory are asked of the directory")]
    pub(crate) fn wrong_verb(&self, method: &str) -> (u16, Value) {
        let text = format!("The endpoint only accepts POST, OPTIONS requests. Received a {method} request.");
        Refusal::new(400, "invalid_request", 900_561, text).answer()
    }

    /// Answers the discovery documents that client libraries fetch before they ask for a token; none for other paths.
    pub(crate) fn discovery(&self, segments: &[&str], base: &str, query: &str) -> Option<(u16, Value)> {
        let tenant_id = self.registration.tenant_id;
        match segments {
            [tenant, "v2.0", ".well-known", "openid-configuration"] => {
                if !self.knows_tenant(tenant) {
                    let text = format!("Tenant '{tenant}' not found.");
                    return Some(Refusal::new(400, "invalid_tenant", 90002, text).answer());
                }
                let document = json!({
                    "token_endpoint": format!("{base}/{tenant}/oauth2/v2.0/token"),
                    "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
                    "jwks_uri": format!("{base}/{tenant}/discovery/v2.0/keys"),
                    "response_modes_supported": ["query", "fragment", "form_post"],
                    "subject_types_supported": ["pairwise"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                    "response_types_supported": ["code", "id_token", "token"],
                    "scopes_supported": ["openid", "profile", "email", "offline_access"],
                    "issuer": format!("{base}/{tenant_id}/v2.0"),
                    "authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/authorize"),
                    "device_authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/devicecode"),
                    "tenant_region_scope": null,
                });
                Some((200, document))
            }
            ["common", "discovery", "instance"] => {
                let asked =
                    url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "authorization_endpoint");
                let tenant = asked.and_then(|(_, url)| url.split('/').nth(3).map(str::to_owned));
                let tenant = tenant.unwrap_or_else(|| tenant_id.to_string());
                let host = base.split("://").nth(1).unwrap_or(base);
                let document = json!({
                    "tenant_discovery_endpoint": format!("{base}/{tenant}/v2.0/.well-known/openid-configuration"),
                    "api-version": "1.1",
                    "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
                });
                Some((200, document))
            }
            [_, "discovery", "v2.0", "keys"] => Some((200, json!({"keys": []}))),
            _ => None,
        }
    }
}

fn basic(header: &str) -> Option<(String, String)> {
    let encoded = header.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
    Some((plain(id), plain(secret)))
}

fn audience_of(scope: &str) -> Result<Audience, Refusal> {
    let mut audience = None;
    for part in scope.split(' ').filter(|part| !matches!(*part, "" | "openid" | "profile" | "offline_access")) {
        let Some(resource) = part.strip_suffix("/.default") else {
            let text = format!(
                "The provided value for scope {part} is not valid. Client credential flows must have a scope value with \
                 /.default suffixed to the resource identifier (application ID URI)."
            );
            return Err(Refusal::new(400, "invalid_scope", 1_002_012, text));
        };
        // The Python SDK of Event Hubs writes two slashes before `.default`.
        audience = match resource.trim_end_matches('/') {
            "https://graph.microsoft.com" | "00000003-0000-0000-c000-000000000046" => Some(Audience::Graph),
            "https://eventhubs.azure.net" | "https://servicebus.azure.net" => Some(Audience::EventHubs),
            _ => None,
        };
        if audience.is_none() {
            break;
        }
    }
    audience.ok_or_else(|| {
        let text = format!("The provided request must include a 'scope' input parameter that is valid: {scope}.");
        Refusal::new(400, "invalid_scope", 70011, text)
    })
}

struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    text: String,
}

impl Refusal {
    fn new(status: u16, error: &'static str, code: u32, text: String) -> Self {
        Self { status, error, code, text }
    }

    fn answer(self) -> (u16, Value) {
        let (trace, correlation) = (Uuid::new_v4(), Uuid::new_v4());
        let time = wall_clock().format("%Y-%m-%d %H:%M:%SZ").to_string();
        let body = json!({
            "error": self.error,
            "error_description": format!("AADSTS{}: {}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}",
                self.code, self.text),
            "error_codes": [self.code],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.code),
        });
        (self.status, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SandboxClock;
    use crate::options::Profile;

    fn entra() -> Arc<Entra> {
        let clock = SandboxClock::new(DateTime::UNIX_EPOCH, 1.0);
        let world = World::new(clock, Profile::Quiet, 1);
        let identity = TenantIdentity {
            tenant_id: Uuid::from_u128(1),
            domain: "contoso.example".to_owned(),
            client_id: "app".to_owned(),
            client_secret: "s3cret".to_owned(),
            hub: "hub".to_owned(),
        };
        Arc::new(Entra::new(&world, &identity))
    }

    fn ask(tenant: &str, form: &str) -> (u16, Value) {
        entra().token(tenant, form.as_bytes(), None)
    }

    const GRAPH: &str = "grant_type=client_credentials&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default";

    #[test]
    fn secret_gives_a_token_for_its_audience_only() {
        let entra = entra();
        let form = format!("{GRAPH}&client_id=app&client_secret=s3cret");
        let (status, body) = entra.token("contoso.example", form.as_bytes(), None);
        assert_eq!((status, body["expires_in"].as_i64()), (200, Some(3599)));
        let token = body["access_token"].as_str().unwrap();
        assert_eq!(entra.check(token, Audience::Graph).unwrap().appid, "app");
        assert_eq!(entra.check(token, Audience::EventHubs), Err(TokenFault::WrongAudience));
        assert!(!entra.hub_check()(token));
        assert!(entra.hub_check()(&entra.issue(Audience::EventHubs, 60)));
        assert_eq!(entra.check(&format!("x{token}"), Audience::Graph), Err(TokenFault::Foreign));
        assert_eq!(entra.check(&entra.issue(Audience::Graph, -1), Audience::Graph), Err(TokenFault::Expired));
    }

    #[test]
    fn refusals_carry_their_aadsts_codes() {
        let cases = [
            ("contoso.example", format!("{GRAPH}&client_id=app&client_secret=no"), 401, "invalid_client", 7_000_215),
            ("contoso.example", format!("{GRAPH}&client_id=app"), 401, "invalid_client", 7_000_218),
            ("contoso.example", format!("{GRAPH}&client_id=x&client_secret=y"), 400, "unauthorized_client", 700_016),
            ("other.example", format!("{GRAPH}&client_id=app&client_secret=s3cret"), 400, "invalid_request", 90002),
            (
                "contoso.example",
                "grant_type=client_credentials&client_id=app&client_secret=s3cret&scope=User.Read".to_owned(),
                400,
                "invalid_scope",
                1_002_012,
            ),
        ];
        for (tenant, form, status, error, code) in cases {
            let (got, body) = ask(tenant, &form);
            assert_eq!(
                (got, body["error"].as_str(), body["error_codes"][0].as_u64()),
                (status, Some(error), Some(code))
            );
            assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
        }
    }

    #[test]
    fn tokens_live_as_long_as_switched_and_are_taken_back_one_audience_at_a_time() {
        let entra = entra();
        let form = format!("{GRAPH}&client_id=app&client_secret=s3cret");
        entra.world.faults.change(|switches| switches.outlook_token_life_secs = 60);
        let (_, body) = entra.token("contoso.example", form.as_bytes(), None);
        let token = body["access_token"].as_str().unwrap().to_owned();
        let claims = entra.check(&token, Audience::Graph).unwrap();
        assert_eq!((body["expires_in"].as_i64(), claims.exp - claims.iat), (Some(60), 60));
        let hub = entra.issue(Audience::EventHubs, 60);
        entra.world.faults.change(|switches| switches.outlook_revoke_tokens = true);
        assert_eq!(entra.check(&token, Audience::Graph), Err(TokenFault::Revoked));
        assert!(!entra.world.faults.read().outlook_revoke_tokens, "it resets itself");
        assert!(entra.check(&hub, Audience::EventHubs).is_ok());
        assert!(entra.check(&entra.issue(Audience::Graph, 60), Audience::Graph).is_ok());
        let newer = entra.issue(Audience::EventHubs, 60);
        entra.revoke(Audience::EventHubs, 1);
        assert_eq!(entra.check(&hub, Audience::EventHubs), Err(TokenFault::Revoked));
        assert!(entra.check(&newer, Audience::EventHubs).is_ok());
        assert_eq!((entra.issued_for(Audience::Graph), entra.issued_for(Audience::EventHubs)), (2, 2));
    }

    #[test]
    fn a_replaced_secret_is_refused_and_an_outage_is_no_refusal() {
        let entra = entra();
        let form = |secret: &str| format!("{GRAPH}&client_id=app&client_secret={secret}");
        let second = entra.rotate_secret();
        let (status, body) = entra.token("contoso.example", form("s3cret").as_bytes(), None);
        assert_eq!((status, body["error_codes"][0].as_u64()), (401, Some(7_000_215)));
        assert_eq!(entra.token("contoso.example", form(&second).as_bytes(), None).0, 200);
        entra.world.faults.change(|switches| switches.entra_unavailable_next = 1);
        assert_eq!(entra.token("contoso.example", form(&second).as_bytes(), None).0, 503);
        assert_eq!(entra.token("contoso.example", form(&second).as_bytes(), None).0, 200);
    }

    #[test]
    fn double_slash_of_the_python_event_hubs_client_is_understood() {
        assert!(matches!(audience_of("https://eventhubs.azure.net//.default"), Ok(Audience::EventHubs)));
    }
}
