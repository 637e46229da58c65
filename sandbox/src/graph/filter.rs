//! The `$filter` language: a small part of OData, evaluated on the JSON of a resource.
//!
//! Comparisons, `and`, `or`, `not`, parentheses, `startswith`, `endswith`, `contains`, `cast`, and `any` over collections.
//! Strings compare without regard to case, as Exchange does, except ids of extended properties.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::error::GraphError;
use super::input::canonical_property;
use super::zones::parse_moment;

/// Depth of nesting that is still read; deeper filters are refused.
const MAX_DEPTH: usize = 32;

/// A parsed filter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    Compare(Vec<String>, Comparison, Value),
    Call(Function, Vec<String>, Value),
    /// Collection, name of the element, condition.
    Any(Vec<String>, String, Box<Filter>),
    /// A Boolean property by itself.
    Truth(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    StartsWith,
    EndsWith,
    Contains,
}

impl Filter {
    /// Reads a filter.
    pub(crate) fn parse(text: &str) -> Result<Self, GraphError> {
        let wrong = || GraphError::bad_request("Invalid filter clause.");
        let tokens = tokens(text).ok_or_else(wrong)?;
        let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
        let filter = parser.either().ok_or_else(wrong)?;
        if parser.at == tokens.len() { Ok(filter) } else { Err(wrong()) }
    }

    /// Tells whether a resource passes.
    pub(crate) fn matches(&self, resource: &Value) -> bool {
        self.holds(resource, None)
    }

    /// Returns the properties of the resource itself that the filter reads.
    pub(crate) fn properties(&self) -> Vec<&str> {
        fn first(path: &[String]) -> Vec<&str> {
            path.first().map(String::as_str).into_iter().collect()
        }
        match self {
            Self::And(left, right) | Self::Or(left, right) => [left.properties(), right.properties()].concat(),
            Self::Not(inner) => inner.properties(),
            Self::Compare(path, ..) | Self::Call(_, path, _) | Self::Truth(path) => first(path),
            Self::Any(path, name, inner) => {
                let mut all: Vec<&str> = first(path);
                all.extend(inner.properties().into_iter().filter(|property| property != name));
                all
            }
        }
    }

    fn holds(&self, resource: &Value, element: Option<(&str, &Value)>) -> bool {
        match self {
            Self::And(left, right) => left.holds(resource, element) && right.holds(resource, element),
            Self::Or(left, right) => left.holds(resource, element) || right.holds(resource, element),
            Self::Not(inner) => !inner.holds(resource, element),
            Self::Truth(path) => find(resource, element, path) == Value::Bool(true),
            Self::Compare(path, comparison, literal) => {
                let found = find(resource, element, path);
                let by_id = path.last().is_some_and(|name| name == "id");
                comparison.holds(compare(&found, literal, by_id))
            }
            Self::Call(function, path, literal) => {
                let found = find(resource, element, path);
                let (Some(text), Some(part)) = (found.as_str(), literal.as_str()) else {
                    return false;
                };
                let (text, part) = (text.to_lowercase(), part.to_lowercase());
                match function {
                    Function::StartsWith => text.starts_with(&part),
                    Function::EndsWith => text.ends_with(&part),
                    Function::Contains => text.contains(&part),
                }
            }
            Self::Any(path, name, inner) => {
                let list = find(resource, element, path);
                list.as_array().is_some_and(|list| list.iter().any(|entry| inner.holds(resource, Some((name, entry)))))
            }
        }
    }
}

impl Comparison {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "eq" => Self::Equal,
            "ne" => Self::NotEqual,
            "gt" => Self::Greater,
            "ge" => Self::GreaterOrEqual,
            "lt" => Self::Less,
            "le" => Self::LessOrEqual,
            _ => return None,
        })
    }

    fn holds(self, order: Option<Ordering>) -> bool {
        match (self, order) {
            (Self::NotEqual, None) => true,
            (_, None) => false,
            (Self::Equal, Some(order)) => order.is_eq(),
            (Self::NotEqual, Some(order)) => order.is_ne(),
            (Self::Greater, Some(order)) => order.is_gt(),
            (Self::GreaterOrEqual, Some(order)) => order.is_ge(),
            (Self::Less, Some(order)) => order.is_lt(),
            (Self::LessOrEqual, Some(order)) => order.is_le(),
        }
    }
}

fn find(resource: &Value, element: Option<(&str, &Value)>, path: &[String]) -> Value {
    let (mut at, rest) = match (element, path.split_first()) {
        (Some((name, value)), Some((first, rest))) if first == name => (value, rest),
        _ => (resource, path),
    };
    for segment in rest {
        match at.get(segment) {
            Some(next) => at = next,
            None => return Value::Null,
        }
    }
    at.clone()
}

fn compare(found: &Value, literal: &Value, by_id: bool) -> Option<Ordering> {
    match (found, literal) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        // Extended properties are texts; a cast compares them as numbers.
        (Value::String(a), Value::Number(b)) => a.trim().parse::<f64>().ok()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => {
            if by_id {
                let (a, b) = (canonical_property(a).unwrap_or(a.clone()), canonical_property(b).unwrap_or(b.clone()));
                return Some(a.cmp(&b));
            }
            if let (Some(a), Some(b)) = (parse_moment(a), parse_moment(b)) {
                return Some(a.in_utc().cmp(&b.in_utc()));
            }
            Some(a.to_lowercase().cmp(&b.to_lowercase()))
        }
        _ => None,
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Open,
    Close,
    Comma,
    Colon,
    Text(String),
    Word(String),
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            ',' => tokens.push(Token::Comma),
            ':' => tokens.push(Token::Colon),
            '\'' => {
                let mut value = String::new();
                loop {
                    match letters.next()? {
                        '\'' if letters.peek() == Some(&'\'') => {
                            letters.next();
                            value.push('\'');
                        }
                        '\'' => break,
                        other => value.push(other),
                    }
                }
                tokens.push(Token::Text(value));
            }
            first => {
                let mut word = String::from(first);
                // A colon belongs to a word only inside a time, that is after a digit.
                while let Some(next) = letters.peek().copied() {
                    let in_time = next == ':' && first.is_ascii_digit();
                    if next.is_whitespace() || matches!(next, '(' | ')' | ',' | '\'') || (next == ':' && !in_time) {
                        break;
                    }
                    word.push(next);
                    letters.next();
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Some(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn expect(&mut self, wanted: &Token) -> Option<()> {
        (self.next().as_ref() == Some(wanted)).then_some(())
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(0), Some(Token::Word(word)) if word == wanted);
        if found {
            self.at += 1;
        }
        found
    }

    fn either(&mut self) -> Option<Filter> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut left = self.both()?;
        while self.takes_word("or") {
            left = Filter::Or(Box::new(left), Box::new(self.both()?));
        }
        self.depth -= 1;
        Some(left)
    }

    fn both(&mut self) -> Option<Filter> {
        let mut left = self.one()?;
        while self.takes_word("and") {
            left = Filter::And(Box::new(left), Box::new(self.one()?));
        }
        Some(left)
    }

    fn one(&mut self) -> Option<Filter> {
        if self.takes_word("not") {
            self.depth += 1;
            let inner = if self.depth > MAX_DEPTH { None } else { self.one() };
            self.depth -= 1;
            return Some(Filter::Not(Box::new(inner?)));
        }
        if self.peek(0) == Some(&Token::Open) {
            self.at += 1;
            let inner = self.either()?;
            self.expect(&Token::Close)?;
            return Some(inner);
        }
        let Some(Token::Word(word)) = self.peek(0).cloned() else {
            return None;
        };
        let function = match word.to_ascii_lowercase().as_str() {
            "startswith" => Some(Function::StartsWith),
            "endswith" => Some(Function::EndsWith),
            "contains" => Some(Function::Contains),
            _ => None,
        };
        if let (Some(function), Some(Token::Open)) = (function, self.peek(1)) {
            self.at += 2;
            let path = self.path()?;
            self.expect(&Token::Comma)?;
            let literal = self.literal()?;
            self.expect(&Token::Close)?;
            // Some clients write `startswith(x,'y') eq true`.
            if self.takes_word("eq") {
                let call = Filter::Call(function, path, literal);
                return match self.literal()? {
                    Value::Bool(true) => Some(call),
                    Value::Bool(false) => Some(Filter::Not(Box::new(call))),
                    _ => None,
                };
            }
            return Some(Filter::Call(function, path, literal));
        }
        let mut path = self.path()?;
        if self.peek(0) == Some(&Token::Open) && path.last().is_some_and(|name| name.eq_ignore_ascii_case("any")) {
            path.pop();
            self.at += 1;
            let Some(Token::Word(name)) = self.next() else {
                return None;
            };
            self.expect(&Token::Colon)?;
            let inner = self.either()?;
            self.expect(&Token::Close)?;
            return Some(Filter::Any(path, name, Box::new(inner)));
        }
        let comparison = match self.peek(0) {
            Some(Token::Word(word)) => Comparison::parse(word),
            _ => None,
        };
        let Some(comparison) = comparison else {
            return Some(Filter::Truth(path));
        };
        self.at += 1;
        Some(Filter::Compare(path, comparison, self.literal()?))
    }

    fn path(&mut self) -> Option<Vec<String>> {
        let Token::Word(word) = self.next()? else { return None };
        if word == "cast" && self.peek(0) == Some(&Token::Open) {
            self.at += 1;
            let inner = self.path()?;
            self.expect(&Token::Comma)?;
            self.next()?;
            self.expect(&Token::Close)?;
            return Some(inner);
        }
        Some(word.split('/').map(str::to_owned).collect())
    }

    fn literal(&mut self) -> Option<Value> {
        match self.next()? {
            Token::Text(text) => Some(json!(text)),
            Token::Word(word) => Some(match word.as_str() {
                "null" => Value::Null,
                "true" => json!(true),
                "false" => json!(false),
                _ => match word.parse::<f64>() {
                    Ok(number) => json!(number),
                    // Times and enum members come without quotes.
                    Err(_) => json!(word),
                },
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, resource: &Value) -> bool {
        Filter::parse(filter).unwrap().matches(resource)
    }

    #[test]
    fn times_compare_as_times() {
        let event = json!({"start": {"dateTime": "2026-11-21T09:00:00.0000000"}, "subject": "Weekly Review"});
        assert!(matches("start/dateTime ge '2026-11-21T09:00:00'", &event));
        assert!(!matches("start/dateTime gt '2026-11-21T09:00:00Z'", &event));
        assert!(matches("start/dateTime ge '2026-11-21' and start/dateTime lt '2026-11-22'", &event));
        let user = json!({"lastModifiedDateTime": "2026-11-21T09:00:00.0000000Z"});
        assert!(matches("lastModifiedDateTime lt 2026-11-21T10:00:00Z", &user));
    }

    #[test]
    fn functions_and_precedence_work() {
        let event = json!({"subject": "Weekly Review", "isAllDay": false, "showAs": "busy"});
        assert!(matches("startswith(subject,'weekly') and not isAllDay", &event));
        assert!(matches("contains(subject,'x') or isAllDay eq false and showAs eq 'busy'", &event));
        assert!(!matches("(contains(subject,'x') or isAllDay eq false) and showAs eq 'free'", &event));
    }

    #[test]
    fn extended_properties_are_found_by_id_and_value() {
        let id = "String {66f5a359-4659-4830-9070-00047ec6ac6e} Name calbridgeId";
        let event = json!({"singleValueExtendedProperties": [{"id": id, "value": "L'1"}]});
        let wanted = "String {66F5A359-4659-4830-9070-00047EC6AC6E} Name calbridgeId";
        let filter = format!("singleValueExtendedProperties/Any(ep: ep/id eq '{wanted}' and ep/value eq 'l''1')");
        assert!(matches(&filter, &event));
        let other = format!("singleValueExtendedProperties/any(ep:ep/id eq '{wanted}X' and ep/value eq 'l''1')");
        assert!(!matches(&other, &event));
    }

    #[test]
    fn nonsense_and_deep_nesting_are_refused() {
        for filter in ["subject eq", "(subject eq 'a'", "subject eq 'a", "subject eq 'a' 'b'"] {
            assert_eq!(Filter::parse(filter).unwrap_err().status, 400, "{filter}");
        }
        assert!(Filter::parse(&format!("{}subject eq 'a'{}", "(".repeat(1000), ")".repeat(1000))).is_err());
        assert!(Filter::parse(&format!("{}isAllDay", "not ".repeat(1000))).is_err());
    }
}
