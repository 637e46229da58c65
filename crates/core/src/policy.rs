//! Every knob that a plan may read, and nothing else.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::mapping::Mapping;

/// What plans are made by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How fields convert.
    pub mapping: Mapping,
    /// How to decide.
    pub policy: Policy,
}

/// How to decide; the engine fills it from the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether anything is written.
    pub mode: Mode,
    /// What happens to events older than the enrolment.
    pub first_contact: FirstContact,
    /// Outlook honours `If-Match` on events.
    pub outlook_conditional_writes: bool,
    /// The org has both stamp fields; without them nothing is written to Salesforce.
    pub salesforce_stampable: bool,
    /// Timers.
    pub timers: Timers,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Sync,
            first_contact: FirstContact::NewOnly,
            outlook_conditional_writes: true,
            salesforce_stampable: true,
            timers: Timers::default(),
        }
    }
}

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Plans and journals, writes nothing.
    Observe,
    /// Writes.
    #[default]
    Sync,
}

/// What happens to events that are older than the enrolment of their mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstContact {
    /// They are not created on the other side.
    #[default]
    NewOnly,
    /// Outlook's are created in Salesforce.
    Outlook,
    /// Salesforce's are created in Outlook.
    Salesforce,
}

/// Waiting times; all configurable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Trailing quiet window that makes one burst one write.
    pub quiet: TimeDelta,
    /// Longest delay of a change while signals keep coming.
    pub max_wait: TimeDelta,
    /// Pauses before reading again after a stale read.
    pub stale_rereads: [TimeDelta; 3],
    /// Distance of two "not found" reads that prove absence without a delete signal.
    pub absence_proof: TimeDelta,
    /// A read that began this long after a signal covers the version that it named.
    pub settle_read: TimeDelta,
    /// Longest time a request may run.
    pub request_timeout: TimeDelta,
    /// Longest time after which a request that we gave up may still take effect.
    pub late_apply: TimeDelta,
    /// First pause after a failed write or read; doubles up to `retry_max`.
    pub retry_min: TimeDelta,
    /// Longest pause between tries.
    pub retry_max: TimeDelta,
    /// Tries before a dead letter.
    pub max_tries: u32,
    /// How long a write to Salesforce waits for its own change event; longer than the event is kept for replay.
    ///
    /// <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/event-message-durability.html>: 72 hours.
    pub audit_for: TimeDelta,
}

impl Default for Timers {
    /// The figures of `docs/ARCHITECTURE.md`; each is in `config/calbridge.default.yaml`.
    fn default() -> Self {
        Self {
            quiet: TimeDelta::milliseconds(750),
            max_wait: TimeDelta::seconds(5),
            stale_rereads: [TimeDelta::seconds(1), TimeDelta::seconds(5), TimeDelta::seconds(30)],
            absence_proof: TimeDelta::seconds(30),
            settle_read: TimeDelta::seconds(30),
            request_timeout: TimeDelta::seconds(10),
            late_apply: TimeDelta::seconds(60),
            retry_min: TimeDelta::seconds(1),
            retry_max: TimeDelta::minutes(15),
            max_tries: 12,
            audit_for: TimeDelta::hours(96),
        }
    }
}
