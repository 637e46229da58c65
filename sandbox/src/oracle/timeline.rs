//! The states of each record over time, replayed from the history.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::Evidence;
use super::shown::Shown;
use crate::actor::Actor;
use crate::history::{Cloud, EffectKind};

/// Extended property in which the bridge keeps its stamp on Outlook events.
const STAMP_PROPERTY: &str = "String {b3c0f0a2-6f0d-4f6e-9d5e-2f6b7c1a9e44} Name calbridge";

/// Which record.
pub(super) type Key = (Cloud, String);

/// One record with everything that happened to it.
#[expect(clippy::struct_excessive_bools, reason = "each is one independent observation about the record")]
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: Key,
    /// iCalUId; empty for Salesforce.
    pub(super) ical_uid: String,
    /// Mailbox user id, or the Salesforce user who owns the row.
    pub(super) owner: String,
    /// States in order, one per effect.
    pub(super) states: Vec<State>,
    /// Whether it exists now.
    pub(super) live: bool,
    /// Whether this is the copy that speaks for the meeting (always so for Salesforce).
    pub(super) authority: bool,
    /// Link ids ever seen in its stamp.
    pub(super) links: Vec<String>,
    /// Ids of partner records ever seen in its stamp.
    pub(super) partners: Vec<String>,
    /// Whether it is private or has attendees now.
    pub(super) private: bool,
    pub(super) has_attendees: bool,
    /// Whether it is the organiser's copy, as far as the present states tell.
    pub(super) organizer: bool,
    /// What it shows now.
    pub(super) shown: Shown,
}

/// A record after an effect.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) sequence: u64,
    pub(super) at: DateTime<Utc>,
    pub(super) actor: Actor,
    pub(super) kind: EffectKind,
    pub(super) live: bool,
    pub(super) shown: Shown,
}

/// Replays the history; the present states complete what is known of stamps and of who is the organiser.
pub(super) fn replay(evidence: &Evidence) -> Vec<Record> {
    let present = present_states(evidence);
    let mut values: BTreeMap<Key, Map<String, Value>> = BTreeMap::new();
    let mut records: BTreeMap<Key, Record> = BTreeMap::new();
    // Rows of the invitation table are no meetings.
    for effect in evidence.effects.iter().filter(|effect| !effect.record.starts_with("0RE")) {
        let key = (effect.cloud, effect.record.clone());
        let known = values.entry(key.clone()).or_default();
        for (name, value) in &effect.changed {
            known.insert(name.clone(), value.clone());
        }
        let shown = shown(effect.cloud, known);
        let record = records.entry(key.clone()).or_insert_with(|| Record {
            ical_uid: effect.ical_uid.clone(),
            owner: effect.scope.clone(),
            states: Vec::new(),
            live: false,
            authority: effect.cloud == Cloud::Salesforce,
            links: Vec::new(),
            partners: Vec::new(),
            private: false,
            has_attendees: false,
            organizer: false,
            shown: shown.clone(),
            key,
        });
        record.live = match effect.kind {
            EffectKind::Delete => false,
            EffectKind::Create | EffectKind::Undelete => true,
            EffectKind::Update | EffectKind::Touch => record.live,
        };
        record.take(known);
        record.shown = shown.clone();
        record.states.push(State {
            sequence: effect.sequence,
            at: effect.at,
            actor: effect.actor.clone(),
            kind: effect.kind,
            live: record.live,
            shown,
        });
    }
    for (key, record) in &mut records {
        match present.get(key) {
            Some(now) => {
                record.live = !is_gone(now);
                record.take(now);
                record.shown = shown(key.0, now);
                record.organizer = now.get("isOrganizer").and_then(Value::as_bool).unwrap_or_default();
                record.authority |= record.organizer;
            }
            None => record.live = false,
        }
    }
    let mut records: Vec<Record> = records.into_values().filter(|record| !record.is_child(&values)).collect();
    choose_authorities(&mut records);
    records
}

fn present_states(evidence: &Evidence) -> BTreeMap<Key, Map<String, Value>> {
    let mut present = BTreeMap::new();
    for event in evidence.outlook.iter().filter_map(Value::as_object) {
        if let Some(id) = event.get("id").and_then(Value::as_str) {
            present.insert((Cloud::Outlook, id.to_owned()), event.clone());
        }
    }
    for row in evidence.salesforce.iter().filter_map(Value::as_object) {
        if let Some(id) = row.get("Id").and_then(Value::as_str) {
            present.insert((Cloud::Salesforce, id.to_owned()), row.clone());
        }
    }
    present
}

/// Where no present copy is the organiser's, the copy that came into being first speaks for the meeting.
fn choose_authorities(records: &mut [Record]) {
    let mut first: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    let mut settled: BTreeSet<String> = BTreeSet::new();
    for (index, record) in records.iter().enumerate().filter(|(_, record)| record.key.0 == Cloud::Outlook) {
        if record.authority {
            settled.insert(record.ical_uid.clone());
        }
        let began = record.states.first().map_or(u64::MAX, |state| state.sequence);
        let entry = first.entry(record.ical_uid.clone()).or_insert((began, index));
        if began < entry.0 {
            *entry = (began, index);
        }
    }
    for (uid, (_, index)) in first {
        if !settled.contains(&uid)
            && let Some(record) = records.get_mut(index)
        {
            record.authority = true;
        }
    }
}

fn shown(cloud: Cloud, values: &Map<String, Value>) -> Shown {
    match cloud {
        Cloud::Outlook => Shown::of_outlook(values),
        Cloud::Salesforce => Shown::of_salesforce(values),
    }
}

fn is_gone(values: &Map<String, Value>) -> bool {
    let flag = |key: &str| values.get(key).and_then(Value::as_bool).unwrap_or_default();
    flag("IsDeleted") || flag("isCancelled")
}

impl Record {
    /// Takes stamps and flags from values.
    fn take(&mut self, values: &Map<String, Value>) {
        let (link, partner) = match self.key.0 {
            Cloud::Outlook => outlook_stamp(values),
            Cloud::Salesforce => salesforce_stamp(values),
        };
        for (found, known) in [(link, &mut self.links), (partner, &mut self.partners)] {
            if let Some(found) = found.filter(|found| !found.is_empty())
                && !known.contains(&found)
            {
                known.push(found);
            }
        }
        if let Some(owner) = values.get("OwnerId").and_then(Value::as_str) {
            owner.clone_into(&mut self.owner);
        }
        let sensitivity = values.get("sensitivity").and_then(Value::as_str).unwrap_or("normal");
        self.private = matches!(sensitivity.to_ascii_lowercase().as_str(), "private" | "confidential")
            || values.get("IsPrivate").and_then(Value::as_bool).unwrap_or_default();
        self.has_attendees =
            values.get("attendees").and_then(Value::as_array).is_some_and(|attendees| !attendees.is_empty());
    }

    fn is_child(&self, values: &BTreeMap<Key, Map<String, Value>>) -> bool {
        values.get(&self.key).and_then(|row| row.get("IsChild")).and_then(Value::as_bool).unwrap_or_default()
    }
}

/// `v1;<link id>;<partner record id>;<write token>` in the extended property.
fn outlook_stamp(values: &Map<String, Value>) -> (Option<String>, Option<String>) {
    let properties = values.get("singleValueExtendedProperties").and_then(Value::as_array);
    let ours = properties.into_iter().flatten().find(|property| {
        property.get("id").and_then(Value::as_str).is_some_and(|id| id.eq_ignore_ascii_case(STAMP_PROPERTY))
    });
    ours.and_then(|property| property.get("value")).and_then(Value::as_str).map(parse_stamp).unwrap_or_default()
}

/// The link id has a field of its own; the token field may hold a whole stamp.
fn salesforce_stamp(values: &Map<String, Value>) -> (Option<String>, Option<String>) {
    let text = |key: &str| values.get(key).and_then(Value::as_str);
    let (stamped, partner) = text("Calbridge_Token__c").map(parse_stamp).unwrap_or_default();
    (text("Calbridge_Link__c").map(str::to_owned).or(stamped), partner)
}

fn parse_stamp(text: &str) -> (Option<String>, Option<String>) {
    let mut parts = text.split(';');
    if parts.next() != Some("v1") {
        return (None, None);
    }
    (parts.next().map(str::to_owned), parts.next().map(str::to_owned))
}
