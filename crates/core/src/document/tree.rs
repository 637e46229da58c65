//! The tree of a YAML file, with the place of every key and value.

use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::problem::{Fault, Place, Problem};

/// Longest file, in bytes: far above any file that a person writes.
const MAX_BYTES: usize = 1024 * 1024;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most values, aliases expanded: stops files that grow without bound when expanded.
const MAX_NODES: usize = 20_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub shape: Shape,
    /// Where it begins.
    pub place: Place,
}

/// What a value is; scalars keep their text, because the reader knows which type is wanted (`66.0` may be a version).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A single value.
    Scalar {
        /// The text after unescaping.
        text: String,
        /// Written in quotes or as a block, so never a number or a switch.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Makes a text value.
    pub fn text(text: impl Into<String>, place: Place) -> Self {
        Self { shape: Shape::Scalar { text: text.into(), quoted: true }, place }
    }

    /// Returns the value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.shape {
            Shape::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// Sets the value at a dotted path, making mappings on the way.
    pub fn set(&mut self, path: &str, value: Self) {
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path, None),
        };
        let place = value.place.clone();
        if !matches!(self.shape, Shape::Map(_)) {
            self.shape = Shape::Map(Vec::new());
        }
        let Shape::Map(entries) = &mut self.shape else {
            return;
        };
        let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            entries.push(Entry {
                key: key.to_owned(),
                place: place.clone(),
                value: Self { shape: Shape::Null, place },
            });
            entries.len() - 1
        });
        let entry = &mut entries[at];
        match rest {
            Some(rest) => entry.value.set(rest, value),
            None => entry.value = value,
        }
    }

    /// Returns words for what was found, for messages; never the value itself, which may be a secret.
    pub fn kind(&self) -> &'static str {
        match &self.shape {
            Shape::Null => "nothing",
            Shape::List(_) => "a list",
            Shape::Map(_) => "a mapping",
            Shape::Scalar { quoted: true, .. } => "a text",
            Shape::Scalar { text, .. } => {
                if as_flag(text).is_some() {
                    "a switch"
                } else if text.parse::<i64>().is_ok() {
                    "a whole number"
                } else if text.parse::<f64>().is_ok() {
                    "a number"
                } else {
                    "a text"
                }
            }
        }
    }
}

/// Reads `true` and `false` in the three letter cases of the YAML 1.2 core schema.
pub(super) fn as_flag(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Lays one tree over another: mappings merge key by key, anything else is replaced.
///
/// Places of the upper tree win, so that a message points into the file that the person wrote.
pub fn overlay(lower: &mut Node, upper: Node) {
    match (&mut lower.shape, upper.shape) {
        (Shape::Map(below), Shape::Map(above)) => {
            for entry in above {
                match below.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => {
                        known.place = entry.place;
                        overlay(&mut known.value, entry.value);
                    }
                    None => below.push(entry),
                }
            }
            lower.place = upper.place;
        }
        // An empty section or value means "as before", not "without".
        (Shape::Null, Shape::Null) => lower.place = upper.place,
        (_, Shape::Null) => {}
        (_, shape) => *lower = Node { shape, place: upper.place },
    }
}

/// Parses one YAML document.
///
/// # Errors
/// Every duplicate key, or the first fault of syntax (nothing can be said of what follows it).
pub fn parse(file: &str, text: &str) -> Result<Node, Vec<Problem>> {
    let source: Arc<str> = Arc::from(file);
    let top = Place { source: Arc::clone(&source), line: 1, column: 1 };
    let mut builder = Builder { source, anchors: BTreeMap::new(), nodes: 0, duplicates: Vec::new() };
    if text.len() > MAX_BYTES {
        let message = format!("the file is longer than {MAX_BYTES} bytes; is it the right one?");
        return Err(vec![fault(top, message)]);
    }
    let node = builder.document(text, &top).map_err(|problem| vec![problem])?;
    if builder.duplicates.is_empty() { Ok(node) } else { Err(builder.duplicates) }
}

fn fault(place: Place, message: impl Into<String>) -> Problem {
    Problem { place, fault: Fault::Syntax, message: message.into() }
}

/// A collection that is still open.
struct Open {
    shape: Shape,
    place: Place,
    anchor: usize,
    key: Option<(String, Place)>,
}

struct Builder {
    source: Arc<str>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    duplicates: Vec<Problem>,
}

impl Builder {
    fn place(&self, mark: &Marker) -> Place {
        Place { source: Arc::clone(&self.source), line: mark.line().max(1), column: mark.col() + 1 }
    }

    fn document(&mut self, text: &str, top: &Place) -> Result<Node, Problem> {
        let mut open: Vec<Open> = Vec::new();
        let mut root: Option<Node> = None;
        let mut documents = 0;
        for next in Parser::new_from_str(text) {
            let (event, span) = match next {
                Ok(next) => next,
                Err(error) => {
                    let words = error.info();
                    return Err(fault(
                        self.place(error.marker()),
                        format!("this is not YAML: {words}; check indentation, quotes and colons"),
                    ));
                }
            };
            let place = self.place(&span.start);
            let (finished, weight) = match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(fault(place, "a second document begins here; keep one and remove `---`"));
                    }
                    continue;
                }
                Event::Scalar(text, style, anchor, _) => {
                    let node = Node { shape: scalar(&text, style), place };
                    if anchor > 0 {
                        self.anchors.insert(anchor, (node.clone(), 1));
                    }
                    (node, 1)
                }
                Event::Alias(id) => {
                    let Some((node, weight)) = self.anchors.get(&id) else {
                        return Err(fault(place, "this alias stands inside what it repeats; write the value out"));
                    };
                    (node.clone(), *weight)
                }
                Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= MAX_DEPTH => {
                    let message = format!("nested deeper than {MAX_DEPTH} levels; no setting is");
                    return Err(fault(place, message));
                }
                Event::SequenceStart(_, anchor, _) => {
                    open.push(Open { shape: Shape::List(Vec::new()), place, anchor, key: None });
                    continue;
                }
                Event::MappingStart(_, anchor, _) => {
                    open.push(Open { shape: Shape::Map(Vec::new()), place, anchor, key: None });
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(closed) = open.pop() else { continue };
                    let node = Node { shape: closed.shape, place: closed.place };
                    if closed.anchor > 0 {
                        let weight = weigh(&node);
                        self.anchors.insert(closed.anchor, (node.clone(), weight));
                    }
                    (node, 1)
                }
                _ => continue,
            };
            self.nodes += weight;
            if self.nodes > MAX_NODES {
                let message = format!("more than {MAX_NODES} values, aliases expanded; write the file without them");
                return Err(fault(finished.place, message));
            }
            self.add(&mut open, &mut root, finished)?;
        }
        Ok(root.unwrap_or(Node { shape: Shape::Null, place: top.clone() }))
    }

    fn add(&mut self, open: &mut [Open], root: &mut Option<Node>, node: Node) -> Result<(), Problem> {
        let Some(parent) = open.last_mut() else {
            *root = Some(node);
            return Ok(());
        };
        match &mut parent.shape {
            Shape::List(items) => items.push(node),
            Shape::Map(entries) => {
                if let Some((key, place)) = parent.key.take() {
                    entries.push(Entry { key, place, value: node });
                    return Ok(());
                }
                let Shape::Scalar { text, .. } = node.shape else {
                    let message = format!("{} stands where a key is expected; give a plain word", node.kind());
                    return Err(fault(node.place, message));
                };
                if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                    let line = first.place.line;
                    self.duplicates.push(Problem {
                        message: format!("`{text}` was already given on line {line}; keep one of the two"),
                        place: node.place.clone(),
                        fault: Fault::DuplicateKey,
                    });
                }
                parent.key = Some((text, node.place));
            }
            Shape::Null | Shape::Scalar { .. } => {}
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Shape {
    let quoted = style != ScalarStyle::Plain;
    if !quoted && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Shape::Null;
    }
    Shape::Scalar { text: text.to_owned(), quoted }
}

/// Counts the values of a tree; its depth is bounded by [`MAX_DEPTH`], aliases included, because each alias is whole.
fn weigh(node: &Node) -> usize {
    match &node.shape {
        Shape::Null | Shape::Scalar { .. } => 1,
        Shape::List(items) => 1 + items.iter().map(weigh).sum::<usize>(),
        Shape::Map(entries) => 1 + entries.iter().map(|entry| weigh(&entry.value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse("a.yaml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_and_value_knows_its_line() {
        let node = parse("a.yaml", "one: 1\ntwo:\n  - a\n  - \"b\"\n").unwrap();
        let two = node.get("two").unwrap();
        let Shape::List(items) = &two.shape else { panic!("{two:?}") };
        assert_eq!((items[1].place.line, items[1].place.column), (4, 5));
        assert_eq!(node.get("one").unwrap().kind(), "a whole number");
        assert_eq!(items[1].kind(), "a text");
    }

    #[test]
    fn words_that_old_yaml_took_for_switches_stay_texts() {
        let node = parse("a.yaml", "a: No\nb: on\nc: false\nd: ~\n").unwrap();
        let kinds: Vec<_> = ["a", "b", "c", "d"].map(|key| node.get(key).unwrap().kind()).into();
        assert_eq!(kinds, ["a text", "a text", "a switch", "nothing"]);
    }

    #[test]
    fn duplicate_keys_are_all_reported() {
        assert_eq!(
            problems("a: 1\nb: 2\na: 3\nb: 4\n"),
            [
                "a.yaml:3: `a` was already given on line 1; keep one of the two",
                "a.yaml:4: `b` was already given on line 2; keep one of the two",
            ]
        );
    }

    #[test]
    fn faults_of_syntax_name_the_line() {
        assert!(problems("a: 1\n b: [\n")[0].starts_with("a.yaml:"));
        assert!(problems("a: 1\n---\nb: 2\n")[0].contains("a.yaml:2: a second document"));
        assert!(problems("? [a]\n: 1\n")[0].contains("a list stands where a key is expected"));
        assert!(problems("a: *nobody\n")[0].contains("this is not YAML"));
    }

    #[test]
    fn files_that_grow_without_bound_are_refused() {
        let levels = (1..10).map(|level| {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            format!("a{level}: &a{level} [{items}]\n")
        });
        let bomb = format!("a0: &a0 [x, x]\n{}", levels.collect::<String>());
        for (text, words) in [
            (bomb, "more than 20000 values"),
            ("[".repeat(40) + &"]".repeat(40), "nested deeper"),
            ("#".repeat(MAX_BYTES + 1), "longer than"),
        ] {
            let found = problems(&text);
            assert!(found[0].contains(words), "{found:?}");
        }
    }

    #[test]
    fn an_upper_tree_replaces_values_and_keeps_the_rest() {
        let mut lower = parse("low", "a: {x: 1, y: 2}\nb: [1]\nc: 3\n").unwrap();
        overlay(&mut lower, parse("up", "a:\n  y: 5\nb: [7, 8]\nc:\nd: new\n").unwrap());
        assert_eq!(lower.get("a").unwrap().get("x").unwrap().place.to_string(), "low:1");
        assert_eq!(lower.get("a").unwrap().get("y").unwrap().place.to_string(), "up:2");
        assert!(matches!(&lower.get("b").unwrap().shape, Shape::List(items) if items.len() == 2));
        assert_eq!(lower.get("c").unwrap().place.to_string(), "low:3");
        assert!(lower.get("d").is_some());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            drop(parse("a.yaml", &text));
        }

        #[test]
        fn no_soup_of_yaml_signs_makes_the_parser_panic(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "a", ":", " ", "\n", "- ", "[", "]", "{", "}", "&a ", "*a", "!x ", "|", ">", "'", "\"", "#", "---",
                    "...", "? ", "%", "\t", ",", "<<: ", "é", "\u{feff}", "\r\n", "@", "`", "\\", "  ",
                ]),
                0..60,
            )
        ) {
            drop(parse("a.yaml", &parts.concat()));
        }
    }
}
