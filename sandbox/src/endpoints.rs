//! The endpoints file: every address and credential that a client needs.

use serde::{Deserialize, Serialize};

/// One JSON object, written when all servers accept connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    /// PEM file of the CA that signed every TLS listener.
    pub ca_certificate: String,
    /// Base of the control API, `http://127.0.0.1:PORT`.
    pub control_url: String,
    /// Entra and Graph.
    pub microsoft: Microsoft,
    /// Event Hubs.
    pub event_hubs: EventHubs,
    /// Salesforce.
    pub salesforce: Salesforce,
    /// Mailboxes with their Salesforce users.
    pub mailboxes: Vec<Mailbox>,
    /// Sandbox time at start (RFC 3339) and sandbox seconds per real second.
    pub clock: Clock,
}

/// Entra and Graph addresses and the app registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Microsoft {
    /// Tenant id (guid).
    pub tenant_id: String,
    /// Primary domain of the tenant.
    pub domain: String,
    /// Client id (guid).
    pub client_id: String,
    /// Client secret.
    pub client_secret: String,
    /// Authority over https, `https://localhost:PORT`.
    pub authority_https: String,
    /// Authority over http, `http://127.0.0.1:PORT`.
    pub authority_http: String,
    /// Graph base over http, `http://127.0.0.1:PORT/v1.0`.
    pub graph_http: String,
    /// Graph base over https, `https://localhost:PORT/v1.0`.
    pub graph_https: String,
}

/// Event Hubs addresses and keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventHubs {
    /// Host name of the namespace as clients give it, `localhost`.
    pub host: String,
    /// Port of AMQP over TLS.
    pub amqps_port: u16,
    /// Port of AMQP without TLS.
    pub amqp_port: u16,
    /// Name of the hub.
    pub hub: String,
    /// Consumer group, `$Default`.
    pub consumer_group: String,
    /// Number of partitions.
    pub partitions: usize,
    /// Connection string in the form of the development emulator.
    pub connection_string: String,
    /// `EventHub:` URL to give as a subscription's `notificationUrl`.
    pub notification_url: String,
}

/// Salesforce addresses and the connected app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Salesforce {
    /// 18-character organisation id.
    pub org_id: String,
    /// Login host over http.
    pub login_http: String,
    /// Login host over https.
    pub login_https: String,
    /// Instance over http.
    pub instance_http: String,
    /// Instance over https.
    pub instance_https: String,
    /// Pub/Sub API, `localhost:PORT`, TLS with HTTP/2.
    pub pubsub: String,
    /// Consumer key.
    pub client_id: String,
    /// Consumer secret.
    pub client_secret: String,
    /// Username of the integration user.
    pub username: String,
    /// 18-character id of the integration user.
    pub user_id: String,
    /// PEM file with the private key that the JWT bearer flow signs with.
    pub jwt_key_file: String,
    /// API version served, `66.0`.
    pub api_version: String,
}

/// One mailbox and its Salesforce user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mailbox {
    /// Graph user id (guid).
    pub user_id: String,
    /// Address and user principal name.
    pub address: String,
    /// Display name.
    pub name: String,
    /// IANA zone of the mailbox.
    pub zone: String,
    /// 18-character Salesforce user id.
    pub salesforce_user_id: String,
    /// Salesforce username.
    pub salesforce_username: String,
}

/// The sandbox's clock, so that a client can keep the same time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Clock {
    /// Sandbox time at start, RFC 3339.
    pub start_at: String,
    /// Sandbox seconds per real second.
    pub speed: f64,
}
