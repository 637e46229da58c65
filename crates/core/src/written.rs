//! What a remote answered to a write.

use serde::{Deserialize, Serialize};

use crate::ids::RecordId;
use crate::observed::{Snapshot, Why};
use crate::signal::Version;

/// Code of a write that was not sent, because it was recorded too long ago.
pub const TOO_LATE: &str = "CB1209";

/// The result of sending one intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteResult {
    /// The remote says that it took effect.
    Applied {
        /// The record (new for a creation).
        record: RecordId,
        /// Its version, where the answer tells.
        version: Option<Version>,
        /// Its state after the write, where the answer tells.
        snapshot: Option<Box<Snapshot>>,
    },
    /// The precondition did not hold: it had no effect.
    Conflict(Why),
    /// There is no such record any more (or its creation found one that exists).
    Gone(Why),
    /// A record with this link id exists already.
    AlreadyExists(Why),
    /// Refused for good: it had no effect and never will.
    Refused(Why),
    /// Refused for now, certainly without effect (throttled, locked, no token).
    NotNow(Why),
    /// Nobody knows whether it took effect.
    Unknown(Why),
}
