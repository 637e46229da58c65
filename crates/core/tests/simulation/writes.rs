//! What becomes of the writes of an engine: on the way, and in the remotes.

use calbridge_core::ids::WriteToken;
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use calbridge_core::written::WriteResult;

use crate::sim::{Stage, answer};
use crate::swarm::{Dice, Preconditions};
use crate::world::{Author, Entry, FIELDS, Row, SECRET, World, field_of, why};

/// Automation acts at most this often in a schedule; what never stops is the business of the oscillation breaker.
const MOST_AUTOMATION: u32 = 3;

/// Sends an intent over a network that may lose or delay it.
pub(crate) fn send(stage: &mut Stage, lane: usize, intent: &Intent) -> WriteResult {
    let rates = stage.world.swarm.rates;
    if stage.world.strikes(&mut stage.dice, rates.throttles) {
        let mut why = why();
        if stage.dice.below(2) == 1 {
            why.retry_after_ms = Some(1 + stage.dice.below(20_000));
        }
        return WriteResult::NotNow(why);
    }
    if stage.world.strikes(&mut stage.dice, rates.refusals) {
        stage.world.meetings[lane].refused = true;
        return WriteResult::Refused(why());
    }
    if stage.world.strikes(&mut stage.dice, rates.lost_requests) {
        return WriteResult::Unknown(why());
    }
    if stage.world.strikes(&mut stage.dice, rates.late_writes) {
        let at = stage.world.now + stage.dice.millis(60_000);
        stage.world.late.push((at, lane, intent.clone()));
        return WriteResult::Unknown(why());
    }
    let result = stage.world.apply(&mut stage.dice, lane, intent);
    if stage.world.strikes(&mut stage.dice, rates.lost_answers) {
        stage.note(|_| format!("answer lost: {}", answer(&result)));
        return WriteResult::Unknown(why());
    }
    result
}

impl World {
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
        // An edit that no read and no message showed can be told by nobody.
        let untold = row.untold;
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
        let event = self.put(dice, Author::Engine, index, |row| {
            row.take(&intent.fields);
            // A deletion has no place for a stamp.
            if !deletes {
                row.shown.stamp = Some(intent.stamp.clone());
            }
            row.deleted = deletes;
        });
        // What the messages of that time told is lost with the database.
        let told = event && intent.side == Side::Salesforce && !self.is_before_restore(intent);
        let tally = &mut self.meetings[meeting];
        let (unknown, known): (Vec<_>, Vec<_>) =
            lost.into_iter().partition(|(rule, _)| underneath && (!told || untold & 1 << rule != 0));
        tally.overwritten_unseen += u32::from(!unknown.is_empty());
        tally.replaced.extend(known);
        if mails {
            self.copies_follow(dice, meeting, index, intent);
        }
        if trigger {
            self.trigger(meeting, index, event);
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
        let tally = &self.meetings[meeting];
        let made = tally.creates.outlook + tally.creates.salesforce;
        let is_one_more = made >= tally.generations(self.swarm.delete_conflict);
        if is_one_more && (self.forgot(intent.token) || self.is_lost(meeting, side)) {
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

    /// Tells whether a person deleted from Outlook what the engine had made there after the backup that took its place.
    fn is_lost(&self, meeting: usize, side: Side) -> bool {
        let (Some(backed_up_at), true) = (self.backed_up_at, side == Side::Outlook) else { return false };
        let made = |entry: &&Entry| self.created_by.iter().any(|(_, record)| *record == entry.id);
        let mut of_side = self.entries.iter().filter(|entry| entry.meeting == meeting && entry.id.side() == side);
        let last = of_side.rfind(made);
        last.is_some_and(|entry| !entry.is_alive() && entry.now().shown.created >= backed_up_at)
    }

    /// Tells whether a write was recorded in the database that a backup replaced.
    fn is_before_restore(&self, intent: &Intent) -> bool {
        self.swarm.backup && self.restored_at.is_none_or(|restored_at| intent.recorded_at < restored_at)
    }

    /// Tells whether a person deleted what this creation made, and Outlook, where nobody can see deleted events, does not
    /// recognise its repetition.
    fn forgot(&self, token: WriteToken) -> bool {
        let made = self.created_by.iter().rfind(|(by, _)| *by == token).and_then(|(_, record)| self.find(record));
        let entry = made.map(|index| &self.entries[index]);
        !self.swarm.remembers_transactions
            && entry.is_some_and(|entry| entry.id.side() == Side::Outlook && !entry.is_alive())
    }

    /// Tells whether automation acts upon a write now.
    fn automates(&mut self, dice: &mut Dice, may: bool, rate: u64) -> bool {
        let acts = may && self.automated < MOST_AUTOMATION && self.strikes(dice, rate);
        self.automated += u32::from(acts);
        acts
    }

    /// Lets a trigger of Salesforce change a field of the row that our write just made: one version, one change event.
    fn trigger(&mut self, meeting: usize, index: usize, told: bool) {
        const RULE: usize = 1;
        let name = field_of(RULE, Side::Salesforce);
        let value = Value::text(format!("trigger-{}", self.automated));
        self.count_edit(Author::Automation, meeting, Side::Salesforce);
        let row = self.entries[index].rows.last_mut().expect("it was just written");
        row.shown.fields.insert(name.to_owned(), value.clone());
        row.unseen |= 1 << RULE;
        row.by_person |= 1 << RULE;
        row.untold = row.untold & !(1 << RULE) | u8::from(!told) << RULE;
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
        self.count_edit(Author::Automation, meeting, side);
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
