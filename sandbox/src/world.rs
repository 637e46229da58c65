//! One truth behind all protocols.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

use crate::clock::SandboxClock;
use crate::faults::hostile::LAG;
use crate::faults::{Faults, Strike};
use crate::history::History;
use crate::late::Late;
use crate::mails::Mails;
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
    /// Mails that Exchange would have sent, one by one.
    pub mails: Mails,
    /// Writes that were not answered and take effect later.
    pub late: Late,
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
            mails: Mails::default(),
            late: Late::default(),
            moments: Moments::default(),
            tap: Tap::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        })
    }

    /// Draws from the world's seeded randomness.
    pub fn draw<T>(&self, pick: impl FnOnce(&mut StdRng) -> T) -> T {
        pick(&mut self.random.lock().expect("no draw panics while holding the lock"))
    }

    /// Tells whether a fault strikes now: because it was switched on by name, or at random in the profile `hostile`.
    pub(crate) fn strikes(&self, strike: Strike) -> bool {
        let often = strike.per_mille();
        let at_random = || {
            self.profile == Profile::Hostile
                && often > 0
                && self.faults.read().hostile
                && self.draw(|random| random.random_ratio(often, 1_000))
        };
        let strikes = self.faults.take(strike) || at_random();
        if strikes {
            self.meters.struck(strike.name());
        }
        strikes
    }

    /// Returns the time after which a change may still be missing in a stale read; none: any change may.
    ///
    /// The profile `hostile` lags by a bounded time, as replicas do; a switched stale read shows any record's former state.
    pub(crate) fn lag(&self) -> Option<DateTime<Utc>> {
        (self.profile == Profile::Hostile).then(|| self.clock.now() - LAG)
    }

    /// Tells whether clouds notify as noisily as offices see it.
    pub(crate) fn is_noisy(&self) -> bool {
        self.profile != Profile::Quiet
    }
}
