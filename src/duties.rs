//! Duties: what only one instance at a time does, kept as long as the store says that it is ours.
//!
//! A partition of the hub, the subscription to change events, the rounds: each is a task that runs while its lease is ours
//! and is stopped when it is not, or when the store could not be asked for so long that somebody else may have it. On a
//! store of one instance everything is ours from the start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use calbridge_core::ids::ConnectionId;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ports::{DUTY_LEASE, Store};

/// How often the store is asked; several times a lease, so that one failure loses nothing.
const LOOK: Duration = Duration::from_secs(2);
/// How long tasks go on without a renewal: 3 s less than the lease, because they need a moment to end.
const TRUST: Duration = DUTY_LEASE.saturating_sub(Duration::from_secs(3));

/// Duties of one kind.
pub struct Duties {
    /// Where they are divided.
    pub store: Arc<dyn Store>,
    /// The connection.
    pub connection: ConnectionId,
    /// The kind; shares are fair within it.
    pub kind: String,
    /// All of them, whoever does them.
    pub names: Vec<String>,
}

impl std::fmt::Debug for Duties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duties").field("kind", &self.kind).field("names", &self.names).finish_non_exhaustive()
    }
}

/// Why [`Duties::tend`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// It was stopped.
    Stopped,
    /// A task ended by itself.
    Ended,
    /// A task panicked.
    Panicked,
}

impl Duties {
    /// Runs a task for each duty of ours until stopped, or until one of them ends by itself; all have ended then.
    pub async fn tend(
        self,
        stop: &CancellationToken,
        mut start: impl FnMut(&str, CancellationToken) -> BoxFuture<'static, ()> + Send,
    ) -> Tended {
        let mut tasks: JoinSet<String> = JoinSet::new();
        let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
        let mut ours_until = Instant::now();
        let tended = loop {
            let asked = Instant::now();
            let names: BTreeSet<String> = running.keys().cloned().collect();
            let sharing = self.store.share(&self.connection, &self.kind, &self.names, &names);
            match timeout(TRUST, sharing).await {
                Ok(Ok(ours)) => {
                    ours_until = asked + TRUST;
                    for (name, token) in running.iter().filter(|(name, _)| !ours.contains(*name)) {
                        info!(kind = self.kind, duty = name, "giving a duty to another instance");
                        token.cancel();
                    }
                    for name in ours {
                        if running.contains_key(&name) {
                            continue;
                        }
                        let token = stop.child_token();
                        let task = start(&name, token.clone());
                        running.insert(name.clone(), token);
                        tasks.spawn(async move {
                            task.await;
                            name
                        });
                    }
                }
                Ok(Err(error)) => warn!(error = %error, kind = self.kind, "cannot ask who does what"),
                Err(_) => warn!(kind = self.kind, "the store does not say who does what"),
            }
            if Instant::now() >= ours_until && !running.is_empty() {
                warn!(kind = self.kind, "duties may be another instance's by now; stopping them");
                running.values().for_each(CancellationToken::cancel);
            }
            tokio::select! {
                () = stop.cancelled() => break Tended::Stopped,
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = tasks.join_next() => match ended {
                    // Given back at once, so that it rests no longer than it must.
                    Ok(name) if running.remove(&name).is_some_and(|token| token.is_cancelled()) => {
                        if stop.is_cancelled() {
                            break Tended::Stopped;
                        }
                    }
                    Ok(_) => break Tended::Ended,
                    Err(_) => break Tended::Panicked,
                },
            }
        };
        running.values().for_each(CancellationToken::cancel);
        while tasks.join_next().await.is_some() {}
        let nothing = BTreeSet::new();
        let leaving = self.store.share(&self.connection, &self.kind, &[], &nothing);
        if !matches!(timeout(LOOK, leaving).await, Ok(Ok(_))) {
            info!(kind = self.kind, "duties were not given back; others take them when their lease ends");
        }
        tended
    }

    /// Tells whether a single duty is ours, now and whenever that changes, until stopped.
    pub fn watch(self, stop: CancellationToken) -> (watch::Receiver<bool>, impl Future<Output = ()> + Send) {
        let (told, ours) = watch::channel(!self.store.is_shared());
        let tending = async move {
            let told = Arc::new(told);
            while !stop.is_cancelled() {
                let duty = Self {
                    store: Arc::clone(&self.store),
                    connection: self.connection.clone(),
                    kind: self.kind.clone(),
                    names: self.names.clone(),
                };
                let telling = Arc::clone(&told);
                let start = move |_: &str, over: CancellationToken| -> BoxFuture<'static, ()> {
                    let told = Arc::clone(&telling);
                    Box::pin(async move {
                        told.send_replace(true);
                        over.cancelled().await;
                        told.send_replace(false);
                    })
                };
                duty.tend(&stop, start).await;
            }
        };
        (ours, tending)
    }
}
