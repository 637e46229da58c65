//! What a link address names, and where a reader's filter starts. Pure parsing; no state.

use fe2o3_amqp_types::messaging::Source;
use fe2o3_amqp_types::primitives::{Symbol, Value};

/// Key of the position filter in a source's filter set.
const SELECTOR: &str = "apache.org:selector-filter:string";

/// A node that a link can be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// `$cbs`: tokens.
    Tokens,
    /// `$management`: properties of hub and partitions.
    Management,
    /// A hub, to send to.
    Hub {
        /// Name as given.
        hub: String,
    },
    /// A partition, to send to.
    Partition {
        /// Name of the hub as given.
        hub: String,
        /// Partition id as given.
        partition: String,
    },
    /// A partition, to read from.
    Reader {
        /// Name of the hub as given.
        hub: String,
        /// Consumer group as given.
        group: String,
        /// Partition id as given.
        partition: String,
    },
    /// Nothing that Event Hubs has.
    Unknown,
}

/// Returns the path of an address as lower-case segments: whole URLs and bare paths name the same things.
pub(super) fn segments(address: &str) -> Vec<String> {
    path(address).map(str::to_lowercase).collect()
}

/// Tells what an address names.
pub(super) fn parse(address: &str) -> Node {
    let parts: Vec<&str> = path(address).collect();
    let is = |index: usize, word: &str| parts.get(index).is_some_and(|part| part.eq_ignore_ascii_case(word));
    let owned = |index: usize| parts.get(index).map(|part| (*part).to_owned()).unwrap_or_default();
    match parts.len() {
        1 if is(0, "$cbs") => Node::Tokens,
        1 if is(0, "$management") => Node::Management,
        1 => Node::Hub { hub: owned(0) },
        2 if is(1, "$management") => Node::Management,
        2 if is(1, "$cbs") => Node::Tokens,
        3 if is(1, "Partitions") => Node::Partition { hub: owned(0), partition: owned(2) },
        5 if is(1, "ConsumerGroups") && is(3, "Partitions") => {
            Node::Reader { hub: owned(0), group: owned(2), partition: owned(4) }
        }
        _ => Node::Unknown,
    }
}

fn path(address: &str) -> impl Iterator<Item = &str> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map(|(_, path)| path).unwrap_or_default(),
        None => address,
    };
    path.split('/').filter(|part| !part.is_empty())
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The oldest event retained.
    Earliest,
    /// The first event that comes after the link.
    Latest,
    /// From an offset.
    Offset {
        /// The offset.
        value: i64,
        /// The event at the offset itself is wanted too.
        inclusive: bool,
    },
    /// From a sequence number.
    Sequence {
        /// The sequence number.
        value: i64,
        /// The event of that number itself is wanted too.
        inclusive: bool,
    },
    /// From a time.
    Enqueued {
        /// Milliseconds since 1970.
        millis: i64,
        /// Events of that very millisecond are wanted too.
        inclusive: bool,
    },
}

/// A filter that Event Hubs does not know, as the client wrote it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadFilter(pub(super) String);

/// Reads the start position of a link's source; without a filter, the oldest event.
pub(super) fn start_of(source: &Source) -> Result<Start, BadFilter> {
    let selector = source.filter.as_ref().and_then(|filters| filters.get(&Symbol::from(SELECTOR)));
    let text = match selector {
        None | Some(Value::Null) => return Ok(Start::Earliest),
        Some(Value::Described(described)) => text_of(&described.value),
        Some(value) => text_of(value),
    };
    let Some(text) = text else {
        return Err(BadFilter(format!("{selector:?}")));
    };
    parse_filter(text).ok_or_else(|| BadFilter(text.to_owned()))
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Symbol(text) => Some(text.as_str()),
        _ => None,
    }
}

fn parse_filter(text: &str) -> Option<Start> {
    let (field, rest) = text.split_once('>')?;
    let (inclusive, value) = match rest.strip_prefix('=') {
        Some(value) => (true, value),
        None => (false, rest),
    };
    let value = value.trim();
    let value = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value);
    match field.trim().strip_prefix("amqp.annotation.")? {
        "x-opt-offset" if value.eq_ignore_ascii_case("@latest") => Some(Start::Latest),
        "x-opt-offset" => match value.parse().ok()? {
            -1 => Some(Start::Earliest),
            value => Some(Start::Offset { value, inclusive }),
        },
        "x-opt-sequence-number" => Some(Start::Sequence { value: value.parse().ok()?, inclusive }),
        "x-opt-enqueued-time" => Some(Start::Enqueued { millis: value.parse().ok()?, inclusive }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_bare_paths_name_the_same_nodes() {
        let reader = Node::Reader { hub: "meetings".into(), group: "$Default".into(), partition: "3".into() };
        for address in [
            "amqps://ns.example/meetings/ConsumerGroups/$Default/Partitions/3",
            "amqps://localhost:5671/meetings/consumergroups/$Default/partitions/3",
            "meetings/ConsumerGroups/$Default/Partitions/3",
        ] {
            assert_eq!(parse(address), reader, "{address}");
        }
        assert_eq!(parse("amqps://ns/meetings"), Node::Hub { hub: "meetings".into() });
        assert_eq!(
            parse("sb://ns/meetings/Partitions/0"),
            Node::Partition { hub: "meetings".into(), partition: "0".into() }
        );
        assert_eq!(parse("$cbs"), Node::Tokens);
        assert_eq!(parse("$management"), Node::Management);
        assert_eq!(parse("meetings/$management"), Node::Management);
        assert_eq!(parse("amqps://ns"), Node::Unknown);
        assert_eq!(parse("a/b/c/d"), Node::Unknown);
    }

    #[test]
    fn filters_are_read_whatever_their_spacing() {
        let cases = [
            ("amqp.annotation.x-opt-offset > '-1'", Start::Earliest),
            ("amqp.annotation.x-opt-offset > '@latest'", Start::Latest),
            ("amqp.annotation.x-opt-offset >'123'", Start::Offset { value: 123, inclusive: false }),
            ("amqp.annotation.x-opt-offset >= '123'", Start::Offset { value: 123, inclusive: true }),
            ("amqp.annotation.x-opt-sequence-number >'5'", Start::Sequence { value: 5, inclusive: false }),
            ("amqp.annotation.x-opt-sequence-number >='5'", Start::Sequence { value: 5, inclusive: true }),
            ("amqp.annotation.x-opt-enqueued-time > '99'", Start::Enqueued { millis: 99, inclusive: false }),
        ];
        for (text, start) in cases {
            assert_eq!(parse_filter(text), Some(start), "{text}");
        }
        for bad in ["amqp.annotation.x-opt-offset > no offset", "x-opt-offset > '1'", "amqp.annotation.other > '1'", ""]
        {
            assert_eq!(parse_filter(bad), None, "{bad}");
        }
    }
}
