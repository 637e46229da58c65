//! The org's daily allowance of API calls.

use std::collections::BTreeMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

/// Calls in rolling 24 sandbox hours, counted by the hour.
#[derive(Debug)]
pub(crate) struct Usage {
    hours: Mutex<BTreeMap<i64, u64>>,
    max: u64,
}

impl Usage {
    pub(crate) fn new(max: u64) -> Self {
        Self { hours: Mutex::default(), max }
    }

    /// Counts a call; returns how many there were within 24 hours, this one included.
    pub(crate) fn count(&self, now: DateTime<Utc>) -> u64 {
        let hour = now.timestamp().div_euclid(3600);
        let mut hours = self.hours.lock().expect("no counting panics while holding the lock");
        hours.retain(|then, _| *then > hour - 24);
        *hours.entry(hour).or_default() += 1;
        hours.values().sum()
    }

    /// Returns the calls within 24 hours.
    pub(crate) fn used(&self, now: DateTime<Utc>) -> u64 {
        let hour = now.timestamp().div_euclid(3600);
        let hours = self.hours.lock().expect("no counting panics while holding the lock");
        hours.iter().filter(|(then, _)| **then > hour - 24).map(|(_, calls)| calls).sum()
    }

    /// Returns the allowance.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn calls_are_forgotten_after_a_day() {
        let usage = Usage::new(10);
        let start = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        assert_eq!(usage.count(start), 1);
        assert_eq!(usage.count(start + TimeDelta::hours(1)), 2);
        assert_eq!(usage.used(start + TimeDelta::hours(23)), 2);
        assert_eq!(usage.used(start + TimeDelta::hours(24)), 1);
        assert_eq!(usage.count(start + TimeDelta::hours(48)), 1);
    }
}
