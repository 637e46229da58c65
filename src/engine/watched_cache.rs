//! The memory of notifications seen, watched: logs and metrics learn when it goes away and when it is back.
//!
//! Whatever fails is as good as forgotten: that costs reads, never results.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::ports::{CacheError, Seen, SeenCache, SeenKey};
use crate::telemetry::events;

/// How often the cache is asked for a sign of life while nothing comes in.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A cache whose failures are told once, and so is its return.
pub(super) struct WatchedCache {
    cache: Arc<dyn SeenCache>,
    /// It failed the last time.
    down: AtomicBool,
}

impl WatchedCache {
    /// Watches a cache.
    pub(super) fn new(cache: Arc<dyn SeenCache>) -> Self {
        Self { cache, down: AtomicBool::new(false) }
    }

    /// Claims keys; none when the cache is away.
    pub(super) async fn claim(&self, keys: &[SeenKey], lease: Duration) -> Option<Vec<Seen>> {
        self.tell(self.cache.claim(keys, lease).await)
    }

    /// Confirms keys.
    pub(super) async fn confirm(&self, keys: &[SeenKey], ttl: Duration) {
        if !keys.is_empty() {
            self.tell(self.cache.confirm(keys, ttl).await);
        }
    }

    /// Gives claimed keys back.
    pub(super) async fn release(&self, keys: &[SeenKey]) {
        if !keys.is_empty() {
            self.tell(self.cache.release(keys).await);
        }
    }

    /// Asks for a sign of life.
    pub(super) async fn probe(&self) {
        self.tell(self.cache.check().await);
    }

    fn tell<T>(&self, answer: Result<T, CacheError>) -> Option<T> {
        match answer {
            Ok(value) => {
                events::cache_answers(self.down.swap(false, Ordering::Relaxed));
                Some(value)
            }
            Err(error) => {
                let was_down = self.down.swap(true, Ordering::Relaxed);
                events::cache_failed(&error, !was_down);
                None
            }
        }
    }
}
