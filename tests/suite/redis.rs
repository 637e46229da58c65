//! With a real Redis: duplicates are dropped in two phases; without it, or emptied, the result is the same.
//!
//! The first tests run the engine in this process, the last ones the real program: what its log and its metrics say, and a new
//! database beside an old Redis.

use calbridge_sandbox::{Options, Profile};
use serde_json::json;

use crate::support::Rehearsal;
use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};
use crate::support::process::{Bench, Running};
use crate::support::redis::RedisServer;

async fn start(redis: &RedisServer) -> Rehearsal {
    let options = Options { speed: 10.0, profile: Profile::Office, ..Options::default() };
    Rehearsal::start(options, &format!("redis:\n  url: {}\n", redis.url())).await
}

/// Makes meetings on both sides and waits until they crossed.
async fn make(rehearsal: &Rehearsal) {
    for number in 0..3 {
        let person = rehearsal.person(number);
        person.create_in_outlook(&in_outlook(&format!("O{number}"))).unwrap();
        person.create_in_salesforce(in_salesforce(&format!("S{number}"))).unwrap();
    }
    rehearsal.until("all crossed", |r| r.salesforce().len() == 6 && (0..3).all(|n| r.outlook(n).len() == 2)).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (3, 3));
}

/// Edits each meeting on the side where it was made, and waits until that crossed.
async fn edit(rehearsal: &Rehearsal, place: &str) {
    let before = rehearsal.written();
    for number in 0..3 {
        let person = rehearsal.person(number);
        for event in rehearsal.outlook(number).iter().filter(|event| event["subject"] == format!("O{number}").as_str())
        {
            person.update_in_outlook(&id_of(event), &json!({"location": {"displayName": place}})).unwrap();
        }
        for row in rehearsal.salesforce().iter().filter(|row| row["Subject"] == format!("S{number}").as_str()) {
            person.update_in_salesforce(&id_of(row), &fields(json!({"Location": place}))).unwrap();
        }
    }
    rehearsal
        .until("the places crossed", |r| {
            let there = |n: usize| r.outlook(n).iter().all(|event| event["location"]["displayName"] == place);
            (0..3).all(there) && r.salesforce().iter().all(|row| row["Location"] == place)
        })
        .await;
    rehearsal.rest().await;
    let after = rehearsal.written();
    assert_eq!((after.0 - before.0, after.1 - before.1), (3, 3), "one write for each edit");
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_dropped_once_their_first_delivery_is_durable() {
    let Some(redis) = RedisServer::start().await else { return };
    let rehearsal = start(&redis).await;
    rehearsal.switch(|switches| switches.hub_duplicate_next = 40);
    make(&rehearsal).await;
    edit(&rehearsal, "Room 2").await;
    assert!(rehearsal.duplicates().await > 0, "{:#?}", rehearsal.status().await);

    let keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    let epoch = rehearsal.store().await.epoch().to_owned();
    // How far the journal has come: by it a database that was put back from a backup is recognised, under any epoch.
    let (progress, claims): (Vec<String>, Vec<String>) = keys.into_iter().partition(|key| key.starts_with("cb:j:"));
    assert!(progress.len() <= 1 && !claims.is_empty(), "{progress:?}, {claims:?}");
    for key in claims {
        assert!(key.starts_with(&format!("cb:d:{epoch}:rehearsal:")), "the epoch and the connection lead: {key}");
        let value: String = redis.ask(&["GET", &key]).await;
        assert_eq!(value, "d", "every claim was confirmed: {key}");
        let left: i64 = redis.ask(&["TTL", &key]).await;
        assert!(left > 0, "{key} never ends");
    }
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_changes_no_result() {
    let Some(redis) = RedisServer::start().await else { return };
    let rehearsal = start(&redis).await;
    make(&rehearsal).await;
    for round in 0..2 {
        let _flushed: String = redis.ask(&["FLUSHALL"]).await;
        edit(&rehearsal, &format!("Room {round} again")).await;
    }
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_changes_no_result_and_is_used_again_when_it_is_back() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let rehearsal = start(&redis).await;
    make(&rehearsal).await;
    redis.kill();
    edit(&rehearsal, "Room without").await;
    redis.start_again().await;
    edit(&rehearsal, "Room with").await;
    let keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    assert!(!keys.is_empty(), "the engine found its way back");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_not_there_at_the_start_changes_no_result() {
    let Some(mut redis) = RedisServer::start().await else { return };
    redis.kill();
    let rehearsal = start(&redis).await;
    make(&rehearsal).await;
    edit(&rehearsal, "Room without").await;
    rehearsal.assert_clean();
    rehearsal.end().await;
}

/// Reads a metric without labels; none while it was never set.
fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Starts a sandbox for the real program with a Redis at this address.
async fn bench(url: &str) -> Bench {
    let options = Options { speed: 10.0, profile: Profile::Office, ..Options::default() };
    Bench::set_up(options, &format!("redis:\n  url: {url}\n")).await
}

/// Waits until the program tells that Redis is away: a warning with its code, and both metrics.
async fn away_is_told(bench: &Bench, running: &Running) {
    running.log_until("the warning", |line| line.contains("WARN") && line.contains("CB1206")).await;
    bench
        .answers("/metrics", |_, text| {
            metric(text, "calbridge_cache_up") == Some(0.0)
                && metric(text, "calbridge_cache_errors_total").is_some_and(|errors| errors > 0.0)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_tells_that_redis_is_away_and_that_it_is_back_and_does_its_work_meanwhile() {
    let Some(mut redis) = RedisServer::start().await else { return };
    redis.kill();
    let bench = bench(&redis.url()).await;
    let running = bench.run().await;
    // Away at the start, and told before any notification came.
    away_is_told(&bench, &running).await;
    make(&bench.rehearsal).await;

    redis.start_again().await;
    running.log_until("its return", |line| line.contains("answers again")).await;
    bench.answers("/metrics", |_, text| metric(text, "calbridge_cache_up") == Some(1.0)).await;
    edit(&bench.rehearsal, "Room with").await;
    let keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    assert!(!keys.is_empty(), "it is used again");

    // Emptied, and away in the middle.
    let _flushed: String = redis.ask(&["FLUSHALL"]).await;
    edit(&bench.rehearsal, "Room emptied").await;
    redis.kill();
    away_is_told(&bench, &running).await;
    edit(&bench.rehearsal, "Room without").await;
    let warnings = running.log().iter().filter(|line| line.contains("WARN") && line.contains("CB1206")).count();
    assert_eq!(warnings, 2, "one warning each time that it went away");
    bench.rehearsal.assert_clean();
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_accepts_and_never_answers_holds_no_notification_up() {
    // Bound and never accepted from: connections come about, and nothing ever comes back on them.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = bench(&format!("redis://{}", mute.local_addr().unwrap())).await;
    let running = bench.run().await;
    away_is_told(&bench, &running).await;
    make(&bench.rehearsal).await;
    edit(&bench.rehearsal, "Room mute").await;
    bench.rehearsal.assert_clean();
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_beside_an_old_redis_drops_nothing() {
    let Some(redis) = RedisServer::start().await else { return };
    let bench = bench(&redis.url()).await;
    let running = bench.run().await;
    make(&bench.rehearsal).await;
    let old_epoch = bench.rehearsal.store().await.epoch().to_owned();
    assert_eq!(running.stop().await.code, 0);
    let database = bench.rehearsal.config.store.file().unwrap().to_path_buf();
    for end in ["", "-wal", "-shm", ".key", ".lock"] {
        let mut file = database.clone().into_os_string();
        file.push(end);
        // The files beside it come and go.
        let _gone = std::fs::remove_file(file);
    }

    // The hub has no position for the new database and delivers everything once more, which the old Redis knows all of.
    let written = bench.rehearsal.written();
    let running = bench.run().await;
    let epoch = bench.rehearsal.store().await.epoch().to_owned();
    assert_ne!(epoch, old_epoch);
    bench.status_until("links are rebuilt", |status| status.links.get("live").copied().unwrap_or_default() == 6).await;
    bench.rehearsal.rest().await;
    assert_eq!(bench.rehearsal.written(), written, "nothing is made a second time");
    edit(&bench.rehearsal, "Room after").await;
    let keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    for epoch in [&old_epoch, &epoch] {
        assert!(keys.iter().any(|key| key.starts_with(&format!("cb:d:{epoch}:"))), "no key of {epoch}: {keys:?}");
    }
    bench.rehearsal.assert_clean();
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}
