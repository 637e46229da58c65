//! Which notices a run answers: a version that was notified and not seen yet is looked for once more.

use calbridge_core::link::LinkState;
use calbridge_core::observed::{Evidence, Observed};
use calbridge_core::plan::Plan;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use chrono::TimeDelta;

use crate::scene::{Scene, event, now, record, version, why};

/// Whether the plan covers the notice of a side's record, and after how many seconds it looks again.
fn covers(plan: &Plan, side: Side) -> (bool, Option<i64>) {
    (plan.covered.contains(&record(side)), plan.wake_at.map(|at| (at - now()).num_seconds()))
}

#[test]
fn a_version_that_the_read_shows_is_covered() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.signal(record(side), false, vec![version(side, 1)]);
        assert_eq!(covers(&scene.plan(), side), (true, None), "{side}");
    }
}

#[test]
fn a_notice_without_a_version_is_answered_by_any_read() {
    let mut scene = Scene::in_step();
    scene.signal(event(1), false, Vec::new());
    assert_eq!(covers(&scene.plan(), Side::Outlook), (true, None));
}

#[test]
fn a_version_not_seen_yet_wakes_the_lane_once_it_must_be_visible() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.signal(record(side), false, vec![version(side, 1), version(side, 2)]);
        let plan = scene.plan();
        assert_eq!(covers(&plan, side), (true, Some(30)), "{side}: the link's timer takes over from the notice");
        assert!(plan.reasons.contains(&Reason::VersionNotSeen));

        scene.case.notices[0].last_signal_at = now() - TimeDelta::seconds(29);
        assert_eq!(covers(&scene.plan(), side), (true, Some(1)), "{side}");
        scene.case.notices[0].last_signal_at = now() - TimeDelta::seconds(30);
        assert_eq!(covers(&scene.plan(), side), (true, None), "{side}: a read this late shows it or something newer");
    }
}

#[test]
fn a_run_in_between_does_not_stand_for_the_look_that_is_owed() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.signal(record(side), false, vec![version(side, 1), version(side, 2)]);
        scene.case.link = scene.plan().next;
        scene.case.notices.clear();
        scene.now = now() + TimeDelta::seconds(2);
        let between = scene.plan();
        assert_eq!(between.wake_at, Some(now() + TimeDelta::seconds(30)), "{side}");
        scene.case.link = between.next;
        scene.now = now() + TimeDelta::seconds(30);
        assert_eq!(scene.plan().wake_at, None, "{side}: that was it");
    }
}

#[test]
fn a_record_that_was_deleted_and_changed_may_be_back_and_is_looked_at_once_more() {
    let side = Side::Salesforce;
    for (versions, again) in [(vec![version(side, 2)], None), (vec![version(side, 2), version(side, 3)], Some(30))] {
        let mut scene = Scene::in_step();
        scene.link().state = LinkState::Tombstone { reason: Reason::BothGone, at: now() - TimeDelta::hours(1) };
        scene.absent(side, Evidence::Deleted);
        scene.signal(record(side), true, versions);
        assert_eq!(covers(&scene.plan(), side), (true, again));
    }
}

#[test]
fn a_change_key_that_was_superseded_is_covered() {
    let mut scene = Scene::in_step();
    scene.replica(Side::Outlook).supersede(version(Side::Outlook, 0));
    scene.signal(event(1), false, vec![version(Side::Outlook, 0), version(Side::Outlook, 1)]);
    assert_eq!(covers(&scene.plan(), Side::Outlook), (true, None));
}

#[test]
fn an_earlier_modstamp_is_covered_by_a_later_one() {
    let mut scene = Scene::in_step();
    scene.signal(record(Side::Salesforce), false, vec![version(Side::Salesforce, 0)]);
    assert_eq!(covers(&scene.plan(), Side::Salesforce), (true, None));
}

#[test]
fn a_signalled_deletion_that_the_read_does_not_show_is_looked_for_again() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.signal(record(side), true, Vec::new());
        let plan = scene.plan();
        assert_eq!(covers(&plan, side), (true, Some(30)), "{side}");
        assert!(plan.steps.is_empty(), "a signal alone deletes nothing");
    }
}

#[test]
fn a_record_without_a_link_stays_dirty_until_it_must_be_visible() {
    for observed in [Observed::Absent(Evidence::NotFound), Observed::Unread(why("CB1301"))] {
        let mut scene = Scene::unlinked(Side::Outlook);
        scene.read(event(1), observed.clone());
        scene.signal(event(1), false, vec![version(Side::Outlook, 1)]);
        let plan = scene.plan();
        assert!(plan.covered.is_empty() && plan.wake_at.is_some(), "{observed:?}");
    }
    let mut scene = Scene::unlinked(Side::Outlook);
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.signal(event(1), false, vec![version(Side::Outlook, 1)]);
    scene.case.notices[0].last_signal_at = now() - TimeDelta::seconds(30);
    let plan = scene.plan();
    assert_eq!((plan.reasons, plan.covered), (vec![Reason::NeverSeen], vec![event(1)]));
}

#[test]
fn a_write_leaves_the_other_notices_to_the_timer() {
    let mut scene = Scene::in_step();
    scene.set_subject(Side::Outlook, "dinner");
    scene.signal(event(1), false, vec![version(Side::Outlook, 2)]);
    scene.signal(record(Side::Salesforce), false, vec![version(Side::Salesforce, 9)]);
    let plan = scene.plan();
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(covers(&plan, Side::Salesforce), (true, Some(30)));
}

#[test]
fn a_copy_that_is_not_visible_yet_or_could_not_be_read_stays_dirty() {
    for unread in [false, true] {
        let mut scene = Scene::in_step();
        let shown = if unread { Observed::Unread(why("CB1301")) } else { Observed::Absent(Evidence::NotFound) };
        scene.read(event(2), shown);
        scene.signal(event(2), false, Vec::new());
        let plan = scene.plan();
        assert!(plan.covered.is_empty() && plan.wake_at.is_some(), "it may be the organiser's: {:?}", plan.covered);
    }
}
