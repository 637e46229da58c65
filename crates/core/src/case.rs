//! A case: all that is known about one meeting when a worker plans it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ConnectionId, LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use crate::link::Link;
use crate::observed::Observed;
use crate::reason::Reason;
use crate::side::Side;
use crate::signal::{ChangeFact, SignalCause, Version};
use crate::value::When;

/// One meeting, as read just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The connection.
    pub connection: ConnectionId,
    /// The row of the correlation table, if the meeting is linked.
    pub link: Option<Link>,
    /// Reads of every record that leads to this meeting: linked, notified and found.
    pub reads: BTreeMap<RecordId, Observed>,
    /// What the dirty rows say.
    pub notices: Vec<Notice>,
    /// Enrolments of the mailboxes and users concerned.
    pub enrolments: Vec<Enrolment>,
    /// Answers to look-ups that an earlier planning round asked for.
    pub lookups: Vec<(Lookup, Answer)>,
    /// What change events said about the Salesforce record, in the order of their stream; see `plan/audit.rs`.
    pub facts: Vec<Fact>,
    /// What a person said about the meeting since its last run.
    pub instruction: Option<Instruction>,
    /// Consecutive runs of this lane that failed.
    pub tries: u32,
}

/// What a person tells calbridge to do about one meeting; the surfaces check that it fits what the meeting waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    /// Do what is held.
    Approve,
    /// Do not do what is held.
    Discard,
    /// Try what failed again.
    Retry,
    /// Leave what failed alone until the next edit.
    Skip,
    /// Make both sides hold this side's values.
    Keep(Side),
}

impl Instruction {
    /// Returns the reason by which the journal names it.
    pub fn reason(self) -> Reason {
        match self {
            Self::Approve => Reason::Approved,
            Self::Discard => Reason::Discarded,
            Self::Retry => Reason::Retried,
            Self::Skip => Reason::Skipped,
            Self::Keep(Side::Outlook) => Reason::KeptOutlook,
            Self::Keep(Side::Salesforce) => Reason::KeptSalesforce,
        }
    }
}

/// What a dirty row says about one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The record.
    pub record: RecordId,
    /// A message said that it was deleted.
    pub deleted: bool,
    /// Versions named by messages that no read has covered yet; at most 16.
    pub versions: Vec<Version>,
    /// When the newest of these messages came.
    pub last_signal_at: DateTime<Utc>,
    /// Why the engine looks.
    pub cause: SignalCause,
}

/// What one change event said about one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The record.
    pub record: RecordId,
    /// The event said that the record was deleted.
    pub deleted: bool,
    /// The header, and the mapped values that the event carried.
    pub facts: ChangeFact,
}

/// One mailbox paired with one Salesforce user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The Salesforce user, 18 characters.
    pub user: SalesforceId,
    /// When the pair was enrolled; older events are "first contact".
    pub enrolled_at: DateTime<Utc>,
}

/// A question that a plan needs answered before it can be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lookup {
    /// The present state of a record that no signal named.
    Read(RecordId),
    /// Records of a side that carry the stamp of a link; deleted ones included where the side keeps them.
    Stamped {
        /// Where to search.
        side: Side,
        /// The link.
        link: LinkId,
        /// The mailbox to search, for Outlook.
        mailbox: Option<MailboxId>,
    },
    /// Records of a side whose stamp names a record as their partner; deleted ones included where the side keeps them.
    Partners {
        /// Where to search.
        side: Side,
        /// The record that is named.
        of: RecordId,
        /// The mailbox to search, for Outlook.
        mailbox: Option<MailboxId>,
    },
    /// Unlinked records of a user that start at the same time as a record about to be created.
    Candidates {
        /// Where to search.
        side: Side,
        /// Whose calendar.
        enrolment: (MailboxId, SalesforceId),
        /// The time of the meeting, as text: see [`When`]'s serialised form.
        when: String,
    },
    /// How much of a budget other meetings have used up.
    Census {
        /// The link that asks; it is not counted.
        link: LinkId,
        /// The mailbox whose meetings are counted, if the meeting has one.
        mailbox: Option<MailboxId>,
        /// The Salesforce user whose doings are counted, if one is known.
        author: Option<String>,
    },
}

/// What other meetings of a mailbox, and of an author, have used up or want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Census {
    /// Linked meetings of the mailbox.
    pub links_in_mailbox: u32,
    /// Deletions in the mailbox: made without approval within [`Guard::DELETES_WITHIN`], waiting, or held.
    ///
    /// [`Guard::DELETES_WITHIN`]: crate::policy::Guard::DELETES_WITHIN
    pub deletes_in_mailbox: u32,
    /// Deletions by the author, counted likewise.
    pub deletes_by_author: u32,
    /// Writes by the author that mailed people, made without approval within [`Guard::MAILS_WITHIN`].
    ///
    /// [`Guard::MAILS_WITHIN`]: crate::policy::Guard::MAILS_WITHIN
    pub mails_by_author: u32,
}

impl Lookup {
    /// Asks for unlinked records at the time of a meeting.
    pub fn candidates(side: Side, enrolment: &Enrolment, when: &When) -> Self {
        let when = serde_json::to_string(when).expect("plain data always serialises");
        Self::Candidates { side, enrolment: (enrolment.mailbox.clone(), enrolment.user.clone()), when }
    }
}

/// The answer to a look-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was read or found; an empty list means that nothing was found.
    Found(Vec<(RecordId, Observed)>),
    /// What was counted.
    Counted(Census),
    /// The question could not be answered now.
    Failed(crate::observed::Why),
}

/// Ids drawn by the engine before planning, and journaled, so that a plan can be made again bit for bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// For a new link.
    pub link: LinkId,
    /// For a write to Outlook.
    pub outlook: WriteToken,
    /// For a write to Salesforce.
    pub salesforce: WriteToken,
}

impl Fresh {
    /// Returns the token for a write to `side`.
    pub fn token(&self, side: Side) -> WriteToken {
        match side {
            Side::Outlook => self.outlook,
            Side::Salesforce => self.salesforce,
        }
    }
}
