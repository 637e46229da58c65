//! The clock behind [`Clock`]: the wall clock, or one moved and sped up for rehearsals.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;

use crate::ports::Clock;

/// Reads the wall clock, or a rehearsal's clock that starts at any date and may run faster.
#[derive(Debug, Clone, Copy)]
pub struct EngineClock {
    epoch: DateTime<Utc>,
    started: Instant,
    speed: f64,
}

impl EngineClock {
    /// Makes the wall clock.
    #[expect(clippy::disallowed_methods, reason = "the one place where the engine reads the wall clock")]
    pub fn wall() -> Self {
        Self::rehearsal(Utc::now(), 1.0)
    }

    /// Makes a clock that reads `epoch` now and advances `speed` seconds a real second.
    pub fn rehearsal(epoch: DateTime<Utc>, speed: f64) -> Self {
        Self { epoch, started: Instant::now(), speed }
    }
}

impl Clock for EngineClock {
    fn now(&self) -> DateTime<Utc> {
        let elapsed = self.started.elapsed().mul_f64(self.speed);
        self.epoch + TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX)
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, at: DateTime<Utc>) -> BoxFuture<'static, ()> {
        let wait = (at - self.now()).to_std().unwrap_or(Duration::ZERO).div_f64(self.speed);
        Box::pin(tokio::time::sleep(wait))
    }
}
