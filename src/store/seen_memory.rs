//! The dedup cache inside the process: what is used where there is no Redis.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::Op;

use crate::ports::{CacheError, Seen, SeenCache, SeenKey};

/// Keys remembered at most; at about 200 bytes each this is 40 MB. What is forgotten costs a read, never a result.
const CAPACITY: u64 = 200_000;

/// Remembers keys until their time is over.
#[derive(Debug)]
pub struct MemorySeenCache {
    keys: Cache<SeenKey, Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    done: bool,
    lives: Duration,
}

#[derive(Debug)]
struct OwnTime;

impl Expiry<SeenKey, Mark> for OwnTime {
    fn expire_after_create(&self, _: &SeenKey, mark: &Mark, _: Instant) -> Option<Duration> {
        Some(mark.lives)
    }

    fn expire_after_update(&self, _: &SeenKey, mark: &Mark, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(mark.lives)
    }
}

impl MemorySeenCache {
    /// Makes an empty cache.
    pub fn new() -> Self {
        Self { keys: Cache::builder().max_capacity(CAPACITY).expire_after(OwnTime).build() }
    }
}

impl Default for MemorySeenCache {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl SeenCache for MemorySeenCache {
    async fn check(&self) -> Result<(), CacheError> {
        Ok(())
    }

    async fn claim(&self, keys: &[SeenKey], lease: Duration) -> Result<Vec<Seen>, CacheError> {
        let mut seen = Vec::with_capacity(keys.len());
        for key in keys {
            let claimed = Mark { done: false, lives: lease };
            let entry = self.keys.entry_by_ref(key).or_insert(claimed).await;
            seen.push(match (entry.is_fresh(), entry.value().done) {
                (true, _) => Seen::New,
                (false, true) => Seen::Done,
                (false, false) => Seen::Claimed,
            });
        }
        Ok(seen)
    }

    async fn confirm(&self, keys: &[SeenKey], ttl: Duration) -> Result<(), CacheError> {
        for key in keys {
            let done = Mark { done: true, lives: ttl };
            self.keys.insert(key.clone(), done).await;
        }
        Ok(())
    }

    async fn release(&self, keys: &[SeenKey]) -> Result<(), CacheError> {
        for key in keys {
            // A key that someone confirmed meanwhile stays.
            self.keys
                .entry_by_ref(key)
                .and_compute_with(async |entry| match entry {
                    Some(entry) if !entry.value().done => Op::Remove,
                    _ => Op::Nop,
                })
                .await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::seen_contract;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        seen_contract::run(&MemorySeenCache::new()).await;
    }
}
