//! Changes of many events at once, and changes by flows: who did it, in whose name, by which road.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::SalesforceError;
use super::ids;
use super::org::{OWN_VERSION, Org};
use super::schema::Object;
use super::tx::{Author, Tx};
use crate::actor::Actor;

/// By which road many events are changed at once; change events show it as their origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Road {
    /// A list in the user interface.
    #[default]
    Page,
    /// A flow that runs as the person: nothing tells it from the person.
    Flow,
    /// The Bulk API, as data loaders use it. Not counted as an edit by the person.
    Bulk,
}

/// What is done to many events.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// These fields get these values.
    Update(&'a Map<String, Value>),
    /// They go to the recycle bin.
    Delete,
}

impl Org {
    /// Changes many events in one transaction, in a person's name; all or none.
    ///
    /// # Errors
    /// As Salesforce answers them, of the first event that cannot be changed.
    pub fn change_many(
        &self,
        person: &str,
        road: Road,
        ids: &[String],
        change: Change<'_>,
    ) -> Result<(), Vec<SalesforceError>> {
        let mut author = self.author(&Actor::Person(person.to_owned()), None, OWN_VERSION);
        match road {
            Road::Page => {}
            // Filled for API calls and Lightning pages only.
            Road::Flow => author.origin = String::new(),
            Road::Bulk => {
                author.actor = Actor::Automation(format!("bulk of {person}"));
                author.origin = format!("com/salesforce/api/bulkapi/{OWN_VERSION}");
            }
        }
        self.change_all(author, ids, change)
    }

    /// Changes many events in one transaction as the org's own automation, under a user id of its own.
    ///
    /// # Errors
    /// As Salesforce answers them, of the first event that cannot be changed.
    pub fn automate(&self, ids: &[String], change: Change<'_>) -> Result<(), Vec<SalesforceError>> {
        self.change_all(self.author(&Actor::Automation("flow".to_owned()), None, OWN_VERSION), ids, change)
    }

    fn change_all(&self, author: Author, events: &[String], change: Change<'_>) -> Result<(), Vec<SalesforceError>> {
        let mut tx = Tx::begin(self, author);
        for id in events {
            let id = ids::normalise(id).ok_or_else(|| vec![SalesforceError::malformed_id("Event ID", id)])?;
            let done = tx.attempt(|tx| match change {
                Change::Update(fields) => tx.update(Object::Event, &id, fields),
                Change::Delete => tx.delete(Object::Event, &id),
            });
            done.map_err(|error| vec![error])?;
        }
        tx.commit();
        Ok(())
    }
}
