//! The dedup cache: what was delivered before.

use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

/// A dedup key: `cb:d:{epoch}:{connection}:{side}:{hash(record)}:{version or position}:{mapping}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeenKey(pub String);

/// What the cache knows about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Unknown until now; claimed by this call.
    New,
    /// Claimed by someone whose commit is not confirmed; does not drop a signal.
    Claimed,
    /// Confirmed after a commit; drops the signal.
    Done,
}

/// Why the cache could not answer; costs reads, never results.
#[derive(Debug, Error)]
#[error("the dedup cache failed: {0}")]
pub struct CacheError(pub String);

impl CacheError {
    /// Stable code; `docs/errors/` explains it.
    pub const CODE: &'static str = "CB1206";
}

/// Remembers what was seen, in two phases, with a TTL; may forget anything at any time.
#[async_trait]
pub trait SeenCache: Send + Sync {
    /// Asks for a sign of life, within the same time as any call.
    async fn check(&self) -> Result<(), CacheError>;
    /// Claims keys for `lease`; order kept.
    async fn claim(&self, keys: &[SeenKey], lease: Duration) -> Result<Vec<Seen>, CacheError>;
    /// Confirms keys after the commit that made their signals durable.
    async fn confirm(&self, keys: &[SeenKey], ttl: Duration) -> Result<(), CacheError>;
    /// Gives claimed keys back after a failed commit.
    async fn release(&self, keys: &[SeenKey]) -> Result<(), CacheError>;
    /// Returns the highest number that was noted under a name; none where it is forgotten, or nothing outlives the process.
    async fn highest(&self, _name: &str) -> Result<Option<i64>, CacheError> {
        Ok(None)
    }
    /// Notes a number under a name; `anew` in place of any other, else only where no higher one stands there.
    async fn note_highest(&self, _name: &str, _number: i64, _anew: bool) -> Result<(), CacheError> {
        Ok(())
    }
    /// Tells whether anything is remembered when the process ends.
    fn outlives_process(&self) -> bool {
        false
    }
}
