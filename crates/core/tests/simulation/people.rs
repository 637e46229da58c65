//! What people do: edit, delete, make private; and what the remotes change on their own.

use calbridge_core::ids::RecordId;
use calbridge_core::side::Side;
use calbridge_core::value::{Fields, Value};
use chrono::TimeDelta;

use crate::sim::Engine;
use crate::swarm::{Dice, Kind};
use crate::world::{Author, Entry, MAILBOXES, SECRET, USERS, World, field_of};

/// Makes the meetings that a schedule is about.
pub(crate) fn begin(world: &mut World, dice: &mut Dice) {
    for meeting in 0..world.meetings.len() {
        world.now += TimeDelta::minutes(1);
        let kind = world.meetings[meeting].kind;
        let side = if kind == Kind::Plain { dice.pick(&Side::BOTH) } else { Side::Outlook };
        world.count_edit(Author::Person, meeting, side);
        let time = world.hour(0);
        let copies = if kind == Kind::Plain { 1 } else { 2 };
        // The copies may come in any order.
        let first = if copies == 2 { usize::try_from(dice.below(2)).unwrap() } else { 0 };
        for number in 0..copies {
            let number = (first + number) % copies;
            let home = if side == Side::Outlook { MAILBOXES[number] } else { USERS[0] };
            let organizer = kind == Kind::Plain || kind == Kind::Organised && number == 0;
            world.make(dice, Author::Person, (meeting, side, home), organizer, |row| {
                let subject = (field_of(0, side).to_owned(), Value::text("s0"));
                row.shown.fields = Fields::from([("time".to_owned(), time.clone()), subject]);
            });
        }
    }
}

/// Lets somebody do something; what the engine has heard of bounds what is asked of it.
///
/// Returns what was done, for the history.
pub(crate) fn act(world: &mut World, dice: &mut Dice, engine: &impl Engine) -> Option<&'static str> {
    let meeting = usize::try_from(dice.below(world.meetings.len() as u64)).unwrap();
    let side = dice.pick(&Side::BOTH);
    let rates = world.swarm.rates;
    if dice.chance(rates.restores) && engine.buried(meeting) {
        return restore(world, dice, meeting, side);
    }
    let records: Vec<usize> = world.alive(meeting, side).map(|(index, _)| index).collect();
    let record = *records.first()?;
    let automation = side == Side::Salesforce && dice.chance(rates.automation);
    let author = if automation { Author::Automation } else { Author::Person };
    if dice.chance(rates.noise) {
        let touched = dice.pick(&records);
        world.put(dice, Author::Remote, touched, |_| ());
        return Some("something outside the mapping changes");
    }
    let plain = world.meetings[meeting].kind == Kind::Plain;
    let copies = side == Side::Outlook && !plain;
    if dice.chance(rates.deletes) {
        if copies && dice.chance(50) {
            return vanish(world, dice, meeting, &records, |record| engine.knows(record));
        }
        world.count_delete(author, meeting, side);
        if !copies {
            world.put(dice, author, record, |row| row.deleted = true);
            return Some(if automation { "automation deletes" } else { "person deletes" });
        }
        for copy in records {
            let organizer = is_organizer(&world.entries[copy]);
            world.put(dice, if organizer { Author::Person } else { Author::Remote }, copy, |row| {
                row.deleted = organizer;
                row.shown.traits.cancelled = true;
            });
        }
        return Some("organiser cancels");
    }
    if plain && dice.chance(rates.private) {
        *world.meetings[meeting].flips.get_mut(side) += 1;
        world.put(dice, Author::Person, record, |row| {
            row.shown.traits.private = true;
            row.shown.fields.insert(field_of(0, side).to_owned(), Value::text(SECRET));
        });
        return Some("person makes it private");
    }
    edit(world, dice, author, (meeting, side), &records)
}

/// Lets a person bring back a meeting that is gone on both sides: in Salesforce the same row, in Outlook a new event that
/// still carries our stamp.
fn restore(world: &mut World, dice: &mut Dice, meeting: usize, side: Side) -> Option<&'static str> {
    let tally = &world.meetings[meeting];
    let is_private = tally.flips.outlook + tally.flips.salesforce > 0;
    let expected = world.late.iter().any(|late| late.1 == meeting);
    let is_there = Side::BOTH.into_iter().any(|side| world.alive(meeting, side).next().is_some());
    if tally.kind != Kind::Plain || is_private || expected || is_there {
        return None;
    }
    let last = world.entries.iter().rposition(|entry| entry.meeting == meeting && entry.id.side() == side)?;
    let shown = world.entries[last].now().shown.clone();
    if side == Side::Outlook && shown.stamp.is_none() {
        return None;
    }
    world.count_edit(Author::Person, meeting, side);
    world.meetings[meeting].lives_again();
    match side {
        Side::Outlook => {
            world.make(dice, Author::Person, (meeting, side, MAILBOXES[0]), true, |row| {
                (row.shown.fields, row.shown.stamp) = (shown.fields, shown.stamp);
            });
        }
        Side::Salesforce => {
            world.put(dice, Author::Person, last, |row| row.deleted = false);
        }
    }
    Some("person restores")
}

fn is_organizer(entry: &Entry) -> bool {
    entry.now().shown.traits.is_organizer
}

/// Lets an attendee delete a copy, once the engine knows whom else to ask.
fn vanish(
    world: &mut World,
    dice: &mut Dice,
    meeting: usize,
    records: &[usize],
    knows: impl Fn(&RecordId) -> bool,
) -> Option<&'static str> {
    let copy = *records.iter().find(|index| !is_organizer(&world.entries[**index]))?;
    if !records.iter().all(|index| knows(&world.entries[*index].id)) {
        return None;
    }
    world.count_delete(Author::Person, meeting, Side::Outlook);
    world.put(dice, Author::Person, copy, |row| row.deleted = true);
    Some("attendee deletes a copy")
}

fn edit(
    world: &mut World,
    dice: &mut Dice,
    author: Author,
    (meeting, side): (usize, Side),
    records: &[usize],
) -> Option<&'static str> {
    let rule = dice.pick(&[0, 0, 1, 1, 2]);
    let name = field_of(rule, side);
    // Few values, so that people often put an old one back.
    let number = dice.below(3);
    let value =
        if rule == 2 { world.hour(number) } else { Value::text(["v0", "v1", "v2"][usize::try_from(number).unwrap()]) };
    let row = world.entries[*records.first()?].now();
    if row.shown.fields.get(name) == Some(&value) || row.shown.traits.private && rule == 0 {
        return None;
    }
    world.count_edit(author, meeting, side);
    for index in records {
        let organizer = is_organizer(&world.entries[*index]);
        // An attendee's copy follows; what it showed, the organiser saw.
        world.put(dice, if organizer { author } else { Author::Remote }, *index, |row| {
            row.shown.fields.insert(name.to_owned(), value.clone());
        });
    }
    Some(if author == Author::Automation { "automation edits" } else { "person edits" })
}
