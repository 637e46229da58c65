//! The smallest engine around the core: queue, lane timer, intents before writes, crashes between any two steps.
//!
//! A [`Mutant`] breaks one rule of it, to prove that the simulation would notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use calbridge_core::case::{Answer, Case, Census, Enrolment, Fact, Fresh, Lookup, Notice};
use calbridge_core::ids::{ConnectionId, LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::{Action, Intent, Link, LinkState};
use calbridge_core::mapping::{Conflict, Direction, FieldSpec, Initial, Mapping, MappingSpec};
use calbridge_core::observed::{Evidence, Observed};
use calbridge_core::plan::{Outcome, Plan, Planned, plan};
use calbridge_core::policy::{Guard, MailPolicy, Policy, Rules};
use calbridge_core::reason::Reason;
use calbridge_core::settle::settle;
use calbridge_core::side::Side;
use calbridge_core::signal::SignalCause;
use calbridge_core::written::WriteResult;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::oracle::{Account, entry};
use crate::sim::{Engine, Stage, replicas};
use crate::swarm::{Meeting, Swarm};
use crate::world::{FIELDS, MAILBOXES, Message, USERS, why};

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// What is known of a record's past (superseded versions, modification time, our stamp) is not remembered.
    ForgetsThePast,
    /// A refusal of a repeated request closes the intent, although the first request may have taken effect.
    BelievesTheLastAnswer,
    /// Notices are covered although the notified version was never observed.
    CoversTheUnseen,
    /// Whether a write took effect is told from the values, not from the token.
    JudgesByValue,
    /// One "not found" is a deletion.
    BelievesOneMiss,
    /// A creation without an answer is repeated at once.
    RepeatsCreations,
    /// Lost values are not journaled.
    JournalsNothing,
    /// What change events said is not kept, so nobody learns what a write covered.
    AuditsNothing,
}

pub(crate) const MUTANTS: [Mutant; 8] = [
    Mutant::ForgetsThePast,
    Mutant::BelievesTheLastAnswer,
    Mutant::CoversTheUnseen,
    Mutant::JudgesByValue,
    Mutant::BelievesOneMiss,
    Mutant::RepeatsCreations,
    Mutant::JournalsNothing,
    Mutant::AuditsNothing,
];

impl Mutant {
    /// Sets the mix in which a mutant's one mistake does harm often enough to be met.
    pub(crate) fn provoke(self, swarm: &mut Swarm) {
        if self == Self::BelievesTheLastAnswer {
            (swarm.meeting, swarm.conditional) = (Meeting::Plain, true);
            (swarm.busy, swarm.deletes, swarm.private) = (40, 0, 0);
            (swarm.stale_reads, swarm.lost_answers) = (60, 50);
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Calbridge {
    rules: Rules,
    enrolments: Vec<Enrolment>,
    mutant: Option<Mutant>,
    dirty: BTreeMap<RecordId, Notice>,
    due: BTreeMap<RecordId, DateTime<Utc>>,
    link: Option<Link>,
    wake_at: Option<DateTime<Utc>>,
    tries: u32,
    ids: u128,
    journal: BTreeSet<(String, String)>,
    /// What change events said, by their place in the stream, and when they came.
    facts: BTreeMap<u64, (DateTime<Utc>, Fact)>,
}

/// The rules of a schedule; those of one kind are compiled once, because that takes longer than a schedule.
fn rules(swarm: &Swarm) -> Rules {
    type Kind = (Conflict, Direction);
    static COMPILED: Mutex<Vec<(Kind, Mapping)>> = Mutex::new(Vec::new());
    let kind = (swarm.conflict, swarm.location);
    let mut compiled = COMPILED.lock().unwrap();
    let known = compiled.iter().find(|(known, _)| *known == kind).map(|(_, mapping)| mapping.clone());
    let mapping = known.unwrap_or_else(|| {
        let mapping = mapping(kind.0, kind.1);
        compiled.push((kind, mapping.clone()));
        mapping
    });
    // Mails are not part of this world: meetings with attendees flow one way. Nor are authors: anybody may edit by turns.
    let guard = Guard { unexplained_in_10_minutes: u32::MAX, unexplained_in_a_day: u32::MAX, ..Guard::default() };
    let policy =
        Policy { outlook_conditional_writes: swarm.conditional, mail: MailPolicy::Never, guard, ..Policy::default() };
    Rules { mapping, policy }
}

fn mapping(conflict: Conflict, location: Direction) -> Mapping {
    let field = |(name, outlook, salesforce): (&str, &str, &str)| FieldSpec {
        name: name.to_owned(),
        line: 1,
        outlook: outlook.to_owned(),
        salesforce: salesforce.to_owned(),
        direction: if name == "location" { location } else { Direction::Both },
        on_create: true,
        conflict: if name == "time" { Conflict::OutlookWins } else { conflict },
        initial: Initial::Outlook,
        max_length: None,
        to_salesforce: BTreeMap::new(),
        to_outlook: BTreeMap::new(),
    };
    let fields = FIELDS.into_iter().map(field).collect();
    let spec = MappingSpec { file: "simulation".to_owned(), fields, tests: Vec::new() };
    Mapping::compile(&spec).expect("the rules are sound")
}

impl Calbridge {
    pub(crate) fn new(swarm: &Swarm, mutant: Option<Mutant>) -> Self {
        let enrolment = |(mailbox, user)| Enrolment {
            mailbox: MailboxId::new(mailbox),
            user: SalesforceId::parse(user).unwrap(),
            enrolled_at: DateTime::UNIX_EPOCH,
        };
        Self {
            rules: rules(swarm),
            enrolments: MAILBOXES.into_iter().zip(USERS).map(enrolment).collect(),
            mutant,
            dirty: BTreeMap::new(),
            due: BTreeMap::new(),
            link: None,
            wake_at: None,
            tries: 0,
            ids: 0,
            journal: BTreeSet::new(),
            facts: BTreeMap::new(),
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Stores a link, as a commit does.
    fn store(&mut self, link: Option<Link>) {
        self.link = link;
        let Some(link) = self.link.as_mut().filter(|_| self.mutant == Some(Mutant::ForgetsThePast)) else { return };
        for side in Side::BOTH {
            if let Some(replica) = link.replicas.get_mut(side) {
                (replica.modified, replica.stamped) = (None, None);
                replica.superseded.clear();
            }
        }
    }

    /// Writes the journal rows of a plan; they commit together with its intents.
    fn write_journal(&mut self, plan: &Plan) {
        if self.is(Mutant::JournalsNothing) {
            return;
        }
        for decision in &plan.decisions {
            self.journal.insert(entry(&decision.rule, &decision.outlook));
            self.journal.insert(entry(&decision.rule, &decision.salesforce));
        }
        for rule in self.rules.mapping.rules() {
            let replaced = plan.steps.iter().filter_map(|step| step.replaced.get(rule.field(step.side)));
            self.journal.extend(replaced.map(|value| entry(&rule.name, value)));
        }
    }

    fn read(&self, stage: &mut Stage, record: &RecordId) -> Observed {
        let mut observed = stage.world.read(&mut stage.dice, record);
        if self.is(Mutant::BelievesOneMiss) && observed == Observed::Absent(Evidence::NotFound) {
            observed = Observed::Absent(Evidence::Deleted);
        }
        if self.is(Mutant::JudgesByValue)
            && let Observed::Present(snapshot) = &mut observed
            && let Some(intent) = self.link.as_ref().and_then(|link| link.intents.get(record.side()).as_ref())
            && let (Action::Update(_), Some(stamp)) = (&intent.action, &mut snapshot.stamp)
        {
            let looks_written = intent.fields.iter().all(|(name, value)| snapshot.fields.get(name) == Some(value));
            stamp.token = looks_written.then_some(intent.token);
        }
        observed
    }

    fn plan(&mut self, stage: &mut Stage, claimed: &BTreeMap<RecordId, Notice>) -> Result<Plan, String> {
        let mut link = self.link.clone();
        if let Some(link) = link.as_mut().filter(|_| self.mutant == Some(Mutant::RepeatsCreations)) {
            for side in Side::BOTH {
                if let Some(intent) = link.intents.get_mut(side) {
                    intent.give_up_at = stage.world.now;
                }
            }
        }
        let records: BTreeSet<RecordId> = claimed.keys().cloned().chain(self.link.iter().flat_map(replicas)).collect();
        let mut case = Case {
            connection: ConnectionId::new("c"),
            link,
            reads: records.into_iter().map(|id| (id.clone(), self.read(stage, &id))).collect(),
            notices: claimed.values().cloned().collect(),
            enrolments: self.enrolments.clone(),
            lookups: Vec::new(),
            facts: self.facts.values().map(|(_, fact)| fact.clone()).collect(),
            instruction: None,
            tries: self.tries,
        };
        self.ids += 3;
        let fresh = Fresh {
            link: LinkId::new(Uuid::from_u128(self.ids)),
            outlook: WriteToken::new(Uuid::from_u128(self.ids + 1)),
            salesforce: WriteToken::new(Uuid::from_u128(self.ids + 2)),
        };
        for _ in 0..8 {
            match plan(&case, &self.rules, stage.world.now, &fresh) {
                Planned::Plan(plan) => return Ok(*plan),
                Planned::Need(lookups) => {
                    for lookup in lookups {
                        if let Lookup::Census { .. } = lookup {
                            case.lookups.push((lookup, Answer::Counted(Census::default())));
                            continue;
                        }
                        let found = match &lookup {
                            Lookup::Read(record) => vec![(record.clone(), self.read(stage, record))],
                            Lookup::Stamped { side, link, .. } => stage.world.stamped(&mut stage.dice, *side, *link),
                            Lookup::Candidates { .. } | Lookup::Census { .. } => Vec::new(),
                        };
                        case.lookups.push((lookup, Answer::Found(found)));
                    }
                }
            }
        }
        Err("a plan needed more than 8 rounds of look-ups".to_owned())
    }

    fn send(&self, stage: &mut Stage, intent: &Intent) -> WriteResult {
        let swarm = stage.world.swarm.clone();
        // A person may edit between our read and our write.
        if stage.world.strikes(&mut stage.dice, swarm.edits_underneath) {
            stage.person_acts(|record| self.knows(record));
        }
        if stage.world.strikes(&mut stage.dice, swarm.refusals) {
            return WriteResult::NotNow(why());
        }
        if stage.world.strikes(&mut stage.dice, swarm.lost_requests) {
            return WriteResult::Unknown(why());
        }
        if stage.world.strikes(&mut stage.dice, swarm.late_writes) {
            let delay = TimeDelta::milliseconds(i64::try_from(stage.dice.below(60_000)).unwrap());
            stage.world.late.push((stage.world.now + delay, intent.clone()));
            return WriteResult::Unknown(why());
        }
        let result = stage.world.apply(&mut stage.dice, intent);
        if stage.world.strikes(&mut stage.dice, swarm.lost_answers) {
            stage.note(|| format!("answer lost: {result:?}"));
            return WriteResult::Unknown(why());
        }
        result
    }

    /// Under faults, now and then the process dies: nothing after this point of the run happens.
    fn crashes(&mut self, stage: &mut Stage) -> bool {
        let dies = stage.world.strikes(&mut stage.dice, stage.world.swarm.crashes);
        if dies {
            stage.note(|| "crash".to_owned());
            for at in self.due.values_mut() {
                *at = stage.world.now;
            }
        }
        dies
    }
}

impl Engine for Calbridge {
    fn signal(&mut self, now: DateTime<Utc>, message: Message) {
        let Message { record, deleted, version, fact, .. } = message;
        if let Some((place, facts)) = fact.filter(|_| !self.is(Mutant::AuditsNothing)) {
            let fact = Fact { record: record.clone(), deleted, facts };
            self.facts.entry(place).or_insert((now, fact));
        }
        self.due.insert(record.clone(), now + self.rules.policy.timers.quiet);
        let notice = self.dirty.entry(record.clone()).or_insert_with(|| Notice {
            record,
            deleted: false,
            versions: Vec::new(),
            last_signal_at: now,
            cause: SignalCause::Notification,
        });
        notice.deleted |= deleted;
        notice.last_signal_at = now;
        notice.versions.extend(version);
    }

    fn due(&self) -> Option<DateTime<Utc>> {
        self.due.values().copied().chain(self.wake_at).min()
    }

    fn knows(&self, record: &RecordId) -> bool {
        self.link.as_ref().is_some_and(|link| link.copies.contains(record) || replicas(link).any(|one| one == *record))
    }

    fn run(&mut self, stage: &mut Stage) -> Result<(), String> {
        let claimed = self.dirty.clone();
        let tries = self.tries;
        let mut plan = self.plan(stage, &claimed)?;
        stage.note(|| format!("run: {} because {:?}, wakes at {:?}", plan.outcome.name(), plan.reasons, plan.wake_at));
        if self.is(Mutant::CoversTheUnseen) && plan.outcome != Outcome::Wait {
            plan.covered = claimed.keys().cloned().collect();
            if plan.reasons.contains(&Reason::VersionNotSeen) {
                plan.wake_at = None;
            }
        }
        if self.crashes(stage) {
            return Ok(());
        }
        self.write_journal(&plan);
        self.facts.retain(|_, (at, _)| *at >= plan.facts_from);
        self.store(plan.next.clone());
        self.wake_at = if plan.steps.is_empty() { plan.wake_at } else { Some(stage.world.now) };
        self.tries = if plan.outcome == Outcome::Wait { tries + 1 } else { 0 };
        for record in &plan.covered {
            self.dirty.remove(record);
            self.due.remove(record);
        }
        let again = plan.wake_at.unwrap_or(stage.world.now + TimeDelta::seconds(1));
        for at in self.due.values_mut() {
            *at = again;
        }
        if self.crashes(stage) {
            return Ok(());
        }
        let mut settled_link = plan.next;
        let mut wake_at = plan.wake_at;
        for intent in &plan.steps {
            let result = self.send(stage, intent);
            stage.note(|| format!("{} {} {:?} -> {result:?}", intent.side, intent.action.name(), intent.fields));
            if self.crashes(stage) {
                return Ok(());
            }
            let link = settled_link.take().ok_or("a step without a link")?;
            let mut intent = intent.clone();
            if self.is(Mutant::BelievesTheLastAnswer) {
                intent.sends = 1;
            }
            let settled = settle(link, &intent, &result, &self.rules, stage.world.now);
            wake_at = [wake_at, settled.wake_at].into_iter().flatten().min();
            settled_link = Some(settled.link);
        }
        if !plan.steps.is_empty() {
            self.store(settled_link);
            self.wake_at = wake_at;
        }
        Ok(())
    }

    fn account(&mut self, stage: &mut Stage) -> Result<Account, String> {
        let mut account = Account { journal: std::mem::take(&mut self.journal), ..Account::default() };
        let Some(link) = self.link.clone() else { return Ok(account) };
        match link.state {
            LinkState::DeadLetter { reason: Reason::ManualConflict, .. } => account.asks = true,
            LinkState::DeadLetter { reason, .. } | LinkState::Held { reason, .. } => {
                account.left_over = Some(format!("stopped without a cause: {reason}"));
            }
            LinkState::Live | LinkState::Tombstone { .. } | LinkState::Skipped { .. } => {}
        }
        if link.intents.outlook.is_some() || link.intents.salesforce.is_some() {
            account.left_over = Some("an intent is open".to_owned());
        } else if !self.plan(stage, &BTreeMap::new())?.steps.is_empty() {
            account.left_over = Some("L3: another look would write".to_owned());
        }
        Ok(account)
    }
}
