//! Limits on how fast a remote is called: one budget per key (a mailbox, an org), shared by everything that calls it.
//!
//! A call asks for a [`Permit`] first and holds it while it runs. Three things can make it wait: a pause that the remote
//! asked for (`Retry-After`), too many calls of the key in flight, or a rate that is used up. What is sent and what a
//! failure means is the callers' business.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pause told to a caller for whom no place came free in time.
const NO_PLACE_PAUSE: Duration = Duration::from_millis(500);

/// Keys after which unused ones are forgotten.
const SWEEP_EVERY: usize = 4096;

/// What one key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Calls that may be under way at once; at least 1.
    pub in_flight: usize,
    /// Request units that may be spent in `period`, all at once if they were saved up.
    pub units: NonZeroU32,
    /// The period in real time; units come back evenly over it.
    pub period: Duration,
}

/// Budgets by key; cheap to clone, all clones share them.
#[derive(Debug, Clone)]
pub struct RateLimits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    quota: Quota,
    rates: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    in_flight: HashMap<String, Arc<Semaphore>>,
    paused_until: HashMap<String, Instant>,
    admitted: usize,
}

/// The right to run one call; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

impl RateLimits {
    /// Gives every key the same quota.
    ///
    /// A period of zero means no limit on the rate.
    pub fn new(quota: Quota) -> Self {
        let rate = governor::Quota::with_period(quota.period / quota.units.get())
            .map_or_else(|| governor::Quota::per_second(NonZeroU32::MAX), |rate| rate.allow_burst(quota.units));
        Self(Arc::new(Inner {
            quota,
            rates: RateLimiter::keyed(rate),
            clock: DefaultClock::default(),
            keys: Mutex::default(),
        }))
    }

    /// Waits until one request unit of `key` may be spent.
    pub async fn admit(&self, key: &str) -> Permit {
        self.admit_load(key, 1, 1).await
    }

    /// Waits until `units` request units of `key` may be spent by one call; more than the whole quota counts as the quota.
    pub async fn admit_units(&self, key: &str, units: u32) -> Permit {
        self.admit_load(key, 1, units).await
    }

    /// Waits for a call that the remote takes apart and runs `places` pieces of at once (a batch); at most the quota.
    ///
    /// Who needs several keys for one call asks for them in the order of the keys, so that two callers never wait for
    /// each other.
    pub async fn admit_load(&self, key: &str, places: u32, units: u32) -> Permit {
        loop {
            // Without bounds it is refused only by a wait of 24 hours and more: the harmless way out is to ask again.
            if let Ok(permit) = self.admit_within(key, places, units, Duration::MAX, Duration::MAX).await {
                return permit;
            }
        }
    }

    /// Like [`RateLimits::admit_load`], but waits no longer than `place_wait` for places and `pause_wait` for a pause or
    /// the rate to end.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub async fn admit_within(
        &self,
        key: &str,
        places: u32,
        units: u32,
        place_wait: Duration,
        pause_wait: Duration,
    ) -> Result<Permit, Duration> {
        if let Some(pause) = self.paused_for(key).filter(|pause| *pause > pause_wait) {
            return Err(pause);
        }
        let whole = u32::try_from(self.0.quota.in_flight.max(1)).unwrap_or(u32::MAX);
        let acquired = self.0.place(key).acquire_many_owned(places.clamp(1, whole));
        // A closed semaphore would have to be ours, and we close none.
        let Ok(Ok(place)) = tokio::time::timeout(place_wait, acquired).await else { return Err(NO_PLACE_PAUSE) };
        let units = NonZeroU32::new(units.min(self.0.quota.units.get())).unwrap_or(NonZeroU32::MIN);
        let key = key.to_owned();
        loop {
            let wait = match self.paused_for(&key) {
                Some(pause) => pause,
                None => match self.0.rates.check_key_n(&key, units) {
                    Ok(Ok(())) | Err(_) => return Ok(Permit { _place: place }),
                    Ok(Err(refused)) => refused.wait_time_from(self.0.clock.now()),
                },
            };
            if wait > pause_wait {
                return Err(wait);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Holds back every call of `key` for `pause` from now; a longer pause already set stays.
    pub fn pause(&self, key: &str, pause: Duration) {
        let until = Instant::now() + pause.min(Duration::from_hours(24));
        let mut keys = self.0.keys();
        let known = keys.paused_until.entry(key.to_owned()).or_insert(until);
        *known = (*known).max(until);
    }

    /// Returns how long calls of `key` are still held back, if they are.
    pub fn paused_for(&self, key: &str) -> Option<Duration> {
        let mut keys = self.0.keys();
        let until = *keys.paused_until.get(key)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            keys.paused_until.remove(key);
            return None;
        }
        Some(left)
    }
}

impl Inner {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        // The maps stay whole whatever panicked while they were held.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, key: &str) -> Arc<Semaphore> {
        let mut keys = self.keys();
        keys.admitted += 1;
        if keys.admitted >= SWEEP_EVERY {
            keys.admitted = 0;
            keys.in_flight.retain(|_, places| Arc::strong_count(places) > 1);
            let now = Instant::now();
            keys.paused_until.retain(|_, until| *until > now);
            self.rates.retain_recent();
        }
        if let Some(places) = keys.in_flight.get(key) {
            return Arc::clone(places);
        }
        let places = Arc::new(Semaphore::new(self.quota.in_flight.max(1)));
        keys.in_flight.insert(key.to_owned(), Arc::clone(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn limits(in_flight: usize, units: u32) -> RateLimits {
        RateLimits::new(Quota { in_flight, units: NonZeroU32::new(units).unwrap(), period: Duration::from_hours(1) })
    }

    #[tokio::test]
    async fn a_full_key_waits_for_a_place_and_leaves_others_alone() {
        let limits = limits(2, 100);
        let first = limits.admit("a").await;
        let _second = limits.admit("a").await;
        let mut third = Box::pin(limits.admit("a"));
        assert!(third.as_mut().now_or_never().is_none());
        let _other = limits.admit("b").now_or_never().unwrap();
        drop(first);
        third.await;
    }

    #[tokio::test]
    async fn a_batch_takes_as_many_places_as_the_remote_runs_at_once() {
        let limits = limits(4, 100);
        let batch = limits.admit_load("a", 20, 20).await;
        let mut next = Box::pin(limits.admit("a"));
        assert!(next.as_mut().now_or_never().is_none());
        drop(batch);
        next.await;
    }

    #[tokio::test]
    async fn who_cannot_wait_is_told_how_long_it_would_take() {
        let limits = limits(1, 2);
        let zero = Duration::ZERO;
        let first = limits.admit_within("a", 1, 1, zero, zero).await.unwrap();
        assert_eq!(limits.admit_within("a", 1, 1, zero, zero).await.unwrap_err(), NO_PLACE_PAUSE);
        drop(first);
        drop(limits.admit_within("a", 1, 1, zero, zero).await.unwrap());
        let wait = limits.admit_within("a", 1, 1, zero, zero).await.unwrap_err();
        assert!(wait > Duration::from_mins(20) && wait <= Duration::from_mins(30), "{wait:?}");
        limits.pause("b", Duration::from_hours(1));
        assert!(limits.admit_within("b", 1, 1, zero, zero).await.unwrap_err() > Duration::from_mins(59));
    }

    #[tokio::test]
    async fn a_spent_rate_makes_the_next_call_wait() {
        let limits = limits(10, 5);
        drop(limits.admit_units("a", 5).await);
        assert!(limits.admit("a").now_or_never().is_none());
        assert!(limits.admit("b").now_or_never().is_some());
    }

    #[tokio::test]
    async fn more_units_than_the_quota_are_admitted_as_the_whole_quota() {
        let limits = limits(10, 5);
        drop(limits.admit_units("a", 50).await);
        assert!(limits.admit("a").now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_pause_holds_its_key_back_and_the_longer_one_counts() {
        let limits = limits(10, 100);
        limits.pause("a", Duration::from_hours(2));
        limits.pause("a", Duration::from_secs(1));
        assert!(limits.paused_for("a").unwrap() > Duration::from_hours(1));
        assert!(limits.admit("a").now_or_never().is_none());
        assert!(limits.admit("b").now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_pause_that_is_over_is_forgotten() {
        let limits = limits(10, 100);
        limits.pause("a", Duration::ZERO);
        assert_eq!(limits.paused_for("a"), None);
        assert!(limits.admit("a").now_or_never().is_some());
    }
}
