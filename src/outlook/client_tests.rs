//! The client against small servers that answer in ways the sandbox does not.

use std::sync::Mutex;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{any, post};
use axum::{Json, Router};
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::clock::EngineClock;
use crate::outlook::auth::AuthSettings;
use crate::outlook::testing::{http, serve};
use crate::rate_limit::Quota;

fn clock() -> Arc<dyn Clock> {
    Arc::new(EngineClock::wall())
}

pub(in crate::outlook) async fn client(graph: Router) -> GraphClient {
    let token = || async { Json(json!({"access_token": "t", "expires_in": 3600})) };
    let base = serve(graph.route("/tenant/oauth2/v2.0/token", post(token))).await;
    let settings = AuthSettings {
        authority: base.clone(),
        tenant: "tenant".into(),
        client_id: "app".into(),
        client_secret: SecretString::from("secret".to_owned()).into(),
    };
    let tokens = Arc::new(TokenSource::new(http(), settings).unwrap());
    let quota = Quota { in_flight: 4, units: std::num::NonZeroU32::new(1000).unwrap(), period: Duration::from_mins(1) };
    let base = format!("{base}/v1.0");
    GraphClient::new(http(), &base, tokens, clock(), RateLimits::new(quota), Duration::from_secs(1)).unwrap()
}

#[tokio::test]
async fn a_gateways_page_is_a_status_and_a_broken_success_is_a_lost_answer() {
    let html = || async { (StatusCode::BAD_GATEWAY, "<html>bad gateway</html>").into_response() };
    let broken = || async { "{\"id\":" };
    let router = Router::new().route("/v1.0/html", any(html)).route("/v1.0/broken", any(broken));
    let client = client(router).await;
    let reply = client.send(Call::get("m", "/html")).await.unwrap();
    assert_eq!(reply.fault().to_error().code, error::UNAVAILABLE);
    assert!(matches!(client.send(Call::get("m", "/broken")).await, Err(CallFailure::Lost(_))));
}

#[test]
fn only_throttling_is_certainly_without_effect_and_an_outage_has_no_write_repeated() {
    let reply = |status, retry_after| Reply { status, body: Value::Null, retry_after };
    let (throttled, outage) = (reply(429, None), reply(503, Some(Duration::ZERO)));
    assert!(throttled.asks_to_wait() && throttled.may_repeat(&Method::POST));
    assert!(outage.asks_to_wait() && outage.may_repeat(&Method::GET));
    assert!(!outage.is_throttled() && !outage.may_repeat(&Method::POST) && !outage.may_repeat(&Method::PATCH));
    assert!(!reply(503, None).asks_to_wait());
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_then_reported() {
    let asked = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&asked);
    let refuse = move || {
        *counter.lock().unwrap() += 1;
        async { StatusCode::UNAUTHORIZED }
    };
    let client = client(Router::new().route("/v1.0/x", any(refuse))).await;
    let reply = client.send(Call::get("m", "/x")).await.unwrap();
    assert_eq!(reply.fault().to_error().code, error::TOKEN_REFUSED);
    assert_eq!(*asked.lock().unwrap(), 2);
}

#[tokio::test]
async fn no_connection_is_certainly_without_effect() {
    let tokens = client(Router::new()).await.tokens;
    let quota = crate::outlook::Settings::default_quota();
    let closed = "http://127.0.0.1:1/v1.0";
    let client = GraphClient::new(http(), closed, tokens, clock(), RateLimits::new(quota), Duration::ZERO).unwrap();
    let failed = client.send(Call::get("m", "/x")).await;
    assert!(matches!(&failed, Err(CallFailure::NotSent(error)) if error.code == error::UNREACHABLE), "{failed:?}");
}

#[tokio::test]
async fn what_waited_for_its_turn_until_nobody_counts_on_it_is_not_sent() {
    let client = client(Router::new()).await;
    let mut late = Call::new("m", Method::POST, "/x").with_body(json!({}));
    late.send_by = Some(client.clock.now() - chrono::TimeDelta::milliseconds(1));
    let alone = client.send(late.clone()).await;
    assert!(matches!(&alone, Err(CallFailure::NotSent(error)) if error.code == TOO_LATE), "{alone:?}");
    let together = client.send_all(vec![late.clone(), late]).await;
    for answer in together {
        assert!(matches!(&answer, Err(CallFailure::NotSent(error)) if error.code == TOO_LATE), "{answer:?}");
    }
    let mut timely = Call::get("m", "/x");
    timely.send_by = Some(client.clock.now() + chrono::TimeDelta::hours(1));
    assert_eq!(client.send(timely).await.unwrap().status, 404, "it was sent");
}

#[tokio::test]
async fn a_link_that_leads_elsewhere_is_not_followed() {
    let client = client(Router::new()).await;
    for link in ["http://127.0.0.1:1/v1.0/x", "https://evil.example/v1.0/x", "no link"] {
        let failed = client.follow("m", link).await;
        assert!(matches!(failed, Err(CallFailure::NotSent(_))), "{link}");
    }
}
