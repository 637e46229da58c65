//! The judgement at the end of a schedule: invariants over what the world saw, without regard to the engine's insides.
//!
//! Three definitions are less plain than they look: a creation that takes effect late is no resurrection, an edit that was
//! undone before anybody saw it is not lost, and neither is a value that people of both sides have seen.

use std::collections::BTreeSet;

use calbridge_core::side::Side;
use calbridge_core::value::Value;

use crate::swarm::Meeting;
use crate::world::{FIELDS, World, field_of};

/// What an engine tells about itself.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Rule and value of everything in its journal.
    pub(crate) journal: BTreeSet<(String, String)>,
    /// It asks a person about a conflict.
    pub(crate) asks: bool,
    /// What it should not have left behind: open intents, dead letters.
    pub(crate) left_over: Option<String>,
}

/// The form in which values are compared with the journal.
pub(crate) fn entry(rule: &str, value: &Value) -> (String, String) {
    (rule.to_owned(), format!("{value:?}"))
}

/// Judges a drained world.
pub(crate) fn judge(world: &World, account: &Account) -> Result<(), String> {
    let tally = &world.tally;
    let salesforce = world.alive(Side::Salesforce).count();
    let outlook = world.alive(Side::Outlook).filter(|(_, row)| !row.traits.cancelled).count();
    let duplicated = world.swarm.meeting == Meeting::Plain && outlook > 1;
    if duplicated || salesforce > 1 || tally.creates.outlook + tally.creates.salesforce > 1 {
        return Err("S1: more than one record on a side".to_owned());
    }
    for side in Side::BOTH {
        let from = side.other();
        let caused = tally.edits.get(from) + tally.deletes.get(from) + tally.flips.get(from);
        if *tally.writes.get(side) > caused {
            return Err(format!("S2: {} writes on {side} for {caused} edits", tally.writes.get(side)));
        }
    }
    if tally.leaked || account.journal.iter().any(|(_, value)| value.contains(crate::world::SECRET)) {
        return Err("S5: a private value left its record".to_owned());
    }
    let flipped = tally.flips.outlook + tally.flips.salesforce > 0;
    for (rule, value) in &tally.replaced {
        // Of a meeting that became private no values are kept.
        if !flipped && !account.journal.contains(&entry(rule, value)) {
            return Err(format!("S4: {value:?} of `{rule}` was replaced and is in no journal"));
        }
    }
    presence(world, outlook, salesforce, flipped)?;
    if let Some(left_over) = &account.left_over {
        return Err(format!("L1: {left_over}"));
    }
    if account.asks || flipped { Ok(()) } else { agreement(world) }
}

fn presence(world: &World, outlook: usize, salesforce: usize, flipped: bool) -> Result<(), String> {
    let tally = &world.tally;
    if world.swarm.meeting != Meeting::Plain {
        let wanted = usize::from(outlook > 0 && tally.deletes.salesforce == 0);
        let organizer_gone = world.swarm.meeting == Meeting::Organised
            && !world.alive(Side::Outlook).any(|(_, row)| row.traits.is_organizer && !row.traits.cancelled);
        if salesforce != wanted && !(organizer_gone && salesforce == 0) {
            return Err(format!("L1: {outlook} copies and {salesforce} records in Salesforce"));
        }
        return Ok(());
    }
    let deleted = tally.deletes.outlook + tally.deletes.salesforce > 0;
    let both_private = tally.flips.outlook > 0 && tally.flips.salesforce > 0;
    match (deleted, flipped, outlook + salesforce) {
        (false, true, 2) if both_private => Ok(()),
        (true, false, 0) | (true, true, 0 | 1) | (false, true, 1) | (false, false, 2) => Ok(()),
        (true, ..) => Err("L1, S3: a deleted meeting lives".to_owned()),
        (false, true, _) => Err("L1: a private meeting is on both sides, or on none".to_owned()),
        (false, false, _) => Err("L1: a side lacks the meeting".to_owned()),
    }
}

fn agreement(world: &World) -> Result<(), String> {
    let speaks = |side| {
        let current = world.alive(side).filter(|(_, row)| !row.traits.cancelled);
        current.min_by_key(|(_, row)| !row.traits.is_organizer)
    };
    let (Some((_, outlook)), Some((_, salesforce))) = (speaks(Side::Outlook), speaks(Side::Salesforce)) else {
        return Ok(());
    };
    for field in FIELDS {
        let (o, s) = (field_of(field, Side::Outlook), field_of(field, Side::Salesforce));
        if outlook.fields.get(o) == salesforce.fields.get(s) {
            continue;
        }
        // What does not flow back stays where a person put it.
        let one_way = world.swarm.meeting != Meeting::Plain
            || (field.0 == "location" && world.swarm.location != calbridge_core::mapping::Direction::Both);
        if one_way && salesforce.by_person.contains(s) {
            continue;
        }
        return Err(format!("L1: `{}` differs", field.0));
    }
    Ok(())
}
