//! Random schedules: many of the whole, and some of each mutant.

use std::fmt::Write as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::calbridge::Calbridge;
use crate::sim::{End, run};
use crate::swarm::Preconditions;
use crate::{number, report};

/// Schedules of one test run.
const SCHEDULES: u64 = 1_000_000;

/// Every so many seeds, one is run twice, and both histories must be the same.
const TWICE: u64 = 16;

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
    let twice = number("CALBRIDGE_TWICE").unwrap_or(TWICE).max(1);
    let started = Instant::now();
    let next = AtomicU64::new(from);
    let shares = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shares: Vec<_> = (0..cores).map(|_| scope.spawn(|| share(&next, from + schedules, twice))).collect();
        shares.into_iter().map(|share| share.join().unwrap_or_else(|panic| resume_unwind(panic))).collect::<Vec<_>>()
    });
    let total = shares.into_iter().fold(Share::default(), Share::and);
    if let Some(seed) = total.violated {
        holds(seed);
    }
    assert_eq!(total.differ, None, "the same seed gave two histories");
    let took = started.elapsed().as_millis().max(1);
    let a_second = u128::from(schedules) * 1_000 / took;
    let Share { writes, digest, twice, .. } = total;
    let mut text = format!(
        "{schedules} random schedules from seed {from}: 0 violations, {writes} writes\n\
         {twice} of them run twice, each with the same hash of its history\n\
         {} s, {a_second} schedules a second; hash of all histories {digest:016x}\n\
         Apart from these, what no engine could know or prevent, by what becomes of If-Match on Outlook (per million):\n\
         If-Match        schedules  edits overwritten unseen  late writes not refused  deleted events made again  mails of wrong authors",
        took / 1_000
    );
    for (name, apart) in ["honoured", "off, as known", "ignored"].into_iter().zip(total.apart) {
        let rate = |count: u64| format!("{count} ({})", count * 1_000_000 / apart.schedules.max(1));
        let Apart { schedules, edits, unrefused, recreated, misattributed } = apart;
        let (edits, unrefused) = (rate(edits), rate(unrefused));
        let (recreated, misattributed) = (rate(recreated), rate(misattributed));
        write!(text, "\n{name:<14} {schedules:>10} {edits:>25} {unrefused:>24}").unwrap();
        write!(text, "{recreated:>27} {misattributed:>22}").unwrap();
    }
    report::tell(&text);
}

/// Losses that nobody could have prevented, among schedules of one kind.
#[derive(Debug, Default, Clone, Copy)]
struct Apart {
    schedules: u64,
    /// Edits that fell between a read and a write, and that no message told of.
    edits: u64,
    unrefused: u64,
    recreated: u64,
    misattributed: u64,
}

/// What one thread found in its part of the schedules.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    writes: u64,
    digest: u64,
    apart: [Apart; 3],
    /// The first seed that violated something.
    violated: Option<u64>,
    /// How many seeds were run twice, and the first whose histories differed.
    twice: u64,
    differ: Option<u64>,
}

impl Share {
    fn and(mut self, other: Self) -> Self {
        for (mine, more) in self.apart.iter_mut().zip(other.apart) {
            mine.schedules += more.schedules;
            mine.edits += more.edits;
            mine.unrefused += more.unrefused;
            mine.recreated += more.recreated;
            mine.misattributed += more.misattributed;
        }
        self.writes += other.writes;
        self.twice += other.twice;
        self.differ = [self.differ, other.differ].into_iter().flatten().min();
        self.digest = self.digest.wrapping_add(other.digest);
        self.violated = [self.violated, other.violated].into_iter().flatten().min();
        self
    }
}

/// Takes schedules until there are no more, or one violated something.
fn share(next: &AtomicU64, end: u64, twice: u64) -> Share {
    let mut share = Share::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return share;
        }
        let one = schedule(seed, false);
        if seed.is_multiple_of(twice) {
            share.twice += 1;
            share.differ = share.differ.or((schedule(seed, false).digest != one.digest).then_some(seed));
        }
        share.writes += u64::from(one.writes);
        share.digest = share.digest.wrapping_add(one.digest);
        let apart = &mut share.apart[match one.preconditions {
            Preconditions::Honoured => 0,
            Preconditions::Off => 1,
            Preconditions::Ignored => 2,
        }];
        apart.schedules += 1;
        apart.edits += u64::from(one.overwritten_unseen);
        apart.unrefused += u64::from(one.unrefused);
        apart.recreated += u64::from(one.recreated);
        apart.misattributed += u64::from(one.misattributed);
        if one.violation.is_some() {
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
    for seed in 0..5_000 {
        assert_eq!(schedule(seed, false).digest, schedule(seed, seed % 7 == 0).digest, "seed {seed}");
    }
}
