//! Dates, times, durations and weekdays as iCalendar writes them.

use chrono::{NaiveDate, NaiveDateTime, TimeDelta, Weekday};

/// A DATE or DATE-TIME value without its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// A whole day.
    Date(NaiveDate),
    /// A local time, or UTC where `utc`.
    Time {
        /// The time as written.
        local: NaiveDateTime,
        /// Whether it ended with `Z`.
        utc: bool,
    },
}

/// Parses `20201028`, `20201028T133000` or `20201028T133000Z`; the form decides, not the VALUE parameter, because
/// programs were seen that label times as dates.
pub(super) fn parse_when(value: &str) -> Option<When> {
    let value = value.trim();
    if value.len() == 8 {
        return parse_date(value).map(When::Date);
    }
    let (bare, utc) = match value.strip_suffix(['Z', 'z']) {
        Some(bare) => (bare, true),
        None => (value, false),
    };
    parse_time(bare).map(|local| When::Time { local, utc })
}

/// Parses a time and ignores a final `Z`; a date means its midnight.
pub(super) fn parse_local(value: &str) -> Option<NaiveDateTime> {
    match parse_when(value)? {
        When::Date(date) => date.and_hms_opt(0, 0, 0),
        When::Time { local, .. } => Some(local),
    }
}

fn parse_date(digits: &str) -> Option<NaiveDate> {
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let year = digits.get(..4)?.parse().ok()?;
    let month = digits.get(4..6)?.parse().ok()?;
    let day = digits.get(6..)?.parse().ok()?;
    NaiveDate::from_ymd_opt(year, month, day)
}

fn parse_time(text: &str) -> Option<NaiveDateTime> {
    let (date, time) = text.split_once(['T', 't'])?;
    let date = parse_date(date)?;
    if !matches!(time.len(), 4 | 6) || !time.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hour: u32 = time.get(..2)?.parse().ok()?;
    let minute: u32 = time.get(2..4)?.parse().ok()?;
    let second: u32 = time.get(4..).filter(|digits| !digits.is_empty()).map_or(Ok(0), str::parse).ok()?;
    // A leap second counts as the second before it; 24:00 is written by some programs for the end of a day.
    if hour == 24 && minute == 0 && second == 0 {
        return date.succ_opt()?.and_hms_opt(0, 0, 0);
    }
    date.and_hms_opt(hour, minute, second.min(59))
}

/// A duration: whole days by the calendar, then exact time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Calendar days.
    pub(super) days: i64,
    /// Exact time on top.
    pub(super) time: TimeDelta,
}

/// Parses `P1W`, `P1DT2H`, `PT30M`; negative ones are refused.
pub(super) fn parse_duration(value: &str) -> Option<Span> {
    let value = value.trim().to_ascii_uppercase();
    let body = value.strip_prefix('+').unwrap_or(&value).strip_prefix('P')?;
    let (dates, times) = body.split_once('T').unwrap_or((body, ""));
    let mut span = Span { days: 0, time: TimeDelta::zero() };
    let mut found = false;
    for (part, in_time) in [(dates, false), (times, true)] {
        let mut digits = String::new();
        for c in part.chars() {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            let number: i64 = digits.parse().ok().filter(|number| *number <= 1_000_000)?;
            digits.clear();
            found = true;
            match (c, in_time) {
                ('W', false) => span.days += number * 7,
                ('D', false) => span.days += number,
                ('H', true) => span.time += TimeDelta::hours(number),
                ('M', true) => span.time += TimeDelta::minutes(number),
                ('S', true) => span.time += TimeDelta::seconds(number),
                _ => return None,
            }
        }
        if !digits.is_empty() {
            return None;
        }
    }
    found.then_some(span)
}

/// Parses `MO`, `2SU`, `-1TH`.
pub(super) fn parse_week_day(text: &str) -> Option<(Option<i32>, Weekday)> {
    let text = text.trim().to_ascii_uppercase();
    let (number, name) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let day = match name {
        "MO" => Weekday::Mon,
        "TU" => Weekday::Tue,
        "WE" => Weekday::Wed,
        "TH" => Weekday::Thu,
        "FR" => Weekday::Fri,
        "SA" => Weekday::Sat,
        "SU" => Weekday::Sun,
        _ => return None,
    };
    if number.is_empty() {
        return Some((None, day));
    }
    let nth: i32 = number.parse().ok().filter(|nth| (1..=53).contains(&i32::abs(*nth)))?;
    Some((Some(nth), day))
}

/// Parses `3,11`.
pub(super) fn parse_numbers<T: std::str::FromStr>(value: &str) -> Option<Vec<T>> {
    value.split(',').map(|number| number.trim().parse().ok()).collect()
}

/// Picks the nth item, from the end where negative.
pub(super) fn nth<T: Copy>(items: &[T], nth: i32) -> Option<T> {
    let distance = usize::try_from(nth.unsigned_abs()).ok()?.checked_sub(1)?;
    if nth > 0 { items.get(distance).copied() } else { items.iter().rev().nth(distance).copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_value_decides_between_day_and_time() {
        assert!(matches!(parse_when("20201028"), Some(When::Date(_))));
        assert!(matches!(parse_when("20201028T1330"), Some(When::Time { utc: false, .. })));
        assert!(matches!(parse_when("20201028T133000Z"), Some(When::Time { utc: true, .. })));
        assert_eq!(parse_when("20201028T240000"), parse_when("20201029T000000"));
        for broken in ["", "2020", "20201328", "20201028T", "20201028T99", "20201028T996161", "２０２０1028"] {
            assert_eq!(parse_when(broken), None, "{broken}");
        }
    }

    #[test]
    fn durations_keep_calendar_days_apart_from_exact_time() {
        assert_eq!(parse_duration("P1W"), Some(Span { days: 7, time: TimeDelta::zero() }));
        assert_eq!(parse_duration("P1DT2H30M"), Some(Span { days: 1, time: TimeDelta::minutes(150) }));
        for broken in ["", "P", "PT", "-PT5M", "P5H", "PT5", "P99999999999999999999D"] {
            assert_eq!(parse_duration(broken), None, "{broken}");
        }
    }

    #[test]
    fn weekdays_carry_an_optional_position() {
        assert_eq!(parse_week_day("-1SU"), Some((Some(-1), Weekday::Sun)));
        assert_eq!(parse_week_day("MO"), Some((None, Weekday::Mon)));
        assert_eq!(parse_week_day("0MO"), None);
        assert_eq!(parse_week_day("é"), None);
    }
}
