//! Writes that wait or are held: deletions, mails, and what nobody explains.

use calbridge_core::case::{Census, Fact, Instruction};
use calbridge_core::link::{Action, Intent, LinkState, Pending, Wish};
use calbridge_core::observed::{Evidence, Observed};
use calbridge_core::plan::{Budget, Outcome, Plan};
use calbridge_core::policy::MailPolicy;
use calbridge_core::reason::Reason;
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::signal::ChangeFact;
use calbridge_core::written::{TOO_LATE, WriteResult};
use chrono::{DateTime, TimeDelta, Utc};

use crate::scene::{Scene, event, mailbox, now, record, row, snapshot, timed, version, why};

pub(crate) const ADA: &str = "005000000000007AAA";
pub(crate) const FLOW: &str = "005000000000009AAA";

/// A linked meeting with three attendees of whose Salesforce side a user changed the subject a minute ago.
pub(crate) fn edited_by(user: &str) -> Scene {
    let mut scene = Scene::in_step();
    scene.rules.policy.automation_users.insert(FLOW.to_owned());
    let outlook = {
        let mut outlook = snapshot(Side::Outlook);
        outlook.traits.attendees = 3;
        outlook
    };
    scene.put(outlook);
    scene.set_subject(Side::Salesforce, "supper");
    scene.edit(Side::Salesforce, |snapshot| snapshot.modified_by = Some(user.to_owned()));
    scene
}

/// The same meeting, deleted in Salesforce by a user; the deletion was seen so long ago that it need not wait.
pub(crate) fn deleted_by(user: &str) -> Scene {
    let mut scene = edited_by(user);
    scene.absent(Side::Salesforce, Evidence::Deleted);
    scene.case.facts.push(fact(user, "", true));
    scene.link().care.pending = Some(Pending {
        wish: Wish::Delete,
        side: Side::Outlook,
        since: now() - TimeDelta::minutes(2),
        changed_at: now() - TimeDelta::minutes(2),
        version: None,
        author: None,
    });
    scene
}

pub(crate) fn fact(user: &str, origin: &str, deleted: bool) -> Fact {
    let facts = ChangeFact {
        user: user.to_owned(),
        origin: origin.to_owned(),
        committed: now() - TimeDelta::minutes(1),
        changed: ["Subject".to_owned()].into(),
        ..ChangeFact::default()
    };
    Fact { record: row(), deleted, facts }
}

/// Runs a scene again at another time, as the plan left it.
pub(crate) fn later(scene: &mut Scene, plan: &Plan, at: DateTime<Utc>) -> Plan {
    scene.case.link.clone_from(&plan.next);
    scene.now = at;
    scene.case.instruction = None;
    scene.plan()
}

#[track_caller]
pub(crate) fn held(plan: &Plan, reason: Reason) {
    assert_eq!(plan.outcome, Outcome::Hold, "{:?}", plan.reasons);
    assert_eq!(plan.next.as_ref().unwrap().state, LinkState::Held { reason, at: now() });
    assert!(plan.steps.is_empty() && plan.spends.is_empty() && plan.mail.recipients == 0);
    assert!(plan.reasons.contains(&reason));
}

fn budgets(plan: &Plan) -> Vec<Budget> {
    plan.spends.iter().map(|spend| spend.budget.clone()).collect()
}

#[test]
fn a_persons_edit_mails_the_attendees_at_once_and_names_its_author() {
    let plan = edited_by(ADA).plan();
    assert_eq!(plan.outcome, Outcome::Write);
    assert_eq!((plan.mail.recipients, plan.mail.author.as_deref()), (3, Some(ADA)));
    assert_eq!(budgets(&plan), [Budget::MailsByAuthor(ADA.to_owned())]);
    assert_eq!((plan.steps[0].mails, plan.next.unwrap().care.mailed_at), (3, None), "it has yet to leave");
}

#[test]
fn what_was_not_sent_is_given_back_and_makes_no_later_mail_wait() {
    let scene = edited_by(ADA);
    let plan = scene.plan();
    let link = plan.next.unwrap();
    let settled = |result: WriteResult| settle(link.clone(), &plan.steps[0], &result, &scene.rules, now());
    for unsent in [WriteResult::NotNow(why(TOO_LATE)), WriteResult::Conflict(why("CB1311"))] {
        let settled = settled(unsent);
        assert_eq!((settled.unspent, settled.link.care.mailed_at), (true, None));
    }
    let unknown = settled(WriteResult::Unknown(why("CB1301")));
    assert_eq!((unknown.unspent, unknown.link.care.mailed_at), (false, None), "a later read decides");
    let sent = settled(WriteResult::Applied { record: record(Side::Outlook), version: None, snapshot: None });
    assert_eq!((sent.unspent, sent.link.care.mailed_at), (false, Some(now())));
}

#[test]
fn what_a_person_said_about_a_mail_is_no_approval_of_a_deletion() {
    for instruction in [Instruction::Approve, Instruction::Discard] {
        let mut scene = edited_by(FLOW);
        let first = scene.plan();
        scene.absent(Side::Salesforce, Evidence::Deleted);
        scene.case.link = first.next;
        scene.case.instruction = Some(instruction);
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.steps.len()), (Outcome::Deferred, 0), "{instruction:?}");
        assert_eq!(plan.next.unwrap().care.approved, None);
    }
}

#[test]
fn the_approval_of_a_mail_that_left_is_none_of_a_deletion() {
    let mut scene = edited_by(FLOW);
    let first = scene.plan();
    scene.case.link = first.next;
    scene.case.instruction = Some(Instruction::Approve);
    let approved = scene.plan();
    assert_eq!(approved.mail.recipients, 3);
    // It was refused, because the event had changed underneath; and then the row was deleted.
    let mut link = approved.next.unwrap();
    link.intents.outlook = None;
    scene.case.link = Some(link);
    scene.case.instruction = None;
    scene.absent(Side::Salesforce, Evidence::Deleted);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.steps.len()), (Outcome::Deferred, 0), "{:?}", plan.reasons);
}

#[test]
fn where_mails_are_forbidden_the_meeting_keeps_its_outlook_side() {
    let mut scene = edited_by(ADA);
    scene.rules.policy.mail = MailPolicy::Never;
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::InStep, Reason::AttendeesNeedMailPolicy));
    assert!(plan.steps.is_empty());
    let mut scene = deleted_by(ADA);
    scene.rules.policy.mail = MailPolicy::Never;
    let plan = scene.plan();
    assert!(plan.steps.is_empty() && plan.reasons.contains(&Reason::AttendeesNeedMailPolicy));
}

#[test]
fn a_past_meeting_with_attendees_is_written_only_where_the_policy_names_it() {
    for mut scene in [edited_by(ADA), deleted_by(ADA)] {
        scene.now = "2026-12-01T10:00:01Z".parse().unwrap();
        let plan = scene.plan();
        assert!(plan.steps.is_empty() && plan.reasons.contains(&Reason::PastMeeting), "{:?}", plan.reasons);
        scene.rules.policy.past_meetings = true;
        assert_eq!(scene.plan().mail.recipients, 3);
    }
    let mut alone = edited_by(ADA);
    alone.now = "2026-12-01T10:00:01Z".parse().unwrap();
    alone.edit(Side::Outlook, |snapshot| snapshot.traits.attendees = 0);
    assert_eq!((alone.plan().outcome, alone.plan().mail.recipients), (Outcome::Write, 0));
}

#[test]
fn an_attendees_copy_is_never_written() {
    let mut scene = edited_by(ADA);
    scene.edit(Side::Outlook, |snapshot| snapshot.traits.is_organizer = false);
    let plan = scene.plan();
    assert!(plan.steps.is_empty() && plan.reasons.contains(&Reason::NotOrganizer), "{:?}", plan.reasons);
}

#[test]
fn what_becomes_private_leaves_at_once_and_the_mail_about_it_is_told() {
    let mut scene = edited_by(ADA);
    scene.edit(Side::Salesforce, |snapshot| snapshot.traits.private = true);
    let plan = scene.plan();
    assert!(matches!(plan.steps[0].action, Action::Delete(_)) && plan.steps[0].side == Side::Outlook);
    assert_eq!((plan.mail.recipients, plan.steps[0].mails), (3, 3));
}

#[test]
fn the_first_mail_leaves_at_once_and_later_edits_share_one() {
    let mut scene = edited_by(ADA);
    scene.link().care.mailed_at = Some(now() - TimeDelta::seconds(20));
    let first = scene.plan();
    assert_eq!((first.outcome, first.reasons.last()), (Outcome::Deferred, Some(&Reason::MailWaits)));
    assert_eq!(first.wake_at, Some(now() + TimeDelta::seconds(60)));

    // Another edit 20 s later begins the quiet anew.
    let at = now() + TimeDelta::seconds(20);
    scene.set_subject(Side::Salesforce, "supper at nine");
    scene.edit(Side::Salesforce, |snapshot| snapshot.version = version(Side::Salesforce, 3));
    let second = later(&mut scene, &first, at);
    assert_eq!(second.wake_at, Some(at + TimeDelta::seconds(60)));
    let third = later(&mut scene, &second, at + TimeDelta::seconds(60));
    assert_eq!((third.outcome, third.mail.recipients), (Outcome::Write, 3));
    assert_eq!(third.next.unwrap().care.pending, None);
}

#[test]
fn a_mail_waits_no_longer_than_five_minutes_while_edits_keep_coming() {
    let mut scene = edited_by(ADA);
    scene.link().care.mailed_at = Some(now());
    let mut plan = scene.plan();
    let mut at = now();
    let mut number = 3;
    while plan.outcome == Outcome::Deferred {
        assert!(at - now() < TimeDelta::minutes(5), "it never leaves");
        at += TimeDelta::seconds(30);
        number += 1;
        scene.edit(Side::Salesforce, |snapshot| snapshot.version = version(Side::Salesforce, number));
        plan = later(&mut scene, &plan, at);
    }
    assert_eq!((plan.outcome, at - now()), (Outcome::Write, TimeDelta::minutes(5)));
}

#[test]
fn the_other_direction_does_not_wait_for_a_mail_that_is_held() {
    let mut scene = edited_by(FLOW);
    scene.edit(Side::Outlook, |snapshot| {
        snapshot.fields.insert("time".to_owned(), timed("2026-12-02T09:00:00Z", "2026-12-02T10:00:00Z"));
    });
    let plan = scene.plan();
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!((step.side, plan.outcome), (Side::Salesforce, Outcome::Write));
    assert!(step.fields.contains_key("time") && plan.reasons.contains(&Reason::MailNeedsPerson));
    assert!(matches!(plan.next.unwrap().state, LinkState::Held { reason: Reason::MailNeedsPerson, .. }));
}

#[test]
fn an_author_who_mails_too_much_is_held() {
    let mut scene = edited_by(ADA);
    scene.census = Census { mails_by_author: 19, ..Census::default() };
    assert_eq!(scene.plan().outcome, Outcome::Write);
    scene.census.mails_by_author = 20;
    held(&scene.plan(), Reason::MailFuse);
    let mut scene = deleted_by(ADA);
    scene.census.mails_by_author = 20;
    held(&scene.plan(), Reason::MailFuse);
}

#[test]
fn a_deletion_waits_in_case_it_is_one_of_many_and_longer_when_it_mails() {
    for (side, seconds) in [(Side::Outlook, 10), (Side::Salesforce, 10), (Side::Salesforce, 60)] {
        let mut scene = Scene::in_step();
        scene.rules.policy.timers.delete_wait = TimeDelta::seconds(10);
        if seconds == 60 {
            scene = edited_by(ADA);
            scene.case.facts.push(fact(ADA, "", true));
        }
        scene.absent(side, Evidence::NotFound);
        scene.signal(record(side), true, Vec::new());
        let first = scene.plan();
        let waits = (Outcome::Deferred, Some(now() + TimeDelta::seconds(seconds)));
        assert_eq!((first.outcome, first.wake_at), waits, "{side}");
        assert_eq!(first.covered, [record(side)]);
        // The signal that proved the absence is answered; the proof is remembered.
        scene.case.notices.clear();
        let second = later(&mut scene, &first, now() + TimeDelta::seconds(seconds));
        let [step] = second.steps.as_slice() else { panic!("{second:?}") };
        assert!(matches!(step.action, Action::Delete(_)) && step.side == side.other());
        assert_eq!(second.next.unwrap().care.pending, None);
    }
}

#[test]
fn a_record_that_comes_back_while_its_deletion_waits_is_not_deleted() {
    let mut scene = Scene::in_step();
    scene.rules.policy.timers.delete_wait = TimeDelta::seconds(10);
    scene.absent(Side::Salesforce, Evidence::Deleted);
    let first = scene.plan();
    scene.put(snapshot(Side::Salesforce));
    let second = later(&mut scene, &first, now() + TimeDelta::seconds(10));
    assert_eq!((second.outcome, second.steps.len()), (Outcome::InStep, 0));
    assert_eq!(second.next.unwrap().care.pending, None);
}

#[test]
fn more_deletions_than_may_happen_at_once_are_held_and_those_within_the_limit_are_not() {
    let census = |links_in_mailbox, deletes_in_mailbox, deletes_by_author| Census {
        links_in_mailbox,
        deletes_in_mailbox,
        deletes_by_author,
        mails_by_author: 0,
    };
    for (census, is_held) in [
        (census(100, 9, 0), false),
        (census(100, 10, 0), true),
        (census(1_000, 49, 0), false),
        (census(1_000, 50, 0), true),
        (census(1_000, 0, 24), false),
        (census(1_000, 0, 25), true),
    ] {
        let mut scene = deleted_by(ADA);
        scene.edit(Side::Outlook, |snapshot| snapshot.traits.attendees = 0);
        scene.census = census;
        let plan = scene.plan();
        if is_held {
            held(&plan, Reason::MassDelete);
            assert_eq!(plan.next.unwrap().care.pending.map(|pending| pending.wish), Some(Wish::Delete));
        } else {
            assert_eq!(plan.outcome, Outcome::Write, "{census:?}");
            let expected = [Budget::DeletesInMailbox(mailbox(1)), Budget::DeletesByAuthor(ADA.to_owned())];
            assert_eq!(budgets(&plan), expected);
        }
    }
}

/// A deletion that is held as one of many.
pub(crate) fn mass_deletion() -> (Scene, Plan) {
    let mut scene = deleted_by(ADA);
    scene.census.deletes_in_mailbox = 60;
    let plan = scene.plan();
    scene.case.link.clone_from(&plan.next);
    (scene, plan)
}

#[test]
fn what_a_person_approves_is_done_and_uses_up_no_budget() {
    let (mut scene, _) = mass_deletion();
    scene.case.instruction = Some(Instruction::Approve);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.instructed), (Outcome::Write, true));
    assert!(plan.spends.is_empty() && plan.reasons.contains(&Reason::Approved));
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!(step.action, Action::Delete(event(1)));

    let mut scene = edited_by(FLOW);
    let first = scene.plan();
    scene.case.link = first.next;
    scene.case.instruction = Some(Instruction::Approve);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.mail.recipients), (Outcome::Write, 3));
    assert!(plan.spends.is_empty());
}

#[test]
fn what_is_held_waits_although_the_meeting_is_looked_at_again_and_vanishes_with_its_cause() {
    let mut scene = edited_by(FLOW);
    let first = scene.plan();
    let again = later(&mut scene, &first, now() + TimeDelta::minutes(3));
    held(&again, Reason::MailNeedsPerson);
    scene.set_subject(Side::Salesforce, "lunch");
    let gone = later(&mut scene, &again, now() + TimeDelta::minutes(4));
    assert_eq!(gone.outcome, Outcome::InStep);
    assert_eq!(gone.next.unwrap().state, LinkState::Live);
}

#[test]
fn a_deletion_that_waits_is_not_forgotten_while_the_other_side_cannot_be_read() {
    let mut scene = Scene::in_step();
    scene.rules.policy.timers.delete_wait = TimeDelta::seconds(10);
    scene.absent(Side::Outlook, Evidence::NotFound);
    scene.signal(event(1), true, Vec::new());
    let first = scene.plan();
    scene.case.notices.clear();
    scene.read(row(), Observed::Unread(why("CB1301")));
    let unread = later(&mut scene, &first, now() + TimeDelta::seconds(10));
    assert_eq!(unread.outcome, Outcome::Wait);
    scene.put(snapshot(Side::Salesforce));
    let third = later(&mut scene, &unread, now() + TimeDelta::seconds(20));
    assert!(matches!(third.steps[0].action, Action::Delete(_)), "neither the proof nor the wait begins anew");
}

#[test]
fn two_programs_that_disagree_are_stopped_after_six_rounds() {
    let mut scene = Scene::in_step();
    scene.rules.policy.automation_users.insert(FLOW.to_owned());
    let mut at = now();
    for round in 0..20 {
        let side = if round % 2 == 0 { Side::Salesforce } else { Side::Outlook };
        scene.now = at;
        scene.set_subject(side, &format!("text {round}"));
        if side == Side::Salesforce {
            scene.edit(side, |snapshot| snapshot.modified_by = Some(FLOW.to_owned()));
        }
        renew(&mut scene, side, 0);
        let plan = scene.plan();
        if plan.outcome == Outcome::DeadLetter {
            let next = plan.next.unwrap();
            assert_eq!(next.state, LinkState::DeadLetter { reason: Reason::Oscillation, at });
            assert_eq!(round, 6);
            // The other program's answer to the last write comes after the stop, and is still an answer.
            let mut answered = scene.clone();
            answered.case.link = Some(next.clone());
            answered.now += TimeDelta::seconds(3);
            answered.set_subject(Side::Outlook, "one more");
            renew(&mut answered, Side::Outlook, 0);
            assert_eq!(answered.plan().outcome, Outcome::DeadLetter);
            // A person lets it try again, with a clean slate.
            scene.case.instruction = Some(Instruction::Retry);
            scene.case.link = Some(next);
            assert_eq!(scene.plan().outcome, Outcome::Write);
            return;
        }
        // The write takes effect: both sides agree on the new text.
        take_effect(&mut scene, &plan);
        at += TimeDelta::seconds(20);
    }
    panic!("it went round and round");
}

#[test]
fn people_who_edit_by_turns_are_not_taken_for_programs() {
    let mut scene = Scene::in_step();
    let mut at = now();
    for round in 0..20 {
        scene.now = at;
        scene.set_subject(Side::Salesforce, &format!("text {round}"));
        scene.edit(Side::Salesforce, |snapshot| snapshot.modified_by = Some(ADA.to_owned()));
        renew(&mut scene, Side::Salesforce, 0);
        let plan = scene.plan();
        assert_eq!(plan.outcome, Outcome::Write);
        take_effect(&mut scene, &plan);
        at += TimeDelta::seconds(20);
    }
}

#[test]
fn writes_that_had_no_effect_are_no_rounds() {
    let mut scene = edited_by(FLOW);
    scene.rules.policy.mail = MailPolicy::Always;
    scene.link().care.wrote.salesforce = Some(now() - TimeDelta::seconds(5));
    for edited in [Side::Salesforce, Side::Outlook] {
        for round in 0..10 {
            scene.set_subject(edited, &format!("text {round} of {edited}"));
            let plan = scene.plan();
            assert_eq!(plan.outcome, Outcome::Write, "{round}: {:?}", plan.reasons);
            answer(&mut scene, &plan, |_| WriteResult::NotNow(why("CB1209")));
            assert!(scene.link().care.unexplained.is_empty());
        }
    }
}

/// Answers every write of a plan, and lets the meeting go on from there.
fn answer(scene: &mut Scene, plan: &Plan, result: impl Fn(&Intent) -> WriteResult) {
    let mut link = plan.next.clone().unwrap();
    for step in &plan.steps {
        link = settle(link, step, &result(step), &scene.rules, scene.now).link;
    }
    scene.case.link = Some(link);
}

/// Lets every write of a plan take effect.
fn take_effect(scene: &mut Scene, plan: &Plan) {
    answer(scene, plan, |step| WriteResult::Applied {
        record: step.action.record().unwrap().clone(),
        version: None,
        snapshot: None,
    });
    for step in &plan.steps {
        scene.edit(step.side, |snapshot| {
            snapshot.fields.extend(step.fields.clone());
            snapshot.stamp = Some(step.stamp.clone());
        });
        renew(scene, step.side, 1);
    }
}

/// Gives a side the version of this second: the one before our write, or the one of it.
fn renew(scene: &mut Scene, side: Side, after: i64) {
    let at = scene.now;
    scene.edit(side, |snapshot| {
        snapshot.version = version(side, 10 + 2 * (at - now()).num_seconds() + after);
        snapshot.modified = at + TimeDelta::seconds(after);
    });
}
