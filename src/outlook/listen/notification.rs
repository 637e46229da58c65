//! From a notification message to signals and rejects; the same for every road.
//!
//! A message is believed only if its `clientState` is one that we gave out for the mailbox it speaks of: whoever may send
//! to the hub could otherwise steer reads. <https://learn.microsoft.com/graph/change-notifications-delivery-event-hubs>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use calbridge_core::ids::{ConnectionId, MailboxId, RecordId};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, Position, Signal, SignalCause, Target, Version};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    /// Mailboxes of `enrolments`, as far as they have been looked at.
    enrolled: Arc<BTreeSet<MailboxId>>,
}

/// A message of which all items have the expected form.
#[derive(Deserialize)]
struct Message {
    value: Vec<Object<Notification>>,
}

/// What is read from an object only: a list would be read part by part in the order of the fields.
struct Object<T>(T);

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
        let Object(message) = serde_json::from_slice::<Object<Message>>(body).ok()?;
        let mut budget = Budget { comparisons: MOST_COMPARISONS };
        let mut signals = Vec::with_capacity(message.value.len());
        for Object(item) in message.value.iter().filter(|Object(item)| item.lifecycle_event.is_none()) {
            signals.extend(self.notification(item, position, &mut budget).ok()?);
        }
        // Lifecycle items act on more than the answer: they are read once, below.
        let plain = !signals.is_empty() && signals.len() == message.value.len();
        plain.then_some(Understood { signals, rejects: Vec::new() })
    }

    /// Reads any message. Items are taken one at a time, so that it costs little more than its length, whatever is in it.
    fn read_any(&self, body: &[u8], position: &Position) -> Understood {
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

    fn item(&self, item: &Json, position: &Position, budget: &mut Budget) -> Result<Option<Signal>, NoSignal> {
        if !item.is_object() {
            return Err(NoSignal(Reason::Undecodable, "an item is no object"));
        }
        let item = Notification::deserialize(item)
            .map_err(|_wrong_types| NoSignal(Reason::Undecodable, "an item has parts of unexpected types"))?;
        self.notification(&item, position, budget)
    }

    /// Reads one item; a renewal request is no signal and nothing to reject either.
    fn notification(
        &self,
        item: &Notification,
        position: &Position,
        budget: &mut Budget,
    ) -> Result<Option<Signal>, NoSignal> {
        let change = item.change_type.as_deref().unwrap_or_default();
        let validation = change
            .split(':')
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("validation") && word.len() < change.len());
        if item.subscription_id.as_deref() == Some("NA") || validation {
            return Err(NoSignal(Reason::ValidationMessage, "Graph tested the way to the hub"));
        }
        let mailbox = self.sender(item, budget)?;
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
        let data = item.resource_data.as_ref();
        let named = data.and_then(|data| data.id.clone()).filter(|id| !id.is_empty());
        let event = named.or(from_path).ok_or(NoSignal(Reason::Undecodable, "an item names no event"))?;
        if !is_event_id(&event) {
            return Err(NoSignal(Reason::Undecodable, "an item names an event by what cannot be an id"));
        }
        let version = data.and_then(|data| data.etag.as_deref()).and_then(change_key);
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
        let compared = if named.is_some() { 1 } else { self.enrolled.len() };
        budget.comparisons = budget
            .comparisons
            .checked_sub(compared)
            .ok_or(NoSignal(Reason::ForeignMessage, "a message has more items than secrets are compared for"))?;
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

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for OfObject<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OfObject(PhantomData)).map(Self)
    }
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
