//! The configuration for the local sandbox: its endpoints file gives addresses and credentials.
//!
//! The endpoints file is the sandbox's public form, read here as any client would; no type is shared with it.

use std::path::Path;

use calbridge_core::document::Place;
use serde::Deserialize;

use super::load::{Disk, Files, Sources, environment, load, read_config};
use super::model::Config;
use super::problem::{ConfigProblem, ENDPOINTS};

/// Settings for rehearsals, used when no file is given: they write at once and on everything.
pub const SANDBOX_YAML: &str = include_str!("../../config/sandbox.yaml");

#[derive(Deserialize)]
struct Endpoints {
    ca_certificate: String,
    control_url: String,
    microsoft: Microsoft,
    event_hubs: EventHubs,
    salesforce: Salesforce,
    mailboxes: Vec<Mailbox>,
    clock: Clock,
}

#[derive(Deserialize)]
struct Microsoft {
    tenant_id: String,
    client_id: String,
    client_secret: String,
    authority_https: String,
    graph_https: String,
}

#[derive(Deserialize)]
struct EventHubs {
    host: String,
    amqp_port: u16,
    hub: String,
    consumer_group: String,
    connection_string: String,
    notification_url: String,
}

#[derive(Deserialize)]
struct Salesforce {
    login_https: String,
    pubsub: String,
    client_id: String,
    client_secret: String,
    api_version: String,
}

#[derive(Deserialize)]
struct Mailbox {
    address: String,
    salesforce_username: String,
}

#[derive(Deserialize)]
struct Clock {
    start_at: String,
    speed: f64,
}

impl Config {
    /// Makes a configuration from the text of an endpoints file and, where given, a configuration file under it.
    ///
    /// The file tells the time at the sandbox's start; `rehearsal.clock_url` leads to its present time.
    ///
    /// # Errors
    /// Every problem.
    pub fn for_sandbox(
        endpoints: &str,
        file: Option<(std::path::PathBuf, String)>,
        files: &dyn Files,
    ) -> Result<Self, Vec<ConfigProblem>> {
        from_endpoints("endpoints file", endpoints, file, Vec::new(), files)
    }
}

/// Loads the configuration for a sandbox from its endpoints file, with a configuration file under it where one is given.
///
/// # Errors
/// Every problem.
pub fn load_sandbox(endpoints: &Path, file: Option<&Path>) -> Result<Config, Vec<ConfigProblem>> {
    let name = endpoints.display().to_string();
    let text = Disk.read(endpoints).map_err(|why| {
        vec![broken(&name, &format!("cannot read it: {why}; is `calbridge-sandbox serve --endpoints FILE` up?"))]
    })?;
    let file = file.map(read_config).transpose()?;
    from_endpoints(&name, &text, file, environment(), &Disk)
}

fn from_endpoints(
    name: &str,
    text: &str,
    file: Option<(std::path::PathBuf, String)>,
    environment: Vec<(String, String)>,
    files: &dyn Files,
) -> Result<Config, Vec<ConfigProblem>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let endpoints: Endpoints = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        // Serde's own words may quote a value; the line and the path are enough to find it.
        let line = error.inner().line();
        vec![broken(
            name,
            &format!("`{path}` near line {line} is not as the local sandbox writes it; let it write the file anew"),
        )]
    })?;
    let file = file.or_else(|| Some((Path::new("sandbox.yaml (built in)").to_path_buf(), SANDBOX_YAML.to_owned())));
    load(&Sources {
        file,
        given: values(&endpoints, &Place::whole(name)),
        given_enrolments: endpoints
            .mailboxes
            .iter()
            .map(|mailbox| (mailbox.address.clone(), mailbox.salesforce_username.clone()))
            .collect(),
        environment,
        files,
    })
}

fn broken(name: &str, message: &str) -> ConfigProblem {
    ConfigProblem::new(&Place::whole(name), ENDPOINTS, message)
}

fn values(endpoints: &Endpoints, place: &Place) -> Vec<(String, String, Place)> {
    let (microsoft, hub, salesforce) = (&endpoints.microsoft, &endpoints.event_hubs, &endpoints.salesforce);
    // Plain AMQP on loopback: the SDK trusts the system's certificates only.
    let clock_url = format!("{}/clock", endpoints.control_url.trim_end_matches('/'));
    let custom_endpoint = format!("amqp://127.0.0.1:{}", hub.amqp_port);
    [
        ("outlook.tenant_id", &microsoft.tenant_id),
        ("outlook.client_id", &microsoft.client_id),
        ("outlook.client_secret", &microsoft.client_secret),
        ("outlook.authority", &microsoft.authority_https),
        ("outlook.graph_url", &microsoft.graph_https),
        ("event_hubs.namespace", &hub.host),
        ("event_hubs.hub", &hub.hub),
        ("event_hubs.consumer_group", &hub.consumer_group),
        ("event_hubs.notification_url", &hub.notification_url),
        ("event_hubs.connection_string", &hub.connection_string),
        ("event_hubs.custom_endpoint", &custom_endpoint),
        ("salesforce.login_url", &salesforce.login_https),
        ("salesforce.auth", &"client_credentials".to_owned()),
        ("salesforce.client_id", &salesforce.client_id),
        ("salesforce.client_secret", &salesforce.client_secret),
        ("salesforce.pubsub_endpoint", &salesforce.pubsub),
        ("salesforce.api_version", &salesforce.api_version),
        ("network.ca_file", &endpoints.ca_certificate),
        ("rehearsal.start_at", &endpoints.clock.start_at),
        ("rehearsal.clock_url", &clock_url),
        ("rehearsal.speed", &endpoints.clock.speed.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.clone(), place.clone()))
    .collect()
}
