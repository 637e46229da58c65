//! The listener on Event Hubs: one reader a partition, positions of our own, a deadline around every call of the SDK.
//!
//! The SDK's own reconnect attaches again at the position it first started from, and its retry budget is used up by
//! waiting: both would replay or end a stream. So its retries are switched off, any error closes the connection, and the
//! next one opens behind the last event that was handed over. Its processor is not used: its streams cannot be spawned.
//!
//! ```text
//!   open ──> check the position ──> receive ──> collect (500 events or 50 ms) ──> hand over ──┐
//!    ^                                 │ error, end, silence with events waiting              │ receipts, in order
//!    └──────── pause, doubling ────────┴──────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_messaging_eventhubs::models::{EventHubPartitionProperties, ReceivedEventData};
use azure_messaging_eventhubs::{
    ConsumerClient, EventHubsError, EventReceiver, OpenReceiverOptions, StartLocation, StartPosition,
};
use calbridge_core::ids::{ConnectionId, StreamId};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Position, Signal};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::hub_connection::{HubSettings, close, hub_error, is_unreadable, open, partitions, within};
use super::notification::Reader;
use super::{Nudge, Nudges};
use crate::duties::{Duties, Tended};
use crate::outlook::auth::{HubCredential, TokenSource};
use crate::outlook::error::{self, remote};
use crate::points::{Point, pass};
use crate::ports::{Batch, ListenError, Listener, Receipt, Reject, RemoteError, Retry, Store};

/// First pause after a failure; doubles, and starts anew after a batch was handed over.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Time in which a working link hands out events that are known to wait.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// Batches handed over whose receipts are still out.
const BATCHES_IN_FLIGHT: usize = 8;
/// Bytes of messages in one batch, so that large ones do not pile up.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of messages set aside that one batch carries; the store keeps a few of them anyway.
const KEPT_BYTES: usize = 512 * 1024;

/// How often a message is tried that reading fails for, before it is set aside unread.
const UNREADABLE_TRIES: u32 = 3;

/// Reads all partitions of one hub.
pub struct HubListener {
    pub(crate) settings: HubSettings,
    pub(crate) tokens: Arc<TokenSource>,
    pub(crate) reader: Reader,
    pub(crate) store: Arc<dyn Store>,
}

impl fmt::Debug for HubListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubListener").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl Listener for HubListener {
    fn name(&self) -> String {
        "event_hubs".to_owned()
    }

    fn is_alone(&self) -> bool {
        false
    }

    async fn run(self: Box<Self>, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), ListenError> {
        let found = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            found = partitions(&self.settings, &self.tokens) => found,
        };
        // Roles and secrets are mended outside while we run; only an address of ours stays wrong until a restart.
        let partitions = found.map_err(|error| match error.code {
            error::SETTINGS => ListenError::Fatal(error.to_string()),
            _ => ListenError::Passing(error.to_string()),
        })?;
        let duties = Duties {
            store: Arc::clone(&self.store),
            connection: self.reader.connection.clone(),
            kind: format!("event_hubs/{}/{}", self.settings.hub, self.settings.consumer_group),
            names: partitions,
        };
        let (nudges, store) = (self.reader.nudges.clone(), Arc::clone(&self.store));
        let connection = self.reader.connection.clone();
        let (listener, reading) = (Arc::new(*self), stop.clone());
        let start = move |partition: &str, stop: CancellationToken| -> BoxFuture<'static, ()> {
            let span = info_span!("partition", eventhub.partition = %partition);
            let (listener, out, partition) = (Arc::clone(&listener), out.clone(), partition.to_owned());
            Box::pin(async move { listener.read_partition(partition, out, stop).await }.instrument(span))
        };
        let tended = tokio::select! {
            tended = duties.tend(&reading, start) => tended,
            never = forward_nudges(nudges, store, connection) => match never {},
        };
        match tended {
            Tended::Stopped => Ok(()),
            // The others were stopped too, so the engine starts all of them again together.
            Tended::Ended => Err(ListenError::Passing("a partition reader ended".to_owned())),
            Tended::Panicked => Err(ListenError::Passing("a partition reader panicked".to_owned())),
        }
    }
}

/// Carries nudges to whichever instance keeps the subscriptions; has nothing to do where that is always this one.
async fn forward_nudges(nudges: Nudges, store: Arc<dyn Store>, connection: ConnectionId) -> Infallible {
    if !store.is_shared() {
        return std::future::pending().await;
    }
    loop {
        for (mailbox, nudge) in nudges.take().await {
            while let Err(error) = store.leave_nudge(&connection, &mailbox, nudge == Nudge::Recreate).await {
                warn!(error = %error, "cannot leave word for the instance that keeps the subscriptions");
                tokio::time::sleep(FIRST_PAUSE).await;
            }
        }
    }
}

impl HubListener {
    /// Reads a partition from its stored position until stopped.
    async fn read_partition(&self, partition: String, out: mpsc::Sender<Batch>, stop: CancellationToken) {
        let stream =
            StreamId::new(format!("event_hubs/{}/{}/{partition}", self.settings.hub, self.settings.consumer_group));
        let stored = match self.store.checkpoint(&self.reader.connection, &stream).await {
            Ok(stored) => stored,
            Err(error) => {
                warn!(error = %error, "cannot read how far the partition is covered");
                return;
            }
        };
        let reader = PartitionReader {
            settings: self.settings.clone(),
            credential: Arc::new(HubCredential::new(Arc::clone(&self.tokens))),
            reader: self.reader.clone(),
            stream,
            partition,
            out,
            confirmed: stored.as_deref().and_then(|text| text.parse().ok()),
            handed: None,
            in_flight: VecDeque::new(),
            pause: FIRST_PAUSE,
            stuck: None,
            oldest: 0,
        };
        reader.run(stop).await;
    }
}

/// Why a connection is given up.
enum Ended {
    /// Stopped from outside.
    Stopped,
    /// Intake is gone.
    Closed,
    /// A batch was dropped: what it held must be read again.
    NotTaken,
    /// The connection, the link or the service failed.
    Failed(RemoteError),
    /// Reading the next message failed, or panicked, and will again.
    Unreadable,
}

/// Reads one partition.
struct PartitionReader {
    settings: HubSettings,
    credential: Arc<HubCredential>,
    reader: Reader,
    stream: StreamId,
    partition: String,
    out: mpsc::Sender<Batch>,
    /// Newest sequence number that is durable.
    confirmed: Option<i64>,
    /// Newest sequence number that was handed over.
    handed: Option<i64>,
    /// Batches whose receipts are out, oldest first.
    in_flight: VecDeque<(Option<i64>, oneshot::Receiver<()>)>,
    pause: Duration,
    /// Set where reading failed for the message itself: where that was, and how often. Until it is passed, events are
    /// handed over one by one, so that the position stands right before it.
    stuck: Option<(Option<i64>, u32)>,
    /// Oldest sequence number that the partition holds, as it last told.
    oldest: i64,
}

/// A batch that is being filled.
#[derive(Default)]
struct Filling {
    signals: Vec<Signal>,
    rejects: Vec<Reject>,
    last: Option<i64>,
    events: usize,
    bytes: usize,
    /// Bytes of messages set aside that the batch carries.
    kept: usize,
    since: Option<Instant>,
}

impl Filling {
    /// Takes a reject in; once the batch carries enough of others, without its bytes.
    fn add(&mut self, mut reject: Reject) {
        self.kept += reject.raw.len();
        if self.kept > KEPT_BYTES {
            reject.raw = Vec::new();
        }
        self.rejects.push(reject);
    }
}

impl PartitionReader {
    async fn run(mut self, stop: CancellationToken) {
        self.handed = self.confirmed;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => Ended::Stopped,
                ended = AssertUnwindSafe(Box::pin(self.read_until_broken())).catch_unwind() => {
                    ended.unwrap_or(Ended::Unreadable)
                }
            };
            match ended {
                Ended::Stopped | Ended::Closed => return,
                Ended::NotTaken => {
                    warn!("intake dropped a batch; reading it again");
                    self.in_flight.clear();
                    self.handed = self.confirmed;
                }
                Ended::Unreadable => {
                    if let Err(Ended::Closed | Ended::Stopped) = self.pass_what_cannot_be_read().await {
                        return;
                    }
                }
                Ended::Failed(error) => {
                    warn!(error.code = error.code, error = %error, "the connection to the partition ended; opening another");
                    if error.code == error::HUB_SIGN_IN
                        && let Err(error) = self.credential.replace().await
                    {
                        warn!(error.code = error.code, error = %error, "cannot replace the token that the hub refuses");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.pause) => {}
            }
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sets the next message aside unread once it could not be read [`UNREADABLE_TRIES`] times.
    async fn pass_what_cannot_be_read(&mut self) -> Result<(), Ended> {
        let tries = match self.stuck {
            Some((at, tries)) if at == self.handed => tries + 1,
            _ => 1,
        };
        self.stuck = Some((self.handed, tries));
        if tries < UNREADABLE_TRIES {
            return Ok(());
        }
        // Sequence numbers of a partition run without holes.
        let next = self.handed.map_or(self.oldest, |handed| handed + 1);
        let mut filling = Filling { last: Some(next), events: 1, ..Filling::default() };
        let position = Position { stream: self.stream.clone(), value: next.to_string() };
        self.set_aside(&mut filling, "the message breaks the rules of AMQP", &[], Some(position));
        self.stuck = None;
        self.hand_over(&mut filling).await
    }

    async fn read_until_broken(&mut self) -> Ended {
        let client = match open(&self.settings, &self.credential).await {
            Ok(client) => client,
            Err(error) => return Ended::Failed(error),
        };
        let ended = self.read_from(&client).await;
        close(client).await;
        ended
    }

    async fn read_from(&mut self, client: &ConsumerClient) -> Ended {
        match self.ask(client).await {
            Ok(properties) => {
                self.oldest = properties.beginning_sequence_number;
                if let Err(ended) = self.check_position(&properties).await {
                    return ended;
                }
            }
            Err(error) => return Ended::Failed(error),
        }
        let location = match self.handed {
            Some(sequence) => StartLocation::SequenceNumber(sequence),
            None => StartLocation::Earliest,
        };
        let options = OpenReceiverOptions {
            prefetch: Some(self.settings.prefetch),
            start_position: Some(StartPosition { location, inclusive: false }),
            ..OpenReceiverOptions::default()
        };
        let opening = client.open_receiver_on_partition(self.partition.clone(), Some(options));
        let receiver: EventReceiver = match within(&self.settings, "open the partition", Box::pin(opening)).await {
            Ok(receiver) => receiver,
            Err(error) => return Ended::Failed(error),
        };
        info!(eventhub.sequence = ?self.handed, "reading a partition");
        // Shown from the start: an absent series looks like a broken scrape.
        metrics::counter!("calbridge_duplicates_total", "stream" => self.stream.to_string()).increment(0);
        let mut events = pin!(receiver.stream_events());
        loop {
            match self.step(client, events.as_mut()).await {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    async fn ask(&self, client: &ConsumerClient) -> Result<EventHubPartitionProperties, RemoteError> {
        let asking = client.get_partition_properties(&self.partition);
        within(&self.settings, "ask for the partition", Box::pin(asking)).await
    }

    /// Compares our position with what the partition still holds.
    ///
    /// Sequence numbers of a partition run without holes, so a first one beyond ours means that events were dropped by
    /// age, and a last one before ours means that this is another hub of the same name.
    async fn check_position(&mut self, properties: &EventHubPartitionProperties) -> Result<(), Ended> {
        let Some(handed) = self.handed else { return Ok(()) };
        let other_hub = properties.last_enqueued_sequence_number < handed;
        let dropped = if properties.is_empty {
            properties.last_enqueued_sequence_number > handed
        } else {
            properties.beginning_sequence_number > handed + 1
        };
        if !other_hub && !dropped {
            return Ok(());
        }
        warn!(
            error.code = error::HUB_POSITION_LOST,
            eventhub.sequence = handed,
            "the hub no longer holds what follows our position; every enrolled mailbox is read again"
        );
        let mut filling = Filling { signals: self.reader.everything_missed(), ..Filling::default() };
        if other_hub {
            self.handed = None;
            self.confirmed = None;
        } else {
            // The stored position moves on together with the signals that make up for it.
            filling.last = Some(if properties.is_empty {
                properties.last_enqueued_sequence_number
            } else {
                properties.beginning_sequence_number - 1
            });
        }
        self.hand_over(&mut filling).await
    }

    /// Fills one batch and hands it over, or looks after an idle link.
    async fn step(
        &mut self,
        client: &ConsumerClient,
        mut events: std::pin::Pin<&mut (impl Stream<Item = Result<ReceivedEventData, EventHubsError>> + ?Sized)>,
    ) -> Result<(), Ended> {
        let mut filling = Filling::default();
        let mut failure = None;
        loop {
            let wait = match filling.since {
                Some(since) => (since + self.settings.batch_wait).saturating_duration_since(Instant::now()),
                None => self.settings.idle_check,
            };
            let event = tokio::select! {
                biased;
                taken = next_receipt(&mut self.in_flight) => {
                    self.take_receipt(taken)?;
                    continue;
                }
                event = timeout(wait, events.next()) => event,
            };
            let event = match event {
                Err(_) if filling.since.is_some() => break,
                Err(_) => {
                    if !self.is_behind(client).await? {
                        return Ok(());
                    }
                    // They may have come while we asked; a working link hands them out at once.
                    match timeout(IDLE_GRACE, events.next()).await {
                        Ok(event) => event,
                        Err(_) => {
                            return Err(Ended::Failed(remote(
                                error::HUB_UNREACHABLE,
                                "the link was silent while events were waiting",
                                Retry::After(Duration::ZERO),
                            )));
                        }
                    }
                }
                Ok(event) => event,
            };
            match event {
                Some(Ok(event)) => self.take_event(&event, &mut filling),
                Some(Err(error)) => {
                    failure = Some(hub_error("receive", &error));
                    break;
                }
                None => {
                    let retry = Retry::After(Duration::ZERO);
                    failure = Some(remote(error::HUB_UNREACHABLE, "the hub ended the stream", retry));
                    break;
                }
            }
            let most = if self.stuck.is_some() { 1 } else { self.settings.batch_events };
            if filling.events >= most || filling.bytes >= BATCH_BYTES {
                break;
            }
        }
        if filling.events > 0 {
            self.hand_over(&mut filling).await?;
        }
        match failure {
            None => Ok(()),
            Some(error) if is_unreadable(&error) => Err(Ended::Unreadable),
            Some(error) => Err(Ended::Failed(error)),
        }
    }

    /// A link that broke without a word looks idle: only asking shows that events are waiting behind it.
    async fn is_behind(&mut self, client: &ConsumerClient) -> Result<bool, Ended> {
        let properties = self.ask(client).await.map_err(Ended::Failed)?;
        Ok(!properties.is_empty && properties.last_enqueued_sequence_number != self.handed.unwrap_or(-1))
    }

    fn take_event(&mut self, event: &ReceivedEventData, filling: &mut Filling) {
        let Some(sequence) = event.sequence_number() else {
            // It has no place in the stream, so its batch's position stands for it.
            filling.since.get_or_insert_with(Instant::now);
            filling.events += 1;
            let body = event.event_data().body().unwrap_or_default();
            filling.bytes += body.len();
            self.set_aside(filling, "the message has no sequence number", body, None);
            return;
        };
        let newest = filling.last.or(self.handed);
        if newest.is_some_and(|newest| sequence <= newest) {
            debug!(eventhub.sequence = sequence, "an event came again");
            return;
        }
        if let Some(enqueued) = event.enqueued_time() {
            let behind = (self.reader.clock.now() - DateTime::<Utc>::from(enqueued)).num_milliseconds().max(0);
            metrics::gauge!("calbridge_stream_lag_seconds", "stream" => self.stream.to_string())
                .set(f64::from(i32::try_from(behind).unwrap_or(i32::MAX)) / 1000.0);
        }
        filling.since.get_or_insert_with(Instant::now);
        filling.last = Some(sequence);
        filling.events += 1;
        let position = Position { stream: self.stream.clone(), value: sequence.to_string() };
        match event.event_data().body() {
            Some(body) => {
                filling.bytes += body.len();
                let understood = self.reader.read(body, &position);
                filling.signals.extend(understood.signals);
                for reject in understood.rejects {
                    filling.add(reject);
                }
            }
            None => self.set_aside(filling, "the message is not one section of bytes", &[], Some(position)),
        }
    }

    /// Sets aside a message that cannot even be read as one.
    fn set_aside(&self, filling: &mut Filling, detail: &'static str, body: &[u8], position: Option<Position>) {
        filling.add(Reject {
            connection: self.reader.connection.clone(),
            side: Side::Outlook,
            reason: Reason::Undecodable,
            detail,
            raw: Reject::kept(Reason::Undecodable, body),
            size: body.len(),
            items: 1,
            position,
        });
    }

    async fn hand_over(&mut self, filling: &mut Filling) -> Result<(), Ended> {
        while self.in_flight.len() >= BATCHES_IN_FLIGHT {
            let taken = next_receipt(&mut self.in_flight).await;
            self.take_receipt(taken)?;
        }
        let (receipt, done) = Receipt::new();
        let last = filling.last;
        let batch = Batch {
            signals: std::mem::take(&mut filling.signals),
            rejects: std::mem::take(&mut filling.rejects),
            positions: last
                .map(|sequence| Position { stream: self.stream.clone(), value: sequence.to_string() })
                .into_iter()
                .collect(),
            receipt,
        };
        self.out.send(batch).await.map_err(|_closed| Ended::Closed)?;
        self.in_flight.push_back((last, done));
        if last.is_some() {
            self.handed = last;
            self.pause = FIRST_PAUSE;
        }
        Ok(())
    }

    fn take_receipt(&mut self, (last, taken): (Option<i64>, bool)) -> Result<(), Ended> {
        if !taken {
            return Err(Ended::NotTaken);
        }
        pass(Point::HubReceipt);
        if last.is_some() {
            self.confirmed = last;
        }
        Ok(())
    }
}

/// Waits for the oldest receipt that is out; for ever when there is none. Safe to drop while it waits.
async fn next_receipt(in_flight: &mut VecDeque<(Option<i64>, oneshot::Receiver<()>)>) -> (Option<i64>, bool) {
    let Some((last, done)) = in_flight.front_mut() else {
        return std::future::pending().await;
    };
    let last = *last;
    let taken = done.await.is_ok();
    in_flight.pop_front();
    (last, taken)
}

#[cfg(test)]
#[path = "event_hubs_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "pitfalls_tests.rs"]
mod pitfalls;

#[cfg(test)]
#[path = "hub_tokens_tests.rs"]
mod hub_tokens;
