//! Holds the sandbox's history against the engine's journal: does every write have a cause, is every value somewhere?
//!
//! The sandbox's oracle judges what both sides show; what stands in the journal it cannot see. Values are recognised by the
//! marks of `people.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use calbridge::ports::{JournalEntry, JournalKind, TraceQuery};
use calbridge_core::reason::Reason;
use calbridge_sandbox::history::{Cloud, Effect, EffectKind};
use chrono::DateTime;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Rehearsal;
use super::people::Part;

/// Extended property in which the engine keeps its stamp on Outlook events; the GUID of `docs/PROTOCOLS.md`.
const STAMP: &str = "Name calbridge";

/// Real time after which a change event that has not come counts as lost.
const TOLD_WITHIN: Duration = Duration::from_secs(6);

/// Values of people that are nowhere any more.
#[derive(Debug, Default)]
pub(crate) struct Disappeared {
    /// Against the promise.
    pub(crate) lost: Vec<String>,
    /// Overwritten in Salesforce between the read and the write that was based on it, and not told afterwards.
    pub(crate) unseen: Vec<String>,
}

/// Both books, side by side.
pub(crate) struct Ledger {
    effects: Vec<Effect>,
    /// Journal rows by number, of every record that anything happened to.
    journal: BTreeMap<i64, JournalEntry>,
    /// Numbers of the journal rows that a record's id leads to.
    of_record: BTreeMap<String, BTreeSet<i64>>,
}

impl Ledger {
    /// Reads both.
    pub(crate) async fn read(rehearsal: &Rehearsal) -> Self {
        let effects = rehearsal.sandbox.world().history.since(0);
        let store = rehearsal.store().await;
        let (mut journal, mut of_record) = (BTreeMap::new(), BTreeMap::new());
        let records: BTreeSet<&String> = effects.iter().map(|effect| &effect.record).collect();
        for record in records {
            let found = store.trace(&TraceQuery::Text(record.clone()), 20).await.expect("the database answers");
            let rows: Vec<JournalEntry> = found.into_iter().flat_map(|traced| traced.journal).collect();
            of_record.insert(record.clone(), rows.iter().map(|row| row.sequence).collect());
            journal.extend(rows.into_iter().map(|row| (row.sequence, row)));
        }
        Self { effects, journal, of_record }
    }

    /// Reads both once the change events of the last writes have told what these covered, or have had time to.
    pub(crate) async fn read_when_told(rehearsal: &Rehearsal) -> Self {
        let until = Instant::now() + TOLD_WITHIN;
        loop {
            let ledger = Self::read(rehearsal).await;
            if ledger.values_that_disappeared().unseen.is_empty() || Instant::now() > until {
                return ledger;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Lists writes of the engine without a cause in the journal, and writes that took effect twice.
    pub(crate) fn writes_without_cause(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut counted: BTreeMap<String, u32> = BTreeMap::new();
        for effect in self.effects.iter().filter(|effect| effect.actor.is_app()) {
            let cause = self.cause_of(effect);
            let name = match token_of(effect).filter(|_| effect.kind != EffectKind::Delete) {
                Some(token) => format!("write {token}"),
                None => format!("{:?} of {}", effect.kind, effect.record),
            };
            if cause.is_none() {
                wrong.push(format!("no cause: {effect:?}"));
            }
            let count = counted.entry(name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                wrong.push(format!("{name} took effect {count} times: {effect:?}"));
            }
        }
        wrong
    }

    /// Lists values of people that are neither in place, nor replaced by people, nor shown on the other side, nor in the
    /// journal.
    ///
    /// Apart from the others stand those that Salesforce let a write of the engine overwrite although they came after the
    /// read on which that write was based: the change events tell them, so the journal has them a little later.
    pub(crate) fn values_that_disappeared(&self) -> Disappeared {
        let mut gone = Disappeared::default();
        for (place, edit) in self.effects.iter().enumerate().filter(|(_, effect)| effect.actor.is_person()) {
            for part in Part::ALL {
                let Some(mark) = mark_in(&edit.changed, edit.cloud, part) else { continue };
                if self.is_shown(edit.cloud.other(), part, &mark) || self.is_journaled(&edit.record, &mark) {
                    continue;
                }
                // In place, and alone there: the oracle knows whether it should have crossed.
                let Some(fate) = self.effects[place + 1..].iter().find(|later| replaces(later, edit, part)) else {
                    continue;
                };
                if fate.actor.is_app() {
                    let told = format!("{mark} of {edit:?} was replaced by {fate:?}");
                    let list = if self.came_unseen(edit, fate) { &mut gone.unseen } else { &mut gone.lost };
                    list.push(told);
                }
            }
        }
        gone
    }

    /// Returns how many mails the journal expects Exchange to have sent.
    pub(crate) fn mails_expected(&self) -> u64 {
        self.journal.values().map(|row| u64::from(row.mails)).sum()
    }

    /// Returns how many edits people made on a side.
    pub(crate) fn edits(&self, cloud: Cloud) -> usize {
        self.effects.iter().filter(|effect| effect.cloud == cloud && effect.actor.is_person()).count()
    }

    /// Returns how many values the journal tells as overwritten unseen.
    pub(crate) fn told_as_overwritten(&self) -> usize {
        let told = |row: &&JournalEntry| row.reasons == [Reason::OverwrittenUnseen] && !row.images.is_empty();
        self.journal.values().filter(told).count()
    }

    /// Tells whether a Salesforce edit is younger than the version that the write over it was made from.
    fn came_unseen(&self, edit: &Effect, write: &Effect) -> bool {
        let Some(cause) = self.cause_of(write).filter(|_| edit.cloud == Cloud::Salesforce) else { return false };
        let read = cause.versions.iter().find_map(|version| version.strip_prefix("salesforce "));
        let read = read.and_then(|at| DateTime::parse_from_rfc3339(at).ok());
        let edited = DateTime::parse_from_str(&edit.version, "%Y-%m-%dT%H:%M:%S%.3f%z").ok();
        read.zip(edited).is_some_and(|(read, edited)| read < edited)
    }

    /// Finds the journal row that announced a write.
    fn cause_of(&self, write: &Effect) -> Option<&JournalEntry> {
        let mut rows =
            self.rows_of(&write.record).filter(|row| row.kind == JournalKind::Intended && !row.reasons.is_empty());
        if write.kind == EffectKind::Delete {
            let about = |row: &&JournalEntry| {
                row.fields.is_empty() && row.record.as_ref().is_some_and(|record| record.remote_id() == write.record)
            };
            return rows.find(about);
        }
        let token = token_of(write)?;
        rows.find(|row| row.token.is_some_and(|known| known.to_string() == token))
    }

    /// Lists values of people on living, linked records that the other side does not show.
    pub(crate) fn values_that_did_not_cross(&self, rehearsal: &Rehearsal) -> Vec<String> {
        let report = rehearsal.sandbox.oracle();
        let mut held = Vec::new();
        for meeting in &report.meetings {
            for part in Part::ALL {
                let outlook = self.last_marks(Cloud::Outlook, &meeting.outlook, part);
                let salesforce = self.last_marks(Cloud::Salesforce, &meeting.salesforce, part);
                // Copies of guests follow the organiser's, so a side shows one mark. Bodies flow to Salesforce only: there,
                // what a person wrote afterwards stays.
                let crossed = match part {
                    Part::Body => outlook.iter().all(|mark| self.is_shown(Cloud::Salesforce, part, mark)),
                    Part::Subject | Part::Time | Part::Place => outlook == salesforce,
                };
                if !outlook.is_empty() && !salesforce.is_empty() && !crossed {
                    held.push(format!(
                        "{part:?}: {outlook:?} in Outlook, {salesforce:?} in Salesforce, of {meeting:?}"
                    ));
                }
            }
        }
        held
    }

    /// Returns what the living records among these show of a part.
    fn last_marks(&self, cloud: Cloud, records: &[String], part: Part) -> BTreeSet<String> {
        let mut marks = BTreeSet::new();
        for record in records {
            let mut last = None;
            for effect in self.effects.iter().filter(|effect| effect.cloud == cloud && effect.record == *record) {
                match effect.kind {
                    EffectKind::Delete => last = None,
                    _ => last = mark_in(&effect.changed, cloud, part).or(last),
                }
            }
            marks.extend(last);
        }
        marks
    }

    fn rows_of(&self, record: &str) -> impl Iterator<Item = &JournalEntry> {
        self.of_record.get(record).into_iter().flatten().filter_map(|number| self.journal.get(number))
    }

    fn is_shown(&self, cloud: Cloud, part: Part, mark: &str) -> bool {
        let here = |effect: &&Effect| effect.cloud == cloud;
        self.effects.iter().filter(here).any(|effect| mark_in(&effect.changed, cloud, part).as_deref() == Some(mark))
    }

    fn is_journaled(&self, record: &str, mark: &str) -> bool {
        self.rows_of(record).any(|row| {
            let images = serde_json::to_string(&row.images).expect("images are plain data");
            images.contains(mark)
        })
    }
}

/// Tells whether an effect takes a value away that an earlier one gave.
fn replaces(later: &Effect, edit: &Effect, part: Part) -> bool {
    let same = later.cloud == edit.cloud && later.record == edit.record;
    same && (later.kind == EffectKind::Delete || later.changed.contains_key(part.field(edit.cloud)))
}

/// Finds the mark in the value of a part.
fn mark_in(values: &serde_json::Map<String, Value>, cloud: Cloud, part: Part) -> Option<String> {
    let text = values.get(part.field(cloud))?.to_string();
    if part == Part::Time {
        let at = text.find("\"20")? + 1;
        return text.get(at..at + 10).map(str::to_owned);
    }
    let letter = part.mark(0).as_bytes()[0];
    let is_mark = |window: &[u8]| window[0] == letter && window[1..].iter().all(u8::is_ascii_digit);
    let at = text.as_bytes().windows(5).position(is_mark)?;
    text.get(at..at + 5).map(str::to_owned)
}

/// Reads the write token from the stamp that an effect left.
fn token_of(effect: &Effect) -> Option<String> {
    let stamp = match effect.cloud {
        Cloud::Salesforce => effect.changed.get("Calbridge_Token__c")?.as_str()?.to_owned(),
        Cloud::Outlook => {
            let properties = effect.changed.get("singleValueExtendedProperties")?;
            let list = properties.as_array()?;
            let ours = list.iter().find(|property| property["id"].as_str().is_some_and(|id| id.contains(STAMP)))?;
            ours["value"].as_str()?.to_owned()
        }
    };
    stamp.rsplit(';').next().map(str::to_owned)
}
