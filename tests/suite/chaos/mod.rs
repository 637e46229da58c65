//! Chaos: two engines on one PostgreSQL and one Redis, in clouds where every fault strikes at random, are stopped, killed and
//! deprived of what they stand on, while people work on both sides. In the end both sides agree, and nothing is lost, made
//! twice, written in vain or mailed without cause.
//!
//! The same judgement is put on trial: engines with a mistake on purpose must not pass it.
//!
//! `CALBRIDGE_TEST_SEED` plays the acts of a run again; the moments within them are the machine's own.
//! `CALBRIDGE_TEST_LONG=1` lets the run last ten minutes. The tables are left in `target/tmp/chaos.txt` and
//! `target/tmp/chaos-mistakes-*.txt`.

mod acts;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calbridge::engine;
use calbridge::mistakes::Mistake;
use calbridge::points::Point;
use calbridge_core::case::Instruction;
use calbridge_core::reason::Reason;
use calbridge_sandbox::{Act, Options, Profile};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use self::acts::{ANYWHERE, Blow, Victim, Weather, storm};
use self::verdict::Verdict;
use crate::support::environment;
use crate::support::outage::{OwnServer, Shutdown};
use crate::support::people::People;
use crate::support::process::Bench;
use crate::support::redis::RedisServer;

/// Clocks run three times as fast as the wall clock.
///
/// Between planning a write and sending it there is as much time as for a request, on this clock: 1.3 s of real time, because
/// a busy machine needs it. A recorded write is given up after 15 s of real time. It is sent within 9.5 s, the longest time for
/// which an engine is made to stand still right before; it is waited for for 4 s, and takes effect up to 1.3 s after that.
const SPEED: f64 = 3.0;
const REQUEST_SECS: u32 = 4;
const LEASE_SECS: u32 = 7;
const LATE_APPLY_SECS: u32 = 4;
const LATE_SECS: u32 = 41;
/// How often the run is looked at while it comes to rest.
const LOOK: Duration = Duration::from_millis(500);
/// Real time within which engines must come to rest.
const DRAINED_WITHIN: Duration = Duration::from_mins(4);
/// Real time after which engines with a mistake that have come to rest will not mend what is wrong.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(8);
/// Real time after which engines with a mistake are judged although they have not come to rest: some never do.
const RESTLESS_FOR: Duration = Duration::from_secs(30);

/// What happens in a run.
struct Mix {
    name: &'static str,
    mistake: Option<Mistake>,
    profile: Profile,
    span: Duration,
    /// People only make meetings.
    makes_only: bool,
    /// Longest pause between two edits, in milliseconds.
    edit_ms: u64,
    blows: &'static [(Blow, u32)],
    /// Pause before each, in milliseconds.
    gap_ms: Range<u64>,
    /// Only one of the engines suffers them, so that the other one is there to take over.
    spares_one: bool,
    /// Where engines may be made to stand still.
    points: &'static [Point],
    /// For how long they do, in milliseconds.
    still_ms: Range<u64>,
    weather: &'static [(Weather, u32)],
    /// `sync.late_apply_secs`.
    late_secs: u32,
    /// Salesforce is asked to refuse what is based on an old version; none: as the seed says.
    conditional: Option<bool>,
    /// Both clouds refuse a creation that they know already; none: Outlook does, Salesforce as the seed says.
    knows_repeats: Option<bool>,
}

#[expect(clippy::print_stderr, reason = "whoever looks into a run wants to know")]
fn tell(what: &str) {
    eprintln!("{what}");
}

/// Everything that two engines share.
struct Arena {
    bench: Bench,
    server: OwnServer,
    redis: tokio::sync::Mutex<RedisServer>,
    people: Mutex<People>,
    settings: String,
    tally: Mutex<BTreeMap<String, u32>>,
}

impl Arena {
    async fn set_up(mix: &Mix, seed: u64) -> Option<Self> {
        let redis = RedisServer::start().await?;
        let (server, database) = OwnServer::start().await?;
        let options = Options { speed: SPEED, seed, profile: mix.profile, ..Options::default() };
        let conditional = mix.conditional.unwrap_or(seed.is_multiple_of(2));
        let settings = format!(
            "network:\n  request_timeout_secs: {REQUEST_SECS}\n\
             sync:\n  late_apply_secs: {}\n  lease_secs: {LEASE_SECS}\n  retry_max_secs: 30\n\
             guard:\n  deletes_in_mailbox: 10000\n  deletes_by_author: 10000\n\
             redis:\n  url: {}\nsalesforce:\n  conditional_updates: {conditional}\n",
            mix.late_secs,
            redis.url()
        );
        let bench = Bench::set_up_on(Some(database), options, &settings).await;
        bench.rehearsal.switch(|switches| {
            switches.late_apply_secs = LATE_APPLY_SECS;
            switches.outlook_transaction_id = mix.knows_repeats.unwrap_or(true);
            switches.salesforce_link_unique = mix.knows_repeats.unwrap_or((seed / 2).is_multiple_of(2));
        });
        let mut people = People::new(StdRng::seed_from_u64(seed));
        people.mailing = true;
        let (redis, people) = (tokio::sync::Mutex::new(redis), Mutex::new(people));
        Some(Self { bench, server, redis, people, settings, tally: Mutex::default() })
    }

    fn count(&self, what: &str) {
        *self.tally.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    /// Lets people work until it is time.
    async fn work(&self, mix: &Mix, until: Instant) {
        while Instant::now() < until {
            let pause = {
                let mut people = self.people.lock().unwrap();
                if mix.makes_only {
                    people.create_some(&self.bench.rehearsal);
                } else {
                    people.edit(&self.bench.rehearsal);
                }
                people.choices.random_range(0..mix.edit_ms)
            };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Answers what waits for a person, as an operator does: approves what is held, and has a meeting tried again that
    /// people changed to and fro until the engine took them for a loop.
    async fn operate(&self) {
        let rehearsal = &self.bench.rehearsal;
        let desk = engine::open_desk(&rehearsal.config, Arc::clone(&rehearsal.clock)).await.unwrap();
        for (held, instruction) in [(true, Instruction::Approve), (false, Instruction::Retry)] {
            for open in desk.letters(held, 10_000).await.unwrap() {
                let answers = held || open.letter.reason == Reason::Oscillation;
                if let (None, Some(lane), true) = (open.instruction, open.lane, answers) {
                    self.count(&format!("answered by an operator: {}", open.letter.reason.name()));
                    desk.instruct(&[lane], instruction).await.unwrap();
                }
            }
        }
    }

    /// Waits until nothing moves any more and nothing is left to do; tells how long it took, or that it did not come to it.
    ///
    /// Engines with a mistake may rest although something is wrong.
    async fn drained(&self, mix: &Mix, victims: &mut [&mut Victim<'_>]) -> Option<Duration> {
        let (rehearsal, began) = (&self.bench.rehearsal, Instant::now());
        let mut resting_since = None;
        loop {
            for victim in victims.iter_mut() {
                victim.look_after();
            }
            self.operate().await;
            let (report, status) = (rehearsal.sandbox.oracle(), rehearsal.status().await);
            let quiet = !report.is_pending() && rehearsal.sandbox.world().late.waiting() == 0;
            let resting = quiet && status.waiting == 0 && status.intents == 0;
            let open = status.dead_letters > 0 || !status.holds.is_empty();
            let agreed = report.is_clean() && report.unlinked_outlook + report.unlinked_salesforce == 0;
            if resting && !open && agreed {
                return Some(began.elapsed());
            }
            let since = *resting_since.get_or_insert_with(Instant::now);
            if !resting {
                resting_since = None;
            } else if mix.mistake.is_some() && since.elapsed() > GIVEN_UP_AFTER {
                return Some(began.elapsed());
            }
            if began.elapsed() > if mix.mistake.is_some() { RESTLESS_FOR } else { DRAINED_WITHIN } {
                return None;
            }
            sleep(LOOK).await;
        }
    }
}

/// What became of a run.
struct Ended {
    verdict: Verdict,
    drained: Option<Duration>,
    table: String,
    faults: BTreeMap<String, u64>,
    tally: BTreeMap<String, u32>,
}

/// Plays a run to its end and judges it; none where a server is missing.
async fn play(mix: &Mix, seed: u64) -> Option<Ended> {
    let arena = Arena::set_up(mix, seed).await?;
    let rehearsal = &arena.bench.rehearsal;
    let mut seeds = StdRng::seed_from_u64(seed ^ 0x5eed);
    let mut choices = || StdRng::seed_from_u64(seeds.next_u64());
    let mut first = Victim::new(&arena, mix, "first", choices());
    let mut second = Victim::new(&arena, mix, "second", choices());

    // The first start pairs mailboxes and users; what is older than that would be left alone.
    let subscribed = arena.bench.subscribed();
    first.start();
    arena.bench.ready(subscribed).await;
    second.start();
    if !mix.makes_only {
        let mut people = arena.people.lock().unwrap();
        (0..2).for_each(|_| people.settle_in(rehearsal));
    }
    let until = Instant::now() + mix.span;
    tokio::join!(
        arena.work(mix, until),
        first.suffer(until),
        async {
            if !mix.spares_one {
                second.suffer(until).await;
            }
        },
        storm(&arena, mix, choices(), until)
    );
    let faults = rehearsal.sandbox.world().meters.read().faults;
    let meanwhile = rehearsal.written();
    rehearsal.sandbox.act(&Act::Calm).unwrap();
    let drained = arena.drained(mix, &mut [&mut first, &mut second]).await;
    if mix.mistake.is_none() {
        // What comes too late must not undo it.
        rehearsal.pass(chrono::TimeDelta::seconds(31)).await;
    }
    let verdict = Verdict::reach(rehearsal).await;
    let written = (meanwhile, rehearsal.written());
    let tally = arena.tally.lock().unwrap().clone();
    let table = table(mix, seed, &faults, &tally, written, drained, &verdict);
    for victim in [first, second] {
        let running = victim.into_running();
        if mix.mistake.is_none() && verdict.complaints().is_empty() {
            assert_eq!(running.stop().await.code, 0);
        } else {
            running.kill().await;
        }
    }
    if mix.mistake.is_some() {
        arena.bench.rehearsal.excuse_mails();
    }
    let server = arena.server;
    arena.bench.end().await;
    server.stop(Shutdown::Fast).await;
    Some(Ended { verdict, drained, table, faults, tally })
}

/// Draws the summary of a run, as Markdown.
fn table(
    mix: &Mix,
    seed: u64,
    faults: &BTreeMap<String, u64>,
    tally: &BTreeMap<String, u32>,
    written: ((usize, usize), (usize, usize)),
    drained: Option<Duration>,
    verdict: &Verdict,
) -> String {
    let mut text = format!("| {} | |\n|---|---|\n", mix.name);
    let mut row = |what: &str, value: &str| writeln!(text, "| {what} | {value} |").unwrap();
    row("seed", &seed.to_string());
    row("length", &format!("{} s, on a clock {SPEED} times as fast", mix.span.as_secs()));
    row("edits in Outlook, in Salesforce", &format!("{}, {}", verdict.edits.0, verdict.edits.1));
    let (meanwhile, all) = written;
    row("writes to Outlook, to Salesforce", &format!("{}, {}", all.0, all.1));
    row("of these while faults struck", &format!("{}, {}", meanwhile.0, meanwhile.1));
    row("mails expected, seen", &format!("{}, {}", verdict.mails.0, verdict.mails.1));
    row("values overwritten unseen, and told", &verdict.told.to_string());
    for (what, times) in tally {
        row(what, &times.to_string());
    }
    let list: Vec<String> = faults.iter().map(|(name, times)| format!("{name} {times}")).collect();
    row(&format!("faults that struck: {}", faults.values().sum::<u64>()), &list.join(", "));
    let took = drained.map_or_else(|| "never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
    row("time to come to rest", &took);
    for (kind, count) in verdict.counts() {
        row(kind, &count.to_string());
    }
    text
}

/// Leaves a table where `scripts/test.sh` finds it.
#[expect(clippy::print_stderr, reason = "the table is the evidence")]
fn leave(name: &str, text: &str) {
    let path = format!("{}/{name}.txt", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(path, text).unwrap();
    eprintln!("{text}");
}

fn seed() -> u64 {
    // Short enough to be typed.
    environment("CALBRIDGE_TEST_SEED").map_or_else(|| u64::from(rand::random::<u32>()), |seed| seed.parse().unwrap())
}

const STORM: Mix = Mix {
    name: "chaos",
    mistake: None,
    profile: Profile::Hostile,
    span: Duration::from_mins(1),
    makes_only: false,
    edit_ms: 700,
    blows: &[
        (Blow::Pause, 3),
        (Blow::LongPause, 2),
        (Blow::PauseAtPoint, 3),
        (Blow::Kill, 2),
        (Blow::KillAtWrite, 3),
        (Blow::Restart, 1),
    ],
    // An engine that does nothing but start proves nothing.
    gap_ms: 1_500..8_000,
    spares_one: false,
    points: ANYWHERE,
    // Longer than a lease, and short enough for a write that was recorded right before.
    still_ms: 7_500..9_500,
    weather: &[
        (Weather::FlushRedis, 4),
        (Weather::RestartRedis, 1),
        (Weather::RestartDatabase, 3),
        (Weather::CutDatabase, 2),
        (Weather::EditBeneath, 5),
    ],
    late_secs: LATE_SECS,
    conditional: None,
    knows_repeats: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_that_are_stopped_killed_and_deprived_of_everything_lose_nothing_and_do_nothing_twice() {
    let seed = seed();
    eprintln!("CALBRIDGE_TEST_SEED={seed}");
    let span = if environment("CALBRIDGE_TEST_LONG").is_some() { Duration::from_mins(10) } else { STORM.span };
    let Some(ended) = play(&Mix { span, ..STORM }, seed).await else { return };
    leave("chaos", &ended.table);
    assert_eq!(ended.verdict.complaints(), Vec::<&str>::new(), "{}", ended.verdict.examples());
    assert!(ended.drained.is_some(), "it comes to rest");
    let done = |names: &[&str]| names.iter().filter_map(|name| ended.tally.get(*name)).sum::<u32>();
    let kills = done(&["kill", "kill at write"]);
    let pauses = done(&["pause", "long pause", "pause at point"]);
    let outages = done(&["restart database", "cut database", "flush redis", "restart redis"]);
    assert!(kills >= 1 && pauses >= 2 && outages >= 3, "it was chaos: {:?}", ended.tally);
    assert!(ended.faults.len() >= 10, "faults of many kinds struck: {:?}", ended.faults);
}

/// A run without faults, which each mistake changes as it needs.
const CALM: Mix = Mix {
    name: "calm",
    mistake: None,
    profile: Profile::Office,
    span: Duration::from_secs(24),
    makes_only: false,
    edit_ms: 500,
    blows: &[],
    gap_ms: 500..2_500,
    spares_one: false,
    points: ANYWHERE,
    still_ms: 9_000..10_000,
    weather: &[],
    late_secs: LATE_SECS,
    conditional: None,
    knows_repeats: None,
};

/// Returns the run in which a mistake shows.
fn temptation(mistake: Mistake) -> Mix {
    let mix = match mistake {
        Mistake::SendsBeforeRecording => Mix { name: "killed between", blows: &[(Blow::KillAtEffect, 1)], ..CALM },
        Mistake::RepeatsCreations => Mix {
            name: "answers are cut off, repeats are not recognised",
            weather: &[(Weather::CutAnswers, 1)],
            knows_repeats: Some(false),
            makes_only: true,
            ..CALM
        },
        Mistake::ForgetsFacts => Mix {
            name: "people edit beneath writes",
            weather: &[(Weather::EditBeneath, 1)],
            conditional: Some(false),
            ..CALM
        },
        Mistake::IgnoresTheFence => Mix {
            name: "paused before it records, for longer than a lease",
            blows: &[(Blow::PauseAtPoint, 1)],
            spares_one: true,
            points: &[Point::BeforeRecord],
            makes_only: true,
            ..CALM
        },
        Mistake::SendsWhenItWakes => Mix {
            name: "paused before it sends, until the other one has given up",
            blows: &[(Blow::PauseAtPoint, 1)],
            spares_one: true,
            points: &[Point::AfterRecord],
            still_ms: 9_500..10_500,
            late_secs: 10,
            knows_repeats: Some(false),
            makes_only: true,
            ..CALM
        },
    };
    Mix { mistake: Some(mistake), ..mix }
}

/// Runs in which a mistake must be noticed: what is left to chance may miss once.
const RUNS: u64 = 3;

/// Lets engines with mistakes run, and asserts that each is noticed.
#[expect(clippy::print_stderr, reason = "the tables are the evidence")]
async fn are_noticed(name: &str, mistakes: &[Mistake]) {
    let seed = seed();
    let long = environment("CALBRIDGE_TEST_LONG").is_some();
    let mut text =
        format!("| mistake on purpose, seed {seed} | what happens | noticed in run | by |\n|---|---|---|---|\n");
    let mut missed = Vec::new();
    for mistake in mistakes {
        let mut tables = Vec::new();
        for run in 0..RUNS {
            let mix = temptation(*mistake);
            let Some(ended) = play(&mix, seed + run).await else { return };
            let found = ended.verdict.charges(ended.drained.is_some());
            eprintln!("{}", ended.table);
            tables.push(ended.table);
            if !found.is_empty() {
                writeln!(text, "| `{}` | {} | {} | {} |", mistake.name(), mix.name, run + 1, found.join("; ")).unwrap();
                tables.clear();
                break;
            }
        }
        if long {
            let control = Mix { mistake: None, ..temptation(*mistake) };
            let control = play(&control, seed).await.expect("the servers were there before");
            let verdict = control.verdict;
            assert_eq!(verdict.complaints(), Vec::<&str>::new(), "without it, all is well: {}", verdict.examples());
        }
        if !tables.is_empty() {
            missed.push(format!("{}:\n{}", mistake.name(), tables.join("\n")));
        }
    }
    leave(name, &text);
    assert!(missed.is_empty(), "not noticed: {}", missed.join("\n"));
}

/// Mistakes of engines that die or stand still.
const OF_THE_STOPPED: &[Mistake] =
    &[Mistake::SendsBeforeRecording, Mistake::IgnoresTheFence, Mistake::SendsWhenItWakes];
/// Mistakes that need no crash.
const OF_THE_AWAKE: &[Mistake] = &[Mistake::RepeatsCreations, Mistake::ForgetsFacts];

#[test]
fn every_mistake_is_tried() {
    let mut tried: Vec<Mistake> = OF_THE_STOPPED.iter().chain(OF_THE_AWAKE).copied().collect();
    tried.sort_unstable();
    let mut known = Mistake::ALL.to_vec();
    known.sort_unstable();
    assert_eq!(tried, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judgement_notices_mistakes_of_engines_that_die_or_stand_still() {
    are_noticed("chaos-mistakes-1", OF_THE_STOPPED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judgement_notices_mistakes_that_need_no_crash() {
    are_noticed("chaos-mistakes-2", OF_THE_AWAKE).await;
}
