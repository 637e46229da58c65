//! A sandbox with one meeting in each mailbox, and the real program on it.

use std::collections::BTreeMap;
use std::time::Duration;

use calbridge_sandbox::Options;
use serde_json::{Value, json};

use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};
use crate::support::process::{Bench, Running};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// One meeting on both sides.
#[derive(Debug, Clone)]
pub(crate) struct Meeting {
    pub(crate) number: usize,
    pub(crate) event: String,
    pub(crate) row: String,
}

/// The sandbox and the program.
pub(crate) struct Office {
    pub(crate) bench: Bench,
    pub(crate) running: Running,
    pub(crate) meetings: Vec<Meeting>,
}

impl Office {
    /// Starts everything and waits until each mailbox's meeting is on both sides.
    pub(crate) async fn open(mailboxes: usize, settings: &str) -> Self {
        let bench = Bench::set_up(Options { mailboxes, ..Options::default() }, settings).await;
        let running = bench.run().await;
        let meetings = meet(&bench, mailboxes).await;
        Self { bench, running, meetings }
    }

    /// Ends everything.
    pub(crate) async fn close(self) {
        self.running.stop().await;
        self.bench.end().await;
    }
}

/// Makes a meeting in each mailbox, every other one in Salesforce, and waits until all have crossed.
pub(crate) async fn meet(bench: &Bench, mailboxes: usize) -> Vec<Meeting> {
    let sandbox = &bench.rehearsal;
    for number in 0..mailboxes {
        let subject = format!("meeting {number}");
        if number % 2 == 0 {
            sandbox.person(number).create_in_outlook(&in_outlook(&subject)).unwrap();
        } else {
            sandbox.person(number).create_in_salesforce(in_salesforce(&subject)).unwrap();
        }
    }
    loop {
        let events: usize = (0..mailboxes).map(|number| sandbox.outlook(number).len()).sum();
        if sandbox.salesforce().len() == mailboxes && events == mailboxes {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    sandbox.settled().await;
    let rows: BTreeMap<String, String> = sandbox
        .salesforce()
        .iter()
        .map(|row| (row["Subject"].as_str().unwrap_or_default().to_owned(), id_of(row)))
        .collect();
    (0..mailboxes)
        .map(|number| Meeting {
            number,
            event: id_of(&sandbox.outlook(number)[0]),
            row: rows[&format!("meeting {number}")].clone(),
        })
        .collect()
}

/// Gives a meeting another location, in Outlook or in Salesforce.
pub(crate) fn move_meeting(bench: &Bench, meeting: &Meeting, in_outlook: bool, room: &str) {
    let person = bench.rehearsal.person(meeting.number);
    if in_outlook {
        person.update_in_outlook(&meeting.event, &json!({"location": {"displayName": room}})).unwrap();
    } else {
        person.update_in_salesforce(&meeting.row, &fields(json!({"Location": room}))).unwrap();
    }
}

/// Tells whether both sides of every meeting show the same location.
pub(crate) fn agree(bench: &Bench, meetings: &[Meeting]) -> bool {
    let rows: BTreeMap<String, Value> =
        bench.rehearsal.salesforce().into_iter().map(|row| (id_of(&row), row["Location"].clone())).collect();
    meetings.iter().all(|meeting| {
        let address = bench.rehearsal.person(meeting.number).mailbox().address.clone();
        let event = bench.rehearsal.sandbox.tenant().get_event(&address, &meeting.event).unwrap();
        rows.get(&meeting.row) == Some(&event["location"]["displayName"])
    })
}

/// Waits until both sides agree and nothing is open.
pub(crate) async fn until_agreed(bench: &Bench, meetings: &[Meeting]) {
    loop {
        if agree(bench, meetings) {
            bench.rehearsal.settled().await;
            if agree(bench, meetings) {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
