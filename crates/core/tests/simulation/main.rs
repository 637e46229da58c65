//! The pure core against a made-up world on virtual time: random schedules, faults, then a calm drain and a judgement.
//!
//! - `CALBRIDGE_SCHEDULES=1000000 cargo test -p calbridge-core --test simulation -- --nocapture random` runs more schedules
//!   than the usual number and prints how many it did a second.
//! - `CALBRIDGE_SEED=N` runs just the schedule of that seed and prints its history; a failure names its seed.
//! - `CALBRIDGE_FROM=N` starts at another seed than 0, so that several machines can share the work.

#![expect(clippy::unwrap_used, reason = "in a test a panic is a finding, and here helpers are tests too")]

mod calbridge;
mod card;
mod explore;
mod oracle;
mod people;
mod sim;
mod swarm;
mod world;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use calbridge::{Calbridge, MUTANTS};
use card::Card;
use sim::{End, run};

/// Schedules of one test run; about 15 s on two cores that have other things to do as well.
const SCHEDULES: u64 = 30_000;

/// A mutant must be killed within this many schedules.
const MUTANT_SCHEDULES: u64 = 10_000;

/// The literal recipe must fail within this many schedules.
const CARD_SCHEDULES: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob, not configuration")]
    std::env::var(name).ok()?.parse().ok()
}

fn schedule(seed: u64, with_history: bool) -> End {
    run(seed, with_history, |swarm| Calbridge::new(swarm, None))
}

#[track_caller]
fn holds(seed: u64) {
    if let Some(violation) = schedule(seed, false).violation {
        panic!("seed {seed}: {violation}\n{}", schedule(seed, true).history.join("\n"));
    }
}

#[test]
fn random_schedules_end_in_agreement_without_echo_loss_or_duplicate() {
    if let Some(seed) = number("CALBRIDGE_SEED") {
        println!("{}", schedule(seed, true).history.join("\n"));
        return holds(seed);
    }
    let (from, schedules) = (number("CALBRIDGE_FROM").unwrap_or(0), number("CALBRIDGE_SCHEDULES").unwrap_or(SCHEDULES));
    let started = Instant::now();
    let next = AtomicU64::new(from);
    let shares = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shares: Vec<_> = (0..cores).map(|_| scope.spawn(|| share(&next, from + schedules))).collect();
        shares.into_iter().map(|share| share.join().unwrap_or_else(|panic| resume_unwind(panic))).collect::<Vec<_>>()
    });
    let total = shares.into_iter().fold(Share::default(), Share::and);
    if let Some(seed) = total.violated {
        holds(seed);
    }
    let Share { writes, unseen, with_unseen, .. } = total;
    let a_second = u128::from(schedules) * 1_000 / started.elapsed().as_millis().max(1);
    println!("{schedules} schedules, {writes} writes, 0 violations, {a_second} schedules a second");
    println!(
        "apart from these: {unseen} writes in {with_unseen} schedules replaced an edit that fell between read and write, \
         where the remote honours no precondition and no message told of the edit"
    );
}

/// What one thread found in its part of the schedules.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    writes: u64,
    unseen: u64,
    with_unseen: u64,
    /// The first seed that violated something.
    violated: Option<u64>,
}

impl Share {
    fn and(self, other: Self) -> Self {
        Self {
            writes: self.writes + other.writes,
            unseen: self.unseen + other.unseen,
            with_unseen: self.with_unseen + other.with_unseen,
            violated: [self.violated, other.violated].into_iter().flatten().min(),
        }
    }
}

/// Takes schedules until there are no more, or one violated something.
fn share(next: &AtomicU64, end: u64) -> Share {
    let mut share = Share::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return share;
        }
        let end_of_one = schedule(seed, false);
        share.writes += u64::from(end_of_one.writes);
        share.unseen += u64::from(end_of_one.overwritten_unseen);
        share.with_unseen += u64::from(end_of_one.overwritten_unseen > 0);
        if end_of_one.violation.is_some() {
            next.store(end, Ordering::Relaxed);
            share.violated = Some(seed);
            return share;
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..200 {
        assert_eq!(schedule(seed, true).history, schedule(seed, true).history);
    }
}

/// Runs until the first violation; returns after how many schedules it came, and which it was.
fn killed(schedules: u64, one: impl Fn(u64) -> End) -> Option<(u64, String)> {
    (0..schedules).find_map(|seed| Some((seed + 1, one(seed).violation?)))
}

#[test]
fn every_mutant_is_noticed() {
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        let one = |seed, mutated: bool| {
            run(seed, false, |swarm| {
                mutant.provoke(swarm);
                Calbridge::new(swarm, mutated.then_some(mutant))
            })
        };
        match killed(MUTANT_SCHEDULES, |seed| one(seed, true)) {
            Some((after, violation)) => {
                assert_eq!(one(after - 1, false).violation, None, "{mutant:?}: the same schedule without the mistake");
                println!("{mutant:<24?} noticed after {after:>6} schedules: {violation}");
            }
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not noticed within {MUTANT_SCHEDULES} schedules: {survivors:?}");
}

#[test]
fn the_literal_recipe_fails() {
    let broken = (0..CARD_SCHEDULES).filter(|seed| run(*seed, false, |_| Card::default()).violation.is_some()).count();
    let (after, violation) =
        killed(CARD_SCHEDULES, |seed| run(seed, false, |_| Card::default())).expect("it is broken");
    println!("literal recipe: {broken} of {CARD_SCHEDULES} schedules violated, first after {after}: {violation}");
}
