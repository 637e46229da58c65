//! What both databases do when they are opened: migrations, the key, the epoch.

use std::path::Path;
use std::sync::Arc;

use calbridge_core::ids::ConnectionId;
use chrono::{DateTime, Utc};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use uuid::Uuid;

use super::SqlStore;
use super::dialect::{self, Held, Pool};
use super::rows::{corrupt, instant, ms};
use super::statement::failed;
use crate::ports::{Clock, StoreError};
use crate::store::seal::{KeySource, Sealer, store_key};

/// Name of the fact that tells one database from all others, its backups not included.
const IDENTITY: &str = "identity";
/// Name of the fact when the database was last found to be a restored backup.
const RESTORED_AT: &str = "restored_at";

/// What a database knows of itself.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Renewed when the database is restored from a backup.
    pub(super) epoch: String,
    /// Drawn when the database is made, and the same in its backups; empty where it is older than that.
    pub(super) identity: String,
    /// When it was last found to be a restored backup.
    pub(super) restored_at: Option<DateTime<Utc>>,
}

/// What a store is made of once its database answers.
pub(in super::super) struct Opened<'a> {
    pub(in super::super) writer: Pool,
    pub(in super::super) readers: Pool,
    /// What keeps others out as long as the store lives.
    pub(in super::super) held: Held,
    pub(in super::super) key: &'a KeySource,
    /// The database's file, where it is one.
    pub(in super::super) file: Option<&'a Path>,
    pub(in super::super) subject_fields: Vec<String>,
    pub(in super::super) clock: Arc<dyn Clock>,
}

impl SqlStore {
    /// Prepares an open database for an engine: migrates it, finds or makes its key and its epoch.
    pub(in super::super) async fn prepare(opened: Opened<'_>) -> Result<Self, StoreError> {
        let pool = &opened.writer;
        migrator().run(pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => newer(version),
            other => StoreError::Database(format!("migration: {other}")),
        })?;
        let known = meta(pool, "key_check").await?;
        let key = store_key(opened.key, opened.file, known.is_none())?;
        let sealer = Sealer::new(&key);
        // Of two instances that meet a new database at once the first one's key counts.
        fits(&sealer, &settle_meta(pool, "key_check", sealer.check()).await?)?;
        settle_meta(pool, "created_at", &ms(opened.clock.now()).to_string()).await?;
        let known = Known {
            epoch: settle_meta(pool, "epoch", &fresh_epoch()).await?,
            identity: settle_meta(pool, IDENTITY, &fresh_epoch()).await?,
            restored_at: restored_at(pool).await?,
        };
        Ok(Self::of(opened, sealer, known))
    }

    /// Attaches to an existing database for reading.
    pub(in super::super) async fn attach(opened: Opened<'_>, name: &str) -> Result<Self, StoreError> {
        let pool = &opened.readers;
        let foreign =
            || StoreError::Corrupt { what: "database".to_owned(), why: format!("`{name}` was not made by calbridge") };
        if !dialect::has_table(pool, "meta").await? {
            return Err(foreign());
        }
        let epoch = meta(pool, "epoch").await?.ok_or_else(foreign)?;
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(pool).await.map_err(failed)?;
        let known = dialect::MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default();
        if let Some(unknown) = newest.filter(|newest| *newest > known) {
            return Err(newer(unknown));
        }
        let sealer = Sealer::new(&*store_key(opened.key, opened.file, false)?);
        if let Some(known) = meta(pool, "key_check").await? {
            fits(&sealer, &known)?;
        }
        let identity = meta(pool, IDENTITY).await?.unwrap_or_default();
        let known = Known { epoch, identity, restored_at: restored_at(pool).await? };
        Ok(Self::of(opened, sealer, known))
    }

    fn of(opened: Opened<'_>, sealer: Sealer, known: Known) -> Self {
        Self {
            writer: opened.writer,
            readers: opened.readers,
            sealer,
            subject_fields: opened.subject_fields,
            known,
            clock: opened.clock,
            instance: Uuid::now_v7().to_string(),
            _held: opened.held,
        }
    }

    /// Treats the database as one that was restored from a backup: everything is looked at again, as if nothing had ever
    /// been seen, and what the records tell counts more than what is stored.
    ///
    /// The epoch is renewed, so that dedup keys of the time before drop nothing. Every round is owed again, by mailbox and by
    /// org, and every meeting that is not buried is due. Positions of streams stay: what they cover was seen, and what came
    /// after them is read again for as long as the remotes keep it.
    ///
    /// # Errors
    /// [`StoreError::Database`]; nothing is changed then.
    pub async fn treat_as_restored(&mut self, connection: &ConnectionId) -> Result<(), StoreError> {
        let (epoch, now) = (fresh_epoch(), self.clock.now());
        let mut tx = dialect::begin(&self.writer).await?;
        for (name, value) in [("epoch", epoch.clone()), (RESTORED_AT, ms(now).to_string())] {
            sqlx::query(
                "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .bind(name)
            .bind(value)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        for statement in [
            // A mailbox that was never listed as a whole is, as soon as its subscription stands.
            "UPDATE enrolment SET first_round_done = 0 WHERE connection = $1",
            // The org has no subscription that would ask for its round.
            "INSERT INTO checkpoint (connection, stream, value, updated_at) VALUES ($1, 'round/salesforce', 'wanted', 0) \
             ON CONFLICT (connection, stream) DO UPDATE SET value = excluded.value",
        ] {
            sqlx::query(statement).bind(connection.as_str()).execute(&mut *tx).await.map_err(failed)?;
        }
        sqlx::query(
            "UPDATE lane SET wake_at = $2 WHERE connection = $1 AND lane_id IN \
             (SELECT lane_id FROM correlation WHERE connection = $1 AND state <> 'tombstone')",
        )
        .bind(connection.as_str())
        .bind(ms(now))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        (self.known.epoch, self.known.restored_at) = (epoch, Some(now));
        Ok(())
    }

    /// Returns the sequence of the newest journal row; 0 where there is none.
    pub(super) async fn newest_row(&self) -> Result<i64, StoreError> {
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(sequence) FROM journal").fetch_one(&self.readers).await.map_err(failed)?;
        Ok(newest.unwrap_or_default())
    }

    /// Finishes what is under way and closes the connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn migrator() -> Migrator {
    let file = |(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, AssertSqlSafe(*text).into_sql_str(), false)
    };
    Migrator::with_migrations(dialect::MIGRATIONS.iter().map(file).collect())
}

fn newer(version: i64) -> StoreError {
    StoreError::Database(format!(
        "a newer calbridge made this database (its migration {version} is unknown to this one); install that release or a \
         newer one"
    ))
}

fn fits(sealer: &Sealer, known: &str) -> Result<(), StoreError> {
    if sealer.check() == known {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        what: "store key".to_owned(),
        why: "it is not the key that this database was made with; put the right key file back".to_owned(),
    })
}

async fn meta(pool: &Pool, name: &str) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(name).fetch_optional(pool).await.map_err(failed)
}

async fn restored_at(pool: &Pool) -> Result<Option<DateTime<Utc>>, StoreError> {
    let stored = meta(pool, RESTORED_AT).await?;
    stored
        .map(|at| instant(at.parse().map_err(|_no_number| corrupt("meta", "`restored_at` is no number"))?))
        .transpose()
}

/// Stores a fact about the database unless it is known already; returns what counts.
async fn settle_meta(pool: &Pool, name: &str, value: &str) -> Result<String, StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(value)
        .execute(pool)
        .await
        .map_err(failed)?;
    Ok(meta(pool, name).await?.unwrap_or_else(|| value.to_owned()))
}

fn fresh_epoch() -> String {
    Uuid::new_v4().simple().to_string()
}
