//! Rounds: lists everything in a mailbox or the org, because signals may have been missed or never existed.
//!
//! A round that is owed is stored as the position `wanted` of its own stream, in the same transaction as the signal that
//! asked for it; so a crash in the middle of a round runs it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use calbridge_core::ids::{ConnectionId, MailboxId, StreamId};
use calbridge_core::side::{BothSides, Side};
use calbridge_core::signal::{Change, Position, Signal, SignalCause, Target};
use chrono::SecondsFormat;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::ports::{Batch, Calendar, Clock, EnrolmentRow, Receipt, RemoteError, Retry, Store};
use crate::telemetry::events;

/// Code of the error that says that a round's cursor has expired.
const CURSOR_EXPIRED: &str = "CB1310";

/// How long a round rests after its first failure; doubled with each.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Longest rest that no remote asked for.
const LONGEST_REST: Duration = Duration::from_mins(5);

/// Asks for a round.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoundRequest {
    pub(super) side: Side,
    /// The mailbox; none means the Salesforce org.
    pub(super) mailbox: Option<MailboxId>,
    pub(super) cause: SignalCause,
}

impl RoundRequest {
    /// Returns the stream under which the round's progress is stored.
    pub(super) fn stream(&self) -> StreamId {
        match &self.mailbox {
            Some(mailbox) => StreamId::new(format!("round/{}/{mailbox}", self.side)),
            None => StreamId::new(format!("round/{}", self.side)),
        }
    }
}

/// How often rounds run without being asked for.
#[derive(Debug, Clone)]
pub struct SweepSettings {
    /// Each mailbox.
    pub outlook: Duration,
    /// The Salesforce org.
    pub salesforce: Duration,
}

/// Runs rounds, one at a time.
pub(super) struct Rounds {
    pub(super) connection: ConnectionId,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) calendars: BothSides<Arc<dyn Calendar>>,
    pub(super) enrolments: watch::Receiver<Vec<EnrolmentRow>>,
    pub(super) intake: mpsc::Sender<Batch>,
    pub(super) sweeps: SweepSettings,
    /// Whether this instance is the one that sweeps, and that runs the rounds which instances that died owed.
    pub(super) ours: watch::Receiver<bool>,
}

/// How often the instance that sweeps looks for rounds that nobody runs. One that is owed at two looks is taken to be left
/// behind; where it was only slow, its mailbox is listed twice.
const LOOK_FOR_OWED: Duration = Duration::from_mins(1);

impl Rounds {
    /// Runs until stopped.
    pub(super) async fn run(mut self, mut asked: mpsc::UnboundedReceiver<RoundRequest>, stop: CancellationToken) {
        let mut owed: BTreeSet<RoundRequest> = BTreeSet::new();
        if *self.ours.borrow_and_update() {
            owed = self.owed_from_before().await;
        }
        let mut owed_at_last_look: BTreeSet<RoundRequest> = BTreeSet::new();
        // Without other instances there is nobody who could leave a round behind.
        let mut look = tokio::time::interval(LOOK_FOR_OWED);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Those that failed: until when they rest, and how long they rest the next time. None holds up another.
        let mut resting: BTreeMap<RoundRequest, (Instant, Duration)> = BTreeMap::new();
        let mut outlook_sweep = self.clock.now() + self.sweeps.outlook;
        let mut salesforce_sweep = self.clock.now() + self.sweeps.salesforce;
        loop {
            while let Ok(request) = asked.try_recv() {
                owed.insert(request);
            }
            let rested =
                |request: &&RoundRequest| resting.get(*request).is_none_or(|(until, _)| *until <= Instant::now());
            if let Some(request) = owed.iter().find(rested).cloned() {
                let failed = tokio::select! {
                    ended = self.round(&request) => ended.err(),
                    () = stop.cancelled() => return,
                };
                match failed {
                    None => {
                        owed.remove(&request);
                        resting.remove(&request);
                    }
                    Some(asked) => {
                        let pause = resting.get(&request).map_or(FIRST_REST, |(_, next)| *next);
                        let next = (pause * 2).min(LONGEST_REST);
                        resting.insert(request, (Instant::now() + asked.max(pause), next));
                    }
                }
                continue;
            }
            let wakes = owed.iter().filter_map(|request| resting.get(request)).map(|(until, _)| *until).min();
            let next_rested = async {
                match wakes {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = next_rested => {}
                request = asked.recv() => match request {
                    Some(request) => { owed.insert(request); }
                    None => return,
                },
                changed = self.ours.changed(), if self.store.is_shared() => {
                    if changed.is_err() {
                        return;
                    }
                    if *self.ours.borrow_and_update() {
                        owed.extend(self.owed_from_before().await);
                    }
                }
                _ = look.tick(), if self.store.is_shared() && *self.ours.borrow() => {
                    let still = self.owed_from_before().await;
                    owed.extend(still.intersection(&owed_at_last_look).cloned());
                    owed_at_last_look = still;
                }
                () = self.clock.sleep_until(outlook_sweep) => {
                    outlook_sweep = self.clock.now() + self.sweeps.outlook;
                    if !*self.ours.borrow() {
                        continue;
                    }
                    owed.extend(self.mailboxes().into_iter().map(|mailbox| RoundRequest {
                        side: Side::Outlook,
                        mailbox: Some(mailbox),
                        cause: SignalCause::Sweep,
                    }));
                }
                () = self.clock.sleep_until(salesforce_sweep) => {
                    salesforce_sweep = self.clock.now() + self.sweeps.salesforce;
                    if !*self.ours.borrow() {
                        continue;
                    }
                    owed.insert(RoundRequest { side: Side::Salesforce, mailbox: None, cause: SignalCause::Sweep });
                }
                () = stop.cancelled() => return,
            }
        }
    }

    fn mailboxes(&self) -> Vec<MailboxId> {
        self.enrolments.borrow().iter().map(|row| row.enrolment.mailbox.clone()).collect()
    }

    /// Finds rounds that an earlier process owed.
    async fn owed_from_before(&self) -> BTreeSet<RoundRequest> {
        let mut candidates = vec![RoundRequest { side: Side::Salesforce, mailbox: None, cause: SignalCause::Gap }];
        candidates.extend(self.mailboxes().into_iter().map(|mailbox| RoundRequest {
            side: Side::Outlook,
            mailbox: Some(mailbox),
            cause: SignalCause::Gap,
        }));
        let mut owed = BTreeSet::new();
        for candidate in candidates {
            match self.store.checkpoint(&self.connection, &candidate.stream()).await {
                Ok(Some(value)) if value == RoundRequest::WANTED => {
                    owed.insert(candidate);
                }
                // A first round is asked for by the listener, once it stands, so that nothing falls in between.
                Ok(_) => {}
                Err(error) => events::store_failed(&format!("read round progress: {error}")),
            }
        }
        owed
    }

    /// Runs one round; a failure says how long the remote wants to be left alone.
    async fn round(&self, request: &RoundRequest) -> Result<(), Duration> {
        match self.pages(request).await {
            Ok(records) => {
                events::sweep_ended(request.side, records, records);
                self.note_first_round(request).await;
                Ok(())
            }
            Err(error) => {
                events::remote_failed(&error);
                Err(match error.retry {
                    Retry::After(asked) => asked,
                    Retry::Never => LONGEST_REST,
                })
            }
        }
    }

    /// Takes note that a mailbox was listed once, so that its next new subscription only repairs a gap.
    async fn note_first_round(&self, request: &RoundRequest) {
        let of_request = |row: &&EnrolmentRow| Some(&row.enrolment.mailbox) == request.mailbox.as_ref();
        let row = self.enrolments.borrow().iter().find(of_request).filter(|row| !row.first_round_done).cloned();
        if let Some(row) = row {
            let done = EnrolmentRow { first_round_done: true, ..row };
            if let Err(error) = self.store.enrol(&done).await {
                events::store_failed(&format!("note a first round: {error}"));
            }
        }
    }

    async fn pages(&self, request: &RoundRequest) -> Result<u64, RemoteError> {
        let calendar = self.calendars.get(request.side);
        let mut cursor = self.resume(request).await;
        let mut records = 0;
        let mut begun_anew = false;
        loop {
            let page = match calendar.list(request.mailbox.as_ref(), cursor.as_deref()).await {
                // Once: a remote that forgets its cursors at once gets the pause of any other failure.
                Err(error) if error.code == CURSOR_EXPIRED && cursor.is_some() && !begun_anew => {
                    begun_anew = true;
                    cursor = None;
                    continue;
                }
                other => other?,
            };
            if page.next.is_some() && page.next == cursor {
                return Err(RemoteError {
                    code: match request.side {
                        Side::Outlook => "CB1312",
                        Side::Salesforce => "CB1363",
                    },
                    message: "a page of a round names itself as the next one".to_owned(),
                    retry: Retry::After(Duration::from_mins(1)),
                    side: request.side,
                });
            }
            records += page.records.len() as u64;
            let last = page.next.is_none();
            let looked_at = self.clock.now();
            let signals = page.records.into_iter().map(|(record, removed)| Signal {
                connection: self.connection.clone(),
                side: request.side,
                target: Target::Record(record),
                change: if removed { Change::Deleted } else { Change::Unknown },
                cause: request.cause,
                version: None,
                facts: None,
                position: Some(Position {
                    stream: request.stream(),
                    value: looked_at.to_rfc3339_opts(SecondsFormat::Millis, true),
                }),
                received_at: looked_at,
            });
            let (receipt, taken) = Receipt::new();
            let position = Position { stream: request.stream(), value: page.resume.unwrap_or_default() };
            let batch = Batch {
                signals: signals.collect(),
                rejects: Vec::new(),
                positions: if last { vec![position] } else { Vec::new() },
                receipt,
            };
            // Without intake there is nobody left to run rounds for.
            if self.intake.send(batch).await.is_err() || taken.await.is_err() {
                return Ok(records);
            }
            if last {
                return Ok(records);
            }
            cursor = page.next;
        }
    }

    /// Returns where a sweep goes on; gaps and first rounds look at everything.
    async fn resume(&self, request: &RoundRequest) -> Option<String> {
        if request.cause != SignalCause::Sweep {
            return None;
        }
        let stored = self.store.checkpoint(&self.connection, &request.stream()).await.ok().flatten();
        stored.filter(|value| !value.is_empty() && value != RoundRequest::WANTED)
    }
}
