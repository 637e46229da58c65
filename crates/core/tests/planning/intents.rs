//! Open intents: what became of a write whose result is unknown is read from the token, and from nothing else.

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::link::{Action, Home, LinkState};
use calbridge_core::observed::{Evidence, Observed, Snapshot};
use calbridge_core::plan::{Outcome, Plan};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::value::{Fields, Value};
use chrono::TimeDelta;

use crate::scene::{Scene, event, link_id, mailbox, now, record, snapshot, token, version, why};

/// What the read of the written record shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// The token of the write.
    Token,
    /// The version that the write was made from, without the token.
    SameVersion,
    /// Another version, without the token, although with the very values that were to be written.
    OtherVersion,
    Deleted,
    NotFound,
    Unread,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Confirmed,
    Resent,
    Waits,
    /// It never took effect: closed, and planned anew from what is there.
    Replanned,
    /// The record is gone; for a deletion that is the wish, else the other side follows.
    Gone,
}

fn stage(side: Side, action: Action, sight: Sight, conditional: bool, given_up: bool) -> Scene {
    let mut scene = Scene::in_step();
    scene.rules.policy.outlook_conditional_writes = conditional;
    scene.open(side, action);
    if given_up {
        scene.link().intents.get_mut(side).as_mut().unwrap().give_up_at = now();
    }
    let intent = scene.link().intents.get(side).clone().unwrap();
    match sight {
        Sight::Token => {
            scene.edit(side, |snapshot| {
                snapshot.fields.extend(intent.fields.clone());
                snapshot.stamp = Some(intent.stamp.clone());
            });
        }
        Sight::SameVersion => {}
        Sight::OtherVersion => scene.set_subject(side, "written"),
        Sight::Deleted => scene.absent(side, Evidence::Deleted),
        Sight::NotFound => scene.absent(side, Evidence::NotFound),
        Sight::Unread => scene.read(record(side), Observed::Unread(why("CB1301"))),
    }
    scene
}

fn follows(side: Side, action: &Action, scene: &Scene, plan: &Plan) -> Then {
    let next = plan.next.as_ref().unwrap();
    let open = next.intents.get(side);
    let was = scene.case.link.as_ref().unwrap().intents.get(side).clone().unwrap();
    match (plan.outcome, open) {
        (Outcome::Wait, Some(open)) => {
            assert_eq!(*open, was);
            assert!(plan.wake_at.is_some() && plan.steps.is_empty());
            Then::Waits
        }
        (_, Some(open)) if open.token == was.token => {
            assert_eq!((open.sends, &plan.steps), (was.sends + 1, &vec![open.clone()]));
            assert_eq!((&open.fields, &open.expected, &open.stamp), (&was.fields, &was.expected, &was.stamp));
            assert_eq!(open.give_up_at, now() + TimeDelta::seconds(70));
            Then::Resent
        }
        _ if plan.reasons.contains(&Reason::WriteNeverApplied) => Then::Replanned,
        _ if matches!(next.state, LinkState::Tombstone { .. }) => Then::Gone,
        _ if plan.steps.iter().any(|step| matches!(step.action, Action::Delete(_)) && step.side != side) => Then::Gone,
        _ => {
            assert!(plan.reasons.contains(&Reason::WriteConfirmed), "{action:?}: {plan:?}");
            assert_eq!(next.base["subject"], was.agreed["subject"]);
            Then::Confirmed
        }
    }
}

/// Conditional means: on Outlook, with conditional writes switched on.
fn expected(sight: Sight, conditional: bool, given_up: bool) -> Then {
    match sight {
        Sight::Token => Then::Confirmed,
        Sight::Deleted => Then::Gone,
        Sight::SameVersion if conditional => Then::Resent,
        Sight::OtherVersion if conditional => Then::Replanned,
        Sight::SameVersion | Sight::OtherVersion if given_up => Then::Replanned,
        Sight::SameVersion | Sight::OtherVersion | Sight::Unread | Sight::NotFound => Then::Waits,
    }
}

#[test]
fn each_sight_of_a_written_record_has_one_consequence() {
    let sights =
        [Sight::Token, Sight::SameVersion, Sight::OtherVersion, Sight::Deleted, Sight::NotFound, Sight::Unread];
    for side in Side::BOTH {
        for deletes in [false, true] {
            for switched_on in [false, true] {
                for given_up in [false, true] {
                    for sight in sights {
                        if deletes && sight == Sight::Token {
                            // A deleted record carries no token: a deletion is confirmed by absence alone.
                            continue;
                        }
                        let action = if deletes { Action::Delete(record(side)) } else { Action::Update(record(side)) };
                        let scene = stage(side, action.clone(), sight, switched_on, given_up);
                        let conditional = switched_on && side == Side::Outlook;
                        assert_eq!(
                            follows(side, &action, &scene, &scene.plan()),
                            expected(sight, conditional, given_up),
                            "{side} {sight:?} deletes: {deletes}, switched on: {switched_on}, given up: {given_up}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn values_that_look_written_do_not_confirm_a_write() {
    let scene = stage(Side::Outlook, Action::Update(event(1)), Sight::OtherVersion, true, false);
    let plan = scene.plan();
    assert!(plan.reasons.contains(&Reason::WriteNeverApplied));
    assert!(!plan.reasons.contains(&Reason::WriteConfirmed));
}

#[test]
fn an_edit_on_top_of_a_confirmed_write_is_an_edit() {
    let mut scene = stage(Side::Salesforce, Action::Update(record(Side::Salesforce)), Sight::Token, true, false);
    scene.set_subject(Side::Outlook, "written");
    scene.set_subject(Side::Salesforce, "supper");
    let stamp = scene.link().intents.salesforce.as_ref().unwrap().stamp.clone();
    scene.edit(Side::Salesforce, |snapshot| snapshot.stamp = Some(stamp.clone()));
    let plan = scene.plan();
    assert_eq!(plan.reasons[..2], [Reason::WriteConfirmed, Reason::SalesforceChanged]);
    assert_eq!(plan.steps[0].fields["subject"], Value::text("supper"));
}

#[test]
fn a_lagging_read_decides_nothing_about_a_write() {
    let mut scene = stage(Side::Outlook, Action::Update(event(1)), Sight::SameVersion, true, false);
    let mut newer = snapshot(Side::Outlook);
    newer.version = version(Side::Outlook, 2);
    newer.modified += TimeDelta::minutes(1);
    scene.replica(Side::Outlook).advance(&newer);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::StaleRead));
    assert!(plan.next.unwrap().intents.outlook.is_some());
}

/// What the search for the stamp of a creation finds.
fn creation(side: Side, found: &[Observed], given_up: bool) -> Scene {
    let mut scene = Scene::in_step();
    let home = match side {
        Side::Outlook => Home::Mailbox(mailbox(1)),
        Side::Salesforce => Home::Owner(crate::scene::USER.to_owned()),
    };
    scene.case.reads.remove(&record(side));
    *scene.link().replicas.get_mut(side) = None;
    scene.open(side, Action::Create(home));
    if given_up {
        scene.link().intents.get_mut(side).as_mut().unwrap().give_up_at = now();
    }
    let mailbox = (side == Side::Outlook).then(|| mailbox(1));
    let lookup = Lookup::Stamped { side, link: link_id(), mailbox };
    assert_eq!(scene.needs(), std::slice::from_ref(&lookup));
    let ids = [record(side), event(9)];
    scene.answer(lookup, Answer::Found(ids.into_iter().zip(found.iter().cloned()).collect()));
    scene
}

fn created(side: Side) -> Snapshot {
    let mut snapshot = snapshot(side);
    snapshot.stamp =
        Some(calbridge_core::observed::Stamp { link: link_id(), partner: String::new(), token: Some(token(7)) });
    let subject = if side == Side::Outlook { "subject" } else { "Subject" };
    snapshot.fields.extend(Fields::from([(subject.to_owned(), Value::text("written"))]));
    snapshot
}

#[test]
fn a_created_record_is_found_by_its_stamp() {
    for side in Side::BOTH {
        let mut scene = creation(side, &[Observed::Present(Box::new(created(side)))], false);
        assert_eq!(scene.needs(), [Lookup::Read(record(side))], "found through the search, then read like any other");
        scene.put(created(side));
        scene.set_subject(side.other(), "written");
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::InStep, Reason::WriteConfirmed), "{side}");
        let next = plan.next.unwrap();
        assert_eq!(next.replicas.get(side).as_ref().unwrap().record, record(side));
        assert!(next.intents.get(side).is_none());
    }
}

#[test]
fn a_creation_that_shows_nothing_is_repeated_only_when_it_can_no_longer_apply() {
    for side in Side::BOTH {
        let plan = creation(side, &[], false).plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::WriteUnknown), "{side}");
        assert_eq!(plan.wake_at, Some(now() + TimeDelta::seconds(40)));

        let plan = creation(side, &[], true).plan();
        let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
        assert_eq!((step.sends, step.token), (2, token(7)), "the same write, so that the remote can tell");
    }
}

#[test]
fn a_creation_is_not_repeated_for_a_source_that_is_gone() {
    for side in Side::BOTH {
        let mut scene = creation(side, &[], true);
        scene.absent(side.other(), Evidence::Deleted);
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Deleted, Reason::BothGone));
        assert!(plan.next.unwrap().intents.get(side).is_none());
    }
}

#[test]
fn a_creation_whose_source_copy_vanished_is_made_from_another_copy() {
    let mut scene = creation(Side::Salesforce, &[], true);
    scene.replica(Side::Outlook).organizer = false;
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.signal(event(1), true, Vec::new());
    scene.link().copies.insert(event(2));
    let mut copy = snapshot(Side::Outlook);
    copy.record = event(2);
    copy.traits.is_organizer = false;
    scene.put(copy);
    scene.case.enrolments[0].mailbox = mailbox(2);
    let plan = scene.plan();
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!((step.action.name(), step.token, step.sends), ("create", scene.fresh.salesforce, 1));
    assert_eq!(plan.next.unwrap().replicas.outlook.unwrap().record, event(2));
}

#[test]
fn a_creation_is_not_given_up_because_its_source_was_missed_once() {
    for side in Side::BOTH {
        let mut scene = creation(side, &[], true);
        scene.absent(side.other(), Evidence::NotFound);
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::AbsenceUnproven), "{side}");
        assert!(plan.next.unwrap().intents.get(side).is_some());
    }
}

#[test]
fn a_created_record_that_a_person_deleted_again_is_a_deletion() {
    let mut scene = creation(Side::Salesforce, &[Observed::Absent(Evidence::Deleted)], false);
    scene.absent(Side::Salesforce, Evidence::Deleted);
    let plan = scene.plan();
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!((&step.action, step.reason), (&Action::Delete(event(1)), Reason::DeletedInSalesforce));
}

#[test]
fn two_records_with_one_link_id_stop_the_meeting() {
    let found =
        [Observed::Present(Box::new(created(Side::Outlook))), Observed::Present(Box::new(created(Side::Outlook)))];
    let plan = creation(Side::Outlook, &found, false).plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::DeadLetter, Reason::DuplicateLink));
    assert!(plan.steps.is_empty());
}

#[test]
fn a_search_that_failed_is_tried_again_later() {
    let mut scene = creation(Side::Salesforce, &[], true);
    scene.case.lookups[0].1 = Answer::Failed(why("CB1350"));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::ReadFailed));
    assert!(plan.steps.is_empty() && plan.next.unwrap().intents.salesforce.is_some());
}
