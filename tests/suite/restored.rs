//! The database is lost, or restored from a backup: links come back from the stamps, and nothing is created, deleted or
//! mailed a second time.

use std::collections::BTreeMap;

use calbridge::engine;
use calbridge_core::case::Instruction;
use calbridge_core::ids::LaneId;
use calbridge_core::side::Side;
use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::{Value, json};

use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce, with_attendees};
use crate::support::postgres::Database;
use crate::support::redis::RedisServer;
use crate::support::{Rehearsal, alone};

/// People whose mailboxes are enrolled.
const PEOPLE: usize = 5;
const GUESTS: [&str; 2] = ["one@elsewhere.example", "two@elsewhere.example"];

fn quick() -> Options {
    Options { mailboxes: PEOPLE, speed: 10.0, ..Options::default() }
}

/// The settings with a Redis, where there is one.
fn with(redis: Option<&RedisServer>) -> String {
    redis.map_or_else(String::new, |redis| format!("redis:\n  url: {}\n", redis.url()))
}

/// Makes so many meetings for each person on each side; every third of Outlook's has guests.
fn make(rehearsal: &Rehearsal, prefix: &str, of_outlook: usize, of_salesforce: usize) {
    for number in 0..PEOPLE {
        let person = rehearsal.person(number);
        for meeting in 0..of_outlook {
            let subject = format!("{prefix} O{number}-{meeting}");
            let body = if meeting % 3 == 2 { with_attendees(&subject, &GUESTS) } else { in_outlook(&subject) };
            person.create_in_outlook(&body).unwrap();
        }
        for meeting in 0..of_salesforce {
            person.create_in_salesforce(in_salesforce(&format!("{prefix} S{number}-{meeting}"))).unwrap();
        }
    }
}

fn events(rehearsal: &Rehearsal) -> Vec<Value> {
    (0..PEOPLE).flat_map(|number| rehearsal.outlook(number)).collect()
}

/// Waits until so many meetings are on both sides, and nothing is open.
async fn agreed(rehearsal: &Rehearsal, meetings: usize) {
    rehearsal
        .until("everything is on both sides", |r| r.salesforce().len() == meetings && events(r).len() == meetings)
        .await;
    rehearsal.rest().await;
    assert!(!rehearsal.sandbox.oracle().is_pending(), "{:#?}", rehearsal.sandbox.oracle());
}

/// Waits until the database knows so many links, by state, and nothing waits.
async fn until_links(rehearsal: &Rehearsal, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect();
    let waiting = async {
        loop {
            let status = rehearsal.status().await;
            if status.links == expected && status.waiting == 0 && status.intents == 0 {
                return;
            }
            rehearsal.pass(chrono::TimeDelta::milliseconds(500)).await;
        }
    };
    let ended = tokio::time::timeout(crate::support::PATIENCE, waiting).await;
    assert!(ended.is_ok(), "expected {expected:?}: {:#?}", rehearsal.status().await);
}

/// Everything that the engine did on either side, and the mails that came of it.
fn done(rehearsal: &Rehearsal) -> (usize, u64) {
    (rehearsal.app_effects().len(), rehearsal.engine_mails())
}

fn find<'a>(records: &'a [Value], field: &str, value: &str) -> &'a Value {
    records.iter().find(|record| record[field] == value).unwrap_or_else(|| panic!("there is no {value}"))
}

fn place(rehearsal: &Rehearsal, subject: &str) -> (Value, Value) {
    let event = find(&events(rehearsal), "subject", subject)["location"]["displayName"].clone();
    (event, find(&rehearsal.salesforce(), "Subject", subject)["Location"].clone())
}

/// Changes the place of a meeting on one side.
fn move_to(rehearsal: &Rehearsal, number: usize, side: Side, subject: &str, place: &str) {
    let person = rehearsal.person(number);
    match side {
        Side::Outlook => {
            let id = id_of(find(&rehearsal.outlook(number), "subject", subject));
            person.update_in_outlook(&id, &json!({"location": {"displayName": place}})).unwrap();
        }
        Side::Salesforce => {
            let id = id_of(find(&rehearsal.salesforce(), "Subject", subject));
            person.update_in_salesforce(&id, &fields(json!({"Location": place}))).unwrap();
        }
    }
}

fn delete(rehearsal: &Rehearsal, number: usize, side: Side, subject: &str) {
    let person = rehearsal.person(number);
    match side {
        Side::Outlook => {
            let id = id_of(find(&rehearsal.outlook(number), "subject", subject));
            person.delete_in_outlook(&id).unwrap();
        }
        Side::Salesforce => {
            let id = id_of(find(&rehearsal.salesforce(), "Subject", subject));
            person.delete_in_salesforce(&id).unwrap();
        }
    }
}

/// Answers the hold of one meeting.
async fn answer(rehearsal: &Rehearsal, subject: &str, instruction: Instruction) {
    let desk = engine::open_desk(&rehearsal.config, rehearsal.clock.clone()).await.unwrap();
    let row = id_of(find(&rehearsal.salesforce(), "Subject", subject));
    let held = desk.letters(true, 100).await.unwrap();
    let lanes: Vec<LaneId> = held
        .iter()
        .filter(|open| open.salesforce.as_deref() == Some(row.as_str()))
        .filter_map(|open| open.lane)
        .collect();
    assert_eq!(desk.instruct(&lanes, instruction).await.unwrap(), 1, "one hold for {subject}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_finds_its_500_links_again_and_writes_nothing() {
    let _busy = alone().await;
    let redis = RedisServer::start().await;
    let mut rehearsal = Rehearsal::start(Options { speed: 5.0, ..quick() }, &with(redis.as_ref())).await;
    make(&rehearsal, "Kept", 80, 0);
    agreed(&rehearsal, 400).await;
    make(&rehearsal, "Kept", 0, 22);
    agreed(&rehearsal, 510).await;
    for number in 0..PEOPLE {
        move_to(&rehearsal, number, Side::Salesforce, &format!("Kept O{number}-0"), "Moved there");
        move_to(&rehearsal, number, Side::Outlook, &format!("Kept S{number}-0"), "Moved here");
        move_to(&rehearsal, number, Side::Outlook, &format!("Kept O{number}-2"), "With guests");
        delete(&rehearsal, number, Side::Outlook, &format!("Kept O{number}-1"));
        delete(&rehearsal, number, Side::Salesforce, &format!("Kept S{number}-1"));
    }
    agreed(&rehearsal, 500).await;
    rehearsal.assert_clean();
    rehearsal.stop_engine().await;

    // Three pairs are made to differ while nobody looks.
    move_to(&rehearsal, 0, Side::Outlook, "Kept O0-3", "Nobody saw");
    move_to(&rehearsal, 1, Side::Salesforce, "Kept O1-3", "Nobody saw");
    move_to(&rehearsal, 2, Side::Salesforce, "Kept S2-2", "Nobody saw");
    let before = done(&rehearsal);
    rehearsal.lose_database();
    if let Some(redis) = &redis {
        let _emptied: String = redis.ask(&["FLUSHALL"]).await;
    }
    rehearsal.start_engine_behind().await;
    until_links(&rehearsal, &[("live", 497), ("held", 3)]).await;
    rehearsal.rest().await;
    until_links(&rehearsal, &[("live", 497), ("held", 3)]).await;
    assert_eq!(rehearsal.status().await.holds, BTreeMap::from([("stamp_unknown".to_owned(), 3)]));
    assert_eq!(done(&rehearsal), before, "nothing was created, changed, deleted or mailed");
    assert_eq!((events(&rehearsal).len(), rehearsal.salesforce().len()), (500, 500));

    // A person answers, and life goes on.
    answer(&rehearsal, "Kept O0-3", Instruction::Approve).await;
    answer(&rehearsal, "Kept O1-3", Instruction::Keep(Side::Salesforce)).await;
    answer(&rehearsal, "Kept S2-2", Instruction::Discard).await;
    move_to(&rehearsal, 3, Side::Salesforce, "Kept O3-4", "Linked again");
    until_links(&rehearsal, &[("live", 499), ("tombstone", 1)]).await;
    rehearsal.until("the edit crossed", |r| place(r, "Kept O3-4").0 == "Linked again").await;
    let both = |text: &str| (json!(text), json!(text));
    rehearsal.until("what was approved crossed", |r| place(r, "Kept O0-3") == both("Nobody saw")).await;
    rehearsal.until("what was kept crossed", |r| place(r, "Kept O1-3") == both("Nobody saw")).await;
    rehearsal.rest().await;
    assert_eq!(place(&rehearsal, "Kept S2-2"), (json!("Room 1"), json!("Nobody saw")), "left as it was");
    assert_eq!((done(&rehearsal).0 - before.0, rehearsal.engine_mails()), (3, 0), "one write each");
    rehearsal.end().await;
}

/// A hundred meetings, then a backup; then 100 creations, 50 edits and 20 deletions that the backup knows nothing of.
async fn outdated(database: Option<Database>, redis: Option<&RedisServer>) -> Rehearsal {
    let mut rehearsal = Rehearsal::without_engine_on(database, quick(), &with(redis)).await;
    rehearsal.start_engine().await;
    make(&rehearsal, "Old", 12, 8);
    agreed(&rehearsal, 100).await;
    rehearsal.stop_engine().await;
    let backup = rehearsal.back_up().await;

    rehearsal.start_engine().await;
    make(&rehearsal, "New", 12, 8);
    for number in 0..PEOPLE {
        for meeting in 0..5 {
            move_to(&rehearsal, number, Side::Outlook, &format!("Old O{number}-{meeting}"), "Moved here");
            move_to(&rehearsal, number, Side::Salesforce, &format!("Old S{number}-{meeting}"), "Moved there");
        }
        for meeting in [6, 7] {
            delete(&rehearsal, number, Side::Outlook, &format!("Old O{number}-{meeting}"));
            delete(&rehearsal, number, Side::Salesforce, &format!("Old S{number}-{meeting}"));
        }
    }
    agreed(&rehearsal, 180).await;
    rehearsal.assert_clean();
    rehearsal.stop_engine().await;
    rehearsal.restore(backup);
    rehearsal
}

/// Starts the engine on the backup and lets it look through everything; it may not write anything.
async fn looked_through(rehearsal: &mut Rehearsal) {
    let (before, rounds) = (done(rehearsal), rehearsal.calls("graph.calendar_view_delta"));
    rehearsal.start_engine_behind().await;
    until_links(rehearsal, &[("live", 180), ("tombstone", 20)]).await;
    rehearsal
        .until("each mailbox was listed", |r| r.calls("graph.calendar_view_delta") >= rounds + PEOPLE as u64)
        .await;
    rehearsal.rest().await;
    until_links(rehearsal, &[("live", 180), ("tombstone", 20)]).await;
    assert_eq!(done(rehearsal), before, "nothing was created, changed, deleted or mailed");
    assert!(rehearsal.status().await.holds.is_empty());
    rehearsal.assert_clean();
}

/// Edits cross at once in both directions: nothing of before is taken for stale.
async fn goes_on(rehearsal: &Rehearsal) {
    let before = (rehearsal.writes(Cloud::Outlook).len(), rehearsal.writes(Cloud::Salesforce).len());
    move_to(rehearsal, 0, Side::Outlook, "Old S0-0", "After all");
    move_to(rehearsal, 1, Side::Salesforce, "Old O1-0", "After all");
    move_to(rehearsal, 2, Side::Outlook, "New S2-0", "After all");
    delete(rehearsal, 3, Side::Salesforce, "New O3-0");
    let both = (json!("After all"), json!("After all"));
    rehearsal
        .until("edits cross", |r| ["Old S0-0", "Old O1-0", "New S2-0"].iter().all(|subject| place(r, subject) == both))
        .await;
    rehearsal.until("the deletion crosses", |r| events(r).len() == 179).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (before.0 + 2, before.1 + 2));
    rehearsal.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_sqlite_database_is_recognised_by_redis_and_agrees_after_one_sweep() {
    let _busy = alone().await;
    let Some(redis) = RedisServer::start().await else { return };
    let mut rehearsal = outdated(None, Some(&redis)).await;
    let epoch = rehearsal.store().await.epoch().to_owned();
    assert_eq!(rehearsal.store().await.restored_at(), None);
    looked_through(&mut rehearsal).await;
    let store = rehearsal.store().await;
    assert_ne!(store.epoch(), epoch, "what Redis remembers of before drops nothing");
    let recognised = store.restored_at().expect("it is noted");
    goes_on(&rehearsal).await;

    // A further start is an ordinary one.
    rehearsal.stop_engine().await;
    rehearsal.start_engine().await;
    assert_eq!(rehearsal.store().await.restored_at(), Some(recognised));
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_postgresql_database_agrees_after_one_sweep_when_run_is_told_so() {
    let _busy = alone().await;
    let Some(database) = Database::create().await else { return };
    let mut rehearsal = outdated(Some(database), None).await;
    rehearsal.config.store.restored = true;
    looked_through(&mut rehearsal).await;
    goes_on(&rehearsal).await;
    rehearsal.end().await;
}
