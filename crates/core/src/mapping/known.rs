//! The fields that a rule may name: what each side has, what it holds, and what it lets us write.
//!
//! Outlook: <https://learn.microsoft.com/en-us/graph/api/resources/event?view=graph-rest-1.0>.
//! Salesforce: <https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_event.htm>.

/// What a known field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Start, end, zone and all-day, as one.
    Time,
    /// A text of at most this many characters; none means no limit that a calendar entry reaches.
    Text(Option<usize>),
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A field of one side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) holds: Holds,
    pub(super) writable: bool,
}

const fn field(name: &'static str, holds: Holds, writable: bool) -> Known {
    Known { name, holds, writable }
}

/// Outlook's choices of `showAs`.
const SHOW_AS: &[&str] = &["unknown", "free", "tentative", "busy", "oof", "workingElsewhere"];

/// Outlook's fields.
pub(super) const OUTLOOK: &[Known] = &[
    field("time", Holds::Time, true),
    field("subject", Holds::Text(Some(255)), true),
    field("body.text", Holds::Text(None), true),
    field("location.displayName", Holds::Text(Some(255)), true),
    field("showAs", Holds::Choice(SHOW_AS), true),
    field("importance", Holds::Choice(&["low", "normal", "high"]), true),
    field("bodyPreview", Holds::Text(Some(255)), false),
    field("webLink", Holds::Text(None), false),
    field("onlineMeeting.joinUrl", Holds::Text(None), false),
    field("iCalUId", Holds::Text(None), false),
];

/// Salesforce's standard fields; custom ones (`Name__c`) come on top.
pub(super) const SALESFORCE: &[Known] = &[
    field("time", Holds::Time, true),
    field("Subject", Holds::Text(Some(255)), true),
    field("Description", Holds::Text(Some(32_000)), true),
    field("Location", Holds::Text(Some(255)), true),
    field("ShowAs", Holds::Choice(&["Busy", "OutOfOffice", "Free"]), true),
    field("Type", Holds::Text(Some(40)), true),
];

/// Fields that exist and that no rule may name, with the reason.
pub(super) const NOT_MAPPABLE: &[(&[&str], &str)] = &[
    (
        &[
            "start",
            "end",
            "isAllDay",
            "StartDateTime",
            "EndDateTime",
            "EndDate",
            "ActivityDate",
            "ActivityDateTime",
            "DurationInMinutes",
            "IsAllDayEvent",
        ],
        "start, end, zone and all-day move as one; map `time` to `time`",
    ),
    (&["sensitivity", "IsPrivate"], "private meetings stay on their side and are not mapped; remove the rule"),
    (&["Calbridge_Link__c", "Calbridge_Token__c"], "calbridge keeps its own mark in it; choose another field"),
    (&["OwnerId"], "the owner follows from the enrolment of the mailbox; remove the rule"),
    (
        &["attendees", "organizer", "WhoId", "WhatId", "recurrence"],
        "people, related records and series are not mapped by field rules; remove the rule",
    ),
    (
        &["id", "changeKey", "Id", "SystemModstamp", "LastModifiedDate", "CreatedDate", "IsDeleted", "IsChild"],
        "the system sets it; remove the rule",
    ),
];

/// Finds a field by its exact name.
pub(super) fn find(fields: &'static [Known], name: &str) -> Option<&'static Known> {
    fields.iter().find(|known| known.name == name)
}

/// Tells whether a name has the form of a custom field: letters, digits and `_`, and `__c` at the end.
pub(super) fn is_custom(name: &str) -> bool {
    name.strip_suffix("__c").is_some_and(|stem| {
        stem.starts_with(|first: char| first.is_ascii_alphabetic())
            && stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Returns why a field that exists may not be mapped.
pub(super) fn not_mappable(name: &str) -> Option<&'static str> {
    NOT_MAPPABLE
        .iter()
        .find(|(names, _)| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
        .map(|(_, why)| *why)
}
