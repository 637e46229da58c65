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
