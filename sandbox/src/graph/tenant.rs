//! The tenant: all Outlook state, and the one implementation of what can be done to it.
//!
//! REST and people both come through here, so that every effective change has one place where it gets a change key, enters
//! the history, and is notified. Does not know HTTP. Meetings between mailboxes are in `meeting.rs`, delayed work in
//! `due.rs`, subscriptions in `subscriptions.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use rand::{Rng as _, RngCore as _};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::content::Response;
use super::due::Due;
use super::error::GraphError;
use super::ids::{self, IdForm, ItemKey};
use super::input;
use super::mailbox::{Item, Mailbox, NewMailbox};
use super::series;
use super::subscriptions::Subscription;
use super::view::{self, Style};
use crate::actor::Actor;
use crate::history::{Cloud, Effect, EffectKind};
use crate::oauth::entra::Entra;
use crate::options::Profile;
use crate::world::World;

/// Puts one message on the hub, without partition key.
pub type Publisher = Arc<dyn Fn(Vec<u8>) + Send + Sync>;

/// Name under which Exchange's own machinery acts.
pub const EXCHANGE: &str = "exchange";

/// Who the tenant is, and the one application registered in it.
#[derive(Clone)]
pub struct TenantIdentity {
    /// Tenant id.
    pub tenant_id: Uuid,
    /// Primary domain.
    pub domain: String,
    /// Client id of the app registration.
    pub client_id: String,
    /// Client secret of the app registration.
    pub client_secret: String,
    /// Event hub that `EventHub:` notification URLs may name.
    pub hub: String,
}

impl std::fmt::Debug for TenantIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantIdentity")
            .field("tenant_id", &self.tenant_id)
            .field("domain", &self.domain)
            .field("client_id", &self.client_id)
            .field("hub", &self.hub)
            .finish_non_exhaustive()
    }
}

/// What is behind the tenant's lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub mailboxes: BTreeMap<Uuid, Mailbox>,
    pub subscriptions: BTreeMap<Uuid, Subscription>,
    pub due: BTreeMap<(DateTime<Utc>, u64), Due>,
    pub due_counter: u64,
    pub change_counter: u64,
}

impl State {
    /// Finds a mailbox by user id or address.
    pub(crate) fn mailbox_id(&self, name: &str) -> Result<Uuid, GraphError> {
        let by_id = Uuid::parse_str(name).ok().filter(|id| self.mailboxes.contains_key(id));
        by_id
            .or_else(|| self.mailbox_of(name))
            .ok_or_else(|| GraphError::invalid_user(name))
    }

    /// Finds a mailbox by address.
    pub(crate) fn mailbox_of(&self, address: &str) -> Option<Uuid> {
        self.mailboxes
            .values()
            .find(|mailbox| mailbox.person.is(address))
            .map(|mailbox| mailbox.id)
    }

    pub(crate) fn mailbox(&self, id: Uuid) -> Result<&Mailbox, GraphError> {
        self.mailboxes
            .get(&id)
            .ok_or_else(|| GraphError::invalid_user(&id.to_string()))
    }

    pub(crate) fn mailbox_mut(&mut self, id: Uuid) -> Result<&mut Mailbox, GraphError> {
        self.mailboxes
            .get_mut(&id)
            .ok_or_else(|| GraphError::invalid_user(&id.to_string()))
    }

    /// Finds an event by mailbox name and id of either form.
    pub(crate) fn locate(&self, mailbox: &str, id: &str) -> Result<(&Mailbox, Cow<'_, Item>), GraphError> {
        let mailbox = self.mailbox(self.mailbox_id(mailbox)?)?;
        let (home, key) = ids::decode(id).ok_or_else(GraphError::malformed_id)?;
        if home != mailbox.id {
            return Err(GraphError::item_not_found());
        }
        let item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?;
        Ok((mailbox, item))
    }
}

/// The tenant with its mailboxes.
pub struct Tenant {
    pub(crate) world: Arc<World>,
    pub(crate) identity: TenantIdentity,
    pub(crate) entra: Arc<Entra>,
    pub(crate) publish: Publisher,
    pub(crate) state: Mutex<State>,
    /// Wakes the background work when something new falls due.
    pub(crate) wake: Notify,
    /// Delta links of an older generation are gone.
    pub(crate) delta_generation: AtomicU64,
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Tenant {
    /// Makes an empty tenant; spawns nothing.
    pub fn new(world: Arc<World>, identity: TenantIdentity, publish: Publisher) -> Arc<Self> {
        let entra = Arc::new(Entra::new(&world, &identity));
        Arc::new(Self {
            world,
            identity,
            entra,
            publish,
            state: Mutex::default(),
            wake: Notify::new(),
            delta_generation: AtomicU64::new(1),
        })
    }

    /// Returns the token service of the tenant.
    pub fn entra(&self) -> &Arc<Entra> {
        &self.entra
    }

    /// Adds a mailbox and returns the user id.
    pub fn add_mailbox(&self, mailbox: NewMailbox) -> String {
        let id = mailbox.user_id.unwrap_or_else(|| self.draw_uuid());
        self.lock().mailboxes.insert(id, Mailbox::new(id, mailbox));
        id.to_string()
    }

    /// Creates an event and returns it (ids in the immutable form, times in UTC).
    ///
    /// # Errors
    /// As Graph answers them: unknown mailbox, invalid property.
    pub fn create_event(&self, actor: &Actor, mailbox: &str, body: &Value) -> Result<Value, GraphError> {
        self.create_styled(actor, mailbox, body, &plain())
    }

    /// Changes an event, or one occurrence of a series, and returns it.
    ///
    /// # Errors
    /// As Graph answers them; 412 if `if_match` is not the present entity tag.
    pub fn update_event(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        patch: &Value,
        if_match: Option<&str>,
    ) -> Result<Value, GraphError> {
        self.update_styled(actor, mailbox, id, patch, if_match, &plain())
    }

    /// Deletes an event; on the organiser's copy this sends cancellations, on an attendee's it declines.
    ///
    /// # Errors
    /// As Graph answers them; 412 if `if_match` is not the present entity tag.
    pub fn delete_event(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<(), GraphError> {
        let mut state = self.lock();
        let (home, key) = self.checked(&state, mailbox, id, if_match)?;
        self.delete(&mut state, actor, home, key)
    }

    /// Cancels a meeting from the organiser's copy; the event leaves the calendar (it moves to Deleted Items).
    ///
    /// # Errors
    /// 400 from an attendee's copy.
    pub fn cancel_event(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        _comment: Option<&str>,
    ) -> Result<(), GraphError> {
        let mut state = self.lock();
        let (found, item) = state.locate(mailbox, id)?;
        let (home, key, is_organizer) = (found.id, item.key, item.is_organizer);
        if !is_organizer {
            return Err(GraphError::new(
                400,
                "ErrorCalendarIsNotOrganizer",
                "Your request can't be completed. You need to be an organizer to cancel a meeting.",
            ));
        }
        self.delete(&mut state, actor, home, key)
    }

    /// Returns an event with its extended properties (ids in the immutable form, times in UTC).
    ///
    /// # Errors
    /// As Graph answers them.
    pub fn get_event(&self, mailbox: &str, id: &str) -> Result<Value, GraphError> {
        let state = self.lock();
        let (mailbox, item) = state.locate(mailbox, id)?;
        Ok(full(mailbox, &item))
    }

    /// Returns all single events, series and exceptions of a mailbox, with extended properties.
    pub fn events(&self, mailbox: &str) -> Vec<Value> {
        let state = self.lock();
        let Ok(mailbox) = state.mailbox_id(mailbox).and_then(|id| state.mailbox(id)) else {
            return Vec::new();
        };
        mailbox.items.values().map(|item| full(mailbox, item)).collect()
    }

    /// Returns the occurrences of a mailbox's calendar that overlap a span, with extended properties.
    pub fn calendar_view(&self, mailbox: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Vec<Value> {
        let state = self.lock();
        let Ok(mailbox) = state.mailbox_id(mailbox).and_then(|id| state.mailbox(id)) else {
            return Vec::new();
        };
        let window = super::mailbox::Window { start, end };
        mailbox.view(&window).iter().map(|item| full(mailbox, item)).collect()
    }

    pub(crate) fn create_styled(
        &self,
        actor: &Actor,
        mailbox: &str,
        body: &Value,
        style: &Style,
    ) -> Result<Value, GraphError> {
        let body = input::object(body)?;
        let mut state = self.lock();
        let home = state.mailbox_id(mailbox)?;
        let transaction = body.get("transactionId").and_then(Value::as_str).map(str::to_owned);
        if let Some(transaction) = transaction
            .as_ref()
            .filter(|_| self.world.faults.read().outlook_transaction_id)
        {
            // A repeated create answers the first event; after that event was deleted a new one is made (unconfirmed).
            let found = state.mailbox(home)?;
            if let Some(item) = found.transactions.get(transaction).and_then(|key| found.items.get(key)) {
                return Ok(view::event(found, item, style));
            }
        }
        let content = input::create(body)?;
        let uuid = self.draw_uuid();
        let now = self.world.clock.now();
        let owner = state.mailbox(home)?.person.clone();
        let mails = invited(&content, &owner.address);
        let item = Item {
            key: ItemKey::whole(uuid),
            ical_uid: ids::ical_uid(uuid, now),
            change_key: String::new(),
            created: now,
            modified: now,
            modseq: 0,
            content,
            organizer: owner,
            is_organizer: true,
            response: Response::of("organizer"),
            transaction_id: transaction.clone(),
            meeting: None,
            cancelled: std::collections::BTreeSet::new(),
            is_exception: false,
        };
        let key = item.key;
        self.insert(&mut state, actor, home, item)?;
        if let Some(transaction) = transaction {
            state.mailbox_mut(home)?.transactions.insert(transaction, key);
        }
        self.world.meters.mails(actor, mails.len() as u64);
        self.send_to_copies(&mut state, home, uuid, &mails, true);
        let mailbox = state.mailbox(home)?;
        let item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?;
        Ok(view::event(mailbox, &item, style))
    }

    pub(crate) fn update_styled(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        patch: &Value,
        if_match: Option<&str>,
        style: &Style,
    ) -> Result<Value, GraphError> {
        let patch = input::object(patch)?;
        let mut state = self.lock();
        let (home, key) = self.checked(&state, mailbox, id, if_match)?;
        let owner = state.mailbox(home)?.person.address.clone();
        let item = state
            .mailbox(home)?
            .find(key)
            .ok_or_else(GraphError::item_not_found)?
            .into_owned();
        let mut content = item.content.clone();
        input::apply(&mut content, patch)?;
        if let Some(original) = key.original {
            content.recurrence = None;
            if let Some(master) = state.mailbox(home)?.items.get(&key.master()) {
                series::check_boundary(master, original, &content.start)?;
            }
        }
        let before = item.content.clone();
        self.edit(&mut state, actor, home, key, |item| item.content = content)?;
        let after = state
            .mailbox(home)?
            .find(key)
            .ok_or_else(GraphError::item_not_found)?
            .content
            .clone();
        let moved = after.recurrence != before.recurrence
            || (after.recurrence.is_some() && (after.start != before.start || after.end != before.end));
        if key.original.is_none() && moved {
            // A new pattern or time of a series discards its exceptions (unconfirmed).
            let home = state.mailbox_mut(home)?;
            home.items
                .retain(|other, _| other.item != key.item || other.original.is_none());
            if let Some(master) = home.items.get_mut(&key) {
                master.cancelled.clear();
            }
        }
        if item.is_organizer {
            let (old, new) = (invited(&before, &owner), invited(&after, &owner));
            let everybody = after.mails_everybody(&before);
            let mailed = old.iter().chain(new.iter().filter(|address| !old.contains(address)));
            let mailed = mailed
                .filter(|address| everybody || old.contains(address) != new.contains(address))
                .count();
            self.world.meters.mails(actor, mailed as u64);
            if everybody || after.attendees != before.attendees {
                let mut all = old;
                all.extend(new);
                let retimed = after.start != before.start || after.end != before.end || moved;
                self.send_to_copies(&mut state, home, key.item, &all, retimed);
            }
        }
        let mailbox = state.mailbox(home)?;
        let item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?;
        Ok(view::event(mailbox, &item, style))
    }

    /// Deletes an item, or one occurrence of a series, with everything that follows from it.
    fn delete(&self, state: &mut State, actor: &Actor, home: Uuid, key: ItemKey) -> Result<(), GraphError> {
        let item = state
            .mailbox(home)?
            .find(key)
            .ok_or_else(GraphError::item_not_found)?
            .into_owned();
        let owner = state.mailbox(home)?.person.address.clone();
        if key.original.is_some() {
            self.cancel_occurrence(state, actor, home, key)?;
        } else {
            self.remove(state, actor, home, key)?;
        }
        if item.is_organizer {
            let mails = invited(&item.content, &owner);
            self.world.meters.mails(actor, mails.len() as u64);
            self.send_to_copies(state, home, key.item, &mails, false);
        } else if let (None, Some(meeting)) = (key.original, item.meeting) {
            // The organiser learns of it by mail and sees the attendee as declined.
            self.world.meters.mails(actor, 1);
            self.send_answer(state, &item.organizer.address, meeting, &owner, "declined");
        }
        Ok(())
    }

    /// Finds an event and holds a client to its `If-Match`.
    fn checked(
        &self,
        state: &State,
        mailbox: &str,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<(Uuid, ItemKey), GraphError> {
        let (mailbox, item) = state.locate(mailbox, id)?;
        if let Some(wanted) = if_match.filter(|_| self.world.faults.read().outlook_if_match) {
            let present = ids::etag(&item.change_key);
            let strong = present.trim_start_matches("W/");
            let fits = wanted
                .split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag == present || tag == strong);
            if !fits {
                return Err(GraphError::conflict());
            }
        }
        Ok((mailbox.id, item.key))
    }

    /// Puts a new item into a mailbox.
    pub(crate) fn insert(
        &self,
        state: &mut State,
        actor: &Actor,
        home: Uuid,
        mut item: Item,
    ) -> Result<(), GraphError> {
        let key = item.key;
        item.change_key = self.next_change_key(state, home);
        let mailbox = state.mailbox_mut(home)?;
        item.modseq = mailbox.next_modseq();
        let facts = item.content.facts();
        let version = item.change_key.clone();
        let ical_uid = item.ical_uid.clone();
        mailbox.items.insert(key, item);
        self.record(
            home,
            key,
            ical_uid,
            actor,
            EffectKind::Create,
            facts,
            Map::new(),
            version,
        );
        self.notify(state, home, key, "created");
        self.stir(state, home, key, 1);
        Ok(())
    }

    /// Changes an item in place; editing an occurrence turns it into an exception and touches its series.
    pub(crate) fn edit(
        &self,
        state: &mut State,
        actor: &Actor,
        home: Uuid,
        key: ItemKey,
        change: impl FnOnce(&mut Item),
    ) -> Result<(), GraphError> {
        self.edit_once(state, actor, home, key, change)?;
        self.stir(state, home, key, 0);
        if key.original.is_some() {
            self.edit_once(state, actor, home, key.master(), |_| {})?;
        }
        Ok(())
    }

    pub(crate) fn edit_once(
        &self,
        state: &mut State,
        actor: &Actor,
        home: Uuid,
        key: ItemKey,
        change: impl FnOnce(&mut Item),
    ) -> Result<(), GraphError> {
        let change_key = self.next_change_key(state, home);
        let now = self.world.clock.now();
        let mailbox = state.mailbox_mut(home)?;
        let mut item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?.into_owned();
        let before = item.content.facts();
        change(&mut item);
        let after = item.content.facts();
        item.change_key.clone_from(&change_key);
        item.modified = now;
        item.modseq = mailbox.next_modseq();
        item.is_exception = key.original.is_some();
        let ical_uid = item.ical_uid.clone();
        mailbox.items.insert(key, item);
        let (changed, old) = difference(after, before);
        let touched = changed.keys().all(|name| name == "singleValueExtendedProperties");
        let kind = if touched { EffectKind::Touch } else { EffectKind::Update };
        self.record(home, key, ical_uid, actor, kind, changed, old, change_key);
        self.notify(state, home, key, "updated");
        Ok(())
    }

    /// Takes an item out of a mailbox, a series with all its exceptions.
    pub(crate) fn remove(&self, state: &mut State, actor: &Actor, home: Uuid, key: ItemKey) -> Result<(), GraphError> {
        let mailbox = state.mailbox_mut(home)?;
        let item = mailbox.items.get(&key).ok_or_else(GraphError::item_not_found)?.clone();
        let gone: Vec<ItemKey> = mailbox
            .exceptions(key)
            .map(|item| item.key)
            .filter(|_| key.original.is_none())
            .chain([key])
            .collect();
        for key in gone {
            mailbox.items.remove(&key);
            let modseq = mailbox.next_modseq();
            mailbox.removals.push(super::mailbox::Removal { modseq, key });
        }
        self.record(
            home,
            key,
            item.ical_uid,
            actor,
            EffectKind::Delete,
            Map::new(),
            item.content.facts(),
            item.change_key,
        );
        self.notify(state, home, key, "deleted");
        Ok(())
    }

    /// Deletes one occurrence of a series.
    pub(crate) fn cancel_occurrence(
        &self,
        state: &mut State,
        actor: &Actor,
        home: Uuid,
        key: ItemKey,
    ) -> Result<(), GraphError> {
        let Some(original) = key.original else {
            return Err(GraphError::malformed_id());
        };
        let mailbox = state.mailbox_mut(home)?;
        let item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?.into_owned();
        mailbox.items.remove(&key);
        let modseq = mailbox.next_modseq();
        mailbox.removals.push(super::mailbox::Removal { modseq, key });
        self.record(
            home,
            key,
            item.ical_uid,
            actor,
            EffectKind::Delete,
            Map::new(),
            item.content.facts(),
            item.change_key,
        );
        self.notify(state, home, key, "deleted");
        self.edit_once(state, actor, home, key.master(), |master| {
            master.cancelled.insert(original);
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one effect; a builder would only rename them"
    )]
    fn record(
        &self,
        home: Uuid,
        key: ItemKey,
        ical_uid: String,
        actor: &Actor,
        kind: EffectKind,
        changed: Map<String, Value>,
        before: Map<String, Value>,
        version: String,
    ) {
        self.world.history.record(Effect {
            sequence: 0,
            at: self.world.clock.now(),
            cloud: Cloud::Outlook,
            scope: home.to_string(),
            record: ids::encode(IdForm::Immutable, home, key),
            ical_uid,
            actor: actor.clone(),
            kind,
            changed,
            before,
            version,
        });
    }

    fn next_change_key(&self, state: &mut State, home: Uuid) -> String {
        state.change_counter += self.world.draw(|random| random.random_range(1..40));
        ids::change_key(home, state.change_counter)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no change of the tenant panics while holding the lock")
    }

    pub(crate) fn draw_uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.world.draw(|random| random.fill_bytes(&mut bytes));
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    pub(crate) fn is_office(&self) -> bool {
        self.world.profile == Profile::Office
    }
}

/// The style of the direct (not REST) interface: immutable ids, because the history names records by them.
pub(crate) fn plain() -> Style {
    Style {
        form: IdForm::Immutable,
        ..Style::default()
    }
}

fn full(mailbox: &Mailbox, item: &Item) -> Value {
    let mut event = view::event(mailbox, item, &plain());
    event["singleValueExtendedProperties"] = json!(view::extended(item, |_| true));
    event
}

/// Returns whom Exchange mails about the event: all attendees but the organiser.
fn invited(content: &super::content::Content, owner: &str) -> Vec<String> {
    let others = content.attendees.iter().filter(|attendee| !attendee.person.is(owner));
    others.map(|attendee| attendee.person.address.to_lowercase()).collect()
}

/// Keeps of two sets of values those that differ: new ones and old ones.
fn difference(
    mut after: Map<String, Value>,
    mut before: Map<String, Value>,
) -> (Map<String, Value>, Map<String, Value>) {
    after.retain(|name, value| {
        let differs = before.get(name) != Some(value);
        if !differs {
            before.remove(name);
        }
        differs
    });
    (after, before)
}
