//! The client against small servers that answer in ways the sandbox does not.

use std::sync::Mutex;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{any, post};
use axum::{Json, Router};
use secrecy::SecretString;

use super::*;
use crate::outlook::auth::AuthSettings;
use crate::outlook::testing::{http, serve};
use crate::rate_limit::Quota;

type Bodies = Arc<Mutex<Vec<Value>>>;

async fn client(graph: Router) -> GraphClient {
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
    GraphClient::new(http(), &base, tokens, RateLimits::new(quota), Duration::from_secs(1)).unwrap()
}

fn items(statuses: &[(usize, u16, Value)]) -> Value {
    let responses: Vec<Value> = statuses
        .iter()
        .map(|(id, status, headers)| json!({"id": id.to_string(), "status": status, "headers": headers, "body": {}}))
        .collect();
    json!({ "responses": responses })
}

/// Answers the nth batch with the nth body.
async fn scripted(State((script, asked)): State<(Bodies, Bodies)>, Json(body): Json<Value>) -> Json<Value> {
    asked.lock().unwrap().push(body);
    Json(script.lock().unwrap().remove(0))
}

async fn batches(script: Vec<Value>, calls: usize) -> (Vec<Answered>, Vec<Value>) {
    let state: (Bodies, Bodies) = (Arc::new(Mutex::new(script)), Bodies::default());
    let asked = Arc::clone(&state.1);
    let client = client(Router::new().route("/v1.0/$batch", post(scripted)).with_state(state)).await;
    let calls = (0..calls).map(|number| Call::get(format!("m{}", number % 2), format!("/x/{number}")));
    let answers = client.send_all(calls.collect()).await;
    let asked = asked.lock().unwrap().clone();
    (answers, asked)
}

fn statuses(answers: &[Answered]) -> Vec<Option<u16>> {
    answers.iter().map(|answer| answer.as_ref().ok().map(|reply| reply.status)).collect()
}

#[tokio::test]
async fn items_are_matched_by_id_and_only_throttled_ones_are_sent_again() {
    let script = vec![
        items(&[(2, 200, json!({})), (0, 404, json!({})), (1, 429, json!({"Retry-After": "0"}))]),
        items(&[(1, 200, json!({}))]),
    ];
    let (answers, asked) = batches(script, 3).await;
    assert_eq!(statuses(&answers), [Some(404), Some(200), Some(200)]);
    assert_eq!(asked.len(), 2);
    let again: Vec<&Value> = asked[1]["requests"].as_array().unwrap().iter().map(|item| &item["url"]).collect();
    assert_eq!(again, ["/x/1"]);
}

#[tokio::test]
async fn an_item_that_must_wait_long_is_handed_back_and_holds_its_mailbox_back() {
    let script = vec![items(&[(0, 200, json!({})), (1, 429, json!({"retry-after": 60}))])];
    let state: (Bodies, Bodies) = (Arc::new(Mutex::new(script)), Bodies::default());
    let client = client(Router::new().route("/v1.0/$batch", post(scripted)).with_state(state)).await;
    let answers = client.send_all(vec![Call::get("a", "/x/0"), Call::get("b", "/x/1")]).await;
    let Ok(reply) = &answers[1] else { panic!("{answers:?}") };
    assert_eq!((reply.status, reply.retry_after), (429, Some(Duration::from_mins(1))));
    let held = client.send(Call::get("b", "/x/1")).await;
    assert!(matches!(&held, Err(CallFailure::NotSent(error)) if error.code == error::THROTTLED), "{held:?}");
}

#[tokio::test]
async fn an_answer_that_lacks_an_item_leaves_its_effect_open() {
    let (answers, _) = batches(vec![items(&[(0, 200, json!({}))])], 2).await;
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(CallFailure::Lost(_))), "{answers:?}");
}

#[tokio::test]
async fn long_lists_go_out_in_batches_of_twenty() {
    let full = |count: usize| items(&(0..count).map(|id| (id, 200, json!({}))).collect::<Vec<_>>());
    let (answers, asked) = batches(vec![full(20), full(20), full(20)], 45).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let mut sizes: Vec<usize> = asked.iter().map(|body| body["requests"].as_array().unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 20, 20]);
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
fn only_a_503_that_names_a_pause_is_certainly_without_effect() {
    let reply = |status, retry_after| Reply { status, body: Value::Null, retry_after };
    assert!(reply(429, None).is_held_back());
    assert!(reply(503, Some(Duration::ZERO)).is_held_back());
    assert!(!reply(503, None).is_held_back());
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
    let client = GraphClient::new(http(), closed, tokens, RateLimits::new(quota), Duration::ZERO).unwrap();
    let failed = client.send(Call::get("m", "/x")).await;
    assert!(matches!(&failed, Err(CallFailure::NotSent(error)) if error.code == error::UNREACHABLE), "{failed:?}");
}

#[tokio::test]
async fn a_link_that_leads_elsewhere_is_not_followed() {
    let client = client(Router::new()).await;
    for link in ["http://127.0.0.1:1/v1.0/x", "https://evil.example/v1.0/x", "no link"] {
        let failed = client.follow("m", link).await;
        assert!(matches!(failed, Err(CallFailure::NotSent(_))), "{link}");
    }
}
