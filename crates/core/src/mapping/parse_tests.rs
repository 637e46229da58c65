//! Tests of the mapping file reader: one row per way to get a file wrong.

use proptest::prelude::*;

use super::*;
use crate::mapping::Mapping;

const GOOD: &str = include_str!("../../../../mappings/default.yaml");

fn problems(text: &str) -> Vec<String> {
    match MappingSpec::parse("m.yaml", text) {
        Ok(spec) => Mapping::compile(&spec).unwrap_err(),
        Err(problems) => problems,
    }
    .iter()
    .map(|problem| format!("{} {problem}", problem.code))
    .collect()
}

/// A file that is right, followed by one more rule.
fn with_rule(rule: &str) -> String {
    format!(
        "version: 1\nfields:\n  - {{ name: time, outlook: time, salesforce: time }}\n  - {{ name: extra, {rule} }}\n"
    )
}

#[test]
fn the_default_mapping_is_right_and_its_own_tests_pass() {
    let spec = MappingSpec::parse("mappings/default.yaml", GOOD).unwrap();
    let mapping = Mapping::compile(&spec).unwrap();
    assert_eq!(mapping.rules().len(), 5);
    assert!(spec.tests.len() >= 6);
    for outcome in mapping.run_tests(&spec.tests) {
        assert_eq!(outcome.failures, [], "{}", outcome.name);
    }
}

#[test]
fn each_wrong_rule_gives_one_problem_with_line_code_and_mend() {
    let table = [
        ("outlook: subject", "CB1105 m.yaml:4: `fields[1].salesforce` is missing; add `salesforce: Location`"),
        (
            "outlook: location.displayname, salesforce: Location",
            "CB1109 m.yaml:4: `location.displayname` is not a field of Outlook that can be mapped; did you mean `location.displayName`?",
        ),
        (
            "outlook: subject, salesforce: Subjct",
            "CB1109 m.yaml:4: `Subjct` is not a field of Salesforce that can be mapped; did you mean `Subject`?",
        ),
        (
            "outlook: subject, salesforce: StartDateTime",
            "CB1109 m.yaml:4: `StartDateTime` of Salesforce cannot be mapped: start, end, zone and all-day move as one; map `time` to `time`",
        ),
        (
            "outlook: subject, salesforce: Calbridge_Link__c",
            "CB1109 m.yaml:4: `Calbridge_Link__c` of Salesforce cannot be mapped: calbridge keeps its own mark in it; choose another field",
        ),
        (
            "outlook: subject, salesforce: Subject, direction: sideways",
            "CB1108 m.yaml:4: `fields[1].direction` is `sideways`; choose one of `both`, `to_salesforce`, `to_outlook`",
        ),
        (
            "outlook: subject, salesforce: Subject, conflict: latst",
            "CB1108 m.yaml:4: `fields[1].conflict` is `latst`; did you mean `latest`? choose one of `outlook_wins`, `salesforce_wins`, `latest`, `manual`",
        ),
        (
            "outlook: subject, salesforce: Subject, on_create: maybe",
            "CB1104 m.yaml:4: `fields[1].on_create` is a text; expected `true` or `false`",
        ),
        (
            "outlook: subject, salesforce: Subject, max_length: 256",
            "CB1116 m.yaml:4: `fields[1].max_length` is 256, but `Subject` holds 255 characters; give at most that",
        ),
        (
            "outlook: subject, salesforce: Subject, max_length: 0",
            "CB1107 m.yaml:4: `fields[1].max_length` is 0; give a whole number from 1 to 131072",
        ),
        (
            "outlook: webLink, salesforce: Link__c",
            "CB1115 m.yaml:4: `webLink` cannot be written in Outlook; add `direction: to_salesforce` and leave out `on_create`",
        ),
        (
            "outlook: subject, salesforce: Subject, colour: red",
            "CB1103 m.yaml:4: `fields[1].colour` is not a known key; expected one of `name`, `outlook`, `salesforce`, \
             `direction`, `on_create`, `conflict`, `initial`, `max_length`, `to_salesforce`, `to_outlook`",
        ),
        (
            "outlook: subject, salesforce: Subject, name: twice",
            "CB1106 m.yaml:4: `name` was already given on line 4; keep one of the two",
        ),
        (
            "outlook: showAs, salesforce: ShowAs",
            "CB1117 m.yaml:4: rule `extra` joins two lists of choices; say with `to_salesforce` and `to_outlook` which becomes which",
        ),
        (
            "outlook: time, salesforce: Subject",
            "CB1111 m.yaml:4: `time` of outlook is already mapped by rule `time`; remove one",
        ),
    ];
    for (rule, expected) in table {
        let found = problems(&with_rule(rule));
        assert_eq!(found.first().map(String::as_str), Some(expected), "{rule}: {found:#?}");
    }
}

#[test]
fn wrong_choices_are_each_named() {
    let rule = "outlook: importance, salesforce: ShowAs, to_salesforce: { low: Fre, normal: Busy, hig: Busy }, \
                to_outlook: { Free: low, Busy: normal, OutOfOffice: high }";
    let found = problems(&with_rule(rule));
    assert_eq!(
        found,
        [
            "CB1117 m.yaml:4: `fields[1].to_salesforce`: `hig` is not a choice of the field; did you mean `high`?",
            "CB1117 m.yaml:4: `fields[1].to_salesforce` lacks `high`; say what becomes of every choice",
            "CB1117 m.yaml:4: `fields[1].to_salesforce`: `Fre` is not a choice of the field; did you mean `Free`?",
        ]
    );
}

#[test]
fn all_problems_of_a_file_are_told_at_once_by_line() {
    let text = "version: 2\nfields:\n  - name: a\n    outlook: subjct\n    salesforce: Subject\n    direction: up\n\
                tests:\n  - name: t\n    outlook: { subject: x, nothing: y }\n    expect: { Subject: [x] }\n    \
                extra: 1\n";
    let found = problems(text);
    let lines: Vec<&str> = found.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "CB1107 m.yaml:1",
            "CB1109 m.yaml:4",
            "CB1108 m.yaml:6",
            "CB1118 m.yaml:9",
            "CB1118 m.yaml:9",
            "CB1104 m.yaml:10",
            "CB1103 m.yaml:11",
        ],
        "{found:#?}"
    );
}

#[test]
fn a_test_with_a_wrong_expectation_says_what_the_rules_make_of_it() {
    let text = "version: 1\nfields:\n  - { name: time, outlook: time, salesforce: time }\n  - { name: s, outlook: subject, salesforce: Subject }\n\
                tests:\n  - { name: t, outlook: { subject: hello }, expect: { Subject: bye } }\n";
    let spec = MappingSpec::parse("m.yaml", text).unwrap();
    let outcomes = Mapping::compile(&spec).unwrap().run_tests(&spec.tests);
    assert_eq!(outcomes[0].failures[0].field, "Subject");
    assert_eq!(outcomes[0].failures[0].found, Value::text("hello"));
}

#[test]
fn a_known_text_field_takes_its_length_from_salesforce() {
    let spec = MappingSpec::parse("m.yaml", &with_rule("outlook: subject, salesforce: Subject")).unwrap();
    assert_eq!(spec.fields[1].max_length, Some(255));
}

proptest! {
    #[test]
    fn no_change_of_a_good_file_makes_the_reader_panic(at in 0..GOOD.len(), with in ".{0,3}", cut in 0usize..40) {
        let mut text: Vec<char> = GOOD.chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, with.chars());
        let text: String = text.into_iter().collect();
        if let Ok(spec) = MappingSpec::parse("m.yaml", &text)
            && let Ok(mapping) = Mapping::compile(&spec)
        {
            mapping.run_tests(&spec.tests);
        }
    }
}
