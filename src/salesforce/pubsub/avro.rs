//! Payload and schema -> what a change event says. Of the record itself only changed mapped fields are kept, as evidence of
//! what a write of ours covered; a signal is never trusted for its content.

use std::collections::BTreeSet;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use calbridge_core::ids::WriteToken;
use calbridge_core::observed::Stamp;
use calbridge_core::reason::Reason;
use calbridge_core::signal::Change;
use chrono::{DateTime, Utc};

use super::super::wire::TOKEN_FIELD;
use super::values::Told;
use super::{changed_fields, schema_limits};

/// Largest payload decoded, in bytes; an event has at most 1 MB.
/// <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/allocations.html>
const LARGEST_EVENT: usize = 2 * 1024 * 1024;
/// Largest single value decoded, in bytes of memory: room for the ids of all records that fit into one event.
const MAX_VALUE: usize = 4 * 1024 * 1024;
/// Longest text of a header field that is taken on, in bytes; the longest known, the origin, has about 100.
const LONGEST_HEADER: usize = 1024;
/// Longest schema read, in bytes; that of an Event with a thousand fields has about 100 000.
const LARGEST_SCHEMA: usize = 4 * 1024 * 1024;
/// Commit times outside of this span, in milliseconds since 1970, are broken: 2000 to 2100.
const COMMITTED: std::ops::Range<i64> = 946_684_800_000..4_102_444_800_000;

/// Why an event is no signal.
pub(super) type Unusable = (Reason, &'static str);

/// What a change event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChangeEvent {
    pub(super) entity: String,
    pub(super) record_ids: Vec<String>,
    pub(super) change: Change,
    /// The event stands for changes that could not be sent.
    pub(super) gap: bool,
    /// Not even the records are known.
    pub(super) overflow: bool,
    pub(super) origin: String,
    pub(super) user: String,
    pub(super) transaction: String,
    pub(super) committed: DateTime<Utc>,
    pub(super) told: Told,
    pub(super) token: Option<WriteToken>,
}

/// Reads the schema that Salesforce gives for a schema id.
pub(super) fn schema(json: &str) -> Result<Schema, Unusable> {
    // One setting for the process; it only ever lowers the library's limit of 512 MB.
    apache_avro::util::max_allocation_bytes(MAX_VALUE);
    let broken = (Reason::Undecodable, "its schema cannot be read");
    if json.len() > LARGEST_SCHEMA {
        return Err(broken);
    }
    let schema = Schema::parse_str(json).map_err(|_broken| broken)?;
    if !schema_limits::is_safe(&schema) {
        return Err((Reason::Undecodable, "its schema contains itself, or values without a size"));
    }
    Ok(schema)
}

/// Decodes a payload; it carries no schema of its own. `mapped` are the fields that mapping files name.
///
/// # Errors
/// Says what is wrong without any value of the payload.
pub(super) fn decode(schema: &Schema, mut payload: &[u8], mapped: &[String]) -> Result<ChangeEvent, Unusable> {
    let broken = |why| (Reason::Undecodable, why);
    if payload.len() > LARGEST_EVENT {
        return Err((Reason::Oversized, "its payload is larger than any event"));
    }
    let reader = GenericDatumReader::builder(schema).build().map_err(|_broken| broken("its schema cannot be used"))?;
    let value = reader.read_value(&mut payload).map_err(|_broken| broken("its payload does not fit its schema"))?;
    if !payload.is_empty() {
        return Err(broken("its payload goes on after what its schema describes"));
    }
    let Value::Record(fields) = value else {
        return Err(broken("its schema is no record"));
    };
    let header = field(&fields, "ChangeEventHeader").ok_or(broken("it has no change event header"))?;
    let Value::Record(header) = header else {
        return Err(broken("its change event header is no record"));
    };
    let text = |name| match field(header, name).and_then(text_of) {
        Some(text) if text.len() > LONGEST_HEADER => Err(broken("its header has a text that is longer than any")),
        text => Ok(text.unwrap_or_default()),
    };
    let change_type = text("changeType")?;
    let unknown = (Reason::UnknownKind, "its change type is unknown");
    let (change, gap) = change_of(&change_type).ok_or(unknown)?;
    let committed = field(header, "commitTimestamp")
        .and_then(number_of)
        .filter(|ms| COMMITTED.contains(ms))
        .and_then(DateTime::from_timestamp_millis)
        .ok_or(broken("it has no commit time, or one that cannot be"))?;
    let named = |list| changed_fields::names(&texts(field(header, list)), schema);
    let diffs = named("diffFields");
    let changed: BTreeSet<String> =
        [named("changedFields"), named("nulledFields"), diffs.clone()].into_iter().flatten().collect();
    let sequence = field(header, "sequenceNumber").and_then(number_of).unwrap_or_default();
    Ok(ChangeEvent {
        entity: text("entityName")?,
        record_ids: texts(field(header, "recordIds")),
        change,
        gap,
        overflow: change_type == "GAP_OVERFLOW",
        origin: text("changeOrigin")?,
        user: text("commitUser")?,
        transaction: format!("{}/{sequence}", text("transactionKey")?),
        committed,
        told: Told::read(&fields, &changed, &diffs, mapped),
        token: field(&fields, TOKEN_FIELD).and_then(text_of).and_then(|stamp| Stamp::decode(&stamp)?.token),
    })
}

/// Reads `changeType` by name: the order of its symbols is not published.
fn change_of(change_type: &str) -> Option<(Change, bool)> {
    let (name, gap) = match change_type.strip_prefix("GAP_") {
        Some(name) => (name, true),
        None => (change_type, false),
    };
    let change = match name {
        "CREATE" => Change::Created,
        "UPDATE" => Change::Updated,
        "DELETE" => Change::Deleted,
        "UNDELETE" => Change::Undeleted,
        "SNAPSHOT" | "OVERFLOW" => Change::Unknown,
        _ => return None,
    };
    Some((change, gap))
}

pub(super) fn field<'a>(fields: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    let (_, value) = fields.iter().find(|(key, _)| key == name)?;
    match value {
        Value::Union(_, inner) => Some(inner),
        value => Some(value),
    }
}

pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) | Value::Enum(_, text) => Some(text.clone()),
        Value::Union(_, inner) => text_of(inner),
        _ => None,
    }
}

/// Reads any number: which Avro types Salesforce uses is not published.
#[expect(
    clippy::cast_possible_truncation,
    reason = "times and counters are whole; a fraction or overflow is cut to the nearest"
)]
pub(super) fn number_of(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(i64::from(*number)),
        Value::Long(number) | Value::TimestampMillis(number) => Some(*number),
        Value::Float(number) => Some(*number as i64),
        Value::Double(number) => Some(*number as i64),
        Value::Union(_, inner) => number_of(inner),
        _ => None,
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(text_of).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
pub(in super::super) mod tests {
    use apache_avro::writer::datum::GenericDatumWriter;

    use super::*;

    /// A schema of the published shape, shortened to a few fields.
    pub(in super::super::super) const SCHEMA: &str = r#"{
        "type": "record", "name": "EventChangeEvent", "namespace": "com.sforce.eventbus", "uuid": "K98aAtiNFBjA-PJlcvaQ2g",
        "fields": [
            { "name": "ChangeEventHeader", "type": { "type": "record", "name": "ChangeEventHeader", "fields": [
                { "name": "entityName", "type": "string" },
                { "name": "recordIds", "type": { "type": "array", "items": "string" } },
                { "name": "changeType", "type": { "type": "enum", "name": "ChangeType", "symbols": [
                    "CREATE", "UPDATE", "DELETE", "UNDELETE", "GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE",
                    "GAP_OVERFLOW", "SNAPSHOT"] } },
                { "name": "changeOrigin", "type": "string" },
                { "name": "transactionKey", "type": "string" },
                { "name": "sequenceNumber", "type": "int" },
                { "name": "commitTimestamp", "type": "long" },
                { "name": "commitNumber", "type": "long" },
                { "name": "commitUser", "type": "string" },
                { "name": "nulledFields", "type": { "type": "array", "items": "string" } },
                { "name": "diffFields", "type": { "type": "array", "items": "string" } },
                { "name": "changedFields", "type": { "type": "array", "items": "string" } }
            ] } },
            { "name": "Subject", "type": ["null", "string"], "doc": "Data:Text", "default": null },
            { "name": "Location", "type": ["null", "string"], "default": null },
            { "name": "DurationInMinutes", "type": ["null", "double"], "default": null },
            { "name": "Calbridge_Token__c", "type": ["null", "string"], "default": null }
        ] }"#;

    /// Encodes an event of [`SCHEMA`].
    pub(in super::super::super) fn payload(
        change_type: &str,
        ids: &[&str],
        changed: &[&str],
        token: Option<&str>,
    ) -> Vec<u8> {
        let symbols = [
            "CREATE",
            "UPDATE",
            "DELETE",
            "UNDELETE",
            "GAP_CREATE",
            "GAP_UPDATE",
            "GAP_DELETE",
            "GAP_UNDELETE",
            "GAP_OVERFLOW",
            "SNAPSHOT",
        ];
        let at = symbols.iter().position(|symbol| *symbol == change_type).unwrap();
        let strings =
            |texts: &[&str]| Value::Array(texts.iter().map(|text| Value::String((*text).to_owned())).collect());
        let optional = |text: Option<&str>| match text {
            Some(text) => Value::Union(1, Box::new(Value::String(text.to_owned()))),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let named = |name: &str, value: Value| (name.to_owned(), value);
        let string = |text: &str| Value::String(text.to_owned());
        let header = Value::Record(vec![
            named("entityName", string("Event")),
            named("recordIds", strings(ids)),
            named("changeType", Value::Enum(u32::try_from(at).unwrap(), change_type.to_owned())),
            named("changeOrigin", string("com/salesforce/api/rest/66.0;client=calbridge/1")),
            named("transactionKey", string("0001")),
            named("sequenceNumber", Value::Int(2)),
            named("commitTimestamp", Value::Long(1_795_251_601_000)),
            named("commitNumber", Value::Long(7)),
            named("commitUser", string("0055000000Gv7qJAAR")),
            named("nulledFields", strings(&[])),
            named("diffFields", strings(&[])),
            named("changedFields", strings(changed)),
        ]);
        let value = Value::Record(vec![
            named("ChangeEventHeader", header),
            named("Subject", optional(Some("secret subject"))),
            named("Location", optional(None)),
            named("DurationInMinutes", Value::Union(0, Box::new(Value::Null))),
            named("Calbridge_Token__c", optional(token)),
        ]);
        let schema = schema(SCHEMA).unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        writer.write_value_to_vec(value).unwrap()
    }

    fn mapped(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_header_is_read_and_values_are_never_printed() {
        let payload = payload(
            "UPDATE",
            &["00U5000000Gv7qJEAR"],
            &["0x12"],
            Some("v1;00000000-0000-0000-0000-000000000001;;00000000-0000-0000-0000-000000000002"),
        );
        let event = decode(&schema(SCHEMA).unwrap(), &payload, &mapped(&["Subject", "Location"])).unwrap();
        assert_eq!(event.change, Change::Updated);
        assert!(!event.gap && !event.overflow);
        assert_eq!(event.transaction, "0001/2");
        assert_eq!(event.committed.timestamp_millis(), 1_795_251_601_000);
        assert_eq!(event.token.map(|token| token.to_string()).as_deref(), Some("00000000-0000-0000-0000-000000000002"));
        assert_eq!(event.told.changed, BTreeSet::from(["Subject".to_owned()]), "what no mapping names is left out");
        assert_eq!(event.told.values["Subject"].as_text(), Some("secret subject"));
        assert!(!format!("{event:?}").contains("secret"));
    }

    #[test]
    fn gaps_are_told_apart() {
        let decoded = |change| {
            decode(&schema(SCHEMA).unwrap(), &payload(change, &["00U5000000Gv7qJEAR"], &[], None), &[]).unwrap()
        };
        let gap = decoded("GAP_DELETE");
        assert!(gap.gap && !gap.overflow && gap.change == Change::Deleted);
        assert!(decoded("GAP_OVERFLOW").overflow);
    }

    #[test]
    fn a_broken_payload_is_an_error_and_never_a_panic() {
        let schema = schema(SCHEMA).unwrap();
        let whole = payload("CREATE", &["00U5000000Gv7qJEAR"], &[], None);
        // Cut inside the header it is unreadable; cut later, the library reads missing optional values as null.
        for cut in 0..whole.len() {
            match decode(&schema, whole.get(..cut).unwrap(), &[]) {
                Err(_) => {}
                Ok(event) => assert_eq!(event.record_ids, ["00U5000000Gv7qJEAR"], "cut at {cut}"),
            }
        }
        assert!(decode(&schema, whole.get(..60).unwrap(), &[]).is_err());
        let mut wild = whole;
        for at in 0..wild.len() {
            let kept = wild[at];
            for byte in [0x00, 0x7f, 0x80, 0xff] {
                wild[at] = byte;
                // Either outcome is fine; a panic or a huge allocation is not.
                let _outcome = decode(&schema, &wild, &[]);
            }
            wild[at] = kept;
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_its_reason() {
        let schema = schema(SCHEMA).unwrap();
        let mut longer = payload("UPDATE", &["00U5000000Gv7qJEAR"], &[], None);
        longer.push(0);
        assert_eq!(decode(&schema, &longer, &[]).unwrap_err().0, Reason::Undecodable);
        assert_eq!(decode(&schema, &vec![0; LARGEST_EVENT + 1], &[]).unwrap_err().0, Reason::Oversized);
        // A header text of 2 KiB would become part of a key that is remembered for days.
        let wide = payload("UPDATE", &["00U5000000Gv7qJEAR"], &[], None);
        let at = wide.windows(4).position(|window| window == b"0001").unwrap();
        let mut long = wide[..at - 1].to_vec();
        long.extend([0x80, 0x20]);
        long.extend([b'k'; 2048]);
        long.extend(&wide[at + 4..]);
        assert_eq!(decode(&schema, &long, &[]).unwrap_err().1, "its header has a text that is longer than any");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let schema = schema(SCHEMA).unwrap();
            if let Ok(event) = decode(&schema, &bytes, &mapped(&["Subject", "time"])) {
                proptest::prop_assert!(event.transaction.len() <= LONGEST_HEADER + 30);
            }
        }

        #[test]
        fn no_damage_makes_the_decoder_panic(
            at in 0_usize..400, byte in proptest::num::u8::ANY, cut in 0_usize..400,
        ) {
            let schema = schema(SCHEMA).unwrap();
            let mut wild = payload("UPDATE", &["00U5000000Gv7qJEAR"], &["0x12"], None);
            let length = wild.len();
            wild[at % length] = byte;
            wild.truncate(length - cut % length);
            let _either = decode(&schema, &wild, &[]);
        }

        #[test]
        fn no_text_makes_the_schema_reader_panic(text in "[\\[\\]{}\":,a-z0-9 ]{0,200}") {
            let _either = schema(&text);
        }
    }
}
