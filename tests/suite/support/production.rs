//! A configuration as production has it, with the sandbox's addresses: secrets in files of their own, and Event Hubs read
//! with a token from Entra instead of a shared access key.

use std::fmt::Write as _;
use std::path::PathBuf;

use calbridge::config;

use super::Rehearsal;
use super::process::{Bench, Ended, Running, call};

/// The two files that hold secrets.
pub(crate) struct SecretFiles {
    pub(crate) config: PathBuf,
    pub(crate) outlook: PathBuf,
    pub(crate) salesforce: PathBuf,
}

impl SecretFiles {
    /// Writes configuration and secrets into the rehearsal's folder; `settings` are further sections in YAML.
    pub(crate) fn write(rehearsal: &Rehearsal, settings: &str) -> Self {
        let folder = rehearsal.folder();
        let files = Self {
            config: folder.join("production.yaml"),
            outlook: folder.join("outlook-secret"),
            salesforce: folder.join("salesforce-secret"),
        };
        let endpoints = rehearsal.sandbox.endpoints();
        let (microsoft, hub, salesforce) = (&endpoints.microsoft, &endpoints.event_hubs, &endpoints.salesforce);
        std::fs::write(&files.outlook, format!("{}\n", microsoft.client_secret)).unwrap();
        std::fs::write(&files.salesforce, format!("{}\n", salesforce.client_secret)).unwrap();
        let mut text = format!(
            "connection: {{ id: rehearsal }}
store: {{ url: sqlite:calbridge.db }}
network: {{ ca_file: {ca} }}
outlook:
  tenant_id: {tenant}
  client_id: {client}
  client_secret_file: outlook-secret
  authority: {authority}
  graph_url: {graph}
event_hubs:
  namespace: {namespace}
  hub: {hub_name}
  notification_url: {notify}
  custom_endpoint: amqp://127.0.0.1:{port}
salesforce:
  login_url: {login}
  client_id: {key}
  client_secret_file: salesforce-secret
  pubsub_endpoint: {pubsub}
enrolments:
",
            ca = endpoints.ca_certificate,
            tenant = microsoft.tenant_id,
            client = microsoft.client_id,
            authority = microsoft.authority_https,
            graph = microsoft.graph_https,
            namespace = hub.host,
            hub_name = hub.hub,
            notify = hub.notification_url,
            port = hub.amqp_port,
            login = salesforce.login_https,
            key = salesforce.client_id,
            pubsub = salesforce.pubsub,
        );
        for mailbox in &endpoints.mailboxes {
            writeln!(text, "  - mailbox: {}\n    salesforce_user: {}", mailbox.address, mailbox.salesforce_username)
                .unwrap();
        }
        text.push_str(settings);
        std::fs::write(&files.config, text).unwrap();
        files
    }

    /// Has an administrator replace both secrets; returns the new ones, that of Outlook first. The files are as before.
    pub(crate) fn rotate(rehearsal: &Rehearsal) -> (String, String) {
        (rehearsal.sandbox.tenant().entra().rotate_secret(), rehearsal.sandbox.org().rotate_secret())
    }

    /// Puts other secrets into the files.
    pub(crate) fn store(&self, secrets: &(String, String)) {
        std::fs::write(&self.outlook, format!("{}\n", secrets.0)).unwrap();
        std::fs::write(&self.salesforce, format!("{}\n", secrets.1)).unwrap();
    }
}

impl Rehearsal {
    /// Gives the next engine a production configuration.
    pub(crate) fn like_production(mut self, settings: &str) -> (Self, SecretFiles) {
        let files = SecretFiles::write(&self, settings);
        self.config = config::load_file(Some(&files.config)).unwrap_or_else(|problems| panic!("{problems:#?}"));
        (self, files)
    }
}

impl Bench {
    /// Writes a production configuration, with the bench's web address.
    pub(crate) fn like_production(&self, settings: &str) -> SecretFiles {
        SecretFiles::write(&self.rehearsal, &format!("web: {{ address: {} }}\n{settings}", self.web))
    }

    /// Runs `calbridge check` on a production configuration.
    pub(crate) async fn check_in_production(files: &SecretFiles) -> Ended {
        call(&["check", "--config", files.config.to_str().unwrap()]).await
    }

    /// Starts `calbridge run` on a production configuration and waits for nothing.
    pub(crate) fn start_in_production(files: &SecretFiles) -> Running {
        Running::start(&["run", "--config", files.config.to_str().unwrap()])
    }
}
