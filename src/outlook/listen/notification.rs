//! From a notification message to signals and rejects; the same for every road.
//!
//! A message is believed only if its `clientState` is one that we gave out for the mailbox it speaks of: whoever may send
//! to the hub could otherwise steer reads. <https://learn.microsoft.com/graph/change-notifications-delivery-event-hubs>

use std::collections::BTreeSet;
use std::sync::Arc;

use calbridge_core::ids::{ConnectionId, MailboxId, RecordId};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, Position, Signal, SignalCause, Target, Version};
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Nudge, Nudges};
use crate::outlook::subscriptions::ClientStates;
use crate::outlook::wire::{Notification, change_key, event_path};
use crate::ports::{Clock, EnrolmentRow, Reject};

/// Largest message that is read; Graph sends no larger ones to a hub.
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// Reads messages of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) connection: ConnectionId,
    /// Tenant id or domain from the settings; only an id can be compared.
    pub(crate) tenant: String,
    pub(crate) states: ClientStates,
    pub(crate) enrolments: watch::Receiver<Vec<EnrolmentRow>>,
    pub(crate) nudges: Nudges,
    pub(crate) clock: Arc<dyn Clock>,
    /// Mailboxes of `enrolments`, as far as they have been looked at.
    enrolled: Arc<BTreeSet<MailboxId>>,
}

/// A message of which all items have the expected form.
#[derive(Deserialize)]
struct Message {
    value: Vec<Notification>,
}

/// What a message held.
#[derive(Debug, Default)]
pub(crate) struct Understood {
    pub(crate) signals: Vec<Signal>,
    pub(crate) rejects: Vec<Reject>,
}

/// Why an item is no signal.
struct NoSignal(Reason, &'static str);

impl Reader {
    /// Makes a reader for one connection.
    pub(crate) fn new(
        connection: ConnectionId,
        tenant: String,
        states: ClientStates,
        mut enrolments: watch::Receiver<Vec<EnrolmentRow>>,
        nudges: Nudges,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Whatever is there already is news to this reader.
        enrolments.mark_changed();
        Self { connection, tenant, states, enrolments, nudges, clock, enrolled: Arc::default() }
    }

    /// Looks at the enrolments where they have changed.
    fn know_enrolled(&mut self) {
        // A sender that is gone leaves its last word.
        if self.enrolments.has_changed().unwrap_or(self.enrolled.is_empty()) {
            let rows = self.enrolments.borrow_and_update();
            self.enrolled = Arc::new(rows.iter().map(|row| row.enrolment.mailbox.clone()).collect());
        }
    }

    /// Reads one message; every item of it becomes a signal or a reject.
    pub(crate) fn read(&mut self, body: &[u8], position: &Position) -> Understood {
        self.know_enrolled();
        self.read_plain(body, position).unwrap_or_else(|| self.read_any(body, position))
    }

    /// Reads a message of which every item is a notification of ours; none where anything else is in it.
    fn read_plain(&self, body: &[u8], position: &Position) -> Option<Understood> {
        if body.len() > LARGEST_MESSAGE {
            return None;
        }
        let message: Message = serde_json::from_slice(body).ok()?;
        let mut signals = Vec::with_capacity(message.value.len());
        for item in message.value.iter().filter(|item| item.lifecycle_event.is_none()) {
            signals.extend(self.item(item, position).ok()?);
        }
        // Lifecycle items act on more than the answer: they are read once, below.
        let plain = !signals.is_empty() && signals.len() == message.value.len();
        plain.then_some(Understood { signals, rejects: Vec::new() })
    }

    fn read_any(&self, body: &[u8], position: &Position) -> Understood {
        let mut understood = Understood::default();
        let mut reject = |NoSignal(reason, detail): NoSignal, raw: &[u8]| {
            understood.rejects.push(self.reject(reason, detail, raw, position));
        };
        if body.len() > LARGEST_MESSAGE {
            reject(NoSignal(Reason::Undecodable, "the message is larger than 1 MiB"), body);
            return understood;
        }
        let found = match serde_json::from_slice::<Json>(body) {
            Ok(Json::Object(mut message)) => message.remove("value").ok_or("the message has no list `value`"),
            Ok(_) => Err("the message is no JSON object"),
            Err(_) => Err("the message is no JSON"),
        };
        let items = match found {
            Ok(Json::Array(items)) => items,
            Ok(_) => {
                reject(NoSignal(Reason::Undecodable, "the message's `value` is no list"), body);
                return understood;
            }
            Err(detail) => {
                reject(NoSignal(Reason::Undecodable, detail), body);
                return understood;
            }
        };
        if items.is_empty() {
            reject(NoSignal(Reason::Undecodable, "the message is empty"), body);
        }
        let mut signals = Vec::new();
        for item in items {
            let read = Notification::deserialize(&item)
                .map_err(|_wrong_types| NoSignal(Reason::Undecodable, "an item has parts of unexpected types"));
            match read.and_then(|read| self.item(&read, position)) {
                Ok(signal) => signals.extend(signal),
                Err(no_signal) => reject(no_signal, item.to_string().as_bytes()),
            }
        }
        understood.signals = signals;
        understood
    }

    fn reject(&self, reason: Reason, detail: &str, raw: &[u8], position: &Position) -> Reject {
        // Only what may need a person keeps its content.
        let kept = if reason == Reason::Undecodable { raw } else { &[] };
        Reject {
            connection: self.connection.clone(),
            side: Side::Outlook,
            reason,
            detail: detail.to_owned(),
            raw: kept.get(..LARGEST_MESSAGE).unwrap_or(kept).to_vec(),
            position: Some(position.clone()),
        }
    }

    /// Reads one item; a renewal request is no signal and nothing to reject either.
    fn item(&self, item: &Notification, position: &Position) -> Result<Option<Signal>, NoSignal> {
        let change = item.change_type.as_deref().unwrap_or_default();
        let validation = change
            .split(':')
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("validation") && word.len() < change.len());
        if item.subscription_id.as_deref() == Some("NA") || validation {
            return Err(NoSignal(Reason::ValidationMessage, "Graph tested the way to the hub"));
        }
        let mailbox = self.sender(item)?;
        if let Some(event) = item.lifecycle_event.as_deref() {
            return self.lifecycle(event, mailbox, position);
        }
        let change = match change.to_ascii_lowercase().as_str() {
            "created" => Change::Created,
            "updated" => Change::Updated,
            "deleted" => Change::Deleted,
            _ => return Err(NoSignal(Reason::Undecodable, "an item has an unknown `changeType`")),
        };
        let (user, from_path) = item
            .resource
            .as_deref()
            .and_then(event_path)
            .ok_or(NoSignal(Reason::ForeignMessage, "an item is about no event"))?;
        if user != mailbox.as_str() {
            return Err(NoSignal(Reason::ForeignMessage, "an item speaks of another mailbox than its secret"));
        }
        let data = item.resource_data.as_ref();
        let named = data.and_then(|data| data.id.clone()).filter(|id| !id.is_empty());
        let event = named.or(from_path).ok_or(NoSignal(Reason::Undecodable, "an item names no event"))?;
        let version = data.and_then(|data| data.etag.as_deref()).and_then(change_key).map(str::to_owned);
        Ok(Some(self.signal(
            Target::Record(RecordId::Outlook { mailbox, event }),
            change,
            SignalCause::Notification,
            version.map(Version::ChangeKey),
            position,
        )))
    }

    /// Finds the mailbox whose secret an item carries.
    fn sender(&self, item: &Notification) -> Result<MailboxId, NoSignal> {
        if let (Ok(ours), Some(theirs)) = (Uuid::parse_str(&self.tenant), item.tenant_id.as_deref())
            && Uuid::parse_str(theirs) != Ok(ours)
        {
            return Err(NoSignal(Reason::ForeignMessage, "an item comes from another tenant"));
        }
        let state = item.client_state.as_deref().unwrap_or_default();
        let named = item.resource.as_deref().and_then(event_path).map(|(user, _)| MailboxId::new(user));
        let found = match named {
            Some(mailbox) => self.enrolled.get(&mailbox).filter(|enrolled| self.states.matches(enrolled, state)),
            // Lifecycle items name no mailbox, only the subscription and its secret.
            None => self.enrolled.iter().find(|enrolled| self.states.matches(enrolled, state)),
        };
        found
            .cloned()
            .ok_or(NoSignal(Reason::ForeignMessage, "an item is not from a subscription of an enrolled mailbox"))
    }

    fn lifecycle(&self, event: &str, mailbox: MailboxId, position: &Position) -> Result<Option<Signal>, NoSignal> {
        let gap = match event.to_ascii_lowercase().as_str() {
            "missed" => true,
            "subscriptionremoved" => {
                self.nudges.give(mailbox.clone(), Nudge::Recreate);
                true
            }
            "reauthorizationrequired" => {
                self.nudges.give(mailbox.clone(), Nudge::Renew);
                false
            }
            _ => return Err(NoSignal(Reason::Undecodable, "an item has an unknown `lifecycleEvent`")),
        };
        Ok(gap.then(|| self.signal(Target::Mailbox(mailbox), Change::Unknown, SignalCause::Gap, None, position)))
    }

    fn signal(
        &self,
        target: Target,
        change: Change,
        cause: SignalCause,
        version: Option<Version>,
        position: &Position,
    ) -> Signal {
        Signal {
            connection: self.connection.clone(),
            side: Side::Outlook,
            target,
            change,
            cause,
            version,
            facts: None,
            position: Some(position.clone()),
            received_at: self.clock.now(),
        }
    }

    /// Makes a signal for each enrolled mailbox: changes of any of them may have been missed.
    pub(crate) fn everything_missed(&self) -> Vec<Signal> {
        let rows = self.enrolments.borrow();
        rows.iter()
            .map(|row| Signal {
                connection: self.connection.clone(),
                side: Side::Outlook,
                target: Target::Mailbox(row.enrolment.mailbox.clone()),
                change: Change::Unknown,
                cause: SignalCause::Gap,
                version: None,
                facts: None,
                position: None,
                received_at: self.clock.now(),
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "notification_tests.rs"]
mod tests;
