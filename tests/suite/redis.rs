//! With a real Redis: duplicates are dropped in two phases; without it, or emptied, the result is the same.

use calbridge_sandbox::{Options, Profile};
use serde_json::json;

use crate::support::Rehearsal;
use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};
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
    assert!(!keys.is_empty());
    let epoch = rehearsal.store().await.epoch().to_owned();
    for key in keys {
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
