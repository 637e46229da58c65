//! The embedded database: one SQLite file in WAL mode, one writer, several readers, one engine.
//!
//! `open` owns the files, the lock and the settings; `dialect` what SQLite does in its own way; everything else is
//! `store/sql`, which PostgreSQL shares.

mod dialect;
mod open;
#[expect(clippy::duplicate_mod, reason = "compiled once for each database, with the dialect beside it")]
#[path = "../sql/mod.rs"]
mod sql;
#[cfg(test)]
mod tests;

pub use open::StoreSettings;
pub use sql::SqlStore as SqliteStore;
