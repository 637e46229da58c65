//! Where a meeting stands, in one line: the first thing a person reads.

use calbridge_core::link::{Intent, LinkState};
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::timeline::{ReasonWords, side_name};
use crate::ports::{JournalEntry, JournalKind, Traced};

/// Where a meeting stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Verdict {
    /// Both sides agree.
    InStep {
        /// Since when, as far as was seen.
        since: DateTime<Utc>,
    },
    /// Something happens by itself.
    Waiting {
        /// What for.
        waits_for: String,
        /// Until when at the latest; none means the next round of a worker.
        until: Option<DateTime<Utc>>,
    },
    /// A person decides.
    Held {
        /// Since when.
        since: DateTime<Utc>,
        /// Why.
        reason: ReasonWords,
        /// What to do.
        todo: String,
    },
    /// Failed and needs a person.
    DeadLetter {
        /// Since when.
        since: DateTime<Utc>,
        /// Why.
        reason: ReasonWords,
        /// What the remote said.
        detail: String,
        /// What to do.
        todo: String,
    },
    /// Deleted, and stays so.
    Deleted {
        /// Since when.
        since: DateTime<Utc>,
        /// Why.
        reason: ReasonWords,
    },
    /// Seen, and on purpose not on the other side.
    NotSynced {
        /// Since when.
        since: DateTime<Utc>,
        /// Why.
        reason: ReasonWords,
    },
    /// No notification, sweep or link ever named it.
    NeverSeen,
}

impl Verdict {
    /// Judges what the store knows; what needs a person goes before what mends itself.
    pub fn of(traced: &Traced) -> Self {
        let decision = last_decision(&traced.journal);
        needs_a_person(traced, decision)
            .or_else(|| waits(traced, decision))
            .or_else(|| rests(traced, decision))
            .unwrap_or(Self::NeverSeen)
    }
}

/// Finds what only a person can move on.
fn needs_a_person(traced: &Traced, decision: Option<&JournalEntry>) -> Option<Verdict> {
    let state = traced.link.as_ref().map(|link| &link.state);
    if let Some(dead) = traced.dead_letters.last().filter(|letter| !letter.held) {
        return Some(dead_letter(dead.reason, dead.at, &dead.detail));
    }
    match (state, decision) {
        (Some(LinkState::DeadLetter { reason, at }), _) => {
            let detail = traced.journal.iter().rev().find_map(|entry| entry.error.as_deref());
            Some(dead_letter(*reason, *at, detail.unwrap_or_default()))
        }
        (Some(LinkState::Held { reason, at }), _) => Some(held(*reason, *at)),
        (None, Some(entry)) if entry.outcome == Some(Outcome::Hold) => {
            let reason = entry.reasons.first().copied()?;
            Some(held(reason, entry.at))
        }
        _ => None,
    }
}

fn dead_letter(reason: Reason, since: DateTime<Utc>, detail: &str) -> Verdict {
    Verdict::DeadLetter { since, reason: ReasonWords::of(reason), detail: detail.to_owned(), todo: todo(reason) }
}

fn held(reason: Reason, since: DateTime<Utc>) -> Verdict {
    Verdict::Held { since, reason: ReasonWords::of(reason), todo: todo(reason) }
}

/// Finds what moves on by itself: an open write, a closed window, a retry.
fn waits(traced: &Traced, decision: Option<&JournalEntry>) -> Option<Verdict> {
    let intents = traced.link.as_ref().map(|link| &link.intents);
    let open: Option<&Intent> = intents.and_then(|both| both.outlook.as_ref().or(both.salesforce.as_ref()));
    if let Some(intent) = open {
        return Some(Verdict::Waiting {
            waits_for: format!(
                "the result of the {} in {}",
                match intent.action.name() {
                    "create" => "creation",
                    "delete" => "deletion",
                    _ => "update",
                },
                side_name(intent.side)
            ),
            until: Some(intent.give_up_at),
        });
    }
    let waiting_decision = decision.filter(|entry| entry.outcome == Some(Outcome::Wait));
    if let (Some(entry), Some(_)) = (waiting_decision, traced.wake_at) {
        let words = entry.reasons.first().map_or("another try", |reason| reason.words());
        return Some(Verdict::Waiting { waits_for: format!("the next try ({words})"), until: traced.wake_at });
    }
    let signals: u32 = traced.waiting.iter().map(|row| row.signals).sum();
    if signals > 0 {
        return Some(Verdict::Waiting {
            waits_for: format!("the end of the burst ({} not yet looked at)", count(signals, "notification")),
            until: traced.wake_at,
        });
    }
    if let (Some(entry), Some(_)) = (decision.filter(|entry| entry.outcome == Some(Outcome::Deferred)), traced.wake_at)
    {
        let words =
            entry.reasons.iter().find(|reason| WAITS.contains(reason)).map_or("its time", |reason| reason.words());
        return Some(Verdict::Waiting { waits_for: format!("its time ({words})"), until: traced.wake_at });
    }
    traced.wake_at.map(|at| Verdict::Waiting { waits_for: "the next look at both sides".to_owned(), until: Some(at) })
}

/// Reasons for which something decided is done later.
const WAITS: [Reason; 2] = [Reason::MailWaits, Reason::DeleteWaits];

/// Finds where a meeting came to rest.
fn rests(traced: &Traced, decision: Option<&JournalEntry>) -> Option<Verdict> {
    if let Some(link) = &traced.link {
        if let LinkState::Tombstone { reason, at } = &link.state {
            return Some(Verdict::Deleted { since: *at, reason: ReasonWords::of(*reason) });
        }
        if let LinkState::Skipped { reason, at } = &link.state {
            return Some(Verdict::NotSynced { since: *at, reason: ReasonWords::of(*reason) });
        }
        if let Some(since) = link.in_step_at {
            return Some(Verdict::InStep { since });
        }
    }
    let entry = decision?;
    let reason = entry.reasons.first().copied()?;
    Some(match entry.outcome {
        Some(Outcome::Deleted) => Verdict::Deleted { since: entry.at, reason: ReasonWords::of(reason) },
        Some(Outcome::InStep) => Verdict::InStep { since: entry.at },
        _ => Verdict::NotSynced { since: entry.at, reason: ReasonWords::of(reason) },
    })
}

fn last_decision(journal: &[JournalEntry]) -> Option<&JournalEntry> {
    journal.iter().rev().find(|entry| entry.kind == JournalKind::Decided)
}

/// Says what to do about a reason that waits for a person.
fn todo(reason: Reason) -> String {
    let first = match reason {
        Reason::NeedsAdopt => "look at both calendars: if the two events are one, delete one of them",
        Reason::ManualConflict => {
            "`calbridge dead-letters keep outlook|salesforce ID`, or make the field equal on both sides"
        }
        Reason::MassDelete | Reason::MailNeedsPerson | Reason::MailFuse | Reason::StampUnknown => {
            "`calbridge holds approve ID` or `calbridge holds discard ID`"
        }
        Reason::DuplicateLink => "delete the surplus Salesforce events, keep the one that people use",
        Reason::Oscillation => {
            "find the automation that changes the meeting back and stop it, then `calbridge dead-letters retry ID`"
        }
        Reason::MissingStampField => "run `calbridge check` and add the field that it names",
        Reason::TooManyTries => "mend what the error names, then `calbridge dead-letters retry ID`",
        _ => "mend what the detail names, then `calbridge dead-letters retry ID`",
    };
    format!("{first}; more in docs/errors/{}.md", reason.code())
}

/// Returns `1 notification`, `2 notifications`.
pub(super) fn count(number: u32, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
