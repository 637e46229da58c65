//! Whether the configured addresses answer at all, told with the line on which each stands.
//!
//! Opens a TCP connection and closes it: no credentials, no protocol. Whether the remote accepts us is `calbridge check`'s
//! next step.

use std::time::Duration;

use calbridge_core::document::Place;
use futures::future::join_all;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::model::{Config, StorePlace};
use super::problem::{ConfigProblem, UNREACHABLE};

/// How long a connection may take: far above any network, short enough for a person who waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries every configured address; returns one problem for each that does not answer.
pub async fn probe(config: &Config) -> Vec<ConfigProblem> {
    let probes = targets(config).into_iter().map(|(key, host, port)| async move {
        let why = match timeout(PATIENCE, TcpStream::connect((host.as_str(), port))).await {
            Ok(Ok(_open)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        let place = config.places.get(key).cloned().unwrap_or_else(|| Place::whole("configuration"));
        let message = format!(
            "`{key}`: cannot reach `{host}:{port}`: {why}; mend the address, or let the firewall through to it"
        );
        Some(ConfigProblem::new(&place, UNREACHABLE, message))
    });
    let mut problems: Vec<ConfigProblem> = join_all(probes).await.into_iter().flatten().collect();
    problems.sort();
    problems
}

/// Returns key, host and port of every address.
fn targets(config: &Config) -> Vec<(&'static str, String, u16)> {
    let mut targets = Vec::new();
    let urls = [
        ("outlook.authority", Some(config.outlook.authority.as_str())),
        ("outlook.graph_url", Some(config.outlook.graph_url.as_str())),
        ("salesforce.login_url", Some(config.salesforce.login_url.as_str())),
        ("event_hubs.custom_endpoint", config.event_hubs.custom_endpoint.as_deref()),
        (
            "store.url",
            match &config.store.place {
                StorePlace::Postgres { url, .. } => Some(url.as_str()),
                StorePlace::File(_) => None,
            },
        ),
        ("redis.url", config.redis.url.as_ref().map(ExposeSecret::expose_secret)),
    ];
    for (key, url) in urls {
        if let Some((host, port)) = url.and_then(host_and_port) {
            targets.push((key, host, port));
        }
    }
    if config.event_hubs.custom_endpoint.is_none() {
        targets.push(("event_hubs.namespace", config.event_hubs.namespace.clone(), 5671));
    }
    if let Some((host, port)) = config.salesforce.pubsub_endpoint.rsplit_once(':')
        && let Ok(port) = port.parse()
    {
        targets.push(("salesforce.pubsub_endpoint", host.to_owned(), port));
    }
    targets
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let url = Url::parse(text).ok()?;
    let usual = match url.scheme() {
        "amqps" => Some(5671),
        "amqp" => Some(5672),
        "redis" | "rediss" => Some(6379),
        "postgres" => Some(5432),
        _ => url.port_or_known_default(),
    };
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port().or(usual)?))
}
