//! A live look at a record that calbridge never heard of: what would happen to it, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use calbridge_core::case::{Answer, Case, Census, Enrolment, Fresh, Lookup};
use calbridge_core::ids::{LinkId, RecordId, SalesforceId, WriteToken};
use calbridge_core::observed::Observed;
use calbridge_core::plan::{Outcome, Planned, plan};
use calbridge_core::policy::{Policy, Rules};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use uuid::Uuid;

use super::build::{StartError, adapters};
use crate::config::Config;
use crate::ports::{Calendar, Clock, Store};

/// Rounds of look-ups that a decision may need.
const MOST_ROUNDS: usize = 4;

/// What a live look found.
#[derive(Debug, Clone)]
pub enum Looked {
    /// The record is there; this is what a run would decide now.
    There {
        /// The record.
        record: RecordId,
        /// How the run would end.
        outcome: Outcome,
        /// Reasons, the deciding one first.
        reasons: Vec<Reason>,
    },
    /// A remote could not be asked.
    Unread {
        /// Stable error code.
        code: String,
        /// What happened, without personal content.
        message: String,
    },
    /// No enrolled mailbox and not the org has it.
    Nowhere,
}

/// Looks for an Outlook event id in every enrolled mailbox, or for a Salesforce id in the org; writes nothing.
///
/// # Errors
/// [`StartError`] when not even a call can be made.
pub async fn look(config: &Config, clock: Arc<dyn Clock>, store: &dyn Store, id: &str) -> Result<Looked, StartError> {
    let calendars = adapters(config, &clock)?.calendars;
    let rows = store.enrolments(&config.connection).await?;
    let enrolments: Vec<Enrolment> = rows.into_iter().map(|row| row.enrolment).collect();
    let records: Vec<RecordId> = match SalesforceId::parse(id) {
        Ok(id) => vec![RecordId::Salesforce(id)],
        Err(_) => enrolments
            .iter()
            .map(|enrolment| RecordId::Outlook { mailbox: enrolment.mailbox.clone(), event: id.to_owned() })
            .collect(),
    };
    let Some(side) = records.first().map(RecordId::side) else { return Ok(Looked::Nowhere) };
    let seen = calendars.get(side).fetch(&records).await;
    let mut reads = BTreeMap::new();
    for (record, observed) in records.into_iter().zip(seen) {
        match observed {
            Observed::Present(_) => {
                reads.insert(record, observed);
            }
            Observed::Unread(why) => return Ok(Looked::Unread { code: why.code, message: why.message }),
            Observed::Absent(_) => {}
        }
    }
    let Some(record) = reads.keys().next().cloned() else { return Ok(Looked::Nowhere) };
    let mut case = Case {
        connection: config.connection.clone(),
        link: None,
        reads,
        notices: Vec::new(),
        enrolments,
        lookups: Vec::new(),
        facts: Vec::new(),
        instruction: None,
        tries: 0,
    };
    let policy = Policy { restored_at: store.restored_at(), ..config.policy.clone() };
    let rules = Rules { mapping: config.mapping.mapping.clone(), policy };
    let fresh = Fresh {
        link: LinkId::new(Uuid::now_v7()),
        outlook: WriteToken::new(Uuid::now_v7()),
        salesforce: WriteToken::new(Uuid::now_v7()),
    };
    for _ in 0..MOST_ROUNDS {
        match plan(&case, &rules, clock.now(), &fresh) {
            Planned::Plan(plan) => {
                return Ok(Looked::There { record, outcome: plan.outcome, reasons: plan.reasons });
            }
            Planned::Need(lookups) => {
                for lookup in lookups {
                    let answer = answer(&calendars.outlook, &calendars.salesforce, &lookup).await;
                    case.lookups.push((lookup, answer));
                }
            }
        }
    }
    Ok(Looked::There { record, outcome: Outcome::Wait, reasons: Vec::new() })
}

async fn answer(outlook: &Arc<dyn Calendar>, salesforce: &Arc<dyn Calendar>, lookup: &Lookup) -> Answer {
    let side = match lookup {
        Lookup::Read(record) => record.side(),
        Lookup::Stamped { side, .. } | Lookup::Partners { side, .. } | Lookup::Candidates { side, .. } => *side,
        // Only what is linked uses anything up, and here nothing is.
        Lookup::Census { .. } => return Answer::Counted(Census::default()),
    };
    let calendar = match side {
        Side::Outlook => outlook,
        Side::Salesforce => salesforce,
    };
    match lookup {
        Lookup::Read(record) => {
            let mut seen = calendar.fetch(std::slice::from_ref(record)).await;
            Answer::Found(seen.pop().map(|observed| (record.clone(), observed)).into_iter().collect())
        }
        Lookup::Stamped { .. } | Lookup::Partners { .. } | Lookup::Candidates { .. } | Lookup::Census { .. } => {
            let mut found = calendar.search(std::slice::from_ref(lookup)).await;
            found.pop().unwrap_or(Answer::Found(Vec::new()))
        }
    }
}
