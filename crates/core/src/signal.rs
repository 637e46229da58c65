//! A signal: something changed, look there. Never a command, never trusted for its content.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ConnectionId, MailboxId, RecordId, StreamId, WriteToken};
use crate::side::Side;
use crate::value::Fields;

/// What a listener makes of one wire message item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The connection whose credentials or subscription it came by.
    pub connection: ConnectionId,
    /// The side that changed.
    pub side: Side,
    /// Where to look.
    pub target: Target,
    /// What the message says happened.
    pub change: Change,
    /// Why the engine looks.
    pub cause: SignalCause,
    /// The version the message names.
    pub version: Option<Version>,
    /// What a change event says beyond that.
    pub facts: Option<ChangeFact>,
    /// Where in which stream it stood.
    pub position: Option<Position>,
    /// When it reached us, by the engine's clock.
    pub received_at: DateTime<Utc>,
}

/// Where to look; a gap or a lost subscription has no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One record.
    Record(RecordId),
    /// Everything in one mailbox.
    Mailbox(MailboxId),
    /// Everything in the Salesforce org.
    Org,
}

/// What a message says happened; evidence of absence needs more than `Deleted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Came into being.
    Created,
    /// Changed.
    Updated,
    /// Went away.
    Deleted,
    /// Came back.
    Undeleted,
    /// Unknown: found by a sweep, a gap, an operator.
    Unknown,
}

/// Why the engine looks; causes other than a notification bypass the dedup cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalCause {
    /// A stream delivered it.
    Notification,
    /// The first round after enrolling a mailbox.
    Enrolment,
    /// The periodic comparison.
    Sweep,
    /// Repair after a gap.
    Gap,
    /// A person asked.
    Operator,
}

/// A remote's version of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// Outlook's change key: opaque, without order. <https://learn.microsoft.com/graph/api/resources/event>
    ChangeKey(String),
    /// Salesforce's SystemModstamp, or a change event's commit time (whole seconds).
    Modstamp(DateTime<Utc>),
}

/// The header of a Salesforce change event.
///
/// <https://developer.salesforce.com/docs/atlas.en-us.change_data_capture.meta/change_data_capture/cdc_event_fields_header.htm>
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeFact {
    /// `changeOrigin`; may be empty.
    pub origin: String,
    /// `commitUser`, 18 characters.
    pub user: String,
    /// `transactionKey` and `sequenceNumber`, joined by `/`.
    pub transaction: String,
    /// When the change was committed.
    pub committed: DateTime<Utc>,
    /// Names of the changed fields, as mapping files call them.
    pub changed: BTreeSet<String>,
    /// The event makes the record private; its values are not to be kept.
    pub private: bool,
    /// Values of those changed fields that the event carries completely.
    pub values: Fields,
    /// Token of the write of ours that made the change, if the event carries one.
    pub token: Option<WriteToken>,
}

impl fmt::Debug for ChangeFact {
    /// Shows the names of fields, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeFact")
            .field("origin", &self.origin)
            .field("user", &self.user)
            .field("transaction", &self.transaction)
            .field("committed", &self.committed)
            .field("changed", &self.changed)
            .field("private", &self.private)
            .field("values", &self.values.keys())
            .field("token", &self.token)
            .finish()
    }
}

/// A place in a durable stream, or the time of the round that found a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The stream.
    pub stream: StreamId,
    /// Offset, replay id (hex), delta link, or when the round looked (RFC 3339).
    pub value: String,
}
