//! What this side's tests share: a server on loopback, a sandbox with one connection to it, a store that remembers little.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use calbridge_core::case::{Census, Enrolment, Instruction};
use calbridge_core::ids::{ConnectionId, LaneId, MailboxId, RecordId, SalesforceId, StreamId};
use calbridge_sandbox::{Options, Person, Sandbox};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde_json::Value as Json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{AuthSettings, HubSettings, Outlook, Settings, SubscriptionSettings};
use crate::clock::EngineClock;
use crate::http::{HttpOptions, client};
use crate::ports::{
    Batch, CensusQuestion, Claim, Clock, Commit, DeadLetter, EnrolmentRow, Fence, IntakeBatch, Joined, ListenError,
    Listener, OpenLetter, Store, StoreError, StoreStatus, SubscriptionRow, TraceQuery, Traced,
};

/// Longest wait for something that must happen; only a failing test waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Serves a router on a free loopback port until the test ends; returns its base address.
pub(super) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Makes the client that all tests use.
pub(super) fn http() -> reqwest::Client {
    client(&HttpOptions { timeout: Duration::from_secs(10), ca_file: None }).unwrap()
}

pub(super) fn connection() -> ConnectionId {
    ConnectionId::new("main")
}

/// A sandbox and the Outlook side of one connection to it.
pub(super) struct Office {
    pub(super) sandbox: Sandbox,
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) enrolments: watch::Sender<Vec<EnrolmentRow>>,
    pub(super) outlook: Outlook,
}

impl Office {
    /// Opens with three mailboxes, all enrolled.
    pub(super) async fn open() -> Self {
        Self::open_with(Options::default()).await
    }

    pub(super) async fn open_with(options: Options) -> Self {
        let sandbox = Sandbox::start(Options { start_at: Some("2026-11-23T08:00:00Z".parse().unwrap()), ..options })
            .await
            .unwrap();
        let clock = sandbox.world().clock;
        let clock: Arc<dyn Clock> = Arc::new(EngineClock::rehearsal(clock.now(), clock.speed()));
        let settings = settings(&sandbox);
        let rows = sandbox.endpoints().mailboxes.iter().map(row).collect();
        let (enrolments, watched) = watch::channel(rows);
        let outlook = Outlook::new(settings.clone(), http(), Arc::clone(&clock), watched).unwrap();
        Self { sandbox, settings, clock, enrolments, outlook }
    }

    /// Makes the same connection again, as a restarted engine would.
    pub(super) fn restarted(&self) -> Outlook {
        let watched = self.enrolments.subscribe();
        Outlook::new(self.settings.clone(), http(), Arc::clone(&self.clock), watched).unwrap()
    }

    pub(super) fn person(&self, number: usize) -> Person {
        self.sandbox.person_number(number).unwrap()
    }

    pub(super) fn mailbox(&self, number: usize) -> MailboxId {
        MailboxId::new(&self.sandbox.endpoints().mailboxes[number].user_id)
    }

    /// Lets a person create an event; returns the record as the engine names it.
    pub(super) fn create(&self, number: usize, body: &Json) -> RecordId {
        let event = self.person(number).create_in_outlook(body).unwrap();
        self.record(number, event["id"].as_str().unwrap())
    }

    pub(super) fn record(&self, number: usize, id: &str) -> RecordId {
        RecordId::Outlook { mailbox: self.mailbox(number), event: id.to_owned() }
    }

    /// Number of calls that the engine's app made, by kind.
    pub(super) fn calls(&self, kind: &str) -> u64 {
        let counts = self.sandbox.world().meters.read();
        let ours = counts.calls.get(&self.sandbox.endpoints().microsoft.client_id);
        ours.and_then(|calls| calls.get(kind)).copied().unwrap_or_default()
    }
}

fn row(mailbox: &calbridge_sandbox::endpoints::Mailbox) -> EnrolmentRow {
    EnrolmentRow {
        connection: connection(),
        enrolment: Enrolment {
            mailbox: MailboxId::new(&mailbox.user_id),
            user: SalesforceId::parse(&mailbox.salesforce_user_id).unwrap(),
            enrolled_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        },
        address: mailbox.address.clone(),
        zone: mailbox.zone.clone(),
        first_round_done: false,
    }
}

/// Settings for one server that is everything at once.
pub(super) fn settings_for(base: &str) -> Settings {
    Settings {
        connection: connection(),
        graph_url: format!("{base}/v1.0"),
        auth: AuthSettings {
            authority: base.to_owned(),
            tenant: "tenant".to_owned(),
            client_id: "app".to_owned(),
            client_secret: SecretString::from("the-secret".to_owned()).into(),
        },
        fields: vec!["subject".to_owned(), "time".to_owned()],
        conditional_writes: true,
        mailbox_quota: Settings::default_quota(),
        patience: Duration::ZERO,
        window_back: TimeDelta::days(30),
        window_ahead: TimeDelta::days(365),
        mailboxes: Vec::new(),
        subscriptions: SubscriptionSettings { notification_url: String::new(), lifetime: TimeDelta::days(3) },
        hub: None,
    }
}

fn settings(sandbox: &Sandbox) -> Settings {
    let endpoints = sandbox.endpoints();
    let fields = ["subject", "time", "location.displayName", "body.text", "showAs"];
    Settings {
        connection: connection(),
        graph_url: endpoints.microsoft.graph_http.clone(),
        auth: AuthSettings {
            authority: endpoints.microsoft.authority_http.clone(),
            tenant: endpoints.microsoft.tenant_id.clone(),
            client_id: endpoints.microsoft.client_id.clone(),
            client_secret: SecretString::from(endpoints.microsoft.client_secret.clone()).into(),
        },
        fields: fields.map(str::to_owned).to_vec(),
        conditional_writes: true,
        mailbox_quota: Settings::default_quota(),
        patience: Duration::from_secs(5),
        window_back: TimeDelta::days(30),
        window_ahead: TimeDelta::days(365),
        mailboxes: endpoints.mailboxes.iter().map(|mailbox| mailbox.address.clone()).collect(),
        subscriptions: SubscriptionSettings {
            notification_url: endpoints.event_hubs.notification_url.clone(),
            lifetime: TimeDelta::days(3),
        },
        hub: Some(HubSettings {
            namespace: endpoints.event_hubs.host.clone(),
            hub: endpoints.event_hubs.hub.clone(),
            consumer_group: endpoints.event_hubs.consumer_group.clone(),
            custom_endpoint: Some(format!("amqp://localhost:{}", endpoints.event_hubs.amqp_port)),
            connection_string: None,
            prefetch: 300,
            batch_events: 500,
            batch_wait: Duration::from_millis(50),
            call_timeout: Duration::from_secs(5),
            retry_budget: Duration::from_mins(1),
            idle_check: Duration::from_secs(1),
        }),
    }
}

/// A listener that runs, and the end on which its batches arrive.
pub(super) struct Running {
    pub(super) batches: mpsc::Receiver<Batch>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), ListenError>>,
}

impl Running {
    pub(super) fn start(listener: impl Listener + 'static) -> Self {
        let (out, batches) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Box::new(listener).run(out, stop.clone()));
        Self { batches, stop, task }
    }

    /// Waits for the next batch.
    pub(super) async fn next(&mut self) -> Batch {
        tokio::time::timeout(PATIENCE, self.batches.recv()).await.expect("no batch came").expect("the listener ended")
    }

    /// Stops the listener and returns how it ended.
    pub(super) async fn stop(self) -> Result<(), ListenError> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the listener does not stop").unwrap()
    }
}

/// Keeps subscriptions and checkpoints; everything else is not asked for here.
#[derive(Debug, Default)]
pub(super) struct LittleStore {
    pub(super) subscriptions: Mutex<BTreeMap<String, SubscriptionRow>>,
    pub(super) checkpoints: Mutex<BTreeMap<StreamId, String>>,
    changed: tokio::sync::Notify,
}

impl LittleStore {
    pub(super) fn rows(&self) -> Vec<SubscriptionRow> {
        self.subscriptions.lock().unwrap().values().cloned().collect()
    }

    /// Waits until the stored subscriptions are as wanted.
    pub(super) async fn until(&self, wanted: impl Fn(&[SubscriptionRow]) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if wanted(&self.rows()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the stored subscriptions never became as wanted");
    }

    /// Takes a batch's positions in, as intake would.
    pub(super) fn accept_positions(&self, batch: Batch) {
        let mut checkpoints = self.checkpoints.lock().unwrap();
        for position in batch.positions {
            checkpoints.insert(position.stream, position.value);
        }
        drop(checkpoints);
        batch.receipt.done();
    }
}

fn not_here<T>() -> Result<T, StoreError> {
    Err(StoreError::Database("not kept by this store".to_owned()))
}

#[async_trait]
impl Store for LittleStore {
    fn epoch(&self) -> &'static str {
        "epoch"
    }

    fn identity(&self) -> &'static str {
        ""
    }
    async fn accept(&self, _: &IntakeBatch, _: DateTime<Utc>) -> Result<(), StoreError> {
        not_here()
    }
    async fn checkpoint(&self, _: &ConnectionId, stream: &StreamId) -> Result<Option<String>, StoreError> {
        Ok(self.checkpoints.lock().unwrap().get(stream).cloned())
    }
    async fn claim(&self, _: &str, _: DateTime<Utc>, _: Duration, _: usize) -> Result<Vec<Claim>, StoreError> {
        not_here()
    }
    async fn next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        not_here()
    }
    async fn renew(&self, _: &[Fence], _: Duration) -> Result<Vec<Fence>, StoreError> {
        not_here()
    }
    async fn join(
        &self,
        _: &Claim,
        _: &[calbridge_core::plan::Alias],
        _: &str,
        _: Duration,
    ) -> Result<Joined, StoreError> {
        not_here()
    }
    async fn linked(&self, _connection: &ConnectionId, _records: &[RecordId]) -> Result<Vec<RecordId>, StoreError> {
        Ok(Vec::new())
    }

    async fn commit(&self, _: Vec<(Fence, Commit)>, _: DateTime<Utc>) -> Vec<Result<(), StoreError>> {
        Vec::new()
    }
    async fn trace(&self, _: &TraceQuery, _: usize) -> Result<Vec<Traced>, StoreError> {
        not_here()
    }
    async fn letters(&self, _: bool, _: usize) -> Result<Vec<OpenLetter>, StoreError> {
        not_here()
    }
    async fn instruct(&self, _: &[LaneId], _: Instruction) -> Result<u64, StoreError> {
        not_here()
    }
    async fn close_message(&self, _: &str, _: DateTime<Utc>) -> Result<bool, StoreError> {
        not_here()
    }
    async fn census(
        &self,
        _: &ConnectionId,
        _: &[CensusQuestion],
        _: DateTime<Utc>,
    ) -> Result<Vec<Census>, StoreError> {
        not_here()
    }
    async fn kept_message(&self, _: &str) -> Result<Option<(DeadLetter, Vec<u8>)>, StoreError> {
        not_here()
    }
    async fn enrol(&self, _: &EnrolmentRow) -> Result<(), StoreError> {
        not_here()
    }
    async fn enrolments(&self, _: &ConnectionId) -> Result<Vec<EnrolmentRow>, StoreError> {
        not_here()
    }
    async fn put_subscription(&self, row: &SubscriptionRow) -> Result<(), StoreError> {
        self.subscriptions.lock().unwrap().insert(row.id.clone(), row.clone());
        self.changed.notify_waiters();
        Ok(())
    }
    async fn drop_subscription(&self, _: &ConnectionId, id: &str) -> Result<(), StoreError> {
        self.subscriptions.lock().unwrap().remove(id);
        self.changed.notify_waiters();
        Ok(())
    }
    async fn subscriptions(&self, _: &ConnectionId) -> Result<Vec<SubscriptionRow>, StoreError> {
        Ok(self.rows())
    }
    async fn status(&self) -> Result<StoreStatus, StoreError> {
        not_here()
    }
}
