//! Whoever may send to the hub may send anything: each message ends with a reason, none harms what follows it.

use std::collections::BTreeMap;

use calbridge::outlook::ClientStates;
use calbridge_core::ids::{ConnectionId, MailboxId};
use calbridge_core::reason::Reason;
use calbridge_sandbox::event_hubs::{Numbered, RawBody};
use calbridge_sandbox::{Options, Sandbox};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::meetings::{id_of, in_outlook};
use crate::support::process::Bench;
use crate::support::{Rehearsal, alone, until_stored};

/// Part of every hostile text; it must reach no log, metric, or column in the clear.
const CANARY: &str = "zyxcanary";

/// The partition that hostile messages go to, and the messages that must get through behind them.
const PARTITION: usize = 0;

/// Makes notifications as Graph would, for the first mailbox of a sandbox.
struct Forger {
    tenant: String,
    mailbox: String,
    state: String,
    /// An event that is not there.
    event: String,
}

impl Forger {
    fn of(sandbox: &Sandbox) -> Self {
        let ada = sandbox.person_number(0).unwrap();
        let event = id_of(&ada.create_in_outlook(&in_outlook("Gone before anybody looked")).unwrap());
        ada.delete_in_outlook(&event).unwrap();
        let endpoints = sandbox.endpoints();
        let secret = SecretString::from(endpoints.microsoft.client_secret.clone());
        let mailbox = endpoints.mailboxes[0].user_id.clone();
        let states = ClientStates::new(&secret, &ConnectionId::new("rehearsal"));
        let state = states.of(&MailboxId::new(&mailbox));
        Self { tenant: endpoints.microsoft.tenant_id.clone(), mailbox, state, event }
    }

    /// A notification that is in order.
    fn item(&self, event: &str) -> Value {
        let path = format!("Users/{}/Events/{event}", self.mailbox);
        json!({
            "id": "2d6d9a5e-0000-4000-8000-000000000001", "subscriptionId": "5f6c7f5c-0000-4000-8000-000000000001",
            "subscriptionExpirationDateTime": "2026-11-28T09:12:13.0000000+00:00", "clientState": self.state,
            "changeType": "updated", "tenantId": self.tenant, "resource": path,
            "resourceData": {
                "@odata.type": "#Microsoft.Graph.Event", "@odata.id": path, "@odata.etag": "W/\"k\"", "id": event,
            },
        })
    }

    /// A notification with some parts changed; null takes a part away.
    fn with(&self, changes: &Value) -> Value {
        let mut item = self.item(&self.event);
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                item.as_object_mut().unwrap().remove(name);
            } else {
                item[name] = value.clone();
            }
        }
        item
    }
}

fn message(items: &[Value]) -> Vec<u8> {
    json!({ "value": items }).to_string().into_bytes()
}

fn data(bytes: impl Into<Vec<u8>>) -> RawBody {
    RawBody::Sections(vec![bytes.into()])
}

/// What is sent, and how each part of it must end; an empty list: taken as a signal, or nothing to do.
type Case = (&'static str, RawBody, &'static [(Reason, u64)]);

use Reason::{ForeignMessage as Foreign, Undecodable, UnknownKind, ValidationMessage as Validation};

fn broken_messages() -> Vec<Case> {
    let deep = |open: &str, close: &str| format!("{{\"value\":{}{}}}", open.repeat(10_000), close.repeat(10_000));
    let once: &[(Reason, u64)] = &[(Undecodable, 1)];
    vec![
        ("no JSON", data(format!("<html>{CANARY}</html>")), once),
        ("an empty body", data(""), once),
        ("a body of blanks", data("  \n "), once),
        ("NUL characters", data(vec![0; 64]), once),
        ("invalid UTF-8", data(b"{\"value\":[\"\xff\xfe\"]}".to_vec()), once),
        ("JSON of another shape: a list", data("[1, 2]"), once),
        ("JSON of another shape: a number", data("7"), once),
        ("JSON of another shape: no `value`", data(json!({ "values": [], "subject": CANARY }).to_string()), once),
        ("`value` is an object", data(json!({"value": {"subject": CANARY}}).to_string()), once),
        ("`value` is null", data(r#"{"value":null}"#), once),
        ("`value` is empty", data(r#"{"value":[]}"#), once),
        ("text behind the object", data(r#"{"value":[]} trailing"#), once),
        ("a cut message", data(r#"{"value":[{"subscriptionId":"5f"#), once),
        ("lists nested 10 000 deep", data(deep("[", "]")), once),
        ("objects nested 10 000 deep", data(deep(r#"{"a":"#, "}").replace(":}", ":1}")), once),
        ("nested 10 000 deep beside the items", data(deep("[", "]").replace("value", "other")), once),
        // More than about 1 MiB no hub takes; what the reader does with it is shown beside the reader.
        ("nearly 1 MiB of blanks", data(vec![b' '; 1_040_000]), once),
        (
            "1 MiB in one string",
            data(format!("{{\"value\":[{{\"resource\":\"{}\"}}]}}", "x".repeat(1_000_000))),
            &[(Foreign, 1)],
        ),
        ("half a million items", data(format!("{{\"value\":[{}0]}}", "0,".repeat(500_000))), &[(Undecodable, 500_001)]),
        ("two data sections", RawBody::Sections(vec![b"{\"value\":".to_vec(), b"[]}".to_vec()]), once),
        ("no data section of two hundred", RawBody::Sections(vec![b"x".to_vec(); 200]), once),
        ("a text as AMQP value", RawBody::Text(CANARY.to_owned()), once),
        ("a list as AMQP sequence", RawBody::Sequence(vec![CANARY.to_owned(); 10]), once),
        ("no body at all", RawBody::Nothing, once),
    ]
}

fn odd_items(forger: &Forger) -> Vec<Case> {
    let one = |changes: Value| data(message(&[forger.with(&changes)]));
    let other = "00000000-0000-4000-8000-000000000009";
    let undecodable: &[(Reason, u64)] = &[(Undecodable, 1)];
    let foreign: &[(Reason, u64)] = &[(Foreign, 1)];
    let unknown: &[(Reason, u64)] = &[(UnknownKind, 1)];
    let mailbox = &forger.mailbox;
    let guessed = "0".repeat(64);
    let many: Vec<Value> = vec![json!({ "clientState": guessed }); 10_000];
    let mut twice = String::from_utf8(message(&[forger.item(&forger.event)])).unwrap();
    twice = twice.replace(r#""changeType":"#, r#""changeType":"deleted","changeType":"#);
    vec![
        (
            "items of other types",
            data(message(&[json!(5), json!("x"), json!([]), json!(null), json!(true)])),
            &[(Undecodable, 5)],
        ),
        ("an item of nothing", data(message(&[json!({})])), foreign),
        ("parts of wrong types", one(json!({"changeType": [CANARY]})), undecodable),
        ("an id of a wrong type", one(json!({"resourceData": {"id": 5}})), undecodable),
        ("no change type", one(json!({"changeType": null})), unknown),
        ("an unknown change type", one(json!({"changeType": "exploded"})), unknown),
        ("an unknown lifecycle event", one(json!({"lifecycleEvent": CANARY})), unknown),
        ("a lifecycle event that is none", one(json!({"lifecycleEvent": ""})), unknown),
        ("a message instead of an event", one(json!({"resource": format!("Users/{mailbox}/Messages/AAM=")})), foreign),
        ("a contact instead of an event", one(json!({"resource": format!("Users/{mailbox}/Contacts/AAM=")})), foreign),
        (
            "an event of a mailbox that is not enrolled",
            one(json!({"resource": format!("Users/{other}/Events/AAM=")})),
            foreign,
        ),
        ("no resource", one(json!({"resource": null})), foreign),
        ("a resource of nothing", one(json!({"resource": ""})), foreign),
        ("a resource in another tree", one(json!({"resource": "groups/1/events/2"})), foreign),
        ("a wrong secret", one(json!({"clientState": guessed})), foreign),
        ("a secret of no form", one(json!({"clientState": CANARY})), foreign),
        ("no secret", one(json!({"clientState": null})), foreign),
        ("another tenant", one(json!({"tenantId": other})), foreign),
        ("a tenant that is no id", one(json!({"tenantId": CANARY})), foreign),
        ("an id that climbs out of its path", one(json!({"resourceData": {"id": ".."}})), undecodable),
        ("an id with a query", one(json!({"resourceData": {"id": "a?$expand=x"}})), undecodable),
        ("an id with NUL", one(json!({"resourceData": {"id": "a\u{0}b"}})), undecodable),
        ("an id of 100 000 letters", one(json!({"resourceData": {"id": "A".repeat(100_000)}})), undecodable),
        (
            "no id anywhere",
            one(json!({"resource": format!("Users/{mailbox}/Events"), "resourceData": {}})),
            undecodable,
        ),
        (
            "content in a blob store",
            one(json!({"resource": null, "resourceData": null, "additionalPayloadStorageId": "b1"})),
            unknown,
        ),
        (
            "the message that tests the way",
            data(message(&[json!({
                "subscriptionId": "NA", "subscriptionExpirationDateTime": "NA", "clientState": "NA", "resource": "NA",
                "changeType": "Validation: Testing client application reachability for subscription Request-Id: 1",
                "resourceData": {"@odata.type": "NA", "@odata.id": "NA", "id": "NA"},
            })])),
            &[(Validation, 1)],
        ),
        ("10 000 items with a guessed secret", data(message(&many)), &[(Foreign, 10_000)]),
        // In order, though unusual: signals, and nothing to set aside.
        (
            "an expired subscription of ours",
            one(json!({"subscriptionExpirationDateTime": "1990-01-01T00:00:00Z"})),
            &[],
        ),
        ("an unknown subscription with our secret", one(json!({"subscriptionId": other})), &[]),
        ("encrypted content nobody asked for", one(json!({"encryptedContent": {"data": CANARY, "dataKey": "k"}})), &[]),
        ("a part given twice", data(twice), &[]),
        (
            "a version of 100 000 letters",
            one(json!({"resourceData": {"id": forger.event, "@odata.etag": "k".repeat(100_000)}})),
            &[],
        ),
    ]
}

/// Returns how many messages and items were set aside, by reason.
async fn counted(rehearsal: &Rehearsal) -> BTreeMap<Reason, u64> {
    let mut counts = BTreeMap::new();
    for reject in rehearsal.status().await.rejects {
        *counts.entry(reject.reason).or_default() += reject.count;
    }
    counts
}

/// Waits until everything that the partition held when this was called is behind us.
async fn read_up(rehearsal: &Rehearsal, what: &str) {
    let last = rehearsal.sandbox.hub().properties(PARTITION).unwrap().last_sequence;
    let store = rehearsal.store().await;
    until_stored(&format!("the partition is read to its end: {what}"), async || {
        let status = store.status().await.unwrap();
        let (_, position) = status.checkpoints.iter().find(|(stream, _)| stream.ends_with("/0"))?;
        position.parse::<i64>().is_ok_and(|at| at >= last).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_ends_with_its_reason_and_what_follows_it_gets_through() {
    let options = Options { partitions: 1, speed: 4.0, ..Options::default() };
    let mut rehearsal = Rehearsal::without_engine(options, "").await;
    let forger = Forger::of(&rehearsal.sandbox);
    rehearsal.start_engine().await;
    read_up(&rehearsal, "the messages of subscriptions").await;
    let mut before = counted(&rehearsal).await;
    let mut wrong = Vec::new();
    for (name, body, expected) in broken_messages().into_iter().chain(odd_items(&forger)) {
        rehearsal.sandbox.hub().place(PARTITION, body, Numbered::Next).unwrap();
        read_up(&rehearsal, name).await;
        let after = counted(&rehearsal).await;
        let mut difference = after.clone();
        for (reason, count) in &before {
            *difference.get_mut(reason).unwrap() -= count;
        }
        difference.retain(|_, count| *count > 0);
        if difference != expected.iter().copied().collect() {
            wrong.push((name, difference));
        }
        before = after;
    }
    assert!(wrong.is_empty(), "these ended otherwise: {wrong:#?}");

    // The good ones among bad ones count, and so does what comes behind all of this.
    let created = rehearsal.person(0).create_in_outlook(&in_outlook("Behind the garbage")).unwrap();
    rehearsal.until("the meeting crossed", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    // An edit that Graph tells nobody about: only the placed message can have brought it across.
    rehearsal.switch(|switches| switches.hub_drop_next = 100);
    rehearsal.person(0).update_in_outlook(&id_of(&created), &json!({"subject": "Among the garbage"})).unwrap();
    let mut good = forger.item(&id_of(&created));
    good["resourceData"]["@odata.etag"] = json!("W/\"another\"");
    let among = message(&[json!(7), forger.with(&json!({"tenantId": CANARY})), good, json!({"value": []})]);
    rehearsal.sandbox.hub().place(PARTITION, data(among), Numbered::Next).unwrap();
    rehearsal
        .until("the edit crossed", |r| r.salesforce().iter().any(|row| row["Subject"] == "Among the garbage"))
        .await;
    rehearsal.rest().await;
    rehearsal.switch(|switches| switches.hub_drop_next = 0);
    assert_eq!(rehearsal.written(), (0, 2), "one write for each edit of a person");

    // A restart reads none of it again.
    let counts = counted(&rehearsal).await;
    rehearsal.stop_engine().await;
    rehearsal.start_engine().await;
    rehearsal.person(0).update_in_outlook(&id_of(&created), &json!({"subject": "After the restart"})).unwrap();
    rehearsal
        .until("the edit crossed", |r| r.salesforce().iter().any(|row| row["Subject"] == "After the restart"))
        .await;
    rehearsal.settled().await;
    assert_eq!(counted(&rehearsal).await, counts);
    let letters = rehearsal.dead_letters().await;
    assert!(letters.iter().all(|letter| letter.message.is_some() && letter.reason.keeps_message()), "{letters:#?}");
    assert!(letters.len() <= 60, "at most 20 of each reason: {}", letters.len());
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_a_wrong_number_or_none_hold_nothing_up() {
    let rehearsal = Rehearsal::start(Options { partitions: 1, ..Options::default() }, "").await;
    let hub = rehearsal.sandbox.hub();
    let broken = || data("broken");
    hub.place(PARTITION, broken(), Numbered::Next).unwrap();
    // Shown with the number of the one before: taken for a repetition, which it cannot be told from.
    hub.place(PARTITION, broken(), Numbered::Again).unwrap();
    hub.place(PARTITION, broken(), Numbered::Missing).unwrap();
    hub.place(PARTITION, broken(), Numbered::Next).unwrap();
    read_up(&rehearsal, "odd numbers").await;
    let status = rehearsal.status().await;
    let by_detail: BTreeMap<&str, u64> = status
        .rejects
        .iter()
        .filter(|reject| reject.reason == Undecodable)
        .map(|reject| (reject.detail.as_str(), reject.count))
        .collect();
    let expected = [("the message has no sequence number", 1), ("the message is no JSON, or nested too deeply", 2)];
    assert_eq!(by_detail, expected.into());
    rehearsal.person(0).create_in_outlook(&in_outlook("Behind them")).unwrap();
    rehearsal.until("the meeting crossed", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_break_the_rules_of_amqp_are_passed_and_nothing_good_beside_them_is_lost() {
    let rehearsal = Rehearsal::start(Options { partitions: 1, speed: 4.0, ..Options::default() }, "").await;
    let hub = rehearsal.sandbox.hub();
    let person = rehearsal.person(0);
    for number in 0..3 {
        person.create_in_outlook(&in_outlook(&format!("Before {number}"))).unwrap();
        hub.place(PARTITION, RawBody::text_that_is_none(), Numbered::Next).unwrap();
        person.create_in_outlook(&in_outlook(&format!("Behind {number}"))).unwrap();
    }
    rehearsal.until("all crossed", |r| r.salesforce().len() == 6).await;
    rehearsal.settled().await;
    let rejects = rehearsal.status().await.rejects;
    let broken = rejects.iter().find(|reject| reject.detail == "the message breaks the rules of AMQP");
    assert_eq!(broken.map(|reject| (reject.reason, reject.count)), Some((Undecodable, 3)), "{rejects:#?}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

/// Resident memory of a process in KiB, as the kernel counts it.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux tells about processes");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has resident memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("in KiB")
}

/// Number of hostile messages of one round; half of them differ from each other.
const FLOOD: usize = 10_000;

/// Places one round of hostile messages: of every kind, half of them equal, some large.
fn flood(sandbox: &Sandbox, forger: &Forger, round: usize) {
    for number in 0..FLOOD {
        let body = match number % 8 {
            0 => format!("{CANARY} {round} {number}").into_bytes(),
            1 => format!("<html>{CANARY}</html>").into_bytes(),
            2 => message(&[forger.with(&json!({"clientState": format!("{number:064}")}))]),
            3 => message(&[forger.with(&json!({"changeType": format!("{CANARY}{round}{number}")}))]),
            4 => message(&vec![json!({"tenantId": CANARY}); 20]),
            5 => format!("{{\"value\":{}", "[".repeat(2_000)).into_bytes(),
            6 if number % 1_000 == 6 => vec![b'x'; 900_000],
            _ => vec![b'{'; 300],
        };
        sandbox.hub().place(PARTITION, data(body), Numbered::Next).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_garbage_leaves_memory_and_database_flat_and_tells_nothing_of_its_content() {
    let _busy = alone().await;
    let bench =
        Bench::set_up(Options { partitions: 1, ..Options::default() }, "log:\n  format: json\n  level: debug\n").await;
    let running = bench.run().await;
    let forger = Forger::of(&bench.rehearsal.sandbox);
    let database = || -> u64 {
        let files = std::fs::read_dir(bench.rehearsal.folder()).unwrap().filter_map(Result::ok);
        // What is not yet folded in lies in the write-ahead log, which SQLite folds in from 1 000 pages (4 MB) on.
        let ours = files.filter(|file| file.file_name() == "calbridge.db" || file.file_name() == "calbridge.db-wal");
        ours.map(|file| file.metadata().unwrap().len()).sum()
    };
    // The first round fills what is kept: buffers, caches, the newest messages.
    flood(&bench.rehearsal.sandbox, &forger, 0);
    read_up(&bench.rehearsal, "a flood").await;
    let (memory, size) = (resident_kib(running.id()), database());
    let mut most = 0;
    for round in 1..=3 {
        flood(&bench.rehearsal.sandbox, &forger, round);
        read_up(&bench.rehearsal, "a flood").await;
        most = most.max(resident_kib(running.id()));
    }
    print_flood(memory, most, size, database());
    // 30 000 more messages, about 45 MB of them, may not cost more than what allocators keep for themselves.
    assert!(most <= memory + 24 * 1024, "memory grew from {memory} to {most} KiB");
    // Counters and the newest twenty of each reason were there after the first round.
    assert!(database() <= size + 8 * 1024 * 1024, "the database grew from {size} to {} bytes", database());

    let person = bench.rehearsal.person(0);
    person.create_in_outlook(&in_outlook("Behind the flood")).unwrap();
    bench.rehearsal.until("the meeting crossed", |r| r.salesforce().len() == 1).await;
    let status = bench.rehearsal.status().await;
    assert!(status.dead_letters <= 60, "{} dead letters", status.dead_letters);
    assert!(status.rejects.len() <= 30, "as many rows as causes: {:#?}", status.rejects);
    assert!(status.rejects.iter().map(|reject| reject.count).sum::<u64>() >= 4 * FLOOD as u64);

    let metrics = bench.ask("/metrics").await.expect("it answers").1;
    assert!(metrics.contains("calbridge_rejects_total{"), "{metrics}");
    let shown = bench.call(&["status"]).await.data;
    let shown_json = bench.call(&["status", "--json"]).await;
    assert!(shown.contains("undecodable") && shown.contains("messages set aside"), "{shown}");
    let log = running.stop().await.complaints;
    // One line for each cause and minute, not one for each message.
    let told = log.lines().filter(|line| line.contains("CB2073")).count();
    assert!((1..100).contains(&told), "{told} lines about messages that could not be read");
    for (what, text) in
        [("the log", &log), ("the metrics", &metrics), ("status", &shown), ("status --json", &shown_json.data)]
    {
        let line = text.lines().find(|line| line.contains(CANARY) || line.contains(&forger.state));
        assert_eq!(line, None, "{what} tells of a message's content");
    }
    for file in std::fs::read_dir(bench.rehearsal.folder()).unwrap().filter_map(Result::ok) {
        if file.file_name().to_string_lossy().starts_with("calbridge.db") {
            let bytes = std::fs::read(file.path()).unwrap();
            let holds = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
            assert!(!holds, "{:?} holds a message in the clear", file.file_name());
        }
    }

    // A person can look at one, and only who asks for values sees them.
    assert!(shown_json.json()["dead_letters"][0]["message"]["id"].is_string(), "{shown_json:?}");
    let letters = bench.rehearsal.dead_letters().await;
    let mut messages = letters.into_iter().filter_map(|letter| letter.message);
    let about = messages.find(|about| about.size == 300).expect("equal messages are one that stays the newest");
    assert_eq!(about.times, 4 * (FLOOD / 4 - FLOOD / 1_000) as u64, "each is counted");
    let id = about.id.as_str();
    let plain = bench.call(&["trace", id]).await;
    assert!(plain.code == 0 && plain.data.contains("CB2073") && !plain.data.contains("{{{"), "{plain:?}");
    let whole = bench.call(&["trace", id, "--values"]).await;
    assert!(whole.code == 0 && whole.data.contains(&"{".repeat(300)), "{whole:?}");
    let json = bench.call(&["trace", id, "--json", "--values"]).await.json();
    assert_eq!(json[0]["message"]["text"], "{".repeat(300));
    bench.end().await;
}

#[expect(clippy::print_stderr, reason = "the measured figures are part of what the test is for")]
fn print_flood(memory: u64, most: u64, size: u64, database: u64) {
    eprintln!(
        "after {FLOOD} hostile messages: {memory} KiB resident, database {size} bytes; at most {most} KiB and {database} \
         bytes after {} more",
        3 * FLOOD
    );
}
