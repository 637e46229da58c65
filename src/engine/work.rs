//! One lane on its way through a run: what was claimed, read, looked up and planned for it.

use std::collections::{BTreeMap, BTreeSet};

use calbridge_core::case::{Answer, Case, Enrolment, Fresh, Lookup};
use calbridge_core::ids::{ConnectionId, LinkId, RecordId, WriteToken};
use calbridge_core::observed::{Observed, Why};
use calbridge_core::plan::{Alias, Plan, aliases};
use calbridge_core::side::Side;
use uuid::Uuid;

use crate::engine::facts;
use crate::mistakes::{Mistake, is_made};
use crate::ports::Claim;

/// One lane on its way through a run.
pub(super) struct Work {
    pub(super) claim: Claim,
    pub(super) reads: BTreeMap<RecordId, Observed>,
    pub(super) lookups: Vec<(Lookup, Answer)>,
    pub(super) fresh: Fresh,
    pub(super) plan: Option<Plan>,
    pub(super) calls: u32,
}

impl Work {
    pub(super) fn new(claim: Claim) -> Self {
        let fresh = Fresh {
            link: LinkId::new(Uuid::now_v7()),
            outlook: WriteToken::new(Uuid::now_v7()),
            salesforce: WriteToken::new(Uuid::now_v7()),
        };
        Self { claim, reads: BTreeMap::new(), lookups: Vec::new(), fresh, plan: None, calls: 0 }
    }

    /// Returns the records that the lane needs and has not read.
    pub(super) fn unread(&self) -> Vec<RecordId> {
        let noticed = self.claim.notices.iter().map(|row| &row.notice.record);
        let replicas = self.claim.link.iter().flat_map(|link| Side::BOTH.map(|side| link.replicas.get(side).as_ref()));
        let linked = replicas.flatten().map(|replica| &replica.record);
        let wanted: BTreeSet<&RecordId> = noticed.chain(linked).collect();
        wanted.into_iter().filter(|record| !self.reads.contains_key(*record)).cloned().collect()
    }

    /// Returns names found in the records that the lane may not be known by yet.
    pub(super) fn new_names(&self, connection: &ConnectionId) -> Vec<Alias> {
        let mut names = aliases(&self.case(connection, &[]));
        names.retain(|name| match (name, &self.claim.link) {
            (Alias::Record(_), _) => false,
            (Alias::Stamp(id), Some(link)) => *id != link.id,
            (Alias::ICalUid(uid, start), Some(link)) => *uid != link.ical_uid || *start != link.original_start,
            (Alias::Stamp(_) | Alias::ICalUid(..), None) => true,
        });
        names
    }

    pub(super) fn case(&self, connection: &ConnectionId, enrolments: &[Enrolment]) -> Case {
        Case {
            connection: connection.clone(),
            link: self.claim.link.clone(),
            reads: self.reads.clone(),
            notices: self.claim.notices.iter().map(|row| row.notice.clone()).collect(),
            enrolments: enrolments.to_vec(),
            lookups: self.lookups.clone(),
            facts: if is_made(Mistake::ForgetsFacts) {
                Vec::new()
            } else {
                facts::whole(&self.claim.facts, self.claim.link.as_ref())
            },
            instruction: self.claim.instruction,
            tries: self.claim.tries,
        }
    }

    /// Moves answered reads to the other reads, so that the journal and the aliases see them.
    pub(super) fn take_reads(&mut self) {
        for (lookup, answer) in &self.lookups {
            if let (Lookup::Read(_), Answer::Found(found)) = (lookup, answer) {
                self.reads.extend(found.iter().cloned());
            }
        }
    }

    /// Returns the span of this change, with the ids by which logs are searched.
    pub(super) fn span(&self) -> tracing::Span {
        let first = self.claim.notices.first();
        let link = self.plan.as_ref().and_then(|plan| plan.next.as_ref()).or(self.claim.link.as_ref());
        let record = |side: Side| {
            let linked = link.and_then(|link| link.replicas.get(side).as_ref()).map(|replica| &replica.record);
            let noticed = self.claim.notices.iter().map(|row| &row.notice.record).find(|record| record.side() == side);
            linked.or(noticed).map(|record| record.remote_id().to_owned())
        };
        let version = first.and_then(|row| row.notice.versions.last());
        tracing::info_span!(
            "sync",
            meeting.id = link.map(|link| tracing::field::display(link.id)),
            change.side = first.map(|row| row.notice.record.side().name()),
            change.version = version.map(tracing::field::debug),
            outlook.event_id = record(Side::Outlook),
            salesforce.record_id = record(Side::Salesforce),
        )
    }

    /// Returns why something could not be read or looked up, for the story of the meeting.
    pub(super) fn failure(&self) -> Option<&Why> {
        let read = self.reads.values().find_map(|observed| match observed {
            Observed::Unread(why) => Some(why),
            Observed::Present(_) | Observed::Absent(_) => None,
        });
        read.or_else(|| {
            self.lookups.iter().find_map(|(_, answer)| match answer {
                Answer::Failed(why) => Some(why),
                Answer::Found(_) | Answer::Counted(_) => None,
            })
        })
    }

    pub(super) fn has_steps(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| !plan.steps.is_empty())
    }
}
