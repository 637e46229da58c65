//! How our types become columns and come back.

use std::collections::BTreeMap;
use std::str::FromStr;

use calbridge_core::case::Notice;
use calbridge_core::ids::{ConnectionId, LaneId, RecordId};
use calbridge_core::link::{BaseField, Intent, Link, LinkState, Unaudited};
use calbridge_core::plan::Alias;
use calbridge_core::reason::Reason;
use calbridge_core::side::BothSides;
use calbridge_core::signal::{SignalCause, Version};
use calbridge_core::value::{Value, When};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::dialect::{Db, Row};
use super::statement::failed;
use crate::ports::{DirtyRow, StoreError};
use crate::store::seal::{DataKey, Sealer};

/// Name under which a link's values are sealed.
const LINK_VALUES: &str = "link values";

/// Longest name that is stored as it is, in bytes: PostgreSQL's indexes take no entry above 2,704 bytes
/// (<https://www.postgresql.org/docs/current/btree.html>), and an invitation from outside may bear an `iCalUId` of any
/// length.
const LONGEST_NAME: usize = 1024;

/// Returns a name as it is stored and searched: a longer one as its digest, so that equal ones stay equal.
pub(super) fn stored_name(name: &str) -> String {
    if name.len() <= LONGEST_NAME {
        return storable(name);
    }
    Sha256::digest(name).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Returns a text of others as both databases take it: PostgreSQL's texts hold no NUL.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Returns a name's kind and value as stored.
pub(super) fn name_parts(alias: &Alias) -> (&'static str, String) {
    let (kind, value) = alias.parts();
    (kind, stored_name(&value))
}

/// Returns an instant as stored.
pub(super) fn ms(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

/// Reads a stored instant.
pub(super) fn instant(ms: i64) -> Result<DateTime<Utc>, StoreError> {
    DateTime::from_timestamp_millis(ms).ok_or_else(|| corrupt("instant", &format!("`{ms}` is out of range")))
}

/// Returns the stable name of a plain enum.
pub(super) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("plain enums serialise to their names, not to {other:?}"),
    }
}

/// Reads what [`name_of`] wrote.
pub(super) fn from_name<T: DeserializeOwned>(what: &str, name: &str) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(name.to_owned()))
        .map_err(|error| corrupt(what, &error.to_string()))
}

/// Writes JSON.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data with text keys always serialises")
}

/// Reads JSON.
pub(super) fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(what, &error.to_string()))
}

/// Reads an id.
pub(super) fn parse<T: FromStr>(what: &str, text: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| corrupt(what, &error.to_string()))
}

/// Reads a record key.
pub(super) fn record(key: &str) -> Result<RecordId, StoreError> {
    RecordId::from_key(key).map_err(|error| corrupt("record", &error.to_string()))
}

/// Reads a reason's name.
pub(super) fn reason(name: &str) -> Result<Reason, StoreError> {
    Reason::find(name).ok_or_else(|| corrupt("reason", &format!("`{name}` is unknown to this version")))
}

/// Says that stored data cannot be read.
pub(super) fn corrupt(what: &str, why: &str) -> StoreError {
    StoreError::Corrupt { what: what.to_owned(), why: why.to_owned() }
}

/// Reads a column.
pub(super) fn get<'r, T>(row: &'r Row, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Db> + sqlx::Type<Db>,
{
    row.try_get(column).map_err(failed)
}

/// Columns of `dirty` that [`dirty_row`] reads.
pub(super) const DIRTY_COLUMNS: &str = "dirty.connection, dirty.record, dirty.lane_id, dirty.generation, dirty.signals, \
     dirty.deleted, dirty.cause, dirty.versions, dirty.positions, dirty.first_signal_at, dirty.last_signal_at";

/// Reads a row of the queue, and its lane.
pub(super) fn dirty_row(row: &Row) -> Result<(LaneId, DirtyRow), StoreError> {
    let versions: Vec<Version> = from_json("versions", get(row, "versions")?)?;
    let dirty = DirtyRow {
        notice: Notice {
            record: record(get(row, "record")?)?,
            deleted: get::<i64>(row, "deleted")? != 0,
            versions,
            last_signal_at: instant(get(row, "last_signal_at")?)?,
            cause: from_name::<SignalCause>("cause", get(row, "cause")?)?,
        },
        generation: get(row, "generation")?,
        signals: u32::try_from(get::<i64>(row, "signals")?).unwrap_or(u32::MAX),
        positions: from_json("positions", get(row, "positions")?)?,
        first_signal_at: instant(get(row, "first_signal_at")?)?,
    };
    Ok((parse("lane id", get(row, "lane_id")?)?, dirty))
}

/// What of a link is sealed.
#[derive(Default, Serialize, Deserialize)]
struct LinkValues {
    base: BTreeMap<String, BaseField>,
    intents: BothSides<Option<Intent>>,
    #[serde(default)]
    unaudited: Vec<Unaudited>,
}

/// Columns that [`link`] reads; `data_key` must be joined.
pub(super) const LINK_COLUMNS: &str = "correlation.lane_id, correlation.body, correlation.sealed, correlation.key_id, \
     correlation.revision, data_key.wrapped";

/// Reads a link and its lane. A link whose data key was erased has no bases and no intents.
pub(super) fn link(row: &Row, sealer: &Sealer) -> Result<(LaneId, Link), StoreError> {
    let mut link: Link = from_json("link", get(row, "body")?)?;
    link.revision = u64::try_from(get::<i64>(row, "revision")?).unwrap_or_default();
    if let Some(wrapped) = get::<Option<&[u8]>>(row, "wrapped")? {
        let key_id: &str = get(row, "key_id")?;
        let key = sealer.unwrap_data_key(key_id, wrapped)?;
        let plain = key.open(LINK_VALUES, key_id, get(row, "sealed")?)?;
        let values: LinkValues =
            serde_json::from_slice(&plain).map_err(|error| corrupt("link values", &error.to_string()))?;
        link.base = values.base;
        link.intents = values.intents;
        link.unaudited = values.unaudited;
    }
    Ok((parse("lane id", get(row, "lane_id")?)?, link))
}

/// Splits a link into its plain body and its sealed values.
pub(super) fn link_body(link: &Link, key: &DataKey, key_id: &str) -> Result<(String, Vec<u8>), StoreError> {
    let values =
        LinkValues { base: link.base.clone(), intents: link.intents.clone(), unaudited: link.unaudited.clone() };
    let plain = serde_json::to_vec(&values).expect("plain data with text keys always serialises");
    let body = Link { base: BTreeMap::new(), intents: BothSides::default(), unaudited: Vec::new(), ..link.clone() };
    Ok((to_json(&body), key.seal(LINK_VALUES, key_id, &plain)?))
}

/// Returns a state's name, reason and since when.
pub(super) fn state_parts(state: &LinkState) -> (&'static str, Option<&'static str>, Option<i64>) {
    match state {
        LinkState::Live => ("live", None, None),
        LinkState::Tombstone { reason, at } => ("tombstone", Some(reason.name()), Some(ms(*at))),
        LinkState::Held { reason, at } => ("held", Some(reason.name()), Some(ms(*at))),
        LinkState::DeadLetter { reason, at } => ("dead_letter", Some(reason.name()), Some(ms(*at))),
        LinkState::Skipped { reason, at } => ("skipped", Some(reason.name()), Some(ms(*at))),
    }
}

/// Returns the time of a meeting as its bases know it, or, before there are any, as its open writes do.
pub(super) fn meeting_time(link: &Link) -> Option<&When> {
    let agreed = [&link.intents.outlook, &link.intents.salesforce]
        .into_iter()
        .flatten()
        .flat_map(|intent| intent.agreed.values());
    link.base.values().chain(agreed).flat_map(|field| [&field.outlook, &field.salesforce]).find_map(Value::as_when)
}

/// Returns the side's words that trace searches: values of the named rules.
pub(super) fn subjects<'a>(link: &'a Link, names: &'a [String]) -> impl Iterator<Item = &'a str> {
    let agreed =
        [&link.intents.outlook, &link.intents.salesforce].into_iter().flatten().flat_map(|intent| intent.agreed.iter());
    link.base
        .iter()
        .chain(agreed)
        .filter(|(name, _)| is_named(name, names))
        .flat_map(|(_, field)| [&field.outlook, &field.salesforce])
        .filter_map(Value::as_text)
}

/// Tells whether a field or rule is one whose words are searched.
pub(super) fn is_named(name: &str, names: &[String]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Returns a version that a person may paste: a change key. Nobody searches for a modification time.
pub(super) fn searchable(version: &Version) -> Option<String> {
    match version {
        Version::ChangeKey(key) => Some(key.clone()),
        Version::Modstamp(_) => None,
    }
}

/// Reads a connection column.
pub(super) fn connection(row: &Row) -> Result<ConnectionId, StoreError> {
    Ok(ConnectionId::new(get::<String>(row, "connection")?))
}
