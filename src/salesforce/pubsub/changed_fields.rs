//! Field bitmaps of change events: which fields changed, as positions in the schema the event was written with.
//!
//! `0x400800` names fields by bit, least significant first, the header being field 0; `4-0x01` names children of the
//! compound field 4: <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/event-deserialization-considerations.html>.

use std::collections::BTreeSet;

use apache_avro::Schema;
use apache_avro::schema::RecordField;

/// Longest bitmap read, in digits of four fields each; an object has at most 800 custom fields.
const LONGEST_BITMAP: usize = 1024;
/// Most bitmaps read: the record's own, and one for each compound field.
const MOST_BITMAPS: usize = 256;

/// Returns the names of the fields that bitmaps name; bits beyond the schema are ignored.
pub(super) fn names(bitmaps: &[String], schema: &Schema) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let fields = fields_of(schema);
    for bitmap in bitmaps.iter().take(MOST_BITMAPS) {
        match bitmap.split_once('-') {
            None => names.extend(bits(bitmap).filter_map(|bit| Some(fields.get(bit)?.name.clone()))),
            Some((parent, children)) => {
                let Some(parent) = parent.parse().ok().and_then(|at: usize| fields.get(at)) else {
                    continue;
                };
                let inner = fields_of(&parent.schema);
                for bit in bits(children) {
                    names.insert(match inner.get(bit) {
                        Some(child) => format!("{}.{}", parent.name, child.name),
                        None => parent.name.clone(),
                    });
                }
            }
        }
    }
    names
}

/// Returns a record's fields, looking through a union with null.
fn fields_of(schema: &Schema) -> &[RecordField] {
    match schema {
        Schema::Record(record) => &record.fields,
        Schema::Union(union) => union
            .variants()
            .iter()
            .find_map(|variant| match variant {
                Schema::Record(record) => Some(record.fields.as_slice()),
                _ => None,
            })
            .unwrap_or_default(),
        _ => &[],
    }
}

/// Returns the positions of the set bits of `0x…`; anything that is no such number has none.
fn bits(bitmap: &str) -> impl Iterator<Item = usize> {
    let digits = bitmap.strip_prefix("0x").or_else(|| bitmap.strip_prefix("0X")).unwrap_or_default();
    // Far more fields than a record can have: no number, but an attempt.
    let digits = if digits.len() > LONGEST_BITMAP { "" } else { digits };
    let nibbles: Option<Vec<u32>> = digits.chars().rev().map(|digit| digit.to_digit(16)).collect();
    let nibbles = nibbles.unwrap_or_default().into_iter().enumerate();
    nibbles.flat_map(|(at, nibble)| (0..4).filter(move |bit| nibble & (1 << bit) != 0).map(move |bit| at * 4 + bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let mut fields = vec![serde_json::json!({ "name": "F0", "type": "string" })];
        for at in 1..30 {
            fields.push(serde_json::json!({ "name": format!("F{at}"), "type": ["null", "string"] }));
        }
        fields[4] = serde_json::json!({ "name": "Address", "type": ["null", {
            "type": "record", "name": "Inner", "fields": [{ "name": "Street", "type": "string" }]
        }] });
        let schema = serde_json::json!({ "type": "record", "name": "R", "fields": fields });
        Schema::parse_str(&schema.to_string()).unwrap()
    }

    fn named(bitmaps: &[&str]) -> Vec<String> {
        let bitmaps: Vec<String> = bitmaps.iter().map(|bitmap| (*bitmap).to_owned()).collect();
        names(&bitmaps, &schema()).into_iter().collect()
    }

    #[test]
    fn the_vendors_sample_names_bits_11_and_22() {
        assert_eq!(named(&["0x400800"]), ["F11", "F22"]);
    }

    #[test]
    fn children_of_compound_fields_are_named_by_their_parent() {
        assert_eq!(named(&["0x02", "4-0x01"]), ["Address.Street", "F1"]);
        assert_eq!(named(&["4-0x02"]), ["Address"]);
    }

    #[test]
    fn nonsense_and_bits_beyond_the_schema_name_nothing() {
        assert!(named(&["", "0x", "zz", "0xZZ", "99-0x01", "-", "0xFFFFFFFFFFFF00000000000000000000"]).is_empty());
    }

    #[test]
    fn a_bitmap_beyond_all_measure_costs_nothing_and_names_nothing() {
        let long = format!("0x{}", "F".repeat(1_000_000));
        assert!(named(&[&long]).is_empty());
        assert!(named(&[&format!("4-{long}")]).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_bitmap_panics_and_all_names_are_the_schemas(bitmap in "(0x|0X|[0-9]{0,25}-0x)?[0-9a-fA-Fg-]{0,60}") {
            for name in named(&[&bitmap]) {
                proptest::prop_assert!(name.starts_with('F') || name.starts_with("Address"), "{}", name);
            }
        }
    }
}
