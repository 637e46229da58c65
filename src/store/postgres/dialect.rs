//! What is PostgreSQL's own: who waits for whom, so that many connections and many engines write at the same time.
//!
//! A transaction takes what it needs in one order, and therefore never waits in a circle:
//!
//! ```text
//!   1. rows of `lane`, by id (FOR UPDATE): stands for everything of a meeting: its queue, its names, its link
//!   2. names that lead to no lane yet, by bucket (advisory locks): of two that find the same one, one waits
//!   3. the list of rejects (one advisory lock), then positions and counters, by key
//! ```
//!
//! What is met later (another lane that knows a name) is only tried, never waited for: where somebody has it, the
//! transaction begins anew. Rows are read after their lane is held; the isolation is READ COMMITTED, so a statement sees
//! what was committed before it began. <https://www.postgresql.org/docs/current/explicit-locking.html>

use std::collections::{BTreeMap, BTreeSet, HashSet};

use calbridge_core::ids::{ConnectionId, LaneId};
use sha2::{Digest as _, Sha256};
use sqlx::error::DatabaseError;
use sqlx::{Postgres, Transaction};

use super::sql::failed;
use crate::ports::StoreError;

pub(super) use sqlx::PgConnection as Connection;
pub(super) use sqlx::PgPool as Pool;
pub(super) use sqlx::postgres::PgRow as Row;

/// The database in sqlx's terms.
pub(super) type Db = Postgres;

/// Nothing keeps other engines out: they share the work.
pub(super) type Held = ();

/// Name in `Debug` output.
pub(super) const NAME: &str = "PostgresStore";

/// Several transactions may write at the same time.
pub(super) const MANY_WRITERS: bool = true;

/// Number, name and text of each migration.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first light", include_str!("../../../migrations/postgres/0001_first_light.sql")),
    (2, "messages set aside", include_str!("../../../migrations/postgres/0002_messages_set_aside.sql")),
    (3, "change facts", include_str!("../../../migrations/postgres/0003_change_facts.sql")),
    (4, "duties", include_str!("../../../migrations/postgres/0004_duties.sql")),
    (5, "holds", include_str!("../../../migrations/postgres/0005_holds.sql")),
];

/// Ends a query for lanes that the transaction is going to take: those that others take at this moment are passed over.
pub(super) const TAKE_LANES: &str = " FOR UPDATE OF lane SKIP LOCKED";

/// Ends a query for the one lane that a transaction works on.
pub(super) const HOLD_ROW: &str = " FOR UPDATE";

/// First half of our advisory locks' keys, so that they meet nobody else's: "calb".
const LOCKS: i32 = 0x6361_6c62;
/// Buckets of new names. A server has room for `max_locks_per_transaction` times `max_connections` locks (6,400 unless it
/// was set), so a transaction that creates thousands of names takes no more than these.
const NAME_BUCKETS: i32 = 256;
/// Second half of the key of the list of rejects: behind the buckets.
const REJECTS: i32 = NAME_BUCKETS;
/// Second half of the key of the list of duties; its transactions take nothing else.
const DUTIES: i32 = NAME_BUCKETS + 1;

/// Begins a transaction that writes.
pub(super) async fn begin(pool: &Pool) -> Result<Transaction<'static, Db>, StoreError> {
    // Named, because a database may have another one as its default.
    pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed)
}

/// Reads the database's clock: leases compare it, so that two engines never compare their own clocks.
pub(super) async fn database_now(connection: &mut Connection) -> Result<i64, StoreError> {
    // Not `now()`, which stands still within a transaction that may have waited for locks.
    sqlx::query_scalar("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
        .fetch_one(connection)
        .await
        .map_err(failed)
}

/// Tells whether another transaction was in the way: the same again will go well.
///
/// Serialization failure, deadlock, lock not available: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
pub(super) fn is_contention(error: &dyn DatabaseError) -> bool {
    matches!(error.code().as_deref(), Some("40001" | "40P01" | "55P03"))
}

/// Tells whether the database has a table.
pub(super) async fn has_table(pool: &Pool, name: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(name).fetch_one(pool).await.map_err(failed)
}

/// Lanes that a transaction has to itself.
pub(super) struct HeldLanes(HashSet<String>);

impl HeldLanes {
    /// Tells whether a lane is one of them.
    pub(super) fn cover(&self, lane: LaneId) -> bool {
        self.0.contains(&lane.to_string())
    }
}

/// Waits until the transaction has the lanes of records to itself.
pub(super) async fn hold_lanes_of(
    connection: &mut Connection,
    records: &BTreeMap<&ConnectionId, Vec<&str>>,
) -> Result<HeldLanes, StoreError> {
    let mut held = HashSet::new();
    for (id, keys) in records {
        let lanes: Vec<String> = sqlx::query_scalar(
            "SELECT lane_id FROM lane WHERE lane_id IN (SELECT lane_id FROM lane_alias \
             WHERE connection = $1 AND kind = 'record' AND value = ANY($2)) ORDER BY lane_id FOR UPDATE",
        )
        .bind(id.as_str())
        .bind(keys)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
        held.extend(lanes);
    }
    Ok(HeldLanes(held))
}

/// Waits until the transaction has lanes to itself.
pub(super) async fn hold_lanes(connection: &mut Connection, lanes: &[String]) -> Result<(), StoreError> {
    sqlx::query("SELECT 1 FROM lane WHERE lane_id = ANY($1) ORDER BY lane_id FOR UPDATE")
        .bind(lanes)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Takes those of the lanes to itself that no other transaction has; returns which.
pub(super) async fn hold_free_lanes(connection: &mut Connection, lanes: &[LaneId]) -> Result<Vec<LaneId>, StoreError> {
    let texts: Vec<String> = lanes.iter().map(ToString::to_string).collect();
    let free: Vec<String> =
        sqlx::query_scalar("SELECT lane_id FROM lane WHERE lane_id = ANY($1) ORDER BY lane_id FOR UPDATE SKIP LOCKED")
            .bind(texts)
            .fetch_all(connection)
            .await
            .map_err(failed)?;
    Ok(lanes.iter().copied().filter(|lane| free.contains(&lane.to_string())).collect())
}

/// Waits until nobody else may give these names to a lane; returns how many of them lead to none.
pub(super) async fn hold_new_names(
    connection: &mut Connection,
    names: &[(&ConnectionId, (&'static str, String))],
) -> Result<usize, StoreError> {
    let (mut owners, mut kinds, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (owner, (kind, value)) in names {
        owners.push(owner.as_str().to_owned());
        kinds.push((*kind).to_owned());
        values.push(value.clone());
    }
    let new = unknown_names(connection, &owners, &kinds, &values).await?;
    if new.is_empty() {
        return Ok(0);
    }
    let buckets: BTreeSet<i32> = new.iter().map(|(owner, kind, value)| bucket(&[owner, kind, value])).collect();
    // A function scan goes through the array from its beginning, so the locks are taken in the order of the set.
    sqlx::query("SELECT pg_advisory_xact_lock($1, bucket) FROM UNNEST($2::INT[]) AS bucket")
        .bind(LOCKS)
        .bind(buckets.into_iter().collect::<Vec<i32>>())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    // Whoever had one of the buckets may have given the name away.
    Ok(unknown_names(connection, &owners, &kinds, &values).await?.len())
}

/// Returns those of the names that lead to no lane.
async fn unknown_names(
    connection: &mut Connection,
    owners: &[String],
    kinds: &[String],
    values: &[String],
) -> Result<Vec<(String, String, String)>, StoreError> {
    sqlx::query_as(
        "SELECT DISTINCT name.connection, name.kind, name.value \
         FROM UNNEST($1::TEXT[], $2::TEXT[], $3::TEXT[]) AS name (connection, kind, value) \
         WHERE NOT EXISTS (SELECT 1 FROM lane_alias WHERE lane_alias.connection = name.connection \
         AND lane_alias.kind = name.kind AND lane_alias.value = name.value)",
    )
    .bind(owners)
    .bind(kinds)
    .bind(values)
    .fetch_all(connection)
    .await
    .map_err(failed)
}

fn bucket(parts: &[&String]) -> i32 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    i32::from(hash.finalize()[0]) % NAME_BUCKETS
}

/// Waits until nobody else takes from budgets.
///
/// In the order of their names: two transactions never wait for each other.
pub(super) async fn hold_budgets(
    connection: &mut Connection,
    budgets: &BTreeSet<(&str, &str)>,
) -> Result<(), StoreError> {
    for (budget, name) in budgets {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(format!("{budget}/{name}"))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Waits until nobody else takes note of rejects.
pub(super) async fn hold_rejects(connection: &mut Connection) -> Result<(), StoreError> {
    hold(connection, REJECTS).await
}

/// Waits until nobody else divides duties.
pub(super) async fn hold_duties(connection: &mut Connection) -> Result<(), StoreError> {
    hold(connection, DUTIES).await
}

async fn hold(connection: &mut Connection, what: i32) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(LOCKS)
        .bind(what)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Nothing to prepare: deleted rows keep their bytes until the server vacuums the table, which `after_erasing` asks for.
#[expect(clippy::unused_async, reason = "the same name as on a database that has something to do")]
pub(super) async fn before_erasing(_connection: &mut Connection) -> Result<(), StoreError> {
    Ok(())
}

/// Makes the server reuse what the deleted rows took; its write-ahead log and backups keep them as long as they are kept.
pub(super) async fn after_erasing(connection: &mut Connection) -> Result<(), StoreError> {
    for statement in ["VACUUM data_key", "VACUUM word"] {
        sqlx::query(statement).execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}
