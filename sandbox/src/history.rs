//! Everything that ever changed on either cloud, in order: what the oracle judges by.

use std::sync::Mutex;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::actor::Actor;

/// Which cloud a change happened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cloud {
    /// Microsoft Graph.
    Outlook,
    /// Salesforce.
    Salesforce,
}

impl Cloud {
    /// Returns the other cloud.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Outlook => Self::Salesforce,
            Self::Salesforce => Self::Outlook,
        }
    }
}

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// The record came into being.
    Create,
    /// At least one value changed.
    Update,
    /// A new version without a changed value (a changed key for nothing, a stamp alone).
    Touch,
    /// The record was deleted or cancelled.
    Delete,
    /// A deleted record came back.
    Undelete,
}

/// One effective change of one record.
#[derive(Debug, Clone, Serialize)]
pub struct Effect {
    /// Position in the history, from 1.
    pub sequence: u64,
    /// Sandbox time.
    pub at: DateTime<Utc>,
    /// The cloud.
    pub cloud: Cloud,
    /// Mailbox user id, or the Salesforce organisation id.
    pub scope: String,
    /// Graph event id (immutable form) or 18-character Salesforce id.
    pub record: String,
    /// iCalUId of an Outlook event; empty for Salesforce.
    pub ical_uid: String,
    /// Who did it.
    pub actor: Actor,
    /// What happened.
    pub kind: EffectKind,
    /// New values of the changed fields (all fields for a creation).
    pub changed: Map<String, Value>,
    /// Old values of the same fields; empty for a creation.
    pub before: Map<String, Value>,
    /// Version after the change: change key or SystemModstamp.
    pub version: String,
}

/// The append-only list of effects, with a wake-up for those who wait for one.
#[derive(Debug)]
pub struct History {
    effects: Mutex<Vec<Effect>>,
    length: watch::Sender<usize>,
}

impl Default for History {
    fn default() -> Self {
        Self { effects: Mutex::default(), length: watch::Sender::new(0) }
    }
}

impl History {
    /// Appends an effect; its sequence is assigned here.
    pub fn record(&self, mut effect: Effect) {
        let mut effects = self.effects.lock().expect("no push panics while holding the lock");
        effect.sequence = effects.len() as u64 + 1;
        effects.push(effect);
        let length = effects.len();
        drop(effects);
        self.length.send_replace(length);
    }

    /// Returns all effects from position `from` (0 means all).
    pub fn since(&self, from: usize) -> Vec<Effect> {
        let effects = self.effects.lock().expect("no push panics while holding the lock");
        effects.get(from..).map(<[Effect]>::to_vec).unwrap_or_default()
    }

    /// Returns how many effects there are.
    pub fn len(&self) -> usize {
        *self.length.borrow()
    }

    /// Tells whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a receiver that wakes at each new effect.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.length.subscribe()
    }
}
