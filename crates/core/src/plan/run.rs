//! One run of the planner: the order of the questions, and what is gathered on the way.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Alias, Decision, MailEffect, Outcome, Plan, Planned, Spend, audit, cover, intents, merge, presence, restored,
    unlinked,
};
use crate::case::{Answer, Case, Enrolment, Fresh, Instruction, Lookup};
use crate::ids::RecordId;
use crate::link::{Approval, Intent, Link, LinkState, Pending, Replica, Wish};
use crate::mapping::Rule;
use crate::observed::{Observed, RecordKind, Snapshot, Why};
use crate::policy::{Mode, Rules};
use crate::reason::Reason;
use crate::side::{BothSides, Side};
use crate::signal::SignalCause;
use crate::value::Value;

/// Decides what to do about one meeting.
///
/// Deterministic: the same case, rules, time and ids give the same plan. Returns [`Planned::Need`] until every look-up
/// that the decision rests on is answered in the case; each round asks for something new, so rounds are few.
pub fn plan(case: &Case, rules: &Rules, now: DateTime<Utc>, fresh: &Fresh) -> Planned {
    let mut run = Run::new(case, rules, now, fresh);
    let ended = match case.link.clone() {
        None => unlinked::plan(&mut run),
        Some(link) => linked(&mut run, link),
    };
    match ended {
        Err(Stop::Need(lookups)) => Planned::Need(lookups),
        Err(Stop::End(outcome)) | Ok(outcome) => Planned::Plan(Box::new(run.finish(outcome))),
    }
}

/// Returns the names by which the records of a case lead to their meeting.
pub fn aliases(case: &Case) -> Vec<Alias> {
    let mut names = BTreeSet::new();
    for snapshot in case.reads.values().filter_map(present) {
        names.insert(Alias::Record(snapshot.record.clone()));
        let is_series = snapshot.traits.kind != RecordKind::Single;
        if let Some(uid) = snapshot.traits.ical_uid.as_ref().filter(|uid| !uid.is_empty() && !is_series) {
            names.insert(Alias::ICalUid(uid.clone(), snapshot.traits.original_start.clone()));
        }
        if let Some(stamp) = &snapshot.stamp {
            names.insert(Alias::Stamp(stamp.link));
        }
    }
    names.into_iter().collect()
}

fn linked(run: &mut Run<'_>, link: Link) -> Result<Outcome, Stop> {
    let state = link.state.clone();
    run.link = Some(link);
    run.state_before = Some(state.clone());
    match state {
        LinkState::Tombstone { reason, at } => return presence::buried(run, reason, at),
        LinkState::Held { reason, at } => held(run, reason, at)?,
        // A dead letter is tried again when something about the meeting changed or a person asks.
        LinkState::DeadLetter { reason, .. } | LinkState::Skipped { reason, .. } => failed(run, reason)?,
        LinkState::Live => {}
    }
    run.pending_before = run.link_mut().care.pending.take();
    presence::note_sightings(run);
    intents::resolve(run)?;
    let pair = presence::both_present(run)?;
    merge::choose(run, &pair);
    restored::recall(run, &pair)?;
    let outcome = merge::plan(run, &pair)?;
    Ok(outcome)
}

/// Goes on with a meeting of which something was held, or ends the run until a person decides.
fn held(run: &mut Run<'_>, reason: Reason, at: DateTime<Utc>) -> Result<(), Stop> {
    // What is held without a write that waits ends in a change, if in any.
    let wish = run.link().care.pending.as_ref().map_or(Wish::Mail, |pending| pending.wish);
    let deletes = wish == Wish::Delete;
    match run.case.instruction {
        Some(Instruction::Approve | Instruction::Retry) => {
            run.reasons.push(Reason::Approved);
            run.link_mut().care.approved = Some(Approval { reason, wish });
        }
        Some(Instruction::Keep(side)) => run.keep(side),
        // The mail is not sent, and both sides agree again.
        Some(Instruction::Discard | Instruction::Skip) if reason.is_reconsidered() && !deletes => {
            run.reasons.push(Reason::Discarded);
            run.keep(Side::Outlook);
        }
        // What is there stays; the tombstone keeps the meeting from being created where it is gone.
        Some(Instruction::Discard | Instruction::Skip) => {
            let at = run.now;
            let link = run.link_mut();
            // A creation that nobody finds is given up with it.
            (link.care.pending, link.intents) = (None, BothSides::default());
            link.state = LinkState::Tombstone { reason: Reason::Discarded, at };
            run.cover_all();
            return Err(run.end(Outcome::Deleted, Reason::Discarded));
        }
        None if reason.is_reconsidered() || run.asked_by_operator() => run.held_before = Some((reason, at)),
        None => {
            run.cover_all();
            return Err(run.end(Outcome::Hold, reason));
        }
    }
    run.link_mut().state = LinkState::Live;
    Ok(())
}

/// Tries a meeting again that had failed, or sets it aside.
fn failed(run: &mut Run<'_>, reason: Reason) -> Result<(), Stop> {
    match run.case.instruction {
        Some(Instruction::Skip | Instruction::Discard) => {
            let at = run.now;
            run.link_mut().state = LinkState::Skipped { reason, at };
            run.cover_all();
            return Err(run.end(Outcome::Skip, Reason::Skipped));
        }
        Some(Instruction::Keep(side)) => run.keep(side),
        Some(Instruction::Retry | Instruction::Approve) => run.reasons.push(Reason::Retried),
        None => {}
    }
    if run.case.instruction.is_some() {
        run.link_mut().care.unexplained.clear();
    }
    run.link_mut().state = LinkState::Live;
    Ok(())
}

/// Why a run goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// Look-ups are missing.
    Need(Vec<Lookup>),
    /// The outcome is known.
    End(Outcome),
}

/// What one run gathers.
pub(super) struct Run<'a> {
    pub(super) case: &'a Case,
    pub(super) rules: &'a Rules,
    pub(super) now: DateTime<Utc>,
    pub(super) fresh: &'a Fresh,
    /// The link as it will be stored.
    pub(super) link: Option<Link>,
    pub(super) reasons: Vec<Reason>,
    pub(super) decisions: Vec<Decision>,
    pub(super) steps: Vec<Intent>,
    pub(super) covered: BTreeSet<RecordId>,
    pub(super) wake_at: Option<DateTime<Utc>>,
    pub(super) echoes: u32,
    pub(super) facts_from: DateTime<Utc>,
    pub(super) spends: Vec<Spend>,
    pub(super) mail: MailEffect,
    /// Where the link stood when the run began.
    pub(super) state_before: Option<LinkState>,
    /// The write that waited when the run began.
    pub(super) pending_before: Option<Pending>,
    /// What was held when the run began, and since when.
    pub(super) held_before: Option<(Reason, DateTime<Utc>)>,
    /// The side whose values a person chose.
    pub(super) keep: Option<Side>,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, rules: &'a Rules, now: DateTime<Utc>, fresh: &'a Fresh) -> Self {
        Self {
            case,
            rules,
            now,
            fresh,
            link: None,
            reasons: Vec::new(),
            decisions: Vec::new(),
            steps: Vec::new(),
            covered: BTreeSet::new(),
            wake_at: None,
            echoes: 0,
            facts_from: now - rules.policy.timers.settle_read,
            spends: Vec::new(),
            mail: MailEffect::default(),
            state_before: None,
            pending_before: None,
            held_before: None,
            keep: None,
        }
    }

    fn finish(mut self, outcome: Outcome) -> Plan {
        let outcome = self.give_up(outcome);
        self.remember(outcome);
        cover::remember(&mut self);
        audit::audit(&mut self, outcome);
        if let Some(link) = &mut self.link {
            for step in &self.steps {
                *link.intents.get_mut(step.side) = Some(step.clone());
            }
        }
        let observing = self.rules.policy.mode == Mode::Observe;
        let outcome = if observing && !self.steps.is_empty() {
            self.reasons.insert(0, Reason::ObserveMode);
            self.steps.clear();
            self.spends.clear();
            self.mail = MailEffect::default();
            self.link = None;
            Outcome::Skip
        } else {
            outcome
        };
        let mut aliases: BTreeSet<Alias> = aliases(self.case).into_iter().collect();
        if let Some(link) = &self.link {
            aliases.insert(Alias::Stamp(link.id));
            for side in Side::BOTH {
                aliases.extend(link.replicas.get(side).iter().map(|replica| Alias::Record(replica.record.clone())));
            }
            if !link.ical_uid.is_empty() {
                aliases.insert(Alias::ICalUid(link.ical_uid.clone(), link.original_start.clone()));
            }
        }
        let mut seen = BTreeSet::new();
        self.reasons.retain(|reason| seen.insert(*reason));
        Plan {
            steps: self.steps,
            outcome,
            reasons: self.reasons,
            decisions: self.decisions,
            mail: self.mail,
            next: self.link,
            covered: self.covered.into_iter().collect(),
            aliases: aliases.into_iter().collect(),
            wake_at: self.wake_at,
            echoes: self.echoes,
            facts_from: self.facts_from,
            spends: self.spends,
            instructed: self.case.instruction.is_some() && outcome != Outcome::Wait,
        }
    }

    /// Lets a run that could decide nothing leave what waited, was held or had failed as it was.
    fn remember(&mut self, outcome: Outcome) {
        let (before, pending) = (self.state_before.take(), self.pending_before.take());
        let Some(link) = self.link.as_mut().filter(|_| outcome == Outcome::Wait) else { return };
        link.care.pending = link.care.pending.take().or(pending);
        if link.state == LinkState::Live
            && let Some(before) = before
        {
            link.state = before;
        }
    }

    /// Ends a meeting as a dead letter whose writes failed too often.
    ///
    /// Reads never lead here: an outage of a remote says nothing about the record.
    fn give_up(&mut self, outcome: Outcome) -> Outcome {
        let most = self.rules.policy.timers.max_tries;
        let failed = self.link.as_ref().map_or(0, |link| link.care.failed_writes);
        if failed < most && self.steps.iter().all(|step| step.sends <= most) || self.steps.is_empty() {
            return outcome;
        }
        let at = self.now;
        self.link_mut().care.failed_writes = 0;
        for step in std::mem::take(&mut self.steps) {
            self.link_mut().state = LinkState::DeadLetter { reason: Reason::TooManyTries, at };
            // A write that was sent before may still have taken effect: its intent stays open for the next look.
            if step.sends > 1 {
                let side = step.side;
                *self.link_mut().intents.get_mut(side) = Some(step);
            }
        }
        self.spends.clear();
        self.mail = MailEffect::default();
        self.reasons.insert(0, Reason::TooManyTries);
        Outcome::DeadLetter
    }

    /// Takes in which side's values a person chose; that includes what would mail.
    fn keep(&mut self, side: Side) {
        self.keep = Some(side);
    }

    /// Tells whether a person approved such a write.
    ///
    /// An approval is for what was held: where the meeting wants something else by now, that is another question.
    pub(super) fn is_approved(&mut self, wish: Wish) -> bool {
        let care = &mut self.link_mut().care;
        care.approved = care.approved.filter(|approval| approval.wish == wish);
        self.link().care.approved.is_some() || wish == Wish::Mail && self.keep == Some(Side::Salesforce)
    }

    /// Ends the run with a write that waits for a person; the meeting is looked at again when something about it changes.
    pub(super) fn hold(&mut self, reason: Reason) {
        let at = self.held_before.filter(|(before, _)| *before == reason).map_or(self.now, |(_, at)| at);
        self.link_mut().state = LinkState::Held { reason, at };
        self.reasons.push(reason);
    }

    /// Returns the link of a run that has one.
    pub(super) fn link_mut(&mut self) -> &mut Link {
        self.link.as_mut().expect("only runs with a link come here")
    }

    /// Returns the link of a run that has one.
    pub(super) fn link(&self) -> &Link {
        self.link.as_ref().expect("only runs with a link come here")
    }

    /// Ends the run for a reason that comes before all others.
    pub(super) fn end(&mut self, outcome: Outcome, reason: Reason) -> Stop {
        self.reasons.insert(0, reason);
        Stop::End(outcome)
    }

    /// Ends the run until a later time; what was not covered stays dirty.
    pub(super) fn wait(&mut self, reason: Reason, until: DateTime<Utc>) -> Stop {
        self.wake(until);
        self.end(Outcome::Wait, reason)
    }

    /// Asks for another run at `at` or before.
    pub(super) fn wake(&mut self, at: DateTime<Utc>) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Ends the run because a read failed.
    pub(super) fn wait_for_read(&mut self, why: &Why) -> Stop {
        let asked = why.retry_after_ms.and_then(|ms| i64::try_from(ms).ok()).map(TimeDelta::milliseconds);
        let until = self.now + asked.unwrap_or_default().max(self.backoff());
        self.wait(Reason::ReadFailed, until)
    }

    /// Ends the run when a read is older than what is known; one that stays the same through all pauses is the truth.
    ///
    /// Such a truth exists: a record restored from a backup.
    pub(super) fn await_fresh(&mut self, replica: &Replica, snapshot: &Snapshot) -> Result<(), Stop> {
        if !replica.is_stale(snapshot) || restored::is_newer_than_backup(self, snapshot) {
            return Ok(());
        }
        let since = match &replica.stale {
            Some((version, since)) if *version == snapshot.version => *since,
            _ => self.now,
        };
        if let Some(replica) = self.link_mut().replicas.get_mut(snapshot.record.side()) {
            replica.stale = Some((snapshot.version.clone(), since));
        }
        let mut again_at = since;
        for pause in self.rules.policy.timers.stale_rereads {
            again_at += pause;
            if again_at > self.now {
                return Err(self.wait(Reason::StaleRead, again_at));
            }
        }
        Ok(())
    }

    /// Returns the pause before the next try; doubles with each failed run.
    pub(super) fn backoff(&self) -> TimeDelta {
        self.rules.policy.timers.backoff(self.case.tries, self.fresh.outlook.chance())
    }

    /// Takes note that every notice is answered.
    pub(super) fn cover_all(&mut self) {
        self.covered.extend(self.case.notices.iter().map(|notice| notice.record.clone()));
    }

    /// Returns the read of a record, or asks for it.
    pub(super) fn read(&self, record: &RecordId) -> Result<&'a Observed, Stop> {
        if let Some(observed) = self.case.reads.get(record) {
            return Ok(observed);
        }
        let lookup = Lookup::Read(record.clone());
        match self.answer(&lookup)? {
            Answer::Found(found) => {
                let read = found.iter().find(|(id, _)| id == record).map(|(_, observed)| observed);
                Ok(read.unwrap_or(&Observed::Absent(crate::observed::Evidence::NotFound)))
            }
            Answer::Failed(_) | Answer::Counted(_) => Err(Stop::Need(vec![lookup])),
        }
    }

    /// Returns the answer to a look-up, or asks for it.
    pub(super) fn answer(&self, lookup: &Lookup) -> Result<&'a Answer, Stop> {
        let answer = self.case.lookups.iter().find(|(asked, _)| asked == lookup).map(|(_, answer)| answer);
        answer.ok_or_else(|| Stop::Need(vec![lookup.clone()]))
    }

    /// Returns the records that a look-up found; a failed look-up ends the run until later.
    pub(super) fn found(&mut self, lookup: &Lookup) -> Result<&'a [(RecordId, Observed)], Stop> {
        match self.answer(lookup)? {
            Answer::Found(found) => Ok(found),
            Answer::Counted(_) => Err(Stop::Need(vec![lookup.clone()])),
            Answer::Failed(why) => Err(self.wait_for_read(why)),
        }
    }

    /// Returns the enrolment whose mailbox or user a record belongs to.
    pub(super) fn enrolment_of(&self, snapshot: &Snapshot) -> Option<&'a Enrolment> {
        self.case.enrolments.iter().find(|enrolment| match &snapshot.record {
            RecordId::Outlook { mailbox, .. } => *mailbox == enrolment.mailbox,
            RecordId::Salesforce(_) => snapshot.traits.owner.as_deref() == Some(enrolment.user.as_str()),
        })
    }

    /// Tells whether a delete signal named the record.
    pub(super) fn delete_was_signalled(&self, record: &RecordId) -> bool {
        self.case.notices.iter().any(|notice| notice.record == *record && notice.deleted)
    }

    /// Ends the run when `side` lacks the fields that a write must stamp.
    pub(super) fn stampable(&mut self, side: Side) -> Result<(), Stop> {
        if side == Side::Outlook || self.rules.policy.salesforce_stampable {
            return Ok(());
        }
        let until = self.now + self.rules.policy.timers.retry_max;
        Err(self.wait(Reason::MissingStampField, until))
    }

    /// Takes note of what was decided about a field.
    pub(super) fn decide(
        &mut self,
        rule: &Rule,
        reason: Reason,
        write: Option<Side>,
        outlook: &Value,
        salesforce: &Value,
        agreed: &Value,
    ) {
        self.reasons.push(reason);
        self.decisions.push(Decision {
            rule: rule.name.clone(),
            reason,
            write,
            outlook: outlook.clone(),
            salesforce: salesforce.clone(),
            agreed: agreed.clone(),
        });
    }

    fn asked_by_operator(&self) -> bool {
        self.case.notices.iter().any(|notice| notice.cause == SignalCause::Operator)
    }

    /// Decides which notices the reads of this run answer, for a meeting that stays.
    pub(super) fn cover(&mut self) {
        cover::cover(self);
    }
}

/// Returns the snapshot of a record that is there.
pub(super) fn present(observed: &Observed) -> Option<&Snapshot> {
    match observed {
        Observed::Present(snapshot) => Some(snapshot),
        Observed::Absent(_) | Observed::Unread(_) => None,
    }
}
