//! The YAML form of a mapping file: text in, [`MappingSpec`] or every problem out.
//!
//! Owns what can be said of one rule or one test by itself. What rules say about each other is `compile.rs`.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;

use super::compile::TIME;
use super::known::{Holds, Known, OUTLOOK, SALESFORCE, find, is_custom, not_mappable};
use super::spec::{Conflict, Direction, FieldSpec, Initial, MappingProblem, MappingSpec, Problems, TestSpec};
use crate::document::{Fault, Found, Node, Place, Report, Section, Shape, nearest, parse};
use crate::side::Side;
use crate::value::{Fields, Value, When};

const DIRECTIONS: &[(&str, Direction)] =
    &[("both", Direction::Both), ("to_salesforce", Direction::ToSalesforce), ("to_outlook", Direction::ToOutlook)];
const CONFLICTS: &[(&str, Conflict)] = &[
    ("outlook_wins", Conflict::OutlookWins),
    ("salesforce_wins", Conflict::SalesforceWins),
    ("latest", Conflict::Latest),
    ("manual", Conflict::Manual),
];
const INITIALS: &[(&str, Initial)] = &[
    ("outlook", Initial::Outlook),
    ("salesforce", Initial::Salesforce),
    ("fill_empty", Initial::FillEmpty),
    ("ask", Initial::Ask),
];
const FIELD_KEYS: &[&str] = &[
    "name",
    "outlook",
    "salesforce",
    "direction",
    "on_create",
    "conflict",
    "initial",
    "max_length",
    "to_salesforce",
    "to_outlook",
];

impl MappingSpec {
    /// Reads a mapping file; `file` is its name in messages.
    ///
    /// # Errors
    /// Every problem of the file, sorted by line.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let tree = parse(file, text).map_err(|problems| {
            problems
                .into_iter()
                .map(|problem| mapping_problem(&problem.place, code(problem.fault), problem.message))
                .collect::<Problems>()
        })?;
        let report = Report::new();
        let mut file_reader =
            FileReader { own: Vec::new(), spec: Self { file: file.to_owned(), fields: Vec::new(), tests: Vec::new() } };
        if let Some(top) = Section::open(&tree, "", &report) {
            file_reader.top(&top);
        }
        let mut problems: Problems = report
            .into_problems()
            .into_iter()
            .map(|problem| mapping_problem(&problem.place, code(problem.fault), problem.message))
            .collect();
        problems.append(&mut file_reader.own);
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(file_reader.spec) } else { Err(problems) }
    }
}

/// Returns the code of a fault in a mapping file.
fn code(fault: Fault) -> &'static str {
    match fault {
        Fault::Syntax => "CB1102",
        Fault::UnknownKey => "CB1103",
        Fault::WrongType => "CB1104",
        Fault::MissingKey => "CB1105",
        Fault::DuplicateKey => "CB1106",
        Fault::OutOfRange => "CB1107",
        Fault::UnknownChoice => "CB1108",
    }
}

fn mapping_problem(place: &Place, code: &'static str, message: String) -> MappingProblem {
    MappingProblem { file: place.source.to_string(), line: place.line, code, message }
}

/// What a field rule names on one side.
#[derive(Clone, Copy)]
enum Named {
    Known(&'static Known),
    Custom,
}

impl Named {
    fn choices(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Known(Known { holds: Holds::Choice(choices), .. }) => Some(choices),
            _ => None,
        }
    }

    fn longest(self) -> Option<usize> {
        match self {
            Self::Known(Known { holds: Holds::Text(longest), .. }) => *longest,
            _ => None,
        }
    }
}

struct FileReader {
    own: Problems,
    spec: MappingSpec,
}

impl FileReader {
    fn note(&mut self, place: &Place, code: &'static str, message: String) {
        self.own.push(mapping_problem(place, code, message));
    }

    fn top(&mut self, top: &Section<'_>) {
        top.only(&["version", "fields", "tests"]);
        top.require("version", "`version: 1`");
        top.whole("version", &(1..=1));
        top.require("fields", "`fields:` and below it a list of rules");
        for section in top.sections("fields") {
            if let Some(field) = self.field(&section) {
                self.spec.fields.push(field);
            }
        }
        let fields = self.spec.fields.clone();
        for section in top.sections("tests") {
            if let Some(test) = self.test(&section, &fields) {
                self.spec.tests.push(test);
            }
        }
    }

    fn field(&mut self, section: &Section<'_>) -> Option<FieldSpec> {
        section.only(FIELD_KEYS);
        section.require("name", "`name: location`");
        section.require("outlook", "`outlook: location.displayName`");
        section.require("salesforce", "`salesforce: Location`");
        let name = section.text("name");
        let outlook = section.text("outlook");
        let salesforce = section.text("salesforce");
        let direction = section.choice("direction", DIRECTIONS);
        let on_create = section.flag("on_create").is_some_and(|found| found.value);
        let conflict = section.choice("conflict", CONFLICTS);
        let initial = section.choice("initial", INITIALS);
        let max_length = section.whole("max_length", &(1..=131_072));
        let to_salesforce = choices(section, "to_salesforce");
        let to_outlook = choices(section, "to_outlook");

        let outlook_field = outlook.as_ref().and_then(|found| self.outlook_field(found));
        let salesforce_field = salesforce.as_ref().and_then(|found| self.salesforce_field(found));
        if let Some(field) = outlook_field {
            self.check_choices(section, "to_salesforce", &to_salesforce, field, true);
            self.check_choices(section, "to_outlook", &to_outlook, field, false);
            self.check_writable(section, field, direction.unwrap_or_default(), on_create);
        }
        if let Some(field) = salesforce_field {
            self.check_choices(section, "to_salesforce", &to_salesforce, field, false);
            self.check_choices(section, "to_outlook", &to_outlook, field, true);
            self.check_length(section, field, max_length.as_ref());
        }
        if let (Some(left), Some(right), Some(name)) = (outlook_field, salesforce_field, &name)
            && left.choices().is_some()
            && right.choices().is_some()
            && to_salesforce.is_empty()
            && to_outlook.is_empty()
        {
            let message = format!(
                "rule `{}` joins two lists of choices; say with `to_salesforce` and `to_outlook` which becomes which",
                name.value
            );
            self.note(section.place(), "CB1117", message);
        }
        let has_choices = !to_salesforce.is_empty() || !to_outlook.is_empty();
        Some(FieldSpec {
            name: name?.value,
            line: section.place().line,
            outlook: outlook?.value,
            salesforce: salesforce?.value,
            direction: direction.unwrap_or_default(),
            on_create,
            conflict: conflict.unwrap_or_default(),
            initial: initial.unwrap_or_default(),
            max_length: match max_length {
                Some(found) => usize::try_from(found.value).ok(),
                None if has_choices => None,
                None => salesforce_field.and_then(Named::longest),
            },
            to_salesforce: words(to_salesforce),
            to_outlook: words(to_outlook),
        })
    }

    fn outlook_field(&mut self, found: &Found<String>) -> Option<Named> {
        let name = found.value.as_str();
        if let Some(known) = find(OUTLOOK, name) {
            return Some(Named::Known(known));
        }
        let mend = mend_of(name, OUTLOOK, "Outlook");
        self.note(&found.place, "CB1109", mend);
        None
    }

    fn salesforce_field(&mut self, found: &Found<String>) -> Option<Named> {
        let name = found.value.as_str();
        if not_mappable(name).is_none() {
            if let Some(known) = find(SALESFORCE, name) {
                return Some(Named::Known(known));
            }
            if is_custom(name) {
                return Some(Named::Custom);
            }
        }
        let mend = mend_of(name, SALESFORCE, "Salesforce");
        self.note(&found.place, "CB1109", mend);
        None
    }

    fn check_choices(
        &mut self,
        section: &Section<'_>,
        key: &str,
        table: &[(Found<String>, Found<String>)],
        field: Named,
        is_source: bool,
    ) {
        let Some(choices) = field.choices() else { return };
        if table.is_empty() {
            return;
        }
        for (from, to) in table {
            let word = if is_source { from } else { to };
            if !choices.contains(&word.value.as_str()) {
                let hint = match nearest(&word.value, choices.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("choose one of `{}`", choices.join("`, `")),
                };
                let message = format!("`{}`: `{}` is not a choice of the field; {hint}", section.name(key), word.value);
                self.note(&word.place, "CB1117", message);
            }
        }
        if is_source {
            let missing: Vec<&str> =
                choices.iter().copied().filter(|choice| !table.iter().any(|(from, _)| from.value == *choice)).collect();
            if let (false, Some(node)) = (missing.is_empty(), section.get(key)) {
                let message = format!(
                    "`{}` lacks `{}`; say what becomes of every choice",
                    section.name(key),
                    missing.join("`, `")
                );
                self.note(&node.place, "CB1117", message);
            }
        }
    }

    fn check_writable(&mut self, section: &Section<'_>, field: Named, direction: Direction, on_create: bool) {
        let Named::Known(known) = field else { return };
        if known.writable || (direction == Direction::ToSalesforce && !on_create) {
            return;
        }
        let message = format!(
            "`{}` cannot be written in Outlook; add `direction: to_salesforce` and leave out `on_create`",
            known.name
        );
        self.note(section.place(), "CB1115", message);
    }

    fn check_length(&mut self, section: &Section<'_>, field: Named, max_length: Option<&Found<i64>>) {
        let (Some(longest), Some(given), Named::Known(known)) = (field.longest(), max_length, field) else {
            return;
        };
        if usize::try_from(given.value).is_ok_and(|given| given > longest) {
            let message = format!(
                "`{}` is {}, but `{}` holds {longest} characters; give at most that",
                section.name("max_length"),
                given.value,
                known.name
            );
            self.note(&given.place, "CB1116", message);
        }
    }

    fn test(&mut self, section: &Section<'_>, fields: &[FieldSpec]) -> Option<TestSpec> {
        section.only(&["name", "outlook", "salesforce", "expect"]);
        section.require("name", "`name: a free meeting stays free`");
        section.require("expect", "`expect:` and below it fields of the other side");
        let from = match (section.get("outlook"), section.get("salesforce")) {
            (Some(_), None) => Side::Outlook,
            (None, Some(_)) => Side::Salesforce,
            _ => {
                let message = format!(
                    "`{}` needs exactly one of `outlook` and `salesforce`: the side that the values come from",
                    section.name("name")
                );
                self.note(section.place(), "CB1105", message);
                return None;
            }
        };
        let given = section.section(from.name()).map(|values| self.values(&values, from, fields));
        let expect = section.section("expect").map(|values| self.values(&values, from.other(), fields));
        Some(TestSpec {
            name: section.text("name")?.value,
            line: section.place().line,
            given: given?,
            from,
            expect: expect?,
        })
    }

    fn values(&mut self, section: &Section<'_>, side: Side, fields: &[FieldSpec]) -> Fields {
        let known: Vec<&str> = fields
            .iter()
            .map(|field| match side {
                Side::Outlook => field.outlook.as_str(),
                Side::Salesforce => field.salesforce.as_str(),
            })
            .collect();
        let mut values = Fields::new();
        for entry in section.entries() {
            if !known.contains(&entry.key.as_str()) {
                let mend = match nearest(&entry.key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the rules above name `{}`", known.join("`, `")),
                };
                let message = format!("no rule maps `{}` of {side}; {mend}", entry.key);
                self.note(&entry.place, "CB1118", message);
                continue;
            }
            let value = match &entry.value.shape {
                Shape::Null => Value::Null,
                _ if entry.key == TIME => match self.when(section, &entry.value) {
                    Some(when) => Value::When(when),
                    None => continue,
                },
                Shape::Scalar { text, .. } => Value::text(text.clone()),
                Shape::List(_) | Shape::Map(_) => {
                    section.wrong(&entry.key, &entry.value, "a text, or nothing for an empty field");
                    continue;
                }
            };
            values.insert(entry.key.clone(), value);
        }
        values
    }

    fn when(&mut self, section: &Section<'_>, node: &Node) -> Option<When> {
        let time = Section::open(node, &section.name(TIME), section.report())?;
        time.only(&["start", "end", "zone", "first", "last"]);
        if time.get("first").is_some() {
            time.require("last", "`last: 2026-12-01` (inclusive)");
            let first = self.parsed::<NaiveDate>(&time, "first", "a date such as `2026-12-01`");
            let last = self.parsed::<NaiveDate>(&time, "last", "a date such as `2026-12-01`");
            return self.ordered(&time, When::AllDay { first: first?, last: last? });
        }
        time.require("start", "`start: 2026-12-01T09:00:00Z`, or `first` and `last` for whole days");
        time.require("end", "`end: 2026-12-01T10:00:00Z`");
        let start = self.parsed::<DateTime<Utc>>(&time, "start", "an instant such as `2026-12-01T09:00:00Z`");
        let end = self.parsed::<DateTime<Utc>>(&time, "end", "an instant such as `2026-12-01T10:00:00Z`");
        let zone = self.parsed::<Tz>(&time, "zone", "an IANA zone such as `Europe/Berlin`");
        self.ordered(&time, When::Timed { start: start?, end: end?, zone })
    }

    fn parsed<T: std::str::FromStr>(&mut self, section: &Section<'_>, key: &str, expected: &str) -> Option<T> {
        let found = section.text(key)?;
        let value = found.value.parse().ok();
        if value.is_none() {
            let message = format!("`{}` is not {expected}", section.name(key));
            self.note(&found.place, "CB1107", message);
        }
        value
    }

    fn ordered(&mut self, section: &Section<'_>, when: When) -> Option<When> {
        if when.is_ordered() {
            return Some(when);
        }
        let message = format!("`{}` ends before it starts", section.name("end"));
        self.note(section.place(), "CB1107", message);
        None
    }
}

fn mend_of(name: &str, fields: &'static [Known], side: &str) -> String {
    if let Some(why) = not_mappable(name) {
        return format!("`{name}` of {side} cannot be mapped: {why}");
    }
    let names = fields.iter().map(|known| known.name);
    match nearest(name, names.clone()) {
        Some(near) => format!("`{name}` is not a field of {side} that can be mapped; did you mean `{near}`?"),
        None => format!(
            "`{name}` is not a field of {side} that can be mapped; choose one of `{}`{}",
            names.collect::<Vec<_>>().join("`, `"),
            if side == "Salesforce" { " or a custom field such as `Room__c`" } else { "" }
        ),
    }
}

/// Reads a table of choices; values of another kind are noted and left out.
fn choices(section: &Section<'_>, key: &str) -> Vec<(Found<String>, Found<String>)> {
    let Some(table) = section.section(key) else {
        return Vec::new();
    };
    table
        .entries()
        .iter()
        .filter_map(|entry| {
            table.require(&entry.key, "the choice that it becomes");
            let to = table.text(&entry.key)?;
            let from = Found { value: entry.key.clone(), place: entry.place.clone() };
            Some((from, to))
        })
        .collect()
}

fn words(table: Vec<(Found<String>, Found<String>)>) -> BTreeMap<String, String> {
    table.into_iter().map(|(from, to)| (from.value, to.value)).collect()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
