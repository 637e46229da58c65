//! Does each side still have the meeting? Absence needs evidence, and copies are not the meeting.

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::link::{Action, LinkState};
use calbridge_core::observed::{Evidence, Observed, Snapshot};
use calbridge_core::plan::{Outcome, Plan};
use calbridge_core::policy::MailPolicy;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use chrono::TimeDelta;

use crate::scene::{Scene, event, now, record, snapshot, why};

fn deleted_reason(side: Side) -> Reason {
    match side {
        Side::Outlook => Reason::DeletedInOutlook,
        Side::Salesforce => Reason::DeletedInSalesforce,
    }
}

#[track_caller]
fn deletes_partner(plan: &Plan, gone: Side, reason: Reason) {
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!(step.action, Action::Delete(record(gone.other())));
    assert_eq!((plan.outcome, step.reason, plan.reasons[0]), (Outcome::Write, reason, reason));
    assert_eq!(plan.next.as_ref().unwrap().state, LinkState::Live, "buried when the deletion is confirmed, not before");
}

#[track_caller]
fn tombstone(plan: &Plan, reason: Reason) {
    assert!(plan.steps.is_empty(), "{plan:?}");
    assert_eq!(plan.outcome, Outcome::Deleted);
    assert_eq!(plan.next.as_ref().unwrap().state, LinkState::Tombstone { reason, at: now() });
}

/// Evidence, delete signal, seconds since the first "not found" (none: this is the first); is it a deletion?
const EVIDENCE: [(Evidence, bool, Option<i64>, bool); 9] = [
    (Evidence::Deleted, false, None, true),
    (Evidence::Deleted, true, None, true),
    (Evidence::Deleted, false, Some(1), true),
    (Evidence::NotFound, true, None, true),
    (Evidence::NotFound, true, Some(1), true),
    (Evidence::NotFound, false, None, false),
    (Evidence::NotFound, false, Some(29), false),
    (Evidence::NotFound, false, Some(30), true),
    (Evidence::NotFound, false, Some(3_600), true),
];

#[test]
fn absence_is_a_deletion_only_with_evidence() {
    for side in Side::BOTH {
        for (evidence, signalled, missing_for, proven) in EVIDENCE {
            let mut scene = Scene::in_step();
            scene.absent(side, evidence);
            scene.replica(side).missing_since = missing_for.map(|seconds| now() - TimeDelta::seconds(seconds));
            if signalled {
                scene.signal(record(side), true, Vec::new());
            }
            let plan = scene.plan();
            if proven {
                deletes_partner(&plan, side, deleted_reason(side));
                assert_eq!(plan.steps[0].replaced, snapshot(side.other()).fields, "the last state can be restored");
                let missing_since = plan.next.unwrap().replicas.get(side).as_ref().unwrap().missing_since;
                let noted = evidence == Evidence::Deleted || missing_since.is_some();
                assert!(noted, "a deletion whose write is lost is not proven from the beginning again");
                continue;
            }
            assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::AbsenceUnproven), "{evidence:?}");
            let since = now() - TimeDelta::seconds(missing_for.unwrap_or_default());
            assert_eq!(plan.wake_at, Some(since + TimeDelta::seconds(30)), "the first time counts, not the last");
            let next = plan.next.unwrap();
            assert_eq!(next.replicas.get(side).as_ref().unwrap().missing_since, Some(since));
        }
    }
}

#[test]
fn a_signalled_change_contradicts_the_absence() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.absent(side, Evidence::NotFound);
        scene.replica(side).missing_since = Some(now() - TimeDelta::minutes(5));
        scene.signal(record(side), false, vec![crate::scene::version(side, 2)]);
        assert_eq!(scene.plan().wake_at, Some(now() + TimeDelta::seconds(30)), "{side}");
        scene.case.notices[0].versions.clear();
        deletes_partner(&scene.plan(), side, deleted_reason(side));
    }
}

#[test]
fn a_record_found_again_needs_new_evidence() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.replica(side).missing_since = Some(now() - TimeDelta::hours(1));
        let next = scene.plan().next.unwrap();
        assert_eq!(next.replicas.get(side).as_ref().unwrap().missing_since, None);
    }
}

#[test]
fn a_failed_read_is_no_absence_however_long_it_lasts() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.read(record(side), Observed::Unread(why("CB1301")));
        scene.replica(side).missing_since = Some(now() - TimeDelta::hours(1));
        scene.signal(record(side), true, Vec::new());
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::ReadFailed));
        assert!(plan.covered.is_empty() && plan.steps.is_empty());
    }
}

#[test]
fn the_pause_after_a_failed_read_doubles_and_respects_the_remote() {
    for (tries, asked_ms, pause_ms) in
        [(0, None, 1_000), (3, None, 8_000), (40, None, 900_000), (0, Some(5_000), 5_000), (5, Some(5_000), 32_000)]
    {
        let mut scene = Scene::in_step();
        scene.case.tries = tries;
        let mut why = why("CB1301");
        why.retry_after_ms = asked_ms;
        scene.read(event(1), Observed::Unread(why));
        // Half of a pause that nobody asked for is left to chance.
        let pause = scene.plan().wake_at.unwrap() - now();
        let least = asked_ms.filter(|_| tries == 0).map_or(pause_ms / 2, |_| pause_ms);
        assert!((least..=pause_ms).contains(&pause.num_milliseconds()), "try {tries}: {pause}");
    }
}

#[test]
fn a_record_that_no_signal_named_is_read_first() {
    let mut scene = Scene::in_step();
    scene.case.reads.remove(&event(1));
    let lookup = Lookup::Read(event(1));
    assert_eq!(scene.needs(), std::slice::from_ref(&lookup));
    scene.answer(lookup, Answer::Found(vec![(event(1), Observed::Present(Box::new(snapshot(Side::Outlook))))]));
    assert_eq!(scene.plan().outcome, Outcome::InStep);
}

#[test]
fn both_gone_is_the_end_without_a_write() {
    let mut scene = Scene::in_step();
    for side in Side::BOTH {
        scene.absent(side, Evidence::Deleted);
    }
    tombstone(&scene.plan(), Reason::BothGone);
}

#[test]
fn a_deleted_meeting_stays_deleted_whatever_is_signalled() {
    let mut scene = Scene::in_step();
    scene.link().state = LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: now() };
    scene.set_subject(Side::Outlook, "dinner");
    scene.signal(event(1), false, Vec::new());
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons), (Outcome::Skip, vec![Reason::DeletedStaysDeleted]));
    assert_eq!(plan.covered, [event(1)]);
}

#[test]
fn a_cancelled_meeting_leaves_the_other_side() {
    let mut scene = Scene::in_step();
    scene.edit(Side::Outlook, |snapshot| snapshot.traits.cancelled = true);
    deletes_partner(&scene.plan(), Side::Outlook, Reason::Cancelled);
}

#[test]
fn a_meeting_that_became_private_leaves_the_other_side_and_its_values_are_not_kept() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.set_subject(side, "secret");
        scene.edit(side, |snapshot| snapshot.traits.private = true);
        let plan = scene.plan();
        deletes_partner(&plan, side, Reason::BecamePrivate);
        assert!(!format!("{:?} {:?}", plan.steps, plan.decisions).contains("secret"));
        assert!(plan.steps[0].replaced.is_empty());

        // The deletion was refused for now, and the next read lags behind the flip.
        let mut lagging = Scene::in_step();
        lagging.case.link = plan.next;
        *lagging.link().intents.get_mut(side.other()) = None;
        assert_eq!(lagging.plan().reasons[0], Reason::StaleRead, "{side}");
    }
    let mut scene = Scene::in_step();
    for side in Side::BOTH {
        scene.edit(side, |snapshot| snapshot.traits.private = true);
    }
    tombstone(&scene.plan(), Reason::BecamePrivate);
}

#[test]
fn a_private_record_is_never_deleted_because_it_could_not_be_restored() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.edit(side, |snapshot| snapshot.traits.private = true);
        scene.absent(side.other(), Evidence::Deleted);
        let plan = scene.plan();
        tombstone(&plan, Reason::BecamePrivate);
        assert!(plan.reasons.contains(&deleted_reason(side.other())));
    }
}

#[test]
fn a_meeting_with_attendees_stays_in_outlook_where_no_mail_may_be_caused() {
    let mut scene = Scene::in_step();
    scene.rules.policy.mail = MailPolicy::Never;
    scene.absent(Side::Salesforce, Evidence::Deleted);
    scene.edit(Side::Outlook, |snapshot| snapshot.traits.attendees = 3);
    let plan = scene.plan();
    tombstone(&plan, Reason::AttendeesNeedMailPolicy);
    assert!(plan.reasons.contains(&Reason::DeletedInSalesforce));
}

/// An attendee's copy of the meeting.
fn copy(number: u32) -> Snapshot {
    let mut copy = snapshot(Side::Outlook);
    copy.record = event(number);
    copy.traits.is_organizer = false;
    copy.traits.attendees = 2;
    copy
}

/// A linked meeting that an attendee's copy (mailbox 1) speaks for, with the given other copies known.
fn spoken_for_by_a_copy(copies: &[u32]) -> Scene {
    let mut scene = Scene::in_step();
    scene.put(copy(1));
    scene.replica(Side::Outlook).organizer = false;
    scene.link().copies.extend(copies.iter().map(|number| event(*number)));
    scene
}

#[test]
fn another_mailboxs_copy_is_remembered_and_changes_nothing() {
    let mut scene = Scene::in_step();
    scene.put(copy(2));
    scene.signal(event(2), false, vec![copy(2).version]);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::InStep, Reason::AttendeeCopy));
    assert_eq!(plan.next.unwrap().copies, [event(2)].into());
    assert_eq!(plan.covered, [event(2)]);
}

#[test]
fn a_copy_of_another_meeting_is_not_taken_in() {
    let mut scene = Scene::in_step();
    let mut other = copy(2);
    other.traits.ical_uid = Some("uid-2".to_owned());
    scene.put(other);
    assert!(scene.plan().next.unwrap().copies.is_empty());
}

#[test]
fn a_vanished_copy_is_no_deletion() {
    let mut scene = Scene::in_step();
    scene.link().copies.insert(event(2));
    scene.read(event(2), Observed::Absent(Evidence::NotFound));
    assert_eq!(scene.plan().next.unwrap().copies, [event(2)].into(), "a single miss may be a lagging read");
    scene.signal(event(2), true, Vec::new());
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::InStep, Reason::CopyVanished));
    assert!(plan.next.unwrap().copies.is_empty());
}

#[test]
fn the_organisers_copy_speaks_as_soon_as_it_is_known() {
    let mut scene = spoken_for_by_a_copy(&[]);
    let mut organizer = copy(3);
    organizer.traits.is_organizer = true;
    organizer.fields.insert("subject".to_owned(), Value::text("dinner"));
    scene.put(organizer);
    let plan = scene.plan();
    assert!(plan.reasons.contains(&Reason::AuthorityMoved));
    let next = plan.next.as_ref().unwrap();
    let speaking = next.replicas.outlook.as_ref().unwrap();
    assert_eq!((&speaking.record, speaking.organizer), (&event(3), true));
    assert_eq!(next.copies, [event(1)].into());
    assert_eq!(plan.steps[0].fields["Subject"], Value::text("dinner"), "the base stays, so its difference is an edit");
}

#[test]
fn when_the_speaking_copy_vanishes_another_one_speaks() {
    let mut scene = spoken_for_by_a_copy(&[2, 3]);
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.signal(event(1), true, Vec::new());
    assert_eq!(scene.needs(), [Lookup::Read(event(2))]);
    scene.read(event(2), Observed::Absent(Evidence::NotFound));
    scene.put(copy(3));
    let plan = scene.plan();
    assert!(plan.steps.is_empty() && plan.reasons.contains(&Reason::AuthorityMoved));
    let next = plan.next.unwrap();
    assert_eq!(next.replicas.outlook.unwrap().record, event(3));
    assert!(!next.copies.contains(&event(1)));
}

#[test]
fn when_the_last_copy_vanishes_the_meeting_is_gone() {
    let mut scene = spoken_for_by_a_copy(&[2]);
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.signal(event(1), true, Vec::new());
    let mut cancelled = copy(2);
    cancelled.traits.cancelled = true;
    scene.put(cancelled);
    deletes_partner(&scene.plan(), Side::Outlook, Reason::DeletedInOutlook);
}

#[test]
fn a_copy_missed_once_may_still_speak_for_the_meeting() {
    let mut scene = spoken_for_by_a_copy(&[2]);
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.signal(event(1), true, Vec::new());
    scene.read(event(2), Observed::Absent(Evidence::NotFound));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::AbsenceUnproven));
    scene.replica(Side::Outlook).missing_since = Some(now() - TimeDelta::seconds(30));
    deletes_partner(&scene.plan(), Side::Outlook, Reason::DeletedInOutlook);
}

#[test]
fn when_the_organisers_copy_goes_the_meeting_is_gone_whoever_keeps_a_copy() {
    let mut scene = Scene::in_step();
    scene.link().copies.insert(event(2));
    scene.put(copy(2));
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.signal(event(1), true, Vec::new());
    deletes_partner(&scene.plan(), Side::Outlook, Reason::DeletedInOutlook);
}

#[test]
fn reads_older_than_what_is_known_are_read_again_and_then_believed() {
    for side in Side::BOTH {
        let mut scene = known_to_be_newer(side);
        let mut looks = Vec::new();
        let plan = loop {
            let plan = scene.plan();
            if plan.reasons[0] != Reason::StaleRead {
                break plan;
            }
            assert!(plan.outcome == Outcome::Wait && plan.steps.is_empty());
            looks.push((plan.wake_at.unwrap() - now()).num_seconds());
            scene.now = plan.wake_at.unwrap();
            scene.case.link = plan.next;
        };
        assert_eq!(looks, [1, 6, 36]);
        assert_eq!(plan.outcome, Outcome::InStep, "a record restored from a backup looks just like this");
    }
}

#[test]
fn the_patience_for_stale_reads_is_not_used_up_by_other_failures() {
    for side in Side::BOTH {
        let mut scene = known_to_be_newer(side);
        scene.case.tries = 12;
        assert_eq!(scene.plan().reasons[0], Reason::StaleRead, "{side}");
        // Nor by another old version, seen long ago.
        let long_ago = now() - TimeDelta::hours(1);
        scene.replica(side).stale = Some((crate::scene::version(side, 0), long_ago));
        assert_eq!(scene.plan().reasons[0], Reason::StaleRead, "{side}");
        scene.replica(side).stale = Some((crate::scene::version(side, 1), long_ago));
        assert_eq!(scene.plan().outcome, Outcome::InStep, "{side}");
    }
}

/// A scene in which the reads of a side show something older than what is known.
fn known_to_be_newer(side: Side) -> Scene {
    let mut scene = Scene::in_step();
    let mut newer = snapshot(side);
    newer.version = crate::scene::version(side, 2);
    newer.modified += TimeDelta::minutes(1);
    scene.replica(side).advance(&newer);
    scene
}

#[test]
fn a_hold_waits_for_a_person_and_a_dead_letter_for_a_change() {
    let mut scene = Scene::in_step();
    scene.set_subject(Side::Outlook, "dinner");
    scene.signal(event(1), false, Vec::new());
    scene.link().state = LinkState::Held { reason: Reason::StampUnknown, at: now() };
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown));
    assert_eq!(plan.covered, [event(1)]);

    scene.link().state = LinkState::DeadLetter { reason: Reason::Refused, at: now() };
    assert_eq!(scene.plan().steps.len(), 1);

    scene.link().state = LinkState::Held { reason: Reason::StampUnknown, at: now() };
    scene.case.notices[0].cause = calbridge_core::signal::SignalCause::Operator;
    assert_eq!(scene.plan().steps.len(), 1);
}
