//! Reads typed values out of a tree and collects everything that is wrong, instead of stopping at the first fault.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use super::nearest::nearest;
use super::problem::{Fault, Place, Problem};
use super::tree::{Entry, Node, Shape, as_flag};

/// Collects problems while a tree is read.
#[derive(Debug, Default)]
pub struct Report {
    problems: RefCell<Vec<Problem>>,
}

impl Report {
    /// Makes an empty report.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a problem.
    pub fn note(&self, place: &Place, fault: Fault, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place: place.clone(), fault, message: message.into() });
    }

    /// Returns all problems, sorted by place.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        problems
    }
}

/// A value that was read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// A mapping being read; each method notes what is wrong and returns none.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    node: &'a Node,
    entries: &'a [Entry],
    path: String,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// Opens a node that must be a mapping; `path` names it in messages and is empty for the top of a file.
    pub fn open(node: &'a Node, path: &str, report: &'a Report) -> Option<Self> {
        let entries: &[Entry] = match &node.shape {
            Shape::Map(entries) => entries,
            Shape::Null => &[],
            _ => {
                let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
                let message = format!("{what} is {}; expected a mapping of keys", node.kind());
                report.note(&node.place, Fault::WrongType, message);
                return None;
            }
        };
        Some(Self { node, entries, path: path.to_owned(), report })
    }

    /// Returns where the mapping begins.
    pub fn place(&self) -> &Place {
        &self.node.place
    }

    /// Returns the entries in the order of the file.
    pub fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Returns the full name of a key, for messages.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes every key that is not one of `known`, with the nearest known one.
    pub fn only(&self, known: &[&str]) {
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let mend = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", list(known)),
            };
            let message = format!("`{}` is not a known key; {mend}", self.name(&entry.key));
            self.report.note(&entry.place, Fault::UnknownKey, message);
        }
    }

    /// Returns a value that is there and not empty.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
            .filter(|node| node.shape != Shape::Null)
    }

    /// Notes a missing key unless it is there; `mend` is an example of the line to add.
    pub fn require(&self, key: &str, mend: &str) {
        if self.get(key).is_some() {
            return;
        }
        let message = format!("`{}` is missing; add {mend}", self.name(key));
        self.report.note(self.place_of_missing(key), Fault::MissingKey, message);
    }

    /// Returns where a missing key is best reported: at the key if it stands there without a value, else at the section.
    ///
    /// A key that only a lower layer lists without a value helps nobody who reads the upper file.
    pub fn place_of_missing(&self, key: &str) -> &'a Place {
        self.entries
            .iter()
            .find(|entry| entry.key == key && entry.place.source == self.node.place.source)
            .map_or(&self.node.place, |entry| &entry.place)
    }

    /// Reads a text; plain numbers and switches count by their spelling.
    pub fn text(&self, key: &str) -> Option<Found<String>> {
        let node = self.get(key)?;
        if let Shape::Scalar { text, .. } = &node.shape {
            return Some(Found { value: text.clone(), place: node.place.clone() });
        }
        self.wrong(key, node, "a text");
        None
    }

    /// Reads a switch.
    pub fn flag(&self, key: &str) -> Option<Found<bool>> {
        let node = self.get(key)?;
        let flag = match &node.shape {
            Shape::Scalar { text, quoted: false } => as_flag(text),
            _ => None,
        };
        if flag.is_none() {
            self.wrong(key, node, "`true` or `false`");
        }
        flag.map(|value| Found { value, place: node.place.clone() })
    }

    /// Reads a whole number within a range.
    pub fn whole(&self, key: &str, range: &RangeInclusive<i64>) -> Option<Found<i64>> {
        let node = self.get(key)?;
        let number = match &node.shape {
            Shape::Scalar { text, quoted: false } => text.replace('_', "").parse::<i64>().ok(),
            _ => None,
        };
        let Some(value) = number else {
            self.wrong(key, node, &format!("a whole number from {} to {}", range.start(), range.end()));
            return None;
        };
        if !range.contains(&value) {
            let message = format!(
                "`{}` is {value}; give a whole number from {} to {}",
                self.name(key),
                range.start(),
                range.end()
            );
            self.report.note(&node.place, Fault::OutOfRange, message);
            return None;
        }
        Some(Found { value, place: node.place.clone() })
    }

    /// Reads a number within a range.
    pub fn decimal(&self, key: &str, range: &RangeInclusive<f64>) -> Option<Found<f64>> {
        let node = self.get(key)?;
        let number = match &node.shape {
            Shape::Scalar { text, quoted: false } => text.parse::<f64>().ok().filter(|number| number.is_finite()),
            _ => None,
        };
        let (from, to) = (range.start(), range.end());
        let Some(value) = number else {
            self.wrong(key, node, &format!("a number from {from} to {to}"));
            return None;
        };
        if !range.contains(&value) {
            let message = format!("`{}` is {value}; give a number from {from} to {to}", self.name(key));
            self.report.note(&node.place, Fault::OutOfRange, message);
            return None;
        }
        Some(Found { value, place: node.place.clone() })
    }

    /// Reads one of a closed list of words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let found = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == found.value) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.unknown_choice(key, &found, &words);
        None
    }

    /// Notes that a text is not one of the words allowed.
    pub fn unknown_choice(&self, key: &str, found: &Found<String>, words: &[&str]) {
        let hint = match nearest(&found.value, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? "),
            None => String::new(),
        };
        let message = format!("`{}` is `{}`; {hint}choose one of {}", self.name(key), brief(&found.value), list(words));
        self.report.note(&found.place, Fault::UnknownChoice, message);
    }

    /// Opens a mapping inside this one.
    pub fn section(&self, key: &str) -> Option<Section<'a>> {
        let node = self.get(key)?;
        Section::open(node, &self.name(key), self.report)
    }

    /// Opens each item of a list of mappings; items of another kind are noted and left out.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(node) = self.get(key) else {
            return Vec::new();
        };
        let Shape::List(items) = &node.shape else {
            self.wrong(key, node, "a list (lines that begin with `-`)");
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| Section::open(item, &format!("{}[{at}]", self.name(key)), self.report))
            .collect()
    }

    /// Notes that a value has the wrong type.
    pub fn wrong(&self, key: &str, node: &Node, expected: &str) {
        let message = format!("`{}` is {}; expected {expected}", self.name(key), node.kind());
        self.report.note(&node.place, Fault::WrongType, message);
    }

    /// Returns where problems go.
    pub fn report(&self) -> &'a Report {
        self.report
    }
}

/// Lists words in backticks.
fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Cuts what is quoted in a message to a length that fits on a line.
fn brief(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let head: String = text.chars().take(57).collect();
    format!("{head}...")
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;

    fn read(text: &str, with: impl Fn(&Section<'_>)) -> Vec<String> {
        let node = parse("a.yaml", text).unwrap();
        let report = Report::new();
        if let Some(section) = Section::open(&node, "", &report) {
            with(&section);
        }
        report.into_problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_problems_are_found_at_once_in_the_order_of_the_file() {
        let text = "count: many\nmood: hapy\nclor: red\nlimit: 11\nflag: yes\nlist: 5\npart: 3\n";
        let problems = read(text, |section| {
            section.only(&["count", "mood", "color", "limit", "flag", "list", "part"]);
            section.require("color", "`color: red`");
            section.whole("count", &(1..=10));
            section.choice("mood", &[("happy", 1), ("sad", 2)]);
            section.whole("limit", &(1..=10));
            section.flag("flag");
            section.sections("list");
            section.section("part");
        });
        assert_eq!(
            problems,
            [
                "a.yaml:1: `color` is missing; add `color: red`",
                "a.yaml:1: `count` is a text; expected a whole number from 1 to 10",
                "a.yaml:2: `mood` is `hapy`; did you mean `happy`? choose one of `happy`, `sad`",
                "a.yaml:3: `clor` is not a known key; did you mean `color`?",
                "a.yaml:4: `limit` is 11; give a whole number from 1 to 10",
                "a.yaml:5: `flag` is a text; expected `true` or `false`",
                "a.yaml:6: `list` is a whole number; expected a list (lines that begin with `-`)",
                "a.yaml:7: `part` is a whole number; expected a mapping of keys",
            ]
        );
    }

    #[test]
    fn a_number_may_be_read_as_text_but_a_quoted_number_is_no_number() {
        let problems = read("version: 66.0\ncount: \"3\"\n", |section| {
            assert_eq!(section.text("version").unwrap().value, "66.0");
            assert_eq!(section.whole("count", &(1..=9)), None);
        });
        assert_eq!(problems, ["a.yaml:2: `count` is a text; expected a whole number from 1 to 9"]);
    }

    #[test]
    fn a_file_that_is_no_mapping_is_refused_as_a_whole() {
        assert_eq!(read("- a\n", |_| {}), ["a.yaml:1: the file is a list; expected a mapping of keys"]);
    }
}
