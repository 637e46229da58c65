//! Load: fifty edits a second over two hundred mailboxes never run into the limits of the clouds, and lose nothing.
//!
//! Requests are given a length, so that several are under way at once; what is counted are refusals, never times.

use std::collections::BTreeMap;
use std::time::Duration;

use calbridge_sandbox::Options;
use calbridge_sandbox::oracle::Terms;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};
use crate::support::{PATIENCE, Rehearsal, alone};

/// How often a costly condition is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Mailboxes, each with one meeting.
const MAILBOXES: usize = 200;
/// Edits, one after the other through all meetings; each meeting is edited five times.
const EDITS: usize = 1_000;
/// Time from one edit to the next: fifty a second.
const STEP: TimeDelta = TimeDelta::milliseconds(20);
/// How long each request is under way.
const UNDER_WAY_MS: u32 = 100;

/// One meeting on both sides.
struct Meeting {
    number: usize,
    event: String,
    row: String,
}

impl Meeting {
    /// Changes the location in Outlook and the subject in Salesforce, by turns.
    ///
    /// Each field is edited on one side only: however far a slow machine lags behind, no two edits contradict each other.
    fn edit(&self, rehearsal: &Rehearsal, round: usize) {
        let person = rehearsal.person(self.number);
        let value = format!("round {round}");
        if (self.number + round).is_multiple_of(2) {
            person.update_in_outlook(&self.event, &json!({"location": {"displayName": value}})).unwrap();
        } else {
            person.update_in_salesforce(&self.row, &fields(json!({"Subject": value}))).unwrap();
        }
    }

    /// Returns what the last two of `rounds` left.
    fn last(&self, rounds: usize) -> Shown {
        let (last, before) = (json!(format!("round {}", rounds - 1)), json!(format!("round {}", rounds - 2)));
        if (self.number + rounds - 1).is_multiple_of(2) { (before, last) } else { (last, before) }
    }
}

/// Subject and location, as one side shows them.
type Shown = (Value, Value);

/// Returns what Outlook and Salesforce show of each meeting.
fn shown(rehearsal: &Rehearsal, meetings: &[Meeting]) -> Vec<(Shown, Shown)> {
    let rows = rehearsal.salesforce().into_iter().map(|row| (id_of(&row), row));
    let rows: BTreeMap<String, Value> = rows.collect();
    let both = |meeting: &Meeting| {
        let mailbox = rehearsal.person(meeting.number).mailbox().address.clone();
        let event = rehearsal.sandbox.tenant().get_event(&mailbox, &meeting.event).unwrap();
        let row = &rows[&meeting.row];
        (
            (event["subject"].clone(), event["location"]["displayName"].clone()),
            (row["Subject"].clone(), row["Location"].clone()),
        )
    };
    meetings.iter().map(both).collect()
}

fn agree(rehearsal: &Rehearsal, meetings: &[Meeting]) -> bool {
    shown(rehearsal, meetings).iter().all(|(outlook, salesforce)| outlook == salesforce)
}

/// Waits until something holds that is too costly to look at after every change.
async fn until_seldom(rehearsal: &Rehearsal, what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        loop {
            rehearsal.settled().await;
            if holds() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "gave up waiting until {what}");
}

/// Makes one meeting in each mailbox, every other one in Salesforce, and waits until all of them have crossed.
async fn meetings(rehearsal: &Rehearsal, mailboxes: usize) -> Vec<Meeting> {
    for number in 0..mailboxes {
        let person = rehearsal.person(number);
        let subject = format!("meeting {number}");
        if number % 2 == 0 {
            person.create_in_outlook(&in_outlook(&subject)).unwrap();
        } else {
            person.create_in_salesforce(in_salesforce(&subject)).unwrap();
        }
    }
    until_seldom(rehearsal, "every meeting is on both sides", || {
        let mut events = (0..mailboxes).map(|number| rehearsal.outlook(number).len());
        rehearsal.salesforce().len() == mailboxes && events.all(|events| events == 1)
    })
    .await;
    let rows = rehearsal.salesforce();
    (0..mailboxes)
        .map(|number| {
            let subject = format!("meeting {number}");
            let row = rows.iter().find(|row| row["Subject"] == json!(subject)).unwrap();
            Meeting { number, event: id_of(&rehearsal.outlook(number)[0]), row: id_of(row) }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_edits_a_second_over_two_hundred_mailboxes_meet_no_limit_and_all_cross() {
    let _busy = alone().await;
    let rehearsal = Rehearsal::start(Options { mailboxes: MAILBOXES, ..Options::default() }, "").await;
    let meetings = meetings(&rehearsal, MAILBOXES).await;
    rehearsal.switch(|switches| {
        switches.outlook_answer_ms = UNDER_WAY_MS;
        switches.salesforce_answer_ms = UNDER_WAY_MS;
    });
    let mut next = rehearsal.clock.now();
    for edit in 0..EDITS {
        meetings[edit % MAILBOXES].edit(&rehearsal, edit / MAILBOXES);
        next += STEP;
        rehearsal.clock.sleep_until(next).await;
    }
    until_seldom(&rehearsal, "both sides agree", || agree(&rehearsal, &meetings)).await;
    for (meeting, (outlook, salesforce)) in meetings.iter().zip(shown(&rehearsal, &meetings)) {
        assert_eq!(outlook, meeting.last(EDITS / MAILBOXES), "the last edits of both fields stand");
        assert_eq!(salesforce, outlook);
    }
    let counts = rehearsal.sandbox.world().meters.read();
    assert!(counts.refusals.is_empty(), "{:#?}", counts.refusals);
    let report = rehearsal.sandbox.judge(&Terms { settle: TimeDelta::zero(), ..Terms::default() });
    assert!(report.is_clean(), "{report:#?}");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_far_below_what_is_documented_slow_the_engine_down_and_lose_nothing() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let meetings = meetings(&rehearsal, 3).await;
    rehearsal.switch(|switches| {
        switches.outlook_requests_at_once = 1;
        switches.outlook_answer_ms = 300;
    });
    // Two meetings more in each mailbox, so that one run of lanes asks for three events of it at once.
    for number in 0..6 {
        rehearsal.person(number % 3).create_in_outlook(&in_outlook(&format!("more {number}"))).unwrap();
    }
    for meeting in &meetings {
        meeting.edit(&rehearsal, 0);
    }
    let all_crossed = || rehearsal.salesforce().len() == 9 && agree(&rehearsal, &meetings);
    until_seldom(&rehearsal, "all of it crossed", all_crossed).await;
    let refusals = rehearsal.sandbox.world().meters.read().refusals;
    let refused: u64 = refusals.values().filter_map(|limits| limits.get("graph.mailbox_concurrency")).sum();
    assert!(refused > 0, "the limit was met, so that this test shows something");
    rehearsal.end().await;
}
