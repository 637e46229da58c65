//! The stage: the local sandbox and the engine in one process, on free ports and a database of their own.
//!
//! Owns start, stop, waiting and what can be read from both; knows nothing of the story that is played on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use calbridge::clock::EngineClock;
use calbridge::config::{Config, Disk};
use calbridge::engine::{self, Engine};
use calbridge::ports::{Clock, EnrolmentRow, JournalEntry, JournalKind, Store, TraceQuery, Traced};
use calbridge_core::plan::Outcome;
use calbridge_sandbox::history::{Cloud, Effect, EffectKind};
use calbridge_sandbox::person::Person;
use calbridge_sandbox::{Options, Profile, Sandbox};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::screen::{Screen, short};

/// How often a condition that no event announces is looked at, in real time.
const LOOK: Duration = Duration::from_millis(25);
/// How far away what is due next must be for a story to go on: well above all timers of a change that crosses.
const CALM: TimeDelta = TimeDelta::seconds(15);
/// Looks in a row at which nothing may be waiting before both sides count as at rest.
const LOOKS_AT_REST: u32 = 10;
/// Name of the pair of tenant and org.
const CONNECTION: &str = "demo";

/// How the stage is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) profile: Profile,
    pub(crate) speed: f64,
    /// What the clocks of sandbox and engine show at the beginning.
    pub(crate) start_at: DateTime<Utc>,
}

/// A write of calbridge that brought a change to the other side.
#[derive(Debug, Clone)]
pub(crate) struct Crossing {
    pub(crate) at: DateTime<Utc>,
    pub(crate) kind: EffectKind,
    pub(crate) to: (Cloud, String),
    pub(crate) latency_ms: i64,
}

/// Sandbox and engine, running.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) folder: TempDir,
    /// Text of the configuration file that a second process can use.
    pub(crate) settings: String,
    speed: f64,
    running: JoinHandle<()>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

impl Stage {
    /// Starts both, and waits until the engine listens to everything.
    pub(crate) async fn start(setup: &Setup, screen: &Screen) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("calbridge-demo-").context("make a temporary folder")?;
        let options = Options {
            profile: setup.profile,
            speed: setup.speed,
            start_at: Some(setup.start_at),
            ..Options::default()
        };
        let sandbox = Sandbox::start(options).await.context("start the local sandbox")?;
        let clock: Arc<dyn Clock> = Arc::new(EngineClock::rehearsal(sandbox.world().clock.now(), setup.speed));
        let database = folder.path().join("calbridge.db");
        let settings = format!(
            "connection:\n  id: {CONNECTION}\nsync:\n  first_contact: outlook\nstore:\n  url: {}\n",
            serde_json::to_string(&format!("sqlite:{}", database.display()))?
        );
        let endpoints = serde_json::to_string(sandbox.endpoints())?;
        let file = folder.path().join("calbridge.yaml");
        let config = Config::for_sandbox(&endpoints, Some((file, settings.clone())), &Disk)
            .map_err(|problems| anyhow!("the demo's own settings are refused: {problems:?}"))?;
        let engine = Engine::build(&config, Arc::clone(&clock)).await.context("start the engine")?;
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let running = tokio::spawn(async move { engine.run(stopping, &|_part, _fault| {}).await });
        let store = engine::open_read_only(&config, Arc::clone(&clock)).await.context("open the database")?;
        let stage = Self { sandbox, clock, store, folder, settings, speed: setup.speed, running, stop };
        stage.until(screen, "the engine listens to both sides", async || Ok(stage.listens().then_some(()))).await?;
        Ok(stage)
    }

    /// Tells whether every hub partition and the org's channel are read and every mailbox was read once.
    fn listens(&self) -> bool {
        let endpoints = self.sandbox.endpoints();
        let calls = self.sandbox.world().meters.read().calls;
        let sum = |kind: &str| calls.values().filter_map(|kinds| kinds.get(kind)).sum::<u64>();
        self.sandbox.hub_handle().readers().len() >= endpoints.event_hubs.partitions
            && sum("pubsub.subscribe") > 0
            && sum("graph.calendar_view_delta") >= endpoints.mailboxes.len() as u64
    }

    /// Stops the engine as SIGTERM does, then the sandbox.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(15), self.running).await;
        ended.context("the engine did not stop within 15 s")?.context("the engine panicked")?;
        self.sandbox.stop().await;
        Ok(())
    }

    /// Waits until something is there, and shows that it waits; gives up in the end.
    pub(crate) async fn until<T>(
        &self,
        screen: &Screen,
        what: &str,
        look: impl AsyncFn() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        // What the slowest office takes on the clock, and some real seconds for a machine that has more to do.
        let patience = Duration::from_secs(10) + Duration::from_secs(45).div_f64(self.speed);
        let since = Instant::now();
        let mut told = Duration::ZERO;
        let mut changes = self.sandbox.world().history.watch();
        loop {
            if self.running.is_finished() {
                bail!("the engine stopped by itself; run again with --verbose to see why");
            }
            if let Some(found) = look().await? {
                screen.waited();
                return Ok(found);
            }
            if since.elapsed() > patience {
                screen.waited();
                bail!("gave up after {} s: waited in vain until {what}", patience.as_secs());
            }
            screen.waiting(what, since.elapsed(), &mut told);
            // Woken by the next change on either cloud; the look in between is for what changes without one.
            let _woken = tokio::time::timeout(LOOK, changes.changed()).await;
        }
    }

    /// Waits until nothing waits in the engine and no write is open.
    pub(crate) async fn rest(&self, screen: &Screen) -> anyhow::Result<()> {
        self.idle_for(screen, None).await
    }

    /// Waits until no write is open and nothing is due for some seconds.
    ///
    /// Later comes, after a burst, one more look for versions that were named and never seen; a story need not wait for it.
    pub(crate) async fn calm(&self, screen: &Screen) -> anyhow::Result<()> {
        self.idle_for(screen, Some(CALM)).await
    }

    async fn idle_for(&self, screen: &Screen, span: Option<TimeDelta>) -> anyhow::Result<()> {
        let quiet = std::sync::atomic::AtomicU32::new(0);
        let order = std::sync::atomic::Ordering::Relaxed;
        self.until(screen, "nothing is under way any more", async || {
            let (status, due) = (self.store.status().await?, self.store.next_due().await?);
            let far = due.zip(span).is_some_and(|(due, span)| due > self.clock.now() + span);
            let idle = status.intents == 0 && (status.waiting == 0 || far);
            let looks = if idle { quiet.load(order) + 1 } else { 0 };
            quiet.store(looks, order);
            Ok((looks >= LOOKS_AT_REST).then_some(()))
        })
        .await
    }

    /// Waits for the write that brings a change to a cloud; `seen` is the length of the history before the change.
    pub(crate) async fn crossing(
        &self,
        screen: &Screen,
        seen: usize,
        edited: DateTime<Utc>,
        to: Cloud,
        kind: EffectKind,
    ) -> anyhow::Result<Crossing> {
        let effect = self
            .until(screen, &format!("{} has it", name(to)), async || {
                Ok(self.writes_since(seen).into_iter().find(|effect| effect.cloud == to && effect.kind == kind))
            })
            .await?;
        Ok(Crossing {
            at: effect.at,
            kind,
            to: (to, effect.record),
            latency_ms: (effect.at - edited).num_milliseconds(),
        })
    }

    /// Returns the changes of values that the engine made since a place in the history.
    pub(crate) fn writes_since(&self, seen: usize) -> Vec<Effect> {
        let effects = self.sandbox.world().history.since(seen);
        effects.into_iter().filter(|effect| effect.actor.is_app() && effect.kind != EffectKind::Touch).collect()
    }

    /// Returns how much of the history has been written.
    pub(crate) fn seen(&self) -> usize {
        self.sandbox.world().history.len()
    }

    /// Finds what the engine's database knows of a record.
    pub(crate) async fn traced(&self, id: &str) -> anyhow::Result<Option<Traced>> {
        let found = self.store.trace(&TraceQuery::Text(id.to_owned()), 2).await?;
        Ok(found.into_iter().next())
    }

    /// Waits until the engine has decided about a record, and returns its last decision.
    pub(crate) async fn decided(&self, screen: &Screen, id: &str) -> anyhow::Result<JournalEntry> {
        self.until(screen, &format!("calbridge has decided about {}", short(id)), async || {
            let Some(traced) = self.traced(id).await? else { return Ok(None) };
            let mut journal = traced.journal.into_iter().rev();
            Ok(journal.find(|row| row.kind == JournalKind::Decided && row.outcome != Some(Outcome::Wait)))
        })
        .await
    }

    /// Counts the notifications that led to writes about a record since a moment; our own echoes do not count.
    pub(crate) async fn signals_in(&self, id: &str, since: DateTime<Utc>) -> anyhow::Result<u64> {
        let Some(traced) = self.traced(id).await? else { return Ok(0) };
        let decisions = traced.journal.iter().filter(|row| row.kind == JournalKind::Decided && row.at >= since);
        let writing = decisions.filter(|row| matches!(row.outcome, Some(Outcome::Write | Outcome::Deferred)));
        Ok(writing.map(|row| u64::from(notified(row).saturating_sub(row.echoes))).sum())
    }

    /// Returns the enrolments, as the trace needs them.
    pub(crate) async fn enrolments(&self) -> anyhow::Result<Vec<EnrolmentRow>> {
        Ok(self.store.enrolments(&calbridge_core::ids::ConnectionId::new(CONNECTION)).await?)
    }

    /// Returns a person by number, from 0.
    pub(crate) fn person(&self, number: usize) -> Person {
        self.sandbox.person_number(number).expect("the sandbox begins with three people")
    }

    /// Returns the living Salesforce events with this subject.
    pub(crate) fn salesforce_events(&self, subject: &str) -> Vec<Value> {
        let rows = self.sandbox.org().records().into_iter();
        rows.filter(|row| row["Subject"] == subject && row["IsChild"] != true).collect()
    }

    /// Returns the folder in which the database lies.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// Most stream positions that a journal row keeps.
const POSITIONS: usize = 16;

/// Counts the notifications that a decision covers; what a sweep found has no place in a stream and is none.
pub(crate) fn notified(row: &JournalEntry) -> u32 {
    let places = row.positions.len();
    if places < POSITIONS { row.signals.min(u32::try_from(places).unwrap_or(u32::MAX)) } else { row.signals }
}

/// Returns a cloud's name for people.
pub(crate) fn name(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Outlook => "Outlook",
        Cloud::Salesforce => "Salesforce",
    }
}
