//! The dedup cache in Redis: shared by several engines, and kept across their restarts.
//!
//! A key holds `d` once confirmed, or `c:<who>` while claimed. Every call is one pipeline and ends within the configured
//! time, with or without Redis: an error costs reads, never results.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use uuid::Uuid;

use crate::ports::{CacheError, Seen, SeenCache, SeenKey};

/// Value of a confirmed key.
const DONE: &str = "d";

/// Deletes a key only while it holds our own claim.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Raises a number, never lowers it, and prolongs its life.
const RAISE: &str = "local known = tonumber(redis.call('GET', KEYS[1])) or -1 \
     if tonumber(ARGV[1]) > known then known = ARGV[1] end \
     redis.call('SET', KEYS[1], known, 'PX', ARGV[2]) return 0";

/// How long a number is remembered that nobody notes any more.
const NUMBERS_LIVE: Duration = Duration::from_hours(90 * 24);

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://` or `rediss://` (TLS), with user and password where needed.
    pub url: SecretString,
    /// Longest time for one call, connecting included. Default: 250 ms.
    pub timeout: Duration,
}

impl RedisSettings {
    /// Makes the default settings for a server.
    pub fn new(url: SecretString) -> Self {
        Self { url, timeout: Duration::from_millis(250) }
    }
}

/// Remembers keys in Redis.
pub struct RedisSeenCache {
    manager: ConnectionManager,
    timeout: Duration,
    claim_value: String,
}

impl fmt::Debug for RedisSeenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSeenCache").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl RedisSeenCache {
    /// Prepares the cache; connects at the first call, and again by itself whenever the connection is lost.
    ///
    /// # Errors
    /// [`CacheError`] when the URL cannot be used.
    pub fn new(settings: &RedisSettings) -> Result<Self, CacheError> {
        let client = Client::open(settings.url.expose_secret()).map_err(|error| without_values(&error))?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(100))
            .set_connection_timeout(Some(settings.timeout))
            .set_response_timeout(Some(settings.timeout));
        let manager =
            ConnectionManager::new_lazy_with_config(client, config).map_err(|error| without_values(&error))?;
        Ok(Self { manager, timeout: settings.timeout, claim_value: format!("c:{}", Uuid::new_v4().simple()) })
    }

    /// Asks Redis for a sign of life.
    ///
    /// # Errors
    /// [`CacheError`] when it does not answer in time.
    pub async fn ping(&self) -> Result<(), CacheError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING").ignore();
        self.ask(&pipeline).await
    }

    async fn ask<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, CacheError> {
        let mut manager = self.manager.clone();
        match timeout(self.timeout, pipeline.query_async(&mut manager)).await {
            Ok(answer) => answer.map_err(|error| without_values(&error)),
            Err(_) => Err(CacheError(format!("no answer within {} ms", self.timeout.as_millis()))),
        }
    }
}

#[async_trait]
impl SeenCache for RedisSeenCache {
    async fn check(&self) -> Result<(), CacheError> {
        self.ping().await
    }

    async fn claim(&self, keys: &[SeenKey], lease: Duration) -> Result<Vec<Seen>, CacheError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(keys.len() * 2);
        for SeenKey(key) in keys {
            pipeline.cmd("SET").arg(key).arg(&self.claim_value).arg("NX").arg("PX").arg(millis(lease));
            pipeline.cmd("GET").arg(key);
        }
        let answers: Vec<Option<String>> = self.ask(&pipeline).await?;
        if answers.len() != keys.len() * 2 {
            return Err(CacheError("the number of answers does not fit".to_owned()));
        }
        Ok(answers
            .chunks_exact(2)
            .map(|answer| match (&answer[0], answer[1].as_deref()) {
                (Some(_set), _) => Seen::New,
                (None, Some(DONE)) => Seen::Done,
                // Held by someone, or gone between the two commands: neither drops a signal.
                (None, _) => Seen::Claimed,
            })
            .collect())
    }

    async fn confirm(&self, keys: &[SeenKey], ttl: Duration) -> Result<(), CacheError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for SeenKey(key) in keys {
            pipeline.cmd("SET").arg(key).arg(DONE).arg("PX").arg(millis(ttl)).ignore();
        }
        self.ask(&pipeline).await
    }

    async fn release(&self, keys: &[SeenKey]) -> Result<(), CacheError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for SeenKey(key) in keys {
            pipeline.cmd("EVAL").arg(RELEASE).arg(1).arg(key).arg(&self.claim_value).ignore();
        }
        self.ask(&pipeline).await
    }

    async fn highest(&self, name: &str) -> Result<Option<i64>, CacheError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(name);
        let (stored,): (Option<String>,) = self.ask(&pipeline).await?;
        Ok(stored.and_then(|text| text.parse().ok()))
    }

    async fn note_highest(&self, name: &str, number: i64, anew: bool) -> Result<(), CacheError> {
        let mut pipeline = redis::pipe();
        if anew {
            pipeline.cmd("SET").arg(name).arg(number).arg("PX").arg(millis(NUMBERS_LIVE)).ignore();
        } else {
            pipeline.cmd("EVAL").arg(RAISE).arg(1).arg(name).arg(number).arg(millis(NUMBERS_LIVE)).ignore();
        }
        self.ask(&pipeline).await
    }

    fn outlives_process(&self) -> bool {
        true
    }
}

/// Returns a span as Redis takes it: whole milliseconds, at least one.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2).max(1)
}

/// Says what failed; the detail of a Redis error may hold keys or the address with its password.
fn without_values(error: &redis::RedisError) -> CacheError {
    CacheError(match error.code() {
        Some(code) => format!("{} ({code})", error.category()),
        None => error.category().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Stdio;

    use tokio::process::{Child, Command};

    use super::*;
    use crate::store::seen_contract;

    /// Starts a Redis of this machine on a free port; none, with a line that says so, where there is no binary.
    async fn redis_server() -> Option<(Child, RedisSeenCache)> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let spawned = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let server = match spawned {
            Ok(server) => server,
            Err(error) => {
                #[expect(clippy::disallowed_methods, reason = "tests are told by the environment what must be present")]
                let required = std::env::var("CALBRIDGE_TEST_REQUIRE_REDIS").is_ok_and(|value| value == "1");
                assert!(!required, "redis-server is required but does not start: {error}");
                println!("skipped: redis-server does not start here ({error})");
                return None;
            }
        };
        let settings =
            RedisSettings { url: format!("redis://127.0.0.1:{port}/").into(), timeout: Duration::from_secs(2) };
        let cache = RedisSeenCache::new(&settings).unwrap();
        let started = async {
            while cache.ping().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), started).await.expect("redis-server answers");
        Some((server, cache))
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let Some((_server, cache)) = redis_server().await else {
            return;
        };
        seen_contract::run(&cache).await;
    }

    #[tokio::test]
    async fn a_claim_is_given_back_only_by_its_owner() {
        let Some((_server, cache)) = redis_server().await else {
            return;
        };
        let other = RedisSeenCache {
            manager: cache.manager.clone(),
            timeout: cache.timeout,
            claim_value: "c:other".to_owned(),
        };
        let keys = [SeenKey("cb:d:e:c:outlook:h:v:m".to_owned())];
        let lease = Duration::from_mins(1);
        assert_eq!(cache.claim(&keys, lease).await.unwrap(), [Seen::New]);
        other.release(&keys).await.unwrap();
        assert_eq!(other.claim(&keys, lease).await.unwrap(), [Seen::Claimed]);
    }

    #[tokio::test]
    async fn a_noted_number_only_rises_unless_it_is_noted_anew() {
        let Some((_server, cache)) = redis_server().await else {
            return;
        };
        assert_eq!(cache.highest("cb:j:c:d").await.unwrap(), None);
        for (number, anew, stands) in [(7, false, 7), (5, false, 7), (12, false, 12), (3, true, 3), (4, false, 4)] {
            cache.note_highest("cb:j:c:d", number, anew).await.unwrap();
            assert_eq!(cache.highest("cb:j:c:d").await.unwrap(), Some(stands), "{number} {anew}");
        }
        assert_eq!(cache.highest("cb:j:c:other").await.unwrap(), None);
    }

    #[tokio::test]
    async fn without_redis_every_call_fails_in_bounded_time_and_says_nothing_of_keys() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut settings = RedisSettings::new(format!("redis://user:hunter2@127.0.0.1:{port}/").into());
        settings.timeout = Duration::from_millis(50);
        let cache = RedisSeenCache::new(&settings).unwrap();
        let keys = [SeenKey("cb:d:secret-key".to_owned())];
        for _ in 0..3 {
            let error = cache.claim(&keys, Duration::from_secs(1)).await.unwrap_err().to_string();
            assert!(!error.contains("secret-key") && !error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{cache:?} {settings:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_never_answers_holds_nobody_up() {
        // Bound and never accepted from: the system completes the connection, and nothing ever comes back.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = RedisSettings::new(format!("redis://{}/", mute.local_addr().unwrap()).into());
        settings.timeout = Duration::from_millis(50);
        let cache = RedisSeenCache::new(&settings).unwrap();
        let keys = [SeenKey("cb:d:e:c:outlook:h:v:m".to_owned())];
        let calls = async {
            assert!(cache.check().await.is_err());
            assert!(cache.claim(&keys, Duration::from_secs(1)).await.is_err());
            assert!(cache.confirm(&keys, Duration::from_secs(1)).await.is_err());
            assert!(cache.release(&keys).await.is_err());
        };
        timeout(Duration::from_secs(30), calls).await.expect("every call has its deadline");
    }

    #[test]
    fn an_unusable_address_is_refused_without_repeating_it() {
        let error = RedisSeenCache::new(&RedisSettings::new("http://user:hunter2@x/".into())).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
