//! Composite: up to 25 calls in one, later ones referring to earlier answers by `@{reference.path}`.
//!
//! <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm>

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::super::error::SalesforceError;
use super::super::org::rest_origin;
use super::super::tx::Tx;
use super::{ApiAnswer, ApiRequest, Version, routes};

const MAX_CALLS: usize = 25;

pub(super) fn composite(
    tx: &mut Tx<'_>,
    version: &Version,
    request: &ApiRequest,
) -> Result<ApiAnswer, SalesforceError> {
    let body = request.object()?;
    let all_or_none = body.get("allOrNone").and_then(Value::as_bool).unwrap_or(false);
    let calls = body.get("compositeRequest").and_then(Value::as_array).cloned().unwrap_or_default();
    if calls.is_empty() || calls.len() > MAX_CALLS {
        let message = format!("a composite request takes 1 to {MAX_CALLS} subrequests");
        return Err(SalesforceError::bad("INVALID_INPUT", message));
    }
    // The tag is documented for single-row calls only.
    if !tx.switches.salesforce_collections_tagged {
        tx.author.origin = rest_origin(&version.0, None);
    }
    let start = tx.mark();
    let mut answers: BTreeMap<String, Value> = BTreeMap::new();
    let mut results: Vec<(String, ApiAnswer)> = Vec::new();
    let mut failed_at = None;
    for (index, call) in calls.iter().enumerate() {
        let reference = call.get("referenceId").and_then(Value::as_str).unwrap_or_default().to_owned();
        let answer = run(tx, version, call, &answers).unwrap_or_else(ApiAnswer::from);
        if answer.status.is_success() {
            answers.insert(reference.clone(), answer.body.clone().unwrap_or(Value::Null));
        }
        let failed = !answer.status.is_success();
        results.push((reference, answer));
        if failed && all_or_none {
            failed_at = Some(index);
            break;
        }
        if !all_or_none {
            tx.flush();
        }
    }
    if let Some(failed_at) = failed_at {
        tx.return_to(start);
        let halted = || {
            let message = "The transaction was rolled back since another operation in the same transaction failed.";
            ApiAnswer::from(SalesforceError::bad("PROCESSING_HALTED", message))
        };
        for (index, call) in calls.iter().enumerate() {
            let reference = call.get("referenceId").and_then(Value::as_str).unwrap_or_default();
            match results.get_mut(index) {
                Some((_, answer)) if index != failed_at => *answer = halted(),
                Some(_) => {}
                None => results.push((reference.to_owned(), halted())),
            }
        }
    }
    let shown = results.into_iter().map(|(reference, answer)| {
        let headers: Map<String, Value> =
            answer.headers.iter().map(|(name, value)| (name.to_string(), Value::from(value.as_str()))).collect();
        json!({
            "body": answer.body,
            "httpHeaders": headers,
            "httpStatusCode": answer.status.as_u16(),
            "referenceId": reference,
        })
    });
    Ok(ApiAnswer::new(StatusCode::OK, json!({ "compositeResponse": shown.collect::<Vec<_>>() })))
}

fn run(
    tx: &mut Tx<'_>,
    version: &Version,
    call: &Value,
    answers: &BTreeMap<String, Value>,
) -> Result<ApiAnswer, SalesforceError> {
    let text = |name: &str| call.get(name).and_then(Value::as_str).unwrap_or_default();
    let method = text("method").parse().map_err(|_error| SalesforceError::bad("INVALID_INPUT", "method is missing"))?;
    let url = resolve_text(text("url"), answers)?;
    let prefix = format!("/services/data/v{}/", version.0);
    let Some(rest) = url.strip_prefix(&prefix) else {
        let message = format!("subrequest urls begin with {prefix}");
        return Err(SalesforceError::bad("INVALID_INPUT", message));
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let path: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
    let query = url::form_urlencoded::parse(query.as_bytes());
    let query = query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let mut headers = HeaderMap::new();
    for (name, value) in call.get("httpHeaders").and_then(Value::as_object).into_iter().flatten() {
        let name = name.parse::<HeaderName>().ok();
        let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    let body = call.get("body").cloned().unwrap_or(Value::Null);
    let body = resolve(body, answers)?.to_string().into();
    let request = ApiRequest { method, path, query, headers, body };
    if request.part(0) == "composite" && request.path.len() == 1 {
        return Err(SalesforceError::bad("INVALID_INPUT", "a composite request can't hold another one"));
    }
    let (_, resource) = routes::find(&request)?;
    tx.attempt(|tx| resource(tx, version, &request))
}

fn resolve(value: Value, answers: &BTreeMap<String, Value>) -> Result<Value, SalesforceError> {
    Ok(match value {
        Value::String(text) => Value::String(resolve_text(&text, answers)?),
        Value::Array(list) => {
            Value::Array(list.into_iter().map(|item| resolve(item, answers)).collect::<Result<_, _>>()?)
        }
        Value::Object(object) => {
            let resolved = object.into_iter().map(|(name, item)| Ok((name, resolve(item, answers)?)));
            Value::Object(resolved.collect::<Result<_, SalesforceError>>()?)
        }
        other => other,
    })
}

/// Replaces each `@{reference.path[0].field}` by the earlier answer's value.
fn resolve_text(text: &str, answers: &BTreeMap<String, Value>) -> Result<String, SalesforceError> {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("@{") {
        let Some((expression, tail)) = after.split_once('}') else {
            break;
        };
        let mut parts = expression.split(['.', '[', ']']).filter(|part| !part.is_empty());
        let mut value = parts.next().and_then(|reference| answers.get(reference));
        for part in parts {
            value = value.and_then(|value| match part.parse::<usize>() {
                Ok(index) => value.get(index),
                Err(_) => value.get(part),
            });
        }
        let value = value.ok_or_else(|| {
            let message = format!("Invalid reference specified. No value for {expression} found");
            SalesforceError::bad("PROCESSING_HALTED", message)
        })?;
        resolved.push_str(before);
        resolved.push_str(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        rest = tail;
    }
    resolved.push_str(rest);
    Ok(resolved)
}
