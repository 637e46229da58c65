//! What the command line needs from the engine. The one implementation is in `engine/`; tests have their own.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::NaiveDate;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::ports::{Clock, Finding, Store};
use crate::web::Health;

/// Why a command could not be carried out.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nothing is wrong with the program: the person must change something (a file in use, a wrong key). Exit code 2.
    #[error("{0}")]
    Refused(String),
    /// It failed. Exit code 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// What a run is given beside the configuration.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Kept current by the engine; names what is not ready.
    pub health: Health,
    /// When cancelled, finish what is under way and return.
    pub stop: CancellationToken,
}

/// What a person wants to trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceRequest {
    /// Any id, or words of a subject.
    Anything(String),
    /// All meetings of a mailbox on a day of its zone.
    Day {
        /// Address of the mailbox.
        mailbox: String,
        /// The day.
        on: NaiveDate,
    },
}

/// Meetings found, ready to be shown.
#[derive(Debug, Clone)]
pub struct TraceAnswer {
    /// How many meetings.
    pub found: usize,
    /// For people.
    pub text: String,
    /// For programs.
    pub json: serde_json::Value,
}

/// The engine, as the command line sees it.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Syncs until `context.stop` is cancelled.
    ///
    /// # Errors
    /// [`Failure`]; an outage of a remote is none.
    async fn run(&self, config: Config, context: RunContext) -> Result<(), Failure>;

    /// Says which other process syncs with this database, if one does.
    fn holder(&self, config: &Config) -> Option<String>;

    /// Does on both sides what the engine will do, without writing.
    async fn check(&self, config: &Config) -> Vec<Finding>;

    /// Opens the database for reading, beside a running engine too.
    ///
    /// # Errors
    /// [`Failure`] when there is no database, or it cannot be read.
    async fn open_store(&self, config: &Config) -> Result<Arc<dyn Store>, Failure>;

    /// Opens the database to take down what a person says, beside a running engine too.
    ///
    /// # Errors
    /// [`Failure`] when there is no database, or it cannot be written.
    async fn open_desk(&self, config: &Config) -> Result<Arc<dyn Store>, Failure>;

    /// Finds meetings and tells their story; `values` shows field values too.
    ///
    /// # Errors
    /// [`Failure`].
    async fn trace(&self, config: &Config, request: &TraceRequest, values: bool) -> Result<TraceAnswer, Failure>;
}
