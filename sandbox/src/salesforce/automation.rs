//! What the org does later by itself: follow-ups of its automation, and change events that are slow to come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use tokio::sync::Notify;

use super::avro::EventSchema;
use crate::world::World;

/// Share of people's edits that automation follows up in an office.
const SHARE: f64 = 0.2;
/// Longest time until it does, in sandbox milliseconds.
const LATEST_MS: i64 = 20_000;

/// Something to do later.
#[derive(Debug)]
pub(crate) enum Later {
    /// The office's automation touches a record and changes no mapped field.
    Touch(String),
    /// A flow edits a record that an application wrote.
    Review(String),
    /// A change event comes out.
    Publish(Publication),
}

/// A change event on its way.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) schema: Arc<EventSchema>,
    pub(crate) payload: Vec<u8>,
    pub(crate) deliveries: u32,
}

/// What is due at some sandbox time.
#[derive(Debug, Default)]
pub(crate) struct Automation {
    queue: Mutex<Queue>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    due: BTreeMap<(DateTime<Utc>, u64), Later>,
    newest: u64,
    /// Change events that wait, and when the last of them comes out: none overtakes another.
    unpublished: usize,
    last_publication: DateTime<Utc>,
}

impl Automation {
    /// Draws whether a person's edit of a record is followed up, and when.
    pub(crate) fn consider(&self, world: &World, id: &str) {
        if !world.is_noisy() || !world.draw(|random| random.random_bool(SHARE)) {
            return;
        }
        let delay = TimeDelta::milliseconds(world.draw(|random| random.random_range(0..=LATEST_MS)));
        self.add(world.clock.now() + delay, Later::Touch(id.to_owned()));
    }

    /// Lets a flow edit a record some time after an application wrote it.
    pub(crate) fn review(&self, world: &World, id: &str, after: TimeDelta) {
        self.add(world.clock.now() + after, Later::Review(id.to_owned()));
    }

    /// Takes a change event that comes out later; gives one back that may come out now.
    pub(crate) fn delay(&self, world: &World, delay: TimeDelta, publication: Publication) -> Option<Publication> {
        let mut queue = self.lock();
        if delay <= TimeDelta::zero() && queue.unpublished == 0 {
            return Some(publication);
        }
        let at = (world.clock.now() + delay).max(queue.last_publication);
        queue.last_publication = at;
        queue.unpublished += 1;
        queue.insert(at, Later::Publish(publication));
        drop(queue);
        self.added.notify_one();
        None
    }

    /// Notes that a change event that had waited has come out.
    pub(crate) fn published(&self) {
        let mut queue = self.lock();
        queue.unpublished = queue.unpublished.saturating_sub(1);
    }

    /// Takes what is due; returns it with the time of the next thing.
    pub(crate) fn take_due(&self, now: DateTime<Utc>) -> (Vec<Later>, Option<DateTime<Utc>>) {
        let mut queue = self.lock();
        let mut ready = Vec::new();
        while let Some(entry) = queue.due.first_entry() {
            if entry.key().0 > now {
                return (ready, Some(entry.key().0));
            }
            ready.push(entry.remove());
        }
        (ready, None)
    }

    /// Waits until something was added.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    fn add(&self, at: DateTime<Utc>, later: Later) {
        self.lock().insert(at, later);
        self.added.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no change of the queue panics while holding the lock")
    }
}

impl Queue {
    fn insert(&mut self, at: DateTime<Utc>, later: Later) {
        self.newest += 1;
        self.due.insert((at, self.newest), later);
    }
}
