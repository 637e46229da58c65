//! The neutral values that both sides' fields are read into, and the hash that compares them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A field's value, free of either side's wire form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Nothing set.
    #[default]
    Null,
    /// A switch.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text; line ends are `\n`.
    Text(String),
    /// When the meeting takes place: start, end, zone and all-day, which merge as one.
    When(When),
}

impl Value {
    /// Makes a text, or null from an empty one.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Null } else { Self::Text(text) }
    }

    /// Returns the text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the time, if it is one.
    pub fn as_when(&self) -> Option<&When> {
        match self {
            Self::When(when) => Some(when),
            _ => None,
        }
    }
}

/// Longest event that Salesforce holds, in an org that allows events of several days at all: 14 days, the last day of an
/// all-day event included. Outlook has no such limit.
///
/// <https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_event.htm>
pub const LONGEST: TimeDelta = TimeDelta::days(14);

/// When a meeting takes place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// From one instant to another.
    Timed {
        /// First instant.
        start: DateTime<Utc>,
        /// End, not before the start.
        end: DateTime<Utc>,
        /// The zone the organiser chose; Salesforce has no place for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<Tz>,
    },
    /// Whole days, never converted through a zone.
    AllDay {
        /// First day.
        first: NaiveDate,
        /// Last day, inclusive; not before the first.
        last: NaiveDate,
    },
}

impl When {
    /// Tells whether the end is not before the start.
    pub fn is_ordered(&self) -> bool {
        match self {
            Self::Timed { start, end, .. } => start <= end,
            Self::AllDay { first, last } => first <= last,
        }
    }

    /// Tells whether both sides can hold it: ordered, and no longer than [`LONGEST`].
    pub fn is_mappable(&self) -> bool {
        let length = match self {
            Self::Timed { start, end, .. } => *end - *start,
            Self::AllDay { first, last } => *last - *first + TimeDelta::days(1),
        };
        self.is_ordered() && length <= LONGEST
    }

    /// Returns the instant after which the meeting is certainly over (an all-day meeting ends in the latest zone, UTC-12).
    pub fn over_at(&self) -> DateTime<Utc> {
        match self {
            Self::Timed { end, .. } => *end,
            Self::AllDay { last, .. } => {
                last.and_hms_opt(0, 0, 0).expect("midnight exists").and_utc() + TimeDelta::hours(36)
            }
        }
    }
}

/// The fields of a record, by the names that mapping files use.
pub type Fields = BTreeMap<String, Value>;

/// Returns a stable hash of anything that serialises, as 32 hex digits.
pub fn fingerprint(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).expect("plain data with text keys always serialises");
    let digest = Sha256::digest(json);
    digest.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        use std::fmt::Write as _;
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
