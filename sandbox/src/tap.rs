//! What passes between clients and Graph, for whoever wants to judge it: off until somebody listens.
//!
//! Owns the hand-over only. The listener gets everything in the order in which it was answered or sent; the queue is
//! bounded, and a listener that falls behind slows Graph down instead of losing something.

use std::fmt;
use std::sync::RwLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde_json::Value;

/// Exchanges and messages that wait for the listener before Graph waits for it.
const WAITING: usize = 1024;

/// One request to Graph with its answer; a `$batch` is one exchange, its items are in the bodies.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// HTTP method.
    pub method: String,
    /// Path as sent, percent-encoded; without `/v1.0` where it began with that.
    pub path: String,
    /// Query as sent, percent-encoded; empty where there is none.
    pub query: String,
    /// Headers of the request in lower case, without those that hold credentials.
    pub headers: Vec<(String, String)>,
    /// Body of the request.
    pub body: Payload,
    /// HTTP status of the answer.
    pub status: u16,
    /// Headers of the answer in lower case.
    pub answer_headers: Vec<(String, String)>,
    /// Body of the answer.
    pub answer: Payload,
    /// The connection was cut before the client saw the answer.
    pub cut: bool,
}

/// The body of a request or an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// No byte.
    None,
    /// JSON.
    Json(Value),
    /// Bytes that are no JSON, or were not read because there were too many; never kept.
    Other,
}

impl Payload {
    /// Reads bytes.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::None;
        }
        serde_json::from_slice(bytes).map_or(Self::Other, Self::Json)
    }
}

/// What a listener is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A request was answered.
    Exchange(Box<Exchange>),
    /// Graph sent a message to the hub: a collection of notifications, or the validation message.
    HubMessage(Payload),
}

/// Where a listener is attached.
#[derive(Default)]
pub struct Tap {
    listener: RwLock<Option<SyncSender<Heard>>>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("on", &self.is_on()).finish()
    }
}

impl Tap {
    /// Attaches a listener in place of the one before; read it from a thread of its own until it ends.
    pub fn listen(&self) -> Receiver<Heard> {
        let (sender, receiver) = sync_channel(WAITING);
        *self.listener.write().expect("nobody panics while holding the lock") = Some(sender);
        receiver
    }

    /// Detaches the listener, whose queue ends after what is in it.
    pub fn close(&self) {
        *self.listener.write().expect("nobody panics while holding the lock") = None;
    }

    /// Tells whether anybody listens; when not, nothing needs to be put together.
    pub(crate) fn is_on(&self) -> bool {
        self.listener.read().expect("nobody panics while holding the lock").is_some()
    }

    /// Tells the listener, if there is one; waits while its queue is full.
    pub fn tell(&self, heard: Heard) {
        let listener = self.listener.read().expect("nobody panics while holding the lock").clone();
        if let Some(listener) = listener
            && listener.send(heard).is_err()
        {
            self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Heard {
        Heard::HubMessage(Payload::Json(serde_json::json!({"value": []})))
    }

    #[test]
    fn nothing_is_kept_while_nobody_listens() {
        let tap = Tap::default();
        assert!(!tap.is_on());
        tap.tell(message());
        let heard = tap.listen();
        tap.tell(message());
        tap.close();
        tap.tell(message());
        assert_eq!(heard.iter().count(), 1);
    }

    #[test]
    fn a_listener_that_went_away_does_not_hold_graph_up() {
        let tap = Tap::default();
        drop(tap.listen());
        tap.tell(message());
        assert!(!tap.is_on());
    }

    #[test]
    fn bytes_that_are_no_json_are_told_apart_from_no_bytes() {
        assert_eq!(Payload::of(b""), Payload::None);
        assert_eq!(Payload::of(b"<html>"), Payload::Other);
        assert_eq!(Payload::of(b"{}"), Payload::Json(serde_json::json!({})));
    }
}
