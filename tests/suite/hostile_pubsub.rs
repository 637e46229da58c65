//! Change events that cannot be right: each ends with a reason, none harms what follows it, silence is no answer.

use std::collections::BTreeMap;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use calbridge_core::reason::Reason::{
    self, ForeignMessage as Foreign, Oversized, Undecodable, UnknownKind, UnknownSchema,
};
use calbridge_sandbox::Options;
use calbridge_sandbox::salesforce::{PlacedEvent, PlacedReplay};
use serde_json::json;

use crate::support::meetings::{fields, id_of, in_salesforce};
use crate::support::{PATIENCE, Rehearsal};

/// The header of an event, before it is encoded.
#[derive(Clone)]
struct Header {
    entity: &'static str,
    ids: Vec<String>,
    change: &'static str,
    key: String,
    committed: i64,
    nulled: Vec<String>,
    diff: Vec<String>,
    changed: Vec<String>,
}

/// An update of a record that nobody has.
fn header() -> Header {
    Header {
        entity: "Event",
        ids: vec!["00U000000000999".to_owned()],
        change: "UPDATE",
        key: "0001".to_owned(),
        committed: 1_795_251_601_000,
        nulled: Vec::new(),
        diff: Vec::new(),
        changed: vec!["0x08".to_owned()],
    }
}

fn texts(list: &[String]) -> Avro {
    Avro::Array(list.iter().cloned().map(Avro::String).collect())
}

/// Encodes an event by a schema whose header has the published fields; every other field is null.
fn encode(text: &str, header: &Header) -> Vec<u8> {
    let schema = Schema::parse_str(text).unwrap();
    let Schema::Record(record) = &schema else { panic!("a record") };
    let Schema::Record(inner) = &record.fields[0].schema else { panic!("a header") };
    let Some(Schema::Enum(symbols)) = inner.fields.iter().find(|f| f.name == "changeType").map(|f| &f.schema) else {
        panic!("a list of change types")
    };
    let at = symbols.symbols.iter().position(|symbol| symbol == header.change).expect("a known change type");
    let string = |text: &str| Avro::String(text.to_owned());
    let values = [
        ("entityName", string(header.entity)),
        ("recordIds", texts(&header.ids)),
        ("changeType", Avro::Enum(u32::try_from(at).unwrap(), header.change.to_owned())),
        ("changeOrigin", string("com/salesforce/api/rest/66.0")),
        ("transactionKey", string(&header.key)),
        ("sequenceNumber", Avro::Int(1)),
        ("commitTimestamp", Avro::Long(header.committed)),
        ("commitNumber", Avro::Long(1)),
        ("commitUser", string("005000000000001AAA")),
        ("nulledFields", texts(&header.nulled)),
        ("diffFields", texts(&header.diff)),
        ("changedFields", texts(&header.changed)),
    ];
    let head = Avro::Record(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let mut all = vec![("ChangeEventHeader".to_owned(), head)];
    let rest = record.fields.iter().skip(1);
    all.extend(rest.map(|field| (field.name.clone(), Avro::Union(0, Box::new(Avro::Null)))));
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    writer.write_value_to_vec(Avro::Record(all)).unwrap()
}

/// What is placed, and how it must end; an empty list: it is taken, as a signal or as a look at everything.
type Case = (&'static str, PlacedEvent, &'static [(Reason, u64)]);

fn cases(rehearsal: &Rehearsal) -> Vec<Case> {
    let org = rehearsal.sandbox.org();
    let (id, schema) = org.change_event_schema();
    let own =
        |payload: Vec<u8>| PlacedEvent { schema_id: id.clone(), payload: Some(payload), replay: PlacedReplay::Own };
    let of = |header: &Header| own(encode(&schema, header));
    let good = encode(&schema, &header());
    let other = "AAAAAAAAAAAAAAAAAAAAAA";
    // Texts that GetSchema gives for other ids: broken, endless, and with a change type of tomorrow.
    let with_schema = |id: &str, text: &str, payload: Vec<u8>| {
        org.place_schema(id, text);
        PlacedEvent { schema_id: id.to_owned(), payload: Some(payload), replay: PlacedReplay::Own }
    };
    let endless = r#"{"type":"record","name":"R","fields":[{"name":"next","type":"R"}]}"#;
    let weightless = r#"{"type":"record","name":"R","fields":[{"name":"f","type":{"type":"array","items":"null"}}]}"#;
    let tomorrow = schema.replace("SNAPSHOT", "EXPLODE");
    let unknown_kind = encode(&tomorrow, &Header { change: "EXPLODE", ..header() });
    let far_off: Vec<String> =
        ["0xFFFFFFFFFFFFFFFFFFFFFFFF", "99-0xFF", "3-0x10", "zz", "-", "0x"].map(str::to_owned).into();
    let long_bitmap = format!("0x{}", "F".repeat(200_000));
    let many: Vec<String> = (0..10_000).map(|number| format!("00U{number:012}")).collect();
    let undecodable: &[(Reason, u64)] = &[(Undecodable, 1)];
    vec![
        ("an empty payload", own(Vec::new()), undecodable),
        ("a payload of something else", own(b"<html>not avro</html>".to_vec()), undecodable),
        ("a payload cut in its header", own(good[..good.len() / 3].to_vec()), undecodable),
        ("a payload with something behind it", own([good.as_slice(), b"x"].concat()), undecodable),
        ("a length beyond all measure", own([&[0x0a][..], b"Event", &[0xff; 9], &[0x01]].concat()), undecodable),
        ("an event of 3 MiB", own(vec![b'x'; 3 * 1024 * 1024]), &[(Oversized, 1)]),
        ("no payload", PlacedEvent { schema_id: id.clone(), payload: None, replay: PlacedReplay::Own }, undecodable),
        ("an unknown schema", PlacedEvent { schema_id: other.to_owned(), ..own(good.clone()) }, &[(UnknownSchema, 1)]),
        ("no schema named", PlacedEvent { schema_id: String::new(), ..own(good.clone()) }, &[(UnknownSchema, 1)]),
        (
            "a schema id of 100 000 letters",
            PlacedEvent { schema_id: "A".repeat(100_000), ..own(good.clone()) },
            &[(UnknownSchema, 1)],
        ),
        ("a schema that is none", with_schema("broken", "{not json", good.clone()), undecodable),
        ("a schema that contains itself", with_schema("endless", endless, Vec::new()), undecodable),
        (
            "a schema of lists without weight",
            with_schema("weightless", weightless, vec![0xfe, 0xff, 0xff, 0xff, 0x0f, 0]),
            undecodable,
        ),
        (
            "a schema without a header",
            with_schema("bare", r#"{"type":"record","name":"R","fields":[]}"#, Vec::new()),
            undecodable,
        ),
        ("a schema that is no record", with_schema("string", r#""string""#, vec![2, b'x']), undecodable),
        ("a change type of tomorrow", with_schema("tomorrow", &tomorrow, unknown_kind), &[(UnknownKind, 1)]),
        (
            "another object",
            of(&Header { entity: "Account", ids: vec!["001000000000001AAA".to_owned()], ..header() }),
            &[(Foreign, 1)],
        ),
        ("no object", of(&Header { entity: "", ..header() }), &[(Foreign, 1)]),
        ("no record", of(&Header { ids: Vec::new(), ..header() }), undecodable),
        (
            "records that are none",
            of(&Header { ids: vec!["' OR 1=1".to_owned(), "x".repeat(1_000)], ..header() }),
            undecodable,
        ),
        ("a commit before there was Salesforce", of(&Header { committed: -1, ..header() }), undecodable),
        ("a commit at the end of time", of(&Header { committed: i64::MAX, ..header() }), undecodable),
        ("a key of 100 000 letters", of(&Header { key: "k".repeat(100_000), ..header() }), undecodable),
        // Odd, but no reason to lose the change.
        (
            "one record among nonsense",
            of(&Header { ids: vec![String::new(), "00U000000000998".to_owned()], ..header() }),
            &[],
        ),
        (
            "bitmaps that point outside",
            of(&Header { changed: far_off.clone(), nulled: far_off.clone(), diff: far_off, ..header() }),
            &[],
        ),
        (
            "a bitmap of 800 000 bits",
            of(&Header { changed: vec![long_bitmap.clone(), format!("3-{long_bitmap}")], ..header() }),
            &[],
        ),
        ("10 000 records", of(&Header { ids: many, ..header() }), &[]),
        ("a gap of one record", of(&Header { change: "GAP_UPDATE", ..header() }), &[]),
        (
            "an overflow",
            of(&Header { change: "GAP_OVERFLOW", ids: vec!["000000000000000AAA".to_owned()], ..header() }),
            &[],
        ),
        ("an event without a replay id", PlacedEvent { replay: PlacedReplay::Missing, ..of(&header()) }, &[]),
        ("a replay id that goes back", PlacedEvent { replay: PlacedReplay::Oldest, ..of(&header()) }, &[]),
    ]
}

async fn counted(rehearsal: &Rehearsal) -> BTreeMap<Reason, u64> {
    let mut counts = BTreeMap::new();
    for reject in rehearsal.status().await.rejects {
        *counts.entry(reject.reason).or_default() += reject.count;
    }
    counts
}

/// Lets a person make a meeting and waits until it crossed: it stands behind everything placed before.
async fn cross(rehearsal: &Rehearsal, subject: &str) {
    rehearsal.person(0).create_in_salesforce(in_salesforce(subject)).unwrap();
    rehearsal.until("the meeting crossed", |r| r.outlook(0).iter().any(|event| event["subject"] == subject)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_ends_with_its_reason_and_what_follows_it_gets_through() {
    // No sweep: only the stream can bring a meeting across.
    let mut rehearsal = Rehearsal::start(Options { speed: 4.0, ..Options::default() }, "").await;
    cross(&rehearsal, "Before").await;
    let mut before = counted(&rehearsal).await;
    for (number, (name, event, expected)) in cases(&rehearsal).into_iter().enumerate() {
        rehearsal.sandbox.org().place_change_event(event);
        cross(&rehearsal, &format!("Behind {number}: {name}")).await;
        let after = counted(&rehearsal).await;
        let mut difference = after.clone();
        for (reason, count) in &before {
            *difference.get_mut(reason).unwrap() -= count;
        }
        difference.retain(|_, count| *count > 0);
        assert_eq!(difference, expected.iter().copied().collect(), "{name}");
        before = after;
    }

    // A restart reads none of it again, although the last of them had odd replay ids.
    rehearsal.rest().await;
    rehearsal.stop_engine().await;
    rehearsal.start_engine().await;
    cross(&rehearsal, "After the restart").await;
    assert_eq!(counted(&rehearsal).await, before);
    let letters = rehearsal.dead_letters().await;
    assert!(letters.iter().all(|letter| letter.message.is_some()), "{letters:#?}");
    rehearsal.rest().await;
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_appears_later_is_read_then_and_one_that_changes_mid_stream_too() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let org = rehearsal.sandbox.org();
    cross(&rehearsal, "Before").await;
    let record = id_of(&rehearsal.salesforce()[0]);
    let (_, schema) = org.change_event_schema();
    let late = |number: usize| {
        let payload = encode(&schema, &Header { ids: vec![record.clone()], key: format!("late {number}"), ..header() });
        PlacedEvent { schema_id: "late".to_owned(), payload: Some(payload), replay: PlacedReplay::Own }
    };
    org.place_change_event(late(1_000));
    cross(&rehearsal, "Behind an unknown schema").await;
    assert_eq!(counted(&rehearsal).await.get(&UnknownSchema), Some(&1));
    org.place_schema("late", &schema);
    // An edit that the stream says nothing of: only a placed event can bring it across.
    rehearsal.switch(|switches| switches.salesforce_drop_next = 1);
    let row = id_of(&rehearsal.salesforce().into_iter().find(|row| row["Subject"] == "Before").unwrap());
    rehearsal.person(0).update_in_salesforce(&row, &fields(json!({"Location": "Room 7"}))).unwrap();
    let crossed = |r: &Rehearsal| r.outlook(0).iter().any(|event| event["location"]["displayName"] == "Room 7");
    let asking = async {
        // It is asked for again after a few seconds; until then its events are set aside.
        for number in 0.. {
            org.place_change_event(late(number));
            tokio::time::sleep(Duration::from_millis(500)).await;
            if crossed(&rehearsal) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the schema is asked for again");

    // The org loses a field: the next event is written with another schema.
    rehearsal.switch(|switches| switches.salesforce_token_field = false);
    cross(&rehearsal, "With another schema").await;
    rehearsal.settled().await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_faults_of_the_schema_service_are_no_answer() {
    let rehearsal = Rehearsal::start(Options::default(), "network:\n  request_timeout_secs: 2\n").await;
    let org = rehearsal.sandbox.org();
    // The stream has a position, and the next event a schema that was never asked for.
    cross(&rehearsal, "Before").await;
    rehearsal.until("the first schema was read", |r| r.calls("pubsub.get_schema") == 1).await;
    rehearsal.settled().await;
    rehearsal.switch(|switches| {
        switches.salesforce_token_field = false;
        switches.salesforce_schema_unavailable_next = 2;
        switches.salesforce_schema_silent_next = 1;
    });
    cross(&rehearsal, "Read in the end").await;
    rehearsal
        .until("the schema was refused, then kept back, then given", |r| {
            let left = r.sandbox.world().faults.read();
            left.salesforce_schema_unavailable_next + left.salesforce_schema_silent_next == 0
                && r.calls("pubsub.get_schema") >= 5
        })
        .await;
    rehearsal.settled().await;
    assert!(counted(&rehearsal).await.keys().all(|reason| !reason.keeps_message()), "nothing was set aside");

    // An edit of the record that crossed, so that nothing was skipped either.
    let row = rehearsal.salesforce().into_iter().find(|row| row["Subject"] == "Read in the end").unwrap();
    let place = fields(json!({"Location": "Room 9"}));
    rehearsal.person(0).update_in_salesforce(&id_of(&row), &place).unwrap();
    rehearsal
        .until("the edit crossed", |r| r.outlook(0).iter().any(|event| event["location"]["displayName"] == "Room 9"))
        .await;
    rehearsal.settled().await;
    assert_eq!(org.records().len(), 2);
    rehearsal.assert_clean();
    rehearsal.end().await;
}
