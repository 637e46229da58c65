//! Backups of a rehearsal's database, made and put back as an operator does, and its loss.

use calbridge::config::StorePlace;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection};

use super::Rehearsal;
use super::postgres::Database;

/// A copy of a database.
pub(crate) enum Backup {
    /// A file beside the database, with the key beside it.
    File(std::path::PathBuf),
    /// A database of the same server.
    Server(Database),
}

impl Rehearsal {
    /// Makes a backup of the database of an engine that is stopped.
    pub(crate) async fn back_up(&self) -> Backup {
        if let Some(database) = &self.database {
            Backup::Server(copy(database).await)
        } else {
            let (file, copy) = (self.config.store.file().expect("it is a file"), self.folder().join("backup.db"));
            // Whatever still lies in the log beside the file is in the copy too.
            let mut connection = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
            let statement = format!("VACUUM INTO '{}'", copy.display());
            connection.execute(AssertSqlSafe(statement)).await.expect("a copy can be made");
            connection.close().await.unwrap();
            // The copy of a page-wise backup keeps this; it lets readers in beside an engine.
            let mut connection = SqliteConnection::connect(&format!("sqlite:{}", copy.display())).await.unwrap();
            connection.execute("PRAGMA journal_mode = WAL").await.expect("the mode can be set");
            connection.close().await.unwrap();
            let key = |file: &std::path::Path| format!("{}.key", file.display());
            std::fs::copy(key(file), key(&copy)).expect("the key is beside the database");
            Backup::File(copy)
        }
    }

    /// Gives the next engine a backup for its database.
    pub(crate) fn restore(&mut self, backup: Backup) {
        match (backup, &mut self.config.store.place) {
            (Backup::File(copy), place) => *place = StorePlace::File(copy),
            (Backup::Server(database), StorePlace::Postgres { url, .. }) => {
                *url = database.url();
                self.database = Some(database);
            }
            (Backup::Server(_), StorePlace::File(_)) => panic!("the rehearsal is on a file"),
        }
    }

    /// Gives the next engine a place where there is no database.
    pub(crate) fn lose_database(&mut self) {
        assert!(self.database.is_none(), "the rehearsal is on a file");
        self.config.store.place = StorePlace::File(self.folder().join("anew.db"));
    }
}

/// Makes a copy of a database of the server, whose connections are ended for that.
async fn copy(database: &Database) -> Database {
    let (copy, other) = (Database::named_only(), Database::create().await);
    let (copy, other) = (copy.expect("the server runs"), other.expect("the server runs"));
    let name = |database: &Database| database.url().rsplit('/').next().expect("an address has a name").to_owned();
    let statement = format!("CREATE DATABASE {} OWNER calbridge TEMPLATE {}", name(&copy), name(database));
    // Not from within: whoever is connected is in the way, also a connection that is on its way out.
    let mut admin = other.admin().await;
    for _ in 0..50 {
        database.cut_connections().await;
        if admin.execute(AssertSqlSafe(statement.clone())).await.is_ok() {
            return copy;
        }
    }
    panic!("the database cannot be copied");
}
