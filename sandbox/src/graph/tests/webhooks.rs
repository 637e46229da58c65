//! Webhook delivery over a real socket: the one part that is a client itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Query;
use axum::routing::post;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::net;

#[derive(serde::Deserialize)]
struct Handshake {
    #[serde(rename = "validationToken")]
    token: Option<String>,
}

#[tokio::test]
async fn a_webhook_is_asked_first_then_told_and_told_again_when_it_fails() {
    let (heard, mut hears) = mpsc::unbounded_channel();
    let failures = Arc::new(AtomicUsize::new(0));
    let endpoint = post(move |Query(handshake): Query<Handshake>, body: String| {
        let (heard, failures) = (heard.clone(), Arc::clone(&failures));
        async move {
            if let Some(token) = handshake.token {
                return (axum::http::StatusCode::OK, token);
            }
            if failures.fetch_add(1, Ordering::Relaxed) == 0 {
                return (axum::http::StatusCode::INTERNAL_SERVER_ERROR, String::new());
            }
            heard.send(body).unwrap();
            (axum::http::StatusCode::ACCEPTED, String::new())
        }
    });
    let listener = net::bind(0).await.unwrap();
    let url = format!("http://{}/hook?kept=1", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(net::serve_router(listener, None, axum::Router::new().route("/hook", endpoint), stop.clone()));

    // A clock that runs, so that the second attempt falls due.
    let bench = Bench::on(Profile::Quiet, 1000.0);
    let running = tokio::spawn(Arc::clone(&bench.tenant).run(stop.clone()));
    let expiration = (bench.world.clock.now() + TimeDelta::days(6)).to_rfc3339();
    let reply = bench
        .post(
            "/subscriptions",
            json!({"changeType": "created", "resource": format!("users/{ANNA}/events"), "notificationUrl": url,
                "clientState": "state", "expirationDateTime": expiration}),
        )
        .await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let made = bench.event(json!({})).await;
    let told: Value = serde_json::from_str(&hears.recv().await.unwrap()).unwrap();
    assert_eq!(told["value"][0]["resourceData"]["id"], made["id"]);
    stop.cancel();
    running.await.unwrap();
}
