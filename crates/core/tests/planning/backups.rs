//! A database that was put back from a backup: what it must not guess about the time that it does not know.

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::link::{Action, Home, LinkState};
use calbridge_core::observed::{Observed, Snapshot, Stamp};
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;

use crate::scene::{Scene, USER, link_id, now, record, snapshot, token, why};

/// A side as a write left it of which the database knows nothing.
fn written_since(side: Side) -> Snapshot {
    let stamp = Stamp { link: link_id(), partner: String::new(), token: Some(token(9)) };
    Snapshot { stamp: Some(stamp), ..snapshot(side) }
}

#[test]
fn a_pair_that_differs_after_a_write_nobody_remembers_is_a_persons_business() {
    for written in Side::BOTH {
        for changed in Side::BOTH {
            let mut scene = Scene::in_step();
            scene.put(written_since(written));
            scene.set_subject(changed, "dinner");
            let plan = scene.plan();
            assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown));
            assert!(plan.steps.is_empty(), "{written} {changed}");
            let state = LinkState::Held { reason: Reason::StampUnknown, at: now() };
            assert_eq!(plan.next.unwrap().state, state);
        }
    }
}

#[test]
fn a_pair_that_agrees_after_a_write_nobody_remembers_is_in_step() {
    for written in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.put(written_since(written));
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.steps.len()), (Outcome::InStep, 0));
        let next = plan.next.unwrap();
        assert_eq!(next.base.len(), 2);
        let stamped = next.replicas.get(written).as_ref().and_then(|replica| replica.stamped.clone());
        assert_eq!(stamped.and_then(|stamp| stamp.token), Some(token(9)), "known from now on");
    }
}

#[test]
fn a_record_made_by_an_earlier_request_does_not_hold_what_a_later_one_would_have_written() {
    let mut scene = Scene::in_step();
    scene.open(Side::Salesforce, Action::Create(Home::Owner(USER.to_owned())));
    scene.link().replicas.salesforce = None;
    scene.link().base.clear();
    let asked = Lookup::Stamped { side: Side::Salesforce, link: link_id(), mailbox: None };
    let found = Observed::Present(Box::new(written_since(Side::Salesforce)));
    scene.answer(asked, Answer::Found(vec![(record(Side::Salesforce), found)]));
    scene.put(written_since(Side::Salesforce));
    let next = scene.plan().next.unwrap();
    assert!(next.intents.salesforce.is_none());
    let lunch = calbridge_core::value::Value::text("lunch");
    assert_eq!(next.base["subject"].salesforce, lunch, "what it shows, not what was to be written");
}

#[test]
fn a_record_with_the_links_stamp_is_its_other_side_although_the_link_knows_of_none() {
    let mut scene = Scene::in_step();
    scene.link().replicas.salesforce = None;
    scene.link().base.clear();
    scene.put(written_since(Side::Salesforce));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.steps.len()), (Outcome::InStep, 0));
    assert_eq!(plan.next.unwrap().replicas.salesforce.map(|replica| replica.record), Some(record(Side::Salesforce)));
}

#[test]
fn a_side_that_was_never_made_is_not_made_while_a_record_of_it_could_not_be_read() {
    let mut scene = Scene::in_step();
    scene.link().replicas.salesforce = None;
    scene.read(record(Side::Salesforce), Observed::Unread(why("CB1351")));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::ReadFailed));
}

#[test]
fn nothing_is_created_while_a_record_of_the_other_side_could_not_be_read() {
    for side in Side::BOTH {
        let mut scene = Scene::unlinked(side);
        scene.read(record(side.other()), Observed::Unread(why("CB1301")));
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::ReadFailed), "{side}");
        assert!(plan.steps.is_empty() && plan.next.is_none());
    }
}
