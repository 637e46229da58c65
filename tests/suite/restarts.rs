//! Stops, starts and faults of either cloud: the same end state, nothing lost, nothing twice, nothing written in vain.

use calbridge_sandbox::event_hubs::DetachReason;
use calbridge_sandbox::faults::Switches;
use calbridge_sandbox::{Options, Profile};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::look::gives;
use crate::support::meetings::{all_day_in_salesforce, fields, id_of, in_outlook, in_salesforce, with_attendees};
use crate::support::{Rehearsal, environment};

/// A clock that is fast enough for pauses of half a minute and slow enough for a debug build.
fn fast() -> Options {
    Options { speed: 10.0, ..Options::default() }
}

/// Makes one meeting on each side of each mailbox, named by a prefix.
fn make(rehearsal: &Rehearsal, prefix: &str) {
    for number in 0..3 {
        let person = rehearsal.person(number);
        person.create_in_outlook(&in_outlook(&format!("{prefix} O{number}"))).unwrap();
        person.create_in_salesforce(in_salesforce(&format!("{prefix} S{number}"))).unwrap();
    }
}

fn row(rehearsal: &Rehearsal, subject: &str) -> Option<Value> {
    rehearsal.salesforce().into_iter().find(|row| row["Subject"] == subject)
}

fn event(rehearsal: &Rehearsal, number: usize, subject: &str) -> Option<Value> {
    rehearsal.outlook(number).into_iter().find(|event| event["subject"] == subject)
}

fn rename_in_outlook(rehearsal: &Rehearsal, number: usize, from: &str, to: &str) {
    let id = id_of(&event(rehearsal, number, from).unwrap());
    rehearsal.person(number).update_in_outlook(&id, &json!({"subject": to})).unwrap();
}

fn move_in_salesforce(rehearsal: &Rehearsal, number: usize, subject: &str, place: &str) {
    let id = id_of(&row(rehearsal, subject).unwrap());
    rehearsal.person(number).update_in_salesforce(&id, &fields(json!({"Location": place}))).unwrap();
}

async fn all_are_there(rehearsal: &Rehearsal) {
    rehearsal.until("all crossed", |r| r.salesforce().len() == 6 && (0..3).all(|n| r.outlook(n).len() == 2)).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_with_the_same_state_writes_nothing_whatever_it_looks_through() {
    // Sweeps every minute: the second engine reads everything once more, by delta links that have expired besides.
    let sweeps = "sweep:\n  outlook_secs: 60\n  salesforce_secs: 60\n";
    let mut rehearsal = Rehearsal::start(Options { speed: 20.0, ..Options::default() }, sweeps).await;
    make(&rehearsal, "Kept");
    let guest = rehearsal.person(1).mailbox().address.clone();
    rehearsal.person(0).create_in_outlook(&with_attendees("Invited", &[&guest])).unwrap();
    let mut days = all_day_in_salesforce("2026-12-20", "2026-12-21");
    days.insert("Subject".to_owned(), json!("Days"));
    rehearsal.person(2).create_in_salesforce(days).unwrap();
    rehearsal.until("all crossed", |r| r.salesforce().len() == 8 && event(r, 2, "Days").is_some()).await;
    rename_in_outlook(&rehearsal, 0, "Kept O0", "Renamed");
    let gone = id_of(&row(&rehearsal, "Kept S1").unwrap());
    rehearsal.person(1).delete_in_salesforce(&gone).unwrap();
    rehearsal.until("edits crossed", |r| row(r, "Renamed").is_some() && event(r, 1, "Kept S1").is_none()).await;
    rehearsal.rest().await;
    rehearsal.assert_clean();
    rehearsal.stop_engine().await;

    let before = rehearsal.sandbox.world().history.len();
    rehearsal.switch(|switches| switches.outlook_delta_gone_next = 3);
    let rounds = rehearsal.calls("graph.calendar_view_delta");
    rehearsal.start_engine().await;
    rehearsal
        .until("each mailbox was compared as a whole", |r| {
            r.sandbox.world().faults.read().outlook_delta_gone_next == 0
                && r.calls("graph.calendar_view_delta") >= rounds + 6
        })
        .await;
    rehearsal.pass(chrono::TimeDelta::seconds(65)).await;
    rehearsal.rest().await;
    let after = rehearsal.sandbox.world().history.since(before);
    assert!(after.is_empty(), "a second start wrote: {after:#?}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_made_while_the_engine_is_stopped_are_caught_up() {
    let mut rehearsal = Rehearsal::start(fast(), "").await;
    make(&rehearsal, "Left");
    all_are_there(&rehearsal).await;
    rehearsal.stop_engine().await;
    rehearsal.until("nobody reads the hub", |r| r.sandbox.hub_handle().readers().is_empty()).await;

    rename_in_outlook(&rehearsal, 0, "Left O0", "Left O0, renamed");
    move_in_salesforce(&rehearsal, 0, "Left S0", "Hall");
    let gone = id_of(&event(&rehearsal, 1, "Left O1").unwrap());
    rehearsal.person(1).delete_in_outlook(&gone).unwrap();
    let gone = id_of(&row(&rehearsal, "Left S1").unwrap());
    rehearsal.person(1).delete_in_salesforce(&gone).unwrap();
    rehearsal.person(2).create_in_outlook(&in_outlook("New in Outlook")).unwrap();
    rehearsal.person(2).create_in_salesforce(in_salesforce("New in Salesforce")).unwrap();
    // Both sides of one meeting while nobody looked.
    rename_in_outlook(&rehearsal, 2, "Left O2", "Left O2, renamed");
    move_in_salesforce(&rehearsal, 2, "Left O2", "Yard");
    rehearsal.pass(chrono::TimeDelta::minutes(2)).await;

    rehearsal.start_engine().await;
    rehearsal
        .until("everything was caught up", |r| {
            let created = row(r, "New in Outlook").is_some() && event(r, 2, "New in Salesforce").is_some();
            created && row(r, "Left O2, renamed").is_some() && row(r, "Left O0, renamed").is_some()
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(event(&rehearsal, 0, "Left S0").unwrap()["location"]["displayName"], "Hall");
    assert!(rehearsal.outlook(1).is_empty() && row(&rehearsal, "Left O1").is_none());
    let both = event(&rehearsal, 2, "Left O2, renamed").unwrap();
    assert_eq!(both["location"]["displayName"], "Yard");
    assert_eq!(row(&rehearsal, "Left O2, renamed").unwrap()["Location"], "Yard");
    assert_eq!(rehearsal.written(), (3 + 4, 3 + 4), "one write for each edit");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_in_the_middle_of_edits_loses_nothing() {
    let mut rehearsal = Rehearsal::start(fast(), "").await;
    make(&rehearsal, "Torn");
    all_are_there(&rehearsal).await;
    let ids: Vec<String> = (0..3).map(|n| id_of(&event(&rehearsal, n, &format!("Torn O{n}")).unwrap())).collect();
    let rows: Vec<String> = (0..3).map(|n| id_of(&row(&rehearsal, &format!("Torn S{n}")).unwrap())).collect();
    for round in 0..4 {
        for number in 0..3 {
            let person = rehearsal.person(number);
            person
                .update_in_outlook(&ids[number], &json!({"location": {"displayName": format!("O {round}")}}))
                .unwrap();
            let edit = fields(json!({"Location": format!("S {round}")}));
            person.update_in_salesforce(&rows[number], &edit).unwrap();
            person.create_in_outlook(&in_outlook(&format!("Extra {round} {number}"))).unwrap();
        }
        // Each stop hits another moment between notice, read, write and settling.
        rehearsal.pass(chrono::TimeDelta::milliseconds(300 + 450 * round)).await;
        rehearsal.stop_engine().await;
        rehearsal.start_engine().await;
    }
    rehearsal.until("all extras crossed", |r| r.salesforce().len() == 6 + 12).await;
    rehearsal.rest().await;
    for number in 0..3 {
        let row = row(&rehearsal, &format!("Torn O{number}")).unwrap();
        assert_eq!(row["Location"], "O 3");
        let event = event(&rehearsal, number, &format!("Torn S{number}")).unwrap();
        assert_eq!(event["location"]["displayName"], "S 3");
    }
    assert_eq!(rehearsal.salesforce().len(), 18);
    rehearsal.assert_clean();
    rehearsal.end().await;
}

/// Lets people work on both sides while a fault strikes; the end state must be as if there had been none.
async fn same_end_state_despite(strike: impl Fn(&Rehearsal)) {
    let rehearsal = Rehearsal::start(fast(), "").await;
    make(&rehearsal, "Before");
    all_are_there(&rehearsal).await;
    strike(&rehearsal);
    rename_in_outlook(&rehearsal, 0, "Before O0", "After O0");
    move_in_salesforce(&rehearsal, 0, "Before S0", "Hall");
    let gone = id_of(&event(&rehearsal, 1, "Before O1").unwrap());
    rehearsal.person(1).delete_in_outlook(&gone).unwrap();
    let gone = id_of(&row(&rehearsal, "Before S1").unwrap());
    rehearsal.person(1).delete_in_salesforce(&gone).unwrap();
    rehearsal.person(2).create_in_outlook(&in_outlook("New O")).unwrap();
    rehearsal.person(2).create_in_salesforce(in_salesforce("New S")).unwrap();
    rehearsal
        .until("everything crossed", |r| {
            let moved = event(r, 0, "Before S0").is_some_and(|event| event["location"]["displayName"] == "Hall");
            let gone = event(r, 1, "Before S1").is_none() && row(r, "Before O1").is_none();
            moved && gone && row(r, "After O0").is_some() && row(r, "New O").is_some() && event(r, 2, "New S").is_some()
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.salesforce().len(), 6);
    assert_eq!([0, 1, 2].map(|number| rehearsal.outlook(number).len()), [2, 0, 4]);
    assert_eq!(rehearsal.written(), (3 + 3, 3 + 3), "one write for each edit");
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    rehearsal.assert_clean();
    rehearsal.end().await;
}

fn switching(change: impl Fn(&mut Switches)) -> impl Fn(&Rehearsal) {
    move |rehearsal| rehearsal.switch(|switches| change(switches))
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_whose_answers_are_cut_off_are_not_repeated() {
    same_end_state_despite(switching(|switches| {
        switches.outlook_cut_answer_next = 3;
        switches.salesforce_cut_answer_next = 3;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_answers_are_not_repeated_where_neither_cloud_helps_to_recognise_a_repeat() {
    same_end_state_despite(switching(|switches| {
        switches.outlook_transaction_id = false;
        switches.outlook_if_match = false;
        switches.salesforce_link_unique = false;
        switches.outlook_cut_answer_next = 3;
        switches.salesforce_cut_answer_next = 3;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_and_outages_only_delay() {
    same_end_state_despite(switching(|switches| {
        switches.outlook_throttle_next = 4;
        switches.outlook_unavailable_next = 4;
        switches.salesforce_unavailable_next = 3;
        switches.salesforce_lock_next = 2;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_and_expired_tokens_are_replaced() {
    same_end_state_despite(switching(|switches| {
        switches.salesforce_revoke_tokens = true;
        switches.outlook_expired_tokens_next = 2;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_reads_are_not_taken_for_changes() {
    same_end_state_despite(switching(|switches| switches.outlook_stale_reads_next = 6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_hub_connections_are_made_again_behind_what_was_read() {
    same_end_state_despite(|rehearsal| {
        assert!(rehearsal.sandbox.hub_handle().cut_connections() > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_hub_readers_attach_again_behind_what_was_read() {
    same_end_state_despite(|rehearsal| {
        assert!(rehearsal.sandbox.hub_handle().detach_readers(None, DetachReason::DetachForced) > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_event_stream_that_ends_is_resumed_and_repeated_events_write_nothing() {
    same_end_state_despite(switching(|switches| {
        switches.salesforce_end_stream_next = 3;
        switches.salesforce_duplicate_next = 10;
        switches.hub_duplicate_next = 10;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_notifications_missed_is_found_by_the_next_comparison() {
    let sweeps = "sweep:\n  outlook_secs: 60\n  salesforce_secs: 60\n";
    let rehearsal = Rehearsal::start(fast(), sweeps).await;
    make(&rehearsal, "Seen");
    all_are_there(&rehearsal).await;
    rehearsal.switch(|switches| {
        switches.hub_drop_next = 3;
        switches.salesforce_drop_next = 3;
    });
    rename_in_outlook(&rehearsal, 0, "Seen O0", "Unseen O0");
    move_in_salesforce(&rehearsal, 0, "Seen S0", "Hall");
    let gone = id_of(&event(&rehearsal, 1, "Seen O1").unwrap());
    rehearsal.person(1).delete_in_outlook(&gone).unwrap();
    let gone = id_of(&row(&rehearsal, "Seen S1").unwrap());
    rehearsal.person(1).delete_in_salesforce(&gone).unwrap();
    rehearsal.person(2).create_in_outlook(&in_outlook("Unseen O")).unwrap();
    rehearsal.person(2).create_in_salesforce(in_salesforce("Unseen S")).unwrap();
    rehearsal
        .until("all of it crossed", |r| {
            let moved = event(r, 0, "Seen S0").is_some_and(|event| event["location"]["displayName"] == "Hall");
            let gone = event(r, 1, "Seen S1").is_none() && row(r, "Seen O1").is_none();
            moved
                && gone
                && row(r, "Unseen O0").is_some()
                && row(r, "Unseen O").is_some()
                && event(r, 2, "Unseen S").is_some()
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (3 + 3, 3 + 3));
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_changes_what_was_just_written_does_not_make_a_loop() {
    let rehearsal = Rehearsal::start(fast(), "").await;
    rehearsal.switch(|switches| switches.salesforce_trigger_edits = true);
    let event = id_of(&rehearsal.person(0).create_in_outlook(&in_outlook("Triggered")).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    let (outlook, salesforce) = rehearsal.written();
    assert_eq!(salesforce, 1, "the creation");
    assert!(outlook <= 1, "at most what the trigger added");
    rehearsal.person(0).update_in_outlook(&event, &json!({"subject": "Triggered again"})).unwrap();
    rehearsal.until("the subject crossed", |r| r.salesforce()[0]["Subject"] == "Triggered again").await;
    rehearsal.rest().await;
    rehearsal.rest().await;
    let (more_outlook, more_salesforce) = rehearsal.written();
    assert_eq!(more_salesforce, 2, "one write an edit");
    assert!(more_outlook <= outlook + 1, "at most what the trigger added");
    assert_eq!(rehearsal.outlook(0)[0]["location"]["displayName"], rehearsal.salesforce()[0]["Location"]);
    rehearsal.end().await;
}

/// Does one random thing: an edit on either side, a fault, or a restart.
async fn something(rehearsal: &mut Rehearsal, choices: &mut StdRng, step: u32) {
    let number = choices.random_range(0..3);
    let person = rehearsal.person(number);
    let events = rehearsal.outlook(number);
    let rows = rehearsal.salesforce();
    let some = |records: &[Value], choices: &mut StdRng| {
        (!records.is_empty()).then(|| records[choices.random_range(0..records.len())].clone())
    };
    match choices.random_range(0..20) {
        0 => drop(person.create_in_outlook(&in_outlook(&format!("made {step}"))).unwrap()),
        1 => drop(person.create_in_salesforce(in_salesforce(&format!("made {step}"))).unwrap()),
        2 if step.is_multiple_of(2) => {
            if let Some(event) = some(&events, choices) {
                person.delete_in_outlook(&id_of(&event)).unwrap();
            }
        }
        2 => {
            if let Some(row) = some(&rows, choices) {
                person.delete_in_salesforce(&id_of(&row)).unwrap();
            }
        }
        3..8 => {
            if let Some(event) = some(&events, choices) {
                let patch = if step.is_multiple_of(2) {
                    json!({"subject": format!("renamed {step}")})
                } else {
                    json!({"location": {"displayName": format!("Place {step}")}})
                };
                person.update_in_outlook(&id_of(&event), &patch).unwrap();
            }
        }
        8..13 => {
            if let Some(row) = some(&rows, choices) {
                let field = if step.is_multiple_of(2) { "Subject" } else { "Location" };
                person.update_in_salesforce(&id_of(&row), &fields(json!({field: format!("changed {step}")}))).unwrap();
            }
        }
        13 => rehearsal.switch(|switches| switches.outlook_cut_answer_next += 1),
        14 => rehearsal.switch(|switches| switches.salesforce_cut_answer_next += 1),
        // No stale reads: at random, one would hit the very read that comes late enough to be taken for the truth.
        15 => rehearsal.switch(|switches| switches.outlook_throttle_next += 1),
        16 => rehearsal.switch(|switches| switches.salesforce_lock_next += 1),
        17 => rehearsal.switch(|switches| {
            switches.hub_duplicate_next += 2;
            switches.salesforce_duplicate_next += 2;
            switches.salesforce_end_stream_next += 1;
        }),
        18 => {
            rehearsal.sandbox.hub_handle().cut_connections();
        }
        _ => {
            rehearsal.stop_engine().await;
            rehearsal.start_engine_behind().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_edits_under_random_faults_and_restarts_end_with_both_sides_the_same() {
    let seed: u64 = environment("CALBRIDGE_TEST_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("CALBRIDGE_TEST_SEED={seed}");
    let mut choices = StdRng::seed_from_u64(seed);
    let mut rehearsal = Rehearsal::start(Options { profile: Profile::Office, seed, ..fast() }, "").await;
    make(&rehearsal, "Shaken");
    for step in 0..120 {
        something(&mut rehearsal, &mut choices, step).await;
        rehearsal.pass(chrono::TimeDelta::milliseconds(choices.random_range(0..4_000))).await;
    }
    rehearsal.switch(|switches| *switches = Switches::default());
    // A connection that was cut while it opened is given up after half a minute of real time; nothing may be lost by it.
    rehearsal
        .until("both sides are the same", |r| {
            let report = r.sandbox.oracle();
            report.is_clean() && !report.is_pending() && report.unlinked_outlook + report.unlinked_salesforce == 0
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    let report = rehearsal.sandbox.oracle();
    assert_eq!((report.unlinked_outlook, report.unlinked_salesforce), (0, 0), "{report:#?}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

/// Edits of every kind in Salesforce, none of which is told by a change event.
fn untold_edits(rehearsal: &Rehearsal) {
    move_in_salesforce(rehearsal, 0, "Told S0", "Hall");
    move_in_salesforce(rehearsal, 0, "Told O0", "Yard");
    let gone = id_of(&row(rehearsal, "Told S1").unwrap());
    rehearsal.person(1).delete_in_salesforce(&gone).unwrap();
    rehearsal.person(2).create_in_salesforce(in_salesforce("Untold S")).unwrap();
}

async fn untold_edits_cross(rehearsal: &Rehearsal) {
    rehearsal
        .until("all of it crossed", |r| {
            let at = |subject: &str, place: &str| {
                event(r, 0, subject).is_some_and(|e| e["location"]["displayName"] == place)
            };
            let gone = event(r, 1, "Told S1").is_none();
            at("Told S0", "Hall") && at("Told O0", "Yard") && gone && event(r, 2, "Untold S").is_some()
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (3 + 4, 3), "one write for each edit");
    rehearsal.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_forgotten_replay_id_the_org_is_looked_through() {
    let mut rehearsal = Rehearsal::start(fast(), "").await;
    make(&rehearsal, "Told");
    all_are_there(&rehearsal).await;
    rehearsal.stop_engine().await;
    untold_edits(&rehearsal);
    rehearsal.sandbox.org().forget_change_events();
    rehearsal.start_engine().await;
    untold_edits_cross(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_events_have_the_record_or_the_org_read_again() {
    // Nothing but the gap events may lead to the edits: no comparison of the org, neither a later nor the first one.
    let rehearsal = Rehearsal::start(fast(), "sweep:\n  salesforce_secs: 604800\n").await;
    make(&rehearsal, "Told");
    all_are_there(&rehearsal).await;
    let is_over = |(stream, at): (&String, &String)| stream.contains("round/salesforce") && at != "wanted";
    while !rehearsal.status().await.checkpoints.iter().any(is_over) {
        rehearsal.pass(chrono::TimeDelta::seconds(1)).await;
    }
    rehearsal.rest().await;
    rehearsal.switch(|switches| switches.salesforce_drop_next = 4);
    untold_edits(&rehearsal);
    rehearsal.pass(chrono::TimeDelta::seconds(10)).await;
    assert_eq!(rehearsal.written(), (3, 3), "nobody was told");
    let moved = id_of(&row(&rehearsal, "Told S0").unwrap());
    rehearsal.sandbox.org().publish_gap(Some(&moved));
    rehearsal
        .until("the record was read", |r| event(r, 0, "Told S0").unwrap()["location"]["displayName"] == "Hall")
        .await;
    rehearsal.sandbox.org().publish_gap(None);
    untold_edits_cross(&rehearsal).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_taken_out_of_the_recycle_bin_is_made_again_on_the_other_side_once() {
    let rehearsal = Rehearsal::start(fast(), "").await;
    make(&rehearsal, "Bin");
    all_are_there(&rehearsal).await;
    let id = id_of(&row(&rehearsal, "Bin O0").unwrap());
    let person = rehearsal.person(0);
    person.delete_in_salesforce(&id).unwrap();
    rehearsal.until("it is gone from Outlook", |r| event(r, 0, "Bin O0").is_none()).await;
    rehearsal.rest().await;
    let actor = calbridge_sandbox::Actor::Person(person.mailbox().address.clone());
    rehearsal.sandbox.org().undelete(&actor, None, &id).unwrap();
    rehearsal.until("it is in Outlook again", |r| event(r, 0, "Bin O0").is_some()).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (5, 3), "three created, one deleted, one made again");
    assert!(gives(&rehearsal.story(&id).await, "restored"));
    rehearsal.end().await;
}
