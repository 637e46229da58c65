//! Two made-up clouds: each holds records with versions, remembers old states, and applies writes late if told to.

use std::collections::BTreeMap;

use calbridge_core::ids::{MailboxId, RecordId, SalesforceId};
use calbridge_core::link::{Action, Intent};
use calbridge_core::observed::{Evidence, Observed, Snapshot, Stamp, Traits};
use calbridge_core::side::{BothSides, Side};
use calbridge_core::signal::Version;
use calbridge_core::value::{Fields, Value, When};
use calbridge_core::written::WriteResult;
use chrono::{DateTime, TimeDelta, Utc};

pub(crate) const MAILBOX: &str = "mailbox-1";
pub(crate) const USER: &str = "005000000000001AAA";
pub(crate) const UID: &str = "uid-1";

/// A small generator of our own, so that a seed means the same on every machine and version.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*: https://www.jstatsoft.org/article/view/v008i14
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) fields: Fields,
    pub(crate) version: u64,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) deleted: bool,
    pub(crate) created: DateTime<Utc>,
    pub(crate) modified: DateTime<Utc>,
}

/// Who changed what, for the judgement at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    Person,
    Engine,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) person_edits: BothSides<u32>,
    pub(crate) engine_writes: BothSides<u32>,
    pub(crate) engine_creates: BothSides<u32>,
    pub(crate) person_deletes: BothSides<u32>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: DateTime<Utc>,
    pub(crate) rows: BTreeMap<RecordId, Vec<Row>>,
    pub(crate) tally: Tally,
    /// Signals on their way: due time, record, deleted, version.
    pub(crate) signals: Vec<(DateTime<Utc>, RecordId, bool, Version)>,
    /// Writes that will apply after their sender gave up.
    pub(crate) late: Vec<(DateTime<Utc>, Intent)>,
    next_version: u64,
    next_id: u64,
    pub(crate) faults: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: "2026-11-02T08:00:00Z".parse().unwrap(),
            rows: BTreeMap::new(),
            tally: Tally::default(),
            signals: Vec::new(),
            late: Vec::new(),
            next_version: 1,
            next_id: 1,
            faults: true,
        }
    }

    /// A version that every instant passed in the simulation keeps in order for Salesforce.
    fn version(&self, side: Side, number: u64) -> Version {
        match side {
            Side::Outlook => Version::ChangeKey(format!("key-{number}")),
            Side::Salesforce => Version::Modstamp(
                DateTime::from_timestamp_millis(1_700_000_000_000 + i64::try_from(number).unwrap() * 1_000).unwrap(),
            ),
        }
    }

    pub(crate) fn new_id(&mut self, side: Side) -> RecordId {
        let number = self.next_id;
        self.next_id += 1;
        match side {
            Side::Outlook => RecordId::Outlook { mailbox: MailboxId::new(MAILBOX), event: format!("event-{number}") },
            Side::Salesforce => RecordId::Salesforce(SalesforceId::parse(&format!("00U{number:012}")).unwrap()),
        }
    }

    pub(crate) fn current(&self, record: &RecordId) -> Option<&Row> {
        self.rows.get(record).and_then(|history| history.last())
    }

    pub(crate) fn alive(&self, side: Side) -> Vec<RecordId> {
        let alive = self.rows.iter().filter(|(id, rows)| id.side() == side && rows.last().is_some_and(|r| !r.deleted));
        alive.map(|(id, _)| id.clone()).collect()
    }

    /// Changes a record and sends its signals; each may come twice, late, or not at all.
    pub(crate) fn put(&mut self, dice: &mut Dice, author: Author, record: &RecordId, change: impl FnOnce(&mut Row)) {
        // Two changes of one record never carry the same modification time; that it is this fine is a stated limit.
        self.now += TimeDelta::milliseconds(1);
        let side = record.side();
        let number = self.next_version;
        self.next_version += 1;
        let mut row = self.current(record).cloned().unwrap_or_else(|| Row {
            fields: Fields::new(),
            version: 0,
            stamp: None,
            deleted: false,
            created: self.now,
            modified: self.now,
        });
        change(&mut row);
        row.version = number;
        row.modified = self.now;
        let counter = match (author, row.deleted) {
            (Author::Engine, _) => self.tally.engine_writes.get_mut(side),
            (Author::Person, true) => self.tally.person_deletes.get_mut(side),
            (Author::Person, false) => self.tally.person_edits.get_mut(side),
        };
        *counter += 1;
        let (deleted, version) = (row.deleted, self.version(side, number));
        self.rows.entry(record.clone()).or_default().push(row);
        let copies = if self.faults && dice.chance(10) { 0 } else { 1 + dice.below(2) };
        for _ in 0..copies {
            let delay = TimeDelta::milliseconds(i64::try_from(dice.below(4_000)).unwrap());
            self.signals.push((self.now + delay, record.clone(), deleted, version.clone()));
        }
    }

    /// Reads a record; under faults the answer may be an older state.
    pub(crate) fn read(&self, dice: &mut Dice, record: &RecordId) -> Observed {
        let Some(history) = self.rows.get(record) else {
            return Observed::Absent(Evidence::NotFound);
        };
        // A lagging replica lags by seconds, not for ever; one that has not heard of the record says "not found".
        let recent = history.last().is_some_and(|last| self.now - last.modified < TimeDelta::seconds(5));
        let back = usize::from(self.faults && recent && dice.chance(8));
        let Some(index) = history.len().checked_sub(1 + back) else { return Observed::Absent(Evidence::NotFound) };
        let row = &history[index];
        match (row.deleted, record.side()) {
            (true, Side::Salesforce) => Observed::Absent(Evidence::Deleted),
            (true, Side::Outlook) => Observed::Absent(Evidence::NotFound),
            (false, side) => Observed::Present(Box::new(self.snapshot(record, row, side))),
        }
    }

    fn snapshot(&self, record: &RecordId, row: &Row, side: Side) -> Snapshot {
        Snapshot {
            record: record.clone(),
            version: self.version(side, row.version),
            read_at: self.now,
            created: row.created,
            modified: row.modified,
            modified_by: None,
            stamp: row.stamp.clone(),
            traits: Traits {
                ical_uid: (side == Side::Outlook).then(|| format!("{UID}-{}", record.remote_id())),
                is_organizer: true,
                owner: (side == Side::Salesforce).then(|| USER.to_owned()),
                ..Traits::default()
            },
            fields: row.fields.clone(),
        }
    }

    pub(crate) fn stamped(&self, side: Side, link: calbridge_core::ids::LinkId) -> Vec<(RecordId, Observed)> {
        let carries =
            |rows: &Vec<Row>| rows.last().is_some_and(|row| row.stamp.as_ref().is_some_and(|s| s.link == link));
        let mut found = Vec::new();
        for (record, rows) in self.rows.iter().filter(|(id, rows)| id.side() == side && carries(rows)) {
            let row = rows.last().unwrap();
            match (row.deleted, side) {
                // Outlook's search shows no deleted events.
                (true, Side::Outlook) => {}
                (true, Side::Salesforce) => found.push((record.clone(), Observed::Absent(Evidence::Deleted))),
                (false, _) => {
                    found.push((record.clone(), Observed::Present(Box::new(self.snapshot(record, row, side)))))
                }
            }
        }
        found
    }

    /// Applies a write now; the remote's own rules decide.
    pub(crate) fn apply(&mut self, dice: &mut Dice, intent: &Intent) -> WriteResult {
        let why = || calbridge_core::observed::Why {
            code: "CB0000".to_owned(),
            message: String::new(),
            retry_after_ms: None,
        };
        match &intent.action {
            Action::Create(_) => {
                let stamped = self.rows.iter().find(|(id, rows)| {
                    let carries = |row: &Row| row.stamp.as_ref().is_some_and(|stamp| stamp.link == intent.link);
                    id.side() == intent.side && rows.last().is_some_and(carries)
                });
                match stamped.map(|(record, _)| record.clone()) {
                    // The transaction id makes Outlook answer a repeat with the first event, deleted or not.
                    Some(record) if intent.side == Side::Outlook => {
                        return WriteResult::Applied { record, version: None, snapshot: None };
                    }
                    Some(record) if self.current(&record).is_some_and(|row| !row.deleted) => {
                        return WriteResult::AlreadyExists(why());
                    }
                    _ => {}
                }
                let record = self.new_id(intent.side);
                *self.tally.engine_creates.get_mut(intent.side) += 1;
                self.put(dice, Author::Engine, &record, |row| {
                    row.fields = intent.fields.clone();
                    row.stamp = Some(intent.stamp.clone());
                });
                self.applied(record)
            }
            Action::Update(record) | Action::Delete(record) => {
                let Some(row) = self.current(record).filter(|row| !row.deleted) else {
                    return WriteResult::Gone(why());
                };
                let version = self.version(intent.side, row.version);
                if intent.side == Side::Outlook && intent.expected.as_ref() != Some(&version) {
                    return WriteResult::Conflict(why());
                }
                let deletes = matches!(intent.action, Action::Delete(_));
                self.put(dice, Author::Engine, record, |row| {
                    row.fields.extend(intent.fields.clone());
                    row.stamp = Some(intent.stamp.clone());
                    row.deleted = deletes;
                });
                self.applied(record.clone())
            }
        }
    }

    fn applied(&self, record: RecordId) -> WriteResult {
        let side = record.side();
        let row = self.current(&record).unwrap();
        match side {
            Side::Outlook if !row.deleted => WriteResult::Applied {
                version: Some(self.version(side, row.version)),
                snapshot: Some(Box::new(self.snapshot(&record, row, side))),
                record,
            },
            _ => WriteResult::Applied { record, version: None, snapshot: None },
        }
    }
}

/// Fields of a new meeting.
pub(crate) fn meeting(side: Side, subject: u64) -> Fields {
    let time = Value::When(When::Timed {
        start: "2026-12-01T09:00:00Z".parse().unwrap(),
        end: "2026-12-01T10:00:00Z".parse().unwrap(),
        zone: None,
    });
    let subject_field = if side == Side::Outlook { "subject" } else { "Subject" };
    Fields::from([("time".to_owned(), time), (subject_field.to_owned(), Value::text(format!("s{subject}")))])
}
