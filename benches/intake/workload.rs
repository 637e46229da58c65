//! The workload of every part of the benchmark: the same signals, in the same order, from the same seed.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Seed of all choices.
const SEED: u64 = 11;
/// How far back a redelivered message may lie.
const REDELIVERED_WITHIN: usize = 20_000;

/// How much of what.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Workload {
    /// Messages on the hub, each with one signal.
    pub(crate) signals: usize,
    /// Records that they are about.
    pub(crate) records: usize,
    /// Percent of the messages that repeat an earlier one.
    pub(crate) redelivered_percent: usize,
    /// Mailboxes that the records are in.
    pub(crate) mailboxes: usize,
    /// Partitions of the hub.
    pub(crate) partitions: usize,
}

impl Default for Workload {
    fn default() -> Self {
        Self { signals: 200_000, records: 20_000, redelivered_percent: 20, mailboxes: 1_000, partitions: 4 }
    }
}

/// One notification: a version of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) record: usize,
    pub(crate) version: usize,
    pub(crate) again: bool,
}

impl Workload {
    /// Returns all changes, in the order of the stream.
    pub(crate) fn changes(self) -> Vec<Change> {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut versions = vec![0_usize; self.records];
        let mut changes: Vec<Change> = Vec::with_capacity(self.signals);
        for number in 0..self.signals {
            let repeats = number > 0 && random.random_range(0..100) < self.redelivered_percent;
            if repeats {
                let earlier = random.random_range(number.saturating_sub(REDELIVERED_WITHIN)..number);
                changes.push(Change { again: true, ..changes[earlier] });
                continue;
            }
            let record = random.random_range(0..self.records);
            versions[record] += 1;
            changes.push(Change { record, version: versions[record], again: false });
        }
        changes
    }

    /// Returns the mailbox of a record: a user id, as Graph gives them.
    pub(crate) fn mailbox(self, record: usize) -> String {
        mailbox(record % self.mailboxes)
    }

    /// Returns the id of an event, as long as Graph's immutable ids are.
    pub(crate) fn event(record: usize) -> String {
        let pad = "QkAGUyMWM5LTRmNzQtYjNkMy1hMWQ5MGJkODg2NjEARgAAAAABZ2FsZW5kYXI".repeat(2);
        format!("AAMk{pad}{record:08}AAA=")
    }

    /// Returns a change key of a record.
    pub(crate) fn change_key(change: Change) -> String {
        format!("DwAAABYAAAD{:08}{:06}AAAA", change.record, change.version)
    }
}

/// Returns the user id of a mailbox.
pub(crate) fn mailbox(number: usize) -> String {
    format!("5d1c0000-0000-4000-8000-{number:012x}")
}

/// Writes the message of a change as Graph puts it on a hub.
pub(crate) fn message(workload: Workload, change: Change, client_state: &str, tenant: &str) -> Vec<u8> {
    let (mailbox, event) = (workload.mailbox(change.record), Workload::event(change.record));
    let resource = format!("Users/{mailbox}/Events/{event}");
    let body = json!({"value": [{
        "subscriptionId": "7f105c7d-2dc5-4530-97cd-4e7ae6534c07",
        "subscriptionExpirationDateTime": "2026-11-24T09:00:00.0000000Z",
        "changeType": "updated",
        "resource": resource,
        "resourceData": {
            "@odata.type": "#Microsoft.Graph.Event",
            "@odata.id": resource,
            "@odata.etag": format!("W/\"{}\"", Workload::change_key(change)),
            "id": event,
        },
        "clientState": client_state,
        "tenantId": tenant,
    }]});
    body.to_string().into_bytes()
}
