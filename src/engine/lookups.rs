//! Answers what plans ask for: reads, searches, and counts of what other meetings used up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::RecordId;
use calbridge_core::observed::{Observed, Why};
use calbridge_core::side::Side;

use crate::engine::execute::Executor;
use crate::points::{Point, pass};
use crate::ports::{Calendar, CensusQuestion};
use crate::telemetry::events;

impl Executor {
    /// Reads records, those of one side in as few calls as that side allows.
    pub(super) async fn fetch(&self, records: BTreeSet<RecordId>) -> BTreeMap<RecordId, Observed> {
        let (outlook, salesforce): (Vec<_>, Vec<_>) = records.into_iter().partition(|r| r.side() == Side::Outlook);
        let read = async |calendar: &Arc<dyn Calendar>, records: Vec<RecordId>| {
            if records.is_empty() {
                return Vec::new();
            }
            let observed = calendar.fetch(&records).await;
            tell_unread(&records, &observed);
            records.into_iter().zip(observed).collect::<Vec<_>>()
        };
        let (outlook, salesforce) =
            tokio::join!(read(&self.calendars.outlook, outlook), read(&self.calendars.salesforce, salesforce));
        outlook.into_iter().chain(salesforce).collect()
    }

    /// Answers look-ups; one that cannot be answered now says why.
    pub(super) async fn look_up(&self, wanted: BTreeSet<Lookup>) -> BTreeMap<Lookup, Answer> {
        let records = wanted.iter().filter_map(|lookup| match lookup {
            Lookup::Read(record) => Some(record.clone()),
            Lookup::Stamped { .. } | Lookup::Partners { .. } | Lookup::Candidates { .. } | Lookup::Census { .. } => {
                None
            }
        });
        let reads = self.fetch(records.collect()).await;
        let mut answers: BTreeMap<Lookup, Answer> = reads
            .into_iter()
            .map(|(record, observed)| (Lookup::Read(record.clone()), Answer::Found(vec![(record, observed)])))
            .collect();
        for side in Side::BOTH {
            let searches: Vec<Lookup> =
                wanted.iter().filter(|lookup| searched_side(lookup) == Some(side)).cloned().collect();
            if searches.is_empty() {
                continue;
            }
            pass(Point::BeforeSearch);
            let found = self.calendars.get(side).search(&searches).await;
            pass(Point::AfterSearch);
            for (lookup, answer) in searches.into_iter().zip(found) {
                let answer = self.without_linked(&lookup, answer).await;
                answers.insert(lookup, answer);
            }
        }
        self.count(&wanted, &mut answers).await;
        answers
    }

    /// Answers the questions about what other meetings have used up.
    async fn count(&self, wanted: &BTreeSet<Lookup>, answers: &mut BTreeMap<Lookup, Answer>) {
        let questions: Vec<(&Lookup, CensusQuestion)> = wanted
            .iter()
            .filter_map(|lookup| match lookup {
                Lookup::Census { link, mailbox, author } => {
                    Some((lookup, CensusQuestion { link: *link, mailbox: mailbox.clone(), author: author.clone() }))
                }
                Lookup::Read(_) | Lookup::Stamped { .. } | Lookup::Partners { .. } | Lookup::Candidates { .. } => None,
            })
            .collect();
        if questions.is_empty() {
            return;
        }
        let (lookups, questions): (Vec<&Lookup>, Vec<CensusQuestion>) = questions.into_iter().unzip();
        match self.store.census(&self.connection, &questions, self.clock.now()).await {
            Ok(counted) => {
                answers.extend(lookups.into_iter().cloned().zip(counted.into_iter().map(Answer::Counted)));
            }
            Err(error) => {
                let why = Why { code: error.code().to_owned(), message: error.to_string(), retry_after_ms: None };
                answers.extend(lookups.into_iter().map(|lookup| (lookup.clone(), Answer::Failed(why.clone()))));
            }
        }
    }

    /// Leaves out candidates that are one side of a link already: their own record need not show it.
    async fn without_linked(&self, lookup: &Lookup, answer: Answer) -> Answer {
        let (Lookup::Candidates { .. }, Answer::Found(found)) = (lookup, &answer) else { return answer };
        let mut found = found.clone();
        let records: Vec<RecordId> = found.iter().map(|(record, _)| record.clone()).collect();
        match self.store.linked(&self.connection, &records).await {
            Ok(linked) => {
                found.retain(|(record, _)| !linked.contains(record));
                Answer::Found(found)
            }
            Err(error) => {
                Answer::Failed(Why { code: error.code().to_owned(), message: error.to_string(), retry_after_ms: None })
            }
        }
    }
}

/// Tells logs and metrics of the reads of one call that failed.
fn tell_unread(records: &[RecordId], observed: &[Observed]) {
    let unread = observed.iter().filter_map(|observed| match observed {
        Observed::Unread(why) => Some(why),
        Observed::Present(_) | Observed::Absent(_) => None,
    });
    let unread: Vec<&Why> = unread.collect();
    if let (Some(record), Some(why)) = (records.first(), unread.first()) {
        events::reads_failed(record.side(), unread.len() as u64, &why.code, &why.message);
    }
}

/// Returns the answer to a look-up that nobody answered.
pub(super) fn unanswered() -> Answer {
    Answer::Failed(Why { code: "CB1200".to_owned(), message: "not answered".to_owned(), retry_after_ms: None })
}

fn searched_side(lookup: &Lookup) -> Option<Side> {
    match lookup {
        Lookup::Read(_) | Lookup::Census { .. } => None,
        Lookup::Stamped { side, .. } | Lookup::Partners { side, .. } | Lookup::Candidates { side, .. } => Some(*side),
    }
}
