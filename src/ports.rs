//! Every trait at the IO border, on one page.
//!
//! `engine` speaks to these traits only; `outlook`, `salesforce` and `store` implement them; `engine/build.rs` is the one
//! place that names a concrete adapter. Backends of one port pass one conformance suite.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use calbridge_core::case::{Answer, Enrolment, Fact, Lookup, Notice};
use calbridge_core::ids::{ConnectionId, LaneId, LinkId, MailboxId, RecordId, StreamId, WriteToken};
use calbridge_core::link::{Intent, Link};
use calbridge_core::observed::Observed;
use calbridge_core::plan::{Alias, Outcome};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Position, Signal};
use calbridge_core::value::Fields;
use calbridge_core::written::WriteResult;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

// ---------------------------------------------------------------------------------------------------------------------
// Time

/// Tells the time; the only way by which the engine learns it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the present time.
    fn now(&self) -> DateTime<Utc>;
    /// Returns a reading that never goes back, for measuring spans.
    fn monotonic(&self) -> Instant;
    /// Waits until the clock reads `at`; returns at once when it already does.
    fn sleep_until(&self, at: DateTime<Utc>) -> BoxFuture<'static, ()>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Listeners: wire messages become signals

/// What a listener hands over at a time: everything of one or several wire messages, never a part of one.
#[derive(Debug)]
pub struct Batch {
    /// Signals, in the order of the stream.
    pub signals: Vec<Signal>,
    /// Messages that cannot become signals.
    pub rejects: Vec<Reject>,
    /// How far the batch reaches in its streams.
    pub positions: Vec<Position>,
    /// Told when everything above is durable.
    pub receipt: Receipt,
}

/// A wire message, or an item of one, that is no signal.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The connection whose stream it came by.
    pub connection: ConnectionId,
    /// The side it came from.
    pub side: Side,
    /// Why it is no signal; some reasons keep the message as a dead letter ([`Reason::keeps_message`]), others only count.
    pub reason: Reason,
    /// What was wrong: one of a closed list of texts, so that it can hold nothing of the message.
    pub detail: &'static str,
    /// The beginning of the message as received, at most [`Reject::KEPT`] bytes; empty where the reason keeps none.
    pub raw: Vec<u8>,
    /// Length of the whole message in bytes.
    pub size: usize,
    /// How many items of the message this stands for; at least 1.
    pub items: u32,
    /// Where it stood.
    pub position: Option<Position>,
}

impl Reject {
    /// Most bytes that are kept of one message: enough to see what it is and who may have sent it.
    pub const KEPT: usize = 16 * 1024;

    /// Returns what is kept of a message that is set aside for a reason.
    pub fn kept(reason: Reason, message: &[u8]) -> Vec<u8> {
        let kept = if reason.keeps_message() { message } else { &[] };
        kept.get(..Self::KEPT).unwrap_or(kept).to_vec()
    }
}

/// Acknowledges a batch; dropped without [`Receipt::done`], the batch counts as not taken.
#[derive(Debug)]
pub struct Receipt(Option<oneshot::Sender<()>>);

impl Receipt {
    /// Makes a receipt and the end on which the listener waits.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    /// Makes a receipt that nobody waits for.
    pub fn unwatched() -> Self {
        Self(None)
    }

    /// Tells the listener that the batch is durable.
    pub fn done(mut self) {
        if let Some(sender) = self.0.take() {
            // A listener that is gone has nothing left to acknowledge.
            let _gone = sender.send(());
        }
    }
}

/// Names under which a change event's values hold the parts of a time that it tells without telling the whole.
///
/// An update of a Salesforce event carries only what changed: of a moved meeting, its start and not its length.
pub mod time_parts {
    /// Whether it lasts whole days; a flag.
    pub const ALL_DAY: &str = "time.all_day";
    /// When it starts, in RFC 3339; a text.
    pub const START: &str = "time.start";
    /// Its first day, `YYYY-MM-DD`; a text.
    pub const DAY: &str = "time.day";
    /// Its length in minutes, for whole days 1440 each; a number.
    pub const MINUTES: &str = "time.minutes";
}

/// Why a listener stopped by itself.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Config or permissions are wrong: trying again without a change is useless.
    #[error("{0}")]
    Fatal(String),
    /// A passing fault; the engine starts the listener again after a pause.
    #[error("{0}")]
    Passing(String),
}

/// Turns one source of wire messages into batches.
#[async_trait]
pub trait Listener: Send {
    /// Returns the stable name, for logs and `status`.
    fn name(&self) -> String;
    /// Runs until stopped or broken; reads its start position from the store.
    ///
    /// # Errors
    /// [`ListenError`]; the engine restarts it after a pause, from the stored position.
    async fn run(self: Box<Self>, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), ListenError>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Calendars: the two remotes

/// Why a remote call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct RemoteError {
    /// Stable code, such as `CB1301`; `docs/errors/` explains it.
    pub code: &'static str,
    /// What happened, without personal content and secrets.
    pub message: String,
    /// What to do about it.
    pub retry: Retry,
    /// The side it came from.
    pub side: Side,
}

/// What to do about a failed remote call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again.
    Never,
    /// Try again after this pause (at least).
    After(Duration),
}

/// A person found by address or user name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Graph user id, or 18-character Salesforce user id.
    pub id: String,
    /// Address or user name as the remote spells it.
    pub name: String,
    /// IANA zone of the mailbox, where the remote tells.
    pub zone: Option<String>,
}

/// One line of `calbridge check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried, such as `salesforce: sign in`.
    pub what: String,
    /// Whether it went well.
    pub ok: bool,
    /// What was seen; for a failure, the mend.
    pub detail: String,
    /// Stable code of the failure.
    pub code: Option<&'static str>,
}

/// What a remote can do beyond reading; unknown at start, learned while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Writes can stamp the link id.
    pub link_field: bool,
    /// A second record with the same link id is refused by the remote itself.
    pub link_unique: bool,
    /// Writes can stamp their token.
    pub token_field: bool,
}

/// A page of records found by a round over a whole mailbox or org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Records seen; `true` where the remote reports them as removed.
    pub records: Vec<(RecordId, bool)>,
    /// Give this to get the next page; none at the end of the round.
    pub next: Option<String>,
    /// At the end: give this to get only what changes from now on.
    pub resume: Option<String>,
}

/// One of the two remotes.
#[async_trait]
pub trait Calendar: Send + Sync {
    /// Returns which one.
    fn side(&self) -> Side;

    /// Proves credentials, reachability and permissions by doing what the engine will do.
    async fn check(&self) -> Vec<Finding>;

    /// Learns what writes can leave in a record.
    ///
    /// # Errors
    /// [`RemoteError`] when the remote cannot be asked.
    async fn capabilities(&self) -> Result<Capabilities, RemoteError>;

    /// Finds accounts by address or user name; order kept, `None` where there is none.
    ///
    /// # Errors
    /// [`RemoteError`] when the remote cannot be asked.
    async fn accounts(&self, names: &[String]) -> Result<Vec<Option<Account>>, RemoteError>;

    /// Reads the present state of records, in as few calls as the remote allows; order kept.
    async fn fetch(&self, records: &[RecordId]) -> Vec<Observed>;

    /// Answers look-ups of this side; order kept.
    async fn search(&self, lookups: &[Lookup]) -> Vec<Answer>;

    /// Sends writes, in as few calls as the remote allows; order kept. At most one write a record is given at a time.
    async fn write(&self, writes: &[Intent]) -> Vec<WriteResult>;

    /// Lists a mailbox (or, without one, the org) page by page; `cursor` is what an earlier page gave.
    ///
    /// # Errors
    /// [`RemoteError`]; code `CB1310` means that the cursor has expired and the round starts anew.
    async fn list(&self, mailbox: Option<&MailboxId>, cursor: Option<&str>) -> Result<Page, RemoteError>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Store: everything durable

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
    /// What change events said about its records, in the order of their stream, rows that were cleared before included.
    pub facts: Vec<Fact>,
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
    /// Drop what change events said about the lane's records before that; none drops nothing.
    pub facts_from: Option<DateTime<Utc>>,
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

// ---------------------------------------------------------------------------------------------------------------------
// The dedup cache

/// A dedup key: `cb:d:{epoch}:{connection}:{side}:{hash(record)}:{version or position}:{mapping}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeenKey(pub String);

/// What the cache knows about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Unknown until now; claimed by this call.
    New,
    /// Claimed by someone whose commit is not confirmed; does not drop a signal.
    Claimed,
    /// Confirmed after a commit; drops the signal.
    Done,
}

/// Why the cache could not answer; costs reads, never results.
#[derive(Debug, Error)]
#[error("the dedup cache failed: {0}")]
pub struct CacheError(pub String);

impl CacheError {
    /// Stable code; `docs/errors/` explains it.
    pub const CODE: &'static str = "CB1206";
}

/// Remembers what was seen, in two phases, with a TTL; may forget anything at any time.
#[async_trait]
pub trait SeenCache: Send + Sync {
    /// Asks for a sign of life, within the same time as any call.
    async fn check(&self) -> Result<(), CacheError>;
    /// Claims keys for `lease`; order kept.
    async fn claim(&self, keys: &[SeenKey], lease: Duration) -> Result<Vec<Seen>, CacheError>;
    /// Confirms keys after the commit that made their signals durable.
    async fn confirm(&self, keys: &[SeenKey], ttl: Duration) -> Result<(), CacheError>;
    /// Gives claimed keys back after a failed commit.
    async fn release(&self, keys: &[SeenKey]) -> Result<(), CacheError>;
}
