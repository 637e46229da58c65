//! The retained log of change events: replay ids, retention, wake-up of subscribers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use tokio::sync::watch;
use uuid::Uuid;

use super::avro::EventSchema;
use super::placed::{PlacedEvent, PlacedReplay};
use super::schema::Object;
use crate::world::World;

/// How long the event bus keeps change events.
///
/// <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/event-message-durability.html>
const RETENTION: TimeDelta = TimeDelta::hours(72);

/// One published change event.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// Place in the log, from 0, without holes.
    pub(crate) position: u64,
    /// Place on the bus: grows, with holes.
    pub(crate) replay: i64,
    /// The replay id that clients are shown; empty for none.
    pub(crate) shown_replay: Vec<u8>,
    pub(crate) object: Object,
    /// Unique id of the event message.
    pub(crate) id: String,
    pub(crate) schema_id: String,
    pub(crate) payload: Bytes,
    /// It goes out without a body.
    pub(crate) hollow: bool,
    /// How often each subscriber receives it, at least 1.
    pub(crate) deliveries: u32,
    at: DateTime<Utc>,
}

/// A replay id that cannot be used: malformed, unknown, or older than the retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("replay id is unknown or older than the retention")]
pub(crate) struct ReplayCorrupted;

/// All retained change events of an org.
#[derive(Debug)]
pub(crate) struct ChangeLog {
    inner: Mutex<Inner>,
    length: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    events: VecDeque<Published>,
    next_position: u64,
    /// Newest place on the bus, events of other tenants included.
    head: i64,
    /// Places told to clients without an event, with the time they were told.
    told: VecDeque<(DateTime<Utc>, i64)>,
    /// Places at or before this one are forgotten.
    horizon: i64,
}

impl ChangeLog {
    pub(crate) fn new(world: &World) -> Self {
        let head = world.draw(|random| random.random_range(1_000_000..20_000_000));
        let inner = Inner { events: VecDeque::new(), next_position: 0, head, told: VecDeque::new(), horizon: head - 1 };
        Self { inner: Mutex::new(inner), length: watch::Sender::new(0) }
    }

    /// Appends one event.
    pub(crate) fn append(&self, world: &World, schema: &EventSchema, payload: Vec<u8>, deliveries: u32) {
        let event = PlacedEvent { schema_id: schema.id.clone(), payload: Some(payload), replay: PlacedReplay::Own };
        self.put(world, schema.object(), event, deliveries);
    }

    /// Appends one event as it is.
    pub(crate) fn place(&self, world: &World, object: Object, event: PlacedEvent) {
        self.put(world, object, event, 1);
    }

    fn put(&self, world: &World, object: Object, event: PlacedEvent, deliveries: u32) {
        let step = world.draw(|random| random.random_range(1..=40));
        let id = world.draw(|random| Uuid::from_u128(random.random())).to_string();
        let at = world.clock.now();
        let mut inner = self.lock();
        inner.forget_before(at - RETENTION);
        inner.head += step;
        let position = inner.next_position;
        let shown_replay = match event.replay {
            PlacedReplay::Own => encode_replay_id(inner.head),
            PlacedReplay::Missing => Vec::new(),
            PlacedReplay::Oldest => encode_replay_id(inner.events.front().map_or(inner.head, |event| event.replay)),
        };
        let event = Published {
            position,
            replay: inner.head,
            shown_replay,
            object,
            id,
            schema_id: event.schema_id,
            hollow: event.payload.is_none(),
            payload: Bytes::from(event.payload.unwrap_or_default()),
            deliveries,
            at,
        };
        inner.events.push_back(event);
        inner.next_position += 1;
        drop(inner);
        self.length.send_replace(position + 1);
        world.meters.change_events(1);
    }

    /// Returns up to `limit` retained events from a position on that the filter accepts.
    pub(crate) fn read(&self, from: u64, limit: usize, accepts: impl Fn(Object) -> bool) -> Vec<Published> {
        let inner = self.lock();
        let skip = from.saturating_sub(inner.events.front().map_or(from, |event| event.position));
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        inner.events.iter().skip(skip).filter(|event| accepts(event.object)).take(limit).cloned().collect()
    }

    /// Returns the position after the newest event.
    pub(crate) fn end(&self) -> u64 {
        self.lock().next_position
    }

    /// Returns the position of the oldest event that is still retained at `now`.
    pub(crate) fn beginning(&self, now: DateTime<Utc>) -> u64 {
        let mut inner = self.lock();
        inner.forget_before(now - RETENTION);
        inner.events.front().map_or(inner.next_position, |event| event.position)
    }

    /// Returns the newest place on the bus for a subscriber who has read everything before `from`.
    ///
    /// It may run ahead of the newest event, because the bus is shared. None when an event is waiting: a client that
    /// stored the answer would otherwise skip it.
    pub(crate) fn quiet_head(&self, world: &World, from: u64, accepts: impl Fn(Object) -> bool) -> Option<i64> {
        let step: i64 = world.draw(|random| random.random_range(1..=10));
        let now = world.clock.now();
        let mut inner = self.lock();
        if inner.events.iter().rev().take_while(|event| event.position >= from).any(|event| accepts(event.object)) {
            return None;
        }
        inner.forget_before(now - RETENTION);
        inner.head += step;
        let head = inner.head;
        inner.told.push_back((now, head));
        Some(head)
    }

    /// Finds the position after a replay id.
    pub(crate) fn after(&self, replay_id: &[u8], now: DateTime<Utc>) -> Result<u64, ReplayCorrupted> {
        let replay = decode_replay_id(replay_id).ok_or(ReplayCorrupted)?;
        let mut inner = self.lock();
        inner.forget_before(now - RETENTION);
        if replay <= inner.horizon || replay > inner.head {
            return Err(ReplayCorrupted);
        }
        let first_later = inner.events.partition_point(|event| event.replay <= replay);
        Ok(inner.events.get(first_later).map_or(inner.next_position, |event| event.position))
    }

    /// Forgets every event and replay id, as a migration of the org does.
    pub(crate) fn forget_all(&self) {
        let mut inner = self.lock();
        inner.events.clear();
        inner.told.clear();
        inner.head += 1;
        inner.horizon = inner.head - 1;
    }

    /// Returns a receiver that wakes at each new event.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.length.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no reader or writer of the log panics while holding the lock")
    }
}

impl Inner {
    fn forget_before(&mut self, oldest: DateTime<Utc>) {
        while let Some(event) = self.events.front().filter(|event| event.at < oldest) {
            self.horizon = self.horizon.max(event.replay);
            self.events.pop_front();
        }
        while let Some((_, head)) = self.told.front().filter(|(at, _)| *at < oldest) {
            self.horizon = self.horizon.max(*head);
            self.told.pop_front();
        }
    }
}

/// Writes a replay id: 8 bytes big-endian and two zero bytes, the form observed in the field.
///
/// <https://github.com/pozil/pub-sub-api-node-client/issues/36>
pub(crate) fn encode_replay_id(replay: i64) -> Vec<u8> {
    let mut bytes = replay.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes
}

/// Reads the 8- or 10-byte form; clients in the field send back only the first 8 bytes.
fn decode_replay_id(bytes: &[u8]) -> Option<i64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    matches!(rest, [] | [0, 0]).then(|| i64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SandboxClock;
    use crate::faults::Switches;
    use crate::options::Profile;

    fn log() -> (Arc<World>, ChangeLog, Arc<EventSchema>) {
        let clock = SandboxClock::new(DateTime::from_timestamp(1_790_000_000, 0).unwrap(), 1.0);
        let world = World::new(clock, Profile::Quiet, 1);
        let log = ChangeLog::new(&world);
        (world, log, Arc::new(EventSchema::new(Object::Event, &Switches::default())))
    }

    #[test]
    fn custom_starts_after_the_given_id_in_both_forms() {
        let (world, log, schema) = log();
        for byte in 0..3 {
            log.append(&world, &schema, vec![byte], 1);
        }
        let second = log.read(1, 1, |_| true)[0].clone();
        let id = encode_replay_id(second.replay);
        assert_eq!(id.len(), 10);
        assert_eq!(log.after(&id, world.clock.now()), Ok(2));
        assert_eq!(log.after(&id[..8], world.clock.now()), Ok(2));
    }

    #[test]
    fn unknown_and_expired_ids_are_corrupted() {
        let (world, log, schema) = log();
        log.append(&world, &schema, vec![1], 1);
        let now = world.clock.now();
        let head = log.quiet_head(&world, 1, |_| true).unwrap();
        let id = encode_replay_id(head);
        assert_eq!(log.after(&[0; 8], now), Err(ReplayCorrupted));
        assert_eq!(log.after(&[1, 2, 3], now), Err(ReplayCorrupted));
        assert_eq!(log.after(&encode_replay_id(head + 1), now), Err(ReplayCorrupted));
        assert_eq!(log.after(&id, now), Ok(1));
        assert_eq!(log.after(&id, now + TimeDelta::hours(73)), Err(ReplayCorrupted));
        assert_eq!(log.beginning(now + TimeDelta::hours(73)), 1);
    }

    #[test]
    fn a_place_ahead_of_the_last_event_is_told_only_when_nothing_waits() {
        let (world, log, schema) = log();
        log.append(&world, &schema, vec![1], 1);
        assert_eq!(log.quiet_head(&world, 0, |_| true), None);
        assert!(log.quiet_head(&world, 0, |_| false).is_some());
        let head = log.quiet_head(&world, 1, |_| true).unwrap();
        assert_eq!(log.after(&encode_replay_id(head), world.clock.now()), Ok(1));
    }
}
