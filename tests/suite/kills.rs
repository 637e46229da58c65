//! `kill -9` at every kind of moment while people edit on both sides: nothing is lost, nothing comes twice.
//!
//! The real program with a real Redis is killed 20 times in one run on a database file, and 8 times on PostgreSQL, where what
//! the dead one held must be waited for; `CALBRIDGE_TEST_LONG=1` makes it 20 there too. Some kills come at a random time; most
//! are steered by the sandbox, which stops the very request at which the program is to die: before its effect, between
//! effect and answer, right after the answer. A table says where the kills fell.
//!
//! `CALBRIDGE_TEST_SEED` repeats the choices of a run; the moments within a few milliseconds are the machine's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use calbridge_sandbox::history::Cloud;
use calbridge_sandbox::moments::{Caught, Prey, Step, Verdict};
use calbridge_sandbox::{Options, Profile};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::support::environment;
use crate::support::ledger::Ledger;
use crate::support::people::People;
use crate::support::postgres::Database;
use crate::support::process::Bench;
use crate::support::redis::RedisServer;

/// Edits between two kills.
const EDITS: u32 = 10;
/// How long a trap waits for a request of its kind before the kill comes without.
const LURK: Duration = Duration::from_secs(6);

/// Clocks run four times as fast as the wall clock: a write must leave within 1 s of real time, and another 12 s (3 s of real
/// time) are granted to requests that take effect late.
const SPEED: f64 = 4.0;
const SETTINGS: &str = "network:\n  request_timeout_secs: 4\nsync:\n  late_apply_secs: 12\n";
/// On a server: what a dead process held is free after 7 s. There is a commit over a socket between planning a write and
/// sending it, for which the clock leaves as long as for a request: 2 s of real time.
const SPEED_ON_A_SERVER: f64 = 2.0;
const SETTINGS_ON_A_SERVER: &str =
    "network:\n  request_timeout_secs: 4\nsync:\n  late_apply_secs: 12\n  lease_secs: 7\n";
/// Longest time for which a request of a killed program is held before it takes effect: well within those 3 s.
const LATE: Duration = Duration::from_millis(1_500);

/// When a kill is meant to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aim {
    /// While it starts.
    Starting,
    /// At any time.
    Anytime,
    /// Shortly after an edit: while its notification is on its way, taken in, or waits out the burst.
    AfterEdit,
    /// While it waits for what it asked about a meeting.
    Reading(Cloud),
    /// When a write was sent; it never takes effect.
    WriteNever(Cloud),
    /// When a write was sent; it takes effect after the end of the program.
    WriteLate(Cloud),
    /// When a write had its effect, before the answer.
    WriteUnanswered(Cloud),
    /// While the answer to a write is taken in.
    WriteAnswered(Cloud),
}

/// Kills of a run on a file.
const AIMS: [Aim; 20] = [
    Aim::Starting,
    Aim::Starting,
    Aim::Anytime,
    Aim::Anytime,
    Aim::Anytime,
    Aim::AfterEdit,
    Aim::AfterEdit,
    Aim::AfterEdit,
    Aim::Reading(Cloud::Outlook),
    Aim::Reading(Cloud::Salesforce),
    Aim::WriteNever(Cloud::Outlook),
    Aim::WriteNever(Cloud::Salesforce),
    Aim::WriteLate(Cloud::Outlook),
    Aim::WriteLate(Cloud::Salesforce),
    Aim::WriteUnanswered(Cloud::Outlook),
    Aim::WriteUnanswered(Cloud::Salesforce),
    Aim::WriteUnanswered(Cloud::Salesforce),
    Aim::WriteAnswered(Cloud::Outlook),
    Aim::WriteAnswered(Cloud::Salesforce),
    Aim::WriteAnswered(Cloud::Outlook),
];

/// Kills of a run on a server.
const FEWER_AIMS: [Aim; 8] = [
    Aim::Starting,
    Aim::AfterEdit,
    Aim::Reading(Cloud::Salesforce),
    Aim::WriteNever(Cloud::Outlook),
    Aim::WriteLate(Cloud::Salesforce),
    Aim::WriteUnanswered(Cloud::Outlook),
    Aim::WriteUnanswered(Cloud::Salesforce),
    Aim::WriteAnswered(Cloud::Salesforce),
];

impl Aim {
    /// Returns the request at which the program is to die.
    fn prey(self) -> Option<Prey> {
        let (cloud, writes, step) = match self {
            Self::Starting | Self::Anytime | Self::AfterEdit => return None,
            Self::Reading(cloud) => (cloud, false, Step::Arrived),
            Self::WriteNever(cloud) | Self::WriteLate(cloud) => (cloud, true, Step::Arrived),
            Self::WriteUnanswered(cloud) | Self::WriteAnswered(cloud) => (cloud, true, Step::Done),
        };
        Some(Prey { cloud, writes, step })
    }
}

/// What the database held after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// It did not listen yet.
    Starting,
    /// Nothing was open and nothing waited.
    Idle,
    /// Notifications waited.
    Waiting,
    /// A write was recorded, and had no effect yet.
    Recorded,
    /// A write had its effect, and its answer was not recorded.
    Unsettled,
}

struct Run {
    bench: Bench,
    people: People,
    redis: RedisServer,
    /// Aim, what was found, and how long the program had run.
    kills: Vec<(Aim, BTreeSet<Found>, Duration)>,
}

impl Run {
    /// Lets people make so many edits, some milliseconds apart.
    async fn edit(&mut self, many: u32) {
        for _ in 0..many {
            self.people.edit(&self.bench.rehearsal);
            let pause = self.people.choices.random_range(0..120);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Lives one life of the program, with its edits; `late` is a request of the life before that is still on its way.
    async fn live_and_die(&mut self, aim: Aim, late: Option<Caught>) -> Option<Caught> {
        let enough = self.people.made() + EDITS;
        let down = self.people.choices.random_range(0..4);
        self.edit(down).await;
        if self.people.choices.random_bool(0.2) {
            let _flushed: String = self.redis.ask(&["FLUSHALL"]).await;
        }
        let (began, subscribed) = (Instant::now(), self.bench.subscribed());
        let running = self.bench.start();
        if let Some(late) = late {
            let pause = self.people.choices.random_range(Duration::ZERO..LATE);
            tokio::spawn(async move {
                sleep(pause).await;
                late.judge(Verdict::GoOn);
            });
        }
        let left = enough.saturating_sub(self.people.made());
        let mut held = None;
        if aim == Aim::Starting {
            self.edit(left).await;
        } else {
            self.bench.listens(subscribed).await;
            match aim.prey() {
                Some(_) => held = self.catch(aim, left).await,
                None => self.edit(left).await,
            }
        }
        let longest = match aim {
            Aim::Anytime => 2_500,
            Aim::AfterEdit => 250,
            _ => 1,
        };
        let pause = self.people.choices.random_range(0..longest);
        sleep(Duration::from_millis(pause)).await;
        if matches!(aim, Aim::WriteAnswered(_))
            && let Some(caught) = held.take()
        {
            caught.judge(Verdict::GoOn);
            let pause = self.people.choices.random_range(0..8_000);
            sleep(Duration::from_micros(pause)).await;
        }
        let lived = began.elapsed();
        let log = running.kill().await;
        let found = self.found(&log).await;
        self.kills.push((aim, found, lived));
        // What was not made while a request was waited for.
        self.edit(enough.saturating_sub(self.people.made())).await;
        match (aim, held) {
            (Aim::WriteLate(_), held) => held,
            (Aim::WriteNever(_), Some(held)) => {
                held.judge(Verdict::Vanish);
                None
            }
            // A read, or a write that had its effect: it goes on when it is dropped.
            _ => None,
        }
    }

    /// Edits until a request of the kind is caught, and edits the very record that it is about.
    async fn catch(&mut self, aim: Aim, left: u32) -> Option<Caught> {
        let prey = aim.prey()?;
        let moments = std::sync::Arc::clone(self.bench.rehearsal.sandbox.world());
        let mut trap = moments.moments.trap(prey);
        let until = Instant::now() + LURK;
        for _ in 0..left {
            self.people.edit(&self.bench.rehearsal);
            let pause = Duration::from_millis(self.people.choices.random_range(0..250));
            if let Some(caught) = trap.caught(pause).await {
                return Some(self.disturb(aim, caught));
            }
        }
        let caught = trap.caught(until.saturating_duration_since(Instant::now())).await?;
        Some(self.disturb(aim, caught))
    }

    fn disturb(&mut self, aim: Aim, caught: Caught) -> Caught {
        if let Some(prey) = aim.prey()
            && self.people.choices.random_bool(0.7)
        {
            self.people.edit_named(&self.bench.rehearsal, &caught.request, prey.cloud);
        }
        caught
    }

    /// Looks into the database that the program left.
    async fn found(&self, log: &[String]) -> BTreeSet<Found> {
        if !log.iter().any(|line| line.contains("reading a partition")) {
            return BTreeSet::from([Found::Starting]);
        }
        let rehearsal = &self.bench.rehearsal;
        let status = rehearsal.status().await;
        if status.intents == 0 {
            return BTreeSet::from([if status.waiting > 0 { Found::Waiting } else { Found::Idle }]);
        }
        let intents = rehearsal.open_writes().await;
        assert_eq!(intents.len() as u64, status.intents, "every open write is found by a record: {intents:?}");
        let effects = rehearsal.app_effects();
        let states = intents.iter().map(|intent| {
            let (token, record) = (intent.token.to_string(), intent.action.record());
            let done = effects.iter().any(|effect| {
                let bears = serde_json::to_string(&effect.changed).unwrap().contains(&token);
                let deleted = effect.kind == calbridge_sandbox::history::EffectKind::Delete
                    && record.is_some_and(|record| record.remote_id() == effect.record);
                bears || deleted
            });
            if done { Found::Unsettled } else { Found::Recorded }
        });
        states.collect()
    }

    /// Draws where the kills fell.
    fn table(&self) -> String {
        let mut text = String::from("  kill aimed at                    fell while            after\n");
        for (number, (aim, found, lived)) in self.kills.iter().enumerate() {
            let (aim, found) =
                (format!("{aim:?}"), found.iter().map(|found| format!("{found:?}")).collect::<Vec<_>>().join(" + "));
            writeln!(text, "  {:>4} {aim:<27} {found:<22} {:>6} ms", number + 1, lived.as_millis()).unwrap();
        }
        let mut sums: BTreeMap<Found, usize> = BTreeMap::new();
        for found in self.kills.iter().flat_map(|(_, found, _)| found) {
            *sums.entry(*found).or_default() += 1;
        }
        writeln!(text, "  {sums:?}").unwrap();
        text
    }
}

/// Kills the program once for each aim while people edit, and judges what it left.
#[expect(clippy::print_stderr, reason = "the table is the evidence")]
async fn killed_while_people_edit(database: Option<Database>, mut aims: Vec<Aim>) {
    let Some(redis) = RedisServer::start().await else { return };
    let seed: u64 = environment("CALBRIDGE_TEST_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("CALBRIDGE_TEST_SEED={seed}");
    let (speed, settings) =
        if database.is_some() { (SPEED_ON_A_SERVER, SETTINGS_ON_A_SERVER) } else { (SPEED, SETTINGS) };
    let options = Options { speed, seed, profile: Profile::Office, ..Options::default() };
    // Every other seed: without conditions edits beneath a write are covered unseen, and the change events must tell them.
    let conditional = seed.is_multiple_of(2);
    eprintln!("conditional updates in Salesforce: {conditional}");
    let salesforce = format!("salesforce:\n  conditional_updates: {conditional}\n");
    let settings = format!("{settings}redis:\n  url: {}\n{salesforce}", redis.url());
    let bench = Bench::set_up_on(database, options, &settings).await;
    let mut choices = StdRng::seed_from_u64(seed);
    aims.shuffle(&mut choices);
    let mut run = Run { bench, people: People::new(choices), redis, kills: Vec::new() };

    // The first start pairs mailboxes and users; what is older than that would be left alone.
    let running = run.bench.run().await;
    run.people.settle_in(&run.bench.rehearsal);
    running.kill().await;
    let mut late = None;
    for aim in aims {
        late = run.live_and_die(aim, late).await;
    }
    if let Some(late) = late {
        late.judge(Verdict::GoOn);
    }
    let running = run.bench.start();
    let rehearsal = &run.bench.rehearsal;
    rehearsal
        .until("both sides are the same", |r| {
            let report = r.sandbox.oracle();
            report.is_clean() && !report.is_pending() && report.unlinked_outlook + report.unlinked_salesforce == 0
        })
        .await;
    rehearsal.settled().await;

    eprintln!("{} edits, {} kills\n{}", run.people.made(), run.kills.len(), run.table());
    rehearsal.assert_clean();
    let report = rehearsal.sandbox.oracle();
    assert_eq!((report.unlinked_outlook, report.unlinked_salesforce), (0, 0), "{report:#?}");
    let status = rehearsal.status().await;
    assert_eq!(status.dead_letters, 0, "{status:?}");
    let ledger = Ledger::read_when_told(rehearsal).await;
    assert_eq!(ledger.writes_without_cause(), Vec::<String>::new(), "no write without a cause");
    let disappeared = ledger.values_that_disappeared();
    assert_eq!(disappeared.lost, Vec::<String>::new(), "every value is somewhere");
    assert_eq!(disappeared.unseen, Vec::<String>::new(), "what was overwritten unseen is told afterwards");
    eprintln!(
        "{} values were overwritten in Salesforce before they could be seen, and told",
        ledger.told_as_overwritten()
    );
    assert_eq!(ledger.values_that_did_not_cross(rehearsal), Vec::<String>::new(), "bodies too");
    let sums = |wanted: Found| run.kills.iter().filter(|(_, found, _)| found.contains(&wanted)).count();
    let mut phases = vec![Found::Recorded, Found::Unsettled];
    // Too few kills of the shorter run are meant for it.
    phases.extend((run.kills.len() >= AIMS.len()).then_some(Found::Waiting));
    for phase in phases {
        assert!(sums(phase) >= 1, "no kill fell while {phase:?}:\n{}", run.table());
    }
    assert_eq!(running.stop().await.code, 0);
    run.bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_while_people_edit_it_loses_nothing_and_does_nothing_twice() {
    killed_while_people_edit(None, AIMS.to_vec()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_postgresql_while_people_edit_it_loses_nothing_and_does_nothing_twice() {
    let Some(database) = Database::create().await else { return };
    let long = environment("CALBRIDGE_TEST_LONG").is_some();
    killed_while_people_edit(Some(database), if long { AIMS.to_vec() } else { FEWER_AIMS.to_vec() }).await;
}
