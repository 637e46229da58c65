//! Meetings that come back after they were deleted, and those that were edited and so are not deleted.

use calbridge_core::link::{Action, LinkState, Unaudited};
use calbridge_core::observed::{Evidence, Observed};
use calbridge_core::plan::Outcome;
use calbridge_core::policy::DeleteConflict;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::value::{Fields, Value};
use chrono::TimeDelta;

use crate::scene::{Scene, event, mailbox, now, row, snapshot, token, why};

use crate::caution::later;

#[test]
fn an_edit_wins_over_a_deletion_where_the_policy_says_so() {
    for gone in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.rules.policy.delete_conflict = DeleteConflict::EditWins;
        scene.absent(gone, Evidence::Deleted);
        let untouched = scene.plan();
        assert!(matches!(untouched.steps[0].action, Action::Delete(_)), "nobody edited it: {gone}");
        scene.set_subject(gone.other(), "dinner");
        let ended = scene.plan();
        let state = LinkState::Tombstone { reason: Reason::EditWins, at: now() };
        assert_eq!((&ended.next.as_ref().unwrap().state, ended.wake_at), (&state, Some(now())));
        // The deleted record still carries the old link id: what is made next has another one.
        scene.fresh.link = calbridge_core::ids::LinkId::new(uuid::Uuid::from_u128(2));
        let plan = later(&mut scene, &ended, now());
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Write, Reason::EditWins));
        let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
        assert!(matches!(step.action, Action::Create(_)) && step.side == gone);
        let next = plan.next.unwrap();
        assert_eq!((next.generation, next.replicas.get(gone).is_none()), (1, true));
        assert_eq!((next.id, step.stamp.link), (scene.fresh.link, scene.fresh.link));
    }
}

#[test]
fn a_deleted_meeting_that_somebody_brings_back_begins_a_new_generation() {
    // Salesforce restores the row itself.
    let mut scene = Scene::in_step();
    scene.link().state =
        LinkState::Tombstone { reason: Reason::DeletedInSalesforce, at: now() - TimeDelta::minutes(10) };
    scene.case.reads.remove(&event(1));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Write, Reason::Restored));
    let next = plan.next.unwrap();
    assert_eq!((next.generation, next.id), (1, scene.fresh.link));
    assert!(matches!(plan.steps[0].action, Action::Create(_)));

    // Outlook restores a copy under a new id, with our stamp in it.
    let mut scene = Scene::in_step();
    let mut restored = snapshot(Side::Outlook);
    restored.record = event(9);
    if let calbridge_core::ids::RecordId::Outlook { mailbox: home, .. } = &mut restored.record {
        *home = mailbox(1);
    }
    restored.stamp = Some(calbridge_core::observed::Stamp {
        link: crate::scene::link_id(),
        partner: String::new(),
        token: Some(token(7)),
    });
    scene.link().state = LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: now() - TimeDelta::minutes(10) };
    scene.case.reads.clear();
    scene.put(restored);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Write, Reason::Restored));
    assert_eq!(plan.steps[0].side, Side::Salesforce);
}

#[test]
fn a_record_that_may_be_back_is_looked_at_until_it_can_be_read() {
    let mut scene = Scene::in_step();
    scene.link().state =
        LinkState::Tombstone { reason: Reason::DeletedInSalesforce, at: now() - TimeDelta::minutes(10) };
    scene.read(row(), Observed::Unread(why("CB1350")));
    scene.signal(row(), false, Vec::new());
    scene.case.notices[0].last_signal_at = now() - TimeDelta::minutes(5);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::ReadFailed));
    assert!(plan.covered.is_empty() && plan.wake_at.is_some());
    scene.link().state = LinkState::Tombstone { reason: Reason::Discarded, at: now() - TimeDelta::minutes(10) };
    assert_eq!(scene.plan().outcome, Outcome::Skip, "what a person let go is not waited for");
}

#[test]
fn what_a_write_of_the_last_generation_covered_is_still_asked_of_its_change_event() {
    let mut scene = Scene::in_step();
    scene.link().state = LinkState::Tombstone { reason: Reason::BothGone, at: now() - TimeDelta::minutes(10) };
    scene.link().unaudited.push(Unaudited {
        token: token(7),
        record: row(),
        deletes: false,
        replaced: Fields::from([("Subject".to_owned(), Value::text("lunch"))]),
        written: Fields::from([("Subject".to_owned(), Value::text("supper"))]),
        expected: None,
        recorded_at: now() - TimeDelta::minutes(11),
    });
    scene.case.reads.remove(&event(1));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Write, Reason::Restored));
    assert_eq!(plan.next.unwrap().unaudited.len(), 1);
    assert!(plan.facts_from < now() - TimeDelta::minutes(11));
}

#[test]
fn an_event_with_the_stamp_of_an_earlier_generation_brings_the_meeting_back_too() {
    let mut scene = Scene::in_step();
    scene.link().state = LinkState::Tombstone { reason: Reason::BothGone, at: now() - TimeDelta::minutes(10) };
    let mut event = snapshot(Side::Outlook);
    event.record = crate::scene::event(9);
    if let calbridge_core::ids::RecordId::Outlook { mailbox: home, .. } = &mut event.record {
        *home = mailbox(1);
    }
    let first = calbridge_core::ids::LinkId::new(uuid::Uuid::from_u128(77));
    event.stamp = Some(calbridge_core::observed::Stamp { link: first, partner: String::new(), token: Some(token(7)) });
    scene.case.reads.clear();
    scene.put(event);
    assert_eq!(scene.plan().reasons[0], Reason::DeletedStaysDeleted, "a stamp of another meeting");
    scene.link().generation = 1;
    assert_eq!(scene.plan().reasons[0], Reason::Restored);
}

#[test]
fn a_lagging_read_brings_nothing_back() {
    let mut scene = Scene::in_step();
    scene.link().state =
        LinkState::Tombstone { reason: Reason::DeletedInSalesforce, at: now() - TimeDelta::seconds(30) };
    assert_eq!(scene.plan().reasons[0], Reason::DeletedStaysDeleted);
    scene.link().state = LinkState::Tombstone { reason: Reason::Discarded, at: now() - TimeDelta::hours(1) };
    assert_eq!(scene.plan().reasons[0], Reason::DeletedStaysDeleted, "what a person let go stays so");
}
