//! Intake: signals become durable before their position is acknowledged.
//!
//! ```text
//!   batches -> gather, claim keys (cache) -> accept (one transaction) -> wake lanes, confirm keys, receipts
//! ```
//!
//! Nothing is dropped for its content here and no remote is called: a slow or poisoned record blocks only its own lane.
//! The cache may forget or fail at any time; that costs reads, never results.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use calbridge_core::ids::{ConnectionId, StreamId};
use calbridge_core::policy::Rules;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, Position, Signal, SignalCause, Target, Version};
use calbridge_core::value::fingerprint;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::engine::rounds::RoundRequest;
use crate::engine::watched_cache::{PROBE_EVERY, WatchedCache};
use crate::points::{Point, pass};
use crate::ports::{Batch, Clock, DueSignal, IntakeBatch, Receipt, Reject, Seen, SeenCache, SeenKey, Store};
use crate::telemetry::events;

/// Most signals that one transaction takes in.
const MOST_SIGNALS: usize = 2_000;
/// Most batches that one transaction takes in: they may hold nothing but messages to set aside, and keep coming.
const MOST_BATCHES: usize = 64;
/// Pause between two log lines about messages set aside for the same cause.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// How intake behaves.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// How long a claimed key stays claimed without a confirmation.
    pub claim_lease: Duration,
    /// How long a confirmed key is remembered.
    pub seen_ttl: Duration,
}

/// Takes batches from all listeners.
#[expect(missing_debug_implementations, reason = "ports are trait objects")]
pub struct Intake {
    pub(super) connection: ConnectionId,
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: WatchedCache,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    pub(super) rounds: mpsc::UnboundedSender<RoundRequest>,
    pub(super) lanes: Arc<Notify>,
    pub(super) settings: IntakeSettings,
}

/// Which causes of rejects the log was told of, and when: a flood of garbage must not become a flood of lines.
#[derive(Debug, Default)]
struct Told(BTreeMap<(Side, Reason, &'static str), (Option<Instant>, u64)>);

impl Told {
    /// Counts a reject; tells the log unless it was told of the same cause within [`TELL_EVERY`].
    fn note(&mut self, reject: &Reject, now: Instant) {
        let (told_at, items) = self.0.entry((reject.side, reject.reason, reject.detail)).or_default();
        *items += u64::from(reject.items);
        if told_at.is_none_or(|told_at| now.saturating_duration_since(told_at) >= TELL_EVERY) {
            events::rejects_told(reject.side, reject.reason, reject.detail, *items);
            (*told_at, *items) = (Some(now), 0);
        }
    }
}

/// Keys of signals between their claim and their confirmation.
type Ahead = Mutex<HashSet<SeenKey>>;

fn lock(ahead: &Ahead) -> MutexGuard<'_, HashSet<SeenKey>> {
    // The set stays whole whatever panicked while it was held.
    ahead.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Several batches on their way into one transaction.
#[derive(Default)]
struct Gathered {
    signals: Vec<Signal>,
    intake: IntakeBatch,
    receipts: Vec<Receipt>,
    rounds: Vec<RoundRequest>,
    /// Keys claimed for the signals, to be confirmed once these are durable.
    keys: Vec<SeenKey>,
}

impl Gathered {
    fn has_room(&self) -> bool {
        self.signals.len() < MOST_SIGNALS && self.receipts.len() < MOST_BATCHES
    }
}

impl Intake {
    /// Makes an intake with nothing behind it: no lanes, no rounds. For measuring it.
    pub fn alone(
        connection: ConnectionId,
        store: Arc<dyn Store>,
        cache: Arc<dyn SeenCache>,
        clock: Arc<dyn Clock>,
        rules: Rules,
        settings: IntakeSettings,
    ) -> Self {
        let (_told, rules) = watch::channel(Arc::new(rules));
        let (rounds, _asked) = mpsc::unbounded_channel();
        let cache = WatchedCache::new(cache);
        Self { connection, store, cache, clock, rules, rounds, lanes: Arc::new(Notify::new()), settings }
    }

    /// Runs until all listeners are gone or `stop` is set; what was taken from the channel is finished first.
    ///
    /// The three stages work at the same time, each on a batch of its own, and hand over in order: while one batch is
    /// written, the next one's keys are claimed and the one before is confirmed.
    pub async fn run(self, batches: mpsc::Receiver<Batch>, stop: CancellationToken) {
        let (claimed, to_store) = mpsc::channel(1);
        let (stored, to_confirm) = mpsc::channel(1);
        let ahead = Mutex::default();
        tokio::join!(
            self.claim_all(batches, claimed, &ahead, &stop),
            self.store_all(to_store, stored, &stop),
            self.confirm_all(to_confirm, &ahead),
        );
    }

    /// Gathers what has come and claims its keys.
    async fn claim_all(
        &self,
        mut batches: mpsc::Receiver<Batch>,
        next: mpsc::Sender<Gathered>,
        ahead: &Ahead,
        stop: &CancellationToken,
    ) {
        let mut told = Told::default();
        // The first tick comes at once: a cache that is away at the start is told of before anything comes in.
        let mut probe = tokio::time::interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                batch = batches.recv() => batch,
                _ = probe.tick() => {
                    self.cache.probe().await;
                    continue;
                }
                () = stop.cancelled() => None,
            };
            let Some(first) = first else { return };
            let mut gathered = Gathered::default();
            self.gather(&mut gathered, &mut told, first);
            // While the stage after this one is busy there is time to gather more.
            let place = loop {
                while gathered.has_room() {
                    let Ok(more) = batches.try_recv() else { break };
                    self.gather(&mut gathered, &mut told, more);
                }
                if !gathered.has_room() {
                    break next.reserve().await;
                }
                tokio::select! {
                    biased;
                    place = next.reserve() => break place,
                    Some(more) = batches.recv() => self.gather(&mut gathered, &mut told, more),
                }
            };
            let Ok(place) = place else { return };
            self.claim(&mut gathered, ahead).await;
            place.send(gathered);
        }
    }

    /// Makes batches durable, in order: no position is stored before an earlier one of its stream.
    async fn store_all(
        &self,
        mut batches: mpsc::Receiver<Gathered>,
        next: mpsc::Sender<Gathered>,
        stop: &CancellationToken,
    ) {
        let mut refused = false;
        while let Some(gathered) = batches.recv().await {
            // Behind a batch that was not stored, none may be: its position would cover what is missing.
            pass(Point::BeforeAccept);
            refused = refused || !self.accept_until_stopped(&gathered.intake, stop).await;
            pass(Point::AfterAccept);
            if refused {
                self.cache.release(&gathered.keys).await;
                continue;
            }
            // The stage after this one ends last.
            let _gone = next.send(gathered).await;
        }
    }

    /// Confirms keys, gives receipts, starts rounds and wakes lanes for what is durable.
    async fn confirm_all(&self, mut batches: mpsc::Receiver<Gathered>, ahead: &Ahead) {
        while let Some(gathered) = batches.recv().await {
            // Nobody need wait for the cache: what is stored is due whether or not it remembers.
            if !gathered.intake.signals.is_empty() {
                self.lanes.notify_one();
            }
            self.cache.confirm(&gathered.keys, self.settings.seen_ttl).await;
            let mut ahead = lock(ahead);
            for key in &gathered.keys {
                ahead.remove(key);
            }
            drop(ahead);
            pass(Point::BeforeReceipt);
            for receipt in gathered.receipts {
                receipt.done();
            }
            pass(Point::AfterReceipt);
            for round in gathered.rounds {
                // The receiver lives as long as the engine; when it is gone, the stored wish starts the round next time.
                let _gone = self.rounds.send(round);
            }
        }
    }

    fn gather(&self, gathered: &mut Gathered, told: &mut Told, batch: Batch) {
        for signal in batch.signals {
            match RoundRequest::of(&signal) {
                Some(round) => {
                    let wanted = Position { stream: round.stream(), value: RoundRequest::WANTED.to_owned() };
                    gathered.intake.positions.push((self.connection.clone(), wanted));
                    gathered.rounds.push(round);
                }
                None => gathered.signals.push(signal),
            }
        }
        for reject in &batch.rejects {
            events::messages_rejected(reject.side, reject.reason, u64::from(reject.items));
            told.note(reject, self.clock.monotonic());
        }
        gathered.intake.rejects.extend(batch.rejects);
        gathered.intake.positions.extend(batch.positions.into_iter().map(|p| (self.connection.clone(), p)));
        gathered.receipts.push(batch.receipt);
    }

    /// Leaves out what was seen before and sets the windows of the rest.
    async fn claim(&self, gathered: &mut Gathered, ahead: &Ahead) {
        let rules = Arc::clone(&self.rules.borrow());
        let signals = std::mem::take(&mut gathered.signals);
        let (fresh, keys, duplicates) = self.without_duplicates(signals, &rules, ahead).await;
        let timers = &rules.policy.timers;
        let quiet = timers.quiet.to_std().unwrap_or_default();
        let max_wait = timers.max_wait.to_std().unwrap_or_default();
        gathered.keys = keys;
        gathered.intake.duplicates = duplicates;
        gathered.intake.signals = fresh
            .into_iter()
            .filter_map(|signal| match &signal.target {
                Target::Record(record) => Some(DueSignal { record: record.clone(), signal, quiet, max_wait }),
                Target::Mailbox(_) | Target::Org => None,
            })
            .collect();
    }

    /// Stores a batch, however long the database stays away; false when stopped before.
    async fn accept_until_stopped(&self, batch: &IntakeBatch, stop: &CancellationToken) -> bool {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.store.accept(batch, self.clock.now()).await {
                Ok(()) => {
                    count(batch);
                    return true;
                }
                Err(error) => events::store_failed(&format!("accept signals: {error}")),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return false,
            }
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    /// Drops signals whose key is confirmed in the cache, or that are on their way into the store already; returns the
    /// others with the keys to confirm.
    ///
    /// A key that somebody merely claimed drops nothing. Our own claims are another matter while we live: batches are stored
    /// in order, and behind one that was not stored none is, so what repeats a signal ahead of it adds nothing.
    async fn without_duplicates(
        &self,
        signals: Vec<Signal>,
        rules: &Rules,
        ahead: &Ahead,
    ) -> (Vec<Signal>, Vec<SeenKey>, BTreeMap<StreamId, u64>) {
        let keyed: Vec<Option<SeenKey>> =
            signals.iter().map(|signal| seen_key(self.store.epoch(), signal, rules.mapping.version())).collect();
        let keys: Vec<SeenKey> = keyed.iter().flatten().cloned().collect();
        if keys.is_empty() {
            return (signals, keys, BTreeMap::new());
        }
        let Some(seen) = self.cache.claim(&keys, self.settings.claim_lease).await else {
            return (signals, Vec::new(), BTreeMap::new());
        };
        let mut answers = seen.into_iter();
        let mut duplicates = BTreeMap::new();
        let mut fresh = Vec::with_capacity(signals.len());
        let mut unconfirmed = Vec::with_capacity(keys.len());
        let mut ahead = lock(ahead);
        for (signal, key) in signals.into_iter().zip(keyed) {
            // Answers are in the order of the keys; a signal without one always counts.
            let seen = key.as_ref().and_then(|_| answers.next());
            let repeats = key.as_ref().is_some_and(|key| ahead.contains(key));
            if repeats || seen == Some(Seen::Done) {
                let stream = signal.position.map_or_else(|| StreamId::new("unknown"), |position| position.stream);
                *duplicates.entry(stream).or_default() += 1;
            } else {
                ahead.extend(key.clone());
                unconfirmed.extend(key);
                fresh.push(signal);
            }
        }
        drop(ahead);
        (fresh, unconfirmed, duplicates)
    }
}

fn count(batch: &IntakeBatch) {
    for side in Side::BOTH {
        let signals = batch.signals.iter().filter(|due| due.signal.side == side).count();
        if signals > 0 {
            events::signals_accepted(side, signals as u64);
        }
    }
    for (stream, duplicates) in &batch.duplicates {
        events::duplicates_dropped(stream.as_str(), *duplicates);
    }
}

/// Returns the dedup key of a signal; none for those that always count.
///
/// Deletions carry no version worth the name, and what a sweep, a gap or a person asks for must never be swallowed.
fn seen_key(epoch: &str, signal: &Signal, mapping: &str) -> Option<SeenKey> {
    let Target::Record(record) = &signal.target else { return None };
    if signal.cause != SignalCause::Notification || signal.change == Change::Deleted {
        return None;
    }
    let version = match (&signal.facts, &signal.version) {
        (Some(facts), _) => facts.transaction.clone(),
        (None, Some(Version::ChangeKey(key))) => key.clone(),
        (None, Some(Version::Modstamp(at))) => at.timestamp_millis().to_string(),
        (None, None) => return None,
    };
    let record = fingerprint(&record.key());
    let (connection, side) = (&signal.connection, signal.side);
    Some(SeenKey(format!("cb:d:{epoch}:{connection}:{side}:{record}:{version}:{mapping}")))
}

impl RoundRequest {
    /// Value of a round's stream position while the round is owed.
    pub(super) const WANTED: &str = "wanted";

    fn of(signal: &Signal) -> Option<Self> {
        let mailbox = match &signal.target {
            Target::Record(_) => return None,
            Target::Mailbox(mailbox) => Some(mailbox.clone()),
            Target::Org => None,
        };
        Some(Self { side: signal.side, mailbox, cause: signal.cause })
    }
}
