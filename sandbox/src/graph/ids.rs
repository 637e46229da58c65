//! Identifiers as Exchange makes them: long, opaque, case-sensitive, URL-safe base64 that ends in `=`.
//!
//! Every item has two ids, the ordinary one and the immutable one
//! (<https://learn.microsoft.com/en-us/graph/outlook-immutable-id>); both carry the same payload here, so that either is
//! understood in a path and one is translated into the other without a table.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use chrono::{DateTime, Datelike, Utc};
use uuid::Uuid;

/// Bytes of an id; 92 bytes are 124 characters of base64, the last of which is padding as in real ids.
const LENGTH: usize = 92;
const FILLER: usize = 49;
/// Becomes `AAMk`, what ordinary ids start with.
const MUTABLE: [u8; 3] = [0x00, 0x03, 0x24];
/// Becomes `AAkA`, what immutable ids start with.
const IMMUTABLE: [u8; 3] = [0x00, 0x09, 0x00];
const NO_ORIGINAL: i64 = i64::MIN;

/// Which of the two ids of an item a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum IdForm {
    /// The ordinary id, which changes when the item moves.
    #[default]
    Mutable,
    /// The id asked for with `Prefer: IdType="ImmutableId"`.
    Immutable,
}

/// Names an item within its mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemKey {
    /// The event, or the series that the occurrence belongs to.
    pub item: Uuid,
    /// Original start of an occurrence or exception, seconds since 1970 UTC.
    pub original: Option<i64>,
}

impl ItemKey {
    pub(crate) fn whole(item: Uuid) -> Self {
        Self { item, original: None }
    }

    pub(crate) fn occurrence(item: Uuid, original: i64) -> Self {
        Self { item, original: Some(original) }
    }

    pub(crate) fn master(self) -> Self {
        Self::whole(self.item)
    }
}

/// Writes an item's id in the given form.
pub(crate) fn encode(form: IdForm, mailbox: Uuid, key: ItemKey) -> String {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend_from_slice(match form {
        IdForm::Mutable => &MUTABLE,
        IdForm::Immutable => &IMMUTABLE,
    });
    let seed = mailbox.as_bytes();
    for position in 0..FILLER {
        let byte = seed[position % seed.len()].rotate_left(u32::try_from(position / seed.len()).unwrap_or(0));
        bytes.push(if form == IdForm::Mutable { byte } else { !byte });
    }
    bytes.extend_from_slice(mailbox.as_bytes());
    bytes.extend_from_slice(key.item.as_bytes());
    bytes.extend_from_slice(&key.original.unwrap_or(NO_ORIGINAL).to_be_bytes());
    URL_SAFE.encode(bytes)
}

/// Reads an id of either form; none means malformed.
pub(crate) fn decode(id: &str) -> Option<(Uuid, ItemKey)> {
    let bytes = URL_SAFE.decode(id).ok()?;
    if bytes.len() != LENGTH || !(bytes.starts_with(&MUTABLE) || bytes.starts_with(&IMMUTABLE)) {
        return None;
    }
    let payload = bytes.get(MUTABLE.len() + FILLER..)?;
    let mailbox = Uuid::from_slice(payload.get(..16)?).ok()?;
    let item = Uuid::from_slice(payload.get(16..32)?).ok()?;
    let original = i64::from_be_bytes(payload.get(32..40)?.try_into().ok()?);
    Some((mailbox, ItemKey { item, original: (original != NO_ORIGINAL).then_some(original) }))
}

/// Makes a change key from a counter; keys are unordered on purpose, so that nobody compares them for "newer".
pub(crate) fn change_key(mailbox: Uuid, counter: u64) -> String {
    let mut bytes = mailbox.as_bytes().to_vec();
    let scrambled = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    bytes.extend_from_slice(&scrambled[..6]);
    // Six bytes of a product are not unique for ever, so the low part of the counter goes in as well.
    let low = counter.to_be_bytes();
    bytes[12..16].copy_from_slice(&low[4..]);
    STANDARD.encode(bytes)
}

/// Wraps a change key into the entity tag that Graph answers.
pub(crate) fn etag(change_key: &str) -> String {
    format!("W/\"{change_key}\"")
}

/// Makes an iCalUId in the form of a global object id; one random part per meeting.
pub(crate) fn ical_uid(meeting: Uuid, created: DateTime<Utc>) -> String {
    let mut text = String::from("040000008200E00074C5B7101A82E00800000000");
    write!(text, "{:016X}", created.timestamp_micros()).expect("writing to a string never fails");
    text.push_str("000000000000000010000000");
    write!(text, "{}", meeting.simple().to_string().to_uppercase()).expect("writing to a string never fails");
    text
}

/// Derives the iCalUId of one occurrence: the date of its original start replaces the zeros of the series' id.
pub(crate) fn occurrence_uid(series: &str, original: i64) -> String {
    let Some(start) = DateTime::from_timestamp(original, 0) else {
        return series.to_owned();
    };
    match (series.get(..32), series.get(40..)) {
        (Some(head), Some(tail)) => {
            format!("{head}{:04X}{:02X}{:02X}{tail}", start.year(), start.month(), start.day())
        }
        _ => series.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_lead_to_the_same_item() {
        let mailbox = Uuid::from_u128(7);
        let key = ItemKey::occurrence(Uuid::from_u128(9), 1_700_000_000);
        let ordinary = encode(IdForm::Mutable, mailbox, key);
        let immutable = encode(IdForm::Immutable, mailbox, key);
        assert_ne!(ordinary, immutable);
        assert!(ordinary.starts_with("AAMk") && ordinary.ends_with('='));
        assert!(immutable.starts_with("AAkA"));
        assert_eq!(decode(&ordinary), Some((mailbox, key)));
        assert_eq!(decode(&immutable), Some((mailbox, key)));
    }

    #[test]
    fn ids_with_changed_case_or_length_are_malformed() {
        let id = encode(IdForm::Mutable, Uuid::from_u128(7), ItemKey::whole(Uuid::from_u128(9)));
        assert_eq!(decode(&id.to_lowercase()), None);
        assert_eq!(decode("AAMk"), None);
    }

    #[test]
    fn change_keys_do_not_repeat() {
        let keys: std::collections::BTreeSet<_> = (0..10_000).map(|n| change_key(Uuid::from_u128(7), n)).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
