//! Runs plans: reads, plans, records intents, writes, settles; many lanes at a time, so that they share calls.
//!
//! ```text
//!   claims -> read both sides -> join lanes -> plan <-> look up -> commit intents -> write -> settle -> commit, release
//! ```
//!
//! Decides nothing by itself: what is written comes from `calbridge_core::plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{ConnectionId, RecordId, WriteToken};
use calbridge_core::link::{Action, Intent, Link, LinkState};
use calbridge_core::observed::Why;
use calbridge_core::plan::{Alias, Outcome, Plan, Planned, Settled, plan};
use calbridge_core::policy::Rules;
use calbridge_core::reason::Reason;
use calbridge_core::settle::settle;
use calbridge_core::side::{BothSides, Side};
use calbridge_core::written::{TOO_LATE, WriteResult};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

use crate::engine::lookups::unanswered;
use crate::engine::work::Work;
use crate::engine::{facts, journal};
use crate::mistakes::{Mistake, is_made};
use crate::points::{Point, pass};
use crate::ports::{Calendar, Claim, Clock, Commit, DeadLetter, EnrolmentRow, Fence, Joined, Store, StoreError};
use crate::telemetry::events::{self, RunEnded};

/// Rounds of look-ups after which a plan must stand; each round asks for something new, so more would be a defect.
const MOST_ROUNDS: usize = 8;

/// Works on groups of claimed lanes.
pub(super) struct Executor {
    pub(super) connection: ConnectionId,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) calendars: BothSides<Arc<dyn Calendar>>,
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    pub(super) enrolments: watch::Receiver<Vec<EnrolmentRow>>,
    pub(super) owner: String,
    pub(super) lease: Duration,
}

/// Whether a group of lanes was small enough to be carried through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Every write could be sent in time.
    Kept,
    /// Some were recorded and then not sent, because the group took too long.
    Lost,
}

impl Executor {
    /// Runs claimed lanes to their commit; tells whether all of them were carried through in time.
    pub(super) async fn run(&self, claims: Vec<Claim>) -> Pace {
        let mut held_since = self.clock.monotonic();
        let rules = Arc::clone(&self.rules.borrow());
        let mut group: Vec<Work> = claims.into_iter().map(Work::new).collect();
        self.read(&mut group).await;
        let mut group = self.join(group).await;
        self.read(&mut group).await;
        self.plan(&mut group, &rules).await;
        let group = self.still_held(group, &mut held_since).await;
        let sent = if is_made(Mistake::SendsBeforeRecording) { Some(self.send(steps(&group)).await) } else { None };
        let recorded = self.commit_plans(group, &rules).await;
        let recorded = self.still_held(recorded, &mut held_since).await;
        if recorded.is_empty() {
            return Pace::Kept;
        }
        let late = self.too_late(&recorded, held_since, &rules);
        self.write(recorded, &rules, sent, &late).await;
        if late.is_empty() { Pace::Kept } else { Pace::Lost }
    }

    /// Reads every record that a lane needs and has not read yet, across lanes in shared calls.
    async fn read(&self, group: &mut [Work]) {
        let wanted: BTreeSet<RecordId> = group.iter().flat_map(Work::unread).collect();
        pass(Point::BeforeRead);
        let found = self.fetch(wanted).await;
        pass(Point::AfterRead);
        for work in group {
            for record in work.unread() {
                if let Some(observed) = found.get(&record) {
                    work.reads.insert(record, observed.clone());
                    work.calls += 1;
                }
            }
        }
    }

    /// Brings lanes together whose records turn out to be the same meeting.
    async fn join(&self, group: Vec<Work>) -> Vec<Work> {
        let mut joined: Vec<Work> = Vec::with_capacity(group.len());
        for mut work in group {
            let names: Vec<Alias> = work.new_names(&self.connection);
            if names.is_empty() {
                joined.push(work);
                continue;
            }
            pass(Point::BeforeJoin);
            let joining = self.store.join(&work.claim, &names, &self.owner, self.lease).await;
            pass(Point::AfterJoin);
            match joining {
                Ok(Joined::Alone) => joined.push(work),
                Ok(Joined::Merged(claim)) => {
                    work.claim = *claim;
                    joined.push(work);
                }
                Ok(Joined::Busy) => self.give_back(&work.claim).await,
                Err(error) => events::store_failed(&format!("join lanes: {error}")),
            }
        }
        joined
    }

    /// Gives a lane back whose meeting another worker holds; it becomes due again shortly.
    async fn give_back(&self, claim: &Claim) {
        let now = self.clock.now();
        let commit = Commit {
            wake_at: Some(now + TimeDelta::milliseconds(200)),
            tries: claim.tries,
            instruction: claim.instruction,
            release: true,
            ..Commit::default()
        };
        for result in self.store.commit(vec![(claim.fence, commit)], now).await {
            if let Err(error) = result {
                events::store_failed(&format!("give a lane back: {error}"));
            }
        }
    }

    /// Plans each lane, answering look-ups until every plan stands.
    async fn plan(&self, group: &mut [Work], rules: &Rules) {
        let enrolments: Vec<Enrolment> = self.enrolments.borrow().iter().map(|row| row.enrolment.clone()).collect();
        for _ in 0..MOST_ROUNDS {
            let now = self.clock.now();
            let mut wanted = BTreeSet::new();
            for work in group.iter_mut().filter(|work| work.plan.is_none()) {
                match plan(&work.case(&self.connection, &enrolments), rules, now, &work.fresh) {
                    Planned::Plan(plan) => work.plan = Some(*plan),
                    Planned::Need(lookups) => {
                        work.calls += u32::try_from(lookups.len()).unwrap_or(u32::MAX);
                        wanted.extend(lookups.iter().cloned());
                        work.lookups.extend(lookups.into_iter().map(|lookup| (lookup, unanswered())));
                    }
                }
            }
            if wanted.is_empty() {
                return;
            }
            let answers = self.look_up(wanted).await;
            for work in group.iter_mut().filter(|work| work.plan.is_none()) {
                for (lookup, answer) in &mut work.lookups {
                    if let Some(found) = answers.get(lookup) {
                        answer.clone_from(found);
                    }
                }
                work.take_reads();
            }
        }
    }

    /// Prolongs leases when the group took long, and leaves out lanes that another worker has by now.
    ///
    /// Without an answer nothing is left: what was recorded is found again by the next run of the lane.
    async fn still_held(&self, mut group: Vec<Work>, held_since: &mut Instant) -> Vec<Work> {
        let asked_at = self.clock.monotonic();
        if group.is_empty() || is_careless() || asked_at.duration_since(*held_since) < self.lease / 3 {
            return group;
        }
        let fences: Vec<Fence> = group.iter().map(|work| work.claim.fence).collect();
        match self.store.renew(&fences, self.lease).await {
            Ok(lost) => {
                *held_since = asked_at;
                group.retain(|work| !lost.contains(&work.claim.fence));
            }
            Err(error) => {
                events::store_failed(&format!("renew leases: {error}"));
                group.clear();
            }
        }
        group
    }

    /// Finds writes that it is too late to send: a process that slept may have lost its lanes, and others may count on it
    /// that what was recorded long ago can no longer take effect.
    fn too_late(&self, group: &[Work], held_since: Instant, rules: &Rules) -> BTreeSet<WriteToken> {
        if is_careless() {
            return BTreeSet::new();
        }
        let now = self.clock.now();
        let request = rules.policy.timers.request_timeout.to_std().unwrap_or_default();
        let held = self.clock.monotonic().duration_since(held_since) + request <= self.lease;
        let mut late = BTreeSet::new();
        for work in group {
            let steps = work.plan.iter().flat_map(|plan| &plan.steps);
            if !held || steps.clone().any(|step| now > step.send_by) {
                events::too_late_to_send(work.claim.fence.lane);
                late.extend(steps.map(|step| step.token));
            }
        }
        late
    }

    /// Commits what was planned: finished lanes are released, lanes with writes have their intents recorded.
    ///
    /// Returns the lanes whose writes may be sent now.
    async fn commit_plans(&self, group: Vec<Work>, rules: &Rules) -> Vec<Work> {
        let now = self.clock.now();
        let mut works = Vec::new();
        let mut commits = Vec::new();
        for mut work in group {
            let Some(plan) = work.plan.take() else {
                events::plan_unfinished(work.claim.fence.lane);
                self.give_back(&work.claim).await;
                continue;
            };
            commits.push((work.claim.fence, self.commit_of(&work, &plan, rules, now)));
            work.span().in_scope(|| self.tell(&work, &plan));
            work.plan = Some(plan);
            works.push(work);
        }
        pass(Point::BeforeRecord);
        let results = self.store.commit(commits, now).await;
        pass(Point::AfterRecord);
        let mut to_write = Vec::new();
        for (work, result) in works.into_iter().zip(results) {
            match result {
                Ok(()) if work.has_steps() => to_write.push(work),
                Ok(()) => {}
                Err(StoreError::Fenced) if is_made(Mistake::IgnoresTheFence) && work.has_steps() => to_write.push(work),
                Err(error) => {
                    events::commit_refused(work.claim.fence.lane, &error);
                    if !matches!(error, StoreError::Fenced) {
                        self.give_back(&work.claim).await;
                    }
                }
            }
        }
        to_write
    }

    fn commit_of(&self, work: &Work, plan: &Plan, rules: &Rules, now: DateTime<Utc>) -> Commit {
        let covered: BTreeSet<&RecordId> = plan.covered.iter().collect();
        let cleared = work.claim.notices.iter().filter(|row| covered.contains(&row.notice.record));
        let failed = plan.outcome == Outcome::Wait;
        let writes = !plan.steps.is_empty();
        let mut journal = journal::decided(&self.connection, &work.claim, plan, rules, work.calls, now);
        let run = journal.iter_mut().find(|row| row.outcome.is_some());
        if failed && let (Some(row), Some(why)) = (run, work.failure()) {
            row.error = Some(format!("{}: {}", why.code, why.message));
        }
        Commit {
            link: plan.next.clone(),
            cleared: cleared.map(|row| (row.notice.record.clone(), row.generation)).collect(),
            facts_from: Some(facts::needed_from(plan, now)),
            aliases: plan.aliases.clone(),
            journal,
            dead_letter: self.letter_of(work, plan, now),
            spends: plan.spends.clone(),
            unspent_since: None,
            instruction: work.claim.instruction,
            instructed: plan.instructed,
            // Until the answer is in, a crash must find the lane again by itself.
            wake_at: if writes { Some(now) } else { plan.wake_at },
            tries: match plan.steps.iter().map(|step| step.sends).max() {
                None if failed => work.claim.tries.saturating_add(1),
                Some(sends) if sends > 1 => work.claim.tries,
                None | Some(_) => 0,
            },
            release: !writes,
        }
    }

    /// Returns what a person must see after a run: a failure, or a write that waits for approval.
    fn letter_of(&self, work: &Work, plan: &Plan, now: DateTime<Utc>) -> Option<DeadLetter> {
        let link = plan.next.as_ref();
        let (held, reason) = match (link.map(|link| &link.state), plan.outcome) {
            (Some(LinkState::Held { reason, .. }), _) => (true, *reason),
            (Some(LinkState::DeadLetter { reason, .. }), Outcome::DeadLetter) => (false, *reason),
            (None, Outcome::Hold) => (true, plan.reasons.first().copied().unwrap_or(Reason::StampUnknown)),
            _ => return None,
        };
        let noticed = work.claim.notices.first().map(|row| row.notice.record.clone());
        let linked = link.and_then(|link| {
            let replicas = Side::BOTH.into_iter().filter_map(|side| link.replicas.get(side).as_ref());
            replicas.map(|replica| replica.record.clone()).next()
        });
        let waiting = link.and_then(|link| link.care.pending.as_ref());
        Some(DeadLetter {
            held,
            connection: self.connection.clone(),
            link: link.map(|link| link.id),
            record: noticed.or(linked),
            reason,
            detail: waiting.map(|pending| pending.wish.words().to_owned()).unwrap_or_default(),
            at: now,
            message: None,
        })
    }

    /// Sends recorded intents in shared calls, but for those that are too late, and settles the answers; `sent` are those of
    /// who sent them too early.
    async fn write(
        &self,
        group: Vec<Work>,
        rules: &Rules,
        sent: Option<BTreeMap<WriteToken, WriteResult>>,
        late: &BTreeSet<WriteToken>,
    ) {
        let (unsent, steps): (Vec<_>, Vec<_>) = steps(&group).into_iter().partition(|step| late.contains(&step.token));
        let mut results: BTreeMap<_, _> = unsent.into_iter().map(|step| (step.token, not_sent())).collect();
        match sent {
            Some(sent) => results.extend(sent),
            None if steps.is_empty() => {}
            None => {
                pass(Point::BeforeSend);
                results.extend(self.send(steps).await);
                pass(Point::AfterAnswer);
            }
        }
        let now = self.clock.now();
        let mut commits = Vec::new();
        for work in &group {
            if let Some(commit) = self.settled(work, &results, rules, now) {
                commits.push((work.claim.fence, commit));
            }
        }
        let lanes: Vec<_> = commits.iter().map(|(fence, _)| fence.lane).collect();
        pass(Point::BeforeSettle);
        let results = self.store.commit(commits, now).await;
        pass(Point::AfterSettle);
        for (lane, result) in lanes.into_iter().zip(results) {
            // The intent stays open then; the next run of the lane reads the record and decides by the token.
            if let Err(error) = result {
                events::commit_refused(lane, &error);
            }
        }
    }

    /// Tells logs and metrics what a run decided.
    fn tell(&self, work: &Work, plan: &Plan) {
        let link = plan.next.as_ref().or(work.claim.link.as_ref());
        let meeting = link.map(|link| link.id);
        let reason = plan.reasons.first().copied().unwrap_or(Reason::InStep);
        let signals = work.claim.notices.iter().map(|row| row.signals).sum();
        let connection = &self.connection;
        events::run_ended(&RunEnded {
            connection,
            meeting,
            outcome: plan.outcome,
            reason,
            signals,
            echoes: plan.echoes,
        });
        if plan.echoes > 0 {
            let side = link.and_then(|link| link.last_writer).map_or(Side::Outlook, Side::other);
            events::echoes_recognised(side, u64::from(plan.echoes));
        }
        let lost = plan.decisions.iter().filter(|decision| decision.reason == Reason::OverwrittenUnseen).count();
        if lost > 0 {
            events::overwritten_unseen(connection, meeting, lost as u64);
        }
        for record in work.reads.keys() {
            events::calls_spent(record.side(), 1);
        }
        if plan.outcome == Outcome::DeadLetter {
            events::dead_letter_made(connection, meeting, reason);
        }
        if let Some(LinkState::Held { reason, .. }) = plan.next.as_ref().map(|link| &link.state)
            && work.claim.link.as_ref().map(|link| &link.state) != plan.next.as_ref().map(|link| &link.state)
        {
            events::write_held(connection, meeting, *reason);
        }
        for step in &plan.steps {
            events::write_sent(connection, step.link, step.side, step.action.name(), step.reason);
        }
        events::mails_expected(connection, meeting, plan.mail.recipients);
    }

    /// Tells logs and metrics what became of a write.
    fn tell_settled(&self, work: &Work, intent: &Intent, settled: &Settled, now: DateTime<Utc>) {
        let latency = journal::latency_ms(&work.claim, now).and_then(|ms| u64::try_from(ms).ok());
        let latency = Duration::from_millis(latency.unwrap_or_default());
        let code = settled.error.as_deref();
        events::calls_spent(intent.side, 1);
        events::write_settled(&self.connection, intent.link, intent.side, settled.reason, code, latency);
        if settled.reason == Reason::WriteConfirmed {
            events::crossed(intent.side, latency);
        }
    }

    async fn send(&self, mut intents: Vec<Intent>) -> BTreeMap<WriteToken, WriteResult> {
        if is_careless() {
            for intent in &mut intents {
                intent.send_by = DateTime::<Utc>::MAX_UTC;
            }
        }
        let (outlook, salesforce): (Vec<_>, Vec<_>) = intents.into_iter().partition(|i| i.side == Side::Outlook);
        let send = async |calendar: &Arc<dyn Calendar>, intents: Vec<Intent>| {
            if intents.is_empty() {
                return Vec::new();
            }
            let mut results = calendar.write(&intents).await;
            if is_made(Mistake::RepeatsCreations) {
                for (intent, result) in intents.iter().zip(&mut results) {
                    if matches!((&intent.action, &*result), (Action::Create(_), WriteResult::Unknown(_))) {
                        *result = calendar.write(std::slice::from_ref(intent)).await.remove(0);
                    }
                }
            }
            intents.into_iter().map(|intent| intent.token).zip(results).collect::<Vec<_>>()
        };
        let (outlook, salesforce) =
            tokio::join!(send(&self.calendars.outlook, outlook), send(&self.calendars.salesforce, salesforce));
        outlook.into_iter().chain(salesforce).collect()
    }

    fn settled(
        &self,
        work: &Work,
        results: &BTreeMap<WriteToken, WriteResult>,
        rules: &Rules,
        now: DateTime<Utc>,
    ) -> Option<Commit> {
        let plan = work.plan.as_ref()?;
        let mut link: Link = plan.next.clone()?;
        // The store raised the revision when it took the intents in.
        link.revision += 1;
        let mut commit =
            Commit { release: true, wake_at: plan.wake_at, instruction: work.claim.instruction, ..Commit::default() };
        for intent in &plan.steps {
            let unknown = WriteResult::Unknown(Why {
                code: "CB1200".to_owned(),
                message: "no answer".to_owned(),
                retry_after_ms: None,
            });
            let result = results.get(&intent.token).unwrap_or(&unknown);
            let settled = settle(link, intent, result, rules, now);
            if settled.unspent {
                commit.unspent_since = Some(intent.recorded_at);
            }
            if settled.reason == Reason::WriteFailed {
                commit.tries = work.claim.tries.saturating_add(1);
            }
            if settled.reason == Reason::Refused {
                commit.dead_letter = Some(DeadLetter {
                    held: false,
                    connection: self.connection.clone(),
                    link: Some(settled.link.id),
                    record: intent.action.record().cloned(),
                    reason: settled.reason,
                    detail: journal::detail(result),
                    at: now,
                    message: None,
                });
            }
            let pause = match commit.tries {
                0 => TimeDelta::zero(),
                tries => rules.policy.timers.backoff(tries, intent.token.chance()),
            };
            let wake = settled.wake_at.map(|at| at + pause);
            commit.wake_at = [commit.wake_at, wake].into_iter().flatten().min();
            commit.journal.push(journal::settled(&self.connection, &work.claim, intent, &settled, result, rules, now));
            work.span().in_scope(|| self.tell_settled(work, intent, &settled, now));
            link = settled.link;
        }
        for side in Side::BOTH {
            commit.aliases.extend(link.replicas.get(side).iter().map(|replica| Alias::Record(replica.record.clone())));
        }
        if !link.ical_uid.is_empty() {
            commit.aliases.push(Alias::ICalUid(link.ical_uid.clone(), link.original_start.clone()));
        }
        commit.link = Some(link);
        Some(commit)
    }
}

/// Tells whether this engine was told to send without asking whether it still may.
fn is_careless() -> bool {
    is_made(Mistake::IgnoresTheFence) || is_made(Mistake::SendsWhenItWakes)
}

/// Returns every write that a group plans.
fn steps(group: &[Work]) -> Vec<Intent> {
    group.iter().filter_map(|work| work.plan.as_ref()).flat_map(|plan| plan.steps.iter().cloned()).collect()
}

fn not_sent() -> WriteResult {
    WriteResult::NotNow(Why { code: TOO_LATE.to_owned(), message: "not sent in time".to_owned(), retry_after_ms: None })
}
