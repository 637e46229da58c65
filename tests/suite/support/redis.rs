//! A real Redis server of a test's own, on a free port, without files.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ::redis::AsyncConnectionConfig;
use tokio::task::AbortHandle;

use super::environment;

/// Set to 1 where a missing `redis-server` is a failure: in continuous integration.
const REQUIRED: &str = "CALBRIDGE_TEST_REQUIRE_REDIS";
/// Set to 1 to give every rehearsal that brings no Redis one that is emptied every second.
const FLUSH: &str = "CALBRIDGE_TEST_FLUSH_REDIS";
/// How often a server that starts is asked for a sign of life, and the pause in between.
const LOOKS: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// By itself the client gives up after a second at most: too soon on a machine that other tests keep busy.
const ANSWERS_WITHIN: Duration = Duration::from_mins(1);

pub(crate) struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    /// Starts a server; none, and a line that says so, where the program is missing.
    pub(crate) async fn start() -> Option<Self> {
        // The port may be taken by somebody else between asking for it and using it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
            match Self::on(port).await {
                Ok(Some(server)) => return Some(server),
                Ok(None) => {}
                Err(error) => {
                    assert!(environment(REQUIRED).as_deref() != Some("1"), "redis-server does not start: {error}");
                    tell_skipped(&error);
                    return None;
                }
            }
        }
        panic!("redis-server found no free port in five tries");
    }

    /// Returns the address for `redis.url`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("the server ends");
    }

    /// Starts an empty server at the same address.
    pub(crate) async fn start_again(&mut self) {
        let server = Self::on(self.port).await.expect("redis-server was there before");
        let server = server.expect("the port is still free");
        // The old process has ended; only the new one is to be ended on drop.
        *self = server;
    }

    /// Runs a command.
    pub(crate) async fn ask<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).await.expect("redis answers")
    }

    async fn try_ask<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> Result<T, ::redis::RedisError> {
        let client = ::redis::Client::open(self.url())?;
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWERS_WITHIN))
            .set_response_timeout(Some(ANSWERS_WITHIN));
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await?;
        let (name, arguments) = command.split_first().expect("a command has a name");
        ::redis::cmd(name).arg(arguments).query_async(&mut connection).await
    }

    async fn on(port: u16) -> Result<Option<Self>, std::io::Error> {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self { child, port };
        for _ in 0..LOOKS {
            if server.try_ask::<String>(&["PING"]).await.is_ok() {
                return Ok(Some(server));
            }
            if server.child.try_wait()?.is_some() {
                return Ok(None);
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("redis-server gives no sign of life");
    }
}

/// A server that is emptied every second, as if it were restarted all the time.
pub(crate) struct Flushed {
    server: Arc<RedisServer>,
    emptying: AbortHandle,
}

impl Flushed {
    /// Starts one where the environment asks for it; tests that bring a Redis of their own have none.
    pub(crate) async fn if_asked(settings: &str) -> Option<Self> {
        if environment(FLUSH).as_deref() != Some("1") || has_own(settings) {
            return None;
        }
        let server = Arc::new(RedisServer::start().await.expect("redis-server is needed to empty it"));
        let emptied = Arc::clone(&server);
        let emptying = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_secs(1));
            loop {
                every.tick().await;
                let _emptied: String = emptied.ask(&["FLUSHALL"]).await;
            }
        });
        Some(Self { server, emptying: emptying.abort_handle() })
    }

    /// Returns the settings that lead to it, in YAML, for an engine with these.
    pub(crate) fn settings(&self, settings: &str) -> String {
        if has_own(settings) { String::new() } else { format!("redis:\n  url: {}\n", self.server.url()) }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        self.emptying.abort();
    }
}

fn has_own(settings: &str) -> bool {
    settings.lines().any(|line| line.starts_with("redis:"))
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed by the test; there is nothing to do about an error here.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn tell_skipped(error: &std::io::Error) {
    eprintln!("skipped: redis-server cannot be started ({error}); set {REQUIRED}=1 to make this a failure");
}
