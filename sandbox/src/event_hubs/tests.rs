//! The stand-in judged by the Rust SDK itself: it was written by others and knows nothing of this server.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use azure_messaging_eventhubs::error::ErrorKind;
use azure_messaging_eventhubs::models::{EventData, ReceivedEventData};
use azure_messaging_eventhubs::{
    ConsumerClient, EventDataBatchOptions, EventReceiver, OpenReceiverOptions, ProducerClient, SendEventOptions,
    StartLocation, StartPosition,
};
use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{DetachReason, HubAccess, HubHandle, HubLog, serve};
use crate::clock::SandboxClock;

const HUB: &str = "meetings";
const KEY: &str = "c2VjcmV0LWtleQ==";
const CONNECTION: &str =
    "Endpoint=sb://localhost/;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=c2VjcmV0LWtleQ==";

/// Bounds a call of the SDK, some of which can hang for ever.
async fn within<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), call).await.expect("the SDK answers in time")
}

struct Hub {
    log: Arc<HubLog>,
    handle: HubHandle,
    endpoint: String,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Hub {
    async fn start(partitions: usize) -> Self {
        crate::tls::install_crypto_provider();
        let clock = SandboxClock::new("2031-05-04T08:00:00Z".parse().unwrap(), 1.0);
        let log = HubLog::new(clock, HUB, partitions);
        let check = |token: &str| token == "good-token";
        let access = HubAccess::new(HUB, "RootManageSharedAccessKey", KEY, Arc::new(check));
        let handle = access.handle.clone();
        let listener = crate::net::bind(0).await.unwrap();
        let endpoint = format!("amqp://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, Arc::clone(&log), access, stop.clone()));
        Self { log, handle, endpoint, stop, server }
    }

    async fn consumer(&self) -> ConsumerClient {
        let builder = ConsumerClient::builder().with_custom_endpoint(self.endpoint.clone());
        within(builder.open_with_connection_string(CONNECTION, Some(HUB))).await.unwrap()
    }

    async fn producer(&self) -> ProducerClient {
        let builder = ProducerClient::builder().with_custom_endpoint(self.endpoint.clone());
        within(builder.open_with_connection_string(CONNECTION, Some(HUB))).await.unwrap()
    }

    async fn all_gone(&self) {
        let mut connections = self.handle.watch_connections();
        within(connections.wait_for(|connections| *connections == 0)).await.unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        within(self.server).await.unwrap();
    }
}

async fn receiver(consumer: &ConsumerClient, location: StartLocation, owner_level: Option<i64>) -> EventReceiver {
    let options = OpenReceiverOptions {
        owner_level,
        start_position: Some(StartPosition { location, inclusive: false }),
        ..OpenReceiverOptions::default()
    };
    within(consumer.open_receiver_on_partition("0".to_owned(), Some(options))).await.unwrap()
}

async fn take(receiver: &EventReceiver, count: usize) -> Vec<ReceivedEventData> {
    let events = receiver.stream_events().take(count);
    within(events.map(Result::unwrap).collect()).await
}

fn sequences(events: &[ReceivedEventData]) -> Vec<i64> {
    events.iter().map(|event| event.sequence_number().unwrap()).collect()
}

fn numbered(hub: &Hub, numbers: std::ops::Range<i64>) {
    for number in numbers {
        hub.log.publish(number.to_string().into_bytes(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_of_hub_and_partition_are_what_was_sent() {
    let hub = Hub::start(4).await;
    let consumer = hub.consumer().await;
    let properties = within(consumer.get_eventhub_properties()).await.unwrap();
    assert_eq!(properties.name, HUB);
    assert_eq!(properties.partition_ids, ["0", "1", "2", "3"]);
    let empty = within(consumer.get_partition_properties("3")).await.unwrap();
    assert!(empty.is_empty);
    assert_eq!((empty.last_enqueued_sequence_number, empty.last_enqueued_offset.as_str()), (-1, "-1"));
    for _ in 0..3 {
        hub.log.publish(b"{}".to_vec(), Some("beta"));
    }
    let filled = within(consumer.get_partition_properties("3")).await.unwrap();
    assert!(!filled.is_empty);
    assert_eq!((filled.beginning_sequence_number, filled.last_enqueued_sequence_number), (0, 2));
    assert!(within(consumer.get_partition_properties("4")).await.is_err());
    within(consumer.close()).await.unwrap();
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_events_arrive_with_key_properties_and_annotations() {
    let hub = Hub::start(4).await;
    let producer = hub.producer().await;
    let event = EventData::builder().with_body(b"one").add_property("kind".to_owned(), "test").build();
    let options = SendEventOptions { partition_id: Some("2".to_owned()) };
    within(producer.send_event(event, Some(options))).await.unwrap();
    assert_eq!(hub.log.read(2, 0, 9).first().unwrap().body(), b"one");

    let options = EventDataBatchOptions { partition_key: Some("a".to_owned()), ..Default::default() };
    let batch = within(producer.create_batch(Some(options))).await.unwrap();
    for body in ["two", "three"] {
        assert!(batch.try_add_event_data(EventData::builder().with_body(body).build(), None).unwrap());
    }
    within(producer.send_batch(batch, None)).await.unwrap();

    let consumer = hub.consumer().await;
    let receiver = receiver(&consumer, StartLocation::Earliest, None).await;
    let events = take(&receiver, 2).await;
    let bodies: Vec<_> = events.iter().map(|event| event.event_data().body().unwrap().to_vec()).collect();
    assert_eq!(bodies, [b"two".to_vec(), b"three".to_vec()]);
    assert_eq!(sequences(&events), [0, 1]);
    assert_eq!(events[0].partition_key().as_deref(), Some("a"));
    assert_eq!(events[0].offset().as_deref(), Some("0"));
    assert!(events[0].enqueued_time().is_some());
    within(receiver.close()).await.unwrap();
    within(consumer.close()).await.unwrap();
    within(producer.close()).await.unwrap();
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_begin_where_they_ask() {
    let hub = Hub::start(1).await;
    numbered(&hub, 0..10);
    let offset = hub.log.read(0, 4, 1)[0].offset;
    let consumer = hub.consumer().await;
    for (location, first) in [
        (StartLocation::Earliest, 0),
        (StartLocation::Offset(offset.to_string()), 5),
        (StartLocation::SequenceNumber(6), 7),
    ] {
        let receiver = receiver(&consumer, location, None).await;
        assert_eq!(sequences(&take(&receiver, 3).await), [first, first + 1, first + 2]);
        within(receiver.close()).await.unwrap();
    }
    let mut readers = hub.handle.watch_readers();
    within(readers.wait_for(|readers| *readers == 0)).await.unwrap();
    let latest = receiver(&consumer, StartLocation::Latest, None).await;
    let stream = latest.stream_events();
    let mut stream = pin!(stream);
    // The link attaches at the first poll; only then may the next event come.
    let attached = async {
        readers.wait_for(|readers| *readers > 0).await.unwrap();
        numbered(&hub, 10..11);
    };
    let (event, ()) = within(futures::future::join(stream.next(), attached)).await;
    assert_eq!(event.unwrap().unwrap().sequence_number(), Some(10));
    within(consumer.close()).await.unwrap();
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_events_than_credit_arrive_in_order() {
    let hub = Hub::start(1).await;
    numbered(&hub, 0..2000);
    let consumer = hub.consumer().await;
    let receiver = receiver(&consumer, StartLocation::Earliest, None).await;
    let events = take(&receiver, 2000).await;
    assert_eq!(sequences(&events), (0..2000).collect::<Vec<_>>());
    within(consumer.close()).await.unwrap();
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_crosses_in_several_frames() {
    let hub = Hub::start(1).await;
    let body = vec![7; 300_000];
    hub.log.publish(body.clone(), None);
    let consumer = hub.consumer().await;
    let receiver = receiver(&consumer, StartLocation::Earliest, None).await;
    let events = take(&receiver, 1).await;
    assert_eq!(events[0].event_data().body().unwrap(), body);
    within(consumer.close()).await.unwrap();
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reconnects_after_a_cut_and_after_a_forced_close() {
    let hub = Hub::start(1).await;
    numbered(&hub, 0..3);
    let consumer = hub.consumer().await;
    let mut last = -1;
    for round in 0..3_i64 {
        let location = if last < 0 { StartLocation::Earliest } else { StartLocation::SequenceNumber(last) };
        let receiver = receiver(&consumer, location, None).await;
        let events = take(&receiver, 3).await;
        assert_eq!(sequences(&events), [last + 1, last + 2, last + 3]);
        last += 3;
        drop(receiver);
        let ended = if round % 2 == 0 { hub.handle.cut_connections() } else { hub.handle.force_close_connections() };
        assert!(ended > 0);
        // A receiver opened before the socket is gone would deliver twice: the SDK attaches again where it began.
        hub.all_gone().await;
        numbered(&hub, last + 1..last + 4);
    }
    drop(consumer);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_owner_level_steals_the_partition_and_a_fault_can_too() {
    let hub = Hub::start(1).await;
    numbered(&hub, 0..1);
    let consumer = hub.consumer().await;
    let first = receiver(&consumer, StartLocation::Earliest, Some(1)).await;
    let mut first_events = Box::pin(first.stream_events());
    within(first_events.next()).await.unwrap().unwrap();
    assert_eq!(hub.handle.readers()[0].epoch, Some(1));

    let other = hub.consumer().await;
    let second = receiver(&other, StartLocation::Earliest, Some(2)).await;
    let mut second_events = Box::pin(second.stream_events());
    within(second_events.next()).await.unwrap().unwrap();
    let lost = within(first_events.next()).await.unwrap().unwrap_err();
    assert!(matches!(lost.kind, ErrorKind::ConsumerDisconnected(_)), "{lost}");

    assert_eq!(hub.handle.detach_readers(Some(0), DetachReason::Stolen), 1);
    let lost = within(second_events.next()).await.unwrap().unwrap_err();
    assert!(matches!(lost.kind, ErrorKind::ConsumerDisconnected(_)), "{lost}");
    drop((first_events, second_events));
    hub.stop().await;
}

#[derive(Debug)]
struct FixedToken(&'static str);

#[async_trait]
impl TokenCredential for FixedToken {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://eventhubs.azure.net/.default"]);
        let expiry = OffsetDateTime::now_utc() + azure_core::time::Duration::hours(1);
        Ok(AccessToken::new(self.0.to_owned(), expiry))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entra_token_is_checked_and_an_unknown_hub_is_not_found() {
    let hub = Hub::start(1).await;
    let open = async |name: &'static str, token: &'static str| {
        let builder = ProducerClient::builder().with_custom_endpoint(hub.endpoint.clone());
        let producer = within(builder.open("localhost", name, Arc::new(FixedToken(token)))).await?;
        within(producer.get_eventhub_properties()).await.map(|properties| properties.name)
    };
    assert_eq!(open(HUB, "good-token").await.unwrap(), HUB);
    assert!(open(HUB, "bad-token").await.is_err());
    assert!(open("other", "good-token").await.is_err());
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind_when_clients_go() {
    let hub = Hub::start(1).await;
    numbered(&hub, 0..1);
    let consumer = hub.consumer().await;
    let receiver = receiver(&consumer, StartLocation::Earliest, None).await;
    take(&receiver, 1).await;
    assert_eq!((hub.handle.connections(), hub.handle.readers().len()), (1, 1));
    within(receiver.close()).await.unwrap();
    within(consumer.close()).await.unwrap();
    hub.all_gone().await;
    assert!(hub.handle.readers().is_empty());
    hub.stop().await;
}
