//! One schedule: people, remotes and an engine take turns on virtual time; then all grows calm and is judged.

use calbridge_core::ids::RecordId;
use calbridge_core::signal::Version;
use chrono::{DateTime, TimeDelta, Utc};

use crate::oracle::{self, Account};
use crate::people;
use crate::swarm::{Dice, Preconditions, Swarm};
use crate::world::{Entry, Message, World};

/// Steps for each meeting after which a drain must have come to its end.
pub(crate) const MOST_STEPS: u32 = 600;

/// How long it takes to put a backup back: request timeout, late effect, and a little more.
const STANDSTILL: TimeDelta = TimeDelta::seconds(75);

/// What is put to the test.
pub(crate) trait Engine {
    /// Takes in a signal.
    fn signal(&mut self, now: DateTime<Utc>, message: Message);
    /// When it wants to run next, if at all.
    fn due(&self) -> Option<DateTime<Utc>>;
    /// Runs once: until it is done, dies or stands still.
    fn run(&mut self, stage: &mut Stage) -> Result<(), String>;
    /// Whether a record is known to belong to a meeting.
    fn knows(&self, record: &RecordId) -> bool;
    /// Whether it takes a meeting for deleted on both sides.
    fn buried(&self, _meeting: usize) -> bool {
        false
    }
    /// Lets a person answer one thing that waits, if anything does.
    fn ask_a_person(&mut self, _stage: &mut Stage) -> bool {
        false
    }
    /// Copies its database.
    fn back_up(&mut self) {}
    /// Ends, and begins again with the copy.
    fn put_back(&mut self, _stage: &mut Stage) {}
    /// What it tells about a meeting in the end, when every record was read once more.
    fn account(&mut self, stage: &mut Stage, meeting: usize) -> Result<Account, String>;
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
    pub(crate) fn new(dice: Dice, swarm: Swarm, with_history: bool) -> Self {
        Self { dice, world: World::new(swarm), history: with_history.then(Vec::new) }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce(&World) -> String) {
        if let Some(history) = &mut self.history {
            history.push(format!("{} {}", self.world.now.format("%H:%M:%S%.3f"), what(&self.world)));
        }
    }

    pub(crate) fn person_acts(&mut self, engine: &impl Engine) {
        let changes = self.changes();
        if let Some(what) = people::act(&mut self.world, &mut self.dice, engine) {
            self.tell(&changes, what);
        }
    }

    /// The versions of all records; only for a history.
    pub(crate) fn changes(&self) -> Vec<Version> {
        if self.history.is_none() {
            return Vec::new();
        }
        self.world.entries.iter().map(|entry| entry.now().shown.version.clone()).collect()
    }

    /// Tells which records changed since, and what they hold now.
    pub(crate) fn tell(&mut self, before: &[Version], what: &str) {
        if self.history.is_none() {
            return;
        }
        for index in 0..self.world.entries.len() {
            if before.get(index) == Some(&self.world.entries[index].now().shown.version) {
                continue;
            }
            self.note(|world| {
                let entry = &world.entries[index];
                let row = entry.now();
                let fields: Vec<String> = row.shown.fields.iter().map(|(name, value)| said(name, value)).collect();
                let gone = if row.deleted { ", deleted" } else { "" };
                format!("{what}: meeting {} {} is {}{gone}", entry.meeting, entry.id, fields.join(" "))
            });
        }
    }
}

/// A field with its value, as a history shows it.
pub(crate) fn said(name: &str, value: &calbridge_core::value::Value) -> String {
    use calbridge_core::value::{Value, When};
    match value {
        Value::Text(text) => format!("{name}={text}"),
        Value::When(When::Timed { start, .. }) => format!("{name}={}", start.format("%H:%M")),
        other => format!("{name}={other:?}"),
    }
}

/// The end of a schedule.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) history: Vec<String>,
    pub(crate) violation: Option<String>,
    pub(crate) preconditions: Preconditions,
    /// Edits that fell between a read and a write which the remote could not refuse.
    pub(crate) overwritten_unseen: u32,
    /// Late requests that took effect although repeated or given up, because Outlook ignored their precondition.
    pub(crate) unrefused: u32,
    /// Events made again after a person had deleted them unseen, because Outlook forgot their transaction id.
    pub(crate) recreated: u32,
    /// Mails that were put down to whoever changed something else, because a change event was lost.
    pub(crate) misattributed: u32,
    pub(crate) writes: u32,
    /// Sums up all that happened.
    pub(crate) digest: u64,
}

/// Runs the schedule of a seed to its end; whoever makes the engine may change the mix.
pub(crate) fn run<E: Engine>(seed: u64, with_history: bool, engine: impl FnOnce(&mut Swarm) -> E) -> End {
    let mut dice = Dice::new(seed);
    let mut swarm = Swarm::draw(&mut dice);
    let engine = engine(&mut swarm);
    play(dice, swarm, with_history, engine)
}

/// Runs a schedule with a given mix.
pub(crate) fn play(dice: Dice, swarm: Swarm, with_history: bool, mut engine: impl Engine) -> End {
    let mut stage = Stage::new(dice, swarm, with_history);
    stage.note(|world| format!("{:?}", world.swarm));
    let violation = act(&mut stage, &mut engine).err();
    let tallies = &stage.world.meetings;
    End {
        violation,
        preconditions: stage.world.swarm.preconditions,
        overwritten_unseen: tallies.iter().map(|tally| tally.overwritten_unseen).sum(),
        unrefused: tallies.iter().map(|tally| tally.unrefused).sum(),
        recreated: tallies.iter().map(|tally| tally.recreated).sum(),
        misattributed: tallies.iter().map(|tally| tally.misattributed).sum(),
        writes: tallies.iter().map(|tally| tally.writes.outlook + tally.writes.salesforce).sum(),
        digest: stage.world.digest.unwrap_or_default(),
        history: stage.history.take().unwrap_or_default(),
    }
}

fn act(stage: &mut Stage, engine: &mut impl Engine) -> Result<(), String> {
    let changes = stage.changes();
    people::begin(&mut stage.world, &mut stage.dice);
    stage.tell(&changes, "made");
    let steps = stage.world.swarm.steps;
    for step in 0..steps {
        if stage.world.swarm.backup {
            if step == steps / 3 {
                engine.back_up();
                stage.world.backed_up_at = Some(stage.world.now);
                stage.note(|_| "backup".to_owned());
            } else if step == steps * 2 / 3 {
                put_back(stage, engine);
            }
        }
        if stage.dice.chance(stage.world.swarm.busy) {
            stage.person_acts(engine);
        } else {
            // Mostly within a burst, now and then long enough for timers to run out.
            let most = if stage.dice.chance(10) { 40_000 } else { 3_000 };
            let until = stage.world.now + stage.dice.millis(most);
            remotes_act(stage, until);
            stage.world.now = stage.world.now.max(until);
        }
        if stage.dice.chance(stage.world.swarm.rates.sweeps) {
            sweep(stage, engine);
        }
        if stage.dice.chance(stage.world.swarm.rates.answers) {
            engine.ask_a_person(stage);
        }
        turn(stage, engine)?;
    }
    drain(stage, engine)?;
    judge(stage, engine)
}

/// Puts a backup in the place of the database. The engine stands still for longer than its last request may take to apply.
fn put_back(stage: &mut Stage, engine: &mut impl Engine) {
    let until = stage.world.now + STANDSTILL;
    remotes_act(stage, until);
    stage.world.now = until;
    stage.world.restored_at = Some(until);
    engine.put_back(stage);
    stage.note(|_| "the backup is put back".to_owned());
    sweep(stage, engine);
}

/// Judges what is there when nothing moves any more.
pub(crate) fn judge(stage: &mut Stage, engine: &mut impl Engine) -> Result<(), String> {
    for meeting in 0..stage.world.meetings.len() {
        let account = engine.account(stage, meeting)?;
        oracle::judge(&stage.world, meeting, &account)?;
    }
    oracle::limits(&stage.world)
}

/// Lets late writes and flows take effect, each in its time.
///
/// No write may take longer than the bound that the engine counts on.
fn remotes_act(stage: &mut Stage, until: DateTime<Utc>) {
    loop {
        let late = (0..stage.world.late.len()).map(|index| (stage.world.late[index].0, 0, index)).min();
        let flow = (0..stage.world.flows.len()).map(|index| (stage.world.flows[index].0, 1, index)).min();
        let Some((at, what, index)) = late.into_iter().chain(flow).min().filter(|next| next.0 <= until) else { return };
        stage.world.now = stage.world.now.max(at);
        let changes = stage.changes();
        if what == 0 {
            let (_, meeting, intent) = stage.world.late.remove(index);
            let result = stage.world.apply_late(&mut stage.dice, meeting, &intent);
            stage.note(|_| format!("late {} on {} arrives: {}", intent.action.name(), intent.side, answer(&result)));
            stage.tell(&changes, "late write");
        } else {
            let (_, record) = stage.world.flows.remove(index);
            stage.world.flow(&mut stage.dice, record);
            stage.tell(&changes, "a flow edits");
        }
    }
}

/// The name of an answer, as a history shows it.
pub(crate) fn answer(result: &calbridge_core::written::WriteResult) -> String {
    use calbridge_core::written::WriteResult as R;
    match result {
        R::Applied { record, .. } => format!("applied to {record}"),
        R::Conflict(_) => "conflict".to_owned(),
        R::Gone(_) => "gone".to_owned(),
        R::AlreadyExists(_) => "exists already".to_owned(),
        R::Refused(_) => "refused for good".to_owned(),
        R::NotNow(why) => format!("not now, again after {:?} ms", why.retry_after_ms),
        R::Unknown(_) => "no answer".to_owned(),
    }
}

/// Delivers what is due and lets the engine run if it has something to do.
pub(crate) fn turn(stage: &mut Stage, engine: &mut impl Engine) -> Result<(), String> {
    remotes_act(stage, stage.world.now);
    let now = stage.world.now;
    loop {
        let signals = &stage.world.signals;
        let next =
            (0..signals.len()).filter(|index| signals[*index].due <= now).min_by_key(|index| signals[*index].due);
        let Some(index) = next else { break };
        let message = stage.world.signals.remove(index);
        engine.signal(now, message);
    }
    if engine.due().is_some_and(|at| at <= now) {
        engine.run(stage)?;
    }
    // Safety is judged after every step, and not only in the end.
    match stage.world.broken.take() {
        Some(violation) => Err(violation),
        None => Ok(()),
    }
}

/// Has every record looked at once, as the periodic comparison does.
fn sweep(stage: &mut Stage, engine: &mut impl Engine) {
    for meeting in 0..stage.world.meetings.len() {
        for message in looks(&stage.world, meeting) {
            engine.signal(stage.world.now, message);
        }
    }
    stage.note(|_| "sweep".to_owned());
}

/// Messages that lead to all records of a meeting.
pub(crate) fn looks(world: &World, meeting: usize) -> Vec<Message> {
    let entries = world.entries.iter().filter(|entry| entry.meeting == meeting);
    let look = |entry: &Entry| {
        let (record, deleted) = (entry.id.clone(), !entry.is_alive());
        Message { due: world.now, record, meeting, deleted, version: None, fact: None }
    };
    entries.map(look).collect()
}

/// Faults end and people are quiet. Only where signals were lost does a sweep look at every record once.
fn drain(stage: &mut Stage, engine: &mut impl Engine) -> Result<(), String> {
    stage.world.faults = false;
    stage.note(|_| "drain".to_owned());
    if stage.world.swarm.rates.lost_signals > 0 {
        sweep(stage, engine);
    }
    let most = MOST_STEPS * u32::try_from(stage.world.meetings.len()).unwrap();
    for _ in 0..most {
        turn(stage, engine)?;
        match next_event(stage, engine) {
            Some(at) => stage.world.now = stage.world.now.max(at),
            None if engine.ask_a_person(stage) => {}
            None => return Ok(()),
        }
    }
    Err(format!("L2: still busy after {most} steps"))
}

/// Returns when something happens next without anybody's doing.
pub(crate) fn next_event(stage: &Stage, engine: &impl Engine) -> Option<DateTime<Utc>> {
    let world = &stage.world;
    let message = world.signals.iter().map(|message| message.due).min();
    let late = world.late.iter().map(|late| late.0).min();
    let flow = world.flows.iter().map(|flow| flow.0).min();
    [engine.due(), message, late, flow].into_iter().flatten().min()
}
