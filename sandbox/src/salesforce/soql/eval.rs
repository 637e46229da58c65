//! Runs a query over the rows.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::super::cell::{Cell, midnight};
use super::super::error::SalesforceError;
use super::super::tx::{Row, State};
use super::parser::{Column, Filter, Literal, Operator, Order, Query, Selection, parse};
use crate::faults::Switches;

/// What a query found.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Number of matching rows, as `totalSize` tells it.
    pub(crate) total: usize,
    /// Selected values with their `attributes`; empty for `COUNT()`.
    pub(crate) records: Vec<Value>,
}

/// Parses and runs a query; rows that are archived or in the recycle bin take part only when `include_deleted`.
pub(crate) fn run(
    state: &State,
    query: &str,
    version: &str,
    switches: &Switches,
    now: DateTime<Utc>,
    include_deleted: bool,
) -> Result<Answer, SalesforceError> {
    let query = parse(query, switches, now)?;
    let plainly_there = |row: &Row| !row.is_deleted() && !row.cell("IsArchived").is_true();
    let in_scope = |row: &&Row| row.object == query.object && (include_deleted || plainly_there(row));
    let mut rows: Vec<&Row> = state
        .rows
        .values()
        .filter(in_scope)
        .filter(|row| query.filter.as_ref().is_none_or(|filter| holds(state, row, filter)))
        .collect();
    rows.sort_by(|one, other| compare_rows(state, one, other, &query.order));
    let rows: Vec<&Row> = rows.into_iter().skip(query.offset).take(query.limit.unwrap_or(usize::MAX)).collect();
    let total = rows.len();
    let records = match &query.selection {
        Selection::Count => Vec::new(),
        Selection::CountOf(column, alias) => {
            let count = rows.iter().filter(|row| !value(state, row, *column).is_null()).count();
            let row = json!({ "attributes": { "type": "AggregateResult" }, alias.as_str(): count });
            return Ok(Answer { total: 1, records: vec![row] });
        }
        Selection::Columns(columns) => rows.iter().map(|row| selected(state, row, columns, version, &query)).collect(),
    };
    Ok(Answer { total, records })
}

fn value(state: &State, row: &Row, column: Column) -> Cell {
    let Some(via) = column.via else {
        return row.cell(column.field.name).clone();
    };
    let related = row.cell(via.key).as_text().and_then(|id| state.rows.get(id));
    related.map_or(Cell::Null, |related| related.cell(column.field.name).clone())
}

fn selected(state: &State, row: &Row, columns: &[Column], version: &str, query: &Query) -> Value {
    let mut record = Map::new();
    record.insert("attributes".to_owned(), attributes(query.object.name(), query.object.name(), &row.id, version));
    for column in columns {
        let json = value(state, row, *column).to_json();
        let Some(via) = column.via else {
            record.insert(column.field.name.to_owned(), json);
            continue;
        };
        let related = row.cell(via.key).as_text().and_then(|id| state.rows.get(id));
        let Some(related) = related else {
            record.insert(via.name.to_owned(), Value::Null);
            continue;
        };
        // A reference that may name several kinds of records shows the generic type `Name`.
        let shown = if matches!(via.name, "Owner" | "Relation") { "Name" } else { via.target.name() };
        let inner = record
            .entry(via.name)
            .or_insert_with(|| json!({ "attributes": attributes(shown, via.target.name(), &related.id, version) }));
        inner[column.field.name] = json;
    }
    Value::Object(record)
}

fn attributes(shown: &str, object: &str, id: &str, version: &str) -> Value {
    json!({ "type": shown, "url": format!("/services/data/v{version}/sobjects/{object}/{id}") })
}

fn holds(state: &State, row: &Row, filter: &Filter) -> bool {
    match filter {
        Filter::All(parts) => parts.iter().all(|part| holds(state, row, part)),
        Filter::Any(parts) => parts.iter().any(|part| holds(state, row, part)),
        Filter::Not(inner) => !holds(state, row, inner),
        Filter::Compare(column, operator, literal) => compare(&value(state, row, *column), *operator, literal),
        Filter::In(column, literals) => {
            let cell = value(state, row, *column);
            literals.iter().any(|literal| compare(&cell, Operator::Equal, literal))
        }
    }
}

fn compare(cell: &Cell, operator: Operator, literal: &Literal) -> bool {
    if *literal == Literal::Null {
        return match operator {
            Operator::Equal => cell.is_null(),
            Operator::Unequal => !cell.is_null(),
            _ => false,
        };
    }
    if operator == Operator::Like {
        let (Cell::Text(text), Literal::Text(pattern)) = (cell, literal) else {
            return false;
        };
        return like(&text.to_lowercase(), &pattern.to_lowercase());
    }
    let Some(ordering) = order_against(cell, literal) else {
        // Null is unequal to every value and neither less nor greater.
        return operator == Operator::Unequal;
    };
    match operator {
        Operator::Equal => ordering == Ordering::Equal,
        Operator::Unequal => ordering != Ordering::Equal,
        Operator::Less => ordering == Ordering::Less,
        Operator::Greater => ordering == Ordering::Greater,
        Operator::LessOrEqual => ordering != Ordering::Greater,
        Operator::GreaterOrEqual => ordering != Ordering::Less,
        Operator::Like => false,
    }
}

fn order_against(cell: &Cell, literal: &Literal) -> Option<Ordering> {
    match (cell, literal) {
        (Cell::Text(text), Literal::Text(other)) => Some(text.to_lowercase().cmp(&other.to_lowercase())),
        (Cell::Bool(flag), Literal::Bool(other)) => Some(flag.cmp(other)),
        #[expect(clippy::cast_precision_loss, reason = "numbers of this table are small")]
        (Cell::Int(number), Literal::Number(other)) => (*number as f64).partial_cmp(other),
        (Cell::DateTime(at), Literal::Span(from, to)) => Some(order_in_span(*at, *from, *to)),
        (Cell::Date(day), Literal::Span(from, to)) => Some(order_in_span(midnight(*day), *from, *to)),
        _ => None,
    }
}

fn order_in_span(at: DateTime<Utc>, from: DateTime<Utc>, to: DateTime<Utc>) -> Ordering {
    if from == to {
        at.cmp(&from)
    } else if at < from {
        Ordering::Less
    } else if at >= to {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// Matches `%` (any text) and `_` (one character); a backslash makes the next one plain.
fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            '%' => Piece::Any,
            '_' => Piece::One,
            '\\' => Piece::Plain(letters.next().unwrap_or('\\')),
            other => Piece::Plain(other),
        });
    }
    // Row by row: which ends of the text the pieces so far can reach.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for piece in pieces {
        let mut next = vec![false; text.len() + 1];
        let mut seen = false;
        for end in 0..=text.len() {
            seen |= reach[end];
            next[end] = match piece {
                Piece::Any => seen,
                Piece::One => end > 0 && reach[end - 1],
                Piece::Plain(letter) => end > 0 && reach[end - 1] && text[end - 1] == letter,
            };
        }
        reach = next;
    }
    reach[text.len()]
}

#[derive(Debug, Clone, Copy)]
enum Piece {
    Any,
    One,
    Plain(char),
}

fn compare_rows(state: &State, one: &Row, other: &Row, order: &[Order]) -> Ordering {
    for rule in order {
        let (left, right) = (value(state, one, rule.column), value(state, other, rule.column));
        let ordering = match (left.is_null(), right.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if rule.nulls_last => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, true) if rule.nulls_last => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => {
                let plain = match (&left, &right) {
                    (Cell::Text(left), Cell::Text(right)) => left.to_lowercase().cmp(&right.to_lowercase()),
                    _ => left.cmp(&right),
                };
                if rule.descending { plain.reverse() } else { plain }
            }
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_matches_wildcards_and_escaped_ones() {
        assert!(like("weekly review", "week%view"));
        assert!(like("abc", "a_c"));
        assert!(!like("abbc", "a_c"));
        assert!(like("100%", "100\\%"));
        assert!(!like("1000", "100\\%"));
        assert!(like("", "%"));
    }

    #[test]
    fn null_is_neither_less_nor_greater() {
        let text = Literal::Text("x".into());
        assert!(compare(&Cell::Null, Operator::Unequal, &text));
        assert!(!compare(&Cell::Null, Operator::Less, &text));
        assert!(!compare(&Cell::Null, Operator::Equal, &text));
        assert!(compare(&Cell::Null, Operator::Equal, &Literal::Null));
    }

    #[test]
    fn text_comparison_ignores_letter_case() {
        assert!(compare(&Cell::Text("Review".into()), Operator::Equal, &Literal::Text("REVIEW".into())));
    }
}
