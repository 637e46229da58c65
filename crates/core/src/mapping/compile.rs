//! The checked form of a mapping: rules that conversion can no longer fail on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::spec::{Conflict, Direction, FieldSpec, Initial, MappingProblem, MappingSpec, Problems};
use crate::side::Side;
use crate::value::fingerprint;

/// A checked set of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    rules: Vec<Rule>,
    version: String,
}

/// One checked rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Name, unique in the mapping.
    pub name: String,
    /// Outlook field.
    pub outlook: String,
    /// Salesforce field.
    pub salesforce: String,
    /// How values convert.
    pub kind: Kind,
    /// Which way values flow.
    pub direction: Direction,
    /// Also written the other way when the record is created there.
    pub on_create: bool,
    /// Who wins when both sides changed.
    pub conflict: Conflict,
    /// Who decides when there is no base.
    pub initial: Initial,
    /// See [`Rule::hash`]; computed once, because every plan compares it.
    #[serde(skip)]
    hash: String,
}

/// How values of a rule convert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Start, end, zone and all-day, as one.
    Time,
    /// A text, cut to the length that Salesforce holds.
    Text {
        /// Longest text in characters; none means no limit.
        max_length: Option<usize>,
    },
    /// One of a list of choices.
    Choice {
        /// Outlook choice to Salesforce choice.
        to_salesforce: BTreeMap<String, String>,
        /// Salesforce choice to Outlook choice.
        to_outlook: BTreeMap<String, String>,
    },
}

/// Name of the group of start, end, zone and all-day on either side.
pub const TIME: &str = "time";

impl Rule {
    /// Returns the field's name on a side.
    pub fn field(&self, side: Side) -> &str {
        match side {
            Side::Outlook => &self.outlook,
            Side::Salesforce => &self.salesforce,
        }
    }

    /// Tells whether edits flow towards `side`.
    pub fn flows_to(&self, side: Side) -> bool {
        match self.direction {
            Direction::Both => true,
            Direction::ToSalesforce => side == Side::Salesforce,
            Direction::ToOutlook => side == Side::Outlook,
        }
    }

    /// Returns the hash of everything that decides how values convert.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    fn from_checked(field: &FieldSpec) -> Self {
        let kind = if field.outlook == TIME {
            Kind::Time
        } else if field.to_salesforce.is_empty() && field.to_outlook.is_empty() {
            Kind::Text { max_length: field.max_length }
        } else {
            Kind::Choice { to_salesforce: field.to_salesforce.clone(), to_outlook: field.to_outlook.clone() }
        };
        Self {
            name: field.name.clone(),
            outlook: field.outlook.clone(),
            salesforce: field.salesforce.clone(),
            hash: fingerprint(&(&field.outlook, &field.salesforce, &kind)),
            kind,
            direction: field.direction,
            on_create: field.on_create,
            conflict: field.conflict,
            initial: field.initial,
        }
    }
}

impl Mapping {
    /// Checks a file's rules as a whole.
    ///
    /// # Errors
    /// All problems at once, each with its line.
    pub fn compile(spec: &MappingSpec) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let mut names = BTreeSet::new();
        let mut taken = BTreeMap::new();
        for field in &spec.fields {
            let mut problem = |code, message| {
                problems.push(MappingProblem { file: spec.file.clone(), line: field.line, code, message });
            };
            if !names.insert(&field.name) {
                problem("CB1110", format!("two rules are named `{}`; give each a name of its own", field.name));
            }
            for (side, name) in [(Side::Outlook, &field.outlook), (Side::Salesforce, &field.salesforce)] {
                if let Some(other) = taken.insert((side, name), &field.name) {
                    problem("CB1111", format!("`{name}` of {side} is already mapped by rule `{other}`; remove one"));
                }
            }
            if (field.outlook == TIME) != (field.salesforce == TIME) {
                let mend = "map `time` to `time`: start, end, zone and all-day move as one";
                problem("CB1112", format!("rule `{}` maps the time to another field; {mend}", field.name));
            }
            for message in choice_problems(field) {
                problem("CB1113", message);
            }
        }
        if !spec.fields.iter().any(|field| field.outlook == TIME) {
            problems.push(MappingProblem {
                file: spec.file.clone(),
                line: 1,
                code: "CB1114",
                message: "no rule maps `time`; add `- { name: time, outlook: time, salesforce: time }`".to_owned(),
            });
        }
        if problems.is_empty() { Ok(Self::from_checked(&spec.fields)) } else { Err(problems) }
    }

    fn from_checked(fields: &[FieldSpec]) -> Self {
        let rules: Vec<Rule> = fields.iter().map(Rule::from_checked).collect();
        let version = fingerprint(&rules);
        Self { rules, version }
    }

    /// Returns the rules in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the hash of all rules: part of every dedup key, so that a new mapping looks at everything again.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the names of the fields that must be read on a side.
    pub fn fields(&self, side: Side) -> impl Iterator<Item = &str> {
        self.rules.iter().map(move |rule| rule.field(side))
    }
}

fn choice_problems(field: &FieldSpec) -> Vec<String> {
    let mut problems = Vec::new();
    let flows_back = field.direction != Direction::ToSalesforce || field.on_create;
    let flows_out = field.direction != Direction::ToOutlook || field.on_create;
    if field.to_salesforce.is_empty() && field.to_outlook.is_empty() {
        return problems;
    }
    if field.max_length.is_some() {
        problems.push(format!("rule `{}` has choices, so `max_length` has no meaning; remove it", field.name));
    }
    if flows_out && field.to_salesforce.is_empty() {
        problems.push(format!("rule `{}` lacks `to_salesforce`; list every Outlook choice", field.name));
    }
    if flows_back && field.to_outlook.is_empty() {
        problems.push(format!("rule `{}` lacks `to_outlook`; list every Salesforce choice", field.name));
    }
    for (outlook, salesforce) in &field.to_salesforce {
        match field.to_outlook.get(salesforce) {
            None if flows_back => problems.push(format!(
                "rule `{}`: `{outlook}` becomes `{salesforce}`, but `to_outlook` lacks `{salesforce}`; add it",
                field.name
            )),
            _ => {}
        }
    }
    for (salesforce, outlook) in &field.to_outlook {
        if flows_out && field.to_salesforce.get(outlook) != Some(salesforce) {
            problems.push(format!(
                "rule `{}`: `{salesforce}` becomes `{outlook}`, which does not become `{salesforce}` again; \
                 a round trip must return to where it began",
                field.name
            ));
        }
    }
    problems
}
