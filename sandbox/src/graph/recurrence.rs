//! Recurrence patterns: reading, writing and expanding them into dates.
//!
//! Owns the calendar arithmetic only; exceptions and cancelled occurrences are in `series.rs`.
//! Source: <https://learn.microsoft.com/en-us/graph/api/resources/recurrencepattern> and `.../recurrencerange`.

use chrono::{Datelike, Days, Months, NaiveDate, Weekday};
use serde_json::{Value, json};

use super::error::GraphError;
use super::input::pick;
use super::zones::plus_days;

/// Bound on the steps of one expansion; a daily series reaches 27 years with it.
const MAX_STEPS: u32 = 10_000;

const TYPES: &[&str] = &["daily", "weekly", "absoluteMonthly", "relativeMonthly", "absoluteYearly", "relativeYearly"];
const DAYS: &[&str] = &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const INDEXES: &[&str] = &["first", "second", "third", "fourth", "last"];
const RANGES: &[&str] = &["endDate", "noEnd", "numbered"];

/// A `patternedRecurrence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recurrence {
    kind: &'static str,
    interval: u32,
    days: Vec<&'static str>,
    first_day: &'static str,
    day_of_month: u32,
    month: u32,
    index: &'static str,
    range: &'static str,
    start: NaiveDate,
    end: Option<NaiveDate>,
    count: u32,
    zone: String,
}

fn refuse(what: &str) -> GraphError {
    GraphError::new(400, "ErrorInvalidProperty", format!("The recurrence is not valid: {what}."))
}

fn number(object: &Value, key: &str) -> Result<u32, GraphError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| refuse(key)),
    }
}

fn date(object: &Value, key: &str) -> Result<Option<NaiveDate>, GraphError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let parsed = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_error| refuse(key))?;
            // The year 1 is how an absent date is written.
            Ok((parsed.year() > 1).then_some(parsed))
        }
        Some(_) => Err(refuse(key)),
    }
}

fn choose(object: &Value, key: &str, choices: &'static [&'static str]) -> Result<Option<&'static str>, GraphError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => pick(key, value, choices).map(Some),
    }
}

impl Recurrence {
    /// Reads a `patternedRecurrence`; `first` is the date of the event's own start.
    pub(crate) fn parse(value: &Value, first: NaiveDate, zone: &str) -> Result<Self, GraphError> {
        let pattern = value.get("pattern").filter(|p| p.is_object()).ok_or_else(|| refuse("pattern is missing"))?;
        let range = value.get("range").filter(|r| r.is_object()).ok_or_else(|| refuse("range is missing"))?;
        let kind = choose(pattern, "type", TYPES)?.ok_or_else(|| refuse("pattern.type is missing"))?;
        let mut days = Vec::new();
        for day in pattern.get("daysOfWeek").and_then(Value::as_array).into_iter().flatten() {
            days.push(pick("daysOfWeek", day, DAYS)?);
        }
        let interval = match pattern.get("interval") {
            None | Some(Value::Null) => 1,
            Some(_) => number(pattern, "interval")?,
        };
        let recurrence = Self {
            kind,
            interval,
            days,
            first_day: choose(pattern, "firstDayOfWeek", DAYS)?.unwrap_or("sunday"),
            day_of_month: number(pattern, "dayOfMonth")?,
            month: number(pattern, "month")?,
            index: choose(pattern, "index", INDEXES)?.unwrap_or("first"),
            range: choose(range, "type", RANGES)?.ok_or_else(|| refuse("range.type is missing"))?,
            start: date(range, "startDate")?.unwrap_or(first),
            end: date(range, "endDate")?,
            count: number(range, "numberOfOccurrences")?,
            zone: range
                .get("recurrenceTimeZone")
                .and_then(Value::as_str)
                .filter(|z| !z.is_empty())
                .unwrap_or(zone)
                .to_owned(),
        };
        recurrence.check()?;
        Ok(recurrence)
    }

    fn check(&self) -> Result<(), GraphError> {
        if self.interval == 0 {
            return Err(refuse("interval must be at least 1"));
        }
        if matches!(self.kind, "weekly" | "relativeMonthly" | "relativeYearly") && self.days.is_empty() {
            return Err(refuse("daysOfWeek is missing"));
        }
        if matches!(self.kind, "absoluteMonthly" | "absoluteYearly") && !(1..=31).contains(&self.day_of_month) {
            return Err(refuse("dayOfMonth must be between 1 and 31"));
        }
        if self.kind.ends_with("Yearly") && !(1..=12).contains(&self.month) {
            return Err(refuse("month must be between 1 and 12"));
        }
        match self.range {
            "endDate" if self.end.is_none_or(|end| end < self.start) => {
                Err(refuse("endDate is missing or before startDate"))
            }
            "numbered" if self.count == 0 => Err(refuse("numberOfOccurrences must be at least 1")),
            _ => Ok(()),
        }
    }

    /// Writes the resource; unused numbers are 0 and an absent end is the year 1, as Graph fills them (unconfirmed).
    pub(crate) fn render(&self) -> Value {
        json!({
            "pattern": {"type": self.kind, "interval": self.interval, "month": self.month,
                "dayOfMonth": self.day_of_month, "daysOfWeek": self.days, "firstDayOfWeek": self.first_day,
                "index": self.index},
            "range": {"type": self.range, "startDate": self.start.to_string(),
                "endDate": self.end.map_or_else(|| "0001-01-01".to_owned(), |end| end.to_string()),
                "recurrenceTimeZone": self.zone, "numberOfOccurrences": self.count},
        })
    }

    /// Returns the dates of the series up to `until`, in order.
    pub(crate) fn dates(&self, until: NaiveDate) -> Vec<NaiveDate> {
        let last = match (self.range, self.end) {
            ("endDate", Some(end)) => end.min(until),
            _ => until,
        };
        let limit = if self.range == "numbered" { self.count as usize } else { usize::MAX };
        let mut dates = Vec::new();
        for step in 0..MAX_STEPS {
            let Some((base, candidates)) = self.period(step) else {
                break;
            };
            if base > last {
                break;
            }
            for candidate in candidates {
                if candidate < self.start {
                    continue;
                }
                if candidate > last || dates.len() >= limit {
                    return dates;
                }
                dates.push(candidate);
            }
        }
        dates
    }

    /// Returns the first day and the dates of the n-th period (day, week, month or year).
    fn period(&self, step: u32) -> Option<(NaiveDate, Vec<NaiveDate>)> {
        let distance = step.checked_mul(self.interval)?;
        match self.kind {
            "daily" => {
                let day = self.start.checked_add_days(Days::new(u64::from(distance)))?;
                Some((day, vec![day]))
            }
            "weekly" => {
                let first = DAYS.iter().position(|d| *d == self.first_day).unwrap_or(0);
                let own = self.start.weekday().num_days_from_sunday() as usize;
                let week = self.start.checked_sub_days(Days::new(((own + 7 - first) % 7) as u64))?;
                let week = week.checked_add_days(Days::new(u64::from(distance) * 7))?;
                let dates = (0..7).map(|n| plus_days(week, n)).filter(|day| self.has_day(day.weekday())).collect();
                Some((week, dates))
            }
            "absoluteMonthly" | "relativeMonthly" => {
                let month = self.start.with_day(1)?.checked_add_months(Months::new(distance))?;
                Some((month, self.in_month(month).into_iter().collect()))
            }
            _ => {
                let year = self.start.year().checked_add(i32::try_from(distance).ok()?)?;
                let month = NaiveDate::from_ymd_opt(year, self.month, 1)?;
                Some((NaiveDate::from_ymd_opt(year, 1, 1)?, self.in_month(month).into_iter().collect()))
            }
        }
    }

    fn in_month(&self, month: NaiveDate) -> Option<NaiveDate> {
        let days: Vec<NaiveDate> = month.iter_days().take_while(|day| day.month() == month.month()).collect();
        if self.kind.starts_with("absolute") {
            // Outlook moves days 29 to 31 to the end of shorter months (unconfirmed).
            let position = (self.day_of_month as usize).min(days.len());
            return days.get(position.checked_sub(1)?).copied();
        }
        let mut matching = days.into_iter().filter(|day| self.has_day(day.weekday()));
        match INDEXES.iter().position(|index| *index == self.index).unwrap_or(0) {
            4 => matching.next_back(),
            position => matching.nth(position),
        }
    }

    fn has_day(&self, day: Weekday) -> bool {
        DAYS.get(day.num_days_from_sunday() as usize).is_some_and(|name| self.days.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap()
    }

    fn expand(pattern: &Value, range: &Value, until: &str) -> Vec<String> {
        let value = json!({"pattern": pattern, "range": range});
        let recurrence = Recurrence::parse(&value, day("2026-01-05"), "UTC").unwrap();
        recurrence.dates(day(until)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn daily_stops_at_its_count() {
        let dates = expand(
            &json!({"type": "daily", "interval": 2}),
            &json!({"type": "numbered", "startDate": "2026-01-05", "numberOfOccurrences": 3}),
            "2027-01-01",
        );
        assert_eq!(dates, ["2026-01-05", "2026-01-07", "2026-01-09"]);
    }

    #[test]
    fn fortnightly_weeks_count_from_the_first_day_of_the_week() {
        let dates = expand(
            &json!({"type": "Weekly", "interval": 2, "daysOfWeek": ["Monday", "sunday"], "firstDayOfWeek": "monday"}),
            &json!({"type": "endDate", "startDate": "2026-01-05", "endDate": "2026-01-25"}),
            "2027-01-01",
        );
        assert_eq!(dates, ["2026-01-05", "2026-01-11", "2026-01-19", "2026-01-25"]);
    }

    #[test]
    fn day_31_falls_on_the_last_day_of_short_months() {
        let dates = expand(
            &json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 31}),
            &json!({"type": "noEnd", "startDate": "2026-01-05"}),
            "2026-04-30",
        );
        assert_eq!(dates, ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]);
    }

    #[test]
    fn relative_patterns_find_the_second_thursday_and_the_last_friday() {
        let monthly = expand(
            &json!({"type": "relativeMonthly", "interval": 1, "daysOfWeek": ["thursday"], "index": "second"}),
            &json!({"type": "numbered", "startDate": "2026-01-05", "numberOfOccurrences": 2}),
            "2027-01-01",
        );
        assert_eq!(monthly, ["2026-01-08", "2026-02-12"]);
        let yearly = expand(
            &json!({"type": "relativeYearly", "interval": 1, "daysOfWeek": ["friday"], "index": "last", "month": 11}),
            &json!({"type": "noEnd", "startDate": "2026-01-05"}),
            "2027-12-31",
        );
        assert_eq!(yearly, ["2026-11-27", "2027-11-26"]);
    }

    #[test]
    fn weekly_without_days_is_refused() {
        let value = json!({"pattern": {"type": "weekly", "interval": 1}, "range": {"type": "noEnd"}});
        assert_eq!(Recurrence::parse(&value, day("2026-01-05"), "UTC").unwrap_err().status, 400);
    }
}
