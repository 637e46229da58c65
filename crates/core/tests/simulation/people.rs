//! What people do: edit, delete, make private; and what the remotes change on their own.

use calbridge_core::ids::RecordId;
use calbridge_core::side::Side;
use calbridge_core::value::{Value, When};
use chrono::{DateTime, TimeDelta, Utc};

use crate::swarm::{Dice, Meeting};
use crate::world::{Author, FIELDS, MAILBOXES, Row, SECRET, USERS, World, field_of, new_meeting};

/// Makes the meeting that a schedule is about.
pub(crate) fn begin(world: &mut World, dice: &mut Dice) {
    world.now += TimeDelta::minutes(1);
    let side = match world.swarm.meeting {
        Meeting::Plain => dice.pick(&Side::BOTH),
        Meeting::Organised | Meeting::Invited => Side::Outlook,
    };
    *world.tally.edits.get_mut(side) += 1;
    let copies = if world.swarm.meeting == Meeting::Plain { 1 } else { 2 };
    // The copies may come in any order.
    let first = usize::try_from(dice.below(2)).unwrap();
    for number in 0..copies {
        let number = if copies == 2 { (first + number) % 2 } else { 0 };
        let record = world.new_id(side, MAILBOXES[number]);
        let organizer = match world.swarm.meeting {
            Meeting::Plain => true,
            Meeting::Organised => number == 0,
            Meeting::Invited => false,
        };
        let traits = world.traits(&record, organizer, USERS[0]);
        world.put(dice, Author::Person, &record, |row| {
            row.fields = new_meeting(side);
            row.traits = traits;
        });
    }
}

/// Lets somebody do something; `knows` says whether the engine has heard of a record.
///
/// Returns what was done, for the history.
pub(crate) fn act(world: &mut World, dice: &mut Dice, knows: impl Fn(&RecordId) -> bool) -> Option<String> {
    let side = dice.pick(&Side::BOTH);
    let records: Vec<RecordId> = world.alive(side).map(|(id, _)| id.clone()).collect();
    let record = records.first()?.clone();
    if dice.chance(world.swarm.noise) {
        let touched = dice.pick(&records.iter().collect::<Vec<_>>()).clone();
        world.put(dice, Author::Remote, &touched, |_| ());
        return Some(format!("{touched} changes outside the mapping"));
    }
    let copies = side == Side::Outlook && world.swarm.meeting != Meeting::Plain;
    if dice.chance(world.swarm.deletes) {
        if copies && dice.chance(50) {
            return vanish(world, dice, &records, knows);
        }
        *world.tally.deletes.get_mut(side) += 1;
        if !copies {
            world.put(dice, Author::Person, &record, |row| row.deleted = true);
            return Some(format!("person deletes {record}"));
        }
        for copy in records {
            let organizer = world.current(&copy).is_some_and(|row| row.traits.is_organizer);
            world.put(dice, if organizer { Author::Person } else { Author::Remote }, &copy, |row| {
                row.deleted = organizer;
                row.traits.cancelled = true;
            });
        }
        return Some("organiser cancels".to_owned());
    }
    if dice.chance(world.swarm.private) {
        *world.tally.flips.get_mut(side) += 1;
        world.put(dice, Author::Person, &record, |row| {
            row.traits.private = true;
            row.fields.insert(field_of(FIELDS[0], side).to_owned(), Value::text(SECRET));
        });
        return Some(format!("person makes {record} private"));
    }
    edit(world, dice, side, &records)
}

/// Lets an attendee delete a copy, once the engine knows whom else to ask.
fn vanish(
    world: &mut World,
    dice: &mut Dice,
    records: &[RecordId],
    knows: impl Fn(&RecordId) -> bool,
) -> Option<String> {
    let attendee = |row: &Row| !row.traits.is_organizer;
    let copy = records.iter().find(|id| world.current(id).is_some_and(attendee))?.clone();
    if !records.iter().all(knows) {
        return None;
    }
    *world.tally.deletes.get_mut(Side::Outlook) += 1;
    world.put(dice, Author::Person, &copy, |row| row.deleted = true);
    Some(format!("attendee deletes {copy}"))
}

fn edit(world: &mut World, dice: &mut Dice, side: Side, records: &[RecordId]) -> Option<String> {
    let field = dice.pick(&[FIELDS[0], FIELDS[0], FIELDS[1], FIELDS[1], FIELDS[2]]);
    let name = field_of(field, side);
    let number = i64::try_from(dice.below(3)).unwrap();
    let value = if field.0 == "time" {
        let nine: DateTime<Utc> = "2026-12-01T09:00:00Z".parse().unwrap();
        let start = nine + TimeDelta::hours(number);
        Value::When(When::Timed { start, end: start + TimeDelta::hours(1), zone: None })
    } else {
        Value::text(format!("v{number}"))
    };
    let row = world.current(records.first()?)?;
    if row.fields.get(name) == Some(&value) || row.traits.private && field.0 == "subject" {
        return None;
    }
    *world.tally.edits.get_mut(side) += 1;
    for record in records {
        let organizer = world.current(record).is_some_and(|row| row.traits.is_organizer);
        // An attendee's copy follows; what it showed, the organiser saw.
        world.put(dice, if organizer { Author::Person } else { Author::Remote }, record, |row| {
            row.fields.insert(name.to_owned(), value.clone());
        });
    }
    Some(format!("person sets {name} of {records:?} to {value:?}"))
}
