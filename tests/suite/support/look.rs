//! What tests read of a rehearsal beyond its records: counters, switches, effects, traces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use calbridge::engine;
use calbridge::ports::{StoreStatus, TraceQuery};
use calbridge::trace;
use calbridge_core::case::Instruction;
use calbridge_core::link::Intent;
use calbridge_sandbox::faults::Switches;
use calbridge_sandbox::history::{Cloud, Effect};
use calbridge_sandbox::oracle::MeetingState;
use chrono::TimeDelta;
use serde_json::Value;

use super::meetings::id_of;
use super::{PATIENCE, Rehearsal, until_stored};

impl Rehearsal {
    /// Changes switches of the sandbox.
    pub(crate) fn switch(&self, change: impl FnOnce(&mut Switches)) {
        self.sandbox.world().faults.change(change);
    }

    /// Returns how many calls of a kind, such as `graph.get_event`, were made in all.
    pub(crate) fn calls(&self, kind: &str) -> u64 {
        let calls = self.sandbox.world().meters.read().calls;
        calls.values().filter_map(|kinds| kinds.get(kind)).sum()
    }

    /// Returns the number of mails that Exchange would have sent because of the engine.
    pub(crate) fn engine_mails(&self) -> u64 {
        let mails = self.sandbox.world().meters.read().mails;
        mails.get(&self.sandbox.endpoints().microsoft.client_id).copied().unwrap_or_default()
    }

    /// Answers everything that is held, as `calbridge holds` does; returns how many there were.
    pub(crate) async fn answer_holds(&self, instruction: Instruction) -> u64 {
        if instruction == Instruction::Approve {
            self.excuse_mails();
        }
        let desk = engine::open_desk(&self.config, Arc::clone(&self.clock)).await.expect("the database opens");
        let held = desk.letters(true, 10_000).await.expect("the database answers");
        let lanes: Vec<_> = held.iter().filter_map(|open| open.lane).collect();
        desk.instruct(&lanes, instruction).await.expect("the database takes it down")
    }

    /// Waits until so many writes are held, and nothing else waits.
    pub(crate) async fn until_held(&self, count: u64) {
        let waiting = async {
            loop {
                self.settled().await;
                let held: u64 = self.status().await.holds.values().sum();
                if held == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(ended.is_ok(), "not {count} are held: {:?}", self.status().await.holds);
    }

    /// Returns everything that API clients did, changes without a changed value included.
    pub(crate) fn app_effects(&self) -> Vec<Effect> {
        let effects = self.sandbox.world().history.since(0);
        effects.into_iter().filter(|effect| effect.actor.is_app()).collect()
    }

    /// Returns both counts of writes: to Outlook and to Salesforce.
    pub(crate) fn written(&self) -> (usize, usize) {
        (self.writes(Cloud::Outlook).len(), self.writes(Cloud::Salesforce).len())
    }

    /// Returns the writes that the database holds for open, by whichever record they are found.
    pub(crate) async fn open_writes(&self) -> Vec<Intent> {
        let store = self.store().await;
        let effects = self.sandbox.world().history.since(0);
        let records: BTreeSet<String> = effects.into_iter().map(|effect| effect.record).collect();
        let mut open = BTreeMap::new();
        for record in records {
            let found = store.trace(&TraceQuery::Text(record), 20).await.expect("the database answers");
            let links = found.into_iter().filter_map(|traced| traced.link);
            let intents = links.flat_map(|link| [link.intents.outlook, link.intents.salesforce]).flatten();
            open.extend(intents.map(|intent| (intent.token, intent)));
        }
        open.into_values().collect()
    }

    /// Returns what the engine's database says of itself.
    pub(crate) async fn status(&self) -> StoreStatus {
        self.store().await.status().await.expect("the database answers")
    }

    /// Returns how many notifications were dropped as duplicates.
    pub(crate) async fn duplicates(&self) -> u64 {
        self.status().await.duplicates.values().sum()
    }

    /// Lets time pass on the clock that sandbox and engine share.
    pub(crate) async fn pass(&self, span: TimeDelta) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }

    /// Lets enough time pass for anything that might still be written, and for the oracle to judge.
    pub(crate) async fn rest(&self) {
        self.settled().await;
        self.pass(TimeDelta::seconds(31)).await;
        self.settled().await;
    }

    /// Returns the stories that `calbridge trace --json --values` prints.
    pub(crate) async fn trace(&self, text: &str) -> Vec<Value> {
        let store = self.store().await;
        let enrolments = store.enrolments(&self.config.connection).await.expect("the database answers");
        let found = store.trace(&TraceQuery::Text(text.to_owned()), 20).await.expect("the database answers");
        let stories: Vec<_> = found.iter().map(|traced| trace::story(traced, &enrolments, true)).collect();
        match serde_json::to_value(stories).expect("stories are plain data") {
            Value::Array(stories) => stories,
            other => panic!("a list was expected: {other}"),
        }
    }

    /// Returns the one story of a meeting, found by an id.
    pub(crate) async fn story(&self, id: &str) -> Value {
        let mut stories = self.trace(id).await;
        assert_eq!(stories.len(), 1, "one story for {id}: {stories:#?}");
        stories.remove(0)
    }

    /// Waits until the story of a meeting is as wanted, and returns it.
    pub(crate) async fn story_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until_stored(&format!("the story of {id} is told"), async || Some(self.story(id).await).filter(&wanted)).await
    }

    /// Returns what the oracle objects to, with all that befell the records of these meetings.
    pub(crate) fn complaint(&self) -> String {
        let mut report = self.sandbox.oracle();
        report.meetings.retain(|meeting| !matches!(meeting.state, MeetingState::InStep | MeetingState::Deleted));
        let concerned = |effect: &Effect| {
            let mut of = report.meetings.iter().flat_map(|meeting| meeting.outlook.iter().chain(&meeting.salesforce));
            of.any(|record| *record == effect.record)
        };
        let mut text = format!("{report:#?}");
        for effect in self.sandbox.world().history.since(0).iter().filter(|effect| concerned(effect)) {
            let Effect { at, cloud, record, actor, kind, changed, .. } = effect;
            let changed = Value::Object(changed.clone());
            write!(text, "\n{at} {cloud:?} {record} {kind:?} by {actor:?}: {changed}").expect("a text takes all");
        }
        text
    }

    /// Returns the stories of records that stand alone or of which the two sides do not agree.
    pub(crate) async fn doubtful_stories(&self) -> Vec<Value> {
        let report = self.sandbox.oracle();
        let is_well = |record: &String| {
            report.meetings.iter().any(|meeting| {
                let has_it = meeting.outlook.contains(record) || meeting.salesforce.contains(record);
                has_it && meeting.state == MeetingState::InStep
            })
        };
        let mut records: Vec<String> = self.salesforce().iter().map(id_of).collect();
        records.extend((0..3).flat_map(|person| self.outlook(person)).map(|event| id_of(&event)));
        let mut stories = Vec::new();
        for record in records.iter().filter(|record| !is_well(record)) {
            stories.extend(self.trace(record).await);
        }
        stories
    }

    /// Asserts that the oracle has nothing to object to and that the engine caused no mail.
    pub(crate) fn assert_clean(&self) {
        assert!(self.sandbox.oracle().is_clean(), "{}", self.complaint());
        assert_eq!(self.engine_mails(), 0, "the engine caused mails");
    }
}

/// Returns the names of all reasons in a story, in order.
pub(crate) fn reasons(story: &Value) -> Vec<String> {
    let lines = story["lines"].as_array().cloned().unwrap_or_default();
    let named = lines.iter().flat_map(|line| line["reasons"].as_array().cloned().unwrap_or_default());
    named.filter_map(|reason| reason["name"].as_str().map(str::to_owned)).collect()
}

/// Tells whether a story gives this reason anywhere.
pub(crate) fn gives(story: &Value, reason: &str) -> bool {
    reasons(story).iter().any(|given| given == reason)
}
