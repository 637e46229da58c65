//! All faults at once: the profile `hostile`, until it is calmed.

use calbridge_sandbox::{Act, Options, Profile};
use chrono::TimeDelta;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::befall;
use crate::support::people::People;
use crate::support::{Rehearsal, environment};

/// Edits that people make while faults strike.
const EDITS: u32 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_office_ends_in_agreement_once_it_is_calm() {
    let seed: u64 = environment("CALBRIDGE_TEST_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("CALBRIDGE_TEST_SEED={seed}");
    let options = Options { profile: Profile::Hostile, seed, speed: 10.0, ..Options::default() };
    let rehearsal = Rehearsal::start(options, "sync:\n  retry_max_secs: 30\n").await;
    let mut people = People::new(StdRng::seed_from_u64(seed));
    people.settle_in(&rehearsal);
    while people.made() < EDITS {
        people.edit(&rehearsal);
        let pause = people.choices.random_range(0..4_000);
        rehearsal.pass(TimeDelta::milliseconds(pause)).await;
    }
    let struck = rehearsal.sandbox.world().meters.read().faults;
    eprintln!("{} edits under {struck:#?}", people.made());
    assert!(struck.len() >= 10 && struck.values().sum::<u64>() >= 30, "faults of many kinds struck: {struck:#?}");
    befall(&rehearsal, &Act::Calm);
    rehearsal
        .until("both sides are the same", |r| {
            let report = r.sandbox.oracle();
            let alone = report.unlinked_outlook + report.unlinked_salesforce;
            r.sandbox.world().late.waiting() == 0 && report.is_clean() && !report.is_pending() && alone == 0
        })
        .await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    rehearsal.assert_clean();
    rehearsal.end().await;
}
