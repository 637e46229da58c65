//! One subscription at a time: asks for events by credit, hands them over, and remembers how far it got.
//!
//! Credit: <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/flow-control.html>. Events that are not yet
//! durable are not replaced by new credit, so a slow store slows the stream instead of filling memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use calbridge_core::ids::StreamId;
use calbridge_core::reason::Reason;
use calbridge_core::signal::{Position, Signal, SignalCause};
use calbridge_pubsub_proto::{ConsumerEvent, FetchRequest, FetchResponse, ReplayPreset, SchemaRequest};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::auth::Session;
use super::super::settings::PubSubSettings;
use super::avro::{self, Unusable};
use super::connection::{Stub, authorised};
use super::signals::Source;
use super::verdict;
use crate::points::{Point, pass};
use crate::ports::{Batch, Clock, Receipt};

/// Schemas remembered; an org shows a new one only when fields of Event change.
const MAX_SCHEMAS: usize = 64;

/// Most events that Salesforce lets a client have outstanding.
const MAX_CREDIT: i32 = 100;

/// Longest schema id remembered.
const LONGEST_SCHEMA_ID: usize = 256;

/// How long a schema that is unknown or of no use is not asked for again: events of it may come by the thousand, and it may
/// be known a little later.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The entity whose changes are of interest.
const ENTITY: &str = "Event";

/// Stands before the stored position of a stream that began with the latest until the look at everything before is asked for:
/// who is killed in between still owes it.
pub(super) const LOOK_OWED: &str = "look-owed:";

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// With what comes from now on.
    Latest,
    /// With the oldest event that is kept (72 h).
    Earliest,
    /// After an event.
    After(Vec<u8>),
}

/// How a subscription ended.
#[derive(Debug)]
pub(super) enum End {
    /// We were told to stop.
    Stopped,
    /// A batch was given up: what follows it must not be acknowledged.
    NotTaken,
    /// The server ended it, or fell silent.
    Broken,
    /// The server named a cause.
    Failed(Status),
}

/// A batch that is not durable yet: its events and the subscription they came by.
type Pending = BoxFuture<'static, (u64, i32, Result<(), oneshot::error::RecvError>)>;

/// A batch, its receipt, and the replay id up to which it reaches.
type Prepared = (Batch, oneshot::Receiver<()>, Option<Vec<u8>>);

/// What is known of a schema id.
enum Known {
    /// Its schema.
    Usable(Arc<Schema>),
    /// Salesforce answered that there is none, or gave one of no use.
    Unusable(Unusable, Instant),
}

/// What outlives a single connection.
pub(super) struct Subscription {
    stream: StreamId,
    source: Source,
    clock: Arc<dyn Clock>,
    start: Start,
    /// The stream began with the latest, and nobody looked at what came before.
    look_owed: bool,
    schemas: BTreeMap<String, Known>,
    in_flight: FuturesOrdered<Pending>,
    serial: u64,
    progressed: bool,
}

/// One connection's credit.
struct Credit {
    requests: mpsc::Sender<FetchRequest>,
    limit: i32,
    /// Durable events that were not asked anew for.
    owed: i32,
}

impl Credit {
    /// Gives credit back, in few messages; at once when nothing is outstanding, since the server waits only 60 s.
    fn give_back(&mut self, idle: bool) {
        if self.owed > 0 && (idle || self.owed >= self.limit / 4) {
            let request = FetchRequest { num_requested: self.owed, ..FetchRequest::default() };
            // A full or closed queue means that the connection hangs or has ended: the stream itself will tell.
            if self.requests.try_send(request).is_ok() {
                self.owed = 0;
            }
        }
    }
}

impl Subscription {
    pub(super) fn new(
        stream: StreamId,
        source: Source,
        (start, look_owed): (Start, bool),
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            stream,
            source,
            clock,
            start,
            look_owed,
            schemas: BTreeMap::new(),
            in_flight: FuturesOrdered::new(),
            serial: 0,
            progressed: false,
        }
    }

    /// Begins with the oldest event the next time; the caller asks for a look at everything.
    pub(super) fn restart(&mut self) {
        (self.start, self.look_owed) = (Start::Earliest, false);
    }

    /// Tells whether the server answered since this was last asked.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    pub(super) fn whole_org(&self, cause: SignalCause) -> Signal {
        self.source.whole_org(cause, None, self.clock.now())
    }

    /// Subscribes and follows the stream until it ends.
    pub(super) async fn follow(
        &mut self,
        mut stub: Stub,
        session: &Session,
        settings: &PubSubSettings,
        out: &mpsc::Sender<Batch>,
        ready: &watch::Sender<bool>,
        stop: &CancellationToken,
    ) -> End {
        self.serial += 1;
        let limit = settings.credit.clamp(1, MAX_CREDIT);
        let (requests, queued) = mpsc::channel(16);
        let mut credit = Credit { requests, limit, owed: 0 };
        if credit.requests.try_send(self.first_request(settings, limit)).is_err() {
            return End::Broken;
        }
        let request = match authorised(ReceiverStream::new(queued), session) {
            Ok(request) => request,
            Err(status) => return End::Failed(status),
        };
        // The server may hold its first headers back until it has something to say.
        let subscribed = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            subscribed = tokio::time::timeout(settings.silence, stub.subscribe(request)) => subscribed,
        };
        let mut stream = match subscribed {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return End::Failed(status),
            Err(_silence) => return End::Broken,
        };
        if !self.look_owed {
            ready.send_replace(true);
        }
        let settled = sleep_until(Instant::now() + settings.settle);
        tokio::pin!(settled);
        let mut silent_until = Instant::now() + settings.silence;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                Some((serial, events, taken)) = self.in_flight.next() => {
                    if taken.is_err() {
                        return End::NotTaken;
                    }
                    if serial == self.serial {
                        credit.owed += events;
                        pass(Point::BeforeCredit);
                        credit.give_back(self.in_flight.is_empty());
                        pass(Point::AfterCredit);
                    }
                }
                () = &mut settled, if self.look_owed => {
                    self.look_owed = false;
                    ready.send_replace(true);
                    // Nothing else tells what happened before the first position.
                    let signal = self.whole_org(SignalCause::Enrolment);
                    let position = match &self.start {
                        Start::After(id) => Some(self.stored_position(id)),
                        Start::Latest | Start::Earliest => None,
                    };
                    let batch = Batch {
                        signals: vec![signal],
                        rejects: Vec::new(),
                        positions: position.into_iter().collect(),
                        receipt: Receipt::unwatched(),
                    };
                    if out.send(batch).await.is_err() {
                        return End::NotTaken;
                    }
                }
                message = stream.message() => {
                    silent_until = Instant::now() + settings.silence;
                    self.progressed = true;
                    let response = match message {
                        Ok(Some(response)) => response,
                        Ok(None) => return End::Broken,
                        Err(status) => return End::Failed(status),
                    };
                    let count = i32::try_from(response.events.len()).unwrap_or(i32::MAX);
                    let batch = match self.batch(response, &mut stub, session, settings).await {
                        Ok(Some(batch)) => batch,
                        Ok(None) => continue,
                        Err(status) => return End::Failed(status),
                    };
                    if let Some(end) = self.hand_over(batch, count, out, stop).await {
                        return end;
                    }
                }
                () = sleep_until(silent_until) => {
                    tracing::warn!(error.code = "CB1450", "the change event stream fell silent; connecting again");
                    return End::Broken;
                }
            }
        }
    }

    fn first_request(&self, settings: &PubSubSettings, credit: i32) -> FetchRequest {
        let (preset, replay_id) = match &self.start {
            Start::Latest => (ReplayPreset::Latest, Vec::new()),
            Start::Earliest => (ReplayPreset::Earliest, Vec::new()),
            Start::After(id) => (ReplayPreset::Custom, id.clone()),
        };
        FetchRequest {
            topic_name: settings.topic.clone(),
            replay_preset: preset.into(),
            replay_id,
            num_requested: credit,
            auth_refresh: String::new(),
        }
    }

    /// Makes a batch of one response; an empty one moves the position only while nothing is in flight.
    async fn batch(
        &mut self,
        response: FetchResponse,
        stub: &mut Stub,
        session: &Session,
        settings: &PubSubSettings,
    ) -> Result<Option<Prepared>, Status> {
        let (receipt, taken) = Receipt::new();
        let mut batch = Batch { signals: Vec::new(), rejects: Vec::new(), positions: Vec::new(), receipt };
        if response.events.is_empty() {
            let id = response.latest_replay_id;
            // The id may run ahead of events that are still being made durable.
            if id.is_empty() || !self.in_flight.is_empty() || self.start == Start::After(id.clone()) {
                return Ok(None);
            }
            batch.positions.push(self.stored_position(&id));
            return Ok(Some((batch, taken, Some(id))));
        }
        // An event may come without an id of its own: one before it stands for it.
        let last = response.events.iter().rev().map(|event| &event.replay_id).find(|id| !id.is_empty()).cloned();
        for event in response.events {
            self.add(event, &mut batch, stub, session, settings).await?;
        }
        batch.positions.extend(last.as_ref().map(|id| self.stored_position(id)));
        Ok(Some((batch, taken, last)))
    }

    async fn add(
        &mut self,
        event: ConsumerEvent,
        batch: &mut Batch,
        stub: &mut Stub,
        session: &Session,
        settings: &PubSubSettings,
    ) -> Result<(), Status> {
        let position = self.position(&event.replay_id);
        let Some(body) = event.event else {
            let why = (Reason::Undecodable, "it has no payload");
            self.set_aside(why, &[], position, batch);
            return Ok(());
        };
        let decoded = match self.schema(&body.schema_id, stub, session, settings).await? {
            Ok(schema) => avro::decode(&schema, &body.payload, &self.source.fields),
            Err(why) => Err(why),
        };
        let now = self.clock.now();
        let outcome = match decoded {
            Ok(decoded) if decoded.entity == ENTITY => {
                let behind = (now - decoded.committed).num_seconds().max(0);
                metrics::gauge!("calbridge_stream_lag_seconds", "stream" => self.stream.to_string())
                    .set(i32::try_from(behind).map_or(f64::MAX, f64::from));
                self.source.signals(decoded, &position, now)
            }
            Ok(_) => Err((Reason::ForeignMessage, "a change of another object than Event")),
            Err(why) => Err(why),
        };
        match outcome {
            Ok(signals) => batch.signals.extend(signals),
            Err(why) => self.set_aside(why, &body.payload, position, batch),
        }
        Ok(())
    }

    fn set_aside(&self, (reason, why): Unusable, payload: &[u8], position: Position, batch: &mut Batch) {
        // At debug: intake tells people, once a minute for each cause.
        tracing::debug!(error.code = "CB1454", salesforce.replay_id = %position.value, "a change event was set aside: {why}");
        batch.rejects.push(self.source.reject(reason, why, payload, position));
    }

    /// Returns the schema an event was written with, asking for one that was never seen.
    ///
    /// The outer error breaks the stream, so that the event comes again; the inner one sets the event aside. Only a definite
    /// answer of Salesforce does that: silence and faults may pass.
    async fn schema(
        &mut self,
        id: &str,
        stub: &mut Stub,
        session: &Session,
        settings: &PubSubSettings,
    ) -> Result<Result<Arc<Schema>, Unusable>, Status> {
        match self.schemas.get(id) {
            Some(Known::Usable(schema)) => return Ok(Ok(Arc::clone(schema))),
            Some(Known::Unusable(why, since)) if since.elapsed() < ASK_AGAIN => return Ok(Err(*why)),
            _ => {}
        }
        let request = SchemaRequest { schema_id: id.to_owned() };
        let asked = stub.get_schema(authorised(request, session)?);
        let answer = tokio::time::timeout(settings.timeout, asked)
            .await
            .unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no schema in time")));
        let schema = match answer {
            Ok(answer) => avro::schema(&answer.into_inner().schema_json).map(Arc::new),
            Err(status) if verdict::names_unknown_schema(&status) => {
                Err((Reason::UnknownSchema, "its schema is unknown to salesforce"))
            }
            Err(status) => return Err(status),
        };
        if self.schemas.len() >= MAX_SCHEMAS {
            self.schemas.clear();
        }
        let known = match &schema {
            Ok(schema) => Known::Usable(Arc::clone(schema)),
            Err(why) => Known::Unusable(*why, Instant::now()),
        };
        // Ids have 22 characters; a longer one is not worth remembering.
        if id.len() <= LONGEST_SCHEMA_ID {
            self.schemas.insert(id.to_owned(), known);
        }
        Ok(schema)
    }

    /// Hands a batch to intake and remembers it until it is durable.
    async fn hand_over(
        &mut self,
        (batch, taken, last): Prepared,
        events: i32,
        out: &mpsc::Sender<Batch>,
        stop: &CancellationToken,
    ) -> Option<End> {
        tokio::select! {
            () = stop.cancelled() => return Some(End::Stopped),
            sent = out.send(batch) => {
                if sent.is_err() {
                    return Some(End::NotTaken);
                }
            }
        }
        if let Some(last) = last {
            self.start = Start::After(last);
        }
        let serial = self.serial;
        self.in_flight.push_back(Box::pin(async move { (serial, events, taken.await) }));
        None
    }

    /// Returns what is stored: as long as a look at everything is owed, it says so.
    fn stored_position(&self, replay_id: &[u8]) -> Position {
        let mut position = self.position(replay_id);
        if self.look_owed {
            position.value.insert_str(0, LOOK_OWED);
        }
        position
    }

    fn position(&self, replay_id: &[u8]) -> Position {
        Position { stream: self.stream.clone(), value: hex_of(replay_id) }
    }
}

/// Writes bytes as hex digits.
pub(super) fn hex_of(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}
