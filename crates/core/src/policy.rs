//! Every knob that a plan may read, and nothing else.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
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
    /// What happens to a meeting that is deleted on one side and edited on the other.
    pub delete_conflict: DeleteConflict,
    /// Which writes to Outlook may make Exchange mail people.
    pub mail: MailPolicy,
    /// Past meetings with attendees are written too.
    pub past_meetings: bool,
    /// Salesforce users, by 18-character id, whose edits are no person's: flows, integrations, calbridge's own user.
    pub automation_users: BTreeSet<String>,
    /// How much may happen at once without a person's approval.
    pub guard: Guard,
    /// When the database was last restored from a backup: what is older may have been written since that backup was made.
    pub restored_at: Option<DateTime<Utc>>,
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
            delete_conflict: DeleteConflict::DeleteWins,
            mail: MailPolicy::PersonEdits,
            past_meetings: false,
            automation_users: BTreeSet::new(),
            guard: Guard::default(),
            restored_at: None,
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

/// What happens to a meeting that is deleted on one side and edited on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteConflict {
    /// It is deleted; the edited values are kept in the journal.
    #[default]
    DeleteWins,
    /// It is made again where it was deleted, as a new generation of the link.
    EditWins,
}

/// Which writes to Outlook may make Exchange mail people.
///
/// Exchange mails attendees of its own accord, and Graph has no switch against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailPolicy {
    /// None: such changes stay in Salesforce.
    Never,
    /// Those that carry a person's edit; others wait for approval.
    #[default]
    PersonEdits,
    /// All.
    Always,
}

/// How much may happen at once without a person's approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Deletions that one mailbox may have in an hour, however few meetings it has.
    pub deletes_least: u32,
    /// Deletions that one mailbox may have in an hour, in percent of its linked meetings.
    pub deletes_percent: u32,
    /// Deletions that one Salesforce user may cause in an hour, over all mailboxes.
    pub deletes_by_author: u32,
    /// Writes that mail people which one author may cause in ten minutes, over all mailboxes.
    pub mails_by_author: u32,
    /// Writes to one meeting in ten minutes that no person's edit explains.
    pub unexplained_in_10_minutes: u32,
    /// Writes to one meeting in a day that no person's edit explains.
    pub unexplained_in_a_day: u32,
}

impl Guard {
    /// Window of the limits on deletions.
    pub const DELETES_WITHIN: TimeDelta = TimeDelta::hours(1);
    /// Window of the limit on mails.
    pub const MAILS_WITHIN: TimeDelta = TimeDelta::minutes(10);

    /// Returns how many deletions a mailbox with so many linked meetings may have in an hour.
    pub fn deletes_in_mailbox(&self, links: u32) -> u32 {
        let share = u64::from(links) * u64::from(self.deletes_percent) / 100;
        self.deletes_least.max(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

impl Default for Guard {
    /// The figures of `config/calbridge.default.yaml`.
    fn default() -> Self {
        Self {
            deletes_least: 10,
            deletes_percent: 5,
            deletes_by_author: 25,
            mails_by_author: 20,
            unexplained_in_10_minutes: 6,
            unexplained_in_a_day: 30,
        }
    }
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
    /// How long a deletion waits before it is carried over, so that a mass deletion is seen as a whole.
    pub delete_wait: TimeDelta,
    /// How long a write that would mail people waits for quiet after an earlier one, and a deletion that would always.
    pub mail_quiet: TimeDelta,
    /// Longest time that such a write waits while edits keep coming.
    pub mail_max_wait: TimeDelta,
    /// A change of a side within this time after our own write to it counts as a reaction to it, unless a person made it.
    pub reaction: TimeDelta,
}

impl Timers {
    /// Returns the pause before the next try: doubles with each failed one, and half of it is left to chance.
    ///
    /// Chance comes from outside, as it does everywhere in the core; any number will do.
    pub fn backoff(&self, tries: u32, chance: u128) -> TimeDelta {
        let doubled = self.retry_min.checked_mul(1 << tries.min(20)).unwrap_or(self.retry_max).min(self.retry_max);
        let half = doubled / 2;
        let thousandths = i32::try_from(chance % 1_000).unwrap_or_default();
        half + half / 1_000 * thousandths
    }
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
            delete_wait: TimeDelta::seconds(10),
            mail_quiet: TimeDelta::seconds(60),
            mail_max_wait: TimeDelta::minutes(5),
            reaction: TimeDelta::minutes(2),
        }
    }
}
