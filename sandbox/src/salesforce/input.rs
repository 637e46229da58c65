//! From a client's JSON object to typed values: names, types, lengths, picklists, write permission.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::cell::{Cell, parse_datetime, whole_second};
use super::error::SalesforceError;
use super::ids;
use super::schema::{Field, Kind, Object};
use crate::faults::Switches;

/// Values by API field name; absent means null.
pub(crate) type Cells = BTreeMap<&'static str, Cell>;

/// Whether a row is being created or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Create,
    Update,
}

/// Converts the fields that a client sent.
pub(crate) fn convert(
    object: Object,
    fields: &Map<String, Value>,
    write: Write,
    switches: &Switches,
) -> Result<Cells, SalesforceError> {
    let mut cells = Cells::new();
    let mut closed = Vec::new();
    for (name, value) in fields {
        if name == "attributes" {
            continue;
        }
        let Some(field) = object.field(name, switches) else {
            let message = format!("No such column '{name}' on sobject of type {}", object.name());
            return Err(SalesforceError::bad("INVALID_FIELD", message));
        };
        if field.name == "Id" {
            let message = "The Id field should not be specified in the sobject data.";
            return Err(SalesforceError::bad("INVALID_FIELD", message));
        }
        let open = if write == Write::Create { field.create } else { field.update };
        if !open {
            closed.push(field.name);
            continue;
        }
        cells.insert(field.name, cell(field, value)?);
    }
    if closed.is_empty() {
        return Ok(cells);
    }
    let message = format!(
        "Unable to create/update fields: {}. Please check the security settings of this field and verify that it is \
         read/write for your profile or permission set.",
        closed.join(", ")
    );
    let error = SalesforceError::bad("INVALID_FIELD_FOR_INSERT_UPDATE", message);
    Err(closed.into_iter().fold(error, SalesforceError::field))
}

fn cell(field: &Field, value: &Value) -> Result<Cell, SalesforceError> {
    if value.is_null() {
        return if field.kind == Kind::Bool {
            let message = format!("{}: value not of required type: null", field.label);
            Err(SalesforceError::bad("INVALID_TYPE_ON_FIELD_IN_RECORD", message).field(field.name))
        } else {
            Ok(Cell::Null)
        };
    }
    match field.kind {
        Kind::Bool => match value {
            Value::Bool(flag) => Ok(Cell::Bool(*flag)),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(Cell::Bool(true)),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(Cell::Bool(false)),
            _ => Err(undeserialisable("boolean", value)),
        },
        Kind::Int => integer(value).map(Cell::Int).ok_or_else(|| undeserialisable("int", value)),
        Kind::DateTime => match value.as_str() {
            Some("") => Ok(Cell::Null),
            Some(text) => parse_datetime(text)
                .map(|at| Cell::DateTime(whole_second(at)))
                .ok_or_else(|| undeserialisable("datetime", value)),
            None => Err(undeserialisable("datetime", value)),
        },
        Kind::Date => match value.as_str() {
            Some("") => Ok(Cell::Null),
            Some(text) => text
                .parse()
                .ok()
                .or_else(|| parse_datetime(text).map(|at| at.date_naive()))
                .map(Cell::Date)
                .ok_or_else(|| undeserialisable("date", value)),
            None => Err(undeserialisable("date", value)),
        },
        Kind::Id | Kind::Reference(_) => reference(field, value),
        Kind::Text | Kind::Combobox | Kind::TextArea | Kind::Picklist(_) | Kind::Restricted(_) => text(field, value),
    }
}

fn integer(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    if let Some(text) = value.as_str() {
        return text.parse().ok();
    }
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e9)?;
    format!("{number:.0}").parse().ok()
}

fn text(field: &Field, value: &Value) -> Result<Cell, SalesforceError> {
    let raw = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => return Err(undeserialisable("string", value)),
    };
    // Salesforce trims text; line ends inside a long text stay as they are.
    let text = raw.trim();
    if text.chars().count() > field.length {
        let message = format!("{}: data value too large: {text} (max length={})", field.label, field.length);
        return Err(SalesforceError::bad("STRING_TOO_LONG", message).field(field.name));
    }
    if let Kind::Restricted(values) = field.kind
        && !text.is_empty()
        && !values.contains(&text)
    {
        let message = format!("{}: bad value for restricted picklist field: {text}", field.label);
        return Err(SalesforceError::bad("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message).field(field.name));
    }
    Ok(Cell::text(text))
}

fn reference(field: &Field, value: &Value) -> Result<Cell, SalesforceError> {
    let Some(text) = value.as_str() else {
        return Err(undeserialisable("reference", value));
    };
    if text.is_empty() {
        return Ok(Cell::Null);
    }
    let Some(id) = ids::normalise(text) else {
        return Err(SalesforceError::malformed_id(field.label, text));
    };
    let accepted = match field.name {
        "WhoId" => id.starts_with("003") || id.starts_with("00Q"),
        "WhatId" => !["003", "00Q", ids::USER, ids::EVENT].iter().any(|prefix| id.starts_with(prefix)),
        "EventId" => id.starts_with(ids::EVENT),
        "OwnerId" => id.starts_with(ids::USER) || id.starts_with("023"),
        _ => true,
    };
    if accepted { Ok(Cell::Text(id)) } else { Err(SalesforceError::malformed_id(field.label, text)) }
}

fn undeserialisable(kind: &str, value: &Value) -> SalesforceError {
    let (token, shown) = match value {
        Value::String(text) => ("VALUE_STRING", text.clone()),
        Value::Number(number) => ("VALUE_NUMBER", number.to_string()),
        Value::Bool(flag) => (if *flag { "VALUE_TRUE" } else { "VALUE_FALSE" }, flag.to_string()),
        Value::Array(_) => ("START_ARRAY", "[".to_owned()),
        Value::Object(_) => ("START_OBJECT", "{".to_owned()),
        Value::Null => ("VALUE_NULL", "null".to_owned()),
    };
    SalesforceError::bad(
        "JSON_PARSER_ERROR",
        format!(
            "Cannot deserialize instance of {kind} from {token} value {shown} or request may be missing a required field"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(fields: &Value) -> Result<Cells, SalesforceError> {
        convert(Object::Event, fields.as_object().unwrap(), Write::Create, &Switches::default())
    }

    #[test]
    fn each_mistake_has_its_own_code() {
        for (fields, code) in [
            (json!({"Nonsense": 1}), "INVALID_FIELD"),
            (json!({"CreatedDate": "2026-01-01T00:00:00Z"}), "INVALID_FIELD_FOR_INSERT_UPDATE"),
            (json!({"Subject": "x".repeat(256)}), "STRING_TOO_LONG"),
            (json!({"ShowAs": "Tentative"}), "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
            (json!({"StartDateTime": "tomorrow"}), "JSON_PARSER_ERROR"),
            (json!({"IsAllDayEvent": null}), "INVALID_TYPE_ON_FIELD_IN_RECORD"),
            (json!({"WhoId": "someone"}), "MALFORMED_ID"),
            (json!({"WhoId": "00U000000000001"}), "MALFORMED_ID"),
        ] {
            assert_eq!(event(&fields).unwrap_err().code, code, "{fields}");
        }
    }

    #[test]
    fn text_is_trimmed_and_empty_text_is_null() {
        let cells = event(&json!({"Subject": "  Review ", "Location": ""})).unwrap();
        assert_eq!(cells["Subject"], Cell::Text("Review".into()));
        assert_eq!(cells["Location"], Cell::Null);
    }

    #[test]
    fn instants_lose_their_fraction() {
        let cells = event(&json!({"StartDateTime": "2026-11-20T17:00:00.987Z"})).unwrap();
        assert_eq!(cells["StartDateTime"].to_json(), json!("2026-11-20T17:00:00.000+0000"));
    }
}
