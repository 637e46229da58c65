//! The closed list of reasons: why a signal ended the way it did.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = ($code:literal, $name:literal, $words:literal),)*) => {
        /// Why something was decided; stable in name, code and meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the stable code; `docs/errors/<code>.md` explains it.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Returns the stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns one line for people.
            pub fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

reasons! {
    /// Both sides agree.
    InStep = ("CB2001", "in_step", "both sides already agree"),
    /// The change that was signalled is one that we wrote.
    Echo = ("CB2002", "echo", "the change was our own write coming back"),
    /// The version is new, but no mapped field changed.
    NoMappedChange = ("CB2003", "no_mapped_change", "nothing that the mapping covers has changed"),
    /// A new meeting crosses.
    Created = ("CB2010", "created", "new here, so it was created on the other side"),
    /// Outlook changed.
    OutlookChanged = ("CB2011", "outlook_changed", "Outlook changed and Salesforce had not"),
    /// Salesforce changed.
    SalesforceChanged = ("CB2012", "salesforce_changed", "Salesforce changed and Outlook had not"),
    /// Both changed to the same value.
    SameChange = ("CB2013", "same_change", "both sides changed to the same value"),
    /// Both changed; Outlook's value was kept.
    ConflictOutlookWins = ("CB2014", "conflict_outlook_wins", "both sides changed; by policy Outlook's value was kept"),
    /// Both changed; Salesforce's value was kept.
    ConflictSalesforceWins = ("CB2015", "conflict_salesforce_wins", "both sides changed; by policy Salesforce's value was kept"),
    /// Base unknown; the rule's `initial` decided.
    InitialValue = ("CB2016", "initial_value", "the rule is new to this meeting; its `initial` setting chose the value"),
    /// The rule does not carry this direction.
    OneWayField = ("CB2017", "one_way_field", "the field is mapped in the other direction only"),
    /// Deleted in Outlook.
    DeletedInOutlook = ("CB2020", "deleted_in_outlook", "deleted in Outlook"),
    /// Deleted in Salesforce.
    DeletedInSalesforce = ("CB2021", "deleted_in_salesforce", "deleted in Salesforce"),
    /// Called off by its organiser.
    Cancelled = ("CB2022", "cancelled", "the organiser cancelled the meeting"),
    /// Both sides are gone.
    BothGone = ("CB2023", "both_gone", "deleted on both sides"),
    /// The link is a tombstone.
    DeletedStaysDeleted = ("CB2024", "deleted_stays_deleted", "the meeting was deleted; it is not brought back"),
    /// One attendee's copy went away; the meeting goes on.
    CopyVanished = ("CB2025", "copy_vanished", "one attendee's copy is gone; the meeting goes on"),
    /// The authority moved to another copy.
    AuthorityMoved = ("CB2026", "authority_moved", "another copy now speaks for the meeting"),
    /// Private.
    Private = ("CB2030", "private", "private meetings stay on their side"),
    /// A linked meeting became private.
    BecamePrivate = ("CB2031", "became_private", "the meeting became private; its copy on the other side is removed"),
    /// Exchange would mail attendees, and the policy forbids it.
    AttendeesNeedMailPolicy = ("CB2032", "attendees_need_mail_policy", "Exchange would mail the attendees, and the mail policy is `never`"),
    /// Series are not mapped yet.
    SeriesNotMapped = ("CB2033", "series_not_mapped", "recurring meetings are not mapped yet"),
    /// A copy that Salesforce keeps for an invited user.
    ChildEvent = ("CB2034", "child_event", "Salesforce's own copy for an invited user; the main event is synced"),
    /// Not sent yet.
    Draft = ("CB2035", "draft", "the meeting is a draft"),
    /// Older than the enrolment.
    BeforeEnrolment = ("CB2036", "before_enrolment", "older than the enrolment; `first_contact` says not to create it"),
    /// The other side has unlinked candidates.
    NeedsAdopt = ("CB2037", "needs_adopt", "the other side has an event that may be the same; pairing needs a decision"),
    /// Nobody enrolled owns the record.
    NotEnrolled = ("CB2038", "not_enrolled", "its owner is not enrolled"),
    /// The meeting has no time that both sides can hold.
    TimeNotMappable = ("CB2039", "time_not_mappable", "the meeting has no time that the other side can hold"),
    /// Seen in a mailbox that is not the organiser's.
    AttendeeCopy = ("CB2040", "attendee_copy", "an attendee's copy; the meeting is synced through the copy that speaks for it"),
    /// The record was never there.
    NeverSeen = ("CB2041", "never_seen", "the record was gone before it could be read"),
    /// An occurrence or copy that has no own life here.
    PastMeeting = ("CB2042", "past_meeting", "a past meeting with attendees is not written"),
    /// A stamp names a link that the database does not know.
    StampUnknown = ("CB2043", "stamp_unknown", "stamped by a link that is not in this database; it is not created a second time"),
    /// Only the organiser's copy speaks for a meeting.
    NotOrganizer = ("CB2044", "not_organizer", "the organiser's copy is in no enrolled mailbox; an attendee's copy is not written"),
    /// No person made the change, and Exchange would mail attendees.
    MailNeedsPerson = ("CB2045", "mail_needs_person", "Exchange would mail the attendees of a change that no person made; waits for approval"),
    /// One author caused too many mails at once.
    MailFuse = ("CB2046", "mail_fuse", "one author caused more writes that mail people than may leave at once; waits for approval"),
    /// A later mail is gathered with what follows.
    MailWaits = ("CB2047", "mail_waits", "attendees were mailed a moment ago; later changes are gathered into one more mail"),
    /// A deletion waits, in case it is one of many.
    DeleteWaits = ("CB2048", "delete_waits", "a deletion waits a moment, in case it is one of many"),
    /// One of more deletions than may happen at once.
    MassDelete = ("CB2049", "mass_delete", "more deletions at once than may happen without approval"),
    /// Observe mode.
    ObserveMode = ("CB2050", "observe_mode", "mode is `observe`: planned, not written"),
    /// The Salesforce org lacks a field we need.
    MissingStampField = ("CB2051", "missing_stamp_field", "Salesforce lacks a field that writes need; see `calbridge check`"),
    /// A person approved what was held.
    Approved = ("CB2052", "approved", "a person approved what was held"),
    /// A person discarded what was held.
    Discarded = ("CB2053", "discarded", "a person discarded what was held"),
    /// A person chose Outlook's values.
    KeptOutlook = ("CB2054", "kept_outlook", "a person chose Outlook's values"),
    /// A person chose Salesforce's values.
    KeptSalesforce = ("CB2055", "kept_salesforce", "a person chose Salesforce's values"),
    /// A person set a failure aside.
    Skipped = ("CB2056", "skipped", "a person set the failure aside until the next edit"),
    /// A person asked for another try.
    Retried = ("CB2057", "retried", "a person asked for another try"),
    /// A deleted meeting came back.
    Restored = ("CB2058", "restored", "the meeting was deleted and somebody brought it back"),
    /// Deleted here, edited there; the edit wins.
    EditWins = ("CB2059", "edit_wins", "deleted on one side and edited on the other; by policy it is made again"),
    /// A read was older than what is known.
    StaleRead = ("CB2060", "stale_read", "the read was older than what is already known; reading again"),
    /// A read failed.
    ReadFailed = ("CB2061", "read_failed", "a read failed; trying again"),
    /// A write failed and is tried again.
    WriteFailed = ("CB2062", "write_failed", "a write failed; trying again"),
    /// The result of a write is unknown.
    WriteUnknown = ("CB2063", "write_unknown", "the result of a write is unknown; a read decides"),
    /// The record changed between read and write.
    ChangedUnderneath = ("CB2064", "changed_underneath", "the record changed between our read and our write"),
    /// The write took effect.
    WriteConfirmed = ("CB2065", "write_confirmed", "the write took effect"),
    /// The write never took effect.
    WriteNeverApplied = ("CB2066", "write_never_applied", "the write never took effect; planning again"),
    /// The notified version was not seen yet.
    VersionNotSeen = ("CB2067", "version_not_seen", "the notified version was not visible yet; reading once more"),
    /// A missing record awaits confirmation.
    AbsenceUnproven = ("CB2068", "absence_unproven", "the record was not found; waiting for proof before calling it deleted"),
    /// Another worker has the lane.
    LaneBusy = ("CB2069", "lane_busy", "another worker has this meeting"),
    /// The signal was seen before.
    Duplicate = ("CB2070", "duplicate", "this notification was delivered before"),
    /// The message has no meaning for us.
    ValidationMessage = ("CB2071", "validation_message", "Graph tested the way to the hub"),
    /// The message is not ours.
    ForeignMessage = ("CB2072", "foreign_message", "not from a subscription of ours"),
    /// The message could not be read.
    Undecodable = ("CB2073", "undecodable", "the message could not be read"),
    /// Redelivered at the same or an earlier position.
    Replayed = ("CB2074", "replayed", "at or before the position already covered"),
    /// A gap was reported.
    Gap = ("CB2075", "gap", "changes may have been missed; everything concerned is read again"),
    /// The message is larger than is read.
    Oversized = ("CB2076", "oversized", "the message is larger than any that is read"),
    /// The message speaks of a kind of change that nobody knows.
    UnknownKind = ("CB2077", "unknown_kind", "the message speaks of an unknown kind of change"),
    /// Salesforce does not know the schema of an event.
    UnknownSchema = ("CB2078", "unknown_schema", "Salesforce does not know the schema that the event was written with"),
    /// An edit fell between our read and our write.
    OverwrittenUnseen = ("CB2079", "overwritten_unseen", "somebody edited Salesforce between our read and our write; the value is kept here"),
    /// The remote refuses the write for good.
    Refused = ("CB2080", "refused", "the remote refuses the write"),
    /// Too many tries.
    TooManyTries = ("CB2081", "too_many_tries", "tried too often without success"),
    /// More than one record carries the link id.
    DuplicateLink = ("CB2082", "duplicate_link", "more than one Salesforce event carries this link's id"),
    /// Too many unexplained writes.
    Oscillation = ("CB2083", "oscillation", "something keeps changing the meeting back; stopped"),
    /// A conflict that a person must settle.
    ManualConflict = ("CB2084", "manual_conflict", "both sides changed and the policy asks a person"),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Reason {
    /// Tells whether a hold for this reason looks again at each run whether there is still anything to hold.
    ///
    /// The other holds wait until a person says something.
    pub fn is_reconsidered(self) -> bool {
        matches!(self, Self::MassDelete | Self::MailNeedsPerson | Self::MailFuse)
    }

    /// Tells whether a message set aside for this reason is kept for a person; others are only counted.
    pub fn keeps_message(self) -> bool {
        matches!(self, Self::Undecodable | Self::Oversized | Self::UnknownKind | Self::UnknownSchema)
    }

    /// Finds a reason by its name or its code, in any letter case.
    pub fn find(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.name().eq_ignore_ascii_case(text) || r.code().eq_ignore_ascii_case(text))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_names_match_the_stored_form() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
            assert_eq!(Reason::find(reason.code()), Some(*reason));
        }
    }
}
