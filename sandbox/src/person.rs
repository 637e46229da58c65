//! Acts as a person would: through the same state as the APIs, under the person's own name.
//!
//! Owns who may act where and the loading of calendar files; the rules of each cloud are its own.

use std::sync::Arc;

use chrono_tz::Tz;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::actor::Actor;
use crate::calendar_file::{self, CalendarFileError, NotLoaded};
use crate::endpoints::Mailbox;
use crate::graph::{GraphError, Tenant};
use crate::salesforce::{Change, Org, Road, SalesforceError};

/// Says why an act was refused.
#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    /// Outlook refused it.
    #[error("outlook refuses: {0}")]
    Outlook(GraphError),
    /// Salesforce refused it.
    #[error("salesforce refuses: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Salesforce(Vec<SalesforceError>),
    /// The text is no calendar.
    #[error("the calendar cannot be read: {0}")]
    Calendar(CalendarFileError),
}

impl From<GraphError> for PersonError {
    fn from(error: GraphError) -> Self {
        Self::Outlook(error)
    }
}

impl From<CalendarFileError> for PersonError {
    fn from(error: CalendarFileError) -> Self {
        Self::Calendar(error)
    }
}

/// One person with a mailbox and a Salesforce user.
#[derive(Debug, Clone)]
pub struct Person {
    tenant: Arc<Tenant>,
    org: Arc<Org>,
    mailbox: Mailbox,
}

/// What became of a calendar file.
#[derive(Debug, Clone, Serialize)]
pub struct LoadedCalendar {
    /// The file, where it came from one.
    pub file: Option<String>,
    /// The calendar's own name.
    pub name: Option<String>,
    /// Address of the mailbox it went into.
    pub mailbox: String,
    /// Events created.
    pub created: Vec<LoadedEvent>,
    /// What is not in the mailbox now, each with its reason.
    pub not_loaded: Vec<NotLoaded>,
    /// Further rows left off `not_loaded`.
    pub not_loaded_beyond: usize,
}

/// One event of a calendar file that is in the mailbox now.
#[derive(Debug, Clone, Serialize)]
pub struct LoadedEvent {
    /// Line of the file, from 1.
    pub line: usize,
    /// The file's own identifier.
    pub uid: Option<String>,
    /// Graph event id.
    pub id: String,
    /// Whether it is a series.
    pub series: bool,
    /// When it begins.
    pub start: calendar_file::EventStart,
    /// What was left out of it, in words.
    pub notes: Vec<String>,
}

impl Person {
    pub(crate) fn new(tenant: Arc<Tenant>, org: Arc<Org>, mailbox: Mailbox) -> Self {
        Self { tenant, org, mailbox }
    }

    /// Returns the person's mailbox and user.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Creates an Outlook event; `body` is what Graph takes for `POST /users/{id}/events`.
    pub fn create_in_outlook(&self, body: &Value) -> Result<Value, PersonError> {
        Ok(self.tenant.create_event(&self.actor(), &self.mailbox.user_id, body)?)
    }

    /// Changes an Outlook event; `patch` is what Graph takes for `PATCH`.
    pub fn update_in_outlook(&self, id: &str, patch: &Value) -> Result<Value, PersonError> {
        Ok(self.tenant.update_event(&self.actor(), &self.mailbox.user_id, id, patch, None)?)
    }

    /// Deletes an Outlook event; from the organiser's calendar this cancels the meeting for everybody.
    pub fn delete_in_outlook(&self, id: &str) -> Result<(), PersonError> {
        Ok(self.tenant.delete_event(&self.actor(), &self.mailbox.user_id, id, None)?)
    }

    /// Creates a Salesforce Event, owned by this person unless `OwnerId` says otherwise; returns its 18-character id.
    pub fn create_in_salesforce(&self, mut fields: Map<String, Value>) -> Result<String, PersonError> {
        fields.entry("OwnerId").or_insert_with(|| json!(self.mailbox.salesforce_user_id));
        self.org.create(&self.actor(), None, &fields).map_err(PersonError::Salesforce)
    }

    /// Changes a Salesforce Event.
    pub fn update_in_salesforce(&self, id: &str, fields: &Map<String, Value>) -> Result<(), PersonError> {
        self.org.update(&self.actor(), None, id, fields).map_err(PersonError::Salesforce)
    }

    /// Deletes a Salesforce Event (it stays in the recycle bin).
    pub fn delete_in_salesforce(&self, id: &str) -> Result<(), PersonError> {
        self.org.delete(&self.actor(), None, id).map_err(PersonError::Salesforce)
    }

    /// Changes many Salesforce Events at once, in one transaction.
    pub fn update_many_in_salesforce(
        &self,
        road: Road,
        ids: &[String],
        fields: &Map<String, Value>,
    ) -> Result<(), PersonError> {
        let change = Change::Update(fields);
        self.org.change_many(&self.mailbox.address, road, ids, change).map_err(PersonError::Salesforce)
    }

    /// Deletes many Salesforce Events at once, in one transaction.
    pub fn delete_many_in_salesforce(&self, road: Road, ids: &[String]) -> Result<(), PersonError> {
        self.org.change_many(&self.mailbox.address, road, ids, Change::Delete).map_err(PersonError::Salesforce)
    }

    /// Loads a calendar export into this person's mailbox; what Outlook refuses is listed like what cannot be read.
    pub fn load_calendar(&self, bytes: &[u8]) -> Result<LoadedCalendar, PersonError> {
        let home: Tz = self.mailbox.zone.parse().unwrap_or(Tz::UTC);
        let calendar = calendar_file::read(bytes, home)?;
        let mut loaded = LoadedCalendar {
            file: None,
            name: calendar.name,
            mailbox: self.mailbox.address.clone(),
            created: Vec::new(),
            not_loaded: calendar.not_loaded,
            not_loaded_beyond: calendar.not_loaded_beyond,
        };
        for mut event in calendar.events {
            self.leave_out_myself(&mut event.body);
            match self.create_in_outlook(&event.body) {
                Ok(created) => loaded.created.push(LoadedEvent {
                    line: event.line,
                    uid: event.uid,
                    id: created.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(),
                    series: event.series,
                    start: event.start,
                    notes: event.notes,
                }),
                Err(refusal) => loaded.not_loaded.push(NotLoaded {
                    line: event.line,
                    what: "VEVENT".to_owned(),
                    subject: event.body.get("subject").and_then(Value::as_str).map(str::to_owned),
                    reason: refusal.to_string(),
                }),
            }
        }
        loaded.not_loaded.sort_by_key(|row| row.line);
        Ok(loaded)
    }

    /// The owner of a mailbox is its meetings' organiser, not their own guest.
    fn leave_out_myself(&self, body: &mut Value) {
        if let Some(attendees) = body.get_mut("attendees").and_then(Value::as_array_mut) {
            attendees.retain(|attendee| {
                let address = attendee.pointer("/emailAddress/address").and_then(Value::as_str).unwrap_or_default();
                !address.eq_ignore_ascii_case(&self.mailbox.address)
            });
        }
    }

    fn actor(&self) -> Actor {
        Actor::Person(self.mailbox.address.clone())
    }
}
