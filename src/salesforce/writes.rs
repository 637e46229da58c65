//! Sending intents: one row by its own resource, several by composite calls and sObject Collections; what answers mean.
//!
//! <https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-sobjects-collections-create.html>

use calbridge_core::ids::{RecordId, SalesforceId};
use calbridge_core::link::{Action, Intent};
use calbridge_core::written::WriteResult;
use chrono::{DateTime, Utc};
use futures::future::join_all;
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

/// The answer of a composite call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CompositeAnswer {
    composite_response: Vec<PartAnswer>,
}

/// The answer about one part of a composite call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartAnswer {
    reference_id: String,
    http_status_code: u16,
    #[serde(default)]
    body: Json,
}

/// Parts that one composite call takes:
/// <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm>
const COMPOSITE: usize = 25;

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
            let call =
                Call::new(Method::POST, "/sobjects/Event", "create").body(&body).send_by(Some(row.intent.send_by));
            let answer: Result<RowAnswer, Failure> = match self.client.call(call).await {
                Ok(reply) => reply.read(),
                Err(failure) => Err(failure),
            };
            return vec![match answer {
                Ok(answer) => settled(answer, row),
                Err(failure) => meant_for(None, failure).into_write_result(),
            }];
        }
        self.collection(Method::POST, &rows.iter().collect::<Vec<_>>(), "create_many").await
    }

    /// Changes rows. Those with a precondition keep it: a collection has no room for one, a composite call has.
    async fn update(&self, rows: &[Row<'_>]) -> Vec<WriteResult> {
        let (mut guarded, mut alone, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for (place, row) in rows.iter().enumerate() {
            if rows.len() == 1 || (self.guard(row).is_some() && mentions_reference(&row.body)) {
                alone.push(place);
            } else if self.guard(row).is_some() {
                guarded.push(place);
            } else {
                plain.push(place);
            }
        }
        let one_by_one = join_all(alone.iter().map(|place| self.update_one(&rows[*place])));
        let composites = join_all(guarded.chunks(COMPOSITE).map(|chunk| self.update_guarded(rows, chunk)));
        let collected: Vec<&Row<'_>> = plain.iter().map(|place| &rows[*place]).collect();
        let collections = self.collection(Method::PATCH, &collected, "update_many");
        let (one_by_one, composites, collections) = futures::join!(one_by_one, composites, collections);
        let places = alone.into_iter().chain(guarded).chain(plain);
        let results = one_by_one.into_iter().chain(composites.into_iter().flatten()).chain(collections);
        let mut ordered: Vec<(usize, WriteResult)> = places.zip(results).collect();
        ordered.sort_by_key(|(place, _)| *place);
        ordered.into_iter().map(|(_, result)| result).collect()
    }

    /// Returns the `If-Unmodified-Since` of a row.
    fn guard(&self, row: &Row<'_>) -> Option<String> {
        wire::precondition(row.intent.expected.as_ref()).filter(|_| self.conditional_updates)
    }

    async fn update_one(&self, row: &Row<'_>) -> WriteResult {
        let Some(record) = row.record else {
            return no_record();
        };
        let path = format!("/sobjects/Event/{}", record.remote_id());
        let body = Json::Object(row.body.clone());
        let call = Call::new(Method::PATCH, &path, "update")
            .body(&body)
            .unless_modified_since(self.guard(row))
            .send_by(Some(row.intent.send_by));
        done(self.client.call(call).await.map(|_no_content| ()), record)
    }

    /// Changes some of the rows in one call, each under its own precondition.
    async fn update_guarded(&self, rows: &[Row<'_>], places: &[usize]) -> Vec<WriteResult> {
        let chosen: Vec<&Row<'_>> = places.iter().map(|place| &rows[*place]).collect();
        let requests: Vec<Json> = chosen
            .iter()
            .enumerate()
            .map(|(number, row)| {
                let id = row.record.map(RecordId::remote_id).unwrap_or_default();
                json!({
                    "method": "PATCH",
                    "url": self.client.path(&format!("/sobjects/Event/{id}")),
                    "referenceId": format!("row{number}"),
                    "httpHeaders": { "If-Unmodified-Since": self.guard(row) },
                    "body": row.body,
                })
            })
            .collect();
        let body = json!({ "allOrNone": false, "compositeRequest": requests });
        let call = Call::new(Method::POST, "/composite", "update_guarded").body(&body).send_by(first_send_by(&chosen));
        let answers: Result<CompositeAnswer, Failure> = match self.client.call(call).await {
            Ok(reply) => reply.read(),
            Err(failure) => Err(failure),
        };
        let answers = match answers {
            Ok(answers) => answers.composite_response,
            Err(failure) => return chosen.iter().map(|_| whole_call_failed(&failure)).collect(),
        };
        let of_row = |(number, row): (usize, &&Row<'_>)| {
            let name = format!("row{number}");
            let Some(record) = row.record else {
                return no_record();
            };
            match answers.iter().find(|answer| answer.reference_id == name) {
                Some(answer) if (200..300).contains(&answer.http_status_code) => applied(record.clone()),
                Some(answer) => {
                    let failure = Failure::from_answer(answer.http_status_code, answer.body.to_string().as_bytes());
                    done(Err(failure), record)
                }
                None => Failure::new(Kind::Unreadable, "salesforce's composite answer lacks a row").into_write_result(),
            }
        };
        chosen.iter().enumerate().map(of_row).collect()
    }

    async fn delete(&self, rows: &[Row<'_>]) -> Vec<WriteResult> {
        if let [row] = rows {
            let Some(record) = row.record else {
                return vec![no_record()];
            };
            let path = format!("/sobjects/Event/{}", record.remote_id());
            let call = Call::new(Method::DELETE, &path, "delete").send_by(Some(row.intent.send_by));
            return vec![done(self.client.call(call).await.map(|_no_content| ()), record)];
        }
        let mut results = Vec::with_capacity(rows.len());
        for batch in rows.iter().collect::<Vec<_>>().chunks(BATCH) {
            let ids: Vec<&str> = batch.iter().filter_map(|row| Some(row.record?.remote_id())).collect();
            let call = Call::new(Method::DELETE, "/composite/sobjects", "delete_many")
                .query("ids", ids.join(","))
                .query("allOrNone", "false");
            results.extend(self.rows(call, batch).await);
        }
        results
    }

    async fn collection(&self, method: Method, rows: &[&Row<'_>], kind: &'static str) -> Vec<WriteResult> {
        let mut results = Vec::with_capacity(rows.len());
        for batch in rows.chunks(BATCH) {
            let records: Vec<Json> = batch.iter().map(|row| collection_row(row)).collect();
            let body = json!({ "allOrNone": false, "records": records });
            let call = Call::new(method.clone(), "/composite/sobjects", kind).body(&body);
            results.extend(self.rows(call, batch).await);
        }
        results
    }

    /// Sends a collection call and reads one answer per row, in order.
    async fn rows(&self, call: Call<'_>, rows: &[&Row<'_>]) -> Vec<WriteResult> {
        let call = call.send_by(first_send_by(rows));
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

/// Returns the latest time at which a call with these rows may leave.
fn first_send_by(rows: &[&Row<'_>]) -> Option<DateTime<Utc>> {
    rows.iter().map(|row| row.intent.send_by).min()
}

/// Tells whether a value would be read as a reference (`@{...}`) to another part of a composite call.
fn mentions_reference(body: &Map<String, Json>) -> bool {
    body.values().any(|value| value.as_str().is_some_and(|text| text.contains("@{")))
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
