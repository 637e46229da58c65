//! What this side's tests share: a small server on loopback and values of the core.

use std::time::Duration;

use axum::Router;

use crate::http::{HttpOptions, client};

/// Serves a router on a free loopback port until the test ends; returns its base address.
pub(super) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Makes the client that all tests use.
pub(super) fn http() -> reqwest::Client {
    client(&HttpOptions {
        timeout: Duration::from_secs(10),
        ca_file: None,
    })
    .unwrap()
}
