//! The database that workers share: one lane for each meeting, with a lease, a fence, and all that is known of it.

use calbridge_core::case::{Fact, Notice};
use calbridge_core::ids::RecordId;
use calbridge_core::link::{Intent, Link};
use calbridge_core::plan::{Outcome, Plan};
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
    pub(crate) fn commit_plan(&mut self, now: DateTime<Utc>, plan: &mut Plan, claimed: u32) {
        self.facts.retain(|(_, at, _)| *at >= plan.facts_from);
        self.link = plan.next.take();
        let writes = !plan.steps.is_empty();
        self.wake_at = if writes { Some(now) } else { plan.wake_at };
        self.leased_until = writes.then_some(now + LEASE);
        self.tries = if plan.outcome == Outcome::Wait { self.tries + 1 } else { 0 };
        self.dirty.retain(|dirty| dirty.generation > claimed || !plan.covered.contains(&dirty.notice.record));
        let fresh = self.generation > claimed;
        if self.dirty.is_empty() {
            self.due = None;
        } else if !fresh {
            self.due = Some(plan.wake_at.unwrap_or(now + TimeDelta::seconds(1)));
        }
    }

    /// Commits what became of writes, and gives the lane back.
    pub(crate) fn commit_settled(&mut self, link: Link, wake_at: Option<DateTime<Utc>>) {
        self.link = Some(link);
        self.wake_at = wake_at;
        self.leased_until = None;
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
