//! Records without a link: who takes part, what is created, and what is left alone.

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::link::{Action, Home, LinkState};
use calbridge_core::mapping::Direction;
use calbridge_core::observed::{Evidence, Observed, RecordKind, Snapshot, Stamp};
use calbridge_core::plan::Outcome;
use calbridge_core::policy::{FirstContact, Mode};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use chrono::TimeDelta;

use crate::scene::{Scene, USER, event, link_id, mailbox, mapping, record, snapshot, text_rule, timed, token, why};

#[test]
fn a_new_meeting_is_created_on_the_other_side() {
    for side in Side::BOTH {
        let scene = Scene::unlinked(side);
        let plan = scene.plan();
        let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
        let home = match side {
            Side::Outlook => Home::Owner(USER.to_owned()),
            Side::Salesforce => Home::Mailbox(mailbox(1)),
        };
        assert_eq!((step.side, &step.action), (side.other(), &Action::Create(home)));
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Write, Reason::Created));
        assert_eq!(step.fields, snapshot(side.other()).fields);
        assert_eq!(
            step.stamp,
            Stamp {
                link: link_id(),
                partner: record(side).remote_id().to_owned(),
                token: Some(scene.fresh.token(side.other())),
            }
        );
        let link = plan.next.as_ref().unwrap();
        assert_eq!((link.id, &link.state), (scene.fresh.link, &LinkState::Live));
        assert_eq!(link.replicas.get(side).as_ref().unwrap().record, record(side));
        assert!(link.replicas.get(side.other()).is_none() && link.base.is_empty());
        assert_eq!(link.intents.get(side.other()).as_ref(), Some(step));
    }
}

/// What keeps a record out, whatever its side; then what does so on one side only.
#[test]
fn each_reason_to_leave_a_record_alone_is_told() {
    type Spoil = fn(&mut Snapshot);
    let both = [Side::Outlook, Side::Salesforce].as_slice();
    let salesforce = [Side::Salesforce].as_slice();
    let rows: [(&[Side], Reason, Spoil); 11] = [
        (both, Reason::ChildEvent, |s| s.traits.kind = RecordKind::Child),
        (both, Reason::SeriesNotMapped, |s| s.traits.kind = RecordKind::SeriesMaster),
        (both, Reason::SeriesNotMapped, |s| s.traits.kind = RecordKind::Occurrence),
        (both, Reason::SeriesNotMapped, |s| s.traits.kind = RecordKind::Exception),
        (both, Reason::Private, |s| s.traits.private = true),
        (both, Reason::Draft, |s| s.traits.draft = true),
        (both, Reason::Cancelled, |s| s.traits.cancelled = true),
        (both, Reason::TimeNotMappable, |s| {
            s.fields.remove("time");
        }),
        (both, Reason::TimeNotMappable, |s| {
            s.fields.insert("time".to_owned(), timed("2026-12-01T11:00:00Z", "2026-12-01T10:00:00Z"));
        }),
        (both, Reason::TimeNotMappable, |s| {
            s.fields.insert("time".to_owned(), timed("2026-12-01T10:00:00Z", "2026-12-15T10:01:00Z"));
        }),
        (salesforce, Reason::NotEnrolled, |s| s.traits.owner = None),
    ];
    for (sides, reason, spoil) in rows {
        for side in sides {
            let mut scene = Scene::unlinked(*side);
            scene.edit(*side, spoil);
            scene.signal(record(*side), false, Vec::new());
            let plan = scene.plan();
            assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Skip, reason), "{side}");
            assert!(plan.steps.is_empty() && plan.next.is_none(), "{side} {reason}");
            assert_eq!(plan.covered, [record(*side)], "{side} {reason}: final until it changes");
        }
    }
}

#[test]
fn a_mailbox_that_is_not_enrolled_is_left_alone() {
    let mut scene = Scene::unlinked(Side::Outlook);
    scene.case.enrolments.clear();
    assert_eq!(scene.plan().reasons, [Reason::NotEnrolled]);
}

#[test]
fn a_meeting_with_attendees_crosses_from_outlook_only() {
    let mut scene = Scene::unlinked(Side::Outlook);
    scene.edit(Side::Outlook, |snapshot| snapshot.traits.attendees = 5);
    assert_eq!(scene.plan().steps[0].side, Side::Salesforce);
}

/// `first_contact`, the side of the old record, and what comes of it.
#[test]
fn records_older_than_their_enrolment_follow_first_contact() {
    let rows = [
        (FirstContact::NewOnly, Side::Outlook, false),
        (FirstContact::NewOnly, Side::Salesforce, false),
        (FirstContact::Outlook, Side::Outlook, true),
        (FirstContact::Outlook, Side::Salesforce, false),
        (FirstContact::Salesforce, Side::Outlook, false),
        (FirstContact::Salesforce, Side::Salesforce, true),
    ];
    for (first_contact, side, crosses) in rows {
        let mut scene = Scene::unlinked(side);
        scene.rules.policy.first_contact = first_contact;
        scene.edit(side, |snapshot| snapshot.created -= TimeDelta::days(30));
        let what = format!("{first_contact:?} {side}");
        if !crosses {
            let plan = scene.plan();
            assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Skip, Reason::BeforeEnrolment), "{what}");
            continue;
        }
        let lookups = scene.needs();
        let [lookup @ Lookup::Candidates { side: searched, .. }] = lookups.as_slice() else { panic!("{lookups:?}") };
        assert_eq!(*searched, side.other(), "{what}");

        let mut alone = scene.clone();
        let gone = vec![(record(side.other()), Observed::Absent(Evidence::Deleted))];
        alone.answer(lookup.clone(), Answer::Found(gone));
        assert_eq!(alone.plan().outcome, Outcome::Write, "{what}");

        let mut unsure = scene.clone();
        unsure.answer(lookup.clone(), Answer::Failed(why("CB1350")));
        assert_eq!(unsure.plan().outcome, Outcome::Wait, "{what}");

        let candidate = vec![(record(side.other()), Observed::Present(Box::new(snapshot(side.other()))))];
        scene.answer(lookup.clone(), Answer::Found(candidate));
        let plan = scene.plan();
        assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::NeedsAdopt), "{what}");
        assert!(plan.steps.is_empty() && plan.next.is_none());
    }
}

#[test]
fn nothing_is_created_in_salesforce_without_stamp_fields() {
    let mut scene = Scene::unlinked(Side::Outlook);
    scene.rules.policy.salesforce_stampable = false;
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::MissingStampField));
    assert!(plan.steps.is_empty() && plan.next.is_none());
}

#[test]
fn observing_creates_nothing_and_keeps_no_link() {
    let mut scene = Scene::unlinked(Side::Outlook);
    scene.rules.policy.mode = Mode::Observe;
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Skip, Reason::ObserveMode));
    assert!(plan.steps.is_empty() && plan.next.is_none() && !plan.decisions.is_empty());
}

#[test]
fn the_organisers_copy_speaks_for_a_new_meeting() {
    let mut scene = Scene::unlinked(Side::Outlook);
    scene.edit(Side::Outlook, |snapshot| snapshot.traits.is_organizer = false);
    let mut organizer = snapshot(Side::Outlook);
    organizer.record = event(2);
    scene
        .case
        .enrolments
        .push(calbridge_core::case::Enrolment { mailbox: mailbox(2), ..scene.case.enrolments[0].clone() });
    scene.put(organizer);
    let link = scene.plan().next.unwrap();
    assert_eq!(link.replicas.outlook.unwrap().record, event(2));
    assert_eq!(link.copies, [event(1)].into());
}

#[test]
fn a_one_way_field_crosses_back_only_when_creating_and_only_if_told() {
    for (on_create, crosses) in [(false, false), (true, true)] {
        let mut rule = text_rule("subject", "subject", "Subject");
        rule.direction = Direction::ToSalesforce;
        rule.on_create = on_create;
        let mut scene = Scene::unlinked(Side::Salesforce);
        scene.rules.mapping = mapping(vec![rule, text_rule("time", "time", "time")]);
        let plan = scene.plan();
        assert_eq!(plan.steps[0].fields.contains_key("subject"), crosses);
        let decision = plan.decisions.iter().find(|decision| decision.rule == "subject").unwrap();
        assert_eq!(decision.reason, if crosses { Reason::Created } else { Reason::OneWayField });
        assert_eq!(plan.steps[0].agreed["subject"].salesforce, Value::text("lunch"), "the base knows what is there");
    }
}

#[test]
fn a_stamp_of_an_unknown_link_is_never_created_a_second_time() {
    for side in Side::BOTH {
        let partner = record(side.other());
        for named in [false, true] {
            let mut scene = Scene::unlinked(side);
            let partner_id = if named { partner.remote_id().to_owned() } else { String::new() };
            scene.edit(side, |snapshot| {
                snapshot.stamp = Some(Stamp { link: link_id(), partner: partner_id.clone(), token: Some(token(3)) });
            });
            if named {
                assert_eq!(scene.needs(), [Lookup::Read(partner.clone())], "{side}");
                scene.absent(side.other(), Evidence::Deleted);
            }
            let plan = scene.plan();
            assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Hold, Reason::StampUnknown), "{side}");
            assert!(plan.steps.is_empty());
        }
    }
}

#[test]
fn a_lost_link_is_rebuilt_from_the_stamp_of_a_pair_that_agrees() {
    for side in Side::BOTH {
        let partner = record(side.other());
        let mut scene = Scene::unlinked(side);
        scene.edit(side, |snapshot| {
            let partner = partner.remote_id().to_owned();
            snapshot.stamp = Some(Stamp { link: link_id(), partner, token: Some(token(3)) });
        });
        let read = Observed::Present(Box::new(snapshot(side.other())));
        scene.answer(Lookup::Read(partner.clone()), Answer::Found(vec![(partner, read)]));
        let plan = scene.plan();
        assert!(plan.steps.is_empty(), "{side}: nothing is written");
        let link = plan.next.unwrap();
        assert_eq!((link.id, link.base.len()), (link_id(), 2), "{side}");
    }
}

#[test]
fn a_stamped_record_is_asked_before_an_unstamped_one_that_lies_beside_it() {
    let mut scene = Scene::unlinked(Side::Outlook);
    let mut row = snapshot(Side::Salesforce);
    let partner = record(Side::Outlook).remote_id().to_owned();
    row.stamp = Some(Stamp { link: link_id(), partner, token: Some(token(3)) });
    scene.put(row);
    let plan = scene.plan();
    assert!(plan.steps.is_empty(), "the event is not created a second time");
    assert_eq!(plan.next.unwrap().id, link_id());
}

#[test]
fn a_record_that_may_have_been_made_before_its_enrolment_is_left_alone() {
    let mut scene = Scene::unlinked(Side::Salesforce);
    scene.case.enrolments[0].enrolled_at = "2026-11-20T10:00:00.600Z".parse().unwrap();
    scene.edit(Side::Salesforce, |row| row.created = "2026-11-20T10:00:00Z".parse().unwrap());
    assert_eq!(scene.plan().reasons[0], Reason::BeforeEnrolment);
    scene.edit(Side::Salesforce, |row| row.created = "2026-11-20T10:00:01Z".parse().unwrap());
    assert_eq!(scene.plan().outcome, Outcome::Write);
}
