//! The two custom fields that a write leaves its mark in: missing, not unique, and what a lost answer means then.

use calbridge_sandbox::Options;
use calbridge_sandbox::faults::Switches;
use calbridge_sandbox::history::Cloud;
use serde_json::{Value, json};

use crate::support::meetings::{in_outlook, in_salesforce};
use crate::support::process::Bench;

/// Not so long that a test waits, long enough that something can happen in between.
const QUICK: &str =
    "sync:\n  late_apply_secs: 3\n  retry_max_secs: 2\n  absence_proof_secs: 2\nnetwork:\n  request_timeout_secs: 2\n";

async fn nothing_is_written(name: &str, switch: fn(&mut Switches)) {
    let bench = Bench::set_up(Options::default(), QUICK).await;
    bench.rehearsal.sandbox.world().faults.change(switch);
    let running = bench.run().await;
    let line = running.log_until("the missing field", |line| line.contains(name)).await;
    assert!(line.contains("nothing is written"), "{line}");
    let person = bench.rehearsal.person(0);
    let id = person.create_in_outlook(&in_outlook("Waits")).unwrap()["id"].as_str().unwrap().to_owned();
    let story = bench.story_until(&id, |story| {
        story["lines"].as_array().unwrap().iter().any(|line| line["reasons"][0]["name"] == "missing_stamp_field")
    });
    assert_eq!(story.await["verdict"]["is"], "waiting");
    assert!(bench.touched(Cloud::Salesforce).is_empty());
    let check = bench.call(&["check"]).await;
    assert_eq!(check.code, 1);
    assert!(check.data.contains(&format!("FAILED  salesforce: field {name}: ")), "{}", check.data);
    assert_eq!(running.stop().await.code, 0);

    // Once the field is there, what waited crosses.
    bench.rehearsal.sandbox.world().faults.change(|switches| {
        (switches.salesforce_link_field, switches.salesforce_token_field) = (true, true);
    });
    let running = bench.start();
    bench.rehearsal.until("it crossed", |r| r.salesforce().len() == 1).await;
    bench.rehearsal.settled().await;
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_link_field_nothing_is_written_to_salesforce_and_the_log_names_it() {
    nothing_is_written("Calbridge_Link__c", |switches| switches.salesforce_link_field = false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_field_nothing_is_written_to_salesforce_and_the_log_names_it() {
    nothing_is_written("Calbridge_Token__c", |switches| switches.salesforce_token_field = false).await;
}

fn creations(bench: &Bench) -> usize {
    let rows = bench.rehearsal.sandbox.org().records();
    rows.iter().filter(|row| row["Subject"] == "Answer lost").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_link_field_is_not_unique_a_creation_without_an_answer_is_found_by_its_link_id() {
    let bench = Bench::set_up(Options::default(), QUICK).await;
    let faults = &bench.rehearsal.sandbox.world().faults;
    faults.change(|switches| switches.salesforce_link_unique = false);
    let running = bench.run().await;
    faults.change(|switches| switches.salesforce_cut_answer_next = 1);
    let person = bench.rehearsal.person(0);
    let id = person.create_in_outlook(&in_outlook("Answer lost")).unwrap()["id"].as_str().unwrap().to_owned();
    let story = bench.story_until(&id, |story| story["verdict"]["is"] == "in_step").await;
    let record = bench.rehearsal.salesforce().remove(0);
    assert_eq!(story["identity"]["salesforce_id"], record["Id"]);
    assert_eq!(story["identity"]["link_id"], record["Calbridge_Link__c"]);
    let reasons: Vec<&str> = story["lines"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|line| line["reasons"].as_array().unwrap())
        .map(|reason| reason["name"].as_str().unwrap())
        .collect();
    assert!(reasons.contains(&"write_unknown") && reasons.contains(&"write_confirmed"), "{reasons:?}");
    bench.rehearsal.settled().await;
    assert_eq!(creations(&bench), 1);
    assert_eq!(bench.rehearsal.writes(Cloud::Salesforce).len(), 1, "it was sent once");

    person.update_in_outlook(&id, &json!({"showAs": "free"})).unwrap();
    bench.rehearsal.until("edits go on to the found record", |r| r.salesforce()[0]["ShowAs"] == "Free").await;
    bench.rehearsal.settled().await;
    assert_eq!(creations(&bench), 1);
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_more_than_one_record_carries_the_link_id_a_person_is_asked() {
    let bench = Bench::set_up(Options::default(), QUICK).await;
    let faults = &bench.rehearsal.sandbox.world().faults;
    faults.change(|switches| switches.salesforce_link_unique = false);
    let running = bench.run().await;
    faults.change(|switches| switches.salesforce_cut_answer_next = 1);
    let person = bench.rehearsal.person(0);
    let id = person.create_in_outlook(&in_outlook("Answer lost")).unwrap()["id"].as_str().unwrap().to_owned();
    bench.rehearsal.until("the creation took effect", |r| r.salesforce().len() == 1).await;
    // What a clone button does: it copies every field.
    let link = bench.rehearsal.salesforce()[0]["Calbridge_Link__c"].as_str().unwrap().to_owned();
    let mut clone = in_salesforce("Answer lost");
    clone.insert("Calbridge_Link__c".to_owned(), json!(link));
    person.create_in_salesforce(clone).unwrap();
    let story = bench.story_until(&id, |story| story["verdict"]["is"] == "dead_letter").await;
    assert_eq!(story["verdict"]["reason"]["name"], "duplicate_link", "{story:#}");
    let status: Value = bench.call(&["status", "--json"]).await.json();
    let letters = status["dead_letters"].as_array().unwrap();
    assert!(letters.iter().all(|letter| letter["reason"] == "duplicate_link") && !letters.is_empty(), "{letters:#?}");
    assert_eq!(bench.rehearsal.writes(Cloud::Salesforce).len(), 1, "nothing more was written");
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}
