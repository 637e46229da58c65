//! Laws that hold for any input: of conversions, of single plans, and of a plan that was carried out.

use std::collections::BTreeMap;

use calbridge_core::link::{Action, LinkState};
use calbridge_core::mapping::{Conflict, Direction, Initial, Kind, Law, Mapping, Rule};
use calbridge_core::observed::{Evidence, Observed, Snapshot};
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::value::{Value, When};
use calbridge_core::written::WriteResult;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::option;
use proptest::prelude::*;

use crate::scene::{Scene, event, mapping, record, row, snapshot, text_rule, version};

/// Texts as people and remotes make them: any characters, any line ends, blanks anywhere, longer than a field holds.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ab\u{a0}\u{2028}\t \r\n]{0,40}",
        "([a-zäß漢🙂] ?){0,30}[ \r\n]{0,3}",
        ("[xy é🙂\n]{200,300}"),
    ]
}

fn zones() -> impl Strategy<Value = Option<Tz>> {
    option::of((0..TZ_VARIANTS.len()).prop_map(|index| TZ_VARIANTS[index]))
}

fn instants() -> impl Strategy<Value = DateTime<Utc>> {
    (0_i64..4_000_000_000_000).prop_map(|millis| DateTime::from_timestamp_millis(millis).unwrap())
}

fn days() -> impl Strategy<Value = NaiveDate> {
    (-100_000_i32..100_000).prop_map(|day| NaiveDate::from_epoch_days(day).unwrap())
}

fn whens() -> impl Strategy<Value = When> {
    prop_oneof![
        (instants(), instants(), zones()).prop_map(|(start, end, zone)| When::Timed { start, end, zone }),
        (days(), days()).prop_map(|(first, last)| When::AllDay { first, last }),
    ]
}

pub(crate) fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Flag),
        any::<i64>().prop_map(Value::Number),
        texts().prop_map(Value::Text),
        prop::sample::select(vec!["busy", "oof", "free", "tentative", "unheard-of", "Busy", "OutOfOffice", "Free"])
            .prop_map(Value::text),
        whens().prop_map(Value::When),
    ]
}

/// A rule of each kind.
fn every_kind() -> Mapping {
    let mut long = text_rule("subject", "subject", "Subject");
    long.max_length = Some(255);
    let mut short = text_rule("location", "location.displayName", "Location");
    short.max_length = Some(3);
    let mut choice = text_rule("show_as", "showAs", "ShowAs");
    let table = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    };
    choice.to_salesforce = table(&[("busy", "Busy"), ("tentative", "Busy"), ("oof", "OutOfOffice"), ("free", "Free")]);
    choice.to_outlook = table(&[("Busy", "busy"), ("OutOfOffice", "oof"), ("Free", "free")]);
    mapping(vec![long, short, choice, text_rule("body", "body.text", "Description"), text_rule("time", "time", "time")])
}

fn rule_named<'a>(mapping: &'a Mapping, name: &str) -> &'a Rule {
    mapping.rules().iter().find(|rule| rule.name == name).unwrap()
}

/// Tells whether Salesforce can hold a value at all: its fields have a longest text, its events whole minutes.
pub(crate) fn fits(rule: &Rule, value: &Value) -> bool {
    match (&rule.kind, rule.canonical(Side::Salesforce, value.clone())) {
        (Kind::Text { max_length: Some(limit) }, Value::Text(text)) => text.chars().count() <= *limit,
        (Kind::Time, Value::When(When::Timed { start, end, .. })) => (end - start).num_seconds() % 60 == 0,
        _ => true,
    }
}

proptest! {
    #[test]
    fn a_value_that_went_across_and_back_is_recognised(value in values()) {
        for rule in every_kind().rules() {
            prop_assert!(Law::holds(rule, Side::Outlook, &value), "{} from outlook", rule.name);
            if fits(rule, &value) {
                prop_assert!(Law::holds(rule, Side::Salesforce, &value), "{} from salesforce", rule.name);
            }
        }
    }

    #[test]
    fn a_canonical_value_is_its_own_canonical_form(value in values()) {
        for rule in every_kind().rules() {
            for side in Side::BOTH {
                let once = rule.canonical(side, value.clone());
                prop_assert_eq!(rule.canonical(side, once.clone()), once, "{} on {}", rule.name, side);
            }
        }
    }

    /// What a write leaves must read back as what was planned, or every write would look like an edit.
    #[test]
    fn a_converted_value_agrees_with_its_source(value in values(), present in values()) {
        for rule in every_kind().rules() {
            for side in Side::BOTH {
                let source = rule.canonical(side.other(), value.clone());
                let present = rule.canonical(side, present.clone());
                let written = rule.canonical(side, rule.convert(side, &source, &present));
                let again = rule.canonical(side, rule.convert(side, &source, &written));
                prop_assert_eq!(again, written, "{} to {}", rule.name, side);
            }
        }
    }

    #[test]
    fn whole_days_never_shift(first in days(), last in days(), present in whens()) {
        let mapping = every_kind();
        let rule = rule_named(&mapping, "time");
        let given = Value::When(When::AllDay { first, last });
        for side in Side::BOTH {
            let canonical = rule.canonical(side.other(), given.clone());
            let written = rule.canonical(side, rule.convert(side, &canonical, &Value::When(present.clone())));
            prop_assert_eq!(&written, &given, "to {}", side);
        }
    }

    #[test]
    fn a_time_crosses_in_whole_minutes_and_leaves_the_zone_to_outlook(start in instants(), end in instants(), zone in zones()) {
        let mapping = every_kind();
        let rule = rule_named(&mapping, "time");
        let timed = |start, end, zone| Value::When(When::Timed { start, end, zone });
        let second = |at: DateTime<Utc>| DateTime::from_timestamp(at.timestamp(), 0).unwrap();
        let outlook = rule.canonical(Side::Outlook, timed(start, end, zone));
        let across = rule.convert(Side::Salesforce, &outlook, &Value::Null);
        let ends = second(start) + TimeDelta::minutes((second(end) - second(start)).num_minutes());
        prop_assert_eq!(&across, &timed(second(start), ends, None));
        prop_assert_eq!(rule.convert(Side::Outlook, &across, &outlook), timed(second(start), ends, zone));
    }

    #[test]
    fn a_cut_text_is_no_longer_than_the_field_and_never_cut_inside_a_character(text in texts()) {
        let mapping = every_kind();
        for (name, limit) in [("subject", 255), ("location", 3)] {
            let rule = rule_named(&mapping, name);
            let source = rule.canonical(Side::Outlook, Value::text(text.clone()));
            let written = rule.convert(Side::Salesforce, &source, &Value::Null);
            prop_assert!(written.as_text().is_none_or(|written| written.chars().count() <= limit));
            prop_assert!(written.as_text().is_none_or(|written| source.as_text().unwrap().starts_with(written)));
        }
    }
}

/// How a side stands in a random scene.
#[derive(Debug, Clone)]
enum Standing {
    Here { subject: String, place: String, time: When, later_s: i64, private: bool, attendees: u32 },
    Gone(Evidence),
}

fn standings() -> impl Strategy<Value = Standing> {
    let few = prop::sample::select(vec!["", "lunch", "dinner", "supper \r\n", "a lunch that is far too long"]);
    let times = prop_oneof![
        3 => Just(snapshot(Side::Outlook).fields["time"].as_when().unwrap().clone()),
        1 => whens(),
    ];
    prop_oneof![
        9 => (few.clone(), few, times, 0_i64..20, 0_u32..12).prop_map(|(subject, place, time, later_s, rare)| {
            Standing::Here {
                subject: subject.to_owned(),
                place: place.to_owned(),
                time,
                later_s,
                private: rare == 11,
                attendees: u32::from(rare == 10),
            }
        }),
        1 => prop::sample::select(vec![Evidence::Deleted, Evidence::NotFound]).prop_map(Standing::Gone),
    ]
}

prop_compose! {
    fn scenes()(
        outlook in standings(),
        salesforce in standings(),
        linked in prop::bool::weighted(0.9),
        conflict in prop::sample::select(vec![Conflict::OutlookWins, Conflict::SalesforceWins, Conflict::Latest, Conflict::Manual]),
        direction in prop::sample::select(vec![Direction::Both, Direction::Both, Direction::ToSalesforce, Direction::ToOutlook]),
        initial in prop::sample::select(vec![Initial::Outlook, Initial::Salesforce, Initial::FillEmpty, Initial::Ask]),
        known in any::<[bool; 3]>(),
        signalled in any::<[bool; 4]>(),
    ) -> Scene {
        let mut scene = Scene::in_step();
        let mut place = text_rule("location", "location.displayName", "Location");
        place.max_length = Some(10);
        (place.conflict, place.direction, place.initial) = (conflict, direction, initial);
        let rules = vec![text_rule("subject", "subject", "Subject"), place, text_rule("time", "time", "time")];
        scene.rules.mapping = mapping(rules);
        for (rule, known) in ["subject", "location", "time"].into_iter().zip(known) {
            if !known {
                scene.link().base.remove(rule);
            }
        }
        for (index, (side, standing)) in [(Side::Outlook, outlook), (Side::Salesforce, salesforce)].into_iter().enumerate() {
            match standing {
                Standing::Gone(evidence) => scene.absent(side, evidence),
                Standing::Here { subject, place, time, later_s, private, attendees } => scene.edit(side, |snapshot| {
                    let names = match side {
                        Side::Outlook => ["subject", "location.displayName"],
                        Side::Salesforce => ["Subject", "Location"],
                    };
                    snapshot.fields = [
                        (names[0].to_owned(), Value::text(subject)),
                        (names[1].to_owned(), Value::text(place)),
                        ("time".to_owned(), Value::When(time)),
                    ].into();
                    snapshot.modified += TimeDelta::seconds(later_s);
                    snapshot.traits.private = private;
                    snapshot.traits.attendees = attendees;
                }),
            }
            if signalled[2 * index] {
                scene.signal(record(side), signalled[2 * index + 1], vec![version(side, 2)]);
            }
        }
        if !linked {
            scene.case.link = None;
            scene.case.reads.remove(&row());
        }
        scene
    }
}

/// The remotes: applies a step to what reads will show, and answers.
fn apply(scene: &mut Scene, step: &calbridge_core::link::Intent, number: i64) -> WriteResult {
    let side = step.side;
    let target = step.action.record().cloned().unwrap_or_else(|| record(side));
    if let Action::Delete(_) = step.action {
        scene.read(target.clone(), Observed::Absent(Evidence::Deleted));
        return WriteResult::Applied { record: target, version: None, snapshot: None };
    }
    let mut after = match scene.case.reads.get(&target) {
        Some(Observed::Present(present)) => present.as_ref().clone(),
        _ => Snapshot { fields: BTreeMap::new(), ..snapshot(side) },
    };
    for (name, value) in &step.fields {
        // A remote adds and drops blanks at the end of texts.
        let kept = value.as_text().map_or_else(|| value.clone(), |text| Value::text(format!("{text}\r\n")));
        after.fields.insert(name.clone(), kept);
    }
    after.version = version(side, number);
    after.modified = scene.now + TimeDelta::milliseconds(number);
    after.stamp = Some(step.stamp.clone());
    scene.put(after.clone());
    match side {
        Side::Outlook => WriteResult::Applied {
            record: target,
            version: Some(after.version.clone()),
            snapshot: Some(Box::new(after)),
        },
        Side::Salesforce => WriteResult::Applied { record: target, version: None, snapshot: None },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_same_case_gives_the_same_plan(scene in scenes()) {
        prop_assert_eq!(scene.plan(), scene.plan());
    }

    #[test]
    fn a_plan_has_at_most_one_step_a_side_and_each_is_recorded_before_it_is_sent(scene in scenes()) {
        let plan = scene.plan();
        prop_assert!(plan.steps.len() <= 1 || (plan.steps.len() == 2 && plan.steps[0].side != plan.steps[1].side));
        for step in &plan.steps {
            prop_assert_eq!(plan.next.as_ref().unwrap().intents.get(step.side).as_ref(), Some(step));
        }
    }

    #[test]
    fn only_fields_that_differ_are_written_and_what_they_replace_is_kept(scene in scenes()) {
        for step in scene.plan().steps {
            let Action::Update(target) = &step.action else { continue };
            let Some(Observed::Present(present)) = scene.case.reads.get(target) else { panic!("written unseen") };
            prop_assert!(!step.fields.is_empty());
            for rule in scene.rules.mapping.rules() {
                let Some(value) = step.fields.get(rule.field(step.side)) else { continue };
                let now = rule.read(step.side, &present.fields);
                prop_assert_ne!(value, &now);
                prop_assert_eq!(step.replaced.get(rule.field(step.side)), Some(&now));
                prop_assert!(rule.flows_to(step.side), "{} flows the other way", rule.name);
            }
            prop_assert!(step.side == Side::Salesforce || present.traits.attendees == 0, "no meeting with attendees");
        }
    }

    #[test]
    fn values_of_a_private_meeting_appear_in_no_step(scene in scenes()) {
        let private = scene.case.reads.values().any(|read| matches!(read, Observed::Present(s) if s.traits.private));
        for step in scene.plan().steps.iter().filter(|_| private) {
            prop_assert!(matches!(step.action, Action::Delete(_)) && step.fields.is_empty() && step.replaced.is_empty());
        }
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(scene in scenes()) {
        let mut scene = scene;
        let plan = scene.plan();
        scene.case.link.clone_from(&plan.next);
        for (number, step) in (3..).zip(&plan.steps) {
            let result = apply(&mut scene, step, number);
            let link = scene.case.link.take().unwrap();
            scene.case.link = Some(settle(link, step, &result, &scene.rules, scene.now).link);
        }
        if plan.next.is_none() {
            prop_assert!(plan.steps.is_empty());
            return Ok(());
        }
        scene.case.notices.clear();
        scene.now += TimeDelta::minutes(2);
        let mut again = scene.plan();
        if scene.case.reads.values().any(|read| *read == Observed::Absent(Evidence::NotFound)) && plan.steps.is_empty() {
            // The second look proves the absence, and only now the other side follows.
            scene.case.link = again.next;
            for step in &again.steps {
                let result = apply(&mut scene, step, 9);
                let link = scene.case.link.take().unwrap();
                scene.case.link = Some(settle(link, step, &result, &scene.rules, scene.now).link);
            }
            again = scene.plan();
        }
        prop_assert!(again.steps.is_empty(), "{:?} after {:?}", again.steps, plan.steps);
        let next = again.next.unwrap();
        prop_assert!(next.intents.outlook.is_none() && next.intents.salesforce.is_none());
        if next.state == LinkState::Live {
            for rule in scene.rules.mapping.rules().iter().filter(|rule| rule.name == "subject") {
                let [Some(Observed::Present(o)), Some(Observed::Present(s))] =
                    [scene.case.reads.get(&event(1)), scene.case.reads.get(&row())] else { continue };
                let (o_value, s_value) = (rule.read(Side::Outlook, &o.fields), rule.read(Side::Salesforce, &s.fields));
                prop_assert!(o_value == s_value || o.traits.attendees > 0 || is_unordered(o) || is_unordered(s));
            }
        }
    }
}

fn is_unordered(snapshot: &Snapshot) -> bool {
    !snapshot.fields["time"].as_when().is_some_and(When::is_ordered)
}
