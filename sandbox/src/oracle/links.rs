//! Which records belong to one meeting.

use std::collections::BTreeMap;

use super::Terms;
use super::timeline::Record;
use crate::history::Cloud;

/// Indices of records that are one meeting.
pub(super) type Group = Vec<usize>;

/// Joins records that share an iCalUId or a link id, name one another as partners, or are a known pair.
pub(super) fn assemble(records: &[Record], terms: &Terms) -> Vec<Group> {
    let mut sets = Sets::of(records.len());
    let mut by_word: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        let mut words = vec![("record", record_word(record.key.0, &record.key.1))];
        if !record.ical_uid.is_empty() {
            words.push(("uid", record.ical_uid.clone()));
        }
        words.extend(record.links.iter().map(|link| ("link", link.to_ascii_lowercase())));
        let other = match record.key.0 {
            Cloud::Outlook => Cloud::Salesforce,
            Cloud::Salesforce => Cloud::Outlook,
        };
        words.extend(
            record
                .partners
                .iter()
                .map(|partner| ("record", record_word(other, partner))),
        );
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
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for index in 0..records.len() {
        groups.entry(sets.root(index)).or_default().push(index);
    }
    groups.into_values().collect()
}

/// Salesforce ids are the same in 15 and 18 characters.
fn record_word(cloud: Cloud, id: &str) -> String {
    match cloud {
        Cloud::Outlook => format!("o:{id}"),
        Cloud::Salesforce => format!("s:{}", id.chars().take(15).collect::<String>()),
    }
}

/// Disjoint sets of indices.
struct Sets {
    parents: Vec<usize>,
}

impl Sets {
    fn of(length: usize) -> Self {
        Self {
            parents: (0..length).collect(),
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
        self.parents[one.max(two)] = one.min(two);
    }
}
