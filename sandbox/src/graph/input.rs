//! Reading request bodies into an event's content, with Graph's validation.

use serde_json::{Map, Value, json};

use super::content::{Attendee, Body, Content, Person, Response};
use super::error::GraphError;
use super::recurrence::Recurrence;
use super::zones::{When, Zone};

/// Attendees that one event may have (<https://learn.microsoft.com/en-us/graph/api/resources/event>).
const MAX_ATTENDEES: usize = 500;

const SHOW_AS: &[&str] = &["unknown", "free", "tentative", "busy", "oof", "workingElsewhere"];
const SENSITIVITY: &[&str] = &["normal", "personal", "private", "confidential"];
const IMPORTANCE: &[&str] = &["low", "normal", "high"];
const ATTENDEE_KINDS: &[&str] = &["required", "optional", "resource"];
const PROVIDERS: &[&str] = &["unknown", "skypeForBusiness", "skypeForConsumer", "teamsForBusiness"];
const LOCATION_TYPES: &[&str] = &[
    "default",
    "conferenceRoom",
    "homeAddress",
    "businessAddress",
    "geoCoordinates",
    "streetAddress",
    "hotel",
    "restaurant",
    "localBusiness",
    "postalAddress",
];
const UNIQUE_ID_TYPES: &[&str] = &["unknown", "locationStore", "directory", "private", "bing"];

fn invalid(name: &str) -> GraphError {
    GraphError::new(400, "ErrorInvalidProperty", format!("The property '{name}' has a value that is not valid."))
}

/// Reads an enum value without regard to case, as Graph does, and returns its lower-camel form.
pub(crate) fn pick(name: &str, value: &Value, choices: &'static [&'static str]) -> Result<&'static str, GraphError> {
    let text = value.as_str().ok_or_else(|| invalid(name))?;
    choices.iter().find(|choice| choice.eq_ignore_ascii_case(text)).copied().ok_or_else(|| {
        GraphError::new(
            400,
            "RequestBodyRead",
            format!("Requested value for '{name}' was not found among the members of its enumeration."),
        )
    })
}

fn flag(name: &str, value: &Value) -> Result<bool, GraphError> {
    value.as_bool().ok_or_else(|| invalid(name))
}

fn text(name: &str, value: &Value) -> Result<String, GraphError> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(invalid(name)),
    }
}

/// Makes the content of a new event from a request body.
pub(crate) fn create(body: &Map<String, Value>) -> Result<Content, GraphError> {
    let (Some(start), Some(end)) = (body.get("start"), body.get("end")) else {
        return Err(GraphError::property("At least one property failed validation: start and end are required."));
    };
    let mut content = Content::new(When::parse(start)?, When::parse(end)?);
    apply(&mut content, body)?;
    Ok(content)
}

/// Applies the writable properties of a body; others (read-only, unknown) are ignored as Graph ignores them.
pub(crate) fn apply(content: &mut Content, body: &Map<String, Value>) -> Result<(), GraphError> {
    let mut recurrence = None;
    for (name, value) in body {
        match name.as_str() {
            "subject" => {
                text(name, value)?.replace(['\r', '\n'], " ").trim().clone_into(&mut content.subject);
            }
            "body" => content.body = item_body(value)?,
            "start" => content.start = When::parse(value)?,
            "end" => content.end = When::parse(value)?,
            "isAllDay" => content.is_all_day = flag(name, value)?,
            "location" => {
                content.locations = location(value)?.into_iter().collect();
            }
            "locations" if !body.contains_key("location") => {
                let list = value.as_array().ok_or_else(|| invalid(name))?;
                let mut locations = Vec::with_capacity(list.len());
                for entry in list {
                    locations.extend(location(entry)?);
                }
                content.locations = locations;
            }
            "attendees" => content.attendees = attendees(value, &content.attendees)?,
            "showAs" => content.show_as = pick(name, value, SHOW_AS)?,
            "sensitivity" => content.sensitivity = pick(name, value, SENSITIVITY)?,
            "importance" => content.importance = pick(name, value, IMPORTANCE)?,
            "categories" => {
                let list = value.as_array().ok_or_else(|| invalid(name))?;
                content.categories = list.iter().map(|entry| text(name, entry)).collect::<Result<_, _>>()?;
            }
            "isReminderOn" => content.is_reminder_on = flag(name, value)?,
            "reminderMinutesBeforeStart" => {
                let minutes = value.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| invalid(name))?;
                content.reminder_minutes = minutes;
            }
            "responseRequested" => content.response_requested = flag(name, value)?,
            "allowNewTimeProposals" => content.allow_new_time_proposals = flag(name, value)?,
            "hideAttendees" => content.hide_attendees = flag(name, value)?,
            "recurrence" => recurrence = Some(value),
            // Once a meeting is online it stays so (https://learn.microsoft.com/en-us/graph/api/event-update).
            "isOnlineMeeting" => content.is_online_meeting |= flag(name, value)?,
            "onlineMeetingProvider" if !value.is_null() => {
                content.online_meeting_provider = pick(name, value, PROVIDERS)?;
            }
            "singleValueExtendedProperties" => extended(content, value)?,
            _ => {}
        }
    }
    if content.is_online_meeting && content.online_meeting_provider == "unknown" {
        content.online_meeting_provider = "teamsForBusiness";
    }
    match recurrence {
        Some(Value::Null) => content.recurrence = None,
        Some(value) => {
            let zone = content.start.zone.name.clone();
            content.recurrence = Some(Recurrence::parse(value, content.start.local.date(), &zone)?);
        }
        None => {}
    }
    validate(content)
}

fn validate(content: &Content) -> Result<(), GraphError> {
    if content.end.instant() < content.start.instant() {
        return Err(GraphError::new(
            400,
            "ErrorCalendarEndDateIsEarlierThanStartDate",
            "The end date must be later than or equal to the start date.",
        ));
    }
    if content.is_all_day {
        let midnights = content.start.is_midnight() && content.end.is_midnight();
        let whole_days = content.end.local > content.start.local;
        if !midnights || !whole_days || content.start.zone.rules != content.end.zone.rules {
            return Err(GraphError::new(
                400,
                "ErrorInvalidProperty",
                "The Event.Start and Event.End properties of an all-day event must be at midnight, at least one day apart, \
                 and in the same time zone.",
            ));
        }
    }
    if content.attendees.len() > MAX_ATTENDEES {
        return Err(GraphError::property("At least one property failed validation: more than 500 attendees."));
    }
    Ok(())
}

fn item_body(value: &Value) -> Result<Body, GraphError> {
    if value.is_null() {
        return Ok(Body::default());
    }
    let content = text("content", value.get("content").unwrap_or(&Value::Null))?;
    let kind = match value.get("contentType") {
        None | Some(Value::Null) => "text",
        Some(kind) => pick("contentType", kind, &["text", "html"])?,
    };
    Ok(if kind == "html" { Body::from_html(&content) } else { Body::from_text(&content) })
}

/// Normalises a location; an empty or null one is no location.
fn location(value: &Value) -> Result<Option<Value>, GraphError> {
    let Value::Object(given) = value else {
        return if value.is_null() { Ok(None) } else { Err(invalid("location")) };
    };
    let display = text("displayName", given.get("displayName").unwrap_or(&Value::Null))?;
    let kind = match given.get("locationType") {
        None | Some(Value::Null) => "default",
        Some(kind) => pick("locationType", kind, LOCATION_TYPES)?,
    };
    let has_more = given.iter().any(|(key, value)| {
        let known = matches!(key.as_str(), "displayName" | "locationType" | "@odata.type" | "uniqueIdType");
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        !known && !empty
    });
    if display.is_empty() && !has_more {
        return Ok(None);
    }
    let unique_type = match given.get("uniqueIdType") {
        None | Some(Value::Null) => "private",
        Some(kind) => pick("uniqueIdType", kind, UNIQUE_ID_TYPES)?,
    };
    let mut location = Map::new();
    location.insert("displayName".to_owned(), json!(display));
    location.insert("locationType".to_owned(), json!(kind));
    let unique = given.get("uniqueId").and_then(Value::as_str).unwrap_or(&display);
    location.insert("uniqueId".to_owned(), json!(unique));
    location.insert("uniqueIdType".to_owned(), json!(unique_type));
    for key in ["locationUri", "locationEmailAddress"] {
        if let Some(Value::String(value)) = given.get(key) {
            location.insert(key.to_owned(), json!(value));
        }
    }
    for key in ["address", "coordinates"] {
        if let Some(value @ Value::Object(_)) = given.get(key) {
            location.insert(key.to_owned(), value.clone());
        }
    }
    Ok(Some(Value::Object(location)))
}

/// Replaces the whole list; people who stay keep their answer.
fn attendees(value: &Value, before: &[Attendee]) -> Result<Vec<Attendee>, GraphError> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let mut list: Vec<Attendee> = Vec::new();
    for entry in value.as_array().ok_or_else(|| invalid("attendees"))? {
        let mail = entry.get("emailAddress").ok_or_else(|| invalid("attendees"))?;
        let address = mail.get("address").and_then(Value::as_str).unwrap_or_default().trim();
        if address.is_empty() {
            return Err(GraphError::new(400, "ErrorInvalidRecipients", "At least one recipient isn't valid."));
        }
        if list.iter().any(|known| known.person.is(address)) {
            continue;
        }
        let known = before.iter().find(|attendee| attendee.person.is(address));
        let name = mail.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| known.map_or(address, |a| &a.person.name)).to_owned();
        let kind = match entry.get("type") {
            None | Some(Value::Null) => "required",
            Some(kind) => pick("type", kind, ATTENDEE_KINDS)?,
        };
        let response = known.map_or_else(|| Response::of("none"), |attendee| attendee.response.clone());
        list.push(Attendee { person: Person { name, address: address.to_owned() }, kind, response });
    }
    Ok(list)
}

fn extended(content: &mut Content, value: &Value) -> Result<(), GraphError> {
    for entry in value.as_array().ok_or_else(|| invalid("singleValueExtendedProperties"))? {
        let id = entry.get("id").and_then(Value::as_str).ok_or_else(|| invalid("singleValueExtendedProperties"))?;
        let id = canonical_property(id).ok_or_else(|| {
            GraphError::new(400, "ErrorInvalidProperty", "The extended property id is not in one of the known formats.")
        })?;
        match entry.get("value") {
            Some(Value::String(value)) => {
                content.extended.insert(id, value.clone());
            }
            Some(Value::Null) | None => {
                content.extended.remove(&id);
            }
            Some(_) => return Err(invalid("singleValueExtendedProperties")),
        }
    }
    Ok(())
}

/// Brings an extended property id into one form: type capitalised, GUID in lower case, name as it is.
///
/// Known forms: `{type} {guid} Name {name}`, `{type} {guid} Id 0x8012`, `{type} 0x4001001E`
/// (<https://learn.microsoft.com/en-us/graph/api/resources/extended-properties-overview>).
pub(crate) fn canonical_property(id: &str) -> Option<String> {
    let mut words = id.splitn(4, ' ');
    let kind = words.next()?;
    let mut letters = kind.chars();
    let first = letters.next()?;
    let kind = if kind.chars().any(|c| c.is_ascii_uppercase()) {
        kind.to_owned()
    } else {
        format!("{}{}", first.to_ascii_uppercase(), letters.as_str())
    };
    let second = words.next()?;
    if second.starts_with("0x") {
        return words.next().is_none().then(|| format!("{kind} {second}"));
    }
    let guid = uuid::Uuid::parse_str(second.trim_start_matches('{').trim_end_matches('}')).ok()?;
    let how = words.next()?;
    let how = ["Name", "Id"].into_iter().find(|known| known.eq_ignore_ascii_case(how))?;
    let name = words.next().filter(|name| !name.is_empty())?;
    Some(format!("{kind} {{{guid}}} {how} {name}"))
}

/// Returns the body of a request as an object.
pub(crate) fn object(value: &Value) -> Result<&Map<String, Value>, GraphError> {
    value.as_object().ok_or_else(|| GraphError::new(400, "RequestBodyRead", "The request body is not a JSON object."))
}

/// Reads the zone of a `Prefer: outlook.timezone` header.
pub(crate) fn preferred_zone(name: &str) -> Result<Zone, GraphError> {
    Zone::parse(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<Content, GraphError> {
        create(value.as_object().unwrap())
    }

    fn times() -> Value {
        json!({"start": {"dateTime": "2026-11-23T09:00:00", "timeZone": "UTC"},
               "end": {"dateTime": "2026-11-23T10:00:00", "timeZone": "UTC"}})
    }

    #[test]
    fn enum_values_are_read_without_regard_to_case() {
        let mut body = times();
        body["showAs"] = json!("OOF");
        body["attendees"] = json!([{"type": "Required", "emailAddress": {"address": "a@b.example"}}]);
        let content = read(&body).unwrap();
        assert_eq!((content.show_as, content.attendees[0].kind), ("oof", "required"));
        body["showAs"] = json!("asleep");
        assert_eq!(read(&body).unwrap_err().status, 400);
    }

    #[test]
    fn all_day_needs_midnights() {
        let mut body = times();
        body["isAllDay"] = json!(true);
        assert_eq!(read(&body).unwrap_err().status, 400);
        body["start"]["dateTime"] = json!("2026-11-23T00:00:00");
        body["end"]["dateTime"] = json!("2026-11-24T00:00:00");
        assert!(read(&body).unwrap().is_all_day);
    }

    #[test]
    fn property_ids_are_canonical_in_type_and_guid_but_not_in_name() {
        let id = canonical_property("string {66F5A359-4659-4830-9070-00047EC6AC6E} name Colour Of It").unwrap();
        assert_eq!(id, "String {66f5a359-4659-4830-9070-00047ec6ac6e} Name Colour Of It");
        assert_eq!(canonical_property("String Name Colour"), None);
    }

    #[test]
    fn an_empty_location_is_none() {
        let mut body = times();
        body["location"] = json!({"displayName": ""});
        assert!(read(&body).unwrap().locations.is_empty());
        body["location"] = json!({"displayName": "Room 1"});
        assert_eq!(read(&body).unwrap().location()["displayName"], "Room 1");
    }
}
