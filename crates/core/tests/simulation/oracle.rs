//! The judgement at the end of a schedule: invariants over what the world saw, without regard to the engine's insides.
//!
//! Safety that can be told at once (S1, S2, S5, S6, S8) is told by [`World::breaks`] in the step that breaks it.
//!
//! Three definitions are less plain than they look: a creation that takes effect late is no resurrection, an edit that was
//! undone before anybody saw it is not lost, and neither is a value that people of both sides have seen.

use calbridge_core::mapping::Direction;
use calbridge_core::side::Side;
use calbridge_core::value::Value;

use crate::swarm::Kind;
use crate::world::{FIELDS, SECRET, World, field_of};

/// What an engine tells about itself and one meeting.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Rule and value of everything in its journal; none where an engine keeps no journal.
    pub(crate) journal: Option<Vec<(usize, Value)>>,
    /// It asks a person about a conflict.
    pub(crate) asks: bool,
    /// It gave up a write that the remote refused for good, and says so.
    pub(crate) gave_up: bool,
    /// What it should not have left behind: open intents, dead letters.
    pub(crate) left_over: Option<String>,
}

/// Judges one meeting of a drained world.
pub(crate) fn judge(world: &World, meeting: usize, account: &Account) -> Result<(), String> {
    let tally = &world.meetings[meeting];
    let salesforce = world.alive(meeting, Side::Salesforce).count();
    let called_off = |index: usize| world.entries[index].now().shown.traits.cancelled;
    let outlook = world.alive(meeting, Side::Outlook).filter(|(index, _)| !called_off(*index)).count();
    let created = tally.creates.outlook + tally.creates.salesforce;
    if tally.kind == Kind::Plain && outlook > 1 || salesforce > 1 || created > 1 {
        return Err("S1: more than one record on a side".to_owned());
    }
    let journal = account.journal.as_deref().unwrap_or_default();
    if journal.iter().any(|(_, value)| value.as_text() == Some(SECRET)) {
        return Err("S5: a private value is in the journal".to_owned());
    }
    let flipped = tally.flips.outlook + tally.flips.salesforce > 0;
    for (rule, value) in &tally.replaced {
        // Of a meeting that became private no values are kept.
        if !flipped && !journal.iter().any(|kept| kept.0 == *rule && kept.1 == *value) {
            return Err(format!("S4: {value:?} of `{}` was replaced and is in no journal", FIELDS[*rule].0));
        }
    }
    if let Some(left_over) = &account.left_over {
        return Err(format!("L1: {left_over}"));
    }
    if account.gave_up {
        return if tally.refused { Ok(()) } else { Err("L1: given up without a refusal".to_owned()) };
    }
    presence(world, meeting, (outlook, salesforce), flipped)?;
    if account.asks || flipped { Ok(()) } else { agreement(world, meeting, account) }
}

fn presence(world: &World, meeting: usize, (outlook, salesforce): (usize, usize), flipped: bool) -> Result<(), String> {
    let tally = &world.meetings[meeting];
    if tally.kind != Kind::Plain {
        let wanted = usize::from(outlook > 0 && tally.deletes.salesforce == 0);
        let organised = |index: usize| {
            let traits = &world.entries[index].now().shown.traits;
            traits.is_organizer && !traits.cancelled
        };
        let organizer_gone =
            tally.kind == Kind::Organised && !world.alive(meeting, Side::Outlook).any(|(index, _)| organised(index));
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

fn agreement(world: &World, meeting: usize, account: &Account) -> Result<(), String> {
    let speaks = |side| {
        let rows = world.alive(meeting, side).map(|(_, entry)| entry.now());
        rows.filter(|row| !row.shown.traits.cancelled).min_by_key(|row| !row.shown.traits.is_organizer)
    };
    let (Some(outlook), Some(salesforce)) = (speaks(Side::Outlook), speaks(Side::Salesforce)) else {
        return Ok(());
    };
    for (rule, field) in FIELDS.iter().enumerate() {
        let value = |row: &crate::world::Row, side| row.shown.fields.get(field_of(rule, side)).cloned();
        let (o, s) = (value(outlook, Side::Outlook), value(salesforce, Side::Salesforce));
        if o != s {
            // What does not flow back stays where a person put it.
            let one_way =
                world.meetings[meeting].kind != Kind::Plain || rule == 1 && world.swarm.location != Direction::Both;
            if one_way && salesforce.by_person & 1 << rule != 0 {
                continue;
            }
            return Err(format!("L1: `{}` differs", field.0));
        }
        let Some(journal) = &account.journal else { continue };
        let explained = |value: &Value| journal.iter().any(|kept| kept.0 == rule && kept.1 == *value);
        if o.as_ref().is_some_and(|value| !explained(value)) {
            return Err(format!("L5: no row of the journal explains `{}`", field.0));
        }
    }
    Ok(())
}
