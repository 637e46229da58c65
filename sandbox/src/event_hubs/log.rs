//! The retained log of one hub: partitions, sequence numbers, offsets, enqueued times.
//!
//! Owns the events and what they look like on the wire. Knows nothing of links; readers come with a sequence number.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, SubsecRound, Utc};
use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp_types::messaging::{Body, Data, Message, MessageAnnotations};
use fe2o3_amqp_types::primitives::{Binary, LazyValue, Symbol, Timestamp, Value};
use tokio::sync::watch;

use super::address::Start;
use super::hash;
use super::placed::Numbered;
use crate::clock::SandboxClock;

/// Events that a partition keeps before the oldest one goes.
const RETAINED_EVENTS: usize = 1_000_000;

/// Bytes of bodies that a partition keeps before the oldest event goes, so that a long run cannot fill the memory.
const RETAINED_BYTES: usize = 256 * 1024 * 1024;

/// What an event costs beyond its body, in the byte count and in the distance between offsets.
const EVENT_OVERHEAD: usize = 64;

/// Annotation that carries the partition key.
pub(super) const PARTITION_KEY: &str = "x-opt-partition-key";

/// One event as it was taken in.
pub struct StoredEvent {
    /// Position in the partition, from 0, without gaps.
    pub sequence: i64,
    /// Byte position in the partition; clients see it as text.
    pub offset: i64,
    /// Sandbox time of arrival, to the millisecond; never earlier than that of the event before.
    pub enqueued: DateTime<Utc>,
    /// Key the sender gave.
    pub partition_key: Option<String>,
    pub(super) sendable: Sendable<Body<Value>>,
    /// What goes out instead of the body: framed like a value, and possibly none.
    pub(super) as_it_is: Option<LazyValue>,
    bytes: usize,
}

impl StoredEvent {
    /// Returns the bytes of the first data section; empty for other kinds of body.
    pub fn body(&self) -> &[u8] {
        match &self.sendable.message.body {
            Body::Data(sections) => sections.first().map(|data| data.0.as_slice()).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl fmt::Debug for StoredEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StoredEvent")
            .field("sequence", &self.sequence)
            .field("offset", &self.offset)
            .field("enqueued", &self.enqueued)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What `$management` says of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProperties {
    /// Sequence number of the oldest retained event, or of the next one if there is none.
    pub begin_sequence: i64,
    /// Sequence number of the newest event; -1 if there never was one.
    pub last_sequence: i64,
    /// Offset of the newest event; `-1` if there never was one.
    pub last_offset: String,
    /// Arrival of the newest event; the hub's creation if there never was one.
    pub last_enqueued: DateTime<Utc>,
    /// Nothing is retained.
    pub is_empty: bool,
}

/// A start position past the end of the partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BeyondEnd {
    pub(super) what: &'static str,
    pub(super) supplied: i64,
    pub(super) last: String,
}

/// The hub's log.
pub struct HubLog {
    hub: String,
    clock: SandboxClock,
    created: DateTime<Utc>,
    partitions: Vec<Partition>,
    turn: AtomicUsize,
    retained_events: usize,
    retained_bytes: usize,
}

impl fmt::Debug for HubLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HubLog")
            .field("hub", &self.hub)
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

struct Partition {
    retained: Mutex<Retained>,
    next: watch::Sender<i64>,
}

#[derive(Default)]
struct Retained {
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
    next_sequence: i64,
    next_offset: i64,
    last: Option<(i64, DateTime<Utc>)>,
}

impl Retained {
    fn begin_sequence(&self) -> i64 {
        self.events.front().map_or(self.next_sequence, |event| event.sequence)
    }
}

impl HubLog {
    /// Makes an empty hub with 1 to 32 partitions.
    pub fn new(clock: SandboxClock, hub: &str, partitions: usize) -> Arc<Self> {
        Arc::new(Self::with_retention(clock, hub, partitions, RETAINED_EVENTS, RETAINED_BYTES))
    }

    fn with_retention(clock: SandboxClock, hub: &str, partitions: usize, events: usize, bytes: usize) -> Self {
        let partition = || Partition { retained: Mutex::default(), next: watch::Sender::new(0) };
        Self {
            hub: hub.to_owned(),
            clock,
            created: clock.now().trunc_subsecs(3),
            partitions: (0..partitions.clamp(1, 32)).map(|_| partition()).collect(),
            turn: AtomicUsize::new(0),
            retained_events: events,
            retained_bytes: bytes,
        }
    }

    /// Returns the name of the hub.
    pub fn hub(&self) -> &str {
        &self.hub
    }

    /// Returns when the hub was made, in sandbox time.
    pub fn created(&self) -> DateTime<Utc> {
        self.created
    }

    /// Returns the sandbox's present time.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Returns the number of partitions; their ids are `0` to this less one.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Appends one message with a single data section, as a sender without links of its own (Graph) does.
    ///
    /// The key decides the partition; without one, partitions take turns. Returns partition and sequence number.
    pub fn publish(&self, body: Vec<u8>, partition_key: Option<&str>) -> (usize, i64) {
        let message =
            Message::builder().data(Binary::from(body)).build().map_body(|data| Body::Data(vec![data].into()));
        let partition = self.route(partition_key);
        (partition, self.append(partition, partition_key, message))
    }

    /// Returns the partition that an event without an explicit one goes to.
    pub(super) fn route(&self, partition_key: Option<&str>) -> usize {
        match partition_key {
            Some(key) => hash::partition_of(key, self.partitions.len()),
            None => self.turn.fetch_add(1, Ordering::Relaxed) % self.partitions.len(),
        }
    }

    /// Appends a message to a partition that exists; returns its sequence number.
    pub(super) fn append(&self, partition: usize, key: Option<&str>, message: Message<Body<Value>>) -> i64 {
        self.append_numbered(partition, key, message, Numbered::Next, None)
    }

    /// Appends a message that may show another sequence number than its own.
    pub(super) fn append_numbered(
        &self,
        partition: usize,
        key: Option<&str>,
        mut message: Message<Body<Value>>,
        numbered: Numbered,
        as_it_is: Option<LazyValue>,
    ) -> i64 {
        let bytes = body_bytes(&message) + EVENT_OVERHEAD;
        let partition = &self.partitions[partition];
        let mut retained = partition.lock();
        let now = self.clock.now().trunc_subsecs(3);
        let enqueued = retained.last.map_or(now, |(_, last)| last.max(now));
        let (sequence, offset) = (retained.next_sequence, retained.next_offset);
        let shown = match numbered {
            Numbered::Next => Some(sequence),
            Numbered::Again => Some((sequence - 1).max(0)),
            Numbered::Missing => None,
        };
        annotate(&mut message, shown, offset, enqueued, key);
        let event = StoredEvent {
            sequence,
            offset,
            enqueued,
            partition_key: key.map(str::to_owned),
            sendable: Sendable { message, message_format: 0, settled: Some(true) },
            as_it_is,
            bytes,
        };
        retained.events.push_back(Arc::new(event));
        retained.bytes += bytes;
        retained.next_sequence += 1;
        retained.next_offset += i64::try_from(bytes).unwrap_or(i64::MAX);
        retained.last = Some((offset, enqueued));
        while retained.events.len() > self.retained_events
            || (retained.bytes > self.retained_bytes && retained.events.len() > 1)
        {
            let gone = retained.events.pop_front().map_or(0, |event| event.bytes);
            retained.bytes -= gone;
        }
        let next = retained.next_sequence;
        drop(retained);
        partition.next.send_replace(next);
        sequence
    }

    /// Returns at most `limit` events from a sequence number on; from the oldest if that one has gone.
    ///
    /// Empty past the end, and for a partition that does not exist.
    pub fn read(&self, partition: usize, from: i64, limit: usize) -> Vec<Arc<StoredEvent>> {
        let Some(partition) = self.partitions.get(partition) else {
            return Vec::new();
        };
        let retained = partition.lock();
        let skip = usize::try_from(from - retained.begin_sequence()).unwrap_or_default();
        retained.events.iter().skip(skip).take(limit).cloned().collect()
    }

    /// Returns a receiver that holds the next sequence number of a partition and wakes when it grows.
    pub fn watch(&self, partition: usize) -> Option<watch::Receiver<i64>> {
        self.partitions.get(partition).map(|partition| partition.next.subscribe())
    }

    /// Returns what is known of a partition; none if it does not exist.
    pub fn properties(&self, partition: usize) -> Option<PartitionProperties> {
        let retained = self.partitions.get(partition)?.lock();
        Some(PartitionProperties {
            begin_sequence: retained.begin_sequence(),
            last_sequence: retained.next_sequence - 1,
            last_offset: retained.last.map_or_else(|| "-1".to_owned(), |(offset, _)| offset.to_string()),
            last_enqueued: retained.last.map_or(self.created, |(_, enqueued)| enqueued),
            is_empty: retained.events.is_empty(),
        })
    }

    /// Turns a start position into the first sequence number to send.
    pub(super) fn resolve(&self, partition: usize, start: Start) -> Result<i64, BeyondEnd> {
        let retained = self.partitions[partition].lock();
        let first = |wanted: &dyn Fn(&StoredEvent) -> bool| {
            let skipped = retained.events.partition_point(|event| !wanted(event));
            retained.begin_sequence() + i64::try_from(skipped).unwrap_or(i64::MAX)
        };
        match start {
            Start::Earliest => Ok(retained.begin_sequence()),
            Start::Latest => Ok(retained.next_sequence),
            Start::Offset { value, inclusive } => {
                let last = retained.last.map_or(-1, |(offset, _)| offset);
                if value > last {
                    return Err(BeyondEnd { what: "offset", supplied: value, last: last.to_string() });
                }
                Ok(first(&|event| event.offset > value || (inclusive && event.offset == value)))
            }
            Start::Sequence { value, inclusive } => {
                let last = retained.next_sequence - 1;
                if value > last {
                    return Err(BeyondEnd { what: "sequence number", supplied: value, last: last.to_string() });
                }
                Ok((value + i64::from(!inclusive)).max(retained.begin_sequence()))
            }
            Start::Enqueued { millis, inclusive } => Ok(first(&|event| {
                let at = event.enqueued.timestamp_millis();
                at > millis || (inclusive && at == millis)
            })),
        }
    }
}

impl Partition {
    fn lock(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().expect("no append panics while holding the lock")
    }
}

fn body_bytes(message: &Message<Body<Value>>) -> usize {
    match &message.body {
        Body::Data(sections) => sections.iter().map(|data: &Data| data.0.len()).sum(),
        // Not measured: values and sequences are rare, and only the retention limit is less exact for them.
        _ => EVENT_OVERHEAD,
    }
}

fn annotate(
    message: &mut Message<Body<Value>>,
    sequence: Option<i64>,
    offset: i64,
    at: DateTime<Utc>,
    key: Option<&str>,
) {
    let annotations = message.message_annotations.get_or_insert_with(MessageAnnotations::default);
    let mut set = |name: &str, value: Value| annotations.insert(Symbol::from(name).into(), value);
    if let Some(sequence) = sequence {
        set("x-opt-sequence-number", Value::Long(sequence));
    }
    set("x-opt-offset", Value::String(offset.to_string()));
    set("x-opt-enqueued-time", Value::Timestamp(Timestamp::from_milliseconds(at.timestamp_millis())));
    if let Some(key) = key {
        set(PARTITION_KEY, Value::String(key.to_owned()));
    }
    message.delivery_annotations = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(partitions: usize, events: usize, bytes: usize) -> HubLog {
        let clock = SandboxClock::new("2030-01-01T00:00:00Z".parse().unwrap(), 1.0);
        HubLog::with_retention(clock, "meetings", partitions, events, bytes)
    }

    #[test]
    fn sequence_numbers_have_no_gaps_and_offsets_grow() {
        let log = log(1, 100, 100_000);
        assert_eq!(log.properties(0).unwrap().last_sequence, -1);
        assert_eq!(log.properties(0).unwrap().last_offset, "-1");
        for expected in 0..5 {
            assert_eq!(log.publish(b"body".to_vec(), None), (0, expected));
        }
        let events = log.read(0, 0, 10);
        assert!(events.windows(2).all(|pair| pair[0].offset < pair[1].offset && pair[0].enqueued <= pair[1].enqueued));
        assert_eq!(log.read(0, 3, 10).iter().map(|event| event.sequence).collect::<Vec<_>>(), [3, 4]);
        assert!(log.read(0, 5, 10).is_empty());
        assert!(log.read(9, 0, 10).is_empty());
    }

    #[test]
    fn events_without_a_key_take_turns_and_keys_stay_together() {
        let log = log(4, 100, 100_000);
        let turns: Vec<usize> = (0..4).map(|_| log.publish(Vec::new(), None).0).collect();
        assert_eq!(turns, [0, 1, 2, 3]);
        assert_eq!(log.publish(Vec::new(), Some("beta")).0, 3);
        assert_eq!(log.publish(Vec::new(), Some("beta")).0, 3);
    }

    #[test]
    fn retention_by_count_moves_the_begin() {
        let log = log(1, 3, 100_000);
        for _ in 0..10 {
            log.publish(vec![0; 8], None);
        }
        let properties = log.properties(0).unwrap();
        assert_eq!((properties.begin_sequence, properties.last_sequence), (7, 9));
        assert_eq!(log.read(0, 0, 10).first().unwrap().sequence, 7);
        assert_eq!(log.resolve(0, Start::Earliest), Ok(7));
        assert_eq!(log.resolve(0, Start::Sequence { value: 2, inclusive: false }), Ok(7));
    }

    #[test]
    fn retention_by_bytes_keeps_at_least_the_newest() {
        let log = log(1, 100, 1000);
        for _ in 0..4 {
            log.publish(vec![0; 5000], None);
        }
        assert_eq!(log.properties(0).unwrap().begin_sequence, 3);
    }

    #[test]
    fn every_start_finds_its_event() {
        let log = log(1, 100, 100_000);
        for _ in 0..3 {
            log.publish(vec![0; 10], None);
        }
        let second = Arc::clone(&log.read(0, 1, 1)[0]);
        let at = |start| log.resolve(0, start);
        assert_eq!(at(Start::Earliest), Ok(0));
        assert_eq!(at(Start::Latest), Ok(3));
        assert_eq!(at(Start::Offset { value: second.offset, inclusive: false }), Ok(2));
        assert_eq!(at(Start::Offset { value: second.offset, inclusive: true }), Ok(1));
        assert_eq!(at(Start::Sequence { value: 1, inclusive: false }), Ok(2));
        assert_eq!(at(Start::Sequence { value: 1, inclusive: true }), Ok(1));
        assert_eq!(at(Start::Sequence { value: -1, inclusive: false }), Ok(0));
        assert_eq!(at(Start::Enqueued { millis: 0, inclusive: false }), Ok(0));
        assert_eq!(at(Start::Enqueued { millis: i64::MAX, inclusive: true }), Ok(3));
        let beyond = BeyondEnd { what: "sequence number", supplied: 3, last: "2".into() };
        assert_eq!(at(Start::Sequence { value: 3, inclusive: true }), Err(beyond));
        assert!(at(Start::Offset { value: 1_000_000, inclusive: false }).is_err());
    }
}
