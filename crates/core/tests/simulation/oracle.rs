//! The judgement at the end of a schedule: invariants over what the world saw, without regard to the engine's insides.
//!
//! Safety that can be told at once (S1, S2, S5, S6, S8) is told by [`World::breaks`] in the step that breaks it.
//!
//! Three definitions are less plain than they look: a creation that takes effect late is no resurrection, an edit that was
//! undone before anybody saw it is not lost, and neither is a value that people of both sides have seen.

use std::collections::BTreeSet;

use calbridge_core::mapping::Direction;
use calbridge_core::policy::{DeleteConflict, Guard, MailPolicy};
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use chrono::TimeDelta;

use crate::swarm::Kind;
use crate::tally::Use;
use crate::world::{FIELDS, SECRET, World, field_of};

/// What an engine tells about itself and one meeting.
#[expect(clippy::struct_excessive_bools, reason = "independent answers to independent questions")]
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Rule and value of everything in its journal; none where an engine keeps no journal.
    pub(crate) journal: Option<Vec<(usize, Value)>>,
    /// It asks a person about a conflict.
    pub(crate) asks: bool,
    /// It gave up a write that the remote refused for good, and says so.
    pub(crate) gave_up: bool,
    /// A person discarded a deletion, so that the meeting is not synced any more.
    pub(crate) let_go: bool,
    /// It left Outlook as it is although the meeting was deleted in Salesforce: not the organiser's copy, a past meeting, or
    /// the policy forbids mails.
    pub(crate) kept: bool,
    /// It put off a write after many runs that could decide nothing, and says so.
    pub(crate) tired: bool,
    /// It stopped because automations answer each other.
    pub(crate) stopped: bool,
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
    let generations = tally.generations(world.swarm.delete_conflict);
    if tally.kind == Kind::Plain && outlook > 1 || salesforce > 1 || created > generations {
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
    if account.stopped {
        return if world.swarm.answering { Ok(()) } else { Err("S9: stopped although nothing goes round".to_owned()) };
    }
    if account.tired {
        return Ok(());
    }
    if account.let_go {
        return if tally.discards > 0 { Ok(()) } else { Err("L1: let go although nobody said so".to_owned()) };
    }
    if account.gave_up {
        return if tally.refused { Ok(()) } else { Err("L1: given up without a refusal".to_owned()) };
    }
    presence(world, meeting, (outlook, salesforce), flipped, account)?;
    if account.asks || flipped { Ok(()) } else { agreement(world, meeting, account) }
}

fn presence(
    world: &World,
    meeting: usize,
    (outlook, salesforce): (usize, usize),
    flipped: bool,
    account: &Account,
) -> Result<(), String> {
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
        let crosses = tally.kind == Kind::Organised && world.swarm.mail != MailPolicy::Never && !account.kept;
        if crosses && tally.deletes.salesforce > 0 && outlook > 0 && !organizer_gone {
            return Err("L1: deleted in Salesforce and not called off in Outlook".to_owned());
        }
        return Ok(());
    }
    let deleted = tally.deletes.outlook + tally.deletes.salesforce > tally.undone;
    let revives = world.swarm.delete_conflict == DeleteConflict::EditWins;
    let both_private = tally.flips.outlook > 0 && tally.flips.salesforce > 0;
    match (deleted, flipped, outlook + salesforce) {
        // A person wants it back, from the record that is not private.
        (false, true, 2) if both_private || tally.restored > 0 => Ok(()),
        (true, _, 2) if revives => Ok(()),
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
    let time = outlook.shown.fields.get("time").and_then(Value::as_when);
    let over = time.is_some_and(|when| when.over_at() < world.now);
    let crosses = match world.meetings[meeting].kind {
        Kind::Plain => true,
        Kind::Organised => world.swarm.mail != MailPolicy::Never && !over,
        Kind::Invited => false,
    };
    for (rule, field) in FIELDS.iter().enumerate() {
        let value = |row: &crate::world::Row, side| row.shown.fields.get(field_of(rule, side)).cloned();
        let (o, s) = (value(outlook, Side::Outlook), value(salesforce, Side::Salesforce));
        if o != s {
            // What does not flow back stays where a person put it.
            let one_way = !crosses || rule == 1 && world.swarm.location != Direction::Both;
            // A link that is made again after a backup takes what it finds of such a field as agreed.
            if one_way && (salesforce.by_person & 1 << rule != 0 || world.restored_at.is_some()) {
                continue;
            }
            return Err(format!("L1: `{}` differs", field.0));
        }
        let Some(journal) = &account.journal else { continue };
        let explained = |value: &Value| journal.iter().any(|kept| kept.0 == rule && kept.1 == *value);
        // What both sides are found to agree on after a backup was put back is in no row; nor is it told what they agreed
        // on when a write that should have been refused took its place.
        let forgets = world.restored_at.is_some() || world.meetings[meeting].unrefused > 0;
        if !forgets && o.as_ref().is_some_and(|value| !explained(value)) {
            return Err(format!("L5: no row of the journal explains `{}`", field.0));
        }
    }
    Ok(())
}

/// Judges what is limited over all meetings of a drained world.
pub(crate) fn limits(world: &World) -> Result<(), String> {
    let guard = world.swarm.limits.guard();
    // What was used up since a backup was made is forgotten with the database that it replaces.
    let forgotten =
        |at| world.backed_up_at.is_some_and(|from| at >= from) && world.restored_at.is_none_or(|until| at < until);
    let known = |uses: &[Use]| uses.iter().filter(|one| !forgotten(one.at)).cloned().collect::<Vec<_>>();
    let mails = known(&world.mails);
    if world.swarm.mail == MailPolicy::PersonEdits && crowded(&mails, Guard::MAILS_WITHIN, guard.mails_by_author) {
        return Err("M5: one author mailed people about more meetings in ten minutes than may be".to_owned());
    }
    // A copy of an invitation may count for another mailbox.
    let plain = |deletion: &&Use| world.meetings[deletion.meeting].kind == Kind::Plain;
    let deletions: Vec<Use> = known(&world.deletions).iter().filter(plain).cloned().collect();
    if crowded(&deletions, Guard::DELETES_WITHIN, guard.deletes_in_mailbox(3)) {
        return Err("S10: more meetings of a mailbox were deleted in an hour than may be".to_owned());
    }
    if !world.swarm.answering {
        return Ok(());
    }
    for tally in &world.meetings {
        let acts = |sides: &calbridge_core::side::BothSides<u32>| sides.outlook + sides.salesforce;
        let people = acts(&tally.edits) + acts(&tally.deletes) + acts(&tally.flips) - tally.automated;
        // What comes later than two minutes after our write counts as somebody's edit, where nobody tells whose it is.
        let late =
            if world.swarm.rates == world.swarm.rates.without_delays() { 0 } else { guard.unexplained_in_a_day + 2 };
        if acts(&tally.writes) > people + guard.unexplained_in_a_day + late {
            return Err("S9: automations went on answering each other".to_owned());
        }
    }
    Ok(())
}

/// Tells whether more meetings than a limit had an unapproved use within some time.
fn crowded(uses: &[Use], within: TimeDelta, limit: u32) -> bool {
    let unapproved = || uses.iter().filter(|one| !one.approved);
    unapproved().any(|last| {
        let lately = unapproved().filter(|one| one.at <= last.at && last.at - one.at < within);
        let meetings: BTreeSet<usize> = lately.map(|one| one.meeting).collect();
        meetings.len() > usize::try_from(limit).unwrap_or(usize::MAX)
    })
}
