//! One mailbox: its items, what was removed from it, and how items are found by id.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::content::{Content, Person, Response};
use super::ids::{self, IdForm, ItemKey};
use super::series;
use super::zones::Zone;

/// A mailbox to create.
#[derive(Debug, Clone)]
pub struct NewMailbox {
    /// Mail address, also the user principal name.
    pub address: String,
    /// Display name.
    pub name: String,
    /// Windows or IANA zone name of the mailbox; an unknown name becomes UTC.
    pub zone: String,
    /// User id; none draws one.
    pub user_id: Option<Uuid>,
}

/// One stored event: a single event, a series, or an exception of a series.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub key: ItemKey,
    pub ical_uid: String,
    pub change_key: String,
    pub created: DateTime<Utc>,
    pub modified: DateTime<Utc>,
    /// Position of the last change in the mailbox's order of changes.
    pub modseq: u64,
    pub content: Content,
    pub organizer: Person,
    pub is_organizer: bool,
    pub response: Response,
    pub transaction_id: Option<String>,
    /// Identity of the organiser's item, on an attendee's copy.
    pub meeting: Option<Uuid>,
    /// Original starts of deleted occurrences, on a series.
    pub cancelled: BTreeSet<i64>,
    /// Tells an edited occurrence from one that merely follows its series.
    pub is_exception: bool,
}

impl Item {
    pub(crate) fn kind(&self) -> &'static str {
        match (self.key.original, self.is_exception) {
            (Some(_), true) => "exception",
            (Some(_), false) => "occurrence",
            (None, _) if self.content.recurrence.is_some() => "seriesMaster",
            (None, _) => "singleInstance",
        }
    }

    /// Tells whether the event lies at least partly in a window; an event of no length counts at its start.
    pub(crate) fn overlaps(&self, window: &Window) -> bool {
        let (start, end) = (self.content.start.instant(), self.content.end.instant());
        start < window.end && (end > window.start || (start == end && start >= window.start))
    }
}

/// A span of time, the end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
}

/// What remains of a removed item, for delta rounds.
#[derive(Debug, Clone)]
pub(crate) struct Removal {
    pub modseq: u64,
    pub key: ItemKey,
}

/// What an item was before its last change.
#[derive(Debug)]
pub(crate) struct Superseded {
    /// None: it did not exist.
    pub item: Option<Item>,
    /// When it changed.
    pub until: DateTime<Utc>,
}

/// All state of one mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub id: Uuid,
    pub person: Person,
    pub zone: Zone,
    pub items: BTreeMap<ItemKey, Item>,
    pub removals: Vec<Removal>,
    /// Each item before its last change, for stale reads.
    pub before: BTreeMap<ItemKey, Superseded>,
    pub modseq: u64,
    /// Whether its owner has a licence; without, Graph does not find it.
    pub licensed: bool,
    /// Events by the `transactionId` they were created with.
    pub transactions: BTreeMap<String, ItemKey>,
    /// Own items by the organiser's item, for copies of meetings; stays after the copy was deleted.
    pub meetings: BTreeMap<Uuid, Uuid>,
}

impl Mailbox {
    pub(crate) fn new(id: Uuid, new: NewMailbox) -> Self {
        Self {
            id,
            zone: Zone::parse(&new.zone).unwrap_or_else(|_unknown| Zone::utc()),
            person: Person { name: new.name, address: new.address },
            items: BTreeMap::new(),
            removals: Vec::new(),
            before: BTreeMap::new(),
            // Not 0, so that a delta token can tell "nothing told yet" from "nothing happened yet".
            modseq: 1,
            licensed: true,
            transactions: BTreeMap::new(),
            meetings: BTreeMap::new(),
        }
    }

    pub(crate) fn next_modseq(&mut self) -> u64 {
        self.modseq += 1;
        self.modseq
    }

    pub(crate) fn event_id(&self, form: IdForm, key: ItemKey) -> String {
        ids::encode(form, self.id, key)
    }

    /// Finds an item; an occurrence that nobody edited is computed from its series.
    pub(crate) fn find(&self, key: ItemKey) -> Option<Cow<'_, Item>> {
        if let Some(item) = self.items.get(&key) {
            return Some(Cow::Borrowed(item));
        }
        let master = self.items.get(&key.master())?;
        series::occurrence(master, key.original?).map(Cow::Owned)
    }

    /// Returns everything that shows in a window: single events, occurrences and exceptions, by start.
    pub(crate) fn view(&self, window: &Window) -> Vec<Item> {
        let mut found: Vec<Item> = Vec::new();
        for item in self.items.values() {
            match item.kind() {
                "seriesMaster" => found.extend(self.occurrences(item, window)),
                "singleInstance" if item.overlaps(window) => found.push(item.clone()),
                _ => {}
            }
        }
        found.sort_by_key(|item| (item.content.start.instant(), item.key));
        found
    }

    /// Returns the occurrences and exceptions of a series that lie in a window, by start.
    pub(crate) fn occurrences(&self, master: &Item, window: &Window) -> Vec<Item> {
        let mut found: Vec<Item> = self.exceptions(master.key).filter(|item| item.overlaps(window)).cloned().collect();
        for original in series::originals(master, window) {
            if !self.items.contains_key(&ItemKey::occurrence(master.key.item, original)) {
                found.extend(series::occurrence_at(master, original));
            }
        }
        found.sort_by_key(|item| (item.content.start.instant(), item.key));
        found
    }

    /// Stores an item and keeps what it replaces.
    pub(crate) fn put(&mut self, item: Item) {
        let (key, until) = (item.key, item.modified);
        let replaced = self.items.insert(key, item);
        self.before.insert(key, Superseded { item: replaced, until });
    }

    /// Drops the edited occurrences of a series; delta rounds tell of it.
    pub(crate) fn discard_exceptions(&mut self, master: ItemKey, now: DateTime<Utc>) {
        let gone: Vec<ItemKey> = self.exceptions(master).map(|item| item.key).collect();
        for key in gone {
            self.discard(key, now);
        }
    }

    /// Takes one item out and keeps what delta rounds need.
    pub(crate) fn discard(&mut self, key: ItemKey, now: DateTime<Utc>) {
        let item = self.items.remove(&key);
        self.before.insert(key, Superseded { item, until: now });
        let modseq = self.next_modseq();
        self.removals.push(Removal { modseq, key });
    }

    pub(crate) fn exceptions(&self, master: ItemKey) -> impl Iterator<Item = &Item> {
        self.items
            .range(ItemKey::whole(master.item)..=ItemKey::occurrence(master.item, i64::MAX))
            .map(|(_, item)| item)
            .filter(|item| item.key.original.is_some())
    }
}
