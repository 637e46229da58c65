//! Batches against a small server that answers as a script says.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::*;
use crate::outlook::client::tests::client;

type Bodies = Arc<Mutex<Vec<Value>>>;

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

/// A client of a server that answers batches by script and every single request with 200.
async fn scripted_client(script: Vec<Value>) -> (GraphClient, Bodies) {
    let state: (Bodies, Bodies) = (Arc::new(Mutex::new(script)), Bodies::default());
    let asked = Arc::clone(&state.1);
    let single = get(|| async { Json(json!({})) });
    let router =
        Router::new().route("/v1.0/$batch", post(scripted)).with_state(state).route("/v1.0/x/{number}", single);
    (client(router).await, asked)
}

async fn batches(script: Vec<Value>, calls: usize) -> (Vec<Answered>, Vec<Value>) {
    let (client, asked) = scripted_client(script).await;
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
    let (client, _) = scripted_client(script).await;
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
    let full = || items(&(0..45).map(|id| (id, 200, json!({}))).collect::<Vec<_>>());
    let (client, asked) = scripted_client(vec![full(), full(), full()]).await;
    let calls = (0..45).map(|number| Call::get(format!("m{number}"), format!("/x/{number}")));
    let answers = client.send_all(calls.collect()).await;
    let asked = asked.lock().unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let mut sizes: Vec<usize> = asked.iter().map(|body| body["requests"].as_array().unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 20, 20]);
}

#[tokio::test]
async fn a_throttled_mailbox_holds_nobody_up_and_is_left_alone_until_its_pause_is_over() {
    let script = vec![
        items(&[(0, 429, json!({"Retry-After": "1"})), (1, 200, json!({})), (2, 200, json!({}))]),
        items(&[(1, 200, json!({})), (2, 200, json!({}))]),
    ];
    let (client, asked) = scripted_client(script).await;
    let calls = || ["a", "b", "c"].into_iter().enumerate().map(|(n, key)| Call::get(key, format!("/x/{n}"))).collect();
    // A pause that a caller alone would wait for.
    let answers = client.send_together(calls()).await;
    assert_eq!(statuses(&answers), [Some(429), Some(200), Some(200)]);
    let answers = client.send_together(calls()).await;
    assert_eq!(statuses(&answers), [None, Some(200), Some(200)]);
    let Err(CallFailure::NotSent(error)) = &answers[0] else { panic!("{answers:?}") };
    assert!(matches!(error.retry, Retry::After(wait) if !wait.is_zero()), "{error:?}");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1]["requests"].as_array().unwrap().len(), 2, "the throttled mailbox is not asked again");
}

#[tokio::test]
async fn a_mailbox_whose_places_are_taken_does_not_keep_the_others_answers() {
    let (client, asked) = scripted_client(vec![items(&[(1, 200, json!({})), (2, 200, json!({}))])]).await;
    let _busy = client.limits().admit_load("a", 4, 4).await;
    let calls = ["a", "b", "c"].into_iter().enumerate().map(|(n, key)| Call::get(key, format!("/x/{n}"))).collect();
    let answers = client.send_together(calls).await;
    assert_eq!(statuses(&answers), [None, Some(200), Some(200)]);
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn calls_of_one_mailbox_never_have_more_than_four_under_way() {
    let under_way = Arc::new(Mutex::new((0_usize, 0_usize)));
    let counter = Arc::clone(&under_way);
    let slow = move |Json(body): Json<Value>| {
        let counter = Arc::clone(&counter);
        async move {
            let requests = body["requests"].as_array().unwrap().clone();
            let places = requests.len().min(4);
            {
                let mut counts = counter.lock().unwrap();
                counts.0 += places;
                counts.1 = counts.1.max(counts.0);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            counter.lock().unwrap().0 -= places;
            let done = |request: &Value| json!({"id": request["id"], "status": 200, "headers": {}, "body": {}});
            Json(json!({"responses": requests.iter().map(done).collect::<Vec<_>>()}))
        }
    };
    let client = client(Router::new().route("/v1.0/$batch", post(slow))).await;
    let calls = |from: usize| (from..from + 30).map(|n| Call::get("a", format!("/x/{n}"))).collect();
    let (first, second) = futures::join!(client.send_all(calls(0)), client.send_together(calls(30)));
    assert!(first.iter().chain(&second).all(Result::is_ok));
    assert_eq!(under_way.lock().unwrap().1, 4);
}

#[test]
fn a_mailbox_with_many_calls_gets_batches_of_its_own() {
    let calls = |keys: &[&str]| -> Vec<Call> { keys.iter().map(|key| Call::get(*key, "/x")).collect() };
    assert_eq!(pack(&calls(&["a"; 45])).iter().map(Vec::len).collect::<Vec<_>>(), [20, 20, 5]);
    assert_eq!(pack(&calls(&["a", "b", "a", "c", "a"])), [vec![0, 1, 2, 3, 4]]);
    assert_eq!(pack(&calls(&["a", "a", "b", "a", "a", "c", "a"])), [vec![0, 1, 3, 4, 6], vec![2, 5]]);
    assert!(pack(&[]).is_empty());
}
