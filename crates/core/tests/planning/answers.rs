//! What a person says about what is held or failed, and how long it holds.

use calbridge_core::case::Instruction;
use calbridge_core::link::{BaseField, Intent, LinkState, Wish};
use calbridge_core::mapping::Direction;
use calbridge_core::observed::Observed;
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use calbridge_core::written::{TOO_LATE, WriteResult};
use chrono::TimeDelta;

use crate::caution::{FLOW, edited_by, held, later, mass_deletion};
use crate::scene::{Scene, event, mapping, now, text_rule, why};

#[test]
fn an_approval_holds_until_both_sides_agree() {
    let mut scene = edited_by(FLOW);
    let first = scene.plan();
    scene.case.link = first.next;
    scene.case.instruction = Some(Instruction::Approve);
    let approved = scene.plan();
    // The record changed underneath: the write is planned anew and still approved.
    let mut link = approved.next.unwrap();
    link.intents.outlook = None;
    scene.case.link = Some(link);
    scene.case.instruction = None;
    assert_eq!(scene.plan().outcome, Outcome::Write);
    scene.edit(Side::Outlook, |snapshot| {
        snapshot.fields.insert("subject".to_owned(), Value::text("supper"));
    });
    let done = scene.plan();
    assert_eq!((done.outcome, done.next.unwrap().care.approved), (Outcome::InStep, None));
}

#[test]
fn a_discarded_deletion_leaves_what_is_there_and_brings_nothing_back() {
    let (mut scene, _) = mass_deletion();
    scene.case.instruction = Some(Instruction::Discard);
    let plan = scene.plan();
    assert!(plan.steps.is_empty() && plan.instructed);
    assert_eq!(plan.next.unwrap().state, LinkState::Tombstone { reason: Reason::Discarded, at: now() });
}

#[test]
fn a_discarded_mail_puts_outlooks_values_back_without_mailing_anybody() {
    let mut scene = edited_by(FLOW);
    let first = scene.plan();
    scene.case.link = first.next;
    scene.case.instruction = Some(Instruction::Discard);
    let plan = scene.plan();
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!((step.side, plan.mail.recipients), (Side::Salesforce, 0));
    assert_eq!(step.fields.get("Subject"), Some(&Value::text("lunch")));
    assert_eq!(plan.next.unwrap().state, LinkState::Live);
}

#[test]
fn a_person_chooses_a_side_of_a_dead_letter() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.set_subject(Side::Outlook, "dinner");
        scene.set_subject(Side::Salesforce, "supper");
        scene.link().state = LinkState::DeadLetter { reason: Reason::ManualConflict, at: now() };
        scene.case.instruction = Some(Instruction::Keep(side));
        let plan = scene.plan();
        let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
        assert_eq!(step.side, side.other());
        let kept = if side == Side::Outlook { ("Subject", "dinner") } else { ("subject", "supper") };
        assert_eq!(step.fields.get(kept.0), Some(&Value::text(kept.1)));
        assert_eq!(step.reason, Instruction::Keep(side).reason());
    }
}

#[test]
fn a_failure_that_is_skipped_rests_until_the_next_edit() {
    let mut scene = Scene::in_step();
    scene.set_subject(Side::Outlook, "dinner");
    scene.link().state = LinkState::DeadLetter { reason: Reason::Refused, at: now() };
    scene.case.instruction = Some(Instruction::Skip);
    let plan = scene.plan();
    assert!(plan.steps.is_empty() && plan.instructed);
    assert_eq!(plan.next.as_ref().unwrap().state, LinkState::Skipped { reason: Reason::Refused, at: now() });
    let edited = later(&mut scene, &plan, now());
    assert_eq!((edited.outcome, edited.next.unwrap().state), (Outcome::Write, LinkState::Live));
}

#[test]
fn an_instruction_is_kept_while_nothing_can_be_decided() {
    let (mut scene, _) = mass_deletion();
    scene.case.instruction = Some(Instruction::Approve);
    scene.read(event(1), Observed::Unread(why("CB1301")));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.instructed), (Outcome::Wait, false));
    // What was held stays so, and is discarded as soon as it can be read.
    let next = plan.next.unwrap();
    assert!(matches!(next.state, LinkState::Held { reason: Reason::MassDelete, .. }));
    assert_eq!(next.care.pending.map(|pending| pending.wish), Some(Wish::Delete));
}

#[test]
fn what_a_person_said_about_a_failure_is_followed_when_the_meeting_can_be_read_again() {
    let mut scene = Scene::in_step();
    scene.set_subject(Side::Outlook, "dinner");
    scene.set_subject(Side::Salesforce, "supper");
    scene.link().state = LinkState::DeadLetter { reason: Reason::ManualConflict, at: now() };
    scene.case.instruction = Some(Instruction::Keep(Side::Salesforce));
    let kept = scene.case.reads.clone();
    scene.read(event(1), Observed::Unread(why("CB1301")));
    let unread = scene.plan();
    assert!(!unread.instructed);
    scene.case.link = unread.next;
    scene.case.reads = kept;
    let plan = scene.plan();
    assert_eq!((plan.steps[0].side, plan.instructed), (Side::Outlook, true));
}

/// What a person said about a scene, of whose one write the remote said that it had no effect.
fn said_in_vain(scene: &mut Scene, instruction: Instruction) -> Intent {
    scene.case.instruction = Some(instruction);
    let plan = scene.plan();
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    let refused = WriteResult::NotNow(why(TOO_LATE));
    let settled = settle(plan.next.clone().unwrap(), step, &refused, &scene.rules, now());
    scene.case.link = Some(settled.link);
    scene.case.instruction = None;
    step.clone()
}

#[test]
fn what_a_person_said_is_followed_until_the_write_took_effect() {
    let discarded = {
        let mut scene = edited_by(FLOW);
        scene.case.link = scene.plan().next;
        (scene, Instruction::Discard)
    };
    let kept = |side| {
        let mut scene = Scene::in_step();
        scene.set_subject(Side::Outlook, "dinner");
        scene.set_subject(Side::Salesforce, "supper");
        scene.link().state = LinkState::DeadLetter { reason: Reason::ManualConflict, at: now() };
        (scene, Instruction::Keep(side))
    };
    for (mut scene, instruction) in [discarded, kept(Side::Outlook), kept(Side::Salesforce)] {
        let first = said_in_vain(&mut scene, instruction);
        let again = scene.plan();
        let [step] = again.steps.as_slice() else { panic!("{instruction:?}: {again:?}") };
        assert_eq!((step.side, &step.fields, step.reason), (first.side, &first.fields, first.reason));
        let applied =
            WriteResult::Applied { record: step.action.record().unwrap().clone(), version: None, snapshot: None };
        let done = settle(again.next.clone().unwrap(), step, &applied, &scene.rules, now());
        assert_eq!(done.link.care.chosen, None, "the next edit asks anew");
    }
}

#[test]
fn an_edit_after_what_a_person_said_is_another_question() {
    let mut scene = edited_by(FLOW);
    scene.case.link = scene.plan().next;
    said_in_vain(&mut scene, Instruction::Discard);
    scene.set_subject(Side::Salesforce, "feast");
    let plan = scene.plan();
    held(&plan, Reason::MailNeedsPerson);
    assert_eq!(plan.next.unwrap().care.chosen, None);
}

#[test]
fn a_discarded_change_that_cannot_be_taken_back_stays_as_it_is_and_mails_nobody() {
    let mut scene = edited_by(FLOW);
    let mut rule = text_rule("subject", "subject", "Subject");
    rule.direction = Direction::ToOutlook;
    let base = scene.link().base["subject"].clone();
    scene.rules.mapping = mapping(vec![rule, text_rule("time", "time", "time")]);
    let hash = scene.rules.mapping.rules()[0].hash().to_owned();
    scene.link().base.insert("subject".to_owned(), BaseField { rule: hash, ..base });
    let first = scene.plan();
    held(&first, Reason::MailNeedsPerson);
    scene.case.link = first.next;
    scene.case.instruction = Some(Instruction::Discard);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.mail.recipients, plan.steps.len()), (Outcome::InStep, 0, 0), "{:?}", plan.reasons);
    let rest = later(&mut scene, &plan, now() + TimeDelta::minutes(3));
    assert_eq!(rest.outcome, Outcome::InStep);
    scene.set_subject(Side::Salesforce, "feast");
    scene.case.link = rest.next;
    assert_eq!(scene.plan().outcome, Outcome::Hold, "its next change flows again");
}
