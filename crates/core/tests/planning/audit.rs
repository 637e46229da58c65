//! The audit after the fact: an edit that fell between our read and our write is journaled once its change event comes.

use std::collections::BTreeSet;

use calbridge_core::case::Fact;
use calbridge_core::ids::WriteToken;
use calbridge_core::link::{LinkState, Unaudited};
use calbridge_core::plan::{Outcome, Plan};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::ChangeFact;
use calbridge_core::value::{Fields, Value};
use chrono::{DateTime, TimeDelta, Utc};

use crate::scene::{Scene, now, row, snapshot, token, version};

/// A scene in step after a confirmed write of ours that replaced "lunch" by "written", not yet audited.
fn written() -> Scene {
    let mut scene = Scene::in_step();
    scene.link().unaudited.push(Unaudited {
        token: token(7),
        record: row(),
        deletes: false,
        replaced: subject("lunch"),
        written: subject("written"),
        expected: Some(version(Side::Salesforce, 1)),
        recorded_at: now() - TimeDelta::seconds(5),
    });
    scene
}

/// The same for a deletion, whose meeting is a tombstone since.
fn deleted() -> Scene {
    let mut scene = written();
    scene.link().state = LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: now() };
    let write = &mut scene.link().unaudited[0];
    (write.deletes, write.written, write.replaced) = (true, Fields::new(), snapshot(Side::Salesforce).fields);
    scene
}

fn subject(text: &str) -> Fields {
    Fields::from([("Subject".to_owned(), Value::text(text))])
}

fn fact(values: Fields, token: Option<WriteToken>) -> Fact {
    let facts = ChangeFact {
        committed: now() - TimeDelta::seconds(4),
        changed: values.keys().cloned().collect(),
        values,
        token,
        ..ChangeFact::default()
    };
    Fact { record: row(), deleted: false, facts }
}

fn deletion() -> Fact {
    Fact { deleted: true, ..fact(Fields::new(), None) }
}

/// Rules and values that a plan reports as covered unseen.
fn unseen(plan: &Plan) -> Vec<(&str, &Value)> {
    let unseen = plan.decisions.iter().filter(|decision| decision.reason == Reason::OverwrittenUnseen);
    unseen.map(|decision| (decision.rule.as_str(), &decision.salesforce)).collect()
}

fn audited(plan: &Plan) -> bool {
    plan.next.as_ref().is_some_and(|link| link.unaudited.is_empty())
}

#[test]
fn an_edit_that_stands_before_our_own_change_is_journaled_with_its_value() {
    let mut scene = written();
    scene.case.facts = vec![fact(subject("dinner"), None), fact(subject("written"), Some(token(7)))];
    let plan = scene.plan();
    assert_eq!(unseen(&plan), [("subject", &Value::text("dinner"))]);
    assert!(plan.reasons.contains(&Reason::OverwrittenUnseen) && audited(&plan));
    assert_eq!((plan.outcome, plan.steps.len()), (Outcome::InStep, 0), "nothing is written for it");
}

#[test]
fn of_several_edits_the_last_one_was_lost() {
    let mut scene = written();
    let edits = ["dinner", "supper"].map(|text| fact(subject(text), None));
    scene.case.facts = edits.into_iter().chain([fact(subject("written"), Some(token(7)))]).collect();
    assert_eq!(unseen(&scene.plan()), [("subject", &Value::text("supper"))]);
}

#[test]
fn what_was_read_or_what_was_written_is_not_lost() {
    for text in ["lunch", "written"] {
        let mut scene = written();
        scene.case.facts = vec![fact(subject(text), None), fact(subject("written"), Some(token(7)))];
        let plan = scene.plan();
        assert!(unseen(&plan).is_empty() && audited(&plan), "{text}");
    }
}

#[test]
fn edits_of_other_fields_and_records_and_after_our_change_are_not_covered() {
    let mut scene = written();
    let place = Fields::from([("Location".to_owned(), Value::text("Room 1"))]);
    let own = fact(subject("written"), Some(token(7)));
    scene.case.facts = vec![fact(place, None), own, fact(subject("dinner"), None)];
    assert!(unseen(&scene.plan()).is_empty());
}

#[test]
fn what_stands_before_an_earlier_write_of_ours_was_judged_with_that_one() {
    let mut scene = written();
    let facts = [(subject("dinner"), None), (subject("lunch"), Some(token(6))), (subject("written"), Some(token(7)))];
    scene.case.facts = facts.into_iter().map(|(values, token)| fact(values, token)).collect();
    assert!(unseen(&scene.plan()).is_empty());
}

#[test]
fn until_our_own_change_comes_the_write_stays_unaudited_and_facts_are_kept() {
    let mut scene = written();
    scene.case.facts = vec![fact(subject("dinner"), None)];
    let plan = scene.plan();
    assert!(unseen(&plan).is_empty() && !audited(&plan));
    assert_eq!(plan.facts_from, now() - TimeDelta::seconds(5 + 30), "30 s before the write was recorded");
}

#[test]
fn a_change_event_that_never_comes_is_waited_for_as_long_as_it_could_be_replayed() {
    for (age, waits) in [(TimeDelta::hours(95), true), (TimeDelta::hours(97), false)] {
        let mut scene = written();
        scene.link().unaudited[0].recorded_at = now() - age;
        let plan = scene.plan();
        assert_eq!(audited(&plan), !waits);
        assert_eq!(plan.facts_from < now() - TimeDelta::hours(1), waits);
    }
}

#[test]
fn a_deletion_of_ours_covers_every_field() {
    let mut scene = deleted();
    let time = crate::scene::timed("2026-12-01T15:00:00Z", "2026-12-01T16:00:00Z");
    let moved = fact(Fields::from([("time".to_owned(), time.clone())]), None);
    scene.case.facts = vec![moved, deletion()];
    let plan = scene.plan();
    assert_eq!(unseen(&plan), [("time", &time)]);
    assert!(audited(&plan) && plan.steps.is_empty());
}

#[test]
fn what_a_deletion_took_away_is_compared_without_outer_blanks() {
    let mut scene = deleted();
    scene.link().unaudited[0].replaced = subject(" lunch ");
    scene.case.facts = vec![fact(subject(" lunch "), None), deletion()];
    assert!(unseen(&scene.plan()).is_empty(), "a deletion keeps values as they were read");
}

#[test]
fn a_private_value_is_never_kept() {
    let mut scene = written();
    let mut secret = fact(subject("secret"), None);
    secret.facts.private = true;
    scene.case.facts = vec![secret, fact(subject("written"), Some(token(7)))];
    assert_eq!(unseen(&scene.plan()), [("subject", &Value::Null)], "that there was an edit is told, not which");
}

#[test]
fn a_change_whose_value_is_not_told_counts_by_its_time() {
    let read_at: DateTime<Utc> = match version(Side::Salesforce, 1) {
        calbridge_core::signal::Version::Modstamp(at) => at,
        calbridge_core::signal::Version::ChangeKey(_) => unreachable!("Salesforce has modstamps"),
    };
    for (after, lost) in [(TimeDelta::zero(), false), (TimeDelta::seconds(1), true)] {
        let mut scene = written();
        let mut untold = fact(Fields::new(), None);
        untold.facts.changed = BTreeSet::from(["Subject".to_owned()]);
        untold.facts.committed = read_at + after;
        scene.case.facts = vec![untold, fact(subject("written"), Some(token(7)))];
        assert_eq!(!unseen(&scene.plan()).is_empty(), lost);
    }
}
