//! Two made-up clouds: each holds records with versions, remembers old states, and applies writes late if told to.

use calbridge_core::ids::{LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::observed::{Evidence, Observed, Snapshot, Stamp, Traits, Why};
use calbridge_core::policy::{DeleteConflict, MailPolicy};
use calbridge_core::reason::Reason;
use calbridge_core::side::{BothSides, Side};
use calbridge_core::signal::{ChangeFact, Version};
use calbridge_core::value::{Fields, Value, When};
use calbridge_core::written::WriteResult;
use chrono::{DateTime, TimeDelta, Utc};

use crate::swarm::{Dice, Kind, Preconditions, Swarm};

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
const LAG: TimeDelta = TimeDelta::seconds(5);

/// How long a mail waits for quiet after an earlier one, and a deletion that mails always.
const MAIL_QUIET: TimeDelta = TimeDelta::seconds(60);

/// How long a deletion waits in case it is one of many.
const DELETE_WAIT: TimeDelta = TimeDelta::seconds(10);

/// Automation acts at most this often in a schedule; what never stops is the business of the oscillation breaker.
const MOST_AUTOMATION: u32 = 3;

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
}

impl Row {
    /// Takes on values; nothing set is no value.
    fn take(&mut self, fields: &Fields) {
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

/// Who changed what about one meeting, for the judgement.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) kind: Kind,
    pub(crate) edits: BothSides<u32>,
    pub(crate) deletes: BothSides<u32>,
    pub(crate) flips: BothSides<u32>,
    pub(crate) writes: BothSides<u32>,
    pub(crate) creates: BothSides<u32>,
    /// Rule and value of what a write of the engine replaced or deleted before the other side ever showed it.
    pub(crate) replaced: Vec<(usize, Value)>,
    /// The same, where a person wrote between the engine's read and its write, and no change event tells of it.
    pub(crate) overwritten_unseen: u32,
    /// A late request took effect although it had been repeated or given up, because Outlook ignored its precondition.
    pub(crate) unrefused: u32,
    /// A creation was repeated after a person had deleted what the first one made, unseen, and Outlook had forgotten it.
    pub(crate) recreated: u32,
    /// A write was refused for good.
    pub(crate) refused: bool,
    /// What people did in Salesforce that Exchange may mail about.
    pub(crate) causes: Vec<Cause>,
    /// Edits that no person made; they are among the edits as well.
    pub(crate) automated: u32,
    /// Holds that a person approved, and that no write has used.
    pub(crate) approvals: u32,
    /// Holds that a person discarded.
    pub(crate) discards: u32,
    /// How often a person brought the meeting back, and how many deletions that undid.
    pub(crate) restored: u32,
    pub(crate) undone: u32,
    /// When the first record of a side was deleted or called off by somebody else than the engine.
    pub(crate) gone_at: BothSides<Option<DateTime<Utc>>>,
}

/// Something that a person did in Salesforce; explains one mail.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    /// Rules, one bit each; all of them for a deletion.
    rules: u8,
    deletes: bool,
    used: bool,
    at: DateTime<Utc>,
}

/// A write that is limited.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) meeting: usize,
    /// When it was recorded.
    pub(crate) at: DateTime<Utc>,
    /// A person had approved it.
    pub(crate) approved: bool,
}

impl Tally {
    /// How many records may be made for the meeting.
    pub(crate) fn generations(&self, conflict: DeleteConflict) -> u32 {
        let deletes = self.deletes.outlook + self.deletes.salesforce;
        1 + self.restored + if conflict == DeleteConflict::EditWins { deletes } else { 0 }
    }

    /// Takes note that a person wants the meeting back.
    pub(crate) fn lives_again(&mut self) {
        self.restored += 1;
        self.undone = self.deletes.outlook + self.deletes.salesforce;
        self.gone_at = BothSides::default();
    }
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
    created_by: Vec<(WriteToken, RecordId)>,
    /// Tokens of changes that took effect.
    changed_by: Vec<WriteToken>,
    /// What is applied now arrives late.
    is_late: bool,
    next_number: u64,
    automated: u32,
    /// When the latest change event of Salesforce is delivered.
    stream_at: DateTime<Utc>,
}

impl World {
    pub(crate) fn new(swarm: Swarm) -> Self {
        let meetings = swarm.kinds.iter().map(|kind| Tally {
            kind: *kind,
            edits: BothSides::default(),
            deletes: BothSides::default(),
            flips: BothSides::default(),
            writes: BothSides::default(),
            creates: BothSides::default(),
            replaced: Vec::new(),
            overwritten_unseen: 0,
            unrefused: 0,
            recreated: 0,
            refused: false,
            causes: Vec::new(),
            automated: 0,
            approvals: 0,
            discards: 0,
            restored: 0,
            undone: 0,
            gone_at: BothSides::default(),
        });
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

    fn number(&mut self) -> u64 {
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
        let mut row = Row { shown, deleted: false, unseen: 0, by_person: 0 };
        change(&mut row);
        self.entries.push(Entry { id, meeting, rows: Vec::new() });
        self.append(dice, author, self.entries.len() - 1, row);
        self.entries.len() - 1
    }

    /// Changes a record and sends its signals; each may come twice, late, or not at all.
    pub(crate) fn put(&mut self, dice: &mut Dice, author: Author, index: usize, change: impl FnOnce(&mut Row)) {
        // Two changes of one record never carry the same modification time; that it is this fine is a stated limit.
        self.now += TimeDelta::milliseconds(1);
        let mut row = self.entries[index].now().clone();
        change(&mut row);
        self.append(dice, author, index, row);
    }

    fn append(&mut self, dice: &mut Dice, author: Author, index: usize, mut row: Row) {
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
        let oldest = self.now - LAG;
        let rows = &mut self.entries[index].rows;
        rows.push(row);
        // What no read can show any more is forgotten.
        while rows.len() > 1 && rows[1].shown.modified <= oldest {
            rows.remove(0);
        }
        self.show(meeting);
        let rates = self.swarm.rates;
        if self.strikes(dice, rates.lost_signals) {
            return;
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

    fn snapshot(&self, row: &Row) -> Box<Snapshot> {
        let mut shown = Box::new(row.shown.clone());
        shown.read_at = self.now;
        shown
    }

    /// Searches by stamp; under faults the index may not know a new record yet.
    pub(crate) fn stamped(&self, dice: &mut Dice, side: Side, link: LinkId) -> Vec<(RecordId, Observed)> {
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.id.side() == side) {
            let row = entry.now();
            if row.shown.stamp.as_ref().is_none_or(|stamp| stamp.link != link) {
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

    /// Applies a write after its sender gave up.
    pub(crate) fn apply_late(&mut self, dice: &mut Dice, meeting: usize, intent: &Intent) -> WriteResult {
        self.is_late = true;
        let result = self.apply(dice, meeting, intent);
        self.is_late = false;
        result
    }

    /// Applies a write of the engine for a meeting now; the remote's own rules decide.
    pub(crate) fn apply(&mut self, dice: &mut Dice, meeting: usize, intent: &Intent) -> WriteResult {
        if intent.fields.values().any(|value| value.as_text() == Some(SECRET)) {
            self.breaks(|| "S5: a private value was written to the other side".to_owned());
        }
        if intent.fields.values().any(|value| value.as_when().is_some_and(|when| !when.is_mappable())) {
            self.breaks(|| "S6: a meeting was written that ends before it begins".to_owned());
        }
        match &intent.action {
            Action::Create(home) => self.create(dice, meeting, intent, home),
            Action::Update(record) | Action::Delete(record) => match self.find(record) {
                Some(index) if self.entries[index].is_alive() => self.change(dice, index, intent),
                _ => WriteResult::Gone(why()),
            },
        }
    }

    fn change(&mut self, dice: &mut Dice, index: usize, intent: &Intent) -> WriteResult {
        let Entry { meeting, rows, .. } = &self.entries[index];
        let (meeting, row) = (*meeting, rows.last().expect("it is there"));
        let deletes = matches!(intent.action, Action::Delete(_));
        let underneath = intent.expected.as_ref() != Some(&row.shown.version);
        if underneath && intent.side == Side::Outlook && self.swarm.preconditions == Preconditions::Honoured {
            return WriteResult::Conflict(why());
        }
        let mut lost = Vec::new();
        for rule in (0..FIELDS.len()).filter(|rule| row.unseen & 1 << rule != 0) {
            let name = field_of(rule, intent.side);
            let Some(value) = row.shown.fields.get(name) else { continue };
            if deletes || intent.fields.get(name).is_some_and(|new| new != value) {
                lost.push((rule, value.clone()));
            }
        }
        let organised = row.shown.traits.is_organizer && row.shown.traits.attendees > 0;
        let mails = intent.side == Side::Outlook && organised;
        let over = row
            .shown
            .fields
            .get("time")
            .and_then(Value::as_when)
            .is_some_and(|when| when.over_at() < intent.recorded_at);
        let tally = &mut self.meetings[meeting];
        // An edit that no read and no message showed can be told by nobody.
        let told = intent.side == Side::Salesforce && self.swarm.rates.lost_signals == 0 && !self.swarm.backup;
        if underneath && !told {
            tally.overwritten_unseen += u32::from(!lost.is_empty());
        } else {
            tally.replaced.extend(lost);
        }
        let again = self.changed_by.contains(&intent.token) || underneath && self.is_late;
        if again && self.is_unguarded(intent.side) {
            // To everybody who looks, it is an edit of that side.
            let tally = &mut self.meetings[meeting];
            tally.unrefused += 1;
            *tally.edits.get_mut(intent.side) += 1;
        } else {
            self.changed_by.push(intent.token);
            self.count_write(meeting, intent.side);
            self.ask_about(meeting, intent, mails, over && !underneath);
        }
        let trigger = self.automates(dice, intent.side == Side::Salesforce && !deletes, self.swarm.rates.triggers);
        self.put(dice, Author::Engine, index, |row| {
            row.take(&intent.fields);
            // A deletion has no place for a stamp.
            if !deletes {
                row.shown.stamp = Some(intent.stamp.clone());
            }
            row.deleted = deletes;
        });
        if mails {
            self.copies_follow(dice, meeting, index, intent);
        }
        if trigger {
            self.trigger(meeting, index);
        }
        if !deletes {
            self.flow_later(dice, index);
        }
        self.applied(index)
    }

    /// Lets attendees' copies show what became of the organiser's.
    fn copies_follow(&mut self, dice: &mut Dice, meeting: usize, organizer: usize, intent: &Intent) {
        let copies: Vec<usize> = self.alive(meeting, Side::Outlook).map(|(index, _)| index).collect();
        for copy in copies.into_iter().filter(|copy| *copy != organizer) {
            self.put(dice, Author::Remote, copy, |row| {
                row.take(&intent.fields);
                row.shown.traits.cancelled |= matches!(intent.action, Action::Delete(_));
            });
        }
    }

    /// Asks of a write that took effect whether it might leave: who caused it, and how long it waited.
    fn ask_about(&mut self, meeting: usize, intent: &Intent, mails: bool, over: bool) {
        let deletes = matches!(intent.action, Action::Delete(_)) && intent.reason != Reason::BecamePrivate;
        if !mails && !deletes {
            return;
        }
        let (at, policy) = (intent.recorded_at, self.swarm.mail);
        // Without its event, an edit is known by the name in the row alone, whatever it changed.
        let any_edit = deletes || self.swarm.rates.lost_signals > 0;
        let tally = &mut self.meetings[meeting];
        let approved = tally.approvals > 0;
        tally.approvals -= u32::from(approved);
        let gone_at = *tally.gone_at.get(intent.side.other());
        let mut broken = None;
        if mails {
            let written = (0..FIELDS.len()).filter(|rule| intent.fields.contains_key(field_of(*rule, intent.side)));
            let written = written.fold(0, |bits, rule| bits | 1 << rule);
            let explains = |cause: &&mut Cause| {
                !cause.used && cause.at <= at && cause.deletes == deletes && (any_edit || cause.rules & written != 0)
            };
            let cause = tally.causes.iter_mut().rev().find(explains);
            let by_person = policy == MailPolicy::PersonEdits && !approved;
            if policy == MailPolicy::Never {
                broken = Some("M1: a mail although the policy is `never`");
            } else if over {
                broken = Some("M2: a mail about a meeting that is over");
            } else if by_person && cause.is_none() {
                broken = Some("M3: a mail that no person's edit caused");
            }
            if let Some(cause) = cause.filter(|_| by_person) {
                cause.used = true;
            }
            let close = |mail: &Use| mail.meeting == meeting && (at - mail.at).abs() < MAIL_QUIET;
            if !approved && !deletes && self.mails.iter().any(close) {
                broken = broken.or(Some("M4: two mails about one meeting within a minute"));
            }
            self.mails.push(Use { meeting, at, approved });
        }
        if deletes {
            let wait = if mails { MAIL_QUIET } else { DELETE_WAIT };
            if !approved && gone_at.is_some_and(|gone_at| at - gone_at < wait) {
                broken = broken.or(Some("S10: a deletion left without waiting"));
            }
            self.deletions.push(Use { meeting, at, approved });
        }
        if let Some(broken) = broken {
            self.breaks(|| broken.to_owned());
        }
    }

    /// Takes note that a person or automation edits a record.
    pub(crate) fn count_edit(&mut self, author: Author, meeting: usize, side: Side, rules: u8) {
        let now = self.now;
        let tally = &mut self.meetings[meeting];
        *tally.edits.get_mut(side) += 1;
        tally.automated += u32::from(author == Author::Automation);
        if side == Side::Salesforce && author == Author::Person {
            tally.causes.push(Cause { rules, deletes: false, used: false, at: now });
        }
    }

    /// Takes note that somebody deletes or calls off what is there of a meeting on a side.
    pub(crate) fn count_delete(&mut self, author: Author, meeting: usize, side: Side) {
        let now = self.now;
        let tally = &mut self.meetings[meeting];
        *tally.deletes.get_mut(side) += 1;
        tally.automated += u32::from(author == Author::Automation);
        tally.gone_at.get_mut(side).get_or_insert(now);
        if side == Side::Salesforce && author == Author::Person {
            tally.causes.push(Cause { rules: u8::MAX, deletes: true, used: false, at: now });
        }
    }

    /// An hour's meeting in this schedule.
    pub(crate) fn hour(&self, number: u64) -> Value {
        hour_from(if self.swarm.soon { SOON } else { NINE }, number)
    }

    fn create(&mut self, dice: &mut Dice, meeting: usize, intent: &Intent, home: &Home) -> WriteResult {
        let (side, home) = match home {
            Home::Mailbox(mailbox) => {
                // The transaction id makes Outlook answer a repeat with the first event, deleted or not.
                let known = self.created_by.iter().find(|(token, _)| *token == intent.token);
                if let Some((_, record)) = known.filter(|_| self.swarm.remembers_transactions) {
                    return WriteResult::Applied { record: record.clone(), version: None, snapshot: None };
                }
                (Side::Outlook, mailbox.as_str())
            }
            Home::Owner(owner) => {
                let carries = |row: &Row| row.shown.stamp.as_ref().is_some_and(|stamp| stamp.link == intent.link);
                if self.swarm.unique && self.alive(meeting, Side::Salesforce).any(|(_, entry)| carries(entry.now())) {
                    return WriteResult::AlreadyExists(why());
                }
                (Side::Salesforce, owner.as_str())
            }
        };
        if self.forgot(intent.token) || self.swarm.backup && self.is_lost(meeting, side) {
            // Neither reads nor search nor the transaction id can tell of the first event: a stated limit.
            let tally = &mut self.meetings[meeting];
            tally.recreated += 1;
            *tally.creates.get_mut(side) -= 1;
            *tally.writes.get_mut(side) -= 1;
            *tally.deletes.get_mut(side) -= 1;
            *tally.flips.get_mut(side) = 0;
        }
        let tally = &mut self.meetings[meeting];
        *tally.creates.get_mut(side) += 1;
        if tally.creates.outlook + tally.creates.salesforce > tally.generations(self.swarm.delete_conflict) {
            self.breaks(|| "S1: a second record was made for a meeting".to_owned());
        }
        self.count_write(meeting, side);
        let index = self.make(dice, Author::Engine, (meeting, side, home), true, |row| {
            row.shown.fields = intent.fields.clone();
            row.shown.stamp = Some(intent.stamp.clone());
        });
        let record = self.entries[index].id.clone();
        self.created_by.push((intent.token, record));
        self.flow_later(dice, index);
        self.applied(index)
    }

    /// Tells whether Outlook takes writes whose precondition does not hold, although the policy counts on its refusal.
    fn is_unguarded(&self, side: Side) -> bool {
        side == Side::Outlook && self.swarm.preconditions == Preconditions::Ignored
    }

    /// Tells whether a person deleted what the engine had made; a database from before knows of neither.
    fn is_lost(&self, meeting: usize, side: Side) -> bool {
        let made = |entry: &&Entry| self.created_by.iter().any(|(_, record)| *record == entry.id);
        let mut of_side = self.entries.iter().filter(|entry| entry.meeting == meeting && entry.id.side() == side);
        of_side.rfind(made).is_some_and(|entry| !entry.is_alive())
    }

    /// Tells whether a person deleted what this creation made, and Outlook, where nobody can see deleted events, does not
    /// recognise its repetition.
    fn forgot(&self, token: WriteToken) -> bool {
        let made = self.created_by.iter().rfind(|(by, _)| *by == token).and_then(|(_, record)| self.find(record));
        let entry = made.map(|index| &self.entries[index]);
        !self.swarm.remembers_transactions
            && entry.is_some_and(|entry| entry.id.side() == Side::Outlook && !entry.is_alive())
    }

    fn count_write(&mut self, meeting: usize, side: Side) {
        let tally = &mut self.meetings[meeting];
        let from = side.other();
        *tally.writes.get_mut(side) += 1;
        // What undid a write of ours without being refused makes it necessary once more.
        let undone = if side == Side::Outlook { tally.unrefused } else { 0 };
        let mut people = tally.edits.get(from) + tally.deletes.get(from) + tally.flips.get(from);
        if self.swarm.delete_conflict == DeleteConflict::EditWins {
            // A deletion may be undone, although the edit that wins had crossed: where its answer was lost, nobody knows.
            people += tally.deletes.get(side);
        }
        // The first read of another mailbox's copy may lag, and nobody can tell.
        people += u32::from(tally.kind != Kind::Plain && self.swarm.rates.stale_reads > 0);
        let (writes, caused) = (*tally.writes.get(side), people + undone);
        if writes > caused {
            self.breaks(|| format!("S2: {writes} writes to {side} for {caused} edits on {from}"));
        }
    }

    /// Tells whether automation acts upon a write now.
    fn automates(&mut self, dice: &mut Dice, may: bool, rate: u64) -> bool {
        let acts = may && self.automated < MOST_AUTOMATION && self.strikes(dice, rate);
        self.automated += u32::from(acts);
        acts
    }

    /// Lets a trigger of Salesforce change a field of the row that our write just made: one version, one change event.
    fn trigger(&mut self, meeting: usize, index: usize) {
        const RULE: usize = 1;
        let name = field_of(RULE, Side::Salesforce);
        let value = Value::text(format!("trigger-{}", self.automated));
        self.count_edit(Author::Automation, meeting, Side::Salesforce, 1 << RULE);
        let row = self.entries[index].rows.last_mut().expect("it was just written");
        row.shown.fields.insert(name.to_owned(), value.clone());
        row.unseen |= 1 << RULE;
        row.by_person |= 1 << RULE;
        let (version, record) = (row.shown.version.clone(), &row.shown.record);
        for message in &mut self.signals {
            if message.record == *record
                && message.version.as_ref() == Some(&version)
                && let Some((_, fact)) = &mut message.fact
            {
                fact.changed.insert(name.to_owned());
                fact.values.insert(name.to_owned(), value.clone());
            }
        }
    }

    fn flow_later(&mut self, dice: &mut Dice, index: usize) {
        if self.swarm.answering || self.automates(dice, true, self.swarm.rates.flows) {
            let delay = dice.millis(5_000);
            self.flows.push((self.now + delay, index));
        }
    }

    /// Lets a flow change a record some time after our write, as an edit of its own.
    pub(crate) fn flow(&mut self, dice: &mut Dice, index: usize) {
        let Entry { id, meeting, .. } = &self.entries[index];
        let (side, meeting) = (id.side(), *meeting);
        if !self.entries[index].is_alive() || self.entries[index].now().shown.traits.private {
            return;
        }
        let rule = dice.pick(&[0, 1]);
        let value = Value::text(format!("flow-{}", self.number()));
        self.count_edit(Author::Automation, meeting, side, 1 << rule);
        self.put(dice, Author::Automation, index, |row| {
            row.shown.fields.insert(field_of(rule, side).to_owned(), value);
        });
    }

    fn applied(&self, index: usize) -> WriteResult {
        let row = self.entries[index].now();
        let record = self.entries[index].id.clone();
        if record.side() == Side::Salesforce || row.deleted {
            return WriteResult::Applied { record, version: None, snapshot: None };
        }
        WriteResult::Applied { record, version: Some(row.shown.version.clone()), snapshot: Some(self.snapshot(row)) }
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
