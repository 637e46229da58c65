//! Two made-up clouds: each holds records with versions, remembers old states, and applies writes late if told to.

use calbridge_core::ids::{LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::Intent;
use calbridge_core::observed::{Evidence, Observed, Snapshot, Stamp, Traits, Why};
use calbridge_core::side::Side;
use calbridge_core::signal::{ChangeFact, Version};
use calbridge_core::value::{Fields, Value, When};
use chrono::{DateTime, TimeDelta, Utc};

use crate::swarm::{Dice, Kind, Swarm};
use crate::tally::{Tally, Use};

pub(crate) const USERS: [&str; 2] = ["005000000000001AAA", "005000000000002AAA"];
/// The user as whom flows run, and calbridge's own; triggers within its transactions run as that one.
pub(crate) const AUTOMATION: [&str; 2] = ["005000000000008AAA", "005000000000009AAA"];
pub(crate) const MAILBOXES: [&str; 2] = ["mailbox-1", "mailbox-2"];

/// A rule's name and its field on each side; conversion between them changes nothing here.
pub(crate) const FIELDS: [(&str, &str, &str); 3] =
    [("subject", "subject", "Subject"), ("location", "location.displayName", "Location"), ("time", "time", "time")];

/// What a person writes into a meeting that is nobody else's business.
pub(crate) const SECRET: &str = "secret";

/// When every schedule begins: 2026-11-02 08:00 UTC.
const BEGINNING: i64 = 1_793_606_400;

/// When meetings take place at first: 2026-12-01 09:00 UTC.
const NINE: i64 = 1_796_115_600;

/// When they do so in schedules that see them end: an hour before the end, which is four minutes after the beginning.
const SOON: i64 = BEGINNING + 240 - 3_600;

/// A read may lag behind by less than this.
pub(crate) const LAG: TimeDelta = TimeDelta::seconds(5);

pub(crate) fn why() -> Why {
    Why { code: "CB0000".to_owned(), message: String::new(), retry_after_ms: None }
}

/// The name that a rule's field has on a side.
pub(crate) fn field_of(rule: usize, side: Side) -> &'static str {
    if side == Side::Outlook { FIELDS[rule].1 } else { FIELDS[rule].2 }
}

/// An hour's meeting, so many hours after nine.
pub(crate) fn hour(number: u64) -> Value {
    hour_from(NINE, number)
}

fn hour_from(first: i64, number: u64) -> Value {
    let start = DateTime::from_timestamp(first + i64::try_from(number).unwrap() * 3_600, 0).unwrap();
    Value::When(When::Timed { start, end: start + TimeDelta::hours(1), zone: None })
}

/// Who changed a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// A person.
    Person,
    /// A flow or a program: an edit as well, but nobody's.
    Automation,
    /// The remote itself: copies that follow their organiser, changes outside the mapping.
    Remote,
    Engine,
}

impl Author {
    /// Whom Salesforce names: one person does all that people do there.
    fn user(self) -> &'static str {
        match self {
            Self::Person => USERS[0],
            Self::Automation | Self::Remote => AUTOMATION[0],
            Self::Engine => AUTOMATION[1],
        }
    }

    fn edits(self) -> bool {
        matches!(self, Self::Person | Self::Automation)
    }
}

/// One state of a record.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) shown: Snapshot,
    pub(crate) deleted: bool,
    /// Rules (one bit each) whose value a person set, and that the other side never showed.
    pub(crate) unseen: u8,
    /// Rules (one bit each) whose present value a person set.
    pub(crate) by_person: u8,
    /// Rules (one bit each) whose last change no message tells of.
    pub(crate) untold: u8,
}

impl Row {
    /// Takes on values; nothing set is no value.
    pub(crate) fn take(&mut self, fields: &Fields) {
        self.shown.fields.extend(fields.clone());
        self.shown.fields.retain(|_, value| *value != Value::Null);
    }
}

/// A record, with all that reads may still show of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: RecordId,
    pub(crate) meeting: usize,
    pub(crate) rows: Vec<Row>,
}

impl Entry {
    pub(crate) fn now(&self) -> &Row {
        self.rows.last().expect("an entry begins with its first row")
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.now().deleted
    }
}

/// A message about a change, on its way.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) due: DateTime<Utc>,
    pub(crate) record: RecordId,
    pub(crate) meeting: usize,
    pub(crate) deleted: bool,
    /// The version it names; none for a sweep.
    pub(crate) version: Option<Version>,
    /// Place in the remote's stream, and what a change event of Salesforce says.
    pub(crate) fact: Option<(u64, ChangeFact)>,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: DateTime<Utc>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) meetings: Vec<Tally>,
    /// Messages on their way.
    pub(crate) signals: Vec<Message>,
    /// Writes that will apply after their sender gave up, and for which meeting.
    pub(crate) late: Vec<(DateTime<Utc>, usize, Intent)>,
    /// Flows of the remotes that will change a record.
    pub(crate) flows: Vec<(DateTime<Utc>, usize)>,
    pub(crate) faults: bool,
    pub(crate) swarm: Swarm,
    /// The first safety invariant that was broken.
    pub(crate) broken: Option<String>,
    /// Changes and deletions of organisers' copies by the engine, of which Exchange mails the attendees.
    pub(crate) mails: Vec<Use>,
    /// Deletions by the engine, but for what became private.
    pub(crate) deletions: Vec<Use>,
    /// Sums up all that happened, to compare two runs of a schedule; none where states are compared, not histories.
    pub(crate) digest: Option<u64>,
    /// Tokens of creations that Outlook remembers, as its `transactionId` does.
    pub(crate) created_by: Vec<(WriteToken, RecordId)>,
    /// Tokens of changes that took effect.
    pub(crate) changed_by: Vec<WriteToken>,
    /// What is applied now arrives late.
    pub(crate) is_late: bool,
    /// When the database was copied, and when the copy took its place.
    pub(crate) backed_up_at: Option<DateTime<Utc>>,
    pub(crate) restored_at: Option<DateTime<Utc>>,
    next_number: u64,
    pub(crate) automated: u32,
    /// When the latest change event of Salesforce is delivered.
    stream_at: DateTime<Utc>,
}

impl World {
    pub(crate) fn new(swarm: Swarm) -> Self {
        let meetings = swarm.kinds.iter().map(|kind| Tally::new(*kind));
        Self {
            now: DateTime::from_timestamp(BEGINNING, 0).unwrap(),
            entries: Vec::new(),
            meetings: meetings.collect(),
            signals: Vec::new(),
            late: Vec::new(),
            flows: Vec::new(),
            faults: true,
            swarm,
            broken: None,
            mails: Vec::new(),
            deletions: Vec::new(),
            digest: Some(0),
            created_by: Vec::new(),
            changed_by: Vec::new(),
            is_late: false,
            backed_up_at: None,
            restored_at: None,
            next_number: 1,
            automated: 0,
            stream_at: DateTime::UNIX_EPOCH,
        }
    }

    /// Tells whether a fault of this rate strikes now.
    pub(crate) fn strikes(&self, dice: &mut Dice, percent: u64) -> bool {
        self.faults && dice.chance(percent)
    }

    /// Takes note that an invariant was broken; the first one counts.
    pub(crate) fn breaks(&mut self, violation: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(violation());
        }
    }

    /// Adds something that happened to the digest of the schedule (FNV-1a on words, with the time).
    pub(crate) fn mark(&mut self, what: u64) {
        let Some(digest) = &mut self.digest else { return };
        for word in [self.now.timestamp_millis().unsigned_abs(), what] {
            *digest = (*digest ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(29);
        }
    }

    /// Writes all that makes one state of a world differ from another of the same mix.
    pub(crate) fn tell(&self, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        let Self { now, entries, meetings, signals, late, flows, faults, broken, created_by, changed_by, .. } = self;
        write!(to, "{}{entries:?}{meetings:?}{signals:?}{late:?}", now.timestamp_millis())?;
        write!(to, "{flows:?}{faults}{broken:?}{created_by:?}{changed_by:?}")?;
        write!(to, "{:?}{:?}", self.mails, self.deletions)?;
        write!(to, "{} {} {}", self.next_number, self.automated, self.stream_at.timestamp_millis())
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// The version of a change; Salesforce's are in order.
    fn version(side: Side, number: u64) -> Version {
        match side {
            Side::Outlook => Version::ChangeKey(number.to_string()),
            Side::Salesforce => {
                Version::Modstamp(DateTime::from_timestamp(1_700_000_000 + i64::try_from(number).unwrap(), 0).unwrap())
            }
        }
    }

    fn new_id(&mut self, side: Side, mailbox: &str) -> RecordId {
        let number = self.number();
        match side {
            Side::Outlook => RecordId::Outlook { mailbox: MailboxId::new(mailbox), event: format!("e{number}") },
            Side::Salesforce => RecordId::Salesforce(SalesforceId::parse(&format!("00U{number:012}")).unwrap()),
        }
    }

    pub(crate) fn find(&self, record: &RecordId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == *record)
    }

    /// Records of a meeting that are there, called off or not.
    pub(crate) fn alive(&self, meeting: usize, side: Side) -> impl Iterator<Item = (usize, &Entry)> {
        let of_side = move |entry: &&Entry| entry.meeting == meeting && entry.id.side() == side && entry.is_alive();
        self.entries.iter().enumerate().filter(move |(_, entry)| of_side(entry))
    }

    /// Makes a record of a meeting.
    pub(crate) fn make(
        &mut self,
        dice: &mut Dice,
        author: Author,
        (meeting, side, home): (usize, Side, &str),
        organizer: bool,
        change: impl FnOnce(&mut Row),
    ) -> usize {
        let id = self.new_id(side, if side == Side::Outlook { home } else { "" });
        let attended = self.meetings[meeting].kind != Kind::Plain && side == Side::Outlook;
        let uid = if attended { format!("m{meeting}") } else { id.remote_id().to_owned() };
        let traits = Traits {
            ical_uid: (side == Side::Outlook).then_some(uid),
            is_organizer: organizer,
            attendees: u32::from(attended),
            owner: (side == Side::Salesforce).then(|| home.to_owned()),
            ..Traits::default()
        };
        self.now += TimeDelta::milliseconds(1);
        let shown = Snapshot {
            record: id.clone(),
            version: Self::version(side, 0),
            read_at: self.now,
            created: self.now,
            modified: self.now,
            modified_by: None,
            stamp: None,
            traits,
            fields: Fields::new(),
        };
        let mut row = Row { shown, deleted: false, unseen: 0, by_person: 0, untold: 0 };
        change(&mut row);
        self.entries.push(Entry { id, meeting, rows: Vec::new() });
        self.append(dice, author, self.entries.len() - 1, row);
        self.entries.len() - 1
    }

    /// Changes a record and sends its signals; each may come twice, late, or not at all.
    ///
    /// Tells whether there will be such a signal.
    pub(crate) fn put(&mut self, dice: &mut Dice, author: Author, index: usize, change: impl FnOnce(&mut Row)) -> bool {
        // Two changes of one record never carry the same modification time; that it is this fine is a stated limit.
        self.now += TimeDelta::milliseconds(1);
        let mut row = self.entries[index].now().clone();
        change(&mut row);
        self.append(dice, author, index, row)
    }

    fn append(&mut self, dice: &mut Dice, author: Author, index: usize, mut row: Row) -> bool {
        let number = self.number();
        self.mark(number << 8 | index as u64);
        let Entry { id, meeting, rows } = &self.entries[index];
        let (side, meeting, record) = (id.side(), *meeting, id.clone());
        row.shown.version = Self::version(side, number);
        row.shown.modified = self.now;
        row.shown.modified_by = (side == Side::Salesforce).then(|| author.user().to_owned());
        let before = rows.last();
        let mut changed = 0_u8;
        for rule in 0..FIELDS.len() {
            let (name, bit) = (field_of(rule, side), 1 << rule);
            let value = row.shown.fields.get(name);
            if before.and_then(|before| before.shown.fields.get(name)) != value {
                changed |= bit;
            }
        }
        let by_person = if author.edits() { changed } else { 0 };
        row.unseen = row.unseen & !changed | by_person;
        row.by_person = row.by_person & !changed | by_person;
        let (deleted, version) = (row.deleted, row.shown.version.clone());
        let mut fact = None;
        if side == Side::Salesforce {
            let private = row.shown.traits.private && !before.is_some_and(|row| row.shown.traits.private);
            fact = Some((number, fact_of(&row, changed, author, private)));
        }
        let rates = self.swarm.rates;
        let lost = self.strikes(dice, rates.lost_signals);
        row.untold = row.untold & !changed | if lost { changed } else { 0 };
        if side == Side::Salesforce {
            let before = self.entries[index].rows.last();
            self.meetings[meeting].note_change(author, (before, &row), changed, !lost);
        }
        let oldest = self.now - LAG;
        let rows = &mut self.entries[index].rows;
        rows.push(row);
        // What no read can show any more is forgotten.
        while rows.len() > 1 && rows[1].shown.modified <= oldest {
            rows.remove(0);
        }
        self.show(meeting);
        if lost {
            return false;
        }
        let copies = 1 + u64::from(dice.chance(rates.repeated_signals));
        let mut due = self.now;
        for copy in 0..copies {
            due += dice.millis(4_000);
            // Salesforce's stream keeps its order; a repetition comes after the first delivery.
            if side == Side::Salesforce && copy == 0 {
                due = due.max(self.stream_at);
                self.stream_at = due;
            }
            let (record, version, fact) = (record.clone(), Some(version.clone()), fact.clone());
            self.signals.push(Message { due, record, meeting, deleted, version, fact });
        }
        true
    }

    /// Takes note of values that both sides hold now: people of both have seen them.
    fn show(&mut self, meeting: usize) {
        for side in Side::BOTH {
            for index in 0..self.entries.len() {
                let entry = &self.entries[index];
                if entry.meeting != meeting || entry.id.side() != side || entry.now().unseen == 0 || !entry.is_alive() {
                    continue;
                }
                let before = entry.now().unseen;
                let mut unseen = before;
                for rule in (0..FIELDS.len()).filter(|rule| before & 1 << rule != 0) {
                    let ours = entry.now().shown.fields.get(field_of(rule, side));
                    let name = field_of(rule, side.other());
                    let mut others = self.alive(meeting, side.other());
                    if others.any(|(_, other)| other.now().shown.fields.get(name) == ours) {
                        unseen &= !(1 << rule);
                    }
                }
                self.entries[index].rows.last_mut().expect("it is there").unseen = unseen;
            }
        }
    }

    /// Reads a record; under faults the answer may be an older state, "not found", or none.
    pub(crate) fn read(&self, dice: &mut Dice, record: &RecordId) -> Observed {
        let rates = &self.swarm.rates;
        if self.strikes(dice, rates.failed_reads) {
            return Observed::Unread(why());
        }
        let Some(entry) = self.find(record).map(|index| &self.entries[index]) else {
            return Observed::Absent(Evidence::NotFound);
        };
        // A lagging replica lags by seconds, not for ever; one that has not heard of a new record says "not found".
        let is_new = self.now - entry.now().shown.created < LAG;
        if is_new && self.strikes(dice, rates.misses) {
            return Observed::Absent(Evidence::NotFound);
        }
        let lag = if self.strikes(dice, rates.stale_reads) {
            dice.millis(LAG.num_milliseconds().unsigned_abs())
        } else {
            TimeDelta::zero()
        };
        let shown_at = self.now - lag;
        let Some(row) = entry.rows.iter().rfind(|row| row.shown.modified <= shown_at) else {
            return Observed::Absent(Evidence::NotFound);
        };
        match (row.deleted, record.side()) {
            (true, Side::Salesforce) => Observed::Absent(Evidence::Deleted),
            (true, Side::Outlook) => Observed::Absent(Evidence::NotFound),
            (false, _) => Observed::Present(self.snapshot(row)),
        }
    }

    pub(crate) fn snapshot(&self, row: &Row) -> Box<Snapshot> {
        let mut shown = Box::new(row.shown.clone());
        shown.read_at = self.now;
        shown
    }

    /// Searches by the link that a stamp names.
    pub(crate) fn stamped(&self, dice: &mut Dice, side: Side, link: LinkId) -> Vec<(RecordId, Observed)> {
        self.search(dice, side, |stamp| stamp.link == link)
    }

    /// Searches by the partner that a stamp names.
    pub(crate) fn partners(&self, dice: &mut Dice, side: Side, of: &RecordId) -> Vec<(RecordId, Observed)> {
        self.search(dice, side, |stamp| stamp.partner == of.remote_id())
    }

    /// Searches by stamp; under faults the index may not know a new record yet.
    fn search(&self, dice: &mut Dice, side: Side, fits: impl Fn(&Stamp) -> bool) -> Vec<(RecordId, Observed)> {
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.id.side() == side) {
            let row = entry.now();
            if !row.shown.stamp.as_ref().is_some_and(&fits) {
                continue;
            }
            let is_new = self.now - row.shown.created < LAG;
            if is_new && self.strikes(dice, self.swarm.rates.stale_reads) {
                continue;
            }
            match (row.deleted, side) {
                // Outlook's search shows no deleted events.
                (true, Side::Outlook) => {}
                (true, Side::Salesforce) => found.push((entry.id.clone(), Observed::Absent(Evidence::Deleted))),
                (false, _) => found.push((entry.id.clone(), Observed::Present(self.snapshot(row)))),
            }
        }
        found
    }

    /// An hour's meeting in this schedule.
    pub(crate) fn hour(&self, number: u64) -> Value {
        hour_from(if self.swarm.soon { SOON } else { NINE }, number)
    }
}

/// What a change event of Salesforce says about a change.
fn fact_of(after: &Row, changed: u8, author: Author, private: bool) -> ChangeFact {
    let names = (0..FIELDS.len()).filter(|rule| changed & 1 << rule != 0).map(|rule| field_of(rule, Side::Salesforce));
    let values: Fields =
        names.filter_map(|name| Some((name.to_owned(), after.shown.fields.get(name)?.clone()))).collect();
    let ours = author == Author::Engine && !after.deleted;
    ChangeFact {
        user: author.user().to_owned(),
        committed: after.shown.modified,
        changed: values.keys().cloned().collect(),
        private,
        values,
        token: after.shown.stamp.as_ref().filter(|_| ours).and_then(|stamp: &Stamp| stamp.token),
        ..ChangeFact::default()
    }
}
