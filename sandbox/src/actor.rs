//! Who acts on a cloud: a person, an application with an API token, or automation inside the cloud itself.

use serde::{Deserialize, Serialize};

/// Names the author of a change or an API call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Actor {
    /// A person in the user interface of their cloud; the id is their mailbox address or Salesforce username.
    Person(String),
    /// An application that came through an API; the id is its OAuth client id.
    App(String),
    /// The cloud's own machinery (a flow, a trigger, the mail transport that updates attendee copies).
    Automation(String),
}

impl Actor {
    /// Tells whether a human caused the change.
    pub fn is_person(&self) -> bool {
        matches!(self, Self::Person(_))
    }

    /// Tells whether an API client (the engine under test, or a stranger's client) caused the change.
    pub fn is_app(&self) -> bool {
        matches!(self, Self::App(_))
    }

    /// Returns the id without its kind.
    pub fn id(&self) -> &str {
        match self {
            Self::Person(id) | Self::App(id) | Self::Automation(id) => id,
        }
    }
}
