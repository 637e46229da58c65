//! Opening: files, the lock that keeps a second engine out, migrations, keys, the epoch.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr, SqlitePool};
use uuid::Uuid;

use super::SqliteStore;
use super::dialect::failed;
use super::rows::ms;
use crate::ports::{Clock, StoreError};
use crate::store::seal::{KeySource, Sealer, store_key};

/// Statements kept compiled on each connection: about 60 texts, some of them in five sizes.
const COMPILED_STATEMENTS: usize = 300;

/// How the store is opened.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Path of the file, `sqlite:PATH`, `sqlite://PATH`, or `sqlite::memory:` for a store that ends with the process.
    pub url_or_path: String,
    /// Where the key for field values comes from. Default: a file beside the database.
    pub key: KeySource,
    /// Connections that only read, for trace and status beside the writer. Default: 4.
    pub readers: u32,
    /// Longest wait for another process's lock on the file. Default: 5 s.
    pub busy_timeout: Duration,
    /// Names of fields and rules whose words trace searches for, in any letter case. Default: `subject`.
    pub subject_fields: Vec<String>,
}

impl StoreSettings {
    /// Makes the default settings for a database.
    pub fn new(url_or_path: impl Into<String>) -> Self {
        Self {
            url_or_path: url_or_path.into(),
            key: KeySource::BesideDatabase,
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            subject_fields: vec!["subject".to_owned()],
        }
    }

    /// Makes the settings of a store that lives and ends with the process.
    pub fn in_memory() -> Self {
        Self::new("sqlite::memory:")
    }

    /// Returns the file; none for a store in memory.
    fn file(&self) -> Option<PathBuf> {
        let text = self.url_or_path.as_str();
        let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")).unwrap_or(text);
        (path != ":memory:").then(|| PathBuf::from(path))
    }

    fn options(&self) -> SqliteConnectOptions {
        let options = match self.file() {
            Some(file) => SqliteConnectOptions::new().filename(file).journal_mode(SqliteJournalMode::Wal),
            None => SqliteConnectOptions::new().in_memory(true),
        };
        options.busy_timeout(self.busy_timeout).statement_cache_capacity(COMPILED_STATEMENTS)
    }
}

impl SqliteStore {
    /// Asks whether another process has the database open for an engine; tells who, and changes nothing.
    pub fn held(settings: &StoreSettings) -> Option<StoreError> {
        let database = settings.file()?;
        let mut file = File::open(lock_path(&database)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(in_use(&database, &mut file)),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }

    /// Opens a database for an engine, making and migrating it as needed.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open in the same way, [`StoreError::Corrupt`] when the key does not
    /// fit, [`StoreError::Database`] otherwise.
    pub async fn open(settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let file = settings.file();
        let lock = file.as_deref().map(|file| lock(file, clock.now())).transpose()?;
        let writing = settings
            .options()
            .create_if_missing(true)
            // NORMAL may lose the last commits at a power failure: an intent whose write was already sent.
            .synchronous(SqliteSynchronous::Full);
        let writer = pool(1).connect_with(writing).await.map_err(failed)?;
        migrator().run(&writer).await.map_err(|error| StoreError::Database(format!("migration: {error}")))?;
        let readers = match file {
            Some(_) => pool(settings.readers.max(1)).connect_lazy_with(settings.options().read_only(true)),
            // A store in memory belongs to its one connection.
            None => writer.clone(),
        };

        let known = meta(&writer, "key_check").await?;
        let key = store_key(&settings.key, file.as_deref(), known.is_none())?;
        let sealer = Sealer::new(&key);
        match known {
            Some(known) => fits(&sealer, &known)?,
            None => put_meta(&writer, "key_check", sealer.check()).await?,
        }
        let epoch = if let Some(epoch) = meta(&writer, "epoch").await? {
            epoch
        } else {
            put_meta(&writer, "created_at", &ms(clock.now()).to_string()).await?;
            new_epoch(&writer).await?
        };
        // Nobody else can hold a lane of a locked file: what a killed engine held is due at once.
        sqlx::query("UPDATE lane SET lease_until = 0 WHERE owner <> ''").execute(&writer).await.map_err(failed)?;
        Ok(Self { writer, readers, sealer, subject_fields: settings.subject_fields, epoch, clock, _lock: lock })
    }

    /// Opens an existing database for reading, beside an engine or after it; every write to it fails.
    ///
    /// # Errors
    /// [`StoreError::Database`] when there is no such database, [`StoreError::Corrupt`] when the key does not fit.
    pub async fn open_read_only(settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let Some(file) = settings.file() else {
            return Err(StoreError::Database("a store in memory can be read only by its own process".to_owned()));
        };
        if !file.exists() {
            return Err(StoreError::Database(format!(
                "there is no database `{}`; start `calbridge run` first, or mend `store.path`",
                file.display()
            )));
        }
        let readers =
            pool(settings.readers.max(1)).connect_with(settings.options().read_only(true)).await.map_err(failed)?;
        let epoch = meta(&readers, "epoch").await?.ok_or_else(|| StoreError::Corrupt {
            what: "database".to_owned(),
            why: format!("`{}` was not made by calbridge", file.display()),
        })?;
        let sealer = Sealer::new(&*store_key(&settings.key, Some(&file), false)?);
        if let Some(known) = meta(&readers, "key_check").await? {
            fits(&sealer, &known)?;
        }
        Ok(Self {
            writer: readers.clone(),
            readers,
            sealer,
            subject_fields: settings.subject_fields,
            epoch,
            clock,
            _lock: None,
        })
    }

    /// Renews the epoch after a restore: dedup keys of the time before drop nothing any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn renew_epoch(&mut self) -> Result<(), StoreError> {
        self.epoch = new_epoch(&self.writer).await?;
        Ok(())
    }

    /// Finishes what is under way and closes the files; the write-ahead log is folded into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Returns the lock file's path: beside the database.
fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Says who has the database open, as the holder wrote it into the lock file.
fn in_use(database: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    // A holder that has not yet written who it is is still named: as unknown.
    let holder = match file.read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => holder.trim().to_owned(),
        _ => "unknown".to_owned(),
    };
    StoreError::InUse(format!(
        "the database `{}` is in use by process {holder}; stop that one, or give this one another `store.path`",
        database.display()
    ))
}

/// The machine's name, or the container's: a process id alone says little where each container counts its own.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "an unknown host".to_owned() } else { format!("host `{}`", name.trim()) }
}

/// Takes the lock file beside the database; the system frees it when the process ends, however it ends.
fn lock(database: &Path, now: DateTime<Utc>) -> Result<File, StoreError> {
    if let Some(folder) = database.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| StoreError::Database(format!("cannot make the folder `{}`: {error}", folder.display())))?;
    }
    let path = lock_path(database);
    let unusable =
        |error: std::io::Error| StoreError::Database(format!("cannot use the lock file `{}`: {error}", path.display()));
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(database, &mut file)),
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    file.set_len(0)
        .and_then(|()| {
            let since = now.to_rfc3339_opts(SecondsFormat::Secs, true);
            writeln!(file, "{} on {} since {since}", std::process::id(), host())
        })
        .and_then(|()| file.flush())
        .map_err(unusable)?;
    Ok(file)
}

fn migrator() -> Migrator {
    let file = |version, name: &'static str, text: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        file(1, "first light", include_str!("../../../migrations/sqlite/0001_first_light.sql")),
        file(2, "messages set aside", include_str!("../../../migrations/sqlite/0002_messages_set_aside.sql")),
        file(3, "change facts", include_str!("../../../migrations/sqlite/0003_change_facts.sql")),
    ])
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

async fn meta(pool: &SqlitePool, name: &str) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(name).fetch_optional(pool).await.map_err(failed)
}

async fn put_meta(pool: &SqlitePool, name: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(pool)
    .await
    .map_err(failed)?;
    Ok(())
}

async fn new_epoch(pool: &SqlitePool) -> Result<String, StoreError> {
    let epoch = Uuid::new_v4().simple().to_string();
    put_meta(pool, "epoch", &epoch).await?;
    Ok(epoch)
}
