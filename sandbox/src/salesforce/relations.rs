//! Invitees: an EventRelation per invited person or resource, and a copy of the event in an invited user's calendar.

use serde_json::{Map, Value};

use super::avro::ChangeType;
use super::cell::Cell;
use super::error::SalesforceError;
use super::ids;
use super::input::{Write, convert};
use super::schema::Object;
use super::tx::{Row, Tx, changed_names};

/// Values that a child event takes from the event it is a copy of.
const COPIED: [&str; 13] = [
    "Subject",
    "Location",
    "Description",
    "StartDateTime",
    "EndDateTime",
    "EndDate",
    "ActivityDate",
    "ActivityDateTime",
    "DurationInMinutes",
    "IsAllDayEvent",
    "ShowAs",
    "IsPrivate",
    "Type",
];

impl Tx<'_> {
    pub(crate) fn create_relation(&mut self, fields: &Map<String, Value>) -> Result<String, SalesforceError> {
        let mut cells = convert(Object::EventRelation, fields, Write::Create, &self.switches)?;
        let event_id = required(cells.get("EventId"), "EventId")?;
        let relation_id = required(cells.get("RelationId"), "RelationId")?;
        let parent = self.live(Object::Event, &event_id)?.clone();
        if parent.parent.is_some() {
            let message = "invitees cannot be added to a child event";
            return Err(SalesforceError::bad("FIELD_INTEGRITY_EXCEPTION", message).field("EventId"));
        }
        let user = self.state.rows.get(&relation_id).filter(|row| row.object == Object::User);
        if relation_id.starts_with(ids::USER) && user.is_none() {
            let message = "Relation ID: id value names no user";
            return Err(SalesforceError::bad("INVALID_CROSS_REFERENCE_KEY", message).field("RelationId"));
        }
        let invites_user = user.is_some();
        for (name, value) in [("IsInvitee", true), ("IsParent", false), ("IsWhat", false)] {
            cells.entry(name).or_insert(Cell::Bool(value));
        }
        cells.entry("Status").or_insert_with(|| Cell::Text("New".to_owned()));
        let id = self.new_id(Object::EventRelation);
        let row = Row { object: Object::EventRelation, id: id.clone(), cells, parent: None, deleted_at: None };
        self.put(row);
        self.publish_later(Object::EventRelation, &id, ChangeType::Create, []);
        if invites_user {
            self.create_child(&parent, &relation_id);
        }
        if !parent.cell("IsGroupEvent").is_true() {
            let mut group = parent.clone();
            group.cells.insert("IsGroupEvent", Cell::Bool(true));
            group.cells.insert("GroupEventType", Cell::Text("1".to_owned()));
            self.store_update(&parent, group);
        }
        Ok(id)
    }

    fn create_child(&mut self, parent: &Row, owner: &str) {
        let id = self.new_id(Object::Event);
        let mut cells = parent.cells.clone();
        cells.retain(|name, _| !name.ends_with("__c"));
        cells.insert("OwnerId", Cell::Text(owner.to_owned()));
        cells.insert("IsChild", Cell::Bool(true));
        cells.insert("IsGroupEvent", Cell::Bool(true));
        cells.insert("GroupEventType", Cell::Text("1".to_owned()));
        let parent = Some(parent.id.clone());
        self.put(Row { object: Object::Event, id: id.clone(), cells, parent, deleted_at: None });
        self.publish_later(Object::Event, &id, ChangeType::Create, []);
    }

    /// Brings the invited users' copies up to date with their event.
    pub(crate) fn copy_to_children(&mut self, id: &str) {
        let Some(parent) = self.state.rows.get(id).cloned() else {
            return;
        };
        if parent.parent.is_some() || !parent.cell("IsGroupEvent").is_true() {
            return;
        }
        for child in self.hanging_on(id, |row| row.parent.is_some() && !row.is_deleted()) {
            let mut row = child.clone();
            for name in COPIED {
                row.cells.insert(name, parent.cell(name).clone());
            }
            if changed_names(&child.cells, &row.cells).is_empty() {
                continue;
            }
            self.store_update(&child, row);
        }
    }

    /// Returns the child events and relations of an event.
    pub(crate) fn hanging_on(&self, id: &str, accepts: impl Fn(&Row) -> bool) -> Vec<Row> {
        let hangs = |row: &&Row| {
            row.parent.as_deref() == Some(id)
                || (row.object == Object::EventRelation && row.cell("EventId").as_text() == Some(id))
        };
        self.state.rows.values().filter(hangs).filter(|row| accepts(row)).cloned().collect()
    }
}

fn required(cell: Option<&Cell>, field: &str) -> Result<String, SalesforceError> {
    cell.and_then(Cell::as_text).map(str::to_owned).ok_or_else(|| {
        let message = format!("Required fields are missing: [{field}]");
        SalesforceError::bad("REQUIRED_FIELD_MISSING", message).field(field)
    })
}
