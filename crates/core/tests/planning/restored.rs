//! A database restored from a backup: what it forgot is in the records, and nothing is written twice for it.

use calbridge_core::case::{Instruction, Lookup};
use calbridge_core::link::{Action, Home, LinkState};
use calbridge_core::mapping::Direction;
use calbridge_core::observed::{Evidence, Observed, Snapshot, Stamp};
use calbridge_core::plan::{Outcome, Planned, plan};
use calbridge_core::policy::FirstContact;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use chrono::TimeDelta;

use crate::scene::{Scene, link_id, mailbox, mapping, now, record, snapshot, text_rule, token, why};

/// Lets the database of a scene be restored a minute ago: later than everything that the scene knows.
fn restored(mut scene: Scene) -> Scene {
    scene.rules.policy.restored_at = Some(now() - TimeDelta::minutes(1));
    scene
}

fn stamp(partner: Side, number: u128) -> Stamp {
    Stamp { link: link_id(), partner: record(partner).remote_id().to_owned(), token: Some(token(number)) }
}

/// The other side's record with a stamp that names this one.
fn stamped_partner(side: Side) -> Snapshot {
    let mut partner = snapshot(side.other());
    partner.stamp = Some(stamp(side, 3));
    partner
}

fn found(snapshot: Snapshot) -> Vec<(calbridge_core::ids::RecordId, Observed)> {
    vec![(snapshot.record.clone(), Observed::Present(Box::new(snapshot)))]
}

#[test]
fn a_record_that_may_have_crossed_after_the_backup_is_looked_for_on_the_other_side_first() {
    for side in Side::BOTH {
        let mut scene = restored(Scene::unlinked(side));
        let Planned::Need(needs) = plan(&scene.case, &scene.rules, scene.now, &scene.fresh) else {
            panic!("{side}: it is created at once");
        };
        let searched = (side == Side::Salesforce).then(|| mailbox(1));
        assert_eq!(needs, [Lookup::Partners { side: side.other(), of: record(side), mailbox: searched }]);

        assert_eq!(scene.plan().steps.len(), 1, "{side}: nobody has it, so it is new");

        scene.partners = found(stamped_partner(side));
        let plan = scene.plan();
        assert!(plan.steps.is_empty() && plan.outcome == Outcome::InStep, "{side}: {plan:?}");
        let link = plan.next.unwrap();
        assert_eq!((link.id, link.base.len(), &link.state), (link_id(), 2, &LinkState::Live));
        let written = link.replicas.get(side.other()).as_ref().unwrap();
        assert_eq!(written.stamped, Some(stamp(side, 3)), "{side}: the next look finds nothing unknown");
        assert_eq!(link.replicas.get(side).as_ref().unwrap().record, record(side));
    }
}

#[test]
fn what_is_newer_than_the_restore_is_created_without_a_search() {
    let mut scene = restored(Scene::unlinked(Side::Outlook));
    scene.rules.policy.restored_at = Some(now() - TimeDelta::hours(4));
    assert!(matches!(plan(&scene.case, &scene.rules, scene.now, &scene.fresh), Planned::Plan(_)));
    scene.rules.policy.restored_at = Some(now() - TimeDelta::hours(3) - TimeDelta::minutes(4));
    let asks = matches!(plan(&scene.case, &scene.rules, scene.now, &scene.fresh), Planned::Need(_));
    assert!(asks, "clocks of the remotes may differ by minutes");
}

#[test]
fn a_pair_made_after_the_backup_that_differs_waits_for_a_person() {
    for side in Side::BOTH {
        let mut scene = restored(Scene::unlinked(side));
        scene.partners = found(stamped_partner(side));
        scene.set_subject(side, "moved on");
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown), "{side}");
        let link = plan.next.unwrap();
        assert!(plan.steps.is_empty() && !link.base.contains_key("subject") && link.base.contains_key("time"));
        assert!(matches!(link.state, LinkState::Held { reason: Reason::StampUnknown, .. }));
    }
}

#[test]
fn a_record_whose_partner_was_deleted_since_the_backup_is_not_created_again() {
    let mut scene = restored(Scene::unlinked(Side::Outlook));
    scene.partners = vec![(record(Side::Salesforce), Observed::Absent(Evidence::Deleted))];
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown));
    assert!(plan.steps.is_empty() && plan.next.is_none());
    scene.case.instruction = Some(Instruction::Approve);
    assert_eq!(scene.plan().steps.len(), 1, "a person wants it");
}

#[test]
fn with_a_lost_database_what_may_cross_at_first_contact_is_paired_with_what_names_it() {
    let mut scene = Scene::unlinked(Side::Outlook);
    scene.rules.policy.first_contact = FirstContact::Outlook;
    scene.edit(Side::Outlook, |event| event.created -= TimeDelta::days(30));
    scene.partners = found(stamped_partner(Side::Outlook));
    let plan = scene.plan();
    assert!(plan.steps.is_empty() && plan.outcome == Outcome::InStep, "{plan:?}");
    assert_eq!(plan.next.unwrap().id, link_id());
}

/// A linked pair of a backup, of which one side was written since.
fn written_since(side: Side) -> Scene {
    let mut scene = restored(Scene::in_step());
    scene.replica(side).stamped = Some(stamp(side.other(), 3));
    scene.edit(side, |snapshot| snapshot.stamp = Some(stamp(side.other(), 9)));
    scene
}

#[test]
fn a_token_that_the_backup_does_not_know_is_neither_stale_nor_an_edit() {
    for side in Side::BOTH {
        let mut scene = written_since(side);
        // The edit that was carried: both sides hold it, and the base of the backup holds what was before.
        scene.set_subject(side.other(), "since");
        scene.set_subject(side, "since");
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.steps.len()), (Outcome::InStep, 0), "{side}: {:?}", plan.reasons);
        let link = plan.next.unwrap();
        assert_eq!(link.base["subject"].outlook, Value::text("since"), "{side}");
        assert_eq!(link.replicas.get(side).as_ref().unwrap().stamped, Some(stamp(side.other(), 9)), "{side}");
        assert_eq!(link.in_step_at, Some(now()), "{side}: from now on it is known");

        scene.rules.policy.restored_at = None;
        assert_eq!(scene.plan().reasons[0], Reason::StaleRead, "{side}: in any other database it would be stale");
    }
}

#[test]
fn a_pair_written_since_the_backup_that_differs_waits_for_a_person_and_follows_what_the_person_says() {
    for side in Side::BOTH {
        // Back to what the backup takes for agreed: it would be taken for an edit of the other side.
        let mut scene = written_since(side);
        scene.set_subject(side, "since");
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown), "{side}");
        assert!(plan.steps.is_empty());

        scene.case.link = plan.next;
        assert_eq!(scene.plan().outcome, Outcome::Hold, "{side}: until somebody answers");
        for kept in Side::BOTH {
            scene.case.instruction = Some(Instruction::Keep(kept));
            let plan = scene.plan();
            let [step] = plan.steps.as_slice() else { panic!("{side}, {kept} kept: {plan:?}") };
            assert_eq!(step.side, kept.other(), "{side}");
        }
        scene.case.instruction = Some(Instruction::Discard);
        let link = scene.plan().next.unwrap();
        assert!(matches!(link.state, LinkState::Tombstone { reason: Reason::Discarded, .. }));
    }
}

#[test]
fn an_edit_of_a_pair_that_was_not_written_since_crosses_as_ever() {
    let mut scene = restored(Scene::in_step());
    scene.set_subject(Side::Outlook, "new");
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.steps[0].side), (Outcome::Write, Side::Salesforce));
}

#[test]
fn a_write_that_was_settled_after_the_backup_is_never_repeated_over_what_came_later() {
    for side in Side::BOTH {
        for seen in [7, 9] {
            let mut scene = written_since(side);
            scene.open(side, Action::Update(record(side)));
            scene.link().intents.get_mut(side).as_mut().unwrap().give_up_at = now() - TimeDelta::hours(1);
            scene.set_subject(side.other(), "later");
            scene.edit(side, |snapshot| snapshot.stamp = Some(stamp(side.other(), seen)));
            scene.set_subject(side, "later");
            let plan = scene.plan();
            assert!(plan.steps.is_empty(), "{side}, token {seen}: {plan:?}");
            let link = plan.next.unwrap();
            assert!(link.intents.get(side).is_none() && link.base["subject"].salesforce == Value::text("later"));
        }
    }
}

#[test]
fn a_creation_of_the_backup_that_nobody_finds_is_not_repeated_without_a_person() {
    let mut scene = restored(Scene::in_step());
    scene.link().replicas.outlook = None;
    scene.open(Side::Outlook, Action::Create(Home::Mailbox(mailbox(1))));
    let intent = scene.link().intents.outlook.as_mut().unwrap();
    intent.give_up_at = now() - TimeDelta::seconds(1);
    intent.recorded_at = now() - TimeDelta::minutes(2);
    scene.case.reads.remove(&record(Side::Outlook));
    let search = Lookup::Stamped { side: Side::Outlook, link: link_id(), mailbox: Some(mailbox(1)) };
    scene.answer(search, calbridge_core::case::Answer::Found(Vec::new()));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown));
    assert!(plan.steps.is_empty());
    scene.case.link = plan.next;
    scene.case.instruction = Some(Instruction::Approve);
    let plan = scene.plan();
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert!(matches!(step.action, Action::Create(_)) && step.sends == 1);
    let first = scene.case.link.as_ref().unwrap().intents.outlook.as_ref().unwrap().token;
    assert_ne!(step.token, first, "Outlook answers a token that it knows with the first event, deleted or not");
    // One that was recorded after the restore is known, and repeated with the token that Outlook may remember.
    let mut since = scene.clone();
    since.link().intents.outlook.as_mut().unwrap().recorded_at = now() - TimeDelta::seconds(10);
    assert!(matches!(since.plan().steps.as_slice(), [again] if again.sends == 2 && again.token == first));
    scene.case.instruction = Some(Instruction::Discard);
    let link = scene.plan().next.unwrap();
    assert!(link.intents.outlook.is_none() && matches!(link.state, LinkState::Tombstone { .. }), "{link:?}");
}

#[test]
fn a_meeting_brought_back_after_the_backup_is_paired_with_what_was_made_for_it() {
    let mut scene = restored(Scene::in_step());
    let deleted_at = now() - TimeDelta::hours(2);
    scene.link().state = LinkState::Tombstone { reason: Reason::DeletedInSalesforce, at: deleted_at };
    scene.link().in_step_at = None;
    scene.case.reads.remove(&record(Side::Outlook));
    let mut event = snapshot(Side::Outlook);
    event.record = crate::scene::event(2);
    let anew = calbridge_core::ids::LinkId::new(uuid::Uuid::from_u128(5));
    event.stamp = Some(Stamp { link: anew, ..stamp(Side::Salesforce, 3) });
    scene.partners = found(event);
    let plan = scene.plan();
    assert!(plan.steps.is_empty(), "{plan:?}");
    let link = plan.next.unwrap();
    assert_eq!((link.id, link.generation, &link.state), (anew, 1, &LinkState::Live));

    scene.partners.clear();
    assert_eq!(scene.plan().reasons[0], Reason::Restored, "nobody made it again yet");
}

#[test]
fn a_link_of_the_backup_that_lacks_a_side_is_searched_before_it_is_made() {
    for side in Side::BOTH {
        let mut scene = restored(Scene::in_step());
        *scene.link().replicas.get_mut(side) = None;
        scene.case.reads.remove(&record(side));
        let mailbox = (side == Side::Outlook).then(|| mailbox(1));
        let search = Lookup::Stamped { side, link: link_id(), mailbox };
        assert_eq!(scene.needs(), std::slice::from_ref(&search), "{side}");

        let mut made = snapshot(side);
        made.stamp = Some(stamp(side.other(), 3));
        scene.answer(search.clone(), calbridge_core::case::Answer::Found(found(made)));
        let plan = scene.plan();
        assert!(plan.steps.is_empty() && plan.outcome == Outcome::InStep, "{side}: {plan:?}");
        assert!(plan.next.unwrap().replicas.get(side).is_some(), "{side}");
        let mut edited = scene.clone();
        edited.link().base.clear();
        edited.set_subject(side.other(), "since");
        let plan = edited.plan();
        assert_eq!((plan.outcome, plan.steps.len()), (Outcome::Hold, 0), "{side}: nobody knows which side changed");

        scene.case.lookups.clear();
        let deleted = vec![(record(side), Observed::Absent(Evidence::Deleted))];
        scene.answer(search.clone(), calbridge_core::case::Answer::Found(deleted));
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown), "{side}");
        scene.case.link = plan.next;
        scene.case.instruction = Some(Instruction::Approve);
        assert!(matches!(scene.plan().steps.as_slice(), [step] if matches!(step.action, Action::Create(_))), "{side}");

        scene.case.instruction = None;
        scene.link().state = LinkState::Live;
        scene.case.lookups.clear();
        scene.answer(search, calbridge_core::case::Answer::Found(Vec::new()));
        assert_eq!(scene.plan().steps.len(), 1, "{side}: nobody has it, so it was never made");
    }
}

#[test]
fn a_one_way_field_is_judged_by_its_base_where_the_database_is_no_backup() {
    let mut scene = Scene::in_step();
    let mut subject = text_rule("subject", "subject", "Subject");
    subject.direction = Direction::ToSalesforce;
    scene.rules.mapping = mapping(vec![subject, text_rule("time", "time", "time")]);
    let hash = scene.rules.mapping.rules()[0].hash().to_owned();
    scene.link().base.get_mut("subject").unwrap().rule = hash;
    // A request that was given up took effect late over a newer one, and left its stamp; a person edited meanwhile.
    scene.replica(Side::Outlook).stamped = Some(stamp(Side::Salesforce, 3));
    scene.edit(Side::Outlook, |event| event.stamp = Some(stamp(Side::Salesforce, 9)));
    scene.set_subject(Side::Outlook, "moved on");
    let outlook = scene.case.reads[&record(Side::Outlook)].clone();
    let Observed::Present(outlook) = outlook else { panic!("it is there") };
    scene.replica(Side::Outlook).stale = Some((outlook.version, now() - TimeDelta::hours(1)));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.steps.len()), (Outcome::Write, 1), "{:?}", plan.reasons);
    assert_eq!(plan.steps[0].side, Side::Salesforce);
}

#[test]
fn a_failed_search_creates_nothing() {
    let mut scene = restored(Scene::unlinked(Side::Outlook));
    let search = Lookup::Partners { side: Side::Salesforce, of: record(Side::Outlook), mailbox: None };
    scene.answer(search, calbridge_core::case::Answer::Failed(why("CB1350")));
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.steps.len()), (Outcome::Wait, 0));
}
