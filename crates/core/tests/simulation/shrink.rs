//! Makes a failing schedule small: turns faults off one by one, takes meetings, workers and steps away, and keeps what
//! still fails in the same way; in the end it prints the shortest history that it found.
//!
//! When a fault is off, the same dice mean another schedule. So every smaller mix is tried with the schedule's own dice
//! and then with others.

use std::collections::BTreeMap;

use crate::calbridge::Calbridge;
use crate::mutants::{MUTANTS, Mutant, provoked};
use crate::number;
use crate::sim::{End, play};
use crate::swarm::{Dice, Kind, Preconditions, RATES, Swarm};

/// Dice tried for each smaller mix.
const TRIES: u64 = 3_000;

/// A schedule that fails.
#[derive(Debug, Clone)]
struct Failing {
    swarm: Swarm,
    dice: Dice,
    /// Number of lines of its history.
    length: usize,
}

/// The invariant that a violation names, such as `S2`.
fn invariant(violation: &str) -> &str {
    violation.split(':').next().unwrap_or(violation)
}

/// Looks for small schedules that break one invariant.
struct Shrinker {
    invariant: String,
    mutant: Option<Mutant>,
    tries: u64,
}

impl Shrinker {
    fn play(&self, swarm: &Swarm, dice: Dice) -> End {
        play(dice, swarm.clone(), true, Calbridge::new(swarm, self.mutant))
    }

    /// Returns the schedule if it breaks the same invariant.
    fn failing(&self, swarm: &Swarm, dice: &Dice) -> Option<Failing> {
        // Histories cost time; most schedules do not fail.
        let quick = play(dice.clone(), swarm.clone(), false, Calbridge::new(swarm, self.mutant));
        quick.violation.filter(|violation| invariant(violation) == self.invariant)?;
        let length = self.play(swarm, dice.clone()).history.len();
        Some(Failing { swarm: swarm.clone(), dice: dice.clone(), length })
    }

    /// Returns a failing schedule of a smaller mix: with the same dice, or else with the first others that fail.
    fn smaller(&self, old: &Failing, swarm: &Swarm) -> Option<Failing> {
        let own = self.failing(swarm, &old.dice).filter(|new| new.length <= old.length);
        own.or_else(|| {
            let mut found = (0..self.tries).filter_map(|seed| self.failing(swarm, &Dice::new(seed)));
            found.find(|new| new.length <= old.length)
        })
    }

    fn shrink(&self, mut best: Failing) -> Failing {
        loop {
            let before = format!("{:?}", best.swarm);
            for smaller in reductions(&best.swarm) {
                if let Some(found) = self.smaller(&best, &smaller) {
                    best = found;
                }
            }
            if format!("{:?}", best.swarm) == before {
                break;
            }
        }
        // The mix is as small as it gets: now the shortest of many schedules.
        let all = (0..self.tries).filter_map(|seed| self.failing(&best.swarm, &Dice::new(seed)));
        all.chain([best.clone()]).min_by_key(|failing| failing.length).unwrap_or(best)
    }
}

/// Mixes that are each a little smaller than a given one.
fn reductions(swarm: &Swarm) -> Vec<Swarm> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Swarm)| {
        let mut smaller = swarm.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    if swarm.kinds.len() > 1 {
        for index in 0..swarm.kinds.len() {
            with(&|swarm| swarm.kinds = vec![swarm.kinds[index]]);
        }
    }
    if swarm.kinds.iter().any(|kind| *kind != Kind::Plain) {
        with(&|swarm| swarm.kinds.fill(Kind::Plain));
    }
    if swarm.workers > 1 {
        with(&|swarm| swarm.workers = 1);
    }
    for (_, rate) in RATES {
        if *rate(&mut swarm.clone().rates) > 0 {
            with(&|swarm| *rate(&mut swarm.rates) = 0);
        }
    }
    let calm = Swarm::calm();
    if swarm.conflict != calm.conflict {
        with(&|swarm| swarm.conflict = Swarm::calm().conflict);
    }
    if swarm.location != calm.location {
        with(&|swarm| swarm.location = Swarm::calm().location);
    }
    if swarm.mail != calm.mail {
        with(&|swarm| swarm.mail = Swarm::calm().mail);
    }
    if swarm.limits != calm.limits {
        with(&|swarm| swarm.limits = Swarm::calm().limits);
    }
    if swarm.delete_conflict != calm.delete_conflict {
        with(&|swarm| swarm.delete_conflict = Swarm::calm().delete_conflict);
    }
    if swarm.soon || swarm.answering {
        with(&|swarm| (swarm.soon, swarm.answering) = (false, false));
    }
    if swarm.preconditions != Preconditions::Honoured {
        with(&|swarm| swarm.preconditions = Preconditions::Honoured);
    }
    if !swarm.unique {
        with(&|swarm| swarm.unique = true);
    }
    if !swarm.remembers_transactions {
        with(&|swarm| swarm.remembers_transactions = true);
    }
    for steps in [1, 2, 4, 8, swarm.steps - swarm.steps / 4] {
        if steps < swarm.steps {
            with(&|swarm| swarm.steps = steps);
        }
    }
    all
}

/// Prints the smallest schedule that fails as a seed does; `CALBRIDGE_MUTANT` names a mistake to make.
#[test]
fn a_failing_seed_shrinks() {
    let Some(seed) = number("CALBRIDGE_SHRINK") else { return };
    #[expect(clippy::disallowed_methods, reason = "a test's own knob, not configuration")]
    let name = std::env::var("CALBRIDGE_MUTANT").ok();
    let mutant = MUTANTS.into_iter().find(|mutant| name == Some(format!("{mutant:?}")));
    let mut dice = Dice::new(seed);
    let mut swarm = Swarm::draw(&mut dice);
    if let Some(mutant) = mutant {
        mutant.provoke(&mut swarm);
    }
    let end = play(dice.clone(), swarm.clone(), true, Calbridge::new(&swarm, mutant));
    let Some(violation) = end.violation else { panic!("seed {seed} does not fail") };
    println!("seed {seed}: {violation}, a history of {} lines", end.history.len());
    let shrinker = Shrinker { invariant: invariant(&violation).to_owned(), mutant, tries: TRIES };
    let best = shrinker.shrink(Failing { swarm, dice, length: end.history.len() });
    let end = shrinker.play(&best.swarm, best.dice);
    println!("{}\n{}", end.history.join("\n"), end.violation.unwrap_or_default());
}

#[test]
fn a_shrunk_schedule_still_fails_in_the_same_way_and_is_shorter() {
    let mutant = Mutant::SendsWhenItWakes;
    let seed = (0..10_000).find(|seed| provoked(mutant, true, *seed, false).violation.is_some()).expect("it is killed");
    let mut dice = Dice::new(seed);
    let mut swarm = Swarm::draw(&mut dice);
    mutant.provoke(&mut swarm);
    (swarm.rates.noise, swarm.rates.failed_reads, swarm.steps) = (10, 5, 35);
    let shrinker = |invariant: &str| Shrinker { invariant: invariant.to_owned(), mutant: Some(mutant), tries: 300 };
    // With more faults another schedule fails first.
    let (dice, end) = (0..10_000)
        .map(|seed| (Dice::new(seed), play(Dice::new(seed), swarm.clone(), true, Calbridge::new(&swarm, Some(mutant)))))
        .find(|(_, end)| end.violation.is_some())
        .expect("it is killed");
    let violation = end.violation.unwrap();
    let shrinker = shrinker(invariant(&violation));
    let mut best = shrinker.shrink(Failing { swarm, dice, length: end.history.len() });
    let shrunk = shrinker.play(&best.swarm, best.dice.clone());
    assert_eq!(shrunk.violation.as_deref().map(invariant), Some(invariant(&violation)));
    assert!(shrunk.history.len() < end.history.len(), "{} of {} lines", shrunk.history.len(), end.history.len());
    let rates = &mut best.swarm.rates;
    assert_eq!((rates.noise, rates.failed_reads), (0, 0), "neither has to do with the mistake");
    assert!(rates.pauses > 0, "without pauses nobody wakes");
}

/// Counts violations by what they say, with the first seeds of each; `CALBRIDGE_MUTANT` names whose mix is played, without
/// the mistake.
#[test]
fn all_violations_are_surveyed() {
    let Some(schedules) = number("CALBRIDGE_SURVEY") else { return };
    let from = number("CALBRIDGE_FROM").unwrap_or(0);
    #[expect(clippy::disallowed_methods, reason = "a test's own knob, not configuration")]
    let name = std::env::var("CALBRIDGE_MUTANT").ok();
    let mutant = MUTANTS.into_iter().find(|mutant| name == Some(format!("{mutant:?}")));
    let play = |seed, with_history| match mutant {
        Some(mutant) => provoked(mutant, false, seed, with_history),
        None => crate::sim::run(seed, with_history, |swarm| Calbridge::new(swarm, None)),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failing = |core| {
        let seeds = (from + core..from + schedules).step_by(usize::try_from(cores).unwrap());
        seeds.filter_map(|seed| Some((play(seed, false).violation?, seed))).collect::<Vec<_>>()
    };
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..cores).map(|core| scope.spawn(move || failing(core))).collect();
        for (violation, seed) in shares.into_iter().flat_map(|share| share.join().expect("no schedule panics")) {
            found.entry(violation).or_default().push(seed);
        }
    });
    for (violation, seeds) in found {
        let shortest =
            seeds.iter().take(200).min_by_key(|seed| play(**seed, true).history.len()).expect("there is one");
        println!("{} times, such as seed {shortest}: {violation}", seeds.len());
        println!("{}\n", play(*shortest, true).history.join("\n"));
    }
}
