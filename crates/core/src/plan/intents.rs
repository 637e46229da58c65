//! Open intents: what became of a write whose result is unknown.
//!
//! Decided by the token that the write would have left in the record, never by comparing values: a person may have put
//! the old value back.

use super::run::{Run, Stop, present};
use super::{Outcome, presence, restored};
use crate::case::Lookup;
use crate::ids::RecordId;
use crate::link::{Action, Home, Intent, LinkState, Replica, Unaudited};
use crate::observed::{Evidence, Observed, Snapshot};
use crate::reason::Reason;
use crate::side::Side;

/// Resolves the link's open intents, or ends the run until they can be.
pub(super) fn resolve(run: &mut Run<'_>) -> Result<(), Stop> {
    for side in Side::BOTH {
        let Some(intent) = run.link().intents.get(side).clone() else {
            continue;
        };
        match &intent.action {
            Action::Create(home) => created(run, &intent, home)?,
            Action::Update(record) => updated(run, &intent, record)?,
            Action::Delete(record) => deleted(run, &intent, record)?,
        }
    }
    if run.steps.is_empty() { Ok(()) } else { Err(run.end(Outcome::Write, Reason::WriteUnknown)) }
}

fn created(run: &mut Run<'_>, intent: &Intent, home: &Home) -> Result<(), Stop> {
    let mailbox = match home {
        Home::Mailbox(mailbox) => Some(mailbox.clone()),
        Home::Owner(_) => None,
    };
    let found = run.found(&Lookup::Stamped { side: intent.side, link: intent.link, mailbox })?;
    let alive: Vec<&Snapshot> = found.iter().filter_map(|(_, observed)| present(observed)).collect();
    match (alive.as_slice(), found) {
        ([snapshot], _) if !carries(snapshot, intent) => {
            // Made by an earlier request that this database does not know: nobody knows what both sides agreed on then.
            drop_intent(run, intent);
            restored::adopt(run, snapshot);
            run.reasons.push(Reason::WriteConfirmed);
            Ok(())
        }
        ([snapshot], _) => {
            confirm(run, intent, snapshot.record.clone());
            let replica = run.link_mut().replicas.get_mut(intent.side);
            if let Some(replica) = replica {
                replica.organizer = snapshot.traits.is_organizer;
            }
            if let Some(uid) = &snapshot.traits.ical_uid {
                run.link_mut().ical_uid.clone_from(uid);
            }
            Ok(())
        }
        ([], [(record, _), ..]) => {
            // Created, and deleted again by a person before we looked.
            confirm(run, intent, record.clone());
            Ok(())
        }
        ([], []) => not_found(run, intent),
        _ => {
            run.link_mut().state = LinkState::DeadLetter { reason: Reason::DuplicateLink, at: run.now };
            run.cover_all();
            Err(run.end(Outcome::DeadLetter, Reason::DuplicateLink))
        }
    }
}

/// Handles a creation of which the other side shows nothing (yet).
///
/// It is never repeated while the first request may still take effect, even where the remote refuses a second record
/// with the same link id: a person may delete the first one in between, and the late request would bring it back.
fn not_found(run: &mut Run<'_>, intent: &Intent) -> Result<(), Stop> {
    if run.now < intent.give_up_at {
        return Err(run.wait(Reason::WriteUnknown, intent.give_up_at));
    }
    let from = intent.side.other();
    if let Some(source) = run.link().replicas.get(from).clone() {
        match run.read(&source.record)? {
            // It may have taken effect, and been deleted again, after the backup was made.
            Observed::Present(_) if restored::is_before(run, intent) => {
                if !restored::is_answered(run) {
                    run.cover_all();
                    return Err(restored::hold(run));
                }
                // A person wants it made, under a token that Outlook does not take for the first one's.
                drop_intent(run, intent);
                return Ok(());
            }
            Observed::Present(_) => {
                resend(run, intent);
                return Ok(());
            }
            Observed::Absent(evidence) => presence::prove_absence(run, from, &source, *evidence)?,
            Observed::Unread(why) => return Err(run.wait_for_read(why)),
        }
    }
    // Nothing was made and there is nothing to make it from; presence decides what follows, as another mailbox's copy may
    // speak for the meeting.
    drop_intent(run, intent);
    run.reasons.push(Reason::WriteNeverApplied);
    Ok(())
}

fn updated(run: &mut Run<'_>, intent: &Intent, record: &RecordId) -> Result<(), Stop> {
    match run.read(record)? {
        Observed::Unread(why) => Err(run.wait_for_read(why)),
        Observed::Absent(evidence) => {
            prove_gone(run, intent, *evidence)?;
            // Whether the write came before the deletion matters only to the audit, and to whoever brings the record back:
            // nobody knows which stamp it carries. Presence decides what follows.
            drop_intent(run, intent);
            if let Some(replica) = run.link_mut().replicas.get_mut(intent.side) {
                replica.stamped = None;
            }
            run.link_mut().await_change_event(intent);
            Ok(())
        }
        Observed::Present(snapshot) if carries(snapshot, intent) => {
            confirm(run, intent, record.clone());
            Ok(())
        }
        Observed::Present(snapshot) => unapplied(run, intent, snapshot),
    }
}

fn deleted(run: &mut Run<'_>, intent: &Intent, record: &RecordId) -> Result<(), Stop> {
    match run.read(record)? {
        Observed::Unread(why) => Err(run.wait_for_read(why)),
        Observed::Absent(evidence) => {
            prove_gone(run, intent, *evidence)?;
            let at = run.now;
            drop_intent(run, intent);
            run.link_mut().await_change_event(intent);
            run.link_mut().state = LinkState::Tombstone { reason: intent.reason, at };
            run.cover_all();
            run.reasons.push(Reason::WriteConfirmed);
            Err(run.end(Outcome::Deleted, intent.reason))
        }
        Observed::Present(snapshot) => unapplied(run, intent, snapshot),
    }
}

/// Ends the run until it is proven that the record of an open intent is gone.
fn prove_gone(run: &mut Run<'_>, intent: &Intent, evidence: Evidence) -> Result<(), Stop> {
    match run.link().replicas.get(intent.side).clone() {
        Some(replica) => presence::prove_absence(run, intent.side, &replica, evidence),
        None => Ok(()),
    }
}

/// Handles a change or deletion that the record does not show.
fn unapplied(run: &mut Run<'_>, intent: &Intent, snapshot: &Snapshot) -> Result<(), Stop> {
    if let Some(known) = run.link().replicas.get(intent.side).clone() {
        run.await_fresh(&known, snapshot)?;
    }
    let conditional = intent.side == Side::Outlook && run.rules.policy.outlook_conditional_writes;
    if conditional && intent.expected.as_ref() == Some(&snapshot.version) {
        resend(run, intent);
        return Ok(());
    }
    // With a precondition, another version means that it can never apply; without one, only time tells.
    if !conditional && run.now < intent.give_up_at {
        return Err(run.wait(Reason::WriteUnknown, intent.give_up_at));
    }
    drop_intent(run, intent);
    run.reasons.push(Reason::WriteNeverApplied);
    Ok(())
}

fn carries(snapshot: &Snapshot, intent: &Intent) -> bool {
    snapshot.stamp.as_ref().is_some_and(|stamp| stamp.token == Some(intent.token))
}

fn resend(run: &mut Run<'_>, intent: &Intent) {
    let timers = &run.rules.policy.timers;
    let mut again = intent.clone();
    again.sends += 1;
    again.send_by = run.now + timers.request_timeout;
    again.give_up_at = run.now + timers.request_timeout + timers.late_apply;
    run.steps.push(again);
}

fn drop_intent(run: &mut Run<'_>, intent: &Intent) {
    *run.link_mut().intents.get_mut(intent.side) = None;
}

/// Takes in that a write took effect: its values are the new base.
fn confirm(run: &mut Run<'_>, intent: &Intent, record: RecordId) {
    drop_intent(run, intent);
    run.link_mut().take_in(intent, record);
    run.reasons.push(Reason::WriteConfirmed);
}

impl crate::link::Link {
    /// Takes in a write that took effect: agreed values become the base, the replaced version can never be read again.
    pub(crate) fn take_in(&mut self, intent: &Intent, record: RecordId) {
        self.base.extend(intent.agreed.clone());
        self.last_writer = Some(intent.side.other());
        let replica = self.replicas.get_mut(intent.side).get_or_insert_with(|| Replica::new(record));
        if let Some(expected) = &intent.expected {
            replica.supersede(expected.clone());
        }
        if let Some(replaced) = replica.version.take() {
            replica.supersede(replaced);
        }
        (replica.missing_since, replica.stale) = (None, None);
        // A deletion leaves no stamp: should somebody bring the record back, it still carries the one before.
        if !matches!(intent.action, Action::Delete(_)) {
            replica.stamped = Some(intent.stamp.clone());
        }
        // What was approved is done; the next change asks anew.
        if intent.side == Side::Outlook {
            self.care.approved = None;
        }
        self.care.chosen.take_if(|choice| choice.side != intent.side);
        if intent.mails > 0 {
            self.care.mailed_at = Some(intent.recorded_at);
        }
        if matches!(intent.action, Action::Update(_)) {
            *self.care.wrote.get_mut(intent.side) = Some(intent.recorded_at);
            self.care.unexplained.extend(intent.unexplained.then_some(intent.recorded_at));
        }
        self.await_change_event(intent);
    }

    /// Keeps a write to Salesforce that took effect, or may have, until its own change event shows what lay before it.
    fn await_change_event(&mut self, intent: &Intent) {
        let (Side::Salesforce, Some(record)) = (intent.side, intent.action.record()) else { return };
        self.unaudited.push(Unaudited {
            token: intent.token,
            record: record.clone(),
            deletes: matches!(intent.action, Action::Delete(_)),
            replaced: intent.replaced.clone(),
            written: intent.fields.clone(),
            expected: intent.expected.clone(),
            recorded_at: intent.recorded_at,
        });
    }
}
