//! A decoded change event -> signals; one that cannot be decoded -> a reject.

use calbridge_core::ids::{ConnectionId, RecordId, SalesforceId};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, ChangeFact, Position, Signal, SignalCause, Target, Version};
use chrono::{DateTime, Utc};

use super::avro::{ChangeEvent, Unusable};
use crate::ports::Reject;

/// Most records of one event that are looked at one by one; more than that are found faster by a look at the whole org.
const MOST_RECORDS: usize = 2_000;

/// Id that overflow events carry instead of a record's.
const NO_RECORD: &str = "000000000000000";

/// What stays the same for all events of a stream.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) connection: ConnectionId,
    /// Salesforce fields that the mapping names.
    pub(super) fields: Vec<String>,
}

impl Source {
    /// Makes one signal per record; an event that stands for more than it names asks for a look at the whole org, once.
    ///
    /// # Errors
    /// The event names no record, though it stands for changes of some.
    pub(super) fn signals(
        &self,
        event: ChangeEvent,
        position: &Position,
        received_at: DateTime<Utc>,
    ) -> Result<Vec<Signal>, Unusable> {
        let facts = ChangeFact {
            origin: event.origin,
            user: event.user,
            transaction: event.transaction,
            committed: event.committed,
            changed: event.told.changed,
            private: event.told.private,
            values: event.told.values,
            token: event.token,
        };
        let cause = if event.gap { SignalCause::Gap } else { SignalCause::Notification };
        let mut signals = Vec::new();
        let mut org =
            event.overflow || event.record_ids.len() > MOST_RECORDS || (event.gap && event.record_ids.is_empty());
        let mut nonsense = event.record_ids.is_empty() && !org;
        for id in event.record_ids.into_iter().take(if org { 0 } else { MOST_RECORDS }) {
            match SalesforceId::parse(&id) {
                Ok(id) if !id.as_str().starts_with(NO_RECORD) => signals.push(Signal {
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
                Ok(_none) => org = true,
                // `00U*`: all records of the object.
                Err(_) if id.len() <= NO_RECORD.len() && id.ends_with('*') => org = true,
                Err(_) => nonsense = true,
            }
        }
        if nonsense && signals.is_empty() && !org {
            return Err((Reason::Undecodable, "it names no record by an id that can be one"));
        }
        if org {
            signals.push(self.whole_org(SignalCause::Gap, Some(position.clone()), received_at));
        }
        Ok(signals)
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
    pub(super) fn reject(&self, reason: Reason, detail: &'static str, raw: &[u8], position: Position) -> Reject {
        Reject {
            connection: self.connection.clone(),
            side: Side::Salesforce,
            reason,
            detail,
            raw: Reject::kept(reason, raw),
            size: raw.len(),
            items: 1,
            position: Some(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use calbridge_core::ids::StreamId;

    use super::super::values::Told;
    use super::*;

    fn signals(ids: &[&str], gap: bool, overflow: bool) -> Vec<Signal> {
        outcome(ids, gap, overflow).unwrap()
    }

    fn outcome(ids: &[&str], gap: bool, overflow: bool) -> Result<Vec<Signal>, Unusable> {
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
            told: Told::default(),
            token: None,
        };
        let position = Position { stream: StreamId::new("pubsub/t"), value: "00".to_owned() };
        let source = Source { connection: ConnectionId::new("c"), fields: Vec::new() };
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

    #[test]
    fn more_records_than_one_event_should_name_are_found_by_a_look_at_the_org() {
        let ids: Vec<String> = (0..10_000).map(|number| format!("00U50000{number:07}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let signals = signals(&ids, false, false);
        assert_eq!((signals.len(), &signals[0].target), (1, &Target::Org));
    }

    #[test]
    fn ids_that_name_nothing_are_left_out_and_an_event_of_nothing_else_is_refused() {
        assert_eq!(signals(&["00U5000000Gv7qJEAR", "", "' OR 1=1", "\0"], false, false).len(), 1);
        for ids in [&["not an id"][..], &[], &["00U5000000Gv7qJEARX"], &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaa*"]] {
            assert_eq!(outcome(ids, false, false).unwrap_err().0, Reason::Undecodable, "{ids:?}");
        }
    }
}
