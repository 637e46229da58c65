//! The real `calbridge` program beside a rehearsal's sandbox: files as a person has them, its output, its exit code.
//!
//! A [`Bench`] is a sandbox with an endpoints file, a configuration file and a database in a folder of its own;
//! [`Bench::call`] runs one command to its end, [`Bench::run`] starts `calbridge run` and waits until it listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calbridge::http::{self, HttpOptions};
use calbridge::ports::StoreStatus;
use calbridge_sandbox::Options;
use calbridge_sandbox::history::{Cloud, Effect};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::postgres::Database;
use super::{PATIENCE, Rehearsal, SETTINGS};

/// How often a condition that no event announces is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Number of the signal that nothing can catch.
const SIGKILL: i32 = 9;

/// Lines of its log that a failed test shows.
const SHOWN: usize = 60;

/// A sandbox, and the files that the program is given.
pub(crate) struct Bench {
    /// The sandbox, and the settings as the program reads them.
    pub(crate) rehearsal: Rehearsal,
    /// The file given as `--sandbox-endpoints`.
    pub(crate) endpoints: PathBuf,
    /// The file given as `--config`.
    pub(crate) config: PathBuf,
    /// Where probes and metrics answer.
    pub(crate) web: SocketAddr,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) data: String,
    pub(crate) complaints: String,
}

impl Ended {
    /// Reads the data as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Bench {
    /// Starts a sandbox and writes the files; `settings` are YAML beside the database's path and the web address.
    pub(crate) async fn set_up(options: Options, settings: &str) -> Self {
        Self::set_up_on(None, options, settings).await
    }

    /// Does the same with a database on a server, or a file.
    pub(crate) async fn set_up_on(database: Option<Database>, options: Options, settings: &str) -> Self {
        let rehearsal = Rehearsal::without_engine_on(database, options, settings).await;
        let folder = rehearsal.folder().to_path_buf();
        let endpoints = folder.join("endpoints.json");
        let text = serde_json::to_string_pretty(rehearsal.sandbox.endpoints()).unwrap();
        std::fs::write(&endpoints, text).unwrap();
        let web = free_address();
        let bench = Self { rehearsal, endpoints, config: folder.join("calbridge.yaml"), web };
        bench.settings(settings);
        bench
    }

    /// Writes other settings for the next start.
    pub(crate) fn settings(&self, settings: &str) {
        let store = self.rehearsal.given_settings(settings);
        let text = format!("{SETTINGS}{store}web:\n  address: {}\n{settings}", self.web);
        std::fs::write(&self.config, text).unwrap();
    }

    /// Starts a further `calbridge run` on the same database, with a web address of its own, and waits for nothing.
    pub(crate) fn start_another(&self, name: &str, settings: &str) -> Running {
        self.start_another_in(name, settings, &[])
    }

    /// Does the same with these environment variables.
    pub(crate) fn start_another_in(&self, name: &str, settings: &str, environment: &[(String, String)]) -> Running {
        let file = self.rehearsal.folder().join(format!("{name}.yaml"));
        let store = self.rehearsal.given_settings(settings);
        let text = format!("{SETTINGS}{store}web:\n  address: {}\n{settings}", free_address());
        std::fs::write(&file, text).unwrap();
        let (endpoints, config) = (self.endpoints.to_str().unwrap(), file.to_str().unwrap());
        let arguments = ["run", "--sandbox-endpoints", endpoints, "--config", config];
        Running::of(env!("CARGO_BIN_EXE_calbridge"), &arguments, environment)
    }

    /// Changes the endpoints file, as a person who mistypes a credential does.
    pub(crate) fn mistype(&self, change: impl Fn(&mut Value)) {
        let mut endpoints = serde_json::to_value(self.rehearsal.sandbox.endpoints()).unwrap();
        change(&mut endpoints);
        std::fs::write(&self.endpoints, endpoints.to_string()).unwrap();
    }

    /// Runs a command that takes `--config` to its end.
    pub(crate) async fn call(&self, arguments: &[&str]) -> Ended {
        let mut all = arguments.to_vec();
        let (endpoints, config) = (self.endpoints.to_str().unwrap(), self.config.to_str().unwrap());
        all.extend(["--sandbox-endpoints", endpoints, "--config", config]);
        call(&all).await
    }

    /// Starts `calbridge run`, and waits until it listens to everything and has done what it owed.
    pub(crate) async fn run(&self) -> Running {
        let subscribed = self.subscribed();
        let running = self.start();
        self.ready(subscribed).await;
        running
    }

    /// Waits until a program that was started after so many subscriptions listens and has done what it owed.
    pub(crate) async fn ready(&self, subscribed_before: u64) {
        self.listens(subscribed_before).await;
        let mailboxes = self.rehearsal.sandbox.endpoints().mailboxes.len() as u64;
        let read = |rehearsal: &Rehearsal| rehearsal.calls("graph.calendar_view_delta") >= mailboxes;
        self.rehearsal.until("every mailbox was read", read).await;
        self.rehearsal.settled().await;
        self.rehearsal.next_second().await;
    }

    /// Returns how often somebody subscribed to change events so far.
    pub(crate) fn subscribed(&self) -> u64 {
        self.rehearsal.calls("pubsub.subscribe")
    }

    /// Waits until a program that was started after so many subscriptions reads both streams.
    pub(crate) async fn listens(&self, subscribed_before: u64) {
        let partitions = self.rehearsal.sandbox.endpoints().event_hubs.partitions;
        self.rehearsal
            .until("the program listens", |rehearsal| {
                rehearsal.sandbox.hub_handle().readers().len() >= partitions && self.subscribed() > subscribed_before
            })
            .await;
    }

    /// Starts `calbridge run` and waits for nothing.
    pub(crate) fn start(&self) -> Running {
        self.start_in(&[])
    }

    /// Starts `calbridge run` with these environment variables and waits for nothing.
    pub(crate) fn start_in(&self, environment: &[(String, String)]) -> Running {
        let (endpoints, config) = (self.endpoints.to_str().unwrap(), self.config.to_str().unwrap());
        let arguments = ["run", "--sandbox-endpoints", endpoints, "--config", config];
        Running::of(env!("CARGO_BIN_EXE_calbridge"), &arguments, environment)
    }

    /// Asks the listener for probes and metrics; none while it does not answer.
    pub(crate) async fn ask(&self, path: &str) -> Option<(u16, String)> {
        let client = http::client(&HttpOptions { timeout: Duration::from_secs(10), ca_file: None }).unwrap();
        let answer = client.get(format!("http://{}{path}", self.web)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Waits until the listener for probes and metrics gives an answer that will do.
    pub(crate) async fn answers(&self, path: &str, will_do: impl Fn(u16, &str) -> bool) -> String {
        let mut last = None;
        let waiting = async {
            loop {
                last = self.ask(path).await;
                if let Some((status, text)) = &last
                    && will_do(*status, text)
                {
                    return text.clone();
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(text) => text,
            Err(tokio::time::error::Elapsed { .. }) => panic!("gave up waiting for another answer of {path}: {last:?}"),
        }
    }

    /// Waits until the database says that something is so.
    pub(crate) async fn status_until(&self, what: &str, holds: impl Fn(&StoreStatus) -> bool) {
        let store = self.rehearsal.store().await;
        let mut last = store.status().await.unwrap();
        let waiting = async {
            while !holds(&last) {
                tokio::time::sleep(LOOK).await;
                last = store.status().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "gave up waiting until {what}: {last:?}");
    }

    /// Traces a meeting as JSON until its story will do; returns the story.
    pub(crate) async fn story_until(&self, anything: &str, will_do: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let waiting = async {
            loop {
                let ended = self.call(&["trace", anything, "--json"]).await;
                if ended.code == 0 {
                    let story = ended.json()[0].clone();
                    // Without lines it is a live look at something that no signal has named yet.
                    if story["lines"].is_array() && will_do(&story) {
                        return story;
                    }
                }
                last = Some(ended);
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(story) => story,
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("gave up waiting for another story of {anything}: {last:?}")
            }
        }
    }

    /// Runs a command again and again until what it left will do.
    pub(crate) async fn call_until(&self, arguments: &[&str], will_do: impl Fn(&Ended) -> bool) -> Ended {
        let mut last = None;
        let waiting = async {
            loop {
                let ended = self.call(arguments).await;
                if will_do(&ended) {
                    return ended;
                }
                last = Some(ended);
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(ended) => ended,
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("gave up waiting for another answer to {arguments:?}: {last:?}")
            }
        }
    }

    /// Returns every change of any kind that the program made on a cloud, stamps included.
    pub(crate) fn touched(&self, cloud: Cloud) -> Vec<Effect> {
        let effects = self.rehearsal.sandbox.world().history.since(0);
        effects.into_iter().filter(|effect| effect.cloud == cloud && effect.actor.is_app()).collect()
    }

    /// Returns how many mails Exchange would have sent because of the program.
    pub(crate) fn mails(&self) -> u64 {
        let app = &self.rehearsal.sandbox.endpoints().microsoft.client_id;
        self.rehearsal.sandbox.world().meters.read().mails.get(app).copied().unwrap_or_default()
    }

    /// Ends the sandbox.
    pub(crate) async fn end(self) {
        self.rehearsal.end().await;
    }
}

/// Runs the program with these arguments to its end.
pub(crate) async fn call(arguments: &[&str]) -> Ended {
    Running::start(arguments).ended().await
}

/// A program at work, with all it has printed so far; a test that fails shows the end of its log.
pub(crate) struct Running {
    child: Child,
    data: Lines,
    complaints: Lines,
    /// Where it runs, so that nothing of its own lands in the repository.
    _folder: TempDir,
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "a test that fails must show what the program said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("the log of the program ends with:\n{}", log[log.len().saturating_sub(SHOWN)..].join("\n"));
        }
    }
}

impl Running {
    /// Starts the program; it sees no environment variable of ours.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(env!("CARGO_BIN_EXE_calbridge"), arguments, &[])
    }

    /// Starts any program with these environment variables and no others.
    pub(crate) fn of<T: AsRef<std::ffi::OsStr>>(
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[T],
        environment: &[(String, String)],
    ) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let data = Lines::of(child.stdout.take().expect("stdout is piped"));
        let complaints = Lines::of(child.stderr.take().expect("stderr is piped"));
        Self { child, data, complaints, _folder: folder }
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it has not ended")
    }

    /// Returns the lines of its log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.complaints.seen.lock().unwrap().clone()
    }

    /// Waits until a line of the log will do.
    pub(crate) async fn log_until(&self, what: &str, will_do: impl Fn(&str) -> bool) -> String {
        let waiting = async {
            loop {
                if let Some(line) = self.log().into_iter().find(|line| will_do(line)) {
                    return line;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(line) => line,
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("gave up waiting for {what} in the log: {:#?}", self.log())
            }
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn stop(self) -> Ended {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Sends a signal by name: `STOP` lets it stand still until `CONT`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} can be sent");
    }

    /// Tells whether it stands still.
    pub(crate) async fn stands_still(&self) -> bool {
        let told = Command::new("ps").args(["-o", "stat=", "-p", &self.id().to_string()]).output().await;
        told.expect("ps runs").stdout.starts_with(b"T")
    }

    /// Waits until it is over, however it ends: one that is asked to end while it starts dies of the signal.
    pub(crate) async fn over(mut self) -> std::process::ExitStatus {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!("the program does not end: {:#?}", self.log());
        };
        status.expect("its end is told")
    }

    /// Tells whether it has ended by itself, and how.
    pub(crate) fn end_of_its_own(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("its state is told")
    }

    /// Kills it at once, as a crash does, and waits until it is gone; returns its log.
    pub(crate) async fn kill(mut self) -> Vec<String> {
        self.child.kill().await.expect("it can be killed");
        self.complaints.all().await;
        self.log()
    }

    /// Waits until it was killed by SIGKILL; fails if it ends in any other way. Safe to drop while it waits.
    pub(crate) async fn killed(&mut self) {
        let status = self.child.wait().await.expect("its end is told");
        assert_eq!(status.signal(), Some(SIGKILL), "another end: {status:?}");
    }

    /// Waits for the end.
    pub(crate) async fn ended(mut self) -> Ended {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!("the program does not end: {:#?}", self.log());
        };
        let code = status.expect("its end is told").code().expect("no signal kills it");
        Ended { code, data: self.data.all().await, complaints: self.complaints.all().await }
    }
}

/// Collects the lines of a stream while the program runs.
struct Lines {
    seen: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
}

impl Lines {
    fn of(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                into.lock().unwrap().push(line);
            }
        });
        Self { seen, reading: Some(reading) }
    }

    async fn all(&mut self) -> String {
        if let Some(reading) = self.reading.take() {
            reading.await.expect("reading does not panic");
        }
        let mut text = self.seen.lock().unwrap().join("\n");
        text.push('\n');
        text
    }
}

/// Finds an address that nothing listens on.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address")
}
