//! One Salesforce org: its users, its rows, who may call, and the calls it is made from inside the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};

use chrono::{DateTime, Utc};
use rand::Rng;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::automation::{Automation, Later};
use super::avro::{ChangeType, EventSchema, Header};
use super::cell::{Cell, whole_second};
use super::changes::ChangeLog;
use super::error::SalesforceError;
use super::ids;
use super::input::Cells;
use super::placed::PlacedSchemas;
use super::schema::Object;
use super::tx::{Author, Row, State, Tx};
use super::usage::Usage;
use crate::actor::Actor;
use crate::faults::Switches;
use crate::oauth::salesforce::{JwtKey, Tokens};
use crate::world::World;

/// API version that people's clicks and the sandbox's own writes show in `changeOrigin`.
pub(crate) const OWN_VERSION: &str = "66.0";

/// Names and credentials of an org.
#[derive(Clone)]
pub struct OrgIdentity {
    /// 18-character organisation id.
    pub org_id: String,
    /// Consumer key of the connected app.
    pub client_id: String,
    /// Consumer secret of the connected app.
    pub client_secret: String,
    /// Username of the integration user, whom the client credentials flow runs as.
    pub username: String,
    /// Key pair of the JWT bearer flow.
    pub jwt_key: Arc<JwtKey>,
}

impl OrgIdentity {
    /// Draws an identity from the world's randomness.
    pub fn draw(world: &World, jwt_key: Arc<JwtKey>) -> Self {
        let text = |length: usize| -> String {
            world.draw(|random| (0..length).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect())
        };
        Self {
            org_id: ids::make(ids::ORGANISATION, world.draw(|random| random.random_range(1..1_000_000))),
            client_id: format!("3MVG9{}", text(80)),
            client_secret: text(64).to_uppercase(),
            username: "integration@calbridge-sandbox.example".to_owned(),
            jwt_key,
        }
    }
}

impl std::fmt::Debug for OrgIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OrgIdentity")
            .field("org_id", &self.org_id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A user to add.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Username, unique in the org; the actor id of this person's edits.
    pub username: String,
    /// Mail address.
    pub email: String,
    /// Full name.
    pub name: String,
    /// IANA zone.
    pub zone: String,
}

/// Where clients reach the org; known once its listeners are bound.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) http: String,
    pub(crate) https: String,
}

/// What decides over a change event schema: the object, and which custom fields it has.
type Shape = (Object, bool, bool, bool);

/// All state of one Salesforce org.
#[derive(Debug)]
pub struct Org {
    pub(crate) world: Arc<World>,
    pub(crate) identity: OrgIdentity,
    pub(crate) state: Mutex<State>,
    pub(crate) log: ChangeLog,
    pub(crate) tokens: Tokens,
    pub(crate) usage: Usage,
    pub(crate) automation: Automation,
    pub(crate) addresses: RwLock<Addresses>,
    /// The one consumer secret that is good now.
    pub(crate) secret: RwLock<String>,
    /// Cancelled when the org stops: open streams end.
    pub(crate) closing: CancellationToken,
    /// Counts up when all open streams are to end.
    pub(crate) stream_ends: watch::Sender<u64>,
    schemas: Mutex<BTreeMap<Shape, Arc<EventSchema>>>,
    pub(crate) placed_schemas: PlacedSchemas,
    integration_user: String,
    pub(super) automated_user: String,
}

impl Org {
    /// Makes an org with its integration user and its automated process user; spawns nothing.
    pub fn new(world: Arc<World>, identity: OrgIdentity) -> Arc<Self> {
        let mut state = State::default();
        let now = world.clock.now();
        let integration = NewUser {
            username: identity.username.clone(),
            email: identity.username.clone(),
            name: "Integration User".to_owned(),
            zone: "Etc/UTC".to_owned(),
        };
        let automated = NewUser {
            username: "autoproc@calbridge-sandbox.example".to_owned(),
            email: "autoproc@calbridge-sandbox.example".to_owned(),
            name: "Automated Process".to_owned(),
            zone: "Etc/UTC".to_owned(),
        };
        let integration_user = insert_user(&mut state, 1, integration, "Standard", now);
        let automated_user = insert_user(&mut state, 2, automated, "AutomatedProcess", now);
        insert_organisation(&mut state, &identity.org_id, now);
        let log = ChangeLog::new(&world);
        let secret = RwLock::new(identity.client_secret.clone());
        Arc::new(Self {
            world,
            identity,
            state: Mutex::new(state),
            log,
            tokens: Tokens::default(),
            usage: Usage::default(),
            automation: Automation::default(),
            addresses: RwLock::default(),
            secret,
            closing: CancellationToken::new(),
            stream_ends: watch::Sender::new(0),
            schemas: Mutex::default(),
            placed_schemas: PlacedSchemas::default(),
            integration_user,
            automated_user,
        })
    }

    /// Replaces the consumer secret and returns the new one; the old one is refused, its sessions go on.
    pub fn rotate_secret(&self) -> String {
        let secret: String =
            self.world.draw(|random| (0..64).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect());
        let secret = secret.to_uppercase();
        self.secret.write().expect("no rotation panics while holding the lock").clone_from(&secret);
        secret
    }

    /// Tells the org the base addresses of its listeners, such as `http://127.0.0.1:8080`.
    ///
    /// Token answers name the one that a client came through; without this they repeat the request's host over http.
    pub fn set_addresses(&self, http: &str, https: &str) {
        let mut addresses = self.addresses.write().expect("no address update panics while holding the lock");
        *addresses = Addresses { http: http.to_owned(), https: https.to_owned() };
    }

    /// Returns names and credentials.
    pub fn identity(&self) -> &OrgIdentity {
        &self.identity
    }

    /// Returns the 18-character id of the integration user.
    pub fn integration_user_id(&self) -> &str {
        &self.integration_user
    }

    /// Adds a user; returns its 18-character id.
    pub fn add_user(&self, user: NewUser) -> String {
        let now = self.world.clock.now();
        let mut state = self.state.lock().expect("no transaction panics while holding the lock");
        let number = state.rows.values().filter(|row| row.object == Object::User).count() + 1;
        insert_user(&mut state, number as u64, user, "Standard", now)
    }

    /// Finds a user's 18-character id by username, mail address or id.
    pub fn find_user(&self, name: &str) -> Option<String> {
        let state = self.state.lock().expect("no transaction panics while holding the lock");
        let id = ids::normalise(name);
        state
            .rows
            .values()
            .filter(|row| row.object == Object::User)
            .find(|row| {
                id.as_ref() == Some(&row.id)
                    || ["Username", "Email"]
                        .iter()
                        .any(|field| row.cell(field).as_text().is_some_and(|text| text.eq_ignore_ascii_case(name)))
            })
            .map(|row| row.id.clone())
    }

    /// Creates an Event as `actor`; returns its 18-character id.
    ///
    /// `client` is the id of `Sforce-Call-Options` for an application; people and automation ignore it.
    pub fn create(
        &self,
        actor: &Actor,
        client: Option<&str>,
        fields: &Map<String, Value>,
    ) -> Result<String, Vec<SalesforceError>> {
        self.change(actor, client, |tx| tx.create(Object::Event, fields))
    }

    /// Changes fields of an Event as `actor`.
    pub fn update(
        &self,
        actor: &Actor,
        client: Option<&str>,
        id: &str,
        fields: &Map<String, Value>,
    ) -> Result<(), Vec<SalesforceError>> {
        let id = known_id(id)?;
        self.change(actor, client, |tx| tx.update(Object::Event, &id, fields))
    }

    /// Moves an Event to the recycle bin as `actor`.
    pub fn delete(&self, actor: &Actor, client: Option<&str>, id: &str) -> Result<(), Vec<SalesforceError>> {
        let id = known_id(id)?;
        self.change(actor, client, |tx| tx.delete(Object::Event, &id))
    }

    /// Takes an Event out of the recycle bin as `actor`.
    pub fn undelete(&self, actor: &Actor, client: Option<&str>, id: &str) -> Result<(), Vec<SalesforceError>> {
        let id = known_id(id)?;
        self.change(actor, client, |tx| tx.undelete(&id))
    }

    /// Invites a user, contact, lead or resource to an Event as `actor`; returns the id of the EventRelation.
    pub fn invite(&self, actor: &Actor, event_id: &str, relation_id: &str) -> Result<String, Vec<SalesforceError>> {
        let fields = json!({ "EventId": event_id, "RelationId": relation_id });
        let fields = fields.as_object().cloned().unwrap_or_default();
        self.change(actor, None, |tx| tx.create(Object::EventRelation, &fields))
    }

    /// Returns an Event in its REST form, also from the recycle bin; none when it never existed.
    pub fn get(&self, id: &str) -> Option<Value> {
        let id = ids::normalise(id)?;
        let switches = self.world.faults.read();
        let state = self.state.lock().expect("no transaction panics while holding the lock");
        let row = state.rows.get(&id).filter(|row| row.object == Object::Event)?;
        Some(own_json(row, &switches))
    }

    /// Returns all Events outside the recycle bin, child events included, by id.
    pub fn records(&self) -> Vec<Value> {
        let switches = self.world.faults.read();
        let state = self.state.lock().expect("no transaction panics while holding the lock");
        let events = state.rows.values().filter(|row| row.object == Object::Event && !row.is_deleted());
        events.map(|row| own_json(row, &switches)).collect()
    }

    /// Publishes a header-only gap event for a record, or an overflow event for all records when none is given.
    pub fn publish_gap(&self, record: Option<&str>) {
        let switches = self.world.faults.read();
        let schema = self.event_schema(Object::Event, &switches);
        let record_id = record.and_then(ids::normalise);
        let header = Header {
            change: if record_id.is_some() { ChangeType::GapUpdate } else { ChangeType::GapOverflow },
            record_ids: vec![record_id.unwrap_or_else(|| "000000000000000AAA".to_owned())],
            origin: String::new(),
            transaction_key: format!("{:016x}", self.world.draw(Rng::random::<u64>)),
            sequence_number: 1,
            commit_timestamp: whole_second(self.world.clock.now()).timestamp_millis(),
            commit_number: 1,
            commit_user: self.automated_user.clone(),
        };
        let payload = schema.encode(&header, None, &BTreeSet::new());
        self.log.append(&self.world, &schema, payload, 1);
    }

    /// Forgets all retained change events and replay ids, as a migration of the org does.
    pub fn forget_change_events(&self) {
        self.log.forget_all();
    }

    /// Plays the org's own automation until stopped; then ends all open Pub/Sub streams.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let actor = Actor::Automation("flow".to_owned());
        loop {
            let now = self.world.clock.now();
            let (due, next) = self.automation.take_due(now);
            for later in due {
                let edit: fn(&mut Tx<'_>, &str) -> Result<(), SalesforceError>;
                let id = match later {
                    Later::Touch(id) => {
                        edit = |tx, id| tx.touch(id);
                        id
                    }
                    Later::Review(id) => {
                        edit = |tx, id| tx.review(id);
                        id
                    }
                    Later::Publish(event) => {
                        self.log.append(&self.world, &event.schema, event.payload, event.deliveries);
                        self.automation.published();
                        continue;
                    }
                };
                let mut tx = Tx::begin(&self, self.author(&actor, None, OWN_VERSION));
                // A record deleted meanwhile is no longer of interest to the flow.
                if tx.attempt(|tx| edit(tx, &id)).is_ok() {
                    tx.commit();
                }
            }
            let wait = async {
                match next {
                    Some(at) => {
                        let left = (at - self.world.clock.now()).to_std().unwrap_or_default();
                        self.world.clock.sleep(left).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.automation.added() => {}
                () = wait => {}
            }
        }
        self.closing.cancel();
    }

    /// Finds a change event schema that was ever in use, by its id.
    pub(crate) fn schema_by_id(&self, id: &str) -> Option<Arc<EventSchema>> {
        let schemas = self.schemas.lock().expect("no schema building panics while holding the lock");
        schemas.values().find(|schema| schema.id == id).cloned()
    }

    /// Builds or recalls the change event schema of an object.
    pub(crate) fn event_schema(&self, object: Object, switches: &Switches) -> Arc<EventSchema> {
        let (link, token) = (switches.salesforce_link_field, switches.salesforce_token_field);
        let key = (object, link, token, switches.salesforce_extra_field);
        let mut schemas = self.schemas.lock().expect("no schema building panics while holding the lock");
        let schema = schemas.entry(key).or_insert_with(|| Arc::new(EventSchema::new(object, switches)));
        Arc::clone(schema)
    }

    /// Says as whom an actor writes and what change events tell about the origin.
    pub(crate) fn author(&self, actor: &Actor, client: Option<&str>, version: &str) -> Author {
        let (user_id, origin) = match actor {
            Actor::Person(name) => (
                self.find_user(name).unwrap_or_else(|| self.integration_user.clone()),
                format!("com/salesforce/api/soap/{version};client=SfdcInternalAPI/"),
            ),
            Actor::App(_) => (self.integration_user.clone(), rest_origin(version, client)),
            Actor::Automation(_) => (self.automated_user.clone(), String::new()),
        };
        Author { actor: actor.clone(), user_id, origin }
    }

    fn change<T>(
        &self,
        actor: &Actor,
        client: Option<&str>,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, SalesforceError>,
    ) -> Result<T, Vec<SalesforceError>> {
        let author = self.author(actor, client, OWN_VERSION);
        let mut tx = Tx::begin(self, author);
        let value = tx.attempt(change).map_err(|error| vec![error])?;
        tx.commit();
        Ok(value)
    }
}

/// Writes the `changeOrigin` of a REST call.
pub(crate) fn rest_origin(version: &str, client: Option<&str>) -> String {
    let client = client.map(|client| format!(";client={client}")).unwrap_or_default();
    format!("com/salesforce/api/rest/{version}{client}")
}

fn known_id(id: &str) -> Result<String, Vec<SalesforceError>> {
    ids::normalise(id).ok_or_else(|| vec![SalesforceError::malformed_id("Event ID", id)])
}

fn own_json(row: &Row, switches: &Switches) -> Value {
    let fields = row.object.fields(switches).filter(|field| !field.event_only);
    fields.map(|field| (field.name.to_owned(), row.cell(field.name).to_json())).collect::<Map<_, _>>().into()
}

fn insert_organisation(state: &mut State, id: &str, now: DateTime<Utc>) {
    let stamp = Cell::DateTime(whole_second(now));
    let cells = Cells::from([
        ("Id", Cell::Text(id.to_owned())),
        ("Name", Cell::text("Local Sandbox")),
        ("IsSandbox", Cell::Bool(true)),
        ("OrganizationType", Cell::text("Developer Edition")),
        ("InstanceName", Cell::text("SBX0")),
        ("LanguageLocaleKey", Cell::text("en_US")),
        ("TimeZoneSidKey", Cell::text("Etc/UTC")),
        ("CreatedDate", stamp.clone()),
        ("LastModifiedDate", stamp.clone()),
        ("SystemModstamp", stamp),
    ]);
    let row = Row { object: Object::Organization, id: id.to_owned(), cells, parent: None, deleted_at: None };
    state.rows.insert(id.to_owned(), row);
}

fn insert_user(state: &mut State, number: u64, user: NewUser, kind: &str, now: DateTime<Utc>) -> String {
    let id = ids::make(ids::USER, number);
    let stamp = Cell::DateTime(whole_second(now));
    let last_name = user.name.split_whitespace().last().unwrap_or(&user.name).to_owned();
    let cells = Cells::from([
        ("Id", Cell::Text(id.clone())),
        ("Username", Cell::Text(user.username)),
        ("Name", Cell::Text(user.name)),
        ("LastName", Cell::Text(last_name)),
        ("Email", Cell::Text(user.email)),
        ("IsActive", Cell::Bool(true)),
        ("TimeZoneSidKey", Cell::Text(user.zone)),
        ("UserType", Cell::text(kind)),
        ("CreatedDate", stamp.clone()),
        ("LastModifiedDate", stamp.clone()),
        ("SystemModstamp", stamp),
    ]);
    state.rows.insert(id.clone(), Row { object: Object::User, id: id.clone(), cells, parent: None, deleted_at: None });
    id
}
