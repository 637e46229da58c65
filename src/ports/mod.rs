//! Every trait at the IO border.
//!
//! `engine` speaks to these traits only; `outlook`, `salesforce` and `store` implement them; `engine/build.rs` is the one
//! place that names a concrete adapter. Backends of one port pass one conformance suite.

mod calendar;
mod listener;
mod seen;
mod store;

use std::fmt;
use std::time::Instant;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

pub use calendar::{Account, Calendar, Capabilities, Finding, Page, RemoteError, Retry};
pub use listener::{Batch, ListenError, Listener, Receipt, Reject, time_parts};
pub use seen::{CacheError, Seen, SeenCache, SeenKey};
pub use store::{
    CensusQuestion, Claim, Commit, DUTY_LEASE, DeadLetter, DirtyRow, DueSignal, EnrolmentRow, Fence, IntakeBatch,
    Joined, JournalEntry, JournalKind, MessageLetter, OpenLetter, RejectCount, Store, StoreError, StoreStatus,
    SubscriptionRow, TraceQuery, Traced,
};

/// Tells the time; the only way by which the engine learns it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the present time.
    fn now(&self) -> DateTime<Utc>;
    /// Returns a reading that never goes back, for measuring spans.
    fn monotonic(&self) -> Instant;
    /// Waits until the clock reads `at`; returns at once when it already does.
    fn sleep_until(&self, at: DateTime<Utc>) -> BoxFuture<'static, ()>;
}
