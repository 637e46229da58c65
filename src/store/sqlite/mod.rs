//! The embedded database: one SQLite file in WAL mode, one writer, several readers.
//!
//! The parts, by what they own: `open` (files, lock, migrations, keys), `intake` (signals become dirty rows), `lanes`
//! (claims, leases), `facts` (what change events said), `merge` (lanes that turn out to be one meeting), `commit` (what a run decided), `journal` (history,
//! images, words), `rejects` (messages that are no signals), `rows` (how types become columns), `query` (trace), `desk` (enrolments, subscriptions, status).
//!
//! The SQL keeps to what PostgreSQL understands too; what cannot is in `dialect`.

mod commit;
mod desk;
mod dialect;
mod facts;
mod intake;
mod journal;
mod lanes;
mod merge;
mod open;
mod query;
mod rejects;
mod rows;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use calbridge_core::ids::{ConnectionId, RecordId, StreamId};
use calbridge_core::plan::Alias;
use chrono::{DateTime, Utc};
use sqlx::SqlitePool;

use super::seal::Sealer;
use crate::ports::{
    Claim, Clock, Commit, DeadLetter, EnrolmentRow, Fence, IntakeBatch, Joined, Store, StoreError, StoreStatus,
    SubscriptionRow, TraceQuery, Traced,
};

pub use open::StoreSettings;

/// The store on one SQLite file, or in memory.
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    sealer: Sealer,
    subject_fields: Vec<String>,
    epoch: String,
    clock: Arc<dyn Clock>,
    /// Held as long as the store is open for writing; the lock goes with the file handle.
    _lock: Option<File>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("epoch", &self.epoch)
            .field("subject_fields", &self.subject_fields)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn epoch(&self) -> &str {
        &self.epoch
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

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.open_dead_letters(limit).await
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

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.count_everything().await
    }
}
