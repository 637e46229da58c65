//! Runs the cases that a mapping file carries: what a record becomes when it is created on the other side.

use serde::Serialize;

use super::apply::Law;
use super::compile::{Mapping, Rule};
use super::spec::TestSpec;
use crate::side::Side;
use crate::value::Value;

/// How one case of a file went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// Name of the case.
    pub name: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// What went wrong; empty when the case passed.
    pub failures: Vec<TestFailure>,
}

/// One field that did not become what the case expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestFailure {
    /// The field, by its name on the side that is written.
    pub field: String,
    /// What the case expects.
    pub expected: Value,
    /// What the rules make of the given values.
    pub found: Value,
    /// What to look at.
    pub hint: String,
}

impl Mapping {
    /// Runs the cases of a file against its rules, in order.
    pub fn run_tests(&self, tests: &[TestSpec]) -> Vec<TestOutcome> {
        tests
            .iter()
            .map(|test| TestOutcome { name: test.name.clone(), line: test.line, failures: self.failures(test) })
            .collect()
    }

    fn failures(&self, test: &TestSpec) -> Vec<TestFailure> {
        let to = test.from.other();
        let mut failures = Vec::new();
        for rule in self.rules() {
            let given = rule.read(test.from, &test.given);
            let flows = rule.flows_to(to) || rule.on_create;
            if let Some(expected) = test.expect.get(rule.field(to)) {
                let expected = rule.canonical(to, expected.clone());
                let found = if flows { crossed(rule, to, &given) } else { Value::Null };
                if found != expected {
                    let hint = if flows {
                        format!("rule `{}` makes something else of it", rule.name)
                    } else {
                        format!("rule `{}` does not flow to {to}; see its `direction`", rule.name)
                    };
                    failures.push(TestFailure { field: rule.field(to).to_owned(), expected, found, hint });
                }
            }
            let round_trip = rule.flows_to(to) && rule.flows_to(test.from);
            if round_trip && !Law::holds(rule, test.from, &given) {
                failures.push(TestFailure {
                    field: rule.field(test.from).to_owned(),
                    expected: crossed(rule, to, &given),
                    found: Value::Null,
                    hint: format!("rule `{}` changes the value again when it goes back and forth", rule.name),
                });
            }
        }
        failures
    }
}

/// Returns what a value becomes when its record is created on `to`.
fn crossed(rule: &Rule, to: Side, given: &Value) -> Value {
    rule.canonical(to, rule.convert(to, given, &Value::Null))
}
