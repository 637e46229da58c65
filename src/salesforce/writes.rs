//! Sending intents: one row by its own resource, several by sObject Collections, and what the answers mean.
//!
//! <https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-sobjects-collections-create.html>

use calbridge_core::ids::{RecordId, SalesforceId};
use calbridge_core::link::{Action, Intent};
use calbridge_core::written::WriteResult;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::calendar::{BATCH, SalesforceCalendar};
use super::client::Call;
use super::error::{Failure, Kind, RowError};
use super::wire;

/// The answer about one row: of a single creation and of every row in a collection.
#[derive(Debug, Deserialize)]
struct RowAnswer {
    #[serde(default)]
    id: Option<String>,
    success: bool,
    #[serde(default)]
    errors: Vec<RowError>,
}

/// A write that can be sent: its place among the given ones and its row.
struct Row<'a> {
    place: usize,
    intent: &'a Intent,
    record: Option<&'a RecordId>,
    body: Map<String, Json>,
}

impl SalesforceCalendar {
    /// Sends intents in as few calls as possible; order kept.
    pub(super) async fn send(&self, intents: &[Intent]) -> Vec<WriteResult> {
        let mut results: Vec<Option<WriteResult>> = intents.iter().map(|_| None).collect();
        let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
        for (place, intent) in intents.iter().enumerate() {
            let body = match &intent.action {
                Action::Delete(_) => Ok(Map::new()),
                Action::Create(_) | Action::Update(_) => wire::body(intent),
            };
            match body {
                Err(why) => results[place] = Some(Failure::new(Kind::Refused, why).into_write_result()),
                Ok(body) => {
                    let row = Row { place, intent, record: intent.action.record(), body };
                    match intent.action {
                        Action::Create(_) => creates.push(row),
                        Action::Update(_) => updates.push(row),
                        Action::Delete(_) => deletes.push(row),
                    }
                }
            }
        }
        let (created, updated, deleted) =
            futures::join!(self.create(&creates), self.update(&updates), self.delete(&deletes));
        let sent = creates.iter().chain(&updates).chain(&deletes);
        for (row, result) in sent.zip(created.into_iter().chain(updated).chain(deleted)) {
            results[row.place] = Some(result);
        }
        let unsent = || Failure::new(Kind::Refused, "the write was not sent").into_write_result();
        results.into_iter().map(|result| result.unwrap_or_else(unsent)).collect()
    }

    async fn create(&self, rows: &[Row<'_>]) -> Vec<WriteResult> {
        if let [row] = rows {
            let body = Json::Object(row.body.clone());
            let call = Call::new(Method::POST, "/sobjects/Event", "create").body(&body);
            let answer: Result<RowAnswer, Failure> = match self.client.call(call).await {
                Ok(reply) => reply.read(),
                Err(failure) => Err(failure),
            };
            return vec![match answer {
                Ok(answer) => settled(answer, row),
                Err(failure) => meant_for(None, failure).into_write_result(),
            }];
        }
        self.collection(Method::POST, rows, "create_many").await
    }

    async fn update(&self, rows: &[Row<'_>]) -> Vec<WriteResult> {
        if let [row] = rows {
            let Some(record) = row.record else {
                return vec![no_record()];
            };
            let path = format!("/sobjects/Event/{}", record.remote_id());
            let body = Json::Object(row.body.clone());
            let unless = wire::precondition(row.intent.expected.as_ref()).filter(|_| self.conditional_updates);
            let call = Call::new(Method::PATCH, &path, "update").body(&body).unless_modified_since(unless);
            return vec![done(self.client.call(call).await.map(|_no_content| ()), record)];
        }
        self.collection(Method::PATCH, rows, "update_many").await
    }

    async fn delete(&self, rows: &[Row<'_>]) -> Vec<WriteResult> {
        if let [row] = rows {
            let Some(record) = row.record else {
                return vec![no_record()];
            };
            let path = format!("/sobjects/Event/{}", record.remote_id());
            let call = Call::new(Method::DELETE, &path, "delete");
            return vec![done(self.client.call(call).await.map(|_no_content| ()), record)];
        }
        let mut results = Vec::with_capacity(rows.len());
        for batch in rows.chunks(BATCH) {
            let ids: Vec<&str> = batch.iter().filter_map(|row| Some(row.record?.remote_id())).collect();
            let call = Call::new(Method::DELETE, "/composite/sobjects", "delete_many")
                .query("ids", ids.join(","))
                .query("allOrNone", "false");
            results.extend(self.rows(call, batch).await);
        }
        results
    }

    async fn collection(&self, method: Method, rows: &[Row<'_>], kind: &'static str) -> Vec<WriteResult> {
        let mut results = Vec::with_capacity(rows.len());
        for batch in rows.chunks(BATCH) {
            let records: Vec<Json> = batch.iter().map(collection_row).collect();
            let body = json!({ "allOrNone": false, "records": records });
            let call = Call::new(method.clone(), "/composite/sobjects", kind).body(&body);
            results.extend(self.rows(call, batch).await);
        }
        results
    }

    /// Sends a collection call and reads one answer per row, in order.
    async fn rows(&self, call: Call<'_>, rows: &[Row<'_>]) -> Vec<WriteResult> {
        let answers: Result<Vec<RowAnswer>, Failure> = match self.client.call(call).await {
            Ok(reply) => reply.read(),
            Err(failure) => Err(failure),
        };
        let answers = answers.and_then(|answers| {
            if answers.len() == rows.len() {
                Ok(answers)
            } else {
                Err(Failure::new(Kind::Unreadable, "salesforce answered another number of rows than was sent"))
            }
        });
        match answers {
            Ok(answers) => answers.into_iter().zip(rows).map(|(answer, row)| settled(answer, row)).collect(),
            Err(failure) => rows.iter().map(|_| whole_call_failed(&failure)).collect(),
        }
    }
}

/// Writes the row of a collection.
fn collection_row(row: &Row<'_>) -> Json {
    let mut body = Map::new();
    body.insert("attributes".to_owned(), json!({ "type": "Event" }));
    if let Some(record) = row.record {
        body.insert("id".to_owned(), json!(record.remote_id()));
    }
    body.extend(row.body.clone());
    Json::Object(body)
}

/// Says what became of a row that has an answer of its own.
fn settled(answer: RowAnswer, row: &Row<'_>) -> WriteResult {
    if !answer.success {
        let failure = answer.errors.first().map_or_else(
            || Failure::new(Kind::Unreadable, "salesforce refused a row without an error code"),
            |error| Failure::from_row(error, None),
        );
        return meant_for(row.record, failure).into_write_result();
    }
    let record = match (row.record, answer.id) {
        (Some(record), _) => Some(record.clone()),
        (None, Some(id)) => SalesforceId::parse(&id).ok().map(RecordId::Salesforce),
        (None, None) => None,
    };
    match record {
        Some(record) => applied(record),
        None => Failure::new(Kind::Unreadable, "salesforce created a row but named no id").into_write_result(),
    }
}

fn done(answer: Result<(), Failure>, record: &RecordId) -> WriteResult {
    match answer {
        Ok(()) => applied(record.clone()),
        Err(failure) => meant_for(Some(record), failure).into_write_result(),
    }
}

/// Salesforce answers a write without the row's new version: a read tells.
fn applied(record: RecordId) -> WriteResult {
    WriteResult::Applied { record, version: None, snapshot: None }
}

/// Reads a failure as one of this write: only an existing record can be gone, only a new one can exist already.
fn meant_for(record: Option<&RecordId>, failure: Failure) -> Failure {
    match (failure.kind, record) {
        (Kind::Gone, None) | (Kind::Duplicate, Some(_)) => Failure::new(Kind::Refused, failure.message),
        _ => failure,
    }
}

/// Reads the failure of a collection call as one of each row; "gone" then speaks of the resource, not of the rows.
fn whole_call_failed(failure: &Failure) -> WriteResult {
    match failure.kind {
        Kind::Gone | Kind::Duplicate => Failure::new(Kind::Refused, failure.message.clone()).into_write_result(),
        _ => failure.clone().into_write_result(),
    }
}

fn no_record() -> WriteResult {
    Failure::new(Kind::Refused, "the write names no record").into_write_result()
}
