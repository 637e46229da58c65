//! Records without a link: do they take part, and where is their partner created?

use std::collections::BTreeMap;

use super::run::{Run, Stop, present};
use super::{Decision, Outcome, restored};
use crate::case::{Enrolment, Instruction, Lookup};
use crate::ids::MailboxId;
use crate::link::{Action, BaseField, Care, Home, Intent, Link, LinkState, Replica};
use crate::mapping::{Direction, TIME};
use crate::observed::{Observed, RecordKind, Snapshot, Stamp};
use crate::policy::FirstContact;
use crate::reason::Reason;
use crate::side::{BothSides, Side};
use crate::value::{Fields, Value, When};

/// Plans a meeting that has no row in the correlation table.
pub(super) fn plan(run: &mut Run<'_>) -> Result<Outcome, Stop> {
    let Some(authority) = authority(run.case.reads.values().filter_map(present)) else {
        return Err(nothing_present(run));
    };
    // One stamped side is enough: without it the other side would be taken for new and created again.
    let mut stamped = run.case.reads.values().filter_map(present);
    if let Some((snapshot, stamp)) = stamped.find_map(|snapshot| Some((snapshot, snapshot.stamp.as_ref()?)))
        && let Some(outcome) = restored::rebuild(run, snapshot, stamp)?
    {
        return Ok(outcome);
    }
    let enrolment = match takes_part(run, authority) {
        Ok(enrolment) => enrolment,
        Err(reason) => {
            run.cover();
            return Err(run.end(Outcome::Skip, reason));
        }
    };
    // Salesforce tells the creation in whole seconds: what was made in the enrolment's own second counts as older, because
    // leaving a new event alone can be mended, and a second copy of an old one cannot.
    let is_old = authority.created < enrolment.enrolled_at;
    if is_old {
        first_contact(run, authority)?;
    }
    // The enrolment of a lost database is newer than meetings that were paired under it before.
    if (is_old || restored::may_have_partner(run, authority))
        && let Some(outcome) = restored::reunite(run, authority, enrolment)?
    {
        return Ok(outcome);
    }
    if is_old {
        look_for_candidates(run, authority, enrolment)?;
    }
    let side = authority.record.side().other();
    // What could not be read may be the partner, made by a write that this database does not know.
    let unread = run.case.reads.iter().filter(|(record, _)| record.side() == side);
    let mut unread =
        unread.filter_map(|(_, observed)| if let Observed::Unread(why) = observed { Some(why) } else { None });
    if let Some(why) = unread.next_back() {
        return Err(run.wait_for_read(why));
    }
    run.stampable(side)?;
    let link = new_link(run, authority);
    run.link = Some(link);
    create(run, authority, enrolment);
    run.cover();
    run.reasons.insert(0, Reason::Created);
    Ok(Outcome::Write)
}

/// Plans a deleted meeting of which somebody brought a record back: a new generation, created on the other side.
pub(super) fn bring_back(run: &mut Run<'_>, snapshot: &Snapshot) -> Result<Outcome, Stop> {
    let enrolment = match takes_part(run, snapshot) {
        Ok(enrolment) => enrolment,
        Err(reason) => {
            run.cover_all();
            return Err(run.end(Outcome::Skip, reason));
        }
    };
    // A backup may have been made between the deletion and the return.
    if restored::is_from_backup(run)
        && let Some(outcome) = restored::reunite(run, snapshot, enrolment)?
    {
        return Ok(outcome);
    }
    run.stampable(snapshot.record.side().other())?;
    let why = match run.link().state {
        LinkState::Tombstone { reason: Reason::EditWins, .. } => Reason::EditWins,
        _ => Reason::Restored,
    };
    let generation = run.link().generation + 1;
    // What writes of the last generation covered is still asked of their change events.
    let unaudited = std::mem::take(&mut run.link_mut().unaudited);
    // Nor do automations that answer each other begin anew.
    let care = run.link().care.of_the_past();
    run.link = Some(Link { generation, unaudited, care, ..new_link(run, snapshot) });
    create(run, snapshot, enrolment);
    run.cover();
    run.reasons.insert(0, why);
    Ok(Outcome::Write)
}

/// Picks the copy that speaks for the meeting: the organiser's, else the first by id.
pub(super) fn authority<'a>(snapshots: impl Iterator<Item = &'a Snapshot>) -> Option<&'a Snapshot> {
    snapshots.min_by_key(|snapshot| (!snapshot.traits.is_organizer, snapshot.record.clone()))
}

/// Checks what a record must be to have a partner, whatever its age.
pub(super) fn takes_part<'a>(run: &Run<'a>, snapshot: &Snapshot) -> Result<&'a Enrolment, Reason> {
    match snapshot.traits.kind {
        RecordKind::Single => {}
        RecordKind::Child => return Err(Reason::ChildEvent),
        RecordKind::SeriesMaster | RecordKind::Occurrence | RecordKind::Exception => {
            return Err(Reason::SeriesNotMapped);
        }
    }
    if snapshot.traits.private {
        return Err(Reason::Private);
    }
    if snapshot.traits.draft {
        return Err(Reason::Draft);
    }
    if snapshot.traits.cancelled {
        return Err(Reason::Cancelled);
    }
    if !when(snapshot).is_some_and(When::is_mappable) {
        return Err(Reason::TimeNotMappable);
    }
    let enrolment = run.enrolment_of(snapshot).ok_or(Reason::NotEnrolled)?;
    // The organiser's own copy is signalled too, by a notification or a round; whichever comes first, it gives the owner.
    if organizer_is_enrolled(run, snapshot) {
        return Err(Reason::AttendeeCopy);
    }
    Ok(enrolment)
}

fn organizer_is_enrolled(run: &Run<'_>, snapshot: &Snapshot) -> bool {
    let enrolled = |mailbox: &MailboxId| run.case.enrolments.iter().any(|enrolment| enrolment.mailbox == *mailbox);
    !snapshot.traits.is_organizer && snapshot.traits.organizer.as_ref().is_some_and(enrolled)
}

/// Decides whether a record that is older than its enrolment may cross at all.
fn first_contact(run: &mut Run<'_>, snapshot: &Snapshot) -> Result<(), Stop> {
    let allowed = match run.rules.policy.first_contact {
        FirstContact::NewOnly => None,
        FirstContact::Outlook => Some(Side::Outlook),
        FirstContact::Salesforce => Some(Side::Salesforce),
    };
    if allowed != Some(snapshot.record.side()) {
        run.cover();
        return Err(run.end(Outcome::Skip, Reason::BeforeEnrolment));
    }
    Ok(())
}

/// Holds an old record where the other side has one at the same time that may be the same.
fn look_for_candidates(run: &mut Run<'_>, snapshot: &Snapshot, enrolment: &Enrolment) -> Result<(), Stop> {
    let Some(when) = when(snapshot) else { return Ok(()) };
    let lookup = Lookup::candidates(snapshot.record.side().other(), enrolment, when);
    let unlinked = run.found(&lookup)?.iter().any(|(_, observed)| present(observed).is_some());
    if unlinked {
        ask(run, Reason::NeedsAdopt)?;
    }
    Ok(())
}

/// Holds a meeting that has no link, or does what a person said about it.
pub(super) fn ask(run: &mut Run<'_>, reason: Reason) -> Result<(), Stop> {
    match run.case.instruction {
        Some(Instruction::Approve | Instruction::Retry | Instruction::Keep(_)) => {
            run.reasons.push(Reason::Approved);
            Ok(())
        }
        Some(Instruction::Discard | Instruction::Skip) => {
            run.cover();
            Err(run.end(Outcome::Skip, Reason::Discarded))
        }
        None => {
            run.cover();
            Err(run.end(Outcome::Hold, reason))
        }
    }
}

fn when(snapshot: &Snapshot) -> Option<&When> {
    snapshot.fields.get(TIME).and_then(Value::as_when)
}

/// Ends a run in which no record is there.
fn nothing_present(run: &mut Run<'_>) -> Stop {
    for observed in run.case.reads.values() {
        if let Observed::Unread(why) = observed {
            return run.wait_for_read(why);
        }
    }
    // "Not found" right after a creation may be a read that lags behind.
    run.cover();
    if run.covered.len() == run.case.notices.len() {
        run.end(Outcome::Skip, Reason::NeverSeen)
    } else {
        run.end(Outcome::Wait, Reason::AbsenceUnproven)
    }
}

pub(super) fn new_link(run: &Run<'_>, authority: &Snapshot) -> Link {
    let mut link = Link {
        id: run.fresh.link,
        connection: run.case.connection.clone(),
        ical_uid: authority.traits.ical_uid.clone().unwrap_or_default(),
        original_start: authority.traits.original_start.clone(),
        generation: 0,
        replicas: BothSides::default(),
        copies: std::collections::BTreeSet::new(),
        base: BTreeMap::new(),
        intents: BothSides::default(),
        unaudited: Vec::new(),
        care: Care::default(),
        state: LinkState::Live,
        revision: 0,
        last_writer: Some(authority.record.side()),
        created: run.now,
        in_step_at: None,
    };
    *link.replicas.get_mut(authority.record.side()) = Some(replica(authority));
    link.copies.extend(
        run.case.reads.values().filter_map(present).map(|s| &s.record).filter(|r| **r != authority.record).cloned(),
    );
    link
}

/// Starts a replica from a snapshot.
pub(super) fn replica(snapshot: &Snapshot) -> Replica {
    let mut replica = Replica::new(snapshot.record.clone());
    replica.advance(snapshot);
    replica.organizer = snapshot.traits.is_organizer;
    replica.stamped.clone_from(&snapshot.stamp);
    replica
}

/// Plans the creation of the missing side of the run's link.
pub(super) fn create(run: &mut Run<'_>, source: &Snapshot, enrolment: &Enrolment) {
    let from = source.record.side();
    let side = from.other();
    let home = match side {
        Side::Outlook => Home::Mailbox(enrolment.mailbox.clone()),
        Side::Salesforce => Home::Owner(enrolment.user.as_str().to_owned()),
    };
    let mut fields = Fields::new();
    let mut agreed = BTreeMap::new();
    for rule in run.rules.mapping.rules() {
        let value = rule.read(from, &source.fields);
        let crosses = rule.flows_to(side) || (rule.on_create && rule.direction != Direction::Both);
        let target = if crosses { rule.canonical(side, rule.convert(side, &value, &Value::Null)) } else { Value::Null };
        if target != Value::Null {
            fields.insert(rule.field(side).to_owned(), target.clone());
        }
        let (outlook, salesforce) = match from {
            Side::Outlook => (value, target.clone()),
            Side::Salesforce => (target.clone(), value),
        };
        run.decisions.push(Decision {
            rule: rule.name.clone(),
            reason: if crosses { Reason::Created } else { Reason::OneWayField },
            write: crosses.then_some(side),
            outlook: outlook.clone(),
            salesforce: salesforce.clone(),
            agreed: target,
        });
        agreed.insert(rule.name.clone(), BaseField { outlook, salesforce, rule: rule.hash().to_owned() });
    }
    let timers = &run.rules.policy.timers;
    let token = run.fresh.token(side);
    let link = run.link().id;
    run.steps.push(Intent {
        token,
        link,
        side,
        action: Action::Create(home),
        fields,
        agreed,
        replaced: Fields::new(),
        expected: None,
        stamp: Stamp { link, partner: source.record.remote_id().to_owned(), token: Some(token) },
        recorded_at: run.now,
        send_by: run.now + timers.request_timeout,
        give_up_at: run.now + timers.request_timeout + timers.late_apply,
        sends: 1,
        mails: 0,
        unexplained: false,
        reason: Reason::Created,
    });
}
