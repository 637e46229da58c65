//! The smallest engine around the core: one or two workers that claim lanes, record intents before they send, and may
//! die or stand still between any two steps.
//!
//! A [`Mutant`] breaks one rule of it, to prove that the simulation would notice.

use std::collections::BTreeMap;

use calbridge_core::case::{Answer, Case, Enrolment, Fact, Fresh, Instruction, Lookup};
use calbridge_core::ids::{ConnectionId, LinkId, RecordId, WriteToken};
use calbridge_core::link::{Intent, Link, LinkState, Wish};
use calbridge_core::observed::Observed;
use calbridge_core::plan::{Outcome, Plan, Planned, plan};
use calbridge_core::policy::{Policy, Rules};
use calbridge_core::reason::Reason;
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::written::WriteResult;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::mistakes;
use crate::mutants::Mutant;
use crate::oracle::Account;
use crate::setting::{Setting, setting};
use crate::sim::{Engine, Stage, answer, looks, said};
use crate::store::{Budgets, LEASE, Lane, belongs, open_intents};
use crate::swarm::Swarm;
use crate::world::{Message, USERS};
use crate::writes::send;

#[derive(Debug, Clone)]
pub(crate) struct Calbridge {
    setting: Setting,
    /// The rules since a backup was put back: the policy knows when.
    restored: Option<Box<Rules>>,
    mutant: Option<Mutant>,
    lanes: Vec<Lane>,
    budgets: Budgets,
    /// A copy of both, and the messages that came after it.
    backup: Option<(Vec<Lane>, Budgets)>,
    since_backup: Vec<Message>,
    workers: Vec<Worker>,
    ids: u128,
    /// Lent to each case in turn.
    enrolments: Vec<Enrolment>,
}

/// A process: what it holds in memory dies with it.
#[derive(Debug, Clone, Default)]
struct Worker {
    job: Option<(Job, Phase)>,
    awake_at: DateTime<Utc>,
}

/// A run of one lane, between its claim and its last commit.
#[derive(Debug, Clone)]
struct Job {
    lane: usize,
    fence: u64,
    /// Until when the worker itself believes to own the lane.
    owned_until: DateTime<Utc>,
    /// Number of the lane's last signal by then.
    claimed: u32,
    /// What a person had said by then.
    told: Option<Instruction>,
}

#[derive(Debug, Clone)]
enum Phase {
    /// Read and plan what the claim showed.
    Plan(Box<Case>),
    /// Record what was planned.
    Commit(Box<Plan>),
    /// Send the intent of this number.
    Send(Box<Plan>, usize, Box<Outgoing>),
    /// Record what became of the writes.
    Settle(Box<Outgoing>),
}

/// A link while its writes are sent.
#[derive(Debug, Clone)]
struct Outgoing {
    link: Link,
    wake_at: Option<DateTime<Utc>>,
    /// Reasons of the settlements so far.
    reasons: Vec<Reason>,
}

impl Calbridge {
    pub(crate) fn new(swarm: &Swarm, mutant: Option<Mutant>) -> Self {
        Self {
            setting: setting(swarm),
            restored: None,
            mutant,
            lanes: vec![Lane::default(); swarm.kinds.len()],
            budgets: Budgets::default(),
            backup: None,
            since_backup: Vec::new(),
            workers: vec![Worker::default(); swarm.workers],
            ids: 0,
            enrolments: setting(swarm).enrolments.to_vec(),
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn rules(&self) -> &Rules {
        self.restored.as_deref().unwrap_or(self.setting.rules)
    }

    fn holds_back(&self) -> bool {
        self.is(Mutant::JournalsWhenConfirmed) || self.is(Mutant::BothBAndC)
    }

    /// Gives a due lane to an idle worker.
    fn claim(&mut self, now: DateTime<Utc>) -> Option<(Job, Phase)> {
        let claimable = |lane: &Lane| lane.claimable_at().is_some_and(|at| at <= now);
        let index = self.lanes.iter().position(claimable)?;
        let fence = self.lanes[index].claim(now);
        let (claimed, told) = (self.lanes[index].generation, self.lanes[index].instruction);
        let job = Job { lane: index, fence, owned_until: now + LEASE, claimed, told };
        Some((job, Phase::Plan(Box::new(self.case(index)))))
    }

    /// All that the database knows of a lane.
    fn case(&self, index: usize) -> Case {
        let lane = &self.lanes[index];
        let mut link = lane.link.clone();
        if let Some(link) = link.as_mut().filter(|_| self.is(Mutant::RepeatsCreations)) {
            for side in Side::BOTH {
                if let Some(intent) = link.intents.get_mut(side) {
                    intent.give_up_at = DateTime::UNIX_EPOCH;
                }
            }
        }
        if let Some(link) = &mut link {
            let approved = self.lanes.iter().any(|lane| lane.approved);
            if let Some(mutant) = self.mutant {
                mutant.misremember(link, approved);
            }
        }
        let facts = if self.is(Mutant::AuditsNothing) { &[][..] } else { &lane.facts[..] };
        Case {
            connection: ConnectionId::new("c"),
            link,
            reads: BTreeMap::new(),
            notices: lane.dirty.iter().map(|dirty| dirty.notice.clone()).collect(),
            enrolments: Vec::new(),
            lookups: Vec::new(),
            facts: facts.iter().map(|(_, _, fact)| self.told_by(fact)).collect(),
            instruction: lane.instruction,
            tries: lane.tries,
        }
    }

    fn told_by(&self, fact: &Fact) -> Fact {
        let mut fact = fact.clone();
        if self.is(Mutant::MailsWithoutAPerson) {
            USERS[0].clone_into(&mut fact.facts.user);
        }
        fact
    }

    fn read(&self, stage: &mut Stage, link: Option<&Link>, record: &RecordId) -> Observed {
        let mut observed = stage.world.read(&mut stage.dice, record);
        if let Some(mutant) = self.mutant {
            mutant.misread(link, record, &mut observed);
        }
        observed
    }

    fn plan(&mut self, stage: &mut Stage, mut case: Case) -> Result<Plan, String> {
        case.enrolments = std::mem::take(&mut self.enrolments);
        let planned = self.plan_case(stage, &mut case);
        self.enrolments = case.enrolments;
        planned
    }

    fn plan_case(&mut self, stage: &mut Stage, case: &mut Case) -> Result<Plan, String> {
        let mut records: Vec<RecordId> = case.notices.iter().map(|notice| notice.record.clone()).collect();
        for side in Side::BOTH {
            let replica = case.link.as_ref().and_then(|link| link.replicas.get(side).as_ref());
            if let Some(replica) = replica.filter(|replica| !records.contains(&replica.record)) {
                records.push(replica.record.clone());
            }
        }
        records.sort();
        for record in records {
            let observed = self.read(stage, case.link.as_ref(), &record);
            case.reads.insert(record, observed);
        }
        self.ids += 3;
        let fresh = Fresh {
            link: LinkId::new(Uuid::from_u128(self.ids)),
            outlook: WriteToken::new(Uuid::from_u128(self.ids + 1)),
            salesforce: WriteToken::new(Uuid::from_u128(self.ids + 2)),
        };
        for _ in 0..8 {
            match plan(case, self.rules(), stage.world.now, &fresh) {
                Planned::Plan(plan) => {
                    if self.is(Mutant::DeletesAtOnce) && plan.reasons.contains(&Reason::DeleteWaits) {
                        case.link = plan.next;
                        let pending = case.link.as_mut().and_then(|link| link.care.pending.as_mut());
                        pending.expect("a deletion waits").since = DateTime::UNIX_EPOCH;
                        continue;
                    }
                    if self.is(Mutant::SendsWhatIsHeld) && plan.outcome == Outcome::Hold && plan.next.is_some() {
                        case.instruction = Some(Instruction::Approve);
                        case.link = plan.next;
                        continue;
                    }
                    return Ok(*plan);
                }
                Planned::Need(lookups) => {
                    for lookup in lookups {
                        if let Lookup::Census { link, mailbox, author } = &lookup {
                            let asked = (*link, mailbox.as_ref(), author.as_ref());
                            let census = self.budgets.census(&self.lanes, asked, stage.world.now);
                            case.lookups.push((lookup, Answer::Counted(census)));
                            continue;
                        }
                        let found = match &lookup {
                            Lookup::Read(record) => {
                                vec![(record.clone(), self.read(stage, case.link.as_ref(), record))]
                            }
                            Lookup::Stamped { side, link, .. } => stage.world.stamped(&mut stage.dice, *side, *link),
                            Lookup::Partners { side, of, .. } => stage.world.partners(&mut stage.dice, *side, of),
                            Lookup::Candidates { .. } | Lookup::Census { .. } => Vec::new(),
                        };
                        case.lookups.push((lookup, Answer::Found(found)));
                    }
                }
            }
        }
        Err("a plan needed more than 8 rounds of look-ups".to_owned())
    }

    /// Takes one step of a run; returns what is left of it.
    fn step(&mut self, stage: &mut Stage, mut job: Job, phase: Phase) -> Result<Option<(Job, Phase)>, String> {
        let now = stage.world.now;
        let lane = job.lane;
        let next = match phase {
            Phase::Plan(case) => {
                let noticed = if self.is(Mutant::CoversTheUnseen) { case.notices.clone() } else { Vec::new() };
                let mut plan = self.plan(stage, *case)?;
                stage.note(|_| {
                    let steps: Vec<_> = plan.steps.iter().map(|step| (step.action.name(), step.side.name())).collect();
                    let (name, wake) = (plan.outcome.name(), plan.wake_at);
                    format!("lane {lane} plans {name} {steps:?} because {:?}, wakes at {wake:?}", plan.reasons)
                });
                if self.is(Mutant::CoversTheUnseen) && plan.outcome != Outcome::Wait {
                    plan.covered = noticed.into_iter().map(|notice| notice.record).collect();
                    if plan.reasons.contains(&Reason::VersionNotSeen) {
                        plan.wake_at = None;
                    }
                    for side in Side::BOTH {
                        let replica = plan.next.as_mut().and_then(|link| link.replicas.get_mut(side).as_mut());
                        if let Some(replica) = replica {
                            replica.look_at = None;
                        }
                    }
                }
                Phase::Commit(Box::new(plan))
            }
            Phase::Commit(mut plan) => {
                if !self.holds_lane(stage, &job) {
                    return Ok(None);
                }
                let link = if plan.steps.is_empty() { None } else { plan.next.clone() };
                if !self.spend(&plan, now) {
                    stage.note(|_| format!("lane {lane} gives its plan up: another meeting used up what it needs"));
                    self.lanes[lane].give_back(now);
                    return Ok(None);
                }
                self.commit_plan(stage, &job, &mut plan);
                job.owned_until = now + LEASE;
                let Some(link) = link else { return Ok(None) };
                let outgoing = Outgoing { link, wake_at: plan.wake_at, reasons: Vec::new() };
                Phase::Send(plan, 0, Box::new(outgoing))
            }
            Phase::Send(plan, number, mut outgoing) => {
                let intent = &plan.steps[number];
                if !self.may_send(&job, intent, now) {
                    stage.note(|_| format!("lane {lane} sends nothing: its lease or its time is over"));
                    return Ok(None);
                }
                let result = send(stage, lane, intent);
                stage.note(|_| {
                    let fields: Vec<String> = intent.fields.iter().map(|(name, value)| said(name, value)).collect();
                    let (side, action) = (intent.side, intent.action.name());
                    format!("lane {lane} sends {action} to {side} {}: {}", fields.join(" "), answer(&result))
                });
                self.take_answer(&mut outgoing, intent, &result, now);
                let next = number + 1;
                if next < plan.steps.len() { Phase::Send(plan, next, outgoing) } else { Phase::Settle(outgoing) }
            }
            Phase::Settle(outgoing) => {
                if self.holds_lane(stage, &job) {
                    let confirmed = outgoing.reasons.contains(&Reason::WriteConfirmed);
                    let open = open_intents(&outgoing.link).next().is_some();
                    if self.holds_back() && !open {
                        self.lanes[lane].let_go(confirmed);
                    }
                    self.lanes[lane].commit_settled(now, outgoing.link, outgoing.wake_at);
                    self.forget(lane);
                }
                return Ok(None);
            }
        };
        Ok(Some((job, next)))
    }

    /// Tells whether a commit goes through: it carries the fence of its claim.
    fn holds_lane(&self, stage: &mut Stage, job: &Job) -> bool {
        let current = self.lanes[job.lane].fence;
        if current == job.fence {
            return true;
        }
        if self.is(Mutant::IgnoresTheFence) {
            let fence = job.fence;
            stage.world.breaks(|| format!("S8: a commit under fence {fence}, while {current} owns the lane"));
            return true;
        }
        stage.note(|_| format!("lane {} refuses the commit: its owner is another worker", job.lane));
        false
    }

    /// A worker stops sending while a request may still end within its lease, and the request's late effect within the
    /// time after which the next run gives it up.
    fn may_send(&self, job: &Job, intent: &Intent, now: DateTime<Utc>) -> bool {
        let timers = &self.setting.rules.policy.timers;
        let in_lease = now + timers.request_timeout <= job.owned_until;
        let in_time = now + timers.late_apply <= intent.give_up_at;
        in_lease && in_time || self.is(Mutant::SendsWhenItWakes)
    }

    /// Takes down what a plan uses up; tells whether there was enough.
    fn spend(&mut self, plan: &Plan, now: DateTime<Utc>) -> bool {
        let Some(link) = plan.next.as_ref().filter(|_| !plan.spends.is_empty()) else { return true };
        let mut spends = plan.spends.clone();
        if self.is(Mutant::SpendsUncounted) {
            for spend in &mut spends {
                spend.limit = u32::MAX;
            }
        }
        self.budgets.spend(link.id, &spends, now)
    }

    fn commit_plan(&mut self, stage: &mut Stage, job: &Job, plan: &mut Plan) {
        let claimed = if self.is(Mutant::ClearsWhatCameMeanwhile) { u32::MAX } else { job.claimed };
        let (silent, holds_back) = (self.is(Mutant::JournalsNothing), self.holds_back());
        let lane = &mut self.lanes[job.lane];
        if holds_back {
            let confirmed = plan.reasons.contains(&Reason::WriteConfirmed);
            if plan.next.as_ref().is_none_or(|link| open_intents(link).next().is_none()) || !plan.steps.is_empty() {
                lane.let_go(confirmed);
            }
            if plan.steps.is_empty() { lane.write_journal(plan) } else { lane.hold_back(plan) }
        } else if !silent {
            lane.write_journal(plan);
        }
        lane.approved |= plan.reasons.contains(&Reason::Approved);
        lane.commit_plan(stage.world.now, plan, claimed, job.told);
        stage.world.mark(job.lane as u64 | (plan.outcome as u64) << 8 | (plan.reasons.len() as u64) << 16);
        self.forget(job.lane);
    }

    /// What a mutant does: it does not remember what its own confirmed writes made.
    fn forget(&mut self, lane: usize) {
        if let (Some(link), true) = (self.lanes[lane].link.as_mut(), self.mutant == Some(Mutant::ForgetsItsOwnWrites)) {
            mistakes::forget_own_writes(link);
        }
    }

    fn take_answer(&self, outgoing: &mut Outgoing, intent: &Intent, result: &WriteResult, now: DateTime<Utc>) {
        let mut intent = intent.clone();
        if self.is(Mutant::BelievesTheLastAnswer) || self.is(Mutant::BothBAndC) {
            intent.sends = 1;
        }
        let settled = settle(outgoing.link.clone(), &intent, result, self.rules(), now);
        outgoing.wake_at = [outgoing.wake_at, settled.wake_at].into_iter().flatten().min();
        outgoing.reasons.push(settled.reason);
        outgoing.link = settled.link;
    }

    /// What may happen to a worker between two steps; tells whether it goes on at once.
    fn goes_on(&mut self, stage: &mut Stage, worker: usize) -> bool {
        let rates = stage.world.swarm.rates;
        if stage.world.strikes(&mut stage.dice, rates.crashes) {
            stage.note(|_| format!("worker {worker} dies"));
            self.workers[worker].job = None;
            return false;
        }
        if stage.world.strikes(&mut stage.dice, rates.edits_underneath) {
            stage.person_acts(self);
        }
        if stage.world.strikes(&mut stage.dice, rates.pauses) {
            // Often shorter than anything that runs out, else longer than a lease.
            let most = dice_pause(stage);
            let pause = stage.dice.millis(most);
            self.workers[worker].awake_at = stage.world.now + pause;
            stage.note(|_| format!("worker {worker} stands still for {} ms", pause.num_milliseconds()));
            return false;
        }
        true
    }
}

fn dice_pause(stage: &mut Stage) -> u64 {
    if stage.dice.below(2) == 0 { 3_000 } else { 100_000 }
}

impl Engine for Calbridge {
    fn signal(&mut self, now: DateTime<Utc>, message: Message) {
        let timers = &self.setting.rules.policy.timers;
        let lane = message.meeting;
        if self.backup.is_some() {
            self.since_backup.push(message.clone());
        }
        self.lanes[lane].signal(now, timers.quiet, timers.max_wait, message);
    }

    fn due(&self) -> Option<DateTime<Utc>> {
        let busy = self.workers.iter().filter(|worker| worker.job.is_some()).map(|worker| worker.awake_at).min();
        if self.workers.iter().all(|worker| worker.job.is_some()) {
            return busy;
        }
        self.lanes.iter().filter_map(Lane::claimable_at).chain(busy).min()
    }

    fn knows(&self, record: &RecordId) -> bool {
        self.lanes.iter().filter_map(|lane| lane.link.as_ref()).any(|link| belongs(link, record))
    }

    fn buried(&self, meeting: usize) -> bool {
        let state = self.lanes[meeting].link.as_ref().map(|link| &link.state);
        let Some(LinkState::Tombstone { reason, .. }) = state else { return false };
        matches!(reason, Reason::DeletedInOutlook | Reason::DeletedInSalesforce | Reason::BothGone)
    }

    fn back_up(&mut self) {
        self.backup = Some((self.lanes.clone(), self.budgets.clone()));
    }

    fn put_back(&mut self, stage: &mut Stage) {
        let now = stage.world.now;
        let Some((lanes, budgets)) = self.backup.take() else { return };
        let lost = std::mem::replace(&mut self.lanes, lanes);
        for (lane, lost) in self.lanes.iter_mut().zip(lost) {
            lane.put_back(now, lost);
        }
        self.budgets = budgets;
        self.workers.fill(Worker::default());
        let Rules { mapping, policy } = self.setting.rules.clone();
        self.restored = Some(Box::new(Rules { mapping, policy: Policy { restored_at: Some(now), ..policy } }));
        // The streams are read again from the places that the backup knows, where these are retained.
        let missed = std::mem::take(&mut self.since_backup);
        if stage.dice.below(2) == 0 {
            for message in missed {
                self.signal(now, message);
            }
        }
    }

    fn ask_a_person(&mut self, stage: &mut Stage) -> bool {
        let now = stage.world.now;
        let goes_round = stage.world.swarm.answering;
        let waits = |lane: &Lane| match lane.link.as_ref().map(|link| &link.state) {
            None => lane.asks,
            Some(LinkState::Held { .. }) => true,
            Some(LinkState::DeadLetter { reason: Reason::Oscillation, .. }) => !goes_round,
            Some(_) => false,
        };
        let Some(index) = self.lanes.iter().position(|lane| lane.instruction.is_none() && waits(lane)) else {
            return false;
        };
        let link = self.lanes[index].link.as_ref();
        let pending = link.and_then(|link| link.care.pending.as_ref());
        let deletes = pending.is_some_and(|pending| pending.wish == Wish::Delete);
        let failed = link.is_some_and(|link| matches!(link.state, LinkState::DeadLetter { .. }));
        let unlinked = link.is_none();
        let makes = link.is_none_or(|link| link.replicas.outlook.is_none() || link.replicas.salesforce.is_none());
        let left = Side::BOTH.into_iter().find(|side| stage.world.alive(index, *side).next().is_some());
        let made_from = left.filter(|_| makes);
        let forgotten = link
            .is_some_and(|link| matches!(link.state, LinkState::Held { reason: Reason::StampUnknown, .. }) && !makes);
        let tally = &mut stage.world.meetings[index];
        let instruction = if failed {
            Instruction::Retry
        } else if stage.dice.below(2) == 0 {
            tally.approvals.push((deletes, now));
            // What differs takes the value of the side that the rules prefer at first: this person's choice.
            tally.edits.outlook += u32::from(forgotten);
            if let Some(side) = made_from {
                *tally.edits.get_mut(side) += 1;
                tally.lives_again();
            }
            Instruction::Approve
        } else {
            tally.discards += 1;
            // To put Outlook's values back is a write that this person caused.
            tally.edits.outlook += u32::from(!deletes);
            Instruction::Discard
        };
        stage.note(|_| format!("a person says {instruction:?} about lane {index}"));
        if unlinked {
            // Nothing leads to the records but that somebody looks.
            for message in looks(&stage.world, index) {
                self.signal(now, message);
            }
        }
        self.lanes[index].instruct(now, instruction);
        true
    }

    fn run(&mut self, stage: &mut Stage) -> Result<(), String> {
        let now = stage.world.now;
        let awake = self.workers.iter().position(|worker| worker.job.is_some() && worker.awake_at <= now);
        let Some(worker) = awake.or_else(|| {
            let idle = self.workers.iter().position(|worker| worker.job.is_none())?;
            self.workers[idle].job = Some(self.claim(now)?);
            Some(idle)
        }) else {
            return Ok(());
        };
        while let Some((job, phase)) = self.workers[worker].job.take() {
            self.workers[worker].job = self.step(stage, job, phase)?;
            if self.workers[worker].job.is_some() && !self.goes_on(stage, worker) {
                break;
            }
        }
        Ok(())
    }

    fn account(&mut self, stage: &mut Stage, meeting: usize) -> Result<Account, String> {
        let mut account =
            Account { journal: Some(std::mem::take(&mut self.lanes[meeting].journal)), ..Account::default() };
        account.let_go = self.lanes[meeting].let_go;
        let Some(link) = &self.lanes[meeting].link else { return Ok(account) };
        match &link.state {
            LinkState::DeadLetter { reason: Reason::ManualConflict, .. } => account.asks = true,
            LinkState::DeadLetter { reason: Reason::Refused, .. } => account.gave_up = true,
            LinkState::DeadLetter { reason: Reason::Oscillation, .. } => account.stopped = true,
            LinkState::DeadLetter { reason: Reason::TooManyTries, .. }
                if self.lanes[meeting].most_failures >= self.rules().policy.timers.max_tries =>
            {
                account.tired = true;
            }
            LinkState::Tombstone { reason: Reason::Discarded, .. } => account.let_go = true,
            LinkState::Tombstone {
                reason: Reason::NotOrganizer | Reason::PastMeeting | Reason::AttendeesNeedMailPolicy,
                ..
            } => account.kept = true,
            LinkState::DeadLetter { reason, .. } | LinkState::Held { reason, .. } => {
                account.left_over = Some(format!("stopped without a cause: {reason}"));
            }
            LinkState::Live | LinkState::Tombstone { .. } | LinkState::Skipped { .. } => {}
        }
        // A conflict that a person was asked about settles itself when the meeting ends: Outlook is not written any more.
        if account.gave_up || account.stopped || account.tired || account.asks && stage.world.swarm.soon {
            return Ok(account);
        }
        if open_intents(link).next().is_some() {
            account.left_over = Some("an intent is open".to_owned());
            return Ok(account);
        }
        let case = Case { notices: Vec::new(), ..self.case(meeting) };
        if !self.plan(stage, case)?.steps.is_empty() {
            account.left_over = Some("L3: another look would write".to_owned());
        }
        Ok(account)
    }
}
