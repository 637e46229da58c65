//! What may happen to a row: create, update, delete, undelete, and the rules an Event must obey.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::avro::ChangeType;
use super::cell::Cell;
use super::error::SalesforceError;
use super::ids;
use super::input::{Cells, Write, convert};
use super::schema::{LINK, Object};
use super::times;
use super::tx::{Row, Tx, changed_names};
use crate::actor::Actor;
use crate::history::EffectKind;

/// What the trigger switch appends to the Location.
const TRIGGER_MARK: &str = "(checked)";
/// What the flow appends to the Location that follows API writes.
const REVIEW_MARK: &str = "(reviewed)";

const TIME_FIELDS: [&str; 6] =
    ["StartDateTime", "EndDateTime", "ActivityDate", "ActivityDateTime", "DurationInMinutes", "IsAllDayEvent"];

impl Tx<'_> {
    /// Creates a row; returns its 18-character id.
    pub(crate) fn create(&mut self, object: Object, fields: &Map<String, Value>) -> Result<String, SalesforceError> {
        match object {
            Object::Event => self.create_event(fields),
            Object::EventRelation => self.create_relation(fields),
            Object::User | Object::Organization => Err(read_only(object)),
        }
    }

    /// Changes a live row.
    pub(crate) fn update(
        &mut self,
        object: Object,
        id: &str,
        fields: &Map<String, Value>,
    ) -> Result<(), SalesforceError> {
        let old = self.live(object, id)?.clone();
        let given = convert(object, fields, Write::Update, &self.switches)?;
        let mut row = old.clone();
        match object {
            Object::User | Object::Organization => return Err(read_only(object)),
            Object::EventRelation => row.cells.extend(given),
            Object::Event => {
                if row.parent.is_some()
                    && given.keys().any(|name| !matches!(*name, "IsReminderSet" | "ReminderDateTime"))
                {
                    let message = "insufficient access rights on object id";
                    return Err(SalesforceError::bad("INSUFFICIENT_ACCESS_OR_READONLY", message));
                }
                let relinks = given.contains_key(LINK);
                self.settle_event(&mut row.cells, given)?;
                self.check_event(&row.cells)?;
                let owner = |cells: &Cells| cells.get("OwnerId").cloned();
                if owner(&row.cells) != owner(&old.cells) || !self.switches.salesforce_update_inactive_owners {
                    self.check_owner(&row.cells)?;
                }
                if relinks {
                    self.check_unique(id, &row.cells)?;
                }
            }
        }
        self.store_update(&old, row);
        if object == Object::Event {
            self.copy_to_children(id);
            self.run_trigger(id);
        }
        Ok(())
    }

    /// Moves a live row to the recycle bin, with what hangs on it.
    pub(crate) fn delete(&mut self, object: Object, id: &str) -> Result<(), SalesforceError> {
        if !object.is_writable() {
            return Err(read_only(object));
        }
        let mut row = self.live(object, id)?.clone();
        let is_copy = row.parent.is_some();
        row.deleted_at = Some(self.now);
        self.put(row);
        self.publish_later(object, id, ChangeType::Delete, []);
        if object == Object::Event && !is_copy {
            let actor = self.author.actor.clone();
            self.effect(&actor, id, EffectKind::Delete, None);
        }
        for hanging in self.hanging_on(id, |row| !row.is_deleted()) {
            let mut row = hanging;
            row.deleted_at = Some(self.now);
            let (object, id) = (row.object, row.id.clone());
            self.put(row);
            self.publish_later(object, &id, ChangeType::Delete, []);
        }
        Ok(())
    }

    /// Takes an event back out of the recycle bin.
    pub(crate) fn undelete(&mut self, id: &str) -> Result<(), SalesforceError> {
        let Some(mut row) = self.state.rows.get(id).cloned() else {
            return Err(SalesforceError::not_found());
        };
        let Some(deleted_at) = row.deleted_at.take() else {
            return Err(SalesforceError::bad("UNDELETE_FAILED", "Entity is not in the recycle bin"));
        };
        if row.object == Object::Event {
            self.check_unique(id, &row.cells)?;
        }
        let object = row.object;
        self.put(row);
        self.publish_later(object, id, ChangeType::Undelete, []);
        let actor = self.author.actor.clone();
        self.effect(&actor, id, EffectKind::Undelete, None);
        for mut hanging in self.hanging_on(id, |row| row.deleted_at == Some(deleted_at)) {
            hanging.deleted_at = None;
            let (object, id) = (hanging.object, hanging.id.clone());
            self.put(hanging);
            self.publish_later(object, &id, ChangeType::Undelete, []);
        }
        Ok(())
    }

    /// Gives a record a new version without a changed value.
    pub(crate) fn touch(&mut self, id: &str) -> Result<(), SalesforceError> {
        let row = self.live(Object::Event, id)?.clone();
        self.store_update(&row.clone(), row);
        Ok(())
    }

    /// Plays a flow that follows up an application's write: it marks the Location, once.
    pub(crate) fn review(&mut self, id: &str) -> Result<(), SalesforceError> {
        let location = self.live(Object::Event, id)?.cell("Location").as_text().unwrap_or_default().to_owned();
        if location.ends_with(REVIEW_MARK) {
            return Ok(());
        }
        let marked = Map::from_iter([("Location".to_owned(), Value::from(marked(&location, REVIEW_MARK)))]);
        self.update(Object::Event, id, &marked)
    }

    /// Finds live rows by an external id's value.
    pub(crate) fn by_external_id(&self, object: Object, field: &'static str, value: &str) -> Vec<String> {
        let matches = |row: &&Row| {
            row.object == object
                && !row.is_deleted()
                && row.cell(field).as_text().is_some_and(|text| text.eq_ignore_ascii_case(value))
        };
        self.state.rows.values().filter(matches).map(|row| row.id.clone()).collect()
    }

    /// Stores a changed row, its change event and, for a meeting itself, its effect.
    pub(crate) fn store_update(&mut self, old: &Row, row: Row) {
        let (object, id, is_copy) = (row.object, row.id.clone(), row.parent.is_some());
        self.put(row);
        let Some(stored) = self.state.rows.get(&id) else { return };
        let mut changed: BTreeSet<&'static str> = changed_names(&old.cells, &stored.cells);
        // Always part of an update, even where two updates fall into one second.
        changed.insert("LastModifiedDate");
        self.publish_later(object, &id, ChangeType::Update, changed);
        if object == Object::Event && !is_copy {
            let actor = self.author.actor.clone();
            self.effect(&actor, &id, EffectKind::Update, Some(&old.cells));
        }
    }

    fn create_event(&mut self, fields: &Map<String, Value>) -> Result<String, SalesforceError> {
        let given = convert(Object::Event, fields, Write::Create, &self.switches)?;
        if given.get("IsRecurrence").is_some_and(Cell::is_true)
            || given.get("Recurrence2PatternText").is_some_and(|cell| !cell.is_null())
        {
            let message = "this local sandbox keeps no recurring series; create each occurrence as its own event";
            return Err(SalesforceError::bad("FIELD_INTEGRITY_EXCEPTION", message).field("Recurrence2PatternText"));
        }
        let mut cells = event_defaults();
        self.settle_event(&mut cells, given)?;
        if cells.get("OwnerId").is_none_or(Cell::is_null) {
            cells.insert("OwnerId", Cell::Text(self.author.user_id.clone()));
        }
        self.check_event(&cells)?;
        self.check_owner(&cells)?;
        self.check_unique("", &cells)?;
        let id = self.new_id(Object::Event);
        self.put(Row { object: Object::Event, id: id.clone(), cells, parent: None, deleted_at: None });
        self.publish_later(Object::Event, &id, ChangeType::Create, []);
        let actor = self.author.actor.clone();
        self.effect(&actor, &id, EffectKind::Create, None);
        self.run_trigger(&id);
        Ok(id)
    }

    fn settle_event(&self, row: &mut Cells, given: Cells) -> Result<(), SalesforceError> {
        times::settle(row, &given, self.switches.salesforce_multiday)?;
        row.extend(given.into_iter().filter(|(name, _)| !TIME_FIELDS.contains(name)));
        Ok(())
    }

    fn check_event(&self, cells: &Cells) -> Result<(), SalesforceError> {
        let filled = |name: &str| cells.get(name).is_some_and(|cell| !cell.is_null());
        if cells.get("IsPrivate").is_some_and(Cell::is_true) && (filled("WhoId") || filled("WhatId")) {
            let message = "A private event can't be related to another record";
            return Err(SalesforceError::bad("FIELD_INTEGRITY_EXCEPTION", message).field("IsPrivate"));
        }
        match cells.get("OwnerId").and_then(Cell::as_text) {
            None => {
                let message = "Required fields are missing: [OwnerId]";
                return Err(SalesforceError::bad("REQUIRED_FIELD_MISSING", message).field("OwnerId"));
            }
            Some(owner) if owner.starts_with(ids::USER) && !self.state.rows.contains_key(owner) => {
                let message = "Assigned To ID: owner cannot be blank or unknown";
                return Err(SalesforceError::bad("INVALID_CROSS_REFERENCE_KEY", message).field("OwnerId"));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Refuses an inactive user as owner.
    ///
    /// <https://help.salesforce.com/apex/HTViewSolution?id=000205862&language=en_US>
    fn check_owner(&self, cells: &Cells) -> Result<(), SalesforceError> {
        let owner = cells.get("OwnerId").and_then(Cell::as_text).and_then(|id| self.state.rows.get(id));
        if owner.is_none_or(|owner| owner.object != Object::User || owner.cell("IsActive").is_true()) {
            return Ok(());
        }
        Err(SalesforceError::bad("INACTIVE_OWNER_OR_USER", "operation performed with inactive user"))
    }

    fn check_unique(&self, id: &str, cells: &Cells) -> Result<(), SalesforceError> {
        let Some(link) = cells.get(LINK).and_then(Cell::as_text) else {
            return Ok(());
        };
        if !self.switches.salesforce_link_field || !self.switches.salesforce_link_unique {
            return Ok(());
        }
        let other = self.by_external_id(Object::Event, LINK, link).into_iter().find(|other| other != id);
        let Some(other) = other else { return Ok(()) };
        // The real message names the 15-character form.
        let message =
            format!("duplicate value found: {LINK} duplicates value on record with id: {}", ids::short(&other));
        Err(SalesforceError::bad("DUPLICATE_VALUE", message))
    }

    /// Plays an org's trigger: it edits the Location in the transaction of an application's write.
    fn run_trigger(&mut self, id: &str) {
        if !self.switches.salesforce_trigger_edits || !self.author.actor.is_app() {
            return;
        }
        let Some(before) = self.state.rows.get(id).cloned() else {
            return;
        };
        let location = before.cell("Location").as_text().unwrap_or_default();
        if location.ends_with(TRIGGER_MARK) {
            return;
        }
        let marked = marked(location, TRIGGER_MARK);
        let mut row = before.clone();
        row.cells.insert("Location", Cell::text(&marked));
        // Same transaction, same version: the stamps of the write stay.
        self.overwrite(row);
        self.publish_later(Object::Event, id, ChangeType::Update, ["Location"]);
        self.effect(&Actor::Automation("trigger".to_owned()), id, EffectKind::Update, Some(&before.cells));
    }
}

/// Appends a mark to a text of at most 255 characters.
fn marked(text: &str, mark: &str) -> String {
    let kept: String = text.chars().take(255 - mark.len() - 1).collect();
    format!("{kept} {mark}").trim().to_owned()
}

fn event_defaults() -> Cells {
    let no = [
        "IsAllDayEvent",
        "IsPrivate",
        "IsDeleted",
        "IsChild",
        "IsGroupEvent",
        "IsArchived",
        "IsRecurrence",
        "IsReminderSet",
        "IsRecurrence2",
        "IsRecurrence2Exception",
        "IsRecurrence2Exclusion",
    ];
    let mut cells: Cells = no.into_iter().map(|name| (name, Cell::Bool(false))).collect();
    cells.insert("ShowAs", Cell::Text("Busy".to_owned()));
    cells.insert("EventSubtype", Cell::Text("Event".to_owned()));
    cells.insert("GroupEventType", Cell::Text("0".to_owned()));
    cells
}

fn read_only(object: Object) -> SalesforceError {
    let message = format!("rows of {} are made when the local sandbox starts", object.name());
    SalesforceError::bad("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message)
}
