//! Who is connected and who reads what: epochs, and the faults that a test or the control API causes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition, LinkError};
use fe2o3_amqp_types::primitives::Symbol;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Readers without epoch that one partition admits for a consumer group
/// (<https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>).
const READERS_WITHOUT_EPOCH: usize = 5;

/// The live side of the hub, shared by all its listeners; clones are the same hub.
#[derive(Debug, Clone, Default)]
pub struct HubHandle {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: AtomicU64,
    tokens: AtomicU64,
    connections: Mutex<BTreeMap<u64, Switches>>,
    readers: Mutex<BTreeMap<u64, Reader>>,
    connected: watch::Sender<usize>,
    reading: watch::Sender<usize>,
}

#[derive(Debug, Clone)]
struct Switches {
    cut: CancellationToken,
    force: CancellationToken,
}

#[derive(Debug)]
struct Reader {
    view: ReaderView,
    connection: u64,
    path: Vec<String>,
    end: Option<oneshot::Sender<Error>>,
}

/// One link that reads a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReaderView {
    /// Consumer group in lower case.
    pub group: String,
    /// Partition.
    pub partition: usize,
    /// Owner level, if the reader gave one.
    pub epoch: Option<i64>,
    /// Name the reader gave itself.
    pub name: String,
    /// Sequence number of the first event that it asked for.
    pub from: i64,
}

/// Why readers lose their links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetachReason {
    /// `amqp:link:stolen`: somebody with a higher epoch came.
    Stolen,
    /// `amqp:link:detach-forced`: the service moved the partition.
    DetachForced,
    /// `com.microsoft:server-busy`: throttled.
    ServerBusy,
    /// `amqp:unauthorized-access`: the token ran out.
    Unauthorized,
}

impl DetachReason {
    fn error(self) -> Error {
        let (condition, text): (ErrorCondition, _) = match self {
            Self::Stolen => (LinkError::Stolen.into(), "New receiver with higher epoch is created"),
            Self::DetachForced => (LinkError::DetachForced.into(), "The link was force detached by the broker"),
            Self::ServerBusy => (custom("com.microsoft:server-busy"), "The server is busy; wait and retry"),
            Self::Unauthorized => (AmqpError::UnauthorizedAccess.into(), "ExpiredToken: the token is expired"),
        };
        Error::new(condition, text.to_owned(), None)
    }
}

impl HubHandle {
    /// Returns how many clients are connected.
    pub fn connections(&self) -> usize {
        self.lock_connections().len()
    }

    /// Drops every connection's socket without a word; returns how many.
    pub fn cut_connections(&self) -> usize {
        let connections = self.lock_connections();
        connections.values().for_each(|switches| switches.cut.cancel());
        connections.len()
    }

    /// Closes every connection with `amqp:connection:forced`; returns how many.
    pub fn force_close_connections(&self) -> usize {
        let connections = self.lock_connections();
        connections.values().for_each(|switches| switches.force.cancel());
        connections.len()
    }

    /// Detaches the readers of one partition, or of all; returns how many.
    pub fn detach_readers(&self, partition: Option<usize>, reason: DetachReason) -> usize {
        self.end_readers(|reader| partition.is_none_or(|wanted| wanted == reader.view.partition), &reason.error())
    }

    /// Returns how many tokens connections have brought that were good: with each new connection, and when it renews them.
    pub fn tokens_taken(&self) -> u64 {
        self.state.tokens.load(Ordering::SeqCst)
    }

    /// Counts a token that a connection brought.
    pub(super) fn count_token(&self) {
        self.state.tokens.fetch_add(1, Ordering::SeqCst);
    }

    /// Lists the links that read now.
    pub fn readers(&self) -> Vec<ReaderView> {
        self.lock_readers().values().map(|reader| reader.view.clone()).collect()
    }

    /// Returns a receiver that holds the number of connections and wakes when it changes.
    pub fn watch_connections(&self) -> watch::Receiver<usize> {
        self.state.connected.subscribe()
    }

    /// Returns a receiver that holds the number of readers and wakes when it changes.
    pub fn watch_readers(&self) -> watch::Receiver<usize> {
        self.state.reading.subscribe()
    }

    /// Takes a new connection into the list; it leaves when the seat is dropped.
    pub(super) fn connect(&self, stop: &CancellationToken) -> ConnectionSeat {
        let id = self.fresh_id();
        let switches = Switches { cut: CancellationToken::new(), force: stop.child_token() };
        let mut connections = self.lock_connections();
        connections.insert(id, switches.clone());
        self.state.connected.send_replace(connections.len());
        drop(connections);
        ConnectionSeat { handle: self.clone(), id, cut: switches.cut, force: switches.force }
    }

    /// Admits a reader under the epoch rules, or says why not; whom it displaces is told at once.
    ///
    /// A reader with an epoch displaces all with the same or a lower one and all without; a lower one, or none while a
    /// holder with epoch lives, is refused.
    pub(super) fn admit(&self, connection: u64, view: ReaderView, path: Vec<String>) -> Result<ReaderSeat, Error> {
        let mut readers = self.lock_readers();
        let rivals = || {
            let same = |reader: &&Reader| reader.view.group == view.group && reader.view.partition == view.partition;
            readers.values().filter(move |reader| same(reader) && reader.end.is_some())
        };
        let held = rivals().filter_map(|reader| reader.view.epoch.map(|epoch| (epoch, reader.view.name.clone()))).max();
        let refusal = match (view.epoch, held) {
            (None, Some((held, _))) => Some((LinkError::Stolen.into(), no_epoch_text(held))),
            (Some(epoch), Some((held, name))) if held > epoch => {
                Some((LinkError::Stolen.into(), lower_epoch_text(&view.name, epoch, &name, held)))
            }
            (None, None) if rivals().count() >= READERS_WITHOUT_EPOCH => {
                Some((AmqpError::ResourceLimitExceeded.into(), too_many_text()))
            }
            _ => None,
        };
        if let Some((condition, text)) = refusal {
            let condition: ErrorCondition = condition;
            return Err(Error::new(condition, text, None));
        }
        if let Some(epoch) = view.epoch {
            for reader in readers.values_mut() {
                if reader.view.group == view.group && reader.view.partition == view.partition {
                    let text = displaced_text(&view.name, epoch, &reader.view);
                    reader.end(Error::new(LinkError::Stolen, text, None));
                }
            }
        }
        let id = self.fresh_id();
        let (end, ended) = oneshot::channel();
        readers.insert(id, Reader { view, connection, path, end: Some(end) });
        self.state.reading.send_replace(readers.len());
        Ok(ReaderSeat { handle: self.clone(), id, ended })
    }

    /// Detaches a connection's readers whose entity its tokens no longer cover.
    pub(super) fn end_uncovered(&self, connection: u64, covers: impl Fn(&[String]) -> bool) {
        let uncovered = |reader: &Reader| reader.connection == connection && !covers(&reader.path);
        self.end_readers(uncovered, &DetachReason::Unauthorized.error());
    }

    fn end_readers(&self, wanted: impl Fn(&Reader) -> bool, error: &Error) -> usize {
        let mut readers = self.lock_readers();
        let ended = readers.values_mut().filter(|reader| wanted(reader)).map(|reader| reader.end(error.clone()));
        ended.filter(|told| *told).count()
    }

    fn fresh_id(&self) -> u64 {
        self.state.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn lock_connections(&self) -> MutexGuard<'_, BTreeMap<u64, Switches>> {
        self.state.connections.lock().expect("no change panics while holding the lock")
    }

    fn lock_readers(&self) -> MutexGuard<'_, BTreeMap<u64, Reader>> {
        self.state.readers.lock().expect("no change panics while holding the lock")
    }
}

impl Reader {
    /// Tells the link to close with an error; false if it was told before or has gone.
    fn end(&mut self, error: Error) -> bool {
        self.end.take().is_some_and(|end| end.send(error).is_ok())
    }
}

/// A connection's place in the list.
#[derive(Debug)]
pub(super) struct ConnectionSeat {
    handle: HubHandle,
    pub(super) id: u64,
    /// Drop the socket.
    pub(super) cut: CancellationToken,
    /// Close with `amqp:connection:forced`; also fires when the server stops.
    pub(super) force: CancellationToken,
}

impl Drop for ConnectionSeat {
    fn drop(&mut self) {
        let mut connections = self.handle.lock_connections();
        connections.remove(&self.id);
        self.handle.state.connected.send_replace(connections.len());
    }
}

/// A reader's place in the list.
#[derive(Debug)]
pub(super) struct ReaderSeat {
    handle: HubHandle,
    id: u64,
    /// Resolves to the error that the link must close with.
    pub(super) ended: oneshot::Receiver<Error>,
}

impl Drop for ReaderSeat {
    fn drop(&mut self) {
        let mut readers = self.handle.lock_readers();
        readers.remove(&self.id);
        self.handle.state.reading.send_replace(readers.len());
    }
}

/// Makes an error condition of the service's own.
pub(super) fn custom(condition: &str) -> ErrorCondition {
    ErrorCondition::Custom(Symbol::from(condition))
}

fn no_epoch_text(held: i64) -> String {
    format!(
        "At least one receiver for the endpoint is created with epoch of '{held}', and so non-epoch receiver is not \
         allowed. Either reconnect with a higher epoch, or make sure all epoch receivers are closed or disconnected."
    )
}

fn lower_epoch_text(name: &str, epoch: i64, holder: &str, held: i64) -> String {
    format!(
        "Receiver '{holder}' with a higher epoch '{held}' already exists. Receiver '{name}' with epoch {epoch} cannot \
         be created."
    )
}

fn displaced_text(name: &str, epoch: i64, displaced: &ReaderView) -> String {
    let held = displaced.epoch.map_or_else(|| "nil".to_owned(), |epoch| epoch.to_string());
    format!(
        "New receiver '{name}' with higher epoch of '{epoch}' is created hence current receiver '{}' with epoch \
         '{held}' is getting disconnected.",
        displaced.name
    )
}

fn too_many_text() -> String {
    format!(
        "Exceeded the maximum number of allowed receivers per partition in a consumer group which is \
         {READERS_WITHOUT_EPOCH}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(epoch: Option<i64>) -> ReaderView {
        ReaderView { group: "$default".into(), partition: 0, epoch, name: "reader".into(), from: 0 }
    }

    fn stolen(error: &Error) -> bool {
        error.condition == LinkError::Stolen.into()
    }

    #[test]
    fn the_same_or_a_higher_epoch_displaces_and_a_lower_one_is_refused() {
        let handle = HubHandle::default();
        let mut plain = handle.admit(1, view(None), Vec::new()).unwrap();
        let mut first = handle.admit(1, view(Some(0)), Vec::new()).unwrap();
        assert!(stolen(&plain.ended.try_recv().unwrap()));
        let mut second = handle.admit(1, view(Some(0)), Vec::new()).unwrap();
        assert!(stolen(&first.ended.try_recv().unwrap()));
        let third = handle.admit(1, view(Some(4)), Vec::new()).unwrap();
        assert!(stolen(&second.ended.try_recv().unwrap()));
        assert!(stolen(&handle.admit(1, view(Some(3)), Vec::new()).unwrap_err()));
        assert!(stolen(&handle.admit(1, view(None), Vec::new()).unwrap_err()));
        drop((plain, first, second, third));
        assert!(handle.readers().is_empty());
        handle.admit(1, view(None), Vec::new()).unwrap();
    }

    #[test]
    fn a_sixth_reader_without_epoch_is_one_too_many() {
        let handle = HubHandle::default();
        let seats: Vec<_> = (0..5).map(|_| handle.admit(1, view(None), Vec::new()).unwrap()).collect();
        assert!(handle.admit(1, view(None), Vec::new()).is_err());
        drop(seats);
        handle.admit(1, view(None), Vec::new()).unwrap();
    }

    #[test]
    fn faults_reach_the_readers_they_name() {
        let handle = HubHandle::default();
        let mut reader = handle.admit(1, view(None), vec!["meetings".into()]).unwrap();
        assert_eq!(handle.detach_readers(Some(1), DetachReason::Stolen), 0);
        handle.end_uncovered(2, |_| false);
        handle.end_uncovered(1, |_| true);
        assert!(reader.ended.try_recv().is_err());
        assert_eq!(handle.detach_readers(None, DetachReason::ServerBusy), 1);
        assert_eq!(reader.ended.try_recv().unwrap().condition, custom("com.microsoft:server-busy"));
        assert_eq!(handle.detach_readers(None, DetachReason::ServerBusy), 0);
    }
}
