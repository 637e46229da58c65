//! Chance: a small generator of our own, and the mix of faults and settings that a seed draws for its schedule.
//!
//! Each schedule has its own mix, because a rare hole needs some faults often and others not at all.

use calbridge_core::mapping::{Conflict, Direction};

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
        Self::Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
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
pub(crate) enum Meeting {
    /// One person's entry, without attendees; crosses both ways.
    Plain,
    /// Organised in the first mailbox, with a copy in the second.
    Organised,
    /// Organised elsewhere; two enrolled mailboxes hold copies.
    Invited,
}

/// The mix of one schedule; faults are percentages.
#[derive(Debug, Clone)]
pub(crate) struct Swarm {
    pub(crate) meeting: Meeting,
    pub(crate) conflict: Conflict,
    pub(crate) location: Direction,
    /// Outlook honours `If-Match`, and the policy knows whether it does.
    pub(crate) conditional: bool,
    /// Salesforce refuses a second record with the same link id.
    pub(crate) unique: bool,
    pub(crate) steps: u64,
    /// Percent of steps at which a person does something.
    pub(crate) busy: u64,
    pub(crate) lost_signals: u64,
    pub(crate) stale_reads: u64,
    pub(crate) misses: u64,
    pub(crate) failed_reads: u64,
    pub(crate) refusals: u64,
    pub(crate) lost_requests: u64,
    pub(crate) lost_answers: u64,
    pub(crate) late_writes: u64,
    pub(crate) edits_underneath: u64,
    pub(crate) crashes: u64,
    pub(crate) noise: u64,
    pub(crate) deletes: u64,
    pub(crate) private: u64,
}

impl Swarm {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let conflicts = [Conflict::OutlookWins, Conflict::SalesforceWins, Conflict::Latest, Conflict::Manual];
        let mut rate = |rates: [u64; 4]| dice.pick(&rates);
        let mut swarm = Self {
            meeting: Meeting::Plain,
            conflict: Conflict::OutlookWins,
            location: Direction::Both,
            conditional: true,
            unique: true,
            steps: rate([10, 15, 25, 40]),
            busy: rate([10, 20, 20, 40]),
            lost_signals: rate([0, 0, 10, 30]),
            stale_reads: rate([0, 5, 10, 30]),
            misses: rate([0, 0, 5, 20]),
            failed_reads: rate([0, 0, 5, 20]),
            refusals: rate([0, 0, 5, 20]),
            lost_requests: rate([0, 0, 5, 20]),
            lost_answers: rate([0, 5, 10, 30]),
            late_writes: rate([0, 5, 10, 20]),
            edits_underneath: rate([0, 5, 10, 40]),
            crashes: rate([0, 0, 4, 15]),
            noise: rate([0, 0, 10, 30]),
            deletes: rate([0, 0, 8, 15]),
            private: rate([0, 0, 0, 8]),
        };
        if dice.chance(40) {
            swarm.conflict = dice.pick(&conflicts);
        }
        if dice.chance(15) {
            swarm.location = Direction::ToSalesforce;
        }
        if dice.chance(30) {
            swarm.meeting = dice.pick(&[Meeting::Organised, Meeting::Invited]);
            swarm.private = 0;
        }
        swarm.conditional = dice.chance(85);
        swarm.unique = dice.chance(70);
        swarm
    }
}
