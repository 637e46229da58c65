//! One Subscribe stream: credit, batching, keepalive, idle close.
//!
//! <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/flow-control.html>

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calbridge_pubsub_proto as proto;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::super::changes::{Published, encode_replay_id};
use super::super::org::Org;
use super::super::schema::Object;
use super::status::{Fault, Rpc};
use crate::faults::Strike;

/// Most events a client may have outstanding; asking for more counts as this.
const CREDIT_CAP: usize = 100;
/// With credit but without events, the server answers within this time.
const KEEPALIVE: Duration = Duration::from_secs(270);
/// Without credit, the client must ask again within this time of the last response.
const IDLE: Duration = Duration::from_mins(1);

/// What a subscription listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// All objects.
    All,
    /// One object.
    One(Object),
}

impl Topic {
    /// Finds a topic by its case-sensitive name.
    pub(super) fn named(name: &str) -> Result<Self, Fault> {
        match name {
            "" => Err(Fault::EmptyTopic),
            "/data/ChangeEvents" => Ok(Self::All),
            "/data/EventChangeEvent" => Ok(Self::One(Object::Event)),
            "/data/EventRelationChangeEvent" => Ok(Self::One(Object::EventRelation)),
            _ => Err(Fault::UnknownTopic),
        }
    }

    pub(super) fn object(self) -> Option<Object> {
        if let Self::One(object) = self { Some(object) } else { None }
    }

    fn accepts(self, object: Object) -> bool {
        self.object().is_none_or(|wanted| wanted == object)
    }
}

/// The server's side of one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    org: Arc<Org>,
    rpc: Rpc,
    token: String,
    topic_name: String,
    topic: Topic,
    /// Position of the next event to read from the log.
    cursor: u64,
    /// Read but not yet sent; an event that is delivered twice stands here twice.
    outbox: VecDeque<Published>,
    credit: usize,
    /// Switched: the stream ends after its first response.
    ends_early: bool,
    sender: mpsc::Sender<Result<proto::FetchResponse, Status>>,
}

/// The stream is over: the client went away, or a status was sent.
#[derive(Debug)]
struct Ended;

impl Subscription {
    pub(super) fn open(
        org: Arc<Org>,
        rpc: Rpc,
        token: String,
        first: &proto::FetchRequest,
        sender: mpsc::Sender<Result<proto::FetchResponse, Status>>,
    ) -> Result<Self, Status> {
        let topic = Topic::named(&first.topic_name).map_err(|fault| rpc.fail(fault))?;
        let now = org.world.clock.now();
        let cursor = match proto::ReplayPreset::try_from(first.replay_preset) {
            Ok(proto::ReplayPreset::Latest) => org.log.end(),
            Ok(proto::ReplayPreset::Earliest) => org.log.beginning(now),
            Ok(proto::ReplayPreset::Custom) if first.replay_id.is_empty() => {
                return Err(rpc.fail(Fault::ReplayIdMissing));
            }
            Ok(proto::ReplayPreset::Custom) => {
                org.log.after(&first.replay_id, now).map_err(|_corrupted| rpc.fail(Fault::ReplayIdCorrupted))?
            }
            Err(_) => return Err(rpc.fail(Fault::FetchRequest)),
        };
        if org.world.faults.read().salesforce_deliveries_exhausted {
            return Err(rpc.fail(Fault::DeliveriesExhausted));
        }
        let ends_early = org.world.strikes(Strike::SalesforceEndStream);
        let mut subscription = Self {
            org,
            rpc,
            token,
            topic_name: first.topic_name.clone(),
            topic,
            cursor,
            outbox: VecDeque::new(),
            credit: 0,
            ends_early,
            sender,
        };
        subscription.grant(first).map_err(|fault| subscription.rpc.fail(fault))?;
        Ok(subscription)
    }

    /// Serves the stream until either side ends it.
    pub(super) async fn run(mut self, requests: Streaming<proto::FetchRequest>) {
        // Why it ended is told to the client on the stream itself.
        let Err(Ended) = self.serve(requests).await;
    }

    async fn serve(&mut self, mut requests: Streaming<proto::FetchRequest>) -> Result<std::convert::Infallible, Ended> {
        let mut published = self.org.log.watch();
        let closing = self.org.closing.clone();
        let mut ends = self.org.stream_ends.subscribe();
        let client = self.sender.clone();
        let mut last_response = Instant::now();
        let mut more_requests = true;
        loop {
            published.mark_unchanged();
            while self.credit > 0 && self.refill() {
                if self.org.world.faults.read().salesforce_deliveries_exhausted {
                    return self.end(Fault::DeliveriesExhausted).await;
                }
                self.send_batch().await?;
                last_response = Instant::now();
            }
            if !more_requests && self.credit == 0 {
                return Err(Ended);
            }
            let clock = self.org.world.clock;
            let patience = if self.credit > 0 { KEEPALIVE } else { IDLE };
            let deadline = last_response + clock.real(patience);
            tokio::select! {
                request = requests.message(), if more_requests => match request {
                    Ok(Some(request)) => {
                        if let Err(fault) = self.renew(&request) {
                            return self.end(fault).await;
                        }
                    }
                    Ok(None) => more_requests = false,
                    Err(_) => return Err(Ended),
                },
                changed = published.changed(), if self.credit > 0 => {
                    if changed.is_err() {
                        return Err(Ended);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    if self.credit == 0 {
                        return Err(Ended);
                    }
                    self.send_keepalive().await?;
                    last_response = Instant::now();
                }
                () = client.closed() => return Err(Ended),
                Ok(()) = ends.changed() => return self.end(Fault::Unavailable).await,
                () = closing.cancelled() => return self.end(Fault::Unavailable).await,
            }
        }
    }

    /// Takes a later request of the stream.
    fn renew(&mut self, request: &proto::FetchRequest) -> Result<(), Fault> {
        let session = self.org.session(&self.token).ok_or(Fault::Auth)?;
        self.org.world.meters.call(&session.client_id, "pubsub.fetch");
        if !request.topic_name.is_empty() && request.topic_name != self.topic_name {
            return Err(Fault::TopicMismatch);
        }
        self.grant(request)
    }

    fn grant(&mut self, request: &proto::FetchRequest) -> Result<(), Fault> {
        let wanted = usize::try_from(request.num_requested).ok().filter(|wanted| *wanted > 0);
        let wanted = wanted.ok_or(Fault::RequestedEvents)?;
        self.credit = self.credit.saturating_add(wanted).min(CREDIT_CAP);
        Ok(())
    }

    /// Reads events from the log; tells whether any wait to be sent.
    fn refill(&mut self) -> bool {
        if self.outbox.is_empty() {
            let topic = self.topic;
            for event in self.org.log.read(self.cursor, CREDIT_CAP, |object| topic.accepts(object)) {
                self.cursor = event.position + 1;
                for _ in 0..event.deliveries {
                    self.outbox.push_back(event.clone());
                }
            }
        }
        !self.outbox.is_empty()
    }

    /// Sends some of the waiting events: batches follow neither the requests nor the transactions.
    async fn send_batch(&mut self) -> Result<(), Ended> {
        let most = self.outbox.len().min(self.credit);
        let size = self.org.world.draw(|random| random.random_range(1..=most));
        let batch: Vec<Published> = self.outbox.drain(..size).collect();
        self.credit -= size;
        let Some(newest) = batch.last().map(|event| event.replay) else {
            return Ok(());
        };
        let events = batch.into_iter().map(|event| proto::ConsumerEvent {
            event: (!event.hollow).then(|| proto::ProducerEvent {
                id: event.id,
                schema_id: event.schema_id,
                payload: Bytes::into(event.payload),
                headers: Vec::new(),
            }),
            replay_id: event.shown_replay,
        });
        let response = self.response(events.collect(), newest);
        self.send(response).await
    }

    async fn send_keepalive(&mut self) -> Result<(), Ended> {
        let topic = self.topic;
        let head = self.org.log.quiet_head(&self.org.world, self.cursor, |object| topic.accepts(object));
        // An event that came in at this very moment goes out instead.
        let Some(head) = head else { return Ok(()) };
        let response = self.response(Vec::new(), head);
        self.send(response).await
    }

    fn response(&self, events: Vec<proto::ConsumerEvent>, newest: i64) -> proto::FetchResponse {
        proto::FetchResponse {
            events,
            latest_replay_id: encode_replay_id(newest),
            rpc_id: self.rpc.id.clone(),
            pending_num_requested: i32::try_from(self.credit).unwrap_or(i32::MAX),
        }
    }

    async fn send(&mut self, response: proto::FetchResponse) -> Result<(), Ended> {
        self.sender.send(Ok(response)).await.map_err(|_gone| Ended)?;
        if self.ends_early { Err(Ended) } else { Ok(()) }
    }

    async fn end(&self, fault: Fault) -> Result<std::convert::Infallible, Ended> {
        // When the client has gone too, nobody is left to be told.
        let _told = self.sender.send(Err(self.rpc.fail(fault))).await;
        Err(Ended)
    }
}
