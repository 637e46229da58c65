//! One truth behind all protocols.

use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::clock::SandboxClock;
use crate::faults::Faults;
use crate::history::History;
use crate::meters::Meters;
use crate::moments::Moments;
use crate::options::Profile;
use crate::tap::Tap;

/// What every stand-in shares.
#[derive(Debug)]
pub struct World {
    /// Sandbox time.
    pub clock: SandboxClock,
    /// How noisily the clouds notify.
    pub profile: Profile,
    /// Named switches.
    pub faults: Faults,
    /// All effective changes.
    pub history: History,
    /// Counters.
    pub meters: Meters,
    /// Moments at which requests may be stopped.
    pub moments: Moments,
    /// What passes between clients and Graph.
    pub tap: Tap,
    random: Mutex<StdRng>,
}

impl World {
    /// Makes an empty world.
    pub fn new(clock: SandboxClock, profile: Profile, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            clock,
            profile,
            faults: Faults::default(),
            history: History::default(),
            meters: Meters::default(),
            moments: Moments::default(),
            tap: Tap::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        })
    }

    /// Draws from the world's seeded randomness.
    pub fn draw<T>(&self, pick: impl FnOnce(&mut StdRng) -> T) -> T {
        pick(&mut self.random.lock().expect("no draw panics while holding the lock"))
    }
}
