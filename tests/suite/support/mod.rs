//! A rehearsal: a sandbox and an engine of its own, in one process, on free ports and an own database file.
//!
//! Sandbox and engine share one clock, which may run faster than the wall clock; every wait ends with the event that it
//! waits for, and a rehearsal that hangs fails after [`PATIENCE`].

pub(crate) mod backup;
pub(crate) mod contract;
pub(crate) mod ledger;
pub(crate) mod look;
pub(crate) mod meetings;
pub(crate) mod outage;
pub(crate) mod people;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod production;
pub(crate) mod redis;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use calbridge::clock::EngineClock;
use calbridge::config::{Config, Disk};
use calbridge::engine::{self, Engine};
use calbridge::ports::{Clock, Store};
use calbridge_sandbox::history::{Cloud, Effect, EffectKind};
use calbridge_sandbox::person::Person;
use calbridge_sandbox::{Options, Sandbox};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::redis::Flushed;
use contract::Watch;
use postgres::Database;

/// Real time after which a wait counts as hung; far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// How often a condition that no event announces is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Held by a test that keeps the whole machine busy for long: with two of them at once, everything would be late.
pub(crate) async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static BUSY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    BUSY.lock().await
}

/// Settings that every rehearsal starts from.
pub(crate) const SETTINGS: &str = "connection:\n  id: rehearsal\n";

pub(crate) struct Rehearsal {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    folder: TempDir,
    /// The database on the server, where the rehearsal is on one; otherwise it is a file in the folder.
    database: Option<Database>,
    /// A Redis that is emptied every second, where the environment asks for it.
    flushed: Option<Flushed>,
    watch: Watch,
    engine: Option<(JoinHandle<()>, CancellationToken)>,
    /// Somebody other than the author of an edit may have let mails leave.
    mails_excused: AtomicBool,
}

impl Rehearsal {
    /// Starts a sandbox, and an engine on it with these settings (YAML, layered over [`SETTINGS`]).
    pub(crate) async fn start(options: Options, settings: &str) -> Self {
        let mut rehearsal = Self::without_engine(options, settings).await;
        rehearsal.start_engine().await;
        rehearsal
    }

    /// Starts a sandbox only.
    pub(crate) async fn without_engine(options: Options, settings: &str) -> Self {
        Self::without_engine_on(None, options, settings).await
    }

    /// Starts a sandbox, and an engine on it whose database is on a server.
    pub(crate) async fn start_on(database: Database, options: Options, settings: &str) -> Self {
        let mut rehearsal = Self::without_engine_on(Some(database), options, settings).await;
        rehearsal.start_engine().await;
        rehearsal
    }

    /// Starts a sandbox only, for engines on a database of a server, or on a file.
    pub(crate) async fn without_engine_on(database: Option<Database>, options: Options, settings: &str) -> Self {
        calbridge_sandbox::tls::install_crypto_provider();
        log_if_asked();
        let speed = options.speed;
        let sandbox = Sandbox::start(options).await.expect("the sandbox starts");
        let watch = Watch::on(sandbox.world());
        let clock: Arc<dyn Clock> = Arc::new(EngineClock::rehearsal(sandbox.world().clock.now(), speed));
        let folder = TempDir::new().expect("a temporary folder can be made");
        let flushed = Flushed::if_asked(settings).await;
        let redis = flushed.as_ref().map(|flushed| flushed.settings(settings)).unwrap_or_default();
        let store = store_settings(&folder, database.as_ref());
        let config = read_settings(&sandbox, &format!("{store}{redis}"), settings);
        let mails_excused = AtomicBool::new(false);
        Self { sandbox, clock, config, folder, database, flushed, watch, engine: None, mails_excused }
    }

    /// Gives the next engine other settings; those of before are forgotten, the database is kept.
    pub(crate) fn with_settings(mut self, settings: &str) -> Self {
        self.config = read_settings(&self.sandbox, &self.given_settings(settings), settings);
        self
    }

    /// Starts the engine and waits until it listens to everything.
    pub(crate) async fn start_engine(&mut self) {
        self.start_engine_with(self.sandbox.endpoints().mailboxes.len()).await;
    }

    /// Starts the engine and does not wait for anything.
    pub(crate) async fn start_engine_behind(&mut self) {
        let engine = Engine::build(&self.config, Arc::clone(&self.clock)).await.expect("the engine starts");
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let running = tokio::spawn(async move { engine.run(stopping, &|_part, _fault| {}).await });
        self.engine = Some((running, stop));
    }

    /// Starts the engine and waits until it listens, with so many mailboxes enrolled.
    pub(crate) async fn start_engine_with(&mut self, mailboxes: usize) {
        self.start_engine_behind().await;
        let partitions = self.sandbox.endpoints().event_hubs.partitions;
        self.until("the engine listens", |rehearsal| {
            let readers = rehearsal.sandbox.hub_handle().readers().len();
            let calls = rehearsal.sandbox.world().meters.read().calls;
            let subscribed = calls.values().filter_map(|kinds| kinds.get("pubsub.subscribe")).sum::<u64>() > 0;
            let rounds = calls.values().filter_map(|kinds| kinds.get("graph.calendar_view_delta")).sum::<u64>();
            readers >= partitions && subscribed && rounds >= mailboxes as u64
        })
        .await;
        self.settled().await;
        self.next_second().await;
    }

    /// Waits until the present second of the sandbox's clock is over.
    ///
    /// Salesforce tells creations in whole seconds, so a record made in the second of its enrolment counts as older.
    pub(crate) async fn next_second(&self) {
        let clock = self.sandbox.world().clock;
        let over = 1_000 - u64::from(clock.now().timestamp_subsec_millis().min(999));
        clock.sleep(Duration::from_millis(over)).await;
    }

    /// Stops the engine as SIGTERM does: what is in flight is finished.
    pub(crate) async fn stop_engine(&mut self) {
        if let Some((running, stop)) = self.engine.take() {
            stop.cancel();
            tokio::time::timeout(PATIENCE, running)
                .await
                .expect("the engine stops")
                .expect("the engine does not panic");
        }
    }

    /// Leaves it to the test what mails may leave: a person approves them, or the engine makes mistakes on purpose.
    pub(crate) fn excuse_mails(&self) {
        self.mails_excused.store(true, Ordering::Relaxed);
    }

    /// Ends everything; fails where Graph traffic was not as Microsoft describes it, or where Exchange would have mailed
    /// somebody without the edit of a person.
    pub(crate) async fn end(self) {
        self.end_and_count().await;
    }

    /// Ends everything as [`Rehearsal::end`] does, and returns what was judged.
    pub(crate) async fn end_and_count(mut self) -> contract::Totals {
        self.stop_engine().await;
        let mailed = self.sandbox.oracle().mailed;
        assert!(mailed.is_empty() || self.mails_excused.load(Ordering::Relaxed), "mailed without cause: {mailed:#?}");
        self.sandbox.stop().await;
        self.watch.finish()
    }

    /// Opens the engine's database for reading, as `calbridge trace` does.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        engine::open_read_only(&self.config, Arc::clone(&self.clock)).await.expect("the database opens")
    }

    /// Returns the open dead letters.
    pub(crate) async fn dead_letters(&self) -> Vec<calbridge::ports::DeadLetter> {
        let open = self.store().await.letters(false, 1000).await.expect("the database answers");
        open.into_iter().map(|open| open.letter).collect()
    }

    /// Returns the settings of the store, and of Redis where the environment gives one, for an engine with these; in YAML.
    pub(crate) fn given_settings(&self, settings: &str) -> String {
        let redis = self.flushed.as_ref().map(|flushed| flushed.settings(settings)).unwrap_or_default();
        format!("{}{redis}", store_settings(&self.folder, self.database.as_ref()))
    }

    /// Returns the database on the server, where the rehearsal is on one.
    pub(crate) fn database(&self) -> &Database {
        self.database.as_ref().expect("the rehearsal is on a server")
    }

    /// Returns the folder of the database, for files of a test.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Returns a person by number, from 0.
    pub(crate) fn person(&self, number: usize) -> Person {
        self.sandbox.person_number(number).expect("the sandbox has this person")
    }

    /// Waits until a condition on the sandbox holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.sandbox.world().history.watch();
        let waiting = async {
            loop {
                let began = Instant::now();
                if holds(self) {
                    return;
                }
                rest(began.elapsed()).await;
                // Woken by the next change on either cloud; the look in between is for what changes without one.
                let _woken = tokio::time::timeout(LOOK, changes.changed()).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(
            ended.is_ok(),
            "gave up waiting until {what}: {}\n{:#?}",
            self.complaint(),
            self.doubtful_stories().await
        );
    }

    /// Waits until nothing waits in the engine and no write is open.
    pub(crate) async fn settled(&self) {
        let store = self.store().await;
        until_stored("the engine comes to rest", async || {
            let status = store.status().await.expect("the database answers");
            (status.waiting == 0 && status.intents == 0).then_some(())
        })
        .await;
    }

    /// Returns all changes that API clients made on a cloud which changed a value: what counts as a write.
    pub(crate) fn writes(&self, cloud: Cloud) -> Vec<Effect> {
        let effects = self.sandbox.world().history.since(0);
        let counts =
            |effect: &Effect| effect.cloud == cloud && effect.actor.is_app() && effect.kind != EffectKind::Touch;
        effects.into_iter().filter(counts).collect()
    }

    /// Returns the living Salesforce events.
    pub(crate) fn salesforce(&self) -> Vec<serde_json::Value> {
        let alive = |row: &serde_json::Value| row["IsDeleted"] != true && row["IsChild"] != true;
        self.sandbox.org().records().into_iter().filter(alive).collect()
    }

    /// Returns the events of a person's mailbox.
    pub(crate) fn outlook(&self, number: usize) -> Vec<serde_json::Value> {
        self.sandbox.tenant().events(&self.person(number).mailbox().address)
    }
}

fn store_settings(folder: &TempDir, database: Option<&Database>) -> String {
    let folder = folder.path().display();
    match database {
        None => format!("store:\n  url: sqlite:{folder}/calbridge.db\n"),
        Some(database) => format!(
            "store:\n  url: {}\n  password: {}\n  key_file: {folder}/calbridge.key\n",
            database.url(),
            postgres::PASSWORD
        ),
    }
}

/// Pauses after a look that took so long: what is waited for needs the machine more than who waits for it.
async fn rest(took: Duration) {
    const SHARE: u32 = 9;
    if took > Duration::from_millis(1) {
        tokio::time::sleep(took * SHARE).await;
    }
}

/// Looks into a database until it holds what is waited for; a database that another program writes tells of no change.
pub(crate) async fn until_stored<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            let began = Instant::now();
            if let Some(found) = look().await {
                return found;
            }
            rest(began.elapsed()).await;
            tokio::time::sleep(LOOK).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    found.unwrap_or_else(|_elapsed| panic!("gave up waiting until {what}"))
}

fn read_settings(sandbox: &Sandbox, store: &str, settings: &str) -> Config {
    let endpoints = serde_json::to_string(sandbox.endpoints()).expect("endpoints are plain data");
    let text = format!("{SETTINGS}{store}{settings}");
    Config::for_sandbox(&endpoints, Some((PathBuf::from("rehearsal.yaml"), text)), &Disk)
        .unwrap_or_else(|problems| panic!("the settings are sound: {problems:#?}"))
}

/// Reads a variable that steers the tests.
#[expect(
    clippy::disallowed_methods,
    reason = "tests have no config; this is the one place where they read the environment"
)]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Prints logs when `CALBRIDGE_TEST_LOG` names what to log, such as `calbridge=debug`.
fn log_if_asked() {
    if let Some(filter) = environment("CALBRIDGE_TEST_LOG") {
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
        // Another test of this process may have done it before.
        let _first = subscriber.try_init();
    }
}
