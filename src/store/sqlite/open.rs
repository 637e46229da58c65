//! Opening: settings, files, the lock that keeps a second engine out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::SqliteStore;
use super::sql::{Opened, failed};
use crate::ports::{Clock, StoreError};
use crate::store::seal::KeySource;

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
        let readers = match file {
            Some(_) => pool(settings.readers.max(1)).connect_lazy_with(settings.options().read_only(true)),
            // A store in memory belongs to its one connection.
            None => writer.clone(),
        };
        let opened = Opened {
            writer,
            readers,
            held: lock,
            key: &settings.key,
            file: file.as_deref(),
            subject_fields: settings.subject_fields,
            clock,
        };
        let store = Self::prepare(opened).await?;
        // Nobody else can hold a lane of a locked file: what a killed engine held is due at once.
        let freed = sqlx::query("UPDATE lane SET lease_until = 0 WHERE owner <> ''").execute(&store.writer).await;
        freed.map_err(failed)?;
        Ok(store)
    }

    /// Opens an existing database for reading, beside an engine or after it; every write to it fails.
    ///
    /// # Errors
    /// [`StoreError::Database`] when there is no such database, [`StoreError::Corrupt`] when the key does not fit.
    pub async fn open_read_only(settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_existing(settings, clock, true).await
    }

    /// Opens an existing database to take down what a person says, beside an engine or after it.
    ///
    /// # Errors
    /// As [`SqliteStore::open_read_only`].
    pub async fn open_desk(settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_existing(settings, clock, false).await
    }

    async fn open_existing(
        settings: StoreSettings,
        clock: Arc<dyn Clock>,
        read_only: bool,
    ) -> Result<Self, StoreError> {
        let Some(file) = settings.file() else {
            return Err(StoreError::Database("a store in memory can be read only by its own process".to_owned()));
        };
        if !file.exists() {
            return Err(StoreError::Database(format!(
                "there is no database `{}`; start `calbridge run` first, or mend `store.url`",
                file.display()
            )));
        }
        let readers = pool(settings.readers.max(1))
            .connect_with(settings.options().read_only(read_only))
            .await
            .map_err(failed)?;
        let opened = Opened {
            writer: readers.clone(),
            readers,
            held: None,
            key: &settings.key,
            file: Some(&file),
            subject_fields: settings.subject_fields,
            clock,
        };
        Self::attach(opened, &file.display().to_string()).await
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
        "the database `{}` is in use by process {holder}; stop that one, or give this one another `store.url`",
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
