//! The port `Listener` for change events: keeps one subscription going, from the last event handed over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use calbridge_core::ids::{ConnectionId, StreamId};
use calbridge_core::signal::{Signal, SignalCause};
use futures::future::BoxFuture;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::client::Client;
use super::super::settings::{PubSubSettings, Settings};
use super::connection;
use super::signals::Source;
use super::subscription::{End, LOOK_OWED, Start, Subscription};
use super::verdict::{self, Verdict};
use crate::ports::{Batch, Clock, ListenError, Listener, Receipt, Store, StoreError};

/// Reads the stored position of the stream.
pub(in super::super) type ReadCheckpoint =
    Box<dyn Fn() -> BoxFuture<'static, Result<Option<String>, StoreError>> + Send + Sync>;

/// Listens to the change events of one org.
pub struct ChangeEvents {
    client: Arc<Client>,
    checkpoint: ReadCheckpoint,
    clock: Arc<dyn Clock>,
    settings: PubSubSettings,
    connection: ConnectionId,
    fields: Vec<String>,
    ready: watch::Sender<bool>,
}

impl std::fmt::Debug for ChangeEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeEvents")
            .field("connection", &self.connection)
            .field("topic", &self.settings.topic)
            .finish_non_exhaustive()
    }
}

impl ChangeEvents {
    /// Prepares the listener; connects when run.
    pub fn new(client: Arc<Client>, store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: &Settings) -> Self {
        let (connection, stream) = (settings.connection.clone(), stream_of(&settings.pubsub));
        let checkpoint: ReadCheckpoint = Box::new(move || {
            let (store, connection, stream) = (Arc::clone(&store), connection.clone(), stream.clone());
            Box::pin(async move { store.checkpoint(&connection, &stream).await })
        });
        Self::starting_from(client, checkpoint, clock, settings)
    }

    /// Prepares the listener with its stored position read by other means.
    pub(in super::super) fn starting_from(
        client: Arc<Client>,
        checkpoint: ReadCheckpoint,
        clock: Arc<dyn Clock>,
        settings: &Settings,
    ) -> Self {
        Self {
            client,
            checkpoint,
            clock,
            settings: settings.pubsub.clone(),
            connection: settings.connection.clone(),
            fields: settings.fields.clone(),
            ready: watch::Sender::new(false),
        }
    }

    /// Returns whether events flow: false until the subscription stands (the first one: has settled), and while it is
    /// broken.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Returns the stream under which positions are stored.
    pub fn stream(&self) -> StreamId {
        stream_of(&self.settings)
    }

    /// Returns where to begin, and whether a look at everything before is still owed.
    async fn stored_start(&self) -> Result<(Start, bool), ListenError> {
        let stored = (self.checkpoint)().await.map_err(|error| ListenError::Passing(error.to_string()))?;
        let Some(stored) = stored else { return Ok((Start::Latest, true)) };
        let (hex, look_owed) = stored.strip_prefix(LOOK_OWED).map_or((stored.as_str(), false), |hex| (hex, true));
        // A position that cannot be read is as good as one that Salesforce no longer knows.
        Ok(bytes_of(hex).map_or((Start::Earliest, false), |id| (Start::After(id), look_owed)))
    }
}

#[async_trait]
impl Listener for ChangeEvents {
    fn name(&self) -> String {
        self.stream().to_string()
    }

    async fn run(self: Box<Self>, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), ListenError> {
        let start = self.stored_start().await?;
        let source = Source { connection: self.connection.clone(), fields: self.fields.clone() };
        if start.0 == Start::Earliest {
            ask_for_everything(&out, &stop, source.whole_org(SignalCause::Gap, None, self.clock.now())).await?;
        }
        let mut subscription = Subscription::new(self.stream(), source, start, Arc::clone(&self.clock));
        let mut failures = 0;
        let result = loop {
            // A new connection each time: a broken one may look alive for minutes.
            let stub = match connection::open(&self.settings) {
                Ok(stub) => stub,
                Err(error) => break Err(ListenError::Fatal(format!("CB1451: {error}"))),
            };
            let session = tokio::select! {
                () = stop.cancelled() => break Ok(()),
                session = self.client.session() => session,
            };
            let (end, session) = match session {
                Ok(session) => {
                    let end = subscription.follow(stub, &session, &self.settings, &out, &self.ready, &stop).await;
                    (end, Some(session))
                }
                Err(error) => {
                    tracing::warn!(error.code = error.code, error = %error, "cannot sign in for change events: {error}");
                    (End::Broken, None)
                }
            };
            self.ready.send_replace(false);
            if subscription.take_progress() {
                failures = 0;
            }
            failures += 1;
            let pause = match end {
                End::Stopped => break Ok(()),
                End::NotTaken => {
                    break Err(ListenError::Passing("CB1450: a batch of change events was not taken".to_owned()));
                }
                End::Broken => backoff(&self.settings, failures),
                End::Failed(status) => {
                    let words = verdict::words(&status);
                    match verdict::of(&status) {
                        Verdict::Fatal(message) => break Err(ListenError::Fatal(format!("CB1451: {message}"))),
                        Verdict::Retry => {
                            tracing::debug!(error = %words, "the change event stream ended: {words}");
                            backoff(&self.settings, failures)
                        }
                        Verdict::Renew => {
                            if let Some(session) = &session
                                && let Err(error) = self.client.renew(session).await
                            {
                                tracing::warn!(error.code = error.code, error = %error, "cannot renew the session: {error}");
                            }
                            // The first refusal is an ordinary expiry; only later ones ask for patience.
                            if failures > 1 { backoff(&self.settings, failures) } else { Duration::ZERO }
                        }
                        Verdict::Restart => {
                            tracing::warn!(
                                error.code = "CB1452",
                                "salesforce no longer knows the stored replay id; everything is read again"
                            );
                            subscription.restart();
                            let signal = subscription.whole_org(SignalCause::Gap);
                            ask_for_everything(&out, &stop, signal).await?;
                            backoff(&self.settings, failures)
                        }
                        Verdict::LimitReached => {
                            tracing::error!(error.code = "CB1453", "the org's event deliveries are used up; waiting");
                            self.settings.limit_pause
                        }
                    }
                }
            };
            metrics::counter!("calbridge_stream_reconnects_total", "stream" => self.name()).increment(1);
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        };
        self.ready.send_replace(false);
        result
    }
}

fn stream_of(settings: &PubSubSettings) -> StreamId {
    StreamId::new(format!("pubsub/{}", settings.topic))
}

async fn ask_for_everything(
    out: &mpsc::Sender<Batch>,
    stop: &CancellationToken,
    signal: Signal,
) -> Result<(), ListenError> {
    let batch =
        Batch { signals: vec![signal], rejects: Vec::new(), positions: Vec::new(), receipt: Receipt::unwatched() };
    tokio::select! {
        // Told to stop, the caller finds that out by itself.
        () = stop.cancelled() => Ok(()),
        taken = out.send(batch) => taken.map_err(|_closed| ListenError::Passing("CB1450: intake is closed".to_owned())),
    }
}

/// Returns a pause that doubles with each failure, with a random part so that many streams do not return at once.
fn backoff(settings: &PubSubSettings, failures: u32) -> Duration {
    let doubled = settings.retry_min.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let longest = doubled.min(settings.retry_max);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Reads hex digits; replay ids are opaque bytes and go back unchanged.
fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    (rest.is_empty() && !pairs.is_empty()).then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::super::subscription::hex_of;
    use super::*;

    #[test]
    fn replay_ids_go_back_unchanged() {
        for bytes in [vec![0, 0, 0, 0, 0, 0x10, 0xdb, 0x4d, 0, 0], vec![255; 8], vec![0]] {
            assert_eq!(bytes_of(&hex_of(&bytes)), Some(bytes));
        }
        assert_eq!(bytes_of("abc"), None);
        assert_eq!(bytes_of("zz"), None);
        assert_eq!(bytes_of(""), None);
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let settings = PubSubSettings::default();
        for failures in 1..100 {
            let pause = backoff(&settings, failures);
            assert!(pause <= settings.retry_max && pause >= settings.retry_min / 2, "{pause:?}");
        }
        assert!(backoff(&settings, 20) >= settings.retry_max / 2);
    }
}
