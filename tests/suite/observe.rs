//! `mode: observe`: everything is looked at, planned and recorded, and nothing is written.

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;

use crate::support::meetings::{in_outlook, in_salesforce};
use crate::support::process::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn observing_records_what_would_have_been_written_and_writes_nothing() {
    let bench = Bench::set_up(Options::default(), "sync:\n  mode: observe\n").await;
    let running = bench.run().await;
    let person = bench.rehearsal.person(0);
    let made = person.create_in_outlook(&in_outlook("Seen only")).unwrap();
    let record = person.create_in_salesforce(in_salesforce("Seen only, too")).unwrap();
    for id in [made["id"].as_str().unwrap(), &record] {
        let story = bench.story_until(id, |story| story["verdict"]["is"] == "not_synced").await;
        let names: Vec<&str> = story["lines"][0]["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reason| reason["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["observe_mode", "created"], "{story:#}");
    }
    person.update_in_outlook(made["id"].as_str().unwrap(), &serde_json::json!({"showAs": "free"})).unwrap();
    person.delete_in_salesforce(&record).unwrap();
    let story = bench.story_until(&record, |story| story["lines"].as_array().unwrap().len() > 1).await;
    assert!(story["identity"]["link_id"].is_null(), "{story:#}");
    bench.rehearsal.settled().await;
    assert_eq!(running.stop().await.code, 0);
    assert!(bench.touched(Cloud::Outlook).is_empty() && bench.touched(Cloud::Salesforce).is_empty());
    bench.end().await;
}
