//! Which records belong to one meeting.
//!
//! Stamps decide. A bridge stamps only the side that it writes, so a record that it created may name a link that its source
//! does not bear: then the source is the record of the other cloud that looked like it when it was created.

use std::collections::{BTreeMap, BTreeSet};

use super::shown::{Field, Shown, Times};
use super::timeline::Record;
use super::{Evidence, Terms};
use crate::history::{Cloud, EffectKind};

/// The cloud of a record and what must be equal in both clouds for two records to look alike.
type Look = (Cloud, (String, String, Times));

/// Indices of records that are one meeting.
pub(super) type Group = Vec<usize>;

/// Joins records that share an iCalUId or a link id, name one another as partners, or are a known pair.
pub(super) fn assemble(records: &[Record], evidence: &Evidence, terms: &Terms) -> Vec<Group> {
    let mut sets = Sets::of(records);
    let mut by_word: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        let mut words = vec![("record", record_word(record.key.0, &record.key.1))];
        if !record.ical_uid.is_empty() {
            words.push(("uid", record.ical_uid.clone()));
        }
        words.extend(record.links.iter().map(|link| ("link", link.to_ascii_lowercase())));
        let other = record.key.0.other();
        words.extend(record.partners.iter().map(|partner| ("record", record_word(other, partner))));
        for word in words {
            let first = *by_word.entry(word).or_insert(index);
            sets.join(first, index);
        }
    }
    for (outlook, salesforce) in &terms.pairs {
        let find = |cloud, id: &str| by_word.get(&("record", record_word(cloud, id))).copied();
        if let (Some(one), Some(two)) = (find(Cloud::Outlook, outlook), find(Cloud::Salesforce, salesforce)) {
            sets.join(one, two);
        }
    }
    join_sources(records, evidence, terms, &mut sets);
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for index in 0..records.len() {
        groups.entry(sets.root(index)).or_default().push(index);
    }
    groups.into_values().collect()
}

/// Joins each record that the bridge created, and that is still alone, with its source.
fn join_sources(records: &[Record], evidence: &Evidence, terms: &Terms, sets: &mut Sets) {
    let mut sources: BTreeMap<Look, BTreeSet<usize>> = BTreeMap::new();
    let mut copies: Vec<(u64, usize)> = Vec::new();
    for (index, record) in records.iter().enumerate() {
        match record.states.first() {
            Some(first) if first.kind == EffectKind::Create && terms.is_bridge(&first.actor) => {
                copies.push((first.sequence, index));
            }
            _ if record.authority => {
                for state in &record.states {
                    sources.entry((record.key.0, state.shown.look())).or_default().insert(index);
                }
            }
            _ => {}
        }
    }
    copies.sort_unstable();
    for (sequence, index) in copies {
        let copy = &records[index];
        let other = copy.key.0.other();
        if sets.reaches(index, other) {
            continue;
        }
        let Some(first) = copy.states.first() else { continue };
        let candidates = sources.get(&(other, first.shown.look())).into_iter().flatten().copied();
        let looked_alike = |candidate: usize| {
            records[candidate]
                .states
                .iter()
                .any(|state| state.sequence < sequence && all_agree(&state.shown, &first.shown, other))
        };
        let best = candidates.filter(|candidate| looked_alike(*candidate)).min_by_key(|candidate| {
            let source = &records[*candidate];
            let stranger = !evidence.same_person(&source.owner, &copy.owner);
            let now_differs = !all_agree(&source.shown, &copy.shown, other);
            (
                stranger,
                sets.reaches(*candidate, copy.key.0),
                now_differs,
                source.states.first().map(|state| state.sequence),
            )
        });
        if let Some(source) = best {
            sets.join(source, index);
        }
    }
}

fn all_agree(source: &Shown, copy: &Shown, source_cloud: Cloud) -> bool {
    Field::ALL.iter().all(|field| match source_cloud {
        Cloud::Outlook => Shown::agrees(source, copy, *field),
        Cloud::Salesforce => Shown::agrees(copy, source, *field),
    })
}

/// Salesforce ids are the same in 15 and 18 characters.
fn record_word(cloud: Cloud, id: &str) -> String {
    match cloud {
        Cloud::Outlook => format!("o:{id}"),
        Cloud::Salesforce => format!("s:{}", id.chars().take(15).collect::<String>()),
    }
}

/// Disjoint sets of indices, each with the clouds that its records are in.
struct Sets {
    parents: Vec<usize>,
    clouds: Vec<BTreeSet<Cloud>>,
}

impl Sets {
    fn of(records: &[Record]) -> Self {
        Self {
            parents: (0..records.len()).collect(),
            clouds: records.iter().map(|record| BTreeSet::from([record.key.0])).collect(),
        }
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }

    fn join(&mut self, one: usize, two: usize) {
        let (one, two) = (self.root(one), self.root(two));
        if one == two {
            return;
        }
        let (parent, child) = (one.min(two), one.max(two));
        self.parents[child] = parent;
        let clouds = std::mem::take(&mut self.clouds[child]);
        self.clouds[parent].extend(clouds);
    }

    /// Tells whether the set of a record has records in a cloud.
    fn reaches(&mut self, index: usize, cloud: Cloud) -> bool {
        let root = self.root(index);
        self.clouds[root].contains(&cloud)
    }
}
