//! Intake: signals collapse into dirty rows, in one transaction with the positions that they cover.

use std::collections::{BTreeMap, HashMap};

use calbridge_core::ids::{ConnectionId, LaneId, RecordId, StreamId};
use calbridge_core::signal::{Change, Position, SignalCause};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::SqlStore;
use super::dialect::{self, Connection, Db};
use super::facts::worth_keeping;
use super::rows::{corrupt, from_name, get, ms, name_of, parse, to_json};
use super::statement::{again, chunks, failed, moved, push_list, span_ms};
use crate::ports::{DueSignal, IntakeBatch, StoreError};

/// Versions and positions that a dirty row keeps; a burst of Graph shows at most 4 versions of one record.
const KEPT: usize = 16;

/// Signals of a batch by connection and record.
type Signals<'a> = BTreeMap<(&'a ConnectionId, String), Vec<&'a DueSignal>>;

/// A dirty row being collapsed into.
#[derive(Debug)]
struct Row<'a> {
    connection: &'a ConnectionId,
    record: &'a RecordId,
    lane: Option<LaneId>,
    generation: i64,
    signals: i64,
    deleted: bool,
    cause: SignalCause,
    versions: Listed,
    positions: Listed,
    first_signal_at: i64,
    burst_started_at: i64,
    last_signal_at: i64,
    due_at: i64,
    claimed: bool,
}

impl<'a> Row<'a> {
    /// Starts a row that has seen nothing yet.
    fn fresh(due: &'a DueSignal, lane: Option<LaneId>) -> Self {
        let received = ms(due.signal.received_at);
        Self {
            connection: &due.signal.connection,
            record: &due.record,
            lane,
            generation: 0,
            signals: 0,
            deleted: false,
            cause: due.signal.cause,
            versions: Listed::default(),
            positions: Listed::default(),
            first_signal_at: received,
            burst_started_at: received,
            last_signal_at: received,
            due_at: received,
            claimed: false,
        }
    }

    /// Takes over what the stored row says, as [`existing_rows`] reads it: numbers and the cause, in one text.
    ///
    /// One column for nine: the driver copies each column of each row, and that was a fifth of all time spent here.
    fn restore(&mut self, state: &str) -> Result<(), StoreError> {
        let mut parts = state.split(' ');
        let mut number = || parts.next().and_then(|part| part.parse::<i64>().ok());
        let mut required = || number().ok_or_else(|| corrupt("dirty row", "a number is missing"));
        self.generation = required()?;
        self.signals = required()?;
        self.deleted = required()? != 0;
        self.claimed = required()? != 0;
        self.first_signal_at = required()?;
        self.burst_started_at = required()?;
        self.last_signal_at = required()?;
        self.due_at = required()?;
        self.cause = from_name("cause", parts.next().unwrap_or_default())?;
        Ok(())
    }

    /// Takes in one signal; latest wins, nothing is forgotten that a later read must cover.
    fn collapse(&mut self, due: &DueSignal) {
        let signal = &due.signal;
        let received = ms(signal.received_at);
        if self.claimed {
            // A run already knows of what was there: this signal opens a new window.
            self.claimed = false;
            self.burst_started_at = received;
        }
        self.generation += 1;
        self.signals += 1;
        self.deleted |= signal.change == Change::Deleted;
        if self.cause != SignalCause::Operator {
            self.cause = signal.cause;
        }
        if let Some(version) = &signal.version {
            self.versions.keep(version);
        }
        if let Some(position) = &signal.position {
            self.positions.keep(position);
        }
        self.last_signal_at = self.last_signal_at.max(received);
        self.due_at = (self.last_signal_at + span_ms(due.quiet)).min(self.burst_started_at + span_ms(due.max_wait));
    }
}

/// A stored list of small objects that grows at its end, kept as the text inside its brackets.
///
/// Nearly every row is only appended to; reading its lists and writing them again cost more than all else in a signal.
/// Text suffices, because a quote within a string is escaped, and what follows the one at its end is no letter: `{"` before
/// a letter always begins an item, so an item's text is found only where that item is.
#[derive(Debug, Default)]
struct Listed(String);

impl Listed {
    /// Takes over a stored list.
    fn restore(text: &str) -> Result<Self, StoreError> {
        let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inside.map(|inside| Self(inside.to_owned())).ok_or_else(|| corrupt("dirty row", "a list is no list"))
    }

    /// Appends what is not yet there and drops the oldest beyond the limit.
    fn keep(&mut self, item: &impl Serialize) {
        let item = to_json(item);
        if self.0.contains(&item) {
            return;
        }
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&item);
        let begins = |at: usize| self.0.as_bytes().get(at + 2).is_some_and(u8::is_ascii_alphabetic);
        let starts: Vec<usize> = self.0.match_indices("{\"").map(|(at, _)| at).filter(|at| begins(*at)).collect();
        if let Some(oldest) = starts.len().checked_sub(KEPT).and_then(|beyond| starts.get(beyond)) {
            self.0.drain(..*oldest);
        }
    }

    /// Writes the list as stored.
    fn text(&self) -> String {
        format!("[{}]", self.0)
    }
}

impl SqlStore {
    /// Makes signals, rejects, positions and counters durable in one transaction.
    pub(super) async fn accept_batch(&self, batch: &IntakeBatch, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut signals: Signals<'_> = BTreeMap::new();
        for due in &batch.signals {
            signals.entry((&due.signal.connection, due.record.key())).or_default().push(due);
        }
        again(|| self.accept_signals(batch, &signals, now)).await
    }

    async fn accept_signals(
        &self,
        batch: &IntakeBatch,
        signals: &Signals<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut by_connection: BTreeMap<&ConnectionId, Vec<&str>> = BTreeMap::new();
        for (id, key) in signals.keys() {
            by_connection.entry(id).or_default().push(key);
        }
        let mut tx = dialect::begin(&self.writer).await?;
        let held = dialect::hold_lanes_of(&mut tx, &by_connection).await?;
        let mut rows = existing_rows(&mut tx, &by_connection, signals).await?;
        if rows.iter().filter_map(|row| row.lane).any(|lane| !held.cover(lane)) {
            return Err(moved("the lane of a record"));
        }
        let unknown = rows.iter().filter(|row| row.lane.is_none());
        if dialect::MANY_WRITERS && !are_new(&mut tx, unknown).await? {
            return Err(moved("the name of a new record"));
        }
        for (row, bursts) in rows.iter_mut().zip(signals.values()) {
            for due in bursts {
                row.collapse(due);
            }
        }
        open_provisional_lanes(&mut tx, &mut rows, ms(now)).await?;
        write_rows(&mut tx, &rows).await?;
        let mut facts = Vec::new();
        for (row, bursts) in rows.iter().zip(signals.values()) {
            facts.extend(bursts.iter().filter_map(|due| worth_keeping(row.lane?, due)));
        }
        self.keep_facts(&mut tx, &facts, now).await?;
        self.record_rejects(&mut tx, &batch.rejects, now).await?;
        write_positions(&mut tx, &batch.positions, ms(now)).await?;
        write_duplicates(&mut tx, batch).await?;
        tx.commit().await.map_err(failed)
    }

    /// Reads how far a stream is covered.
    pub(super) async fn read_checkpoint(
        &self,
        connection: &ConnectionId,
        stream: &StreamId,
    ) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT value FROM checkpoint WHERE connection = $1 AND stream = $2")
            .bind(connection.as_str())
            .bind(stream.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)
    }
}

/// Reads lanes and rows of the records, in the order of `signals`; what is unknown comes back fresh.
async fn existing_rows<'a>(
    connection: &mut Connection,
    by_connection: &BTreeMap<&'a ConnectionId, Vec<&str>>,
    signals: &Signals<'a>,
) -> Result<Vec<Row<'a>>, StoreError> {
    let mut found = HashMap::new();
    for (id, keys) in by_connection {
        for chunk in chunks(keys) {
            let mut query = QueryBuilder::new(
                "SELECT lane_alias.value, lane_alias.lane_id AS alias_lane, dirty.versions, dirty.positions, \
                 CAST(dirty.generation AS TEXT) || ' ' || dirty.signals || ' ' || dirty.deleted || ' ' || dirty.claimed \
                 || ' ' || dirty.first_signal_at || ' ' || dirty.burst_started_at || ' ' || dirty.last_signal_at \
                 || ' ' || dirty.due_at || ' ' || dirty.cause AS state \
                 FROM lane_alias LEFT JOIN dirty \
                 ON dirty.connection = lane_alias.connection AND dirty.record = lane_alias.value \
                 WHERE lane_alias.kind = 'record' AND lane_alias.connection = ",
            );
            query.push_bind(id.as_str().to_owned());
            query.push(" AND lane_alias.value IN ");
            push_list(&mut query, chunk);
            for row in query.build().fetch_all(&mut *connection).await.map_err(failed)? {
                found.insert((*id, get::<String>(&row, "value")?), row);
            }
        }
    }
    let mut rows = Vec::with_capacity(signals.len());
    for ((id, key), bursts) in signals {
        let first = bursts[0];
        let Some(stored) = found.get(&(*id, key.clone())) else {
            rows.push(Row::fresh(first, None));
            continue;
        };
        let lane = Some(parse("lane id", get(stored, "alias_lane")?)?);
        let mut row = Row::fresh(first, lane);
        if let Some(state) = get::<Option<&str>>(stored, "state")? {
            row.restore(state)?;
            row.versions = Listed::restore(get(stored, "versions")?)?;
            row.positions = Listed::restore(get(stored, "positions")?)?;
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Waits until nobody else may give these records a lane; tells whether none of them has one by then.
async fn are_new<'a>(connection: &mut Connection, rows: impl Iterator<Item = &'a Row<'a>>) -> Result<bool, StoreError> {
    let names: Vec<_> = rows.map(|row| (row.connection, ("record", row.record.key()))).collect();
    Ok(dialect::hold_new_names(connection, &names).await? == names.len())
}

/// Gives records that nobody knows a lane of their own and the name that leads to it.
async fn open_provisional_lanes(connection: &mut Connection, rows: &mut [Row<'_>], now: i64) -> Result<(), StoreError> {
    let mut unknown = Vec::new();
    for row in rows.iter_mut().filter(|row| row.lane.is_none()) {
        let lane = LaneId::new(Uuid::now_v7());
        row.lane = Some(lane);
        unknown.push((lane.to_string(), row.connection, row.record));
    }
    for chunk in chunks(&unknown) {
        let mut lanes = QueryBuilder::<Db>::new("INSERT INTO lane (lane_id, connection, created_at) ");
        lanes.push_values(chunk, |mut columns, (lane, id, _)| {
            columns.push_bind(lane.clone()).push_bind(id.as_str().to_owned()).push_bind(now);
        });
        lanes.build().execute(&mut *connection).await.map_err(failed)?;
        let mut aliases =
            QueryBuilder::<Db>::new("INSERT INTO lane_alias (connection, kind, value, lane_id, remote_id) ");
        aliases.push_values(chunk, |mut columns, (lane, id, record)| {
            columns
                .push_bind(id.as_str().to_owned())
                .push_bind("record")
                .push_bind(record.key())
                .push_bind(lane.clone())
                .push_bind(record.remote_id().to_owned());
        });
        aliases.build().execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

async fn write_rows(connection: &mut Connection, rows: &[Row<'_>]) -> Result<(), StoreError> {
    for chunk in chunks(rows) {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO dirty (connection, record, lane_id, generation, signals, deleted, cause, versions, positions, \
             first_signal_at, burst_started_at, last_signal_at, due_at, claimed) ",
        );
        query.push_values(chunk, |mut columns, row| {
            let lane = row.lane.expect("every row was given a lane before it is written");
            columns
                .push_bind(row.connection.as_str().to_owned())
                .push_bind(row.record.key())
                .push_bind(lane.to_string())
                .push_bind(row.generation)
                .push_bind(row.signals)
                .push_bind(i64::from(row.deleted))
                .push_bind(name_of(&row.cause))
                .push_bind(row.versions.text())
                .push_bind(row.positions.text())
                .push_bind(row.first_signal_at)
                .push_bind(row.burst_started_at)
                .push_bind(row.last_signal_at)
                .push_bind(row.due_at)
                .push_bind(i64::from(row.claimed));
        });
        query.push(
            " ON CONFLICT (connection, record) DO UPDATE SET generation = excluded.generation, \
             signals = excluded.signals, deleted = excluded.deleted, cause = excluded.cause, \
             versions = excluded.versions, positions = excluded.positions, \
             first_signal_at = excluded.first_signal_at, burst_started_at = excluded.burst_started_at, \
             last_signal_at = excluded.last_signal_at, due_at = excluded.due_at, claimed = excluded.claimed",
        );
        query.build().execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

async fn write_positions(
    connection: &mut Connection,
    positions: &[(ConnectionId, Position)],
    now: i64,
) -> Result<(), StoreError> {
    // Counters and positions in one order: batches of several streams may come at the same time.
    let mut positions: Vec<_> = positions.iter().collect();
    positions.sort_by(|(a, at), (b, bt)| (a, &at.stream).cmp(&(b, &bt.stream)));
    for (id, position) in positions {
        sqlx::query(
            "INSERT INTO checkpoint (connection, stream, value, updated_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (connection, stream) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        )
        .bind(id.as_str())
        .bind(position.stream.as_str())
        .bind(&position.value)
        .bind(now)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    }
    Ok(())
}

async fn write_duplicates(connection: &mut Connection, batch: &IntakeBatch) -> Result<(), StoreError> {
    for (stream, signals) in &batch.duplicates {
        // The batch that dropped them also moves their stream's position, which names the connection.
        let owner =
            batch.positions.iter().find(|(_, position)| position.stream == *stream).map_or("", |(id, _)| id.as_str());
        sqlx::query(
            "INSERT INTO duplicate (connection, stream, signals) VALUES ($1, $2, $3) \
             ON CONFLICT (connection, stream) DO UPDATE SET signals = duplicate.signals + excluded.signals",
        )
        .bind(owner)
        .bind(stream.as_str())
        .bind(i64::try_from(*signals).unwrap_or(i64::MAX))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use calbridge_core::signal::Version;

    use super::*;

    #[test]
    fn a_list_keeps_the_newest_sixteen_once_each() {
        let mut listed = Listed::default();
        assert_eq!(listed.text(), "[]");
        let key = |number: usize| Version::ChangeKey(format!("k{number}"));
        for number in (0..3).chain(0..20) {
            listed.keep(&key(number));
        }
        let kept: Vec<Version> = serde_json::from_str(&listed.text()).unwrap();
        assert_eq!(kept, (4..20).map(key).collect::<Vec<_>>());
    }

    #[test]
    fn hostile_texts_neither_break_a_list_nor_hide_in_it() {
        let odd = [r#"{"change_key":"a"}"#, "a", r#"},{"change_key":"b"}"#, "x{", ",{", "\\", "[{\"", "b", "\u{7f}\n"];
        let versions: Vec<Version> = odd.iter().map(|text| Version::ChangeKey((*text).to_owned())).collect();
        let mut listed = Listed::default();
        for version in &versions {
            listed.keep(version);
            listed = Listed::restore(&listed.text()).unwrap();
        }
        assert_eq!(serde_json::from_str::<Vec<Version>>(&listed.text()).unwrap(), versions);
        for number in 0..KEPT {
            listed.keep(&Version::ChangeKey(format!("{{\"{number}")));
        }
        assert_eq!(serde_json::from_str::<Vec<Version>>(&listed.text()).unwrap().len(), KEPT);
    }

    #[test]
    fn what_is_no_list_is_corrupt() {
        for text in ["", "{}", "[", "null"] {
            assert!(matches!(Listed::restore(text), Err(StoreError::Corrupt { .. })), "{text}");
        }
    }
}
