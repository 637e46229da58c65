//! The database server: one PostgreSQL database, many connections, several engines that share the work.
//!
//! `open` owns the settings and what connections begin with; `dialect` what PostgreSQL does in its own way, above all who
//! waits for whom; everything else is `store/sql`, which SQLite shares.

mod dialect;
mod open;
#[expect(clippy::duplicate_mod, reason = "compiled once for each database, with the dialect beside it")]
#[path = "../sql/mod.rs"]
mod sql;
#[cfg(test)]
mod tests;

pub use open::PostgresSettings;
pub use sql::SqlStore as PostgresStore;
