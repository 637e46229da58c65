//! One transaction: changes of rows that become visible, recorded and published together, or not at all.
//!
//! Owns the lock on the org's rows for its lifetime. What may change in a row is `rows.rs`'s business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::automation::Publication;
use super::avro::{ChangeType, EventSchema, Header};
use super::cell::{Cell, whole_second};
use super::error::SalesforceError;
use super::ids;
use super::input::Cells;
use super::org::Org;
use super::schema::{LINK, Object, TOKEN};
use crate::actor::Actor;
use crate::faults::{Strike, Switches};
use crate::history::{Cloud, Effect, EffectKind};

/// One record.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) object: Object,
    pub(crate) id: String,
    pub(crate) cells: Cells,
    /// The invited-to event of a child event.
    pub(crate) parent: Option<String>,
    /// When it went to the recycle bin.
    pub(crate) deleted_at: Option<DateTime<Utc>>,
}

impl Row {
    /// Returns a field's value; absent is null.
    pub(crate) fn cell(&self, name: &str) -> &Cell {
        self.cells.get(name).unwrap_or(&Cell::Null)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// Returns SystemModstamp.
    pub(crate) fn modstamp(&self) -> DateTime<Utc> {
        self.cell("SystemModstamp").as_datetime().unwrap_or_default()
    }
}

/// What a row was before its last change.
#[derive(Debug, Clone)]
pub(crate) struct Superseded {
    /// None: it did not exist.
    row: Option<Row>,
    /// When it changed.
    until: DateTime<Utc>,
}

/// All rows of the org.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) rows: BTreeMap<String, Row>,
    /// Each row before its last change, for stale reads.
    pub(crate) before: BTreeMap<String, Superseded>,
    /// Rest of long query answers, by locator.
    pub(crate) cursors: VecDeque<(String, Vec<Value>)>,
    made: u64,
    committed: i64,
}

/// Who writes, and what change events will say about it.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    pub(crate) actor: Actor,
    /// 18-character id of the user the write runs as.
    pub(crate) user_id: String,
    /// `changeOrigin` of the change events; empty where none is told.
    pub(crate) origin: String,
}

#[derive(Debug, Clone)]
struct Pending {
    object: Object,
    id: String,
    change: ChangeType,
    changed: BTreeSet<&'static str>,
}

/// A place in a transaction to return to.
#[derive(Debug)]
pub(crate) struct Mark {
    undo: usize,
    effects: usize,
    pending: Vec<Pending>,
}

/// A running transaction; dropped without [`Tx::commit`] it changes nothing.
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    pub(crate) org: &'a Org,
    pub(crate) state: MutexGuard<'a, State>,
    pub(crate) author: Author,
    pub(crate) switches: Switches,
    pub(crate) now: DateTime<Utc>,
    undo: Vec<(String, Option<Row>)>,
    effects: Vec<Effect>,
    pending: Vec<Pending>,
}

impl<'a> Tx<'a> {
    /// Takes the lock on all rows until the transaction ends.
    pub(crate) fn begin(org: &'a Org, author: Author) -> Self {
        let switches = org.world.faults.read();
        let state = org.state.lock().expect("no transaction panics while holding the lock");
        let now = org.world.clock.now();
        Self { org, state, author, switches, now, undo: Vec::new(), effects: Vec::new(), pending: Vec::new() }
    }

    /// Shows each row as it was before its last change, if that was not before `since`; to be dropped, not committed.
    pub(crate) fn look_back(&mut self, since: Option<DateTime<Utc>>) {
        let past: Vec<(String, Option<Row>)> = self
            .state
            .before
            .iter()
            .filter(|(_, before)| since.is_none_or(|since| before.until >= since))
            .map(|(id, before)| (id.clone(), before.row.clone()))
            .collect();
        for (id, row) in past {
            let present = match row {
                Some(row) => self.state.rows.insert(id.clone(), row),
                None => self.state.rows.remove(&id),
            };
            self.undo.push((id, present));
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { undo: self.undo.len(), effects: self.effects.len(), pending: self.pending.clone() }
    }

    pub(crate) fn return_to(&mut self, mark: Mark) {
        while self.undo.len() > mark.undo {
            let Some((id, row)) = self.undo.pop() else { break };
            match row {
                Some(row) => self.state.rows.insert(id, row),
                None => self.state.rows.remove(&id),
            };
        }
        self.effects.truncate(mark.effects);
        self.pending = mark.pending;
    }

    /// Runs one row's change; a failure leaves no trace of it.
    pub(crate) fn attempt<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, SalesforceError>,
    ) -> Result<T, SalesforceError> {
        let mark = self.mark();
        let result = change(self);
        if result.is_err() {
            self.return_to(mark);
        }
        result
    }

    pub(crate) fn new_id(&mut self, object: Object) -> String {
        self.state.made += 1;
        ids::make(object.prefix(), self.state.made)
    }

    /// Returns a live row.
    pub(crate) fn live(&self, object: Object, id: &str) -> Result<&Row, SalesforceError> {
        let row = self.state.rows.get(id).filter(|row| row.object == object).ok_or_else(SalesforceError::not_found)?;
        if row.is_deleted() { Err(SalesforceError::deleted()) } else { Ok(row) }
    }

    /// Stores a row with new system stamps.
    pub(crate) fn put(&mut self, mut row: Row) {
        let before = self.state.rows.get(&row.id).cloned();
        let earliest = before.as_ref().map(|old| old.modstamp() + TimeDelta::milliseconds(1));
        let now = DateTime::from_timestamp_millis(self.now.timestamp_millis()).unwrap_or(self.now);
        let stamp = earliest.map_or(now, |earliest| now.max(earliest));
        if before.is_none() {
            row.cells.insert("Id", Cell::Text(row.id.clone()));
            row.cells.insert("CreatedDate", Cell::DateTime(whole_second(stamp)));
            row.cells.insert("CreatedById", Cell::Text(self.author.user_id.clone()));
        }
        row.cells.insert("LastModifiedDate", Cell::DateTime(whole_second(stamp)));
        row.cells.insert("LastModifiedById", Cell::Text(self.author.user_id.clone()));
        row.cells.insert("SystemModstamp", Cell::DateTime(stamp));
        row.cells.insert("IsDeleted", Cell::Bool(row.is_deleted()));
        self.undo.push((row.id.clone(), before));
        self.state.rows.insert(row.id.clone(), row);
    }

    /// Replaces a row's values and keeps its stamps: a second change inside one transaction.
    pub(crate) fn overwrite(&mut self, row: Row) {
        let before = self.state.rows.insert(row.id.clone(), row.clone());
        self.undo.push((row.id, before));
    }

    /// Notes that a record's change event is due; several changes of one record make one event.
    pub(crate) fn publish_later(
        &mut self,
        object: Object,
        id: &str,
        change: ChangeType,
        changed: impl IntoIterator<Item = &'static str>,
    ) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.changed.extend(changed);
            if change == ChangeType::Delete {
                pending.change = change;
            }
            return;
        }
        let changed = changed.into_iter().collect();
        self.pending.push(Pending { object, id: id.to_owned(), change, changed });
    }

    /// Notes an effect for the history.
    pub(crate) fn effect(&mut self, actor: &Actor, id: &str, kind: EffectKind, before: Option<&Cells>) {
        let Some(row) = self.state.rows.get(id) else { return };
        let names: BTreeSet<&'static str> = match kind {
            EffectKind::Create | EffectKind::Undelete => row.cells.keys().copied().collect(),
            EffectKind::Delete => BTreeSet::new(),
            EffectKind::Update | EffectKind::Touch => {
                before.map(|before| changed_names(before, &row.cells)).unwrap_or_default()
            }
        };
        let told: Vec<&'static str> = names.into_iter().filter(|name| !is_system(row.object, name)).collect();
        let pick = |cells: &Cells, keep_nulls: bool| -> Map<String, Value> {
            told.iter()
                .map(|name| ((*name).to_owned(), cells.get(name).map_or(Value::Null, Cell::to_json)))
                .filter(|(_, value)| keep_nulls || !value.is_null())
                .collect()
        };
        let valued = told.iter().any(|name| *name != LINK && *name != TOKEN);
        let kind = if kind == EffectKind::Update && !valued { EffectKind::Touch } else { kind };
        let updating = matches!(kind, EffectKind::Update | EffectKind::Touch);
        let effect = Effect {
            sequence: 0,
            at: self.now,
            cloud: Cloud::Salesforce,
            scope: self.org.identity.org_id.clone(),
            record: id.to_owned(),
            ical_uid: String::new(),
            actor: actor.clone(),
            kind,
            changed: pick(&row.cells, updating),
            before: before.filter(|_| updating).map(|before| pick(before, true)).unwrap_or_default(),
            version: super::cell::rest_datetime(row.modstamp()),
        };
        self.effects.push(effect);
    }

    /// Ends the transaction; everything becomes visible.
    pub(crate) fn commit(mut self) {
        self.flush();
    }

    /// Ends one transaction and begins the next: history first, then the change events, in the order of the changes.
    pub(crate) fn flush(&mut self) {
        let mut first: BTreeMap<String, Option<Row>> = BTreeMap::new();
        for (id, row) in std::mem::take(&mut self.undo) {
            first.entry(id).or_insert(row);
        }
        let until = self.now;
        self.state.before.extend(first.into_iter().map(|(id, row)| (id, Superseded { row, until })));
        for effect in std::mem::take(&mut self.effects) {
            self.org.world.history.record(effect);
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let world = Arc::clone(&self.org.world);
        let transaction_key = world.draw(|random| Uuid::from_u128(random.random())).to_string();
        self.state.committed += 1;
        let commit_number = 11_000_000_000 + self.state.committed;
        let mut schemas: BTreeMap<Object, Arc<EventSchema>> = BTreeMap::new();
        for (index, event) in pending.iter().enumerate() {
            if self.org.world.strikes(Strike::SalesforceDrop) {
                continue;
            }
            let schema =
                schemas.entry(event.object).or_insert_with(|| self.org.event_schema(event.object, &self.switches));
            let row = self.state.rows.get(&event.id);
            let stamp = row.map_or(self.now, Row::modstamp);
            let header = Header {
                record_ids: vec![event.id.clone()],
                change: event.change,
                origin: self.author.origin.clone(),
                transaction_key: transaction_key.clone(),
                sequence_number: i32::try_from(index + 1).unwrap_or(i32::MAX),
                commit_timestamp: whole_second(stamp).timestamp_millis(),
                commit_number,
                commit_user: self.author.user_id.clone(),
            };
            let payload = schema.encode(&header, row.map(|row| &row.cells), &event.changed);
            let publication = Publication { schema: Arc::clone(schema), payload, deliveries: deliveries(&world) };
            let delay = TimeDelta::milliseconds(world.faults.read().salesforce_delay_ms.into());
            if let Some(now) = self.org.automation.delay(&world, delay, publication) {
                self.org.log.append(&world, &now.schema, now.payload, now.deliveries);
            }
            if self.author.actor.is_app()
                && event.object == Object::Event
                && event.change != ChangeType::Delete
                && self.switches.salesforce_automation_secs > 0
            {
                let after = TimeDelta::seconds(self.switches.salesforce_automation_secs.into());
                self.org.automation.review(&world, &event.id, after);
            }
            if self.author.actor.is_person() && event.object == Object::Event && event.change != ChangeType::Delete {
                self.org.automation.consider(&world, &event.id);
            }
        }
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        self.return_to(Mark { undo: 0, effects: 0, pending: Vec::new() });
    }
}

/// Draws how often an event is delivered: the switch, and one in ten in an office.
fn deliveries(world: &crate::world::World) -> u32 {
    let switched = world.strikes(Strike::SalesforceDuplicate);
    let noisy = world.is_noisy() && world.draw(|random| random.random_bool(0.1));
    if switched || noisy { 2 } else { 1 }
}

/// Returns the names of the values that differ.
pub(crate) fn changed_names(before: &Cells, after: &Cells) -> BTreeSet<&'static str> {
    let value = |cells: &Cells, name: &str| cells.get(name).cloned().unwrap_or(Cell::Null);
    before.keys().chain(after.keys()).copied().filter(|name| value(before, name) != value(after, name)).collect()
}

fn is_system(object: Object, name: &str) -> bool {
    object.fields(&Switches::default()).any(|field| field.name == name && field.system)
}
