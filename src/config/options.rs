//! Every option, once: key, type, unit, example, meaning, and what happens when it is wrong.
//!
//! Loading checks a file against this table and `config/REFERENCE.md` is printed from it, so neither can know more than
//! the other. Defaults live in `config/calbridge.default.yaml`; a test holds the two together.

/// One option of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// Dotted key.
    pub key: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// Whether it must be given.
    pub need: Need,
    /// Unit of numbers; empty for everything else.
    pub unit: &'static str,
    /// A value that could stand there.
    pub example: &'static str,
    /// What it does, in one or two sentences.
    pub meaning: &'static str,
    /// What happens when it is wrong.
    pub wrong: &'static str,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A short name: letters, digits, `-` and `_`.
    Name,
    /// A guid.
    Guid,
    /// A guid or a domain.
    Tenant,
    /// `https://HOST`, or `http://` on loopback.
    Url,
    /// An address that may hold a password, such as `redis://HOST`.
    SecretUrl,
    /// A host name without scheme and port.
    Host,
    /// `HOST:PORT`.
    HostPort,
    /// `IP:PORT` to listen on.
    Listen,
    /// `EventHub:https://...`.
    HubUrl,
    /// `amqps://HOST:PORT`, or `amqp://` on loopback.
    AmqpUrl,
    /// `67.0` and its like.
    ApiVersion,
    /// `sqlite:PATH` or `postgres://USER@HOST/DATABASE`.
    StoreUrl,
    /// A path.
    Path,
    /// A path of a file that must be there.
    ReadableFile,
    /// A password or key.
    Secret,
    /// A path of a file that holds a secret.
    SecretFile,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Whole(i64, i64),
    /// A number.
    Decimal(f64, f64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A moment with its offset.
    Instant,
    /// The list of enrolments, read by its own code.
    Enrolments,
}

impl Kind {
    /// Returns words for the reference.
    pub fn words(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Name => "name (letters, digits, `-`, `_`)".to_owned(),
            Self::Guid => "guid".to_owned(),
            Self::Tenant => "guid or domain".to_owned(),
            Self::Url => "address (`https://`; `http://` on loopback only)".to_owned(),
            Self::SecretUrl => "address, kept secret (`redis://` or `rediss://`)".to_owned(),
            Self::Host => "host name".to_owned(),
            Self::HostPort => "`HOST:PORT`".to_owned(),
            Self::Listen => "`IP:PORT`".to_owned(),
            Self::HubUrl => "`EventHub:https://...`".to_owned(),
            Self::AmqpUrl => "address (`amqps://`; `amqp://` on loopback only)".to_owned(),
            Self::ApiVersion => "version such as `66.0`".to_owned(),
            Self::StoreUrl => "`sqlite:PATH` or `postgres://USER@HOST/DATABASE`".to_owned(),
            Self::Path => "path".to_owned(),
            Self::ReadableFile => "path of a file".to_owned(),
            Self::Secret => "secret".to_owned(),
            Self::SecretFile => "path of a file that holds the secret".to_owned(),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Whole(..) => "whole number".to_owned(),
            Self::Decimal(..) => "number".to_owned(),
            Self::Choice(words) => format!("`{}`", words.join("`, `")),
            Self::Instant => "moment (RFC 3339)".to_owned(),
            Self::Enrolments => "list".to_owned(),
        }
    }

    /// Returns the range in words; empty where there is none.
    pub fn range(self) -> String {
        match self {
            Self::Whole(from, to) => format!("{from} to {to}"),
            Self::Decimal(from, to) => format!("{from} to {to}"),
            _ => String::new(),
        }
    }

    /// Tells whether the environment may set it: secrets and addresses, which differ between deployments.
    pub fn from_environment(self) -> bool {
        matches!(
            self,
            Self::Url
                | Self::SecretUrl
                | Self::Host
                | Self::HostPort
                | Self::Listen
                | Self::HubUrl
                | Self::AmqpUrl
                | Self::StoreUrl
                | Self::Secret
                | Self::SecretFile
        )
    }
}

/// Whether an option must be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It has a default, or none is fine.
    Optional,
    /// Always.
    Always,
    /// When another option has this value.
    When(&'static str, &'static str),
    /// Always, unless this other option is given instead.
    OrElse(&'static str),
    /// When the first option has the second's value, unless the third option is given instead.
    WhenOrElse(&'static str, &'static str, &'static str),
}

macro_rules! options {
    ($($key:literal: $kind:expr, $need:expr, $unit:literal, $example:literal, $meaning:literal, $wrong:literal;)*) => {
        /// Every option, in the order of the default file.
        pub const OPTIONS: &[Opt] = &[$(Opt {
            key: $key, kind: $kind, need: $need, unit: $unit, example: $example, meaning: $meaning, wrong: $wrong,
        },)*];
    };
}

use Kind::{
    AmqpUrl, ApiVersion, Choice, Decimal, Enrolments, Flag, Guid, Host, HostPort, HubUrl, Instant, Listen, Name, Path,
    ReadableFile, Secret, SecretFile, SecretUrl, StoreUrl, Tenant, Text, Url, Whole,
};
use Need::{Always, Optional, OrElse, When, WhenOrElse};

options! {
    "connection.id": Name, Always, "", "acme",
        "Name of this pair of one Outlook tenant and one Salesforce org. It is part of every stored key.",
        "A new name on an old database starts from nothing: every meeting is looked at anew, and links are rebuilt from the marks inside the events.";

    "outlook.tenant_id": Tenant, Always, "", "5f3c1e0a-6d1f-4a56-9f43-2d1f0a3b7c11",
        "The Microsoft Entra tenant that the mailboxes belong to.",
        "Signing in fails; `calbridge check` shows the answer of Entra.";
    "outlook.client_id": Guid, Always, "", "0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10",
        "Application (client) id of the app registration. It needs Calendars.ReadWrite, User.ReadBasic.All and MailboxSettings.Read as application permissions.",
        "Signing in fails with AADSTS700016.";
    "outlook.client_secret": Secret, OrElse("outlook.client_secret_file"), "", "(from the environment)",
        "Client secret of the app registration. Better kept out of the file: CALBRIDGE_OUTLOOK__CLIENT_SECRET, or `client_secret_file`.",
        "Signing in fails with AADSTS7000215 (wrong) or AADSTS7000222 (expired).";
    "outlook.client_secret_file": SecretFile, Optional, "", "/run/secrets/outlook",
        "File whose content is the client secret; blanks and line ends around it are dropped.",
        "The engine does not start.";
    "outlook.authority": Url, Always, "", "https://login.microsoftonline.com",
        "Where tokens come from. National clouds have other hosts.",
        "Signing in fails.";
    "outlook.graph_url": Url, Always, "", "https://graph.microsoft.com/v1.0",
        "Base of Microsoft Graph, version included.",
        "Every Outlook call fails.";
    "outlook.conditional_writes": Flag, Optional, "", "true",
        "Outlook refuses a write when the event changed since it was read. Leave it on unless `check` says that the tenant ignores preconditions.",
        "Off without need, a person's edit that falls between read and write may be overwritten (it stays in the journal).";
    "outlook.concurrent_requests_per_mailbox": Whole(1, 4), Optional, "requests", "4",
        "Requests that may run at once for one mailbox. Graph allows 4 for all of an app.",
        "Too low slows bursts down; several apps with one id together exceed the limit and are throttled.";
    "outlook.requests_per_mailbox_per_min": Whole(1, 900), Optional, "requests", "900",
        "Requests a minute for one mailbox. Graph allows 10000 in 10 minutes.",
        "Too high: Graph answers 429 and the mailbox pauses for as long as it says.";
    "outlook.subscription_lifetime_mins": Whole(60, 10080), Optional, "minutes", "4230",
        "For how long Graph subscriptions are asked to live.",
        "Too short costs renewals; too long is refused by Graph (10080 at most).";

    "event_hubs.namespace": Host, Always, "", "contoso.servicebus.windows.net",
        "Host of the Event Hubs namespace that Graph sends notifications to.",
        "No notification arrives from Outlook; readiness names the listener.";
    "event_hubs.hub": Text, Always, "", "graph-events",
        "Name of the hub.",
        "The listener stops with an error that names the hub.";
    "event_hubs.consumer_group": Text, Optional, "", "$Default",
        "Consumer group that is read. Give calbridge one of its own where others read the hub too.",
        "Two readers of one group take partitions away from each other.";
    "event_hubs.notification_url": HubUrl, Always, "", "EventHub:https://contoso.servicebus.windows.net/eventhubname/graph-events?tenantId=contoso.com",
        "What Graph is told to send to. `tenantId` is the primary domain of the tenant that owns the namespace; the service principal Microsoft Graph Change Tracking needs the role Azure Event Hubs Data Sender.",
        "Creating subscriptions fails; `check` shows what Graph answers.";
    "event_hubs.connection_string": Secret, Optional, "", "(from the environment)",
        "Shared access connection string with Listen. Without it the app registration signs in, which needs the role Azure Event Hubs Data Receiver.",
        "The listener cannot sign in.";
    "event_hubs.connection_string_file": SecretFile, Optional, "", "/run/secrets/event-hubs",
        "File whose content is the connection string.",
        "The engine does not start.";
    "event_hubs.custom_endpoint": AmqpUrl, Optional, "", "amqps://localhost:5671",
        "Address to connect to instead of the namespace: a private endpoint, a proxy, or the local sandbox.",
        "No notification arrives from Outlook.";

    "salesforce.login_url": Url, Always, "", "https://acme.my.salesforce.com",
        "Host that gives tokens: the My Domain address of the org.",
        "Signing in fails. Client credentials do not work on login.salesforce.com.";
    "salesforce.auth": Choice(&["client_credentials", "jwt_bearer"]), Optional, "", "client_credentials",
        "How to sign in: with the app's secret (and its run-as user), or with a signed token for `username`.",
        "Signing in fails.";
    "salesforce.client_id": Text, Always, "", "3MVG9...",
        "Consumer key of the external client app (or connected app).",
        "Signing in fails with invalid_client_id.";
    "salesforce.client_secret": Secret, WhenOrElse("salesforce.auth", "client_credentials", "salesforce.client_secret_file"), "", "(from the environment)",
        "Consumer secret, for `auth: client_credentials`. Better kept out of the file: CALBRIDGE_SALESFORCE__CLIENT_SECRET, or `client_secret_file`.",
        "Signing in fails with invalid_client.";
    "salesforce.client_secret_file": SecretFile, Optional, "", "/run/secrets/salesforce",
        "File whose content is the consumer secret.",
        "The engine does not start.";
    "salesforce.username": Text, When("salesforce.auth", "jwt_bearer"), "", "calbridge@acme.com",
        "User to act as, for `auth: jwt_bearer`. A user of its own makes our edits recognisable to people.",
        "Signing in fails with invalid_grant.";
    "salesforce.private_key_file": SecretFile, When("salesforce.auth", "jwt_bearer"), "", "/run/secrets/salesforce.pem",
        "PEM file with the RSA key whose certificate the app knows, for `auth: jwt_bearer`.",
        "The engine does not start, or signing in fails with invalid_grant.";
    "salesforce.audience": Url, Optional, "", "https://login.salesforce.com",
        "Audience of the signed token, for `auth: jwt_bearer`. None takes `login_url`.",
        "Signing in fails with `Audience validation failed`.";
    "salesforce.pubsub_endpoint": HostPort, Always, "", "api.pubsub.salesforce.com:7443",
        "Address of the Pub/Sub API that change events come from.",
        "No change arrives from Salesforce but by the sweep; readiness names the listener.";
    "salesforce.api_version": ApiVersion, Optional, "", "66.0",
        "REST API version.",
        "Versions that the org does not know are answered with 404.";
    "salesforce.conditional_updates": Flag, Optional, "", "true",
        "Send `If-Unmodified-Since` where Salesforce accepts it.",
        "Off, edits that fall between read and write are overwritten more often.";
    "salesforce.concurrent_requests": Whole(1, 25), Optional, "requests", "10",
        "Requests that may run at once for the org. Salesforce allows 25 that last longer than 20 s, for all apps together.",
        "Too high takes room from other apps; too low slows bursts down.";
    "salesforce.requests_per_min": Whole(1, 100_000), Optional, "requests", "1200",
        "Requests a minute for the org. Each counts against the org's daily limit.",
        "Too high: the daily limit is used up and nothing is written until it recovers.";

    "salesforce.automation_users": Text, Optional, "", "flow@acme.com, erp@acme.com",
        "Users whose edits are no person's: flows, integrations, loads. User names or addresses, separated by commas. calbridge's own user and bulk loads always count as such.",
        "A user left out counts as a person: what it changes may mail attendees. One that is not found is named in a warning.";

    "network.ca_file": ReadableFile, Optional, "", "/etc/ssl/company-ca.pem",
        "PEM file with certificates to trust beside the system's: a company proxy, or the local sandbox.",
        "Every call behind the proxy fails with a certificate error.";
    "network.request_timeout_secs": Whole(1, 120), Optional, "seconds", "10",
        "Longest time for one request, answer included.",
        "Too short: slow answers count as unknown results and cost a second read.";

    "enrolments": Enrolments, Always, "", "[{ mailbox: anna@contoso.com, salesforce_user: anna@acme.com }]",
        "Mailboxes to keep in step, each with its Salesforce user. Without `salesforce_user` the user with the same address is taken.",
        "A mailbox that is not listed is not touched.";

    "sync.mode": Choice(&["observe", "sync"]), Optional, "", "sync",
        "`observe` plans and records everything and writes nothing; `sync` writes.",
        "In `observe` nothing crosses, by intent.";
    "sync.first_contact": Choice(&["new_only", "outlook", "salesforce"]), Optional, "", "new_only",
        "What happens to events that are older than the enrolment of their mailbox: nothing, or Outlook's are created in Salesforce, or the other way round.",
        "`outlook` or `salesforce` on filled calendars creates many records at once.";
    "sync.mapping_file": ReadableFile, Optional, "", "mappings/acme.yaml",
        "Mapping file. None takes the built-in default mapping.",
        "The engine does not start.";
    "sync.quiet_ms": Whole(0, 60_000), Optional, "milliseconds", "750",
        "How long a meeting must be quiet before it is looked at: makes one write of a burst of edits.",
        "Too short: more writes for a burst. Too long: later crossings.";
    "sync.max_wait_ms": Whole(0, 600_000), Optional, "milliseconds", "5000",
        "Longest wait while edits keep coming.",
        "Too long: a meeting that is edited all the time crosses late.";
    "sync.workers": Whole(1, 256), Optional, "workers", "16",
        "Meetings that are worked on at once.",
        "Too few slows bursts down; too many only wait for the rate limits.";
    "sync.lease_secs": Whole(5, 600), Optional, "seconds", "30",
        "For how long a worker holds a meeting without renewing; renewed at a third of it.",
        "Too short: slow requests lose the meeting to another worker. Too long: slower recovery after a crash.";
    "sync.absence_proof_secs": Whole(1, 3600), Optional, "seconds", "30",
        "Time between two reads that find nothing, before a record without a delete notice counts as deleted.",
        "Too short: a slow remote may look like a delete.";
    "sync.settle_read_secs": Whole(1, 3600), Optional, "seconds", "30",
        "A read that began this long after a notice covers the version that the notice named.",
        "Too short: a stale read may pass for the newest state.";
    "sync.late_apply_secs": Whole(0, 3600), Optional, "seconds", "60",
        "Longest time after which a request that was given up may still take effect.",
        "Too short: a late effect may be planned over. Too long: slower recovery after lost answers.";
    "sync.retry_min_ms": Whole(10, 600_000), Optional, "milliseconds", "1000",
        "First pause after a failure; doubles with each further one.",
        "Too short: more calls during an outage.";
    "sync.retry_max_secs": Whole(1, 86_400), Optional, "seconds", "900",
        "Longest pause between tries.",
        "Too long: slower recovery after an outage.";
    "sync.max_tries": Whole(1, 1000), Optional, "tries", "12",
        "Tries before a meeting becomes a dead letter and waits for a person.",
        "Too few: short outages make dead letters.";

    "sync.delete_conflict": Choice(&["delete_wins", "edit_wins"]), Optional, "", "delete_wins",
        "What happens to a meeting that is deleted on one side and edited on the other: it is deleted and the edit kept in the journal, or made again where it was deleted.",
        "With `edit_wins` a meeting that somebody deleted may come back.";
    "sync.delete_wait_secs": Whole(0, 3600), Optional, "seconds", "10",
        "How long a deletion waits before it is carried over, so that a mass deletion is seen as a whole.",
        "Too short: the first of many deletions leave before the guard sees how many there are.";

    "mail.policy": Choice(&["never", "person_edits", "always"]), Optional, "", "person_edits",
        "Which changes from Salesforce may make Exchange mail the attendees of a meeting: none, those that a person made, or all. Graph has no switch against these mails.",
        "`always`: a flow that touches a thousand meetings mails thousands of people.";
    "mail.past_meetings": Flag, Optional, "", "false",
        "Write to past meetings with attendees too, of which Exchange mails updates.",
        "On, cleaning up old events in Salesforce mails everybody who was there.";
    "mail.quiet_secs": Whole(0, 3600), Optional, "seconds", "60",
        "How long a meeting must be quiet before a second mail leaves; a deletion that mails waits as long. The first change leaves at once.",
        "Too short: one mail for each step of a rescheduling.";
    "mail.max_wait_secs": Whole(0, 86_400), Optional, "seconds", "300",
        "Longest wait of such a mail while edits keep coming.",
        "Too long: attendees learn late.";
    "mail.by_author_in_10_mins": Whole(1, 100_000), Optional, "writes", "20",
        "Writes that mail people which one Salesforce user may cause in ten minutes; more wait for `calbridge holds approve`.",
        "Too many: a flow that runs as a person mails everybody before anybody notices. Too few: people who work fast are held.";

    "guard.deletes_in_mailbox": Whole(1, 1_000_000), Optional, "deletions", "10",
        "Deletions that one mailbox may have in an hour, however few meetings it has; more are held, all of them.",
        "Too many: a mistake empties calendars. Too few: tidying up is held.";
    "guard.deletes_in_mailbox_percent": Whole(0, 100), Optional, "percent", "5",
        "The same in percent of the mailbox's linked meetings; the larger of the two counts.",
        "As above.";
    "guard.deletes_by_author": Whole(1, 1_000_000), Optional, "deletions", "25",
        "Deletions that one Salesforce user may cause in an hour over all mailboxes; more are held, all of them.",
        "As above.";

    "sweep.outlook_secs": Whole(10, 604_800), Optional, "seconds", "3600",
        "How often each mailbox is compared as a whole, to find what notifications missed.",
        "Too long: a missed change crosses late.";
    "sweep.salesforce_secs": Whole(10, 604_800), Optional, "seconds", "900",
        "How often the org is compared as a whole, to find what change events missed.",
        "Too short costs API calls; too long: a missed change crosses late.";

    "store.url": StoreUrl, Always, "", "postgres://calbridge@db.example.com/calbridge",
        "The database, which holds the links and the journal: `sqlite:PATH`, a file for one instance, or `postgres://USER@HOST[:PORT]/DATABASE` for several instances that share the work. PostgreSQL takes `sslmode`, `sslrootcert`, `sslcert`, `sslkey` and `host` behind a `?`; without `sslmode` it is `verify-full`, on loopback `prefer`.",
        "On a new database links are rebuilt from the marks inside the events, history is lost.";
    "store.password": Secret, Optional, "", "(from the environment)",
        "Password of the PostgreSQL user. None for servers that ask for none.",
        "The engine does not start: the server refuses the user.";
    "store.password_file": SecretFile, Optional, "", "/run/secrets/store-password",
        "File whose content is the password of the PostgreSQL user.",
        "The engine does not start.";
    "store.key_file": Path, Optional, "", "/run/secrets/calbridge.key",
        "File with the key that seals values in the store, made at the first start where it is missing. With SQLite none makes one beside the database; with PostgreSQL it must be given, the same for all instances.",
        "With another key sealed values of the past cannot be read.";

    "redis.url": SecretUrl, Optional, "", "redis://redis:6379/0",
        "Redis that remembers notifications seen, for several instances or restarts. None uses the memory of the process.",
        "Unreachable: a warning and more reads, never a wrong result.";
    "redis.url_file": SecretFile, Optional, "", "/run/secrets/redis-url",
        "File whose content is the Redis address.",
        "The engine does not start.";
    "redis.ttl_hours": Whole(1, 2160), Optional, "hours", "96",
        "For how long a notification is remembered: the longest retention of the streams and a day.",
        "Too short: redelivered notifications cost reads.";
    "redis.claim_secs": Whole(1, 600), Optional, "seconds", "30",
        "For how long a notification that is being taken in is reserved.",
        "Too long: a crash makes redelivered notifications wait.";

    "web.address": Listen, Always, "", "0.0.0.0:9465",
        "Where `/healthz`, `/readyz` and `/metrics` answer. It has no sign-in: keep it inside the cluster.",
        "Probes fail and the orchestrator restarts the engine.";

    "log.format": Choice(&["text", "json"]), Optional, "", "json",
        "Lines for people, or one JSON object a line.",
        "Log collectors cannot read `text`.";
    "log.level": Choice(&["error", "warn", "info", "debug", "trace"]), Optional, "", "info",
        "How much is logged. `debug` writes one line per notification.",
        "`debug` and `trace` cost disk and speed.";

    "rehearsal.start_at": Instant, Optional, "", "2026-11-23T08:00:00Z",
        "Moment that the engine's clock shows at its start. For use with the local sandbox only.",
        "With real clouds: everything looks older or newer than it is.";
    "rehearsal.clock_url": Url, Optional, "", "http://127.0.0.1:4400/clock",
        "Address where the local sandbox tells its time (`now`, `speed`); what it answers at the start goes before `start_at` and `speed`.",
        "The engine's clock and the sandbox's differ, so timers fire too early or too late.";
    "rehearsal.speed": Decimal(0.01, 1000.0), Optional, "seconds a second", "60",
        "How fast the engine's clock runs. For use with the local sandbox only.",
        "With real clouds: timers fire too early or too late.";
}

/// Finds an option by its dotted key.
pub fn find(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// Keys of an item of `enrolments`.
pub const ENROLMENT_KEYS: &[&str] = &["mailbox", "salesforce_user"];
