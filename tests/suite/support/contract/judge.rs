//! Holds one exchange, the items of a `$batch`, or a hub message against a description.

use std::fmt;

use calbridge_sandbox::tap::{Exchange, Payload};
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Value, json};

use super::spec::{Contract, Expected, Operation};

/// Longest text of one fault: enough to find it, short of a whole calendar.
const SHOWN: usize = 500;

/// How the validation message of a new subscription begins; all its other values are `NA`.
///
/// It breaks the description of a notification on purpose (`NA` is no guid and no time), so it has a form of its own:
/// <https://learn.microsoft.com/graph/change-notifications-delivery-event-hubs>.
const VALIDATION: &str = "Validation: Testing client application reachability for subscription Request-Id: ";

/// What is wrong with something that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Method and path as sent with the status of the answer, or `hub message`.
    pub(crate) what: String,
    /// Part that is wrong, such as `request body`.
    pub(crate) part: &'static str,
    /// JSON pointer into that part; empty for all of it.
    pub(crate) pointer: String,
    /// What the description says about it.
    pub(crate) message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at `{}`: {}", self.what, self.part, self.pointer, self.message)
    }
}

/// Collects the faults of one exchange.
struct Faults<'a> {
    contract: &'a Contract,
    what: String,
    found: Vec<Fault>,
}

impl Faults<'_> {
    fn add(&mut self, part: &'static str, pointer: impl Into<String>, message: impl Into<String>) {
        let message: String = message.into().chars().take(SHOWN).collect();
        self.found.push(Fault { what: self.what.clone(), part, pointer: pointer.into(), message });
    }

    fn check(&mut self, part: &'static str, schema: &Value, value: &Value) {
        let validator = self.contract.validator(schema);
        for error in validator.iter_errors(value) {
            let (pointer, message) = innermost(&error);
            self.add(part, pointer, message);
        }
    }
}

/// Follows a fault inside alternatives to the one that comes closest: `null` is an alternative almost everywhere.
fn innermost(error: &ValidationError<'_>) -> (String, String) {
    if let ValidationErrorKind::AnyOf { context } = error.kind() {
        let depth = |error: &ValidationError<'_>| innermost(error).0.matches('/').count();
        let closest = context.iter().flatten().max_by_key(|inner| depth(inner));
        if let Some(inner) = closest.filter(|inner| depth(inner) > error.instance_path().as_str().matches('/').count())
        {
            return innermost(inner);
        }
        let all: Vec<String> = context.iter().flatten().map(ToString::to_string).collect();
        return (error.instance_path().to_string(), all.join("; nor: "));
    }
    (error.instance_path().to_string(), error.to_string())
}

impl Contract {
    /// Judges one exchange as it is; returns the operation it belongs to, and what is wrong.
    pub(crate) fn judge(&self, exchange: &Exchange) -> (Option<&str>, Vec<Fault>) {
        let what = format!("{} {} -> {}", exchange.method, exchange.path, exchange.status);
        let mut faults = Faults { contract: self, what, found: Vec::new() };
        let Some(operation) = self.find(&exchange.method, &exchange.path) else {
            faults.add("path", "", "the description has no such operation");
            return (None, faults.found);
        };
        parameters(&mut faults, operation, exchange);
        request(&mut faults, operation, exchange);
        answer(&mut faults, operation, exchange);
        (Some(operation.name.as_str()), faults.found)
    }

    /// Takes the items of a `$batch` apart: each becomes an exchange of its own. Those without an answer are faults.
    pub(crate) fn items(&self, exchange: &Exchange) -> (Vec<Exchange>, Vec<Fault>) {
        let mut faults = Faults { contract: self, what: "POST /$batch".to_owned(), found: Vec::new() };
        let mut items = Vec::new();
        if exchange.path != "/$batch" || exchange.status != 200 {
            return (items, faults.found);
        }
        let (Payload::Json(requests), Payload::Json(responses)) = (&exchange.body, &exchange.answer) else {
            return (items, faults.found);
        };
        let requests = requests["requests"].as_array().cloned().unwrap_or_default();
        let responses = responses["responses"].as_array().cloned().unwrap_or_default();
        for (number, request) in requests.iter().enumerate() {
            let matching: Vec<&Value> = responses.iter().filter(|one| one["id"] == request["id"]).collect();
            match matching.as_slice() {
                [response] => items.push(item(request, response)),
                others => {
                    let message = format!("item {} has {} answers", request["id"], others.len());
                    faults.add("response body", format!("/requests/{number}"), message);
                }
            }
        }
        if responses.len() > requests.len() {
            faults.add("response body", "/responses", "there are more answers than requests");
        }
        (items, faults.found)
    }

    /// Judges one message on the hub; returns how many notifications it holds, and what is wrong.
    pub(crate) fn message(&self, message: &Payload) -> (usize, Vec<Fault>) {
        let mut faults = Faults { contract: self, what: "hub message".to_owned(), found: Vec::new() };
        let Payload::Json(message) = message else {
            faults.add("message", "", "it is no JSON");
            return (0, faults.found);
        };
        if message["value"][0]["subscriptionId"] == "NA" {
            let asked = message["value"][0]["changeType"].as_str().and_then(|text| text.strip_prefix(VALIDATION));
            let id = asked.unwrap_or_default();
            let expected = json!({"value": [{
                "subscriptionId": "NA", "subscriptionExpirationDateTime": "NA", "clientState": "NA",
                "changeType": format!("{VALIDATION}{id}"), "resource": "NA",
                "resourceData": {"@odata.type": "NA", "@odata.id": "NA", "id": "NA"},
            }]});
            if uuid::Uuid::parse_str(id).is_err() || *message != expected {
                faults.add("message", "/value/0", "it is neither a notification nor a validation message");
            }
            return (0, faults.found);
        }
        let schema = json!({"$ref": "#/components/schemas/microsoft.graph.changeNotificationCollection"});
        faults.check("message", &schema, message);
        let notifications = message["value"].as_array().map(Vec::len);
        if notifications == Some(0) {
            faults.add("message", "/value", "it holds no notification");
        }
        (notifications.unwrap_or_default(), faults.found)
    }
}

fn parameters(faults: &mut Faults<'_>, operation: &Operation, exchange: &Exchange) {
    let query: Vec<(String, String)> = url::form_urlencoded::parse(exchange.query.as_bytes()).into_owned().collect();
    for parameter in &operation.parameters {
        let (part, given) = if parameter.is_header {
            let name = parameter.name.to_lowercase();
            ("header", exchange.headers.iter().find(|(given, _)| *given == name))
        } else {
            ("query", query.iter().find(|(given, _)| *given == parameter.name))
        };
        match given {
            Some((_, value)) => faults.check(part, &parameter.schema, &json!(value)),
            None if parameter.required => faults.add(part, "", format!("`{}` is missing", parameter.name)),
            None => {}
        }
    }
    // Headers that are not declared are HTTP's own business; an undeclared query option is one that Graph refuses here.
    for (name, _) in &query {
        if !operation.parameters.iter().any(|known| !known.is_header && known.name == *name) {
            faults.add("query", "", format!("`{name}` is no parameter of this operation"));
        }
    }
    for (number, (name, _)) in query.iter().enumerate() {
        if query.iter().take(number).any(|(earlier, _)| earlier == name) {
            faults.add("query", "", format!("`{name}` is given twice"));
        }
    }
}

fn request(faults: &mut Faults<'_>, operation: &Operation, exchange: &Exchange) {
    let part = "request body";
    match (&operation.body, &exchange.body) {
        (Some(body), Payload::Json(value)) => {
            is_json(faults, part, &exchange.headers);
            faults.check(part, &body.schema, value);
        }
        (_, Payload::Other) => faults.add(part, "", "it is no JSON"),
        (Some(body), Payload::None) if body.required => faults.add(part, "", "it is missing"),
        (None, Payload::Json(_)) => faults.add(part, "", "this operation takes none"),
        (_, Payload::None) => {}
    }
}

fn answer(faults: &mut Faults<'_>, operation: &Operation, exchange: &Exchange) {
    let part = "response body";
    match (operation.answer(exchange.status), &exchange.answer) {
        (Expected::Undeclared, _) => faults.add("status", "", format!("{} is not declared", exchange.status)),
        (Expected::Json(schema), Payload::Json(value)) => {
            is_json(faults, part, &exchange.answer_headers);
            faults.check(part, schema, value);
        }
        (Expected::Json(_), Payload::None) => faults.add(part, "", "it is missing"),
        (Expected::Json(_), Payload::Other) => faults.add(part, "", "it is no JSON"),
        (Expected::NoBody, Payload::None) => {}
        (Expected::NoBody, _) => faults.add(part, "", "this status has none"),
    }
}

fn is_json(faults: &mut Faults<'_>, part: &'static str, headers: &[(String, String)]) {
    let given = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
    let kind = given.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if kind != "application/json" {
        faults.add(part, "", format!("its Content-Type is {given:?}, not application/json"));
    }
}

fn item(request: &Value, response: &Value) -> Exchange {
    let url = request["url"].as_str().unwrap_or_default();
    let url = format!("/{}", url.trim_start_matches('/'));
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    let payload = |body: Option<&Value>| match body {
        None | Some(Value::Null) => Payload::None,
        Some(body) => Payload::Json(body.clone()),
    };
    Exchange {
        method: request["method"].as_str().unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: headers(&request["headers"]),
        body: payload(request.get("body")),
        status: response["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default(),
        answer_headers: headers(&response["headers"]),
        answer: payload(response.get("body")),
        cut: false,
    }
}

fn headers(headers: &Value) -> Vec<(String, String)> {
    let given = headers.as_object().into_iter().flatten();
    given.map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap_or_default().to_owned())).collect()
}
