//! A meeting that was deleted and is there again: what counts as brought back, and what only looks like it.

use calbridge_core::ids::LinkId;
use calbridge_core::link::{Action, LinkState};
use calbridge_core::observed::{Evidence, Observed, Stamp};
use calbridge_core::plan::{Outcome, Plan};
use calbridge_core::policy::DeleteConflict;
use calbridge_core::reason::Reason;
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::written::WriteResult;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::scene::{Scene, link_id, now, record, snapshot, token, version, why};

/// Runs a scene again at another time, as the plan left it.
fn later(scene: &mut Scene, plan: &Plan, at: DateTime<Utc>) -> Plan {
    scene.case.link.clone_from(&plan.next);
    scene.now = at;
    scene.plan()
}

/// A meeting deleted in Salesforce and edited in Outlook, buried so that it is made again.
fn won() -> (Scene, Plan) {
    let mut scene = Scene::in_step();
    scene.rules.policy.delete_conflict = DeleteConflict::EditWins;
    scene.absent(Side::Salesforce, Evidence::Deleted);
    scene.set_subject(Side::Outlook, "dinner");
    let ended = scene.plan();
    scene.fresh.link = LinkId::new(Uuid::from_u128(2));
    (scene, ended)
}

#[test]
fn a_row_brought_back_too_soon_to_be_believed_is_looked_at_again() {
    let mut scene = Scene::in_step();
    let buried_at = now() - TimeDelta::seconds(20);
    scene.link().state = LinkState::Tombstone { reason: Reason::DeletedInSalesforce, at: buried_at };
    let soon = scene.plan();
    assert_eq!((soon.outcome, soon.wake_at), (Outcome::Skip, Some(buried_at + TimeDelta::minutes(1))));
    let plan = later(&mut scene, &soon, buried_at + TimeDelta::minutes(1));
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Write, Reason::Restored));
}

#[test]
fn a_row_that_we_deleted_ourselves_can_be_brought_back() {
    let mut scene = Scene::in_step();
    let before = Stamp { link: link_id(), partner: String::new(), token: Some(token(6)) };
    scene.replica(Side::Salesforce).stamped = Some(before.clone());
    let deletion = scene.open(Side::Salesforce, Action::Delete(record(Side::Salesforce)));
    let answer = WriteResult::Applied { record: record(Side::Salesforce), version: None, snapshot: None };
    let settled = settle(scene.link().clone(), &deletion, &answer, &scene.rules, now());
    scene.case.link = Some(settled.link);
    *scene.link() = calbridge_core::link::Link {
        state: LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: now() },
        ..scene.link().clone()
    };
    // Undeleted, it carries the stamp from before: a deletion writes none.
    let mut back = snapshot(Side::Salesforce);
    (back.version, back.modified, back.stamp) = (version(Side::Salesforce, 3), now(), Some(before));
    scene.put(back);
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.now = now() + TimeDelta::minutes(2);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Write, Reason::Restored));
    assert_eq!(plan.steps[0].side, Side::Outlook);
}

#[test]
fn a_lagging_read_of_what_was_deleted_is_not_taken_for_the_edit_that_won() {
    for gone in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.rules.policy.delete_conflict = DeleteConflict::EditWins;
        scene.absent(gone, Evidence::Deleted);
        scene.set_subject(gone.other(), "dinner");
        let ended = scene.plan();
        scene.put(snapshot(gone));
        let plan = later(&mut scene, &ended, now());
        let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
        assert_eq!((step.side, plan.reasons[0]), (gone, Reason::EditWins));
    }
}

#[test]
fn an_edit_that_won_waits_for_a_read_that_shows_it() {
    let (mut scene, ended) = won();
    scene.read(record(Side::Outlook), Observed::Unread(why("CB1301")));
    let unread = later(&mut scene, &ended, now());
    assert_eq!((unread.outcome, unread.reasons[0]), (Outcome::Wait, Reason::ReadFailed));
    scene.absent(Side::Outlook, Evidence::NotFound);
    let missing = later(&mut scene, &ended, now());
    assert_eq!((missing.outcome, missing.reasons[0]), (Outcome::Wait, Reason::AbsenceUnproven));
    // Both were deleted after all.
    let gone = later(&mut scene, &missing, now() + TimeDelta::minutes(1));
    assert_eq!((gone.outcome, gone.reasons[0]), (Outcome::Skip, Reason::DeletedStaysDeleted));
}
