//! What differs between databases, and the shapes of statements with many rows.

use std::time::Duration;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::ports::StoreError;

/// Sizes of multi-row statements.
///
/// A statement is compiled once for each size and then kept, so there are few sizes; the largest stays far below SQLite's
/// limit of 32766 parameters (<https://www.sqlite.org/limits.html>) at 20 columns a row.
const CHUNK_SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// Cuts rows into chunks of few different sizes.
pub(super) fn chunks<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let size = CHUNK_SIZES.into_iter().find(|size| *size <= rest.len())?;
        let (chunk, after) = rest.split_at(size);
        rest = after;
        Some(chunk)
    })
}

/// Appends `(a, b, c)` as bound texts.
pub(super) fn push_list<T: AsRef<str>>(query: &mut QueryBuilder<Sqlite>, values: &[T]) {
    query.push("(");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.as_ref().to_owned());
    }
    query.push(")");
}

/// Reads the database's clock: leases compare it, so that two engines never compare their own clocks.
pub(super) async fn database_now(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)").fetch_one(connection).await.map_err(failed)
}

/// Returns a span in milliseconds.
pub(super) fn span_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}

/// Turns a database error into ours; constraint messages name columns, never values.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => StoreError::Database(error.message().to_owned()),
        other => StoreError::Database(other.to_string()),
    }
}

/// Tells whether an insert or update met a row with the same key.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_row_once_and_in_order() {
        let rows: Vec<usize> = (0..600).collect();
        let sizes: Vec<usize> = chunks(&rows).map(<[usize]>::len).collect();
        assert_eq!(sizes, [256, 256, 64, 16, 4, 4]);
        assert_eq!(chunks(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        assert_eq!(chunks::<u8>(&[]).count(), 0);
    }
}
