//! Calendars: the two remotes.

use std::time::Duration;

use async_trait::async_trait;
use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::{MailboxId, RecordId};
use calbridge_core::link::Intent;
use calbridge_core::observed::Observed;
use calbridge_core::side::Side;
use calbridge_core::written::WriteResult;
use serde::Serialize;
use thiserror::Error;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Writes can stamp the link id.
    pub link_field: bool,
    /// A second record with the same link id is refused by the remote itself.
    pub link_unique: bool,
    /// Writes can stamp their token.
    pub token_field: bool,
    /// The user as whom calbridge itself writes, where writes have an author: a Salesforce user, by 18-character id.
    pub user: Option<String>,
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
