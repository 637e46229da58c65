//! One meeting's story: who it is, where it stands, and everything that happened, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use calbridge_core::ids::{MailboxId, WriteToken};
use calbridge_core::link::LinkState;
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::Version;
use calbridge_core::value::{Fields, Value, When};
use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::verdict::{Verdict, count};
use crate::ports::{DirtyRow, EnrolmentRow, JournalEntry, JournalKind, Traced};

/// The story of one meeting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// Where it stands.
    pub verdict: Verdict,
    /// Who it is.
    pub identity: Identity,
    /// IANA zone of the mailbox, for the second time on each line; `UTC` where none is known.
    pub zone: String,
    /// Everything that happened, oldest first; what waits comes last.
    pub lines: Vec<Line>,
    /// Mails that calbridge expected to cause.
    pub mails_expected: u32,
    /// The same in words.
    pub mails: String,
}

/// The names of a meeting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The connection.
    pub connection: String,
    /// Our link; none where the meeting was never linked.
    pub link_id: Option<String>,
    /// State of the link.
    pub state: Option<String>,
    /// How often the meeting came back after a deletion.
    pub generation: u32,
    /// Mailbox of the copy that speaks for the meeting.
    pub mailbox: Option<String>,
    /// Address of that mailbox, where enrolled.
    pub address: Option<String>,
    /// Outlook's event id.
    pub outlook_event_id: Option<String>,
    /// Outlook's change key, as last seen.
    pub outlook_change_key: Option<String>,
    /// Outlook's iCalUId.
    pub ical_uid: Option<String>,
    /// Salesforce's event id, 18 characters.
    pub salesforce_id: Option<String>,
    /// Salesforce's SystemModstamp, as last seen.
    pub salesforce_modstamp: Option<DateTime<Utc>>,
    /// Other mailboxes' copies.
    pub copies: Vec<String>,
    /// The lane under which all of this was done.
    pub lane_id: String,
}

/// A reason, with its words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonWords {
    /// Stable code.
    pub code: &'static str,
    /// Stable name.
    pub name: &'static str,
    /// One line for people.
    pub words: &'static str,
}

impl ReasonWords {
    /// Looks a reason up.
    pub fn of(reason: Reason) -> Self {
        Self { code: reason.code(), name: reason.name(), words: reason.words() }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// When.
    pub at: DateTime<Utc>,
    /// The same in the mailbox's zone, with its offset.
    pub at_local: String,
    /// `outlook` or `salesforce`; none for what concerns both.
    pub side: Option<&'static str>,
    /// What happened, in words.
    pub what: String,
    /// Why, the deciding reason first.
    pub reasons: Vec<ReasonWords>,
    /// The record concerned, as its remote knows it.
    pub record: Option<String>,
    /// Versions seen.
    pub versions: Vec<String>,
    /// Places in the streams: `stream@position`.
    pub positions: Vec<String>,
    /// Names of mapping rules concerned.
    pub fields: Vec<String>,
    /// The write this is about.
    pub token: Option<String>,
    /// Milliseconds from the first notification.
    pub latency_ms: Option<i64>,
    /// Request units spent.
    pub calls: u32,
    /// People Exchange was expected to mail.
    pub mails: u32,
    /// The Salesforce user whose change these mails carry, by id, or `operator`.
    pub mail_author: Option<String>,
    /// What a remote answered.
    pub error: Option<String>,
    /// Field values before, after and lost; only when asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, BTreeMap<String, String>>,
}

/// Builds the story of one meeting. Field values are part of it only with `values`: showing them is to be audited.
pub fn story(traced: &Traced, enrolments: &[EnrolmentRow], values: bool) -> Timeline {
    let mailbox = mailbox_of(traced);
    let enrolment = mailbox.and_then(|mailbox| enrolments.iter().find(|row| row.enrolment.mailbox == *mailbox));
    let zone = enrolment.and_then(|row| Tz::from_str(&row.zone).ok()).unwrap_or(Tz::UTC);
    let journal = without_unsent_mails(&traced.journal);
    let history = journal.iter().map(|entry| happened(entry, zone, values));
    let waiting = traced.waiting.iter().map(|row| waits(row, zone));
    let mails_expected = journal.iter().map(|entry| entry.mails).sum();
    Timeline {
        verdict: Verdict::of(traced),
        identity: identity(traced, enrolment),
        zone: zone.name().to_owned(),
        lines: history.chain(waiting).collect(),
        mails_expected,
        mails: match mails_expected {
            0 => "no mail was caused".to_owned(),
            number => format!("{} expected, {}; see the lines below", count(number, "mail"), authors(&journal)),
        },
    }
}

/// Takes away the mails of writes that certainly had no effect: whatever came of them later has rows of its own.
fn without_unsent_mails(journal: &[JournalEntry]) -> Vec<JournalEntry> {
    let failed = |entry: &&JournalEntry| {
        let without_effect = [Reason::WriteFailed, Reason::ChangedUnderneath, Reason::Refused];
        entry.kind == JournalKind::Settled
            && entry.side == Some(Side::Outlook)
            && entry.reasons.iter().any(|reason| without_effect.contains(reason))
    };
    let failed: BTreeSet<Option<WriteToken>> = journal.iter().filter(failed).map(|entry| entry.token).collect();
    let is_failed = |entry: &&JournalEntry| entry.kind == JournalKind::Intended && failed.contains(&entry.token);
    let void: BTreeSet<DateTime<Utc>> = journal.iter().filter(is_failed).map(|entry| entry.at).collect();
    let mut journal = journal.to_vec();
    for entry in journal.iter_mut().filter(|entry| entry.kind == JournalKind::Decided && void.contains(&entry.at)) {
        (entry.mails, entry.mail_author) = (0, None);
    }
    journal
}

/// Names the users whose changes mailed people.
fn authors(journal: &[JournalEntry]) -> String {
    let mailed = journal.iter().filter(|entry| entry.mails > 0);
    let authors: BTreeSet<&str> =
        mailed.map(|entry| entry.mail_author.as_deref().unwrap_or("an unknown user")).collect();
    format!("for changes by {}", authors.into_iter().collect::<Vec<_>>().join(", "))
}

/// Returns a side's name for people.
pub(super) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Outlook => "Outlook",
        Side::Salesforce => "Salesforce",
    }
}

/// Finds the mailbox whose zone people think in: that of the copy that speaks, else of any record known.
fn mailbox_of(traced: &Traced) -> Option<&MailboxId> {
    let authority = traced.link.as_ref().and_then(|link| link.replicas.outlook.as_ref());
    let waiting = traced.waiting.iter().map(|row| &row.notice.record);
    let journaled = traced.journal.iter().filter_map(|entry| entry.record.as_ref());
    authority
        .map(|replica| &replica.record)
        .into_iter()
        .chain(waiting)
        .chain(journaled)
        .find_map(|record| record.mailbox())
}

fn identity(traced: &Traced, enrolment: Option<&EnrolmentRow>) -> Identity {
    let mut identity = Identity {
        lane_id: traced.lane.to_string(),
        mailbox: mailbox_of(traced).map(ToString::to_string),
        address: enrolment.map(|row| row.address.clone()),
        ..Identity::default()
    };
    let Some(link) = &traced.link else {
        let records = traced
            .waiting
            .iter()
            .map(|row| &row.notice.record)
            .chain(traced.journal.iter().filter_map(|entry| entry.record.as_ref()));
        for record in records {
            let known = match record.side() {
                Side::Outlook => &mut identity.outlook_event_id,
                Side::Salesforce => &mut identity.salesforce_id,
            };
            known.get_or_insert_with(|| record.remote_id().to_owned());
        }
        if let Some(entry) = traced.journal.first() {
            identity.connection = entry.connection.to_string();
        }
        return identity;
    };
    identity.connection = link.connection.to_string();
    identity.link_id = Some(link.id.to_string());
    identity.generation = link.generation;
    identity.ical_uid = (!link.ical_uid.is_empty()).then(|| link.ical_uid.clone());
    identity.copies = link.copies.iter().map(|record| record.remote_id().to_owned()).collect();
    identity.state = Some(
        match link.state {
            LinkState::Live => "live",
            LinkState::Tombstone { .. } => "tombstone",
            LinkState::Held { .. } => "held",
            LinkState::DeadLetter { .. } => "dead_letter",
            LinkState::Skipped { .. } => "skipped",
        }
        .to_owned(),
    );
    if let Some(replica) = &link.replicas.outlook {
        identity.outlook_event_id = Some(replica.record.remote_id().to_owned());
        if let Some(Version::ChangeKey(key)) = &replica.version {
            identity.outlook_change_key = Some(key.clone());
        }
    }
    if let Some(replica) = &link.replicas.salesforce {
        identity.salesforce_id = Some(replica.record.remote_id().to_owned());
        if let Some(Version::Modstamp(at)) = &replica.version {
            identity.salesforce_modstamp = Some(*at);
        }
    }
    identity
}

fn happened(entry: &JournalEntry, zone: Tz, values: bool) -> Line {
    let shown = entry.images.iter().filter(|_| values);
    Line {
        at: entry.at,
        at_local: local(entry.at, zone),
        side: entry.side.map(Side::name),
        what: in_words(entry),
        reasons: entry.reasons.iter().copied().map(ReasonWords::of).collect(),
        record: entry.record.as_ref().map(|record| record.remote_id().to_owned()),
        versions: entry.versions.clone(),
        positions: entry.positions.iter().map(|position| format!("{}@{}", position.stream, position.value)).collect(),
        fields: entry.fields.clone(),
        token: entry.token.map(|token| token.to_string()),
        latency_ms: entry.latency_ms,
        calls: entry.calls,
        mails: entry.mails,
        mail_author: entry.mail_author.clone(),
        error: entry.error.clone(),
        values: shown.map(|(name, fields)| (name.clone(), readable(fields))).collect(),
    }
}

fn waits(row: &DirtyRow, zone: Tz) -> Line {
    let notice = &row.notice;
    let side = notice.record.side();
    let deleted = if notice.deleted { ", one of them of a deletion" } else { "" };
    Line {
        at: notice.last_signal_at,
        at_local: local(notice.last_signal_at, zone),
        side: Some(side.name()),
        what: format!("waiting: {}{deleted}", count(row.signals, "notification")),
        reasons: Vec::new(),
        record: Some(notice.record.remote_id().to_owned()),
        versions: notice.versions.iter().map(version).collect(),
        positions: row.positions.iter().map(|position| format!("{}@{}", position.stream, position.value)).collect(),
        fields: Vec::new(),
        token: None,
        latency_ms: None,
        calls: 0,
        mails: 0,
        mail_author: None,
        error: None,
        values: BTreeMap::new(),
    }
}

/// Says what happened.
fn in_words(entry: &JournalEntry) -> String {
    let side = entry.side.map(side_name);
    let fields = match entry.fields.as_slice() {
        [] => String::new(),
        names => format!(": {}", names.join(", ")),
    };
    match entry.kind {
        JournalKind::Rejected => "a message was set aside at intake".to_owned(),
        JournalKind::Intended => format!("recorded a write to {}{fields}", side.unwrap_or("one side")),
        JournalKind::Settled => {
            let side = side.unwrap_or("one side");
            match entry.reasons.first() {
                Some(Reason::WriteConfirmed) => format!("the write to {side} took effect{fields}"),
                Some(Reason::WriteNeverApplied) => format!("the write to {side} never took effect"),
                Some(Reason::WriteUnknown) => format!("nobody knows yet whether the write to {side} took effect"),
                _ => format!("{side} answered the write{fields}"),
            }
        }
        JournalKind::Decided
            if entry.reasons.first() == Some(&Reason::OverwrittenUnseen) && entry.outcome.is_none() =>
        {
            format!("a write of ours replaced an edit in {} that nobody had seen{fields}", side.unwrap_or("Salesforce"))
        }
        JournalKind::Decided => format!("{}{}", told(entry), decision(entry, &fields)),
    }
}

/// Says what a run was told, as the beginning of its line.
fn told(entry: &JournalEntry) -> String {
    if entry.signals == 0 {
        return String::new();
    }
    let echoes = match entry.echoes {
        0 => String::new(),
        number if number >= entry.signals => " (our own writes coming back)".to_owned(),
        number => format!(" ({number} of them our own writes coming back)"),
    };
    format!("after {}{echoes}: ", count(entry.signals, "notification"))
}

fn decision(entry: &JournalEntry, fields: &str) -> String {
    match entry.outcome {
        Some(Outcome::InStep) => "nothing to do".to_owned(),
        // Which side is written stands on the next line: one run may have been told of changes on both.
        Some(Outcome::Write) => format!("decided to write{fields}"),
        Some(Outcome::Deferred) => format!("decided, and done later{fields}"),
        Some(Outcome::Skip) => "left alone".to_owned(),
        Some(Outcome::Wait) => "waits".to_owned(),
        Some(Outcome::Hold) => "held for a person".to_owned(),
        Some(Outcome::DeadLetter) => "gave up: needs a person".to_owned(),
        Some(Outcome::Deleted) => "over on both sides".to_owned(),
        None => "looked at".to_owned(),
    }
}

fn local(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn version(version: &Version) -> String {
    match version {
        Version::ChangeKey(key) => key.clone(),
        Version::Modstamp(at) => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    }
}

fn readable(fields: &Fields) -> BTreeMap<String, String> {
    fields.iter().map(|(name, value)| (name.clone(), value_text(value))).collect()
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "(empty)".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::When(When::Timed { start, end, zone }) => {
            let zone = zone.map(|zone| format!(" ({zone})")).unwrap_or_default();
            let time = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            format!("{} to {}{zone}", time(start), time(end))
        }
        Value::When(When::AllDay { first, last }) => format!("all day, {first} to {last}"),
    }
}
