//! Reads an OpenAPI 3.1 description: which operations there are, and the schemas of their bodies.
//!
//! A schema of OpenAPI 3.1 is one of JSON Schema 2020-12 (<https://spec.openapis.org/oas/v3.1.0#schema-object>).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jsonschema::{Draft, Validator};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// Paths that the engine uses and the description lacks, each with the schema that its answer is held against.
///
/// `mailboxSettings`: the description holds the resource, as a property of `user`, but not its own address
/// (<https://learn.microsoft.com/graph/api/user-get-mailboxsettings>).
const ADDED: [(&str, &str); 1] =
    [("/users/{user-id}/mailboxSettings", "#/components/schemas/microsoft.graph.mailboxSettings")];

/// A description, ready to judge.
pub(crate) struct Contract {
    pub(super) operations: Vec<Operation>,
    components: Value,
    compiled: Mutex<BTreeMap<String, Arc<Validator>>>,
}

/// One method of one path.
pub(super) struct Operation {
    /// Method and path template.
    pub(super) name: String,
    method: String,
    template: Vec<String>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// Schema of the body by status such as `200` or `4XX`; none where no body comes.
    pub(super) answers: BTreeMap<String, Option<Value>>,
}

/// A query parameter or a header.
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) is_header: bool,
    pub(super) required: bool,
    pub(super) schema: Value,
}

/// What a description says of the answer with some status.
pub(super) enum Expected<'a> {
    /// There is no such answer.
    Undeclared,
    /// It has no body.
    NoBody,
    /// Its body fits this schema.
    Json(&'a Value),
}

/// The body of a request.
pub(super) struct Body {
    pub(super) required: bool,
    pub(super) schema: Value,
}

impl Contract {
    /// Reads a description; it is ours to choose, so one that cannot be read fails the test.
    pub(crate) fn read(document: &Value) -> Self {
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().expect("a description has paths") {
            for (method, operation) in item.as_object().expect("a path is an object") {
                if method != "parameters" {
                    operations.push(Operation::read(document, path, method, operation));
                }
            }
        }
        let is_real = document.pointer("/components/schemas/microsoft.graph.mailboxSettings").is_some();
        for (path, schema) in ADDED.iter().filter(|_| is_real) {
            let failure = json!({"$ref": "#/components/responses/error"});
            let content = json!({"application/json": {"schema": {"$ref": schema}}});
            let added = json!({"responses": {"200": {"content": content}, "4XX": failure, "5XX": failure}});
            operations.push(Operation::read(document, path, "get", &added));
        }
        // Where two templates fit, that with more words of its own is meant: `/users/delta` is no user.
        operations.sort_by_key(|operation| operation.template.iter().filter(|piece| is_variable(piece)).count());
        Self { operations, components: document["components"].clone(), compiled: Mutex::default() }
    }

    /// Finds the operation of a method and a path as sent.
    pub(super) fn find(&self, method: &str, path: &str) -> Option<&Operation> {
        let pieces: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(|piece| percent_decode_str(piece).decode_utf8_lossy().into_owned())
            .collect();
        self.operations.iter().find(|operation| operation.method == method && operation.fits(&pieces))
    }

    /// Returns the validator of a schema; compiled once.
    pub(super) fn validator(&self, schema: &Value) -> Arc<Validator> {
        let key = schema.to_string();
        let mut compiled = self.compiled.lock().expect("no compilation panics while holding the lock");
        let made = compiled.entry(key).or_insert_with(|| {
            let rooted = json!({"allOf": [schema], "components": self.components});
            let options = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true)
                .with_format("time", is_time_of_day);
            Arc::new(options.build(&rooted).unwrap_or_else(|error| panic!("{schema} is no schema: {error}")))
        });
        Arc::clone(made)
    }
}

impl Operation {
    fn read(document: &Value, path: &str, method: &str, operation: &Value) -> Self {
        let resolve = |value: &Value| match value["$ref"].as_str() {
            Some(reference) => {
                document.pointer(reference.trim_start_matches('#')).expect("a reference leads somewhere").clone()
            }
            None => value.clone(),
        };
        let schema_of = |part: &Value| part.pointer("/content/application~1json/schema").cloned();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let body = operation.get("requestBody").map(|body| Body {
            required: body["required"] == true,
            schema: schema_of(body).expect("request bodies are JSON"),
        });
        let answers = operation["responses"].as_object().expect("an operation has responses").iter();
        Self {
            name: format!("{} {path}", method.to_uppercase()),
            method: method.to_uppercase(),
            template: path.trim_start_matches('/').split('/').map(str::to_owned).collect(),
            parameters: parameters.iter().filter_map(|parameter| Parameter::read(&resolve(parameter))).collect(),
            body,
            answers: answers.map(|(status, answer)| (status.clone(), schema_of(&resolve(answer)))).collect(),
        }
    }

    fn fits(&self, pieces: &[String]) -> bool {
        self.template.len() == pieces.len()
            && self
                .template
                .iter()
                .zip(pieces)
                .all(|(wanted, given)| if is_variable(wanted) { !given.is_empty() } else { wanted == given })
    }

    /// Returns what the description says of a status.
    pub(super) fn answer(&self, status: u16) -> Expected<'_> {
        let class = format!("{}XX", status / 100);
        match self.answers.get(&status.to_string()).or_else(|| self.answers.get(&class)) {
            None => Expected::Undeclared,
            Some(None) => Expected::NoBody,
            Some(Some(schema)) => Expected::Json(schema),
        }
    }
}

impl Parameter {
    fn read(parameter: &Value) -> Option<Self> {
        let is_header = match parameter["in"].as_str()? {
            "query" => false,
            "header" => true,
            // Those of the path are the template's.
            _ => return None,
        };
        Some(Self {
            name: parameter["name"].as_str()?.to_owned(),
            is_header,
            required: parameter["required"] == true,
            schema: parameter["schema"].clone(),
        })
    }
}

/// Tells whether a text is an `Edm.TimeOfDay`, which is what `time` stands for in a description made from Microsoft's
/// metadata: a time without an offset, up to 12 digits of a second
/// (<https://docs.oasis-open.org/odata/odata-csdl-json/v4.01/odata-csdl-json-v4.01.html>); Graph's own sample of working
/// hours is `08:00:00.0000000` (<https://learn.microsoft.com/graph/api/user-get-mailboxsettings>).
fn is_time_of_day(text: &str) -> bool {
    let (time, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = (1..=12).contains(&fraction.len()) && fraction.bytes().all(|digit| digit.is_ascii_digit());
    digits && time.len() == 8 && chrono::NaiveTime::parse_from_str(time, "%H:%M:%S").is_ok()
}

fn is_variable(piece: &str) -> bool {
    piece.starts_with('{')
}
