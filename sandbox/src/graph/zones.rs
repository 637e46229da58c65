//! Time zones by Windows or IANA name, and the local times of Graph's `dateTimeTimeZone`.
//!
//! Graph takes Windows names and a list of IANA names and answers in the name that was asked for
//! (<https://learn.microsoft.com/en-us/graph/api/resources/datetimetimezone>).

use std::str::FromStr;

use chrono::{DateTime, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};
use windows_timezones::WindowsTimezone;

use super::error::GraphError;

/// IANA names that the zone table lacks, with the older name that it has (tzdata's `backward` file).
const ALIASES: &[(&str, &str)] = &[
    ("UTC", "Etc/UTC"),
    ("Asia/Kolkata", "Asia/Calcutta"),
    ("Europe/Kyiv", "Europe/Kiev"),
    ("America/Argentina/Buenos_Aires", "America/Buenos_Aires"),
    ("America/Indiana/Indianapolis", "America/Indianapolis"),
    ("Asia/Kathmandu", "Asia/Katmandu"),
    ("Asia/Ho_Chi_Minh", "Asia/Saigon"),
    ("Asia/Yangon", "Asia/Rangoon"),
    ("America/Nuuk", "America/Godthab"),
    ("Atlantic/Faroe", "Atlantic/Faeroe"),
    ("US/Eastern", "America/New_York"),
    ("US/Central", "America/Chicago"),
    ("US/Mountain", "America/Denver"),
    ("US/Pacific", "America/Los_Angeles"),
    ("US/Alaska", "America/Anchorage"),
    ("US/Hawaii", "Pacific/Honolulu"),
    ("US/Arizona", "America/Phoenix"),
    ("GMT", "Etc/GMT"),
];

/// A zone under the name that a client gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    /// The name as given.
    pub name: String,
    /// The rules behind it.
    pub rules: Tz,
}

impl Zone {
    pub(crate) fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: Tz::UTC }
    }

    /// Reads a Windows or IANA name.
    pub(crate) fn parse(name: &str) -> Result<Self, GraphError> {
        let rules = match name {
            "tzone://Microsoft/Utc" => Some(Tz::UTC),
            _ => WindowsTimezone::from_str(name).map(Tz::from).ok().or_else(|| Tz::from_str(name).ok()),
        };
        match rules {
            Some(rules) => Ok(Self { name: name.to_owned(), rules }),
            None => Err(GraphError::new(
                400,
                "TimeZoneNotSupportedException",
                "A valid TimeZone value must be specified. The following TimeZone value is not supported.",
            )),
        }
    }

    /// Returns the Windows name, or the own name where none exists.
    pub(crate) fn windows_name(&self) -> String {
        if self.rules == Tz::UTC {
            return "UTC".to_owned();
        }
        if let Ok(windows) = WindowsTimezone::from_str(&self.name) {
            return windows.name().to_owned();
        }
        let own = self.rules.name();
        let listed = ALIASES.iter().find(|(new, _)| *new == own).map_or(own, |(_, old)| *old);
        Tz::from_str(listed)
            .ok()
            .and_then(|tz| WindowsTimezone::try_from(tz).ok())
            .map_or_else(|| self.name.clone(), |windows| windows.name().to_owned())
    }

    /// Returns the instant of a local time; a time inside a spring gap moves forward past it, an ambiguous one is the first.
    pub(crate) fn instant(&self, local: NaiveDateTime) -> DateTime<Utc> {
        for minutes in [0, 60, 120, 180] {
            match self.rules.from_local_datetime(&(local + TimeDelta::minutes(minutes))) {
                LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => return at.with_timezone(&Utc),
                LocalResult::None => {}
            }
        }
        local.and_utc()
    }

    pub(crate) fn local(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.with_timezone(&self.rules).naive_local()
    }
}

/// A local time with its zone: `start` or `end` of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct When {
    /// Wall-clock time.
    pub local: NaiveDateTime,
    /// Zone of the wall clock.
    pub zone: Zone,
}

impl When {
    /// Reads `{dateTime, timeZone}`; a missing zone is UTC.
    pub(crate) fn parse(value: &Value) -> Result<Self, GraphError> {
        let text = value.get("dateTime").and_then(Value::as_str).ok_or_else(|| {
            GraphError::property("At least one property failed validation: a dateTime is missing or not a string.")
        })?;
        let zone = match value.get("timeZone") {
            None | Some(Value::Null) => Zone::utc(),
            Some(Value::String(name)) => Zone::parse(name)?,
            Some(_) => {
                return Err(GraphError::property("At least one property failed validation: timeZone."));
            }
        };
        let local = match parse_moment(text) {
            Some(Moment::Local(local)) => local,
            Some(Moment::Instant(at)) => zone.local(at),
            None => {
                return Err(GraphError::new(
                    400,
                    "ErrorInvalidProperty",
                    "The dateTime value is not a valid date and time.",
                ));
            }
        };
        Ok(Self { local, zone })
    }

    pub(crate) fn instant(&self) -> DateTime<Utc> {
        self.zone.instant(self.local)
    }

    pub(crate) fn is_midnight(&self) -> bool {
        self.local.time() == NaiveTime::MIN
    }

    /// Renders the time in a zone; an all-day time floats: its date is the same in every zone (unconfirmed).
    pub(crate) fn render(&self, zone: &Zone, floating: bool) -> Value {
        let local = if floating { self.local } else { zone.local(self.instant()) };
        json!({"dateTime": graph_local(local), "timeZone": zone.name})
    }
}

/// What a time text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A wall-clock time without offset.
    Local(NaiveDateTime),
    /// A time with offset.
    Instant(DateTime<Utc>),
}

impl Moment {
    /// Returns the instant, reading a time without offset as UTC.
    pub(crate) fn in_utc(self) -> DateTime<Utc> {
        match self {
            Self::Local(local) => local.and_utc(),
            Self::Instant(at) => at,
        }
    }
}

/// Reads an ISO 8601 date, local time or time with offset.
pub(crate) fn parse_moment(text: &str) -> Option<Moment> {
    // An unescaped plus sign of an offset arrives as a space from a query string.
    let text = text.trim().replace(' ', "+");
    if let Ok(at) = DateTime::parse_from_rfc3339(&text) {
        return Some(Moment::Instant(at.with_timezone(&Utc)));
    }
    for format in ["%Y-%m-%dT%H:%M%:z", "%Y-%m-%dT%H:%M:%S%.f%#z"] {
        if let Ok(at) = DateTime::parse_from_str(&text, format) {
            return Some(Moment::Instant(at.with_timezone(&Utc)));
        }
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(local) = NaiveDateTime::parse_from_str(&text, format) {
            return Some(Moment::Local(local));
        }
    }
    NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok().map(|date| Moment::Local(date.and_time(NaiveTime::MIN)))
}

/// Writes a local time with Graph's seven fractional digits.
pub(crate) fn graph_local(local: NaiveDateTime) -> String {
    format!("{}.0000000", local.format("%Y-%m-%dT%H:%M:%S"))
}

/// Writes an instant as Graph writes a DateTimeOffset: UTC, seven fractional digits, `Z`.
pub(crate) fn graph_instant(at: DateTime<Utc>) -> String {
    format!("{}.{:07}Z", at.format("%Y-%m-%dT%H:%M:%S"), at.timestamp_subsec_nanos() / 100)
}

/// Adds days to a date without overflow.
pub(crate) fn plus_days(date: NaiveDate, days: u64) -> NaiveDate {
    date.checked_add_days(Days::new(days)).unwrap_or(NaiveDate::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_iana_names_give_the_same_instant() {
        let windows = When::parse(&json!({"dateTime": "2026-11-21T10:00:00", "timeZone": "W. Europe Standard Time"}));
        let iana = When::parse(&json!({"dateTime": "2026-11-21T10:00:00.0000000", "timeZone": "Europe/Berlin"}));
        assert_eq!(windows.unwrap().instant(), iana.unwrap().instant());
    }

    #[test]
    fn newer_iana_names_have_a_windows_name() {
        assert_eq!(Zone::parse("Asia/Kolkata").unwrap().windows_name(), "India Standard Time");
        assert_eq!(Zone::parse("Europe/Kyiv").unwrap().windows_name(), "FLE Standard Time");
        assert_eq!(Zone::parse("UTC").unwrap().windows_name(), "UTC");
    }

    #[test]
    fn unknown_zone_is_refused() {
        assert_eq!(Zone::parse("Middle Earth Time").unwrap_err().code, "TimeZoneNotSupportedException");
    }

    #[test]
    fn times_inside_the_spring_gap_move_forward() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let gap = NaiveDate::from_ymd_opt(2026, 3, 29).unwrap().and_hms_opt(2, 30, 0).unwrap();
        assert_eq!(graph_instant(zone.instant(gap)), "2026-03-29T01:30:00.0000000Z");
    }

    #[test]
    fn offsets_in_window_parameters_count() {
        let Some(moment) = parse_moment("2026-11-21T00:00:00+01:00") else { panic!("offset not understood") };
        assert_eq!(graph_instant(moment.in_utc()), "2026-11-20T23:00:00.0000000Z");
        assert!(parse_moment("2026-11-21T00:00:00-08:00").is_some());
        assert!(parse_moment("yesterday").is_none());
    }
}
