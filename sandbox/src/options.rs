//! What a sandbox is started with.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How noisily the clouds notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// One notification per change, at once, no duplicates.
    #[default]
    Quiet,
    /// What offices see: each edit is followed by 1 to 3 further change keys within 20 s, deliveries repeat, 5 % come out of
    /// order, 1 to 10 notifications share a message, attendee mailboxes follow 1 to 30 s later.
    Office,
    /// An office in which faults strike at random all the time: refusals, errors before and after the effect, cut answers,
    /// late writes, stale reads, repeated and reordered messages, broken links, revoked tokens, streams that end. Loses no
    /// notification. [`crate::Act::Calm`] ends it.
    Hostile,
}

/// Start-up choices; the default is a small quiet world at the present time on free ports.
#[derive(Debug, Clone)]
pub struct Options {
    /// Mailboxes to create, each with a Salesforce user of the same address; at least 1.
    pub mailboxes: usize,
    /// Seed of every random choice.
    pub seed: u64,
    /// How noisily the clouds notify.
    pub profile: Profile,
    /// First of a row of fixed ports; 0 takes free ports.
    pub port_base: u16,
    /// Calendar exports to load into the first mailbox before the servers open.
    pub calendars: Vec<PathBuf>,
    /// Sandbox time at start; none means the present.
    pub start_at: Option<DateTime<Utc>>,
    /// Sandbox seconds per real second.
    pub speed: f64,
    /// Event Hubs partitions (1 to 32).
    pub partitions: usize,
    /// Folder for the CA certificate; none takes a temporary one that goes with the sandbox.
    pub state_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mailboxes: 3,
            seed: 1,
            profile: Profile::Quiet,
            port_base: 0,
            calendars: Vec::new(),
            start_at: None,
            speed: 1.0,
            partitions: 4,
            state_dir: None,
        }
    }
}
