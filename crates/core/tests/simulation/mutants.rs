//! Rules that are broken on purpose, one by one, to prove that the simulation would notice; each with the mix of faults
//! in which its mistake does harm.

use calbridge_core::mapping::{Conflict, Direction};

use crate::swarm::{Kind, Preconditions, Rates, Swarm};

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// (a) What our own confirmed write made (version, modification time, stamp) is not remembered, so a read from before
    /// it is taken for a person's edit.
    ForgetsItsOwnWrites,
    /// (b) A refusal of a repeated request closes the intent, although the first request may have taken effect.
    BelievesTheLastAnswer,
    /// (b) and (c): besides, the loser is journaled only when the write is confirmed.
    JournalsWhenConfirmed,
    /// (d) Notices are covered although the notified version was never observed.
    CoversTheUnseen,
    /// (e) Whether a write took effect is told from the values, not from the token.
    JudgesByValue,
    /// (f) What change events said is not kept, so nobody learns what a write covered.
    AuditsNothing,
    /// One "not found" is a deletion.
    BelievesOneMiss,
    /// A creation without an answer is repeated at once.
    RepeatsCreations,
    /// Lost values are not journaled.
    JournalsNothing,
    /// A commit does not ask whether another worker owns the lane by now.
    IgnoresTheFence,
    /// A worker that stood still sends what it recorded before, however long ago that was.
    SendsWhenItWakes,
    /// A commit clears notices that came while the worker was busy.
    ClearsWhatCameMeanwhile,
}

pub(crate) const MUTANTS: [Mutant; 12] = [
    Mutant::ForgetsItsOwnWrites,
    Mutant::BelievesTheLastAnswer,
    Mutant::JournalsWhenConfirmed,
    Mutant::CoversTheUnseen,
    Mutant::JudgesByValue,
    Mutant::AuditsNothing,
    Mutant::BelievesOneMiss,
    Mutant::RepeatsCreations,
    Mutant::JournalsNothing,
    Mutant::IgnoresTheFence,
    Mutant::SendsWhenItWakes,
    Mutant::ClearsWhatCameMeanwhile,
];

impl Mutant {
    /// The letter that `facts` of the reconciliation give it, if any.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::ForgetsItsOwnWrites => "a",
            Self::BelievesTheLastAnswer => "b",
            Self::JournalsWhenConfirmed => "b+c",
            Self::CoversTheUnseen => "d",
            Self::JudgesByValue => "e",
            Self::AuditsNothing => "f",
            _ => "",
        }
    }

    /// Sets the mix in which the mistake does harm often enough to be met; what is not set is drawn as for any schedule.
    pub(crate) fn provoke(self, swarm: &mut Swarm) {
        let calm = Swarm { kinds: vec![Kind::Plain], location: Direction::Both, ..Swarm::calm() };
        match self {
            Self::ForgetsItsOwnWrites => {
                let rates = Rates { stale_reads: 30, repeated_signals: 50, noise: 10, ..Rates::default() };
                *swarm = Swarm { busy: 30, rates, ..calm };
            }
            Self::BelievesTheLastAnswer => {
                let rates = Rates { stale_reads: 60, lost_answers: 50, ..Rates::default() };
                *swarm = Swarm { busy: 40, rates, ..calm };
            }
            Self::JournalsWhenConfirmed => {
                let rates = Rates { stale_reads: 60, lost_answers: 50, edits_underneath: 20, ..Rates::default() };
                *swarm = Swarm { busy: 40, conflict: Conflict::SalesforceWins, rates, ..calm };
            }
            Self::CoversTheUnseen => {
                *swarm = Swarm { rates: Rates { stale_reads: 30, ..Rates::default() }, ..calm };
            }
            Self::JudgesByValue => {
                let rates = Rates { lost_answers: 30, lost_requests: 20, late_writes: 20, ..Rates::default() };
                *swarm = Swarm { busy: 40, rates, ..calm };
            }
            Self::AuditsNothing => {
                *swarm = Swarm { rates: Rates { edits_underneath: 20, ..Rates::default() }, ..calm };
            }
            Self::BelievesOneMiss => {
                *swarm = Swarm { rates: Rates { misses: 20, ..Rates::default() }, ..calm };
            }
            Self::RepeatsCreations => {
                let rates = Rates { lost_answers: 20, stale_reads: 30, late_writes: 20, ..Rates::default() };
                *swarm = Swarm { unique: false, rates, ..calm };
            }
            Self::JournalsNothing => *swarm = Swarm { busy: 40, ..calm },
            Self::IgnoresTheFence | Self::ClearsWhatCameMeanwhile => {
                *swarm = Swarm { workers: 2, rates: Rates { pauses: 30, ..Rates::default() }, ..calm };
            }
            Self::SendsWhenItWakes => {
                let rates = Rates { pauses: 30, lost_answers: 10, ..Rates::default() };
                *swarm = Swarm { workers: 2, unique: false, preconditions: Preconditions::Off, rates, ..calm };
            }
        }
    }

    /// The faults of [`Mutant::provoke`], for people.
    pub(crate) fn mix(self) -> String {
        let mut swarm = Swarm::calm();
        self.provoke(&mut swarm);
        let rates = crate::swarm::RATES.iter().map(|(name, rate)| (*name, *rate(&mut swarm.rates)));
        rates.filter(|(_, rate)| *rate > 0).map(|(name, rate)| format!("{name} {rate}")).collect::<Vec<_>>().join(", ")
    }
}
