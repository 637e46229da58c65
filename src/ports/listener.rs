//! Listeners: wire messages become signals.

use async_trait::async_trait;
use calbridge_core::ids::ConnectionId;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Position, Signal};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What a listener hands over at a time: everything of one or several wire messages, never a part of one.
#[derive(Debug)]
pub struct Batch {
    /// Signals, in the order of the stream.
    pub signals: Vec<Signal>,
    /// Messages that cannot become signals.
    pub rejects: Vec<Reject>,
    /// How far the batch reaches in its streams.
    pub positions: Vec<Position>,
    /// Told when everything above is durable.
    pub receipt: Receipt,
}

/// A wire message, or an item of one, that is no signal.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The connection whose stream it came by.
    pub connection: ConnectionId,
    /// The side it came from.
    pub side: Side,
    /// Why it is no signal; some reasons keep the message as a dead letter ([`Reason::keeps_message`]), others only count.
    pub reason: Reason,
    /// What was wrong: one of a closed list of texts, so that it can hold nothing of the message.
    pub detail: &'static str,
    /// The beginning of the message as received, at most [`Reject::KEPT`] bytes; empty where the reason keeps none.
    pub raw: Vec<u8>,
    /// Length of the whole message in bytes.
    pub size: usize,
    /// How many items of the message this stands for; at least 1.
    pub items: u32,
    /// Where it stood.
    pub position: Option<Position>,
}

impl Reject {
    /// Most bytes that are kept of one message: enough to see what it is and who may have sent it.
    pub const KEPT: usize = 16 * 1024;

    /// Returns what is kept of a message that is set aside for a reason.
    pub fn kept(reason: Reason, message: &[u8]) -> Vec<u8> {
        let kept = if reason.keeps_message() { message } else { &[] };
        kept.get(..Self::KEPT).unwrap_or(kept).to_vec()
    }
}

/// Acknowledges a batch; dropped without [`Receipt::done`], the batch counts as not taken.
#[derive(Debug)]
pub struct Receipt(Option<oneshot::Sender<()>>);

impl Receipt {
    /// Makes a receipt and the end on which the listener waits.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    /// Makes a receipt that nobody waits for.
    pub fn unwatched() -> Self {
        Self(None)
    }

    /// Tells the listener that the batch is durable.
    pub fn done(mut self) {
        if let Some(sender) = self.0.take() {
            // A listener that is gone has nothing left to acknowledge.
            let _gone = sender.send(());
        }
    }
}

/// Why a listener stopped by itself.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Config or permissions are wrong: trying again without a change is useless.
    #[error("{0}")]
    Fatal(String),
    /// A passing fault; the engine starts the listener again after a pause.
    #[error("{0}")]
    Passing(String),
}

/// Turns one source of wire messages into batches.
#[async_trait]
pub trait Listener: Send {
    /// Returns the stable name, for logs and `status`.
    fn name(&self) -> String;
    /// Runs until stopped or broken; reads its start position from the store.
    ///
    /// # Errors
    /// [`ListenError`]; the engine restarts it after a pause, from the stored position.
    async fn run(self: Box<Self>, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), ListenError>;
}
