//! One schedule: people, remotes and an engine take turns on virtual time; then all grows calm and is judged.

use calbridge_core::ids::RecordId;
use calbridge_core::side::Side;
use chrono::{DateTime, TimeDelta, Utc};

use crate::oracle::{self, Account};
use crate::people;
use crate::swarm::{Dice, Swarm};
use crate::world::{Message, World};

/// Steps after which a drain must have come to its end.
pub(crate) const MOST_STEPS: u32 = 600;

/// What is put to the test.
pub(crate) trait Engine {
    /// Takes in a signal.
    fn signal(&mut self, now: DateTime<Utc>, message: Message);
    /// When it wants to run next, if at all.
    fn due(&self) -> Option<DateTime<Utc>>;
    /// Runs once.
    fn run(&mut self, stage: &mut Stage) -> Result<(), String>;
    /// Whether a record is known to belong to the meeting.
    fn knows(&self, record: &RecordId) -> bool;
    /// What it tells about itself in the end, when every record was read once more.
    fn account(&mut self, stage: &mut Stage) -> Result<Account, String>;
}

/// Everything but the engine.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) dice: Dice,
    pub(crate) world: World,
    /// Kept only when somebody wants to read it.
    pub(crate) history: Option<Vec<String>>,
}

impl Stage {
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(format!("{} {}", self.world.now.format("%H:%M:%S%.3f"), what()));
        }
    }

    pub(crate) fn person_acts(&mut self, knows: impl Fn(&RecordId) -> bool) {
        if let Some(what) = people::act(&mut self.world, &mut self.dice, knows) {
            self.note(|| what);
        }
    }
}

/// The end of a schedule.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) history: Vec<String>,
    pub(crate) violation: Option<String>,
    /// Edits that fell between a read and a write which the remote could not refuse.
    pub(crate) overwritten_unseen: u32,
    pub(crate) writes: u32,
}

/// Runs one schedule to its end; whoever makes the engine may change the mix.
pub(crate) fn run<E: Engine>(seed: u64, with_history: bool, engine: impl FnOnce(&mut Swarm) -> E) -> End {
    let mut dice = Dice::new(seed);
    let mut swarm = Swarm::draw(&mut dice);
    let mut engine = engine(&mut swarm);
    let mut stage = Stage { dice, world: World::new(swarm), history: with_history.then(Vec::new) };
    let swarm = stage.world.swarm.clone();
    stage.note(|| format!("{swarm:?}"));
    let violation = act(&mut stage, &mut engine).err();
    let tally = &stage.world.tally;
    End {
        history: stage.history.take().unwrap_or_default(),
        violation,
        overwritten_unseen: tally.overwritten_unseen,
        writes: tally.writes.outlook + tally.writes.salesforce,
    }
}

fn act(stage: &mut Stage, engine: &mut impl Engine) -> Result<(), String> {
    people::begin(&mut stage.world, &mut stage.dice);
    for _ in 0..stage.world.swarm.steps {
        if stage.dice.chance(stage.world.swarm.busy) {
            stage.person_acts(|record| engine.knows(record));
        } else {
            // Mostly within a burst, now and then long enough for timers to run out.
            let most = if stage.dice.chance(10) { 40_000 } else { 3_000 };
            let pause = TimeDelta::milliseconds(i64::try_from(stage.dice.below(most)).unwrap());
            let until = stage.world.now + pause;
            deliver_late_writes(stage, until);
            stage.world.now = stage.world.now.max(until);
        }
        turn(stage, engine)?;
    }
    drain(stage, engine)?;
    let account = engine.account(stage)?;
    oracle::judge(&stage.world, &account)
}

/// Applies late writes, each in its time: none may take longer than the bound that the engine counts on.
fn deliver_late_writes(stage: &mut Stage, until: DateTime<Utc>) {
    while let Some(index) = (0..stage.world.late.len()).min_by_key(|index| stage.world.late[*index].0) {
        if stage.world.late[index].0 > until {
            return;
        }
        let (at, intent) = stage.world.late.remove(index);
        stage.world.now = stage.world.now.max(at);
        let result = stage.world.apply(&mut stage.dice, &intent);
        stage.note(|| format!("late {} on {} arrives: {result:?}", intent.action.name(), intent.side));
    }
}

/// Delivers what is due and lets the engine run if it has something to do.
pub(crate) fn turn(stage: &mut Stage, engine: &mut impl Engine) -> Result<(), String> {
    deliver_late_writes(stage, stage.world.now);
    let now = stage.world.now;
    let (arrived, waiting) =
        std::mem::take(&mut stage.world.signals).into_iter().partition(|message| message.due <= now);
    stage.world.signals = waiting;
    let mut arrived: Vec<Message> = arrived;
    arrived.sort_by_key(|message| message.due);
    for message in arrived {
        engine.signal(now, message);
    }
    if engine.due().is_some_and(|at| at <= now) {
        engine.run(stage)?;
    }
    Ok(())
}

/// Faults end and people are quiet. Only where signals were lost does a sweep look at every record once.
fn drain(stage: &mut Stage, engine: &mut impl Engine) -> Result<(), String> {
    stage.world.faults = false;
    stage.note(|| "drain".to_owned());
    if stage.world.swarm.lost_signals > 0 {
        let now = stage.world.now;
        for (record, rows) in &stage.world.rows {
            let deleted = rows.last().is_some_and(|row| row.deleted);
            engine.signal(now, Message { due: now, record: record.clone(), deleted, version: None, fact: None });
        }
    }
    for _ in 0..MOST_STEPS {
        turn(stage, engine)?;
        match next_event(stage, engine) {
            Some(at) => stage.world.now = stage.world.now.max(at),
            None => return Ok(()),
        }
    }
    Err(format!("L2: still busy after {MOST_STEPS} steps"))
}

/// Returns when something happens next without anybody's doing.
pub(crate) fn next_event(stage: &Stage, engine: &impl Engine) -> Option<DateTime<Utc>> {
    let world = &stage.world;
    let message = world.signals.iter().map(|message| message.due).min();
    let late = world.late.iter().map(|late| late.0).min();
    [engine.due(), message, late].into_iter().flatten().min()
}

/// Both sides of a link, for loops over what there is.
pub(crate) fn replicas(link: &calbridge_core::link::Link) -> impl Iterator<Item = RecordId> {
    Side::BOTH.into_iter().filter_map(|side| Some(link.replicas.get(side).as_ref()?.record.clone()))
}
