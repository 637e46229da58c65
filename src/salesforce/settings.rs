//! What the Salesforce adapter is started with; `engine/build.rs` fills it from the config.

use std::path::PathBuf;
use std::time::Duration;

use calbridge_core::ids::ConnectionId;
use thiserror::Error;
use url::{Host, Url};

use crate::secret::Secret;

/// Everything about one Salesforce org.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The connection that the org belongs to.
    pub connection: ConnectionId,
    /// Host that gives tokens, `https://NAME.my.salesforce.com`; client credentials need the My Domain host.
    /// Plain http only on loopback.
    pub login_url: String,
    /// How to sign in.
    pub grant: Grant,
    /// REST API version without `v`, default `66.0`.
    pub api_version: String,
    /// Salesforce fields that the mapping names; `time` stands for start, end and all-day.
    pub fields: Vec<String>,
    /// Sends `If-Unmodified-Since` with updates of a single record; default true.
    pub conditional_updates: bool,
    /// Pause of the whole org after a concurrency limit or a 503; default 5 s of real time.
    pub short_pause: Duration,
    /// Pause of the whole org after the daily request limit; default 5 min of real time.
    pub long_pause: Duration,
    /// How far a round reaches back before the end of the one before it; default 15 min of the engine's clock.
    pub list_overlap: Duration,
    /// The change event stream.
    pub pubsub: PubSubSettings,
}

/// How to sign in.
#[derive(Debug, Clone)]
pub enum Grant {
    /// OAuth client credentials: the app has a run-as user.
    /// <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_client_credentials_flow.htm>
    ClientCredentials {
        /// Consumer key of the External Client App.
        client_id: String,
        /// Consumer secret.
        client_secret: Secret,
    },
    /// OAuth JWT bearer: the app is authorised for a user beforehand.
    /// <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_jwt_flow_ca.htm>
    JwtBearer {
        /// Consumer key of the External Client App.
        client_id: String,
        /// Username to sign in as.
        username: String,
        /// RSA private key, PEM.
        private_key_pem: Secret,
        /// `https://login.salesforce.com`, `https://test.salesforce.com` or the My Domain URL; none takes the login URL.
        audience: Option<String>,
    },
}

/// How the change event stream is read.
#[derive(Debug, Clone)]
pub struct PubSubSettings {
    /// `HOST:PORT` over TLS, default `api.pubsub.salesforce.com:7443`; `http://` only on loopback.
    pub endpoint: String,
    /// PEM file with further roots to trust, beside the platform's.
    pub ca_file: Option<PathBuf>,
    /// Name expected in the server's certificate; none takes the host of the endpoint.
    pub tls_name: Option<String>,
    /// Channel, default `/data/EventChangeEvent`.
    pub topic: String,
    /// Events that the server may send ahead of our confirmation; default 100, which is also its cap.
    pub credit: i32,
    /// Longest time for connecting and for single calls; default 10 s.
    pub timeout: Duration,
    /// The stream counts as dead after this silence; default 300 s, the server speaks every 270 s.
    pub silence: Duration,
    /// First pause before connecting again; doubles up to `retry_max`; default 500 ms.
    pub retry_min: Duration,
    /// Longest pause before connecting again; default 60 s.
    pub retry_max: Duration,
    /// Pause after the org's delivery limit was reached; default 15 min.
    pub limit_pause: Duration,
    /// Pause between the first subscription and reporting ready; default [`super::pubsub::SUBSCRIBE_SETTLE`].
    pub settle: Duration,
}

impl Default for PubSubSettings {
    fn default() -> Self {
        Self {
            endpoint: "api.pubsub.salesforce.com:7443".to_owned(),
            ca_file: None,
            tls_name: None,
            topic: "/data/EventChangeEvent".to_owned(),
            credit: 100,
            timeout: Duration::from_secs(10),
            silence: Duration::from_mins(5),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_mins(1),
            limit_pause: Duration::from_mins(15),
            settle: super::pubsub::SUBSCRIBE_SETTLE,
        }
    }
}

impl Settings {
    /// Makes settings with every default.
    pub fn new(connection: ConnectionId, login_url: impl Into<String>, grant: Grant, fields: Vec<String>) -> Self {
        Self {
            connection,
            login_url: login_url.into(),
            grant,
            api_version: "66.0".to_owned(),
            fields,
            conditional_updates: true,
            short_pause: Duration::from_secs(5),
            long_pause: Duration::from_mins(5),
            list_overlap: Duration::from_mins(15),
            pubsub: PubSubSettings::default(),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Not a usable address.
    #[error("`{url}` is no usable Salesforce address: {why}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong, and the mend.
        why: &'static str,
    },
    /// The version has another form.
    #[error("`{0}` is not an API version; give it as `66.0`")]
    ApiVersion(String),
    /// A mapped field has a name that no field can have.
    #[error("`{0}` is not a Salesforce field name; use the API name, such as `Location` or `Room__c`")]
    Field(String),
    /// The key cannot be used.
    #[error("the private key cannot be used: {0}; give an RSA key in PEM form")]
    PrivateKey(String),
    /// The extra roots cannot be used.
    #[error("cannot use CA file `{path}`: {why}; give a PEM file with one or more certificates")]
    CaFile {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
}

/// Reads an address that tokens may be sent to: https anywhere, http on loopback only.
pub(super) fn trusted_base(text: &str) -> Result<Url, SettingsError> {
    let refuse = |why| SettingsError::Address { url: text.to_owned(), why };
    let url = Url::parse(text).map_err(|_not_a_url| refuse("give it as `https://NAME.my.salesforce.com`"))?;
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(refuse("http would show the token to everybody on the way; use https")),
        _ => Err(refuse("it must begin with `https://`")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Tells whether a text may stand in a SOQL query as a field's name.
pub(super) fn is_field_name(name: &str) -> bool {
    !name.is_empty()
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert!(trusted_base("http://127.0.0.1:8080").is_ok());
        assert!(trusted_base("http://localhost:8080").is_ok());
        assert!(trusted_base("https://acme.my.salesforce.com").is_ok());
        let error = trusted_base("http://acme.my.salesforce.com").unwrap_err().to_string();
        assert!(error.contains("use https"), "{error}");
        assert!(trusted_base("acme.my.salesforce.com").is_err());
    }

    #[test]
    fn field_names_cannot_smuggle_soql() {
        assert!(is_field_name("Room__c"));
        assert!(!is_field_name("Id FROM User"));
        assert!(!is_field_name(""));
    }
}
