//! All of Outlook: sign-in, reads and writes through Microsoft Graph, subscriptions, and the listeners.
//!
//! [`Outlook`] puts the parts together for one connection. The engine sees only the ports that they implement.
//!
//! ```text
//!   calendar ──> convert ──> wire            listen/event_hubs ──> listen/notification ──> signals
//!      └─> batch ─> client ─> auth                                        │ nudges
//!   subscriptions ─┘                         subscriptions <─────────────┘
//! ```

mod auth;
mod batch;
mod calendar;
mod check;
mod client;
mod convert;
pub mod error;
#[cfg(test)]
mod hostile_tests;
pub mod listen;
mod subscriptions;
#[cfg(test)]
mod testing;
mod wire;
mod zones;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use calbridge_core::ids::ConnectionId;
use chrono::TimeDelta;
use tokio::sync::watch;

pub use auth::{AuthSettings, Bearer, EVENT_HUBS_SCOPE, GRAPH_SCOPE, HubCredential, TokenSource};
pub use calendar::OutlookCalendar;
pub use convert::STAMP_PROPERTY;
pub use listen::Nudges;
pub use listen::event_hubs::HubListener;
pub use listen::hub_connection::HubSettings;
pub use subscriptions::{ClientStates, SubscriptionListener, SubscriptionSettings};

use crate::ports::{Clock, EnrolmentRow, RemoteError, Store};
use crate::rate_limit::{Quota, RateLimits};
use client::GraphClient;

/// Everything that one connection's Outlook side is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The connection.
    pub connection: ConnectionId,
    /// Graph with its version; `https://graph.microsoft.com/v1.0` outside rehearsals.
    pub graph_url: String,
    /// Sign-in.
    pub auth: AuthSettings,
    /// Outlook fields that the mapping names (`Mapping::fields`).
    pub fields: Vec<String>,
    /// Send `If-Match` with updates and deletions; default true.
    pub conditional_writes: bool,
    /// What one mailbox may be asked; default 4 at once and 900 a minute.
    pub mailbox_quota: Quota,
    /// Longest `Retry-After` that is waited for inside a call; a longer one is handed back. Default 5 s.
    pub patience: Duration,
    /// How far back a round over a mailbox looks; default 30 days.
    pub window_back: TimeDelta,
    /// How far ahead a round over a mailbox looks; default 365 days.
    pub window_ahead: TimeDelta,
    /// Addresses that [`Calendar::check`](crate::ports::Calendar::check) tries.
    pub mailboxes: Vec<String>,
    /// Subscriptions.
    pub subscriptions: SubscriptionSettings,
    /// The hub that notifications come by; none where another road is used.
    pub hub: Option<HubSettings>,
}

impl Settings {
    /// Default of `mailbox_quota`: 900 saved up and 900 more in each minute stay under the 10,000 that Outlook allows in
    /// any 10 minutes.
    ///
    /// <https://learn.microsoft.com/graph/throttling-limits>
    pub fn default_quota() -> Quota {
        Quota { in_flight: 4, units: NonZeroU32::new(900).unwrap_or(NonZeroU32::MIN), period: Duration::from_mins(1) }
    }
}

/// One connection's Outlook side.
#[derive(Debug, Clone)]
pub struct Outlook {
    settings: Arc<Settings>,
    client: Arc<GraphClient>,
    clock: Arc<dyn Clock>,
    enrolments: watch::Receiver<Vec<EnrolmentRow>>,
    states: ClientStates,
    nudges: Nudges,
}

impl Outlook {
    /// Puts the parts together; asks nobody anything yet.
    ///
    /// # Errors
    /// `CB1314` when an address cannot be used.
    pub fn new(
        settings: Settings,
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
        enrolments: watch::Receiver<Vec<EnrolmentRow>>,
    ) -> Result<Self, RemoteError> {
        let tokens = Arc::new(TokenSource::new(http.clone(), settings.auth.clone())?);
        let client = Arc::new(GraphClient::new(
            http,
            &settings.graph_url,
            tokens,
            Arc::clone(&clock),
            RateLimits::new(settings.mailbox_quota),
            settings.patience,
        )?);
        let states = ClientStates::new(settings.auth.client_secret.text(), &settings.connection);
        Ok(Self { settings: Arc::new(settings), client, clock, enrolments, states, nudges: Nudges::default() })
    }

    /// Returns the port for reads and writes.
    pub fn calendar(&self) -> OutlookCalendar {
        OutlookCalendar {
            client: Arc::clone(&self.client),
            settings: Arc::clone(&self.settings),
            clock: Arc::clone(&self.clock),
            enrolments: self.enrolments.clone(),
        }
    }

    /// Returns the keeper of subscriptions; make a new one for each start.
    pub fn subscriptions(&self, store: Arc<dyn Store>) -> SubscriptionListener {
        SubscriptionListener {
            connection: self.settings.connection.clone(),
            settings: self.settings.subscriptions.clone(),
            client: Arc::clone(&self.client),
            clock: Arc::clone(&self.clock),
            enrolments: self.enrolments.clone(),
            states: self.states.clone(),
            nudges: self.nudges.clone(),
            store,
        }
    }

    /// Returns the listener on the hub, if there is one; make a new one for each start.
    pub fn hub(&self, store: Arc<dyn Store>) -> Option<HubListener> {
        let settings = self.settings.hub.clone()?;
        Some(HubListener {
            settings,
            tokens: Arc::clone(self.client.tokens()),
            reader: listen::notification::Reader::new(
                self.settings.connection.clone(),
                self.settings.auth.tenant.clone(),
                self.states.clone(),
                self.enrolments.clone(),
                self.nudges.clone(),
                Arc::clone(&self.clock),
            ),
            store,
        })
    }
}
