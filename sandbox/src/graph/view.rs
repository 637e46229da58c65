//! Writing items as the JSON that Graph answers.

use chrono::DateTime;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::ids::{IdForm, etag};
use super::mailbox::{Item, Mailbox};
use super::recurrence::Recurrence;
use super::zones::{Zone, graph_instant};

/// How a client wants events written.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    /// Zone of `start` and `end`.
    pub zone: Zone,
    /// Bodies as text.
    pub text_bodies: bool,
    /// Which ids.
    pub form: IdForm,
}

impl Default for Style {
    fn default() -> Self {
        Self { zone: Zone::utc(), text_bodies: false, form: IdForm::Mutable }
    }
}

/// Writes an event without extended properties, which are only answered when expanded.
pub(crate) fn event(mailbox: &Mailbox, item: &Item, style: &Style) -> Value {
    let content = &item.content;
    let id = mailbox.event_id(style.form, item.key);
    let attendees: Vec<Value> = content
        .attendees
        .iter()
        .map(|attendee| {
            json!({"type": attendee.kind, "status": attendee.response.render(),
                "emailAddress": {"name": attendee.person.name, "address": attendee.person.address}})
        })
        .collect();
    let body = if style.text_bodies {
        json!({"contentType": "text", "content": content.body.text})
    } else {
        json!({"contentType": "html", "content": content.body.html})
    };
    let online = content
        .is_online_meeting
        .then(|| json!({"joinUrl": format!("https://teams.microsoft.com/l/meetup-join/{}", item.key.item.simple())}));
    let mut event = json!({
        "@odata.etag": etag(&item.change_key),
        "id": id,
        "changeKey": item.change_key,
        "createdDateTime": graph_instant(item.created),
        "lastModifiedDateTime": graph_instant(item.modified),
        "categories": content.categories,
        "originalStartTimeZone": content.start.zone.name,
        "originalEndTimeZone": content.end.zone.name,
        "iCalUId": item.ical_uid,
        "reminderMinutesBeforeStart": content.reminder_minutes,
        "isReminderOn": content.is_reminder_on,
        "hasAttachments": false,
        "subject": content.subject,
        "bodyPreview": content.body.preview(),
        "importance": content.importance,
        "sensitivity": content.sensitivity,
        "isAllDay": content.is_all_day,
        "isCancelled": false,
        "isOrganizer": item.is_organizer,
        "responseRequested": content.response_requested,
        "seriesMasterId": item.key.original.map(|_| mailbox.event_id(style.form, item.key.master())),
        "showAs": content.show_as,
        "type": item.kind(),
        "webLink": format!("https://outlook.office365.com/owa/?itemid={}&exvsurl=1&path=/calendar/item",
            utf8_percent_encode(&id, NON_ALPHANUMERIC)),
        "onlineMeetingUrl": Value::Null,
        "isOnlineMeeting": content.is_online_meeting,
        "onlineMeetingProvider": content.online_meeting_provider,
        "allowNewTimeProposals": content.allow_new_time_proposals,
        "isDraft": false,
        "hideAttendees": content.hide_attendees,
        "responseStatus": item.response.render(),
        "body": body,
        "start": content.start.render(&style.zone, content.is_all_day),
        "end": content.end.render(&style.zone, content.is_all_day),
        "location": content.location(),
        "locations": content.locations,
        "recurrence": content.recurrence.as_ref().map_or(Value::Null, Recurrence::render),
        "attendees": attendees,
        "organizer": item.organizer.render(),
        "onlineMeeting": online,
    });
    if let Some(transaction) = &item.transaction_id {
        event["transactionId"] = json!(transaction);
    }
    if let Some(original) = item.key.original.and_then(|at| DateTime::from_timestamp(at, 0)) {
        event["originalStart"] = json!(graph_instant(original));
    }
    event
}

/// Writes the extended properties of an item that a filter lets through.
pub(crate) fn extended(item: &Item, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    item.content
        .extended
        .iter()
        .map(|(id, value)| json!({"id": id, "value": value}))
        .filter(|property| wanted(property))
        .collect()
}

/// Writes the ids of deleted occurrences of a series, which are answered only when selected.
///
/// The form `OID.<series>.<date>` is unconfirmed.
pub(crate) fn cancelled_occurrences(mailbox: &Mailbox, item: &Item, form: IdForm) -> Vec<String> {
    let series = mailbox.event_id(form, item.key);
    item.cancelled
        .iter()
        .filter_map(|original| DateTime::from_timestamp(*original, 0))
        .map(|at| format!("OID.{series}.{}", item.content.start.zone.local(at).date()))
        .collect()
}
