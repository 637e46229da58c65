//! Which facts of change events a run is given, and which it needs no longer.
//!
//! A change event carries only what changed: of a meeting that was moved, its new start and not its length. The audit
//! compares whole times, so the parts are put together here, from what was read before the write and what came since.

use calbridge_core::case::Fact;
use calbridge_core::ids::RecordId;
use calbridge_core::link::{Link, LinkState};
use calbridge_core::mapping::TIME;
use calbridge_core::plan::{Outcome, Plan};
use calbridge_core::value::{Fields, Value, When};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use crate::ports::time_parts;

/// Minutes of a day.
const DAY_MINUTES: i64 = 1440;

/// Returns from when on facts are still needed after a run.
///
/// What nobody links, and what is over with nothing left to audit, needs none: such a record never runs again by itself, and
/// a run that links it later reads it anew.
pub(super) fn needed_from(plan: &Plan, now: DateTime<Utc>) -> DateTime<Utc> {
    let over = match &plan.next {
        None => plan.outcome != Outcome::Wait,
        Some(link) => {
            let buried = matches!(link.state, LinkState::Tombstone { .. });
            let open = link.intents.outlook.is_some() || link.intents.salesforce.is_some();
            buried && !open && link.unaudited.is_empty() && plan.steps.is_empty()
        }
    };
    if over { now } else { plan.facts_from }
}

/// Returns the facts with every time put together whose missing parts are known.
pub(super) fn whole(facts: &[Fact], link: Option<&Link>) -> Vec<Fact> {
    let mut facts = facts.to_vec();
    let records: std::collections::BTreeSet<RecordId> = facts.iter().map(|fact| fact.record.clone()).collect();
    for record in records {
        let mut known = Known::before(link, &record);
        for fact in facts.iter_mut().filter(|fact| fact.record == record) {
            known.take_in(&mut fact.facts.values);
        }
    }
    facts
}

/// What is known of a record's time at one place in its stream.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    all_day: Option<bool>,
    start: Option<DateTime<Utc>>,
    day: Option<NaiveDate>,
    minutes: Option<i64>,
}

impl Known {
    /// Begins with what was read before the oldest write that is not audited.
    ///
    /// What changed after that read has a fact of its own; what a fact before it changed is contained in it.
    fn before(link: Option<&Link>, record: &RecordId) -> Self {
        let written = link.into_iter().flat_map(|link| &link.unaudited);
        let read =
            written.filter(|write| write.record == *record).find_map(|write| write.replaced.get(TIME)?.as_when());
        read.map(Self::of).unwrap_or_default()
    }

    fn of(when: &When) -> Self {
        match when {
            When::Timed { start, end, .. } => Self {
                all_day: Some(false),
                start: Some(*start),
                day: Some(start.date_naive()),
                minutes: Some((*end - *start).num_minutes()),
            },
            When::AllDay { first, last } => Self {
                all_day: Some(true),
                start: None,
                day: Some(*first),
                minutes: Some(((*last - *first).num_days() + 1) * DAY_MINUTES),
            },
        }
    }

    /// Takes in what one event says, and completes the time that it leaves in part.
    fn take_in(&mut self, values: &mut Fields) {
        if let Some(when) = values.get(TIME).and_then(Value::as_when) {
            *self = Self::of(when);
            return;
        }
        let all_day = values.remove(time_parts::ALL_DAY);
        let start = values.remove(time_parts::START);
        let minutes = values.remove(time_parts::MINUTES);
        let day = values.remove(time_parts::DAY);
        if [&all_day, &start, &minutes, &day].iter().all(|part| part.is_none()) {
            return;
        }
        if let Some(Value::Flag(flag)) = all_day {
            self.all_day = Some(flag);
        }
        if let Some(Value::Text(text)) = start {
            self.start = text.parse().ok();
        }
        if let Some(Value::Text(text)) = day {
            self.day = text.parse().ok();
        }
        if let Some(Value::Number(number)) = minutes {
            self.minutes = Some(number);
        }
        if let Some(when) = self.when() {
            values.insert(TIME.to_owned(), Value::When(when));
        }
    }

    fn when(self) -> Option<When> {
        let minutes = self.minutes.filter(|minutes| *minutes >= 0)?;
        if self.all_day? {
            let first = self.day?;
            let days = TimeDelta::try_days((minutes / DAY_MINUTES - 1).max(0))?;
            return Some(When::AllDay { first, last: first.checked_add_signed(days)? });
        }
        let start = self.start?;
        Some(When::Timed { start, end: start.checked_add_signed(TimeDelta::try_minutes(minutes)?)?, zone: None })
    }
}

#[cfg(test)]
mod tests {
    use calbridge_core::ids::SalesforceId;
    use calbridge_core::link::Unaudited;
    use calbridge_core::signal::ChangeFact;

    use super::*;
    use crate::store::contract::link as stored_link;

    fn row() -> RecordId {
        RecordId::Salesforce(SalesforceId::parse("00U000000000001").unwrap())
    }

    fn timed(start: &str, end: &str) -> Value {
        Value::When(When::Timed { start: start.parse().unwrap(), end: end.parse().unwrap(), zone: None })
    }

    /// A link with a write over a meeting from 09:00 to 10:00 that is not audited yet.
    fn link() -> Link {
        let mut link = stored_link(1, None, Some(row()));
        link.unaudited.push(Unaudited {
            token: calbridge_core::ids::WriteToken::new(uuid::Uuid::from_u128(1)),
            record: row(),
            deletes: false,
            replaced: Fields::from([(TIME.to_owned(), timed("2026-12-01T09:00:00Z", "2026-12-01T10:00:00Z"))]),
            written: Fields::new(),
            expected: None,
            recorded_at: DateTime::UNIX_EPOCH,
        });
        link
    }

    fn fact(parts: &[(&str, Value)]) -> Fact {
        let values = parts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Fact { record: row(), deleted: false, facts: ChangeFact { values, ..ChangeFact::default() } }
    }

    fn times(facts: &[Fact], link: Option<&Link>) -> Vec<Option<Value>> {
        whole(facts, link).iter().map(|fact| fact.facts.values.get(TIME).cloned()).collect()
    }

    #[test]
    fn a_moved_start_keeps_the_length_that_was_read_and_a_later_part_builds_on_it() {
        let start = fact(&[(time_parts::START, Value::text("2026-12-02T14:00:00Z"))]);
        let other = fact(&[("Subject", Value::text("A"))]);
        let longer = fact(&[(time_parts::MINUTES, Value::Number(90))]);
        let facts = [start, other, longer];
        let moved = Some(timed("2026-12-02T14:00:00Z", "2026-12-02T15:00:00Z"));
        let grown = Some(timed("2026-12-02T14:00:00Z", "2026-12-02T15:30:00Z"));
        assert_eq!(times(&facts, Some(&link())), [moved, None, grown]);
        assert_eq!(times(&facts[..1], None), [None], "without a read the length is unknown");
    }

    #[test]
    fn whole_days_are_told_by_day_and_length_and_parts_never_stay() {
        let whole_day = [
            (time_parts::ALL_DAY, Value::Flag(true)),
            (time_parts::DAY, Value::text("2026-12-03")),
            (time_parts::MINUTES, Value::Number(2 * DAY_MINUTES)),
        ];
        let days = When::AllDay { first: "2026-12-03".parse().unwrap(), last: "2026-12-04".parse().unwrap() };
        let facts = [fact(&whole_day)];
        assert_eq!(times(&facts, None), [Some(Value::When(days))], "the event itself says enough");
        let back = [(time_parts::ALL_DAY, Value::Flag(false)), (time_parts::MINUTES, Value::Number(-5))];
        let shown = whole(&[fact(&back)], Some(&link()));
        assert!(shown[0].facts.values.is_empty(), "a length that cannot be: {:?}", shown[0].facts.values.keys());
    }

    #[test]
    fn facts_of_what_is_unlinked_or_over_are_dropped_and_those_of_an_open_write_kept() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        let from = now - TimeDelta::minutes(5);
        let plan = |next: Option<Link>, outcome| Plan {
            steps: Vec::new(),
            outcome,
            reasons: Vec::new(),
            decisions: Vec::new(),
            mail: calbridge_core::plan::MailEffect::default(),
            next,
            covered: Vec::new(),
            aliases: Vec::new(),
            wake_at: None,
            echoes: 0,
            spends: Vec::new(),
            instructed: false,
            facts_from: from,
        };
        let reason = calbridge_core::reason::Reason::DeletedInOutlook;
        let buried = |link: Link| Link { state: LinkState::Tombstone { reason, at: now }, ..link };
        let audited = |link: Link| Link { unaudited: Vec::new(), ..link };
        for (next, outcome, wanted) in [
            (None, Outcome::Skip, now),
            (None, Outcome::Wait, from),
            (Some(link()), Outcome::InStep, from),
            (Some(audited(link())), Outcome::InStep, from),
            (Some(buried(link())), Outcome::Deleted, from),
            (Some(buried(audited(link()))), Outcome::Deleted, now),
        ] {
            assert_eq!(needed_from(&plan(next.clone(), outcome), now), wanted, "{next:?} {outcome:?}");
        }
    }
}
