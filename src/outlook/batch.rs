//! Many requests in few calls: `$batch`, packed so that no mailbox waits for another.
//!
//! ```text
//!   calls ──> pack: 20 a batch, at most 4 of one mailbox ──> mailboxes with room now ──> one $batch
//!                                                      └──> others ──> one $batch each, once they have room
//! ```
//!
//! While calls of several mailboxes are waited for together, none of them waits long for its own mailbox: one that is
//! paused, full or throttled gets its call back unsent, with the time after which to ask again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::auth::Bearer;
use super::client::{Answered, Call, GraphClient, LONGEST_PAUSE, Reply, UNNAMED_PAUSE, answer, seconds, too_busy};
use super::error::{self, CallFailure, remote};
use crate::ports::Retry;
use crate::rate_limit::Permit;

/// Most requests that one `$batch` takes: <https://learn.microsoft.com/graph/json-batching>.
const BATCH_SIZE: usize = 20;
/// Requests of one batch that Outlook runs at once for a mailbox: <https://learn.microsoft.com/graph/throttling-limits>.
const BATCH_PLACES: u32 = 4;
/// Batches under way at once for one caller.
const BATCHES_IN_FLIGHT: usize = 8;
/// Rounds of one batch: the first, one after a refused token, one after a short pause.
const BATCH_ROUNDS: u32 = 3;

/// How long a call may wait before it is sent.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Longest pause of the mailbox, asked for by Graph or by the rate, that is waited for.
    pause: Duration,
    /// Longest wait for a place among the mailbox's calls in flight.
    place: Duration,
}

impl Patience {
    /// While other mailboxes' answers wait: a place comes free when a call ends, everything else takes too long.
    const SHARED: Self = Self { pause: Duration::from_millis(250), place: Duration::from_secs(1) };
}

impl GraphClient {
    /// Sends many requests in as few calls as possible; order kept. A throttled one is waited for as a single call is.
    pub(super) async fn send_all(&self, calls: Vec<Call>) -> Vec<Answered> {
        let patience = Patience { pause: self.patience(), place: Duration::MAX };
        self.send_packed(&calls, patience).await
    }

    /// Sends many requests in as few calls as possible; order kept. Of several mailboxes, none waits for another.
    pub(super) async fn send_together(&self, calls: Vec<Call>) -> Vec<Answered> {
        let shared = calls.first().is_some_and(|first| calls.iter().any(|call| call.key != first.key));
        if !shared {
            return self.send_all(calls).await;
        }
        self.send_packed(&calls, Patience::SHARED).await
    }

    async fn send_packed(&self, calls: &[Call], patience: Patience) -> Vec<Answered> {
        let mut answers: Vec<Option<Answered>> = calls.iter().map(|_| None).collect();
        let sent: Vec<Vec<(usize, Answered)>> = stream::iter(pack(calls))
            .map(|batch| Box::pin(self.send_pack(calls, batch, patience)))
            .buffer_unordered(BATCHES_IN_FLIGHT)
            .collect()
            .await;
        for (index, answer) in sent.into_iter().flatten() {
            if let Some(place) = answers.get_mut(index) {
                *place = Some(answer);
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| not_sent(Duration::ZERO))).collect()
    }

    /// Sends one pack: mailboxes with room at once, each other one by itself when it has.
    async fn send_pack(&self, calls: &[Call], pack: Vec<usize>, patience: Patience) -> Vec<(usize, Answered)> {
        let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for index in pack {
            if let Some(call) = calls.get(index) {
                by_key.entry(&call.key).or_default().push(index);
            }
        }
        let mut ready = Vec::new();
        let mut permits = Vec::new();
        let mut later = Vec::new();
        for (key, indexes) in by_key {
            match self.admit(key, indexes.len(), Patience { pause: Duration::ZERO, place: Duration::ZERO }).await {
                Ok(permit) => {
                    permits.push(permit);
                    ready.extend(indexes);
                }
                Err(_) => later.push((key, indexes)),
            }
        }
        ready.sort_unstable();
        let later = join_all(later.into_iter().map(|(key, indexes)| async move {
            match self.admit(key, indexes.len(), patience).await {
                Ok(permit) => self.batch(calls, indexes, vec![permit], patience.pause).await,
                Err(wait) => indexes.into_iter().map(|index| (index, not_sent(wait))).collect(),
            }
        }));
        let (mut answers, others) = futures::join!(self.batch(calls, ready, permits, patience.pause), later);
        answers.extend(others.into_iter().flatten());
        answers
    }

    async fn admit(&self, key: &str, calls: usize, patience: Patience) -> Result<Permit, Duration> {
        let units = u32::try_from(calls).unwrap_or(u32::MAX);
        self.limits().admit_within(key, units.min(BATCH_PLACES), units, patience.place, patience.pause).await
    }

    /// Sends admitted requests in one call, and those again that were refused for a token or a short pause.
    async fn batch(
        &self,
        calls: &[Call],
        mut open: Vec<usize>,
        permits: Vec<Permit>,
        patience: Duration,
    ) -> Vec<(usize, Answered)> {
        if let [only] = open.as_slice() {
            let Some(call) = calls.get(*only) else { return Vec::new() };
            let answer = Box::pin(self.send_admitted(call, patience)).await;
            drop(permits);
            return vec![(*only, answer)];
        }
        let mut answers = Vec::with_capacity(open.len());
        let (mut renewed, mut waited) = (false, false);
        for round in 1..=BATCH_ROUNDS {
            if open.is_empty() {
                break;
            }
            let token = match self.token().await {
                Ok(token) => token,
                Err(failure) => {
                    answers.extend(open.drain(..).map(|index| (index, Err(failure.clone()))));
                    break;
                }
            };
            open.retain(|index| match calls.get(*index).map(|call| self.refuse_when_late(call)) {
                Some(Err(failure)) => {
                    answers.push((*index, Err(failure)));
                    false
                }
                _ => true,
            });
            if open.is_empty() {
                break;
            }
            let replies = match self.batch_round(calls, &open, &token).await {
                Ok(replies) => replies,
                Err(failure) => {
                    answers.extend(open.drain(..).map(|index| (index, Err(failure.clone()))));
                    break;
                }
            };
            let last = round == BATCH_ROUNDS;
            let mut again = Vec::new();
            let mut pause = Duration::ZERO;
            let (mut refused, mut held_back) = (false, false);
            for (index, reply) in open.iter().copied().zip(replies) {
                let Some(reply) = reply else {
                    let lost = remote(error::UNREADABLE, "Graph's batch lacks an answer", Retry::After(Duration::ZERO));
                    answers.push((index, Err(CallFailure::Lost(lost))));
                    continue;
                };
                match reply.status {
                    401 if !renewed && !last => {
                        refused = true;
                        again.push(index);
                        continue;
                    }
                    _ if reply.asks_to_wait() => {
                        let call = calls.get(index);
                        let asked = call.map_or(UNNAMED_PAUSE, |call| self.pause(&call.key, &reply));
                        let repeats = call.is_some_and(|call| reply.may_repeat(&call.method));
                        if repeats && !waited && !last && asked <= patience {
                            pause = pause.max(asked);
                            again.push(index);
                            held_back = true;
                            continue;
                        }
                    }
                    _ => {}
                }
                answers.push((index, Ok(reply)));
            }
            open = again;
            if refused {
                renewed = true;
                if let Err(failure) = self.renewed(&token).await {
                    answers.extend(open.drain(..).map(|index| (index, Err(failure.clone()))));
                    break;
                }
            }
            waited |= held_back;
            tokio::time::sleep(pause).await;
        }
        answers
    }

    /// Sends one `$batch`; the answers are in the order of `open`. A failure of the whole counts for each item.
    async fn batch_round(
        &self,
        calls: &[Call],
        open: &[usize],
        token: &Bearer,
    ) -> Result<Vec<Option<Reply>>, CallFailure> {
        let requests: Vec<Value> =
            open.iter().filter_map(|index| calls.get(*index).map(|call| item(*index, call))).collect();
        let request = self.post_batch(token).json(&json!({ "requests": requests }));
        let reply = answer(request).await?;
        if !reply.is_success() {
            return Ok(open.iter().map(|_| Some(reply.clone())).collect());
        }
        let mut by_id: BTreeMap<String, Reply> = BTreeMap::new();
        let responses = reply.body.get("responses").and_then(Value::as_array);
        for response in responses.into_iter().flatten() {
            if let Some((id, reply)) = item_reply(response) {
                by_id.insert(id, reply);
            }
        }
        Ok(open.iter().map(|index| by_id.remove(&index.to_string())).collect())
    }
}

/// Packs calls into batches of at most 20, in order; of a mailbox that shares a batch, at most as many as run at once.
///
/// More calls of one mailbox would run one after the other, and the others' answers would wait for them: what is left
/// of such a mailbox gets batches of its own.
fn pack(calls: &[Call]) -> Vec<Vec<usize>> {
    let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        by_key.entry(&call.key).or_default().push(index);
    }
    let alone = by_key.len() == 1;
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut shared: Vec<usize> = Vec::new();
    for indexes in by_key.into_values() {
        if alone || indexes.len() > BATCH_PLACES as usize {
            packs.extend(indexes.chunks(BATCH_SIZE).map(<[usize]>::to_vec));
        } else {
            shared.extend(indexes);
        }
    }
    shared.sort_unstable();
    packs.extend(shared.chunks(BATCH_SIZE).map(<[usize]>::to_vec));
    packs
}

fn not_sent(wait: Duration) -> Answered {
    Err(CallFailure::NotSent(too_busy(wait)))
}

fn item(index: usize, call: &Call) -> Value {
    let mut headers = Map::new();
    headers.insert("Prefer".to_owned(), call.prefer().into());
    headers.insert("client-request-id".to_owned(), Uuid::new_v4().to_string().into());
    if let Some(etag) = &call.if_match {
        headers.insert("If-Match".to_owned(), etag.as_str().into());
    }
    let mut item = Map::new();
    item.insert("id".to_owned(), index.to_string().into());
    item.insert("method".to_owned(), call.method.as_str().into());
    item.insert("url".to_owned(), call.path.as_str().into());
    if let Some(body) = &call.body {
        headers.insert("Content-Type".to_owned(), "application/json".into());
        item.insert("body".to_owned(), body.clone());
    }
    item.insert("headers".to_owned(), Value::Object(headers));
    Value::Object(item)
}

fn item_reply(response: &Value) -> Option<(String, Reply)> {
    let id = match response.get("id")? {
        Value::String(id) => id.clone(),
        other => other.to_string(),
    };
    let status = response.get("status")?.as_u64().and_then(|status| u16::try_from(status).ok())?;
    let retry_after = response.get("headers").and_then(Value::as_object).and_then(|headers| {
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after")).and_then(|(_, value)| match value {
            Value::String(text) => seconds(text),
            other => other.as_u64().map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE)),
        })
    });
    let body = response.get("body").cloned().unwrap_or(Value::Null);
    Some((id, Reply { status, body, retry_after }))
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
