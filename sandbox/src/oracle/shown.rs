//! What a person sees of a meeting, in one form for both clouds.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::{Map, Value, json};
use windows_timezones::WindowsTimezone;

/// Characters of a text that are compared: Salesforce keeps 255 of `Subject` and `Location`, and a bridge may mark its cut.
const TEXT_LIMIT: usize = 250;

/// A group of mapped fields that is judged as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The subject.
    Subject,
    /// Start, end and all-day.
    Time,
    /// The location's name.
    Location,
    /// Free, busy, out of office.
    ShowAs,
}

impl Field {
    /// All groups.
    pub const ALL: [Self; 4] = [Self::Subject, Self::Time, Self::Location, Self::ShowAs];

    /// Returns the word for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Time => "time",
            Self::Location => "location",
            Self::ShowAs => "show-as",
        }
    }
}

/// Begin and end, comparable over both clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Times {
    /// Instants, to the second.
    Timed(DateTime<Utc>, DateTime<Utc>),
    /// First day and the day after the last.
    Days(NaiveDate, NaiveDate),
    /// Could not be read.
    Unknown,
}

impl Times {
    /// Returns what Salesforce can hold of it: it counts an event's length in whole minutes.
    fn in_salesforce(self) -> Self {
        match self {
            Self::Timed(start, end) => Self::Timed(start, start + TimeDelta::minutes((end - start).num_minutes())),
            other => other,
        }
    }
}

/// What is visible of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    subject: String,
    times: Times,
    location: String,
    show_as: String,
}

impl Shown {
    /// Reads a Graph event.
    pub fn of_outlook(event: &Map<String, Value>) -> Self {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let all_day = event.get("isAllDay").and_then(Value::as_bool).unwrap_or_default();
        let times = match (event.get("start").and_then(graph_local), event.get("end").and_then(graph_local)) {
            // All-day events are dates, never instants: the local dates count, whatever the zone.
            (Some((start, _)), Some((end, _))) if all_day => Times::Days(start.date(), end.date()),
            (Some((start, start_zone)), Some((end, end_zone))) => {
                Times::Timed(instant(start, start_zone), instant(end, end_zone))
            }
            _ => Times::Unknown,
        };
        let location = event.get("location").and_then(|location| location.get("displayName"));
        Self {
            subject: clean(&text("subject")),
            times,
            location: clean(location.and_then(Value::as_str).unwrap_or_default()),
            show_as: text("showAs").to_ascii_lowercase(),
        }
    }

    /// Reads a Salesforce row.
    pub fn of_salesforce(row: &Map<String, Value>) -> Self {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            subject: clean(&text("Subject")),
            times: salesforce_times(row),
            location: clean(&text("Location")),
            show_as: text("ShowAs").to_ascii_lowercase(),
        }
    }

    /// Tells whether a field of an Outlook event agrees with that of a Salesforce event.
    pub fn agrees(outlook: &Self, salesforce: &Self, field: Field) -> bool {
        match field {
            Field::Subject => outlook.subject == salesforce.subject,
            Field::Location => outlook.location == salesforce.location,
            Field::Time => outlook.times.in_salesforce() == salesforce.times && outlook.times != Times::Unknown,
            // Salesforce knows three values only; Outlook's finer ones map to one of them.
            Field::ShowAs => match outlook.show_as.as_str() {
                "oof" => salesforce.show_as == "outofoffice",
                "free" => salesforce.show_as == "free",
                "workingelsewhere" => matches!(salesforce.show_as.as_str(), "free" | "busy"),
                _ => matches!(salesforce.show_as.as_str(), "busy" | ""),
            },
        }
    }

    /// Tells whether two states of the same cloud show the same in a field.
    pub fn same(&self, other: &Self, field: Field) -> bool {
        match field {
            Field::Subject => self.subject == other.subject,
            Field::Location => self.location == other.location,
            Field::Time => self.times == other.times,
            Field::ShowAs => self.show_as == other.show_as,
        }
    }

    /// Returns what must be equal in both clouds for two records to look alike.
    pub(super) fn look(&self) -> (String, String, Times) {
        (self.subject.clone(), self.location.clone(), self.times)
    }

    /// Returns a field for reports.
    pub fn value(&self, field: Field) -> Value {
        match field {
            Field::Subject => json!(self.subject),
            Field::Location => json!(self.location),
            Field::ShowAs => json!(self.show_as),
            Field::Time => match self.times {
                Times::Timed(start, end) => json!({ "start": start, "end": end }),
                Times::Days(first, behind) => json!({ "first_day": first, "day_after": behind }),
                Times::Unknown => Value::Null,
            },
        }
    }
}

/// Trims, unifies blanks and cuts to what is compared.
fn clean(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.chars().take(TEXT_LIMIT).collect::<String>().trim_end().to_owned()
}

fn graph_local(value: &Value) -> Option<(NaiveDateTime, Tz)> {
    let written = value.get("dateTime")?.as_str()?.trim_end_matches('Z');
    let local = NaiveDateTime::parse_from_str(written, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    let name = value.get("timeZone").and_then(Value::as_str).unwrap_or("UTC");
    let zone = WindowsTimezone::from_str(name).map(Tz::from).ok().or_else(|| Tz::from_str(name).ok())?;
    Some((local, zone))
}

fn instant(local: NaiveDateTime, zone: Tz) -> DateTime<Utc> {
    let time = zone.from_local_datetime(&local).earliest().map_or_else(|| local.and_utc(), |time| time.to_utc());
    time.with_nanosecond(0).unwrap_or(time)
}

fn salesforce_times(row: &Map<String, Value>) -> Times {
    let moment = |key: &str| row.get(key).and_then(salesforce_moment);
    let minutes = row.get("DurationInMinutes").and_then(Value::as_i64);
    let all_day = row.get("IsAllDayEvent").and_then(Value::as_bool).unwrap_or_default();
    let Some(start) = moment("StartDateTime").or_else(|| moment("ActivityDateTime")).or_else(|| moment("ActivityDate"))
    else {
        return Times::Unknown;
    };
    if all_day {
        let first = row
            .get("ActivityDate")
            .and_then(Value::as_str)
            .and_then(|date| date.parse().ok())
            .unwrap_or_else(|| start.date_naive());
        // Several days: the last day itself at midnight UTC, or a duration of whole days.
        let behind = match (moment("EndDateTime"), minutes) {
            (Some(end), _) => end.date_naive() + TimeDelta::days(1),
            (None, Some(minutes)) => first + TimeDelta::days((minutes / 1440).max(1)),
            (None, None) => first + TimeDelta::days(1),
        };
        return Times::Days(first, behind);
    }
    match moment("EndDateTime").or_else(|| minutes.map(|minutes| start + TimeDelta::minutes(minutes))) {
        Some(end) => Times::Timed(start, end),
        None => Times::Unknown,
    }
}

/// `2026-11-20T17:00:00.000+0000`, RFC 3339, a date, or milliseconds since 1970.
fn salesforce_moment(value: &Value) -> Option<DateTime<Utc>> {
    if let Some(millis) = value.as_i64() {
        return DateTime::from_timestamp_millis(millis);
    }
    let text = value.as_str()?;
    let time = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z")
        .or_else(|_| DateTime::parse_from_rfc3339(text))
        .map(|time| time.to_utc())
        .ok()
        .or_else(|| Some(NaiveDate::from_str(text).ok()?.and_time(chrono::NaiveTime::MIN).and_utc()))?;
    time.with_nanosecond(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_same_instants_agree_over_zones_and_notations() {
        let outlook = Shown::of_outlook(&map(&json!({
            "subject": "Plan ", "start": {"dateTime": "2026-07-01T09:00:00.0000000", "timeZone": "W. Europe Standard Time"},
            "end": {"dateTime": "2026-07-01T08:00:00", "timeZone": "UTC"}, "location": {"displayName": ""}, "showAs": "tentative"})));
        let salesforce = Shown::of_salesforce(&map(&json!({
            "Subject": "Plan", "StartDateTime": "2026-07-01T07:00:00.000+0000", "DurationInMinutes": 60,
            "Location": null, "ShowAs": "Busy"})));
        for field in Field::ALL {
            assert!(Shown::agrees(&outlook, &salesforce, field), "{field:?}");
        }
    }

    #[test]
    fn whole_days_compare_as_dates_with_an_exclusive_and_an_inclusive_end() {
        let outlook = Shown::of_outlook(&map(&json!({"isAllDay": true,
            "start": {"dateTime": "2026-07-01T00:00:00.0000000", "timeZone": "Asia/Tokyo"},
            "end": {"dateTime": "2026-07-03T00:00:00.0000000", "timeZone": "Asia/Tokyo"}})));
        let row = |end: &str| {
            Shown::of_salesforce(&map(&json!({"IsAllDayEvent": true, "ActivityDate": "2026-07-01",
            "EndDateTime": end})))
        };
        assert!(Shown::agrees(&outlook, &row("2026-07-02T00:00:00.000+0000"), Field::Time));
        assert!(!Shown::agrees(&outlook, &row("2026-07-03T00:00:00.000+0000"), Field::Time));
    }
}
