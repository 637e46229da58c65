//! Judges what a bridge between the two clouds did, from the history alone and the present states.
//!
//! Owns the definitions of the five verdicts; knows nothing of how the bridge works except the stamps by which it pairs
//! records, which are parsed here once more so that a mistake in the bridge's own code cannot hide.
//!
//! | verdict | meaning |
//! |---|---|
//! | lost | a person's edit of a mapped field never appeared on the other side and nothing later replaced it |
//! | duplicated | one meeting is more than one live record on a side |
//! | looped | more effective writes on one side than edits on the other |
//! | diverged | at rest, the two sides differ in a mapped field or one of them is gone |
//! | mailed | a mail of the bridge that no edit of a person in Salesforce explains |
//!
//! A linked meeting goes through `links` (which records belong together), `timeline` (their states over time) and
//! `verdicts`. Mapped fields: subject, time (start, end, all-day), location, show-as.

mod links;
mod mailed;
mod shown;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod verdicts;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::actor::Actor;
use crate::history::{Cloud, Effect};
use crate::mails::Mail;

pub use self::shown::{Field, Shown};

/// Everything a judgement rests on.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The whole history.
    pub effects: Vec<Effect>,
    /// Every mail that Exchange would have sent, in order.
    pub mails: Vec<Mail>,
    /// Present Outlook events of all mailboxes, with `singleValueExtendedProperties`.
    pub outlook: Vec<Value>,
    /// Present Salesforce events, deleted ones left out or marked `IsDeleted`.
    pub salesforce: Vec<Value>,
    /// Who is who: mailbox user id and Salesforce user id of each person.
    pub people: Vec<(String, String)>,
    /// Sandbox time of the judgement.
    pub now: DateTime<Utc>,
}

impl Evidence {
    fn same_person(&self, one: &str, two: &str) -> bool {
        self.people.iter().any(|(mailbox, user)| (mailbox == one && user == two) || (mailbox == two && user == one))
    }
}

/// What a judgement may assume.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How long a meeting must have been quiet before differences count; 30 s unless told.
    pub settle: TimeDelta,
    /// Client ids of the bridge; none means that every application is the bridge.
    pub bridge: Option<BTreeSet<String>>,
    /// Meetings with attendees flow towards Salesforce only. An attendee's copy does so in any case.
    pub attendees_one_way: bool,
    /// Pairs known from elsewhere (Outlook event id, Salesforce id), for bridges that leave no stamps.
    pub pairs: Vec<(String, String)>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { settle: TimeDelta::seconds(30), bridge: None, attendees_one_way: false, pairs: Vec::new() }
    }
}

impl Terms {
    fn is_bridge(&self, actor: &Actor) -> bool {
        match (actor, &self.bridge) {
            (Actor::App(id), Some(bridge)) => bridge.contains(id),
            (Actor::App(_), None) => true,
            _ => false,
        }
    }
}

/// A judgement of everything that happened so far.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Sandbox time of the judgement.
    pub judged_at: DateTime<Utc>,
    /// Seconds of quiet after which differences count.
    pub settle_secs: i64,
    /// Edits of people that vanished.
    pub lost: Vec<LostEdit>,
    /// Meetings with more than one live record on a side.
    pub duplicated: Vec<Duplicate>,
    /// Meetings with more writes on one side than edits on the other.
    pub looped: Vec<Loop>,
    /// Pairs that differ at rest.
    pub diverged: Vec<Divergence>,
    /// Mails of the bridge that no edit of a person in Salesforce explains.
    pub mailed: Vec<UnexplainedMail>,
    /// Edits that lost against a simultaneous edit on the other side; allowed, the bridge must have kept them elsewhere.
    pub overridden: Vec<LostEdit>,
    /// Salesforce edits of meetings with attendees that did not cross; allowed where [`Terms::attendees_one_way`] says so, and
    /// where Outlook has only an attendee's copy.
    pub held_back: Vec<LostEdit>,
    /// Every linked meeting with its counts.
    pub meetings: Vec<Meeting>,
    /// Live Outlook meetings without a Salesforce partner.
    pub unlinked_outlook: usize,
    /// Live Salesforce events without an Outlook partner.
    pub unlinked_salesforce: usize,
}

impl Report {
    /// Tells whether none of the five verdicts was reached.
    pub fn is_clean(&self) -> bool {
        let agreed = self.lost.is_empty() && self.duplicated.is_empty() && self.diverged.is_empty();
        agreed && self.looped.is_empty() && self.mailed.is_empty()
    }

    /// Tells whether some meeting changed too recently to be judged.
    pub fn is_pending(&self) -> bool {
        self.meetings.iter().any(|meeting| meeting.state == MeetingState::Pending)
    }

    /// Draws the report for a terminal.
    pub fn table(&self) -> String {
        table::draw(self)
    }
}

/// How a linked meeting stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MeetingState {
    /// Both sides agree.
    InStep,
    /// Something changed within the settling time.
    Pending,
    /// Gone on both sides.
    Deleted,
    /// A verdict was reached.
    Faulty,
    /// Differs, but only because meetings with attendees or private ones do not flow that way.
    HeldBack,
}

/// One linked meeting.
#[derive(Debug, Clone, Serialize)]
pub struct Meeting {
    /// Link ids found in the stamps; one in a healthy world.
    pub links: Vec<String>,
    /// iCalUIds of its Outlook side.
    pub ical_uids: Vec<String>,
    /// Outlook event ids, all copies.
    pub outlook: Vec<String>,
    /// Salesforce ids.
    pub salesforce: Vec<String>,
    /// Edits and writes on the Outlook side.
    pub on_outlook: Tally,
    /// Edits and writes on the Salesforce side.
    pub on_salesforce: Tally,
    /// How it stands.
    pub state: MeetingState,
}

/// Effective changes on one side of a meeting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// By people (and by applications that are not the bridge).
    pub edits: u64,
    /// By the cloud's own machinery, copies of a meeting that merely follow left out.
    pub automation: u64,
    /// By the bridge.
    pub writes: u64,
    /// Versions without a changed value, by anybody.
    pub touches: u64,
}

/// An edit that did not reach the other side.
#[derive(Debug, Clone, Serialize)]
pub struct LostEdit {
    /// Where it was made.
    pub cloud: Cloud,
    /// The record.
    pub record: String,
    /// Its position in the history.
    pub sequence: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// The field.
    pub field: Field,
    /// What the person wrote.
    pub value: Value,
}

/// A meeting with too many records.
#[derive(Debug, Clone, Serialize)]
pub struct Duplicate {
    /// The side with too many.
    pub cloud: Cloud,
    /// Its live records: Salesforce ids, or iCalUIds.
    pub records: Vec<String>,
    /// Link ids involved.
    pub links: Vec<String>,
}

/// A meeting with too many writes.
#[derive(Debug, Clone, Serialize)]
pub struct Loop {
    /// The side written to.
    pub cloud: Cloud,
    /// Its records.
    pub records: Vec<String>,
    /// Effective writes of the bridge there.
    pub writes: u64,
    /// Edits on the other side that explain writes.
    pub edits: u64,
}

/// A pair that differs at rest.
#[derive(Debug, Clone, Serialize)]
pub struct Divergence {
    /// The Outlook event.
    pub outlook: String,
    /// The Salesforce event.
    pub salesforce: String,
    /// The field that differs; none where one side is gone.
    pub field: Option<Field>,
    /// Outlook's value, null where the event is gone.
    pub in_outlook: Value,
    /// Salesforce's value, null where the event is gone.
    pub in_salesforce: Value,
}

/// A mail that nobody's edit explains.
#[derive(Debug, Clone, Serialize)]
pub struct UnexplainedMail {
    /// The mail.
    pub mail: Mail,
    /// Edits of people in Salesforce that came before it and fit; each explains another mail of this kind.
    pub edits: usize,
}

/// Judges everything that happened so far.
pub fn judge(evidence: &Evidence, terms: &Terms) -> Report {
    let records = timeline::replay(evidence);
    let groups = links::assemble(&records, evidence, terms);
    let mailed = mailed::unexplained(evidence, terms, &records, &groups);
    Report { mailed, ..verdicts::reach(evidence, terms, &records, groups) }
}
