//! The two sides of every link.

use serde::{Deserialize, Serialize};

/// One of the two systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Microsoft 365 calendars through Microsoft Graph.
    Outlook,
    /// The Salesforce Event object.
    Salesforce,
}

impl Side {
    /// Both sides, Outlook first.
    pub const BOTH: [Self; 2] = [Self::Outlook, Self::Salesforce];

    /// Returns the opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Outlook => Self::Salesforce,
            Self::Salesforce => Self::Outlook,
        }
    }

    /// Returns the stable lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outlook => "outlook",
            Self::Salesforce => "salesforce",
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One value per side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BothSides<T> {
    /// Outlook's.
    pub outlook: T,
    /// Salesforce's.
    pub salesforce: T,
}

impl<T> BothSides<T> {
    /// Returns the value of a side.
    pub fn get(&self, side: Side) -> &T {
        match side {
            Side::Outlook => &self.outlook,
            Side::Salesforce => &self.salesforce,
        }
    }

    /// Returns the value of a side for change.
    pub fn get_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Outlook => &mut self.outlook,
            Side::Salesforce => &mut self.salesforce,
        }
    }
}
