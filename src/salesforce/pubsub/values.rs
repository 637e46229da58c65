//! Fields of a change event -> what it says in the names of mapping files: which mapped fields changed, and to what.
//!
//! An update carries its changed fields only, and no start or end but their older twins
//! (<https://developer.salesforce.com/docs/atlas.en-us.change_data_capture.meta/change_data_capture/cdc_event_fields_body.htm>).
//! Values serve one purpose: to keep what a write of ours covered before anybody saw it.

use std::collections::BTreeSet;

use apache_avro::types::Value as Avro;
use calbridge_core::mapping::TIME;
use calbridge_core::value::{Fields, Value};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value as Json;

use super::super::wire;
use super::avro::{field, number_of, text_of};
use crate::ports::time_parts;

/// Fields that make up the time of an event; change events have the first four.
const TIMES: [&str; 7] = [
    "ActivityDateTime",
    "ActivityDate",
    "DurationInMinutes",
    "IsAllDayEvent",
    "StartDateTime",
    "EndDateTime",
    "EndDate",
];

/// What a change event says about mapped fields.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// The mapped fields that changed, as mapping files call them.
    pub(super) changed: BTreeSet<String>,
    /// The values of those that the event carries completely, and what it tells of a time in part; none of a private event.
    pub(super) values: Fields,
    /// The event makes the record private.
    pub(super) private: bool,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the values.
        let values: Vec<&String> = self.values.keys().collect();
        f.debug_struct("Told")
            .field("changed", &self.changed)
            .field("values", &values)
            .field("private", &self.private)
            .finish()
    }
}

impl Told {
    /// Reads the mapped fields among the changed ones; `diffs` names those that are sent as a difference only.
    pub(super) fn read(
        fields: &[(String, Avro)],
        changed: &BTreeSet<String>,
        diffs: &BTreeSet<String>,
        mapped: &[String],
    ) -> Self {
        let mut told =
            Self { private: matches!(field(fields, "IsPrivate"), Some(Avro::Boolean(true))), ..Self::default() };
        let whole = |name: &str| changed.iter().find(|one| one.eq_ignore_ascii_case(name));
        // A part of a compound field is named `Parent.Part`.
        let part = |name: &str| {
            changed.iter().any(|one| one.split_once('.').is_some_and(|(parent, _)| parent.eq_ignore_ascii_case(name)))
        };
        for name in mapped {
            if name == TIME {
                told.read_time(fields, changed);
                continue;
            }
            let sent = whole(name);
            if sent.is_none() && !part(name) {
                continue;
            }
            told.changed.insert(name.clone());
            let plain = sent.filter(|sent| !part(name) && !diffs.contains(*sent));
            let value = plain.and_then(|sent| plain_value(field(fields, sent)?));
            told.values.extend(value.map(|value| (name.clone(), value)));
        }
        if told.private {
            told.values.clear();
        }
        told
    }

    fn read_time(&mut self, fields: &[(String, Avro)], changed: &BTreeSet<String>) {
        if !TIMES.iter().any(|name| changed.contains(*name)) {
            return;
        }
        self.changed.insert(TIME.to_owned());
        let sent = |name: &str| field(fields, name).filter(|_| changed.contains(name));
        let instant = |name| sent(name).and_then(number_of).and_then(DateTime::<Utc>::from_timestamp_millis);
        let all_day = match sent("IsAllDayEvent") {
            Some(Avro::Boolean(flag)) => Some(*flag),
            _ => None,
        };
        let start = instant("StartDateTime").or_else(|| instant("ActivityDateTime"));
        let day = instant("ActivityDate").map(|at| at.date_naive());
        let minutes = sent("DurationInMinutes").and_then(number_of);
        let start = start.map(|at| Value::Text(at.to_rfc3339_opts(SecondsFormat::Millis, true)));
        let parts = [
            (time_parts::ALL_DAY, all_day.map(Value::Flag)),
            (time_parts::START, start),
            (time_parts::DAY, day.map(|day| Value::Text(day.to_string()))),
            (time_parts::MINUTES, minutes.map(Value::Number)),
        ];
        self.values.extend(parts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
}

/// Reads a value that REST shows in the same form; times and dates, which are numbers here and texts there, have none.
fn plain_value(value: &Avro) -> Option<Value> {
    let json = match value {
        Avro::Null => Json::Null,
        Avro::Boolean(flag) => Json::Bool(*flag),
        Avro::Int(number) => Json::from(*number),
        Avro::Float(number) => Json::from(f64::from(*number)),
        Avro::Double(number) => Json::from(*number),
        Avro::String(_) | Avro::Enum(..) => Json::String(text_of(value)?),
        _ => return None,
    };
    Some(wire::value(&json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn event(fields: &[(&str, Avro)]) -> Vec<(String, Avro)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), Avro::Union(1, Box::new(value.clone())))).collect()
    }

    fn text(text: &str) -> Avro {
        Avro::String(text.to_owned())
    }

    #[test]
    fn changed_and_nulled_plain_fields_are_told_with_their_values_in_the_mappings_spelling() {
        let fields = event(&[
            ("Subject", text("one\r\ntwo")),
            ("Location", Avro::Null),
            ("Seats__c", Avro::Double(30.0)),
            ("Type", text("Call")),
        ]);
        let names = mapped(&["subject", "Location", "Seats__c", "Type", "Gone__c"]);
        let told =
            Told::read(&fields, &set(&["Subject", "Location", "Seats__c", "LastModifiedDate"]), &set(&[]), &names);
        assert_eq!(told.changed, set(&["subject", "Location", "Seats__c"]), "`Type` did not change");
        let values = Fields::from([
            ("subject".to_owned(), Value::text("one\ntwo")),
            ("Location".to_owned(), Value::Null),
            ("Seats__c".to_owned(), Value::Number(30)),
        ]);
        assert_eq!(told.values, values);
    }

    #[test]
    fn differences_parts_of_compounds_and_dates_are_told_without_a_value() {
        let fields = event(&[
            ("Description", text("--- \n+++ 00\n@@ -1 +1 @@")),
            ("Address", Avro::Record(vec![("Street".to_owned(), text("Elm"))])),
            ("Due__c", Avro::Long(1_795_251_601_000)),
        ]);
        let names = mapped(&["Description", "Address", "Due__c"]);
        let changed = set(&["Description", "Address.Street", "Due__c"]);
        let told = Told::read(&fields, &changed, &set(&["Description"]), &names);
        assert_eq!(told.changed, set(&["Description", "Address", "Due__c"]));
        assert!(told.values.is_empty(), "{:?}", told.values);
    }

    #[test]
    fn a_private_event_tells_names_only_and_nothing_prints_a_value() {
        let fields = event(&[("Subject", text("secret")), ("IsPrivate", Avro::Boolean(true))]);
        let told = Told::read(&fields, &set(&["Subject", "IsPrivate"]), &set(&[]), &mapped(&["Subject"]));
        assert!(told.private && told.values.is_empty() && told.changed.contains("Subject"));
        let open = Told::read(&fields[..1], &set(&["Subject"]), &set(&[]), &mapped(&["Subject"]));
        assert!(open.values.contains_key("Subject") && !format!("{open:?}").contains("secret"));
    }

    #[test]
    fn of_a_time_only_the_parts_that_changed_are_told() {
        let fields = event(&[
            ("ActivityDateTime", Avro::Long(1_795_251_600_000)),
            ("ActivityDate", Avro::Long(1_795_219_200_000)),
            ("DurationInMinutes", Avro::Int(30)),
            ("IsAllDayEvent", Avro::Boolean(false)),
        ]);
        let read = |changed: &[&str]| Told::read(&fields, &set(changed), &set(&[]), &mapped(&["time", "Subject"]));
        let moved = read(&["ActivityDateTime", "LastModifiedDate"]);
        assert_eq!(moved.changed, set(&[TIME]));
        let start = (time_parts::START.to_owned(), Value::text("2026-11-21T09:00:00.000Z"));
        assert_eq!(moved.values, Fields::from([start]));
        let all = read(&["ActivityDateTime", "ActivityDate", "DurationInMinutes", "IsAllDayEvent"]);
        assert_eq!(
            all.values.keys().collect::<Vec<_>>(),
            [time_parts::ALL_DAY, time_parts::DAY, time_parts::MINUTES, time_parts::START]
        );
        assert_eq!(all.values[time_parts::DAY], Value::text("2026-11-21"));
        assert!(read(&["Subject", "LastModifiedDate"]).values.is_empty());
    }
}
