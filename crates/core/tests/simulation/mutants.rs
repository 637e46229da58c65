//! Rules that are broken on purpose, one by one, to prove that the simulation would notice; each with the mix of faults
//! in which its mistake does harm.

use std::fmt::Write as _;

use calbridge_core::mapping::{Conflict, Direction};
use calbridge_core::policy::MailPolicy;

use crate::calbridge::Calbridge;
use crate::card::Card;
use crate::sim::{End, run};
use crate::swarm::{Kind, Limits, Preconditions, Rates, Swarm};
use crate::{number, report};

/// A mutant must be killed within this many schedules.
const MOST_SCHEDULES: u64 = 1_000_000;

/// The literal recipe must be killed within this many schedules.
const MOST_CARD_SCHEDULES: u64 = 1_000;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// (a) What our own confirmed write made (version, modification time, stamp) is not remembered, so a read from before
    /// it is taken for a person's edit.
    ForgetsItsOwnWrites,
    /// (b) A refusal of a repeated request closes the intent, although the first request may have taken effect.
    BelievesTheLastAnswer,
    /// (c) The loser is journaled only when the write is confirmed.
    JournalsWhenConfirmed,
    /// (b) and (c) together.
    BothBAndC,
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
    /// Everybody is taken for a person.
    MailsWithoutAPerson,
    /// Each change mails at once.
    MailsAtOnce,
    /// A commit does not ask whether another meeting used up meanwhile what the plan needs.
    SpendsUncounted,
    /// A deletion leaves as soon as it is planned.
    DeletesAtOnce,
    /// What a person approved stays approved when both sides agree.
    ApprovesForEver,
    /// A deleted record that a read shows is back.
    RestoresByStaleRead,
    /// Nobody remembers writes that no edit explains.
    ForgetsUnexplained,
    /// What a backup takes for agreed is the truth, whatever the records carry that was written since.
    TrustsTheBackup,
    /// A write that is held leaves all the same.
    SendsWhatIsHeld,
}

pub(crate) const MUTANTS: [Mutant; 22] = [
    Mutant::ForgetsItsOwnWrites,
    Mutant::BelievesTheLastAnswer,
    Mutant::JournalsWhenConfirmed,
    Mutant::BothBAndC,
    Mutant::CoversTheUnseen,
    Mutant::JudgesByValue,
    Mutant::AuditsNothing,
    Mutant::BelievesOneMiss,
    Mutant::RepeatsCreations,
    Mutant::JournalsNothing,
    Mutant::IgnoresTheFence,
    Mutant::SendsWhenItWakes,
    Mutant::ClearsWhatCameMeanwhile,
    Mutant::MailsWithoutAPerson,
    Mutant::MailsAtOnce,
    Mutant::SpendsUncounted,
    Mutant::DeletesAtOnce,
    Mutant::ApprovesForEver,
    Mutant::RestoresByStaleRead,
    Mutant::ForgetsUnexplained,
    Mutant::TrustsTheBackup,
    Mutant::SendsWhatIsHeld,
];

impl Mutant {
    /// The letter that `facts` of the reconciliation give it, if any.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::ForgetsItsOwnWrites => "a",
            Self::BelievesTheLastAnswer => "b",
            Self::JournalsWhenConfirmed => "c",
            Self::BothBAndC => "b+c",
            Self::CoversTheUnseen => "d",
            Self::JudgesByValue => "e",
            Self::AuditsNothing => "f",
            _ => "",
        }
    }

    /// Sets the mix in which the mistake does harm often enough to be met; what is not set is drawn as for any schedule.
    pub(crate) fn provoke(self, swarm: &mut Swarm) {
        let calm = Swarm { kinds: vec![Kind::Plain], location: Direction::Both, ..Swarm::calm() };
        let organised = Swarm { kinds: vec![Kind::Organised], mail: MailPolicy::PersonEdits, ..calm };
        match self {
            Self::ForgetsItsOwnWrites => {
                let rates = Rates { stale_reads: 30, repeated_signals: 50, noise: 10, ..Rates::default() };
                *swarm = Swarm { busy: 30, rates, ..calm };
            }
            Self::BelievesTheLastAnswer => {
                let rates = Rates { stale_reads: 60, lost_answers: 50, ..Rates::default() };
                *swarm = Swarm { busy: 40, rates, ..calm };
            }
            Self::JournalsWhenConfirmed | Self::BothBAndC => {
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
            Self::MailsWithoutAPerson | Self::ApprovesForEver => {
                let rates = Rates { automation: 60, answers: 20, ..Rates::default() };
                *swarm = Swarm { steps: 35, busy: 30, rates, ..organised };
            }
            Self::MailsAtOnce => *swarm = Swarm { steps: 35, busy: 30, ..organised },
            Self::SpendsUncounted => {
                let rates = Rates { pauses: 30, ..Rates::default() };
                let kinds = vec![Kind::Organised; 2];
                *swarm = Swarm { kinds, workers: 2, limits: Limits::Tight, busy: 40, rates, ..organised };
            }
            Self::DeletesAtOnce => *swarm = Swarm { rates: Rates { deletes: 15, ..Rates::default() }, ..calm },
            Self::RestoresByStaleRead => {
                let rates = Rates { deletes: 15, stale_reads: 60, repeated_signals: 50, ..Rates::default() };
                *swarm = Swarm { rates, ..calm };
            }
            Self::TrustsTheBackup => *swarm = Swarm { backup: true, steps: 35, busy: 40, ..calm },
            Self::SendsWhatIsHeld => {
                let rates = Rates { deletes: 15, ..Rates::default() };
                *swarm = Swarm { kinds: vec![Kind::Plain; 3], limits: Limits::Tight, steps: 35, rates, ..calm };
            }
            Self::ForgetsUnexplained => *swarm = Swarm { answering: true, limits: Limits::Tight, ..calm },
        }
    }

    /// The faults of [`Mutant::provoke`], for people.
    pub(crate) fn mix(self) -> String {
        let mut swarm = Swarm::calm();
        self.provoke(&mut swarm);
        let rates = crate::swarm::RATES.iter().map(|(name, rate)| (*name, *rate(&mut swarm.rates)));
        let rates = rates.filter(|(_, rate)| *rate > 0);
        let named: Vec<_> = rates.map(|(name, rate)| format!("{name} {rate}")).collect();
        if named.is_empty() { "none; people only".to_owned() } else { named.join(", ") }
    }
}

/// Where three runs of a mutant begin: other seeds each time, unless `CALBRIDGE_FROM` names the first.
fn fresh_seeds() -> [u64; 3] {
    // A hasher of the standard library is seeded by the system; three ranges of seeds never meet.
    let drawn = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "fresh");
    let from = number("CALBRIDGE_FROM").unwrap_or(drawn >> 2);
    [from, from + (1 << 32), from + (2 << 32)]
}

/// What it took to notice a mistake.
struct Kill {
    schedules: u64,
    violation: String,
}

/// Runs until the first violation.
fn kill(from: u64, most: u64, one: impl Fn(u64) -> End) -> Option<Kill> {
    (0..most).find_map(|number| Some(Kill { schedules: number + 1, violation: one(from + number).violation? }))
}

/// Runs from three seeds at once.
fn kills(seeds: [u64; 3], most: u64, one: impl Fn(u64) -> End + Sync) -> [Option<Kill>; 3] {
    std::thread::scope(|scope| {
        let one = &one;
        seeds.map(|from| scope.spawn(move || kill(from, most, one))).map(|run| run.join().expect("no run panics"))
    })
}

/// The schedule of a seed in a mutant's mix, with or without its mistake.
pub(crate) fn provoked(mutant: Mutant, mistaken: bool, seed: u64, with_history: bool) -> End {
    run(seed, with_history, |swarm| {
        mutant.provoke(swarm);
        Calbridge::new(swarm, mistaken.then_some(mutant))
    })
}

/// A line of the table; tells whether all three runs ended in a kill.
fn line(table: &mut String, name: &str, letter: &str, kills: &[Option<Kill>; 3]) -> bool {
    let after = |kill: &Option<Kill>| kill.as_ref().map_or("survived".to_owned(), |kill| kill.schedules.to_string());
    let mut broken: Vec<&str> = kills.iter().flatten().filter_map(|kill| kill.violation.split(':').next()).collect();
    broken.sort_unstable();
    broken.dedup();
    let [first, second, third] = kills;
    let counts = format!("{:>9}{:>9}{:>9}", after(first), after(second), after(third));
    writeln!(table, "{letter:<4} {name:<24}{counts}   {}", broken.join(", ")).expect("a text takes everything");
    kills.iter().all(Option::is_some)
}

#[test]
fn every_mutant_is_killed_from_three_fresh_seeds() {
    let seeds = fresh_seeds();
    let mut table = format!(
        "Mutants, and after how many schedules each was killed, from the seeds\n{seeds:?}\n{:<5}mutant                      1st      2nd      3rd   invariant broken\n",
        ""
    );
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        let kills = kills(seeds, MOST_SCHEDULES, |seed| provoked(mutant, true, seed, false));
        if !line(&mut table, &format!("{mutant:?}"), mutant.letter(), &kills) {
            survivors.push(mutant);
        }
        for (from, kill) in seeds.into_iter().zip(kills.iter().flatten()) {
            let sound = provoked(mutant, false, from + kill.schedules - 1, false);
            assert_eq!(sound.violation, None, "{mutant:?}: the same schedule without the mistake");
        }
    }
    let card = kills(seeds, MOST_CARD_SCHEDULES, |seed| run(seed, false, |_| Card::default()));
    let card_killed = line(&mut table, "the literal recipe", "", &card);
    table.push_str("Faults of each mix in percent; the literal recipe runs in the mix of all schedules:");
    for mutant in MUTANTS {
        write!(table, "\n     {:<24}   {}", format!("{mutant:?}"), mutant.mix()).expect("a text takes everything");
    }
    report::tell(&table);
    assert!(survivors.is_empty(), "not killed within {MOST_SCHEDULES} schedules: {survivors:?}");
    assert!(card_killed, "the literal recipe was not killed within {MOST_CARD_SCHEDULES} schedules");
}

/// How often the obvious recipe fails, in the mix of all schedules and without any fault.
#[test]
fn the_literal_recipe_fails_even_without_faults() {
    let broken = |calm: bool| {
        let one = |seed| {
            run(seed, false, |swarm| {
                if calm {
                    *swarm = Swarm::calm();
                }
                Card::default()
            })
        };
        (0..MOST_CARD_SCHEDULES).filter(|seed| one(*seed).violation.is_some()).count()
    };
    let (mixed, calm) = (broken(false), broken(true));
    report::tell(&format!(
        "The literal recipe: of {MOST_CARD_SCHEDULES} schedules {mixed} fail with faults, {calm} without any"
    ));
    assert!(calm > 0, "it looks sound without faults");
}
