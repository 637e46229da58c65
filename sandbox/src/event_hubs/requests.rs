//! `$cbs` and `$management`: what a request is answered with.
//!
//! Owns the answers. The links that carry them are in `links.rs`.

use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body, Message, Properties};
use fe2o3_amqp_types::primitives::{Array, OrderedMap, SimpleValue, Timestamp, Value};

use super::address::Node;
use super::log::HubLog;
use super::tokens::{Grants, Token};

/// A message as requests and answers use it.
pub(super) type Letter = Message<Body<Value>>;

const JWT: &str = "jwt";
const SIGNATURE: &str = "servicebus.windows.net:sastoken";

/// Status, description and body of an answer.
struct Answer {
    status: i32,
    description: &'static str,
    body: Value,
}

impl Answer {
    fn bare(status: i32, description: &'static str) -> Self {
        Self { status, description, body: Value::Null }
    }
}

/// Answers a request to `$cbs` or `$management`.
pub(super) fn answer(node: &Node, request: &Letter, log: &HubLog, grants: &Grants) -> Letter {
    let answer = match node {
        Node::Tokens => put_token(request, grants),
        _ => read(request, log, grants),
    };
    let mut fields = OrderedMap::new();
    fields.insert("status-code".to_owned(), SimpleValue::Int(answer.status));
    fields.insert("status-description".to_owned(), SimpleValue::String(answer.description.to_owned()));
    let asked = request.properties.as_ref();
    let properties = Properties {
        // Unchanged in type: the Rust client looks its ulong up.
        correlation_id: asked.and_then(|properties| properties.message_id.clone()),
        ..Properties::default()
    };
    Message::builder()
        .properties(properties)
        .application_properties(ApplicationProperties(fields))
        .body(Body::Value(AmqpValue(answer.body)))
        .build()
}

/// Returns where the answer to a request is wanted, if the request says so.
pub(super) fn reply_to(request: &Letter) -> Option<&str> {
    request.properties.as_ref().and_then(|properties| properties.reply_to.as_deref())
}

fn put_token(request: &Letter, grants: &Grants) -> Answer {
    if text(request, "operation") != Some("put-token") {
        return Answer::bare(400, "Unknown operation");
    }
    let Body::Value(AmqpValue(Value::String(token))) = &request.body else {
        return Answer::bare(400, "The body must be the token as a string");
    };
    let token = match text(request, "type") {
        Some(JWT) => Token::Jwt(token.clone()),
        Some(SIGNATURE) => Token::Signature(token.clone()),
        _ => return Answer::bare(400, "Unknown token type"),
    };
    let Some(audience) = text(request, "name") else {
        return Answer::bare(400, "The audience is missing");
    };
    if grants.put(audience, token) {
        Answer::bare(202, "Accepted")
    } else {
        Answer::bare(401, "InvalidSignature: The token has an invalid signature or is expired.")
    }
}

fn read(request: &Letter, log: &HubLog, grants: &Grants) -> Answer {
    if text(request, "operation") != Some("READ") {
        return Answer::bare(400, "Unknown operation");
    }
    let Some(name) = text(request, "name") else {
        return Answer::bare(400, "The name is missing");
    };
    if !grants.covers_some_of(name) {
        return Answer::bare(401, "Unauthorized access. A token for the entity is required.");
    }
    if !name.eq_ignore_ascii_case(log.hub()) {
        return Answer::bare(404, "The messaging entity could not be found.");
    }
    let body = match text(request, "type") {
        Some("com.microsoft:eventhub") => Some(hub_properties(log)),
        Some("com.microsoft:partition") => partition_properties(request, log),
        _ => return Answer::bare(400, "Unknown type"),
    };
    match body {
        Some(body) => Answer { status: 200, description: "OK", body },
        None => Answer::bare(404, "The partition could not be found."),
    }
}

fn hub_properties(log: &HubLog) -> Value {
    let ids = (0..log.partitions()).map(|id| Value::String(id.to_string())).collect::<Vec<_>>();
    map([
        ("type", Value::from("com.microsoft:eventhub")),
        ("name", Value::from(log.hub())),
        ("created_at", timestamp(log.created())),
        ("partition_count", Value::Int(i32::try_from(log.partitions()).unwrap_or(i32::MAX))),
        // An array: the Rust client refuses a list.
        ("partition_ids", Value::Array(Array::from(ids))),
        ("georeplication_factor", Value::Int(1)),
    ])
}

fn partition_properties(request: &Letter, log: &HubLog) -> Option<Value> {
    let id = text(request, "partition")?;
    let known = log.properties(id.parse().ok()?)?;
    Some(map([
        ("type", Value::from("com.microsoft:partition")),
        ("name", Value::from(log.hub())),
        ("partition", Value::from(id)),
        ("begin_sequence_number", Value::Long(known.begin_sequence)),
        ("begin_sequence_number_epoch", Value::Int(-1)),
        ("last_enqueued_sequence_number", Value::Long(known.last_sequence)),
        ("last_enqueued_sequence_number_epoch", Value::Int(-1)),
        ("last_enqueued_offset", Value::String(known.last_offset)),
        ("last_enqueued_time_utc", timestamp(known.last_enqueued)),
        ("is_partition_empty", Value::Bool(known.is_empty)),
    ]))
}

/// Makes an AMQP timestamp.
pub(super) fn timestamp(at: chrono::DateTime<chrono::Utc>) -> Value {
    Value::Timestamp(Timestamp::from_milliseconds(at.timestamp_millis()))
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let mut map = OrderedMap::new();
    for (key, value) in entries {
        map.insert(Value::from(key), value);
    }
    Value::Map(map)
}

fn text<'a>(request: &'a Letter, key: &str) -> Option<&'a str> {
    match request.application_properties.as_ref()?.get(key)? {
        SimpleValue::String(text) => Some(text),
        SimpleValue::Symbol(text) => Some(text.as_str()),
        _ => None,
    }
}
