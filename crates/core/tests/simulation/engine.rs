//! The smallest engine around the core: queue, lane timer, intents before writes, crashes between any two steps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use calbridge_core::case::{Answer, Case, Enrolment, Fresh, Lookup, Notice};
use calbridge_core::ids::{ConnectionId, LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::{Intent, Link, LinkState};
use calbridge_core::mapping::{Conflict, Direction, FieldSpec, Initial, Mapping, MappingSpec};
use calbridge_core::plan::{Outcome, Plan, Planned, plan};
use calbridge_core::policy::{Policy, Rules};
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::signal::SignalCause;
use calbridge_core::value::Value;
use calbridge_core::written::WriteResult;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::world::{Author, Dice, MAILBOX, USER, World, meeting};

pub(crate) struct Sim {
    dice: Dice,
    world: World,
    rules: Rules,
    dirty: BTreeMap<RecordId, Notice>,
    due: BTreeMap<RecordId, DateTime<Utc>>,
    link: Option<Link>,
    wake_at: Option<DateTime<Utc>>,
    tries: u32,
    ids: u128,
    history: String,
}

fn rules() -> Rules {
    let field = |name: &str, outlook: &str, salesforce: &str| FieldSpec {
        name: name.to_owned(),
        line: 1,
        outlook: outlook.to_owned(),
        salesforce: salesforce.to_owned(),
        direction: Direction::Both,
        on_create: false,
        conflict: Conflict::OutlookWins,
        initial: Initial::Outlook,
        max_length: None,
        to_salesforce: BTreeMap::new(),
        to_outlook: BTreeMap::new(),
    };
    let spec = MappingSpec {
        file: "simulation".to_owned(),
        fields: vec![
            field("subject", "subject", "Subject"),
            field("time", "time", "time"),
            field("location", "location.displayName", "Location"),
        ],
        tests: Vec::new(),
    };
    Rules { mapping: Mapping::compile(&spec).expect("the rules are sound"), policy: Policy::default() }
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            world: World::new(),
            rules: rules(),
            dirty: BTreeMap::new(),
            due: BTreeMap::new(),
            link: None,
            wake_at: None,
            tries: 0,
            ids: 0,
            history: String::new(),
        }
    }

    /// Runs one schedule; returns its history.
    pub(crate) fn run(mut self) -> Result<String, String> {
        self.world.now += TimeDelta::minutes(1);
        let first = if self.dice.chance(50) { Side::Outlook } else { Side::Salesforce };
        let record = self.world.new_id(first);
        self.world.put(&mut self.dice, Author::Person, &record, |row| row.fields = meeting(first, 0));
        let steps = 10 + self.dice.below(30);
        for _ in 0..steps {
            match self.dice.below(10) {
                0 | 1 => self.person_acts(),
                _ => self.world.now += TimeDelta::milliseconds(i64::try_from(self.dice.below(3_000)).unwrap()),
            }
            self.turn()?;
        }
        self.drain()?;
        self.judge()?;
        Ok(self.history)
    }

    fn person_acts(&mut self) {
        let side = if self.dice.chance(50) { Side::Outlook } else { Side::Salesforce };
        let Some(record) = self.world.alive(side).first().cloned() else {
            return;
        };
        if self.dice.chance(8) {
            self.note(format_args!("person deletes {record}"));
            self.world.put(&mut self.dice, Author::Person, &record, |row| row.deleted = true);
            return;
        }
        let place = self.dice.chance(40);
        let name = match (side, place) {
            (Side::Outlook, false) => "subject",
            (Side::Outlook, true) => "location.displayName",
            (Side::Salesforce, false) => "Subject",
            (Side::Salesforce, true) => "Location",
        };
        let value = Value::text(format!("v{}", self.dice.below(3)));
        if self.world.current(&record).unwrap().fields.get(name) == Some(&value) {
            return;
        }
        self.note(format_args!("person sets {record} {name} to {value:?}"));
        self.world.put(&mut self.dice, Author::Person, &record, |row| {
            row.fields.insert(name.to_owned(), value);
        });
    }

    /// Delivers what is due and lets the engine run if it has something to do.
    fn turn(&mut self) -> Result<bool, String> {
        let now = self.world.now;
        let mut late: Vec<Intent> = Vec::new();
        self.world.late.retain(|(at, intent)| {
            let arrives = *at <= now;
            if arrives {
                late.push(intent.clone());
            }
            !arrives
        });
        for intent in late {
            let result = self.world.apply(&mut self.dice, &intent);
            self.note(format_args!("late {} arrives: {}", intent.action.name(), name_of(&result)));
        }
        let mut arrived = Vec::new();
        self.world.signals.retain(|signal| {
            let arrives = signal.0 <= now;
            if arrives {
                arrived.push(signal.clone());
            }
            !arrives
        });
        for (_, record, deleted, version) in arrived {
            let quiet = self.rules.policy.timers.quiet;
            self.due.insert(record.clone(), now + quiet);
            let notice = self.dirty.entry(record.clone()).or_insert_with(|| Notice {
                record,
                deleted: false,
                versions: Vec::new(),
                last_signal_at: now,
                cause: SignalCause::Notification,
            });
            notice.deleted |= deleted;
            notice.last_signal_at = now;
            notice.versions.push(version);
        }
        let due = self.due.values().any(|at| *at <= now) || self.wake_at.is_some_and(|at| at <= now);
        if due {
            self.run_lane()?;
        }
        Ok(due)
    }

    fn run_lane(&mut self) -> Result<(), String> {
        let claimed = self.dirty.clone();
        let tries = self.tries;
        let plan = self.plan(&claimed)?;
        self.note(format_args!(
            "run: {} because {:?}",
            plan.outcome.name(),
            plan.reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>()
        ));
        if self.crashes() {
            return Ok(());
        }
        self.link.clone_from(&plan.next);
        self.wake_at = if plan.steps.is_empty() { plan.wake_at } else { Some(self.world.now) };
        self.tries = if plan.outcome == Outcome::Wait { tries + 1 } else { 0 };
        for record in &plan.covered {
            self.dirty.remove(record);
            self.due.remove(record);
        }
        let again = plan.wake_at.unwrap_or(self.world.now + TimeDelta::seconds(1));
        for at in self.due.values_mut() {
            *at = again;
        }
        if self.crashes() {
            return Ok(());
        }
        let mut settled_link = plan.next.clone();
        let mut wake_at = plan.wake_at;
        for intent in &plan.steps {
            let result = self.send(intent);
            self.note(format_args!("{} {} -> {}", intent.side, intent.action.name(), name_of(&result)));
            if self.crashes() {
                return Ok(());
            }
            let Some(link) = settled_link.take() else {
                return Err("a step without a link".to_owned());
            };
            let settled = settle(link, intent, &result, &self.rules, self.world.now);
            wake_at = [wake_at, settled.wake_at].into_iter().flatten().min();
            settled_link = Some(settled.link);
        }
        if !plan.steps.is_empty() {
            self.link = settled_link;
            self.wake_at = wake_at;
        }
        Ok(())
    }

    fn plan(&mut self, claimed: &BTreeMap<RecordId, Notice>) -> Result<Plan, String> {
        let mut records: Vec<RecordId> = claimed.keys().cloned().collect();
        if let Some(link) = &self.link {
            records
                .extend(Side::BOTH.iter().filter_map(|side| Some(link.replicas.get(*side).as_ref()?.record.clone())));
        }
        let mut case = Case {
            connection: ConnectionId::new("c"),
            link: self.link.clone(),
            reads: records.into_iter().map(|id| (id.clone(), self.world.read(&mut self.dice, &id))).collect(),
            notices: claimed.values().cloned().collect(),
            enrolments: vec![Enrolment {
                mailbox: MailboxId::new(MAILBOX),
                user: SalesforceId::parse(USER).unwrap(),
                enrolled_at: DateTime::UNIX_EPOCH,
            }],
            lookups: Vec::new(),
            tries: self.tries,
        };
        self.ids += 3;
        let fresh = Fresh {
            link: LinkId::new(Uuid::from_u128(self.ids)),
            outlook: WriteToken::new(Uuid::from_u128(self.ids + 1)),
            salesforce: WriteToken::new(Uuid::from_u128(self.ids + 2)),
        };
        for _ in 0..8 {
            match plan(&case, &self.rules, self.world.now, &fresh) {
                Planned::Plan(plan) => return Ok(*plan),
                Planned::Need(lookups) => {
                    for lookup in lookups {
                        let found = match &lookup {
                            Lookup::Read(record) => vec![(record.clone(), self.world.read(&mut self.dice, record))],
                            Lookup::Stamped { side, link, .. } => self.world.stamped(*side, *link),
                            Lookup::Candidates { .. } => Vec::new(),
                        };
                        case.lookups.push((lookup, Answer::Found(found)));
                    }
                }
            }
        }
        Err("a plan needed more than 8 rounds of look-ups".to_owned())
    }

    fn send(&mut self, intent: &Intent) -> WriteResult {
        let why =
            || calbridge_core::observed::Why { code: "CB0".to_owned(), message: String::new(), retry_after_ms: None };
        if !self.world.faults {
            return self.world.apply(&mut self.dice, intent);
        }
        // A person may edit between our read and our write.
        if self.dice.chance(10) {
            self.person_acts();
        }
        match self.dice.below(20) {
            0 => WriteResult::NotNow(why()),
            1 => WriteResult::Unknown(why()),
            2 | 3 => {
                let result = self.world.apply(&mut self.dice, intent);
                self.note(format_args!("answer lost: {}", name_of(&result)));
                WriteResult::Unknown(why())
            }
            4 => {
                let delay = TimeDelta::seconds(i64::try_from(self.dice.below(60)).unwrap());
                self.world.late.push((self.world.now + delay, intent.clone()));
                WriteResult::Unknown(why())
            }
            _ => self.world.apply(&mut self.dice, intent),
        }
    }

    /// Under faults, now and then the process dies: nothing after this point of the run happens.
    fn crashes(&mut self) -> bool {
        let dies = self.world.faults && self.dice.chance(4);
        if dies {
            self.note(format_args!("crash"));
            for at in self.due.values_mut() {
                *at = self.world.now;
            }
        }
        dies
    }

    /// Faults end, people are quiet, a sweep looks at every record once.
    fn drain(&mut self) -> Result<(), String> {
        self.world.faults = false;
        self.note(format_args!("drain"));
        for record in self.world.rows.keys().cloned().collect::<Vec<_>>() {
            let now = self.world.now;
            self.due.insert(record.clone(), now);
            let deleted = self.world.current(&record).is_some_and(|row| row.deleted);
            let notice = self.dirty.entry(record.clone()).or_insert_with(|| Notice {
                record,
                deleted: false,
                versions: Vec::new(),
                last_signal_at: now,
                cause: SignalCause::Sweep,
            });
            notice.deleted |= deleted;
        }
        for _ in 0..600 {
            self.turn()?;
            let next = [
                self.due.values().min().copied(),
                self.wake_at,
                self.world.signals.iter().map(|signal| signal.0).min(),
                self.world.late.iter().map(|late| late.0).min(),
            ];
            match next.into_iter().flatten().min() {
                Some(at) => self.world.now = self.world.now.max(at),
                None => return Ok(()),
            }
        }
        Err(format!("still busy after 600 steps\n{}", self.history))
    }

    fn judge(&mut self) -> Result<(), String> {
        let fail = |what: &str, sim: &Self| Err(format!("{what}\n{}", sim.history));
        let outlook = self.world.alive(Side::Outlook);
        let salesforce = self.world.alive(Side::Salesforce);
        if outlook.len() > 1 || salesforce.len() > 1 {
            return fail("S1: more than one record on a side", self);
        }
        let creates = &self.world.tally.engine_creates;
        if creates.outlook + creates.salesforce > 1 {
            return fail("S1: more than one creation", self);
        }
        let deleted_by_person =
            self.world.tally.person_deletes.outlook + self.world.tally.person_deletes.salesforce > 0;
        if deleted_by_person && outlook.len() + salesforce.len() > 0 {
            return fail("L1, S3: a deleted meeting lives", self);
        }
        if !deleted_by_person && outlook.len() + salesforce.len() != 2 {
            return fail("L1: a side lacks the meeting", self);
        }
        if let ([o], [s]) = (outlook.as_slice(), salesforce.as_slice()) {
            let (o, s) = (self.world.current(o).unwrap(), self.world.current(s).unwrap());
            for rule in self.rules.mapping.rules() {
                if rule.read(Side::Outlook, &o.fields) != rule.read(Side::Salesforce, &s.fields) {
                    return fail("L1: values differ", self);
                }
            }
        }
        for side in Side::BOTH {
            let caused =
                *self.world.tally.person_edits.get(side.other()) + *self.world.tally.person_deletes.get(side.other());
            if *self.world.tally.engine_writes.get(side) > caused {
                return fail("S2: more writes than edits on the other side", self);
            }
        }
        if let Some(link) = &self.link {
            if link.intents.outlook.is_some() || link.intents.salesforce.is_some() {
                return fail("L1: an intent is open", self);
            }
            if matches!(link.state, LinkState::DeadLetter { .. } | LinkState::Held { .. }) {
                return fail("L1: dead letter or hold without a cause", self);
            }
            let steps = self.plan(&BTreeMap::new())?.steps;
            if !steps.is_empty() {
                return fail("L3: a resync would write", self);
            }
        }
        Ok(())
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        writeln!(self.history, "{} {what}", self.world.now.format("%H:%M:%S%.3f")).unwrap();
    }
}

fn name_of(result: &WriteResult) -> &'static str {
    match result {
        WriteResult::Applied { .. } => "applied",
        WriteResult::Conflict(_) => "conflict",
        WriteResult::Gone(_) => "gone",
        WriteResult::AlreadyExists(_) => "already exists",
        WriteResult::Refused(_) => "refused",
        WriteResult::NotNow(_) => "not now",
        WriteResult::Unknown(_) => "unknown",
    }
}
