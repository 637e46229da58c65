//! Laws of the default mapping, of random mappings and of the merge: a value that went across and back is recognised, whole
//! days stay whole days in every zone, and the merge follows its table in every case there is.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use calbridge_core::link::BaseField;
use calbridge_core::mapping::{Conflict, Direction, FieldSpec, Law, Mapping, MappingSpec};
use calbridge_core::plan::Outcome;
use calbridge_core::side::Side;
use calbridge_core::value::{Value, When};
use chrono::{DateTime, NaiveDate, TimeDelta, TimeZone as _, Utc};
use chrono_tz::TZ_VARIANTS;
use proptest::prelude::*;

use crate::laws::{fits, texts, values};
use crate::scene::{Scene, mapping, text_rule};

/// The mapping that everybody has who configures none.
fn default_mapping() -> &'static Mapping {
    static MAPPING: LazyLock<Mapping> = LazyLock::new(|| {
        let file = include_str!("../../../../mappings/default.yaml");
        let spec = MappingSpec::parse("default.yaml", file).expect("the file is sound");
        Mapping::compile(&spec).expect("the rules are sound")
    });
    &MAPPING
}

/// A rule between texts, cut at any length.
fn text_rules() -> impl Strategy<Value = FieldSpec> {
    (proptest::option::of(1_usize..300)).prop_map(|max_length| {
        let mut rule = text_rule("text", "body.text", "Note__c");
        rule.max_length = max_length;
        rule
    })
}

/// A rule between choices: several of Outlook's may become one of Salesforce's, and each of these goes back to one.
fn choice_rules() -> impl Strategy<Value = FieldSpec> {
    let outlook = ["unknown", "free", "tentative", "busy", "oof", "workingElsewhere"];
    let salesforce = ["Busy", "OutOfOffice", "Free"];
    prop::collection::vec(0_usize..3, 6).prop_map(move |becomes| {
        let mut rule = text_rule("choice", "showAs", "ShowAs");
        for (from, to) in outlook.iter().zip(&becomes) {
            rule.to_salesforce.insert((*from).to_owned(), salesforce[*to].to_owned());
            rule.to_outlook.entry(salesforce[*to].to_owned()).or_insert_with(|| (*from).to_owned());
        }
        rule
    })
}

fn random_mappings() -> impl Strategy<Value = Mapping> {
    (text_rules(), choice_rules())
        .prop_map(|(text, choice)| mapping(vec![text, choice, text_rule("time", "time", "time")]))
}

/// Values of either side that one of the choices may hold.
fn choices() -> impl Strategy<Value = Value> {
    let all = ["unknown", "free", "tentative", "busy", "oof", "workingElsewhere", "Busy", "OutOfOffice", "Free"];
    prop::sample::select(all.to_vec()).prop_map(Value::text)
}

fn keeps_the_law(mapping: &Mapping, value: &Value) -> Result<(), TestCaseError> {
    for rule in mapping.rules() {
        prop_assert!(Law::holds(rule, Side::Outlook, value), "{} from outlook", rule.name);
        if fits(rule, value) {
            prop_assert!(Law::holds(rule, Side::Salesforce, value), "{} from salesforce", rule.name);
        }
        for side in Side::BOTH {
            let once = rule.canonical(side, value.clone());
            prop_assert_eq!(rule.canonical(side, once.clone()), once, "{} on {}", &rule.name, side);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_default_mapping_recognises_what_went_across_and_back(value in prop_oneof![values(), choices()]) {
        keeps_the_law(default_mapping(), &value)?;
    }

    #[test]
    fn any_mapping_recognises_what_went_across_and_back(
        mapping in random_mappings(),
        value in prop_oneof![values(), choices()],
    ) {
        keeps_the_law(&mapping, &value)?;
    }

    #[test]
    fn a_cut_text_is_never_taken_for_an_edit(mapping in random_mappings(), text in texts()) {
        let rule = &mapping.rules()[0];
        let ours = rule.canonical(Side::Outlook, Value::text(text));
        let theirs = rule.canonical(Side::Salesforce, rule.convert(Side::Salesforce, &ours, &Value::Null));
        prop_assert!(rule.agree(&ours, &theirs), "{ours:?} and {theirs:?}");
    }

    #[test]
    fn line_ends_and_blanks_that_remotes_add_are_no_edit(lines in prop::collection::vec("[a-zäß漢🙂 ]{0,12}", 0..6)) {
        let text = lines.join("\n");
        let remade = [lines.join("\r\n"), lines.join("\r"), lines.join(" \n"), format!("{text}\r\n"), format!("  {text} ")];
        for rule in default_mapping().rules().iter().filter(|rule| rule.name == "subject" || rule.name == "body") {
            for side in Side::BOTH {
                let kept = rule.canonical(side, Value::text(text.clone()));
                for other in &remade {
                    prop_assert_eq!(rule.canonical(side, Value::text(other.clone())), kept.clone());
                }
            }
        }
    }
}

proptest! {
    // Each case goes through all zones.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_meeting_at_any_local_time_keeps_its_instants_and_its_zone_in_every_zone(day in 0_i32..30_000, minute in 0_u32..1_440) {
        let mapping = default_mapping();
        let rule = mapping.rules().iter().find(|rule| rule.name == "time").unwrap();
        let day = NaiveDate::from_epoch_days(day).unwrap();
        let local = day.and_hms_opt(minute / 60, minute % 60, 0).unwrap();
        for zone in TZ_VARIANTS {
            // Where a clock goes back there are two such instants, and where it goes forward none.
            let Some(start) = zone.from_local_datetime(&local).earliest() else { continue };
            let start: DateTime<Utc> = start.to_utc();
            let ours = Value::When(When::Timed { start, end: start + TimeDelta::minutes(45), zone: Some(zone) });
            let ours = rule.canonical(Side::Outlook, ours);
            let theirs = rule.canonical(Side::Salesforce, rule.convert(Side::Salesforce, &ours, &Value::Null));
            prop_assert_eq!(rule.convert(Side::Outlook, &theirs, &ours), ours, "{}", zone);
        }
    }
}

#[test]
fn whole_days_stay_whole_days_whatever_zone_the_other_side_last_showed() {
    let mapping = default_mapping();
    let rule = mapping.rules().iter().find(|rule| rule.name == "time").unwrap();
    // Days on which clocks change in many zones, the day that Samoa left out, a leap day and the turn of a year.
    let days = ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2011-12-30", "2028-02-29", "2026-12-31"];
    for zone in TZ_VARIANTS {
        for first in days {
            let first: NaiveDate = first.parse().unwrap();
            let given = Value::When(When::AllDay { first, last: first + TimeDelta::days(1) });
            let noon = first.and_hms_opt(12, 0, 0).unwrap().and_utc();
            let present = Value::When(When::Timed { start: noon, end: noon + TimeDelta::hours(1), zone: Some(zone) });
            for side in Side::BOTH {
                let canonical = rule.canonical(side.other(), given.clone());
                assert_eq!(rule.canonical(side, rule.convert(side, &canonical, &present)), given, "{zone} to {side}");
            }
        }
    }
}

/// What the merge table says, written down once more and without looking at the planner.
///
/// Returns what is written to which side, or nothing and whether a person is asked.
fn table(
    (base, outlook, salesforce): (&Value, &Value, &Value),
    (conflict, direction, lead_s): (Conflict, Direction, i64),
) -> (Option<(Side, Value)>, bool) {
    let to_salesforce = (direction != Direction::ToOutlook).then(|| (Side::Salesforce, outlook.clone()));
    let to_outlook = (direction != Direction::ToSalesforce).then(|| (Side::Outlook, salesforce.clone()));
    match (outlook != base, salesforce != base) {
        (false, false) => (None, false),
        (true, false) => (to_salesforce, false),
        (false, true) => (to_outlook, false),
        (true, true) if outlook == salesforce => (None, false),
        (true, true) => match (direction, conflict) {
            (Direction::Both, Conflict::Manual) => (None, true),
            (Direction::ToOutlook, _) | (Direction::Both, Conflict::SalesforceWins) => (to_outlook, false),
            (Direction::Both, Conflict::Latest) if lead_s >= 5 => (to_outlook, false),
            _ => (to_salesforce, false),
        },
    }
}

#[test]
fn the_merge_follows_its_table_in_every_case() {
    let kinds = [Value::Null, Value::text("a"), Value::text("b"), Value::text("c")];
    let conflicts = [Conflict::OutlookWins, Conflict::SalesforceWins, Conflict::Latest, Conflict::Manual];
    let directions = [Direction::Both, Direction::ToSalesforce, Direction::ToOutlook];
    let mut cases = 0;
    for (conflict, direction) in conflicts.into_iter().flat_map(|c| directions.map(|direction| (c, direction))) {
        let mut rule = text_rule("location", "location.displayName", "Location");
        (rule.conflict, rule.direction) = (conflict, direction);
        let rules = mapping(vec![rule, text_rule("time", "time", "time")]);
        let hash = rules.rules()[0].hash().to_owned();
        for (base, outlook, salesforce, lead_s) in every_case(&kinds) {
            let mut scene = Scene::in_step();
            scene.rules.mapping = rules.clone();
            let known = BaseField { outlook: base.clone(), salesforce: base.clone(), rule: hash.clone() };
            scene.link().base =
                BTreeMap::from([("location".to_owned(), known), ("time".to_owned(), time_base(&scene, &rules))]);
            scene.edit(Side::Outlook, |event| {
                event.fields.insert("location.displayName".to_owned(), outlook.clone());
            });
            scene.edit(Side::Salesforce, |row| {
                row.fields.insert("Location".to_owned(), salesforce.clone());
                row.modified += TimeDelta::seconds(lead_s);
            });
            let (write, asks) = table((base, outlook, salesforce), (conflict, direction, lead_s));
            let plan = scene.plan();
            let case = format!("{base:?} {outlook:?} {salesforce:?} {conflict:?} {direction:?} {lead_s}");
            assert_eq!(plan.outcome == Outcome::DeadLetter, asks, "{case}");
            let written: Vec<(Side, Value)> = plan
                .steps
                .iter()
                .flat_map(|step| step.fields.values().map(|value| (step.side, value.clone())))
                .collect();
            assert_eq!(written, write.clone().into_iter().collect::<Vec<_>>(), "{case}");
            // Whatever is written over was kept before: in the intent, and in what is journaled.
            if let Some((side, _)) = write {
                let loser = if side == Side::Outlook { outlook } else { salesforce };
                assert_eq!(plan.steps[0].replaced.values().collect::<Vec<_>>(), [loser], "{case}");
                let kept = |decision: &calbridge_core::plan::Decision| match side {
                    Side::Outlook => decision.outlook == *loser,
                    Side::Salesforce => decision.salesforce == *loser,
                };
                assert!(plan.decisions.iter().any(kept), "{case}");
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 12 * 64 * 3);
}

/// Every base with every pair of values, and Salesforce's edit later by so many seconds.
fn every_case(kinds: &[Value]) -> impl Iterator<Item = (&Value, &Value, &Value, i64)> {
    let triples = kinds.iter().flat_map(move |base| {
        kinds.iter().flat_map(move |outlook| kinds.iter().map(move |salesforce| (base, outlook, salesforce)))
    });
    triples.flat_map(|(base, outlook, salesforce)| [0, 4, 5].map(|lead_s| (base, outlook, salesforce, lead_s)))
}

/// The base of the time, which both sides hold alike.
fn time_base(scene: &Scene, rules: &Mapping) -> BaseField {
    let mut known = scene.case.link.as_ref().unwrap().base["time"].clone();
    rules.rules()[1].hash().clone_into(&mut known.rule);
    known
}
