//! The objects served and their fields: one table behind describe, validation, SOQL and the change event schema.
//!
//! Field facts: <https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_event.htm>

use crate::faults::Switches;

/// Unique external id that pairs an Event with its partner (custom field, switchable).
pub(crate) const LINK: &str = "Calbridge_Link__c";
/// Token of the last write (custom field, switchable).
pub(crate) const TOKEN: &str = "Calbridge_Token__c";
/// A custom field that an administrator may add.
pub(crate) const EXTRA: &str = "Floor__c";

/// An object (a table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Event,
    EventRelation,
    User,
    /// The org itself, one row; read by clients that ask whether they talk to a sandbox.
    Organization,
}

impl Object {
    /// All objects, in the order of the global describe.
    pub(crate) const ALL: [Self; 4] = [Self::Event, Self::EventRelation, Self::User, Self::Organization];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Event => "Event",
            Self::EventRelation => "EventRelation",
            Self::User => "User",
            Self::Organization => "Organization",
        }
    }

    /// Tells whether its rows can be written, and have change events.
    pub(crate) fn is_writable(self) -> bool {
        matches!(self, Self::Event | Self::EventRelation)
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Event => "Event",
            Self::EventRelation => "Event Relation",
            Self::User => "User",
            Self::Organization => "Organization",
        }
    }

    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Event => super::ids::EVENT,
            Self::EventRelation => super::ids::EVENT_RELATION,
            Self::User => super::ids::USER,
            Self::Organization => super::ids::ORGANISATION,
        }
    }

    /// Finds an object by API name; Salesforce ignores letter case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|object| object.name().eq_ignore_ascii_case(name))
    }

    /// Returns the object's fields as the switches leave them.
    pub(crate) fn fields(self, switches: &Switches) -> impl Iterator<Item = &'static Field> {
        let (link, token) = (switches.salesforce_link_field, switches.salesforce_token_field);
        let extra = switches.salesforce_extra_field;
        self.table().iter().filter(move |field| match field.name {
            LINK => link,
            TOKEN => token,
            EXTRA => extra,
            _ => true,
        })
    }

    /// Finds a field that clients can see; letter case is ignored.
    pub(crate) fn field(self, name: &str, switches: &Switches) -> Option<&'static Field> {
        self.fields(switches).find(|field| !field.event_only && field.name.eq_ignore_ascii_case(name))
    }

    fn table(self) -> &'static [Field] {
        match self {
            Self::Event => EVENT,
            Self::EventRelation => EVENT_RELATION,
            Self::User => USER,
            Self::Organization => ORGANIZATION,
        }
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Id,
    Reference(&'static [&'static str]),
    Text,
    Combobox,
    TextArea,
    Picklist(&'static [&'static str]),
    /// Only the listed values are accepted.
    Restricted(&'static [&'static str]),
    DateTime,
    Date,
    Int,
    Bool,
}

impl Kind {
    /// Returns the type name that describe shows.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Reference(_) => "reference",
            Self::Text => "string",
            Self::Combobox => "combobox",
            Self::TextArea => "textarea",
            Self::Picklist(_) | Self::Restricted(_) => "picklist",
            Self::DateTime => "datetime",
            Self::Date => "date",
            Self::Int => "int",
            Self::Bool => "boolean",
        }
    }
}

/// One field.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent property that describe lists")]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) kind: Kind,
    /// Characters; 0 where length means nothing.
    pub(crate) length: usize,
    pub(crate) create: bool,
    pub(crate) update: bool,
    pub(crate) filter: bool,
    /// Part of the object's change event.
    pub(crate) in_event: bool,
    /// Part of the change event only, not of the record.
    pub(crate) event_only: bool,
    /// Set by the system on every write.
    pub(crate) system: bool,
}

impl Field {
    const fn new(name: &'static str, label: &'static str, kind: Kind, length: usize) -> Self {
        Self {
            name,
            label,
            kind,
            length,
            create: false,
            update: false,
            filter: true,
            in_event: true,
            event_only: false,
            system: false,
        }
    }

    /// Createable and updateable.
    const fn cu(mut self) -> Self {
        self.create = true;
        self.update = true;
        self
    }

    /// Createable only.
    const fn c(mut self) -> Self {
        self.create = true;
        self
    }

    const fn unfiltered(mut self) -> Self {
        self.filter = false;
        self
    }

    /// Absent from change events.
    const fn quiet(mut self) -> Self {
        self.in_event = false;
        self
    }

    const fn event_only(mut self) -> Self {
        self.event_only = true;
        self
    }

    const fn system(mut self) -> Self {
        self.system = true;
        self
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.name.ends_with("__c")
    }

    /// Tells whether the field may be null.
    pub(crate) fn nillable(&self) -> bool {
        !(matches!(self.kind, Kind::Bool | Kind::Id) || self.system || matches!(self.name, "OwnerId" | "EventId"))
    }
}

const PEOPLE: &[&str] = &["Contact", "Lead"];
const THINGS: &[&str] = &["Account", "Opportunity", "Case", "Campaign", "Contract"];
const USERS: &[&str] = &["User"];
const OWNERS: &[&str] = &["User", "Calendar"];
/// API values of ShowAs; `OutOfOffice` without spaces is from public code, not confirmed by the vendor.
const SHOW_AS: &[&str] = &["Busy", "OutOfOffice", "Free"];

/// Order as in the published EventChangeEvent sample; the record's other fields stand where they belong by meaning.
const EVENT: &[Field] = &[
    Field::new("Id", "Event ID", Kind::Id, 18).quiet().system(),
    Field::new("WhoId", "Contact/Lead ID", Kind::Reference(PEOPLE), 18).cu(),
    Field::new("WhatId", "Opportunity/Account ID", Kind::Reference(THINGS), 18).cu(),
    Field::new("Subject", "Subject", Kind::Combobox, 255).cu(),
    Field::new("Location", "Location", Kind::Text, 255).cu(),
    Field::new("IsAllDayEvent", "All-Day Event", Kind::Bool, 0).cu(),
    Field::new("ActivityDateTime", "Due Date Time", Kind::DateTime, 0).cu(),
    Field::new("ActivityDate", "Due Date Only", Kind::Date, 0).cu(),
    Field::new("StartDateTime", "Start Date Time", Kind::DateTime, 0).cu().quiet(),
    Field::new("EndDateTime", "End Date Time", Kind::DateTime, 0).cu().quiet(),
    Field::new("EndDate", "End Date", Kind::Date, 0).quiet(),
    Field::new("DurationInMinutes", "Duration", Kind::Int, 0).cu(),
    Field::new("Description", "Description", Kind::TextArea, 32_000).cu().unfiltered(),
    Field::new("AccountId", "Account ID", Kind::Reference(&["Account"]), 18),
    Field::new("OwnerId", "Assigned To ID", Kind::Reference(OWNERS), 18).cu(),
    Field::new("Type", "Type", Kind::Picklist(&["Call", "Email", "Meeting", "Other"]), 255).cu(),
    Field::new("EventSubtype", "Event Subtype", Kind::Picklist(&["Event"]), 40).c().quiet(),
    Field::new("IsPrivate", "Private", Kind::Bool, 0).cu(),
    Field::new("ShowAs", "Show Time As", Kind::Restricted(SHOW_AS), 40).cu(),
    Field::new("IsDeleted", "Deleted", Kind::Bool, 0).quiet().system(),
    Field::new("IsChild", "Is Child", Kind::Bool, 0),
    Field::new("IsGroupEvent", "Is Group Event", Kind::Bool, 0),
    Field::new("GroupEventType", "Group Event Type", Kind::Picklist(&["0", "1", "2", "3"]), 40),
    Field::new("IsArchived", "Archived", Kind::Bool, 0).quiet(),
    Field::new("CreatedDate", "Created Date", Kind::DateTime, 0).system(),
    Field::new("CreatedById", "Created By ID", Kind::Reference(USERS), 18).system(),
    Field::new("LastModifiedDate", "Last Modified Date", Kind::DateTime, 0).system(),
    Field::new("LastModifiedById", "Last Modified By ID", Kind::Reference(USERS), 18).system(),
    Field::new("SystemModstamp", "System Modstamp", Kind::DateTime, 0).quiet().system(),
    Field::new("RecurrenceActivityId", "Recurrence Activity ID", Kind::Reference(&["Event"]), 18),
    Field::new("IsRecurrence", "Create Recurring Series of Events", Kind::Bool, 0).c(),
    Field::new("ReminderDateTime", "Reminder Date/Time", Kind::DateTime, 0).cu(),
    Field::new("IsReminderSet", "Reminder Set", Kind::Bool, 0).cu(),
    Field::new("IsRecurrence2", "Repeat", Kind::Bool, 0).quiet(),
    Field::new("IsRecurrence2Exception", "Is Exception", Kind::Bool, 0).quiet(),
    Field::new("IsRecurrence2Exclusion", "Historical Event, Not Following Recurrence", Kind::Bool, 0),
    Field::new("Recurrence2PatternText", "Recurrence Pattern", Kind::TextArea, 512).c().unfiltered(),
    Field::new("Recurrence2PatternVersion", "Pattern Version", Kind::Picklist(&["1"]), 40),
    Field::new("ActivityRecurrence2Id", "Recurrence ID", Kind::Text, 18).event_only(),
    Field::new("ActivityRecurrence2ExceptionId", "Recurrence Exception ID", Kind::Text, 18).event_only(),
    Field::new(LINK, "Calbridge Link", Kind::Text, 64).cu(),
    Field::new(TOKEN, "Calbridge Token", Kind::Text, 255).cu(),
    Field::new(EXTRA, "Floor", Kind::Text, 40).cu(),
];

const EVENT_RELATION: &[Field] = &[
    Field::new("Id", "Event Relation ID", Kind::Id, 18).quiet().system(),
    Field::new("RelationId", "Relation ID", Kind::Reference(&["User", "Contact", "Lead", "Calendar"]), 18).cu(),
    Field::new("EventId", "Event ID", Kind::Reference(&["Event"]), 18).c(),
    Field::new("IsWhat", "Is What", Kind::Bool, 0).cu(),
    Field::new("IsParent", "Is Parent", Kind::Bool, 0).cu(),
    Field::new("IsInvitee", "Is Invitee", Kind::Bool, 0).cu(),
    Field::new("AccountId", "Account ID", Kind::Reference(&["Account"]), 18),
    Field::new("Status", "Status", Kind::Restricted(&["New", "Accepted", "Declined", "Uninvited", "Maybe"]), 40).cu(),
    Field::new("RespondedDate", "Response Date", Kind::DateTime, 0).cu(),
    Field::new("Response", "Comment", Kind::Text, 255).cu(),
    Field::new("CreatedDate", "Created Date", Kind::DateTime, 0).system(),
    Field::new("CreatedById", "Created By ID", Kind::Reference(USERS), 18).system(),
    Field::new("LastModifiedDate", "Last Modified Date", Kind::DateTime, 0).system(),
    Field::new("LastModifiedById", "Last Modified By ID", Kind::Reference(USERS), 18).system(),
    Field::new("SystemModstamp", "System Modstamp", Kind::DateTime, 0).quiet().system(),
    Field::new("IsDeleted", "Deleted", Kind::Bool, 0).quiet().system(),
];

const USER: &[Field] = &[
    Field::new("Id", "User ID", Kind::Id, 18).system(),
    Field::new("Username", "Username", Kind::Text, 80),
    Field::new("Name", "Full Name", Kind::Text, 121),
    Field::new("LastName", "Last Name", Kind::Text, 80),
    Field::new("Email", "Email", Kind::Text, 128),
    Field::new("IsActive", "Active", Kind::Bool, 0),
    Field::new("TimeZoneSidKey", "Time Zone", Kind::Picklist(&[]), 40),
    Field::new("UserType", "User Type", Kind::Picklist(&["Standard", "AutomatedProcess"]), 40),
    Field::new("CreatedDate", "Created Date", Kind::DateTime, 0).system(),
    Field::new("LastModifiedDate", "Last Modified Date", Kind::DateTime, 0).system(),
    Field::new("SystemModstamp", "System Modstamp", Kind::DateTime, 0).system(),
];

/// <https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_organization.htm>
const ORGANIZATION: &[Field] = &[
    Field::new("Id", "Organization ID", Kind::Id, 18).system(),
    Field::new("Name", "Name", Kind::Text, 80),
    Field::new("IsSandbox", "Is Sandbox", Kind::Bool, 0),
    Field::new("OrganizationType", "Edition", Kind::Picklist(&["Developer Edition"]), 40),
    Field::new("InstanceName", "Instance Name", Kind::Text, 5),
    Field::new("NamespacePrefix", "Namespace Prefix", Kind::Text, 15),
    Field::new("LanguageLocaleKey", "Language", Kind::Picklist(&["en_US"]), 40),
    Field::new("TimeZoneSidKey", "Time Zone", Kind::Picklist(&[]), 40),
    Field::new("CreatedDate", "Created Date", Kind::DateTime, 0).system(),
    Field::new("LastModifiedDate", "Last Modified Date", Kind::DateTime, 0).system(),
    Field::new("SystemModstamp", "System Modstamp", Kind::DateTime, 0).system(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_events_carry_no_start_end_or_modstamp() {
        let names: Vec<_> =
            Object::Event.fields(&Switches::default()).filter(|field| field.in_event).map(|field| field.name).collect();
        for absent in ["StartDateTime", "EndDateTime", "EndDate", "SystemModstamp", "IsDeleted", "Id"] {
            assert!(!names.contains(&absent), "{absent}");
        }
        for present in ["ActivityDateTime", "ActivityDate", "DurationInMinutes", "IsAllDayEvent", LINK, TOKEN] {
            assert!(names.contains(&present), "{present}");
        }
    }

    #[test]
    fn switches_hide_the_custom_fields() {
        let switches = Switches { salesforce_link_field: false, ..Switches::default() };
        assert!(Object::Event.field(LINK, &switches).is_none());
        assert!(Object::Event.field(TOKEN, &switches).is_some());
    }

    #[test]
    fn names_are_found_in_any_letter_case() {
        assert_eq!(Object::Event.field("subject", &Switches::default()).map(|field| field.name), Some("Subject"));
        assert_eq!(Object::named("event"), Some(Object::Event));
    }
}
