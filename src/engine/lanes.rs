//! Lanes: who works on which meeting. One worker per meeting at a time, held by a lease and a fence.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::execute::{Executor, Pace};
use crate::points::{Point, pass};
use crate::ports::{Clock, Store};
use crate::telemetry::events;

/// How lanes are worked.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// How long a lane is held; longer than the longest run.
    pub lease: Duration,
    /// Lanes that one group takes: their reads and writes share calls. 1 to 200.
    pub group: usize,
    /// Groups at work at the same time. 1 to 64.
    pub workers: usize,
    /// How long a group waits for company after the first lane is due.
    pub gather: Duration,
    /// Longest time without looking into the queue.
    pub idle_look: Duration,
}

/// How often an instance looks for what others put into the queue, in real time: nobody wakes it for that.
const LOOK_FOR_OTHERS: Duration = Duration::from_millis(500);

/// Hands due lanes to executors.
pub(super) struct Lanes {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) executor: Arc<Executor>,
    pub(super) woken: Arc<Notify>,
    pub(super) settings: LaneSettings,
    pub(super) owner: String,
}

impl Lanes {
    /// Runs until stopped, then waits for the groups at work.
    pub(super) async fn run(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.settings.workers));
        let groups = TaskTracker::new();
        let most = self.settings.group;
        let size = Arc::new(AtomicUsize::new(most));
        while !stop.is_cancelled() {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            if !self.gathered(&stop).await {
                continue;
            }
            pass(Point::BeforeClaim);
            let claimed = self
                .store
                .claim(&self.owner, self.clock.now(), self.settings.lease, size.load(Ordering::Relaxed))
                .await;
            match claimed {
                Ok(claims) if !claims.is_empty() => {
                    pass(Point::AfterClaim);
                    let executor = Arc::clone(&self.executor);
                    let woken = Arc::clone(&self.woken);
                    let size = Arc::clone(&size);
                    groups.spawn(async move {
                        let taken = claims.len();
                        let next = match executor.run(claims).await {
                            // On a slow database the same group would be too late again, and again.
                            Pace::Lost => taken / 2,
                            Pace::Kept => size.load(Ordering::Relaxed) + 1 + taken / 4,
                        };
                        size.store(next.clamp(1, most), Ordering::Relaxed);
                        drop(place);
                        woken.notify_one();
                    });
                }
                // What was due a moment ago is held by another worker: its end wakes us.
                Ok(_) => self.wait_until(self.clock.now() + self.gather(), &stop).await,
                Err(error) => {
                    events::store_failed(&format!("claim lanes: {error}"));
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
        groups.close();
        groups.wait().await;
    }

    /// Tells whether the lane that is due first has waited long enough for company; if not, waits for that or for news.
    ///
    /// News is no reason to start earlier: with each notification a group of one would be on its way, and nothing shared.
    async fn gathered(&self, stop: &CancellationToken) -> bool {
        let now = self.clock.now();
        let latest = now + TimeDelta::from_std(self.settings.idle_look).unwrap_or(TimeDelta::MAX);
        let ready = match self.store.next_due().await {
            Ok(due) => due.map_or(latest, |due| due + self.gather()).min(latest),
            Err(error) => {
                events::store_failed(&format!("look for due lanes: {error}"));
                now + TimeDelta::seconds(1)
            }
        };
        if ready <= now {
            return true;
        }
        self.wait_until(ready, stop).await;
        false
    }

    async fn wait_until(&self, at: DateTime<Utc>, stop: &CancellationToken) {
        let others = async {
            if self.store.is_shared() {
                tokio::time::sleep(LOOK_FOR_OTHERS).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.clock.sleep_until(at) => {}
            () = others => {}
            () = self.woken.notified() => {}
            () = stop.cancelled() => {}
        }
    }

    fn gather(&self) -> TimeDelta {
        TimeDelta::from_std(self.settings.gather).unwrap_or_default()
    }
}
