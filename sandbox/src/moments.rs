//! Moments in the life of a request, at which a test may stop it: has it come, has it had its effect?
//!
//! A test lays a [`Trap`] for the next request of a kind and waits until one is [`Caught`]. The request then stands still
//! while the test does what it wants to happen at just that moment, such as killing the client, until it is told to go on
//! or to vanish. Nothing is held where no trap lies. A request goes on when its client is gone, as it does in any server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::history::Cloud;

/// How long a caught request waits for its verdict before it goes on by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where in its life a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// It has come and has no effect yet.
    Arrived,
    /// It has had its effect, and its answer is not sent yet.
    Done,
}

/// Which request a trap is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prey {
    /// The cloud that it was sent to.
    pub cloud: Cloud,
    /// Whether it changes meetings; the others read them.
    pub writes: bool,
    /// Where in its life it is stopped.
    pub step: Step,
}

/// What becomes of a caught request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as if nothing had been.
    GoOn,
    /// It ends here, without an answer; without an effect too if it had none.
    Vanish,
}

#[derive(Debug)]
struct Laid {
    number: u64,
    prey: Prey,
    caught: oneshot::Sender<Caught>,
}

/// The traps that lie.
#[derive(Debug, Default)]
pub struct Moments {
    traps: Mutex<Vec<Laid>>,
    /// Their number, so that requests need no lock where there is none.
    lying: AtomicUsize,
}

/// A trap for one request; taken up again when dropped.
#[derive(Debug)]
pub struct Trap<'a> {
    moments: &'a Moments,
    number: u64,
    caught: oneshot::Receiver<Caught>,
}

/// A request that stands still; it goes on when this is dropped.
#[derive(Debug)]
pub struct Caught {
    /// Method, path and query, and body.
    pub request: String,
    verdict: oneshot::Sender<Verdict>,
}

impl Moments {
    /// Lays a trap for the next request of a kind.
    pub fn trap(&self, prey: Prey) -> Trap<'_> {
        let (catch, caught) = oneshot::channel();
        let mut traps = self.lock();
        let number = traps.last().map_or(0, |last| last.number + 1);
        traps.push(Laid { number, prey, caught: catch });
        self.lying.store(traps.len(), Ordering::Relaxed);
        drop(traps);
        Trap { moments: self, number, caught }
    }

    /// Lets a request pass, or holds it if a trap lies for it.
    pub(crate) async fn pass(&self, prey: Prey, request: impl FnOnce() -> String + Send) -> Verdict {
        let Some(trap) = self.spring(prey) else { return Verdict::GoOn };
        let (verdict, told) = oneshot::channel();
        if trap.caught.send(Caught { request: request(), verdict }).is_err() {
            return Verdict::GoOn;
        }
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(verdict)) => verdict,
            // Dropped without a word, or forgotten.
            Ok(Err(_)) | Err(_) => Verdict::GoOn,
        }
    }

    fn spring(&self, prey: Prey) -> Option<Laid> {
        if self.lying.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut traps = self.lock();
        let first = traps.iter().position(|trap| trap.prey == prey)?;
        let trap = traps.remove(first);
        self.lying.store(traps.len(), Ordering::Relaxed);
        Some(trap)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Laid>> {
        self.traps.lock().expect("no change panics while holding the lock")
    }
}

impl Trap<'_> {
    /// Waits until a request is caught, at most for so long.
    pub async fn caught(&mut self, longest: Duration) -> Option<Caught> {
        tokio::time::timeout(longest, &mut self.caught).await.ok()?.ok()
    }
}

impl Drop for Trap<'_> {
    fn drop(&mut self) {
        let mut traps = self.moments.lock();
        traps.retain(|trap| trap.number != self.number);
        self.moments.lying.store(traps.len(), Ordering::Relaxed);
    }
}

impl Caught {
    /// Says what becomes of the request.
    pub fn judge(self, verdict: Verdict) {
        // A request that was forgotten went on long ago.
        let _gone = self.verdict.send(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREY: Prey = Prey { cloud: Cloud::Outlook, writes: true, step: Step::Arrived };

    #[tokio::test]
    async fn only_a_request_of_the_kind_is_held_and_only_one() {
        let moments = Moments::default();
        let mut trap = moments.trap(PREY);
        assert_eq!(moments.pass(Prey { writes: false, ..PREY }, String::new).await, Verdict::GoOn);
        let (held, ()) = tokio::join!(moments.pass(PREY, || "PATCH /x".to_owned()), async {
            let caught = trap.caught(Duration::from_secs(5)).await.unwrap();
            assert_eq!(caught.request, "PATCH /x");
            assert_eq!(moments.pass(PREY, String::new).await, Verdict::GoOn);
            caught.judge(Verdict::Vanish);
        });
        assert_eq!(held, Verdict::Vanish);
    }

    #[tokio::test]
    async fn a_trap_that_is_taken_up_and_a_caught_one_that_is_forgotten_hold_nobody() {
        let moments = Moments::default();
        drop(moments.trap(PREY));
        assert_eq!(moments.pass(PREY, String::new).await, Verdict::GoOn);
        let mut trap = moments.trap(PREY);
        let (held, ()) = tokio::join!(moments.pass(PREY, String::new), async {
            drop(trap.caught(Duration::from_secs(5)).await);
        });
        assert_eq!(held, Verdict::GoOn);
    }
}
