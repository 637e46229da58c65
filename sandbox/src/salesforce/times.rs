//! Start, end, duration and all-day of an Event: which inputs suffice, which contradict, and what is stored.
//!
//! Rules: <https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_event.htm>.
//! Two points are unconfirmed there and chosen here: an all-day event ends on its last day at 00:00Z (inclusive), and
//! `ActivityDateTime` of an all-day event is null.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::cell::{Cell, midnight};
use super::error::SalesforceError;
use super::input::Cells;

const DAY_MINUTES: i64 = 1440;
/// Longest event where multiday events are on: 14 days.
const MULTIDAY_MINUTES: i64 = 14 * DAY_MINUTES;

/// Applies the time fields in `given` to `row`, filling all derived ones.
///
/// `row` holds the stored values on an update and only defaults on a creation.
pub(crate) fn settle(row: &mut Cells, given: &Cells, multiday: bool) -> Result<(), SalesforceError> {
    const TIMES: [&str; 6] =
        ["StartDateTime", "EndDateTime", "ActivityDate", "ActivityDateTime", "DurationInMinutes", "IsAllDayEvent"];
    let creating = row.get("StartDateTime").is_none_or(Cell::is_null);
    if !creating && !TIMES.iter().any(|name| given.contains_key(name)) {
        return Ok(());
    }
    let all_day = given.get("IsAllDayEvent").or(row.get("IsAllDayEvent")).is_some_and(Cell::is_true);
    let start = start(row, given, all_day)?;
    let minutes = if all_day { all_day_minutes(row, given, start)? } else { timed_minutes(row, given, start)? };
    check_length(given, minutes, multiday)?;

    let length = TimeDelta::minutes(if all_day { minutes - DAY_MINUTES } else { minutes });
    let end = start + length;
    row.insert("IsAllDayEvent", Cell::Bool(all_day));
    row.insert("StartDateTime", Cell::DateTime(start));
    row.insert("EndDateTime", Cell::DateTime(end));
    row.insert("EndDate", Cell::Date(end.date_naive()));
    row.insert("ActivityDate", Cell::Date(start.date_naive()));
    row.insert("ActivityDateTime", if all_day { Cell::Null } else { Cell::DateTime(start) });
    row.insert("DurationInMinutes", Cell::Int(minutes));
    Ok(())
}

fn start(row: &Cells, given: &Cells, all_day: bool) -> Result<DateTime<Utc>, SalesforceError> {
    let given_start = given.get("StartDateTime").and_then(Cell::as_datetime);
    let given_activity = given.get("ActivityDateTime").and_then(Cell::as_datetime);
    let given_day = given.get("ActivityDate").and_then(Cell::as_date);
    let stored = row.get("StartDateTime").and_then(Cell::as_datetime);
    if all_day {
        let days: Vec<NaiveDate> =
            [given_day, given_start.map(|at| at.date_naive()), given_activity.map(|at| at.date_naive())]
                .into_iter()
                .flatten()
                .collect();
        if days.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(mismatch());
        }
        let day = days.first().copied().or(stored.map(|at| at.date_naive()));
        return day.map(midnight).ok_or_else(|| missing("ActivityDate"));
    }
    if let (Some(one), Some(other)) = (given_start, given_activity)
        && one != other
    {
        return Err(mismatch());
    }
    let instant = given_start.or(given_activity);
    if let (Some(at), Some(day)) = (instant, given_day)
        && at.date_naive() != day
    {
        return Err(mismatch());
    }
    // A new day alone moves a timed event to that day and keeps its hour.
    let moved = given_day.and_then(|day| stored.map(|at| day.and_time(at.time()).and_utc()));
    instant.or(moved).or(stored).ok_or_else(|| missing("StartDateTime"))
}

fn timed_minutes(row: &Cells, given: &Cells, start: DateTime<Utc>) -> Result<i64, SalesforceError> {
    let duration = given.get("DurationInMinutes").and_then(Cell::as_int);
    let until = given.get("EndDateTime").and_then(Cell::as_datetime).map(|end| (end - start).num_minutes());
    match (duration, until) {
        (Some(minutes), Some(computed)) if minutes != computed => Err(inconsistent()),
        (Some(minutes), _) | (None, Some(minutes)) => Ok(minutes),
        (None, None) => {
            let erased = given.contains_key("DurationInMinutes") || given.contains_key("EndDateTime");
            let stored = row.get("DurationInMinutes").and_then(Cell::as_int).filter(|_| !erased);
            stored.ok_or_else(|| missing("EndDateTime"))
        }
    }
}

fn all_day_minutes(row: &Cells, given: &Cells, start: DateTime<Utc>) -> Result<i64, SalesforceError> {
    let duration = given.get("DurationInMinutes").and_then(Cell::as_int);
    let last = given.get("EndDateTime").and_then(Cell::as_datetime).map(|end| end.date_naive());
    let until = last.map(|day| ((midnight(day) - start).num_days() + 1) * DAY_MINUTES);
    match (duration.map(whole_days), until) {
        (Some(minutes), Some(computed)) if minutes != computed => Err(inconsistent()),
        (Some(minutes), _) | (None, Some(minutes)) => Ok(minutes),
        (None, None) => {
            let was_all_day = row.get("IsAllDayEvent").is_some_and(Cell::is_true);
            let erased = given.contains_key("DurationInMinutes") || given.contains_key("EndDateTime");
            let stored = row.get("DurationInMinutes").and_then(Cell::as_int).filter(|_| was_all_day && !erased);
            Ok(stored.unwrap_or(DAY_MINUTES))
        }
    }
}

fn whole_days(minutes: i64) -> i64 {
    if minutes < 0 { minutes } else { ((minutes + DAY_MINUTES - 1) / DAY_MINUTES).max(1) * DAY_MINUTES }
}

/// Refuses a negative or too long event; the error names the field that API 39 and later name.
fn check_length(given: &Cells, minutes: i64, multiday: bool) -> Result<(), SalesforceError> {
    let by_duration = given.get("DurationInMinutes").is_some_and(|cell| !cell.is_null());
    let field = if by_duration { "DurationInMinutes" } else { "EndDateTime" };
    let message = if minutes < 0 || (!multiday && minutes > DAY_MINUTES) {
        "Duration must be between 0 and 1440 minutes"
    } else if minutes > MULTIDAY_MINUTES {
        "Event duration can't exceed 14 days"
    } else {
        return Ok(());
    };
    Err(SalesforceError::bad("FIELD_INTEGRITY_EXCEPTION", message).field(field))
}

fn mismatch() -> SalesforceError {
    let message = "StartDateTime, ActivityDateTime and ActivityDate must match or be null";
    SalesforceError::bad("FIELD_INTEGRITY_EXCEPTION", message).field("StartDateTime")
}

fn inconsistent() -> SalesforceError {
    let message = "DurationInMinutes and EndDateTime must agree or one of them be null";
    SalesforceError::bad("FIELD_INTEGRITY_EXCEPTION", message).field("DurationInMinutes")
}

fn missing(field: &str) -> SalesforceError {
    let message = format!("Required fields are missing: [{field}]");
    SalesforceError::bad("REQUIRED_FIELD_MISSING", message).field(field)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::input::{Write, convert};
    use super::super::schema::Object;
    use super::*;
    use crate::faults::Switches;

    fn given(fields: &Value) -> Cells {
        convert(Object::Event, fields.as_object().unwrap(), Write::Create, &Switches::default()).unwrap()
    }

    fn settled(stored: &Cells, fields: &Value, multiday: bool) -> Result<Cells, SalesforceError> {
        let mut row = stored.clone();
        settle(&mut row, &given(fields), multiday)?;
        Ok(row)
    }

    fn created(fields: &Value) -> Cells {
        settled(&Cells::new(), fields, true).unwrap()
    }

    fn refused(stored: &Cells, fields: &Value, multiday: bool) -> (&'static str, Vec<String>) {
        let error = settled(stored, fields, multiday).unwrap_err();
        (error.code, error.fields)
    }

    #[test]
    fn a_timed_event_takes_duration_or_end_and_derives_the_other() {
        let by_end = created(&json!({"StartDateTime": "2026-11-20T17:00:00Z", "EndDateTime": "2026-11-20T17:45:00Z"}));
        let by_duration = created(&json!({"ActivityDateTime": "2026-11-20T17:00:00Z", "DurationInMinutes": 45}));
        assert_eq!(by_end, by_duration);
        assert_eq!(by_end["DurationInMinutes"], Cell::Int(45));
        assert_eq!(by_end["EndDate"].to_json(), json!("2026-11-20"));
        assert_eq!(by_end["ActivityDate"].to_json(), json!("2026-11-20"));
    }

    #[test]
    fn an_all_day_event_defaults_to_one_day_and_ends_inclusively() {
        let one = created(&json!({"IsAllDayEvent": true, "ActivityDate": "2026-11-20"}));
        assert_eq!(one["DurationInMinutes"], Cell::Int(1440));
        assert_eq!(one["EndDateTime"].to_json(), json!("2026-11-20T00:00:00.000+0000"));
        assert_eq!(one["ActivityDateTime"], Cell::Null);
        let three = created(&json!({
            "IsAllDayEvent": true, "StartDateTime": "2026-11-20T00:00:00Z", "EndDateTime": "2026-11-22T00:00:00Z"
        }));
        assert_eq!(three["DurationInMinutes"], Cell::Int(3 * 1440));
    }

    #[test]
    fn contradictions_and_gaps_are_refused() {
        let none = Cells::new();
        let both = json!({"StartDateTime": "2026-11-20T17:00:00Z", "EndDateTime": "2026-11-20T18:00:00Z",
            "DurationInMinutes": 30});
        assert_eq!(refused(&none, &both, true).0, "FIELD_INTEGRITY_EXCEPTION");
        let starts = json!({"StartDateTime": "2026-11-20T17:00:00Z", "ActivityDate": "2026-11-21",
            "DurationInMinutes": 30});
        assert_eq!(refused(&none, &starts, true).0, "FIELD_INTEGRITY_EXCEPTION");
        let endless = json!({"StartDateTime": "2026-11-20T17:00:00Z"});
        assert_eq!(refused(&none, &endless, true).0, "REQUIRED_FIELD_MISSING");
        assert_eq!(refused(&none, &json!({"DurationInMinutes": 30}), true).0, "REQUIRED_FIELD_MISSING");
    }

    #[test]
    fn too_long_an_event_is_refused_on_the_field_that_was_sent() {
        let by_end = json!({"StartDateTime": "2026-11-20T17:00:00Z", "EndDateTime": "2026-11-21T17:01:00Z"});
        let by_duration = json!({"StartDateTime": "2026-11-20T17:00:00Z", "DurationInMinutes": 1441});
        let none = Cells::new();
        assert_eq!(refused(&none, &by_end, false), ("FIELD_INTEGRITY_EXCEPTION", vec!["EndDateTime".into()]));
        let error = settled(&none, &by_duration, false).unwrap_err();
        assert_eq!(error.message, "Duration must be between 0 and 1440 minutes");
        assert_eq!(error.fields, ["DurationInMinutes"]);
        assert!(settled(&none, &by_end, true).is_ok());
        let fortnight = json!({"StartDateTime": "2026-11-01T00:00:00Z", "EndDateTime": "2026-11-15T00:01:00Z"});
        assert_eq!(refused(&none, &fortnight, true).0, "FIELD_INTEGRITY_EXCEPTION");
    }

    #[test]
    fn moving_the_start_alone_keeps_the_duration() {
        let row = created(&json!({"StartDateTime": "2026-11-20T17:00:00Z", "DurationInMinutes": 45}));
        let moved = settled(&row, &json!({"StartDateTime": "2026-11-21T08:00:00Z"}), true).unwrap();
        assert_eq!(moved["EndDateTime"].to_json(), json!("2026-11-21T08:45:00.000+0000"));
    }

    #[test]
    fn an_end_before_the_start_is_refused() {
        let row = created(&json!({"StartDateTime": "2026-11-20T17:00:00Z", "DurationInMinutes": 45}));
        let back = json!({"EndDateTime": "2026-11-20T16:00:00Z"});
        assert_eq!(refused(&row, &back, true).0, "FIELD_INTEGRITY_EXCEPTION");
    }

    #[test]
    fn turning_a_timed_event_into_an_all_day_one_takes_its_day() {
        let row = created(&json!({"StartDateTime": "2026-11-20T17:00:00Z", "DurationInMinutes": 45}));
        let whole = settled(&row, &json!({"IsAllDayEvent": true}), true).unwrap();
        assert_eq!(whole["StartDateTime"].to_json(), json!("2026-11-20T00:00:00.000+0000"));
        assert_eq!(whole["DurationInMinutes"], Cell::Int(1440));
    }
}
