//! One `VEVENT` as the body of a Graph event.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::components::Component;
use super::lines::{ContentLine, split_list, unescape};
use super::times::{self, When};
use super::zones::{Zone, Zones, instant_in};
use super::{graph_time, recurrence};

/// First and last year that Outlook's calendar shows; times outside are refused.
const YEARS: std::ops::RangeInclusive<i32> = 1601..=4499;
/// Most attendees of one event (<https://learn.microsoft.com/graph/api/resources/event>).
const MAX_ATTENDEES: usize = 500;

/// An event of a calendar export, ready to be created in a mailbox.
#[derive(Debug, Clone, Serialize)]
pub struct ImportedEvent {
    /// Line of the file on which the event begins, from 1.
    pub line: usize,
    /// The file's own identifier.
    pub uid: Option<String>,
    /// When it begins.
    pub start: EventStart,
    /// Whether it is a series.
    pub series: bool,
    /// Body for Graph's `POST /users/{id}/events`.
    pub body: Value,
    /// What was left out of it, in words.
    pub notes: Vec<String>,
}

/// When an event begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventStart {
    /// At an instant.
    At(DateTime<Utc>),
    /// On a day, wherever one is.
    On(NaiveDate),
}

/// A begin and an end in one zone, as Graph wants them.
struct Times {
    start: EventStart,
    begin: NaiveDateTime,
    end: NaiveDateTime,
    zone: Tz,
    /// Whether the zone is the file's own choice, so that a series can repeat in it.
    faithful: bool,
}

/// Reads a `VEVENT`; the error is the reason why it cannot be loaded.
pub(super) fn read(component: &Component, zones: &Zones) -> Result<ImportedEvent, String> {
    if component.property("RECURRENCE-ID").is_some() {
        return Err("one changed occurrence of a series; occurrences are not loaded".to_owned());
    }
    if component.word("STATUS").as_deref() == Some("CANCELLED") {
        return Err("cancelled in the file".to_owned());
    }
    let mut notes = Vec::new();
    let mut times = read_times(component, zones)?;
    let series = read_series(component, &mut times, &mut notes)?;

    let mut body = Map::new();
    let text = |name: &str| component.text(name).filter(|text| !text.is_empty());
    body.insert("subject".to_owned(), json!(text("SUMMARY").unwrap_or_default().replace('\n', " ")));
    body.insert(
        "body".to_owned(),
        json!({ "contentType": "text", "content": text("DESCRIPTION").unwrap_or_default() }),
    );
    body.insert("isAllDay".to_owned(), json!(matches!(times.start, EventStart::On(_))));
    body.insert("start".to_owned(), graph_time(times.begin, times.zone.name()));
    body.insert("end".to_owned(), graph_time(times.end, times.zone.name()));
    if let Some(location) = text("LOCATION") {
        body.insert("location".to_owned(), json!({ "displayName": location.replace('\n', " ") }));
    }
    body.insert("showAs".to_owned(), json!(show_as(component)));
    body.insert("sensitivity".to_owned(), json!(sensitivity(component)));
    if let Some(importance) = importance(component) {
        body.insert("importance".to_owned(), json!(importance));
    }
    let categories = categories(component);
    if !categories.is_empty() {
        body.insert("categories".to_owned(), json!(categories));
    }
    let attendees = attendees(component, &mut notes);
    if !attendees.is_empty() {
        body.insert("attendees".to_owned(), Value::Array(attendees));
    }
    let is_series = series.is_some();
    if let Some(recurrence) = series {
        body.insert("recurrence".to_owned(), recurrence);
    }
    Ok(ImportedEvent {
        line: component.line,
        uid: text("UID"),
        start: times.start,
        series: is_series,
        body: Value::Object(body),
        notes,
    })
}

fn read_times(component: &Component, zones: &Zones) -> Result<Times, String> {
    let begin =
        component.property("DTSTART").ok_or("it has no `DTSTART`; add one, such as `DTSTART:20260701T090000Z`")?;
    let end = component.property("DTEND");
    let span = match component.property("DURATION") {
        Some(property) if end.is_none() => Some(
            times::parse_duration(&property.value)
                .ok_or("`DURATION` is not a duration; write it as `PT1H30M` or `P2D`")?,
        ),
        _ => None,
    };
    let times = match when(begin)? {
        When::Date(first) => read_days(first, end, span, zones)?,
        When::Time { local, utc } => read_moments(begin, local, utc, end, span, zones)?,
    };
    if !YEARS.contains(&times.begin.year()) || !YEARS.contains(&times.end.year()) {
        return Err(format!("its time lies outside of the years {} to {}", YEARS.start(), YEARS.end()));
    }
    Ok(times)
}

/// An all-day event: dates are taken as they are, never shifted by a zone; the end is exclusive.
fn read_days(
    first: NaiveDate,
    end: Option<&ContentLine>,
    span: Option<times::Span>,
    zones: &Zones,
) -> Result<Times, String> {
    let next = first.checked_add_days(Days::new(1)).ok_or("its date is out of range")?;
    let behind = match (end.map(when).transpose()?, span) {
        (Some(When::Date(date)), _) => date,
        (Some(When::Time { local, .. }), _) => local.date(),
        (None, Some(span)) => {
            let days = u64::try_from(span.days).unwrap_or_default();
            first.checked_add_days(Days::new(days)).ok_or("its date is out of range")?
        }
        (None, None) => next,
    };
    if behind < first {
        return Err("it ends before it begins; put `DTEND` after `DTSTART`".to_owned());
    }
    let midnight = |date: NaiveDate| date.and_time(chrono::NaiveTime::MIN);
    Ok(Times {
        start: EventStart::On(first),
        begin: midnight(first),
        // An end on the day of the start is written for one day by several programs.
        end: midnight(behind.max(next)),
        zone: zones.home(),
        faithful: true,
    })
}

fn read_moments(
    begin: &ContentLine,
    local: NaiveDateTime,
    utc: bool,
    end: Option<&ContentLine>,
    span: Option<times::Span>,
    zones: &Zones,
) -> Result<Times, String> {
    let zone = zone_of(begin, utc, zones)?;
    let start = zone.instant(local);
    let finish = match (end, span) {
        (Some(property), _) => match when(property)? {
            When::Time { local, utc } => zone_of(property, utc, zones)?.instant(local),
            When::Date(date) => zone.instant(date.and_time(chrono::NaiveTime::MIN)),
        },
        (None, Some(span)) => zone.instant(local + TimeDelta::days(span.days)) + span.time,
        (None, None) => start,
    };
    if finish < start {
        return Err("it ends before it begins; put `DTEND` after `DTSTART`".to_owned());
    }
    // Graph gets local times of a zone of the tz database, but only where they come back as the same instants.
    let shown = zone.known(local).filter(|zone| {
        [start, finish].iter().all(|instant| instant_in(*zone, instant.with_timezone(zone).naive_local()) == *instant)
    });
    let target = shown.unwrap_or(Tz::UTC);
    Ok(Times {
        start: EventStart::At(start),
        begin: start.with_timezone(&target).naive_local(),
        end: finish.with_timezone(&target).naive_local(),
        zone: target,
        faithful: shown.is_some(),
    })
}

fn when(property: &ContentLine) -> Result<When, String> {
    times::parse_when(&property.value).ok_or_else(|| {
        format!("`{}` is neither a date nor a time; write it as `20260701` or `20260701T090000Z`", property.name)
    })
}

fn zone_of<'a>(property: &ContentLine, utc: bool, zones: &'a Zones) -> Result<Zone<'a>, String> {
    if utc {
        return Ok(Zone::Known(Tz::UTC));
    }
    match property.param("TZID").filter(|name| !name.trim().is_empty()) {
        None => Ok(Zone::Known(zones.floating())),
        Some(name) => zones.find(name).ok_or_else(|| {
            format!("its time zone `{name}` is not known; give a name such as `Europe/Berlin`, or its `VTIMEZONE`")
        }),
    }
}

/// Converts the rule; may move the times to the first date that fits it.
fn read_series(component: &Component, times: &mut Times, notes: &mut Vec<String>) -> Result<Option<Value>, String> {
    if component.property("RDATE").is_some() {
        return Err("a series with single added dates (`RDATE`), which Graph cannot express".to_owned());
    }
    let mut rules = component.all("RRULE");
    let Some(rule) = rules.next() else { return Ok(None) };
    if rules.next().is_some() || component.property("EXRULE").is_some() {
        return Err("a series with several rules, which Graph cannot express".to_owned());
    }
    if !times.faithful {
        return Err("a series in a zone that only the file describes".to_owned());
    }
    let series = recurrence::to_graph(&rule.value, times.begin, times.zone)?;
    if series.shift_days > 0 {
        let shift = Days::new(series.shift_days);
        times.begin = times.begin.checked_add_days(shift).ok_or("its date is out of range")?;
        times.end = times.end.checked_add_days(shift).ok_or("its date is out of range")?;
        times.start = match times.start {
            EventStart::On(_) => EventStart::On(times.begin.date()),
            EventStart::At(_) => EventStart::At(instant_in(times.zone, times.begin)),
        };
        notes.push("the series begins on the first date that fits its rule".to_owned());
    }
    let excluded: usize = component.all("EXDATE").map(|property| split_list(&property.value).len()).sum();
    if excluded > 0 {
        notes.push(format!("{excluded} cancelled dates of the series are not taken out"));
    }
    Ok(Some(series.recurrence))
}

fn show_as(component: &Component) -> &'static str {
    match component.word("X-MICROSOFT-CDO-BUSYSTATUS").as_deref() {
        Some("FREE") => return "free",
        Some("TENTATIVE") => return "tentative",
        Some("BUSY") => return "busy",
        Some("OOF") => return "oof",
        Some("WORKINGELSEWHERE") => return "workingElsewhere",
        _ => {}
    }
    if component.word("TRANSP").as_deref() == Some("TRANSPARENT") {
        "free"
    } else if component.word("STATUS").as_deref() == Some("TENTATIVE") {
        "tentative"
    } else {
        "busy"
    }
}

fn sensitivity(component: &Component) -> &'static str {
    match component.word("CLASS").as_deref() {
        None | Some("" | "PUBLIC") => "normal",
        Some("CONFIDENTIAL") => "confidential",
        // RFC 5545 section 3.8.1.3: a class that is not known counts as private.
        Some(_) => "private",
    }
}

fn importance(component: &Component) -> Option<&'static str> {
    match component.word("X-MICROSOFT-CDO-IMPORTANCE").as_deref() {
        Some("0") => Some("low"),
        Some("2") => Some("high"),
        _ => None,
    }
}

fn categories(component: &Component) -> Vec<String> {
    let mut categories = Vec::new();
    for property in component.all("CATEGORIES") {
        for category in split_list(&property.value) {
            let category = unescape(&category).trim().to_owned();
            if !category.is_empty() && !categories.contains(&category) {
                categories.push(category);
            }
        }
    }
    categories
}

fn attendees(component: &Component, notes: &mut Vec<String>) -> Vec<Value> {
    let organizer = component.property("ORGANIZER").and_then(address);
    let mut attendees = Vec::new();
    let mut unreadable = 0_usize;
    for property in component.all("ATTENDEE") {
        let Some(address) = address(property) else {
            unreadable += 1;
            continue;
        };
        if organizer.as_ref().is_some_and(|organizer| organizer.eq_ignore_ascii_case(&address)) {
            continue;
        }
        let role = property.param("ROLE").unwrap_or_default().to_ascii_uppercase();
        let kind = property.param("CUTYPE").unwrap_or_default().to_ascii_uppercase();
        let kind = match (kind.as_str(), role.as_str()) {
            ("RESOURCE" | "ROOM", _) => "resource",
            (_, "OPT-PARTICIPANT" | "NON-PARTICIPANT") => "optional",
            _ => "required",
        };
        let name = property.param("CN").filter(|name| !name.is_empty()).unwrap_or(&address);
        attendees.push(json!({ "type": kind, "emailAddress": { "address": address, "name": name } }));
    }
    if unreadable > 0 {
        notes.push(format!("{unreadable} attendees without an e-mail address are left out"));
    }
    if attendees.len() > MAX_ATTENDEES {
        notes.push(format!("{} attendees beyond {MAX_ATTENDEES} are left out", attendees.len() - MAX_ATTENDEES));
        attendees.truncate(MAX_ATTENDEES);
    }
    attendees
}

fn address(property: &ContentLine) -> Option<String> {
    let value = property.value.trim();
    let bare = match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("mailto:") => rest,
        _ => value,
    };
    let usable = |address: &&str| address.contains('@') && !address.contains(char::is_whitespace);
    [bare, property.param("EMAIL").unwrap_or_default()].into_iter().find(usable).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::read as read_file;
    use super::*;

    fn loaded(event: &str) -> super::super::CalendarFile {
        let text = format!("BEGIN:VCALENDAR\nBEGIN:VEVENT\n{event}\nEND:VEVENT\nEND:VCALENDAR\n");
        read_file(text.as_bytes(), Tz::Europe__Berlin).unwrap()
    }

    fn one(event: &str) -> ImportedEvent {
        let mut file = loaded(event);
        assert!(file.not_loaded.is_empty(), "{:?}", file.not_loaded);
        file.events.remove(0)
    }

    fn reason(event: &str) -> String {
        let file = loaded(event);
        assert!(file.events.is_empty());
        file.not_loaded[0].reason.clone()
    }

    #[test]
    fn times_without_a_zone_are_times_of_the_mailbox() {
        let event = one("DTSTART:20260701T090000\nDTEND:20260701T100000");
        assert_eq!(event.start, EventStart::At("2026-07-01T07:00:00Z".parse().unwrap()));
        assert_eq!(event.body["start"]["timeZone"], "Europe/Berlin");
    }

    #[test]
    fn the_end_may_be_in_another_zone_or_a_duration() {
        let event = one("DTSTART;TZID=Europe/Berlin:20260701T090000\nDTEND;TZID=America/New_York:20260701T040000");
        assert_eq!(event.body["end"]["dateTime"], "2026-07-01T10:00:00.0000000");
        let event = one("DTSTART;TZID=Europe/Berlin:20260328T120000\nDURATION:P1DT1H");
        assert_eq!(event.body["end"]["dateTime"], "2026-03-29T13:00:00.0000000");
    }

    #[test]
    fn the_second_of_two_equal_hours_is_written_in_utc() {
        let event = one("DTSTART;TZID=Europe/Berlin:20261025T023000\nDURATION:PT1H");
        assert_eq!(event.body["start"]["timeZone"], "UTC");
        assert_eq!(event.body["start"]["dateTime"], "2026-10-25T00:30:00.0000000");
        assert_eq!(event.body["end"]["dateTime"], "2026-10-25T01:30:00.0000000");
    }

    #[test]
    fn whole_days_keep_their_dates_and_end_on_the_next_midnight() {
        let event = one("DTSTART;VALUE=DATE:20260701");
        assert_eq!(event.start, EventStart::On("2026-07-01".parse().unwrap()));
        assert_eq!(event.body["isAllDay"], true);
        assert_eq!(event.body["end"]["dateTime"], "2026-07-02T00:00:00.0000000");
        let event = one("DTSTART;VALUE=DATE:20260701\nDURATION:P3D");
        assert_eq!(event.body["end"]["dateTime"], "2026-07-04T00:00:00.0000000");
    }

    #[test]
    fn what_outlook_shows_is_carried_over() {
        let event = one(
            "SUMMARY:Plan\\, part 1\nDESCRIPTION:a\\nb\nLOCATION:Room 1\nCLASS:CONFIDENTIAL\nSTATUS:TENTATIVE\n\
             CATEGORIES:Red,Blue\nX-MICROSOFT-CDO-IMPORTANCE:2\nORGANIZER:mailto:boss@example.com\n\
             ATTENDEE;CN=Boss:mailto:boss@example.com\nATTENDEE;ROLE=OPT-PARTICIPANT;CN=\"Roe, J.\":MAILTO:roe@example.com\n\
             ATTENDEE:urn:nobody\nDTSTART:20260701T090000Z",
        );
        assert_eq!(event.body["subject"], "Plan, part 1");
        assert_eq!(event.body["body"]["content"], "a\nb");
        assert_eq!(event.body["location"]["displayName"], "Room 1");
        assert_eq!(event.body["sensitivity"], "confidential");
        assert_eq!(event.body["showAs"], "tentative");
        assert_eq!(event.body["importance"], "high");
        assert_eq!(event.body["categories"], json!(["Red", "Blue"]));
        assert_eq!(
            event.body["attendees"],
            json!([{ "type": "optional", "emailAddress": { "address": "roe@example.com", "name": "Roe, J." } }])
        );
        assert_eq!(event.notes.len(), 1);
    }

    #[test]
    fn what_cannot_be_loaded_says_why() {
        assert!(reason("SUMMARY:x").contains("DTSTART"));
        assert!(reason("DTSTART:2026-07-01").contains("neither a date nor a time"));
        assert!(reason("DTSTART;TZID=Nowhere/City:20260701T090000").contains("Nowhere/City"));
        assert!(reason("DTSTART:20260701T090000Z\nDTEND:20260701T080000Z").contains("ends before"));
        assert!(reason("DTSTART:20260701T090000Z\nSTATUS:CANCELLED").contains("cancelled"));
        assert!(reason("DTSTART:20260701T090000Z\nRECURRENCE-ID:20260701T090000Z").contains("occurrence"));
        assert!(reason("DTSTART:00010101T000000Z").contains("years"));
        assert!(reason("DTSTART:20260701T090000Z\nRRULE:FREQ=MINUTELY").contains("MINUTELY"));
    }
}
