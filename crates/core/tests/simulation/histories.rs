//! The oracle on trial: histories made by hand at which it must complain, and others at which it must not.

use std::collections::BTreeMap;

use calbridge_core::ids::{LinkId, MailboxId, WriteToken};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::observed::Stamp;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::Version;
use calbridge_core::value::{Fields, Value, When};
use chrono::TimeDelta;
use uuid::Uuid;

use crate::oracle::{self, Account};
use crate::swarm::{Dice, Preconditions, Swarm};
use crate::world::{Author, MAILBOXES, SECRET, USERS, World, field_of, hour};

/// One meeting, and somebody who writes down what is done to it.
struct Scribe {
    world: World,
    dice: Dice,
    journal: Vec<(usize, Value)>,
    tokens: u128,
}

impl Scribe {
    fn new() -> Self {
        Self::with(Swarm::calm())
    }

    fn with(swarm: Swarm) -> Self {
        // What a person set at first is explained by their edit.
        let journal = vec![(0, Value::text("s0")), (2, hour(0))];
        Self { world: World::new(swarm), dice: Dice::new(1), journal, tokens: 0 }
    }

    /// A person makes the meeting in Outlook.
    fn made(&mut self) -> usize {
        self.world.count_edit(Author::Person, 0, Side::Outlook);
        self.world.make(&mut self.dice, Author::Person, (0, Side::Outlook, MAILBOXES[0]), true, |row| {
            row.shown.fields = Fields::from([("time".to_owned(), hour(0)), ("subject".to_owned(), Value::text("s0"))]);
        })
    }

    fn person_sets_subject(&mut self, index: usize, subject: &str) {
        let side = self.world.entries[index].id.side();
        self.world.count_edit(Author::Person, 0, side);
        self.world.put(&mut self.dice, Author::Person, index, |row| {
            row.shown.fields.insert(field_of(0, side).to_owned(), Value::text(subject));
        });
    }

    fn person_deletes(&mut self, index: usize) {
        let side = self.world.entries[index].id.side();
        self.world.count_delete(Author::Person, 0, side);
        self.world.put(&mut self.dice, Author::Person, index, |row| row.deleted = true);
    }

    /// The engine writes what it planned from a record's present state.
    fn write(&mut self, side: Side, action: Action, fields: Fields) {
        let index = action.record().and_then(|record| self.world.find(record));
        let expected = index.map(|index| self.world.entries[index].now().shown.version.clone());
        self.write_expecting(side, action, fields, expected);
    }

    /// The engine writes what it planned from a version that may be outdated.
    fn write_expecting(&mut self, side: Side, action: Action, fields: Fields, expected: Option<Version>) {
        self.tokens += 1;
        let (token, link) = (WriteToken::new(Uuid::from_u128(self.tokens)), LinkId::new(Uuid::from_u128(1)));
        let intent = Intent {
            token,
            link,
            side,
            action,
            fields,
            agreed: BTreeMap::new(),
            replaced: Fields::new(),
            expected,
            stamp: Stamp { link, partner: String::new(), token: Some(token) },
            recorded_at: self.world.now,
            send_by: self.world.now,
            give_up_at: self.world.now,
            sends: 1,
            mails: 0,
            unexplained: false,
            reason: Reason::OutlookChanged,
        };
        self.world.apply(&mut self.dice, 0, &intent);
    }

    /// The engine copies a record to the other side, where there is none yet; returns what it made.
    fn copied(&mut self, from: usize) -> usize {
        let side = self.world.entries[from].id.side().other();
        let home = match side {
            Side::Outlook => Home::Mailbox(MailboxId::new(MAILBOXES[0])),
            Side::Salesforce => Home::Owner(USERS[0].to_owned()),
        };
        let shown = &self.world.entries[from].now().shown.fields;
        let values = (0..3).filter_map(|rule| {
            Some((field_of(rule, side).to_owned(), shown.get(field_of(rule, side.other()))?.clone()))
        });
        let fields = values.collect();
        self.write(side, Action::Create(home), fields);
        self.world.entries.len() - 1
    }

    fn engine_sets_subject(&mut self, index: usize, subject: &str) {
        let record = self.world.entries[index].id.clone();
        let side = record.side();
        self.write(side, Action::Update(record), Fields::from([(field_of(0, side).to_owned(), Value::text(subject))]));
    }

    fn engine_deletes(&mut self, index: usize) {
        self.world.now += TimeDelta::seconds(10);
        let record = self.world.entries[index].id.clone();
        self.write(record.side(), Action::Delete(record), Fields::new());
    }

    fn journals(&mut self, subject: &str) {
        self.journal.push((0, Value::text(subject)));
    }

    /// What the oracle says about all this.
    fn verdict(self) -> Result<(), String> {
        self.verdict_with(|_| ())
    }

    fn verdict_with(mut self, tell: impl FnOnce(&mut Account)) -> Result<(), String> {
        if let Some(violation) = self.world.broken.take() {
            return Err(violation);
        }
        let mut account = Account { journal: Some(self.journal), ..Account::default() };
        tell(&mut account);
        oracle::judge(&self.world, 0, &account)
    }
}

/// A meeting that crossed, with nothing wrong: its records in Outlook and in Salesforce.
fn crossed() -> (Scribe, usize, usize) {
    let mut scribe = Scribe::new();
    let outlook = scribe.made();
    let salesforce = scribe.copied(outlook);
    (scribe, outlook, salesforce)
}

#[track_caller]
fn assert_broken(scribe: Scribe, invariant: &str) {
    let verdict = scribe.verdict();
    assert!(verdict.as_ref().is_err_and(|violation| violation.starts_with(invariant)), "{invariant}: {verdict:?}");
}

#[test]
fn a_meeting_that_crossed_is_in_order() {
    assert_eq!(crossed().0.verdict(), Ok(()));
}

#[test]
fn a_second_record_is_noticed_at_once() {
    // Where Salesforce itself refuses a second row with the same link id, none comes about.
    let mut scribe = Scribe::with(Swarm { unique: false, ..Swarm::calm() });
    let outlook = scribe.made();
    scribe.copied(outlook);
    scribe.copied(outlook);
    assert_broken(scribe, "S1");
}

#[test]
fn a_write_that_no_edit_explains_is_noticed_at_once() {
    let (mut scribe, _, salesforce) = crossed();
    scribe.engine_sets_subject(salesforce, "s0");
    assert_broken(scribe, "S2");
}

#[test]
fn a_deleted_meeting_that_lives_is_noticed() {
    let (mut scribe, outlook, _) = crossed();
    scribe.person_deletes(outlook);
    assert_broken(scribe, "L1, S3");
}

#[test]
fn a_late_creation_is_no_resurrection() {
    let mut scribe = Scribe::new();
    let outlook = scribe.made();
    scribe.person_deletes(outlook);
    // The request was on its way when the person deleted the event, and what it makes is deleted in turn.
    let salesforce = scribe.copied(outlook);
    scribe.engine_deletes(salesforce);
    scribe.journals("s0");
    assert_eq!(scribe.verdict(), Ok(()));
}

#[test]
fn a_value_that_was_written_over_unseen_must_be_in_the_journal() {
    let history = |journaled: bool| {
        let (mut scribe, outlook, salesforce) = crossed();
        scribe.person_sets_subject(salesforce, "theirs");
        scribe.person_sets_subject(outlook, "ours");
        scribe.engine_sets_subject(salesforce, "ours");
        scribe.journals("ours");
        if journaled {
            scribe.journals("theirs");
        }
        scribe
    };
    assert_broken(history(false), "S4");
    assert_eq!(history(true).verdict(), Ok(()));
}

#[test]
fn a_value_that_was_deleted_unseen_must_be_in_the_journal() {
    let history = |journaled: bool| {
        let (mut scribe, outlook, salesforce) = crossed();
        scribe.person_sets_subject(outlook, "ours");
        scribe.person_deletes(salesforce);
        scribe.engine_deletes(outlook);
        if journaled {
            scribe.journals("ours");
        }
        scribe
    };
    assert_broken(history(false), "S4");
    assert_eq!(history(true).verdict(), Ok(()));
}

#[test]
fn an_edit_undone_before_anybody_saw_it_is_not_lost() {
    let (mut scribe, outlook, salesforce) = crossed();
    scribe.person_sets_subject(outlook, "a slip");
    scribe.person_sets_subject(outlook, "s0");
    scribe.person_sets_subject(salesforce, "theirs");
    scribe.engine_sets_subject(outlook, "theirs");
    scribe.journals("theirs");
    assert_eq!(scribe.verdict(), Ok(()));
}

#[test]
fn a_value_that_the_deleting_person_saw_too_is_not_lost() {
    let (mut scribe, outlook, salesforce) = crossed();
    scribe.person_sets_subject(outlook, "ours");
    scribe.engine_sets_subject(salesforce, "ours");
    scribe.person_deletes(salesforce);
    scribe.engine_deletes(outlook);
    assert_eq!(scribe.verdict(), Ok(()));
}

#[test]
fn an_edit_between_read_and_write_counts_apart_only_where_nothing_refuses_the_write() {
    let underneath = |preconditions: Preconditions| {
        let mut scribe = Scribe::with(Swarm { preconditions, ..Swarm::calm() });
        let outlook = scribe.made();
        let salesforce = scribe.copied(outlook);
        scribe.person_sets_subject(salesforce, "theirs");
        let read = scribe.world.entries[outlook].now().shown.version.clone();
        scribe.person_sets_subject(outlook, "unseen");
        let action = Action::Update(scribe.world.entries[outlook].id.clone());
        let fields = Fields::from([("subject".to_owned(), Value::text("theirs"))]);
        scribe.write_expecting(Side::Outlook, action, fields, Some(read));
        (scribe.world.meetings[0].overwritten_unseen, scribe.world.meetings[0].writes.outlook)
    };
    assert_eq!(underneath(Preconditions::Honoured), (0, 0), "refused");
    assert_eq!(underneath(Preconditions::Off), (1, 1));
    assert_eq!(underneath(Preconditions::Ignored), (1, 1));
}

#[test]
fn private_values_that_leave_their_record_are_noticed() {
    let (mut scribe, outlook, salesforce) = crossed();
    scribe.person_sets_subject(outlook, SECRET);
    scribe.engine_sets_subject(salesforce, SECRET);
    assert_broken(scribe, "S5");

    let (mut scribe, ..) = crossed();
    scribe.journals(SECRET);
    assert_broken(scribe, "S5");
}

#[test]
fn a_meeting_that_ends_before_it_begins_is_noticed_at_once() {
    let (mut scribe, _, salesforce) = crossed();
    let record = scribe.world.entries[salesforce].id.clone();
    let Value::When(When::Timed { start, .. }) = hour(0) else { panic!("an hour is a time") };
    let reversed = Value::When(When::Timed { start, end: start - TimeDelta::hours(1), zone: None });
    scribe.write(Side::Salesforce, Action::Update(record), Fields::from([("time".to_owned(), reversed)]));
    assert_broken(scribe, "S6");
}

#[test]
fn sides_that_differ_in_the_end_are_noticed_unless_a_person_is_asked() {
    let history = || {
        let (mut scribe, outlook, _) = crossed();
        scribe.person_sets_subject(outlook, "ours");
        scribe
    };
    assert_broken(history(), "L1");
    assert_eq!(history().verdict_with(|account| account.asks = true), Ok(()));
}

#[test]
fn a_side_that_lacks_the_meeting_is_noticed() {
    let mut scribe = Scribe::new();
    scribe.made();
    assert_broken(scribe, "L1");
}

#[test]
fn giving_up_counts_only_after_a_refusal() {
    let history = |refused: bool| {
        let mut scribe = Scribe::new();
        scribe.made();
        scribe.world.meetings[0].refused = refused;
        scribe.verdict_with(|account| account.gave_up = true)
    };
    assert_eq!(history(true), Ok(()));
    assert!(history(false).is_err_and(|violation| violation.starts_with("L1")));
}

#[test]
fn what_is_left_over_is_noticed() {
    let verdict = crossed().0.verdict_with(|account| account.left_over = Some("an intent is open".to_owned()));
    assert!(verdict.is_err_and(|violation| violation.starts_with("L1")));
}

#[test]
fn a_value_that_no_row_of_the_journal_explains_is_noticed() {
    let (mut scribe, outlook, salesforce) = crossed();
    scribe.person_sets_subject(outlook, "ours");
    scribe.engine_sets_subject(salesforce, "ours");
    assert_broken(scribe, "L5");
}
