//! RRULE to Graph `recurrence`, where Graph can express it.
//!
//! The table of both vocabularies: <https://learn.microsoft.com/graph/api/resources/recurrencepattern> and
//! <https://learn.microsoft.com/graph/api/resources/recurrencerange>. What has no counterpart is refused with a reason.

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, TimeZone, Weekday};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

use super::times;

/// A series as Graph wants it.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// `{"pattern": ..., "range": ...}`.
    pub(super) recurrence: Value,
    /// Days between the start that the file gives and the first date that fits the rule.
    pub(super) shift_days: u64,
}

#[derive(Debug, Default)]
struct Rule {
    frequency: String,
    interval: u32,
    count: Option<u32>,
    until: Option<times::When>,
    months: Vec<u32>,
    month_days: Vec<i32>,
    week_days: Vec<(Option<i32>, Weekday)>,
    positions: Vec<i32>,
    first_day: Option<Weekday>,
}

/// Converts a rule for a series that starts at a local time in `zone`.
pub(super) fn to_graph(rule: &str, start: NaiveDateTime, zone: Tz) -> Result<Series, String> {
    let rule = Rule::read(rule)?;
    let (pattern, shift_days) = rule.pattern(start.date())?;
    let first = start.date().checked_add_days(Days::new(shift_days)).ok_or("the series starts too late")?;
    let range = rule.range(first, start, zone)?;
    Ok(Series { recurrence: json!({ "pattern": pattern, "range": range }), shift_days })
}

impl Rule {
    fn read(text: &str) -> Result<Self, String> {
        let mut rule = Self { interval: 1, ..Self::default() };
        for part in text.trim().split(';').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let key = key.trim().to_ascii_uppercase();
            let value = value.trim().to_ascii_uppercase();
            let unreadable = || format!("`{key}` of the series rule cannot be read");
            match key.as_str() {
                "FREQ" => rule.frequency = value,
                "INTERVAL" => {
                    rule.interval = value.parse().ok().filter(|n| (1..=999).contains(n)).ok_or_else(unreadable)?;
                }
                "COUNT" => rule.count = Some(value.parse().ok().filter(|n| *n > 0).ok_or_else(unreadable)?),
                "UNTIL" => rule.until = Some(times::parse_when(&value).ok_or_else(unreadable)?),
                "BYMONTH" => rule.months = times::parse_numbers(&value).ok_or_else(unreadable)?,
                "BYMONTHDAY" => rule.month_days = times::parse_numbers(&value).ok_or_else(unreadable)?,
                "BYSETPOS" => rule.positions = times::parse_numbers(&value).ok_or_else(unreadable)?,
                "BYDAY" => {
                    rule.week_days =
                        value.split(',').map(times::parse_week_day).collect::<Option<_>>().ok_or_else(unreadable)?;
                }
                "WKST" => rule.first_day = Some(times::parse_week_day(&value).ok_or_else(unreadable)?.1),
                _ => return Err(format!("Graph has no counterpart for `{key}` in a series rule")),
            }
        }
        if rule.count.is_some() && rule.until.is_some() {
            return Err("the series rule has both `COUNT` and `UNTIL`".to_owned());
        }
        Ok(rule)
    }

    /// Returns the pattern and how many days the start must move to fit it.
    fn pattern(&self, start: NaiveDate) -> Result<(Value, u64), String> {
        let mut pattern = Map::new();
        pattern.insert("interval".to_owned(), json!(self.interval));
        match self.frequency.as_str() {
            "DAILY" if self.is_plain() && self.week_days.is_empty() => {
                pattern.insert("type".to_owned(), json!("daily"));
                Ok((Value::Object(pattern), 0))
            }
            // Every weekday: Graph says it as a weekly pattern.
            "DAILY" if self.is_plain() && self.interval == 1 => self.weekly(pattern, start),
            "WEEKLY" if self.is_plain() => self.weekly(pattern, start),
            "MONTHLY" if self.months.is_empty() => self.monthly(pattern, start, None),
            "YEARLY" => {
                let month = match self.months.as_slice() {
                    [] => start.month(),
                    [month @ 1..=12] => *month,
                    _ => return Err("Graph takes one month in a yearly series".to_owned()),
                };
                if self.months.is_empty() && !self.week_days.is_empty() {
                    return Err("Graph needs the month of a yearly series on weekdays".to_owned());
                }
                self.monthly(pattern, start, Some(month))
            }
            "DAILY" | "WEEKLY" | "MONTHLY" => {
                Err(format!("Graph has no counterpart for this combination in a `{}` series", self.frequency))
            }
            "" => Err("the series rule has no `FREQ`".to_owned()),
            other => Err(format!("Graph has no counterpart for a series that repeats `{other}`")),
        }
    }

    fn is_plain(&self) -> bool {
        self.months.is_empty() && self.month_days.is_empty() && self.positions.is_empty()
    }

    fn weekly(&self, mut pattern: Map<String, Value>, start: NaiveDate) -> Result<(Value, u64), String> {
        if self.week_days.iter().any(|(nth, _)| nth.is_some()) {
            return Err("a weekly series has no numbered weekdays".to_owned());
        }
        let mut days: Vec<Weekday> = self.week_days.iter().map(|(_, day)| *day).collect();
        if days.is_empty() {
            days.push(start.weekday());
        }
        let shift = (0..7u64)
            .find(|ahead| start.checked_add_days(Days::new(*ahead)).is_some_and(|day| days.contains(&day.weekday())))
            .ok_or("no weekday of the series rule fits")?;
        if shift > 0 && self.interval > 1 {
            return Err("the first date does not fit the series rule".to_owned());
        }
        days.sort_by_key(Weekday::num_days_from_sunday);
        days.dedup();
        pattern.insert("type".to_owned(), json!("weekly"));
        pattern.insert("daysOfWeek".to_owned(), days.iter().map(|day| json!(graph_day(*day))).collect());
        // RFC 5545: weeks begin on Monday where WKST is missing; Graph's own default is Sunday, so it is always said.
        pattern.insert("firstDayOfWeek".to_owned(), json!(graph_day(self.first_day.unwrap_or(Weekday::Mon))));
        Ok((Value::Object(pattern), shift))
    }

    fn monthly(
        &self,
        mut pattern: Map<String, Value>,
        start: NaiveDate,
        month: Option<u32>,
    ) -> Result<(Value, u64), String> {
        if let Some(month) = month {
            pattern.insert("month".to_owned(), json!(month));
        }
        if self.week_days.is_empty() {
            let day = match self.month_days.as_slice() {
                [] => i32::try_from(start.day()).unwrap_or(1),
                [day @ 1..=31] => *day,
                _ => return Err("Graph takes one day of the month, counted from its beginning".to_owned()),
            };
            if !self.positions.is_empty() {
                return Err("Graph has no counterpart for `BYSETPOS` on days of the month".to_owned());
            }
            let fits = i64::from(start.day()) == i64::from(day) && month.is_none_or(|month| month == start.month());
            if !fits {
                return Err("the first date does not fit the series rule".to_owned());
            }
            pattern
                .insert("type".to_owned(), json!(if month.is_some() { "absoluteYearly" } else { "absoluteMonthly" }));
            pattern.insert("dayOfMonth".to_owned(), json!(day));
            return Ok((Value::Object(pattern), 0));
        }
        let (days, nth) = self.relative()?;
        let in_month: Vec<NaiveDate> = start
            .with_day(1)
            .into_iter()
            .flat_map(|first| first.iter_days())
            .take_while(|day| day.month() == start.month() && day.year() == start.year())
            .filter(|day| days.contains(&day.weekday()))
            .collect();
        if times::nth(&in_month, nth) != Some(start) || month.is_some_and(|month| month != start.month()) {
            return Err("the first date does not fit the series rule".to_owned());
        }
        let index = match nth {
            1 => "first",
            2 => "second",
            3 => "third",
            4 => "fourth",
            _ => "last",
        };
        pattern.insert("type".to_owned(), json!(if month.is_some() { "relativeYearly" } else { "relativeMonthly" }));
        pattern.insert("daysOfWeek".to_owned(), days.iter().map(|day| json!(graph_day(*day))).collect());
        pattern.insert("index".to_owned(), json!(index));
        Ok((Value::Object(pattern), 0))
    }

    /// Weekdays and position of a relative pattern.
    fn relative(&self) -> Result<(Vec<Weekday>, i32), String> {
        if !self.month_days.is_empty() {
            return Err("Graph has no counterpart for weekdays within days of the month".to_owned());
        }
        let nth = match (self.week_days.as_slice(), self.positions.as_slice()) {
            ([(Some(nth), _)], []) => *nth,
            (days, [position]) if days.iter().all(|(nth, _)| nth.is_none()) => *position,
            _ => return Err("Graph takes one position of the weekday within the month".to_owned()),
        };
        if !matches!(nth, 1..=4 | -1) {
            return Err(format!("Graph has no position `{nth}` within the month"));
        }
        let mut days: Vec<Weekday> = self.week_days.iter().map(|(_, day)| *day).collect();
        days.sort_by_key(Weekday::num_days_from_sunday);
        days.dedup();
        let weekend = [Weekday::Sun, Weekday::Sat];
        let working = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri];
        if days.len() == 1 || days.len() == 7 || days == weekend || days == working {
            Ok((days, nth))
        } else {
            Err("Graph and iCalendar disagree about this set of weekdays".to_owned())
        }
    }

    fn range(&self, first: NaiveDate, start: NaiveDateTime, zone: Tz) -> Result<Value, String> {
        let mut range = Map::new();
        range.insert("startDate".to_owned(), json!(first.to_string()));
        range.insert("recurrenceTimeZone".to_owned(), json!(zone.name()));
        let end = match self.until {
            None => None,
            Some(times::When::Date(date)) => Some(date),
            Some(times::When::Time { local, utc }) => {
                let local = if utc { zone.from_utc_datetime(&local).naive_local() } else { local };
                // An UNTIL before the time of day at which occurrences begin leaves out its own date.
                if local.time() < start.time() { local.date().pred_opt() } else { Some(local.date()) }
            }
        };
        match (end, self.count) {
            (Some(end), _) if end < first => return Err("the series ends before it begins".to_owned()),
            (Some(end), _) => {
                range.insert("type".to_owned(), json!("endDate"));
                range.insert("endDate".to_owned(), json!(end.to_string()));
            }
            (None, Some(count)) => {
                range.insert("type".to_owned(), json!("numbered"));
                range.insert("numberOfOccurrences".to_owned(), json!(count));
            }
            (None, None) => {
                range.insert("type".to_owned(), json!("noEnd"));
            }
        }
        Ok(Value::Object(range))
    }
}

fn graph_day(day: Weekday) -> &'static str {
    match day {
        Weekday::Mon => "monday",
        Weekday::Tue => "tuesday",
        Weekday::Wed => "wednesday",
        Weekday::Thu => "thursday",
        Weekday::Fri => "friday",
        Weekday::Sat => "saturday",
        Weekday::Sun => "sunday",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(rule: &str, start: &str) -> Result<Series, String> {
        to_graph(rule, times::parse_local(start).unwrap(), Tz::Europe__Berlin)
    }

    #[test]
    fn each_pattern_of_graph_is_reached() {
        for (rule, start, expected) in [
            ("FREQ=DAILY;INTERVAL=2", "20260105T090000", json!({"type": "daily", "interval": 2})),
            (
                "FREQ=WEEKLY;BYDAY=WE,MO;WKST=SU",
                "20260105T090000",
                json!({"type": "weekly", "interval": 1, "daysOfWeek": ["monday", "wednesday"], "firstDayOfWeek": "sunday"}),
            ),
            (
                "FREQ=MONTHLY;BYMONTHDAY=5",
                "20260105T090000",
                json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 5}),
            ),
            (
                "FREQ=MONTHLY;BYDAY=1MO",
                "20260105T090000",
                json!({"type": "relativeMonthly", "interval": 1, "daysOfWeek": ["monday"], "index": "first"}),
            ),
            (
                "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
                "20260130T090000",
                json!({"type": "relativeMonthly", "interval": 1, "index": "last",
                       "daysOfWeek": ["monday", "tuesday", "wednesday", "thursday", "friday"]}),
            ),
            (
                "FREQ=YEARLY",
                "20260105T090000",
                json!({"type": "absoluteYearly", "interval": 1, "month": 1, "dayOfMonth": 5}),
            ),
            (
                "FREQ=YEARLY;BYMONTH=1;BYDAY=1MO",
                "20260105T090000",
                json!({"type": "relativeYearly", "interval": 1, "month": 1, "daysOfWeek": ["monday"], "index": "first"}),
            ),
        ] {
            assert_eq!(graph(rule, start).unwrap().recurrence["pattern"], expected, "{rule}");
        }
    }

    #[test]
    fn what_graph_cannot_say_is_refused_with_a_reason() {
        for rule in [
            "FREQ=HOURLY",
            "FREQ=MONTHLY;BYMONTHDAY=1,15",
            "FREQ=YEARLY;BYWEEKNO=3",
            "FREQ=MONTHLY;BYMONTHDAY=-1",
            "FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=1",
            "FREQ=MONTHLY;BYDAY=5MO",
            "FREQ=DAILY;COUNT=0",
            "FREQ=DAILY;UNTIL=20250101",
            "COUNT=3",
        ] {
            assert!(graph(rule, "20260105T090000").is_err(), "{rule}");
        }
    }

    #[test]
    fn until_becomes_the_last_local_date() {
        let end = |until: &str| {
            graph(&format!("FREQ=DAILY;UNTIL={until}"), "20260105T090000").unwrap().recurrence["range"]["endDate"]
                .clone()
        };
        assert_eq!(end("20260110T080000Z"), "2026-01-10");
        assert_eq!(end("20260110T075959Z"), "2026-01-09");
        assert_eq!(end("20260110"), "2026-01-10");
    }

    #[test]
    fn a_weekly_series_begins_on_the_first_day_that_fits() {
        let series = graph("FREQ=WEEKLY;BYDAY=TH,FR", "20260105T090000").unwrap();
        assert_eq!(series.shift_days, 3);
        assert_eq!(series.recurrence["range"]["startDate"], "2026-01-08");
    }
}
