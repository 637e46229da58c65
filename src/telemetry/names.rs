//! Names of metrics: `calbridge_<noun>_<unit>_total`; labels have few values each.

/// Signals taken in, by `side`.
pub const SIGNALS: &str = "calbridge_signals_total";
/// Signals dropped because they were delivered before, by `stream`.
pub const DUPLICATES: &str = "calbridge_duplicates_total";
/// Messages that are no signals, by `side` and `reason`.
pub const REJECTS: &str = "calbridge_rejects_total";
/// Runs of a meeting, by `outcome` and deciding `reason`.
pub const RUNS: &str = "calbridge_runs_total";
/// Notifications that were our own writes coming back, by `side`.
pub const ECHOES: &str = "calbridge_echoes_total";
/// Changes that reached the other side, by `to`.
pub const CROSSINGS: &str = "calbridge_crossings_total";
/// Time from the first notification to the confirmed write, by `to`.
pub const CROSSING_SECONDS: &str = "calbridge_crossing_seconds";
/// Writes sent, by `side` and `operation`.
pub const WRITES: &str = "calbridge_writes_total";
/// Results of writes, by `side` and `result`.
pub const WRITE_RESULTS: &str = "calbridge_write_results_total";
/// People that Exchange was expected to mail because of our writes.
pub const MAILS_EXPECTED: &str = "calbridge_mails_expected_total";
/// API calls in request units, by `side`.
pub const CALLS: &str = "calbridge_api_calls_total";
/// Remote errors, by `side` and `code`.
pub const REMOTE_ERRORS: &str = "calbridge_remote_errors_total";
/// Field values that people set in Salesforce and that a write of ours covered before anybody saw them.
pub const OVERWRITTEN_UNSEEN: &str = "calbridge_overwritten_unseen_total";
/// Dead letters made, by `reason`.
pub const DEAD_LETTERS: &str = "calbridge_dead_letters_total";
/// Dead letters that wait for a person.
pub const DEAD_LETTERS_OPEN: &str = "calbridge_dead_letters_open";
/// Writes that were held for approval.
pub const HOLDS: &str = "calbridge_holds_total";
/// Writes that wait for approval.
pub const HOLDS_OPEN: &str = "calbridge_holds_open";
/// Meetings that wait for their turn.
pub const WAITING: &str = "calbridge_waiting_meetings";
/// Age of the oldest notification that waits.
pub const OLDEST_WAITING_SECONDS: &str = "calbridge_oldest_waiting_seconds";
/// Writes whose result is open.
pub const INTENTS_OPEN: &str = "calbridge_intents_open";
/// Links, by `state`.
pub const LINKS: &str = "calbridge_links";
/// How far a stream's reader is behind its newest message, by `stream`.
pub const STREAM_LAG_SECONDS: &str = "calbridge_stream_lag_seconds";
/// Whether a stream's reader runs, by `stream`.
pub const STREAM_UP: &str = "calbridge_stream_up";
/// Restarts of a stream's reader, by `stream`.
pub const STREAM_RESTARTS: &str = "calbridge_stream_restarts_total";
/// Time until the first Graph subscription ends.
pub const SUBSCRIPTION_EXPIRY_SECONDS: &str = "calbridge_subscription_expiry_seconds";
/// Subscriptions made, renewed and lost, by `event`.
pub const SUBSCRIPTIONS: &str = "calbridge_subscriptions_total";
/// Failures of the memory of notifications seen.
pub const CACHE_ERRORS: &str = "calbridge_cache_errors_total";
/// Whether the memory of notifications seen answers.
pub const CACHE_UP: &str = "calbridge_cache_up";
/// Failures of the database.
pub const STORE_ERRORS: &str = "calbridge_store_errors_total";
/// Rounds over a whole mailbox or org, by `side`.
pub const SWEEPS: &str = "calbridge_sweeps_total";
/// Records that a round found and no notification had named, by `side`.
pub const SWEEP_FINDS: &str = "calbridge_sweep_finds_total";

/// Mailboxes that are paired with a Salesforce user.
pub const ENROLMENTS: &str = "calbridge_enrolments";

/// Every metric with its help text.
pub const HELP: &[(&str, &str)] = &[
    (ENROLMENTS, "Mailboxes that are paired with a Salesforce user"),
    (SIGNALS, "Signals taken in"),
    (DUPLICATES, "Signals dropped because they were delivered before"),
    (REJECTS, "Messages that are no signals"),
    (RUNS, "Runs of a meeting, by how they ended and why"),
    (ECHOES, "Notifications that were our own writes coming back"),
    (CROSSINGS, "Changes that reached the other side"),
    (CROSSING_SECONDS, "Time from the first notification to the confirmed write"),
    (WRITES, "Writes sent"),
    (WRITE_RESULTS, "Results of writes"),
    (MAILS_EXPECTED, "People that Exchange was expected to mail because of our writes"),
    (CALLS, "API calls in request units"),
    (REMOTE_ERRORS, "Errors of the remotes by code"),
    (DEAD_LETTERS, "Dead letters made"),
    (DEAD_LETTERS_OPEN, "Dead letters that wait for a person"),
    (HOLDS, "Writes that were held for approval"),
    (HOLDS_OPEN, "Writes that wait for approval"),
    (WAITING, "Meetings that wait for their turn"),
    (OLDEST_WAITING_SECONDS, "Age of the oldest notification that waits"),
    (INTENTS_OPEN, "Writes whose result is open"),
    (LINKS, "Links by state"),
    (STREAM_LAG_SECONDS, "How far a stream's reader is behind its newest message"),
    (STREAM_UP, "Whether a stream's reader runs"),
    (STREAM_RESTARTS, "Restarts of a stream's reader"),
    (SUBSCRIPTION_EXPIRY_SECONDS, "Time until the first Graph subscription ends"),
    (SUBSCRIPTIONS, "Subscriptions made, renewed and lost"),
    (CACHE_ERRORS, "Failures of the memory of notifications seen"),
    (CACHE_UP, "Whether the memory of notifications seen answers"),
    (STORE_ERRORS, "Failures of the database"),
    (SWEEPS, "Rounds over a whole mailbox or org"),
    (SWEEP_FINDS, "Records that a round found and no notification had named"),
];
