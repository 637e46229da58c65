//! Newtypes of identity. `record_id` is theirs, `link_id` is ours; every stored key starts with the connection.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::side::Side;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a value drawn by the engine: the core itself draws nothing.
            pub fn new(value: Uuid) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

text_id! {
    /// Names one Outlook tenant paired with one Salesforce org; chosen by the admin in the config.
    ConnectionId
}
text_id! {
    /// Names a mailbox by its Graph user id (a guid in lower case), never by its address.
    MailboxId
}
text_id! {
    /// Names one durable stream: a hub partition, a Salesforce channel, a mailbox's delta.
    StreamId
}
uuid_id! {
    /// Names a link: one row of the correlation table. Also the value stamped into both records.
    LinkId
}
uuid_id! {
    /// Names one write; stamped into the record by it, so that a read tells whether it took effect.
    WriteToken
}

impl WriteToken {
    /// Returns bits that were drawn with it: chance for whoever may draw none, such as the core.
    pub fn chance(&self) -> u128 {
        self.0.as_u128()
    }
}

uuid_id! {
    /// Names a lane: the serial execution of one meeting.
    LaneId
}

/// Names a Salesforce record by its 18-character id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SalesforceId(String);

/// Says why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Neither 15 nor 18 letters and digits.
    #[error("`{0}` is not a Salesforce id; expected 15 or 18 letters and digits")]
    NotSalesforce(String),
    /// The last three characters do not match the first fifteen.
    #[error("`{given}` is not a Salesforce id; its checksum should make it `{expected}`")]
    Checksum {
        /// What was given.
        given: String,
        /// The id with the right checksum.
        expected: String,
    },
    /// Not of the form that [`RecordId::key`] writes.
    #[error("`{0}` is not a record key; expected `o:MAILBOX:EVENT` or `s:ID`")]
    NotRecord(String),
}

impl SalesforceId {
    /// Reads a 15- or 18-character id and returns the 18-character form.
    ///
    /// The suffix encodes the letter case of each group of five characters, so that the id survives systems that fold
    /// case: <https://help.salesforce.com/s/articleView?id=000385008>.
    ///
    /// # Errors
    /// [`IdError::NotSalesforce`] and [`IdError::Checksum`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        const SUFFIX: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
        let bytes = text.as_bytes();
        if !(bytes.len() == 15 || bytes.len() == 18) || !bytes.iter().all(u8::is_ascii_alphanumeric) {
            return Err(IdError::NotSalesforce(text.to_owned()));
        }
        let (body, given_suffix) = bytes.split_at(15);
        let suffix = body.chunks(5).map(|group| {
            let mask = group.iter().enumerate().filter(|(_, c)| c.is_ascii_uppercase()).fold(0, |m, (i, _)| m | 1 << i);
            char::from(SUFFIX[mask])
        });
        let full: String = body.iter().map(|c| char::from(*c)).chain(suffix).collect();
        if given_suffix.is_empty() || full.as_bytes()[15..].eq_ignore_ascii_case(given_suffix) {
            Ok(Self(full))
        } else {
            Err(IdError::Checksum { given: text.to_owned(), expected: full })
        }
    }

    /// Returns the 18 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SalesforceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SalesforceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Names one event on one side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordId {
    /// An event in a mailbox, by its immutable id: <https://learn.microsoft.com/graph/outlook-immutable-id>.
    Outlook {
        /// The mailbox that holds the copy.
        mailbox: MailboxId,
        /// The immutable event id, case-sensitive.
        event: String,
    },
    /// A Salesforce Event.
    Salesforce(SalesforceId),
}

impl RecordId {
    /// Returns the side the record lives on.
    pub fn side(&self) -> Side {
        match self {
            Self::Outlook { .. } => Side::Outlook,
            Self::Salesforce(_) => Side::Salesforce,
        }
    }

    /// Returns the mailbox of an Outlook record.
    pub fn mailbox(&self) -> Option<&MailboxId> {
        match self {
            Self::Outlook { mailbox, .. } => Some(mailbox),
            Self::Salesforce(_) => None,
        }
    }

    /// Returns the id as the remote knows it: event id or 18 characters.
    pub fn remote_id(&self) -> &str {
        match self {
            Self::Outlook { event, .. } => event,
            Self::Salesforce(id) => id.as_str(),
        }
    }

    /// Returns the stored form, `o:MAILBOX:EVENT` or `s:ID`; [`RecordId::from_key`] reads it back.
    pub fn key(&self) -> String {
        match self {
            Self::Outlook { mailbox, event } => format!("o:{mailbox}:{event}"),
            Self::Salesforce(id) => format!("s:{id}"),
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`IdError`] when the text is none.
    pub fn from_key(key: &str) -> Result<Self, IdError> {
        let not_record = || IdError::NotRecord(key.to_owned());
        let (side, rest) = key.split_once(':').ok_or_else(not_record)?;
        match side {
            "o" => {
                let (mailbox, event) = rest.split_once(':').ok_or_else(not_record)?;
                Ok(Self::Outlook { mailbox: MailboxId::new(mailbox), event: event.to_owned() })
            }
            "s" => SalesforceId::parse(rest).map(Self::Salesforce),
            _ => Err(not_record()),
        }
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_characters_gain_the_suffix_that_encodes_their_case() {
        assert_eq!(SalesforceId::parse("0015000000Gv7qJ").unwrap().as_str(), "0015000000Gv7qJAAR");
        assert_eq!(SalesforceId::parse("0015000000Gv7qJAAR").unwrap().as_str(), "0015000000Gv7qJAAR");
    }

    #[test]
    fn a_wrong_suffix_is_refused_with_the_right_one() {
        let error = SalesforceId::parse("0015000000Gv7qJAAA").unwrap_err();
        assert!(error.to_string().contains("0015000000Gv7qJAAR"), "{error}");
    }

    #[test]
    fn record_keys_read_back() {
        let ids = [
            RecordId::Outlook { mailbox: MailboxId::new("8c1f"), event: "AAk=:x".into() },
            RecordId::Salesforce(SalesforceId::parse("0015000000Gv7qJ").unwrap()),
        ];
        for id in ids {
            assert_eq!(RecordId::from_key(&id.key()).unwrap(), id);
        }
        assert!(RecordId::from_key("x:1").is_err());
    }
}
