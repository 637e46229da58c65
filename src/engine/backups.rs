//! Is the database a restored backup? Redis remembers how far its journal had come.
//!
//! A number under a name of its own, with the connection and the identity of the database: another database has another
//! name, and a backup has the same. Redis may forget it at any time; then only `run --restored` tells.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calbridge_core::ids::ConnectionId;
use tokio_util::sync::CancellationToken;

use crate::ports::{SeenCache, Store, StoreError};
use crate::telemetry::events;

/// How often the newest row is noted at most.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How often it is noted although nothing new was written: Redis may have been emptied.
const NOTE_AGAIN: Duration = Duration::from_mins(1);

/// How often Redis is asked at the start; each try ends within the time that any call has.
const TRIES: usize = 3;

fn name(connection: &ConnectionId, store: &dyn Store) -> String {
    format!("cb:j:{connection}:{}", store.identity())
}

/// Tells whether the journal of this database had come further than it has now.
///
/// # Errors
/// The database cannot be read.
pub(super) async fn is_behind(
    connection: &ConnectionId,
    store: &dyn Store,
    cache: &dyn SeenCache,
) -> Result<bool, StoreError> {
    if store.identity().is_empty() || !cache.outlives_process() {
        return Ok(false);
    }
    // Redis before the database: other instances write and note meanwhile, and note only what is written.
    let Some(known) = highest(connection, store, cache).await else { return Ok(false) };
    let newest = store.newest_row().await?;
    if known > newest {
        events::database_is_behind(connection, known, newest);
    }
    Ok(known > newest)
}

async fn highest(connection: &ConnectionId, store: &dyn Store, cache: &dyn SeenCache) -> Option<i64> {
    let name = name(connection, store);
    for _ in 0..TRIES {
        // Intake tells of an outage; here it only means that nothing is known.
        if let Ok(known) = cache.highest(&name).await {
            return known;
        }
    }
    None
}

/// Notes how far the journal has come; `anew` where it begins again further back.
pub(super) async fn note(
    connection: &ConnectionId,
    store: &dyn Store,
    cache: &dyn SeenCache,
    anew: bool,
) -> Option<i64> {
    if store.identity().is_empty() || !cache.outlives_process() {
        return None;
    }
    let newest = store.newest_row().await.ok()?;
    cache.note_highest(&name(connection, store), newest, anew).await.ok()?;
    Some(newest)
}

/// Notes how far the journal has come until stopped.
pub(super) async fn keep(
    connection: ConnectionId,
    store: Arc<dyn Store>,
    cache: Arc<dyn SeenCache>,
    stop: CancellationToken,
) {
    if store.identity().is_empty() || !cache.outlives_process() {
        return;
    }
    let mut noted: Option<(i64, Instant)> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(NOTE_EVERY) => {}
            () = stop.cancelled() => return,
        }
        let Ok(newest) = store.newest_row().await else { continue };
        if noted.is_some_and(|(number, at)| number == newest && at.elapsed() < NOTE_AGAIN) {
            continue;
        }
        let told = cache.note_highest(&name(&connection, &*store), newest, false).await;
        noted = told.ok().map(|()| (newest, Instant::now()));
    }
}
