//! The sandbox's clock: starts at any date and may run faster than the wall clock.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells sandbox time; copies of one clock agree for ever.
#[derive(Debug, Clone, Copy)]
pub struct SandboxClock {
    epoch: DateTime<Utc>,
    started: Instant,
    speed: f64,
}

impl SandboxClock {
    /// Starts a clock that reads `epoch` now and advances `speed` sandbox seconds a real second (range 0.001 to 10 000).
    pub fn new(epoch: DateTime<Utc>, speed: f64) -> Self {
        Self { epoch, started: Instant::now(), speed: speed.clamp(0.001, 10_000.0) }
    }

    /// Returns the sandbox's present time.
    pub fn now(&self) -> DateTime<Utc> {
        self.at(Instant::now())
    }

    /// Returns the sandbox time at a real instant.
    pub fn at(&self, instant: Instant) -> DateTime<Utc> {
        let elapsed = instant.saturating_duration_since(self.started).mul_f64(self.speed);
        self.epoch + TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX)
    }

    /// Returns how long a span of sandbox time lasts in reality.
    pub fn real(&self, sandbox: Duration) -> Duration {
        sandbox.div_f64(self.speed)
    }

    /// Waits for a span of sandbox time.
    pub async fn sleep(&self, sandbox: Duration) {
        tokio::time::sleep(self.real(sandbox)).await;
    }

    /// Returns the sandbox time at which the clock was started.
    pub fn epoch(&self) -> DateTime<Utc> {
        self.epoch
    }

    /// Returns sandbox seconds per real second.
    pub fn speed(&self) -> f64 {
        self.speed
    }
}
