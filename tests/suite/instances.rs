//! Engines on PostgreSQL: one does what it does on SQLite, two share the work, and what one leaves the other takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use tokio::time::{Instant, sleep, timeout};

use crate::support::ledger::Ledger;
use crate::support::look::gives;
use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};
use crate::support::postgres::Database;
use crate::support::process::{Bench, Running};
use crate::support::{PATIENCE, Rehearsal, until_stored};

/// Clocks run four times as fast as the wall clock; what a dead instance held is free after 5 s, its duties after 10 s.
const SPEED: f64 = 4.0;
const SETTINGS: &str = "network:\n  request_timeout_secs: 2\nsync:\n  late_apply_secs: 12\n  lease_secs: 5\n";

/// Returns how many partitions each instance has by the database, those of the dead included until they are taken over.
async fn partitions(rehearsal: &Rehearsal) -> BTreeMap<String, usize> {
    let mut admin = rehearsal.database().admin().await;
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT owner, COUNT(*) FROM duty WHERE kind LIKE 'event_hubs/%' AND owner <> '' GROUP BY owner",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    rows.into_iter().map(|(owner, count)| (owner, usize::try_from(count).unwrap())).collect()
}

/// Waits until so many instances have equal shares, and every partition has one reader.
async fn shared_by(rehearsal: &Rehearsal, instances: usize) -> BTreeMap<String, usize> {
    let all = rehearsal.sandbox.endpoints().event_hubs.partitions;
    let began = Instant::now();
    loop {
        let shares = partitions(rehearsal).await;
        let readers: Vec<usize> =
            rehearsal.sandbox.hub_handle().readers().iter().map(|reader| reader.partition).collect();
        let read: BTreeSet<usize> = readers.iter().copied().collect();
        let fair = shares.len() == instances && shares.values().all(|share| *share == all / instances);
        if fair && readers.len() == all && read.len() == all {
            return shares;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{instances} instances do not share {all} partitions: {shares:?}, {readers:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Makes a meeting on each side for every person; returns how many there are then on each side.
fn make(rehearsal: &Rehearsal, round: &str) {
    for number in 0..rehearsal.sandbox.endpoints().mailboxes.len() {
        let person = rehearsal.person(number);
        person.create_in_outlook(&in_outlook(&format!("{round}: call of {number}"))).unwrap();
        person.create_in_salesforce(in_salesforce(&format!("{round}: visit of {number}"))).unwrap();
    }
}

/// Waits until everything is on both sides and nothing is open.
async fn agreed(rehearsal: &Rehearsal) {
    rehearsal
        .until("both sides agree", |r| {
            let report = r.sandbox.oracle();
            report.is_clean() && !report.is_pending() && report.unlinked_outlook + report.unlinked_salesforce == 0
        })
        .await;
    rehearsal.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_on_postgresql_carries_meetings_both_ways_and_writes_each_once() {
    let Some(database) = Database::create().await else { return };
    let rehearsal = Rehearsal::start_on(database, Options::default(), "").await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&in_outlook("Review")).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    let id = id_of(&rehearsal.salesforce()[0]);
    let patch = fields(json!({"Subject": "Review, moved", "Location": "Room 2"}));
    person.update_in_salesforce(&id, &patch).unwrap();
    rehearsal.until("the edit is in Outlook", |r| r.outlook(0)[0]["subject"] == "Review, moved").await;
    let visit = rehearsal.person(1).create_in_salesforce(in_salesforce("Visit")).unwrap();
    rehearsal.until("it is in Outlook", |r| r.outlook(1).len() == 1).await;
    // The server drops every connection at an awkward moment: what is not durable is done again.
    assert!(rehearsal.database().cut_connections().await > 0);
    person.delete_in_outlook(&event).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.person(1).delete_in_salesforce(&visit).unwrap();
    rehearsal.until("it is gone from Outlook", |r| r.outlook(1).is_empty()).await;
    agreed(&rehearsal).await;
    assert_eq!(rehearsal.writes(Cloud::Salesforce).len(), 2, "one creation, one deletion");
    assert_eq!(rehearsal.writes(Cloud::Outlook).len(), 3, "one update, one creation, one deletion");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_the_work_and_one_takes_over_all_of_it_when_the_other_is_killed() {
    let Some(database) = Database::create().await else { return };
    let options = Options { speed: SPEED, ..Options::default() };
    let bench = Bench::set_up_on(Some(database), options, SETTINGS).await;
    let rehearsal = &bench.rehearsal;
    let first = bench.run().await;
    let alone = shared_by(rehearsal, 1).await;

    // A second one comes: it gets its half, and nobody reads twice.
    let second = bench.start_another("second", SETTINGS);
    let both = shared_by(rehearsal, 2).await;
    let (elder, _) = alone.first_key_value().unwrap();
    assert!(both.contains_key(elder), "the first one goes on with its half");
    make(rehearsal, "two");
    agreed(rehearsal).await;
    let people = rehearsal.sandbox.endpoints().mailboxes.len();
    assert_eq!(rehearsal.writes(Cloud::Salesforce).len(), people, "one creation each");
    assert_eq!(rehearsal.writes(Cloud::Outlook).len(), people, "one creation each");
    assert!(writes_in(&first) + writes_in(&second) >= 2 * people, "the logs tell of every write");

    // The first one, which has the change events, the subscriptions and the rounds, dies in the middle of work.
    make(rehearsal, "killed");
    let writing = |r: &Rehearsal| r.writes(Cloud::Salesforce).len() + r.writes(Cloud::Outlook).len() > 2 * people;
    rehearsal.until("writes are under way", writing).await;
    let subscribed = bench.subscribed();
    first.kill().await;
    let heir = shared_by(rehearsal, 1).await;
    assert!(!heir.contains_key(elder), "everything is the second one's");
    rehearsal.until("the change events are read again", |_| bench.subscribed() > subscribed).await;
    agreed(rehearsal).await;

    // A third one joins, the second one goes in good order: what it gives back is not waited for.
    let third = bench.start_another("third", SETTINGS);
    shared_by(rehearsal, 2).await;
    make(rehearsal, "handed over");
    assert_eq!(second.stop().await.code, 0);
    shared_by(rehearsal, 1).await;
    agreed(rehearsal).await;

    rehearsal.assert_clean();
    let status = rehearsal.status().await;
    assert_eq!(
        (status.dead_letters, status.links.get("live")),
        (0, Some(&(6 * u64::try_from(people).unwrap()))),
        "{status:?}"
    );
    let ledger = Ledger::read(rehearsal).await;
    assert_eq!(ledger.writes_without_cause(), Vec::<String>::new(), "no write without a cause, none twice");
    assert_eq!(third.stop().await.code, 0);
    bench.end().await;
}

/// Counts the lines about writes in a program's log.
fn writes_in(running: &Running) -> usize {
    running.log().iter().filter(|line| line.contains("wrote")).count()
}

/// `check`, `status` and `trace` beside a running engine; none of them needs the database to itself.
#[tokio::test(flavor = "multi_thread")]
async fn commands_read_a_database_on_a_server_beside_its_engines() {
    let Some(database) = Database::create().await else { return };
    let bench = Bench::set_up_on(Some(database), Options::default(), "").await;
    let before = bench.call(&["check"]).await;
    assert!(before.data.contains("is empty: the first `calbridge run` makes its tables"), "{before:?}");
    let running = bench.run().await;
    bench.rehearsal.person(0).create_in_outlook(&in_outlook("Review")).unwrap();
    bench.rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    bench.rehearsal.settled().await;
    let id = id_of(&bench.rehearsal.salesforce()[0]);
    let story = bench.story_until(&id, |story| story["lines"].as_array().is_some_and(|lines| lines.len() > 1)).await;
    assert!(story.to_string().contains(&id), "{story}");
    let status = bench.call(&["status", "--json"]).await;
    assert_eq!(status.json()["store"]["links"]["live"], 1, "{status:?}");
    let check = bench.call(&["check"]).await;
    assert!(check.data.contains("answers and is ready"), "{check:?}");
    for ended in [&before, &status, &check] {
        assert!(!format!("{ended:?}").contains(crate::support::postgres::PASSWORD));
    }
    let log = running.log().join("\n");
    assert!(!log.contains(crate::support::postgres::PASSWORD), "the password is in no log");
    assert_eq!(running.stop().await.code, 0);
    timeout(PATIENCE, bench.end()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_before_the_pairs_of_mailboxes_and_users_are_known() {
    let Some(database) = Database::create().await else { return };
    let patient = "sync: { quiet_ms: 10_000, max_wait_ms: 10_000 }";
    let mut rehearsal = Rehearsal::start_on(database, Options { speed: SPEED, ..Options::default() }, patient).await;
    let event = id_of(&rehearsal.person(0).create_in_outlook(&in_outlook("Early")).unwrap());
    until_stored("the notification", async || {
        let mut admin = rehearsal.database().admin().await;
        let taken_in: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM dirty").fetch_one(&mut admin).await.unwrap();
        (taken_in == 1).then_some(())
    })
    .await;
    // Another instance takes over the meeting, which is due at once, and cannot read the pairs at first.
    rehearsal.stop_engine().await;
    rehearsal.pass(chrono::TimeDelta::seconds(10)).await;
    let mut admin = rehearsal.database().admin().await;
    let mut slow = admin.begin().await.unwrap();
    slow.execute("LOCK TABLE enrolment IN ACCESS EXCLUSIVE MODE").await.unwrap();
    rehearsal.start_engine_behind().await;
    rehearsal.pass(chrono::TimeDelta::seconds(10)).await;
    slow.commit().await.unwrap();
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    let story = rehearsal.story(&event).await;
    assert!(!gives(&story, "not_enrolled"), "{story:#}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}
