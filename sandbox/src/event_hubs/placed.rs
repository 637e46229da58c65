//! Messages that a test or the control API places on the hub as they are, in forms that Graph never sends.

use fe2o3_amqp_types::messaging::{AmqpSequence, AmqpValue, Body, Data, Message};
use fe2o3_amqp_types::primitives::{Binary, LazyValue, Value};
use serde::{Deserialize, Serialize};
use serde_amqp::read::SliceReader;

use super::log::HubLog;

/// The body of a placed message, in each form that AMQP knows (AMQP 1.0, part 3, section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawBody {
    /// Data sections; Event Hubs senders use exactly one.
    Sections(Vec<Vec<u8>>),
    /// One section with a text as its value.
    Text(String),
    /// One section with a list of texts.
    Sequence(Vec<String>),
    /// A value of nothing at all.
    Nothing,
    /// A section whose bytes are written as they are: framed like a value, whatever is inside.
    Broken(Vec<u8>),
}

impl RawBody {
    /// A text that is no UTF-8, which AMQP forbids (part 1, section 1.6.20).
    pub fn text_that_is_none() -> Self {
        Self::Broken(vec![0xa1, 2, 0xff, 0xfe])
    }
}

/// The sequence number that readers are shown with a placed message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbered {
    /// The one it has.
    #[default]
    Next,
    /// That of the message before it, as a broken sender's repetition would show.
    Again,
    /// None.
    Missing,
}

impl HubLog {
    /// Appends a message of any form to a partition; returns its true sequence number, none if there is no such partition or
    /// [`RawBody::Broken`] is not even framed like a value.
    pub fn place(&self, partition: usize, body: RawBody, numbered: Numbered) -> Option<i64> {
        if partition >= self.partitions() {
            return None;
        }
        let binary = |bytes: Vec<u8>| Data(Binary::from(bytes));
        let mut as_it_is = None;
        let body: Body<Value> = match body {
            RawBody::Broken(bytes) => {
                let framed = LazyValue::from_reader(&mut SliceReader::new(&bytes));
                as_it_is = Some(framed.ok()?);
                Body::Value(AmqpValue(Value::Null))
            }
            RawBody::Sections(sections) => Body::Data(sections.into_iter().map(binary).collect::<Vec<_>>().into()),
            RawBody::Text(text) => Body::Value(AmqpValue(Value::String(text))),
            RawBody::Sequence(texts) => {
                Body::Sequence(vec![AmqpSequence(texts.into_iter().map(Value::String).collect())].into())
            }
            RawBody::Nothing => Body::Value(AmqpValue(Value::Null)),
        };
        let message = Message::builder().data(Binary::new()).build().map_body(|_empty: Data| body);
        Some(self.append_numbered(partition, None, message, numbered, as_it_is))
    }
}
