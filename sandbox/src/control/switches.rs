//! Switches by name, with a hint where a name is misspelt.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Map, Value};

use super::answer::{Refusal, object};
use crate::assembly::Clouds;
use crate::faults::{Faults, Switches};

/// `GET /switches`
pub(super) async fn read(State(clouds): State<Arc<Clouds>>) -> Json<Switches> {
    Json(clouds.world.faults.read())
}

/// `PATCH /switches`
pub(super) async fn change(State(clouds): State<Arc<Clouds>>, body: Bytes) -> Result<Json<Switches>, Refusal> {
    let changes = object(&body)?;
    apply(&clouds.world.faults, &changes).map_err(Refusal::bad_request)?;
    Ok(Json(clouds.world.faults.read()))
}

/// Applies all changes or none; the error names every wrong one.
fn apply(faults: &Faults, changes: &Map<String, Value>) -> Result<(), String> {
    let known = as_object(&Switches::default());
    let mut problems = Vec::new();
    for (name, value) in changes {
        match known.get(name) {
            None => problems.push(format!("`{name}` is not a switch; did you mean `{}`?", nearest(name, &known))),
            Some(Value::Bool(_)) if !value.is_boolean() => problems.push(format!("`{name}` takes true or false")),
            Some(Value::Number(_)) if value.as_u64().is_none_or(|number| number > u64::from(u32::MAX)) => {
                problems.push(format!("`{name}` takes a count from 0 to {}", u32::MAX));
            }
            Some(_) => {}
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let mut outcome = Ok(());
    faults.change(|switches| {
        let mut merged = as_object(switches);
        merged.extend(changes.clone());
        match serde_json::from_value(Value::Object(merged)) {
            Ok(changed) => *switches = changed,
            Err(error) => outcome = Err(error.to_string()),
        }
    });
    outcome
}

fn as_object(switches: &Switches) -> Map<String, Value> {
    match serde_json::to_value(switches) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// The known name that takes the fewest changes to reach.
fn nearest(name: &str, known: &Map<String, Value>) -> String {
    known.keys().min_by_key(|candidate| distance(name, candidate)).cloned().unwrap_or_default()
}

/// Levenshtein distance over characters, of the first 64.
fn distance(one: &str, two: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let two: Vec<char> = two.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, left) in one.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in two.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(faults: &Faults, changes: &Value) -> Result<(), String> {
        apply(faults, changes.as_object().unwrap())
    }

    #[test]
    fn a_partial_object_changes_only_what_it_names() {
        let faults = Faults::default();
        change(&faults, &json!({ "outlook_if_match": false, "hub_drop_next": 2 })).unwrap();
        let now = faults.read();
        assert_eq!(now, Switches { outlook_if_match: false, hub_drop_next: 2, ..Switches::default() });
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest_one_and_nothing_changes() {
        let faults = Faults::default();
        let error = change(&faults, &json!({ "hub_drop_next": 1, "outlok_ifmatch": false })).unwrap_err();
        assert!(error.contains("did you mean `outlook_if_match`?"), "{error}");
        assert_eq!(faults.read(), Switches::default());
    }

    #[test]
    fn wrong_types_are_all_named_at_once() {
        let error = change(
            &Faults::default(),
            &json!({ "hub_drop_next": -1, "outlook_if_match": "no", "salesforce_limit_next": 1.5 }),
        )
        .unwrap_err();
        assert_eq!(error.matches("takes").count(), 3, "{error}");
    }
}
