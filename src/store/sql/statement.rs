//! Shapes of statements with many rows, what errors mean, and trying again where another transaction stood in the way.

use std::time::Duration;

use sqlx::QueryBuilder;

use super::dialect::{self, Db};
use crate::ports::StoreError;

/// Sizes of multi-row statements.
///
/// A statement is compiled once for each size and then kept, so there are few sizes; the largest stays far below the
/// limits of 32766 parameters in SQLite (<https://www.sqlite.org/limits.html>) and 65535 in PostgreSQL
/// (<https://www.postgresql.org/docs/current/limits.html>) at 20 columns a row.
const CHUNK_SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// How often a transaction is run that another one stands in the way of.
const TRIES: u32 = 12;
/// First pause before the next try; doubles, up to [`LONGEST_PAUSE_MS`].
const FIRST_PAUSE_MS: u64 = 4;
/// Longest pause between tries.
const LONGEST_PAUSE_MS: u64 = 250;

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
pub(super) fn push_list<T: AsRef<str>>(query: &mut QueryBuilder<Db>, values: &[T]) {
    query.push("(");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.as_ref().to_owned());
    }
    query.push(")");
}

/// Returns a span in milliseconds.
pub(super) fn span_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}

/// Turns a database error into ours; constraint messages name columns, never values.
pub(in super::super) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) if dialect::is_contention(&*error) => {
            StoreError::Contended(error.message().to_owned())
        }
        sqlx::Error::Database(error) => StoreError::Database(error.message().to_owned()),
        other => StoreError::Database(other.to_string()),
    }
}

/// Tells whether an insert or update met a row with the same key.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Says that another transaction moved what this one stands on.
pub(in super::super) fn moved(what: &str) -> StoreError {
    StoreError::Contended(format!("{what} changed while the transaction began"))
}

/// Runs a transaction, and again from its start while another one stands in its way.
///
/// # Errors
/// [`StoreError::Contended`] when it did so every time; every other error at once.
pub(super) async fn again<T, R>(mut transaction: impl FnMut() -> R + Send) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, StoreError>> + Send,
{
    let mut pause = FIRST_PAUSE_MS;
    for _ in 1..TRIES {
        match transaction().await {
            Err(StoreError::Contended(_)) => {}
            ended => return ended,
        }
        // Two that met must not meet again.
        let spread = u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * pause / 256;
        tokio::time::sleep(Duration::from_millis(pause / 2 + spread)).await;
        pause = (pause * 2).min(LONGEST_PAUSE_MS);
    }
    transaction().await
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

    #[tokio::test]
    async fn a_transaction_is_run_again_while_others_stand_in_its_way_and_not_for_ever() {
        let mut runs = 0;
        let third = again(|| {
            runs += 1;
            let ended = if runs < 3 { Err(moved("a lane")) } else { Ok(runs) };
            async move { ended }
        });
        assert_eq!(third.await.unwrap(), 3);
        let mut runs = 0;
        let never = again(|| {
            runs += 1;
            async { Err::<(), _>(moved("a lane")) }
        });
        assert!(matches!(never.await, Err(StoreError::Contended(_))));
        assert_eq!(runs, TRIES);
        let mut runs = 0;
        let other = again(|| {
            runs += 1;
            async { Err::<(), _>(StoreError::Fenced) }
        });
        assert!(matches!(other.await, Err(StoreError::Fenced)));
        assert_eq!(runs, 1);
    }
}
