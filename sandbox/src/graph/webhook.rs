//! Webhook delivery: the handshake at creation and the posts afterwards.
//!
//! Rules: <https://learn.microsoft.com/en-us/graph/change-notifications-delivery-webhooks>. Unlike Graph, the sandbox also
//! takes plain http and any certificate, and calls loopback addresses only.

use std::time::Duration;

use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::error::GraphError;

/// Time a webhook has for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time a webhook has to answer a notification.
const ANSWER: Duration = Duration::from_secs(3);
/// Attempts after which a notification is given up; with doubling pauses from 10 s this spans about four hours.
const ATTEMPTS: u32 = 11;

/// A notification on its way to a webhook.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub url: String,
    pub body: Value,
    pub attempt: u32,
}

impl Post {
    /// Milliseconds of sandbox time until the next attempt; none when there is none.
    pub(crate) fn retry_after(&self) -> Option<i64> {
        (self.attempt + 1 < ATTEMPTS).then(|| 10_000_i64 << self.attempt.min(10))
    }

    pub(crate) fn again(mut self) -> Self {
        self.attempt += 1;
        self
    }
}

/// Calls webhooks.
#[derive(Debug)]
pub(crate) struct Webhooks {
    client: Option<reqwest::Client>,
}

impl Webhooks {
    pub(crate) fn new() -> Self {
        // Without a client (no TLS roots, say) no webhook is reachable, which callers see as a failed handshake.
        let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().ok();
        Self { client }
    }

    /// Proves that the endpoint is the caller's: it must echo a token as plain text.
    pub(crate) async fn shake_hands(&self, url: &str) -> Result<(), GraphError> {
        let refused = || {
            GraphError::new(
                400,
                "ValidationError",
                "Subscription validation request failed. Notification endpoint must respond with 200 OK to validation request.",
            )
        };
        let mut target = loopback(url).ok_or_else(refused)?;
        let token = format!("Validation: Testing client application reachability {}", Uuid::new_v4());
        target.query_pairs_mut().append_pair("validationToken", &token);
        let client = self.client.as_ref().ok_or_else(refused)?;
        let request = client.post(target).header("content-type", "text/plain; charset=utf-8").timeout(HANDSHAKE);
        let answer = request.send().await.map_err(|error| {
            if error.is_timeout() {
                GraphError::new(400, "InvalidRequest", "Subscription validation request timed out.")
            } else {
                refused()
            }
        })?;
        let ok = answer.status().as_u16() == 200;
        let echoed = answer.text().await.map_err(|_error| refused())?;
        if ok && echoed == token { Ok(()) } else { Err(refused()) }
    }

    /// Posts notifications; returns those that were not accepted in time.
    pub(crate) async fn deliver(&self, posts: Vec<Post>) -> Vec<Post> {
        let sent = posts.into_iter().map(|post| async move { (self.deliver_one(&post).await, post) });
        let sent = futures::future::join_all(sent).await;
        sent.into_iter().filter(|(accepted, _)| !accepted).map(|(_, post)| post).collect()
    }

    async fn deliver_one(&self, post: &Post) -> bool {
        let (Some(client), Some(url)) = (self.client.as_ref(), loopback(&post.url)) else {
            return false;
        };
        match client.post(url).json(&post.body).timeout(ANSWER).send().await {
            Ok(answer) => answer.status().is_success(),
            Err(_) => false,
        }
    }
}

/// Returns the address if it is one the sandbox may call.
fn loopback(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    (local && matches!(url.scheme(), "http" | "https")).then_some(url)
}
