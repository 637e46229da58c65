//! The pure core against a made-up world on virtual time: random schedules, faults, then a calm drain.
//!
//! `CALBRIDGE_SCHEDULES=1000000 cargo test -p calbridge-core --test simulation` runs more; a failure prints its seed, and
//! `CALBRIDGE_SEED=N` runs just that one.

mod engine;
mod world;

use engine::Sim;

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob, not configuration")]
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_schedules_end_in_agreement_without_echo_loss_or_duplicate() {
    if let Some(seed) = number("CALBRIDGE_SEED") {
        let history = Sim::new(seed).run().unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        println!("{history}");
        return;
    }
    let schedules = number("CALBRIDGE_SCHEDULES").unwrap_or(20_000);
    for seed in 0..schedules {
        if let Err(failure) = Sim::new(seed).run() {
            panic!("seed {seed} of {schedules}: {failure}");
        }
    }
    println!("{schedules} schedules, 0 violations");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..200 {
        assert_eq!(Sim::new(seed).run().unwrap(), Sim::new(seed).run().unwrap());
    }
}
