//! Zones that only the file describes: evaluates `VTIMEZONE` rules.
//!
//! Covers fixed offsets, explicit dates and yearly rules (RFC 5545 section 3.6.5), which is what Outlook, Exchange,
//! Apple and Google write; other rule frequencies make the zone unreadable, with a reason.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Utc, Weekday};

use super::components::Component;
use super::times;

/// One zone: its observances with their onsets.
#[derive(Debug, Clone)]
pub(super) struct CustomZone {
    observances: Vec<Observance>,
}

#[derive(Debug, Clone)]
struct Observance {
    begin: NaiveDateTime,
    offset_from: TimeDelta,
    offset_to: TimeDelta,
    extra: Vec<NaiveDateTime>,
    rule: Option<YearlyRule>,
}

#[derive(Debug, Clone)]
struct YearlyRule {
    interval: i32,
    months: Vec<u32>,
    month_days: Vec<i32>,
    week_days: Vec<(Option<i32>, Weekday)>,
    until: Option<NaiveDateTime>,
    count: Option<i32>,
}

impl CustomZone {
    /// Reads a `VTIMEZONE`.
    pub(super) fn read(component: &Component) -> Result<Self, String> {
        let mut observances = Vec::new();
        for child in &component.children {
            if matches!(child.name.as_str(), "STANDARD" | "DAYLIGHT") {
                observances.push(Observance::read(child)?);
            }
        }
        if observances.is_empty() {
            return Err("the zone has neither STANDARD nor DAYLIGHT".to_owned());
        }
        Ok(Self { observances })
    }

    /// Returns the instant of a local time; one that occurs twice is the first, one that is skipped counts from the
    /// offset before the gap (RFC 5545 section 3.3.5).
    pub(super) fn instant(&self, local: NaiveDateTime) -> DateTime<Utc> {
        let onsets = self.onsets(local.year());
        let mut offsets: Vec<TimeDelta> =
            self.observances.iter().flat_map(|observance| [observance.offset_to, observance.offset_from]).collect();
        offsets.sort();
        offsets.dedup();
        // The larger the offset, the earlier the instant: so the first match is the first occurrence.
        for offset in offsets.iter().rev() {
            let candidate = local - *offset;
            if self.offset_at(&onsets, candidate) == *offset {
                return candidate.and_utc();
            }
        }
        let largest = offsets.last().copied().unwrap_or_default();
        let before_gap = self.offset_at(&onsets, local - largest);
        (local - before_gap).and_utc()
    }

    /// All onsets around a year as (UTC, offset from then on), in order.
    fn onsets(&self, year: i32) -> Vec<(NaiveDateTime, TimeDelta)> {
        let mut onsets = Vec::new();
        for observance in &self.observances {
            for local in observance.onsets_around(year) {
                onsets.push((local - observance.offset_from, observance.offset_to));
            }
        }
        onsets.sort();
        onsets
    }

    fn offset_at(&self, onsets: &[(NaiveDateTime, TimeDelta)], instant: NaiveDateTime) -> TimeDelta {
        let current = onsets.iter().rev().find(|(onset, _)| *onset <= instant).map(|(_, offset)| *offset);
        current.or_else(|| self.earliest().map(|observance| observance.offset_from)).unwrap_or_default()
    }

    fn earliest(&self) -> Option<&Observance> {
        self.observances.iter().min_by_key(|observance| observance.begin)
    }
}

impl Observance {
    fn read(component: &Component) -> Result<Self, String> {
        let offset = |name: &str| {
            let value = component.word(name).ok_or_else(|| format!("the zone lacks `{name}`"))?;
            parse_offset(&value).ok_or_else(|| format!("`{name}` of the zone is not an offset"))
        };
        let begin = component.property("DTSTART").ok_or("the zone lacks `DTSTART`")?;
        let begin = times::parse_local(&begin.value).ok_or("`DTSTART` of the zone is not a time")?;
        let extra = component
            .all("RDATE")
            .flat_map(|property| property.value.split(','))
            .filter_map(|value| times::parse_local(value.split('/').next().unwrap_or(value)))
            .collect();
        let rule = component.property("RRULE").map(|rule| YearlyRule::read(&rule.value)).transpose()?;
        Ok(Self { begin, offset_from: offset("TZOFFSETFROM")?, offset_to: offset("TZOFFSETTO")?, extra, rule })
    }

    /// Local onsets that can matter for a year: those of the year and its neighbours, and the last one before.
    fn onsets_around(&self, year: i32) -> Vec<NaiveDateTime> {
        let mut onsets = vec![self.begin];
        onsets.extend(&self.extra);
        let Some(rule) = &self.rule else { return onsets };
        let last_by_until = rule.until.map_or(i32::MAX, |until| until.year());
        let last_by_count = rule.count.map_or(i32::MAX, |count| {
            self.begin.year().saturating_add(count.saturating_sub(1).saturating_mul(rule.interval))
        });
        let last = (year + 1).min(last_by_until).min(last_by_count);
        // Two rule periods before the last year always hold the latest onset.
        let first = self.begin.year().max(last.saturating_sub(2 * rule.interval).min(year - 1));
        for candidate in first..=last {
            if (candidate - self.begin.year()) % rule.interval != 0 {
                continue;
            }
            for date in rule.dates(candidate, self.begin.date()) {
                let onset = date.and_time(self.begin.time());
                // UNTIL is written in UTC; the offset before the onset applies.
                let ended = rule.until.is_some_and(|until| onset - self.offset_from > until);
                if onset > self.begin && !ended {
                    onsets.push(onset);
                }
            }
        }
        onsets
    }
}

impl YearlyRule {
    fn read(value: &str) -> Result<Self, String> {
        let mut rule =
            Self { interval: 1, months: vec![], month_days: vec![], week_days: vec![], until: None, count: None };
        let mut frequency = String::new();
        for part in value.split(';') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().to_ascii_uppercase();
            let unreadable = || format!("`{}` of the zone's rule cannot be read", key.trim());
            match key.trim().to_ascii_uppercase().as_str() {
                "FREQ" => frequency = value,
                "INTERVAL" => {
                    rule.interval = value.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(unreadable)?;
                }
                "COUNT" => rule.count = Some(value.parse().ok().ok_or_else(unreadable)?),
                "UNTIL" => rule.until = Some(times::parse_local(&value).ok_or_else(unreadable)?),
                "BYMONTH" => {
                    rule.months = times::parse_numbers(&value).ok_or_else(unreadable)?;
                }
                "BYMONTHDAY" => {
                    rule.month_days = times::parse_numbers(&value).ok_or_else(unreadable)?;
                }
                "BYDAY" => {
                    rule.week_days =
                        value.split(',').map(times::parse_week_day).collect::<Option<_>>().ok_or_else(unreadable)?;
                }
                "WKST" | "" => {}
                other => return Err(format!("`{other}` in a zone's rule is not supported")),
            }
        }
        if frequency != "YEARLY" {
            return Err(format!("a zone's rule repeats `{frequency}`, only `YEARLY` is supported"));
        }
        Ok(rule)
    }

    /// The rule's dates in one year.
    fn dates(&self, year: i32, begin: NaiveDate) -> Vec<NaiveDate> {
        let months = if self.months.is_empty() { vec![begin.month()] } else { self.months.clone() };
        let mut dates = Vec::new();
        for month in months {
            let Some(first) = NaiveDate::from_ymd_opt(year, month, 1) else {
                continue;
            };
            let days: Vec<NaiveDate> = first.iter_days().take_while(|day| day.month() == month).collect();
            if self.week_days.is_empty() && self.month_days.is_empty() {
                dates.extend(days.iter().find(|day| day.day() == begin.day()));
                continue;
            }
            let length = i32::try_from(days.len()).unwrap_or(31);
            let in_month_days = |day: &NaiveDate| {
                let number = i32::try_from(day.day()).unwrap_or_default();
                self.month_days.is_empty()
                    || self.month_days.iter().any(|wanted| *wanted == number || *wanted == number - length - 1)
            };
            if self.week_days.is_empty() {
                dates.extend(days.iter().filter(|day| in_month_days(day)));
            }
            for (nth, week_day) in &self.week_days {
                let matching: Vec<NaiveDate> = days.iter().copied().filter(|day| day.weekday() == *week_day).collect();
                match nth {
                    None => dates.extend(matching.iter().filter(|day| in_month_days(day))),
                    Some(nth) => dates.extend(times::nth(&matching, *nth).filter(|day| in_month_days(day))),
                }
            }
        }
        dates.sort();
        dates
    }
}

/// Parses `+0100`, `-0330`, `+05:30`, `+013000`.
pub(super) fn parse_offset(text: &str) -> Option<TimeDelta> {
    let (sign, digits) = match text.trim().split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    if !matches!(digits.len(), 1 | 2 | 4 | 6) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, rest) = digits.split_at_checked(digits.len().min(2))?;
    let (minutes, seconds) = rest.split_at_checked(rest.len().min(2))?;
    let number = |text: &str| {
        if text.is_empty() { Some(0) } else { text.parse::<i64>().ok() }
    };
    let total = number(hours)? * 3600 + number(minutes)? * 60 + number(seconds)?;
    (total <= 18 * 3600).then(|| TimeDelta::seconds(sign * total))
}

#[cfg(test)]
mod tests {
    use super::super::{Losses, components, lines};
    use super::*;

    fn zone(body: &str) -> CustomZone {
        let text = format!("BEGIN:VCALENDAR\nBEGIN:VTIMEZONE\nTZID:X\n{body}\nEND:VTIMEZONE\nEND:VCALENDAR");
        let mut losses = Losses::default();
        let content = lines::read(text.as_bytes(), &mut losses);
        CustomZone::read(&components::assemble(content, &mut losses)[0].children[0]).unwrap()
    }

    fn utc(zone: &CustomZone, local: &str) -> String {
        zone.instant(times::parse_local(local).unwrap()).format("%Y%m%dT%H%M%SZ").to_string()
    }

    const BERLIN: &str = "BEGIN:STANDARD\nDTSTART:16010101T030000\nTZOFFSETFROM:+0200\nTZOFFSETTO:+0100\n\
        RRULE:FREQ=YEARLY;INTERVAL=1;BYDAY=-1SU;BYMONTH=10\nEND:STANDARD\n\
        BEGIN:DAYLIGHT\nDTSTART:16010101T020000\nTZOFFSETFROM:+0100\nTZOFFSETTO:+0200\n\
        RRULE:FREQ=YEARLY;INTERVAL=1;BYDAY=-1SU;BYMONTH=3\nEND:DAYLIGHT";

    #[test]
    fn yearly_rules_give_summer_and_winter_offsets() {
        let berlin = zone(BERLIN);
        assert_eq!(utc(&berlin, "20200115T090000"), "20200115T080000Z");
        assert_eq!(utc(&berlin, "20200715T090000"), "20200715T070000Z");
        assert_eq!(utc(&berlin, "20201231T235959"), "20201231T225959Z");
    }

    #[test]
    fn an_hour_that_occurs_twice_is_the_first_and_a_skipped_one_counts_from_before() {
        let berlin = zone(BERLIN);
        assert_eq!(utc(&berlin, "20201025T023000"), "20201025T003000Z");
        assert_eq!(utc(&berlin, "20200329T023000"), "20200329T013000Z");
    }

    #[test]
    fn southern_summers_cross_the_new_year() {
        let sydney = zone(
            "BEGIN:STANDARD\nDTSTART:20080406T030000\nTZOFFSETFROM:+1100\nTZOFFSETTO:+1000\n\
             RRULE:FREQ=YEARLY;BYMONTH=4;BYDAY=1SU\nEND:STANDARD\n\
             BEGIN:DAYLIGHT\nDTSTART:20081005T020000\nTZOFFSETFROM:+1000\nTZOFFSETTO:+1100\n\
             RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=1SU\nEND:DAYLIGHT",
        );
        assert_eq!(utc(&sydney, "20260101T100000"), "20251231T230000Z");
        assert_eq!(utc(&sydney, "20260701T100000"), "20260701T000000Z");
    }

    #[test]
    fn rules_that_ended_leave_their_last_offset() {
        let ended = zone(
            "BEGIN:STANDARD\nDTSTART:20001029T020000\nTZOFFSETFROM:+0400\nTZOFFSETTO:+0300\n\
             RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU;UNTIL=20101030T220000Z\nEND:STANDARD\n\
             BEGIN:DAYLIGHT\nDTSTART:20010325T020000\nTZOFFSETFROM:+0300\nTZOFFSETTO:+0400\n\
             RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU;UNTIL=20110326T230000Z\nEND:DAYLIGHT",
        );
        assert_eq!(utc(&ended, "20090701T120000"), "20090701T080000Z");
        assert_eq!(utc(&ended, "20200101T120000"), "20200101T080000Z");
    }

    #[test]
    fn a_window_of_month_days_is_understood() {
        let window = zone(
            "BEGIN:STANDARD\nDTSTART:20001105T020000\nTZOFFSETFROM:-0400\nTZOFFSETTO:-0500\n\
             RRULE:FREQ=YEARLY;BYMONTH=11;BYMONTHDAY=1,2,3,4,5,6,7;BYDAY=SU\nEND:STANDARD\n\
             BEGIN:DAYLIGHT\nDTSTART:20000312T020000\nTZOFFSETFROM:-0500\nTZOFFSETTO:-0400\n\
             RRULE:FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=8,9,10,11,12,13,14;BYDAY=SU\nEND:DAYLIGHT",
        );
        assert_eq!(utc(&window, "20260308T120000"), "20260308T160000Z");
        assert_eq!(utc(&window, "20261101T120000"), "20261101T170000Z");
    }
}
