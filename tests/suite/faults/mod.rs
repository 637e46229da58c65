//! Every fault that the sandbox can play, each in a test named after it: people work on both sides meanwhile, and in the
//! end both sides agree, nothing is lost, made twice or deleted, and the journal says what happened.
//!
//! `sandbox/README.md` has the table of faults, switches and tests.

mod accounts;
mod graph;
mod hostile;
mod hub;
mod pubsub;
mod salesforce;

use std::collections::BTreeSet;

use calbridge_sandbox::faults::Switches;
use calbridge_sandbox::{Act, Options};
use serde_json::{Value, json};

use crate::support::Rehearsal;
use crate::support::look::reasons;
use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};

/// Comparisons so seldom that only notifications and what they lead to can carry a change across.
const NO_SWEEPS: &str = "sweep:\n  outlook_secs: 604800\n  salesforce_secs: 604800\n";
/// Comparisons every minute, for faults that keep notifications away.
const SWEEPS: &str = "sweep:\n  outlook_secs: 60\n  salesforce_secs: 60\n";

/// An office of one person, on a clock that is as fast as a debug build can follow.
fn office() -> Options {
    Options { mailboxes: 1, partitions: 1, speed: 20.0, ..Options::default() }
}

fn row(rehearsal: &Rehearsal, subject: &str) -> Option<Value> {
    rehearsal.salesforce().into_iter().find(|row| row["Subject"] == subject)
}

fn event(rehearsal: &Rehearsal, subject: &str) -> Option<Value> {
    rehearsal.outlook(0).into_iter().find(|event| event["subject"] == subject)
}

fn row_id(rehearsal: &Rehearsal, subject: &str) -> String {
    id_of(&row(rehearsal, subject).unwrap_or_else(|| panic!("{subject} is in Salesforce")))
}

fn event_id(rehearsal: &Rehearsal, subject: &str) -> String {
    id_of(&event(rehearsal, subject).unwrap_or_else(|| panic!("{subject} is in Outlook")))
}

fn place_of(event: &Value) -> &Value {
    &event["location"]["displayName"]
}

/// Starts an engine on an office where two meetings of each side are linked.
async fn linked(options: Options, settings: &str) -> Rehearsal {
    let rehearsal = Rehearsal::start(options, settings).await;
    let person = rehearsal.person(0);
    for subject in ["Kept O", "Gone O"] {
        person.create_in_outlook(&in_outlook(subject)).unwrap();
    }
    for subject in ["Kept S", "Gone S"] {
        person.create_in_salesforce(in_salesforce(subject)).unwrap();
    }
    rehearsal.until("all are linked", |r| r.salesforce().len() == 4 && r.outlook(0).len() == 4).await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.written(), (2, 2));
    rehearsal
}

/// Lets the person edit, delete and create on both sides.
fn work(rehearsal: &Rehearsal) {
    let person = rehearsal.person(0);
    person.update_in_outlook(&event_id(rehearsal, "Kept O"), &json!({"subject": "Renamed O"})).unwrap();
    let moved = fields(json!({"Location": "Hall"}));
    person.update_in_salesforce(&row_id(rehearsal, "Kept S"), &moved).unwrap();
    person.delete_in_outlook(&event_id(rehearsal, "Gone O")).unwrap();
    person.delete_in_salesforce(&row_id(rehearsal, "Gone S")).unwrap();
    person.create_in_outlook(&in_outlook("New O")).unwrap();
    person.create_in_salesforce(in_salesforce("New S")).unwrap();
}

/// Tells whether all that [`work`] does has reached the other side.
fn crossed(r: &Rehearsal) -> bool {
    let moved = event(r, "Kept S").is_some_and(|event| place_of(&event) == "Hall");
    let gone = event(r, "Gone S").is_none() && row(r, "Gone O").is_none();
    moved && gone && row(r, "Renamed O").is_some() && row(r, "New O").is_some() && event(r, "New S").is_some()
}

/// Waits until all work has crossed, and asserts that it did so with one write for each edit.
async fn all_crossed(rehearsal: &Rehearsal) {
    rehearsal.until("everything crossed", crossed).await;
    rehearsal.rest().await;
    assert!(crossed(rehearsal), "it stays so");
    assert_eq!((rehearsal.outlook(0).len(), rehearsal.salesforce().len()), (4, 4), "nothing twice, nothing gone");
    assert_eq!(rehearsal.written(), (2 + 3, 2 + 3), "one write for each edit");
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    rehearsal.assert_clean();
}

/// Lets people work under faults that are switched on, and asserts that each of them struck.
async fn works_despite(settings: &str, strike: impl FnOnce(&mut Switches)) -> Rehearsal {
    let rehearsal = linked(office(), settings).await;
    rehearsal.switch(strike);
    work(&rehearsal);
    all_crossed(&rehearsal).await;
    let switches = serde_json::to_value(rehearsal.sandbox.world().faults.read()).unwrap();
    for (name, value) in switches.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_next")) {
        assert_eq!(value, 0, "{name} struck as often as it was to");
    }
    rehearsal
}

/// Does something to the clouds; returns how many it befell.
fn befall(rehearsal: &Rehearsal, act: &Act) -> usize {
    rehearsal.sandbox.act(act).expect("everybody who is named exists")
}

/// Returns every reason that the journal gives for any record of either side.
async fn told(rehearsal: &Rehearsal) -> BTreeSet<String> {
    let effects = rehearsal.sandbox.world().history.since(0);
    let records: BTreeSet<String> = effects.into_iter().map(|effect| effect.record).collect();
    let mut told = BTreeSet::new();
    for record in records {
        for story in rehearsal.trace(&record).await {
            told.extend(reasons(&story));
        }
    }
    told
}

/// Asserts that the journal gives a reason, and ends the rehearsal.
async fn ends_having_told(rehearsal: Rehearsal, reason: &str) {
    let told = told(&rehearsal).await;
    assert!(told.contains(reason), "{reason} is in the journal: {told:?}");
    rehearsal.end().await;
}
