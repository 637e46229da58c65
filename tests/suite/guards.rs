//! Many deletions at once wait for a person: none leaves early, and exactly those go through that are approved.

use std::collections::BTreeSet;

use calbridge_core::case::Instruction;
use calbridge_sandbox::Options;

use crate::support::meetings::{id_of, in_outlook};
use crate::support::{Rehearsal, alone};

fn subjects(rehearsal: &Rehearsal) -> BTreeSet<String> {
    let mailboxes = 0..rehearsal.sandbox.endpoints().mailboxes.len();
    let events = mailboxes.flat_map(|number| rehearsal.outlook(number));
    events.map(|event| event["subject"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Gives each of some people some meetings and waits until all are linked.
async fn filled(options: Options, meetings: usize) -> Rehearsal {
    let rehearsal = Rehearsal::start(options, "").await;
    let people = rehearsal.sandbox.endpoints().mailboxes.len();
    for person in 0..people {
        for number in 0..meetings {
            rehearsal.person(person).create_in_outlook(&in_outlook(&format!("Meeting {person}-{number}"))).unwrap();
        }
    }
    rehearsal.until("all are in Salesforce", |r| r.salesforce().len() == people * meetings).await;
    rehearsal.rest().await;
    rehearsal
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_deletions_at_once_of_a_hundred_meetings_are_held_and_go_through_when_approved() {
    let rehearsal = filled(Options { mailboxes: 1, speed: 10.0, ..Options::default() }, 100).await;
    let rows = rehearsal.salesforce();
    let (deleted, kept) = rows.split_at(60);
    for row in deleted {
        rehearsal.person(0).delete_in_salesforce(&id_of(row)).unwrap();
    }
    rehearsal.until_held(60).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.outlook(0).len(), 100, "none left early");
    assert_eq!(rehearsal.status().await.holds.get("mass_delete"), Some(&60));

    assert_eq!(rehearsal.answer_holds(Instruction::Approve).await, 60);
    rehearsal.until("they are deleted", |r| r.outlook(0).len() == 40).await;
    rehearsal.rest().await;
    let names = |rows: &[serde_json::Value]| -> BTreeSet<String> {
        rows.iter().map(|row| row["Subject"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(subjects(&rehearsal), names(kept), "exactly those");
    assert!(rehearsal.status().await.holds.is_empty());
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_deletions_in_each_of_a_hundred_mailboxes_by_one_user_are_held() {
    let _busy = alone().await;
    let rehearsal = filled(Options { mailboxes: 100, speed: 10.0, ..Options::default() }, 5).await;
    for row in rehearsal.salesforce() {
        rehearsal.person(0).delete_in_salesforce(&id_of(&row)).unwrap();
    }
    rehearsal.until_held(500).await;
    rehearsal.rest().await;
    assert_eq!(subjects(&rehearsal).len(), 500, "none left early");
    // What a person lets go stays where it is, and does not come back where it was deleted.
    assert_eq!(rehearsal.answer_holds(Instruction::Discard).await, 500);
    rehearsal.until_held(0).await;
    rehearsal.rest().await;
    assert_eq!((subjects(&rehearsal).len(), rehearsal.salesforce().len()), (500, 0));
    assert_eq!(rehearsal.written(), (0, 500), "only what was created at first");
    rehearsal.end().await;
}
