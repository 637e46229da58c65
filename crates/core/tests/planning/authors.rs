//! Who made a change: only a person may cause a mail, and only for what that person did.

use calbridge_core::link::Wish;
use calbridge_core::observed::Observed;
use calbridge_core::plan::Outcome;
use calbridge_core::policy::MailPolicy;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use chrono::TimeDelta;

use crate::scene::{now, row, version, why};

use crate::caution::{ADA, FLOW, deleted_by, edited_by, fact, held, later};

#[test]
fn no_mail_is_caused_by_what_no_person_did() {
    held(&edited_by(FLOW).plan(), Reason::MailNeedsPerson);
    let mut unknown = edited_by(ADA);
    unknown.edit(Side::Salesforce, |snapshot| snapshot.modified_by = None);
    held(&unknown.plan(), Reason::MailNeedsPerson);
    let mut bulk = edited_by(ADA);
    bulk.case.facts.push(fact(ADA, "com/salesforce/api/bulkapi/66.0", false));
    held(&bulk.plan(), Reason::MailNeedsPerson);
    held(&deleted_by(FLOW).plan(), Reason::MailNeedsPerson);
    for mut scene in [edited_by(FLOW), deleted_by(FLOW)] {
        scene.rules.policy.mail = MailPolicy::Always;
        assert_eq!(scene.plan().mail.recipients, 3);
    }
}

#[test]
fn a_field_is_a_persons_although_a_flow_touched_the_record_since() {
    let mut scene = edited_by(FLOW);
    scene.case.facts.push(fact(ADA, "", false));
    let mut other = fact(FLOW, "", false);
    other.facts.changed = ["Description".to_owned()].into();
    scene.case.facts.push(other);
    assert_eq!(scene.plan().mail.author.as_deref(), Some(ADA));
}

#[test]
fn who_changed_something_else_last_is_not_the_author() {
    let mut scene = edited_by(ADA);
    let mut other = fact(ADA, "", false);
    other.facts.changed = ["Location".to_owned()].into();
    scene.case.facts.push(other);
    held(&scene.plan(), Reason::MailNeedsPerson);
}

#[test]
fn a_mail_waits_for_the_event_that_names_its_author() {
    let mut scene = edited_by(FLOW);
    scene.edit(Side::Salesforce, |snapshot| snapshot.modified = now());
    let waits = scene.plan();
    assert_eq!((waits.outcome, waits.wake_at), (Outcome::Deferred, Some(now() + TimeDelta::seconds(30))));
    let mut told = fact(ADA, "", false);
    told.facts.committed = now();
    scene.case.facts.push(told);
    assert_eq!(later(&mut scene, &waits, now() + TimeDelta::seconds(2)).mail.author.as_deref(), Some(ADA));
    scene.case.facts.clear();
    let unnamed = later(&mut scene, &waits, now() + TimeDelta::seconds(30));
    assert!(unnamed.reasons.contains(&Reason::MailNeedsPerson), "the row alone says who it was");
    // However long something waits or is held: what the row shows now has an event of its own.
    scene.edit(Side::Salesforce, |snapshot| {
        snapshot.version = version(Side::Salesforce, 9);
        snapshot.modified = now() + TimeDelta::minutes(9);
        snapshot.modified_by = Some(ADA.to_owned());
    });
    let waits = later(&mut scene, &unnamed, now() + TimeDelta::minutes(9));
    assert_eq!((waits.outcome, waits.mail.recipients), (Outcome::Deferred, 0), "{:?}", waits.reasons);
}

#[test]
fn an_event_that_carries_another_value_says_nothing_about_the_one_that_is_read() {
    let told = |value: &str, user: &str| {
        let mut told = fact(user, "", false);
        told.facts.values.insert("Subject".to_owned(), Value::text(value));
        told
    };
    // Both changed it within a second, and the later event has not come: the row alone names its author.
    let mut scene = edited_by(FLOW);
    scene.case.facts.push(told("lunch", ADA));
    let waits = scene.plan();
    assert_eq!((waits.outcome, waits.mail.recipients), (Outcome::Hold, 0), "{:?}", waits.reasons);
    scene.case.facts.push(told("supper", FLOW));
    held(&scene.plan(), Reason::MailNeedsPerson);
    // The read lags behind what a person did since.
    scene.case.facts.push(told("tea", ADA));
    held(&scene.plan(), Reason::MailNeedsPerson);
    scene.case.facts.remove(1);
    scene.case.facts.push(told("supper", ADA));
    assert_eq!(scene.plan().mail.author.as_deref(), Some(ADA));
}

#[test]
fn whose_edit_waited_is_not_the_author_of_a_deletion_that_nobody_told_of() {
    for (wish, mails) in [(Wish::Mail, false), (Wish::Delete, true)] {
        let mut scene = deleted_by(FLOW);
        scene.case.facts.clear();
        let pending = scene.link().care.pending.as_mut().unwrap();
        (pending.wish, pending.author) = (wish, Some(ADA.to_owned()));
        // What waited was another wish: the deletion begins to wait now.
        let first = scene.plan();
        let plan = later(&mut scene, &first, now() + TimeDelta::minutes(2));
        let plans = [&first, &plan];
        assert_eq!(plans.iter().any(|plan| plan.mail.recipients > 0), mails, "{wish:?}: {plans:?}");
        assert_eq!(plan.reasons.contains(&Reason::MailNeedsPerson), !mails, "{wish:?}");
    }
}

#[test]
fn an_older_change_event_says_nothing_about_a_newer_edit() {
    let mut scene = edited_by(ADA);
    let mut old = fact(FLOW, "", false);
    old.facts.committed = now() - TimeDelta::hours(1);
    scene.case.facts.push(old);
    assert_eq!(scene.plan().mail.author.as_deref(), Some(ADA));
}

#[test]
fn who_changed_what_could_not_be_written_is_not_forgotten() {
    let mut scene = edited_by(FLOW);
    scene.edit(Side::Outlook, |snapshot| snapshot.traits.is_organizer = false);
    let mut changed = fact(FLOW, "", false);
    changed.facts.committed = now() - TimeDelta::hours(5);
    scene.case.facts.push(changed);
    let plan = scene.plan();
    assert!(plan.reasons.contains(&Reason::NotOrganizer) && plan.facts_from <= now() - TimeDelta::hours(5));
    scene.case.facts[0].facts.committed = now() - TimeDelta::days(5);
    assert!(scene.plan().facts_from > now() - TimeDelta::hours(1), "but not for ever");
    // What is held, and what could not be decided.
    let mut scene = edited_by(FLOW);
    let mut changed = fact(FLOW, "", false);
    changed.facts.committed = now() - TimeDelta::minutes(5);
    scene.case.facts.push(changed);
    let plan = scene.plan();
    assert!(plan.outcome == Outcome::Hold && plan.facts_from <= now() - TimeDelta::minutes(5), "{plan:?}");
    scene.read(row(), Observed::Unread(why("CB1350")));
    let plan = scene.plan();
    assert!(plan.outcome == Outcome::Wait && plan.facts_from <= now() - TimeDelta::days(3), "{plan:?}");
}
