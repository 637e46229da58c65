//! The single change of a single item: the place where it gets a change key, enters the history and is notified.

use rand::Rng as _;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::GraphError;
use super::ids::{self, IdForm, ItemKey};
use super::mailbox::Item;
use super::tenant::{State, Tenant};
use crate::actor::Actor;
use crate::history::{Cloud, Effect, EffectKind};

impl Tenant {
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
        mailbox.put(item);
        self.record(home, key, ical_uid, actor, EffectKind::Create, facts, Map::new(), version);
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
        mailbox.put(item);
        let (changed, old) = difference(after, before);
        let touched = changed.keys().all(|name| name == "singleValueExtendedProperties");
        let kind = if touched { EffectKind::Touch } else { EffectKind::Update };
        self.record(home, key, ical_uid, actor, kind, changed, old, change_key);
        self.notify(state, home, key, "updated");
        Ok(())
    }

    /// Takes an item out of a mailbox, a series with all its exceptions.
    pub(crate) fn remove(&self, state: &mut State, actor: &Actor, home: Uuid, key: ItemKey) -> Result<(), GraphError> {
        let now = self.world.clock.now();
        let mailbox = state.mailbox_mut(home)?;
        let item = mailbox.items.get(&key).ok_or_else(GraphError::item_not_found)?.clone();
        if key.original.is_none() {
            mailbox.discard_exceptions(key, now);
        }
        mailbox.discard(key, now);
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
        mailbox.discard(key, self.world.clock.now());
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

    #[expect(clippy::too_many_arguments, reason = "the fields of one effect; a builder would only rename them")]
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
