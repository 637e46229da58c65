//! Conversion of what the sandbox does not produce.

use std::collections::BTreeMap;

use calbridge_core::ids::{LinkId, WriteToken};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn fields() -> Vec<String> {
    ["time", "subject", "body.text", "location.displayName", "isReminderOn", "reminderMinutesBeforeStart"]
        .map(str::to_owned)
        .to_vec()
}

fn event(start: (&str, &str), end: (&str, &str), all_day: bool, chosen: &str) -> Json {
    json!({
        "id": "AAk=", "changeKey": "k1", "isAllDay": all_day, "originalStartTimeZone": chosen,
        "start": {"dateTime": start.0, "timeZone": start.1}, "end": {"dateTime": end.0, "timeZone": end.1},
        "subject": "line\r\nbreak", "isReminderOn": true, "reminderMinutesBeforeStart": 15,
    })
}

fn read_event(json: &Json) -> Snapshot {
    snapshot(&MailboxId::new("m"), json, &fields(), DateTime::UNIX_EPOCH).unwrap()
}

fn update(values: Fields) -> Intent {
    let token = WriteToken::new(Uuid::nil());
    let link = LinkId::new(Uuid::nil());
    Intent {
        token,
        link,
        side: Side::Outlook,
        action: Action::Update(RecordId::Outlook { mailbox: MailboxId::new("m"), event: "AAk=".to_owned() }),
        fields: values,
        agreed: BTreeMap::new(),
        replaced: Fields::new(),
        expected: None,
        stamp: Stamp { link, partner: "p".to_owned(), token: Some(token) },
        recorded_at: DateTime::UNIX_EPOCH,
        send_by: DateTime::UNIX_EPOCH,
        give_up_at: DateTime::UNIX_EPOCH,
        sends: 1,
        mails: 0,
        unexplained: false,
        reason: Reason::OutlookChanged,
    }
}

#[test]
fn days_converted_to_utc_by_a_service_are_still_the_right_days() {
    let expected =
        Value::When(When::AllDay { first: "2026-11-30".parse().unwrap(), last: "2026-11-30".parse().unwrap() });
    for (start, end, chosen) in [
        ("2026-11-30T00:00:00", "2026-12-01T00:00:00", "Tokyo Standard Time"),
        ("2026-11-29T15:00:00", "2026-11-30T15:00:00", "Tokyo Standard Time"),
        ("2026-11-30T08:00:00", "2026-12-01T08:00:00", "Pacific Standard Time"),
        ("2026-11-29T23:00:00", "2026-11-30T23:00:00", "tzone://Microsoft/Custom"),
        ("2026-11-30T05:00:00", "2026-12-01T05:00:00", "tzone://Microsoft/Custom"),
    ] {
        let json = event((start, "UTC"), (end, "UTC"), true, chosen);
        assert_eq!(read_event(&json).fields["time"], expected, "{start} {chosen}");
    }
}

#[test]
fn times_that_cannot_be_read_are_no_time() {
    for (start, zone) in [("yesterday", "UTC"), ("2026-11-30T09:00:00", "Mars Standard Time")] {
        let json = event((start, zone), ("2026-11-30T10:00:00", "UTC"), false, "UTC");
        assert_eq!(read_event(&json).fields["time"], Value::Null, "{start} {zone}");
    }
    let backwards = event(("2026-11-30T10:00:00", "UTC"), ("2026-11-30T09:00:00", "UTC"), false, "UTC");
    assert_eq!(read_event(&backwards).fields["time"], Value::Null);
}

#[test]
fn custom_zones_keep_the_instant_and_have_no_name() {
    let json = event(
        ("2026-11-30T09:00:00.0000000", "UTC"),
        ("2026-11-30T10:00:00.0000000", "UTC"),
        false,
        "tzone://Microsoft/Custom",
    );
    let Value::When(When::Timed { start, zone, .. }) = &read_event(&json).fields["time"] else { panic!() };
    assert_eq!((start.to_rfc3339().as_str(), *zone), ("2026-11-30T09:00:00+00:00", None));
}

#[test]
fn any_path_to_a_plain_value_can_be_mapped() {
    let json = event(("2026-11-30T09:00:00", "UTC"), ("2026-11-30T10:00:00", "UTC"), false, "UTC");
    let read = read_event(&json);
    assert_eq!(read.fields["subject"], Value::text("line\nbreak"));
    assert_eq!(read.fields["isReminderOn"], Value::Flag(true));
    assert_eq!(read.fields["reminderMinutesBeforeStart"], Value::Number(15));
    assert_eq!(read.fields["location.displayName"], Value::Null);
    assert!(select(&fields()).split(',').any(|name| name == "location"));
}

#[test]
fn a_body_that_comes_as_html_becomes_text() {
    let mut json = event(("2026-11-30T09:00:00", "UTC"), ("2026-11-30T10:00:00", "UTC"), false, "UTC");
    json["body"] = json!({"contentType": "HTML", "content": "<p>One</p><p>Two &amp; three</p>"});
    let text = read_event(&json).fields["body.text"].as_text().unwrap().to_owned();
    assert!(text.contains("One") && text.contains("Two & three") && !text.contains('<'), "{text}");
}

#[test]
fn the_version_comes_from_the_etag_where_the_key_is_missing() {
    let mut json = event(("2026-11-30T09:00:00", "UTC"), ("2026-11-30T10:00:00", "UTC"), false, "UTC");
    json.as_object_mut().unwrap().remove("changeKey");
    json["@odata.etag"] = json!("W/\"k2\"");
    assert_eq!(read_event(&json).version, Version::ChangeKey("k2".to_owned()));
    json.as_object_mut().unwrap().remove("@odata.etag");
    let failed = snapshot(&MailboxId::new("m"), &json, &fields(), DateTime::UNIX_EPOCH);
    assert_eq!(failed.unwrap_err().code, error::UNREADABLE);
}

#[test]
fn foreign_and_broken_stamps_are_no_stamps() {
    let mut json = event(("2026-11-30T09:00:00", "UTC"), ("2026-11-30T10:00:00", "UTC"), false, "UTC");
    json["singleValueExtendedProperties"] = json!([
        {"id": "String {00000000-0000-0000-0000-000000000000} Name calbridge", "value": "v1;x"},
        {"id": STAMP_PROPERTY.to_uppercase(), "value": "not a stamp"},
    ]);
    assert_eq!(read_event(&json).stamp, None);
}

#[test]
fn only_given_fields_and_the_stamp_are_written() {
    let values = Fields::from([
        ("location.displayName".to_owned(), Value::Null),
        ("location.locationUri".to_owned(), Value::text("x")),
        ("showAs".to_owned(), Value::Null),
        ("isReminderOn".to_owned(), Value::Flag(false)),
    ]);
    let intent = update(values);
    let expected = json!({
        "location": {"displayName": "", "locationUri": "x"},
        "isReminderOn": false,
        "singleValueExtendedProperties": [{"id": STAMP_PROPERTY, "value": intent.stamp.encode()}],
    });
    assert_eq!(body(&intent).unwrap(), expected);
}

#[test]
fn a_time_in_a_place_for_words_is_refused() {
    let days = Value::When(When::AllDay { first: "2026-11-30".parse().unwrap(), last: "2026-11-30".parse().unwrap() });
    for (field, value) in [("subject", days), ("time", Value::text("noon")), ("time", Value::Null)] {
        let failed = body(&update(Fields::from([(field.to_owned(), value)])));
        assert_eq!(failed.unwrap_err().code, error::NOT_WRITABLE);
    }
}

proptest! {
    #[test]
    fn a_time_written_reads_back_the_same(start in 0_i64..4_000_000_000, minutes in 0_i64..10_000, zone in 0_usize..596) {
        let start = DateTime::from_timestamp(start, 0).unwrap();
        let zone = zones::to_graph(chrono_tz::TZ_VARIANTS[zone]).and_then(zones::from_graph);
        let when = When::Timed { start, end: start + TimeDelta::minutes(minutes), zone };
        let mut json = body(&update(Fields::from([("time".to_owned(), Value::When(when.clone()))]))).unwrap();
        json["id"] = json!("AAk=");
        json["changeKey"] = json!("k");
        json["originalStartTimeZone"] = json["start"]["timeZone"].clone();
        // The hour that a clock change repeats has two instants and one name; Graph takes times by name only.
        let name = zone.map_or(Tz::UTC, |zone| zone);
        let twice = |at: DateTime<Utc>| at.with_timezone(&name).naive_local().and_local_timezone(name).single().is_none();
        prop_assume!(!twice(start) && !twice(start + TimeDelta::minutes(minutes)));
        prop_assert_eq!(&read_event(&json).fields["time"], &Value::When(when));
    }

    #[test]
    fn nothing_that_looks_like_an_event_panics(date in "\\PC{0,30}", zone in "\\PC{0,20}", key in "\\PC{0,5}", all_day: bool) {
        let mut json = event((&date, &zone), (&date, "UTC"), all_day, &zone);
        json["changeKey"] = json!(key);
        let _any = snapshot(&MailboxId::new("m"), &json, &fields(), DateTime::UNIX_EPOCH);
    }
}
