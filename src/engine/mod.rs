//! The engine: takes signals in, works lanes, keeps both sides in step. Speaks to ports only; `build.rs` names adapters.

mod backups;
mod build;
mod enrol;
mod execute;
mod facts;
mod intake;
mod journal;
mod lanes;
mod learn;
mod look;
mod lookups;
mod rounds;
mod watched_cache;
mod work;

use std::sync::Arc;
use std::time::Duration;

use calbridge_core::ids::ConnectionId;
use calbridge_core::policy::Rules;
use calbridge_core::side::BothSides;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use build::{StartError, check, holder, open_desk, open_read_only};
pub use enrol::WantedEnrolment;
pub use intake::{Intake, IntakeSettings};
pub use lanes::LaneSettings;
pub use look::{Looked, look};
pub use rounds::SweepSettings;

use crate::duties::Duties;
use crate::ports::{Batch, Calendar, Clock, EnrolmentRow, ListenError, Listener, SeenCache, Store};
use crate::telemetry::events;

/// Batches that may wait for intake; a listener that is faster is slowed down, never cut short.
const INTAKE_QUEUE: usize = 64;

/// Makes a listener; called anew after each failure.
pub type MakeListener = Box<dyn Fn() -> Box<dyn Listener> + Send + Sync>;

/// Hears which part of the engine works, or what is wrong with it.
pub type Report<'a> = &'a (dyn Fn(&str, Option<&str>) + Send + Sync);

/// Everything the engine works with.
#[expect(missing_debug_implementations, reason = "ports are trait objects; the engine itself prints its connection")]
pub struct Parts {
    /// The connection.
    pub connection: ConnectionId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The dedup cache.
    pub cache: Arc<dyn SeenCache>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Both remotes.
    pub calendars: BothSides<Arc<dyn Calendar>>,
    /// Listeners, made when the engine runs.
    pub listeners: Vec<MakeListener>,
    /// Mailboxes to enrol.
    pub wanted: Vec<WantedEnrolment>,
    /// Where enrolments are told; adapters hold receivers of it.
    pub enrolments: watch::Sender<Vec<EnrolmentRow>>,
    /// How plans are made.
    pub rules: Rules,
    /// User names or addresses of Salesforce users whose edits are no person's.
    pub automation_users: Vec<String>,
    /// How intake behaves.
    pub intake: IntakeSettings,
    /// How lanes are worked.
    pub lanes: LaneSettings,
    /// How often everything is compared.
    pub sweeps: SweepSettings,
}

/// A running connection.
pub struct Engine {
    parts: Parts,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("connection", &self.parts.connection).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine that is not running yet.
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Runs until `stop` is set, then drains: listeners stop, what was taken in is stored, runs at work are finished.
    ///
    /// `report` is told which part works, and with a fault which one does not.
    pub async fn run(self, stop: CancellationToken, report: Report<'_>) {
        let parts = self.parts;
        let (batches, taken) = mpsc::channel::<Batch>(INTAKE_QUEUE);
        let (round_asks, rounds_asked) = mpsc::unbounded_channel();
        let (rules_told, rules) = watch::channel(Arc::new(parts.rules));
        let woken = Arc::new(Notify::new());
        let owner = format!("{}-{}", std::process::id(), uuid::Uuid::now_v7());
        let enrolments = parts.enrolments.subscribe();
        let tasks = TaskTracker::new();
        let swept_every = parts.sweeps.salesforce;

        let duty = |kind: &str, name: &str| Duties {
            store: Arc::clone(&parts.store),
            connection: parts.connection.clone(),
            kind: kind.to_owned(),
            names: vec![name.to_owned()],
        };
        let (may_enrol, asking) = duty("enrolment", "enrolment").watch(stop.clone());
        tasks.spawn(asking);
        let (may_sweep, asking) = duty("rounds", "rounds").watch(stop.clone());
        tasks.spawn(asking);
        let (pairs_known, mut known) = watch::channel(false);
        tasks.spawn(
            enrol::Enroller {
                connection: parts.connection.clone(),
                store: Arc::clone(&parts.store),
                clock: Arc::clone(&parts.clock),
                calendars: parts.calendars.clone(),
                wanted: parts.wanted,
                told: parts.enrolments,
                known: pairs_known,
                ours: may_enrol,
            }
            .run(stop.clone()),
        );
        for make in parts.listeners {
            let make: Arc<dyn Fn() -> Box<dyn Listener> + Send + Sync> = Arc::from(make);
            let (listener, out, stop) = (make(), batches.clone(), stop.clone());
            if !listener.is_alone() {
                tasks.spawn(supervise(make, out, stop));
                continue;
            }
            let duty = duty(&format!("listener/{}", listener.name()), "all of it");
            tasks.spawn(async move {
                let start = move |_: &str, stop| -> BoxFuture<'static, ()> {
                    Box::pin(supervise(Arc::clone(&make), out.clone(), stop))
                };
                duty.tend(&stop, start).await;
            });
        }
        tasks.spawn(
            rounds::Rounds {
                connection: parts.connection.clone(),
                store: Arc::clone(&parts.store),
                clock: Arc::clone(&parts.clock),
                calendars: parts.calendars.clone(),
                enrolments: enrolments.clone(),
                intake: batches.clone(),
                sweeps: parts.sweeps,
                ours: may_sweep,
            }
            .run(rounds_asked, stop.clone()),
        );
        drop(batches);
        let (connection, store, cache) = (parts.connection.clone(), Arc::clone(&parts.store), Arc::clone(&parts.cache));
        tasks.spawn(backups::keep(connection.clone(), Arc::clone(&store), Arc::clone(&cache), stop.clone()));
        tasks.spawn(
            Intake {
                connection: parts.connection.clone(),
                store: Arc::clone(&parts.store),
                cache: watched_cache::WatchedCache::new(parts.cache),
                clock: Arc::clone(&parts.clock),
                rules: rules.clone(),
                rounds: round_asks,
                lanes: Arc::clone(&woken),
                settings: parts.intake,
            }
            .run(taken, stop.clone()),
        );
        let (learned_told, mut learned) = watch::channel(false);
        tasks.spawn(
            learn::Learner {
                salesforce: Arc::clone(&parts.calendars.salesforce),
                automation_users: parts.automation_users,
                rules: rules_told,
                learned: learned_told,
                again_after: swept_every,
            }
            .run(stop.clone()),
        );
        let executor = Arc::new(execute::Executor {
            connection: parts.connection.clone(),
            store: Arc::clone(&parts.store),
            clock: Arc::clone(&parts.clock),
            calendars: parts.calendars,
            rules,
            enrolments,
            owner: owner.clone(),
            lease: parts.lanes.lease,
        });
        let watched = parts.connection.clone();
        tasks.spawn(watch_store(watched, Arc::clone(&parts.store), Arc::clone(&parts.clock), stop.clone()));
        report("engine", Some("learning what both remotes can do"));
        report("enrolments", Some("no mailbox is paired with a user yet"));
        let mut paired = executor.enrolments.clone();
        // Before it is known whether writes can be stamped and who is paired with whom, there is nothing that a lane could
        // safely do.
        let ready = async {
            // Either sender goes only when the engine stops.
            drop(learned.wait_for(|learned| *learned).await);
            drop(known.wait_for(|known| *known).await);
        };
        tokio::select! {
            () = ready => {}
            () = stop.cancelled() => {}
        }
        report("engine", None);
        let lanes =
            lanes::Lanes { store: parts.store, clock: parts.clock, executor, woken, settings: parts.lanes, owner };
        let pairing = async {
            tokio::select! {
                paired = paired.wait_for(|rows| !rows.is_empty()) => if paired.is_ok() { report("enrolments", None) },
                () = stop.cancelled() => {}
            }
        };
        tokio::join!(lanes.run(stop.clone()), pairing);
        tasks.close();
        tasks.wait().await;
        backups::note(&connection, &*store, &*cache, false).await;
    }
}

/// Runs a listener again and again until stopped; each start reads its position from the store.
async fn supervise(
    make: Arc<dyn Fn() -> Box<dyn Listener> + Send + Sync>,
    out: mpsc::Sender<Batch>,
    stop: CancellationToken,
) {
    let mut pause = Duration::from_millis(250);
    while !stop.is_cancelled() {
        let listener = make();
        let name = listener.name();
        let started = std::time::Instant::now();
        events::stream_started(&name);
        let ended = listener.run(out.clone(), stop.clone()).await;
        if stop.is_cancelled() {
            return;
        }
        if started.elapsed() > Duration::from_mins(1) {
            pause = Duration::from_millis(250);
        }
        let longest = match &ended {
            Err(ListenError::Fatal(_)) => Duration::from_mins(5),
            Ok(()) | Err(ListenError::Passing(_)) => Duration::from_secs(30),
        };
        events::stream_stopped(&name, ended.as_ref().err().map(ToString::to_string).as_deref());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
        pause = (pause * 2).min(longest);
    }
}

/// Tells the metrics how much waits in the store and when the first subscription ends.
async fn watch_store(connection: ConnectionId, store: Arc<dyn Store>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match store.status().await {
            Ok(status) => events::store_status(&status, clock.now()),
            Err(error) => events::store_failed(&format!("count what waits: {error}")),
        }
        match store.subscriptions(&connection).await {
            Ok(rows) => {
                if let Some(earliest) = rows.iter().map(|row| row.expires_at).min() {
                    events::subscription_expiry(earliest, clock.now());
                }
            }
            Err(error) => events::store_failed(&format!("look at subscriptions: {error}")),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
            () = stop.cancelled() => {}
        }
    }
}
