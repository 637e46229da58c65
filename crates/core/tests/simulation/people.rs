//! What people do: edit, delete, make private; and what the remotes change on their own.

use calbridge_core::ids::RecordId;
use calbridge_core::side::Side;
use calbridge_core::value::{Fields, Value};
use chrono::TimeDelta;

use crate::swarm::{Dice, Kind};
use crate::world::{Author, Entry, MAILBOXES, SECRET, USERS, World, field_of, hour};

/// Makes the meetings that a schedule is about.
pub(crate) fn begin(world: &mut World, dice: &mut Dice) {
    for meeting in 0..world.meetings.len() {
        world.now += TimeDelta::minutes(1);
        let kind = world.meetings[meeting].kind;
        let side = if kind == Kind::Plain { dice.pick(&Side::BOTH) } else { Side::Outlook };
        *world.meetings[meeting].edits.get_mut(side) += 1;
        let copies = if kind == Kind::Plain { 1 } else { 2 };
        // The copies may come in any order.
        let first = if copies == 2 { usize::try_from(dice.below(2)).unwrap() } else { 0 };
        for number in 0..copies {
            let number = (first + number) % copies;
            let home = if side == Side::Outlook { MAILBOXES[number] } else { USERS[0] };
            let organizer = kind == Kind::Plain || kind == Kind::Organised && number == 0;
            world.make(dice, Author::Person, (meeting, side, home), organizer, |row| {
                let subject = (field_of(0, side).to_owned(), Value::text("s0"));
                row.shown.fields = Fields::from([("time".to_owned(), hour(0)), subject]);
            });
        }
    }
}

/// Lets somebody do something; `knows` says whether the engine has heard of a record.
///
/// Returns what was done, for the history.
pub(crate) fn act(world: &mut World, dice: &mut Dice, knows: impl Fn(&RecordId) -> bool) -> Option<&'static str> {
    let meeting = usize::try_from(dice.below(world.meetings.len() as u64)).unwrap();
    let side = dice.pick(&Side::BOTH);
    let records: Vec<usize> = world.alive(meeting, side).map(|(index, _)| index).collect();
    let record = *records.first()?;
    let rates = world.swarm.rates;
    if dice.chance(rates.noise) {
        let touched = dice.pick(&records);
        world.put(dice, Author::Remote, touched, |_| ());
        return Some("something outside the mapping changes");
    }
    let plain = world.meetings[meeting].kind == Kind::Plain;
    let copies = side == Side::Outlook && !plain;
    if dice.chance(rates.deletes) {
        if copies && dice.chance(50) {
            return vanish(world, dice, meeting, &records, knows);
        }
        *world.meetings[meeting].deletes.get_mut(side) += 1;
        if !copies {
            world.put(dice, Author::Person, record, |row| row.deleted = true);
            return Some("person deletes");
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
    edit(world, dice, (meeting, side), &records)
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
    world.meetings[meeting].deletes.outlook += 1;
    world.put(dice, Author::Person, copy, |row| row.deleted = true);
    Some("attendee deletes a copy")
}

fn edit(world: &mut World, dice: &mut Dice, (meeting, side): (usize, Side), records: &[usize]) -> Option<&'static str> {
    let rule = dice.pick(&[0, 0, 1, 1, 2]);
    let name = field_of(rule, side);
    // Few values, so that people often put an old one back.
    let number = dice.below(3);
    let value =
        if rule == 2 { hour(number) } else { Value::text(["v0", "v1", "v2"][usize::try_from(number).unwrap()]) };
    let row = world.entries[*records.first()?].now();
    if row.shown.fields.get(name) == Some(&value) || row.shown.traits.private && rule == 0 {
        return None;
    }
    *world.meetings[meeting].edits.get_mut(side) += 1;
    for index in records {
        let organizer = is_organizer(&world.entries[*index]);
        // An attendee's copy follows; what it showed, the organiser saw.
        world.put(dice, if organizer { Author::Person } else { Author::Remote }, *index, |row| {
            row.shown.fields.insert(name.to_owned(), value.clone());
        });
    }
    Some("person edits")
}
