//! Killed at every point that the program names: whatever had happened by then, both sides agree soon after the restart.
//!
//! The points are those of `calbridge::points`, so that one which is added is visited here or fails the test. Each is
//! visited once on SQLite, and once on PostgreSQL with Redis, with another kind of edit for each; `CALBRIDGE_TEST_LONG=1`
//! visits every point with every kind of edit on both.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use calbridge::points::{ARMED_VARIABLE, POINT_VARIABLE, Point};
use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::ledger::Ledger;
use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};
use crate::support::postgres::Database;
use crate::support::process::{Bench, Running};
use crate::support::redis::RedisServer;
use crate::support::{PATIENCE, Rehearsal, environment};

const SETTINGS: &str = "network:\n  request_timeout_secs: 2\nsync:\n  late_apply_secs: 16\n";
/// What is further set on PostgreSQL: what a dead process held is free after 5 s, its duties after 10 s.
const ON_A_SERVER: &str = "  lease_secs: 5\n  delete_wait_secs: 3\n";
/// Longest time to agreement where a read settles what was in flight.
const READ_BOUND: TimeDelta = TimeDelta::seconds(30);
/// Longest time where nothing but patience tells that a recorded write was never sent: it is given up 16 s after its
/// timeout of 2 s (4 s on a clock twice as fast), and 15 s more are for reading and writing.
const LATE_BOUND: TimeDelta = TimeDelta::seconds(4 + 16 + 15);

/// Stores on which the points are visited.
#[derive(Debug, Clone, Copy)]
enum Store {
    Sqlite,
    PostgresAndRedis,
}

impl Store {
    /// Returns how fast clocks run: leases of duties are in real time, and the bounds are not.
    fn speed(self) -> f64 {
        match self {
            Self::Sqlite => 2.0,
            Self::PostgresAndRedis => 1.0,
        }
    }

    /// Starts what it needs; none where a server is missing.
    async fn set_up(self) -> Option<(Option<RedisServer>, Bench)> {
        let options = Options { speed: self.speed(), ..Options::default() };
        match self {
            Self::Sqlite => Some((None, Bench::set_up(options, SETTINGS).await)),
            Self::PostgresAndRedis => {
                let (redis, database) = (RedisServer::start().await?, Database::create().await?);
                let settings = format!("{SETTINGS}{ON_A_SERVER}redis:\n  url: {}\n", redis.url());
                Some((Some(redis), Bench::set_up_on(Some(database), options, &settings).await))
            }
        }
    }
}

/// What a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Create,
    Update,
    Delete,
}

/// A visit: the program dies at a point while somebody does something on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Visit {
    point: Point,
    act: Act,
    cloud: Cloud,
}

const KINDS: [(Act, Cloud); 6] = [
    (Act::Create, Cloud::Outlook),
    (Act::Update, Cloud::Salesforce),
    (Act::Delete, Cloud::Outlook),
    (Act::Create, Cloud::Salesforce),
    (Act::Update, Cloud::Outlook),
    (Act::Delete, Cloud::Salesforce),
];

impl Visit {
    /// Tells whether the way of this edit through the program passes the point.
    fn passes(self) -> bool {
        match self.point {
            // Only a new record may turn out to belong to a meeting that is known; Outlook's have names of their own.
            Point::BeforeJoin | Point::AfterJoin => (self.act, self.cloud) == (Act::Create, Cloud::Outlook),
            // A search finds what became of a creation whose answer was lost.
            Point::BeforeSearch | Point::AfterSearch => self.act == Act::Create,
            _ => true,
        }
    }

    /// Returns where the program must have died before, so that the next one comes by the point at all.
    fn dies_before(self) -> Option<Point> {
        matches!(self.point, Point::BeforeSearch | Point::AfterSearch).then_some(Point::BeforeSettle)
    }

    /// Returns the longest time to agreement.
    fn bound(self) -> TimeDelta {
        match self.point {
            Point::AfterRecord | Point::BeforeSend => LATE_BOUND,
            _ => READ_BOUND,
        }
    }
}

/// Returns the visits of this run: each point once, or in the long run with every kind of edit.
fn visits() -> Vec<Visit> {
    let of = |point: &Point| KINDS.map(|(act, cloud)| Visit { point: *point, act, cloud });
    if environment("CALBRIDGE_TEST_LONG").is_some() {
        return Point::ALL.iter().flat_map(of).filter(|visit| visit.passes()).collect();
    }
    let points = Point::ALL.iter().enumerate();
    points
        .map(|(place, point)| {
            let mut kinds = of(point);
            kinds.rotate_left(place % KINDS.len());
            kinds.into_iter().find(|visit| visit.passes()).expect("some edit passes every point")
        })
        .collect()
}

/// One program after the other on one sandbox and one database.
struct Run {
    bench: Bench,
    armed: PathBuf,
    visits: Vec<Visit>,
    /// Ends with the run.
    _redis: Option<RedisServer>,
}

impl Run {
    async fn set_up(store: Store, visits: Vec<Visit>) -> Option<Self> {
        let (redis, bench) = store.set_up().await?;
        let armed = bench.rehearsal.folder().join("armed");
        Some(Self { bench, armed, visits, _redis: redis })
    }

    fn rehearsal(&self) -> &Rehearsal {
        &self.bench.rehearsal
    }

    /// Starts the program that dies first on a visit, if there is one left.
    fn start(&self, visit: usize) -> Running {
        self.start_to_die(self.visits.get(visit).map(|visit| visit.dies_before().unwrap_or(visit.point)))
    }

    fn start_to_die(&self, point: Option<Point>) -> Running {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let point = point.map(|point| named(POINT_VARIABLE, point.name()));
        let armed = named(ARMED_VARIABLE, self.armed.to_str().expect("a path of ours is text"));
        self.bench.start_in(&point.into_iter().chain([armed]).collect::<Vec<_>>())
    }

    /// Makes the meetings that are changed or deleted later, and lets them cross.
    async fn prepare(&self) {
        let running = self.bench.run().await;
        let mut made = 0;
        for (number, visit) in self.visits.iter().enumerate().filter(|(_, visit)| visit.act != Act::Create) {
            self.create(number, visit.cloud);
            made += 1;
        }
        let crossed = |r: &Rehearsal| r.salesforce().len() == made && events(r).len() == made;
        self.rehearsal().until("every meeting crossed", crossed).await;
        self.rehearsal().settled().await;
        running.kill().await;
    }

    fn create(&self, number: usize, cloud: Cloud) {
        let person = self.rehearsal().person(number % 3);
        match cloud {
            Cloud::Outlook => drop(person.create_in_outlook(&in_outlook(&title(number))).unwrap()),
            Cloud::Salesforce => drop(person.create_in_salesforce(in_salesforce(&title(number))).unwrap()),
        }
    }

    fn act(&self, number: usize) {
        let (visit, person) = (self.visits[number], self.rehearsal().person(number % 3));
        let of = |records: Vec<Value>, name: &str| {
            records.iter().find(|record| record[name] == title(number).as_str()).map(id_of).expect("it was made before")
        };
        let event = || of(events(self.rehearsal()), "subject");
        let row = || of(self.rehearsal().salesforce(), "Subject");
        match (visit.act, visit.cloud) {
            (Act::Create, cloud) => self.create(number, cloud),
            (Act::Update, Cloud::Outlook) => {
                person.update_in_outlook(&event(), &json!({"subject": changed(number)})).unwrap();
            }
            (Act::Update, Cloud::Salesforce) => {
                person.update_in_salesforce(&row(), &fields(json!({"Subject": changed(number)}))).unwrap();
            }
            (Act::Delete, Cloud::Outlook) => person.delete_in_outlook(&event()).unwrap(),
            (Act::Delete, Cloud::Salesforce) => person.delete_in_salesforce(&row()).unwrap(),
        }
    }

    /// Tells whether both sides show what a person did, once.
    fn agrees(&self, number: usize) -> bool {
        let count = |text: &str| {
            let rows = self.rehearsal().salesforce().iter().filter(|row| row["Subject"] == text).count();
            (events(self.rehearsal()).iter().filter(|event| event["subject"] == text).count(), rows)
        };
        let (before, after) = (count(&title(number)), count(&changed(number)));
        match self.visits[number].act {
            Act::Create => before == (1, 1),
            Act::Update => (before, after) == ((0, 0), (1, 1)),
            Act::Delete => before == (0, 0),
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.rehearsal().sandbox.world().clock.now()
    }

    /// Makes one visit; returns the program that runs afterwards and how long agreement took, by the sandbox's clock.
    async fn make(&self, number: usize, mut running: Running) -> (Running, TimeDelta) {
        let visit = self.visits[number];
        std::fs::write(&self.armed, visit.point.name()).unwrap();
        self.act(number);
        dies(visit, &mut running).await;
        if visit.dies_before().is_some() {
            running = self.start_to_die(Some(visit.point));
            dies(visit, &mut running).await;
        }
        std::fs::remove_file(&self.armed).unwrap();
        let (began, subscribed) = (self.now(), self.bench.subscribed());
        let running = self.start(number + 1);
        self.rehearsal().until(&format!("both sides agree after {visit:?}"), |_| self.agrees(number)).await;
        self.rehearsal().settled().await;
        let took = self.now() - began;
        self.bench.listens(subscribed).await;
        (running, took)
    }
}

async fn dies(visit: Visit, running: &mut Running) {
    let death = tokio::time::timeout(PATIENCE, running.killed()).await;
    assert!(death.is_ok(), "{visit:?}: the point was not passed: {:#?}", running.log());
}

fn title(number: usize) -> String {
    format!("Visit {number:03}")
}

fn changed(number: usize) -> String {
    format!("Visit {number:03}, changed")
}

/// Returns the events of all mailboxes.
fn events(rehearsal: &Rehearsal) -> Vec<Value> {
    (0..3).flat_map(|person| rehearsal.outlook(person)).collect()
}

/// Makes the visits one after the other, and judges them all at the end.
#[expect(clippy::print_stderr, reason = "the table is the evidence")]
async fn visit_all(store: Store, visits: Vec<Visit>) {
    let Some(run) = Run::set_up(store, visits).await else { return };
    run.prepare().await;
    let subscribed = run.bench.subscribed();
    let mut running = run.start(0);
    run.bench.listens(subscribed).await;
    run.rehearsal().settled().await;
    let mut table = format!("  {store:?}: died at       while somebody did      agreement after\n");
    let mut slow = Vec::new();
    for (number, visit) in run.visits.iter().enumerate() {
        let (next, took) = run.make(number, running).await;
        running = next;
        let what = format!("{:?} in {:?}", visit.act, visit.cloud);
        let (point, millis) = (visit.point.name(), took.num_milliseconds());
        writeln!(table, "  {point:<22} {what:<22} {millis:>7} ms of {}", visit.bound().num_milliseconds()).unwrap();
        slow.extend((took > visit.bound()).then_some((*visit, took)));
    }
    eprintln!("{table}");
    let rehearsal = run.rehearsal();
    rehearsal.rest().await;
    rehearsal.assert_clean();
    assert_eq!(slow, [], "agreement took longer than promised");
    // A meeting that was made to be changed or deleted crossed once; everything that somebody did crossed once.
    let made = |cloud| run.visits.iter().filter(|visit| visit.cloud == cloud && visit.act != Act::Create).count();
    let done = |cloud| run.visits.iter().filter(|visit| visit.cloud == cloud).count() + made(cloud);
    let expected = (done(Cloud::Salesforce), done(Cloud::Outlook));
    assert_eq!(rehearsal.written(), expected, "one write for each edit, on the other side");
    let ledger = Ledger::read(rehearsal).await;
    assert_eq!(ledger.writes_without_cause(), Vec::<String>::new());
    let report = rehearsal.sandbox.oracle();
    assert_eq!((report.unlinked_outlook, report.unlinked_salesforce), (0, 0), "{report:#?}");
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    assert_eq!(running.stop().await.code, 0);
    run.bench.end().await;
}

/// Returns one of so many equal shares of the visits, so that several tests make them.
fn share(first: usize, of: usize) -> Vec<Visit> {
    visits().into_iter().skip(first).step_by(of).collect()
}

#[test]
fn every_point_is_visited_and_every_kind_of_edit_meets_some() {
    let visits = visits();
    let points: BTreeSet<Point> = visits.iter().map(|visit| visit.point).collect();
    assert_eq!(points.into_iter().collect::<Vec<_>>(), Point::ALL);
    let kinds: BTreeSet<(Act, Cloud)> = visits.iter().map(|visit| (visit.act, visit.cloud)).collect();
    assert_eq!(kinds.len(), KINDS.len());
    for of in [2, 4] {
        let shared: BTreeSet<Visit> = (0..of).flat_map(|first| share(first, of)).collect();
        assert_eq!(shared.len(), visits.len(), "{of} tests make them all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_second_point_on_sqlite_both_sides_agree_soon_after_the_restart() {
    visit_all(Store::Sqlite, share(0, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_the_other_points_on_sqlite_both_sides_agree_soon_after_the_restart() {
    visit_all(Store::Sqlite, share(1, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_a_quarter_of_the_points_on_postgresql_both_sides_agree_soon_after_the_restart() {
    visit_all(Store::PostgresAndRedis, share(0, 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_a_second_quarter_of_the_points_on_postgresql_both_sides_agree_soon_after_the_restart() {
    visit_all(Store::PostgresAndRedis, share(1, 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_a_third_quarter_of_the_points_on_postgresql_both_sides_agree_soon_after_the_restart() {
    visit_all(Store::PostgresAndRedis, share(2, 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_the_last_quarter_of_the_points_on_postgresql_both_sides_agree_soon_after_the_restart() {
    visit_all(Store::PostgresAndRedis, share(3, 4)).await;
}
