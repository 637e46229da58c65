//! What is SQLite's own. A transaction that writes is the only one of its kind, so nothing else needs a lock.

#![expect(clippy::unused_async, reason = "the same names as on a database that has something to wait for")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use calbridge_core::ids::{ConnectionId, LaneId};
use sqlx::error::DatabaseError;
use sqlx::{Sqlite, Transaction};

use super::sql::failed;
use crate::ports::StoreError;

pub(super) use sqlx::SqliteConnection as Connection;
pub(super) use sqlx::SqlitePool as Pool;
pub(super) use sqlx::sqlite::SqliteRow as Row;

/// The database in sqlx's terms.
pub(super) type Db = Sqlite;

/// The lock file, held as long as the store is open for writing; the lock goes with the file handle.
pub(super) type Held = Option<File>;

/// Name in `Debug` output.
pub(super) const NAME: &str = "SqliteStore";

/// Several transactions may write at the same time.
pub(super) const MANY_WRITERS: bool = false;

/// Number, name and text of each migration.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first light", include_str!("../../../migrations/sqlite/0001_first_light.sql")),
    (2, "messages set aside", include_str!("../../../migrations/sqlite/0002_messages_set_aside.sql")),
    (3, "change facts", include_str!("../../../migrations/sqlite/0003_change_facts.sql")),
    (5, "holds", include_str!("../../../migrations/sqlite/0005_holds.sql")),
];

/// Ends a query for lanes that the transaction is going to take.
pub(super) const TAKE_LANES: &str = "";

/// Ends a query for the one lane that a transaction works on.
pub(super) const HOLD_ROW: &str = "";

/// Begins a transaction that writes.
pub(super) async fn begin(pool: &Pool) -> Result<Transaction<'static, Db>, StoreError> {
    pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)
}

/// Reads the database's clock: leases compare it, so that two engines never compare their own clocks.
pub(super) async fn database_now(connection: &mut Connection) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)").fetch_one(connection).await.map_err(failed)
}

/// Tells whether another transaction was in the way; the wait for the file's lock is in the connection's options.
pub(super) fn is_contention(_error: &dyn DatabaseError) -> bool {
    false
}

/// Tells whether the database has a table.
pub(super) async fn has_table(pool: &Pool, name: &str) -> Result<bool, StoreError> {
    let found: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1")
        .bind(name)
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    Ok(found > 0)
}

/// Lanes that a transaction has to itself: all of them.
pub(super) struct HeldLanes(bool);

impl HeldLanes {
    /// Tells whether a lane is one of them.
    pub(super) fn cover(&self, _lane: LaneId) -> bool {
        self.0
    }
}

/// Waits until the transaction has the lanes of records to itself.
pub(super) async fn hold_lanes_of(
    _connection: &mut Connection,
    _records: &BTreeMap<&ConnectionId, Vec<&str>>,
) -> Result<HeldLanes, StoreError> {
    Ok(HeldLanes(true))
}

/// Waits until the transaction has lanes to itself.
pub(super) async fn hold_lanes(_connection: &mut Connection, _lanes: &[String]) -> Result<(), StoreError> {
    Ok(())
}

/// Takes those of the lanes to itself that no other transaction has; returns which.
pub(super) async fn hold_free_lanes(_connection: &mut Connection, lanes: &[LaneId]) -> Result<Vec<LaneId>, StoreError> {
    Ok(lanes.to_vec())
}

/// Waits until nobody else may give these names to a lane; returns how many of them lead to none.
pub(super) async fn hold_new_names(
    _connection: &mut Connection,
    names: &[(&ConnectionId, (&'static str, String))],
) -> Result<usize, StoreError> {
    Ok(names.len())
}

/// Waits until nobody else takes from budgets.
pub(super) async fn hold_budgets(
    _connection: &mut Connection,
    _budgets: &BTreeSet<(&str, &str)>,
) -> Result<(), StoreError> {
    Ok(())
}

/// Waits until nobody else takes note of rejects.
pub(super) async fn hold_rejects(_connection: &mut Connection) -> Result<(), StoreError> {
    Ok(())
}

/// Waits until nobody else divides duties.
pub(super) async fn hold_duties(_connection: &mut Connection) -> Result<(), StoreError> {
    Ok(())
}

/// Makes sure that what is deleted next leaves no readable bytes.
pub(super) async fn before_erasing(connection: &mut Connection) -> Result<(), StoreError> {
    // Deleted rows are otherwise only marked as free space, where the wrapped key could still be read.
    sqlx::query("PRAGMA secure_delete = ON").execute(connection).await.map_err(failed)?;
    Ok(())
}

/// Makes sure that what was deleted is gone from the files.
pub(super) async fn after_erasing(connection: &mut Connection) -> Result<(), StoreError> {
    for statement in ["PRAGMA secure_delete = OFF", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::query(statement).fetch_all(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}
