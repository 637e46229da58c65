//! What every dedup cache must do.

use std::time::Duration;

use crate::ports::{Seen, SeenCache, SeenKey};

const LONG: Duration = Duration::from_mins(10);

/// Runs every case.
pub(super) async fn run(cache: &dyn SeenCache) {
    only_a_confirmed_key_drops_a_signal(cache).await;
    a_released_claim_is_new_again(cache).await;
    a_release_after_the_confirmation_changes_nothing(cache).await;
    order_is_kept_and_repetition_is_seen(cache).await;
    a_claim_ends_by_itself(cache).await;
    a_confirmation_ends_by_itself(cache).await;
    nothing_to_do_is_done(cache).await;
}

fn key(name: &str) -> SeenKey {
    SeenKey(format!("cb:d:epoch:main:outlook:{name}"))
}

async fn only_a_confirmed_key_drops_a_signal(cache: &dyn SeenCache) {
    let keys = [key("two-phases")];
    assert_eq!(cache.claim(&keys, LONG).await.unwrap(), [Seen::New]);
    assert_eq!(cache.claim(&keys, LONG).await.unwrap(), [Seen::Claimed]);
    cache.confirm(&keys, LONG).await.unwrap();
    assert_eq!(cache.claim(&keys, LONG).await.unwrap(), [Seen::Done]);
}

async fn a_released_claim_is_new_again(cache: &dyn SeenCache) {
    let keys = [key("released")];
    assert_eq!(cache.claim(&keys, LONG).await.unwrap(), [Seen::New]);
    cache.release(&keys).await.unwrap();
    assert_eq!(cache.claim(&keys, LONG).await.unwrap(), [Seen::New]);
}

async fn a_release_after_the_confirmation_changes_nothing(cache: &dyn SeenCache) {
    let keys = [key("late-release")];
    cache.confirm(&keys, LONG).await.unwrap();
    cache.release(&keys).await.unwrap();
    assert_eq!(cache.claim(&keys, LONG).await.unwrap(), [Seen::Done]);
}

async fn order_is_kept_and_repetition_is_seen(cache: &dyn SeenCache) {
    cache.confirm(&[key("order-b")], LONG).await.unwrap();
    let keys = [key("order-a"), key("order-b"), key("order-c"), key("order-a")];
    let seen = cache.claim(&keys, LONG).await.unwrap();
    assert_eq!(seen, [Seen::New, Seen::Done, Seen::New, Seen::Claimed]);
}

async fn a_claim_ends_by_itself(cache: &dyn SeenCache) {
    let keys = [key("short-claim")];
    assert_eq!(cache.claim(&keys, Duration::from_millis(5)).await.unwrap(), [Seen::New]);
    wait_until_new(cache, &keys).await;
}

async fn a_confirmation_ends_by_itself(cache: &dyn SeenCache) {
    let keys = [key("short-confirmation")];
    cache.confirm(&keys, Duration::from_millis(5)).await.unwrap();
    wait_until_new(cache, &keys).await;
}

async fn nothing_to_do_is_done(cache: &dyn SeenCache) {
    assert_eq!(cache.claim(&[], LONG).await.unwrap(), []);
    cache.confirm(&[], LONG).await.unwrap();
    cache.release(&[]).await.unwrap();
}

async fn wait_until_new(cache: &dyn SeenCache, keys: &[SeenKey]) {
    let forgotten = async {
        while cache.claim(keys, LONG).await.unwrap() != [Seen::New] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), forgotten).await.expect("the key is forgotten when its time is over");
}
