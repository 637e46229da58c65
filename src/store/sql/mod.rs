//! The store on a SQL database, written once for both.
//!
//! The module that includes this one names the database: its `dialect` says what the types are called, how a transaction
//! that writes begins, and who waits for whom. So this folder is compiled once for each database, and a statement that only
//! one of them understands cannot stay here unnoticed: `contract` runs on both.
//!
//! The parts, by what they own: `setup` (migrations, keys, epoch), `intake` (signals become dirty rows), `lanes` (claims,
//! leases), `merge` (lanes that turn out to be one meeting), `commit` (what a run decided), `journal` (history, images,
//! words), `rejects` (messages that are no signals), `rows` (how types become columns), `query` (trace), `desk`
//! (enrolments, subscriptions, status), `duties` (what one instance at a time does), `statement` (shapes of statements, errors, trying again).

mod budget;
mod commit;
mod desk;
mod duties;
mod facts;
mod intake;
mod journal;
mod lanes;
mod letters;
mod merge;
mod query;
mod rejects;
mod rows;
mod setup;
mod statement;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use calbridge_core::case::{Census, Instruction};
use calbridge_core::ids::{ConnectionId, LaneId, MailboxId, RecordId, StreamId};
use calbridge_core::plan::Alias;
use chrono::{DateTime, Utc};

use super::dialect::{self, Held, Pool};
use crate::ports::{
    CensusQuestion, Claim, Clock, Commit, DeadLetter, EnrolmentRow, Fence, IntakeBatch, Joined, OpenLetter, Store,
    StoreError, StoreStatus, SubscriptionRow, TraceQuery, Traced,
};
use crate::store::seal::Sealer;

use setup::Known;
pub(super) use setup::Opened;
pub(super) use statement::failed;

/// The store on a SQL database.
pub struct SqlStore {
    pub(super) writer: Pool,
    readers: Pool,
    sealer: Sealer,
    subject_fields: Vec<String>,
    known: Known,
    clock: Arc<dyn Clock>,
    /// Names this opening of the database among those of other instances.
    instance: String,
    _held: Held,
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(dialect::NAME)
            .field("epoch", &self.known.epoch)
            .field("subject_fields", &self.subject_fields)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqlStore {
    fn epoch(&self) -> &str {
        &self.known.epoch
    }

    fn identity(&self) -> &str {
        &self.known.identity
    }

    fn restored_at(&self) -> Option<DateTime<Utc>> {
        self.known.restored_at
    }

    async fn newest_row(&self) -> Result<i64, StoreError> {
        self.newest_row().await
    }

    async fn accept(&self, batch: &IntakeBatch, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.accept_batch(batch, now).await
    }

    async fn checkpoint(&self, connection: &ConnectionId, stream: &StreamId) -> Result<Option<String>, StoreError> {
        self.read_checkpoint(connection, stream).await
    }

    async fn claim(
        &self,
        owner: &str,
        now: DateTime<Utc>,
        lease_for: Duration,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        self.claim_due(owner, now, lease_for, limit).await
    }

    async fn next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.first_due().await
    }

    async fn renew(&self, fences: &[Fence], lease_for: Duration) -> Result<Vec<Fence>, StoreError> {
        self.renew_leases(fences, lease_for).await
    }

    async fn join(
        &self,
        claim: &Claim,
        aliases: &[Alias],
        owner: &str,
        lease_for: Duration,
    ) -> Result<Joined, StoreError> {
        self.join_lanes(claim, aliases, owner, lease_for).await
    }

    async fn linked(&self, connection: &ConnectionId, records: &[RecordId]) -> Result<Vec<RecordId>, StoreError> {
        self.linked_records(connection, records).await
    }

    async fn commit(&self, commits: Vec<(Fence, Commit)>, now: DateTime<Utc>) -> Vec<Result<(), StoreError>> {
        self.commit_all(commits, now).await
    }

    async fn trace(&self, query: &TraceQuery, limit: usize) -> Result<Vec<Traced>, StoreError> {
        self.find_meetings(query, limit).await
    }

    async fn letters(&self, held: bool, limit: usize) -> Result<Vec<OpenLetter>, StoreError> {
        self.open_letters(held, limit).await
    }

    async fn instruct(&self, lanes: &[LaneId], instruction: Instruction) -> Result<u64, StoreError> {
        self.take_down(lanes, instruction).await
    }

    async fn close_message(&self, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        self.close_letter(id, now).await
    }

    async fn census(
        &self,
        connection: &ConnectionId,
        questions: &[CensusQuestion],
        now: DateTime<Utc>,
    ) -> Result<Vec<Census>, StoreError> {
        self.take_census(connection, questions, now).await
    }

    async fn kept_message(&self, id: &str) -> Result<Option<(DeadLetter, Vec<u8>)>, StoreError> {
        self.read_message(id).await
    }

    async fn enrol(&self, row: &EnrolmentRow) -> Result<(), StoreError> {
        self.put_enrolment(row).await
    }

    async fn enrolments(&self, connection: &ConnectionId) -> Result<Vec<EnrolmentRow>, StoreError> {
        self.read_enrolments(connection).await
    }

    async fn put_subscription(&self, row: &SubscriptionRow) -> Result<(), StoreError> {
        self.write_subscription(row).await
    }

    async fn drop_subscription(&self, connection: &ConnectionId, id: &str) -> Result<(), StoreError> {
        self.delete_subscription(connection, id).await
    }

    async fn subscriptions(&self, connection: &ConnectionId) -> Result<Vec<SubscriptionRow>, StoreError> {
        self.read_subscriptions(connection).await
    }

    fn is_shared(&self) -> bool {
        dialect::MANY_WRITERS
    }

    async fn share(
        &self,
        connection: &ConnectionId,
        kind: &str,
        duties: &[String],
        running: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        self.share_duties(connection, kind, duties, running).await
    }

    async fn leave_nudge(&self, connection: &ConnectionId, mailbox: &MailboxId, gone: bool) -> Result<(), StoreError> {
        self.put_nudge(connection, mailbox, gone).await
    }

    async fn take_nudges(&self, connection: &ConnectionId) -> Result<Vec<(MailboxId, bool)>, StoreError> {
        self.drain_nudges(connection).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.count_everything().await
    }
}
