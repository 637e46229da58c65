//! A link: one row of the correlation table, pairing an Outlook event with a Salesforce Event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ConnectionId, LinkId, MailboxId, RecordId, WriteToken};
use crate::observed::{Snapshot, Stamp};
use crate::reason::Reason;
use crate::side::{BothSides, Side};
use crate::signal::Version;
use crate::value::{Fields, Value};

/// Versions of an Outlook record that a link remembers.
///
/// Change keys have no order, so "older" can only mean "one we saw before"; 32 covers the longest burst seen (4) many
/// times over.
pub const REMEMBERED_VERSIONS: usize = 32;

/// One meeting on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Our id, stamped into both records.
    pub id: LinkId,
    /// The connection.
    pub connection: ConnectionId,
    /// Outlook's `iCalUId`; empty until the Outlook event exists.
    pub ical_uid: String,
    /// Original start of an occurrence, else empty.
    pub original_start: String,
    /// Rises when a deleted meeting is brought back.
    pub generation: u32,
    /// The copy that speaks for the meeting, and the Salesforce Event.
    pub replicas: BothSides<Option<Replica>>,
    /// Other mailboxes' copies of the same meeting.
    pub copies: BTreeSet<RecordId>,
    /// Per mapping rule, what both sides last agreed on.
    pub base: BTreeMap<String, BaseField>,
    /// Writes whose result is unknown; at most one a side.
    pub intents: BothSides<Option<Intent>>,
    /// Writes to Salesforce that took effect and whose own change event has not come yet.
    #[serde(default)]
    pub unaudited: Vec<Unaudited>,
    /// What runs remember about writes that wait, and about those made.
    #[serde(default)]
    pub care: Care,
    /// Where the link stands.
    pub state: LinkState,
    /// Rises with each commit.
    pub revision: u64,
    /// Who changed the meeting last.
    pub last_writer: Option<Side>,
    /// When the link was made.
    pub created: DateTime<Utc>,
    /// When both sides were last seen in step.
    pub in_step_at: Option<DateTime<Utc>>,
}

/// One side's record of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The record.
    pub record: RecordId,
    /// The version last seen, if any read or answer showed one.
    pub version: Option<Version>,
    /// The latest modification time seen; reads with an earlier one are older than what is known.
    pub modified: Option<DateTime<Utc>>,
    /// Versions known to be superseded (Outlook: keys; Salesforce: the newest modstamp that our writes replaced).
    pub superseded: VecDeque<Version>,
    /// Since when reads say "not found"; none while it is found.
    pub missing_since: Option<DateTime<Utc>>,
    /// Set while reads show something older than what is known: which version, and since when.
    #[serde(default)]
    pub stale: Option<(Version, DateTime<Utc>)>,
    /// A version was notified that no read showed: the record is read once more then.
    #[serde(default)]
    pub look_at: Option<DateTime<Utc>>,
    /// The stamp of our last confirmed write.
    pub stamped: Option<Stamp>,
    /// This copy is the organiser's: when it goes, the meeting is gone.
    pub organizer: bool,
}

impl Replica {
    /// Starts a replica that was never read.
    pub fn new(record: RecordId) -> Self {
        Self {
            record,
            version: None,
            modified: None,
            superseded: VecDeque::new(),
            missing_since: None,
            stale: None,
            look_at: None,
            stamped: None,
            organizer: true,
        }
    }

    /// Takes note that a snapshot shows the newest version known.
    pub fn advance(&mut self, snapshot: &Snapshot) {
        self.modified = self.modified.max(Some(snapshot.modified));
        self.note_version(snapshot.version.clone());
    }

    /// Takes note that `version` is now the newest one known.
    pub fn note_version(&mut self, version: Version) {
        if self.version.as_ref() == Some(&version) {
            return;
        }
        self.superseded.retain(|old| *old != version);
        if let Some(old) = self.version.replace(version) {
            self.supersede(old);
        }
    }

    /// Takes note that `version` was replaced, by whatever.
    pub fn supersede(&mut self, version: Version) {
        if !self.superseded.contains(&version) {
            self.superseded.push_back(version);
        }
        while self.superseded.len() > REMEMBERED_VERSIONS {
            self.superseded.pop_front();
        }
    }

    /// Tells whether a snapshot is older than what is known.
    ///
    /// Change keys have no order: a key that was seen before and is not the newest one is older, and so is any snapshot
    /// with an earlier modification time, because a lagging read may show a version that nobody saw in its time.
    /// Salesforce's answer to a write names no version; a read without the stamp of that write is older than it.
    pub fn is_stale(&self, snapshot: &Snapshot) -> bool {
        let token = |stamp: &Option<Stamp>| stamp.as_ref().and_then(|stamp| stamp.token);
        if self.stamped.is_some() && token(&self.stamped) != token(&snapshot.stamp) {
            return true;
        }
        if self.modified.is_some_and(|known| snapshot.modified < known) {
            return true;
        }
        match &snapshot.version {
            version @ Version::ChangeKey(_) => {
                let later = self.modified.is_some_and(|known| snapshot.modified > known);
                !later && self.version.as_ref() != Some(version) && self.superseded.contains(version)
            }
            Version::Modstamp(seen) => {
                let older_than_known = matches!(&self.version, Some(Version::Modstamp(known)) if seen < known);
                older_than_known || self.superseded.iter().any(|old| matches!(old, Version::Modstamp(o) if seen <= o))
            }
        }
    }
}

/// Per rule, the value each side had when they last agreed.
///
/// Two values, because a mapping may lose something on the way; neither loss is ever taken for an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseField {
    /// Outlook's canonical value.
    pub outlook: Value,
    /// Salesforce's canonical value.
    pub salesforce: Value,
    /// Hash of the rule that mapped them; another rule makes the base unknown.
    pub rule: String,
}

/// What runs remember about writes that wait, and about those made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Care {
    /// A write that is wanted and waits for its time or for a person.
    pub pending: Option<Pending>,
    /// A person approved what was held; in force until both sides agree.
    pub approved: Option<Approval>,
    /// A person chose whose values both sides shall hold; in force until they do, or until either side changes.
    #[serde(default)]
    pub chosen: Option<Choice>,
    /// Writes that failed one after the other; failed reads are not among them.
    #[serde(default)]
    pub failed_writes: u32,
    /// When a write last made Exchange mail people.
    pub mailed_at: Option<DateTime<Utc>>,
    /// When a write to a side last took effect.
    pub wrote: BothSides<Option<DateTime<Utc>>>,
    /// When writes were made that no person's edit explains, oldest first; those of a day.
    pub unexplained: VecDeque<DateTime<Utc>>,
}

impl Care {
    /// Returns what is remembered of writes that were made, and nothing of those that are wanted.
    pub(crate) fn of_the_past(&self) -> Self {
        let Self { mailed_at, wrote, unexplained, .. } = self.clone();
        Self { mailed_at, wrote, unexplained, ..Self::default() }
    }
}

/// What a person approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Why it was held.
    pub reason: Reason,
    /// What it would do; nothing else is approved by it.
    pub wish: Wish,
}

/// Whose values a person chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The side whose values stay.
    pub side: Side,
    /// Per rule, the values that were chosen between; an edit that came later is another question.
    pub between: BTreeMap<String, BaseField>,
}

/// A write that is wanted and not made yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What it would do.
    pub wish: Wish,
    /// The side that would be written.
    pub side: Side,
    /// Since when it is wanted.
    pub since: DateTime<Utc>,
    /// When its cause was last seen to change.
    pub changed_at: DateTime<Utc>,
    /// The version that was its cause; none for a deletion.
    pub version: Option<Version>,
    /// The Salesforce user who caused it, by 18-character id, where one is known.
    pub author: Option<String>,
}

/// What a write that waits would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Delete the record of the other side.
    Delete,
    /// Change the Outlook event, of which Exchange mails its attendees.
    Mail,
}

impl Wish {
    /// Returns the stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Mail => "mail",
        }
    }

    /// Returns what it would do, in words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Delete => "delete it on the other side",
            Self::Mail => "change it in Outlook, of which Exchange mails the attendees",
        }
    }
}

/// Where a link stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Both sides are meant to exist.
    Live,
    /// The meeting was deleted; what remains keeps it deleted.
    Tombstone {
        /// Why.
        reason: Reason,
        /// Since when.
        at: DateTime<Utc>,
    },
    /// Waits for a person's decision.
    Held {
        /// Why.
        reason: Reason,
        /// Since when.
        at: DateTime<Utc>,
    },
    /// Failed and needs a person.
    DeadLetter {
        /// Why.
        reason: Reason,
        /// Since when.
        at: DateTime<Utc>,
    },
    /// Failed, and a person set it aside until the next edit.
    Skipped {
        /// Why it failed.
        reason: Reason,
        /// Since when.
        at: DateTime<Utc>,
    },
}

/// A write recorded before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Names the write; stamped into the record by it.
    pub token: WriteToken,
    /// The link it belongs to.
    pub link: LinkId,
    /// The side written to.
    pub side: Side,
    /// What is done.
    pub action: Action,
    /// Values to write, in the written side's fields.
    pub fields: Fields,
    /// Per rule: the written side's target value and the other side's value it came from.
    pub agreed: BTreeMap<String, BaseField>,
    /// Values that the write replaces, in the written side's fields.
    pub replaced: Fields,
    /// The version the plan was made from; sent as precondition where the side honours one.
    pub expected: Option<Version>,
    /// The stamp to leave.
    pub stamp: Stamp,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Latest time at which it may leave: what takes longer is planned anew.
    pub send_by: DateTime<Utc>,
    /// After this a write that has not shown up never will.
    pub give_up_at: DateTime<Utc>,
    /// How often it was sent.
    pub sends: u32,
    /// People whom Exchange mails because of it.
    pub mails: u32,
    /// No person's edit explains it, as far as anybody can tell.
    #[serde(default)]
    pub unexplained: bool,
    /// Why.
    pub reason: Reason,
}

/// A write that took effect, kept until its change event shows what lay before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unaudited {
    /// Names the write.
    pub token: WriteToken,
    /// The record written.
    pub record: RecordId,
    /// It deleted the record.
    pub deletes: bool,
    /// Values as they were read before the write, in the record's fields.
    pub replaced: Fields,
    /// Values written, in the record's fields.
    pub written: Fields,
    /// The version that was read.
    pub expected: Option<Version>,
    /// When the write was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// What an intent does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Makes a record.
    Create(Home),
    /// Changes a record.
    Update(RecordId),
    /// Deletes a record.
    Delete(RecordId),
}

impl Action {
    /// Returns the record, where there already is one.
    pub fn record(&self) -> Option<&RecordId> {
        match self {
            Self::Create(_) => None,
            Self::Update(record) | Self::Delete(record) => Some(record),
        }
    }

    /// Returns the stable name: `create`, `update` or `delete`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(_) => "update",
            Self::Delete(_) => "delete",
        }
    }
}

/// In whose calendar a record is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// A mailbox.
    Mailbox(MailboxId),
    /// A Salesforce user, by 18-character id.
    Owner(String),
}
