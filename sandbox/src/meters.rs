//! Counters that tests and people read: API calls by kind and caller, mails, notifications.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;

use crate::actor::Actor;

/// Counts what the clouds were asked and what they sent.
#[derive(Debug, Default)]
pub struct Meters {
    inner: Mutex<Counts>,
}

/// A reading of all counters.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// HTTP and gRPC calls, by caller id and then by kind such as `graph.get_event` or `salesforce.query`.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// Request units by caller: like calls, but each item of a `$batch` counts.
    pub units: BTreeMap<String, u64>,
    /// Requests refused because the caller went past a limit, by caller and then by limit, such as
    /// `graph.mailbox_concurrency` or `salesforce.requests_per_day`; injected faults do not count.
    pub refusals: BTreeMap<String, BTreeMap<String, u64>>,
    /// How often each fault struck, by the name of its switch or act; what tests do through handles does not count.
    pub faults: BTreeMap<String, u64>,
    /// Mails that Exchange would have sent, by caller id.
    pub mails: BTreeMap<String, u64>,
    /// Notifications published to the hub, redeliveries included.
    pub notifications: u64,
    /// Change events published by Salesforce.
    pub change_events: u64,
}

impl Meters {
    /// Counts one HTTP or gRPC call.
    pub fn call(&self, caller: &str, kind: &str) {
        let mut counts = self.lock();
        *counts.calls.entry(caller.to_owned()).or_default().entry(kind.to_owned()).or_default() += 1;
    }

    /// Counts request units: every item of a batch is one.
    pub fn units(&self, caller: &str, units: u64) {
        *self.lock().units.entry(caller.to_owned()).or_default() += units;
    }

    /// Counts a request that was refused for a limit.
    pub fn refused(&self, caller: &str, limit: &str) {
        let mut counts = self.lock();
        *counts.refusals.entry(caller.to_owned()).or_default().entry(limit.to_owned()).or_default() += 1;
    }

    /// Counts a fault that struck.
    pub(crate) fn struck(&self, fault: &str) {
        *self.lock().faults.entry(fault.to_owned()).or_default() += 1;
    }

    /// Counts mails that Exchange would send because of an act of `actor`.
    pub fn mails(&self, actor: &Actor, mails: u64) {
        if mails > 0 {
            *self.lock().mails.entry(actor.id().to_owned()).or_default() += mails;
        }
    }

    /// Counts notifications put on the hub.
    pub fn notifications(&self, count: u64) {
        self.lock().notifications += count;
    }

    /// Counts Salesforce change events.
    pub fn change_events(&self, count: u64) {
        self.lock().change_events += count;
    }

    /// Returns a copy of all counters.
    pub fn read(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.inner.lock().expect("no counter update panics while holding the lock")
    }
}
