//! Change events on the wire: the Avro schema of an object's change event, field bitmaps, the encoded payload.
//!
//! Header: <https://developer.salesforce.com/docs/atlas.en-us.change_data_capture.meta/change_data_capture/cdc_event_fields_header.htm>.
//! Long texts are always sent whole, never as a diff: `diffFields` stays empty, which the vendor allows.

use std::collections::BTreeSet;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cell::Cell;
use super::input::Cells;
use super::schema::{Field, Kind, Object};
use crate::faults::Switches;

/// Symbols of `changeType`; their order is unconfirmed, clients decode by name.
const CHANGE_TYPES: [&str; 10] = [
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

/// What a change event says about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeType {
    /// The record came into being; all values are sent.
    Create,
    /// Some values changed; only they are sent.
    Update,
    /// The record went to the recycle bin; no values are sent.
    Delete,
    /// The record came back; all values are sent.
    Undelete,
    /// A change whose event could not be built: header only.
    GapUpdate,
    /// More than 100,000 changes in one transaction: header only, no real record id.
    GapOverflow,
}

impl ChangeType {
    fn symbol(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Undelete => "UNDELETE",
            Self::GapUpdate => "GAP_UPDATE",
            Self::GapOverflow => "GAP_OVERFLOW",
        }
    }

    fn sends_all_values(self) -> bool {
        matches!(self, Self::Create | Self::Undelete)
    }
}

/// The header of one change event, bitmaps aside.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) record_ids: Vec<String>,
    pub(crate) change: ChangeType,
    pub(crate) origin: String,
    pub(crate) transaction_key: String,
    /// From 1, in the order of the transaction.
    pub(crate) sequence_number: i32,
    /// Milliseconds since 1970, always a whole second.
    pub(crate) commit_timestamp: i64,
    pub(crate) commit_number: i64,
    pub(crate) commit_user: String,
}

/// One version of an object's change event schema.
#[derive(Debug)]
pub(crate) struct EventSchema {
    /// 22 characters, derived from the content: the same fields give the same id.
    pub(crate) id: String,
    /// The schema document, with its id as `uuid`.
    pub(crate) json: String,
    object: Object,
    fields: Vec<&'static Field>,
    schema: Schema,
}

impl EventSchema {
    /// Builds the schema for the fields that exist under the switches.
    pub(crate) fn new(object: Object, switches: &Switches) -> Self {
        let fields: Vec<_> = object.fields(switches).filter(|field| field.in_event).collect();
        let mut document = document(object, &fields);
        let digest = Sha256::digest(document.to_string());
        let id = URL_SAFE_NO_PAD.encode(digest.get(..16).expect("SHA-256 has 32 bytes"));
        document["uuid"] = Value::from(id.as_str());
        let json = document.to_string();
        let schema = Schema::parse_str(&json).expect("the schema is built from a fixed table");
        Self { id, json, object, fields, schema }
    }

    pub(crate) fn object(&self) -> Object {
        self.object
    }

    /// Encodes one event as a raw datum; `changed` matters for updates only.
    pub(crate) fn encode(&self, header: &Header, row: Option<&Cells>, changed: &BTreeSet<&str>) -> Vec<u8> {
        let updating = header.change == ChangeType::Update;
        let value_of = |field: &Field| {
            let sent = header.change.sends_all_values() || (updating && changed.contains(field.name));
            row.filter(|_| sent).and_then(|cells| cells.get(field.name)).cloned().unwrap_or(Cell::Null)
        };
        let changed_names = |name: &str| updating && changed.contains(name);
        let nulled = self.bitmap(|field| changed_names(field.name) && value_of(field).is_null());
        let changed_map = self.bitmap(|field| changed_names(field.name));

        let mut values = vec![("ChangeEventHeader".to_owned(), self.header(header, nulled, changed_map))];
        for field in &self.fields {
            values.push((field.name.to_owned(), optional(field, &value_of(field))));
        }
        let writer = GenericDatumWriter::builder(&self.schema).build().expect("the schema resolves by itself");
        writer.write_value_to_vec(Avro::Record(values)).expect("values follow the table that made the schema")
    }

    fn header(&self, header: &Header, nulled: Vec<String>, changed: Vec<String>) -> Avro {
        let strings = |list: Vec<String>| Avro::Array(list.into_iter().map(Avro::String).collect());
        let symbol = header.change.symbol();
        let index = CHANGE_TYPES.iter().position(|name| *name == symbol).expect("every change type has a symbol");
        let values = [
            ("entityName", Avro::String(self.object.name().to_owned())),
            ("recordIds", strings(header.record_ids.clone())),
            ("changeType", Avro::Enum(u32::try_from(index).expect("ten symbols"), symbol.to_owned())),
            ("changeOrigin", Avro::String(header.origin.clone())),
            ("transactionKey", Avro::String(header.transaction_key.clone())),
            ("sequenceNumber", Avro::Int(header.sequence_number)),
            ("commitTimestamp", Avro::Long(header.commit_timestamp)),
            ("commitNumber", Avro::Long(header.commit_number)),
            ("commitUser", Avro::String(header.commit_user.clone())),
            ("nulledFields", strings(nulled)),
            ("diffFields", Avro::Array(Vec::new())),
            ("changedFields", strings(changed)),
        ];
        Avro::Record(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Makes the bitmap form: bit i stands for field i of the schema, the header being field 0.
    ///
    /// Upper-case hex with an even number of digits: clients map digits one by one or read byte pairs.
    /// <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/event-deserialization-considerations.html>
    fn bitmap(&self, holds: impl Fn(&Field) -> bool) -> Vec<String> {
        let mut bytes = vec![0_u8; self.fields.len() / 8 + 1];
        for (index, field) in self.fields.iter().enumerate() {
            if holds(field) {
                let bit = index + 1;
                bytes[bit / 8] |= 1 << (bit % 8);
            }
        }
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Vec::new();
        }
        let mut digits = String::from("0x");
        for byte in bytes.iter().rev() {
            for half in [byte >> 4, byte & 15] {
                digits.extend(char::from_digit(u32::from(half), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
        vec![digits]
    }
}

fn optional(field: &Field, cell: &Cell) -> Avro {
    let value = match (field.kind, cell) {
        (_, Cell::Null) => return Avro::Union(0, Box::new(Avro::Null)),
        (_, Cell::Text(text)) => Avro::String(text.clone()),
        (_, Cell::Bool(flag)) => Avro::Boolean(*flag),
        (_, Cell::Int(number)) => Avro::Int(i32::try_from(*number).unwrap_or(i32::MAX)),
        (_, Cell::DateTime(_) | Cell::Date(_)) => Avro::Long(cell.epoch_ms().expect("instants and days have one")),
    };
    Avro::Union(1, Box::new(value))
}

fn document(object: Object, fields: &[&'static Field]) -> Value {
    let string_list = || json!({ "type": "array", "items": "string" });
    let header = json!({
        "type": "record",
        "name": "ChangeEventHeader",
        "fields": [
            { "name": "entityName", "type": "string" },
            { "name": "recordIds", "type": string_list() },
            { "name": "changeType", "type": { "type": "enum", "name": "ChangeType", "symbols": CHANGE_TYPES } },
            { "name": "changeOrigin", "type": "string" },
            { "name": "transactionKey", "type": "string" },
            { "name": "sequenceNumber", "type": "int" },
            { "name": "commitTimestamp", "type": "long" },
            { "name": "commitNumber", "type": "long" },
            { "name": "commitUser", "type": "string" },
            { "name": "nulledFields", "type": string_list() },
            { "name": "diffFields", "type": string_list() },
            { "name": "changedFields", "type": string_list() },
        ],
    });
    let mut list = vec![json!({ "name": "ChangeEventHeader", "type": header })];
    for field in fields {
        let (avro, doc) = match field.kind {
            Kind::Bool => ("boolean", "Boolean"),
            Kind::Int => ("int", "Integer"),
            Kind::DateTime => ("long", "DateTime"),
            Kind::Date => ("long", "DateOnly"),
            Kind::Id | Kind::Reference(_) => ("string", "EntityId"),
            Kind::Picklist(_) | Kind::Restricted(_) => ("string", "DynamicEnum"),
            Kind::Text | Kind::Combobox | Kind::TextArea => ("string", "Text"),
        };
        let kind = if matches!(field.name, "CreatedDate" | "LastModifiedDate") {
            format!("{}:DateTime", field.name)
        } else {
            format!("Data:{doc}")
        };
        list.push(json!({ "name": field.name, "type": ["null", avro], "doc": kind, "default": null }));
    }
    json!({
        "type": "record",
        "name": format!("{}ChangeEvent", object.name()),
        "namespace": "com.sforce.eventbus",
        "fields": list,
    })
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;

    use super::*;

    fn header(change: ChangeType) -> Header {
        Header {
            record_ids: vec!["00U000000000001AAA".into()],
            change,
            origin: String::new(),
            transaction_key: "key".into(),
            sequence_number: 1,
            commit_timestamp: 1_700_000_000_000,
            commit_number: 5,
            commit_user: "005000000000001AAA".into(),
        }
    }

    fn decoded(schema: &EventSchema, payload: &[u8]) -> Vec<(String, Avro)> {
        let reader = GenericDatumReader::builder(&schema.schema).build().unwrap();
        let Avro::Record(fields) = reader.read_value(&mut &*payload).unwrap() else { panic!("not a record") };
        fields
    }

    #[test]
    fn schema_id_has_22_characters_and_follows_the_fields() {
        let all = EventSchema::new(Object::Event, &Switches::default());
        assert_eq!(all.id.len(), 22);
        assert!(all.json.contains(&format!("\"uuid\":\"{}\"", all.id)));
        assert_eq!(all.id, EventSchema::new(Object::Event, &Switches::default()).id);
        let fewer = Switches { salesforce_token_field: false, ..Switches::default() };
        assert_ne!(all.id, EventSchema::new(Object::Event, &fewer).id);
    }

    #[test]
    fn update_sends_changed_values_only_and_marks_them_in_bitmaps() {
        let schema = EventSchema::new(Object::Event, &Switches::default());
        let mut row = Cells::new();
        row.insert("Subject", Cell::Text("Review".into()));
        row.insert("ShowAs", Cell::Text("Busy".into()));
        let changed = BTreeSet::from(["Subject", "Location"]);
        let fields = decoded(&schema, &schema.encode(&header(ChangeType::Update), Some(&row), &changed));
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).unwrap().1.clone();
        assert_eq!(field("Subject"), Avro::Union(1, Box::new(Avro::String("Review".into()))));
        assert_eq!(field("ShowAs"), Avro::Union(0, Box::new(Avro::Null)));
        let Avro::Record(head) = field("ChangeEventHeader") else { panic!("no header") };
        let list = |name: &str| head.iter().find(|(field, _)| field == name).unwrap().1.clone();
        // Subject is field 3 and Location field 4 of the schema.
        assert_eq!(list("changedFields"), Avro::Array(vec![Avro::String("0x18".into())]));
        assert_eq!(list("nulledFields"), Avro::Array(vec![Avro::String("0x10".into())]));
    }

    #[test]
    fn delete_sends_no_values() {
        let schema = EventSchema::new(Object::Event, &Switches::default());
        let row = Cells::from([("Subject", Cell::Text("Review".into()))]);
        let payload = schema.encode(&header(ChangeType::Delete), Some(&row), &BTreeSet::new());
        let fields = decoded(&schema, &payload);
        assert!(fields.iter().skip(1).all(|(_, value)| *value == Avro::Union(0, Box::new(Avro::Null))));
    }
}
