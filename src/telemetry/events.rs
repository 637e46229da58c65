//! One function per fact: it writes the log line and the metric together.
//!
//! Names of fields are the same everywhere: `meeting.id`, `side`, `error.code`, `stream`. Counters take their labels from
//! closed lists (sides, reasons, codes, streams), so their number stays bounded.

use std::time::Duration;

use calbridge_core::ids::{ConnectionId, LaneId, LinkId};
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use chrono::{DateTime, Utc};
use metrics::{counter, gauge, histogram};
use tracing::{debug, error, info, warn};

use super::names;
use crate::ports::{CacheError, Capabilities, RemoteError, Retry, StoreError, StoreStatus};

/// Signals became durable.
pub fn signals_accepted(side: Side, count: u64) {
    counter!(names::SIGNALS, "side" => side.name()).increment(count);
    debug!(%side, count, "accepted {count} signals from {side}");
}

/// Signals were dropped because they were delivered before.
pub fn duplicates_dropped(stream: &str, count: u64) {
    counter!(names::DUPLICATES, "stream" => stream.to_owned()).increment(count);
    debug!(stream, count, reason = Reason::Duplicate.name(), "dropped {count} duplicates");
}

/// Messages were set aside at intake; `detail` is one of a closed list of texts.
pub fn messages_rejected(side: Side, reason: Reason, items: u64) {
    counter!(names::REJECTS, "side" => side.name(), "reason" => reason.name()).increment(items);
}

/// Tells people about messages set aside, `items` since this was last told of the same cause.
pub fn rejects_told(side: Side, reason: Reason, detail: &'static str, items: u64) {
    if reason.keeps_message() {
        warn!(%side, reason = reason.name(), error.code = reason.code(), detail, items, "set {items} messages from {side} aside ({detail}): {reason}");
    } else {
        debug!(%side, reason = reason.name(), detail, items, "ignored {items} messages from {side} ({detail}): {reason}");
    }
}

/// What a run of a meeting ended with.
#[derive(Debug, Clone, Copy)]
pub struct RunEnded<'a> {
    /// The connection.
    pub connection: &'a ConnectionId,
    /// The meeting, once linked.
    pub meeting: Option<LinkId>,
    /// How it ended.
    pub outcome: Outcome,
    /// The deciding reason.
    pub reason: Reason,
    /// Signals that it covered.
    pub signals: u32,
    /// Those of them that were our own writes coming back.
    pub echoes: u32,
}

/// A run of a meeting decided something.
pub fn run_ended(run: &RunEnded<'_>) {
    let (outcome, reason) = (run.outcome.name(), run.reason.name());
    counter!(names::RUNS, "outcome" => outcome, "reason" => reason).increment(1);
    let meeting = run.meeting.map(tracing::field::display);
    debug!(connection = %run.connection, meeting.id = meeting, outcome, reason, signals = run.signals, echoes = run.echoes,
        "run ended: {outcome} ({reason})");
}

/// Notifications were recognised as our own writes coming back.
pub fn echoes_recognised(side: Side, count: u64) {
    counter!(names::ECHOES, "side" => side.name()).increment(count);
}

/// A lane was given back without a plan: a defect of ours, told once and tried again.
pub fn plan_unfinished(lane: LaneId) {
    error!(lane = %lane, "a plan asked for more and more look-ups; the meeting is tried again");
}

/// A write was recorded and not sent, because too much time went by; the next run of its lane decides.
pub fn too_late_to_send(lane: LaneId) {
    warn!(%lane, "a write was recorded and not sent in time; it is looked at again");
}

/// A commit was void: another worker took the lane over, or the row changed.
pub fn commit_refused(lane: LaneId, why: &StoreError) {
    match why {
        StoreError::Fenced | StoreError::Outdated(_) => {
            debug!(lane = %lane, reason = Reason::LaneBusy.name(), "commit refused: {why}");
        }
        _ => store_failed(&format!("commit a run: {why}")),
    }
}

/// A mailbox could not be paired; `position` is its place in the list of enrolments, from 0.
pub fn enrolment_refused(position: usize, why: &str) {
    error!(position, "enrolment {position} cannot be paired: {why}; see `calbridge check`");
}

/// Mailboxes are paired with users.
pub fn enrolled(mailboxes: usize) {
    gauge!(names::ENROLMENTS).set(level(mailboxes as u64));
    info!(mailboxes, "{mailboxes} mailboxes are enrolled");
}

/// Some of the users that the config calls automation do not exist.
pub fn automation_users_missing(missing: usize) {
    warn!(missing, "`salesforce.automation_users` names users that are not there or not active; correct the names");
}

/// It is known what the Salesforce org lets us stamp.
pub fn capabilities_learned(found: &Capabilities) {
    if found.link_field && found.token_field {
        debug!(link_unique = found.link_unique, "salesforce has the stamp fields");
    } else {
        let fields = [("Calbridge_Link__c", found.link_field), ("Calbridge_Token__c", found.token_field)];
        let missing: Vec<&str> = fields.into_iter().filter_map(|(name, there)| (!there).then_some(name)).collect();
        let missing = missing.join("` and `");
        error!(
            error.code = Reason::MissingStampField.code(),
            link_field = found.link_field,
            token_field = found.token_field,
            "salesforce lacks `{missing}` on Event, nothing is written to it; see `calbridge check`"
        );
    }
}

/// A write is about to be sent; `operation` is `create`, `update` or `delete`.
pub fn write_sent(connection: &ConnectionId, meeting: LinkId, side: Side, operation: &'static str, reason: Reason) {
    counter!(names::WRITES, "side" => side.name(), "operation" => operation).increment(1);
    debug!(%connection, meeting.id = %meeting, %side, operation, reason = reason.name(), "sending {operation} to {side}");
}

/// The result of a write is known, or known to be unknown.
pub fn write_settled(
    connection: &ConnectionId,
    meeting: LinkId,
    side: Side,
    reason: Reason,
    error_code: Option<&str>,
    took: Duration,
) {
    counter!(names::WRITE_RESULTS, "side" => side.name(), "result" => reason.name()).increment(1);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match error_code {
        None => {
            info!(%connection, meeting.id = %meeting, %side, reason = reason.name(), duration_ms,
                "wrote meeting {meeting} to {side}");
        }
        Some(code) => {
            warn!(%connection, meeting.id = %meeting, %side, reason = reason.name(), error.code = code, duration_ms,
                "write of meeting {meeting} to {side} did not succeed: {reason}");
        }
    }
}

/// A change reached the other side.
pub fn crossed(to: Side, latency: Duration) {
    counter!(names::CROSSINGS, "to" => to.name()).increment(1);
    histogram!(names::CROSSING_SECONDS, "to" => to.name()).record(latency.as_secs_f64());
}

/// People whom Exchange is expected to mail because of a write.
pub fn mails_expected(connection: &ConnectionId, meeting: Option<LinkId>, recipients: u32) {
    if recipients == 0 {
        return;
    }
    counter!(names::MAILS_EXPECTED).increment(u64::from(recipients));
    let meeting = meeting.map(tracing::field::display);
    info!(%connection, meeting.id = meeting, recipients, "expecting Exchange to mail {recipients} people");
}

/// API calls were spent, in request units.
pub fn calls_spent(side: Side, units: u64) {
    counter!(names::CALLS, "side" => side.name()).increment(units);
}

/// A remote call failed.
pub fn remote_failed(failure: &RemoteError) {
    let side = failure.side;
    counter!(names::REMOTE_ERRORS, "side" => side.name(), "code" => failure.code).increment(1);
    match failure.retry {
        Retry::After(pause) => {
            let retry_after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            warn!(%side, error.code = failure.code, error = %failure, retry_after_ms, "{side} failed, trying again");
        }
        Retry::Never => {
            error!(%side, error.code = failure.code, error = %failure, "{side} failed; see `calbridge explain {}`", failure.code);
        }
    }
}

/// Some records of one read could not be read; told once for all of them, by the first one's code and words.
pub fn reads_failed(side: Side, records: u64, code: &str, why: &str) {
    counter!(names::REMOTE_ERRORS, "side" => side.name(), "code" => code.to_owned()).increment(records);
    warn!(%side, error.code = code, error = why, records, "{records} records of {side} could not be read, trying again");
}

/// A write of ours covered edits in Salesforce that nobody had seen; the journal has their values.
pub fn overwritten_unseen(connection: &ConnectionId, meeting: Option<LinkId>, fields: u64) {
    counter!(names::OVERWRITTEN_UNSEEN).increment(fields);
    let reason = Reason::OverwrittenUnseen;
    let meeting = meeting.map(tracing::field::display);
    warn!(%connection, meeting.id = meeting, reason = reason.name(), error.code = reason.code(), fields,
        "{reason}: {fields} values are kept; see `calbridge trace` with `--values`");
}

/// A meeting needs a person.
pub fn dead_letter_made(connection: &ConnectionId, meeting: Option<LinkId>, reason: Reason) {
    counter!(names::DEAD_LETTERS, "reason" => reason.name()).increment(1);
    let meeting = meeting.map(tracing::field::display);
    error!(%connection, meeting.id = meeting, reason = reason.name(), error.code = reason.code(),
        "a meeting needs a person: {reason}; see `calbridge explain {reason}`");
}

/// A write waits for a person's approval.
pub fn write_held(connection: &ConnectionId, meeting: Option<LinkId>, reason: Reason) {
    counter!(names::HOLDS, "reason" => reason.name()).increment(1);
    let meeting = meeting.map(tracing::field::display);
    warn!(%connection, meeting.id = meeting, reason = reason.name(), error.code = reason.code(),
        "a write waits for approval: {reason}; see `calbridge holds list`");
}

/// A stream's reader began to run.
pub fn stream_started(stream: &str) {
    gauge!(names::STREAM_UP, "stream" => stream.to_owned()).set(1.0);
    info!(stream, "listening to {stream}");
}

/// A stream's reader ended; with an error it is started again.
pub fn stream_stopped(stream: &str, failure: Option<&str>) {
    gauge!(names::STREAM_UP, "stream" => stream.to_owned()).set(0.0);
    match failure {
        None => info!(stream, "stopped listening to {stream}"),
        Some(error) => {
            counter!(names::STREAM_RESTARTS, "stream" => stream.to_owned()).increment(1);
            warn!(stream, error, "lost {stream}; starting it again");
        }
    }
}

/// A stream's reader is this far behind its newest message.
pub fn stream_lag(stream: &str, lag: Duration) {
    gauge!(names::STREAM_LAG_SECONDS, "stream" => stream.to_owned()).set(lag.as_secs_f64());
}

/// What happened to a Graph subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// Made.
    Created,
    /// Its life was prolonged.
    Renewed,
    /// Graph no longer knows it.
    Lost,
}

/// A Graph subscription was made, renewed or lost.
pub fn subscription(connection: &ConnectionId, event: SubscriptionEvent) {
    let name = match event {
        SubscriptionEvent::Created => "created",
        SubscriptionEvent::Renewed => "renewed",
        SubscriptionEvent::Lost => "lost",
    };
    counter!(names::SUBSCRIPTIONS, "event" => name).increment(1);
    if event == SubscriptionEvent::Lost {
        warn!(%connection, "a subscription was lost; making a new one and comparing the mailbox");
    } else {
        debug!(%connection, event = name, "subscription {name}");
    }
}

/// The first subscription to end does so then.
pub fn subscription_expiry(earliest: DateTime<Utc>, now: DateTime<Utc>) {
    let seconds = i32::try_from((earliest - now).num_seconds()).unwrap_or(i32::MAX);
    gauge!(names::SUBSCRIPTION_EXPIRY_SECONDS).set(f64::from(seconds));
}

/// The memory of notifications seen failed: costs reads, never results. Told once as a warning, until it answers again.
pub fn cache_failed(error: &CacheError, first: bool) {
    counter!(names::CACHE_ERRORS).increment(1);
    gauge!(names::CACHE_UP).set(0.0);
    let code = CacheError::CODE;
    if first {
        warn!(error.code = code, %error, "the memory of notifications seen failed; carrying on without it");
    } else {
        debug!(error.code = code, %error, "the memory of notifications seen failed again");
    }
}

/// The journal of the database ends before a row that Redis remembers of it.
pub fn database_is_behind(connection: &ConnectionId, known: i64, newest: i64) {
    warn!(%connection, error.code = "CB1208", known, newest, "the database is older than it was: a restored backup");
}

/// The database is treated as a restored backup.
pub fn database_restored(connection: &ConnectionId) {
    warn!(%connection, error.code = "CB1208", "the database counts as restored from a backup: everything is read again");
}

/// The memory of notifications seen answers; `again` says that it had failed before.
pub fn cache_answers(again: bool) {
    gauge!(names::CACHE_UP).set(1.0);
    if again {
        info!("the memory of notifications seen answers again");
    }
}

/// The database failed.
pub fn store_failed(why: &str) {
    counter!(names::STORE_ERRORS).increment(1);
    error!(error = why, "the database failed; nothing is acknowledged until it works again");
}

/// A round over a whole mailbox or org ended.
pub fn sweep_ended(side: Side, records: u64, found: u64) {
    counter!(names::SWEEPS, "side" => side.name()).increment(1);
    counter!(names::SWEEP_FINDS, "side" => side.name()).increment(found);
    info!(%side, records, found, "compared {records} records of {side}, {found} to look at");
}

/// Takes over the store's numbers.
pub fn store_status(status: &StoreStatus, now: DateTime<Utc>) {
    gauge!(names::DEAD_LETTERS_OPEN).set(level(status.dead_letters));
    gauge!(names::HOLDS_OPEN).set(level(status.holds.values().sum()));
    gauge!(names::WAITING).set(level(status.waiting));
    gauge!(names::INTENTS_OPEN).set(level(status.intents));
    let oldest = status.oldest_waiting.map_or(Duration::ZERO, |since| (now - since).to_std().unwrap_or_default());
    gauge!(names::OLDEST_WAITING_SECONDS).set(oldest.as_secs_f64());
    for (state, count) in &status.links {
        gauge!(names::LINKS, "state" => state.clone()).set(level(*count));
    }
}

/// Gauges hold floats; counts of rows stay far below the 2^53 from which they would lose digits.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn level(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_has_one_name_in_the_agreed_form_and_a_help_text() {
        let unique: BTreeSet<&str> = names::HELP.iter().map(|(name, _)| *name).collect();
        assert_eq!(unique.len(), names::HELP.len());
        for (name, help) in names::HELP {
            assert!(name.starts_with("calbridge_") && !help.is_empty(), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name} has other letters");
        }
    }
}
