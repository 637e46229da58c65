//! Puts the parts together: one world, its clouds, their listeners, the control API.
//!
//! Owns start and stop, ports, credentials and the endpoints; the protocols themselves are in their folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acts::Act;
use crate::clock::SandboxClock;
use crate::endpoints::{self, Endpoints, Mailbox};
use crate::event_hubs::{self, HubAccess, HubHandle, HubLog};
use crate::graph::{self, NewMailbox, Tenant, TenantIdentity};
use crate::net;
use crate::oauth::salesforce::JwtKey;
use crate::options::Options;
use crate::oracle::{self, Evidence, Terms};
use crate::person::{LoadedCalendar, Person, PersonError};
use crate::roster::{self, DOMAIN};
use crate::salesforce::{self, NewUser, Org, OrgIdentity};
use crate::tap::{Heard, Payload};
use crate::tls::{self, TlsAuthority, TlsError};
use crate::world::World;

/// Name of the event hub.
const HUB: &str = "calbridge";
/// Name of the shared access key.
const SAS_KEY_NAME: &str = "RootManageSharedAccessKey";
/// API version that the endpoints name; the servers take others too.
const SALESFORCE_API_VERSION: &str = "66.0";
/// Ports used from `--port-base` on, in this order.
const LISTENERS: [&str; 8] = [
    "control",
    "graph http",
    "graph https",
    "event hubs amqp",
    "event hubs amqps",
    "salesforce http",
    "salesforce https",
    "pub/sub",
];

/// Says why a sandbox did not start; causes are in `source`, as `anyhow` prints them with `{:#}`.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// An option is out of range.
    #[error("{0}")]
    Option(String),
    /// The state folder cannot be used.
    #[error("state folder `{path}` cannot be used")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates could not be made.
    #[error("certificates cannot be made")]
    Tls(#[from] TlsError),
    /// The key of the JWT bearer flow could not be made.
    #[error("no key for the JWT bearer flow: {0}")]
    Key(String),
    /// A port is taken or forbidden.
    #[error("cannot listen on 127.0.0.1:{port} for {what}; choose another --port-base, or 0 for free ports")]
    Listen {
        /// The port asked for.
        port: u16,
        /// What for.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A calendar file cannot be read.
    #[error("calendar file `{path}` cannot be opened")]
    CalendarFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A calendar file is no calendar.
    #[error("calendar file `{path}` cannot be loaded")]
    Calendar {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PersonError,
    },
}

/// Says that nobody has this address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nobody has the address or id `{0}`; `GET /mailboxes` lists everybody")]
pub struct UnknownPerson(pub String);

/// What the control API and the tests act on.
#[derive(Debug)]
pub(crate) struct Clouds {
    pub(crate) world: Arc<World>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) org: Arc<Org>,
    pub(crate) hub: Arc<HubLog>,
    pub(crate) hub_handle: HubHandle,
    pub(crate) endpoints: Endpoints,
}

impl Clouds {
    /// Finds a person by address, Graph user id or Salesforce user id.
    pub(crate) fn person(&self, name: &str) -> Result<Person, UnknownPerson> {
        let found = self.endpoints.mailboxes.iter().find(|mailbox| {
            mailbox.address.eq_ignore_ascii_case(name)
                || mailbox.user_id.eq_ignore_ascii_case(name)
                || mailbox.salesforce_user_id == name
        });
        let mailbox = found.ok_or_else(|| UnknownPerson(name.to_owned()))?;
        Ok(Person::new(Arc::clone(&self.tenant), Arc::clone(&self.org), mailbox.clone()))
    }

    /// Judges everything that happened so far.
    pub(crate) fn judge(&self, terms: &Terms) -> oracle::Report {
        // States are read before the history: a change in between makes its meeting pending instead of diverged.
        let mailboxes = &self.endpoints.mailboxes;
        let outlook = mailboxes.iter().flat_map(|mailbox| self.tenant.events(&mailbox.user_id)).collect();
        let salesforce = self.org.records();
        let people =
            mailboxes.iter().map(|mailbox| (mailbox.user_id.clone(), mailbox.salesforce_user_id.clone())).collect();
        let effects = self.world.history.since(0);
        let mails = self.world.mails.all();
        let evidence = Evidence { effects, mails, outlook, salesforce, people, now: self.world.clock.now() };
        oracle::judge(&evidence, terms)
    }
}

/// A running sandbox; stops when told to, and at the latest when dropped.
#[derive(Debug)]
pub struct Sandbox {
    clouds: Arc<Clouds>,
    loaded: Vec<LoadedCalendar>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _temporary: Option<TempDir>,
}

impl Sandbox {
    /// Starts all servers; when this returns they accept connections.
    ///
    /// # Errors
    /// [`SandboxError`] for options out of range, ports that are taken, and calendar files that cannot be read. Parts of a
    /// calendar that cannot be loaded are no error; [`Sandbox::loaded_calendars`] lists them.
    pub async fn start(options: Options) -> Result<Self, SandboxError> {
        check(&options)?;
        tls::install_crypto_provider();
        let (temporary, state_dir) = state_dir(&options)?;
        let authority = TlsAuthority::create(&state_dir)?;
        let jwt_key = Arc::new(JwtKey::generate().map_err(|error| SandboxError::Key(error.to_string()))?);
        let jwt_key_file = state_dir.join("salesforce-jwt-key.pem");
        jwt_key
            .write_private_pem(&jwt_key_file)
            .map_err(|source| SandboxError::StateDir { path: jwt_key_file.clone(), source })?;

        let listeners = bind_all(options.port_base).await?;
        let clock = SandboxClock::new(options.start_at.unwrap_or_else(present), options.speed);
        let world = World::new(clock, options.profile, options.seed);
        let hub = HubLog::new(clock, HUB, options.partitions);
        let identity = new_identity(&world);
        let tenant = new_tenant(&world, &hub, identity.clone());
        let org = Org::new(Arc::clone(&world), OrgIdentity::draw(&world, jwt_key));
        let mailboxes = (0..options.mailboxes).map(|number| new_person(number, &tenant, &org)).collect();
        let sas_key = STANDARD.encode(world.draw(rand::Rng::random::<[u8; 32]>));
        let access = HubAccess::new(HUB, SAS_KEY_NAME, &sas_key, tenant.entra().hub_check());
        let endpoints = Endpoints {
            ca_certificate: authority.ca_path().display().to_string(),
            control_url: format!("http://127.0.0.1:{}", listeners.ports[0]),
            microsoft: microsoft(identity, &listeners),
            event_hubs: event_hubs_endpoints(&hub, &sas_key, &listeners),
            salesforce: salesforce_endpoints(&org, &jwt_key_file, &listeners),
            mailboxes,
            clock: endpoints::Clock { start_at: clock.epoch().to_rfc3339(), speed: clock.speed() },
        };
        org.set_addresses(&endpoints.salesforce.instance_http, &endpoints.salesforce.instance_https);
        let clouds = Arc::new(Clouds { world, tenant, org, hub, hub_handle: access.handle.clone(), endpoints });
        let loaded = load_calendars(&clouds, &options.calendars)?;

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        serve_all(&clouds, &authority, &access, listeners.sockets, &stop, &tasks);
        tasks.close();
        Ok(Self { clouds, loaded, stop, tasks, _temporary: temporary })
    }

    /// Returns every address and credential.
    pub fn endpoints(&self) -> &Endpoints {
        &self.clouds.endpoints
    }

    /// Returns clock, switches, history and counters.
    pub fn world(&self) -> &Arc<World> {
        &self.clouds.world
    }

    /// Returns the Outlook side.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.clouds.tenant
    }

    /// Returns the Salesforce side.
    pub fn org(&self) -> &Arc<Org> {
        &self.clouds.org
    }

    /// Returns the hub's log.
    pub fn hub(&self) -> &Arc<HubLog> {
        &self.clouds.hub
    }

    /// Returns the hub's connections and readers.
    pub fn hub_handle(&self) -> &HubHandle {
        &self.clouds.hub_handle
    }

    /// Returns what became of the calendar files given at start.
    pub fn loaded_calendars(&self) -> &[LoadedCalendar] {
        &self.loaded
    }

    /// Finds a person by address, Graph user id or Salesforce user id.
    ///
    /// # Errors
    /// [`UnknownPerson`] when nobody answers to that.
    pub fn person(&self, name: &str) -> Result<Person, UnknownPerson> {
        self.clouds.person(name)
    }

    /// Returns the nth person of the endpoints' mailboxes, from 0.
    pub fn person_number(&self, number: usize) -> Option<Person> {
        let mailbox = self.clouds.endpoints.mailboxes.get(number)?;
        self.clouds.person(&mailbox.address).ok()
    }

    /// Does something to the clouds that no switch can name; returns how many connections, records or people it befell.
    ///
    /// # Errors
    /// [`UnknownPerson`] when it names nobody.
    pub fn act(&self, act: &Act) -> Result<usize, UnknownPerson> {
        self.clouds.act(act)
    }

    /// Judges everything that happened so far, on the usual terms.
    pub fn oracle(&self) -> oracle::Report {
        self.clouds.judge(&Terms::default())
    }

    /// Judges everything that happened so far.
    pub fn judge(&self, terms: &Terms) -> oracle::Report {
        self.clouds.judge(terms)
    }

    /// Stops all servers and waits until the last connection has ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn check(options: &Options) -> Result<(), SandboxError> {
    let wrong = |message: String| Err(SandboxError::Option(message));
    if !(1..=100_000).contains(&options.mailboxes) {
        return wrong(format!("`{}` mailboxes are out of range; use 1 to 100000", options.mailboxes));
    }
    if !(1..=32).contains(&options.partitions) {
        return wrong(format!("`{}` partitions are out of range; use 1 to 32", options.partitions));
    }
    if !(0.001..=10_000.0).contains(&options.speed) {
        return wrong(format!("speed `{}` is out of range; use 0.001 to 10000", options.speed));
    }
    let last = u16::MAX - u16::try_from(LISTENERS.len()).unwrap_or_default() + 1;
    if options.port_base > last {
        return wrong(format!("port base `{}` leaves no room for {} ports", options.port_base, LISTENERS.len()));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place where the sandbox's clock is set by the wall clock")]
fn present() -> DateTime<Utc> {
    Utc::now()
}

fn state_dir(options: &Options) -> Result<(Option<TempDir>, PathBuf), SandboxError> {
    if let Some(path) = &options.state_dir {
        std::fs::create_dir_all(path).map_err(|source| SandboxError::StateDir { path: path.clone(), source })?;
        return Ok((None, path.clone()));
    }
    let folder = tempfile::Builder::new()
        .prefix("calbridge-sandbox-")
        .tempdir()
        .map_err(|source| SandboxError::StateDir { path: std::env::temp_dir(), source })?;
    let path = folder.path().to_owned();
    Ok((Some(folder), path))
}

/// Bound sockets in the order of [`LISTENERS`], with their ports.
struct Listeners {
    sockets: [TcpListener; LISTENERS.len()],
    ports: [u16; LISTENERS.len()],
}

async fn bind_all(port_base: u16) -> Result<Listeners, SandboxError> {
    let mut sockets = Vec::new();
    let mut ports = [0; LISTENERS.len()];
    let mut port = port_base;
    for (what, bound) in LISTENERS.into_iter().zip(&mut ports) {
        let failed = |source| SandboxError::Listen { port, what, source };
        let socket = net::bind(port).await.map_err(failed)?;
        *bound = socket.local_addr().map_err(failed)?.port();
        sockets.push(socket);
        if port_base != 0 {
            port = port.saturating_add(1);
        }
    }
    let sockets = sockets.try_into().expect("one socket was pushed per listener");
    Ok(Listeners { sockets, ports })
}

fn new_identity(world: &World) -> TenantIdentity {
    let drawn = || uuid::Builder::from_random_bytes(world.draw(rand::Rng::random)).into_uuid();
    TenantIdentity {
        tenant_id: drawn(),
        domain: DOMAIN.to_owned(),
        client_id: drawn().to_string(),
        client_secret: format!("sandbox~{}", drawn().simple()),
        hub: HUB.to_owned(),
    }
}

fn new_tenant(world: &Arc<World>, hub: &Arc<HubLog>, identity: TenantIdentity) -> Arc<Tenant> {
    let (hub, tapped) = (Arc::clone(hub), Arc::clone(world));
    let publish = Arc::new(move |body: Vec<u8>| {
        if tapped.tap.is_on() {
            tapped.tap.tell(Heard::HubMessage(Payload::of(&body)));
        }
        hub.publish(body, None);
    });
    Tenant::new(Arc::clone(world), identity, publish)
}

fn new_person(number: usize, tenant: &Tenant, org: &Org) -> Mailbox {
    let somebody = roster::somebody(number);
    let zone = somebody.zone.name().to_owned();
    let user_id = tenant.add_mailbox(NewMailbox {
        address: somebody.address.clone(),
        name: somebody.name.clone(),
        zone: zone.clone(),
        user_id: None,
    });
    let salesforce_user_id = org.add_user(NewUser {
        username: somebody.address.clone(),
        email: somebody.address.clone(),
        name: somebody.name.clone(),
        zone: zone.clone(),
    });
    Mailbox {
        user_id,
        address: somebody.address.clone(),
        name: somebody.name,
        zone,
        salesforce_user_id,
        salesforce_username: somebody.address,
    }
}

fn microsoft(identity: TenantIdentity, listeners: &Listeners) -> endpoints::Microsoft {
    let (http, https) = (listeners.ports[1], listeners.ports[2]);
    endpoints::Microsoft {
        tenant_id: identity.tenant_id.to_string(),
        domain: identity.domain,
        client_id: identity.client_id,
        client_secret: identity.client_secret,
        authority_https: format!("https://localhost:{https}"),
        authority_http: format!("http://127.0.0.1:{http}"),
        graph_http: format!("http://127.0.0.1:{http}/v1.0"),
        graph_https: format!("https://localhost:{https}/v1.0"),
    }
}

fn event_hubs_endpoints(hub: &HubLog, sas_key: &str, listeners: &Listeners) -> endpoints::EventHubs {
    let (amqp, amqps) = (listeners.ports[3], listeners.ports[4]);
    endpoints::EventHubs {
        host: "localhost".to_owned(),
        amqps_port: amqps,
        amqp_port: amqp,
        hub: HUB.to_owned(),
        consumer_group: "$Default".to_owned(),
        partitions: hub.partitions(),
        connection_string: format!(
            "Endpoint=sb://localhost:{amqp};SharedAccessKeyName={SAS_KEY_NAME};SharedAccessKey={sas_key};\
             UseDevelopmentEmulator=true;"
        ),
        notification_url: format!("EventHub:https://localhost/eventhubname/{HUB}?tenantId={DOMAIN}"),
    }
}

fn salesforce_endpoints(org: &Org, jwt_key_file: &Path, listeners: &Listeners) -> endpoints::Salesforce {
    let identity = org.identity();
    let http = format!("http://127.0.0.1:{}", listeners.ports[5]);
    let https = format!("https://localhost:{}", listeners.ports[6]);
    endpoints::Salesforce {
        org_id: identity.org_id.clone(),
        login_http: http.clone(),
        login_https: https.clone(),
        instance_http: http,
        instance_https: https,
        pubsub: format!("localhost:{}", listeners.ports[7]),
        client_id: identity.client_id.clone(),
        client_secret: identity.client_secret.clone(),
        username: identity.username.clone(),
        user_id: org.integration_user_id().to_owned(),
        jwt_key_file: jwt_key_file.display().to_string(),
        api_version: SALESFORCE_API_VERSION.to_owned(),
    }
}

fn load_calendars(clouds: &Clouds, files: &[PathBuf]) -> Result<Vec<LoadedCalendar>, SandboxError> {
    let mut all = Vec::new();
    for path in files {
        let bytes = std::fs::read(path).map_err(|source| SandboxError::CalendarFile { path: path.clone(), source })?;
        let first = clouds.endpoints.mailboxes.first().map(|mailbox| mailbox.address.as_str()).unwrap_or_default();
        let person = clouds.person(first).map_err(|error| SandboxError::Option(error.to_string()))?;
        let mut loaded =
            person.load_calendar(&bytes).map_err(|source| SandboxError::Calendar { path: path.clone(), source })?;
        loaded.file = Some(path.display().to_string());
        all.push(loaded);
    }
    Ok(all)
}

fn serve_all(
    clouds: &Arc<Clouds>,
    authority: &TlsAuthority,
    access: &HubAccess,
    listeners: [TcpListener; LISTENERS.len()],
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let control = crate::control::router(Arc::clone(clouds));
    let org = salesforce::router(Arc::clone(&clouds.org));
    let pubsub = salesforce::pubsub(Arc::clone(&clouds.org));
    let web = || Some(authority.server_config(&[b"h2", b"http/1.1"]));
    let [control_socket, graph_http, graph_https, amqp, amqps, org_http, org_https, pubsub_socket] = listeners;
    for (socket, tls, router) in [
        (control_socket, None, control),
        (graph_http, None, graph::router(Arc::clone(&clouds.tenant))),
        (graph_https, web(), graph::secure_router(Arc::clone(&clouds.tenant))),
        (org_http, None, org.clone()),
        (org_https, web(), org),
        (pubsub_socket, Some(authority.server_config(&[b"h2"])), pubsub),
    ] {
        tasks.spawn(net::serve_router(socket, tls, router, stop.clone()));
    }
    for (socket, tls) in [(amqp, None), (amqps, Some(authority.server_config(&[])))] {
        let log = Arc::clone(&clouds.hub);
        tasks.spawn(event_hubs::serve(socket, tls, log, access.clone(), stop.clone()));
    }
    tasks.spawn(Arc::clone(&clouds.tenant).run(stop.clone()));
    tasks.spawn(Arc::clone(&clouds.org).run(stop.clone()));
    tasks.spawn(crate::faults::hostile::run(Arc::clone(clouds), stop.clone()));
}
