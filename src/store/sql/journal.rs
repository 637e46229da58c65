//! History: journal rows, their sealed images, and the names by which trace finds them.

use std::collections::BTreeSet;

use calbridge_core::ids::{ConnectionId, LaneId, RecordId};
use calbridge_core::plan::Outcome;
use calbridge_core::side::Side;
use calbridge_core::value::{Fields, Value};
use sqlx::QueryBuilder;

use super::SqlStore;
use super::dialect::{Connection, Db, Row};
use super::rows::{connection as read_connection, from_json, from_name, get, instant, is_named, ms, name_of};
use super::rows::{parse, reason, record, storable, to_json};
use super::statement::{chunks, failed};
use crate::ports::{JournalEntry, StoreError};
use crate::store::seal::{DataKey, Sealer};

/// Name under which images are sealed.
const IMAGE: &str = "image";

/// Returns the data key of a link, lane or dead letter, drawing one when there is none.
pub(super) async fn data_key(
    connection: &mut Connection,
    sealer: &Sealer,
    owner: &ConnectionId,
    key_id: &str,
    now: i64,
) -> Result<DataKey, StoreError> {
    let wrapped: Option<Vec<u8>> = sqlx::query_scalar("SELECT wrapped FROM data_key WHERE key_id = $1")
        .bind(key_id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
    if let Some(wrapped) = wrapped {
        return sealer.unwrap_data_key(key_id, &wrapped);
    }
    let (key, wrapped) = sealer.new_data_key(key_id)?;
    sqlx::query("INSERT INTO data_key (key_id, connection, wrapped, created_at) VALUES ($1, $2, $3, $4)")
        .bind(key_id)
        .bind(owner.as_str())
        .bind(wrapped)
        .bind(now)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(key)
}

/// Appends journal rows; `lane` is the lane of the run, none for messages that lead to no meeting.
pub(super) async fn append(
    connection: &mut Connection,
    store: &SqlStore,
    lane: Option<LaneId>,
    entries: &[JournalEntry],
) -> Result<(), StoreError> {
    for entry in entries {
        let sequence: i64 = sqlx::query_scalar(
            "INSERT INTO journal (connection, at, lane_id, link_id, kind, side, record, outcome, reasons, fields, \
             versions, positions, signals, echoes, token, calls, mails, latency_ms, error, config_version, mail_author) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) \
             RETURNING sequence",
        )
        .bind(entry.connection.as_str())
        .bind(ms(entry.at))
        .bind(lane.map(|lane| lane.to_string()))
        .bind(entry.link.map(|link| link.to_string()))
        .bind(name_of(&entry.kind))
        .bind(entry.side.map(Side::name))
        .bind(entry.record.as_ref().map(RecordId::key))
        .bind(entry.outcome.map(Outcome::name))
        .bind(entry.reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(","))
        .bind(entry.fields.join(","))
        .bind(to_json(&entry.versions))
        .bind(to_json(&entry.positions))
        .bind(i64::from(entry.signals))
        .bind(i64::from(entry.echoes))
        .bind(entry.token.map(|token| token.to_string()))
        .bind(i64::from(entry.calls))
        .bind(i64::from(entry.mails))
        .bind(entry.latency_ms)
        .bind(entry.error.as_deref().map(storable))
        .bind(&entry.config_version)
        .bind(entry.mail_author.as_deref())
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        let Some(lane) = lane else { continue };
        if !entry.images.is_empty() {
            let key_id = entry.link.map_or_else(|| lane.to_string(), |link| link.to_string());
            let key = data_key(connection, &store.sealer, &entry.connection, &key_id, ms(entry.at)).await?;
            sqlx::query("INSERT INTO image (sequence, key_id, sealed) VALUES ($1, $2, $3)")
                .bind(sequence)
                .bind(&key_id)
                .bind(key.seal(IMAGE, &key_id, to_json(&entry.images).as_bytes())?)
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        let texts = entry
            .images
            .values()
            .flat_map(Fields::iter)
            .filter(|(name, _)| is_named(name, &store.subject_fields))
            .filter_map(|(_, value)| Value::as_text(value));
        index_words(connection, store, &entry.connection, lane, texts).await?;
        let versions = entry.versions.iter().flat_map(|noted| version_names(noted)).collect();
        index_versions(connection, &entry.connection, lane, &versions).await?;
    }
    Ok(())
}

/// Makes a lane findable by the words of texts.
pub(super) async fn index_words<'a>(
    connection: &mut Connection,
    store: &SqlStore,
    owner: &ConnectionId,
    lane: LaneId,
    texts: impl Iterator<Item = &'a str>,
) -> Result<(), StoreError> {
    let hashes: BTreeSet<String> = texts.flat_map(|text| store.sealer.word_hashes(text)).collect();
    insert_names(connection, "word (connection, hash, lane_id) ", owner, lane, &hashes).await
}

/// Makes a lane findable by versions that it saw.
pub(super) async fn index_versions(
    connection: &mut Connection,
    owner: &ConnectionId,
    lane: LaneId,
    versions: &BTreeSet<String>,
) -> Result<(), StoreError> {
    insert_names(connection, "seen_version (connection, version, lane_id) ", owner, lane, versions).await
}

async fn insert_names(
    connection: &mut Connection,
    table: &'static str,
    owner: &ConnectionId,
    lane: LaneId,
    names: &BTreeSet<String>,
) -> Result<(), StoreError> {
    let names: Vec<&String> = names.iter().collect();
    for chunk in chunks(&names) {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO ");
        query.push(table);
        query.push_values(chunk, |mut columns, name| {
            columns.push_bind(owner.as_str().to_owned()).push_bind((*name).clone()).push_bind(lane.to_string());
        });
        query.push(" ON CONFLICT DO NOTHING");
        query.build().execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

/// Returns the texts under which a journaled version is found: as noted, and without the side in front.
///
/// Salesforce's versions are times, which nobody searches for.
fn version_names(noted: &str) -> Vec<String> {
    if noted.starts_with(Side::Salesforce.name()) {
        return Vec::new();
    }
    let mut names = vec![noted.to_owned()];
    if let Some(rest) = noted.strip_prefix(Side::Outlook.name()) {
        let bare = rest.trim_start_matches([' ', ':', '/', '=']);
        if bare.len() < rest.len() {
            names.push(bare.to_owned());
        }
    }
    names
}

/// Columns that [`entry`] reads; `image` and `data_key` must be left-joined.
pub(super) const JOURNAL_COLUMNS: &str = "journal.sequence, journal.connection, journal.at, journal.lane_id, journal.link_id, \
     journal.kind, journal.side, journal.record, journal.outcome, journal.reasons, journal.fields, journal.versions, \
     journal.positions, journal.signals, journal.echoes, journal.token, journal.calls, journal.mails, journal.mail_author, \
     journal.latency_ms, journal.error, journal.config_version, image.key_id, image.sealed, data_key.wrapped";

/// Reads a journal row; images whose key was erased are left out.
pub(super) fn entry(row: &Row, sealer: &Sealer) -> Result<JournalEntry, StoreError> {
    let number = |column| get::<i64>(row, column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let optional = |column| get::<Option<&str>>(row, column);
    let mut images = std::collections::BTreeMap::new();
    if let (Some(key_id), Some(wrapped)) = (optional("key_id")?, get::<Option<&[u8]>>(row, "wrapped")?) {
        let key = sealer.unwrap_data_key(key_id, wrapped)?;
        let plain = key.open(IMAGE, key_id, get(row, "sealed")?)?;
        images = serde_json::from_slice(&plain).map_err(|error| super::rows::corrupt("image", &error.to_string()))?;
    }
    Ok(JournalEntry {
        sequence: get(row, "sequence")?,
        at: instant(get(row, "at")?)?,
        connection: read_connection(row)?,
        lane: optional("lane_id")?.map(|lane| parse("lane id", lane)).transpose()?,
        link: optional("link_id")?.map(|link| parse("link id", link)).transpose()?,
        kind: from_name("kind", get(row, "kind")?)?,
        side: optional("side")?.map(|side| from_name("side", side)).transpose()?,
        record: optional("record")?.map(record).transpose()?,
        outcome: optional("outcome")?.map(|name| from_name("outcome", name)).transpose()?,
        reasons: split(get(row, "reasons")?).map(reason).collect::<Result<_, _>>()?,
        fields: split(get(row, "fields")?).map(str::to_owned).collect(),
        versions: from_json("versions", get(row, "versions")?)?,
        positions: from_json("positions", get(row, "positions")?)?,
        signals: number("signals")?,
        echoes: number("echoes")?,
        token: optional("token")?.map(|token| parse("write token", token)).transpose()?,
        calls: number("calls")?,
        mails: number("mails")?,
        mail_author: optional("mail_author")?.map(str::to_owned),
        latency_ms: get(row, "latency_ms")?,
        error: optional("error")?.map(str::to_owned),
        config_version: get(row, "config_version")?,
        images,
    })
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::version_names;

    #[test]
    fn a_noted_version_is_found_with_and_without_its_side() {
        assert_eq!(version_names("outlook:DwAAABYAAAC="), ["outlook:DwAAABYAAAC=", "DwAAABYAAAC="]);
        assert_eq!(version_names("outlook DwAA"), ["outlook DwAA", "DwAA"]);
        assert_eq!(version_names("DwAA"), ["DwAA"]);
        assert!(version_names("salesforce 2026-03-02T09:00:00.000Z").is_empty());
    }
}
