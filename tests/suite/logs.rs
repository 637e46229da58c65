//! Logs: JSON when asked, one span per change with its ids, and nothing personal or secret in any of them.

use calbridge_sandbox::Options;
use serde_json::{Map, Value, json};

use crate::support::meetings::in_outlook;
use crate::support::process::Bench;

/// Part of every personal text below; long enough not to come up in a random id.
const CANARY: &str = "zyxcanary";

const SETTINGS: &str = "log:\n  format: json\n  level: debug\nsync:\n  retry_min_ms: 50\n";

/// A meeting with a canary in everything that is personal.
fn personal(subject: &str) -> Value {
    let mut event = in_outlook(&format!("{CANARY} subject {subject}"));
    event["body"]["content"] = json!(format!("{CANARY} body"));
    event["location"]["displayName"] = json!(format!("{CANARY} place"));
    event
}

/// Finds the address part after `key` in a connection string.
fn part<'a>(connection_string: &'a str, key: &str) -> &'a str {
    let mut parts = connection_string.split(';');
    parts.find_map(|part| part.strip_prefix(key)?.strip_prefix('=')).expect("the part is there")
}

fn spans(line: &Value) -> Vec<&Map<String, Value>> {
    let around = line["spans"].as_array().into_iter().flatten();
    around.chain([&line["span"]]).filter_map(Value::as_object).filter(|span| span["name"] == "sync").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_metrics_and_dead_letters_hold_ids_and_reasons_and_nothing_personal_or_secret() {
    let bench = Bench::set_up(Options::default(), SETTINGS).await;
    let rehearsal = &bench.rehearsal;
    let faults = &rehearsal.sandbox.world().faults;
    let running = bench.run().await;
    let person = rehearsal.person(0);

    // A meeting that crosses, is edited on both sides and meets outages on its way.
    let plain = person.create_in_outlook(&personal("plain")).unwrap()["id"].as_str().unwrap().to_owned();
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    faults.change(|switches| {
        switches.salesforce_unavailable_next = 2;
        switches.salesforce_lock_next = 1;
        switches.outlook_unavailable_next = 2;
    });
    person.update_in_outlook(&plain, &json!({"subject": format!("{CANARY} subject edited")})).unwrap();
    rehearsal
        .until("the edit is in Salesforce", |r| r.salesforce()[0]["Subject"] == format!("{CANARY} subject edited"))
        .await;
    rehearsal.settled().await;
    let record = rehearsal.salesforce()[0]["Id"].as_str().unwrap().to_owned();
    let patch = json!({"Location": format!("{CANARY} place edited")});
    person.update_in_salesforce(&record, patch.as_object().unwrap()).unwrap();
    rehearsal
        .until("it came back", |r| r.outlook(0)[0]["location"]["displayName"] == format!("{CANARY} place edited"))
        .await;
    rehearsal.settled().await;

    // Guests, whose names and addresses are personal too, and an edit that must not flow back to them.
    let mut meeting = personal("with guests");
    meeting["attendees"] = json!([
        {"emailAddress": {"address": format!("{CANARY}@elsewhere.example"), "name": format!("{CANARY} guest")}, "type": "required"}
    ]);
    person.create_in_outlook(&meeting).unwrap();
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 2).await;
    rehearsal.settled().await;

    // One that stays on its side.
    let mut private = personal("private");
    private["sensitivity"] = json!("private");
    let private = person.create_in_outlook(&private).unwrap()["id"].as_str().unwrap().to_owned();
    bench.story_until(&private, |story| story["verdict"]["is"] == "not_synced").await;

    // One that Salesforce refuses for good.
    faults.change(|switches| switches.salesforce_multiday = false);
    let mut long = personal("refused");
    long["end"]["dateTime"] = json!("2026-12-03T11:00:00");
    let long = person.create_in_outlook(&long).unwrap()["id"].as_str().unwrap().to_owned();
    bench.story_until(&long, |story| story["verdict"]["is"] == "dead_letter").await;
    person.delete_in_outlook(&plain).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;

    let metrics =
        bench.answers("/metrics", |status, text| status == 200 && text.contains("calbridge_crossings_total{")).await;
    let ready = bench.ask("/readyz").await.expect("it answers").1;
    let status = bench.call(&["status"]).await.data;
    let status = status.split_once("dead letters:").expect("dead letters are listed").1.to_owned();
    let letters = bench.call(&["status", "--json"]).await.json()["dead_letters"].clone();
    assert_eq!(letters.as_array().map(Vec::len), Some(1), "{letters:#}");
    let ended = running.stop().await;
    assert_eq!(ended.code, 0);
    let log: Vec<&str> = ended.complaints.lines().collect();

    let endpoints = rehearsal.sandbox.endpoints();
    let mut forbidden = vec![
        CANARY.to_owned(),
        endpoints.microsoft.client_secret.clone(),
        endpoints.salesforce.client_secret.clone(),
        part(&endpoints.event_hubs.connection_string, "SharedAccessKey").to_owned(),
        // How every token of Entra begins, every signature of the hub, and every session of this Salesforce org.
        "eyJ".to_owned(),
        "SharedAccessSignature".to_owned(),
        format!("{}!", endpoints.salesforce.org_id.chars().take(15).collect::<String>()),
        "Bearer ".to_owned(),
    ];
    for mailbox in &endpoints.mailboxes {
        forbidden.push(mailbox.address.clone());
        forbidden.push(mailbox.name.clone());
    }
    let outputs = log.iter().copied().map(|line| ("a log line", line)).chain([
        ("the metrics", metrics.as_str()),
        ("/readyz", ready.as_str()),
        ("the dead letters of status", status.as_str()),
    ]);
    let letters = letters.to_string();
    for (what, text) in outputs.chain([("a dead letter", letters.as_str())]) {
        for word in &forbidden {
            assert!(!text.to_lowercase().contains(&word.to_lowercase()), "{what} holds `{word}`: {text}");
        }
    }

    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line} is no JSON")))
        .collect();
    let mut complete = 0;
    for line in &lines {
        for span in spans(line) {
            // A run that a timer woke has no change of its own; it has the ids all the same.
            assert!(span.contains_key("outlook.event_id") || span.contains_key("salesforce.record_id"), "{line}");
            let ids = ["meeting.id", "change.side", "change.version", "outlook.event_id", "salesforce.record_id"];
            complete += usize::from(ids.iter().all(|id| span.contains_key(*id)));
        }
    }
    assert!(
        complete > 0,
        "spans of a linked meeting carry all ids: {:#?}",
        lines.iter().filter(|l| !spans(l).is_empty()).collect::<Vec<_>>()
    );
    let of_write = |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with("wrote meeting"));
    let writes: Vec<&Value> = lines.iter().filter(of_write).collect();
    assert!(writes.len() >= 4, "one line for each write: {writes:#?}");
    assert!(writes.iter().all(|line| !spans(line).is_empty()), "each in the span of its change: {writes:#?}");
    let ids: Vec<&str> =
        lines.iter().flat_map(spans).filter_map(|span| span.get("outlook.event_id")?.as_str()).collect();
    assert!(ids.contains(&plain.as_str()) && ids.contains(&private.as_str()), "people search by these ids");

    // What is sealed or never stored is in no byte of the database.
    for entry in std::fs::read_dir(rehearsal.folder()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().starts_with("calbridge.db") {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        let holds = |word: &str| bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()));
        assert!(!holds(CANARY), "{:?} holds a personal text", entry.file_name());
        assert!(!holds(&endpoints.microsoft.client_secret) && !holds(&endpoints.salesforce.client_secret));
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_private_meetings_lead_nowhere_and_their_values_are_shown_to_nobody() {
    let bench = Bench::set_up(Options::default(), SETTINGS).await;
    let running = bench.run().await;
    let person = bench.rehearsal.person(0);
    let mut private = personal("hidden");
    private["sensitivity"] = json!("private");
    let id = person.create_in_outlook(&private).unwrap()["id"].as_str().unwrap().to_owned();
    bench.story_until(&id, |story| story["verdict"]["is"] == "not_synced").await;
    assert_eq!(bench.call(&["trace", "hidden"]).await.code, 3);
    let shown = bench.call(&["trace", &id, "--values"]).await;
    assert!(shown.code == 0 && !shown.data.contains(CANARY), "{shown:?}");
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}
