//! The verdict on mails: which mails of the bridge no edit of a person on the Salesforce side explains.
//!
//! Automation, triggers and bulk loads are no persons. Each edit explains one mail of a kind: three writes for one edit are
//! two too many. An edit explains a write only if it came before and touched what the write changed.

use std::collections::{BTreeMap, BTreeSet};

use super::links::Group;
use super::timeline::Record;
use super::{Evidence, Terms, UnexplainedMail};
use crate::history::{Cloud, Effect, EffectKind};
use crate::mails::{Mail, MailKind};

/// What both clouds may change about a meeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Subject,
    Body,
    Time,
    Location,
}

/// Finds the mails that nobody's edit explains.
pub(super) fn unexplained(
    evidence: &Evidence,
    terms: &Terms,
    records: &[Record],
    groups: &[Group],
) -> Vec<UnexplainedMail> {
    let mut meeting_of: BTreeMap<&str, &Group> = BTreeMap::new();
    for group in groups {
        for record in group.iter().map(|index| &records[*index]).filter(|record| record.key.0 == Cloud::Outlook) {
            meeting_of.insert(&record.key.1, group);
        }
    }
    let effects: BTreeMap<u64, &Effect> = evidence.effects.iter().map(|effect| (effect.sequence, effect)).collect();
    let mut explained: BTreeSet<(MailKind, u64)> = BTreeSet::new();
    let mut found = Vec::new();
    for mail in evidence.mails.iter().filter(|mail| terms.is_bridge(&mail.actor)) {
        let write = effects.range(..=mail.sequence).rev().map(|(_, effect)| *effect).find(|effect| {
            effect.cloud == Cloud::Outlook && effect.record == mail.record && effect.actor == mail.actor
        });
        let edits: Vec<&Effect> = meeting_of
            .get(mail.record.as_str())
            .into_iter()
            .flat_map(|group| group.iter())
            .map(|index| &records[*index])
            .filter(|record| record.key.0 == Cloud::Salesforce)
            .flat_map(|record| &record.states)
            .filter(|state| state.actor.is_person() && state.kind != EffectKind::Touch)
            .filter(|state| state.sequence <= mail.sequence)
            .filter_map(|state| effects.get(&state.sequence).copied())
            .filter(|edit| write.is_none_or(|write| explains(edit, write)))
            .collect();
        let free = edits.iter().map(|edit| (mail.kind, edit.sequence)).filter(|key| !explained.contains(key)).min();
        match free {
            Some(key) => {
                explained.insert(key);
            }
            None => found.push(UnexplainedMail { mail: Mail::clone(mail), edits: edits.len() }),
        }
    }
    found
}

/// Tells whether a person's edit in Salesforce may be what a write in Outlook carries over.
fn explains(edit: &Effect, write: &Effect) -> bool {
    match (edit.kind, write.kind) {
        (EffectKind::Delete, kind) => kind == EffectKind::Delete,
        // Made private, a meeting leaves the other side.
        (EffectKind::Update, EffectKind::Delete) => edit.changed.contains_key("IsPrivate"),
        (_, EffectKind::Delete) => false,
        (EffectKind::Create | EffectKind::Undelete, _) | (_, EffectKind::Create) => true,
        _ => {
            let (theirs, ours) = (parts(edit), parts(write));
            ours.is_empty() || ours.iter().any(|part| theirs.contains(part))
        }
    }
}

fn parts(effect: &Effect) -> BTreeSet<Part> {
    let part = |name: &str| match name {
        "subject" | "Subject" => Some(Part::Subject),
        "body" | "Description" => Some(Part::Body),
        "location" | "Location" => Some(Part::Location),
        "start" | "end" | "isAllDay" | "recurrence" | "StartDateTime" | "EndDateTime" | "EndDate" | "ActivityDate"
        | "ActivityDateTime" | "DurationInMinutes" | "IsAllDayEvent" => Some(Part::Time),
        _ => None,
    };
    effect.changed.keys().filter_map(|name| part(name)).collect()
}
