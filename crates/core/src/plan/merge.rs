//! The merge table: per rule, each side against its own base.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;

use super::caution::{self, Author, Origin, Passage};
use super::presence::Pair;
use super::run::{Run, Stop};
use super::{MailEffect, Outcome};
use crate::case::Instruction;
use crate::link::{Action, BaseField, Care, Choice, Intent, LinkState};
use crate::mapping::{Conflict, Direction, Initial, Kind, Rule};
use crate::observed::{Snapshot, Stamp};
use crate::reason::Reason;
use crate::side::Side;
use crate::value::{Fields, Value, When};

/// Modification times of two clouds that are closer than this say nothing about which edit came last.
///
/// Outlook's `lastModifiedDateTime` has 100 ns digits whose accuracy is unconfirmed; Salesforce's clock differs from it
/// by an unknown amount. Five seconds is well above both.
const SAME_MOMENT: Duration = Duration::from_secs(5);

/// What the table says about one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing to do.
    Same,
    /// Both hold the same new value: only the base moves.
    MoveBase(Reason),
    /// Take this side's value to the other side.
    Take(Side, Reason),
    /// The change does not flow; the base stays, so that a later change of the rule or of the policy sees it.
    Leave(Reason),
    /// A person decides.
    Ask,
}

/// Plans a linked meeting whose both sides are there.
pub(super) fn plan(run: &mut Run<'_>, pair: &Pair<'_>) -> Result<Outcome, Stop> {
    let mut writes: BTreeMap<Side, Write> = BTreeMap::new();
    let terms = Terms { refused: caution::refusal(run, pair.outlook), keep: run.keep };
    let mut ask = false;
    for rule in run.rules.mapping.rules() {
        let outlook = rule.read(Side::Outlook, &pair.outlook.fields);
        let salesforce = rule.read(Side::Salesforce, &pair.salesforce.fields);
        let base = run.link().base.get(&rule.name).filter(|base| base.rule == rule.hash());
        let verdict = judge(rule, base, &outlook, &salesforce, pair, terms);
        match verdict {
            Verdict::Same => {}
            Verdict::Leave(reason) => run.decide(rule, reason, None, &outlook, &salesforce, &Value::Null),
            Verdict::Ask => {
                ask = true;
                run.decide(rule, Reason::ManualConflict, None, &outlook, &salesforce, &Value::Null);
            }
            Verdict::MoveBase(reason) => {
                if reason != Reason::InStep {
                    run.decide(rule, reason, None, &outlook, &salesforce, &outlook);
                }
                let moved = BaseField { outlook, salesforce, rule: rule.hash().to_owned() };
                run.link_mut().base.insert(rule.name.clone(), moved);
            }
            Verdict::Take(from, reason) => {
                let (value, present) = match from {
                    Side::Outlook => (&outlook, &salesforce),
                    Side::Salesforce => (&salesforce, &outlook),
                };
                let side = from.other();
                let target = rule.canonical(side, rule.convert(side, value, present));
                let agreed = match from {
                    Side::Outlook => {
                        BaseField { outlook: outlook.clone(), salesforce: target.clone(), rule: rule.hash().to_owned() }
                    }
                    Side::Salesforce => BaseField {
                        outlook: target.clone(),
                        salesforce: salesforce.clone(),
                        rule: rule.hash().to_owned(),
                    },
                };
                if target == *present {
                    run.link_mut().base.insert(rule.name.clone(), agreed);
                    continue;
                }
                run.decide(rule, reason, Some(side), &outlook, &salesforce, &target);
                let write = writes.entry(side).or_default();
                write.fields.insert(rule.field(side).to_owned(), target);
                write.replaced.insert(rule.field(side).to_owned(), present.clone());
                write.agreed.insert(rule.name.clone(), agreed);
                write.causes.insert(rule.field(from).to_owned());
            }
        }
    }
    note_echoes(run, pair);
    if ask {
        run.link_mut().state = LinkState::DeadLetter { reason: Reason::ManualConflict, at: run.now };
        run.cover();
        return Err(run.end(Outcome::DeadLetter, Reason::ManualConflict));
    }
    if writes.contains_key(&Side::Salesforce) {
        run.stampable(Side::Salesforce)?;
    }
    let held_back = hold_back(run, pair, &mut writes)?;
    for side in Side::BOTH {
        run.link_mut().replicas.get_mut(side).as_mut().expect("both sides are there").advance(pair.get(side));
    }
    run.cover();
    for (side, write) in writes {
        let intent = update(run, pair.get(side), pair.get(side.other()), write);
        run.steps.push(intent);
    }
    match held_back {
        _ if !run.steps.is_empty() => Ok(Outcome::Write),
        Some(Passage::Held(_)) => Ok(Outcome::Hold),
        Some(Passage::Later(..)) => Ok(Outcome::Deferred),
        Some(Passage::Open) | None => {
            let care = &mut run.link_mut().care;
            (care.pending, care.approved, care.chosen) = (None, None, None);
            run.link_mut().in_step_at = Some(run.now);
            let reason = if run.echoes > 0 { Reason::Echo } else { Reason::NoMappedChange };
            if run.reasons.is_empty() {
                run.reasons.push(if run.case.notices.is_empty() { Reason::InStep } else { reason });
            }
            Ok(Outcome::InStep)
        }
    }
}

/// Goes on with the side that a person chose, now or in an earlier run whose write did not take effect.
pub(super) fn choose(run: &mut Run<'_>, pair: &Pair<'_>) {
    if run.keep.is_none() && run.link().care.chosen.is_none() {
        return;
    }
    let rules = run.rules.mapping.rules().iter();
    let between: BTreeMap<String, BaseField> = rules
        .map(|rule| {
            let [outlook, salesforce] = Side::BOTH.map(|side| rule.read(side, &pair.get(side).fields));
            (rule.name.clone(), BaseField { outlook, salesforce, rule: rule.hash().to_owned() })
        })
        .collect();
    let keep = run.keep;
    let care = &mut run.link_mut().care;
    care.chosen = match (keep, care.chosen.take()) {
        (Some(side), _) => Some(Choice { side, between }),
        (None, before) => before.filter(|choice| choice.between == between),
    };
    run.keep = care.chosen.as_ref().map(|choice| choice.side);
}

/// What is to be written to one side.
#[derive(Debug, Default)]
struct Write {
    fields: Fields,
    agreed: BTreeMap<String, BaseField>,
    replaced: Fields,
    /// Fields of the other side whose change is carried.
    causes: BTreeSet<String>,
    /// No person's edit explains it.
    unexplained: bool,
}

/// Takes out a write that may not leave yet, or not without a person.
///
/// # Errors
/// The meeting goes round in circles and ends as a dead letter, or a look-up is missing.
fn hold_back(run: &mut Run<'_>, pair: &Pair<'_>, writes: &mut BTreeMap<Side, Write>) -> Result<Option<Passage>, Stop> {
    let mut held_back = None;
    let mut authors = BTreeMap::new();
    let mailed_at = run.link().care.mailed_at;
    if let Some(write) = writes.get(&Side::Outlook) {
        let causes: BTreeSet<&str> = write.causes.iter().map(String::as_str).collect();
        let author = caution::author_of_change(run, pair.salesforce, &causes);
        let passage = caution::change(run, pair.outlook, pair.salesforce, &author)?;
        if passage != Passage::Open {
            writes.remove(&Side::Outlook);
            for decision in run.decisions.iter_mut().filter(|decision| decision.write == Some(Side::Outlook)) {
                decision.write = None;
            }
            held_back = Some(passage);
        }
        authors.insert(Side::Outlook, author);
    }
    for (side, write) in writes.iter_mut() {
        let author = authors.remove(side).unwrap_or(Author::Unknown);
        let origin = caution::origin(run, *side, &author);
        write.unexplained = origin == Origin::Unexplained;
        if origin == Origin::GoesRound {
            let at = run.now;
            run.link_mut().state = LinkState::DeadLetter { reason: Reason::Oscillation, at };
            run.link_mut().care = Care { mailed_at, ..run.link().care.of_the_past() };
            // Nothing of the plan leaves.
            run.spends.clear();
            run.mail = MailEffect::default();
            run.cover();
            return Err(run.end(Outcome::DeadLetter, Reason::Oscillation));
        }
    }
    match held_back {
        Some(Passage::Held(reason)) => run.hold(reason),
        Some(Passage::Later(at, reason)) => {
            run.wake(at);
            run.reasons.push(reason);
        }
        Some(Passage::Open) | None => {}
    }
    Ok(held_back)
}

/// What holds for all rules of a meeting.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// Why Outlook is not written at all.
    refused: Option<Reason>,
    /// The side whose values a person chose.
    keep: Option<Side>,
}

/// The merge table.
fn judge(
    rule: &Rule,
    base: Option<&BaseField>,
    outlook: &Value,
    salesforce: &Value,
    pair: &Pair<'_>,
    terms: Terms,
) -> Verdict {
    if rule.kind == Kind::Time && ![outlook, salesforce].iter().all(|v| v.as_when().is_some_and(When::is_mappable)) {
        return Verdict::Leave(Reason::TimeNotMappable);
    }
    let to_salesforce = |reason| {
        if rule.flows_to(Side::Salesforce) {
            Verdict::Take(Side::Outlook, reason)
        } else {
            Verdict::Leave(Reason::OneWayField)
        }
    };
    let to_outlook = |reason| {
        if !rule.flows_to(Side::Outlook) {
            return Verdict::Leave(Reason::OneWayField);
        }
        terms.refused.map_or(Verdict::Take(Side::Salesforce, reason), Verdict::Leave)
    };
    if let Some(side) = terms.keep.filter(|_| !rule.agree(outlook, salesforce)) {
        let reason = Instruction::Keep(side).reason();
        return match side {
            // A field that flows the other way only may differ from now on: it is left as it is until its next edit.
            _ if !rule.flows_to(side.other()) => Verdict::MoveBase(reason),
            Side::Outlook => to_salesforce(reason),
            Side::Salesforce => to_outlook(reason),
        };
    }
    let Some(base) = base else {
        if rule.agree(outlook, salesforce) {
            return Verdict::MoveBase(Reason::InStep);
        }
        return match initial_side(rule, outlook, salesforce) {
            Some(Side::Outlook) => to_salesforce(Reason::InitialValue),
            Some(Side::Salesforce) => to_outlook(Reason::InitialValue),
            None => Verdict::Ask,
        };
    };
    match (*outlook != base.outlook, *salesforce != base.salesforce) {
        (false, false) => Verdict::Same,
        (true, false) => to_salesforce(Reason::OutlookChanged),
        (false, true) => to_outlook(Reason::SalesforceChanged),
        (true, true) if rule.agree(outlook, salesforce) => Verdict::MoveBase(Reason::SameChange),
        (true, true) => match winner(rule, pair, terms.refused.is_none()) {
            Some(Side::Outlook) => to_salesforce(Reason::ConflictOutlookWins),
            Some(Side::Salesforce) => to_outlook(Reason::ConflictSalesforceWins),
            None => Verdict::Ask,
        },
    }
}

fn initial_side(rule: &Rule, outlook: &Value, salesforce: &Value) -> Option<Side> {
    match (rule.direction, rule.initial) {
        (Direction::ToSalesforce, _) | (Direction::Both, Initial::Outlook) => Some(Side::Outlook),
        (Direction::ToOutlook, _) | (Direction::Both, Initial::Salesforce) => Some(Side::Salesforce),
        (Direction::Both, Initial::FillEmpty) => {
            let fills = *outlook == Value::Null && *salesforce != Value::Null;
            Some(if fills { Side::Salesforce } else { Side::Outlook })
        }
        (Direction::Both, Initial::Ask) => None,
    }
}

/// Picks the winner of a conflict; a side that cannot be written wins, and so does the source of a one-way field.
fn winner(rule: &Rule, pair: &Pair<'_>, outlook_writable: bool) -> Option<Side> {
    match (rule.direction, rule.conflict) {
        (Direction::ToSalesforce, _) | (Direction::Both, Conflict::OutlookWins) => Some(Side::Outlook),
        (Direction::Both, _) if !outlook_writable => Some(Side::Outlook),
        (Direction::ToOutlook, _) | (Direction::Both, Conflict::SalesforceWins) => Some(Side::Salesforce),
        (Direction::Both, Conflict::Latest) => {
            let lead = pair.salesforce.modified - pair.outlook.modified;
            let clear = TimeDelta::from_std(SAME_MOMENT).expect("five seconds fit");
            Some(if lead >= clear { Side::Salesforce } else { Side::Outlook })
        }
        (Direction::Both, Conflict::Manual) => None,
    }
}

fn update(
    run: &Run<'_>,
    written: &Snapshot,
    source: &Snapshot,
    Write { fields, agreed, replaced, unexplained, .. }: Write,
) -> Intent {
    let timers = &run.rules.policy.timers;
    let side = written.record.side();
    let token = run.fresh.token(side);
    let reason = run
        .decisions
        .iter()
        .find(|decision| decision.write == Some(side))
        .map_or(Reason::InitialValue, |decision| decision.reason);
    let link = run.link().id;
    Intent {
        token,
        link,
        side,
        action: Action::Update(written.record.clone()),
        fields,
        agreed,
        replaced,
        expected: Some(written.version.clone()),
        stamp: Stamp { link, partner: source.record.remote_id().to_owned(), token: Some(token) },
        recorded_at: run.now,
        send_by: run.now + timers.request_timeout,
        give_up_at: run.now + timers.request_timeout + timers.late_apply,
        sends: 1,
        mails: if side == Side::Outlook { run.mail.recipients } else { 0 },
        unexplained,
        reason,
    }
}

/// Counts notices of a side that shows nothing but our own last write, seen for the first time.
fn note_echoes(run: &mut Run<'_>, pair: &Pair<'_>) {
    for side in Side::BOTH {
        let snapshot = pair.get(side);
        let Some(replica) = run.link().replicas.get(side) else {
            continue;
        };
        let token = replica.stamped.as_ref().and_then(|stamp| stamp.token);
        let ours = token.is_some() && snapshot.stamp.as_ref().and_then(|stamp| stamp.token) == token;
        let first_sight = replica.version.is_none() || replica.version.as_ref() == Some(&snapshot.version);
        let changed = run.decisions.iter().any(|decision| decision.write == Some(side.other()));
        if ours && first_sight && !changed {
            let notices = run.case.notices.iter().filter(|notice| notice.record == snapshot.record).count();
            run.echoes += u32::try_from(notices).unwrap_or(u32::MAX);
        }
    }
}
