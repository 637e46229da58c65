//! Bodies of meetings as people make them.

use serde_json::{Map, Value, json};

/// An Outlook event without attendees.
pub(crate) fn in_outlook(subject: &str) -> Value {
    json!({
        "subject": subject,
        "body": {"contentType": "text", "content": "agenda\nas always"},
        "start": {"dateTime": "2026-12-01T10:00:00", "timeZone": "W. Europe Standard Time"},
        "end": {"dateTime": "2026-12-01T11:00:00", "timeZone": "W. Europe Standard Time"},
        "location": {"displayName": "Room 1"},
        "showAs": "busy",
    })
}

/// A Salesforce event without invitees.
pub(crate) fn in_salesforce(subject: &str) -> Map<String, Value> {
    let fields = json!({
        "Subject": subject,
        "Description": "agenda\nas always",
        "StartDateTime": "2026-12-01T09:00:00.000Z",
        "EndDateTime": "2026-12-01T10:00:00.000Z",
        "Location": "Room 1",
        "ShowAs": "Busy",
    });
    fields.as_object().cloned().expect("it is an object")
}

/// An Outlook event without attendees that lasts whole days; `after` is the day after its last one.
pub(crate) fn all_day_in_outlook(subject: &str, zone: &str, first: &str, after: &str) -> Value {
    json!({
        "subject": subject,
        "isAllDay": true,
        "start": {"dateTime": format!("{first}T00:00:00"), "timeZone": zone},
        "end": {"dateTime": format!("{after}T00:00:00"), "timeZone": zone},
        "showAs": "free",
    })
}

/// Fields that give a Salesforce event whole days; `last` is inclusive.
pub(crate) fn all_day_in_salesforce(first: &str, last: &str) -> Map<String, Value> {
    let midnight = |day: &str| format!("{day}T00:00:00.000Z");
    fields(json!({"IsAllDayEvent": true, "StartDateTime": midnight(first), "EndDateTime": midnight(last)}))
}

/// An Outlook event with attendees.
pub(crate) fn with_attendees(subject: &str, addresses: &[&str]) -> Value {
    let mut event = in_outlook(subject);
    let attendee = |address: &&str| json!({"type": "required", "emailAddress": {"address": address, "name": address}});
    event["attendees"] = addresses.iter().map(attendee).collect();
    event
}

/// Takes the fields out of a JSON object.
pub(crate) fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        other => panic!("an object was expected: {other}"),
    }
}

/// Returns a record's id: `id` in Outlook, `Id` in Salesforce.
pub(crate) fn id_of(record: &Value) -> String {
    let id = record["id"].as_str().or_else(|| record["Id"].as_str());
    id.expect("every record has an id").to_owned()
}
