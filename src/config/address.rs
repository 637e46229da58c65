//! The forms of addresses, ids and names; whether anything answers there is `reach.rs`.

use std::net::SocketAddr;

use chrono::DateTime;
use url::{Host, Url};

use super::options::Kind;

/// What the address of a SQLite file begins with.
pub(super) const SQLITE: &str = "sqlite:";

/// Returns what is wrong with the form of a value, and the mend; none when it is fine.
pub(super) fn fault(kind: Kind, text: &str) -> Option<String> {
    let words: &str = match kind {
        Kind::Name if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') && text.len() <= 64 => {
            return None;
        }
        Kind::Name => "use at most 64 letters, digits, `-` and `_`",
        Kind::Guid if is_guid(text) => return None,
        Kind::Guid => "give a guid such as `0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10`",
        Kind::Tenant if is_guid(text) || is_domain(text) => return None,
        Kind::Tenant => "give the tenant's guid or its domain",
        Kind::Url => return url(text, "https", "http"),
        Kind::AmqpUrl => return url(text, "amqps", "amqp"),
        Kind::SecretUrl => match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss") && url.host().is_some() => return None,
            _ => "give it as `redis://HOST:PORT/0`, or `rediss://` for TLS",
        },
        Kind::StoreUrl => return store(text),
        Kind::Host if is_host(text) => return None,
        Kind::Host => "give the host name alone, without scheme and port",
        Kind::HostPort => match text.rsplit_once(':') {
            Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => return None,
            _ => "give it as `HOST:PORT`, without scheme",
        },
        Kind::Listen if text.parse::<SocketAddr>().is_ok() => return None,
        Kind::Listen => "give it as `IP:PORT`, such as `127.0.0.1:9465`",
        Kind::HubUrl => {
            let inner = text.strip_prefix("EventHub:").and_then(|rest| Url::parse(rest).ok());
            match inner {
                Some(url) if url.scheme() == "https" && url.query_pairs().any(|(key, _)| key == "tenantId") => {
                    return None;
                }
                _ => "give it as `EventHub:https://NAMESPACE/eventhubname/HUB?tenantId=DOMAIN`",
            }
        }
        Kind::ApiVersion => match text.split_once('.') {
            Some((major, "0")) if major.len() <= 3 && major.parse::<u16>().is_ok_and(|major| major >= 58) => {
                return None;
            }
            _ => "give it as `66.0`; 58.0 is the oldest that works",
        },
        Kind::Instant if DateTime::parse_from_rfc3339(text).is_ok() => return None,
        Kind::Instant => "give a moment with its offset, such as `2026-11-23T08:00:00Z`",
        _ => return None,
    };
    Some(words.to_owned())
}

/// Tells whether an address belongs to this machine, where plain connections harm nobody.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn url(text: &str, safe: &str, plain: &str) -> Option<String> {
    let Ok(url) = Url::parse(text) else {
        return Some(format!("give it as `{safe}://HOST`"));
    };
    if url.host().is_none_or(|host| host.to_string().is_empty()) {
        return Some(format!("give it as `{safe}://HOST`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("take user and password out; secrets have options of their own".to_owned());
    }
    // Schemes that the URL standard does not know keep their host unparsed: compare by text.
    let loopback = is_loopback(&url)
        || matches!(url.host_str(), Some(host) if host == "localhost" || host == "[::1]" || host.starts_with("127."));
    match url.scheme() {
        scheme if scheme == safe => None,
        scheme if scheme == plain && loopback => None,
        scheme if scheme == plain => {
            Some(format!("`{plain}` would show secrets to everybody on the way; use `{safe}`"))
        }
        _ => Some(format!("it must begin with `{safe}://`")),
    }
}

/// Looks at the address of a database.
fn store(text: &str) -> Option<String> {
    const OPTIONS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host"];
    const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    const FORM: &str = "give it as `sqlite:PATH`, or as `postgres://USER@HOST/DATABASE`";
    if let Some(path) = text.strip_prefix(SQLITE) {
        return match path.trim_start_matches('/') {
            "" => Some("name the file, as in `sqlite:/data/calbridge.db`".to_owned()),
            ":memory:" => Some("what is in memory ends with the process; name a file".to_owned()),
            _ => None,
        };
    }
    let Some(url) = Url::parse(text).ok().filter(|url| url.scheme() == "postgres") else {
        return Some(FORM.to_owned());
    };
    if url.password().is_some() {
        return Some("take the password out; `store.password_file` is for it".to_owned());
    }
    let database = url.path().trim_start_matches('/');
    if url.host_str().is_none_or(str::is_empty) || url.username().is_empty() || database.is_empty() {
        return Some(FORM.to_owned());
    }
    for (key, value) in url.query_pairs() {
        if !OPTIONS.contains(&&*key) {
            return Some(format!("behind the `?` it takes only `{}`", OPTIONS.join("`, `")));
        }
        if key == "sslmode" && !MODES.contains(&&*value) {
            return Some(format!("`sslmode` is one of `{}`", MODES.join("`, `")));
        }
    }
    None
}

fn is_guid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::parse_str(text).is_ok()
}

fn is_domain(text: &str) -> bool {
    is_host(text) && text.contains('.')
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && Host::parse(text).is_ok() && !text.contains(['/', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        for (kind, good, bad) in [
            (Kind::Name, "acme-1", "a b"),
            (Kind::Guid, "0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10", "0d7a4f9e"),
            (Kind::Tenant, "contoso.com", "contoso"),
            (Kind::Url, "https://login.example.com", "login.example.com"),
            (Kind::Url, "http://127.0.0.1:80/v1.0", "http://login.example.com"),
            (Kind::Url, "http://localhost:80", "https://user:pass@login.example.com"),
            (Kind::AmqpUrl, "amqp://127.0.0.1:5672", "amqp://hub.example.com:5672"),
            (Kind::AmqpUrl, "amqps://hub.example.com", "https://hub.example.com"),
            (Kind::SecretUrl, "redis://h:6379/0", "http://h"),
            (Kind::StoreUrl, "sqlite:/data/calbridge.db", "/data/calbridge.db"),
            (Kind::StoreUrl, "sqlite:calbridge.db", "sqlite::memory:"),
            (
                Kind::StoreUrl,
                "postgres://c@db.example.com:5433/calbridge",
                "postgres://c:pass@db.example.com/calbridge",
            ),
            (Kind::StoreUrl, "postgres://c@localhost/c?sslmode=disable", "postgres://c@localhost/c?sslmode=never"),
            (
                Kind::StoreUrl,
                "postgres://c@localhost/c?host=/run/postgresql",
                "postgres://c@localhost/c?application_name=x",
            ),
            (Kind::StoreUrl, "postgres://c@[::1]/c", "mysql://c@localhost/c"),
            (Kind::StoreUrl, "postgres://c@h/c", "postgres://h/c"),
            (Kind::StoreUrl, "postgres://c@h/d", "postgres://c@h"),
            (Kind::Host, "contoso.servicebus.windows.net", "sb://contoso.servicebus.windows.net/"),
            (Kind::HostPort, "api.pubsub.salesforce.com:7443", "api.pubsub.salesforce.com"),
            (Kind::HostPort, "localhost:1", "localhost:0"),
            (Kind::Listen, "0.0.0.0:9465", "localhost:9465"),
            (
                Kind::HubUrl,
                "EventHub:https://c.servicebus.windows.net/eventhubname/h?tenantId=contoso.com",
                "https://c.servicebus.windows.net/eventhubname/h",
            ),
            (Kind::ApiVersion, "66.0", "v66"),
            (Kind::ApiVersion, "58.0", "57.0"),
            (Kind::Instant, "2026-11-23T08:00:00Z", "2026-11-23"),
        ] {
            assert_eq!(fault(kind, good), None, "{good}");
            assert!(fault(kind, bad).is_some(), "{bad}");
        }
    }
}
