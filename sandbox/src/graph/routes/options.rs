//! Query options of OData: `$select`, `$expand`, `$filter`, `$orderby`, `$top`, `$skip`, `$count`.

use serde_json::{Map, Value, json};

use super::super::error::GraphError;
use super::super::filter::Filter;
use super::Call;

/// Items on a page when the client says nothing (unconfirmed).
const PAGE: usize = 10;
/// Largest `$top` (unconfirmed).
const MAX_TOP: usize = 1000;

/// An item of `$expand` with the filter in its parentheses.
#[derive(Debug, Clone)]
pub(super) struct Expand {
    pub name: String,
    pub filter: Option<Filter>,
}

/// The options of one request.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub select: Option<Vec<String>>,
    pub expand: Vec<Expand>,
    filter: Option<Filter>,
    order: Vec<(Vec<String>, bool)>,
    page: usize,
    skip: usize,
    count: bool,
}

impl Options {
    pub(super) fn parse(call: &Call) -> Result<Self, GraphError> {
        let select = call.parameter("$select").map(|list| names(list).collect::<Vec<_>>());
        let mut expand = Vec::new();
        for part in call.parameter("$expand").map(split_top_level).unwrap_or_default() {
            let (name, inner) = match part.split_once('(') {
                Some((name, inner)) => (name, inner.trim_end().trim_end_matches(')')),
                None => (part.as_str(), ""),
            };
            // Closing parentheses of the filter itself went with the outer one.
            let missing = inner.matches('(').count().saturating_sub(inner.matches(')').count());
            let inner = format!("{inner}{}", ")".repeat(missing));
            let filter = inner.split(';').find_map(|option| option.trim().strip_prefix("$filter="));
            expand.push(Expand { name: name.trim().to_owned(), filter: filter.map(Filter::parse).transpose()? });
        }
        let mut order = Vec::new();
        for term in call.parameter("$orderby").into_iter().flat_map(names) {
            let mut words = term.split_whitespace();
            let path = words.next().unwrap_or_default().split('/').map(str::to_owned).collect();
            order.push((path, words.next().is_some_and(|word| word.eq_ignore_ascii_case("desc"))));
        }
        let top = number(call, "$top")?;
        if top == Some(0) || top.is_some_and(|top| top > MAX_TOP) {
            return Err(GraphError::new(400, "ErrorInvalidUrlQuery", "The $top value must be between 1 and 1000."));
        }
        Ok(Self {
            select,
            expand,
            filter: call.parameter("$filter").map(Filter::parse).transpose()?,
            order,
            page: top.or(call.prefer.page_size).unwrap_or(PAGE),
            skip: number(call, "$skip")?.unwrap_or(0),
            count: call.parameter("$count").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        })
    }

    /// Refuses names that the type does not have, in `$select`, `$expand`, `$orderby` and `$filter`.
    ///
    /// # Errors
    /// 400 naming the first stranger.
    pub(super) fn only(self, type_name: &str, known: &[&str]) -> Result<Self, GraphError> {
        let mut used: Vec<&str> = self.select.iter().flatten().map(String::as_str).collect();
        used.extend(self.expand.iter().map(|expand| expand.name.as_str()));
        used.extend(self.order.iter().filter_map(|(path, _)| path.first()).map(String::as_str));
        used.extend(self.filter.iter().flat_map(Filter::properties));
        let first = |name: &&str| name.split('/').next().unwrap_or_default().to_owned();
        let stranger = used.iter().map(first).find(|name| {
            name != "*" && !name.contains('.') && !known.iter().any(|known| known.eq_ignore_ascii_case(name))
        });
        match stranger {
            None => Ok(self),
            Some(name) => {
                let message = format!("Could not find a property named '{name}' on type '{type_name}'.");
                Err(GraphError::bad_request(message))
            }
        }
    }

    /// Tells whether the list is filtered or ordered, so that the compared form of its resources is needed.
    pub(super) fn compares(&self) -> bool {
        self.filter.is_some() || !self.order.is_empty()
    }

    pub(super) fn selects(&self, name: &str) -> bool {
        self.select.as_ref().is_some_and(|names| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    pub(super) fn expands(&self, name: &str) -> Option<&Expand> {
        self.expand.iter().find(|expand| expand.name.eq_ignore_ascii_case(name))
    }

    /// Reduces a resource to the selected properties; id, annotations and expanded properties stay.
    pub(super) fn reduce(&self, resource: Value) -> Value {
        let Value::Object(all) = resource else { return resource };
        if self.select.is_none() || self.selects("*") {
            return Value::Object(all);
        }
        let kept: Map<String, Value> = all
            .into_iter()
            .filter(|(name, _)| {
                name == "id" || name.starts_with('@') || self.selects(name) || self.expands(name).is_some()
            })
            .collect();
        Value::Object(kept)
    }

    /// Filters, orders and pages a list, and makes the answer with its next link.
    ///
    /// `list` holds for each resource the form that is compared (times in UTC, extended properties included); null will
    /// do where [`Options::compares`] says that nothing is compared.
    pub(super) fn answer<T>(
        &self,
        call: &Call,
        context: &str,
        list: Vec<(Value, T)>,
        mut render: impl FnMut(T) -> Value,
    ) -> Value {
        let mut list = list;
        if let Some(filter) = &self.filter {
            list.retain(|(resource, _)| filter.matches(resource));
        }
        if !self.order.is_empty() {
            list.sort_by(|(left, _), (right, _)| {
                let orders = self.order.iter().map(|(path, descending)| {
                    let order = sort_key(left, path).cmp(&sort_key(right, path));
                    if *descending { order.reverse() } else { order }
                });
                orders.into_iter().find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
            });
        }
        let total = list.len();
        let values: Vec<Value> =
            list.into_iter().skip(self.skip).take(self.page).map(|(_, item)| self.reduce(render(item))).collect();
        let mut answer = json!({"@odata.context": call.context(context), "value": values});
        if self.count {
            answer["@odata.count"] = json!(total);
        }
        let next = self.skip.saturating_add(self.page);
        if next < total {
            let next = next.to_string();
            let mut query: Vec<(&str, &str)> =
                call.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            query.retain(|(name, _)| !name.eq_ignore_ascii_case("$skip"));
            query.push(("$skip", &next));
            answer["@odata.nextLink"] = json!(call.link(&query));
        }
        answer
    }
}

fn number(call: &Call, name: &str) -> Result<Option<usize>, GraphError> {
    let wrong = |_error| GraphError::new(400, "ErrorInvalidUrlQuery", format!("The value of {name} is not a number."));
    call.parameter(name).map(|value| value.parse().map_err(wrong)).transpose()
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn sort_key(resource: &Value, path: &[String]) -> String {
    let mut at = resource;
    for name in path {
        at = at.get(name).unwrap_or(&Value::Null);
    }
    match at {
        Value::String(text) => text.to_lowercase(),
        other => other.to_string(),
    }
}

/// Splits at commas outside parentheses and quotes.
fn split_top_level(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut quoted) = (0_usize, false);
    for c in list.chars() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == ',' && depth == 0 && !quoted {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}
