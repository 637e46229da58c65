//! Change events and schemas that a test or the control API places on the event bus as they are.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::org::Org;
use super::schema::Object;

/// Schemas by id that `GetSchema` gives out beside the org's own.
pub(crate) type PlacedSchemas = Mutex<BTreeMap<String, String>>;

/// A change event as it is to go out.
#[derive(Debug, Clone)]
pub struct PlacedEvent {
    /// Schema id that it names.
    pub schema_id: String,
    /// Its payload, whatever it is; none for an event without a body.
    pub payload: Option<Vec<u8>>,
    /// The replay id it shows.
    pub replay: PlacedReplay,
}

/// The replay id that a placed event shows; its true place on the bus is always the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacedReplay {
    /// Its own.
    #[default]
    Own,
    /// None.
    Missing,
    /// That of the oldest event still kept: it seems to go back.
    Oldest,
}

impl Org {
    /// Returns id and text of the schema that change events of Event are written with now.
    pub fn change_event_schema(&self) -> (String, String) {
        let schema = self.event_schema(Object::Event, &self.world.faults.read());
        (schema.id.clone(), schema.json.clone())
    }

    /// Publishes an event as it is.
    pub fn place_change_event(&self, event: PlacedEvent) {
        self.log.place(&self.world, Object::Event, event);
    }

    /// Makes `GetSchema` know an id from now on, whatever the text.
    pub fn place_schema(&self, id: &str, text: &str) {
        let mut placed = self.placed_schemas.lock().expect("nothing panics while holding the lock");
        placed.insert(id.to_owned(), text.to_owned());
    }

    /// Finds the text of a schema by its id: placed ones first, then those that were ever in use.
    pub(crate) fn schema_text(&self, id: &str) -> Option<String> {
        let placed = self.placed_schemas.lock().expect("nothing panics while holding the lock").get(id).cloned();
        placed.or_else(|| self.schema_by_id(id).map(|schema| schema.json.clone()))
    }
}
