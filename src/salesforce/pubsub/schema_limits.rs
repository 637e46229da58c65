//! Which schemas are safe to decode with: the decoder follows them without limits of its own.
//!
//! A record that contains itself would be followed until the stack ends, a list of values that take no bytes could claim
//! any length, and a fixed value allocates its size before a byte is read. Salesforce's schemas have none of these.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{FixedSchema, Name};

/// Deepest nesting; those of Salesforce have three levels.
const DEEPEST: usize = 32;
/// Largest fixed value, in bytes.
const LARGEST_FIXED: usize = 64 * 1024;

/// Tells whether decoding with a schema ends, in bounded memory, for every payload.
pub(super) fn is_safe(schema: &Schema) -> bool {
    least_bytes(schema, &mut HashMap::new(), 0).is_some()
}

/// What is known of a named type: its least size once it was read whole, none while it is still open.
type Known = HashMap<Name, Option<usize>>;

/// Returns how many bytes a value takes at least (0 or 1 is all that matters); none for a schema that is not safe.
fn least_bytes(schema: &Schema, known: &mut Known, depth: usize) -> Option<usize> {
    if depth > DEEPEST {
        return None;
    }
    match schema {
        Schema::Null => Some(0),
        Schema::Fixed(FixedSchema { size, .. }) | Schema::Duration(FixedSchema { size, .. }) => {
            named(schema, known, (*size <= LARGEST_FIXED).then_some((*size).min(1)))
        }
        Schema::Array(array) => (least_bytes(&array.items, known, depth + 1)? > 0).then_some(1),
        // Keys take a byte, whatever the values do.
        Schema::Map(map) => least_bytes(&map.types, known, depth + 1).map(|_any| 1),
        Schema::Union(union) => {
            for variant in union.variants() {
                least_bytes(variant, known, depth + 1)?;
            }
            Some(1)
        }
        Schema::Record(record) => {
            known.insert(record.name.clone(), None);
            let mut bytes = 0;
            for field in &record.fields {
                bytes = least_bytes(&field.schema, known, depth + 1)?.max(bytes);
            }
            named(schema, known, Some(bytes))
        }
        // Unknown names do not get through parsing; one that is still open means that a type contains itself.
        Schema::Ref { name } => known.get(name).copied().flatten(),
        _ => named(schema, known, Some(1)),
    }
}

/// Remembers a type by its name, if it has one.
fn named(schema: &Schema, known: &mut Known, bytes: Option<usize>) -> Option<usize> {
    if let Some(name) = schema.name() {
        known.insert(name.clone(), bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::avro;

    fn refused(schema: &str) -> bool {
        avro::schema(schema).is_err()
    }

    #[test]
    fn schemas_that_never_end_or_weigh_nothing_are_refused() {
        let of = |field: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{field}}}]}}"#);
        assert!(!refused(&of(r#"["null","string"]"#)));
        assert!(!refused(&of(r#"{"type":"array","items":"string"}"#)));
        for field in [
            r#""R""#,
            r#"["null","R"]"#,
            r#"{"type":"array","items":"R"}"#,
            r#"{"type":"array","items":"null"}"#,
            r#"{"type":"array","items":{"type":"record","name":"E","fields":[]}}"#,
            r#"{"type":"fixed","name":"F","size":1000000000000}"#,
        ] {
            assert!(refused(&of(field)), "{field}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(refused(&deep) && refused("") && refused("{}"));
    }

    #[test]
    fn a_type_that_is_used_twice_is_no_type_that_contains_itself() {
        let twice = r#"{"type":"record","name":"R","fields":[
            {"name":"a","type":["null",{"type":"record","name":"Address","fields":[{"name":"street","type":"string"}]}]},
            {"name":"b","type":["null","Address"]}]}"#;
        assert!(!refused(twice));
    }
}
