//! What can be read: addresses, counters, verdicts, history, present states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::Refusal;
use crate::actor::Actor;
use crate::assembly::Clouds;
use crate::endpoints::{Endpoints, Mailbox};
use crate::history::{Cloud, Effect, EffectKind};
use crate::mails::Mail;
use crate::meters::Counts;
use crate::oracle::Terms;

/// Rows of the history in one answer unless told, and at most.
const HISTORY_ROWS: usize = 1_000;
const MAX_HISTORY_ROWS: usize = 100_000;

/// `GET /endpoints`
pub(super) async fn endpoints(State(clouds): State<Arc<Clouds>>) -> Json<Endpoints> {
    Json(clouds.endpoints.clone())
}

/// `GET /clock`
pub(super) async fn clock(State(clouds): State<Arc<Clouds>>) -> Json<Value> {
    let clock = &clouds.world.clock;
    Json(json!({ "now": clock.now().to_rfc3339(), "start_at": clock.epoch().to_rfc3339(), "speed": clock.speed() }))
}

/// All counters, and who changed which record how often.
#[derive(Debug, Serialize)]
pub(super) struct Counters {
    #[serde(flatten)]
    counts: Counts,
    records: Vec<RecordCounts>,
}

/// Changes of one record by one author.
#[derive(Debug, Serialize)]
pub(super) struct RecordCounts {
    cloud: Cloud,
    record: String,
    actor: Actor,
    creates: u64,
    updates: u64,
    touches: u64,
    deletes: u64,
}

/// `GET /counters`
pub(super) async fn counters(State(clouds): State<Arc<Clouds>>) -> Json<Counters> {
    let mut records: BTreeMap<(Cloud, String, Actor), RecordCounts> = BTreeMap::new();
    for effect in clouds.world.history.since(0) {
        let key = (effect.cloud, effect.record.clone(), effect.actor.clone());
        let counts = records.entry(key).or_insert_with(|| RecordCounts {
            cloud: effect.cloud,
            record: effect.record,
            actor: effect.actor,
            creates: 0,
            updates: 0,
            touches: 0,
            deletes: 0,
        });
        match effect.kind {
            EffectKind::Create | EffectKind::Undelete => counts.creates += 1,
            EffectKind::Update => counts.updates += 1,
            EffectKind::Touch => counts.touches += 1,
            EffectKind::Delete => counts.deletes += 1,
        }
    }
    Json(Counters { counts: clouds.world.meters.read(), records: records.into_values().collect() })
}

/// How the oracle is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OracleQuery {
    /// Seconds of quiet after which differences count (sandbox time).
    settle_secs: Option<u32>,
    /// Client ids of the bridge, comma separated; without, every application is the bridge.
    bridge: Option<String>,
    /// Meetings with attendees flow towards Salesforce only.
    #[serde(default)]
    attendees_one_way: bool,
    /// `table` answers text.
    format: Option<String>,
}

/// Pairs that are known from elsewhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pairs {
    pairs: Vec<(String, String)>,
}

/// `GET /oracle`
pub(super) async fn oracle(
    State(clouds): State<Arc<Clouds>>,
    query: Result<Query<OracleQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    judge(&clouds, query, Vec::new())
}

/// `POST /oracle`
pub(super) async fn oracle_with_pairs(
    State(clouds): State<Arc<Clouds>>,
    query: Result<Query<OracleQuery>, axum::extract::rejection::QueryRejection>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let pairs: Pairs = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!("the body is not `{{\"pairs\": [[\"outlook id\", \"salesforce id\"]]}}`: {error}"))
    })?;
    judge(&clouds, query, pairs.pairs)
}

fn judge(clouds: &Clouds, query: OracleQuery, pairs: Vec<(String, String)>) -> Result<Response, Refusal> {
    let mut terms = Terms { pairs, attendees_one_way: query.attendees_one_way, ..Terms::default() };
    if let Some(seconds) = query.settle_secs {
        terms.settle = TimeDelta::seconds(i64::from(seconds));
    }
    if let Some(bridge) = query.bridge {
        terms.bridge = Some(bridge.split(',').map(|id| id.trim().to_owned()).collect::<BTreeSet<_>>());
    }
    let report = clouds.judge(&terms);
    match query.format.as_deref() {
        None | Some("json") => Ok(Json(report).into_response()),
        Some("table") => Ok(report.table().into_response()),
        Some(other) => Err(Refusal::bad_request(format!("`{other}` is not a format; use `json` or `table`"))),
    }
}

/// Which part of the history.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// Effects to skip.
    #[serde(default)]
    from: usize,
    /// Most effects to answer.
    limit: Option<usize>,
}

/// A part of the history.
#[derive(Debug, Serialize)]
pub(super) struct HistoryPage {
    effects: Vec<Effect>,
    /// `from` of the next page.
    next: usize,
    /// Effects so far.
    length: usize,
}

/// `GET /history`
pub(super) async fn history(
    State(clouds): State<Arc<Clouds>>,
    query: Result<Query<HistoryQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<HistoryPage>, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let mut effects = clouds.world.history.since(query.from);
    effects.truncate(query.limit.unwrap_or(HISTORY_ROWS).min(MAX_HISTORY_ROWS));
    let next = query.from.saturating_add(effects.len());
    Ok(Json(HistoryPage { effects, next, length: clouds.world.history.len() }))
}

/// `GET /mails`
pub(super) async fn mails(State(clouds): State<Arc<Clouds>>) -> Json<Vec<Mail>> {
    Json(clouds.world.mails.all())
}

/// `GET /mailboxes`
pub(super) async fn mailboxes(State(clouds): State<Arc<Clouds>>) -> Json<Vec<Mailbox>> {
    Json(clouds.endpoints.mailboxes.clone())
}

/// `GET /mailboxes/{mailbox}/events`
pub(super) async fn mailbox_events(
    State(clouds): State<Arc<Clouds>>,
    Path(mailbox): Path<String>,
) -> Result<Json<Vec<Value>>, Refusal> {
    let person = clouds.person(&mailbox).map_err(|error| Refusal::not_found(error.to_string()))?;
    Ok(Json(clouds.tenant.events(&person.mailbox().user_id)))
}

/// `GET /salesforce/events`
pub(super) async fn salesforce_events(State(clouds): State<Arc<Clouds>>) -> Json<Vec<Value>> {
    Json(clouds.org.records())
}
