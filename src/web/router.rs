//! The routes `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::telemetry::Metrics;

/// How often recorded metrics are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the listener does not run.
#[derive(Debug, Error)]
pub enum WebError {
    /// The address is taken or not ours.
    #[error("cannot listen on `{address}`: {why}; choose another `web.address`, or stop what uses it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The listener broke.
    #[error("the listener for probes and metrics broke: {0}")]
    Broken(String),
}

#[derive(Debug, Clone)]
struct Shared {
    health: Health,
    metrics: Option<Metrics>,
}

/// Takes the address; port 0 takes a free one, which the listener tells.
///
/// # Errors
/// [`WebError::Bind`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, WebError> {
    TcpListener::bind(address).await.map_err(|error| WebError::Bind { address, why: error.to_string() })
}

/// Makes the routes; without metrics `/metrics` answers 404.
pub fn router(health: Health, metrics: Option<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(counted))
        .with_state(Shared { health, metrics })
}

/// Answers until stopped.
///
/// # Errors
/// [`WebError::Broken`].
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Option<Metrics>,
    stop: CancellationToken,
) -> Result<(), WebError> {
    let upkeep = metrics.clone();
    let routes = router(health, metrics);
    let until = stop.clone();
    let server = axum::serve(listener, routes).with_graceful_shutdown(async move { until.cancelled().await });
    let folding = async move {
        let Some(metrics) = upkeep else {
            return stop.cancelled().await;
        };
        while tokio::time::timeout(UPKEEP, stop.cancelled()).await.is_err() {
            metrics.upkeep();
        }
    };
    let (served, ()) = tokio::join!(server, folding);
    served.map_err(|error| WebError::Broken(error.to_string()))
}

/// The process answers: an outage of a remote or of the database must not make an orchestrator kill it.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(shared): State<Shared>) -> Response {
    let ready = shared.health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let parts = shared.health.parts();
    let waiting: Vec<&String> = parts.iter().filter(|(_, part)| !part.ready).map(|(name, _)| name).collect();
    (status, Json(json!({ "ready": ready, "not_ready": waiting, "parts": parts }))).into_response()
}

async fn counted(State(shared): State<Shared>) -> Response {
    match shared.metrics {
        Some(metrics) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn started(health: &Health) -> (String, CancellationToken, tokio::task::JoinHandle<Result<(), WebError>>) {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, health.clone(), None, stop.clone()));
        (base, stop, task)
    }

    async fn get(url: String) -> (u16, String) {
        let client =
            crate::http::client(&crate::http::HttpOptions { timeout: Duration::from_secs(5), ca_file: None }).unwrap();
        let answer = client.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_not_ready_and_liveness_does_not_care() {
        let health = Health::waiting_for(["store", "outlook stream"]);
        let (base, stop, task) = started(&health).await;
        let (status, text) = get(format!("{base}/readyz")).await;
        assert_eq!(status, 503);
        assert!(text.contains("\"not_ready\":[\"outlook stream\",\"store\"]"), "{text}");
        assert_eq!(get(format!("{base}/healthz")).await.0, 200);

        health.up("store");
        health.up("outlook stream");
        assert_eq!(get(format!("{base}/readyz")).await.0, 200);
        health.down("store", "the disk is full");
        let (status, text) = get(format!("{base}/readyz")).await;
        assert_eq!(status, 503);
        assert!(text.contains("the disk is full"), "{text}");
        assert_eq!(get(format!("{base}/healthz")).await.0, 200);

        stop.cancel();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_told_with_the_mend() {
        let first = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let error = bind(first.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("choose another `web.address`"), "{error}");
    }
}
