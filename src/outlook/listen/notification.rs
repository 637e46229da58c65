//! From a notification message to signals and rejects; the same for every road.
//!
//! A message is believed only if its `clientState` is one that we gave out for the mailbox it speaks of: whoever may send
//! to the hub could otherwise steer reads. <https://learn.microsoft.com/graph/change-notifications-delivery-event-hubs>

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use calbridge_core::ids::{ConnectionId, MailboxId, RecordId};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, Position, Signal, SignalCause, Target, Version};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_json::error::Category;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Nudge, Nudges};
use crate::outlook::subscriptions::ClientStates;
use crate::outlook::wire::{Notification, change_key, event_path};
use crate::ports::{Clock, EnrolmentRow, Reject};

/// Largest message that is read; Graph sends no larger ones to a hub.
/// <https://learn.microsoft.com/graph/change-notifications-delivery-event-hubs>
const LARGEST_MESSAGE: usize = 1024 * 1024;
/// Secrets that are compared for one message. An item that names no mailbox is compared with all of them, and a message
/// has room for thousands of such items: without a limit, whoever may send to the hub could buy seconds with each.
const MOST_COMPARISONS: usize = 100_000;
/// Longest id or change key of an event, in bytes; those that Graph gives have up to about 250.
const LONGEST_ID: usize = 1024;

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
}

/// What a message held.
#[derive(Debug, Default)]
pub(crate) struct Understood {
    pub(crate) signals: Vec<Signal>,
    /// One for each cause, with the number of items that it stands for.
    pub(crate) rejects: Vec<Reject>,
}

/// Why an item is no signal.
#[derive(Clone, Copy)]
struct NoSignal(Reason, &'static str);

/// What one message may still cost.
struct Budget {
    /// Secrets that may still be compared.
    comparisons: usize,
}

impl Reader {
    /// Reads one message; every item of it becomes a signal or a reject.
    ///
    /// Items are taken one at a time, so that a message costs little more than its length, whatever is in it.
    pub(crate) fn read(&self, body: &[u8], position: &Position) -> Understood {
        let mut signals = Vec::new();
        let mut rejects: BTreeMap<(Reason, &'static str), Reject> = BTreeMap::new();
        let mut reject = |NoSignal(reason, detail): NoSignal, raw: &[u8]| {
            let known = rejects.entry((reason, detail)).or_insert_with(|| Reject {
                connection: self.connection.clone(),
                side: Side::Outlook,
                reason,
                detail,
                raw: Reject::kept(reason, raw),
                size: raw.len(),
                items: 0,
                position: Some(position.clone()),
            });
            known.items = known.items.saturating_add(1);
        };
        if body.len() > LARGEST_MESSAGE {
            reject(NoSignal(Reason::Oversized, "the message is larger than 1 MiB"), body);
            return Understood { signals, rejects: rejects.into_values().collect() };
        }
        let mut budget = Budget { comparisons: MOST_COMPARISONS };
        let mut items = 0_u32;
        let read = for_each_item(body, &mut |item| {
            items = items.saturating_add(1);
            match self.item(&item, position, &mut budget) {
                Ok(signal) => signals.extend(signal),
                Err(no_signal) if no_signal.0.keeps_message() => reject(no_signal, item.to_string().as_bytes()),
                Err(no_signal) => reject(no_signal, &[]),
            }
        });
        match read {
            Ok(()) if items > 0 => {}
            Ok(()) => reject(NoSignal(Reason::Undecodable, "the message has no items in a list `value`"), body),
            Err(detail) => reject(NoSignal(Reason::Undecodable, detail), body),
        }
        Understood { signals, rejects: rejects.into_values().collect() }
    }

    /// Reads one item; a renewal request is no signal and nothing to reject either.
    fn item(&self, item: &Json, position: &Position, budget: &mut Budget) -> Result<Option<Signal>, NoSignal> {
        if !item.is_object() {
            // A list would be read part by part in the order of ours.
            return Err(NoSignal(Reason::Undecodable, "an item is no object"));
        }
        let item = Notification::deserialize(item)
            .map_err(|_wrong_types| NoSignal(Reason::Undecodable, "an item has parts of unexpected types"))?;
        let change = item.change_type.as_deref().unwrap_or_default();
        let validation = change
            .split(':')
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("validation") && word.len() < change.len());
        if item.subscription_id.as_deref() == Some("NA") || validation {
            return Err(NoSignal(Reason::ValidationMessage, "Graph tested the way to the hub"));
        }
        let mailbox = self.sender(&item, budget)?;
        if let Some(event) = item.lifecycle_event.as_deref() {
            return self.lifecycle(event, mailbox, position);
        }
        let change = match change.to_ascii_lowercase().as_str() {
            "created" => Change::Created,
            "updated" => Change::Updated,
            "deleted" => Change::Deleted,
            _ => return Err(NoSignal(Reason::UnknownKind, "an item has an unknown `changeType`")),
        };
        if item.additional_payload_storage_id.is_some() && item.resource.is_none() {
            return Err(NoSignal(
                Reason::UnknownKind,
                "an item's content was put into a blob store, which we never ask for",
            ));
        }
        let (user, from_path) = item
            .resource
            .as_deref()
            .and_then(event_path)
            .ok_or(NoSignal(Reason::ForeignMessage, "an item is about no event"))?;
        if user != mailbox.as_str() {
            return Err(NoSignal(Reason::ForeignMessage, "an item speaks of another mailbox than its secret"));
        }
        let data = item.resource_data.unwrap_or_default();
        let event = data
            .id
            .filter(|id| !id.is_empty())
            .or(from_path)
            .ok_or(NoSignal(Reason::Undecodable, "an item names no event"))?;
        if !is_event_id(&event) {
            return Err(NoSignal(Reason::Undecodable, "an item names an event by what cannot be an id"));
        }
        let version = data.etag.as_deref().and_then(change_key);
        let version =
            version.filter(|key| key.len() <= LONGEST_ID && !key.contains(char::is_control)).map(str::to_owned);
        Ok(Some(self.signal(
            Target::Record(RecordId::Outlook { mailbox, event }),
            change,
            SignalCause::Notification,
            version.map(Version::ChangeKey),
            position,
        )))
    }

    /// Finds the mailbox whose secret an item carries.
    fn sender(&self, item: &Notification, budget: &mut Budget) -> Result<MailboxId, NoSignal> {
        if let (Ok(ours), Some(theirs)) = (Uuid::parse_str(&self.tenant), item.tenant_id.as_deref())
            && Uuid::parse_str(theirs) != Ok(ours)
        {
            return Err(NoSignal(Reason::ForeignMessage, "an item comes from another tenant"));
        }
        let state = item.client_state.as_deref().unwrap_or_default();
        let named = item.resource.as_deref().and_then(event_path).map(|(user, _)| MailboxId::new(user));
        let rows = self.enrolments.borrow();
        let compared = if named.is_some() { 1 } else { rows.len() };
        budget.comparisons = budget
            .comparisons
            .checked_sub(compared)
            .ok_or(NoSignal(Reason::ForeignMessage, "a message has more items than secrets are compared for"))?;
        let found = match named {
            Some(mailbox) => rows
                .iter()
                .map(|row| &row.enrolment.mailbox)
                .find(|enrolled| **enrolled == mailbox && self.states.matches(enrolled, state)),
            // Lifecycle items name no mailbox, only the subscription and its secret.
            None => rows.iter().map(|row| &row.enrolment.mailbox).find(|enrolled| self.states.matches(enrolled, state)),
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
            _ => return Err(NoSignal(Reason::UnknownKind, "an item has an unknown `lifecycleEvent`")),
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

/// Tells whether a text can be an event's id: base64 in either alphabet.
///
/// It becomes part of a path, where `..` would lead to something else than an event.
fn is_event_id(id: &str) -> bool {
    id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=+/".contains(&byte))
}

/// Gives each item of a message's list `value` to `take`, one at a time; the error is for the rest of the message.
fn for_each_item(body: &[u8], take: &mut dyn FnMut(Json)) -> Result<(), &'static str> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Envelope(take).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| match error.classify() {
        Category::Data => "the message is no object with a list `value`",
        Category::Eof => "the message is empty or cut off",
        Category::Syntax | Category::Io => "the message is no JSON, or nested too deeply",
    })
}

/// The object around the items.
struct Envelope<'a>(&'a mut dyn FnMut(Json));

impl<'de> DeserializeSeed<'de> for Envelope<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Envelope<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "value" {
                map.next_value_seed(Items(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The list of items.
struct Items<'a>(&'a mut dyn FnMut(Json));

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "notification_tests.rs"]
mod tests;
