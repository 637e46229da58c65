//! Does each side still have the meeting? Absence needs evidence, and an attendee's vanished copy is no deletion.

use chrono::{DateTime, TimeDelta, Utc};

use super::caution::{self, Passage};
use super::run::{Run, Stop, present};
use super::{Outcome, restored, unlinked};
use crate::ids::RecordId;
use crate::link::{Action, Intent, LinkState, Replica, Wish};
use crate::observed::{Evidence, Observed, Snapshot, Stamp, Why};
use crate::policy::DeleteConflict;
use crate::reason::Reason;
use crate::side::Side;
use crate::value::Fields;

/// Fresh snapshots of both sides.
pub(super) struct Pair<'a> {
    pub(super) outlook: &'a Snapshot,
    pub(super) salesforce: &'a Snapshot,
}

impl<'a> Pair<'a> {
    /// Returns the snapshot of a side.
    pub(super) fn get(&self, side: Side) -> &'a Snapshot {
        match side {
            Side::Outlook => self.outlook,
            Side::Salesforce => self.salesforce,
        }
    }
}

/// How one side stands.
enum Standing<'a> {
    Here(&'a Snapshot),
    Gone(Reason),
    /// It was never made: its creation was refused or given up.
    Never,
}

/// Forgets doubts about records that the reads of this run show, wherever the run ends.
pub(super) fn note_sightings(run: &mut Run<'_>) {
    for side in Side::BOTH {
        let reads = &run.case.reads;
        let Some(replica) = run.link_mut().replicas.get_mut(side) else { continue };
        if let Some(snapshot) = reads.get(&replica.record).and_then(present) {
            replica.missing_since = None;
            if !replica.is_stale(snapshot) {
                replica.stale = None;
            }
        }
    }
}

/// Returns both snapshots, or ends the run with what follows from a missing side.
pub(super) fn both_present<'a>(run: &mut Run<'a>) -> Result<Pair<'a>, Stop> {
    follow_copies(run);
    let outlook = standing(run, Side::Outlook)?;
    let salesforce = standing(run, Side::Salesforce)?;
    match (outlook, salesforce) {
        (Standing::Here(outlook), Standing::Here(salesforce)) => {
            leave_private(run, outlook, salesforce)?;
            Ok(Pair { outlook, salesforce })
        }
        (Standing::Here(snapshot), Standing::Gone(reason)) | (Standing::Gone(reason), Standing::Here(snapshot)) => {
            Err(delete(run, snapshot, reason))
        }
        (Standing::Here(snapshot), Standing::Never) | (Standing::Never, Standing::Here(snapshot)) => {
            Err(create_again(run, snapshot))
        }
        (Standing::Gone(_) | Standing::Never, Standing::Gone(_) | Standing::Never) => Err(bury(run, Reason::BothGone)),
    }
}

/// Takes note of other mailboxes' copies, and lets the organiser's copy speak as soon as it is known.
fn follow_copies(run: &mut Run<'_>) {
    let uid = run.link().ical_uid.clone();
    let speaking = run.link().replicas.outlook.as_ref().map(|replica| replica.record.clone());
    for (record, observed) in &run.case.reads {
        if record.side() != Side::Outlook || Some(record) == speaking.as_ref() {
            continue;
        }
        match observed {
            Observed::Present(snapshot) => {
                if snapshot.traits.ical_uid.as_deref() == Some(uid.as_str()) && !uid.is_empty() {
                    run.link_mut().copies.insert(record.clone());
                    run.reasons.push(Reason::AttendeeCopy);
                }
            }
            Observed::Absent(_) if run.delete_was_signalled(record) => {
                if run.link_mut().copies.remove(record) {
                    run.reasons.push(Reason::CopyVanished);
                }
            }
            Observed::Absent(_) | Observed::Unread(_) => {}
        }
    }
    let organizers = run.link().replicas.outlook.as_ref().is_some_and(|replica| replica.organizer);
    let better = run
        .case
        .reads
        .values()
        .filter_map(present)
        .find(|snapshot| snapshot.traits.is_organizer && run.link().copies.contains(&snapshot.record));
    if let Some(organizer) = better.filter(|_| !organizers && speaking.is_some()) {
        speak_through(run, organizer);
    }
}

/// Makes another copy the authority; the base stays, so that only real differences count as changes.
fn speak_through(run: &mut Run<'_>, snapshot: &Snapshot) {
    let link = run.link_mut();
    if let Some(old) = link.replicas.outlook.take() {
        link.copies.insert(old.record);
    }
    link.copies.remove(&snapshot.record);
    link.replicas.outlook = Some(unlinked::replica(snapshot));
    run.reasons.push(Reason::AuthorityMoved);
}

fn standing<'a>(run: &mut Run<'a>, side: Side) -> Result<Standing<'a>, Stop> {
    let Some(replica) = run.link().replicas.get(side).clone() else {
        return Ok(made_unknown(run, side)?.map_or(Standing::Never, Standing::Here));
    };
    match run.read(&replica.record)? {
        Observed::Unread(why) => Err(run.wait_for_read(why)),
        Observed::Absent(evidence) => {
            prove_absence(run, side, &replica, *evidence)?;
            if side == Side::Outlook
                && !replica.organizer
                && let Some(heir) = heir(run, &replica)?
            {
                run.link_mut().copies.remove(&replica.record);
                run.reasons.push(Reason::CopyVanished);
                return Ok(Standing::Here(heir));
            }
            Ok(Standing::Gone(match side {
                Side::Outlook => Reason::DeletedInOutlook,
                Side::Salesforce => Reason::DeletedInSalesforce,
            }))
        }
        Observed::Present(snapshot) => {
            run.await_fresh(&replica, snapshot)?;
            if snapshot.traits.cancelled {
                return Ok(Standing::Gone(Reason::Cancelled));
            }
            Ok(Standing::Here(snapshot))
        }
    }
}

/// Finds a record that carries the link's stamp although the link knows of none: a database put back from a backup does not
/// know what was made since.
fn made_unknown<'a>(run: &mut Run<'a>, side: Side) -> Result<Option<&'a Snapshot>, Stop> {
    let link = run.link().id;
    for (_, observed) in run.case.reads.iter().filter(|(record, _)| record.side() == side) {
        match observed {
            Observed::Unread(why) => return Err(run.wait_for_read(why)),
            Observed::Present(snapshot) if snapshot.stamp.as_ref().is_some_and(|stamp| stamp.link == link) => {
                restored::adopt(run, snapshot);
                return Ok(Some(snapshot));
            }
            Observed::Present(_) | Observed::Absent(_) => {}
        }
    }
    let made = restored::made_since(run, side)?;
    if let Some(snapshot) = made {
        restored::adopt(run, snapshot);
    }
    Ok(made)
}

/// Ends the run until the absence of a record is proven.
///
/// Proof is a deleted row, a delete signal together with a read that finds nothing, or two such reads some time apart.
pub(super) fn prove_absence(run: &mut Run<'_>, side: Side, replica: &Replica, evidence: Evidence) -> Result<(), Stop> {
    if evidence == Evidence::Deleted || deletion_waits(run, side) {
        return Ok(());
    }
    if run.delete_was_signalled(&replica.record) {
        // The signal is covered by this run. Should the write that follows be lost, the time that passes until that is
        // known proves the absence as well.
        let now = run.now;
        if let Some(replica) = run.link_mut().replicas.get_mut(side) {
            replica.missing_since.get_or_insert(now);
        }
        return Ok(());
    }
    prove_by_time(run, side, replica)
}

/// Tells whether the absence was proven by an earlier run, whose deletion waits.
fn deletion_waits(run: &Run<'_>, gone: Side) -> bool {
    run.pending_before.as_ref().is_some_and(|pending| pending.wish == Wish::Delete && pending.side == gone.other())
}

/// Ends the run until "not found" has been the answer for long enough.
///
/// A signal that the record changed says that it was there, so the time counts from the latest one.
fn prove_by_time(run: &mut Run<'_>, side: Side, replica: &Replica) -> Result<(), Stop> {
    let proof = run.rules.policy.timers.absence_proof;
    let notices = run.case.notices.iter();
    let changed = notices.filter(|notice| notice.record == replica.record && !notice.versions.is_empty());
    let changed_at = changed.map(|notice| notice.last_signal_at).max();
    let since = replica.missing_since.unwrap_or(run.now).max(changed_at.unwrap_or_default());
    if run.now - since >= proof {
        return Ok(());
    }
    if let Some(replica) = run.link_mut().replicas.get_mut(side) {
        replica.missing_since = Some(since);
    }
    Err(run.wait(Reason::AbsenceUnproven, since + proof))
}

/// Finds another copy that can speak for a meeting whose speaking attendee copy vanished.
///
/// That there is none needs proof as well: a lagging read misses a copy that is there.
fn heir<'a>(run: &mut Run<'a>, vanished: &Replica) -> Result<Option<&'a Snapshot>, Stop> {
    let copies: Vec<RecordId> = run.link().copies.iter().cloned().collect();
    let mut alive = Vec::new();
    let mut missed = false;
    for copy in copies {
        match run.read(&copy)? {
            Observed::Present(snapshot) if !snapshot.traits.cancelled => alive.push(snapshot.as_ref()),
            Observed::Unread(why) => return Err(run.wait_for_read(why)),
            Observed::Absent(_) => missed |= !run.delete_was_signalled(&copy),
            Observed::Present(_) => {}
        }
    }
    let heir = unlinked::authority(alive.into_iter());
    match heir {
        Some(snapshot) => speak_through(run, snapshot),
        None if missed => prove_by_time(run, Side::Outlook, vanished)?,
        None => {}
    }
    Ok(heir)
}

/// Removes the copy of a meeting that became private; where both did, each stays on its side.
fn leave_private(run: &mut Run<'_>, outlook: &Snapshot, salesforce: &Snapshot) -> Result<(), Stop> {
    for snapshot in [outlook, salesforce].into_iter().filter(|snapshot| snapshot.traits.private) {
        // The deletion does not wait. Should it be refused for now, a read that lags shows what was before.
        if let Some(replica) = run.link_mut().replicas.get_mut(snapshot.record.side()) {
            replica.advance(snapshot);
        }
    }
    match (outlook.traits.private, salesforce.traits.private) {
        (false, false) => Ok(()),
        (true, false) => Err(delete(run, salesforce, Reason::BecamePrivate)),
        (false, true) => Err(delete(run, outlook, Reason::BecamePrivate)),
        (true, true) => Err(bury(run, Reason::BecamePrivate)),
    }
}

/// Plans the deletion of the side that is still there.
fn delete(run: &mut Run<'_>, snapshot: &Snapshot, reason: Reason) -> Stop {
    let side = snapshot.record.side();
    if snapshot.traits.private {
        // Its values may not be kept, so it could never be restored: what is private stays on its side.
        run.reasons.push(reason);
        return bury(run, Reason::BecamePrivate);
    }
    if edit_wins(run, snapshot, reason) {
        return revive(run, side.other());
    }
    if let Some(refusal) = caution::refusal(run, snapshot) {
        // What cannot be deleted stays where it is; the tombstone keeps it from being created again.
        run.reasons.push(reason);
        return bury(run, refusal);
    }
    if let Err(stop) = run.stampable(side) {
        return stop;
    }
    match caution::deletion(run, snapshot, reason) {
        Err(stop) => return stop,
        Ok(Passage::Open) => {}
        Ok(Passage::Later(at, waits)) => {
            run.cover_all();
            run.wake(at);
            run.reasons.push(reason);
            return run.end(Outcome::Deferred, waits);
        }
        Ok(Passage::Held(why)) => {
            run.cover_all();
            run.hold(why);
            run.reasons.push(reason);
            return Stop::End(Outcome::Hold);
        }
    }
    let timers = &run.rules.policy.timers;
    let token = run.fresh.token(side);
    // Values of a private meeting are not kept; for any other deletion the whole last state is restorable.
    let replaced = if reason == Reason::BecamePrivate { Fields::new() } else { snapshot.fields.clone() };
    let link = run.link().id;
    run.steps.push(Intent {
        token,
        link,
        side,
        action: Action::Delete(snapshot.record.clone()),
        fields: Fields::new(),
        agreed: std::collections::BTreeMap::new(),
        replaced,
        expected: Some(snapshot.version.clone()),
        stamp: Stamp { link, partner: String::new(), token: Some(token) },
        recorded_at: run.now,
        send_by: run.now + timers.request_timeout,
        give_up_at: run.now + timers.request_timeout + timers.late_apply,
        sends: 1,
        mails: if side == Side::Outlook { run.mail.recipients } else { 0 },
        unexplained: false,
        reason,
    });
    run.cover_all();
    run.end(Outcome::Write, reason)
}

/// Tells whether the side that is left was edited since both agreed, and the policy lets that edit win.
fn edit_wins(run: &Run<'_>, left: &Snapshot, reason: Reason) -> bool {
    let deleted = matches!(reason, Reason::DeletedInOutlook | Reason::DeletedInSalesforce);
    if !deleted || run.rules.policy.delete_conflict != DeleteConflict::EditWins {
        return false;
    }
    let side = left.record.side();
    run.rules.mapping.rules().iter().filter(|rule| rule.flows_to(side.other())).any(|rule| {
        let base = run.link().base.get(&rule.name).filter(|base| base.rule == rule.hash());
        let agreed = base.map(|base| match side {
            Side::Outlook => &base.outlook,
            Side::Salesforce => &base.salesforce,
        });
        agreed.is_none_or(|agreed| *agreed != rule.read(side, &left.fields))
    })
}

/// Ends the link so that the next run makes the meeting again, under a link id of its own.
///
/// The deleted record may still carry the old id, and would be taken for the one that is to be made. It is forgotten, so
/// that a read that lags does not take it for the one that is left.
fn revive(run: &mut Run<'_>, gone: Side) -> Stop {
    let at = run.now;
    run.wake(at);
    *run.link_mut().replicas.get_mut(gone) = None;
    bury(run, Reason::EditWins)
}

/// How long after its burial a record that is read again is believed to be back, and not shown by a read that lags.
const RESTORED_AFTER: TimeDelta = TimeDelta::minutes(1);

/// Plans a meeting that was deleted: it stays so, unless somebody brought a record of it back.
///
/// Salesforce restores a record under its id, Outlook as a new event that still carries our stamp.
pub(super) fn buried(run: &mut Run<'_>, reason: Reason, at: DateTime<Utc>) -> Result<Outcome, Stop> {
    if reason == Reason::EditWins {
        if let Some(left) = left_over(run)? {
            return unlinked::bring_back(run, left);
        }
    } else if !may_be_back(reason) {
        // Whatever the reads show changes nothing.
    } else if let Some(why) = unread(run) {
        return Err(run.wait_for_read(why));
    } else if let Some(restored) = brought_back(run) {
        let believed_at = at + RESTORED_AFTER;
        if run.now >= believed_at {
            return unlinked::bring_back(run, restored);
        }
        // Nothing else may lead to a record that is new to the link: it stays dirty.
        run.cover_all();
        run.covered.remove(&restored.record);
        run.wake(believed_at);
        return Err(run.end(Outcome::Skip, Reason::DeletedStaysDeleted));
    }
    // A lagging read may not show yet that somebody brought it back.
    run.cover();
    Err(run.end(Outcome::Skip, Reason::DeletedStaysDeleted))
}

/// Finds the record whose edit won over the deletion of its partner; none when it is gone by now as well.
fn left_over<'a>(run: &mut Run<'a>) -> Result<Option<&'a Snapshot>, Stop> {
    for side in Side::BOTH {
        let Some(replica) = run.link().replicas.get(side).clone() else { continue };
        match run.read(&replica.record)? {
            Observed::Unread(why) => return Err(run.wait_for_read(why)),
            Observed::Absent(evidence) => prove_absence(run, side, &replica, *evidence)?,
            Observed::Present(snapshot) => {
                run.await_fresh(&replica, snapshot)?;
                return Ok(Some(snapshot));
            }
        }
    }
    Ok(None)
}

fn may_be_back(reason: Reason) -> bool {
    matches!(reason, Reason::DeletedInOutlook | Reason::DeletedInSalesforce | Reason::BothGone)
}

/// Tells why a record that something led to could not be read.
fn unread<'a>(run: &Run<'a>) -> Option<&'a Why> {
    run.case.notices.iter().find_map(|notice| match run.case.reads.get(&notice.record)? {
        Observed::Unread(why) => Some(why),
        Observed::Present(_) | Observed::Absent(_) => None,
    })
}

fn brought_back<'a>(run: &Run<'a>) -> Option<&'a Snapshot> {
    let link = run.link();
    let is_back = |snapshot: &Snapshot| {
        let replica = link.replicas.get(snapshot.record.side()).as_ref();
        let known = replica.filter(|replica| replica.record == snapshot.record);
        match snapshot.record.side() {
            Side::Salesforce => known.is_some_and(|replica| !replica.is_stale(snapshot)),
            Side::Outlook => {
                known.is_none()
                    && !link.copies.contains(&snapshot.record)
                    // What an earlier generation stamped belongs to the meeting too.
                    && snapshot.stamp.as_ref().is_some_and(|stamp| stamp.link == link.id || link.generation > 0)
            }
        }
    };
    run.case.reads.values().filter_map(present).find(|snapshot| is_back(snapshot))
}

/// Plans a creation anew whose first attempt was refused or given up.
fn create_again(run: &mut Run<'_>, snapshot: &Snapshot) -> Stop {
    let enrolment = match unlinked::takes_part(run, snapshot) {
        Ok(enrolment) => enrolment,
        Err(reason) => {
            run.cover();
            return run.end(Outcome::Skip, reason);
        }
    };
    let from = snapshot.record.side();
    if let Some(replica) = run.link_mut().replicas.get_mut(from) {
        replica.advance(snapshot);
    }
    if let Err(stop) = run.stampable(from.other()) {
        return stop;
    }
    unlinked::create(run, snapshot, enrolment);
    run.cover();
    run.end(Outcome::Write, Reason::Created)
}

/// Ends the link: what remains keeps the meeting deleted.
fn bury(run: &mut Run<'_>, reason: Reason) -> Stop {
    let at = run.now;
    run.link_mut().state = LinkState::Tombstone { reason, at };
    run.link_mut().care = run.link().care.of_the_past();
    run.cover_all();
    run.end(Outcome::Deleted, reason)
}
