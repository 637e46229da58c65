//! What a read of one record showed. Absence needs evidence; an error is not absence.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{LinkId, MailboxId, RecordId, WriteToken};
use crate::signal::Version;
use crate::value::Fields;

/// The result of reading one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// The record and its present values.
    Present(Box<Snapshot>),
    /// The remote says that there is no such record.
    Absent(Evidence),
    /// The read failed; nothing is known.
    Unread(Why),
}

/// How strongly the remote says that a record is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The remote showed the deleted row (Salesforce `IsDeleted`).
    Deleted,
    /// The remote does not find it; a candidate absence until confirmed.
    NotFound,
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Stable error code of the adapter, such as `CB1301`.
    pub code: String,
    /// What happened, without personal content.
    pub message: String,
    /// When to try again, in milliseconds from now, if the remote said.
    pub retry_after_ms: Option<u64>,
}

/// The present state of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: Version,
    /// When the read began, by the engine's clock.
    pub read_at: DateTime<Utc>,
    /// When the remote says it was made.
    pub created: DateTime<Utc>,
    /// When the remote says it last changed.
    pub modified: DateTime<Utc>,
    /// Who changed it last, if the remote tells: a Salesforce user id.
    pub modified_by: Option<String>,
    /// What our last write left inside it.
    pub stamp: Option<Stamp>,
    /// What decides whether and how it takes part.
    pub traits: Traits,
    /// Values of all fields that the mapping names.
    pub fields: Fields,
}

/// Properties outside the mapping that rules look at.
#[expect(clippy::struct_excessive_bools, reason = "four independent facts of a record, each named by its remote")]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traits {
    /// Outlook's `iCalUId`: the same in every mailbox.
    pub ical_uid: Option<String>,
    /// Original start of an occurrence, empty otherwise.
    pub original_start: String,
    /// Plain event, series, occurrence or copy.
    pub kind: RecordKind,
    /// This copy is the organiser's (always true for Salesforce).
    pub is_organizer: bool,
    /// The organiser's mailbox, where that is another one which is enrolled: its copy speaks for the meeting.
    #[serde(default)]
    pub organizer: Option<MailboxId>,
    /// Number of people invited.
    pub attendees: u32,
    /// Private or confidential.
    pub private: bool,
    /// Called off by its organiser.
    pub cancelled: bool,
    /// Not sent yet.
    pub draft: bool,
    /// Salesforce `OwnerId`.
    pub owner: Option<String>,
}

/// What kind of calendar item a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A single event.
    #[default]
    Single,
    /// The master of a series.
    SeriesMaster,
    /// One instance of a series.
    Occurrence,
    /// An instance that differs from its series.
    Exception,
    /// A copy that the remote itself keeps for an invited user (Salesforce `IsChild`).
    Child,
}

/// What a write leaves inside the record; one stamped side is enough to rebuild a lost link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Our link.
    pub link: LinkId,
    /// The partner's record id as its remote knows it; empty while unknown.
    pub partner: String,
    /// Token of the last write; none where only the link id is present.
    pub token: Option<WriteToken>,
}

impl Stamp {
    /// Writes the form kept in the Outlook extended property: `v1;link;partner;token`.
    pub fn encode(&self) -> String {
        let token = self.token.map(|token| token.to_string()).unwrap_or_default();
        format!("v1;{};{};{token}", self.link, self.partner)
    }

    /// Reads [`Stamp::encode`]'s form; none when the text is not ours.
    pub fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        if parts.next()? != "v1" {
            return None;
        }
        let link = parts.next()?.parse().ok()?;
        let partner = parts.next()?.to_owned();
        let token = parts.next()?;
        let token = if token.is_empty() { None } else { Some(token.parse().ok()?) };
        parts.next().is_none().then_some(Self { link, partner, token })
    }
}
