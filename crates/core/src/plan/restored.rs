//! A lost or restored database: what it no longer knows is put together again from the stamps that writes left.
//!
//! | the database is | and a read shows | what follows |
//! |---|---|---|
//! | new | a stamped record | its partner is read, and the link made again |
//! | a backup | a record that no link knows, older than the restore | the other side is searched for a stamp that names it |
//! | a backup | a write that its link does not know | what both sides hold alike is the base |
//!
//! Nothing is written for any of this. Where the two sides differ nobody knows any more which of them changed: a person
//! decides.

use chrono::TimeDelta;

use super::Outcome;
use super::presence::Pair;
use super::run::{Run, Stop, present};
use super::unlinked::{ask, new_link, replica};
use crate::case::{Enrolment, Lookup};
use crate::ids::{RecordId, SalesforceId};
use crate::link::{BaseField, Intent, Link, LinkState, Replica};
use crate::mapping::Direction;
use crate::observed::{Evidence, Observed, Snapshot, Stamp};
use crate::reason::Reason;
use crate::side::Side;

/// How far the clocks of the remotes may differ from ours, when it is asked whether a record is older than the restore.
///
/// Asking about a record that is not costs one search.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);

/// Rebuilds a link that the database lost from the stamp that a write left in the record.
///
/// None where there is no partner and a person said to create one.
pub(super) fn rebuild(run: &mut Run<'_>, stamped: &Snapshot, stamp: &Stamp) -> Result<Option<Outcome>, Stop> {
    let partner = match partner_of(run, stamped, stamp) {
        Some(record) => match run.read(&record)? {
            Observed::Unread(why) => return Err(run.wait_for_read(why)),
            observed => present(observed),
        },
        None => None,
    };
    if let Some(partner) = partner {
        return pair_up(run, stamped, stamp, partner).map(Some);
    }
    ask(run, Reason::StampUnknown)?;
    Ok(None)
}

/// Tells whether a record that no link knows may have a partner that the database forgot.
pub(super) fn may_have_partner(run: &Run<'_>, snapshot: &Snapshot) -> bool {
    run.rules.policy.restored_at.is_some_and(|restored| snapshot.created < restored + CLOCKS_DIFFER)
}

/// Looks for a record of the other side whose stamp names this one, and makes their link again.
///
/// None where there is no such record, or where its partner was deleted and a person said to create one.
pub(super) fn reunite(run: &mut Run<'_>, snapshot: &Snapshot, enrolment: &Enrolment) -> Result<Option<Outcome>, Stop> {
    let side = snapshot.record.side().other();
    let mailbox = (side == Side::Outlook).then(|| enrolment.mailbox.clone());
    let found = run.found(&Lookup::Partners { side, of: snapshot.record.clone(), mailbox })?;
    let buried = run.link.as_ref().map(|link| link.id);
    let stamped = found.iter().filter_map(|(_, observed)| present(observed)).find_map(|partner| {
        let stamp = partner.stamp.as_ref()?;
        (stamp.partner == snapshot.record.remote_id() && Some(stamp.link) != buried).then_some((partner, stamp))
    });
    if let Some((partner, stamp)) = stamped {
        return pair_up(run, partner, stamp, snapshot).map(Some);
    }
    if found.iter().any(|(_, observed)| matches!(observed, Observed::Absent(Evidence::Deleted))) {
        ask(run, Reason::StampUnknown)?;
    }
    Ok(None)
}

/// Looks for the record that a link of a backup lacks: it may have been made since.
///
/// # Errors
/// It was made and deleted again, and a person must say whether to make it anew; or the search is not answered.
pub(super) fn made_since<'a>(run: &mut Run<'a>, side: Side) -> Result<Option<&'a Snapshot>, Stop> {
    let source = run.link().replicas.get(side.other()).clone().filter(|_| is_from_backup(run));
    let Some(source) = source else { return Ok(None) };
    let Observed::Present(source) = run.read(&source.record)? else { return Ok(None) };
    let Some(enrolment) = run.enrolment_of(source) else { return Ok(None) };
    let mailbox = (side == Side::Outlook).then(|| enrolment.mailbox.clone());
    let link = run.link().id;
    let found = run.found(&Lookup::Stamped { side, link, mailbox })?;
    let made = found.iter().find_map(|(_, observed)| present(observed));
    if made.is_none() && !found.is_empty() && !is_answered(run) {
        run.cover_all();
        return Err(hold(run));
    }
    Ok(made)
}

/// Takes a record into the run's link that a forgotten write made: its stamp is one that the link does not know.
pub(super) fn adopt(run: &mut Run<'_>, snapshot: &Snapshot) {
    let adopted = Replica { stamped: None, ..replica(snapshot) };
    *run.link_mut().replicas.get_mut(snapshot.record.side()) = Some(adopted);
}

/// Tells whether the run's link is as a backup kept it: both sides were not seen in step since the database was restored.
pub(super) fn is_from_backup(run: &Run<'_>) -> bool {
    let known_at = run.link().in_step_at.max(Some(run.link().created));
    run.rules.policy.restored_at > known_at
}

/// Tells whether a write was recorded in the database that was put back: what became of it may be forgotten.
pub(super) fn is_before(run: &Run<'_>, intent: &Intent) -> bool {
    run.rules.policy.restored_at.is_some_and(|restored| intent.recorded_at < restored)
}

/// Tells whether a record carries a write of ours that its link does not know of.
pub(super) fn is_forgotten_write(run: &Run<'_>, snapshot: &Snapshot) -> bool {
    let link = run.link();
    let stamp = snapshot.stamp.as_ref().filter(|stamp| stamp.link == link.id && stamp.token.is_some());
    let side = snapshot.record.side();
    let confirmed = link.replicas.get(side).as_ref().and_then(|replica| replica.stamped.as_ref());
    let open = link.intents.get(side).as_ref().map(|intent| intent.token);
    stamp.is_some_and(|stamp| stamp.token != confirmed.and_then(|stamp| stamp.token) && stamp.token != open)
}

/// Tells whether a read is newer than all that a link knows although it lacks the link's last write.
pub(super) fn is_newer_than_backup(run: &Run<'_>, snapshot: &Snapshot) -> bool {
    is_from_backup(run) && is_forgotten_write(run, snapshot)
}

/// Tells whether a person said what shall become of a link whose past nobody knows.
pub(super) fn is_answered(run: &Run<'_>) -> bool {
    run.keep.is_some() || run.link().care.approved.is_some_and(|approval| approval.reason == Reason::StampUnknown)
}

/// Takes in what the records tell of writes that a backup forgot: what both sides hold alike is what they agreed on.
///
/// # Errors
/// They differ, and a person must say who is right.
pub(super) fn recall(run: &mut Run<'_>, pair: &Pair<'_>) -> Result<(), Stop> {
    let forgotten: Vec<Side> = Side::BOTH.into_iter().filter(|side| is_forgotten_write(run, pair.get(*side))).collect();
    if forgotten.is_empty() {
        return Ok(());
    }
    for side in Side::BOTH {
        if let Some(replica) = run.link_mut().replicas.get_mut(side) {
            replica.advance(pair.get(side));
            if forgotten.contains(&side) {
                replica.stamped.clone_from(&pair.get(side).stamp);
            }
        }
    }
    // A write that waited may have been made since.
    run.pending_before = None;
    if !take_as_agreed(run, pair.outlook, pair.salesforce) || is_answered(run) {
        return Ok(());
    }
    run.cover();
    Err(hold(run))
}

/// Ends the run until a person says what shall become of the run's link.
pub(super) fn hold(run: &mut Run<'_>) -> Stop {
    let at = run.now;
    run.link_mut().state = LinkState::Held { reason: Reason::StampUnknown, at };
    run.end(Outcome::Hold, Reason::StampUnknown)
}

/// Returns the record that a stamp names as its partner.
fn partner_of(run: &Run<'_>, stamped: &Snapshot, stamp: &Stamp) -> Option<RecordId> {
    if stamp.partner.is_empty() {
        return None;
    }
    match stamped.record.side() {
        Side::Outlook => SalesforceId::parse(&stamp.partner).ok().map(RecordId::Salesforce),
        Side::Salesforce => run
            .enrolment_of(stamped)
            .map(|enrolment| RecordId::Outlook { mailbox: enrolment.mailbox.clone(), event: stamp.partner.clone() }),
    }
}

/// Makes the link of a stamped record and its partner again.
fn pair_up(run: &mut Run<'_>, stamped: &Snapshot, stamp: &Stamp, partner: &Snapshot) -> Result<Outcome, Stop> {
    let side = stamped.record.side();
    let generation = run.link.as_ref().map_or(0, |buried| buried.generation + 1);
    let mut link = Link { id: stamp.link, generation, ..new_link(run, stamped) };
    link.copies.clear();
    for snapshot in [stamped, partner] {
        let mut replica = replica(snapshot);
        replica.stamped = snapshot.stamp.clone().filter(|stamp| stamp.link == link.id);
        *link.replicas.get_mut(snapshot.record.side()) = Some(replica);
    }
    if link.ical_uid.is_empty() {
        link.ical_uid = partner.traits.ical_uid.clone().unwrap_or_default();
    }
    run.link = Some(link);
    let (outlook, salesforce) = if side == Side::Outlook { (stamped, partner) } else { (partner, stamped) };
    let differs = take_as_agreed(run, outlook, salesforce);
    run.cover();
    if differs {
        return Err(hold(run));
    }
    run.link_mut().in_step_at = Some(run.now);
    // What else the reads show, such as a cancellation, is for the link's first run.
    let at = run.now;
    run.wake(at);
    run.reasons.insert(0, Reason::InStep);
    Ok(Outcome::InStep)
}

/// Takes what both sides hold alike as what they agreed on, and forgets the rest; tells whether anything differs.
fn take_as_agreed(run: &mut Run<'_>, outlook: &Snapshot, salesforce: &Snapshot) -> bool {
    let mut differs = false;
    for rule in run.rules.mapping.rules() {
        let (o, s) = (rule.read(Side::Outlook, &outlook.fields), rule.read(Side::Salesforce, &salesforce.fields));
        let from_backup = is_from_backup(run);
        let base = &mut run.link_mut().base;
        if rule.direction != Direction::Both && !rule.agree(&o, &s) && !from_backup && base.contains_key(&rule.name) {
            // The database is no backup, so what it knows of a field that may differ for good still tells who changed it.
            continue;
        }
        if rule.agree(&o, &s) || rule.direction != Direction::Both {
            base.insert(rule.name.clone(), BaseField { outlook: o, salesforce: s, rule: rule.hash().to_owned() });
        } else {
            base.remove(&rule.name);
            differs = true;
        }
    }
    differs
}
