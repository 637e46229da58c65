//! The hub listener against the sandbox's hub, over AMQP.

use calbridge_core::ids::{MailboxId, RecordId};
use calbridge_core::signal::{SignalCause, Target};
use serde_json::json;

use super::*;
use crate::outlook::subscriptions::ClientStates;
use crate::outlook::testing::{LittleStore, Office, Running};

/// Writes one notification about `event` of the first mailbox.
pub(super) fn notification(office: &Office, event: &str) -> Vec<u8> {
    let states = ClientStates::new(office.settings.auth.client_secret.text(), &office.settings.connection);
    let mailbox = office.mailbox(0);
    let body = json!({"value": [{
        "subscriptionId": "s", "clientState": states.of(&mailbox), "changeType": "updated",
        "tenantId": office.settings.auth.tenant, "resource": format!("Users/{mailbox}/Events/{event}"),
        "resourceData": {"id": event, "@odata.etag": "W/\"k\""},
    }]});
    body.to_string().into_bytes()
}

/// Publishes one notification about `event` of the first mailbox; returns its partition and sequence number.
pub(super) fn publish(office: &Office, event: &str) -> (usize, i64) {
    // One key, one partition.
    office.sandbox.hub().publish(notification(office, event), Some("key"))
}

pub(super) fn events(batch: &Batch) -> Vec<String> {
    batch
        .signals
        .iter()
        .filter_map(|signal| match &signal.target {
            Target::Record(RecordId::Outlook { event, .. }) => Some(event.clone()),
            _ => None,
        })
        .collect()
}

pub(super) async fn read_until(running: &mut Running, store: &LittleStore, last: &str) -> Vec<String> {
    let mut read = Vec::new();
    while read.last().is_none_or(|newest| newest != last) {
        let batch = running.next().await;
        read.extend(events(&batch));
        store.accept_positions(batch);
    }
    read
}

pub(super) fn start(office: &Office, store: &Arc<LittleStore>) -> Running {
    Running::start(office.outlook.hub(Arc::clone(store) as Arc<dyn Store>).unwrap())
}

pub(super) async fn until_read(office: &Office) {
    let mut readers = office.sandbox.hub_handle().watch_readers();
    let wait = readers.wait_for(|readers| *readers >= office.sandbox.endpoints().event_hubs.partitions);
    timeout(crate::outlook::testing::PATIENCE, wait).await.unwrap().unwrap();
}

#[tokio::test]
async fn messages_arrive_in_order_with_their_positions_and_a_restart_goes_on() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    for number in 0..20 {
        publish(&office, &format!("e{number}"));
    }
    let mut running = start(&office, &store);
    let wanted: Vec<String> = (0..20).map(|number| format!("e{number}")).collect();
    assert_eq!(read_until(&mut running, &store, "e19").await, wanted);
    running.stop().await.unwrap();
    let (partition, sequence) = publish(&office, "after");
    let stream = StreamId::new(format!("event_hubs/{}/$Default/{partition}", office.sandbox.hub().hub()));
    assert_eq!(store.checkpoints.lock().unwrap()[&stream], (sequence - 1).to_string());
    let mut running = start(&office, &store);
    assert_eq!(read_until(&mut running, &store, "after").await, ["after"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn broken_connections_neither_repeat_nor_skip() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = start(&office, &store);
    let mut read = Vec::new();
    for round in 0..4 {
        publish(&office, &format!("e{round}a"));
        read.extend(read_until(&mut running, &store, &format!("e{round}a")).await);
        let handle = office.sandbox.hub_handle();
        match round {
            0 => {
                handle.cut_connections();
            }
            1 => {
                handle.force_close_connections();
            }
            _ => {
                handle.detach_readers(None, calbridge_sandbox::event_hubs::DetachReason::ServerBusy);
            }
        }
        publish(&office, &format!("e{round}b"));
        read.extend(read_until(&mut running, &store, &format!("e{round}b")).await);
    }
    let wanted: Vec<String> = (0..4).flat_map(|round| [format!("e{round}a"), format!("e{round}b")]).collect();
    assert_eq!(read, wanted);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_batch_is_read_again() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = start(&office, &store);
    publish(&office, "first");
    let batch = running.next().await;
    assert_eq!(events(&batch), ["first"]);
    drop(batch);
    assert_eq!(read_until(&mut running, &store, "first").await, ["first"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_burst_shares_batches() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    for number in 0..1200 {
        publish(&office, &format!("e{number}"));
    }
    let mut running = start(&office, &store);
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 1200 {
        let batch = running.next().await;
        sizes.push(batch.signals.len());
        assert_eq!(batch.positions.len(), 1);
        store.accept_positions(batch);
    }
    assert!(sizes.iter().all(|size| *size <= 500), "{sizes:?}");
    assert!(sizes.len() < 200, "{sizes:?}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_position_that_the_hub_no_longer_knows_reads_every_mailbox_again() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let (partition, _) = publish(&office, "only");
    let stream = StreamId::new(format!("event_hubs/{}/$Default/{partition}", office.sandbox.hub().hub()));
    store.checkpoints.lock().unwrap().insert(stream, "5000".to_owned());
    let mut running = start(&office, &store);
    let batch = running.next().await;
    let mut missed: Vec<MailboxId> = batch
        .signals
        .iter()
        .map(|signal| match (&signal.target, signal.cause) {
            (Target::Mailbox(mailbox), SignalCause::Gap) => mailbox.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    missed.sort();
    let mut wanted: Vec<MailboxId> = (0..3).map(|number| office.mailbox(number)).collect();
    wanted.sort();
    assert_eq!(missed, wanted);
    store.accept_positions(batch);
    assert_eq!(read_until(&mut running, &store, "only").await, ["only"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_notification_is_rejected_and_moves_the_position() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    office.sandbox.hub().publish(b"no json".to_vec(), Some("key"));
    publish(&office, "good");
    let mut running = start(&office, &store);
    let batch = running.next().await;
    assert_eq!(batch.rejects.len(), 1, "{batch:?}");
    assert_eq!(batch.rejects[0].raw, b"no json");
    assert_eq!(events(&batch), ["good"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_idle_link_lives_and_delivers_later() {
    let mut office = Office::open().await;
    office.settings.hub.as_mut().unwrap().idle_check = Duration::from_millis(100);
    let outlook = office.restarted();
    let store = Arc::new(LittleStore::default());
    let mut running = Running::start(outlook.hub(Arc::clone(&store) as Arc<dyn Store>).unwrap());
    until_read(&office).await;
    // Several idle checks pass before anything comes.
    assert!(timeout(Duration::from_millis(500), running.batches.recv()).await.is_err());
    publish(&office, "late");
    assert_eq!(read_until(&mut running, &store, "late").await, ["late"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_hub_that_does_not_exist_is_named() {
    let office = Office::open().await;
    let mut settings = office.settings.hub.clone().unwrap();
    settings.hub = "missing".to_owned();
    let tokens = Arc::clone(office.outlook.client.tokens());
    let failed = partitions(&settings, &tokens).await.unwrap_err();
    assert_eq!(failed.code, error::HUB_MISSING, "{failed}");
}

#[tokio::test]
async fn the_shared_access_key_opens_the_hub_too() {
    let office = Office::open().await;
    let mut settings = office.settings.hub.clone().unwrap();
    settings.connection_string =
        Some(secrecy::SecretString::from(office.sandbox.endpoints().event_hubs.connection_string.clone()).into());
    let tokens = Arc::clone(office.outlook.client.tokens());
    assert_eq!(partitions(&settings, &tokens).await.unwrap().len(), 4);
}

#[tokio::test]
async fn an_edit_in_outlook_arrives_as_a_signal() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut keeper = Running::start(office.outlook.subscriptions(Arc::clone(&store) as Arc<dyn Store>));
    for _ in 0..3 {
        keeper.next().await.receipt.done();
    }
    store.until(|rows| rows.len() == 3).await;
    let mut running = start(&office, &store);
    let record = office.create(
        1,
        &json!({
            "subject": "Hello",
            "start": {"dateTime": "2026-11-24T10:00:00", "timeZone": "UTC"},
            "end": {"dateTime": "2026-11-24T11:00:00", "timeZone": "UTC"},
        }),
    );
    let mut validations = 0;
    loop {
        let batch = running.next().await;
        validations += batch.rejects.iter().filter(|reject| reject.reason == Reason::ValidationMessage).count();
        let found = batch.signals.iter().any(|signal| signal.target == Target::Record(record.clone()));
        store.accept_positions(batch);
        if found {
            break;
        }
    }
    assert!(validations <= 6, "{validations}");
    running.stop().await.unwrap();
    keeper.stop().await.unwrap();
}
