//! The org's own automation in an office: some edits by people are followed by a change that touches no mapped field.

use std::collections::BTreeSet;
use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use tokio::sync::Notify;

use crate::options::Profile;
use crate::world::World;

/// Share of people's edits that automation follows up.
const SHARE: f64 = 0.2;
/// Longest time until it does, in sandbox milliseconds.
const LATEST_MS: i64 = 20_000;

/// Follow-ups that are due at some sandbox time.
#[derive(Debug, Default)]
pub(crate) struct Automation {
    due: Mutex<BTreeSet<(DateTime<Utc>, String)>>,
    added: Notify,
}

impl Automation {
    /// Draws whether a person's edit of a record is followed up, and when.
    pub(crate) fn consider(&self, world: &World, id: &str) {
        if world.profile != Profile::Office || !world.draw(|random| random.random_bool(SHARE)) {
            return;
        }
        let delay = TimeDelta::milliseconds(world.draw(|random| random.random_range(0..=LATEST_MS)));
        self.due_now().insert((world.clock.now() + delay, id.to_owned()));
        self.added.notify_one();
    }

    /// Takes the record ids that are due; returns them with the time of the next one.
    pub(crate) fn take_due(&self, now: DateTime<Utc>) -> (Vec<String>, Option<DateTime<Utc>>) {
        let mut due = self.due_now();
        let mut ids = Vec::new();
        while let Some((at, _)) = due.first() {
            if *at > now {
                return (ids, Some(*at));
            }
            if let Some((_, id)) = due.pop_first() {
                ids.push(id);
            }
        }
        (ids, None)
    }

    /// Waits until a follow-up was added.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    fn due_now(&self) -> std::sync::MutexGuard<'_, BTreeSet<(DateTime<Utc>, String)>> {
        self.due.lock().expect("no change of the queue panics while holding the lock")
    }
}
