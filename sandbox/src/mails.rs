//! The ledger of mails: what Exchange would have sent, to whom, because of whose act.
//!
//! Counters of mails by actor are in [`crate::meters`]; here is each mail, for the oracle and for tests. Nothing is sent.

use std::sync::{Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::actor::Actor;

/// What a mail tells its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MailKind {
    /// They are invited.
    Invitation,
    /// The meeting has changed.
    Update,
    /// The meeting is off, or they are no longer invited.
    Cancellation,
    /// An attendee has answered; the organiser is told.
    Answer,
}

/// One act that Exchange would mail about: one mail to each recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mail {
    /// Sandbox time.
    pub at: DateTime<Utc>,
    /// How long the history was then: the act that caused it is the last one of this actor on this record up to there.
    pub sequence: u64,
    /// Who caused it.
    pub actor: Actor,
    /// What it tells.
    pub kind: MailKind,
    /// Mailbox user id.
    pub mailbox: String,
    /// Graph event id (immutable form).
    pub record: String,
    /// iCalUId of the meeting.
    pub ical_uid: String,
    /// Addresses, in lower case.
    pub recipients: Vec<String>,
    /// Whether the meeting had ended before.
    pub past: bool,
}

/// All mails so far.
#[derive(Debug, Default)]
pub struct Mails {
    sent: Mutex<Vec<Mail>>,
}

impl Mails {
    /// Notes a mail.
    pub(crate) fn note(&self, mail: Mail) {
        self.lock().push(mail);
    }

    /// Returns all mails, in order.
    pub fn all(&self) -> Vec<Mail> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Mail>> {
        self.sent.lock().expect("no push panics while holding the lock")
    }
}
