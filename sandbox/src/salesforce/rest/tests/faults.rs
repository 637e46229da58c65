//! Faults by name, as a client of the REST API meets them, and what befalls the org.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::super::super::many::{Change, Road};
use super::*;
use crate::faults::Switches;

fn switch(client: &Client, change: impl FnOnce(&mut Switches)) {
    client.org.world.faults.change(change);
}

const ADA: &str = "ada@example.com";

#[tokio::test]
async fn outages_strike_before_or_after_the_effect() {
    let client = client();
    let body = with_times(json!({"Subject": "Review"}));
    switch(&client, |switches| switches.salesforce_internal_error_next = 1);
    let reply = client.send("POST", EVENTS, &[], &body).await;
    assert_eq!((reply.status, reply.code()), (500, "UNKNOWN_EXCEPTION"));
    switch(&client, |switches| switches.salesforce_gateway_timeout_next = 1);
    let reply = client.send("POST", EVENTS, &[], &body).await;
    assert_eq!((reply.status, reply.code()), (504, ""), "a gateway has no codes");
    assert!(client.org.records().is_empty());
    switch(&client, |switches| switches.salesforce_unavailable_after_next = 1);
    let reply = client.send("POST", EVENTS, &[], &body).await;
    assert_eq!((reply.status, reply.code()), (503, "SERVER_UNAVAILABLE"));
    assert_eq!(client.org.records().len(), 1, "it took effect");
    switch(&client, |switches| switches.salesforce_throttle_next = 1);
    let reply = client.get(EVENTS).await;
    assert_eq!((reply.status, reply.headers["retry-after"].to_str().unwrap()), (429, "1"));
}

#[tokio::test]
async fn a_stale_read_shows_rows_as_they_were_and_changes_nothing() {
    let client = client();
    let id = client.create(json!({"Subject": "Before"})).await;
    let change = json!({"Subject": "After"});
    client.send("PATCH", &format!("{EVENTS}/{id}"), &[], &change).await;
    let young = client.create(json!({"Subject": "Young"})).await;
    switch(&client, |switches| switches.salesforce_stale_reads_next = 2);
    let subjects = |reply: &Reply| -> Vec<String> {
        let rows = reply.body["records"].as_array().unwrap();
        rows.iter().map(|row| row["Subject"].as_str().unwrap().to_owned()).collect()
    };
    let soql = "SELECT Subject FROM Event ORDER BY Id";
    assert_eq!(subjects(&client.query(soql).await), ["Before"]);
    assert_eq!(client.get(&format!("{EVENTS}/{young}")).await.status, 404);
    assert_eq!(subjects(&client.query(soql).await), ["After", "Young"], "the next read sees what is");
}

#[tokio::test]
async fn archived_rows_show_in_query_all_alone_and_purged_ones_nowhere() {
    let client = client();
    let (old, gone) = (client.create(json!({"Subject": "Old"})).await, client.create(json!({"Subject": "Gone"})).await);
    let events = client.org.world.meters.read().change_events;
    assert_eq!(client.org.archive(&BTreeSet::from([old.clone()])), 1);
    assert_eq!(client.org.world.meters.read().change_events, events + 1, "a gap event tells of it");
    client.send("DELETE", &format!("{EVENTS}/{gone}"), &[], &Value::Null).await;
    let all = "/services/data/v66.0/queryAll?q=SELECT+Id,IsDeleted,IsArchived+FROM+Event+ORDER+BY+Id";
    assert_eq!(client.query("SELECT Id FROM Event").await.body["totalSize"], 0);
    let rows = client.get(all).await.body["records"].clone();
    assert_eq!((&rows[0]["IsArchived"], &rows[1]["IsDeleted"]), (&json!(true), &json!(true)));
    let events = client.org.world.meters.read().change_events;
    assert_eq!(client.org.purge_recycle_bin(), 1);
    assert_eq!(client.org.world.meters.read().change_events, events, "nobody is told");
    assert_eq!(client.get(all).await.body["totalSize"], 1);
}

#[tokio::test]
async fn an_inactive_user_gets_no_new_event_and_keeps_the_old_ones() {
    let client = client();
    let ada = client.org.find_user(ADA).unwrap();
    let id = client.create(json!({"Subject": "Hers", "OwnerId": ada})).await;
    client.org.set_active(&ada, false);
    let body = with_times(json!({"Subject": "New", "OwnerId": ada}));
    assert_eq!(client.send("POST", EVENTS, &[], &body).await.code(), "INACTIVE_OWNER_OR_USER");
    let (path, change) = (format!("{EVENTS}/{id}"), json!({"Location": "Hall"}));
    assert_eq!(client.send("PATCH", &path, &[], &change).await.status, 204);
    switch(&client, |switches| switches.salesforce_update_inactive_owners = false);
    assert_eq!(client.send("PATCH", &path, &[], &change).await.code(), "INACTIVE_OWNER_OR_USER");
    client.org.set_active(&ada, true);
    assert_eq!(client.send("POST", EVENTS, &[], &body).await.status, 201);
}

#[tokio::test]
async fn many_events_change_in_one_transaction_or_not_at_all() {
    let client = client();
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(client.create(json!({"Subject": format!("Number {number}")})).await);
    }
    let fields = json!({"Location": "Hall"}).as_object().cloned().unwrap();
    let from = client.org.world.history.len();
    client.org.change_many(ADA, Road::Flow, &ids, Change::Update(&fields)).unwrap();
    client.org.change_many(ADA, Road::Bulk, &ids[..1], Change::Delete).unwrap();
    client.org.automate(&ids[1..2], Change::Delete).unwrap();
    let authors: Vec<(Actor, EffectKind)> =
        client.org.world.history.since(from).into_iter().map(|effect| (effect.actor, effect.kind)).collect();
    let person = || (Actor::Person(ADA.to_owned()), EffectKind::Update);
    let bulk = (Actor::Automation(format!("bulk of {ADA}")), EffectKind::Delete);
    let flow = (Actor::Automation("flow".to_owned()), EffectKind::Delete);
    assert_eq!(authors, [person(), person(), person(), bulk, flow]);
    assert_eq!(client.org.get(&ids[2]).unwrap()["LastModifiedById"], client.org.find_user(ADA).unwrap());
    assert_ne!(client.org.automated_user_id(), client.org.integration_user_id());
    // One of them is gone: none changes.
    let length = client.org.world.history.len();
    let wrong = client.org.change_many(ADA, Road::Page, &[ids[2].clone(), ids[0].clone()], Change::Delete);
    assert_eq!(wrong.unwrap_err()[0].code, "ENTITY_IS_DELETED");
    assert_eq!(client.org.world.history.len(), length);
}

#[tokio::test]
async fn a_flow_follows_up_an_applications_write_once_and_delayed_events_keep_their_order() {
    let client = client();
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(Arc::clone(&client.org).run(stop.clone()));
    switch(&client, |switches| switches.salesforce_automation_secs = 1);
    let id = client.create(json!({"Subject": "Watched", "Location": "Room 1"})).await;
    let mut history = client.org.world.history.watch();
    while client.org.get(&id).unwrap()["Location"] != "Room 1 (reviewed)" {
        history.changed().await.unwrap();
    }
    assert_eq!(client.org.get(&id).unwrap()["LastModifiedById"], client.org.automated_user_id());
    switch(&client, |switches| {
        switches.salesforce_automation_secs = 0;
        switches.salesforce_delay_ms = 300;
    });
    let told = client.org.world.meters.read().change_events;
    let path = format!("{EVENTS}/{id}");
    client.send("PATCH", &path, &[], &json!({"Subject": "First"})).await;
    assert_eq!(client.org.world.meters.read().change_events, told, "not yet");
    switch(&client, |switches| switches.salesforce_delay_ms = 0);
    client.send("PATCH", &path, &[], &json!({"Subject": "Second"})).await;
    let mut published = client.org.log.watch();
    while client.org.world.meters.read().change_events < told + 2 {
        published.changed().await.unwrap();
    }
    stop.cancel();
    let events = client.org.log.read(0, 100, |_| true);
    let last_two: Vec<i64> = events.iter().rev().take(2).map(|event| event.replay).collect();
    assert!(last_two[0] > last_two[1], "the second came out behind the first");
    assert!(client.org.world.clock.now() - client.org.world.clock.epoch() > TimeDelta::seconds(1));
}
