//! Writes that a client gave up: the connection was cut, and they take effect some time later all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::Rng as _;

use crate::world::World;

/// Counts the writes that are still to take effect.
#[derive(Debug, Default)]
pub struct Late {
    waiting: AtomicUsize,
}

impl Late {
    /// Returns how many writes are still to take effect.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

/// Lets a write take effect at some time within `late_apply_secs` of sandbox time, whatever becomes of its client.
pub(crate) fn apply_late(world: &Arc<World>, write: impl Future<Output = ()> + Send + 'static) {
    let longest = world.faults.read().late_apply_secs.max(1);
    let after = Duration::from_millis(world.draw(|random| random.random_range(500..=u64::from(longest) * 1_000)));
    world.late.waiting.fetch_add(1, Ordering::SeqCst);
    let world = Arc::clone(world);
    tokio::spawn(async move {
        world.clock.sleep(after).await;
        write.await;
        world.late.waiting.fetch_sub(1, Ordering::SeqCst);
    });
}
