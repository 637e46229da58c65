//! The stand-in's side: a hub that holds the whole workload before anybody reads.

use std::sync::Arc;

use calbridge::outlook::ClientStates;
use calbridge_core::ids::{ConnectionId, MailboxId};
use calbridge_sandbox::SandboxClock;
use calbridge_sandbox::event_hubs::{HubAccess, HubLog, serve as serve_hub};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::workload::{Workload, message};

/// Name of the hub.
pub(crate) const HUB: &str = "meetings";
/// Name of the shared access key.
const KEY_NAME: &str = "bench";
/// The shared access key.
const KEY: &str = "bench-key-of-the-stand-in";
/// Tenant of the notifications.
pub(crate) const TENANT: &str = "0b5d9c11-3c0e-4a53-8d3b-0f6f3a7a5e11";
/// Secret from which client states are derived.
const SECRET: &str = "bench-secret";
/// The connection of the benchmark.
pub(crate) const CONNECTION: &str = "bench";

/// Returns the secret of the app registration.
pub(crate) fn secret() -> SecretString {
    SecretString::from(SECRET.to_owned())
}

/// Returns the connection string for a port.
pub(crate) fn connection_string() -> String {
    format!("Endpoint=sb://127.0.0.1/;SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY};EntityPath={HUB}")
}

/// Fills the hub, prints the port and serves until killed.
pub(crate) async fn serve(workload: Workload) {
    let clock = SandboxClock::new("2026-11-23T08:00:00Z".parse().unwrap(), 1.0);
    let log = HubLog::new(clock, HUB, workload.partitions);
    let states = ClientStates::new(&secret(), &ConnectionId::new(CONNECTION));
    for change in workload.changes() {
        let state = states.of(&MailboxId::new(workload.mailbox(change.record)));
        log.publish(message(workload, change, &state, TENANT), None);
    }
    let access = HubAccess::new(HUB, KEY_NAME, KEY, Arc::new(|_| false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    serve_hub(listener, None, log, access, CancellationToken::new()).await;
}
