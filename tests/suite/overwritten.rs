//! An edit in Salesforce exactly between our read and our write: it is covered, and the journal tells what it was.

use std::sync::Arc;

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use calbridge_sandbox::moments::{Prey, Step, Verdict};
use serde_json::{Value, json};

use crate::support::look::gives;
use crate::support::meetings::{fields, id_of, in_outlook};
use crate::support::{PATIENCE, Rehearsal};

/// Without conditions every edit in the gap is covered; with them only those in the second of the read.
const UNCONDITIONAL: &str = "salesforce:\n  conditional_updates: false\n";

async fn linked() -> (Rehearsal, String, String) {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, UNCONDITIONAL).await;
    let event = id_of(&rehearsal.person(0).create_in_outlook(&in_outlook("Review")).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    let row = id_of(&rehearsal.salesforce()[0]);
    (rehearsal, event, row)
}

/// Stops the next write to Salesforce before its effect, lets somebody edit the row there, and lets the write go on.
async fn edit_beneath(rehearsal: &Rehearsal, row: &str, ours: impl FnOnce(), theirs: Value) {
    let world = Arc::clone(rehearsal.sandbox.world());
    let mut trap = world.moments.trap(Prey { cloud: Cloud::Salesforce, writes: true, step: Step::Arrived });
    ours();
    let caught = trap.caught(PATIENCE).await.expect("the write comes");
    rehearsal.person(1).update_in_salesforce(row, &fields(theirs)).unwrap();
    caught.judge(Verdict::GoOn);
}

/// Waits until the story tells of a covered edit; returns the lines that do.
async fn told(rehearsal: &Rehearsal, id: &str) -> Vec<Value> {
    let story = rehearsal.story_when(id, |story| gives(story, "overwritten_unseen")).await;
    let lines = story["lines"].as_array().unwrap().iter();
    lines.filter(|line| !line["values"]["overwritten"].is_null()).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_between_our_read_and_our_write_stands_in_the_story_with_field_and_value() {
    let (rehearsal, event, row) = linked().await;
    let at = |hour: &str| json!({"dateTime": format!("2026-12-03T{hour}:00:00"), "timeZone": "UTC"});
    let ours = json!({"subject": "Ours", "location": {"displayName": "Our room"}, "start": at("15"), "end": at("17")});
    // They move the meeting and keep its length: the change event tells the new start only.
    let theirs = json!({"Subject": "Theirs", "Type": "Call", "StartDateTime": "2026-12-05T08:00:00Z",
        "EndDateTime": "2026-12-05T09:00:00Z"});
    let edit = || drop(rehearsal.person(0).update_in_outlook(&event, &ours).unwrap());
    edit_beneath(&rehearsal, &row, edit, theirs).await;
    rehearsal.until("our write covered theirs", |r| r.salesforce()[0]["Subject"] == "Ours").await;

    let lines = told(&rehearsal, &row).await;
    let lost: Vec<&Value> = lines.iter().map(|line| &line["values"]["overwritten"]).collect();
    assert_eq!(lost, [&json!({"time": "2026-12-05T08:00:00Z to 2026-12-05T09:00:00Z"}), &json!({"subject": "Theirs"})]);
    for line in &lines {
        assert_eq!((&line["side"], &line["record"]), (&json!("salesforce"), &json!(row)), "{line:#}");
        let what = line["what"].as_str().unwrap();
        assert!(what.starts_with("a write of ours replaced an edit in Salesforce that nobody had seen: "), "{what}");
        assert_eq!(line["reasons"][0]["code"], "CB2079");
    }
    assert_eq!(lines[1]["values"]["after"]["subject"], "Ours");
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 2), "one creation, one update, nothing for the covered edit");
    // Exchange may change the key of an event without a change, at any time.
    let story = rehearsal.story_when(&row, |story| story["verdict"]["is"] != "waiting").await;
    assert_eq!(story["verdict"]["is"], "in_step", "{story:#}");
    let again = story["lines"].as_array().unwrap().iter().filter(|line| !line["values"]["overwritten"].is_null());
    assert_eq!(again.count(), 2, "told once");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_row_that_our_deletion_takes_away_stands_in_the_story() {
    let (rehearsal, event, row) = linked().await;
    let delete = || rehearsal.person(0).delete_in_outlook(&event).unwrap();
    edit_beneath(&rehearsal, &row, delete, json!({"Location": "Too late"})).await;
    rehearsal.until("it is gone", |r| r.salesforce().is_empty()).await;
    let lines = told(&rehearsal, &row).await;
    assert_eq!(
        lines.iter().map(|line| &line["values"]["overwritten"]).collect::<Vec<_>>(),
        [&json!({"location": "Too late"})]
    );
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 2), "one creation, one deletion");
    assert!(rehearsal.outlook(0).is_empty() && rehearsal.salesforce().is_empty(), "deleted stays deleted");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_was_read_or_that_says_the_same_is_not_called_lost() {
    let (rehearsal, event, row) = linked().await;
    rehearsal.person(1).update_in_salesforce(&row, &fields(json!({"Subject": "Seen"}))).unwrap();
    rehearsal.until("it crossed", |r| r.outlook(0)[0]["subject"] == "Seen").await;
    rehearsal.settled().await;
    let edit = || drop(rehearsal.person(0).update_in_outlook(&event, &json!({"subject": "Agreed"})).unwrap());
    edit_beneath(&rehearsal, &row, edit, json!({"Subject": "Agreed", "ShowAs": "Free"})).await;
    rehearsal.until("the other field crossed", |r| r.outlook(0)[0]["showAs"] == "free").await;
    rehearsal.rest().await;
    let story = rehearsal.story(&row).await;
    assert!(!gives(&story, "overwritten_unseen"), "{story:#}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}
