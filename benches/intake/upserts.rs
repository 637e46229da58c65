//! Raw batched upserts: the rows that intake has to write, made beforehand, into a database of the same make.
//!
//! The same columns, indexes, durability and batch size, positions included; no look-up, no collapse, no dedup. Duplicates
//! are left out as if that cost nothing, and the rate counts them as taken in: the comparison is to our disadvantage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use calbridge::clock::EngineClock;
use calbridge::store::{SqliteStore, StoreSettings};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::memory::{measured, resident_kib};
use crate::stand_in::{CONNECTION, HUB};
use crate::workload::Workload;
use crate::{Measured, Task};

/// Signals in one transaction, as in intake.
const BATCH: usize = 2_000;
/// Rows of one statement, as in the store.
const CHUNKS: [usize; 5] = [256, 64, 16, 4, 1];
/// Versions and positions that a row keeps, as in intake.
const KEPT: usize = 16;

#[derive(Clone, Default)]
struct Row {
    record: String,
    lane: String,
    is_new: bool,
    generation: i64,
    versions: Vec<String>,
    positions: Vec<String>,
    at: i64,
}

/// Everything that one transaction writes.
struct Batch {
    rows: Vec<Row>,
    positions: BTreeMap<String, String>,
}

/// Writes the workload's rows.
pub(crate) async fn write(task: &Task) -> Measured {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("raw.db");
    let store = SqliteStore::open(StoreSettings::new(path.display().to_string()), Arc::new(EngineClock::wall())).await;
    store.unwrap().close().await;
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .statement_cache_capacity(300);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let batches = batches(task.workload);
    let first = resident_kib();
    let mut middle = first;
    let started = Instant::now();
    let count = batches.len();
    for (number, batch) in batches.into_iter().enumerate() {
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        write_batch(&mut tx, &batch).await;
        tx.commit().await.unwrap();
        if number == count / 2 {
            middle = resident_kib();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    pool.close().await;
    measured(seconds, [first, middle, resident_kib()])
}

fn batches(workload: Workload) -> Vec<Batch> {
    let mut known: BTreeMap<usize, Row> = BTreeMap::new();
    let fresh: Vec<_> = workload.changes().into_iter().enumerate().filter(|(_, change)| !change.again).collect();
    let made = fresh.chunks(BATCH).map(|chunk| {
        let mut touched: BTreeMap<usize, bool> = BTreeMap::new();
        let mut positions = BTreeMap::new();
        for (number, change) in chunk {
            let stream = format!("event_hubs/{HUB}/$Default/{}", number % workload.partitions);
            let value = (number / workload.partitions).to_string();
            let is_new = !known.contains_key(&change.record);
            let row = known.entry(change.record).or_insert_with(|| Row {
                record: format!("o:{}:{}", workload.mailbox(change.record), Workload::event(change.record)),
                lane: Uuid::now_v7().to_string(),
                at: 1_790_000_000_000,
                ..Row::default()
            });
            row.generation += 1;
            keep(&mut row.versions, format!("{{\"change_key\":\"{}\"}}", Workload::change_key(*change)));
            keep(&mut row.positions, format!("{{\"stream\":\"{stream}\",\"value\":\"{value}\"}}"));
            let entry = touched.entry(change.record).or_default();
            *entry |= is_new;
            positions.insert(stream, value);
        }
        let rows = touched.into_iter().map(|(record, is_new)| Row { is_new, ..known[&record].clone() }).collect();
        Batch { rows, positions }
    });
    made.collect()
}

fn keep(list: &mut Vec<String>, item: String) {
    list.push(item);
    if list.len() > KEPT {
        list.remove(0);
    }
}

async fn write_batch(connection: &mut SqliteConnection, batch: &Batch) {
    let new: Vec<&Row> = batch.rows.iter().filter(|row| row.is_new).collect();
    for chunk in chunks(&new) {
        let mut lanes = QueryBuilder::<Sqlite>::new("INSERT INTO lane (lane_id, connection, created_at) ");
        lanes.push_values(chunk, |mut columns, row| {
            columns.push_bind(row.lane.clone()).push_bind(CONNECTION).push_bind(row.at);
        });
        lanes.build().execute(&mut *connection).await.unwrap();
        let mut aliases =
            QueryBuilder::<Sqlite>::new("INSERT INTO lane_alias (connection, kind, value, lane_id, remote_id) ");
        aliases.push_values(chunk, |mut columns, row| {
            columns
                .push_bind(CONNECTION)
                .push_bind("record")
                .push_bind(row.record.clone())
                .push_bind(row.lane.clone())
                .push_bind(row.record.rsplit(':').next().unwrap_or_default().to_owned());
        });
        aliases.build().execute(&mut *connection).await.unwrap();
    }
    let rows: Vec<&Row> = batch.rows.iter().collect();
    for chunk in chunks(&rows) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO dirty (connection, record, lane_id, generation, signals, deleted, cause, versions, positions, \
             first_signal_at, burst_started_at, last_signal_at, due_at, claimed) ",
        );
        query.push_values(chunk, |mut columns, row| {
            columns
                .push_bind(CONNECTION)
                .push_bind(row.record.clone())
                .push_bind(row.lane.clone())
                .push_bind(row.generation)
                .push_bind(row.generation)
                .push_bind(0_i64)
                .push_bind("notification")
                .push_bind(format!("[{}]", row.versions.join(",")))
                .push_bind(format!("[{}]", row.positions.join(",")))
                .push_bind(row.at)
                .push_bind(row.at)
                .push_bind(row.at + row.generation)
                .push_bind(row.at + row.generation + 750)
                .push_bind(0_i64);
        });
        query.push(
            " ON CONFLICT (connection, record) DO UPDATE SET generation = excluded.generation, \
             signals = excluded.signals, deleted = excluded.deleted, cause = excluded.cause, \
             versions = excluded.versions, positions = excluded.positions, \
             first_signal_at = excluded.first_signal_at, burst_started_at = excluded.burst_started_at, \
             last_signal_at = excluded.last_signal_at, due_at = excluded.due_at, claimed = excluded.claimed",
        );
        query.build().execute(&mut *connection).await.unwrap();
    }
    for (stream, value) in &batch.positions {
        sqlx::query(
            "INSERT INTO checkpoint (connection, stream, value, updated_at) VALUES ($1, $2, $3, 0) \
             ON CONFLICT (connection, stream) DO UPDATE SET value = excluded.value",
        )
        .bind(CONNECTION)
        .bind(stream)
        .bind(value)
        .execute(&mut *connection)
        .await
        .unwrap();
    }
}

fn chunks<'a, 'b>(rows: &'b [&'a Row]) -> impl Iterator<Item = &'b [&'a Row]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= rest.len())?;
        let (chunk, after) = rest.split_at(size);
        rest = after;
        Some(chunk)
    })
}
