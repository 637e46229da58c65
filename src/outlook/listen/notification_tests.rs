//! Messages as Graph sends them, as others might, and as nobody should.

use std::collections::BTreeMap;

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{SalesforceId, StreamId};
use chrono::DateTime;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::clock::EngineClock;

const MAILBOX: &str = "8c1f7a52-0000-4000-8000-000000000001";
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

fn reader() -> Reader {
    let connection = ConnectionId::new("main");
    let row = EnrolmentRow {
        connection: connection.clone(),
        enrolment: Enrolment {
            mailbox: MailboxId::new(MAILBOX),
            user: SalesforceId::parse("005000000000001").unwrap(),
            enrolled_at: DateTime::UNIX_EPOCH,
        },
        address: "a@contoso.example".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        first_round_done: true,
    };
    Reader::new(
        connection.clone(),
        TENANT.to_owned(),
        ClientStates::new(&SecretString::from("secret".to_owned()), &connection),
        watch::channel(vec![row]).1,
        Nudges::default(),
        Arc::new(EngineClock::rehearsal(DateTime::UNIX_EPOCH, 1.0)),
    )
}

fn position() -> Position {
    Position { stream: StreamId::new("event_hubs/h/g/0"), value: "7".to_owned() }
}

fn item(reader: &Reader) -> Json {
    json!({
        "subscriptionId": "5f6c7f5c-0000-4000-8000-000000000001",
        "subscriptionExpirationDateTime": "2026-11-28T09:12:13.0000000+00:00",
        "clientState": reader.states.of(&MailboxId::new(MAILBOX)),
        "changeType": "updated",
        "tenantId": TENANT,
        "resource": format!("Users/{MAILBOX}/Events/AAk="),
        "resourceData": {
            "@odata.type": "#Microsoft.Graph.Event", "@odata.id": format!("Users/{MAILBOX}/Events/AAk="),
            "@odata.etag": "W/\"k1\"", "id": "AAk=",
        },
    })
}

fn read(reader: &Reader, items: &Json) -> Understood {
    reader.clone().read(json!({ "value": items }).to_string().as_bytes(), &position())
}

fn reasons(understood: &Understood) -> Vec<Reason> {
    understood.rejects.iter().map(|reject| reject.reason).collect()
}

#[test]
fn a_notification_becomes_a_signal_with_record_version_and_position() {
    let reader = reader();
    let understood = read(&reader, &json!([item(&reader)]));
    assert!(understood.rejects.is_empty(), "{understood:?}");
    let [signal] = understood.signals.as_slice() else { panic!("{understood:?}") };
    let record = RecordId::Outlook { mailbox: MailboxId::new(MAILBOX), event: "AAk=".to_owned() };
    assert_eq!(signal.target, Target::Record(record));
    assert_eq!(signal.change, Change::Updated);
    assert_eq!(signal.version, Some(Version::ChangeKey("k1".to_owned())));
    assert_eq!(signal.position, Some(position()));
}

#[test]
fn other_spellings_and_missing_versions_are_understood() {
    let reader = reader();
    let mut rich = item(&reader);
    rich["resource"] = json!(format!("users('{MAILBOX}')/events('AAk=')"));
    rich["resourceData"] = json!(null);
    rich["changeType"] = json!("Deleted");
    let mut tenant = item(&reader);
    tenant["resource"] = json!(format!("users/{MAILBOX}@{TENANT}/events/AAk="));
    tenant["subscriptionExpirationDateTime"] = json!("soon");
    let understood = read(&reader, &json!([rich, tenant]));
    assert_eq!(understood.signals.len(), 2, "{understood:?}");
    assert_eq!(understood.signals[0].change, Change::Deleted);
    assert_eq!(understood.signals[0].version, None);
}

#[test]
fn the_validation_message_is_recognised() {
    let reader = reader();
    let text = "Validation: Testing client application reachability for subscription Request-Id: 1";
    let na = json!({
        "subscriptionId": "NA", "subscriptionExpirationDateTime": "NA", "clientState": "NA", "resource": "NA",
        "changeType": text, "resourceData": {"@odata.type": "NA", "@odata.id": "NA", "id": "NA"},
    });
    let understood = read(&reader, &json!([na, {"changeType": text}]));
    assert_eq!(reasons(&understood), [Reason::ValidationMessage]);
    assert_eq!(understood.rejects[0].items, 2);
    assert!(understood.rejects.iter().all(|reject| reject.raw.is_empty()));
}

#[test]
fn foreign_items_are_told_from_ours() {
    let reader = reader();
    let change = |name: &str, value: Json| {
        let mut item = item(&reader);
        item[name] = value;
        item
    };
    let items = json!([
        change("clientState", json!("guessed")),
        change("clientState", json!(null)),
        change("tenantId", json!("00000000-0000-4000-8000-000000000000")),
        change("resource", json!("Users/00000000-0000-4000-8000-000000000009/Events/AAk=")),
        change("resource", json!(format!("Users/{MAILBOX}/Messages/AAk="))),
        item(&reader),
    ]);
    let understood = read(&reader, &items);
    assert!(reasons(&understood).iter().all(|reason| *reason == Reason::ForeignMessage));
    assert_eq!(understood.rejects.iter().map(|reject| reject.items).sum::<u32>(), 5);
    assert_eq!(understood.signals.len(), 1, "what follows is not affected");
}

#[tokio::test]
async fn lifecycle_items_become_gaps_and_nudges() {
    let reader = reader();
    let lifecycle = |event: &str| {
        json!({"subscriptionId": "s", "tenantId": TENANT, "lifecycleEvent": event,
               "clientState": reader.states.of(&MailboxId::new(MAILBOX))})
    };
    let items = json!([lifecycle("missed"), lifecycle("reauthorizationRequired"), lifecycle("subscriptionRemoved")]);
    let understood = read(&reader, &items);
    assert!(understood.rejects.is_empty(), "{understood:?}");
    let causes: Vec<_> = understood.signals.iter().map(|signal| (&signal.target, signal.cause)).collect();
    let mailbox = Target::Mailbox(MailboxId::new(MAILBOX));
    assert_eq!(causes, [(&mailbox, SignalCause::Gap), (&mailbox, SignalCause::Gap)]);
    let nudges = reader.nudges.take().await;
    assert_eq!(nudges, BTreeMap::from([(MailboxId::new(MAILBOX), Nudge::Recreate)]));
}

#[test]
fn what_cannot_be_read_is_kept_and_harms_nothing_else() {
    let reader = reader();
    let deep = format!("{{\"value\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let large = format!("{{\"value\":\"{}\"}}", "x".repeat(2 * LARGEST_MESSAGE));
    for body in [&b"\xff\xfe"[..], b"", b"[]", b"{}", b"{\"value\":[]}", deep.as_bytes(), large.as_bytes()] {
        let understood = reader.clone().read(body, &position());
        let reason = if body.len() > LARGEST_MESSAGE { Reason::Oversized } else { Reason::Undecodable };
        assert_eq!(reasons(&understood), [reason]);
        let reject = &understood.rejects[0];
        assert_eq!((reject.raw.len(), reject.size), (body.len().min(Reject::KEPT), body.len()));
    }
    let understood = read(&reader, &json!([5, {"changeType": []}, item(&reader)]));
    assert_eq!(reasons(&understood), [Reason::Undecodable; 2]);
    assert_eq!(understood.signals.len(), 1);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        reader().read(&bytes, &position());
    }

    #[test]
    fn no_texts_panic(texts in proptest::collection::vec("\\PC{0,12}", 5)) {
        let reader = reader();
        let mut item = item(&reader);
        for (name, text) in ["changeType", "resource", "lifecycleEvent", "tenantId", "clientState"].iter().zip(&texts) {
            item[*name] = json!(text);
        }
        let understood = read(&reader, &json!([item]));
        prop_assert!(understood.signals.is_empty());
    }
}
