//! Who may use which entity: SASL, shared access signatures, and what `$cbs` put-token granted to a connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fe2o3_amqp::acceptor::SaslAcceptor;
use fe2o3_amqp::acceptor::sasl_acceptor::SaslServerFrame;
use fe2o3_amqp_types::primitives::{Array, Symbol};
use fe2o3_amqp_types::sasl::{SaslCode, SaslInit, SaslOutcome, SaslResponse};
use hmac::{Hmac, Mac};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

use super::HubAccess;
use super::address;

/// Most tokens that a connection may hold, expired ones included; the oldest goes first.
const GRANTS: usize = 256;

/// A token as `put-token` brought it.
#[derive(Clone)]
pub(super) enum Token {
    /// From Entra.
    Jwt(String),
    /// Signed with the hub's key.
    Signature(String),
}

impl Token {
    /// Tells whether the token is good now.
    fn is_valid(&self, access: &HubAccess) -> bool {
        match self {
            Self::Jwt(token) => (access.token_check)(token),
            Self::Signature(token) => signature_is_valid(token, access),
        }
    }
}

struct Grant {
    path: Vec<String>,
    token: Token,
}

/// What one connection may do.
pub(super) struct Grants {
    access: Arc<HubAccess>,
    signed_in: Arc<AtomicBool>,
    granted: Mutex<Vec<Grant>>,
}

impl Grants {
    pub(super) fn new(access: Arc<HubAccess>, signed_in: Arc<AtomicBool>) -> Self {
        Self { access, signed_in, granted: Mutex::default() }
    }

    /// Takes a token for an audience; tells whether it was good.
    pub(super) fn put(&self, audience: &str, token: Token) -> bool {
        if !token.is_valid(&self.access) {
            return false;
        }
        self.access.handle.count_token();
        let path = address::segments(audience);
        let mut granted = self.lock();
        granted.retain(|grant| grant.path != path);
        if granted.len() >= GRANTS {
            granted.remove(0);
        }
        granted.push(Grant { path, token });
        true
    }

    /// Tells whether a token that is still good covers an entity (given as lower-case segments) or something above it.
    pub(super) fn covers(&self, entity: &[String]) -> bool {
        self.signed_in.load(Ordering::Relaxed) || self.any(|grant| entity.starts_with(&grant.path))
    }

    /// Tells whether a good token names this hub or anything in it: enough to read properties.
    pub(super) fn covers_some_of(&self, hub: &str) -> bool {
        let in_hub = |grant: &Grant| grant.path.first().is_none_or(|first| first.eq_ignore_ascii_case(hub));
        self.signed_in.load(Ordering::Relaxed) || self.any(in_hub)
    }

    fn any(&self, wanted: impl Fn(&Grant) -> bool) -> bool {
        let tokens: Vec<Token> =
            self.lock().iter().filter(|grant| wanted(grant)).map(|grant| grant.token.clone()).collect();
        tokens.iter().any(|token| token.is_valid(&self.access))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Grant>> {
        self.granted.lock().expect("no grant panics while holding the lock")
    }
}

/// Checks `SharedAccessSignature sr=..&sig=..&se=..&skn=..` over the text as received: some clients lower-case `sr`.
fn signature_is_valid(token: &str, access: &HubAccess) -> bool {
    let Some(fields) = token.strip_prefix("SharedAccessSignature ") else {
        return false;
    };
    let field = |name: &str| {
        fields.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    };
    let (Some(resource), Some(signature), Some(expiry), Some(key_name)) =
        (field("sr"), field("sig"), field("se"), field("skn"))
    else {
        return false;
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    let Some(signature) = decoded(signature).and_then(|text| BASE64_STANDARD.decode(text).ok()) else {
        return false;
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(access.sas_key.as_bytes()) else {
        return false;
    };
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    decoded(key_name).as_deref() == Some(&access.sas_key_name)
        && mac.verify_slice(&signature).is_ok()
        && expiry.parse::<u64>().is_ok_and(|expiry| expiry > real_seconds())
}

/// Signatures are made by clients that know only the real clock, whatever the sandbox's clock says.
#[expect(clippy::disallowed_methods, reason = "strangers' clients date their signatures by the real clock")]
fn real_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Offers what the service offers; only PLAIN proves anything, for the rest `$cbs` does.
#[derive(Clone)]
pub(super) struct Sasl {
    access: Arc<HubAccess>,
    signed_in: Arc<AtomicBool>,
}

impl Sasl {
    /// Makes the SASL side of one connection; `signed_in` turns true when PLAIN showed the hub's key.
    pub(super) fn new(access: Arc<HubAccess>, signed_in: Arc<AtomicBool>) -> Self {
        Self { access, signed_in }
    }

    fn plain_is_right(&self, response: &[u8]) -> bool {
        let mut parts = response.split(|byte| *byte == 0).skip(1);
        parts.next() == Some(self.access.sas_key_name.as_bytes())
            && parts.next() == Some(self.access.sas_key.as_bytes())
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sasl").finish_non_exhaustive()
    }
}

impl SaslAcceptor for Sasl {
    fn mechanisms(&self) -> Array<Symbol> {
        Array::from(["MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL"].map(Symbol::from).to_vec())
    }

    fn on_init(&mut self, init: SaslInit) -> SaslServerFrame {
        let code = match init.mechanism.as_str() {
            "MSSBCBS" | "ANONYMOUS" | "EXTERNAL" => SaslCode::Ok,
            "PLAIN" if init.initial_response.is_some_and(|response| self.plain_is_right(&response)) => {
                self.signed_in.store(true, Ordering::Relaxed);
                SaslCode::Ok
            }
            _ => SaslCode::Auth,
        };
        SaslServerFrame::Outcome(SaslOutcome { code, additional_data: None })
    }

    fn on_response(&mut self, _: SaslResponse) -> SaslServerFrame {
        // No mechanism here ever challenges, so a response is out of order.
        SaslServerFrame::Outcome(SaslOutcome { code: SaslCode::Sys, additional_data: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Arc<HubAccess> {
        let check = |token: &str| token == "good";
        Arc::new(HubAccess::new("meetings", "Root", "secret", Arc::new(check)))
    }

    fn grants() -> Grants {
        Grants::new(access(), Arc::default())
    }

    fn signed(key: &str, name: &str, expiry: u64) -> Token {
        let resource = "amqps%3a%2f%2flocalhost%2fmeetings";
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
        Token::Signature(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}"))
    }

    fn reader() -> Vec<String> {
        address::segments("amqps://ns/meetings/ConsumerGroups/$Default/Partitions/0")
    }

    #[test]
    fn a_token_covers_its_audience_and_what_is_below() {
        let grants = grants();
        assert!(!grants.covers(&reader()));
        assert!(grants.put("sb://localhost:5672/Meetings", Token::Jwt("good".into())));
        assert!(grants.covers(&reader()));
        assert!(grants.covers_some_of("meetings"));
        assert!(!grants.covers(&address::segments("other")));
        assert!(!grants.covers_some_of("other"));
    }

    #[test]
    fn a_bad_token_grants_nothing() {
        let grants = grants();
        assert!(!grants.put("sb://localhost/meetings", Token::Jwt("bad".into())));
        assert!(!grants.put("sb://localhost/meetings", signed("wrong", "Root", 4_000_000_000)));
        assert!(!grants.put("sb://localhost/meetings", signed("secret", "Other", 4_000_000_000)));
        assert!(!grants.put("sb://localhost/meetings", signed("secret", "Root", 1_000)));
        assert!(!grants.put("sb://localhost/meetings", Token::Signature("nonsense".into())));
        assert!(!grants.covers(&reader()));
        assert!(grants.put("sb://localhost/meetings", signed("secret", "Root", 4_000_000_000)));
        assert!(grants.covers(&reader()));
    }

    #[test]
    fn plain_shows_the_key() {
        let signed_in = Arc::new(AtomicBool::new(false));
        let sasl = Sasl::new(access(), Arc::clone(&signed_in));
        assert!(sasl.plain_is_right(b"\0Root\0secret"));
        assert!(!sasl.plain_is_right(b"\0Root\0guess"));
        assert!(!sasl.plain_is_right(b""));
    }
}
