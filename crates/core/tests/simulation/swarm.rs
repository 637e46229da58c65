//! Chance: a small generator of our own, and the mix of faults and settings that a seed draws for its schedule.
//!
//! Each schedule has its own mix, because a rare hole needs some faults often and others not at all.

use calbridge_core::mapping::{Conflict, Direction};
use calbridge_core::policy::{DeleteConflict, Guard, MailPolicy};

/// Where chance comes from: a seed, or a script that an explorer writes.
#[derive(Debug, Clone)]
pub(crate) enum Dice {
    /// A generator of our own, so that a seed means the same on every machine and version.
    Random(u64),
    /// Every choice is made by the explorer.
    Scripted(Script),
}

/// Choices made so far in one step, and how many faults may still strike.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Which way to go at each choice of a step; beyond its end, always the first.
    pub(crate) choices: Vec<u8>,
    /// How many ways there were at each choice of a step.
    pub(crate) ways: Vec<u8>,
    /// Faults and rare acts of people that may still happen.
    pub(crate) budget: u32,
}

impl Script {
    fn choose(&mut self, ways: u8) -> u8 {
        let chosen = self.choices.get(self.ways.len()).copied().unwrap_or(0);
        self.ways.push(ways);
        if self.choices.len() < self.ways.len() {
            self.choices.push(chosen);
        }
        chosen
    }
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
        // The generator never leaves zero.
        Self::Random(state.max(1))
    }

    /// Draws a number below a bound; an explorer tries the least and the greatest.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        match self {
            Self::Random(state) => {
                // xorshift64*: https://www.jstatsoft.org/article/view/v008i14
                *state ^= *state >> 12;
                *state ^= *state << 25;
                *state ^= *state >> 27;
                (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
            }
            Self::Scripted(_) if bound <= 1 => 0,
            Self::Scripted(script) => u64::from(script.choose(2)) * (bound - 1),
        }
    }

    /// Draws a number of milliseconds below a bound.
    pub(crate) fn millis(&mut self, bound: u64) -> chrono::TimeDelta {
        chrono::TimeDelta::milliseconds(i64::try_from(self.below(bound)).unwrap())
    }

    /// Tells whether something rare happens; an explorer tries both as long as its budget lasts.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        match self {
            Self::Random(_) => self.below(100) < percent,
            Self::Scripted(script) => {
                let happens = percent > 0 && script.budget > 0 && script.choose(2) == 1;
                script.budget -= u32::from(happens);
                happens
            }
        }
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Whose meeting it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One person's entry, without attendees; crosses both ways.
    Plain,
    /// Organised in the first mailbox, with a copy in the second.
    Organised,
    /// Organised elsewhere; two enrolled mailboxes hold copies.
    Invited,
}

/// What becomes of `If-Match` on events of Outlook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preconditions {
    /// Outlook honours it, and the policy counts on that.
    Honoured,
    /// Outlook does not honour it, and the policy knows.
    Off,
    /// Outlook does not honour it, and the policy counts on it all the same.
    Ignored,
}

/// How much may happen at once without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// What the defaults say, but any number of writes that no edit explains: people edit by turns.
    Loose,
    /// What the defaults say.
    Usual,
    /// One of everything, so that few meetings are enough to reach a limit.
    Tight,
}

impl Limits {
    pub(crate) const ALL: [Self; 3] = [Self::Loose, Self::Usual, Self::Tight];

    pub(crate) fn guard(self) -> Guard {
        let any = u32::MAX;
        match self {
            Self::Loose => Guard { unexplained_in_10_minutes: any, unexplained_in_a_day: any, ..Guard::default() },
            Self::Usual => Guard::default(),
            Self::Tight => Guard {
                deletes_least: 1,
                deletes_percent: 0,
                deletes_by_author: 1,
                mails_by_author: 1,
                unexplained_in_10_minutes: 3,
                unexplained_in_a_day: 4,
            },
        }
    }
}

/// The mix of one schedule; faults are percentages.
#[expect(clippy::struct_excessive_bools, reason = "each turns one part of the model on")]
#[derive(Debug, Clone)]
pub(crate) struct Swarm {
    /// One to three; each has a link of its own.
    pub(crate) kinds: Vec<Kind>,
    /// One or two, sharing the database.
    pub(crate) workers: usize,
    pub(crate) conflict: Conflict,
    pub(crate) location: Direction,
    pub(crate) preconditions: Preconditions,
    /// Salesforce refuses a second record with the same link id.
    pub(crate) unique: bool,
    /// Outlook recognises a repeated creation by its `transactionId`.
    pub(crate) remembers_transactions: bool,
    pub(crate) mail: MailPolicy,
    pub(crate) limits: Limits,
    pub(crate) delete_conflict: DeleteConflict,
    /// Meetings end a few minutes after the schedule began.
    pub(crate) soon: bool,
    /// Automation of both sides answers every write, without end.
    pub(crate) answering: bool,
    /// The database is lost on the way, and a backup of it put back.
    pub(crate) backup: bool,
    pub(crate) steps: u64,
    /// Percent of steps at which a person does something.
    pub(crate) busy: u64,
    pub(crate) rates: Rates,
}

/// Percentages, each of its own occasion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// A message is never delivered; a sweep at the end finds what it told.
    pub(crate) lost_signals: u64,
    /// A message is delivered twice.
    pub(crate) repeated_signals: u64,
    /// All records are looked at for no reason.
    pub(crate) sweeps: u64,
    /// A read shows an older state.
    pub(crate) stale_reads: u64,
    /// A read does not find a new record.
    pub(crate) misses: u64,
    pub(crate) failed_reads: u64,
    /// A write is refused for now; half of these name a pause.
    pub(crate) throttles: u64,
    /// A write is refused for good.
    pub(crate) refusals: u64,
    pub(crate) lost_requests: u64,
    pub(crate) lost_answers: u64,
    /// A write takes effect after its sender gave it up.
    pub(crate) late_writes: u64,
    /// A person acts between two steps of a worker.
    pub(crate) edits_underneath: u64,
    /// A worker dies between two steps.
    pub(crate) crashes: u64,
    /// A worker stands still between two steps, perhaps for longer than its lease.
    pub(crate) pauses: u64,
    /// Something outside the mapping changes.
    pub(crate) noise: u64,
    /// A trigger of Salesforce changes a field within our own transaction.
    pub(crate) triggers: u64,
    /// A flow changes a field some seconds after our write.
    pub(crate) flows: u64,
    pub(crate) deletes: u64,
    pub(crate) private: u64,
    /// What would have been a person's doing in Salesforce is automation's.
    pub(crate) automation: u64,
    /// A person answers something that waits.
    pub(crate) answers: u64,
    /// A person brings a deleted meeting back.
    pub(crate) restores: u64,
}

impl Rates {
    /// The same without what makes a worker late.
    pub(crate) fn without_delays(self) -> Self {
        Self {
            lost_signals: 0,
            stale_reads: 0,
            misses: 0,
            failed_reads: 0,
            throttles: 0,
            lost_requests: 0,
            lost_answers: 0,
            late_writes: 0,
            crashes: 0,
            pauses: 0,
            ..self
        }
    }
}

/// A rate by its name, for whoever turns rates off one by one.
pub(crate) type Rate = (&'static str, fn(&mut Rates) -> &mut u64);

pub(crate) const RATES: [Rate; 22] = [
    ("lost_signals", |rates| &mut rates.lost_signals),
    ("repeated_signals", |rates| &mut rates.repeated_signals),
    ("sweeps", |rates| &mut rates.sweeps),
    ("stale_reads", |rates| &mut rates.stale_reads),
    ("misses", |rates| &mut rates.misses),
    ("failed_reads", |rates| &mut rates.failed_reads),
    ("throttles", |rates| &mut rates.throttles),
    ("refusals", |rates| &mut rates.refusals),
    ("lost_requests", |rates| &mut rates.lost_requests),
    ("lost_answers", |rates| &mut rates.lost_answers),
    ("late_writes", |rates| &mut rates.late_writes),
    ("edits_underneath", |rates| &mut rates.edits_underneath),
    ("crashes", |rates| &mut rates.crashes),
    ("pauses", |rates| &mut rates.pauses),
    ("noise", |rates| &mut rates.noise),
    ("triggers", |rates| &mut rates.triggers),
    ("flows", |rates| &mut rates.flows),
    ("deletes", |rates| &mut rates.deletes),
    ("private", |rates| &mut rates.private),
    ("automation", |rates| &mut rates.automation),
    ("answers", |rates| &mut rates.answers),
    ("restores", |rates| &mut rates.restores),
];

impl Swarm {
    /// One plain meeting and one worker, and no fault at all.
    pub(crate) fn calm() -> Self {
        Self {
            kinds: vec![Kind::Plain],
            workers: 1,
            conflict: Conflict::OutlookWins,
            location: Direction::Both,
            preconditions: Preconditions::Honoured,
            unique: true,
            remembers_transactions: true,
            mail: MailPolicy::Never,
            limits: Limits::Loose,
            delete_conflict: DeleteConflict::DeleteWins,
            soon: false,
            answering: false,
            backup: false,
            steps: 20,
            busy: 20,
            rates: Rates::default(),
        }
    }

    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut rate = |rates: [u64; 4]| dice.pick(&rates);
        let mut swarm = Self {
            steps: rate([10, 15, 25, 35]),
            busy: rate([10, 20, 20, 40]),
            rates: Rates {
                lost_signals: rate([0, 0, 10, 30]),
                repeated_signals: rate([0, 20, 50, 50]),
                sweeps: rate([0, 0, 0, 5]),
                stale_reads: rate([0, 5, 10, 30]),
                misses: rate([0, 0, 5, 20]),
                failed_reads: rate([0, 0, 5, 20]),
                throttles: rate([0, 0, 5, 20]),
                refusals: rate([0, 0, 0, 3]),
                lost_requests: rate([0, 0, 5, 20]),
                lost_answers: rate([0, 5, 10, 30]),
                late_writes: rate([0, 5, 10, 20]),
                edits_underneath: rate([0, 2, 5, 20]),
                crashes: rate([0, 0, 4, 15]),
                pauses: 0,
                noise: rate([0, 0, 10, 30]),
                triggers: rate([0, 0, 0, 30]),
                flows: rate([0, 0, 0, 30]),
                deletes: rate([0, 0, 8, 15]),
                private: rate([0, 0, 0, 8]),
                automation: rate([0, 0, 20, 50]),
                answers: rate([0, 5, 10, 10]),
                restores: rate([0, 0, 0, 30]),
            },
            ..Self::calm()
        };
        if dice.chance(40) {
            swarm.conflict =
                dice.pick(&[Conflict::OutlookWins, Conflict::SalesforceWins, Conflict::Latest, Conflict::Manual]);
        }
        if dice.chance(15) {
            swarm.location = Direction::ToSalesforce;
        }
        for _ in 1..dice.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 3]) {
            swarm.kinds.push(Kind::Plain);
        }
        for kind in &mut swarm.kinds {
            if dice.chance(25) {
                *kind = dice.pick(&[Kind::Organised, Kind::Invited]);
            }
        }
        if dice.chance(40) {
            swarm.workers = 2;
            swarm.rates.pauses = dice.pick(&[0, 5, 15, 30]);
        }
        swarm.preconditions = match dice.below(100) {
            0..80 => Preconditions::Honoured,
            80..90 => Preconditions::Off,
            _ => Preconditions::Ignored,
        };
        swarm.unique = dice.chance(70);
        swarm.remembers_transactions = dice.chance(80);
        swarm.mail =
            dice.pick(&[MailPolicy::Never, MailPolicy::PersonEdits, MailPolicy::PersonEdits, MailPolicy::Always]);
        swarm.limits = dice.pick(&[Limits::Loose, Limits::Loose, Limits::Usual, Limits::Tight]);
        if dice.chance(10) {
            swarm.delete_conflict = DeleteConflict::EditWins;
            swarm.kinds.fill(Kind::Plain);
        }
        swarm.soon = dice.chance(10);
        if dice.chance(3) {
            swarm.answering = true;
            swarm.limits = Limits::Tight;
            swarm.kinds.fill(Kind::Plain);
        } else if swarm.delete_conflict == DeleteConflict::DeleteWins && swarm.rates.restores == 0 && dice.chance(8) {
            // Whose copy a lost link spoke through is a question of the routing of lanes, which is not part of this world.
            swarm.kinds.fill(Kind::Plain);
            swarm.backup = true;
        }
        swarm
    }
}
