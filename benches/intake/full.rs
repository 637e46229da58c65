//! The whole intake: the engine's own listener, dedup in Redis, store. Only lanes are missing, so rows stay where they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calbridge::clock::EngineClock;
use calbridge::config::DEFAULT_MAPPING;
use calbridge::engine::{Intake, IntakeSettings};
use calbridge::http::{self, HttpOptions};
use calbridge::outlook::{AuthSettings, HubSettings, Outlook, Settings, SubscriptionSettings};
use calbridge::ports::{Clock, EnrolmentRow, Listener as _, Store};
use calbridge::store::{RedisSeenCache, RedisSettings, SqliteStore, StoreSettings};
use calbridge_core::case::Enrolment;
use calbridge_core::ids::{ConnectionId, MailboxId, SalesforceId, StreamId};
use calbridge_core::mapping::{Mapping, MappingSpec};
use calbridge_core::policy::{Policy, Rules};
use chrono::TimeDelta;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::memory::resident_kib;
use crate::stand_in::{CONNECTION, HUB, TENANT, connection_string, secret};
use crate::workload::mailbox;
use crate::{Measured, Task};

/// How often it is looked whether everything is durable.
const LOOK: Duration = Duration::from_millis(20);
/// Batches that may wait for intake, as in the engine.
const QUEUE: usize = 64;

/// Takes the workload in until every partition's last position is stored.
pub(crate) async fn take_in(task: &Task) -> Measured {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("calbridge.db");
    let clock: Arc<dyn Clock> = Arc::new(EngineClock::wall());
    let store = SqliteStore::open(StoreSettings::new(path.display().to_string()), Arc::clone(&clock)).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let (enrolments, told) = watch::channel((0..task.workload.mailboxes).map(enrolled).collect());
    let client = http::client(&HttpOptions { timeout: Duration::from_secs(10), ca_file: None }).unwrap();
    let outlook = Outlook::new(settings(task), client, Arc::clone(&clock), told).unwrap();
    let listener = outlook.hub(Arc::clone(&store)).unwrap();
    let cache = Arc::new(RedisSeenCache::new(&RedisSettings::new(task.redis.clone().into())).unwrap());
    let spec = MappingSpec::parse("default.yaml", DEFAULT_MAPPING).unwrap();
    let rules = Rules { mapping: Mapping::compile(&spec).unwrap(), policy: Policy::default() };
    let settings = IntakeSettings { claim_lease: Duration::from_secs(30), seen_ttl: Duration::from_hours(96) };
    let connection = ConnectionId::new(CONNECTION);
    let intake = Intake::alone(connection.clone(), Arc::clone(&store), cache, clock, rules, settings);
    let (batches, taken) = mpsc::channel(QUEUE);
    let stop = CancellationToken::new();

    let first = resident_kib();
    let started = Instant::now();
    let listening = tokio::spawn(Box::new(listener).run(batches, stop.clone()));
    let working = tokio::spawn(intake.run(taken, stop.clone()));
    let mut middle = None;
    loop {
        let mut durable = 0;
        for partition in 0..task.workload.partitions {
            let stream = StreamId::new(format!("event_hubs/{HUB}/$Default/{partition}"));
            let position = store.checkpoint(&connection, &stream).await.unwrap();
            durable += position.and_then(|text| text.parse::<usize>().ok()).map_or(0, |last| last + 1);
        }
        if durable >= task.workload.signals / 2 && middle.is_none() {
            middle = Some(resident_kib());
        }
        if durable >= task.workload.signals {
            break;
        }
        assert!(!listening.is_finished() && !working.is_finished(), "intake ended early");
        tokio::time::sleep(LOOK).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let last = resident_kib();
    stop.cancel();
    listening.await.unwrap().unwrap();
    working.await.unwrap();
    drop(enrolments);
    let duplicates: u64 = store.status().await.unwrap().duplicates.values().sum();
    check_rows(&path, task, duplicates).await;
    Measured { seconds, memory: [first, middle.unwrap_or(last), last], duplicates }
}

/// Checks that nothing is missing: every signal is in a row or was counted as a duplicate.
async fn check_rows(path: &std::path::Path, task: &Task, duplicates: u64) {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    let (rows, signals): (i64, i64) =
        sqlx::query_as("SELECT COUNT(*), SUM(signals) FROM dirty").fetch_one(&pool).await.unwrap();
    assert_eq!(u64::try_from(signals).unwrap() + duplicates, task.workload.signals as u64, "every signal counts once");
    assert!(usize::try_from(rows).unwrap() <= task.workload.records);
    let repeated = task.workload.changes().iter().filter(|change| change.again).count() as u64;
    assert!(duplicates <= repeated, "only what was delivered again is dropped");
    pool.close().await;
}

fn enrolled(number: usize) -> EnrolmentRow {
    EnrolmentRow {
        connection: ConnectionId::new(CONNECTION),
        enrolment: Enrolment {
            mailbox: MailboxId::new(mailbox(number)),
            user: SalesforceId::parse(&format!("005{number:012}")).unwrap(),
            enrolled_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        },
        address: format!("person{number}@contoso.example"),
        zone: "Europe/Berlin".to_owned(),
        first_round_done: true,
    }
}

fn settings(task: &Task) -> Settings {
    Settings {
        connection: ConnectionId::new(CONNECTION),
        graph_url: "http://127.0.0.1:1/v1.0".to_owned(),
        auth: AuthSettings {
            authority: "http://127.0.0.1:1".to_owned(),
            tenant: TENANT.to_owned(),
            client_id: "bench".to_owned(),
            client_secret: secret().into(),
        },
        fields: Vec::new(),
        conditional_writes: true,
        mailbox_quota: Settings::default_quota(),
        patience: Duration::from_secs(5),
        window_back: TimeDelta::days(30),
        window_ahead: TimeDelta::days(365),
        mailboxes: Vec::new(),
        subscriptions: SubscriptionSettings { notification_url: String::new(), lifetime: TimeDelta::days(3) },
        hub: Some(HubSettings {
            custom_endpoint: Some(format!("amqp://127.0.0.1:{}", task.port)),
            connection_string: Some(secrecy::SecretString::from(connection_string()).into()),
            ..HubSettings::new("127.0.0.1", HUB)
        }),
    }
}
