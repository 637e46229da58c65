//! The control API of a running sandbox, found through its endpoints file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use calbridge_sandbox::Endpoints;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

/// Longest wait for an answer; a large calendar takes the longest.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Where the running sandbox is.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// Endpoints file that `serve --endpoints` wrote
    #[arg(long, value_name = "FILE", default_value = "sandbox-endpoints.json")]
    endpoints: PathBuf,
}

/// A connection to the control API.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) endpoints: Endpoints,
}

impl Client {
    /// Reads the endpoints file.
    pub(super) fn connect(place: &Where) -> anyhow::Result<Self> {
        let path = place.endpoints.display();
        let text = std::fs::read_to_string(&place.endpoints)
            .with_context(|| format!("read endpoints file `{path}`; start one with `serve --endpoints {path}`"))?;
        let endpoints = serde_json::from_str(&text).with_context(|| format!("parse endpoints file `{path}`"))?;
        calbridge_sandbox::tls::install_crypto_provider();
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("prepare HTTP")?;
        Ok(Self { http, endpoints })
    }

    /// Calls the control API and returns its JSON answer, null where it has none.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let text = self.send(request).await?.text().await.context("read the answer")?;
        if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).context("parse the answer") }
    }

    /// Posts bytes and returns the JSON answer.
    pub(super) async fn post_bytes(&self, path: &str, bytes: Vec<u8>) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path).body(bytes);
        self.send(request).await?.json().await.context("parse the answer")
    }

    /// Gets text.
    pub(super) async fn text(&self, path: &str) -> anyhow::Result<String> {
        self.send(self.request(Method::GET, path)).await?.text().await.context("read the answer")
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.endpoints.control_url))
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let url = &self.endpoints.control_url;
        let response = request.send().await.map_err(|error| {
            anyhow!("no sandbox answers at {url}: {error}; is `calbridge-sandbox serve` still running?")
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        match body.get("error").and_then(Value::as_str) {
            Some(reason) => bail!("{reason}"),
            None => bail!("the sandbox answers {status}"),
        }
    }
}

/// Escapes one segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
