//! The database that workers share: one lane for each meeting, with a lease, a fence, and all that is known of it.

use calbridge_core::case::{Census, Fact, Instruction, Notice};
use calbridge_core::ids::{LinkId, MailboxId, RecordId};
use calbridge_core::link::{Intent, Link, LinkState, Pending, Wish};
use calbridge_core::plan::{Budget, Outcome, Plan, Spend};
use calbridge_core::policy::Guard;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::SignalCause;
use calbridge_core::value::Value;
use chrono::{DateTime, TimeDelta, Utc};

use crate::world::{FIELDS, Message, field_of};

/// How long a worker owns a lane after its claim or commit.
pub(crate) const LEASE: TimeDelta = TimeDelta::seconds(30);

/// What a lane's dirty row says of one record, and how often it was said.
#[derive(Debug, Clone)]
pub(crate) struct Dirty {
    pub(crate) notice: Notice,
    /// Number of the lane's signal that said it last.
    generation: u32,
}

/// One meeting's row in every table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane {
    pub(crate) link: Option<Link>,
    pub(crate) dirty: Vec<Dirty>,
    /// How many signals came.
    pub(crate) generation: u32,
    /// When the dirty rows are due.
    due: Option<DateTime<Utc>>,
    /// When the burst of signals began that is being collapsed.
    burst_from: Option<DateTime<Utc>>,
    wake_at: Option<DateTime<Utc>>,
    pub(crate) tries: u32,
    /// The most failed writes in a row, or sends of one write, that there ever were.
    pub(crate) most_failures: u32,
    /// What a person said, until a run follows it.
    pub(crate) instruction: Option<Instruction>,
    /// It asks a person about records that have no link.
    pub(crate) asks: bool,
    /// A person said to leave records alone that have no link.
    pub(crate) let_go: bool,
    /// A person approved something at some time; only a mutant remembers that for good.
    pub(crate) approved: bool,
    /// What change events said, by their place in the stream, and when they came.
    pub(crate) facts: Vec<(u64, DateTime<Utc>, Fact)>,
    pub(crate) journal: Vec<(usize, Value)>,
    /// Rises with each claim.
    pub(crate) fence: u64,
    pub(crate) leased_until: Option<DateTime<Utc>>,
    /// Rows that a mutant keeps back until a write is confirmed.
    held_back: Vec<(usize, Value)>,
}

impl Lane {
    /// Takes in a signal.
    pub(crate) fn signal(&mut self, now: DateTime<Utc>, quiet: TimeDelta, max_wait: TimeDelta, message: Message) {
        let Message { record, deleted, version, fact, .. } = message;
        if let Some((place, facts)) = fact
            && let Err(at) = self.facts.binary_search_by_key(&place, |(place, ..)| *place)
        {
            self.facts.insert(at, (place, now, Fact { record: record.clone(), deleted, facts }));
        }
        let from = *self.burst_from.get_or_insert(now);
        self.due = Some((now + quiet).min(from + max_wait));
        let index = self.dirty.iter().position(|dirty| dirty.notice.record == record).unwrap_or_else(|| {
            let cause = SignalCause::Notification;
            let notice = Notice { record, deleted: false, versions: Vec::new(), last_signal_at: now, cause };
            self.dirty.push(Dirty { notice, generation: 0 });
            self.dirty.len() - 1
        });
        let dirty = &mut self.dirty[index];
        self.generation += 1;
        dirty.generation = self.generation;
        dirty.notice.deleted |= deleted;
        dirty.notice.last_signal_at = now;
        if let Some(version) = version.filter(|version| !dirty.notice.versions.contains(version)) {
            dirty.notice.versions.push(version);
        }
    }

    /// When the lane can be claimed next, if there is anything to do.
    pub(crate) fn claimable_at(&self) -> Option<DateTime<Utc>> {
        let wanted = match (self.due, self.wake_at) {
            (Some(due), Some(wake)) => due.min(wake),
            (due, wake) => due.or(wake)?,
        };
        Some(self.leased_until.map_or(wanted, |until| wanted.max(until)))
    }

    /// Gives the lane to a worker; returns its fence.
    pub(crate) fn claim(&mut self, now: DateTime<Utc>) -> u64 {
        self.fence += 1;
        self.leased_until = Some(now + LEASE);
        self.burst_from = None;
        self.fence
    }

    /// Commits a plan: link, intents, covered notices. Without writes the lane is given back.
    ///
    /// `claimed` is the generation that the plan has seen: what came later stays.
    pub(crate) fn commit_plan(&mut self, now: DateTime<Utc>, plan: &mut Plan, claimed: u32, told: Option<Instruction>) {
        // What a person said while the worker was busy stays, and wakes the lane.
        let said = self.instruction.filter(|said| Some(*said) != told);
        if plan.instructed && said.is_none() {
            self.instruction = None;
        }
        self.facts.retain(|(_, at, _)| *at >= plan.facts_from);
        let unlinked = plan.next.is_none();
        // A run about another record of the meeting answers nothing.
        self.asks = unlinked && (plan.outcome == Outcome::Hold || self.asks && told.is_none());
        self.let_go = unlinked && (self.let_go || plan.reasons.contains(&Reason::Discarded));
        self.link = plan.next.take();
        let writes = !plan.steps.is_empty();
        self.wake_at = if writes || said.is_some() { Some(now) } else { plan.wake_at };
        self.leased_until = writes.then_some(now + LEASE);
        self.tries = if plan.outcome == Outcome::Wait { self.tries + 1 } else { 0 };
        let sends = plan.steps.iter().map(|step| step.sends).max().unwrap_or_default();
        self.most_failures = self.most_failures.max(sends);
        self.dirty.retain(|dirty| dirty.generation > claimed || !plan.covered.contains(&dirty.notice.record));
        let fresh = self.generation > claimed;
        if self.dirty.is_empty() {
            self.due = None;
        } else if !fresh {
            self.due = Some(plan.wake_at.unwrap_or(now + TimeDelta::seconds(1)));
        }
    }

    /// Commits what became of writes, and gives the lane back.
    pub(crate) fn commit_settled(&mut self, now: DateTime<Utc>, link: Link, wake_at: Option<DateTime<Utc>>) {
        self.most_failures = self.most_failures.max(link.care.failed_writes);
        self.link = Some(link);
        self.wake_at = if self.instruction.is_some() { Some(now) } else { wake_at };
        self.leased_until = None;
    }

    /// Gives the lane back as it was, because a commit was refused.
    pub(crate) fn give_back(&mut self, now: DateTime<Utc>) {
        self.wake_at = Some(now + TimeDelta::milliseconds(200));
        self.leased_until = None;
    }

    /// Takes the place of a lane that was lost; the judgement needs the journal of both.
    pub(crate) fn put_back(&mut self, now: DateTime<Utc>, lost: Self) {
        (self.fence, self.journal) = (lost.fence + 1, lost.journal);
        (self.leased_until, self.wake_at) = (None, Some(now));
    }

    /// Takes down what a person says about what waits.
    pub(crate) fn instruct(&mut self, now: DateTime<Utc>, instruction: Instruction) {
        self.instruction = Some(instruction);
        self.wake_at = Some(now);
    }

    /// The deletion that waits, if one does.
    fn wanted(&self) -> Option<(&Link, &Pending)> {
        let link = self.link.as_ref()?;
        let pending = link.care.pending.as_ref().filter(|pending| pending.wish == Wish::Delete)?;
        Some((link, pending))
    }

    /// Writes the journal rows of a plan; they commit together with its intents.
    pub(crate) fn write_journal(&mut self, plan: &Plan) {
        let rows: Vec<_> = winners(plan).chain(losers(plan)).map(|(rule, value)| (rule, value.clone())).collect();
        for (rule, value) in rows {
            self.journal_value(rule, &value);
        }
    }

    fn journal_value(&mut self, rule: usize, value: &Value) {
        if *value != Value::Null && !self.journal.iter().any(|row| row.0 == rule && row.1 == *value) {
            self.journal.push((rule, value.clone()));
        }
    }

    /// What a mutant does: it keeps what a write replaces out of the journal until the write is confirmed.
    pub(crate) fn hold_back(&mut self, plan: &Plan) {
        for (rule, value) in winners(plan) {
            self.journal_value(rule, value);
        }
        self.held_back = losers(plan).map(|(rule, value)| (rule, value.clone())).collect();
    }

    /// What a mutant does: it journals a confirmed write's rows, and forgets those of a write that it takes for lost.
    pub(crate) fn let_go(&mut self, confirmed: bool) {
        for (rule, value) in std::mem::take(&mut self.held_back) {
            if confirmed {
                self.journal_value(rule, &value);
            }
        }
    }
}

/// Values that stay, by rule.
fn winners(plan: &Plan) -> impl Iterator<Item = (usize, &Value)> {
    plan.decisions.iter().flat_map(|decision| {
        let rule = rule_named(&decision.rule);
        let outlook = rule.filter(|_| decision.write != Some(Side::Outlook)).map(|rule| (rule, &decision.outlook));
        let salesforce =
            rule.filter(|_| decision.write != Some(Side::Salesforce)).map(|rule| (rule, &decision.salesforce));
        outlook.into_iter().chain(salesforce)
    })
}

/// Values that a plan's writes replace or delete, by rule.
fn losers(plan: &Plan) -> impl Iterator<Item = (usize, &Value)> {
    let decided = plan.decisions.iter().filter_map(|decision| {
        let value = match decision.write? {
            Side::Outlook => &decision.outlook,
            Side::Salesforce => &decision.salesforce,
        };
        Some((rule_named(&decision.rule)?, value))
    });
    let replaced = plan.steps.iter().flat_map(|step| {
        (0..FIELDS.len()).filter_map(|rule| Some((rule, step.replaced.get(field_of(rule, step.side))?)))
    });
    decided.chain(replaced)
}

fn rule_named(name: &str) -> Option<usize> {
    FIELDS.iter().position(|field| field.0 == name)
}

/// Tells whether a record belongs to a link.
pub(crate) fn belongs(link: &Link, record: &RecordId) -> bool {
    let replicas = [&link.replicas.outlook, &link.replicas.salesforce];
    link.copies.contains(record) || replicas.into_iter().flatten().any(|replica| replica.record == *record)
}

/// Tells whether a link has a write whose result is unknown.
pub(crate) fn open_intents(link: &Link) -> impl Iterator<Item = &Intent> {
    link.intents.outlook.iter().chain(&link.intents.salesforce)
}

/// What was used up of what is limited, over all lanes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Budgets {
    spent: Vec<(Budget, LinkId, DateTime<Utc>)>,
}

impl Budgets {
    /// Takes down what a plan uses up, or refuses it where there is nothing left.
    pub(crate) fn spend(&mut self, link: LinkId, spends: &[Spend], now: DateTime<Utc>) -> bool {
        let is_left = |spend: &Spend| self.used(&spend.budget, link, spend.since) < spend.limit;
        if !spends.iter().all(is_left) {
            return false;
        }
        self.spent.extend(spends.iter().map(|spend| (spend.budget.clone(), link, now)));
        true
    }

    fn used(&self, budget: &Budget, asking: LinkId, since: DateTime<Utc>) -> u32 {
        let counts =
            |(spent, link, at): &&(Budget, LinkId, DateTime<Utc>)| spent == budget && *link != asking && *at > since;
        u32::try_from(self.spent.iter().filter(counts).count()).unwrap()
    }

    /// Counts what meetings other than the asking one have used up or wait to use up.
    pub(crate) fn census(
        &self,
        lanes: &[Lane],
        (asking, mailbox, author): (LinkId, Option<&MailboxId>, Option<&String>),
        now: DateTime<Utc>,
    ) -> Census {
        let wanted = |fits: &dyn Fn(&Link, &Pending) -> bool| {
            let others = lanes.iter().filter_map(Lane::wanted).filter(|(link, _)| link.id != asking);
            u32::try_from(others.filter(|(link, pending)| fits(link, pending)).count()).unwrap()
        };
        let mut census = Census::default();
        let deletes_since = now - Guard::DELETES_WITHIN;
        if let Some(mailbox) = mailbox {
            let links = lanes.iter().filter_map(|lane| lane.link.as_ref());
            let live = links.filter(|link| !matches!(link.state, LinkState::Tombstone { .. }));
            let in_mailbox = live.filter(|link| mailbox_of(link) == Some(mailbox));
            census.links_in_mailbox = u32::try_from(in_mailbox.count()).unwrap();
            census.deletes_in_mailbox = wanted(&|link, _| mailbox_of(link) == Some(mailbox))
                + self.used(&Budget::DeletesInMailbox(mailbox.clone()), asking, deletes_since);
        }
        if let Some(author) = author {
            census.deletes_by_author = wanted(&|_, pending| pending.author.as_ref() == Some(author))
                + self.used(&Budget::DeletesByAuthor(author.clone()), asking, deletes_since);
            let mails_since = now - Guard::MAILS_WITHIN;
            census.mails_by_author = self.used(&Budget::MailsByAuthor(author.clone()), asking, mails_since);
        }
        census
    }
}

fn mailbox_of(link: &Link) -> Option<&MailboxId> {
    link.replicas.outlook.as_ref().and_then(|replica| replica.record.mailbox())
}
