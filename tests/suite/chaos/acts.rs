//! What befalls the engines and what they stand on: drawn from a seed, so that a seed plays the same acts again.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use calbridge::mistakes::MISTAKE_VARIABLE;
use calbridge::points::{ARMED_VARIABLE, POINT_VARIABLE, Point, SIGNAL_VARIABLE};
use calbridge_sandbox::history::Cloud;
use calbridge_sandbox::moments::{Caught, Prey, Step, Verdict};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::{Arena, Mix, tell};
use crate::support::outage::Shutdown;
use crate::support::process::Running;

/// How long a trap waits for a request of its kind, and a stop at a place for somebody to come by.
const LURK: Duration = Duration::from_secs(4);
/// How often a process is looked at that should stand still.
const LOOK: Duration = Duration::from_millis(40);

/// What befalls one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// It stands still for less than a lease.
    Pause,
    /// It stands still for longer than a lease.
    LongPause,
    /// It stands still at a named place, for longer than a lease.
    PauseAtPoint,
    /// It is killed, at any moment.
    Kill,
    /// It is killed while a write to a cloud is on its way, or has had its effect and is not answered.
    KillAtWrite,
    /// It is killed when a write has had its effect and is not answered.
    KillAtEffect,
    /// It is asked to end, and started again.
    Restart,
}

/// What befalls all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Redis forgets everything.
    FlushRedis,
    /// Redis crashes and comes back empty.
    RestartRedis,
    /// PostgreSQL goes down, in order or not, and comes back.
    RestartDatabase,
    /// All connections to PostgreSQL are cut.
    CutDatabase,
    /// Somebody edits the very record that a write is about to change.
    EditBeneath,
    /// The next writes to both clouds take effect, and their answers are cut off.
    CutAnswers,
}

/// Draws one of some, by weight.
pub(super) fn draw<T: Copy>(choices: &mut StdRng, of: &[(T, u32)]) -> Option<T> {
    let all: u32 = of.iter().map(|(_, weight)| weight).sum();
    if all == 0 {
        return None;
    }
    let mut drawn = choices.random_range(0..all);
    for (one, weight) in of {
        if drawn < *weight {
            return Some(*one);
        }
        drawn -= weight;
    }
    None
}

fn millis(choices: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(choices.random_range(range))
}

/// Returns a name as a person reads it: `KillAtWrite` as `kill at write`.
fn words(name: &impl Debug) -> String {
    let mut words = String::new();
    for letter in format!("{name:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// One engine, and what it suffers.
pub(super) struct Victim<'a> {
    arena: &'a Arena,
    mix: &'a Mix,
    name: &'static str,
    choices: StdRng,
    armed: PathBuf,
    running: Option<Running>,
}

impl<'a> Victim<'a> {
    pub(super) fn new(arena: &'a Arena, mix: &'a Mix, name: &'static str, choices: StdRng) -> Self {
        let armed = arena.bench.rehearsal.folder().join(format!("{name}.armed"));
        Self { arena, mix, name, choices, armed, running: None }
    }

    /// Starts it, with a place drawn anew at which it may be made to stand still.
    pub(super) fn start(&mut self) {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let place = self.choices.random_range(0..self.mix.points.len());
        let mut environment = vec![
            named(POINT_VARIABLE, self.mix.points[place].name()),
            named(SIGNAL_VARIABLE, "STOP"),
            named(ARMED_VARIABLE, self.armed.to_str().expect("a path of ours is text")),
        ];
        environment.extend(self.mix.mistake.map(|mistake| named(MISTAKE_VARIABLE, mistake.name())));
        let running = self.arena.bench.start_another_in(self.name, &self.arena.settings, &environment);
        self.running = Some(running);
    }

    /// Suffers one blow after the other until it is time; runs then.
    pub(super) async fn suffer(&mut self, until: Instant) {
        while let Some(blow) = draw(&mut self.choices, self.mix.blows) {
            sleep(millis(&mut self.choices, self.mix.gap_ms.clone())).await;
            if Instant::now() >= until {
                break;
            }
            self.look_after();
            self.arena.count(&words(&blow));
            self.take(blow).await;
        }
        self.look_after();
    }

    /// Starts it again where it has ended by itself, as whatever looks after services does.
    pub(super) fn look_after(&mut self) {
        let ended = self.running.as_mut().and_then(Running::end_of_its_own);
        if ended.is_some() {
            let log = self.running().log();
            let last = log.iter().rev().find(|line| line.contains("ERROR") || line.contains("CB")).or(log.last());
            tell(&format!("the {} engine ended by itself: {last:?}", self.name));
            self.arena.count("ended by itself");
            self.start();
        }
    }

    /// Returns it, to be stopped.
    pub(super) fn into_running(self) -> Running {
        self.running.expect("it runs between two blows")
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs between two blows")
    }

    async fn take(&mut self, blow: Blow) {
        match blow {
            Blow::Pause => self.pause(200..3_000).await,
            Blow::LongPause => self.pause(8_000..11_000).await,
            Blow::PauseAtPoint => self.pause_at_point().await,
            Blow::Kill => self.kill().await,
            Blow::KillAtWrite | Blow::KillAtEffect => self.kill_at_write(blow).await,
            Blow::Restart => {
                let running = self.running.take().expect("it runs between two blows");
                running.signal("TERM").await;
                let status = running.over().await;
                if !status.success() {
                    self.arena.count(&format!("asked to end: {status}"));
                }
                self.start();
            }
        }
    }

    async fn pause(&mut self, span: std::ops::Range<u64>) {
        self.running().signal("STOP").await;
        sleep(millis(&mut self.choices, span)).await;
        self.running().signal("CONT").await;
    }

    async fn pause_at_point(&mut self) {
        std::fs::write(&self.armed, self.name).unwrap();
        let until = Instant::now() + LURK;
        let mut still = self.running().stands_still().await;
        while !still && Instant::now() < until {
            sleep(LOOK).await;
            still = self.running().stands_still().await;
        }
        std::fs::remove_file(&self.armed).unwrap();
        if still {
            self.arena.count("stood still at a point");
            sleep(millis(&mut self.choices, self.mix.still_ms.clone())).await;
        } else {
            // It may have come by between the last look and the removal.
            sleep(LOOK).await;
        }
        self.running().signal("CONT").await;
    }

    async fn kill(&mut self) {
        let running = self.running.take().expect("it runs between two blows");
        running.kill().await;
        // Sometimes for longer than its leases.
        let longest = if self.choices.random_bool(0.3) { 12_000 } else { 1_500 };
        sleep(millis(&mut self.choices, 0..longest)).await;
        self.start();
    }

    async fn kill_at_write(&mut self, blow: Blow) {
        let cloud = if self.choices.random_bool(0.5) { Cloud::Outlook } else { Cloud::Salesforce };
        let done = blow == Blow::KillAtEffect || self.choices.random_bool(0.5);
        let prey = Prey { cloud, writes: true, step: if done { Step::Done } else { Step::Arrived } };
        let caught = self.arena.caught(prey).await;
        if let Some(caught) = &caught {
            self.arena.count("killed during a write");
            if self.choices.random_bool(0.5) {
                self.arena.edit_named(caught, cloud);
            }
        }
        let vanishes = !done && self.choices.random_bool(0.5);
        let judged = async {
            // Still standing while the engine dies.
            sleep(Duration::from_millis(100)).await;
            if let Some(caught) = caught {
                caught.judge(if vanishes { Verdict::Vanish } else { Verdict::GoOn });
            }
        };
        tokio::join!(self.kill(), judged);
    }
}

/// Lets the weather befall all engines until it is time.
pub(super) async fn storm(arena: &Arena, mix: &Mix, mut choices: StdRng, until: Instant) {
    while let Some(weather) = draw(&mut choices, mix.weather) {
        sleep(millis(&mut choices, 200..3_500)).await;
        if Instant::now() >= until {
            return;
        }
        arena.count(&words(&weather));
        match weather {
            Weather::FlushRedis => {
                let _flushed: String = arena.redis.lock().await.ask(&["FLUSHALL"]).await;
            }
            Weather::RestartRedis => {
                let mut redis = arena.redis.lock().await;
                redis.kill();
                sleep(millis(&mut choices, 0..2_000)).await;
                redis.start_again().await;
            }
            Weather::RestartDatabase => {
                let shutdown = if choices.random_bool(0.5) { Shutdown::Fast } else { Shutdown::Immediate };
                arena.server.stop(shutdown).await;
                sleep(millis(&mut choices, 0..2_500)).await;
                arena.server.start_again().await;
            }
            Weather::CutDatabase => {
                arena.bench.rehearsal.database().cut_connections().await;
            }
            Weather::EditBeneath => {
                let cloud = if choices.random_bool(0.3) { Cloud::Outlook } else { Cloud::Salesforce };
                if let Some(caught) = arena.caught(Prey { cloud, writes: true, step: Step::Arrived }).await {
                    arena.count("edited beneath a write");
                    arena.edit_named(&caught, cloud);
                    caught.judge(Verdict::GoOn);
                }
            }
            Weather::CutAnswers => arena.bench.rehearsal.switch(|switches| {
                switches.outlook_cut_answer_next += 1;
                switches.salesforce_cut_answer_next += 1;
            }),
        }
    }
}

impl Arena {
    /// Waits for a request of a kind and lets it stand still.
    async fn caught(&self, prey: Prey) -> Option<Caught> {
        self.bench.rehearsal.sandbox.world().moments.trap(prey).caught(LURK).await
    }

    fn edit_named(&self, caught: &Caught, cloud: Cloud) {
        self.people.lock().unwrap().edit_named(&self.bench.rehearsal, &caught.request, cloud);
    }
}

/// Every place at which an engine may be made to stand still.
pub(super) const ANYWHERE: &[Point] = Point::ALL;
