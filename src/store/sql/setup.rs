//! What both databases do when they are opened: migrations, the key, the epoch.

use std::path::Path;
use std::sync::Arc;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use uuid::Uuid;

use super::SqlStore;
use super::dialect::{self, Held, Pool};
use super::rows::ms;
use super::statement::failed;
use crate::ports::{Clock, StoreError};
use crate::store::seal::{KeySource, Sealer, store_key};

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
        let epoch = settle_meta(pool, "epoch", &fresh_epoch()).await?;
        Ok(Self::of(opened, sealer, epoch))
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
        Ok(Self::of(opened, sealer, epoch))
    }

    fn of(opened: Opened<'_>, sealer: Sealer, epoch: String) -> Self {
        Self {
            writer: opened.writer,
            readers: opened.readers,
            sealer,
            subject_fields: opened.subject_fields,
            epoch,
            clock: opened.clock,
            instance: Uuid::now_v7().to_string(),
            _held: opened.held,
        }
    }

    /// Renews the epoch after a restore: dedup keys of the time before drop nothing any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn renew_epoch(&mut self) -> Result<(), StoreError> {
        let epoch = fresh_epoch();
        sqlx::query("UPDATE meta SET value = $1 WHERE name = 'epoch'")
            .bind(&epoch)
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        self.epoch = epoch;
        Ok(())
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
