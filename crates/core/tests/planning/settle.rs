//! Settling: each answer of a remote, to the first and to a repeated request.

use calbridge_core::link::{Action, Approval, Home, LinkState, Wish};
use calbridge_core::observed::Why;
use calbridge_core::plan::{Outcome, Settled};
use calbridge_core::reason::Reason;
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use calbridge_core::written::{TOO_LATE, WriteResult};
use chrono::TimeDelta;

use crate::scene::{Scene, event, mailbox, now, record, snapshot, version, why};

fn settled(side: Side, action: Action, sends: u32, result: &WriteResult) -> Settled {
    let mut scene = Scene::in_step();
    let mut intent = scene.open(side, action);
    intent.sends = sends;
    *scene.link().intents.get_mut(side) = Some(intent.clone());
    settle(scene.link().clone(), &intent, result, &scene.rules, now())
}

fn update(side: Side, sends: u32, result: &WriteResult) -> Settled {
    settled(side, Action::Update(record(side)), sends, result)
}

/// Each answer that is not "applied", the number of sends, and what follows: is the intent closed, why, when to look again.
#[test]
fn each_answer_to_each_send_is_settled_as_its_row_says() {
    type Answer = fn(Why) -> WriteResult;
    let rows: [(Answer, u32, bool, Reason, Option<i64>); 12] = [
        (WriteResult::Conflict, 1, true, Reason::ChangedUnderneath, Some(0)),
        (WriteResult::Conflict, 2, false, Reason::WriteUnknown, Some(0)),
        (WriteResult::Gone, 1, true, Reason::ChangedUnderneath, Some(0)),
        (WriteResult::Gone, 2, false, Reason::WriteUnknown, Some(0)),
        (WriteResult::AlreadyExists, 1, false, Reason::WriteUnknown, Some(0)),
        (WriteResult::AlreadyExists, 2, false, Reason::WriteUnknown, Some(0)),
        (WriteResult::Refused, 1, true, Reason::Refused, None),
        (WriteResult::Refused, 2, false, Reason::WriteUnknown, Some(0)),
        (WriteResult::NotNow, 1, true, Reason::WriteFailed, Some(1)),
        (WriteResult::NotNow, 2, false, Reason::WriteUnknown, Some(1)),
        (WriteResult::Unknown, 1, false, Reason::WriteUnknown, Some(1)),
        (WriteResult::Unknown, 2, false, Reason::WriteUnknown, Some(1)),
    ];
    for side in Side::BOTH {
        for (answer, sends, closed, reason, again) in rows {
            let result = answer(why("CB1399"));
            let settled = update(side, sends, &result);
            let what = format!("{side} {result:?}, sent {sends} times");
            assert_eq!(settled.link.intents.get(side).is_none(), closed, "{what}");
            assert_eq!(settled.reason, reason, "{what}");
            assert_eq!(settled.wake_at, again.map(|seconds| now() + TimeDelta::seconds(seconds)), "{what}");
            assert_eq!(settled.error.as_deref(), Some("CB1399"), "{what}");
            assert_eq!(settled.link.base["subject"].outlook, Value::text("lunch"), "{what}: the base stays");
            let dead = matches!(settled.link.state, LinkState::DeadLetter { reason: Reason::Refused, .. });
            assert_eq!(dead, reason == Reason::Refused, "{what}");
        }
    }
}

#[test]
fn a_write_that_failed_twelve_times_in_a_row_waits_for_a_person_and_reads_count_for_nothing() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        scene.set_subject(side.other(), "dinner");
        // An outage of hours, in which nothing could be read.
        scene.case.tries = 40;
        for _ in 0..12 {
            let plan = scene.plan();
            assert_eq!((plan.outcome, plan.steps.len()), (Outcome::Write, 1), "{side}");
            let result = WriteResult::NotNow(why("CB1399"));
            scene.case.link = Some(settle(plan.next.unwrap(), &plan.steps[0], &result, &scene.rules, now()).link);
        }
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0], plan.steps.len()), (Outcome::DeadLetter, Reason::TooManyTries, 0));
        // The next change of the meeting is tried as often.
        scene.case.link = plan.next;
        scene.set_subject(side.other(), "supper");
        assert_eq!(scene.plan().outcome, Outcome::Write, "{side}");
    }
}

#[test]
fn a_write_that_never_left_is_planned_again_however_often() {
    let mut scene = Scene::in_step();
    scene.set_subject(Side::Outlook, "dinner");
    for _ in 0..40 {
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.steps.len()), (Outcome::Write, 1));
        let result = WriteResult::NotNow(why(TOO_LATE));
        scene.case.link = Some(settle(plan.next.unwrap(), &plan.steps[0], &result, &scene.rules, now()).link);
    }
}

#[test]
fn a_remote_that_asks_for_a_pause_gets_it() {
    let mut throttled = why("CB1302");
    throttled.retry_after_ms = Some(90_000);
    for result in [WriteResult::NotNow(throttled.clone()), WriteResult::Unknown(throttled)] {
        assert_eq!(update(Side::Outlook, 1, &result).wake_at, Some(now() + TimeDelta::seconds(90)));
    }
}

#[test]
fn an_applied_write_moves_the_base_and_supersedes_the_version_it_replaced() {
    for side in Side::BOTH {
        for sends in [1, 2] {
            let result = WriteResult::Applied { record: record(side), version: None, snapshot: None };
            let settled = update(side, sends, &result);
            assert_eq!((settled.reason, settled.wake_at, settled.error), (Reason::WriteConfirmed, None, None));
            let replica = settled.link.replicas.get(side).as_ref().unwrap();
            assert!(replica.superseded.contains(&version(side, 1)));
            assert_eq!(replica.version, None, "not known until it is read");
            assert!(replica.is_stale(&snapshot(side)), "the replaced version can only come from a lagging read");
            assert_eq!(settled.link.base["subject"].salesforce, Value::text("written"));
            assert_eq!(settled.link.in_step_at, Some(now()));
            assert_eq!(settled.link.last_writer, Some(side.other()));
        }
    }
}

#[test]
fn values_that_the_remote_normalised_become_its_base() {
    let mut answer = snapshot(Side::Outlook);
    answer.version = version(Side::Outlook, 2);
    answer.traits.ical_uid = Some("uid-of-the-answer".to_owned());
    answer.fields.insert("subject".to_owned(), Value::text("Written."));
    let result = WriteResult::Applied {
        record: event(1),
        version: Some(answer.version.clone()),
        snapshot: Some(Box::new(answer)),
    };
    let link = update(Side::Outlook, 1, &result).link;
    assert_eq!(link.base["subject"].outlook, Value::text("Written."));
    assert_eq!(link.base["subject"].salesforce, Value::text("written"));
    assert_eq!(link.replicas.outlook.unwrap().version, Some(version(Side::Outlook, 2)));
    assert_eq!(link.ical_uid, "uid-of-the-answer");
}

#[test]
fn a_confirmed_creation_gains_its_record() {
    let mut answer = snapshot(Side::Outlook);
    answer.record = event(5);
    let result = WriteResult::Applied { record: event(5), version: None, snapshot: Some(Box::new(answer)) };
    let mut scene = Scene::in_step();
    scene.link().replicas.outlook = None;
    let intent = scene.open(Side::Outlook, Action::Create(Home::Mailbox(mailbox(1))));
    let link = settle(scene.link().clone(), &intent, &result, &scene.rules, now()).link;
    let replica = link.replicas.outlook.unwrap();
    assert_eq!((replica.record, replica.organizer), (event(5), true));
    assert_eq!(replica.stamped, Some(intent.stamp));
}

#[test]
fn a_confirmed_deletion_leaves_a_tombstone() {
    for side in Side::BOTH {
        let result = WriteResult::Applied { record: record(side), version: None, snapshot: None };
        let settled = settled(side, Action::Delete(record(side)), 1, &result);
        assert!(
            matches!(settled.link.state, LinkState::Tombstone { reason: Reason::OutlookChanged, at } if at == now())
        );
    }
}

#[test]
fn two_writes_of_one_plan_settle_one_after_the_other() {
    let mut scene = Scene::in_step();
    let outlook = scene.open(Side::Outlook, Action::Update(event(1)));
    let salesforce = scene.open(Side::Salesforce, Action::Update(record(Side::Salesforce)));
    let applied = |side| WriteResult::Applied { record: record(side), version: None, snapshot: None };
    let before = scene.link().in_step_at;
    let first = settle(scene.link().clone(), &outlook, &applied(Side::Outlook), &scene.rules, now());
    assert_eq!(first.link.in_step_at, before, "the other write is still open");
    let second = settle(first.link, &salesforce, &applied(Side::Salesforce), &scene.rules, now());
    assert_eq!(second.link.in_step_at, Some(now()));
    assert!(second.link.intents.outlook.is_none() && second.link.intents.salesforce.is_none());
}

#[test]
fn an_approval_ends_with_the_write_that_it_was_for() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        let intent = scene.open(side, Action::Update(record(side)));
        scene.link().care.approved = Some(Approval { reason: Reason::MailNeedsPerson, wish: Wish::Mail });
        let answer = WriteResult::Applied { record: record(side), version: None, snapshot: None };
        let settled = settle(scene.link().clone(), &intent, &answer, &scene.rules, now());
        assert_eq!(settled.link.care.approved.is_some(), side == Side::Salesforce, "only what Outlook gets is held");
    }
}
