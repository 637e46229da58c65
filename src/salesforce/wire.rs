//! Rows of the Event object <-> the core's snapshots and fields. No calls are made here.
//!
//! Time rules: <https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_event.htm>.
//! All-day dates are midnights in UTC and are never converted through a zone.

use std::collections::BTreeSet;

use calbridge_core::ids::{LinkId, RecordId, SalesforceId};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::mapping::TIME;
use calbridge_core::observed::{Evidence, Observed, RecordKind, Snapshot, Stamp, Traits, Why};
use calbridge_core::signal::Version;
use calbridge_core::value::{Fields, Value, When};
use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value as Json, json};

use super::calendar::StampFields;
use super::error::Kind;

/// Custom field that holds the link id; unique.
pub(super) const LINK_FIELD: &str = "Calbridge_Link__c";
/// Custom field that holds the token of our last write.
pub(super) const TOKEN_FIELD: &str = "Calbridge_Token__c";

/// Characters of the link field: a uuid.
pub(super) const LINK_LENGTH: u32 = 36;

/// Characters of the token field: a whole stamp with the partner's Outlook id, which has up to 152.
pub(super) const TOKEN_LENGTH: u32 = 255;

/// Fields read of every row, whatever the mapping names.
const ALWAYS: [&str; 18] = [
    "Id",
    "IsDeleted",
    "SystemModstamp",
    "CreatedDate",
    "LastModifiedDate",
    "LastModifiedById",
    "OwnerId",
    "StartDateTime",
    "EndDateTime",
    "ActivityDate",
    "DurationInMinutes",
    "IsAllDayEvent",
    "IsPrivate",
    "IsChild",
    "IsGroupEvent",
    "GroupEventType",
    "IsRecurrence",
    "IsRecurrence2",
];

/// Minutes of a day.
const DAY_MINUTES: i64 = 1440;

/// Returns the select list for a mapping's fields and the stamp fields that the org has.
pub(super) fn select_list(mapped: &[String], stamps: StampFields) -> String {
    let mut names: Vec<&str> = ALWAYS.to_vec();
    names.push("RecurrenceActivityId");
    if stamps.link {
        names.push(LINK_FIELD);
    }
    if stamps.token {
        names.push(TOKEN_FIELD);
    }
    let mut listed: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    for field in mapped {
        if field != TIME && listed.insert(field.to_ascii_lowercase()) {
            names.push(field);
        }
    }
    names.join(", ")
}

/// Reads a row into what the core compares; a row without id or times is unreadable.
pub(super) fn observe(row: &Json, mapped: &[String], read_at: DateTime<Utc>) -> Option<(RecordId, Observed)> {
    let id = SalesforceId::parse(text_of(row, "Id")?).ok()?;
    let record = RecordId::Salesforce(id);
    if flag_of(row, "IsDeleted") {
        return Some((record, Observed::Absent(Evidence::Deleted)));
    }
    let observed = match snapshot(&record, row, mapped, read_at) {
        Some(snapshot) => Observed::Present(Box::new(snapshot)),
        None => Observed::Unread(Why {
            code: Kind::Unreadable.code().to_owned(),
            message: "the salesforce event lacks its system times".to_owned(),
            retry_after_ms: None,
        }),
    };
    Some((record, observed))
}

fn snapshot(record: &RecordId, row: &Json, mapped: &[String], read_at: DateTime<Utc>) -> Option<Snapshot> {
    let fields = mapped
        .iter()
        .map(|name| {
            let value = if name == TIME {
                when(row).map_or(Value::Null, Value::When)
            } else {
                value(row.get(name).unwrap_or(&Json::Null))
            };
            (name.clone(), value)
        })
        .collect();
    Some(Snapshot {
        record: record.clone(),
        version: Version::Modstamp(instant_of(row, "SystemModstamp")?),
        read_at,
        created: instant_of(row, "CreatedDate")?,
        modified: instant_of(row, "LastModifiedDate")?,
        modified_by: text_of(row, "LastModifiedById").map(str::to_owned),
        stamp: stamp(row),
        traits: traits(row),
        fields,
    })
}

/// Reads the stamp; a token without a link id is not ours to judge.
pub(super) fn stamp(row: &Json) -> Option<Stamp> {
    let link = stamped_link(row)?;
    // The token field repeats the link: after a person copied only one of the two, neither speaks for this record.
    let whole = text_of(row, TOKEN_FIELD).and_then(Stamp::decode).filter(|stamp| stamp.link == link);
    Some(whole.unwrap_or(Stamp { link, partner: String::new(), token: None }))
}

/// Writes the stamp for the token field; an Outlook id too long for the field is left out, then only a search finds it.
fn token_text(stamp: &Stamp) -> String {
    let whole = stamp.encode();
    if whole.len() <= TOKEN_LENGTH as usize {
        whole
    } else {
        Stamp { partner: String::new(), ..stamp.clone() }.encode()
    }
}

/// Reads the link id of a row.
fn stamped_link(row: &Json) -> Option<LinkId> {
    text_of(row, LINK_FIELD)?.parse().ok()
}

fn traits(row: &Json) -> Traits {
    let is_pattern = text_of(row, "GroupEventType") == Some("3");
    let kind = if flag_of(row, "IsChild") {
        RecordKind::Child
    } else if text_of(row, "RecurrenceActivityId").is_some_and(|master| text_of(row, "Id") != Some(master)) {
        RecordKind::Occurrence
    } else if flag_of(row, "IsRecurrence") || flag_of(row, "IsRecurrence2") || is_pattern {
        RecordKind::SeriesMaster
    } else {
        RecordKind::Single
    };
    Traits {
        ical_uid: None,
        original_start: String::new(),
        kind,
        is_organizer: true,
        organizer: None,
        // How many are invited stands in EventRelation, which nothing needs yet; that somebody is, decides.
        attendees: u32::from(flag_of(row, "IsGroupEvent")),
        private: flag_of(row, "IsPrivate"),
        cancelled: false,
        draft: false,
        owner: text_of(row, "OwnerId").map(str::to_owned),
    }
}

/// Reads a plain value.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(number) => whole(number).map_or_else(|| Value::text(number.to_string()), Value::Number),
        Json::String(text) => Value::text(text.replace("\r\n", "\n").replace('\r', "\n")),
        compound => Value::text(compound.to_string()),
    }
}

/// Reads `30` and `30.0` alike: number fields without decimals come either way.
fn whole(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let text = number.to_string();
        let (whole, rest) = text.split_once('.')?;
        rest.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok())?
    })
}

/// Reads when a row takes place; none when it says nothing usable.
fn when(row: &Json) -> Option<When> {
    let start = instant_of(row, "StartDateTime");
    let end = instant_of(row, "EndDateTime");
    let minutes = row.get("DurationInMinutes").and_then(|value| whole(value.as_number()?));
    let when = if flag_of(row, "IsAllDayEvent") {
        let first = start.map(|start| start.date_naive()).or_else(|| date_of(row, "ActivityDate"))?;
        let last = match (end, minutes) {
            // The end is the last day at midnight, inclusive (unconfirmed by the vendor's documents, see PROTOCOLS.md).
            (Some(end), _) => end.date_naive(),
            (None, Some(minutes)) => {
                first.checked_add_signed(TimeDelta::try_days((minutes / DAY_MINUTES - 1).max(0))?)?
            }
            (None, None) => first,
        };
        When::AllDay { first, last }
    } else {
        let start = start?;
        let end = match (end, minutes) {
            (Some(end), _) => end,
            (None, Some(minutes)) => start.checked_add_signed(TimeDelta::try_minutes(minutes)?)?,
            (None, None) => return None,
        };
        When::Timed { start, end, zone: None }
    };
    when.is_ordered().then_some(when)
}

/// Writes the body of a row: the given fields only, the stamp, and for a creation its owner.
///
/// # Errors
/// Says which field cannot be written, without its value.
pub(super) fn body(intent: &Intent) -> Result<Map<String, Json>, String> {
    let mut body = fields_body(&intent.fields)?;
    match &intent.action {
        Action::Create(Home::Owner(owner)) => {
            body.insert("OwnerId".to_owned(), json!(owner));
        }
        Action::Create(Home::Mailbox(_)) => {
            return Err("the new event has a mailbox where an owner is needed".to_owned());
        }
        Action::Update(_) | Action::Delete(_) => {}
    }
    body.insert(LINK_FIELD.to_owned(), json!(intent.link.to_string()));
    body.insert(TOKEN_FIELD.to_owned(), json!(token_text(&intent.stamp)));
    Ok(body)
}

fn fields_body(fields: &Fields) -> Result<Map<String, Json>, String> {
    let mut body = Map::new();
    for (name, value) in fields {
        if name == TIME {
            let when = value.as_when().filter(|when| when.is_ordered());
            body.extend(time_body(when.ok_or("the event has no time that salesforce can hold")?)?);
            continue;
        }
        let json = match value {
            Value::Null => Json::Null,
            Value::Flag(flag) => json!(flag),
            Value::Number(number) => json!(number),
            Value::Text(text) => json!(text),
            Value::When(_) => return Err(format!("`{name}` cannot hold a time; map `time` to `time`")),
        };
        body.insert(name.clone(), json);
    }
    Ok(body)
}

/// Writes all the fields of a time, so that a switch between timed and all-day leaves none behind.
///
/// End and duration are both sent where they can agree: should an org count the end otherwise, it refuses the row
/// instead of storing another day.
fn time_body(when: &When) -> Result<Map<String, Json>, String> {
    let too_long = |_overflow| "the event is longer than salesforce can hold".to_owned();
    let (all_day, start, end, minutes) = match when {
        When::Timed { start, end, .. } => {
            let seconds = (*end - *start).num_seconds();
            let minutes = (seconds % 60 == 0).then_some(seconds / 60);
            (false, instant_text(*start), instant_text(*end), minutes)
        }
        When::AllDay { first, last } => {
            let days = (*last - *first).num_days() + 1;
            (true, midnight_text(*first), midnight_text(*last), Some(days * DAY_MINUTES))
        }
    };
    let mut body = Map::new();
    body.insert("IsAllDayEvent".to_owned(), json!(all_day));
    body.insert("StartDateTime".to_owned(), json!(start));
    body.insert("EndDateTime".to_owned(), json!(end));
    if let Some(minutes) = minutes {
        body.insert("DurationInMinutes".to_owned(), json!(i32::try_from(minutes).map_err(too_long)?));
    }
    Ok(body)
}

/// Writes an instant as SOQL and rows take it.
pub(super) fn instant_text(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn midnight_text(day: NaiveDate) -> String {
    format!("{day}T00:00:00.000Z")
}

/// Quotes a text for SOQL.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// Writes the condition that finds unlinked events of a user at a time.
pub(super) fn candidates_condition(owner: &SalesforceId, when: &When, stamps: StampFields) -> String {
    let time = match when {
        When::Timed { start, .. } => format!("IsAllDayEvent = false AND StartDateTime = {}", instant_text(*start)),
        When::AllDay { first, .. } => format!("IsAllDayEvent = true AND ActivityDate = {first}"),
    };
    let unlinked = if stamps.link { format!(" AND {LINK_FIELD} = null") } else { String::new() };
    format!("OwnerId = {} AND IsChild = false AND {time}{unlinked}", quoted(owner.as_str()))
}

/// Writes the condition that finds rows whose stamp names one of these Outlook events as its partner.
///
/// Wildcards of `LIKE` occur in Outlook's ids and are escaped:
/// <https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_quotedstringescapes.htm>
pub(super) fn partners_condition(events: &[&str]) -> String {
    let named = |event: &&str| {
        let escaped = event.replace('\\', r"\\").replace('\'', r"\'").replace('_', r"\_").replace('%', r"\%");
        format!("{TOKEN_FIELD} LIKE 'v1;%;{escaped};%'")
    };
    format!("IsChild = false AND ({})", events.iter().map(named).collect::<Vec<_>>().join(" OR "))
}

/// Writes the `If-Unmodified-Since` date that never refuses an unchanged row: the version, rounded up to a second.
///
/// <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest_conditional_requests.htm>
pub(super) fn precondition(expected: Option<&Version>) -> Option<String> {
    let Some(Version::Modstamp(modstamp)) = expected else {
        return None;
    };
    let up = i64::from(modstamp.timestamp_subsec_nanos() > 0);
    let second = DateTime::from_timestamp(modstamp.timestamp().checked_add(up)?, 0)?;
    Some(second.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

pub(super) fn text_of<'a>(row: &'a Json, name: &str) -> Option<&'a str> {
    row.get(name)?.as_str().filter(|text| !text.is_empty())
}

pub(super) fn flag_of(row: &Json, name: &str) -> bool {
    row.get(name).and_then(Json::as_bool).unwrap_or(false)
}

/// Reads `2026-11-20T17:00:00.000+0000` and RFC 3339.
fn instant_of(row: &Json, name: &str) -> Option<DateTime<Utc>> {
    let text = text_of(row, name)?;
    DateTime::parse_from_rfc3339(text)
        .or_else(|_other_form| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .ok()
        .map(|instant| instant.with_timezone(&Utc))
}

fn date_of(row: &Json, name: &str) -> Option<NaiveDate> {
    text_of(row, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use calbridge_core::ids::WriteToken;
    use calbridge_core::reason::Reason;
    use calbridge_core::side::Side;

    use super::*;

    const STAMPS: StampFields = StampFields { link: true, link_unique: true, token: true };

    fn row(more: Json) -> Json {
        let mut row = json!({
            "Id": "00U5000000Gv7qJEAR", "IsDeleted": false,
            "SystemModstamp": "2026-11-20T17:00:01.250+0000", "CreatedDate": "2026-11-19T08:00:00.000+0000",
            "LastModifiedDate": "2026-11-20T17:00:01.000+0000", "LastModifiedById": "0055000000Gv7qJAAR",
            "OwnerId": "0055000000Gv7qJAAR", "StartDateTime": "2026-12-01T09:00:00.000+0000",
            "EndDateTime": "2026-12-01T09:30:00.000+0000", "IsAllDayEvent": false, "Subject": "A",
            "Description": "one\r\ntwo", "Location": null,
        });
        let Json::Object(more) = more else { return row };
        for (name, value) in more {
            row[name] = value;
        }
        row
    }

    fn mapped() -> Vec<String> {
        ["time", "Subject", "Description", "Location"].map(str::to_owned).to_vec()
    }

    fn present(row: &Json) -> Snapshot {
        let read_at = DateTime::UNIX_EPOCH;
        match observe(row, &mapped(), read_at).unwrap().1 {
            Observed::Present(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    }

    fn intent(action: Action, fields: Fields) -> Intent {
        Intent {
            token: WriteToken::new(uuid::Uuid::from_u128(2)),
            link: LinkId::new(uuid::Uuid::from_u128(1)),
            side: Side::Salesforce,
            action,
            fields,
            agreed: std::collections::BTreeMap::default(),
            replaced: Fields::new(),
            expected: None,
            stamp: Stamp {
                link: LinkId::new(uuid::Uuid::from_u128(1)),
                partner: "x".to_owned(),
                token: Some(WriteToken::new(uuid::Uuid::from_u128(2))),
            },
            recorded_at: DateTime::UNIX_EPOCH,
            send_by: DateTime::UNIX_EPOCH,
            give_up_at: DateTime::UNIX_EPOCH,
            sends: 1,
            mails: 0,
            unexplained: false,
            reason: Reason::Created,
        }
    }

    #[test]
    fn a_row_becomes_a_snapshot() {
        let link = "00000000-0000-0000-0000-000000000001";
        let token = "00000000-0000-0000-0000-000000000002";
        let stamp = format!("v1;{link};AAk=;{token}");
        let snapshot = present(&row(json!({ LINK_FIELD: link, TOKEN_FIELD: stamp, "IsPrivate": true })));
        assert_eq!(snapshot.version, Version::Modstamp("2026-11-20T17:00:01.250Z".parse().unwrap()));
        assert_eq!(snapshot.fields["Description"], Value::text("one\ntwo"));
        assert_eq!(snapshot.fields["Location"], Value::Null);
        let when = snapshot.fields["time"].as_when().unwrap();
        assert_eq!(when.over_at(), "2026-12-01T09:30:00Z".parse::<DateTime<Utc>>().unwrap());
        let stamp = snapshot.stamp.unwrap();
        assert_eq!(stamp.link.to_string(), link);
        assert_eq!(stamp.token.unwrap().to_string(), token);
        assert!(snapshot.traits.private && snapshot.traits.is_organizer);
        assert_eq!(snapshot.traits.kind, RecordKind::Single);
    }

    #[test]
    fn all_day_rows_keep_their_dates_and_count_the_last_day_in() {
        let all_day = |more: Json| {
            let mut all_day = row(json!({ "IsAllDayEvent": true, "StartDateTime": null, "EndDateTime": null,
                "ActivityDate": "2026-12-01" }));
            for (name, value) in more.as_object().unwrap() {
                all_day[name] = value.clone();
            }
            present(&all_day).fields["time"].clone()
        };
        let days = |first: &str, last: &str| {
            Value::When(When::AllDay { first: first.parse().unwrap(), last: last.parse().unwrap() })
        };
        assert_eq!(all_day(json!({})), days("2026-12-01", "2026-12-01"));
        assert_eq!(all_day(json!({ "DurationInMinutes": 2880 })), days("2026-12-01", "2026-12-02"));
        let both =
            json!({ "StartDateTime": "2026-12-01T00:00:00.000+0000", "EndDateTime": "2026-12-03T00:00:00.000+0000" });
        assert_eq!(all_day(both), days("2026-12-01", "2026-12-03"));
    }

    #[test]
    fn a_timed_row_without_end_lasts_its_duration() {
        let snapshot = present(&row(json!({ "EndDateTime": null, "DurationInMinutes": 45.0 })));
        let over = snapshot.fields["time"].as_when().unwrap().over_at();
        assert_eq!(over, "2026-12-01T09:45:00Z".parse::<DateTime<Utc>>().unwrap());
        let snapshot = present(&row(json!({ "EndDateTime": null })));
        assert_eq!(snapshot.fields["time"], Value::Null);
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |more| present(&row(more)).traits.kind;
        assert_eq!(kind(json!({ "IsChild": true })), RecordKind::Child);
        assert_eq!(kind(json!({ "IsRecurrence": true })), RecordKind::SeriesMaster);
        assert_eq!(kind(json!({ "IsRecurrence2": true })), RecordKind::SeriesMaster);
        assert_eq!(kind(json!({ "GroupEventType": "3" })), RecordKind::SeriesMaster);
        assert_eq!(kind(json!({ "RecurrenceActivityId": "00U5000000Gv7qKEAR" })), RecordKind::Occurrence);
        assert_eq!(present(&row(json!({ "IsGroupEvent": true }))).traits.attendees, 1);
    }

    #[test]
    fn deleted_rows_are_evidence_of_absence() {
        let (_, observed) = observe(&row(json!({ "IsDeleted": true })), &mapped(), DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(observed, Observed::Absent(Evidence::Deleted));
    }

    #[test]
    fn a_creation_carries_owner_link_token_and_every_time_field() {
        let fields = Fields::from([
            ("Subject".to_owned(), Value::text("A")),
            ("Location".to_owned(), Value::Null),
            (
                "time".to_owned(),
                Value::When(When::AllDay { first: "2026-12-01".parse().unwrap(), last: "2026-12-02".parse().unwrap() }),
            ),
        ]);
        let create = intent(Action::Create(Home::Owner("0055000000Gv7qJAAR".to_owned())), fields);
        let body = body(&create).unwrap();
        assert_eq!(
            Json::Object(body),
            json!({
                "Subject": "A", "Location": null, "OwnerId": "0055000000Gv7qJAAR",
                "IsAllDayEvent": true, "StartDateTime": "2026-12-01T00:00:00.000Z",
                "EndDateTime": "2026-12-02T00:00:00.000Z", "DurationInMinutes": 2880,
                LINK_FIELD: "00000000-0000-0000-0000-000000000001",
                TOKEN_FIELD: "v1;00000000-0000-0000-0000-000000000001;x;00000000-0000-0000-0000-000000000002",
            })
        );
    }

    #[test]
    fn an_update_carries_only_its_fields_and_the_stamp() {
        let id = SalesforceId::parse("00U5000000Gv7qJ").unwrap();
        let fields = Fields::from([("Subject".to_owned(), Value::text("B"))]);
        let body = body(&intent(Action::Update(RecordId::Salesforce(id)), fields)).unwrap();
        let names: Vec<&str> = body.keys().map(String::as_str).collect();
        assert_eq!(names, [LINK_FIELD, TOKEN_FIELD, "Subject"]);
    }

    #[test]
    fn a_time_that_salesforce_cannot_hold_is_refused_before_it_is_sent() {
        let id = SalesforceId::parse("00U5000000Gv7qJ").unwrap();
        let fields = Fields::from([("time".to_owned(), Value::Null)]);
        assert!(body(&intent(Action::Update(RecordId::Salesforce(id)), fields)).is_err());
    }

    #[test]
    fn the_precondition_never_refuses_an_unchanged_row() {
        let version = Version::Modstamp("2026-11-20T17:00:01.250Z".parse().unwrap());
        assert_eq!(precondition(Some(&version)).unwrap(), "Fri, 20 Nov 2026 17:00:02 GMT");
        assert_eq!(precondition(None), None);
    }

    #[test]
    fn soql_texts_are_quoted_and_missing_stamp_fields_are_not_asked_for() {
        assert_eq!(quoted(r"o'k\"), r"'o\'k\\'");
        let owner = SalesforceId::parse("0055000000Gv7qJ").unwrap();
        let when = When::Timed {
            start: "2026-12-01T09:00:00Z".parse().unwrap(),
            end: "2026-12-01T09:30:00Z".parse().unwrap(),
            zone: None,
        };
        assert!(candidates_condition(&owner, &when, STAMPS).ends_with("Calbridge_Link__c = null"));
        assert_eq!(
            partners_condition(&["AAk_=", "b'%"]),
            r"IsChild = false AND (Calbridge_Token__c LIKE 'v1;%;AAk\_=;%' OR Calbridge_Token__c LIKE 'v1;%;b\'\%;%')"
        );
        let none = StampFields::default();
        assert!(!candidates_condition(&owner, &when, none).contains("Calbridge"));
        assert!(!select_list(&mapped(), none).contains("Calbridge"));
        assert_eq!(select_list(&mapped(), STAMPS).matches("Subject").count(), 1);
    }
}
