//! Intake: signals become durable before their position is acknowledged.
//!
//! ```text
//!   batches -> gather -> claim keys (cache) -> accept (one transaction) -> confirm keys -> receipts -> wake lanes
//! ```
//!
//! Nothing is dropped for its content here and no remote is called: a slow or poisoned record blocks only its own lane.
//! The cache may forget or fail at any time; that costs reads, never results.

use std::collections::BTreeMap;
use std::sync::Arc;
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
use crate::ports::{Batch, Clock, DueSignal, IntakeBatch, Receipt, Reject, Seen, SeenKey, Store};
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
pub(super) struct Intake {
    pub(super) connection: ConnectionId,
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: WatchedCache,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    pub(super) rounds: mpsc::UnboundedSender<RoundRequest>,
    pub(super) lanes: Arc<Notify>,
    pub(super) settings: IntakeSettings,
    pub(super) told: Told,
}

/// Which causes of rejects the log was told of, and when: a flood of garbage must not become a flood of lines.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(Side, Reason, &'static str), (Option<Instant>, u64)>);

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

/// Several batches on their way into one transaction.
#[derive(Default)]
struct Gathered {
    signals: Vec<Signal>,
    intake: IntakeBatch,
    receipts: Vec<Receipt>,
    rounds: Vec<RoundRequest>,
}

impl Intake {
    /// Runs until all listeners are gone or `stop` is set; what was taken from the channel is finished first.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<Batch>, stop: CancellationToken) {
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
            self.gather(&mut gathered, first);
            while gathered.signals.len() < MOST_SIGNALS && gathered.receipts.len() < MOST_BATCHES {
                let Ok(more) = batches.try_recv() else { break };
                self.gather(&mut gathered, more);
            }
            self.take_in(gathered, &stop).await;
        }
    }

    fn gather(&mut self, gathered: &mut Gathered, batch: Batch) {
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
            self.told.note(reject, self.clock.monotonic());
        }
        gathered.intake.rejects.extend(batch.rejects);
        gathered.intake.positions.extend(batch.positions.into_iter().map(|p| (self.connection.clone(), p)));
        gathered.receipts.push(batch.receipt);
    }

    async fn take_in(&self, mut gathered: Gathered, stop: &CancellationToken) {
        let rules = Arc::clone(&self.rules.borrow());
        let (fresh, keys, duplicates) = self.without_duplicates(std::mem::take(&mut gathered.signals), &rules).await;
        let timers = &rules.policy.timers;
        let quiet = timers.quiet.to_std().unwrap_or_default();
        let max_wait = timers.max_wait.to_std().unwrap_or_default();
        gathered.intake.duplicates = duplicates;
        gathered.intake.signals = fresh
            .into_iter()
            .filter_map(|signal| match &signal.target {
                Target::Record(record) => Some(DueSignal { record: record.clone(), signal, quiet, max_wait }),
                Target::Mailbox(_) | Target::Org => None,
            })
            .collect();
        if !self.accept_until_stopped(&gathered.intake, stop).await {
            self.cache.release(&keys).await;
            return;
        }
        self.cache.confirm(&keys, self.settings.seen_ttl).await;
        for receipt in gathered.receipts {
            receipt.done();
        }
        for round in gathered.rounds {
            // The receiver lives as long as the engine; when it is gone, the stored wish starts the round next time.
            let _gone = self.rounds.send(round);
        }
        if !gathered.intake.signals.is_empty() {
            self.lanes.notify_one();
        }
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

    /// Drops signals whose key is confirmed in the cache; returns the others with the keys to confirm.
    async fn without_duplicates(
        &self,
        signals: Vec<Signal>,
        rules: &Rules,
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
        let known: BTreeMap<SeenKey, Seen> = keys.iter().cloned().zip(seen).collect();
        let mut duplicates = BTreeMap::new();
        let mut fresh = Vec::with_capacity(signals.len());
        for (signal, key) in signals.into_iter().zip(keyed) {
            if key.as_ref().and_then(|key| known.get(key)) == Some(&Seen::Done) {
                let stream = signal.position.map_or_else(|| StreamId::new("unknown"), |position| position.stream);
                *duplicates.entry(stream).or_default() += 1;
            } else {
                fresh.push(signal);
            }
        }
        let unconfirmed = known.into_iter().filter(|(_, seen)| *seen != Seen::Done).map(|(key, _)| key).collect();
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
