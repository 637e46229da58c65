//! Wiring: the one place that names concrete adapters.

use std::sync::Arc;
use std::time::Duration;

use calbridge_core::policy::{Policy, Rules};
use calbridge_core::side::{BothSides, Side};
use chrono::TimeDelta;
use thiserror::Error;
use tokio::sync::watch;

use super::{Engine, IntakeSettings, LaneSettings, MakeListener, Parts, SweepSettings, WantedEnrolment, backups};
use crate::config::{Config, SalesforceAuth, StorePlace};
use crate::http::{self, HttpError, HttpOptions};
use crate::outlook::{self, AuthSettings, HubSettings, Outlook, SubscriptionSettings};
use crate::ports::{CacheError, Calendar, Clock, EnrolmentRow, Finding, RemoteError, SeenCache, Store, StoreError};
use crate::rate_limit::{Quota, RateLimits};
use crate::salesforce::pubsub::ChangeEvents;
use crate::salesforce::{self, Client, Grant, SalesforceCalendar, SettingsError};
use crate::store::{
    KeySource, MemorySeenCache, PostgresSettings, PostgresStore, RedisSeenCache, RedisSettings, SqliteStore,
    StoreSettings,
};
use crate::telemetry::events;

/// Why an engine cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dedup cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Outlook's settings.
    #[error(transparent)]
    Outlook(#[from] RemoteError),
    /// Salesforce's settings.
    #[error(transparent)]
    Salesforce(#[from] SettingsError),
}

/// Both remotes of a connection, ready to be called.
pub(super) struct Adapters {
    outlook: Outlook,
    salesforce: Arc<Client>,
    salesforce_settings: salesforce::Settings,
    pub(super) calendars: BothSides<Arc<dyn Calendar>>,
    enrolments: watch::Sender<Vec<EnrolmentRow>>,
}

/// Lanes of one group share calls; a batch of Graph takes 20, a collection of Salesforce 200.
const GROUP: usize = 200;

/// How long the first due lane waits for company: short against the quiet window, long against a busy second.
///
/// At 50 edits a second a group then holds about 12 edits and 12 echoes, and costs 5 calls or so.
const GATHER: Duration = Duration::from_millis(250);

impl Engine {
    /// Opens the store and prepares everything; calls no remote yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn build(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let cache: Arc<dyn SeenCache> = match &config.redis.url {
            Some(url) => Arc::new(RedisSeenCache::new(&RedisSettings::new(url.clone()))?),
            None => Arc::new(MemorySeenCache::new()),
        };
        let store = open(config, Arc::clone(&clock), &*cache).await?;
        Self::on(config, clock, store, cache)
    }

    /// Prepares everything on an open store.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn on(
        config: &Config,
        clock: Arc<dyn Clock>,
        store: Arc<dyn Store>,
        cache: Arc<dyn SeenCache>,
    ) -> Result<Self, StartError> {
        let adapters = adapters(config, &clock)?;
        let policy = Policy { restored_at: store.restored_at(), ..config.policy.clone() };
        let listeners = listeners(&adapters, &store, &clock);
        Ok(Self::new(Parts {
            connection: config.connection.clone(),
            store,
            cache,
            clock,
            calendars: adapters.calendars,
            listeners,
            wanted: config
                .enrolments
                .iter()
                .map(|wanted| WantedEnrolment {
                    mailbox: wanted.mailbox.clone(),
                    salesforce_user: wanted.salesforce_user.clone(),
                })
                .collect(),
            enrolments: adapters.enrolments,
            rules: Rules { mapping: config.mapping.mapping.clone(), policy },
            automation_users: config.salesforce.automation_users.clone(),
            intake: IntakeSettings { claim_lease: config.redis.claim, seen_ttl: config.redis.ttl },
            lanes: LaneSettings {
                lease: config.sync.lease,
                group: GROUP,
                workers: config.sync.workers,
                gather: GATHER,
                // Another instance, or a person, may have put work into the database.
                idle_look: Duration::from_secs(1),
            },
            sweeps: SweepSettings { outlook: config.sweep.outlook, salesforce: config.sweep.salesforce },
        }))
    }
}

/// Opens the database for reading, beside a running engine too.
///
/// # Errors
/// [`StoreError`].
pub async fn open_read_only(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match database(config) {
        Database::File(settings) => Arc::new(SqliteStore::open_read_only(settings, clock).await?),
        Database::Server(settings) => Arc::new(PostgresStore::open_read_only(settings, clock).await?),
    })
}

/// Opens the database to take down what a person says, beside a running engine too.
///
/// # Errors
/// [`StoreError`].
pub async fn open_desk(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match database(config) {
        Database::File(settings) => Arc::new(SqliteStore::open_desk(settings, clock).await?),
        Database::Server(settings) => Arc::new(PostgresStore::open_desk(settings, clock).await?),
    })
}

/// Says which other process has the database open for an engine, if one has.
pub fn holder(config: &Config) -> Option<StoreError> {
    match database(config) {
        Database::File(settings) => SqliteStore::held(&settings),
        // Several engines share a server's database.
        Database::Server(_) => None,
    }
}

/// Does on both sides what an engine will do, without writing.
///
/// # Errors
/// [`StartError`] when not even a call can be made.
pub async fn check(config: &Config, clock: Arc<dyn Clock>) -> Result<Vec<Finding>, StartError> {
    let adapters = adapters(config, &clock)?;
    let (mut findings, salesforce) =
        tokio::join!(adapters.calendars.outlook.check(), adapters.calendars.salesforce.check());
    let signed_in = salesforce.first().is_some_and(|finding| finding.ok);
    findings.extend(salesforce);
    if let Database::Server(settings) = database(config) {
        findings.push(store_finding(settings, clock).await);
    }
    if signed_in {
        findings.extend(users(config, &*adapters.calendars.salesforce).await);
    }
    Ok(findings)
}

/// Looks whether the database server lets us in and has, or may have, our tables; changes nothing.
async fn store_finding(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Finding {
    let what = "store: database".to_owned();
    match PostgresStore::look(settings, clock).await {
        Ok(detail) => Finding { what, ok: true, detail, code: None },
        Err(error) => Finding { what, ok: false, detail: error.to_string(), code: Some(error.code()) },
    }
}

/// Looks for the Salesforce user of every enrolment; one finding for all that are there, one for each that is not.
async fn users(config: &Config, salesforce: &dyn Calendar) -> Vec<Finding> {
    let wanted: Vec<String> = config
        .enrolments
        .iter()
        .map(|wanted| wanted.salesforce_user.clone().unwrap_or_else(|| wanted.mailbox.clone()))
        .collect();
    let found = match salesforce.accounts(&wanted).await {
        Ok(found) => found,
        Err(error) => {
            let (detail, code) = (error.message, Some(error.code));
            return vec![Finding { what: "salesforce: users".to_owned(), ok: false, detail, code }];
        }
    };
    let there = found.iter().flatten().count();
    let mut findings = Vec::new();
    if there > 0 {
        let detail = format!("{there} of {} found", wanted.len());
        findings.push(Finding { what: "salesforce: users".to_owned(), ok: true, detail, code: None });
    }
    for (name, _missing) in wanted.iter().zip(&found).filter(|(_, found)| found.is_none()) {
        let detail = "no active user has this name or address; correct `salesforce_user` of the enrolment";
        findings.push(Finding {
            what: format!("salesforce: user {name}"),
            ok: false,
            detail: detail.to_owned(),
            code: Some("CB1011"),
        });
    }
    findings
}

/// Opens the database for an engine; one that is a restored backup is made ready to be looked through as a whole.
async fn open(config: &Config, clock: Arc<dyn Clock>, cache: &dyn SeenCache) -> Result<Arc<dyn Store>, StoreError> {
    let connection = &config.connection;
    let store: Arc<dyn Store> = match database(config) {
        Database::File(settings) => {
            let mut store = SqliteStore::open(settings, clock).await?;
            if !is_restored(config, &store, cache).await? {
                return Ok(Arc::new(store));
            }
            store.treat_as_restored(connection).await?;
            Arc::new(store)
        }
        Database::Server(settings) => {
            let mut store = PostgresStore::open(settings, clock).await?;
            if !is_restored(config, &store, cache).await? {
                return Ok(Arc::new(store));
            }
            store.treat_as_restored(connection).await?;
            Arc::new(store)
        }
    };
    events::database_restored(connection);
    backups::note(connection, &*store, cache, true).await;
    Ok(store)
}

/// Tells whether a person says that the database was restored, or Redis knows.
async fn is_restored(config: &Config, store: &dyn Store, cache: &dyn SeenCache) -> Result<bool, StoreError> {
    Ok(config.store.restored || backups::is_behind(&config.connection, store, cache).await?)
}

/// How the database is opened.
enum Database {
    File(StoreSettings),
    Server(PostgresSettings),
}

fn database(config: &Config) -> Database {
    let key = config.store.key_file.clone().map_or(KeySource::BesideDatabase, KeySource::File);
    let subject_fields = subject_fields(config);
    match &config.store.place {
        StorePlace::File(path) => {
            Database::File(StoreSettings { key, subject_fields, ..StoreSettings::new(path.display().to_string()) })
        }
        StorePlace::Postgres { url, password } => Database::Server(PostgresSettings {
            password: password.as_ref().map(|secret| secret.text().clone()),
            ca_file: config.network.ca_file.clone(),
            subject_fields,
            ..PostgresSettings::new(url.clone(), key)
        }),
    }
}

fn subject_fields(config: &Config) -> Vec<String> {
    let subject = config.mapping.mapping.rules().iter().filter(|rule| rule.outlook == "subject");
    subject.flat_map(|rule| [rule.name.clone(), rule.outlook.clone(), rule.salesforce.clone()]).collect()
}

pub(super) fn adapters(config: &Config, clock: &Arc<dyn Clock>) -> Result<Adapters, StartError> {
    let client = http::client(&HttpOptions {
        timeout: config.network.request_timeout,
        ca_file: config.network.ca_file.clone(),
    })?;
    let (enrolments, told) = watch::channel(Vec::new());
    let outlook = Outlook::new(outlook_settings(config), client.clone(), Arc::clone(clock), told)?;
    let settings = salesforce_settings(config);
    let limits = RateLimits::new(Quota {
        in_flight: config.salesforce.concurrent_requests,
        units: config.salesforce.requests_per_min.try_into().unwrap_or(std::num::NonZeroU32::MIN),
        period: Duration::from_mins(1),
    });
    let salesforce = Client::new(client, Arc::clone(clock), limits, &settings)?;
    let calendar = SalesforceCalendar::new(Arc::clone(&salesforce), Arc::clone(clock), &settings)?;
    let calendars: BothSides<Arc<dyn Calendar>> =
        BothSides { outlook: Arc::new(outlook.calendar()), salesforce: Arc::new(calendar) };
    Ok(Adapters { outlook, salesforce, salesforce_settings: settings, calendars, enrolments })
}

fn listeners(adapters: &Adapters, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>) -> Vec<MakeListener> {
    let mut listeners: Vec<MakeListener> = Vec::new();
    let (outlook, shared) = (adapters.outlook.clone(), Arc::clone(store));
    listeners.push(Box::new(move || Box::new(outlook.subscriptions(Arc::clone(&shared)))));
    if adapters.outlook.hub(Arc::clone(store)).is_some() {
        let (outlook, shared) = (adapters.outlook.clone(), Arc::clone(store));
        listeners.push(Box::new(move || {
            Box::new(outlook.hub(Arc::clone(&shared)).expect("the settings named a hub a moment ago"))
        }));
    }
    let (client, settings) = (Arc::clone(&adapters.salesforce), adapters.salesforce_settings.clone());
    let (shared, clock) = (Arc::clone(store), Arc::clone(clock));
    listeners.push(Box::new(move || {
        Box::new(ChangeEvents::new(Arc::clone(&client), Arc::clone(&shared), Arc::clone(&clock), &settings))
    }));
    listeners
}

fn outlook_settings(config: &Config) -> outlook::Settings {
    let (outlook, hub) = (&config.outlook, &config.event_hubs);
    outlook::Settings {
        connection: config.connection.clone(),
        graph_url: outlook.graph_url.clone(),
        auth: AuthSettings {
            authority: outlook.authority.clone(),
            tenant: outlook.tenant_id.clone(),
            client_id: outlook.client_id.clone(),
            client_secret: outlook.client_secret.clone(),
        },
        fields: config.mapping.mapping.fields(Side::Outlook).map(str::to_owned).collect(),
        conditional_writes: config.policy.outlook_conditional_writes,
        mailbox_quota: Quota {
            in_flight: outlook.concurrent_requests_per_mailbox,
            units: outlook.requests_per_mailbox_per_min.try_into().unwrap_or(std::num::NonZeroU32::MIN),
            period: Duration::from_mins(1),
        },
        patience: Duration::from_secs(5),
        window_back: TimeDelta::days(30),
        window_ahead: TimeDelta::days(365),
        mailboxes: config.enrolments.iter().map(|wanted| wanted.mailbox.clone()).collect(),
        subscriptions: SubscriptionSettings {
            notification_url: hub.notification_url.clone(),
            lifetime: TimeDelta::from_std(outlook.subscription_lifetime).unwrap_or(TimeDelta::days(3)),
        },
        hub: Some(HubSettings {
            consumer_group: hub.consumer_group.clone(),
            custom_endpoint: hub.custom_endpoint.clone(),
            connection_string: hub.connection_string.clone(),
            ..HubSettings::new(&hub.namespace, &hub.hub)
        }),
    }
}

fn salesforce_settings(config: &Config) -> salesforce::Settings {
    let grant = match config.salesforce.auth.clone() {
        SalesforceAuth::ClientCredentials { client_id, client_secret } => {
            Grant::ClientCredentials { client_id, client_secret }
        }
        SalesforceAuth::JwtBearer { client_id, username, private_key_pem, audience } => {
            Grant::JwtBearer { client_id, username, private_key_pem, audience }
        }
    };
    let fields = config.mapping.mapping.fields(Side::Salesforce).map(str::to_owned).collect();
    let mut settings =
        salesforce::Settings::new(config.connection.clone(), &config.salesforce.login_url, grant, fields);
    settings.api_version.clone_from(&config.salesforce.api_version);
    settings.conditional_updates = config.salesforce.conditional_updates;
    settings.pubsub.endpoint.clone_from(&config.salesforce.pubsub_endpoint);
    settings.pubsub.ca_file.clone_from(&config.network.ca_file);
    settings.pubsub.timeout = config.network.request_timeout;
    settings
}
