//! Checked values become the typed configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use calbridge_core::ids::ConnectionId;
use calbridge_core::policy::{DeleteConflict, FirstContact, Guard, MailPolicy, Mode, Policy, Timers};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;

use super::model::{
    Config, Enrolment, EventHubs, LogConfig, LogFormat, MappingSource, Network, Outlook, Redis, Rehearsal, Salesforce,
    SalesforceAuth, StoreConfig, StorePlace, Sweep, SyncConfig, Web,
};
use super::options::{Kind, OPTIONS};
use super::values::Values;
use crate::secret::Secret;

/// Builds the configuration; called only when nothing was wrong.
pub(super) fn build(values: &Values, enrolments: Vec<Enrolment>, mapping: MappingSource) -> Config {
    Config {
        warnings: Vec::new(),
        connection: ConnectionId::new(values.text("connection.id")),
        outlook: outlook(values),
        event_hubs: event_hubs(values),
        salesforce: salesforce(values),
        network: Network {
            ca_file: values.path("network.ca_file"),
            request_timeout: secs(values, "network.request_timeout_secs"),
        },
        enrolments,
        mapping,
        policy: policy(values),
        sync: SyncConfig { workers: values.count("sync.workers"), lease: secs(values, "sync.lease_secs") },
        sweep: Sweep { outlook: secs(values, "sweep.outlook_secs"), salesforce: secs(values, "sweep.salesforce_secs") },
        store: StoreConfig {
            place: match values.optional_text("store.url") {
                Some(url) => StorePlace::Postgres { url, password: values.secret("store.password") },
                None => StorePlace::File(values.path("store.url").unwrap_or_default()),
            },
            key_file: values.path("store.key_file"),
            restored: false,
        },
        redis: Redis {
            url: values.secret("redis.url").map(|secret| secret.text().clone()),
            ttl: Duration::from_hours(values.count("redis.ttl_hours")),
            claim: secs(values, "redis.claim_secs"),
        },
        web: Web {
            address: values.text("web.address").parse().unwrap_or_else(|_checked_before| ([127, 0, 0, 1], 9465).into()),
        },
        log: LogConfig {
            format: if values.text("log.format") == "json" { LogFormat::Json } else { LogFormat::Text },
            level: values.text("log.level"),
        },
        rehearsal: Rehearsal {
            start_at: values
                .optional_text("rehearsal.start_at")
                .and_then(|text| DateTime::parse_from_rfc3339(&text).ok())
                .map(|at| at.with_timezone(&Utc)),
            clock_url: values.optional_text("rehearsal.clock_url"),
            speed: values.decimal("rehearsal.speed"),
        },
        places: OPTIONS
            .iter()
            .filter(|option| {
                matches!(
                    option.kind,
                    Kind::Url | Kind::SecretUrl | Kind::StoreUrl | Kind::Host | Kind::HostPort | Kind::AmqpUrl
                )
            })
            .filter_map(|option| Some((option.key, values.place(option.key)?.clone())))
            .collect(),
    }
}

fn outlook(values: &Values) -> Outlook {
    Outlook {
        tenant_id: values.text("outlook.tenant_id"),
        client_id: values.text("outlook.client_id"),
        client_secret: secret(values, "outlook.client_secret"),
        authority: base(values, "outlook.authority"),
        graph_url: base(values, "outlook.graph_url"),
        concurrent_requests_per_mailbox: values.count("outlook.concurrent_requests_per_mailbox"),
        requests_per_mailbox_per_min: values.count("outlook.requests_per_mailbox_per_min"),
        subscription_lifetime: mins(values, "outlook.subscription_lifetime_mins"),
    }
}

fn event_hubs(values: &Values) -> EventHubs {
    EventHubs {
        namespace: values.text("event_hubs.namespace"),
        hub: values.text("event_hubs.hub"),
        consumer_group: values.text("event_hubs.consumer_group"),
        notification_url: values.text("event_hubs.notification_url"),
        connection_string: values.secret("event_hubs.connection_string"),
        custom_endpoint: values.optional_text("event_hubs.custom_endpoint"),
    }
}

fn salesforce(values: &Values) -> Salesforce {
    let client_id = values.text("salesforce.client_id");
    Salesforce {
        login_url: base(values, "salesforce.login_url"),
        auth: if values.text("salesforce.auth") == "jwt_bearer" {
            SalesforceAuth::JwtBearer {
                client_id,
                username: values.text("salesforce.username"),
                private_key_pem: secret(values, "salesforce.private_key"),
                audience: values.optional_text("salesforce.audience"),
            }
        } else {
            SalesforceAuth::ClientCredentials { client_id, client_secret: secret(values, "salesforce.client_secret") }
        },
        pubsub_endpoint: values.text("salesforce.pubsub_endpoint"),
        api_version: values.text("salesforce.api_version"),
        conditional_updates: values.flag("salesforce.conditional_updates"),
        concurrent_requests: values.count("salesforce.concurrent_requests"),
        requests_per_min: values.count("salesforce.requests_per_min"),
        automation_users: values
            .optional_text("salesforce.automation_users")
            .iter()
            .flat_map(|names| names.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect(),
    }
}

fn policy(values: &Values) -> Policy {
    let seconds = |key| TimeDelta::seconds(values.whole(key));
    let millis = |key| TimeDelta::milliseconds(values.whole(key));
    Policy {
        restored_at: None,
        mode: if values.text("sync.mode") == "observe" { Mode::Observe } else { Mode::Sync },
        first_contact: match values.text("sync.first_contact").as_str() {
            "outlook" => FirstContact::Outlook,
            "salesforce" => FirstContact::Salesforce,
            _ => FirstContact::NewOnly,
        },
        outlook_conditional_writes: values.flag("outlook.conditional_writes"),
        salesforce_stampable: true,
        delete_conflict: if values.text("sync.delete_conflict") == "edit_wins" {
            DeleteConflict::EditWins
        } else {
            DeleteConflict::DeleteWins
        },
        mail: match values.text("mail.policy").as_str() {
            "never" => MailPolicy::Never,
            "always" => MailPolicy::Always,
            _ => MailPolicy::PersonEdits,
        },
        past_meetings: values.flag("mail.past_meetings"),
        // Their ids are found when the engine signs in.
        automation_users: BTreeSet::new(),
        guard: Guard {
            deletes_least: values.count("guard.deletes_in_mailbox"),
            deletes_percent: values.count("guard.deletes_in_mailbox_percent"),
            deletes_by_author: values.count("guard.deletes_by_author"),
            mails_by_author: values.count("mail.by_author_in_10_mins"),
            ..Guard::default()
        },
        timers: Timers {
            quiet: millis("sync.quiet_ms"),
            max_wait: millis("sync.max_wait_ms"),
            absence_proof: seconds("sync.absence_proof_secs"),
            settle_read: seconds("sync.settle_read_secs"),
            request_timeout: seconds("network.request_timeout_secs"),
            late_apply: seconds("sync.late_apply_secs"),
            retry_min: millis("sync.retry_min_ms"),
            retry_max: seconds("sync.retry_max_secs"),
            max_tries: values.count("sync.max_tries"),
            delete_wait: seconds("sync.delete_wait_secs"),
            mail_quiet: seconds("mail.quiet_secs"),
            mail_max_wait: seconds("mail.max_wait_secs"),
            ..Timers::default()
        },
    }
}

fn secs(values: &Values, key: &str) -> Duration {
    Duration::from_secs(values.count(key))
}

fn mins(values: &Values, key: &str) -> Duration {
    Duration::from_mins(values.count(key))
}

fn secret(values: &Values, key: &str) -> Secret {
    values.secret(key).unwrap_or_else(|| SecretString::default().into())
}

/// Returns an address without slashes at its end, so that paths can be put behind it.
fn base(values: &Values, key: &str) -> String {
    values.text(key).trim_end_matches('/').to_owned()
}
