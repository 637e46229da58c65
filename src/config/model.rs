//! The typed configuration, checked as a whole. Plain data: what runs is built from it elsewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use calbridge_core::document::Place;
use calbridge_core::ids::ConnectionId;
use calbridge_core::mapping::Mapping;
use calbridge_core::policy::Policy;
use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::problem::ConfigProblem;
use crate::secret::Secret;

/// Everything that an engine is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the pair of one Outlook tenant and one Salesforce org.
    pub connection: ConnectionId,
    /// Outlook.
    pub outlook: Outlook,
    /// The hub that Graph sends notifications to.
    pub event_hubs: EventHubs,
    /// Salesforce.
    pub salesforce: Salesforce,
    /// What all connections share.
    pub network: Network,
    /// Mailboxes with their users; at least one.
    pub enrolments: Vec<Enrolment>,
    /// How fields convert.
    pub mapping: MappingSource,
    /// How plans are made; `salesforce_stampable` and `automation_users` are found out at run time.
    pub policy: Policy,
    /// How work is done.
    pub sync: SyncConfig,
    /// Periodic comparison.
    pub sweep: Sweep,
    /// The database.
    pub store: StoreConfig,
    /// Memory of notifications seen.
    pub redis: Redis,
    /// The listener for probes and metrics.
    pub web: Web,
    /// Logs.
    pub log: LogConfig,
    /// The engine's clock, for rehearsals.
    pub rehearsal: Rehearsal,
    /// What is not wrong and better mended.
    pub warnings: Vec<ConfigProblem>,
    /// Where each address stands, by dotted key, so that an unreachable one can be shown with its line.
    pub places: BTreeMap<&'static str, Place>,
}

/// Outlook: Entra and Graph.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// Tenant, guid or domain.
    pub tenant_id: String,
    /// Application id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Secret,
    /// Where tokens come from, without the tenant.
    pub authority: String,
    /// Base of Graph, version included.
    pub graph_url: String,
    /// Requests at once for one mailbox.
    pub concurrent_requests_per_mailbox: usize,
    /// Requests a minute for one mailbox; at least 1.
    pub requests_per_mailbox_per_min: u32,
    /// Life asked for a subscription.
    pub subscription_lifetime: Duration,
}

/// Event Hubs.
#[derive(Debug, Clone)]
pub struct EventHubs {
    /// Host of the namespace.
    pub namespace: String,
    /// Name of the hub.
    pub hub: String,
    /// Consumer group.
    pub consumer_group: String,
    /// What Graph is told to send to.
    pub notification_url: String,
    /// Shared access key; none signs in with the app registration.
    pub connection_string: Option<Secret>,
    /// Connect here instead of to the namespace.
    pub custom_endpoint: Option<String>,
}

/// Salesforce.
#[derive(Debug, Clone)]
pub struct Salesforce {
    /// Host that gives tokens.
    pub login_url: String,
    /// How to sign in.
    pub auth: SalesforceAuth,
    /// `HOST:PORT` of the Pub/Sub API.
    pub pubsub_endpoint: String,
    /// REST API version without `v`.
    pub api_version: String,
    /// Send `If-Unmodified-Since` where accepted.
    pub conditional_updates: bool,
    /// Requests at once for the org.
    pub concurrent_requests: usize,
    /// Requests a minute for the org; at least 1.
    pub requests_per_min: u32,
    /// User names or addresses of users whose edits are no person's.
    pub automation_users: Vec<String>,
}

/// How to sign in to Salesforce.
#[derive(Debug, Clone)]
pub enum SalesforceAuth {
    /// The app's secret.
    ClientCredentials {
        /// Consumer key.
        client_id: String,
        /// Consumer secret.
        client_secret: Secret,
    },
    /// A signed token.
    JwtBearer {
        /// Consumer key.
        client_id: String,
        /// User to act as.
        username: String,
        /// RSA key, PEM.
        private_key_pem: Secret,
        /// Audience; none takes the login URL.
        audience: Option<String>,
    },
}

/// What all connections share.
#[derive(Debug, Clone)]
pub struct Network {
    /// PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time for one request, answer included.
    pub request_timeout: Duration,
}

/// One mailbox with its Salesforce user.
#[derive(Clone)]
pub struct Enrolment {
    /// Address of the mailbox.
    pub mailbox: String,
    /// User name or id; none takes the user with the same address.
    pub salesforce_user: Option<String>,
    /// Where it stands.
    pub place: Place,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Enrolment({})", self.place)
    }
}

/// A checked mapping and where it came from.
#[derive(Debug, Clone)]
pub struct MappingSource {
    /// Name of the file.
    pub name: String,
    /// The rules.
    pub mapping: Mapping,
}

/// How work is done; what plans read is in [`Policy`].
#[derive(Debug, Clone, Copy)]
pub struct SyncConfig {
    /// Meetings worked on at once; at least 1.
    pub workers: usize,
    /// How long a worker holds a meeting without renewing.
    pub lease: Duration,
}

/// Periodic comparison.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// Each mailbox, this often by the engine's clock.
    pub outlook: Duration,
    /// The org, this often by the engine's clock.
    pub salesforce: Duration,
}

/// The database.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub place: StorePlace,
    /// File with the key that seals values; none makes one beside a SQLite file.
    pub key_file: Option<PathBuf>,
    /// It was restored from a backup, says `run --restored`; no option.
    pub restored: bool,
}

impl StoreConfig {
    /// Returns the SQLite file, where the database is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.place {
            StorePlace::File(path) => Some(path),
            StorePlace::Postgres { .. } => None,
        }
    }
}

/// Where the database is.
#[derive(Debug, Clone)]
pub enum StorePlace {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL server.
    Postgres {
        /// `postgres://USER@HOST/DATABASE`, without a password.
        url: String,
        /// The user's password, where the server asks for one.
        password: Option<Secret>,
    },
}

/// Memory of notifications seen.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Address; none keeps it in the process.
    pub url: Option<SecretString>,
    /// How long a notification is remembered.
    pub ttl: Duration,
    /// Reservation while one is taken in.
    pub claim: Duration,
}

/// The listener for probes and metrics.
#[derive(Debug, Clone, Copy)]
pub struct Web {
    /// Where it listens.
    pub address: SocketAddr,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The engine's clock, for rehearsals against the local sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// Moment at the start; none means the present.
    pub start_at: Option<DateTime<Utc>>,
    /// Where the sandbox tells its time; what it answers at the start goes before the other two.
    pub clock_url: Option<String>,
    /// Seconds of the engine's clock per real second.
    pub speed: f64,
}
