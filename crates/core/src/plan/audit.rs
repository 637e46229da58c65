//! The audit after the fact: did one of our writes to Salesforce replace an edit that nobody had seen?
//!
//! Salesforce honours no precondition on events
//! (<https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest_conditional_requests.htm>), so a
//! person may edit between our read and our write, and the write covers it. Change events of one record come in order:
//! what stands between our read and our own change was covered unseen. It is journaled; nothing is written for it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::run::Run;
use super::{Decision, Outcome};
use crate::case::Fact;
use crate::link::Unaudited;
use crate::mapping::Rule;
use crate::reason::Reason;
use crate::side::Side;
use crate::signal::Version;
use crate::value::Value;

/// Audits the writes whose own change event has come, and says from when on facts are still needed.
pub(super) fn audit(run: &mut Run<'_>, outcome: Outcome) {
    let oldest = run.now - run.rules.policy.timers.audit_for;
    // A run that could decide nothing has used nothing.
    run.facts_from = if outcome == Outcome::Wait { oldest } else { run.facts_from };
    let Some(link) = &mut run.link else { return };
    let (due, open) = std::mem::take(&mut link.unaudited)
        .into_iter()
        .filter(|write| write.recorded_at > oldest)
        .partition::<Vec<_>, _>(|write| own_change(run, write).is_some());
    run.link_mut().unaudited = open;
    for write in due {
        let lost = covered_unseen(run, &write);
        if !lost.is_empty() {
            run.reasons.push(Reason::OverwrittenUnseen);
        }
        run.decisions.extend(lost);
    }
    run.facts_from = needed_from(run).min(run.facts_from);
}

/// Returns the place of a write's own change among the facts of its record.
///
/// A deletion carries no token: that the record is deleted is its mark.
fn own_change(run: &Run<'_>, write: &Unaudited) -> Option<usize> {
    run.case.facts.iter().position(|fact| {
        fact.record == write.record && if write.deletes { fact.deleted } else { fact.facts.token == Some(write.token) }
    })
}

/// Returns a decision for each field whose last value before our own change differs from the one that we had read.
fn covered_unseen(run: &Run<'_>, write: &Unaudited) -> Vec<Decision> {
    let Some(own) = own_change(run, write) else { return Vec::new() };
    let before: Vec<&Fact> = run.case.facts[..own]
        .iter()
        .rev()
        .filter(|fact| fact.record == write.record)
        // What lies before an earlier write of ours was judged with that one.
        .take_while(|fact| fact.facts.token.is_none())
        .collect();
    let rules = run.rules.mapping.rules().iter();
    rules.filter_map(|rule| lost_value(rule, write, &before)).collect()
}

/// Returns what a person set a field to, unseen; `before` has the latest fact first.
fn lost_value(rule: &Rule, write: &Unaudited, before: &[&Fact]) -> Option<Decision> {
    let name = rule.field(Side::Salesforce);
    let read = write.replaced.get(name);
    // An update covers what it writes, a deletion everything; of a private meeting nothing was kept to compare with.
    if write.replaced.is_empty() || read.is_none() && !write.deletes {
        return None;
    }
    let last = before.iter().find(|fact| fact.facts.changed.contains(name))?;
    let private = before.iter().any(|fact| fact.facts.private);
    let value = if last.facts.values.contains_key(name) && !private {
        let value = rule.read(Side::Salesforce, &last.facts.values);
        // What we read, or what we wrote ourselves, is not lost.
        let read = rule.canonical(Side::Salesforce, read.cloned().unwrap_or_default());
        if value == read || write.written.get(name) == Some(&value) {
            return None;
        }
        value
    } else {
        // The event says that the field changed and not to what; only its time tells whether the read had seen it.
        let seen = matches!(&write.expected, Some(Version::Modstamp(read_at)) if last.facts.committed <= *read_at);
        if seen {
            return None;
        }
        Value::Null
    };
    Some(Decision {
        rule: rule.name.clone(),
        reason: Reason::OverwrittenUnseen,
        write: None,
        outlook: Value::Null,
        salesforce: value,
        agreed: write.written.get(name).cloned().unwrap_or_default(),
    })
}

/// Tells whether a change of Salesforce is not written to Outlook for now, or for a reason that may pass.
fn is_left(decision: &Decision) -> bool {
    let wanted = matches!(
        decision.reason,
        Reason::NotOrganizer
            | Reason::AttendeesNeedMailPolicy
            | Reason::PastMeeting
            | Reason::TimeNotMappable
            | Reason::SalesforceChanged
            | Reason::ConflictSalesforceWins
            | Reason::ManualConflict
    );
    wanted && decision.write.is_none()
}

/// Returns from when on facts must be kept: an open or unaudited write may still need what came before it.
///
/// A read may lag behind a notified change, so facts stay a while even where nothing is open.
fn needed_from(run: &Run<'_>) -> DateTime<Utc> {
    let link = run.link();
    let open = link.intents.salesforce.iter().map(|intent| intent.recorded_at);
    let planned = run.steps.iter().map(|step| step.recorded_at);
    let unaudited = link.unaudited.iter().map(|write| write.recorded_at);
    // Who asked for a write that waits stands in the events that told of it.
    let waiting = link.care.pending.iter().map(|pending| pending.since);
    // Nor may it be forgotten who changed what could not be written to Outlook: some day it can.
    let oldest = run.now - run.rules.policy.timers.audit_for;
    let left: BTreeSet<&str> = run.decisions.iter().filter(|one| is_left(one)).map(|one| one.rule.as_str()).collect();
    let left = run.rules.mapping.rules().iter().filter(|rule| left.contains(rule.name.as_str()));
    let left: BTreeSet<&str> = left.map(|rule| rule.field(Side::Salesforce)).collect();
    let left = run.case.facts.iter().filter(|fact| fact.facts.changed.iter().any(|name| left.contains(name.as_str())));
    let left = left.map(|fact| fact.facts.committed).filter(|at| *at > oldest);
    let earliest =
        left.chain(open).chain(planned).chain(unaudited).chain(waiting).min().unwrap_or(run.now).min(run.now);
    earliest - run.rules.policy.timers.settle_read
}
