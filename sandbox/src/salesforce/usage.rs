//! The org's limits: API calls in 24 hours, and long ones at once. How many are allowed is a switch.
//!
//! <https://developer.salesforce.com/docs/platform/salesforce-app-limits-cheatsheet/guide/salesforce-app-limits-platform-api.html>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};

/// A call that has lasted so long counts as long-running.
const LONG: TimeDelta = TimeDelta::seconds(20);

/// Calls in rolling 24 sandbox hours, counted by the hour, and those under way.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    hours: Mutex<BTreeMap<i64, u64>>,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    newest: u64,
    since: BTreeMap<u64, DateTime<Utc>>,
}

/// A call under way; over when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    under_way: Arc<Mutex<UnderWay>>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.under_way.lock().expect("no counting panics while holding the lock").since.remove(&self.number);
    }
}

impl Usage {
    /// Notes that a call is under way.
    pub(crate) fn run(&self, now: DateTime<Utc>) -> Running {
        let mut under_way = self.under_way.lock().expect("no counting panics while holding the lock");
        under_way.newest += 1;
        let number = under_way.newest;
        under_way.since.insert(number, now);
        Running { under_way: Arc::clone(&self.under_way), number }
    }

    /// Returns how many calls have been under way for 20 seconds or more.
    pub(crate) fn long(&self, now: DateTime<Utc>) -> usize {
        let under_way = self.under_way.lock().expect("no counting panics while holding the lock");
        under_way.since.values().filter(|since| now - **since >= LONG).count()
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_forgotten_after_a_day() {
        let usage = Usage::default();
        let start = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        assert_eq!(usage.count(start), 1);
        assert_eq!(usage.count(start + TimeDelta::hours(1)), 2);
        assert_eq!(usage.used(start + TimeDelta::hours(23)), 2);
        assert_eq!(usage.used(start + TimeDelta::hours(24)), 1);
        assert_eq!(usage.count(start + TimeDelta::hours(48)), 1);
    }

    #[test]
    fn a_call_is_long_after_twenty_seconds_and_until_it_ends() {
        let usage = Usage::default();
        let start = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let first = usage.run(start);
        let _second = usage.run(start + TimeDelta::seconds(5));
        assert_eq!(usage.long(start + TimeDelta::seconds(19)), 0);
        assert_eq!(usage.long(start + TimeDelta::seconds(20)), 1);
        assert_eq!(usage.long(start + TimeDelta::seconds(25)), 2);
        drop(first);
        assert_eq!(usage.long(start + TimeDelta::seconds(25)), 1);
    }
}
