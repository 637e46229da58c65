//! The value of one field, and its forms on the wire.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use serde_json::Value;

/// One field's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    /// No value.
    Null,
    /// Text, id, picklist value.
    Text(String),
    /// True or false.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Instant; users' fields have second resolution, `SystemModstamp` milliseconds.
    DateTime(DateTime<Utc>),
    /// Day without a zone.
    Date(NaiveDate),
}

impl Cell {
    /// Makes a text value; empty text is stored as null, as Salesforce does.
    pub(crate) fn text(text: &str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Text(text.to_owned()) }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_datetime(&self) -> Option<DateTime<Utc>> {
        if let Self::DateTime(at) = self { Some(*at) } else { None }
    }

    pub(crate) fn as_date(&self) -> Option<NaiveDate> {
        if let Self::Date(day) = self { Some(*day) } else { None }
    }

    pub(crate) fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// Tells whether the value is `true`.
    pub(crate) fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// Returns the REST form.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => Value::from(text.as_str()),
            Self::Bool(flag) => Value::from(*flag),
            Self::Int(number) => Value::from(*number),
            Self::DateTime(at) => Value::from(rest_datetime(*at)),
            Self::Date(day) => Value::from(day.to_string()),
        }
    }

    /// Returns milliseconds since 1970, as change events carry instants and days.
    pub(crate) fn epoch_ms(&self) -> Option<i64> {
        match self {
            Self::DateTime(at) => Some(at.timestamp_millis()),
            Self::Date(day) => Some(midnight(*day).timestamp_millis()),
            _ => None,
        }
    }
}

/// Writes an instant as REST answers do, `2026-11-20T17:00:00.000+0000`.
pub(crate) fn rest_datetime(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true).replace('Z', "+0000")
}

/// Reads an ISO 8601 instant with `Z`, `+0000` or `+00:00`; none when it is anything else.
pub(crate) fn parse_datetime(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    if let Ok(at) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return Some(at.to_utc());
    }
    // A `+` that a client left bare in a query string arrives as a space.
    let (moment, offset) = text.rsplit_once(' ')?;
    let (hours, minutes) = offset.replace(':', "").split_at_checked(2).map(|(h, m)| (h.to_owned(), m.to_owned()))?;
    let east = TimeDelta::hours(hours.parse().ok()?) + TimeDelta::minutes(minutes.parse().ok()?);
    let local = NaiveDateTime::parse_from_str(moment, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    local.checked_sub_signed(east).map(|at| at.and_utc())
}

/// Returns midnight UTC of a day.
pub(crate) fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

/// Cuts an instant to whole seconds.
pub(crate) fn whole_second(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_every_accepted_form_and_written_in_one() {
        for text in [
            "2026-11-20T17:00:00Z",
            "2026-11-20T17:00:00.000Z",
            "2026-11-20T18:00:00+01:00",
            "2026-11-20T17:00:00.000+0000",
            "2026-11-20T17:00:00.000 00:00",
        ] {
            let at = parse_datetime(text).expect(text);
            assert_eq!(rest_datetime(at), "2026-11-20T17:00:00.000+0000", "{text}");
        }
    }

    #[test]
    fn a_local_time_or_a_day_is_not_an_instant() {
        assert_eq!(parse_datetime("2026-11-20T17:00:00"), None);
        assert_eq!(parse_datetime("2026-11-20"), None);
        assert_eq!(parse_datetime("soon"), None);
    }
}
