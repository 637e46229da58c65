//! `calbridge trace`, the real program: every name of a meeting leads to its story, whatever became of it.

use calbridge_sandbox::Options;
use chrono::{DateTime, FixedOffset, Utc};
use serde_json::{Value, json};

use crate::support::meetings::{in_outlook, in_salesforce};
use crate::support::process::{Bench, Ended};

/// Days after the sandbox's present, as the zone of the first mailbox (Berlin) writes them.
const DAY: &str = "2026-12-01";

fn options() -> Options {
    let start_at = "2026-11-23T08:00:00Z".parse::<DateTime<Utc>>().unwrap();
    Options { start_at: Some(start_at), ..Options::default() }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Tells whether a story's last write has come back as a notification.
fn is_echoed(story: &Value) -> bool {
    let lines = story["lines"].as_array().unwrap();
    lines.last().is_some_and(|line| text(&line["what"]).starts_with("after "))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_a_meeting_leads_to_its_story_beside_a_running_engine_on_a_stopped_one_and_after_its_deletion() {
    let bench = Bench::set_up(options(), "").await;
    let running = bench.run().await;
    let rehearsal = &bench.rehearsal;
    let person = rehearsal.person(0);
    let mailbox = person.mailbox().address.clone();
    let made = person.create_in_outlook(&in_outlook("Quarterly harvest review")).unwrap();
    person.create_in_outlook(&in_outlook("Another harvest")).unwrap();
    rehearsal.until("both are in Salesforce", |r| r.salesforce().len() == 2).await;
    let of_salesforce = || {
        let mut rows = rehearsal.salesforce();
        rows.retain(|row| text(&row["Subject"]).contains("review"));
        rows.remove(0)
    };
    let record = text(&of_salesforce()["Id"]).to_owned();
    let patch = json!({"Subject": "Quarterly harvest review, moved"});
    person.update_in_salesforce(&record, patch.as_object().unwrap()).unwrap();
    let of_outlook =
        |wanted: &str| rehearsal.outlook(0).into_iter().find(|event| text(&event["subject"]).contains(wanted));
    rehearsal.until("the edit is in Outlook", |_| of_outlook("moved").is_some()).await;
    rehearsal.settled().await;
    let event = of_outlook("moved").unwrap();

    let id = text(&made["id"]).to_owned();
    let names = [
        ("Outlook event id", id.clone()),
        ("change key at its creation", text(&made["changeKey"]).to_owned()),
        ("change key now", text(&event["changeKey"]).to_owned()),
        ("iCalUId", text(&made["iCalUId"]).to_owned()),
        ("Salesforce id of 18 characters", record.clone()),
        ("Salesforce id of 15 characters", record.chars().take(15).collect()),
        ("link id", text(&of_salesforce()["Calbridge_Link__c"]).to_owned()),
        ("words of its subject", "REVIEW quarterly".to_owned()),
        ("a word of an earlier subject", "quarterly".to_owned()),
    ];
    let check = async |verdict: &str, place: &str| {
        for (what, name) in &names {
            // Echoes of the last writes may still be on their way, which is a verdict of its own.
            // An engine that was stopped before they were looked at leaves it standing.
            let echoed = |ended: &Ended| ended.data.starts_with("waiting for the end of the burst");
            let stopped = place == "on a stopped engine";
            let stands = |ended: &Ended| stopped || !echoed(ended);
            let ended = bench.call_until(&["trace", name], stands).await;
            assert_eq!(ended.code, 0, "{place}, {what}: {ended:?}");
            assert!(ended.data.starts_with(verdict) || stopped && echoed(&ended), "{place}, {what}: {}", ended.data);
            let json = bench.call(&["trace", name, "--json"]).await.json();
            let stories = json.as_array().unwrap();
            assert_eq!(stories.len(), 1, "{place}, {what}");
            assert_eq!(stories[0]["identity"]["outlook_event_id"], id.as_str(), "{place}, {what}");
            assert_eq!(stories[0]["identity"]["salesforce_id"], record.as_str(), "{place}, {what}");
        }
    };
    check("in step since ", "beside a running engine").await;

    let found = bench.call(&["trace", "harvest", "--json"]).await.json();
    assert_eq!(found.as_array().unwrap().len(), 2, "a word of both subjects finds both");
    let on_day = bench.call(&["trace", "--mailbox", &mailbox, "--on", DAY, "--json"]).await.json();
    assert_eq!(on_day.as_array().unwrap().len(), 2, "both are on that day");
    let other_day = bench.call(&["trace", "--mailbox", &mailbox, "--on", "2026-12-02"]).await;
    assert_eq!(other_day.code, 3, "{other_day:?}");

    assert_eq!(running.stop().await.code, 0);
    check("in step since ", "on a stopped engine").await;

    let running = bench.run().await;
    person.delete_in_outlook(&id).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    check("deleted since ", "after its deletion").await;
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_tells_both_sides_in_order_with_both_times_reason_codes_versions_and_stream_positions() {
    let bench = Bench::set_up(options(), "").await;
    let running = bench.run().await;
    let rehearsal = &bench.rehearsal;
    let person = rehearsal.person(0);
    let record = person.create_in_salesforce(in_salesforce("Story with a canary")).unwrap();
    rehearsal.until("it is in Outlook", |r| r.outlook(0).len() == 1).await;
    rehearsal.settled().await;
    let id = text(&rehearsal.outlook(0)[0]["id"]).to_owned();
    person.update_in_outlook(&id, &json!({"showAs": "free"})).unwrap();
    rehearsal.until("the edit is in Salesforce", |r| r.salesforce()[0]["ShowAs"] == "Free").await;
    rehearsal.settled().await;
    let story = bench.story_until(&record, |story| story["verdict"]["is"] == "in_step" && is_echoed(story)).await;

    assert_eq!(story["zone"], "Europe/Berlin");
    assert_eq!(story["mails"], "no mail was caused");
    let lines = story["lines"].as_array().unwrap();
    let mut last = DateTime::<Utc>::MIN_UTC;
    for line in lines {
        let at: DateTime<Utc> = text(&line["at"]).parse().unwrap();
        let local: DateTime<FixedOffset> = text(&line["at_local"]).parse().unwrap();
        assert!(at >= last, "lines are in order: {lines:#?}");
        assert_eq!(local.offset().local_minus_utc(), 3600, "Berlin in winter: {line}");
        assert!((at - local.to_utc()).num_milliseconds().abs() < 1, "{line}");
        assert!(!text(&line["what"]).is_empty());
        let reasons = line["reasons"].as_array().unwrap();
        assert!(!reasons.is_empty(), "every line says why: {line}");
        assert!(reasons.iter().all(|reason| text(&reason["code"]).starts_with("CB2")), "{line}");
        last = at;
    }
    let sides: Vec<&str> = lines.iter().filter_map(|line| line["side"].as_str()).collect();
    assert!(sides.contains(&"outlook") && sides.contains(&"salesforce"), "{sides:?}");
    let told: Vec<&Value> = lines.iter().filter(|line| text(&line["what"]).starts_with("after ")).collect();
    assert!(!told.is_empty());
    for line in &told {
        assert!(!line["versions"].as_array().unwrap().is_empty(), "{line}");
        let positions = line["positions"].as_array().unwrap();
        assert!(!positions.is_empty(), "{line}");
        assert!(positions.iter().all(|position| text(position).contains('@')), "{line}");
    }
    let reasons: Vec<&str> =
        lines.iter().flat_map(|line| line["reasons"].as_array().unwrap()).map(|r| text(&r["code"])).collect();
    for code in ["CB2010", "CB2065", "CB2011"] {
        assert!(reasons.contains(&code), "{code} is missing: {reasons:?}");
    }

    // Another delivery of a notification that was answered long ago may be waiting at this very moment.
    let shown = bench.call_until(&["trace", &record], |ended| ended.data.starts_with("in step since ")).await;
    let heading = shown.data.lines().find(|line| line.starts_with("UTC")).expect("the times have headings");
    assert!(heading.contains("Berlin") && heading.contains("side") && heading.contains("what"), "{heading}");
    let flat: String = shown.data.split_whitespace().collect();
    for line in lines {
        for fact in ["versions", "positions"].iter().flat_map(|kind| line[kind].as_array().unwrap()) {
            let fact: String = text(fact).split_whitespace().collect();
            assert!(flat.contains(&fact), "{fact} is missing from:\n{}", shown.data);
        }
        let at: DateTime<Utc> = text(&line["at"]).parse().unwrap();
        let at = at.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
        assert!(shown.data.contains(&at), "{at} is missing from:\n{}", shown.data);
    }
    assert!(!shown.data.contains("canary"), "values are shown only when asked for:\n{}", shown.data);
    let values = bench.call(&["trace", &record, "--values"]).await;
    assert!(values.data.contains("canary"), "{}", values.data);

    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_alone_is_found_with_its_reason_and_what_nobody_named_was_never_seen() {
    let bench = Bench::set_up(options(), "").await;
    let running = bench.run().await;
    let person = bench.rehearsal.person(0);
    let mut private = in_outlook("Doctor");
    private["sensitivity"] = json!("private");
    let id = text(&person.create_in_outlook(&private).unwrap()["id"]).to_owned();
    let story = bench.story_until(&id, |story| story["verdict"]["is"] == "not_synced").await;
    assert_eq!(story["verdict"]["reason"]["name"], "private");
    let shown = bench.call(&["trace", &id]).await;
    assert!(shown.data.starts_with("not synced since "), "{}", shown.data);
    let flat = shown.data.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("private meetings stay on their side (CB2030)"), "{}", shown.data);
    let by_words = bench.call(&["trace", "Doctor"]).await;
    assert_eq!(by_words.code, 3, "words of private meetings are not kept: {by_words:?}");

    for unknown in ["00U000000000001AAA", "nobody ever wrote this", "018f0c7e-0000-7000-8000-000000000000"] {
        let ended = bench.call(&["trace", unknown]).await;
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.data.starts_with("never seen"), "{ended:?}");
        let ended = bench.call(&["trace", unknown, "--json"]).await;
        assert_eq!((ended.code, ended.json()), (3, json!([])));
    }
    assert!(bench.rehearsal.salesforce().is_empty());
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}
