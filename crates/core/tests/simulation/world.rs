//! Two made-up clouds: each holds records with versions, remembers old states, and applies writes late if told to.

use std::collections::{BTreeMap, BTreeSet};

use calbridge_core::ids::{LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::observed::{Evidence, Observed, Snapshot, Stamp, Traits, Why};
use calbridge_core::side::{BothSides, Side};
use calbridge_core::signal::{ChangeFact, Version};
use calbridge_core::value::{Fields, Value, When};
use calbridge_core::written::WriteResult;
use chrono::{DateTime, TimeDelta, Utc};

use crate::swarm::{Dice, Meeting, Swarm};

pub(crate) const USERS: [&str; 2] = ["005000000000001AAA", "005000000000002AAA"];
pub(crate) const MAILBOXES: [&str; 2] = ["mailbox-1", "mailbox-2"];

/// A rule's field on each side; conversion between them changes nothing here.
pub(crate) const FIELDS: [(&str, &str, &str); 3] =
    [("subject", "subject", "Subject"), ("location", "location.displayName", "Location"), ("time", "time", "time")];

/// What a person writes into a meeting that is nobody else's business.
pub(crate) const SECRET: &str = "secret";

pub(crate) fn why() -> Why {
    Why { code: "CB0000".to_owned(), message: String::new(), retry_after_ms: None }
}

/// The name that a rule's field has on a side.
pub(crate) fn field_of(field: (&'static str, &'static str, &'static str), side: Side) -> &'static str {
    if side == Side::Outlook { field.1 } else { field.2 }
}

/// Who changed a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    Person,
    /// The remote itself: copies that follow their organiser, changes outside the mapping.
    Remote,
    Engine,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) fields: Fields,
    pub(crate) version: u64,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) traits: Traits,
    pub(crate) deleted: bool,
    pub(crate) created: DateTime<Utc>,
    pub(crate) modified: DateTime<Utc>,
    /// Names of fields whose value a person set, and that the other side never showed.
    pub(crate) unseen: BTreeSet<String>,
    /// Names of fields whose present value a person set.
    pub(crate) by_person: BTreeSet<String>,
}

/// A message about a change, on its way.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) due: DateTime<Utc>,
    pub(crate) record: RecordId,
    pub(crate) deleted: bool,
    /// The version it names; none for a sweep.
    pub(crate) version: Option<Version>,
    /// Place in the remote's stream, and what a change event of Salesforce says.
    pub(crate) fact: Option<(u64, ChangeFact)>,
}

/// Who changed what, for the judgement at the end.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) edits: BothSides<u32>,
    pub(crate) deletes: BothSides<u32>,
    pub(crate) flips: BothSides<u32>,
    pub(crate) writes: BothSides<u32>,
    pub(crate) creates: BothSides<u32>,
    /// Rule, side and value of what a write of the engine replaced or deleted before the other side ever showed it.
    pub(crate) replaced: Vec<(&'static str, Value)>,
    /// The same, where a person wrote between the engine's read and its write, and no change event tells of it.
    pub(crate) overwritten_unseen: u32,
    pub(crate) leaked: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: DateTime<Utc>,
    pub(crate) rows: BTreeMap<RecordId, Vec<Row>>,
    pub(crate) tally: Tally,
    /// Messages on their way.
    pub(crate) signals: Vec<Message>,
    /// Writes that will apply after their sender gave up.
    pub(crate) late: Vec<(DateTime<Utc>, Intent)>,
    pub(crate) faults: bool,
    pub(crate) swarm: Swarm,
    /// Tokens of creations that Outlook remembers, as its `transactionId` does.
    created_by: BTreeMap<WriteToken, RecordId>,
    next_version: u64,
    next_id: u64,
    /// When the latest change event of Salesforce is delivered.
    stream_at: DateTime<Utc>,
}

impl World {
    pub(crate) fn new(swarm: Swarm) -> Self {
        Self {
            now: "2026-11-02T08:00:00Z".parse().unwrap(),
            rows: BTreeMap::new(),
            tally: Tally::default(),
            signals: Vec::new(),
            late: Vec::new(),
            faults: true,
            swarm,
            created_by: BTreeMap::new(),
            next_version: 1,
            next_id: 1,
            stream_at: DateTime::UNIX_EPOCH,
        }
    }

    /// Tells whether a fault of this rate strikes now.
    pub(crate) fn strikes(&self, dice: &mut Dice, percent: u64) -> bool {
        self.faults && dice.chance(percent)
    }

    /// The version of a change; Salesforce's are in order.
    pub(crate) fn version(side: Side, number: u64) -> Version {
        match side {
            Side::Outlook => Version::ChangeKey(format!("key-{number}")),
            Side::Salesforce => Version::Modstamp(
                DateTime::from_timestamp_millis(1_700_000_000_000 + i64::try_from(number).unwrap() * 1_000).unwrap(),
            ),
        }
    }

    pub(crate) fn new_id(&mut self, side: Side, mailbox: &str) -> RecordId {
        let number = self.next_id;
        self.next_id += 1;
        match side {
            Side::Outlook => RecordId::Outlook { mailbox: MailboxId::new(mailbox), event: format!("event-{number}") },
            Side::Salesforce => RecordId::Salesforce(SalesforceId::parse(&format!("00U{number:012}")).unwrap()),
        }
    }

    pub(crate) fn current(&self, record: &RecordId) -> Option<&Row> {
        self.rows.get(record).and_then(|history| history.last())
    }

    /// Records that are there, called off or not.
    pub(crate) fn alive(&self, side: Side) -> impl Iterator<Item = (&RecordId, &Row)> {
        let current = self.rows.iter().filter_map(|(id, rows)| Some((id, rows.last()?)));
        current.filter(move |(id, row)| id.side() == side && !row.deleted)
    }

    /// Traits of a record of this schedule's kind of meeting.
    pub(crate) fn traits(&self, record: &RecordId, organizer: bool, owner: &str) -> Traits {
        let attended = self.swarm.meeting != Meeting::Plain && record.side() == Side::Outlook;
        let uid = if attended { "uid-of-the-meeting".to_owned() } else { format!("uid-{}", record.remote_id()) };
        Traits {
            ical_uid: (record.side() == Side::Outlook).then_some(uid),
            is_organizer: organizer,
            attendees: u32::from(attended),
            owner: (record.side() == Side::Salesforce).then(|| owner.to_owned()),
            ..Traits::default()
        }
    }

    /// Changes a record and sends its signals; each may come twice, late, or not at all.
    pub(crate) fn put(&mut self, dice: &mut Dice, author: Author, record: &RecordId, change: impl FnOnce(&mut Row)) {
        // Two changes of one record never carry the same modification time; that it is this fine is a stated limit.
        self.now += TimeDelta::milliseconds(1);
        let side = record.side();
        let number = self.next_version;
        self.next_version += 1;
        let before = self.current(record);
        let mut row = before.cloned().unwrap_or_else(|| Row {
            fields: Fields::new(),
            version: 0,
            stamp: None,
            traits: self.traits(record, true, USERS[0]),
            deleted: false,
            created: self.now,
            modified: self.now,
            unseen: BTreeSet::new(),
            by_person: BTreeSet::new(),
        });
        change(&mut row);
        row.version = number;
        row.modified = self.now;
        let old = before.map(|before| &before.fields);
        for (name, value) in &row.fields {
            if old.and_then(|old| old.get(name)) != Some(value) {
                if author == Author::Person {
                    row.unseen.insert(name.clone());
                    row.by_person.insert(name.clone());
                } else {
                    row.unseen.remove(name);
                    row.by_person.remove(name);
                }
            }
        }
        let (deleted, version) = (row.deleted, Some(Self::version(side, number)));
        let fact = (side == Side::Salesforce).then(|| (number, fact(before, &row, author == Author::Engine)));
        self.rows.entry(record.clone()).or_default().push(row);
        self.show();
        let copies = if self.strikes(dice, self.swarm.lost_signals) { 0 } else { 1 + u64::from(dice.chance(50)) };
        let mut due = self.now;
        for copy in 0..copies {
            due += TimeDelta::milliseconds(i64::try_from(dice.below(4_000)).unwrap());
            // Salesforce's stream keeps its order; a repetition comes after the first delivery.
            if side == Side::Salesforce && copy == 0 {
                due = due.max(self.stream_at);
                self.stream_at = due;
            }
            let (record, version, fact) = (record.clone(), version.clone(), fact.clone());
            self.signals.push(Message { due, record, deleted, version, fact });
        }
    }

    /// Takes note of values that both sides hold now: people of both have seen them.
    fn show(&mut self) {
        for side in Side::BOTH {
            if !self.alive(side).any(|(_, row)| !row.unseen.is_empty()) {
                continue;
            }
            let others: Vec<Fields> = self.alive(side.other()).map(|(_, row)| row.fields.clone()).collect();
            for (_, rows) in self.rows.iter_mut().filter(|(id, _)| id.side() == side) {
                let Some(row) = rows.last_mut() else { continue };
                for field in FIELDS {
                    let (ours, theirs) = (field_of(field, side), field_of(field, side.other()));
                    if others.iter().any(|other| other.get(theirs) == row.fields.get(ours)) {
                        row.unseen.remove(ours);
                    }
                }
            }
        }
    }

    /// Reads a record; under faults the answer may be an older state, "not found", or none.
    pub(crate) fn read(&self, dice: &mut Dice, record: &RecordId) -> Observed {
        if self.strikes(dice, self.swarm.failed_reads) {
            return Observed::Unread(why());
        }
        let Some(history) = self.rows.get(record) else {
            return Observed::Absent(Evidence::NotFound);
        };
        // A lagging replica lags by seconds, not for ever; one that has not heard of a new record says "not found".
        let new = history.first().is_some_and(|first| self.now - first.modified < TimeDelta::seconds(5));
        if new && self.strikes(dice, self.swarm.misses) {
            return Observed::Absent(Evidence::NotFound);
        }
        let lag = if self.strikes(dice, self.swarm.stale_reads) { dice.below(5_000) } else { 0 };
        let shown_at = self.now - TimeDelta::milliseconds(i64::try_from(lag).unwrap());
        let Some(index) = history.iter().rposition(|row| row.modified <= shown_at) else {
            return Observed::Absent(Evidence::NotFound);
        };
        let row = &history[index];
        match (row.deleted, record.side()) {
            (true, Side::Salesforce) => Observed::Absent(Evidence::Deleted),
            (true, Side::Outlook) => Observed::Absent(Evidence::NotFound),
            (false, _) => Observed::Present(Box::new(self.snapshot(record, row))),
        }
    }

    pub(crate) fn snapshot(&self, record: &RecordId, row: &Row) -> Snapshot {
        Snapshot {
            record: record.clone(),
            version: Self::version(record.side(), row.version),
            read_at: self.now,
            created: row.created,
            modified: row.modified,
            modified_by: None,
            stamp: row.stamp.clone(),
            traits: row.traits.clone(),
            fields: row.fields.clone(),
        }
    }

    /// Searches by stamp; under faults the index may not know a new record yet.
    pub(crate) fn stamped(&self, dice: &mut Dice, side: Side, link: LinkId) -> Vec<(RecordId, Observed)> {
        let mut found = Vec::new();
        for (record, rows) in self.rows.iter().filter(|(id, _)| id.side() == side) {
            let Some(row) = rows.last().filter(|row| row.stamp.as_ref().is_some_and(|stamp| stamp.link == link)) else {
                continue;
            };
            let recent = self.now - row.created < TimeDelta::seconds(5);
            if recent && self.strikes(dice, self.swarm.stale_reads) {
                continue;
            }
            match (row.deleted, side) {
                // Outlook's search shows no deleted events.
                (true, Side::Outlook) => {}
                (true, Side::Salesforce) => found.push((record.clone(), Observed::Absent(Evidence::Deleted))),
                (false, _) => found.push((record.clone(), Observed::Present(Box::new(self.snapshot(record, row))))),
            }
        }
        found
    }

    /// Applies a write now; the remote's own rules decide.
    pub(crate) fn apply(&mut self, dice: &mut Dice, intent: &Intent) -> WriteResult {
        let secret = Value::text(SECRET);
        self.tally.leaked |= intent.fields.values().any(|value| *value == secret);
        match &intent.action {
            Action::Create(home) => self.create(dice, intent, home),
            Action::Update(record) | Action::Delete(record) => {
                let Some(row) = self.current(record).filter(|row| !row.deleted) else {
                    return WriteResult::Gone(why());
                };
                let deletes = matches!(intent.action, Action::Delete(_));
                let underneath = intent.expected.as_ref() != Some(&Self::version(intent.side, row.version));
                if underneath && intent.side == Side::Outlook && self.swarm.conditional {
                    return WriteResult::Conflict(why());
                }
                let lost: Vec<_> = FIELDS
                    .into_iter()
                    .map(|field| (field.0, field_of(field, intent.side)))
                    .filter(|(_, name)| row.unseen.contains(*name))
                    .filter(|(_, name)| {
                        deletes || intent.fields.get(*name).is_some_and(|new| Some(new) != row.fields.get(*name))
                    })
                    .filter_map(|(rule, name)| Some((rule, row.fields.get(name)?.clone())))
                    .collect();
                // An edit that no read and no message showed can be told by nobody.
                let told = intent.side == Side::Salesforce && self.swarm.lost_signals == 0;
                if underneath && !told {
                    self.tally.overwritten_unseen += u32::from(!lost.is_empty());
                } else {
                    self.tally.replaced.extend(lost);
                }
                *self.tally.writes.get_mut(intent.side) += 1;
                self.put(dice, Author::Engine, record, |row| {
                    row.fields.extend(intent.fields.clone());
                    row.stamp = Some(intent.stamp.clone());
                    row.deleted = deletes;
                });
                self.applied(record.clone())
            }
        }
    }

    fn create(&mut self, dice: &mut Dice, intent: &Intent, home: &Home) -> WriteResult {
        let mailbox = match home {
            // The transaction id makes Outlook answer a repeat with the first event, deleted or not.
            Home::Mailbox(mailbox) => match self.created_by.get(&intent.token) {
                Some(record) => {
                    return WriteResult::Applied { record: record.clone(), version: None, snapshot: None };
                }
                None => mailbox.as_str().to_owned(),
            },
            Home::Owner(_) => {
                let carries = |row: &Row| row.stamp.as_ref().is_some_and(|stamp| stamp.link == intent.link);
                if self.swarm.unique && self.alive(Side::Salesforce).any(|(_, row)| carries(row)) {
                    return WriteResult::AlreadyExists(why());
                }
                String::new()
            }
        };
        let record = self.new_id(intent.side, &mailbox);
        self.created_by.insert(intent.token, record.clone());
        *self.tally.creates.get_mut(intent.side) += 1;
        *self.tally.writes.get_mut(intent.side) += 1;
        let owner = if let Home::Owner(owner) = home { owner.clone() } else { String::new() };
        let traits = self.traits(&record, true, &owner);
        self.put(dice, Author::Engine, &record, |row| {
            row.fields = intent.fields.clone();
            row.stamp = Some(intent.stamp.clone());
            row.traits = traits;
        });
        self.applied(record)
    }

    fn applied(&self, record: RecordId) -> WriteResult {
        let row = self.current(&record).unwrap();
        match record.side() {
            Side::Outlook if !row.deleted => WriteResult::Applied {
                version: Some(Self::version(Side::Outlook, row.version)),
                snapshot: Some(Box::new(self.snapshot(&record, row))),
                record,
            },
            _ => WriteResult::Applied { record, version: None, snapshot: None },
        }
    }
}

/// What a change event of Salesforce says about a change.
fn fact(before: Option<&Row>, after: &Row, ours: bool) -> ChangeFact {
    let old = before.map(|row| &row.fields);
    let changed = after.fields.iter().filter(|(name, value)| old.and_then(|old| old.get(*name)) != Some(*value));
    let values: Fields = changed.map(|(name, value)| (name.clone(), value.clone())).collect();
    ChangeFact {
        origin: String::new(),
        user: String::new(),
        transaction: after.version.to_string(),
        committed: after.modified,
        changed: values.keys().cloned().collect(),
        private: after.traits.private && !before.is_some_and(|row| row.traits.private),
        values,
        token: after.stamp.as_ref().filter(|_| ours && !after.deleted).and_then(|stamp| stamp.token),
    }
}

/// Fields of a new meeting.
pub(crate) fn new_meeting(side: Side) -> Fields {
    let time = Value::When(When::Timed {
        start: "2026-12-01T09:00:00Z".parse().unwrap(),
        end: "2026-12-01T10:00:00Z".parse().unwrap(),
        zone: None,
    });
    Fields::from([("time".to_owned(), time), (field_of(FIELDS[0], side).to_owned(), Value::text("s0"))])
}
