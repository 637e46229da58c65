//! Connections to a hub: how it is reached, a deadline around every call of the SDK, our codes on its errors.
//!
//! What is read over a connection is `event_hubs`'s business.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use azure_messaging_eventhubs::error::ErrorKind;
use azure_messaging_eventhubs::{ConsumerClient, EventHubsError, RetryOptions};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use crate::outlook::auth::{HubCredential, TokenSource};
use crate::outlook::error::{self, clean, remote};
use crate::ports::{RemoteError, Retry};
use crate::secret::Secret;

/// Time for an orderly end of a connection that is given up anyway.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a hub is read.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Host of the namespace, such as `ns.servicebus.windows.net`.
    pub namespace: String,
    /// Name of the hub.
    pub hub: String,
    /// Consumer group; default `$Default`.
    pub consumer_group: String,
    /// Address to connect to instead of the namespace: `amqps://host:port`, or `amqp://host:port` for plain TCP.
    pub custom_endpoint: Option<String>,
    /// Shared access key instead of a token from Entra.
    pub connection_string: Option<Secret>,
    /// Events asked for ahead; default 300.
    pub prefetch: u32,
    /// Most events in a batch; default 500.
    pub batch_events: usize,
    /// Longest wait for a batch to fill; default 50 ms.
    pub batch_wait: Duration,
    /// Longest time for one call of the SDK; default 30 s.
    pub call_timeout: Duration,
    /// Time that the SDK grants to one receive call, idle waiting included, before an error ends the stream for good;
    /// default 60 s, its own. It never tries again by itself here, so a short one changes nothing.
    pub retry_budget: Duration,
    /// After so much silence the partition is asked whether it holds more; default 60 s.
    pub idle_check: Duration,
}

impl HubSettings {
    /// Makes the default settings for a hub.
    pub fn new(namespace: impl Into<String>, hub: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            hub: hub.into(),
            consumer_group: "$Default".to_owned(),
            custom_endpoint: None,
            connection_string: None,
            prefetch: 300,
            batch_events: 500,
            batch_wait: Duration::from_millis(50),
            call_timeout: Duration::from_secs(30),
            retry_budget: Duration::from_mins(1),
            idle_check: Duration::from_mins(1),
        }
    }
}

/// Opens a connection to the hub.
pub(super) async fn open(
    settings: &HubSettings,
    credential: &Arc<HubCredential>,
) -> Result<ConsumerClient, RemoteError> {
    let mut builder = ConsumerClient::builder()
        .with_application_id("calbridge".to_owned())
        .with_consumer_group(settings.consumer_group.clone())
        .with_retry_options(retries(settings));
    if let Some(endpoint) = &settings.custom_endpoint {
        builder = builder.with_custom_endpoint(endpoint.clone());
    }
    if let Some(secret) = &settings.connection_string {
        // A connection that ended because the key was exchanged finds the new one in its file.
        let text = secret.newest().await;
        let opening = builder.open_with_connection_string(text.expose_secret(), Some(&settings.hub));
        return within(settings, "open the connection", Box::pin(opening)).await;
    }
    let opening = builder.open(&settings.namespace, settings.hub.clone(), Arc::clone(credential) as _);
    within(settings, "open the connection", Box::pin(opening)).await
}

fn retries(settings: &HubSettings) -> RetryOptions {
    let budget = settings.retry_budget.try_into().unwrap_or(azure_core::time::Duration::MINUTE);
    RetryOptions { max_retries: 0, max_total_elapsed: budget, ..RetryOptions::default() }
}

/// Asks the hub for the ids of its partitions; also the check that it can be reached.
///
/// # Errors
/// `CB1401` to `CB1403`.
pub(crate) async fn partitions(settings: &HubSettings, tokens: &Arc<TokenSource>) -> Result<Vec<String>, RemoteError> {
    let credential = Arc::new(HubCredential::new(Arc::clone(tokens)));
    match partition_ids(settings, &credential).await {
        Err(error) if error.code == error::HUB_SIGN_IN => {
            credential.replace().await?;
            partition_ids(settings, &credential).await
        }
        answer => answer,
    }
}

async fn partition_ids(settings: &HubSettings, credential: &Arc<HubCredential>) -> Result<Vec<String>, RemoteError> {
    let client = open(settings, credential).await?;
    let properties = within(settings, "ask for the partitions", Box::pin(client.get_eventhub_properties())).await;
    close(client).await;
    Ok(properties?.partition_ids)
}

/// Ends a connection that is given up.
pub(super) async fn close(client: ConsumerClient) {
    // The connection is given up whether or not the other end says goodbye.
    let _ended = timeout(CLOSE_TIMEOUT, Box::pin(client.close())).await;
}

/// Puts the deadline around a call of the SDK, and our codes on its errors.
pub(super) async fn within<T>(
    settings: &HubSettings,
    what: &str,
    call: impl Future<Output = Result<T, EventHubsError>>,
) -> Result<T, RemoteError> {
    match timeout(settings.call_timeout, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(hub_error(what, &error)),
        Err(_) => Err(remote(
            error::HUB_UNREACHABLE,
            format!("the hub did not answer in time to `{what}`"),
            Retry::After(Duration::ZERO),
        )),
    }
}

/// Puts our code on an error of the SDK.
pub(super) fn hub_error(what: &str, error: &EventHubsError) -> RemoteError {
    let mut texts = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<RemoteError>() {
            return ours.clone();
        }
        texts.push(inner.to_string());
        cause = inner.source();
    }
    classify(what, matches!(error.kind, ErrorKind::ConsumerDisconnected(_)), &texts.join(": "))
}

/// Puts our code on what the SDK says, given whether another reader took the partition.
pub(super) fn classify(what: &str, stolen: bool, text: &str) -> RemoteError {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (code, retry) = if stolen {
        (error::HUB_STOLEN, Retry::After(Duration::from_secs(5)))
    } else if has(&["unauthorized", "status code: 401"]) {
        (error::HUB_SIGN_IN, Retry::After(Duration::from_secs(30)))
    } else if has(&["not-found", "notfound", "status code: 404"]) && !has(&["session"]) {
        (error::HUB_MISSING, Retry::After(Duration::from_secs(30)))
    } else {
        (error::HUB_UNREACHABLE, Retry::After(Duration::ZERO))
    };
    remote(code, format!("the hub failed to `{what}`: {}", clean(text)), retry)
}

/// Words of the protocol library for a message that it cannot decode, or that is larger than the link takes: the next
/// connection meets the same message again.
const UNREADABLE: [&str; 3] = ["decoding message failed", "message decode", "message-size-exceeded"];

/// Tells whether the next message itself is what cannot be read.
pub(super) fn is_unreadable(error: &RemoteError) -> bool {
    let text = error.message.to_lowercase();
    UNREADABLE.iter().any(|words| text.contains(words))
}
