//! The store: everything durable.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use calbridge_core::case::{Enrolment, Notice};
use calbridge_core::ids::{ConnectionId, LaneId, LinkId, MailboxId, RecordId, StreamId, WriteToken};
use calbridge_core::link::Link;
use calbridge_core::plan::{Alias, Outcome};
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
            Self::Database(_) => "CB1204",
            Self::Corrupt { .. } => "CB1205",
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
    /// The link, if the lane has one.
    pub link: Option<Link>,
    /// Consecutive failed runs.
    pub tries: u32,
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

/// What one run of a lane makes durable in one transaction.
#[derive(Debug, Default)]
pub struct Commit {
    /// The link's new state, intents included; its `revision` is the one that was read and is raised by the store
    /// (by one: a run that commits again raises its own copy; a new link has 0).
    pub link: Option<Link>,
    /// Rows to clear, with the generation that was claimed.
    pub cleared: Vec<(RecordId, i64)>,
    /// Names that lead to this lane from now on.
    pub aliases: Vec<Alias>,
    /// History.
    pub journal: Vec<JournalEntry>,
    /// A failure that needs a person.
    pub dead_letter: Option<DeadLetter>,
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
    /// Checkpoints by stream.
    pub checkpoints: BTreeMap<String, String>,
    /// Duplicates dropped at intake, by stream.
    pub duplicates: BTreeMap<String, u64>,
    /// Rows in the journal.
    pub journal: u64,
    /// Messages set aside, by cause; as many rows as there are causes, however many messages came.
    pub rejects: Vec<RejectCount>,
}

/// Everything durable: SQLite embedded, PostgreSQL for several instances.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns the database's epoch, renewed at creation and on restore; part of every dedup key.
    fn epoch(&self) -> &str;

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

    /// Returns all dead letters, newest first.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

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

    /// Returns numbers for people.
    async fn status(&self) -> Result<StoreStatus, StoreError>;
}
