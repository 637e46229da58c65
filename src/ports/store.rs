//! The store: everything durable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use calbridge_core::case::{Census, Enrolment, Fact, Instruction, Notice};
use calbridge_core::ids::{ConnectionId, LaneId, LinkId, MailboxId, RecordId, StreamId, WriteToken};
use calbridge_core::link::Link;
use calbridge_core::plan::{Alias, Outcome, Spend};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Position, Signal};
use calbridge_core::value::Fields;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Reject;

/// Why the store could not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another worker took the lane over; what was to be committed is void.
    #[error("the lane was taken over by another worker")]
    Fenced,
    /// The row changed since it was read.
    #[error("link {0} changed since it was read")]
    Outdated(LinkId),
    /// The database file or server belongs to another process.
    #[error("{0}")]
    InUse(String),
    /// Other meetings used up what a plan needs; it is made anew and will be held.
    #[error("other meetings have used up what link {0} needs")]
    Spent(LinkId),
    /// Other transactions were in the way each time it was tried; the same again may go well.
    #[error("the database failed: other work was in the way each time this was tried ({0})")]
    Contended(String),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(String),
    /// Stored data cannot be read.
    #[error("stored {what} cannot be read: {why}")]
    Corrupt {
        /// Which data.
        what: String,
        /// Why.
        why: String,
    },
}

impl StoreError {
    /// Returns the stable code; `docs/errors/` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fenced => "CB1201",
            Self::Outdated(_) => "CB1202",
            Self::InUse(_) => "CB1203",
            Self::Contended(_) | Self::Database(_) => "CB1204",
            Self::Corrupt { .. } => "CB1205",
            Self::Spent(_) => "CB1207",
        }
    }
}

/// What intake makes durable in one transaction.
#[derive(Debug, Default)]
pub struct IntakeBatch {
    /// Signals that name a record.
    pub signals: Vec<DueSignal>,
    /// Messages that are no signals.
    pub rejects: Vec<Reject>,
    /// Stream positions that this covers.
    pub positions: Vec<(ConnectionId, Position)>,
    /// Signals dropped as duplicates, counted by stream.
    pub duplicates: BTreeMap<StreamId, u64>,
}

/// A signal about one record, with the window in which it collapses.
#[derive(Debug, Clone)]
pub struct DueSignal {
    /// The signal; its target is a record.
    pub signal: Signal,
    /// The record.
    pub record: RecordId,
    /// Quiet window after this signal.
    pub quiet: Duration,
    /// Longest delay after the first signal of the burst.
    pub max_wait: Duration,
}

/// What a commit must hold to be accepted: the lane and the fence under which it was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The lane.
    pub lane: LaneId,
    /// Rises with each claim.
    pub number: i64,
}

/// A lane that this worker holds, and what is waiting in it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Proof of ownership.
    pub fence: Fence,
    /// The connection.
    pub connection: ConnectionId,
    /// What the dirty rows say.
    pub notices: Vec<DirtyRow>,
    /// What change events said about its records, in the order of their stream, rows that were cleared before included.
    pub facts: Vec<Fact>,
    /// The link, if the lane has one.
    pub link: Option<Link>,
    /// Consecutive failed runs.
    pub tries: u32,
    /// What a person said since the last run.
    pub instruction: Option<Instruction>,
}

/// One row of the queue.
#[derive(Debug, Clone)]
pub struct DirtyRow {
    /// What it says.
    pub notice: Notice,
    /// Rises with each signal; a row is cleared only at the generation that was claimed.
    pub generation: i64,
    /// Signals collapsed into it.
    pub signals: u32,
    /// Positions of these signals, newest last; at most 16.
    pub positions: Vec<Position>,
    /// When the first of these signals came.
    pub first_signal_at: DateTime<Utc>,
}

/// What a census is asked for; see [`Census`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CensusQuestion {
    /// The link that asks; it is not counted.
    pub link: LinkId,
    /// The mailbox.
    pub mailbox: Option<MailboxId>,
    /// The Salesforce user.
    pub author: Option<String>,
}

/// What one run of a lane makes durable in one transaction.
#[derive(Debug, Default)]
pub struct Commit {
    /// The link's new state, intents included; its `revision` is the one that was read and is raised by the store
    /// (by one: a run that commits again raises its own copy; a new link has 0).
    pub link: Option<Link>,
    /// Rows to clear, with the generation that was claimed.
    pub cleared: Vec<(RecordId, i64)>,
    /// Drop what change events said about the lane's records before that; none drops nothing.
    pub facts_from: Option<DateTime<Utc>>,
    /// Names that lead to this lane from now on.
    pub aliases: Vec<Alias>,
    /// History.
    pub journal: Vec<JournalEntry>,
    /// What waits for a person from now on: a failure or a hold.
    pub dead_letter: Option<DeadLetter>,
    /// What the writes use up; where other meetings used it up before, the commit is refused.
    pub spends: Vec<Spend>,
    /// Give back what the link used up from then on: the write had no effect.
    pub unspent_since: Option<DateTime<Utc>>,
    /// The instruction that the run knew; one that came meanwhile stays, and wakes the lane.
    pub instruction: Option<Instruction>,
    /// That instruction was followed and need not be kept.
    pub instructed: bool,
    /// Run the lane again then. Claimed rows that are not cleared wait with it; without it they stay due.
    pub wake_at: Option<DateTime<Utc>>,
    /// Consecutive failed runs, to be stored.
    pub tries: u32,
    /// Give the lane back.
    pub release: bool,
}

/// What became of an attempt to bring two lanes together.
#[derive(Debug)]
pub enum Joined {
    /// No other lane knows these names.
    Alone,
    /// The other lane was taken in; the claim is as it is now.
    Merged(Box<Claim>),
    /// Another worker holds the other lane; give this one back and try again.
    Busy,
}

/// A row of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Position in the journal; assigned by the store.
    pub sequence: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// The connection.
    pub connection: ConnectionId,
    /// The lane.
    pub lane: Option<LaneId>,
    /// The meeting, once linked.
    pub link: Option<LinkId>,
    /// What kind of event it was.
    pub kind: JournalKind,
    /// The side concerned: whose change, or which side was written.
    pub side: Option<Side>,
    /// The record concerned.
    pub record: Option<RecordId>,
    /// How the run ended.
    pub outcome: Option<Outcome>,
    /// Reasons, the deciding one first.
    pub reasons: Vec<Reason>,
    /// Names of mapping rules concerned.
    pub fields: Vec<String>,
    /// Versions seen: side and version.
    pub versions: Vec<String>,
    /// Stream positions of the signals covered.
    pub positions: Vec<Position>,
    /// Number of signals covered.
    pub signals: u32,
    /// Number of these that were our own writes coming back.
    pub echoes: u32,
    /// The write this is about.
    pub token: Option<WriteToken>,
    /// API calls spent, in request units.
    pub calls: u32,
    /// People Exchange was expected to mail.
    pub mails: u32,
    /// The Salesforce user whose change these mails carry, by id, or `operator`.
    #[serde(default)]
    pub mail_author: Option<String>,
    /// Milliseconds from the first signal to this row.
    pub latency_ms: Option<i64>,
    /// Error code and message of a remote, without personal content.
    pub error: Option<String>,
    /// Hash of the mapping in force.
    pub config_version: String,
    /// Values before, after and lost; sealed by the store and kept apart.
    pub images: BTreeMap<String, Fields>,
}

/// What kind of event a journal row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalKind {
    /// A run decided something.
    Decided,
    /// A write was recorded and is about to be sent.
    Intended,
    /// The result of a write is known, or known to be unknown.
    Settled,
    /// A message was set aside at intake.
    Rejected,
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// A write that waits for approval, and no failure.
    pub held: bool,
    /// The connection.
    pub connection: ConnectionId,
    /// The meeting, if it is linked.
    pub link: Option<LinkId>,
    /// The record, if one is known.
    pub record: Option<RecordId>,
    /// Why.
    pub reason: Reason,
    /// The remote's message, without personal content.
    pub detail: String,
    /// Since when.
    pub at: DateTime<Utc>,
    /// What is known of the message, if it is one that was set aside at intake.
    pub message: Option<MessageLetter>,
}

/// A failure or a hold as a person sees it, with the names by which to say what shall happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenLetter {
    /// Its id.
    pub id: String,
    /// The lane, where it is about a meeting.
    pub lane: Option<LaneId>,
    /// What it is about.
    pub letter: DeadLetter,
    /// The mailbox of the meeting.
    pub mailbox: Option<MailboxId>,
    /// The Outlook event id of the meeting.
    pub outlook: Option<String>,
    /// The Salesforce id of the meeting.
    pub salesforce: Option<String>,
    /// What a person said and no run has followed yet.
    pub instruction: Option<Instruction>,
}

/// A message that was set aside and kept for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageLetter {
    /// Names it in `calbridge trace`.
    pub id: String,
    /// The side it came from.
    pub side: Side,
    /// Where the newest one like it stood.
    pub position: Option<Position>,
    /// Length of the whole message in bytes; what is kept of it may be shorter.
    pub size: u64,
    /// How many like it came.
    pub times: u64,
    /// When the newest one came.
    pub last_at: DateTime<Utc>,
}

/// Messages that were set aside for the same cause, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectCount {
    /// The side they came from.
    pub side: Side,
    /// The stream they came by; empty where it is not known.
    pub stream: String,
    /// Why.
    pub reason: Reason,
    /// What was wrong.
    pub detail: String,
    /// How many.
    pub count: u64,
    /// When the first one came.
    pub first_at: DateTime<Utc>,
    /// When the newest one came.
    pub last_at: DateTime<Utc>,
}

/// What a person looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceQuery {
    /// Any id, or words of a subject.
    Text(String),
    /// All meetings of a mailbox that start on a day of the mailbox's zone.
    Day {
        /// The mailbox.
        mailbox: MailboxId,
        /// First instant of the day.
        from: DateTime<Utc>,
        /// First instant after it.
        until: DateTime<Utc>,
    },
}

/// One meeting found, with its history.
#[derive(Debug, Clone)]
pub struct Traced {
    /// The lane.
    pub lane: LaneId,
    /// The correlation row, if the meeting was ever linked.
    pub link: Option<Link>,
    /// What is waiting.
    pub waiting: Vec<DirtyRow>,
    /// When the lane runs next, if it waits.
    pub wake_at: Option<DateTime<Utc>>,
    /// Everything decided about it, oldest first, images included.
    pub journal: Vec<JournalEntry>,
    /// Open dead letters.
    pub dead_letters: Vec<DeadLetter>,
}

/// A stored Graph subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// The connection.
    pub connection: ConnectionId,
    /// Graph's id.
    pub id: String,
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Where notifications go.
    pub notification_url: String,
    /// When it ends unless renewed, in real time.
    pub expires_at: DateTime<Utc>,
}

/// An enrolment with what people need to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentRow {
    /// The connection.
    pub connection: ConnectionId,
    /// Mailbox, user and since when.
    pub enrolment: Enrolment,
    /// Address of the mailbox.
    pub address: String,
    /// IANA zone of the mailbox.
    pub zone: String,
    /// Whether the first round is over.
    pub first_round_done: bool,
}

/// Numbers for `status`, metrics and readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// Links by state name.
    pub links: BTreeMap<String, u64>,
    /// Lanes that wait, and since when the oldest does.
    pub waiting: u64,
    /// First signal of the oldest waiting record.
    pub oldest_waiting: Option<DateTime<Utc>>,
    /// Open intents.
    pub intents: u64,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Writes that wait for approval, by reason.
    pub holds: BTreeMap<String, u64>,
    /// Checkpoints by stream.
    pub checkpoints: BTreeMap<String, String>,
    /// Duplicates dropped at intake, by stream.
    pub duplicates: BTreeMap<String, u64>,
    /// Rows in the journal.
    pub journal: u64,
    /// Messages set aside, by cause; as many rows as there are causes, however many messages came.
    pub rejects: Vec<RejectCount>,
}

/// For how long a duty is an instance's, by the database's clock, in real time; after so long a dead one's are taken over.
pub const DUTY_LEASE: Duration = Duration::from_secs(10);

/// Everything durable: SQLite embedded, PostgreSQL for several instances.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns the database's epoch, renewed at creation and on restore; part of every dedup key.
    fn epoch(&self) -> &str;

    /// Returns what tells this database from all others; its backups have the same. Empty where that is not known.
    fn identity(&self) -> &str;

    /// Returns when the database was last found to be a restored backup, by the engine's clock.
    fn restored_at(&self) -> Option<DateTime<Utc>> {
        None
    }

    /// Returns the sequence of the newest journal row; 0 where there is none.
    async fn newest_row(&self) -> Result<i64, StoreError> {
        Ok(0)
    }

    /// Makes signals, rejects and positions durable in one transaction; one wire message never splits.
    async fn accept(&self, batch: &IntakeBatch, now: DateTime<Utc>) -> Result<(), StoreError>;

    /// Returns the stored position of a stream.
    async fn checkpoint(&self, connection: &ConnectionId, stream: &StreamId) -> Result<Option<String>, StoreError>;

    /// Takes due lanes for `lease_for` (measured by the database's clock, not by `now`, which only decides what is due).
    async fn claim(
        &self,
        owner: &str,
        now: DateTime<Utc>,
        lease_for: Duration,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError>;

    /// Returns when the next lane becomes due, if any waits.
    async fn next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError>;

    /// Prolongs leases; returns those that are lost.
    async fn renew(&self, fences: &[Fence], lease_for: Duration) -> Result<Vec<Fence>, StoreError>;

    /// Brings a lane together with another one that knows one of these names.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is void.
    async fn join(
        &self,
        claim: &Claim,
        aliases: &[Alias],
        owner: &str,
        lease_for: Duration,
    ) -> Result<Joined, StoreError>;

    /// Returns those of the records that belong to a link, in force or buried.
    async fn linked(&self, connection: &ConnectionId, records: &[RecordId]) -> Result<Vec<RecordId>, StoreError>;

    /// Commits what runs decided, all in one transaction; each result stands for one claim, in order.
    async fn commit(&self, commits: Vec<(Fence, Commit)>, now: DateTime<Utc>) -> Vec<Result<(), StoreError>>;

    /// Finds meetings for a person.
    async fn trace(&self, query: &TraceQuery, limit: usize) -> Result<Vec<Traced>, StoreError>;

    /// Returns dead letters, or what is held, newest first.
    async fn letters(&self, held: bool, limit: usize) -> Result<Vec<OpenLetter>, StoreError>;

    /// Takes down what a person says about meetings, by lane, and makes their lanes due; returns how many were found.
    async fn instruct(&self, lanes: &[LaneId], instruction: Instruction) -> Result<u64, StoreError>;

    /// Closes the dead letter of a message that was set aside; tells whether there was one.
    async fn close_message(&self, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError>;

    /// Counts what other meetings have used up; order kept.
    async fn census(
        &self,
        connection: &ConnectionId,
        questions: &[CensusQuestion],
        now: DateTime<Utc>,
    ) -> Result<Vec<Census>, StoreError>;

    /// Returns what is kept of a message that was set aside, by the id of its dead letter.
    async fn kept_message(&self, id: &str) -> Result<Option<(DeadLetter, Vec<u8>)>, StoreError>;

    /// Stores an enrolment; an earlier `enrolled_at` and a first round that is done are kept.
    async fn enrol(&self, row: &EnrolmentRow) -> Result<(), StoreError>;

    /// Returns all enrolments of a connection.
    async fn enrolments(&self, connection: &ConnectionId) -> Result<Vec<EnrolmentRow>, StoreError>;

    /// Stores a subscription.
    async fn put_subscription(&self, row: &SubscriptionRow) -> Result<(), StoreError>;

    /// Forgets a subscription.
    async fn drop_subscription(&self, connection: &ConnectionId, id: &str) -> Result<(), StoreError>;

    /// Returns the stored subscriptions of a connection.
    async fn subscriptions(&self, connection: &ConnectionId) -> Result<Vec<SubscriptionRow>, StoreError>;

    /// Tells whether other instances may work on the same data at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Divides duties of a kind among the instances that ask for it: renews ours, gives back what is beyond a fair share and
    /// not among those `running`, and takes what nobody has. Returns what this instance is to do for [`DUTY_LEASE`], unless
    /// it asks again; an instance that names no duties leaves.
    ///
    /// A store of one instance gives it everything.
    async fn share(
        &self,
        _connection: &ConnectionId,
        _kind: &str,
        duties: &[String],
        _running: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        Ok(duties.iter().cloned().collect())
    }

    /// Leaves word for the instance that keeps the subscriptions: look at this mailbox's now; `gone` says that it was
    /// removed. A store of one instance need not carry it.
    async fn leave_nudge(
        &self,
        _connection: &ConnectionId,
        _mailbox: &MailboxId,
        _gone: bool,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// Takes what was left for the instance that keeps the subscriptions.
    async fn take_nudges(&self, _connection: &ConnectionId) -> Result<Vec<(MailboxId, bool)>, StoreError> {
        Ok(Vec::new())
    }

    /// Returns numbers for people.
    async fn status(&self) -> Result<StoreStatus, StoreError>;
}
