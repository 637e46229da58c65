//! The tenant: all Outlook state behind one lock, and how it is read.
//!
//! Does not know HTTP. What changes events is in `acts.rs` and `changes.rs`, meetings between mailboxes in `meeting.rs`,
//! delayed work in `due.rs`, subscriptions in `subscriptions.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use rand::RngCore as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::due::Due;
use super::error::GraphError;
use super::ids::{self, IdForm};
use super::limits::Limits;
use super::mailbox::{Item, Mailbox, NewMailbox, Superseded, Window};
use super::subscriptions::Subscription;
use super::view::{self, Style};
use crate::oauth::entra::Entra;
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
    /// Mailboxes by address in lower case.
    pub addresses: BTreeMap<String, Uuid>,
    pub subscriptions: BTreeMap<Uuid, Subscription>,
    pub due: BTreeMap<(DateTime<Utc>, u64), Due>,
    pub due_counter: u64,
    pub change_counter: u64,
}

impl State {
    /// Finds a mailbox by user id or address.
    pub(crate) fn mailbox_id(&self, name: &str) -> Result<Uuid, GraphError> {
        let by_id = Uuid::parse_str(name).ok().filter(|id| self.mailboxes.contains_key(id));
        by_id.or_else(|| self.mailbox_of(name)).ok_or_else(|| GraphError::invalid_user(name))
    }

    /// Finds a mailbox by address.
    pub(crate) fn mailbox_of(&self, address: &str) -> Option<Uuid> {
        self.addresses.get(&address.to_lowercase()).copied()
    }

    pub(crate) fn mailbox(&self, id: Uuid) -> Result<&Mailbox, GraphError> {
        self.mailboxes.get(&id).ok_or_else(|| GraphError::invalid_user(&id.to_string()))
    }

    pub(crate) fn mailbox_mut(&mut self, id: Uuid) -> Result<&mut Mailbox, GraphError> {
        self.mailboxes.get_mut(&id).ok_or_else(|| GraphError::invalid_user(&id.to_string()))
    }

    /// Finds an event as it was before its last change; a change before `since` is seen all the same.
    pub(crate) fn locate_stale(
        &self,
        mailbox: &str,
        id: &str,
        since: Option<DateTime<Utc>>,
    ) -> Result<(&Mailbox, Cow<'_, Item>), GraphError> {
        let mailbox = self.mailbox(self.mailbox_id(mailbox)?)?;
        let (_, key) = ids::decode(id).ok_or_else(GraphError::malformed_id)?;
        match mailbox.before.get(&key).filter(|before| since.is_none_or(|since| before.until >= since)) {
            Some(Superseded { item: Some(item), .. }) => Ok((mailbox, Cow::Borrowed(item))),
            Some(Superseded { item: None, .. }) => Err(GraphError::item_not_found()),
            None => self.locate(&mailbox.id.to_string(), id),
        }
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
    pub(super) limits: Limits,
    pub(crate) state: Mutex<State>,
    /// Wakes the background work when something new falls due.
    pub(crate) wake: Notify,
    /// Delta links of an older generation are gone.
    pub(crate) delta_generation: AtomicU64,
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant").field("identity", &self.identity).finish_non_exhaustive()
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
            limits: Limits::default(),
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
        let mut state = self.lock();
        state.addresses.insert(mailbox.address.to_lowercase(), id);
        state.mailboxes.insert(id, Mailbox::new(id, mailbox));
        id.to_string()
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
        let window = Window { start, end };
        mailbox.view(&window).iter().map(|item| full(mailbox, item)).collect()
    }

    /// Gives or takes the licence of a mailbox; without it Graph does not find the mailbox, and all in it stays.
    pub fn set_licensed(&self, mailbox: &str, licensed: bool) {
        let mut state = self.lock();
        if let Some(mailbox) = state.mailbox_id(mailbox).ok().and_then(|id| state.mailboxes.get_mut(&id)) {
            mailbox.licensed = licensed;
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no change of the tenant panics while holding the lock")
    }

    pub(crate) fn draw_uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.world.draw(|random| random.fill_bytes(&mut bytes));
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    pub(crate) fn is_office(&self) -> bool {
        self.world.is_noisy()
    }
}

/// The style of the direct (not REST) interface: immutable ids, because the history names records by them.
pub(crate) fn plain() -> Style {
    Style { form: IdForm::Immutable, ..Style::default() }
}

fn full(mailbox: &Mailbox, item: &Item) -> Value {
    let mut event = view::event(mailbox, item, &plain());
    event["singleValueExtendedProperties"] = json!(view::extended(item, |_| true));
    event
}
