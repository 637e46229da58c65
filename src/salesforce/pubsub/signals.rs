//! A decoded change event -> signals; one that cannot be decoded -> a reject.

use calbridge_core::ids::{ConnectionId, RecordId, SalesforceId};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, ChangeFact, Position, Signal, SignalCause, Target, Version};
use chrono::{DateTime, Utc};

use super::avro::ChangeEvent;
use crate::ports::Reject;

/// Longest raw message kept with a reject.
const MAX_RAW: usize = 1024 * 1024;

/// Id that overflow events carry instead of a record's.
const NO_RECORD: &str = "000000000000000";

/// What stays the same for all events of a stream.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) connection: ConnectionId,
}

impl Source {
    /// Makes one signal per record; ids that name no record ask for a look at the whole org, once.
    pub(super) fn signals(&self, event: ChangeEvent, position: &Position, received_at: DateTime<Utc>) -> Vec<Signal> {
        let facts = ChangeFact {
            origin: event.origin,
            user: event.user,
            transaction: event.transaction,
            changed: event.changed,
            token: event.token,
        };
        let cause = if event.gap { SignalCause::Gap } else { SignalCause::Notification };
        let mut signals = Vec::with_capacity(event.record_ids.len());
        let mut org = event.overflow || event.record_ids.is_empty();
        for id in event.record_ids {
            match SalesforceId::parse(&id) {
                Ok(id) if !event.overflow && !id.as_str().starts_with(NO_RECORD) => signals.push(Signal {
                    connection: self.connection.clone(),
                    side: Side::Salesforce,
                    target: Target::Record(RecordId::Salesforce(id)),
                    change: event.change,
                    cause,
                    version: Some(Version::Modstamp(event.committed)),
                    facts: Some(facts.clone()),
                    position: Some(position.clone()),
                    received_at,
                }),
                // A wildcard such as `00U*`, or no id at all.
                _ => org = true,
            }
        }
        if org {
            signals.push(self.whole_org(SignalCause::Gap, Some(position.clone()), received_at));
        }
        signals
    }

    /// Asks for a look at the whole org.
    pub(super) fn whole_org(
        &self,
        cause: SignalCause,
        position: Option<Position>,
        received_at: DateTime<Utc>,
    ) -> Signal {
        Signal {
            connection: self.connection.clone(),
            side: Side::Salesforce,
            target: Target::Org,
            change: Change::Unknown,
            cause,
            version: None,
            facts: None,
            position,
            received_at,
        }
    }

    /// Sets an event aside.
    pub(super) fn reject(&self, reason: Reason, detail: String, raw: &[u8], position: Position) -> Reject {
        Reject {
            connection: self.connection.clone(),
            side: Side::Salesforce,
            reason,
            detail,
            raw: raw.iter().take(MAX_RAW).copied().collect(),
            position: Some(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use calbridge_core::ids::StreamId;

    use super::*;

    fn signals(ids: &[&str], gap: bool, overflow: bool) -> Vec<Signal> {
        let event = ChangeEvent {
            entity: "Event".to_owned(),
            record_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            change: Change::Updated,
            gap,
            overflow,
            origin: String::new(),
            user: String::new(),
            transaction: "k/1".to_owned(),
            committed: DateTime::UNIX_EPOCH,
            changed: BTreeSet::new(),
            token: None,
        };
        let position = Position { stream: StreamId::new("pubsub/t"), value: "00".to_owned() };
        let source = Source { connection: ConnectionId::new("c") };
        source.signals(event, &position, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_merged_event_becomes_one_signal_a_record() {
        let signals = signals(&["00U5000000Gv7qJEAR", "00U5000000Gv7qK"], false, false);
        assert_eq!(signals.len(), 2);
        assert!(signals.iter().all(|signal| signal.cause == SignalCause::Notification));
        assert!(matches!(&signals[1].target, Target::Record(id) if id.remote_id().len() == 18));
    }

    #[test]
    fn wildcards_and_overflow_ask_for_the_whole_org_once() {
        for signals in [
            signals(&["00U*", "00U*"], false, false),
            signals(&["000000000000000AAA"], true, true),
            signals(&["000000000000000AAA"], false, false),
            signals(&[], true, false),
        ] {
            assert_eq!(signals.len(), 1);
            assert_eq!((&signals[0].target, signals[0].cause), (&Target::Org, SignalCause::Gap));
        }
    }

    #[test]
    fn a_gap_names_its_records_and_its_cause() {
        let signals = signals(&["00U5000000Gv7qJEAR"], true, false);
        assert_eq!(signals[0].cause, SignalCause::Gap);
        assert!(matches!(signals[0].target, Target::Record(_)));
    }
}
