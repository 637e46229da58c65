//! From tokens to a query whose fields are known to exist.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Utc};

use super::super::cell::{midnight, parse_datetime};
use super::super::error::SalesforceError;
use super::super::ids;
use super::super::schema::{Field, Kind, Object};
use super::lexer::{Token, tokens};
use super::malformed;
use crate::faults::Switches;

/// Depth of parentheses and NOTs that is still read; what is nested deeper is refused.
const MAX_DEPTH: usize = 64;

/// A field of the queried object, or of a record it refers to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) field: &'static Field,
    pub(super) via: Option<Relationship>,
}

/// A way from one record to another, such as `Owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relationship {
    pub(super) name: &'static str,
    /// The field that holds the other record's id.
    pub(super) key: &'static str,
    pub(super) target: Object,
}

const RELATIONSHIPS: [Relationship; 5] = [
    Relationship { name: "Owner", key: "OwnerId", target: Object::User },
    Relationship { name: "CreatedBy", key: "CreatedById", target: Object::User },
    Relationship { name: "LastModifiedBy", key: "LastModifiedById", target: Object::User },
    Relationship { name: "Relation", key: "RelationId", target: Object::User },
    Relationship { name: "Event", key: "EventId", target: Object::Event },
];

/// What a query selects.
#[derive(Debug)]
pub(super) enum Selection {
    Columns(Vec<Column>),
    /// `COUNT()`: only the total.
    Count,
    /// `COUNT(field)` under an alias: one aggregate row.
    CountOf(Column, String),
}

#[derive(Debug)]
pub(super) struct Query {
    pub(super) object: Object,
    pub(super) selection: Selection,
    pub(super) filter: Option<Filter>,
    pub(super) order: Vec<Order>,
    pub(super) limit: Option<usize>,
    pub(super) offset: usize,
}

#[derive(Debug)]
pub(super) struct Order {
    pub(super) column: Column,
    pub(super) descending: bool,
    pub(super) nulls_last: bool,
}

#[derive(Debug)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Compare(Column, Operator, Literal),
    In(Column, Vec<Literal>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    Like,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// Half-open span: a day, several days, or one instant when both ends are equal.
    Span(DateTime<Utc>, DateTime<Utc>),
}

/// Parses and resolves a query.
pub(super) fn parse(query: &str, switches: &Switches, now: DateTime<Utc>) -> Result<Query, SalesforceError> {
    let tokens = tokens(query)?;
    let from =
        tokens.iter().position(|token| token.is("FROM")).ok_or_else(|| malformed("unexpected token: '<EOF>'"))?;
    let Some(Token::Word(object_name)) = tokens.get(from + 1) else {
        let shown = tokens.get(from + 1).map_or("<EOF>", Token::shown);
        return Err(malformed(format!("unexpected token: '{shown}'")));
    };
    let Some(object) = Object::named(object_name) else {
        let message = format!("sObject type '{object_name}' is not supported.");
        return Err(SalesforceError::bad("INVALID_TYPE", message));
    };
    let alias = match tokens.get(from + 2) {
        Some(Token::Word(word)) if !AFTER_OBJECT.iter().any(|known| word.eq_ignore_ascii_case(known)) => {
            Some(word.as_str())
        }
        _ => None,
    };
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, object, alias, switches, now };
    parser.query(from)
}

/// Words that may follow the object's name; another one is its alias.
const AFTER_OBJECT: [&str; 11] =
    ["WHERE", "ORDER", "LIMIT", "OFFSET", "GROUP", "HAVING", "WITH", "USING", "FOR", "ALL", "UPDATE"];

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    object: Object,
    /// Name that stands for the object: `FROM Event e`.
    alias: Option<&'a str>,
    switches: &'a Switches,
    now: DateTime<Utc>,
}

impl Parser<'_> {
    fn query(&mut self, from: usize) -> Result<Query, SalesforceError> {
        self.expect("SELECT")?;
        let selection = self.selection()?;
        if self.at != from {
            return Err(self.unexpected());
        }
        self.at += 2 + usize::from(self.alias.is_some());
        let filter = if self.take("WHERE") { Some(self.conditions()?) } else { None };
        let mut order = Vec::new();
        if self.take("ORDER") {
            self.expect("BY")?;
            loop {
                order.push(self.order()?);
                if !self.take_sign(",") {
                    break;
                }
            }
        }
        let limit = if self.take("LIMIT") { Some(self.number()?) } else { None };
        let offset = if self.take("OFFSET") { self.number()? } else { 0 };
        if offset > 2000 {
            let message = "Maximum SOQL offset allowed is 2000";
            return Err(SalesforceError::bad("NUMBER_OUTSIDE_VALID_RANGE", message));
        }
        if self.at < self.tokens.len() {
            return Err(self.unexpected());
        }
        Ok(Query { object: self.object, selection, filter, order, limit, offset })
    }

    fn selection(&mut self) -> Result<Selection, SalesforceError> {
        let counts = self.peek().is_some_and(|token| token.is("COUNT"))
            && self.tokens.get(self.at + 1) == Some(&Token::Sign("("));
        if counts {
            self.at += 2;
            if self.take_sign(")") {
                return Ok(Selection::Count);
            }
            let column = self.column()?;
            self.expect_sign(")")?;
            let alias =
                if self.peek().is_some_and(|token| token.is("FROM")) { "expr0".to_owned() } else { self.word()? };
            return Ok(Selection::CountOf(column, alias));
        }
        let mut columns = vec![self.column()?];
        while self.take_sign(",") {
            columns.push(self.column()?);
        }
        Ok(Selection::Columns(columns))
    }

    fn column(&mut self) -> Result<Column, SalesforceError> {
        let path = self.word()?;
        let own = |head: &str| {
            head.eq_ignore_ascii_case(self.object.name())
                || self.alias.is_some_and(|alias| head.eq_ignore_ascii_case(alias))
        };
        let path = path.split_once('.').filter(|(head, _)| own(head)).map_or(path.as_str(), |(_, rest)| rest);
        let missing = |object: Object, name: &str| {
            let message = format!(
                "No such column '{name}' on entity '{}'. If you are attempting to use a custom field, be sure to append \
                 the '__c' after the custom field name.",
                object.name()
            );
            SalesforceError::bad("INVALID_FIELD", message)
        };
        let Some((relationship, name)) = path.split_once('.') else {
            let field = self.object.field(path, self.switches).ok_or_else(|| missing(self.object, path))?;
            return Ok(Column { field, via: None });
        };
        let via = RELATIONSHIPS.into_iter().find(|known| known.name.eq_ignore_ascii_case(relationship));
        let via = via.filter(|known| self.object.field(known.key, self.switches).is_some()).ok_or_else(|| {
            let message = format!("Didn't understand relationship '{relationship}' in field path.");
            SalesforceError::bad("INVALID_FIELD", message)
        })?;
        let field = via.target.field(name, self.switches).ok_or_else(|| missing(via.target, name))?;
        Ok(Column { field, via: Some(via) })
    }

    /// Reads conditions; AND and OR may not mix without parentheses.
    fn conditions(&mut self) -> Result<Filter, SalesforceError> {
        let first = self.condition()?;
        for (keyword, combine) in [("AND", Filter::All as fn(Vec<Filter>) -> Filter), ("OR", Filter::Any)] {
            if self.peek().is_some_and(|token| token.is(keyword)) {
                let mut parts = vec![first];
                while self.take(keyword) {
                    parts.push(self.condition()?);
                }
                if self.peek().is_some_and(|token| token.is("AND") || token.is("OR")) {
                    return Err(self.unexpected());
                }
                return Ok(combine(parts));
            }
        }
        Ok(first)
    }

    fn condition(&mut self) -> Result<Filter, SalesforceError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(malformed("the conditions are nested too deeply"));
        }
        let condition = self.nested_condition();
        self.depth -= 1;
        condition
    }

    fn nested_condition(&mut self) -> Result<Filter, SalesforceError> {
        if self.take_sign("(") {
            let inner = self.conditions()?;
            self.expect_sign(")")?;
            return Ok(inner);
        }
        if self.take("NOT") {
            return Ok(Filter::Not(Box::new(self.condition()?)));
        }
        let column = self.column()?;
        if !column.field.filter {
            let message = format!("field '{}' can not be filtered in a query call", column.field.name);
            return Err(SalesforceError::bad("INVALID_FIELD", message));
        }
        let negated = self.take("NOT");
        if self.take("IN") {
            self.expect_sign("(")?;
            let mut values = vec![self.literal(column)?];
            while self.take_sign(",") {
                values.push(self.literal(column)?);
            }
            self.expect_sign(")")?;
            let within = Filter::In(column, values);
            return Ok(if negated { Filter::Not(Box::new(within)) } else { within });
        }
        if negated {
            return Err(self.unexpected());
        }
        let operator = self.operator()?;
        if operator == Operator::Like && !is_text(column.field.kind) {
            let message = format!("invalid operator on {} field", column.field.kind.describe());
            return Err(SalesforceError::bad("INVALID_QUERY_FILTER_OPERATOR", message));
        }
        let literal = self.literal(column)?;
        Ok(Filter::Compare(column, operator, literal))
    }

    fn operator(&mut self) -> Result<Operator, SalesforceError> {
        let operator = match self.peek() {
            Some(Token::Sign("=")) => Operator::Equal,
            Some(Token::Sign("!=" | "<>")) => Operator::Unequal,
            Some(Token::Sign("<")) => Operator::Less,
            Some(Token::Sign(">")) => Operator::Greater,
            Some(Token::Sign("<=")) => Operator::LessOrEqual,
            Some(Token::Sign(">=")) => Operator::GreaterOrEqual,
            Some(token) if token.is("LIKE") => Operator::Like,
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(operator)
    }

    /// Reads a literal of the type that the column asks for.
    fn literal(&mut self, column: Column) -> Result<Literal, SalesforceError> {
        let token = self.peek().cloned().ok_or_else(|| self.unexpected())?;
        self.at += 1;
        if token.is("NULL") {
            return Ok(Literal::Null);
        }
        let field = column.field;
        let wrong = |kind: &str, quotes: &str| {
            let message = format!(
                "value of filter criterion for field '{}' must be of type {kind} and should {quotes} in quotes",
                field.name
            );
            Err(SalesforceError::bad("INVALID_FIELD", message))
        };
        match (field.kind, &token) {
            (Kind::Id | Kind::Reference(_), Token::Text(text)) => {
                ids::normalise(text).map(Literal::Text).ok_or_else(|| {
                    let message = format!("invalid ID field: {text}");
                    SalesforceError::bad("INVALID_QUERY_FILTER_OPERATOR", message)
                })
            }
            (kind, Token::Text(text)) if is_text(kind) => Ok(Literal::Text(text.clone())),
            (Kind::Id | Kind::Reference(_), _) => wrong("id", "be enclosed"),
            (kind, _) if is_text(kind) => wrong("string", "be enclosed"),
            (Kind::Bool, Token::Word(word)) if word.eq_ignore_ascii_case("true") => Ok(Literal::Bool(true)),
            (Kind::Bool, Token::Word(word)) if word.eq_ignore_ascii_case("false") => Ok(Literal::Bool(false)),
            (Kind::Int, Token::Word(word)) if word.parse::<f64>().is_ok_and(f64::is_finite) => {
                Ok(Literal::Number(word.parse().unwrap_or_default()))
            }
            (Kind::DateTime | Kind::Date, Token::Word(word)) => match self.span(word, field.kind) {
                Some(literal) => Ok(literal),
                None => wrong(if field.kind == Kind::Date { "date" } else { "dateTime" }, "not be enclosed"),
            },
            (kind, _) => wrong(kind.describe(), "not be enclosed"),
        }
    }

    fn span(&self, word: &str, kind: Kind) -> Option<Literal> {
        let days = |first: NaiveDate, count: u64| {
            let last = first.checked_add_days(Days::new(count))?;
            Some(Literal::Span(midnight(first), midnight(last)))
        };
        let today = self.now.date_naive();
        let upper = word.to_ascii_uppercase();
        match upper.split_once(':').map_or((upper.as_str(), None), |(name, count)| (name, count.parse().ok())) {
            ("TODAY", None) => return days(today, 1),
            ("YESTERDAY", None) => return days(today.pred_opt()?, 1),
            ("TOMORROW", None) => return days(today.succ_opt()?, 1),
            ("LAST_N_DAYS", Some(count)) => return days(today.checked_sub_days(Days::new(count))?, count + 1),
            ("NEXT_N_DAYS", Some(count)) => return days(today.succ_opt()?, count),
            _ => {}
        }
        if let Some(span) = calendar_span(&upper, today) {
            return Some(Literal::Span(midnight(span.0), midnight(span.1)));
        }
        if kind == Kind::Date {
            return word.parse().ok().map(|day| Literal::Span(midnight(day), midnight(day)));
        }
        parse_datetime(word).map(|at| Literal::Span(at, at))
    }

    fn order(&mut self) -> Result<Order, SalesforceError> {
        let column = self.column()?;
        let descending = self.take("DESC");
        if !descending {
            self.take("ASC");
        }
        let mut nulls_last = false;
        if self.take("NULLS") {
            nulls_last = self.take("LAST");
            if !nulls_last {
                self.expect("FIRST")?;
            }
        }
        Ok(Order { column, descending, nulls_last })
    }

    fn number(&mut self) -> Result<usize, SalesforceError> {
        let word = self.word()?;
        word.parse().map_err(|_error| malformed(format!("unexpected token: '{word}'")))
    }

    fn word(&mut self) -> Result<String, SalesforceError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(keyword));
        self.at += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &'static str) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, keyword: &str) -> Result<(), SalesforceError> {
        if self.take(keyword) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_sign(&mut self, sign: &'static str) -> Result<(), SalesforceError> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> SalesforceError {
        malformed(format!("unexpected token: '{}'", self.peek().map_or("<EOF>", Token::shown)))
    }
}

/// Returns the first day of a week, month or year literal and the day after its last; weeks begin on Sunday.
///
/// <https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_dateformats.htm>
fn calendar_span(name: &str, today: NaiveDate) -> Option<(NaiveDate, NaiveDate)> {
    let (which, unit) = name.split_once('_')?;
    let step: i32 = match which {
        "LAST" => -1,
        "THIS" => 0,
        "NEXT" => 1,
        _ => return None,
    };
    let months = |first: NaiveDate, count: i32| {
        let by = Months::new(count.unsigned_abs());
        if count < 0 { first.checked_sub_months(by) } else { first.checked_add_months(by) }
    };
    match unit {
        "WEEK" => {
            let sunday = today.checked_sub_days(Days::new(today.weekday().num_days_from_sunday().into()))?;
            let first = sunday.checked_add_signed(chrono::TimeDelta::weeks(step.into()))?;
            Some((first, first.checked_add_days(Days::new(7))?))
        }
        "MONTH" => {
            let first = months(today.with_day(1)?, step)?;
            Some((first, months(first, 1)?))
        }
        "YEAR" => {
            let first = months(today.with_ordinal(1)?, step.checked_mul(12)?)?;
            Some((first, months(first, 12)?))
        }
        _ => None,
    }
}

fn is_text(kind: Kind) -> bool {
    matches!(kind, Kind::Text | Kind::Combobox | Kind::TextArea | Kind::Picklist(_) | Kind::Restricted(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Result<Query, SalesforceError> {
        parse(query, &Switches::default(), DateTime::from_timestamp(1_790_000_000, 0).unwrap())
    }

    fn code(query: &str) -> &'static str {
        parsed(query).map(|query| format!("{query:?}")).unwrap_err().code
    }

    #[test]
    fn every_clause_is_understood() {
        let query = parsed(
            "select Id, owner.name FROM Event WHERE (Subject LIKE 'A%' OR Location = null) AND NOT (IsChild = true) \
             AND SystemModstamp >= 2026-11-20T00:00:00Z AND Id NOT IN ('00U000000000001') \
             ORDER BY StartDateTime DESC NULLS LAST, Id LIMIT 5 OFFSET 2",
        )
        .unwrap();
        assert_eq!((query.object, query.limit, query.offset, query.order.len()), (Object::Event, Some(5), 2, 2));
        assert!(matches!(query.filter, Some(Filter::All(parts)) if parts.len() == 4));
        assert!(matches!(parsed("SELECT COUNT() FROM User").unwrap().selection, Selection::Count));
        assert!(
            matches!(parsed("SELECT COUNT(Id) n FROM Event").unwrap().selection, Selection::CountOf(_, alias) if alias == "n")
        );
    }

    #[test]
    fn an_alias_stands_for_the_object() {
        let query = parsed("SELECT e.Id, e.Owner.Name FROM Event e WHERE e.Subject = 'x' ORDER BY e.Id").unwrap();
        assert!(matches!(query.selection, Selection::Columns(columns) if columns.len() == 2));
        assert_eq!(code("SELECT f.Id FROM Event e"), "INVALID_FIELD");
    }

    #[test]
    fn weeks_months_and_years_are_whole_calendar_spans() {
        let today = NaiveDate::from_ymd_opt(2026, 11, 21).unwrap();
        let days = |name: &str| calendar_span(name, today).map(|(first, end)| format!("{first} {end}"));
        assert_eq!(days("THIS_WEEK").as_deref(), Some("2026-11-15 2026-11-22"));
        assert_eq!(days("LAST_MONTH").as_deref(), Some("2026-10-01 2026-11-01"));
        assert_eq!(days("NEXT_YEAR").as_deref(), Some("2027-01-01 2028-01-01"));
        assert_eq!(days("THIS_LIFE"), None);
        assert!(parsed("SELECT Id FROM Event WHERE ActivityDate = THIS_MONTH").is_ok());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |open: &str, close: &str| {
            let (open, close) = (open.repeat(20_000), close.repeat(20_000));
            code(&format!("SELECT Id FROM Event WHERE {open}IsChild = true{close}"))
        };
        assert_eq!((nested("(", ")"), nested("NOT ", "")), ("MALFORMED_QUERY", "MALFORMED_QUERY"));
    }

    #[test]
    fn mistakes_are_told_apart() {
        for (query, expected) in [
            ("SELECT Nope FROM Event", "INVALID_FIELD"),
            ("SELECT Id FROM Meeting", "INVALID_TYPE"),
            ("SELECT Id Event", "MALFORMED_QUERY"),
            ("SELECT Id FROM", "MALFORMED_QUERY"),
            ("SELECT Id FROM 'Event'", "MALFORMED_QUERY"),
            ("SELECT Id FROM Event WHERE", "MALFORMED_QUERY"),
            ("SELECT Id FROM Event WHERE Subject = 'open", "MALFORMED_QUERY"),
            ("SELECT Id FROM Event WHERE IsChild = true AND IsPrivate = true OR Subject = 'x'", "MALFORMED_QUERY"),
            ("SELECT Id FROM Event GROUP BY Subject", "MALFORMED_QUERY"),
            ("SELECT Id FROM Event WHERE Description = 'x'", "INVALID_FIELD"),
            ("SELECT Id FROM Event WHERE StartDateTime > '2026-01-01T00:00:00Z'", "INVALID_FIELD"),
            ("SELECT Id FROM Event WHERE Subject = 5", "INVALID_FIELD"),
            ("SELECT Id FROM Event WHERE Id = 'nonsense'", "INVALID_QUERY_FILTER_OPERATOR"),
            ("SELECT Id FROM Event WHERE DurationInMinutes LIKE '3%'", "INVALID_QUERY_FILTER_OPERATOR"),
            ("SELECT Id FROM Event OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE"),
        ] {
            assert_eq!(code(query), expected, "{query}");
        }
    }
}
