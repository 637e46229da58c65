//! The plan: what one run decides about one meeting. A value: print it, execute it, replay it, simulate it.
//!
//! [`plan()`] is a pure function of the case, the rules, the time and fresh ids. Its parts, in the order in which they run:
//!
//! | file | question it answers |
//! |---|---|
//! | `unlinked.rs` | does a record without a link take part, and where is it created? |
//! | `intents.rs` | what became of a write whose result is unknown? |
//! | `restored.rs` | what did a lost or restored database forget? |
//! | `presence.rs` | does each side still have the meeting? |
//! | `caution.rs` | may a deletion or a mail leave now, or at all? |
//! | `merge.rs` | which fields changed, who wins, what is written? |
//! | `cover.rs` | which notices does this run answer? |
//! | `audit.rs` | did a write of ours cover an edit that nobody had seen? |

mod audit;
mod caution;
mod cover;
mod intents;
mod merge;
mod presence;
mod restored;
mod run;
mod unlinked;

pub use run::{aliases, plan};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::case::Lookup;
use crate::ids::{MailboxId, RecordId, WriteToken};
use crate::link::{Intent, Link};
use crate::reason::Reason;
use crate::side::Side;
use crate::value::Value;

/// Either a plan, or the look-ups that it still needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// Answer these and plan again.
    Need(Vec<Lookup>),
    /// The decision.
    Plan(Box<Plan>),
}

/// One run's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is sent, in order; each is recorded as an open intent in `next` before.
    pub steps: Vec<Intent>,
    /// How the run ends.
    pub outcome: Outcome,
    /// Every reason that applied, the deciding one first.
    pub reasons: Vec<Reason>,
    /// Field by field what was decided, for the journal.
    pub decisions: Vec<Decision>,
    /// Which mails Exchange is expected to send because of the steps.
    pub mail: MailEffect,
    /// The link to store, if there is one.
    pub next: Option<Link>,
    /// Records whose notices this run covers; the others stay dirty.
    pub covered: Vec<RecordId>,
    /// Records that lead to this meeting from now on.
    pub aliases: Vec<Alias>,
    /// Run again then, if nothing happens before.
    pub wake_at: Option<DateTime<Utc>>,
    /// Number of notices that were our own writes coming back.
    pub echoes: u32,
    /// Facts of change events that came before this are no longer needed.
    pub facts_from: DateTime<Utc>,
    /// What the steps use up; the plan is void when another meeting used it up before.
    pub spends: Vec<Spend>,
    /// The instruction of the case was followed and need not be kept.
    pub instructed: bool,
}

/// One use of something that is limited, to be counted when the plan is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// What it is taken from.
    pub budget: Budget,
    /// How many uses there may be, this one included.
    pub limit: u32,
    /// Uses from then on count.
    pub since: DateTime<Utc>,
}

/// Something of which there is only so much.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Deletions of meetings of a mailbox.
    DeletesInMailbox(MailboxId),
    /// Deletions by a Salesforce user.
    DeletesByAuthor(String),
    /// Writes that mail people, by a Salesforce user.
    MailsByAuthor(String),
}

impl Budget {
    /// Returns the stored kind and name.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::DeletesInMailbox(mailbox) => ("deletes_in_mailbox", mailbox.as_str()),
            Self::DeletesByAuthor(author) => ("deletes_by_author", author),
            Self::MailsByAuthor(author) => ("mails_by_author", author),
        }
    }
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing to do: both sides agree.
    InStep,
    /// Something is written.
    Write,
    /// It is decided, and done at a later time.
    Deferred,
    /// The record does not take part; final until it changes.
    Skip,
    /// Nothing can be decided yet.
    Wait,
    /// A person decides.
    Hold,
    /// Failed; a person must act.
    DeadLetter,
    /// The meeting is over with on both sides.
    Deleted,
}

impl Outcome {
    /// Returns the stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::InStep => "in_step",
            Self::Write => "write",
            Self::Deferred => "deferred",
            Self::Skip => "skip",
            Self::Wait => "wait",
            Self::Hold => "hold",
            Self::DeadLetter => "dead_letter",
            Self::Deleted => "deleted",
        }
    }
}

/// What was decided about one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Name of the mapping rule.
    pub rule: String,
    /// Why.
    pub reason: Reason,
    /// The side that is written, if any.
    pub write: Option<Side>,
    /// Outlook's value before.
    pub outlook: Value,
    /// Salesforce's value before.
    pub salesforce: Value,
    /// The value both agree on afterwards, in the written side's form.
    pub agreed: Value,
}

/// Which people Exchange would mail because of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailEffect {
    /// Number of people.
    pub recipients: u32,
    /// The Salesforce user whose change it carries, by 18-character id, or `operator`; none where nobody knows.
    #[serde(default)]
    pub author: Option<String>,
}

/// A name under which a lane can be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alias {
    /// A record.
    Record(RecordId),
    /// Outlook's `iCalUId` with the original start.
    ICalUid(String, String),
    /// A link id found in a stamp.
    Stamp(crate::ids::LinkId),
}

impl Alias {
    /// Returns the stored kind and value.
    pub fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Record(record) => ("record", record.key()),
            Self::ICalUid(uid, start) => ("ical_uid", format!("{uid}\n{start}")),
            Self::Stamp(link) => ("link", link.to_string()),
        }
    }
}

/// The state of a link after the result of a write was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The link to store.
    pub link: Link,
    /// What became of the write.
    pub reason: Reason,
    /// Run the lane again then.
    pub wake_at: Option<DateTime<Utc>>,
    /// Error code of the remote, when it refused.
    pub error: Option<String>,
    /// The write this is about.
    pub token: WriteToken,
    /// It certainly had no effect: what it used up is to be given back.
    pub unspent: bool,
}
