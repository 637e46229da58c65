//! The change event stream over gRPC, against a server that follows a script.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use calbridge_core::reason::Reason;
use calbridge_core::signal::{Change, SignalCause, Target, Version};
use calbridge_pubsub_proto as proto;
use calbridge_pubsub_proto::pub_sub_server::{PubSub, PubSubServer};
use futures::Stream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::super::pubsub::avro_samples::{SCHEMA, payload};
use super::super::pubsub::{ChangeEvents, ReadCheckpoint};
use super::stand_in::{StandIn, client_with, clock};
use crate::ports::{Batch, ListenError, Listener};

const ID: &str = "00U5000000Gv7qJEAR";
const SCHEMA_ID: &str = "K98aAtiNFBjA-PJlcvaQ2g";

type Item = Result<proto::FetchResponse, Status>;
type Replies = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// What the server does with one Subscribe call.
struct Act {
    items: Vec<Item>,
    /// Keeps the stream open afterwards.
    hold: bool,
}

/// A fetch request as it came, with the token of its call.
struct Asked {
    token: String,
    request: proto::FetchRequest,
}

struct Server {
    acts: Mutex<VecDeque<Act>>,
    asked: mpsc::UnboundedSender<Asked>,
}

#[tonic::async_trait]
impl PubSub for Server {
    type SubscribeStream = Replies;
    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<proto::PublishResponse, Status>> + Send>>;
    type ManagedSubscribeStream = Pin<Box<dyn Stream<Item = Result<proto::ManagedFetchResponse, Status>> + Send>>;

    async fn subscribe(&self, request: Request<Streaming<proto::FetchRequest>>) -> Result<Response<Replies>, Status> {
        let token = request.metadata().get("accesstoken").unwrap().to_str().unwrap().to_owned();
        let mut requests = request.into_inner();
        let asked = self.asked.clone();
        let (first, seen) = tokio::sync::oneshot::channel();
        let mut first = Some(first);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let _gone = asked.send(Asked { token: token.clone(), request });
                if let Some(first) = first.take() {
                    let _gone = first.send(());
                }
            }
        });
        seen.await.unwrap();
        let act = self.acts.lock().unwrap().pop_front();
        let act = act.unwrap_or(Act { items: Vec::new(), hold: true });
        let items = tokio_stream::iter(act.items);
        Ok(Response::new(if act.hold { Box::pin(items.chain(tokio_stream::pending())) } else { Box::pin(items) }))
    }

    async fn get_schema(&self, request: Request<proto::SchemaRequest>) -> Result<Response<proto::SchemaInfo>, Status> {
        if request.get_ref().schema_id != SCHEMA_ID {
            return Err(status(Code::NotFound, "schema.validation.failed"));
        }
        Ok(Response::new(proto::SchemaInfo {
            schema_json: SCHEMA.to_owned(),
            schema_id: SCHEMA_ID.to_owned(),
            rpc_id: String::new(),
        }))
    }

    async fn get_topic(&self, _: Request<proto::TopicRequest>) -> Result<Response<proto::TopicInfo>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn publish(&self, _: Request<proto::PublishRequest>) -> Result<Response<proto::PublishResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn publish_stream(
        &self,
        _: Request<Streaming<proto::PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn managed_subscribe(
        &self,
        _: Request<Streaming<proto::ManagedFetchRequest>>,
    ) -> Result<Response<Self::ManagedSubscribeStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn status(code: Code, error_code: &str) -> Status {
    let mut trailers = MetadataMap::new();
    let named = format!("sfdc.platform.eventbus.grpc.{error_code}");
    trailers.insert("error-code", named.parse().unwrap());
    Status::with_metadata(code, "refused", trailers)
}

fn event(replay: u8, schema_id: &str, payload: Vec<u8>) -> proto::ConsumerEvent {
    proto::ConsumerEvent {
        event: Some(proto::ProducerEvent {
            id: String::new(),
            schema_id: schema_id.to_owned(),
            payload,
            headers: Vec::new(),
        }),
        replay_id: vec![0, replay],
    }
}

fn update(replay: u8) -> proto::ConsumerEvent {
    event(replay, SCHEMA_ID, payload("UPDATE", &[ID], &["0x02"], None))
}

fn response(events: Vec<proto::ConsumerEvent>) -> proto::FetchResponse {
    proto::FetchResponse { events, ..proto::FetchResponse::default() }
}

fn empty(latest: u8) -> proto::FetchResponse {
    proto::FetchResponse { latest_replay_id: vec![0, latest], ..proto::FetchResponse::default() }
}

/// A running listener and both its ends.
struct Running {
    batches: mpsc::Receiver<Batch>,
    asked: mpsc::UnboundedReceiver<Asked>,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ListenError>>,
    rest: StandIn,
}

impl Running {
    async fn start(stored: Option<&str>, acts: Vec<Act>) -> Self {
        Self::start_with(stored, acts, |_| {}).await
    }

    async fn start_with(
        stored: Option<&str>,
        acts: Vec<Act>,
        adjust: impl FnOnce(&mut super::super::PubSubSettings),
    ) -> Self {
        let rest = StandIn::quiet().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = rest.settings();
        settings.pubsub.endpoint = format!("http://{}", listener.local_addr().unwrap());
        settings.pubsub.retry_min = Duration::from_millis(1);
        settings.pubsub.settle = Duration::from_millis(1);
        adjust(&mut settings.pubsub);
        let (sender, asked) = mpsc::unbounded_channel();
        let server = Server { acts: Mutex::new(acts.into()), asked: sender };
        let incoming = TcpListenerStream::new(listener);
        let serve =
            tonic::transport::Server::builder().add_service(PubSubServer::new(server)).serve_with_incoming(incoming);
        tokio::spawn(serve);
        let stored = stored.map(str::to_owned);
        let checkpoint: ReadCheckpoint = Box::new(move || {
            let stored = stored.clone();
            Box::pin(async move { Ok(stored) })
        });
        let events = ChangeEvents::starting_from(client_with(&settings), checkpoint, clock(), &settings);
        let ready = events.ready();
        let stop = CancellationToken::new();
        let (out, batches) = mpsc::channel(16);
        let task = tokio::spawn(Box::new(events).run(out, stop.clone()));
        Self { batches, asked, ready, stop, task, rest }
    }

    async fn batch(&mut self) -> Batch {
        self.batches.recv().await.expect("the listener runs")
    }

    async fn asked(&mut self) -> Asked {
        self.asked.recv().await.expect("the server runs")
    }

    async fn end(self) -> Result<(), ListenError> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

fn preset(asked: &Asked) -> proto::ReplayPreset {
    asked.request.replay_preset()
}

#[tokio::test]
async fn events_become_signals_and_credit_returns_once_they_are_durable() {
    let acts = vec![Act { items: vec![Ok(response(vec![update(1), update(2)]))], hold: true }];
    let mut running = Running::start(Some("0001"), acts).await;
    let first = running.asked().await;
    assert_eq!(preset(&first), proto::ReplayPreset::Custom);
    assert_eq!((first.request.replay_id, first.request.num_requested), (vec![0, 1], 100));
    let batch = running.batch().await;
    assert_eq!(batch.positions[0].value, "0002");
    assert_eq!(batch.positions[0].stream.as_str(), "pubsub//data/EventChangeEvent");
    let signal = &batch.signals[0];
    assert!(matches!(&signal.target, Target::Record(record) if record.remote_id() == ID));
    assert_eq!((signal.change, signal.cause), (Change::Updated, SignalCause::Notification));
    assert!(matches!(&signal.version, Some(Version::Modstamp(at)) if at.timestamp() == 1_795_251_601));
    let facts = signal.facts.as_ref().unwrap();
    assert!(facts.changed.contains("Subject") && facts.origin.contains("client=calbridge/1"));
    assert_eq!(signal.position.as_ref().unwrap().value, "0001");
    assert!(running.asked.try_recv().is_err(), "nothing is asked for before the events are durable");
    batch.receipt.done();
    let more = running.asked().await;
    assert_eq!((more.request.num_requested, more.request.replay_id.len()), (2, 0));
    running.end().await.unwrap();
}

#[tokio::test]
async fn the_first_start_begins_with_the_latest_and_asks_for_a_look_at_everything() {
    let mut running = Running::start(None, Vec::new()).await;
    assert_eq!(preset(&running.asked().await), proto::ReplayPreset::Latest);
    let batch = running.batch().await;
    assert_eq!((&batch.signals[0].target, batch.signals[0].cause), (&Target::Org, SignalCause::Enrolment));
    assert!(batch.positions.is_empty());
    running.ready.wait_for(|ready| *ready).await.unwrap();
    let mut ready = running.ready.clone();
    running.end().await.unwrap();
    assert!(!*ready.borrow_and_update());
}

#[tokio::test]
async fn who_dies_before_the_first_look_at_everything_owes_it_and_misses_no_event() {
    let one = |number| Act { items: vec![Ok(response(vec![update(number)]))], hold: true };
    let never = |settings: &mut super::super::PubSubSettings| settings.settle = Duration::from_hours(1);
    let mut first = Running::start_with(None, vec![one(1)], never).await;
    let batch = first.batch().await;
    assert_eq!((batch.signals.len(), batch.positions[0].value.as_str()), (1, "look-owed:0001"));
    assert_eq!(batch.signals[0].position.as_ref().unwrap().value, "0001");
    batch.receipt.done();
    first.end().await.unwrap();

    let mut second = Running::start_with(Some("look-owed:0001"), vec![one(2)], never).await;
    let asked = second.asked().await;
    assert_eq!((preset(&asked), asked.request.replay_id), (proto::ReplayPreset::Custom, vec![0, 1]));
    assert_eq!(second.batch().await.positions[0].value, "look-owed:0002", "it was killed too early again");
    second.end().await.unwrap();

    let nothing = vec![Act { items: Vec::new(), hold: true }];
    let mut third = Running::start(Some("look-owed:0002"), nothing).await;
    let batch = third.batch().await;
    assert_eq!((&batch.signals[0].target, batch.signals[0].cause), (&Target::Org, SignalCause::Enrolment));
    assert_eq!(batch.positions[0].value, "0002", "in one transaction with the look that is wanted");
    third.end().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_decoded_is_set_aside_and_the_rest_goes_on() {
    let events = vec![
        event(1, SCHEMA_ID, b"nonsense".to_vec()),
        event(2, "unknown", payload("UPDATE", &[ID], &[], None)),
        update(3),
    ];
    let mut running = Running::start(Some("00"), vec![Act { items: vec![Ok(response(events))], hold: true }]).await;
    let batch = running.batch().await;
    assert_eq!(batch.signals.len(), 1);
    assert_eq!(batch.positions[0].value, "0003");
    let rejects: Vec<_> = batch.rejects.iter().map(|reject| (reject.reason, reject.raw.len() > 4)).collect();
    assert_eq!(rejects, [(Reason::Undecodable, true), (Reason::UnknownSchema, true)]);
    assert_eq!(batch.rejects[0].raw, b"nonsense");
    assert_eq!(batch.rejects[1].position.as_ref().unwrap().value, "0002");
    batch.receipt.done();
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_lost_replay_id_restarts_from_the_earliest_and_looks_at_everything() {
    let lost = Err(status(Code::InvalidArgument, "subscription.fetch.replayid.corrupted"));
    let mut running = Running::start(Some("0005"), vec![Act { items: vec![lost], hold: false }]).await;
    assert_eq!(preset(&running.asked().await), proto::ReplayPreset::Custom);
    let batch = running.batch().await;
    assert_eq!((&batch.signals[0].target, batch.signals[0].cause), (&Target::Org, SignalCause::Gap));
    assert_eq!(preset(&running.asked().await), proto::ReplayPreset::Earliest);
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_ends_goes_on_after_the_last_event_handed_over() {
    let acts = vec![
        Act { items: vec![Ok(response(vec![update(7)]))], hold: false },
        Act { items: vec![Err(status(Code::Internal, "service.unavailable"))], hold: false },
        Act { items: vec![Ok(response(vec![update(8)]))], hold: true },
    ];
    let mut running = Running::start(Some("0001"), acts).await;
    let _first = running.asked().await;
    let held = running.batch().await;
    for _ in 0..2 {
        let again = running.asked().await;
        assert_eq!((preset(&again), again.request.replay_id), (proto::ReplayPreset::Custom, vec![0, 7]));
    }
    let next = running.batch().await;
    assert_eq!(next.positions[0].value, "0008");
    held.receipt.done();
    next.receipt.done();
    assert_eq!(
        running.asked().await.request.num_requested,
        1,
        "credit of the old stream is not returned to the new one"
    );
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_refused_session_is_renewed() {
    let refused = Err(status(Code::Unauthenticated, "service.auth.error"));
    let mut running = Running::start(Some("0001"), vec![Act { items: vec![refused], hold: false }]).await;
    assert_eq!(running.asked().await.token, "token-1");
    assert_eq!(running.asked().await.token, "token-2");
    assert_eq!(running.rest.tokens(), 2);
    running.end().await.unwrap();
}

#[tokio::test]
async fn an_empty_response_moves_the_position_only_while_nothing_is_in_flight() {
    let items = vec![Ok(response(vec![update(3)])), Ok(empty(9)), Ok(response(vec![update(4)]))];
    let mut running = Running::start(Some("0001"), vec![Act { items, hold: true }]).await;
    let first = running.batch().await;
    let second = running.batch().await;
    assert_eq!((&*first.positions[0].value, &*second.positions[0].value), ("0003", "0004"));
    running.end().await.unwrap();

    let mut running = Running::start(Some("0001"), vec![Act { items: vec![Ok(empty(9))], hold: true }]).await;
    let quiet = running.batch().await;
    assert_eq!((quiet.signals.len(), &*quiet.positions[0].value), (0, "0009"));
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_is_given_up_stops_the_listener() {
    let acts = vec![Act { items: vec![Ok(response(vec![update(1)]))], hold: true }];
    let mut running = Running::start(Some("0001"), acts).await;
    drop(running.batch().await);
    assert!(matches!(running.task.await.unwrap(), Err(ListenError::Passing(_))));
}

#[tokio::test]
async fn a_missing_permission_is_fatal_and_names_the_mend() {
    let refused = Err(status(Code::PermissionDenied, "topic.meta.permission"));
    let running = Running::start(Some("0001"), vec![Act { items: vec![refused], hold: false }]).await;
    let Err(ListenError::Fatal(message)) = running.task.await.unwrap() else { panic!("not fatal") };
    assert!(message.contains("View All Data"), "{message}");
}

#[tokio::test]
async fn a_silent_stream_is_opened_anew() {
    let acts = vec![Act { items: vec![Ok(response(vec![update(1)]))], hold: true }];
    let mut running =
        Running::start_with(Some("0001"), acts, |pubsub| pubsub.silence = Duration::from_millis(200)).await;
    let _first = running.asked().await;
    running.batch().await.receipt.done();
    let again = loop {
        let asked = running.asked().await;
        if !asked.request.topic_name.is_empty() {
            break asked;
        }
    };
    assert_eq!(again.request.replay_id, [0, 1]);
    running.end().await.unwrap();
}
