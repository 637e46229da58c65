//! The written form of a mapping file, before it is checked as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// One mapping file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSpec {
    /// Name of the file, for messages.
    pub file: String,
    /// Field rules, in the order of the file.
    pub fields: Vec<FieldSpec>,
    /// Cases that `calbridge mapping test` runs.
    pub tests: Vec<TestSpec>,
}

/// One rule: an Outlook field, a Salesforce field and how values convert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSpec {
    /// Name of the rule, unique in the file.
    pub name: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Outlook field: `time`, or a path such as `location.displayName`.
    pub outlook: String,
    /// Salesforce field: `time`, or an API name such as `Location`.
    pub salesforce: String,
    /// Which way values flow.
    pub direction: Direction,
    /// A one-way field is also written the other way when the record is created there.
    pub on_create: bool,
    /// Who wins when both sides changed.
    pub conflict: Conflict,
    /// Who decides when there is no base.
    pub initial: Initial,
    /// Longest text the Salesforce field holds, in characters.
    pub max_length: Option<usize>,
    /// Outlook choice to Salesforce choice; empty for fields without choices.
    pub to_salesforce: BTreeMap<String, String>,
    /// Salesforce choice to Outlook choice; empty for fields without choices.
    pub to_outlook: BTreeMap<String, String>,
}

/// Which way a field flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// Outlook to Salesforce only.
    ToSalesforce,
    /// Salesforce to Outlook only.
    ToOutlook,
}

/// Who wins when both sides changed a field since they last agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// Outlook's value is kept.
    #[default]
    OutlookWins,
    /// Salesforce's value is kept.
    SalesforceWins,
    /// The value of the side modified later; closer than 5 s, Outlook's.
    Latest,
    /// A person decides.
    Manual,
}

/// Who decides when both sides hold different values and no base is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Outlook's value is taken.
    #[default]
    Outlook,
    /// Salesforce's value is taken.
    Salesforce,
    /// The side that holds a value fills the one that holds none; with two values, Outlook's is taken.
    FillEmpty,
    /// A person decides.
    Ask,
}

/// A case inside the file: what a record on one side becomes on the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestSpec {
    /// Name of the case.
    pub name: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Fields given, by Outlook or Salesforce name.
    pub given: BTreeMap<String, Value>,
    /// The side that the given fields belong to.
    pub from: crate::side::Side,
    /// Fields expected on the other side.
    pub expect: BTreeMap<String, Value>,
}

/// One thing wrong with a file, and the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct MappingProblem {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Stable code.
    pub code: &'static str,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// Everything wrong with a file, at once.
pub type Problems = Vec<MappingProblem>;
