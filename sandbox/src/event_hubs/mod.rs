//! Azure Event Hubs over AMQP 1.0: one namespace with one hub.
//!
//! ```text
//!   socket (TLS or plain) -- wire.rs: pads frames, 3 ms latency, can be cut -- protocol library -- connection.rs
//!                                                                                   |
//!        $cbs, $management: requests.rs + tokens.rs       readers, producers: links.rs + handle.rs (epochs, faults)
//!                                                                                   |
//!                                                                  log.rs: partitions, sequence numbers, offsets
//! ```
//!
//! Both listeners of a sandbox (plain and TLS) serve the same [`HubLog`] with clones of one [`HubAccess`], so that
//! epochs and faults reach across them.

mod address;
mod connection;
mod frames;
mod handle;
mod hash;
mod links;
mod log;
mod placed;
mod requests;
mod tokens;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use handle::{DetachReason, HubHandle, ReaderView};
pub use log::{HubLog, PartitionProperties, StoredEvent};
pub use placed::{Numbered, RawBody};

use crate::net;

/// Tells whether an Entra token lets its bearer use the hub.
pub type TokenCheck = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Delay of every byte to a client, by default.
///
/// The Rust SDK (protocol library 0.16.2) forgets or misroutes answers that arrive faster than its own bookkeeping; with
/// 3 ms none of 100 runs failed, with 0 ms 14 did. Not below this where results must repeat.
const LATENCY: Duration = Duration::from_millis(3);

/// How often the tokens behind open links are looked at again, by default.
const TOKEN_CHECK: Duration = Duration::from_secs(10);

/// Who may use the hub, and how it behaves on the wire.
#[derive(Clone)]
pub struct HubAccess {
    /// Name of the hub.
    pub hub: String,
    /// Consumer groups; `$Default` is one.
    pub consumer_groups: Vec<String>,
    /// Name of the shared access key.
    pub sas_key_name: String,
    /// The shared access key, used as raw bytes.
    pub sas_key: String,
    /// Checks tokens of type `jwt`.
    pub token_check: TokenCheck,
    /// How often the tokens behind open links are looked at again; 10 s unless changed.
    pub token_check_every: Duration,
    /// Delay of every byte from server to client; 3 ms unless changed.
    pub latency: Duration,
    /// The live side: connections, readers, faults.
    pub handle: HubHandle,
}

impl fmt::Debug for HubAccess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HubAccess")
            .field("hub", &self.hub)
            .field("consumer_groups", &self.consumer_groups)
            .field("sas_key_name", &self.sas_key_name)
            .field("latency", &self.latency)
            .finish_non_exhaustive()
    }
}

impl HubAccess {
    /// Makes access to a hub with the consumer group `$Default`, 3 ms latency and a handle of its own.
    pub fn new(hub: &str, sas_key_name: &str, sas_key: &str, token_check: TokenCheck) -> Self {
        Self {
            hub: hub.to_owned(),
            consumer_groups: vec!["$Default".to_owned()],
            sas_key_name: sas_key_name.to_owned(),
            sas_key: sas_key.to_owned(),
            token_check,
            token_check_every: TOKEN_CHECK,
            latency: LATENCY,
            handle: HubHandle::default(),
        }
    }
}

/// Serves the hub on one listener until `stop`; returns when every connection has ended.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    log: Arc<HubLog>,
    access: HubAccess,
    stop: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let access = Arc::new(access);
    let connections = TaskTracker::new();
    while let Some(stream) = net::accept(&listener, &stop).await {
        let acceptor = acceptor.clone();
        let log = Arc::clone(&log);
        let access = Arc::clone(&access);
        let stop = stop.clone();
        connections.spawn(async move {
            let seat = access.handle.connect(&stop);
            match acceptor {
                None => connection::serve(stream, log, access, seat).await,
                Some(acceptor) => {
                    let Some(stream) = net::handshake(&acceptor, stream, &stop).await else {
                        return;
                    };
                    connection::serve(stream, log, access, seat).await;
                }
            }
        });
    }
    connections.close();
    connections.wait().await;
}
