//! Graph's event JSON to the core's [`Snapshot`], and an [`Intent`]'s values to Graph's JSON.
//!
//! Times: instants are read in UTC; whole days are read as dates, never through a zone. A private event gives its time
//! and nothing else, so that its words cannot get anywhere.

use calbridge_core::ids::{MailboxId, RecordId};
use calbridge_core::link::{Action, Intent};
use calbridge_core::mapping::TIME;
use calbridge_core::observed::{RecordKind, Snapshot, Stamp, Traits};
use calbridge_core::signal::Version;
use calbridge_core::value::{Fields, Value, When};
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value as Json, json};

use super::client::read;
use super::error::{self, remote};
use super::wire::{DateTimeTimeZone, Event, change_key};
use super::zones;
use crate::ports::{RemoteError, Retry};

/// The extended property that holds the stamp; the guid is calbridge's own, the name is case-sensitive in filters.
///
/// <https://learn.microsoft.com/graph/api/resources/extended-properties-overview>
pub const STAMP_PROPERTY: &str = "String {b3c0f0a2-6f0d-4f6e-9d5e-2f6b7c1a9e44} Name calbridge";

/// Name of the field that holds the body as text.
const BODY: &str = "body.text";
/// Graph keeps a time as text without offset.
const LOCAL_TIME: &str = "%Y-%m-%dT%H:%M:%S%.6f";
/// Properties that every read needs, whatever the mapping says.
const NEEDED: &[&str] = &[
    "id",
    "changeKey",
    "iCalUId",
    "createdDateTime",
    "lastModifiedDateTime",
    "start",
    "end",
    "originalStartTimeZone",
    "isAllDay",
    "isOrganizer",
    "organizer",
    "attendees",
    "sensitivity",
    "isCancelled",
    "isDraft",
    "type",
    "originalStart",
];

/// Returns the value of `$select` for the fields that a mapping names.
pub(super) fn select(fields: &[String]) -> String {
    let mut names: Vec<&str> = NEEDED.to_vec();
    for field in fields.iter().filter(|field| *field != TIME) {
        let top = field.split('.').next().unwrap_or(field);
        if !top.is_empty() && !names.contains(&top) {
            names.push(top);
        }
    }
    names.join(",")
}

/// Reads an event of a mailbox; `fields` are the names that the mapping asks for.
///
/// # Errors
/// `CB1312` when the JSON is not an event.
pub(super) fn snapshot(
    mailbox: &MailboxId,
    json: &Json,
    fields: &[String],
    read_at: DateTime<Utc>,
) -> Result<Snapshot, RemoteError> {
    let event: Event = read(json, "event")?;
    let version =
        event.change_key.clone().or_else(|| event.etag.as_deref().and_then(change_key).map(str::to_owned)).ok_or_else(
            || remote(error::UNREADABLE, "Graph's event has no version", Retry::After(std::time::Duration::ZERO)),
        )?;
    let traits = traits(&event);
    let mut values = Fields::new();
    for field in fields {
        let value = if field == TIME {
            when(&event).map_or(Value::Null, Value::When)
        } else if traits.private {
            continue;
        } else {
            field_value(json, field)
        };
        values.insert(field.clone(), value);
    }
    let modified = event.last_modified_date_time.or(event.created_date_time).unwrap_or(read_at);
    Ok(Snapshot {
        record: RecordId::Outlook { mailbox: mailbox.clone(), event: event.id.clone() },
        version: Version::ChangeKey(version),
        read_at,
        created: event.created_date_time.unwrap_or(modified),
        modified,
        modified_by: None,
        stamp: stamp(&event),
        traits,
        fields: values,
    })
}

fn traits(event: &Event) -> Traits {
    let organizer = event.organizer.as_ref().and_then(super::wire::Recipient::address);
    let invited = event.attendees.iter().flatten().filter(|attendee| {
        let address = attendee.address();
        address.is_none() || address != organizer
    });
    let sensitivity = event.sensitivity.as_deref().unwrap_or_default();
    let kind = match event.kind.as_deref().unwrap_or_default().to_ascii_lowercase().as_str() {
        "seriesmaster" => RecordKind::SeriesMaster,
        "occurrence" => RecordKind::Occurrence,
        "exception" => RecordKind::Exception,
        _ => RecordKind::Single,
    };
    let instance = matches!(kind, RecordKind::Occurrence | RecordKind::Exception);
    Traits {
        ical_uid: event.i_cal_u_id.clone().filter(|uid| !uid.is_empty()),
        original_start: event
            .original_start
            .filter(|_| instance)
            .map(|start| start.to_rfc3339_opts(SecondsFormat::Secs, true))
            .unwrap_or_default(),
        kind,
        is_organizer: event.is_organizer.unwrap_or(true),
        organizer: None,
        attendees: u32::try_from(invited.count()).unwrap_or(u32::MAX),
        private: ["private", "confidential"].iter().any(|word| sensitivity.eq_ignore_ascii_case(word)),
        cancelled: event.is_cancelled.unwrap_or(false),
        draft: event.is_draft.unwrap_or(false),
        owner: None,
    }
}

/// Returns the organiser's address as the event spells it.
pub(super) fn organizer_address(json: &Json) -> Option<&str> {
    json.pointer("/organizer/emailAddress/address")?.as_str()
}

fn stamp(event: &Event) -> Option<Stamp> {
    event
        .single_value_extended_properties
        .iter()
        .flatten()
        .filter(|property| property.id.eq_ignore_ascii_case(STAMP_PROPERTY))
        .find_map(|property| Stamp::decode(property.value.as_deref()?))
}

fn when(event: &Event) -> Option<When> {
    let (start, end) = (event.start.as_ref()?, event.end.as_ref()?);
    let chosen = event.original_start_time_zone.as_deref();
    let when = if event.is_all_day.unwrap_or(false) {
        let first = date(start, chosen)?;
        // The end is the midnight after the last day.
        let last = date(end, chosen)?.pred_opt()?.max(first);
        When::AllDay { first, last }
    } else {
        When::Timed { start: instant(start)?, end: instant(end)?, zone: chosen.and_then(zones::from_graph) }
    };
    when.is_ordered().then_some(when)
}

fn instant(time: &DateTimeTimeZone) -> Option<DateTime<Utc>> {
    let local = time.local()?;
    match time.time_zone.as_deref() {
        None => Some(local.and_utc()),
        Some(name) => in_zone(local, zones::any_zone(name)?),
    }
}

fn in_zone(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    // A time that a clock change leaves out is read an hour later, as Windows does (unconfirmed).
    local
        .and_local_timezone(zone)
        .earliest()
        .or_else(|| (local + TimeDelta::hours(1)).and_local_timezone(zone).earliest())
        .map(|time| time.to_utc())
}

/// Reads the day of an all-day event's start or end.
///
/// Graph shows whole days as midnight whatever zone is asked for, so the date is taken as it stands. Should a service
/// convert them to UTC after all, the organiser's zone gives the day back, or else the nearest midnight does: zones
/// reach from 12 hours behind to 14 ahead, and nearly all people live within 12 of either.
fn date(time: &DateTimeTimeZone, chosen: Option<&str>) -> Option<NaiveDate> {
    let local = time.local()?;
    if local.num_seconds_from_midnight() == 0 {
        return Some(local.date());
    }
    if let Some(zone) = chosen.and_then(zones::any_zone) {
        let there = instant(time)?.with_timezone(&zone);
        if there.num_seconds_from_midnight() == 0 {
            return Some(there.date_naive());
        }
    }
    Some((local + TimeDelta::hours(12)).date())
}

fn field_value(json: &Json, field: &str) -> Value {
    if field == BODY {
        return Value::text(body_text(json));
    }
    let found = field.split('.').try_fold(json, |value, name| value.get(name));
    match found {
        Some(Json::String(text)) => Value::text(unix_lines(text)),
        Some(Json::Bool(flag)) => Value::Flag(*flag),
        Some(Json::Number(number)) => number.as_i64().map_or_else(|| Value::Text(number.to_string()), Value::Number),
        _ => Value::Null,
    }
}

fn body_text(json: &Json) -> String {
    let text = |name: &str| json.get("body").and_then(|body| body.get(name)).and_then(Json::as_str);
    let content = text("content").unwrap_or_default();
    if text("contentType").is_some_and(|kind| kind.eq_ignore_ascii_case("html")) {
        // Asked for as text; a service that answers in HTML all the same is understood.
        return html2text::from_read(content.as_bytes(), usize::from(u16::MAX))
            .map_or_else(|_unreadable| String::new(), |text| unix_lines(&text));
    }
    unix_lines(content)
}

fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Returns the JSON that carries out an intent: the given fields, and the stamp.
///
/// # Errors
/// `CB1315` when a value has no form that Outlook could hold.
pub(super) fn body(intent: &Intent) -> Result<Json, RemoteError> {
    let mut body = Map::new();
    for (field, value) in &intent.fields {
        if field == TIME {
            write_time(&mut body, value)?;
        } else if field == BODY {
            let content = value.as_text().unwrap_or_default();
            body.insert("body".to_owned(), json!({"contentType": "text", "content": content}));
        } else {
            write_path(&mut body, field, value)?;
        }
    }
    let property = json!({"id": STAMP_PROPERTY, "value": intent.stamp.encode()});
    body.insert("singleValueExtendedProperties".to_owned(), json!([property]));
    if matches!(intent.action, Action::Create(_)) {
        // Lets Exchange itself recognise a repeated create: <https://learn.microsoft.com/graph/api/user-post-events>
        body.insert("transactionId".to_owned(), intent.token.to_string().into());
    }
    Ok(Json::Object(body))
}

fn write_time(body: &mut Map<String, Json>, value: &Value) -> Result<(), RemoteError> {
    let Value::When(when) = value else {
        return Err(not_writable(TIME));
    };
    let local =
        |time: NaiveDateTime, zone: &str| json!({"dateTime": time.format(LOCAL_TIME).to_string(), "timeZone": zone});
    let (start, end, all_day) = match when {
        When::Timed { start, end, zone } => {
            let named = zone.and_then(|zone| Some((zone, zones::to_graph(zone)?)));
            match named {
                Some((zone, name)) => (
                    local(start.with_timezone(&zone).naive_local(), name),
                    local(end.with_timezone(&zone).naive_local(), name),
                    false,
                ),
                None => (local(start.naive_utc(), "UTC"), local(end.naive_utc(), "UTC"), false),
            }
        }
        When::AllDay { first, last } => {
            let after = last.succ_opt().ok_or_else(|| not_writable(TIME))?;
            let midnight = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN);
            (local(midnight(*first), "UTC"), local(midnight(after), "UTC"), true)
        }
    };
    body.insert("start".to_owned(), start);
    body.insert("end".to_owned(), end);
    body.insert("isAllDay".to_owned(), all_day.into());
    Ok(())
}

fn write_path(body: &mut Map<String, Json>, field: &str, value: &Value) -> Result<(), RemoteError> {
    let value = match value {
        // Texts are emptied; a choice such as `showAs` has no empty form and stays.
        Value::Null if field == "subject" || field.contains('.') => Json::String(String::new()),
        Value::Null => return Ok(()),
        Value::Flag(flag) => Json::Bool(*flag),
        Value::Number(number) => Json::from(*number),
        Value::Text(text) => Json::String(text.clone()),
        Value::When(_) => return Err(not_writable(field)),
    };
    let (parents, name) = match field.rsplit_once('.') {
        Some((parents, name)) => (parents.split('.').collect(), name),
        None => (Vec::new(), field),
    };
    let mut place = body;
    for parent in parents {
        let inner = place.entry(parent).or_insert_with(|| Json::Object(Map::new()));
        place = inner.as_object_mut().ok_or_else(|| not_writable(field))?;
    }
    place.insert(name.to_owned(), value);
    Ok(())
}

fn not_writable(field: &str) -> RemoteError {
    remote(
        error::NOT_WRITABLE,
        format!("the value for `{field}` has no form that Outlook could hold; look at the mapping"),
        Retry::Never,
    )
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
