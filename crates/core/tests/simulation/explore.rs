//! The same steps as the random schedules, explored to the last one within a bound.
//!
//! A step is: a person acts, or time moves to the next thing due and the engine takes its turn. Whatever chance decides
//! within a step (delays, what is edited, whether a fault strikes) is tried both ways; only the number of edits and of
//! faults is bounded. The checker of the crate `stateright` walks the graph.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Checker, Model, Property};

use crate::calbridge::Calbridge;
use crate::mutants::Mutant;
use crate::people;
use crate::sim::{MOST_STEPS, Stage, judge, next_event, turn};
use crate::swarm::{Dice, RATES, Script, Swarm};
use crate::{number, report};

/// How far an exploration goes.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// Edits by people after the meeting was made.
    edits: u32,
    /// Faults, deletions, repeated messages: together.
    faults: u32,
}

/// One way to take a step, and where it leads.
#[derive(Debug, Clone)]
struct Move {
    choices: Vec<u8>,
    next: Arc<Node>,
}

impl PartialEq for Move {
    fn eq(&self, other: &Self) -> bool {
        self.choices == other.choices
    }
}

/// All schedules within a bound.
#[derive(Debug)]
struct Exploration {
    swarm: Swarm,
    bound: Bound,
    mutant: Option<Mutant>,
}

/// Where a schedule stands.
#[derive(Debug, Clone)]
struct Node {
    stage: Stage,
    engine: Calbridge,
    edits: u32,
    steps: u32,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Beginning,
    Running,
    Ended(Result<(), String>),
}

/// Feeds what is written to it into a hasher.
struct Fingerprint<'a, H>(&'a mut H);

impl<H: Hasher> std::fmt::Write for Fingerprint<'_, H> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tell(&mut Fingerprint(state)).expect("a hasher takes everything");
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        let told = |node: &Self| {
            let mut text = String::new();
            node.tell(&mut text).expect("a text takes everything");
            text
        };
        told(self) == told(other)
    }
}

impl Node {
    /// Writes all that makes one state differ from another; the mix is the same in all.
    fn tell(&self, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        let Self { stage, engine, edits, steps, phase } = self;
        stage.world.tell(to)?;
        write!(to, "{:?}{engine:?}{edits}/{steps}{phase:?}", stage.dice)
    }

    /// Takes one step along a script; returns how many ways there were at each choice.
    fn step(&mut self, choices: &[u8]) -> Script {
        if let Dice::Scripted(script) = &mut self.stage.dice {
            choices.clone_into(&mut script.choices);
        }
        self.steps += 1;
        if let Err(violation) = self.advance() {
            self.phase = Phase::Ended(Err(violation));
        }
        let Dice::Scripted(script) = &mut self.stage.dice else { unreachable!("an exploration is scripted") };
        let budget = script.budget;
        std::mem::replace(script, Script { budget, ..Script::default() })
    }

    fn advance(&mut self) -> Result<(), String> {
        let (stage, engine) = (&mut self.stage, &mut self.engine);
        if self.phase == Phase::Beginning {
            people::begin(&mut stage.world, &mut stage.dice);
            self.phase = Phase::Running;
            return Ok(());
        }
        let next = next_event(stage, engine);
        let person = self.edits > 0 && (next.is_none() || stage.dice.below(2) == 0);
        match next {
            _ if person => {
                self.edits -= 1;
                stage.person_acts(engine);
            }
            Some(at) => {
                stage.world.now = stage.world.now.max(at);
                turn(stage, engine)?;
            }
            None => {
                stage.world.faults = false;
                self.phase = Phase::Ended(judge(stage, engine));
            }
        }
        if self.steps > MOST_STEPS {
            return Err(format!("L2: still busy after {MOST_STEPS} steps"));
        }
        Ok(())
    }
}

impl Model for Exploration {
    type State = Node;
    type Action = Move;

    fn init_states(&self) -> Vec<Node> {
        let dice = Dice::Scripted(Script { budget: self.bound.faults, ..Script::default() });
        let mut stage = Stage::new(dice, self.swarm.clone(), false);
        // Two ways to the same state are one.
        stage.world.digest = None;
        vec![Node {
            stage,
            engine: Calbridge::new(&self.swarm, self.mutant),
            edits: self.bound.edits,
            steps: 0,
            phase: Phase::Beginning,
        }]
    }

    fn actions(&self, state: &Node, actions: &mut Vec<Move>) {
        if matches!(state.phase, Phase::Ended(_)) {
            return;
        }
        let mut choices = Vec::new();
        loop {
            let mut next = state.clone();
            let script = next.step(&choices);
            actions.push(Move { choices: script.choices.clone(), next: Arc::new(next) });
            // The next script differs in the last choice that has another way left.
            let turns = script.choices.iter().zip(&script.ways);
            let Some(last) = turns.enumerate().rfind(|(_, (chosen, ways))| **chosen + 1 < **ways) else { return };
            choices = script.choices[..=last.0].to_vec();
            choices[last.0] += 1;
        }
    }

    fn next_state(&self, _state: &Node, action: Move) -> Option<Node> {
        Some(Arc::unwrap_or_clone(action.next))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no invariant is violated", |_, node: &Node| !matches!(node.phase, Phase::Ended(Err(_)))),
            Property::sometimes("a schedule ends", |_, node: &Node| node.phase == Phase::Ended(Ok(()))),
        ]
    }
}

impl Exploration {
    fn new(bound: Bound, mutant: Option<Mutant>) -> Self {
        let mut swarm = Swarm::calm();
        for (_, rate) in RATES {
            // Only whether a rate is there counts: the budget bounds how often.
            *rate(&mut swarm.rates) = 50;
        }
        let rates = &mut swarm.rates;
        (rates.lost_signals, rates.sweeps, rates.noise, rates.private) = (0, 0, 0, 0);
        (rates.triggers, rates.flows, rates.refusals, rates.pauses) = (0, 0, 0, 0);
        (rates.automation, rates.answers, rates.restores) = (0, 0, 0);
        Self { swarm, bound, mutant }
    }

    /// Explores everything; returns how many states there were, and the first violation with its history.
    fn run(self) -> (usize, Option<String>) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let checker = self.checker().threads(threads).spawn_dfs().join();
        let violation =
            checker.discovery("no invariant is violated").map(|path| told(checker.model(), path.into_actions()));
        assert!(checker.discovery("a schedule ends").is_some(), "no schedule ever ends");
        (checker.unique_state_count(), violation)
    }
}

/// Plays a path again and tells its history.
fn told(model: &Exploration, path: Vec<Move>) -> String {
    let mut node = model.init_states().remove(0);
    node.stage.history = Some(Vec::new());
    for step in path {
        node.step(&step.choices);
    }
    let history = node.stage.history.take().unwrap_or_default().join("\n");
    format!("{history}\n{:?}", node.phase)
}

#[test]
fn every_schedule_within_the_bound_holds() {
    let edits = number("CALBRIDGE_EXPLORE_EDITS").and_then(|edits| u32::try_from(edits).ok());
    let faults = number("CALBRIDGE_EXPLORE_FAULTS").and_then(|faults| u32::try_from(faults).ok());
    let bounds = match (edits, faults) {
        (Some(edits), Some(faults)) => vec![Bound { edits, faults }],
        _ => vec![Bound { edits: 2, faults: 0 }, Bound { edits: 1, faults: 1 }],
    };
    for bound in bounds {
        let started = std::time::Instant::now();
        let (states, violation) = Exploration::new(bound, None).run();
        if let Some(history) = violation {
            panic!("{history}");
        }
        let (Bound { edits, faults }, seconds) = (bound, started.elapsed().as_secs());
        report::tell(&format!(
            "Exhaustive: every schedule of one meeting, {edits} edits and {faults} faults: {states} states, \
             0 violations, {seconds} s"
        ));
    }
}
