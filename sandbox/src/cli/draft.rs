//! A meeting as people describe it on the command line, turned into each cloud's own words.

use anyhow::{Context, bail};
use chrono::{DateTime, DurationRound, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

/// What a meeting is to be.
#[derive(Debug, Default, Args)]
pub(super) struct Draft {
    /// Subject
    #[arg(long)]
    subject: Option<String>,
    /// Start: `2026-12-01T10:00` in --zone, RFC 3339 with an offset, or a date with --all-day [create: the next full hour]
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// End, in the same forms; with --all-day the last day itself [create: from --minutes]
    #[arg(long, value_name = "TIME", conflicts_with = "minutes")]
    end: Option<String>,
    /// Duration in minutes; needs --start when updating [create: 60]
    #[arg(long, value_name = "N")]
    minutes: Option<i64>,
    /// Time zone of --start and --end, an IANA name [default: the person's]
    #[arg(long, value_name = "ZONE")]
    zone: Option<Tz>,
    /// A meeting of whole days
    #[arg(long)]
    all_day: bool,
    /// Location
    #[arg(long)]
    location: Option<String>,
    /// Text of the body
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// How the time is shown
    #[arg(long, value_enum)]
    show_as: Option<ShowAs>,
    /// Mark it private
    #[arg(long)]
    private: bool,
    /// Invite somebody (Outlook only; may be given several times)
    #[arg(long = "attendee", value_name = "ADDRESS")]
    attendees: Vec<String>,
    /// Further fields in the cloud's own names, a JSON object; they win over the other options
    #[arg(long, value_name = "OBJECT")]
    json: Option<String>,
}

/// Free or busy, in words of both clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowAs {
    Free,
    Tentative,
    Busy,
    Oof,
    WorkingElsewhere,
}

/// Begin and end; on whole days the end is exclusive.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: NaiveDateTime,
    end: Option<NaiveDateTime>,
    zone: Tz,
}

/// What fills the gaps of a new meeting: the person's zone and sandbox time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    /// The person's zone.
    pub(super) zone: Tz,
    /// Sandbox time; none when an existing meeting is changed.
    pub(super) now: Option<DateTime<Utc>>,
}

impl Draft {
    /// Returns the body for Graph.
    pub(super) fn for_outlook(&self, defaults: Defaults) -> anyhow::Result<Value> {
        let mut event = Map::new();
        let creating = defaults.now.is_some();
        if let Some(subject) = self.subject(creating) {
            event.insert("subject".to_owned(), json!(subject));
        }
        if let Some(span) = self.span(defaults)? {
            let local = |time: NaiveDateTime| json!({ "dateTime": time.format("%Y-%m-%dT%H:%M:%S").to_string(), "timeZone": span.zone.name() });
            event.insert("start".to_owned(), local(span.start));
            if let Some(end) = span.end {
                event.insert("end".to_owned(), local(end));
            }
        }
        if creating || self.all_day {
            event.insert("isAllDay".to_owned(), json!(self.all_day));
        }
        if let Some(location) = &self.location {
            event.insert("location".to_owned(), json!({ "displayName": location }));
        }
        if let Some(body) = &self.body {
            event.insert("body".to_owned(), json!({ "contentType": "text", "content": body }));
        }
        if let Some(show_as) = self.show_as {
            let word = match show_as {
                ShowAs::Free => "free",
                ShowAs::Tentative => "tentative",
                ShowAs::Busy => "busy",
                ShowAs::Oof => "oof",
                ShowAs::WorkingElsewhere => "workingElsewhere",
            };
            event.insert("showAs".to_owned(), json!(word));
        }
        if self.private {
            event.insert("sensitivity".to_owned(), json!("private"));
        }
        if !self.attendees.is_empty() {
            let attendees: Vec<Value> = self
                .attendees
                .iter()
                .map(|address| json!({ "type": "required", "emailAddress": { "address": address, "name": address } }))
                .collect();
            event.insert("attendees".to_owned(), Value::Array(attendees));
        }
        self.finish(event)
    }

    /// Returns the fields for Salesforce.
    pub(super) fn for_salesforce(&self, defaults: Defaults) -> anyhow::Result<Value> {
        if !self.attendees.is_empty() {
            bail!("--attendee is for Outlook only");
        }
        let mut fields = Map::new();
        if let Some(subject) = self.subject(defaults.now.is_some()) {
            fields.insert("Subject".to_owned(), json!(subject));
        }
        if let Some(span) = self.span(defaults)? {
            self.salesforce_times(span, &mut fields)?;
        }
        if let Some(location) = &self.location {
            fields.insert("Location".to_owned(), json!(location));
        }
        if let Some(body) = &self.body {
            fields.insert("Description".to_owned(), json!(body));
        }
        if let Some(show_as) = self.show_as {
            let word = match show_as {
                ShowAs::Free => "Free",
                ShowAs::Busy => "Busy",
                ShowAs::Oof => "OutOfOffice",
                ShowAs::Tentative | ShowAs::WorkingElsewhere => {
                    bail!("Salesforce knows --show-as free, busy and oof only")
                }
            };
            fields.insert("ShowAs".to_owned(), json!(word));
        }
        if self.private {
            fields.insert("IsPrivate".to_owned(), json!(true));
        }
        self.finish(fields)
    }

    fn salesforce_times(&self, span: Span, fields: &mut Map<String, Value>) -> anyhow::Result<()> {
        if self.all_day {
            let days = span.end.map_or(1, |end| (end - span.start).num_days());
            fields.insert("IsAllDayEvent".to_owned(), json!(true));
            fields.insert("ActivityDate".to_owned(), json!(span.start.date().to_string()));
            fields.insert("DurationInMinutes".to_owned(), json!(days * 1440));
            return Ok(());
        }
        let instant = |time: NaiveDateTime| -> anyhow::Result<Value> {
            let utc = convert(time, span.zone, Tz::UTC)?;
            Ok(json!(utc.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string()))
        };
        fields.insert("StartDateTime".to_owned(), instant(span.start)?);
        if let Some(end) = span.end {
            fields.insert("EndDateTime".to_owned(), instant(end)?);
        }
        Ok(())
    }

    fn subject(&self, creating: bool) -> Option<String> {
        self.subject.clone().or_else(|| creating.then(|| "Meeting".to_owned()))
    }

    fn finish(&self, mut fields: Map<String, Value>) -> anyhow::Result<Value> {
        if let Some(text) = &self.json {
            let more: Map<String, Value> = serde_json::from_str(text).context("--json is not a JSON object")?;
            fields.extend(more);
        }
        if fields.is_empty() {
            bail!("nothing to change; see --help for what can be given");
        }
        Ok(Value::Object(fields))
    }

    fn span(&self, defaults: Defaults) -> anyhow::Result<Option<Span>> {
        let own_zone = self.zone.unwrap_or(defaults.zone);
        let (start, zone) = match (&self.start, defaults.now) {
            (Some(text), _) => parse_time(text, own_zone)?,
            (None, Some(now)) if self.all_day => {
                let tomorrow = now.with_timezone(&own_zone).date_naive() + TimeDelta::days(1);
                (tomorrow.and_time(NaiveTime::MIN), own_zone)
            }
            (None, Some(now)) => {
                let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now) + TimeDelta::hours(1);
                (hour.with_timezone(&own_zone).naive_local(), own_zone)
            }
            (None, None) if self.end.is_some() || self.minutes.is_some() || self.all_day => {
                bail!("give --start too when the time is changed")
            }
            (None, None) => return Ok(None),
        };
        let end = match (&self.end, self.minutes) {
            (Some(text), _) => {
                let (written, end_zone) = parse_time(text, own_zone)?;
                let end = convert(written, end_zone, zone)?;
                Some(if self.all_day { end + TimeDelta::days(1) } else { end })
            }
            (None, Some(minutes)) => {
                Some(start + TimeDelta::try_minutes(minutes).context("--minutes is out of range")?)
            }
            (None, None) if self.all_day => Some(start + TimeDelta::days(1)),
            (None, None) if defaults.now.is_some() => Some(start + TimeDelta::minutes(60)),
            (None, None) => None,
        };
        if end.is_some_and(|end| end < start) {
            bail!("the meeting ends before it begins");
        }
        Ok(Some(Span { start, end, zone }))
    }
}

/// Local times are in `zone`; those with an offset are turned into UTC.
fn parse_time(text: &str, zone: Tz) -> anyhow::Result<(NaiveDateTime, Tz)> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok((time.naive_utc(), Tz::UTC));
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok((date.and_time(NaiveTime::MIN), zone));
    }
    ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|time| (time, zone))
        .with_context(|| format!("`{text}` is not a time; write `2026-12-01T10:00` or `2026-12-01T10:00:00+01:00`"))
}

fn convert(time: NaiveDateTime, from: Tz, to: Tz) -> anyhow::Result<NaiveDateTime> {
    if from == to {
        return Ok(time);
    }
    let found = from.from_local_datetime(&time).earliest();
    let instant = found.with_context(|| format!("`{time}` does not exist in {}", from.name()))?;
    Ok(instant.with_timezone(&to).naive_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_meeting() -> Defaults {
        Defaults { zone: Tz::Europe__Berlin, now: Some("2026-11-21T09:12:00Z".parse().unwrap()) }
    }

    #[test]
    fn a_meeting_without_times_is_at_the_next_full_hour() {
        let draft = Draft { subject: Some("Plan".to_owned()), ..Draft::default() };
        let event = draft.for_outlook(new_meeting()).unwrap();
        assert_eq!(event["start"], json!({ "dateTime": "2026-11-21T11:00:00", "timeZone": "Europe/Berlin" }));
        assert_eq!(event["end"]["dateTime"], "2026-11-21T12:00:00");
        let fields = draft.for_salesforce(new_meeting()).unwrap();
        assert_eq!(fields["StartDateTime"], "2026-11-21T10:00:00.000+0000");
    }

    #[test]
    fn whole_days_are_dates_in_both_clouds() {
        let draft = Draft {
            all_day: true,
            start: Some("2026-12-24".to_owned()),
            end: Some("2026-12-26".to_owned()),
            ..Draft::default()
        };
        assert_eq!(draft.for_outlook(new_meeting()).unwrap()["end"]["dateTime"], "2026-12-27T00:00:00");
        assert_eq!(draft.for_salesforce(new_meeting()).unwrap()["DurationInMinutes"], 3 * 1440);
    }

    #[test]
    fn a_change_says_only_what_was_given() {
        let defaults = Defaults { now: None, ..new_meeting() };
        let draft = Draft { location: Some("Room 2".to_owned()), ..Draft::default() };
        assert_eq!(draft.for_salesforce(defaults).unwrap(), json!({ "Location": "Room 2" }));
        assert!(Draft::default().for_outlook(defaults).is_err());
        assert!(Draft { minutes: Some(5), ..Draft::default() }.for_outlook(defaults).is_err());
    }
}
