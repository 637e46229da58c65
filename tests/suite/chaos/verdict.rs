//! Judges a run of chaos by everything that is known of it: the sandbox's history and the journal of all instances.

use std::fmt::{Debug, Write as _};

use calbridge_sandbox::history::Cloud;

use crate::support::Rehearsal;
use crate::support::ledger::Ledger;

/// What can be judged before everything rests: no later act can undo it.
const AT_ANY_TIME: [&str; 5] = [
    "duplicated",
    "looped",
    "mailed without cause",
    "written without a cause in the journal, or twice",
    "mails that the journal does not expect",
];

/// Findings of one kind that a failed run shows.
const SHOWN: usize = 5;

/// What was found, by kind; the names are those of the table.
pub(super) struct Verdict {
    kinds: Vec<(&'static str, Vec<String>)>,
    /// Mails that the journal expects, and mails that Exchange would have sent.
    pub(super) mails: (u64, u64),
    /// Edits of people in Outlook and in Salesforce.
    pub(super) edits: (usize, usize),
    /// Values that were overwritten before they could be seen, and told in the journal.
    pub(super) told: usize,
}

fn all<T: Debug>(found: &[T]) -> Vec<String> {
    found.iter().map(|one| format!("{one:?}")).collect()
}

impl Verdict {
    /// Reads everything, once nothing moves any more.
    pub(super) async fn reach(rehearsal: &Rehearsal) -> Self {
        let report = rehearsal.sandbox.oracle();
        let ledger = Ledger::read_when_told(rehearsal).await;
        let gone = ledger.values_that_disappeared();
        let status = rehearsal.status().await;
        let mails = (ledger.mails_expected(), rehearsal.engine_mails());
        let more = (mails.1 > mails.0).then(|| format!("{} expected, {} sent", mails.0, mails.1));
        let mut waiting = Vec::new();
        if status.waiting + status.intents + status.dead_letters > 0 || !status.holds.is_empty() {
            waiting.push(format!(
                "{} waiting, {} open writes, {} dead letters, held: {:?}; {:?}",
                status.waiting,
                status.intents,
                status.dead_letters,
                status.holds,
                rehearsal.dead_letters().await
            ));
        }
        let alone = report.unlinked_outlook + report.unlinked_salesforce;
        let alone = (alone > 0)
            .then(|| format!("{} in Outlook, {} in Salesforce", report.unlinked_outlook, report.unlinked_salesforce));
        let kinds = vec![
            ("lost", all(&report.lost)),
            ("duplicated", all(&report.duplicated)),
            ("looped", all(&report.looped)),
            ("diverged", all(&report.diverged)),
            ("mailed without cause", all(&report.mailed)),
            ("on one side only", alone.into_iter().collect()),
            ("written without a cause in the journal, or twice", ledger.writes_without_cause()),
            ("values that are nowhere", gone.lost),
            ("values overwritten and not told", gone.unseen),
            ("values that did not cross", ledger.values_that_did_not_cross(rehearsal)),
            ("mails that the journal does not expect", more.into_iter().collect()),
            ("unfinished", waiting),
        ];
        let edits = (ledger.edits(Cloud::Outlook), ledger.edits(Cloud::Salesforce));
        Self { kinds, mails, edits, told: ledger.told_as_overwritten() }
    }

    /// Returns the kinds of which something was found.
    pub(super) fn complaints(&self) -> Vec<&'static str> {
        self.kinds.iter().filter(|(_, found)| !found.is_empty()).map(|(kind, _)| *kind).collect()
    }

    /// Returns how much was found of each kind.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.kinds.iter().map(|(kind, found)| (*kind, found.len()))
    }

    /// Returns what was found wrong, with how much of it; what only counts at rest is left out where there was none.
    pub(super) fn charges(&self, rested: bool) -> Vec<String> {
        let counts = self.counts().filter(|(kind, count)| *count > 0 && (rested || AT_ANY_TIME.contains(kind)));
        counts.map(|(kind, count)| format!("{kind}: {count}")).collect()
    }

    /// Describes some of what was found.
    pub(super) fn examples(&self) -> String {
        let mut text = String::new();
        for (kind, found) in self.kinds.iter().filter(|(_, found)| !found.is_empty()) {
            writeln!(text, "{kind}, {} in all:", found.len()).unwrap();
            for one in found.iter().take(SHOWN) {
                writeln!(text, "  {one}").unwrap();
            }
        }
        text
    }
}
