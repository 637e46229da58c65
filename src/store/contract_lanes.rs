//! Conformance cases of claims, leases and joins.

use std::time::Duration;

use calbridge_core::ids::{LinkId, MailboxId, RecordId};
use calbridge_core::link::Link;
use calbridge_core::plan::{Alias, Outcome};
use uuid::Uuid;

use super::contract::{
    LEASE, NO_LEASE, accept, at, claim, claim_one, cleared, commit, decided, finished, link, linked_meeting, outlook,
    salesforce, signal,
};
use crate::ports::{Claim, Commit, Joined, Store, StoreError, TraceQuery};

fn meeting(uid: &str) -> Alias {
    Alias::ICalUid(uid.to_owned(), String::new())
}

async fn join(store: &dyn Store, claim: &Claim, aliases: &[Alias]) -> Result<Joined, StoreError> {
    store.join(claim, aliases, "worker", LEASE).await
}

fn records(claim: &Claim) -> Vec<&RecordId> {
    claim.notices.iter().map(|row| &row.notice.record).collect()
}

// --- Claims

pub(crate) async fn a_held_lane_is_not_given_to_a_second_worker(store: &dyn Store) {
    accept(store, vec![signal(&outlook("e1"), 0)]).await;
    let first = claim_one(store, 5_000).await;
    assert!(claim(store, 5_000).await.is_empty());
    assert_eq!(store.next_due().await.unwrap(), None, "a held lane wakes nobody");
    commit(store, &first, Commit { release: true, ..Commit::default() }).await.unwrap();
    let second = claim_one(store, 5_000).await;
    assert!(second.fence.number > first.fence.number);
    let late = commit(store, &first, finished(&first)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
}

pub(crate) async fn a_dead_workers_lane_is_taken_over_even_without_a_signal(store: &dyn Store) {
    accept(store, vec![signal(&outlook("e1"), 0)]).await;
    let dead = store.claim("dead", at(5_000), NO_LEASE, 10).await.unwrap().remove(0);
    // It got as far as clearing its row and recording an intent.
    let halfway = Commit { cleared: cleared(&dead), ..Commit::default() };
    commit(store, &dead, halfway).await.unwrap();
    assert!(store.next_due().await.unwrap().is_some());
    let heir = claim_one(store, 5_000).await;
    assert_eq!(heir.fence.lane, dead.fence.lane);
    assert!(heir.notices.is_empty());
    let late = commit(store, &dead, finished(&dead)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    assert_eq!(store.renew(&[dead.fence, heir.fence], LEASE).await.unwrap(), [dead.fence]);
    commit(store, &heir, finished(&heir)).await.unwrap();
    assert!(claim(store, 1_000_000).await.is_empty());
    assert_eq!(store.renew(&[heir.fence], LEASE).await.unwrap(), [heir.fence], "given back is lost");
}

pub(crate) async fn the_longest_waiting_lanes_come_first_and_no_more_than_asked(store: &dyn Store) {
    accept(store, vec![signal(&outlook("late"), 900), signal(&outlook("early"), 0), signal(&outlook("mid"), 400)])
        .await;
    let claims = store.claim("worker", at(10_000), LEASE, 2).await.unwrap();
    let order: Vec<_> = claims.iter().map(|claim| claim.notices[0].notice.record.remote_id()).collect();
    assert_eq!(order, ["early", "mid"]);
}

pub(crate) async fn a_lane_that_waits_runs_at_its_time_or_at_the_next_signal(store: &dyn Store) {
    let record = outlook("e1");
    accept(store, vec![signal(&record, 0)]).await;
    let first = claim_one(store, 5_000).await;
    let wait = |until| Commit { wake_at: Some(at(until)), tries: 3, release: true, ..Commit::default() };
    commit(store, &first, wait(60_000)).await.unwrap();
    assert!(claim(store, 59_999).await.is_empty(), "its uncovered row waits with it");
    assert_eq!(store.next_due().await.unwrap(), Some(at(60_000)));
    let woken = claim_one(store, 60_000).await;
    assert_eq!((woken.tries, woken.notices.len()), (3, 1));
    commit(store, &woken, wait(120_000)).await.unwrap();
    accept(store, vec![signal(&record, 61_000)]).await;
    assert!(claim(store, 61_749).await.is_empty());
    let signalled = claim_one(store, 61_750).await;
    assert_eq!(signalled.notices[0].signals, 2, "nothing of the first signal was covered yet");
    commit(store, &signalled, finished(&signalled)).await.unwrap();
    assert!(claim(store, 1_000_000).await.is_empty(), "a finished run takes the wake-up with it");
}

/// The engine's clock may be set, or may be another engine's: neither ends a lease early nor makes one last.
pub(crate) async fn a_lease_does_not_care_what_the_engines_clock_says(store: &dyn Store) {
    const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1_000;
    accept(store, vec![signal(&outlook("e1"), 0), signal(&outlook("e2"), 0)]).await;
    let held = store.claim("ahead", at(YEAR_MS), LEASE, 1).await.unwrap();
    let over = store.claim("behind", at(5_000), NO_LEASE, 1).await.unwrap();
    assert_eq!((held.len(), over.len()), (1, 1));
    for jump in [5_000, YEAR_MS, 20 * YEAR_MS] {
        let free = store.claim("other", at(jump), NO_LEASE, 10).await.unwrap();
        assert_eq!(free.len(), 1, "only the lease that is over by the database's clock is free at {jump}");
        assert_eq!(free[0].fence.lane, over[0].fence.lane);
    }
    assert!(store.renew(&[held[0].fence], LEASE).await.unwrap().is_empty());
}

/// In real time: the worker that died has a lease of a moment, the one that lives renews its own.
pub(crate) async fn a_lease_that_ends_gives_the_lane_to_the_next_worker(store: &dyn Store) {
    accept(store, vec![signal(&outlook("dead"), 0), signal(&outlook("alive"), 100)]).await;
    let dead = store.claim("dead", at(5_000), Duration::from_millis(300), 1).await.unwrap().remove(0);
    let alive = store.claim("alive", at(5_000), Duration::from_mins(1), 1).await.unwrap().remove(0);
    let heir = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            if let Some(heir) = claim(store, 5_000).await.pop() {
                return heir;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let heir = heir.await.expect("the lease ends");
    assert_eq!(heir.fence.lane, dead.fence.lane);
    assert_eq!(store.renew(&[dead.fence, alive.fence], LEASE).await.unwrap(), [dead.fence]);
    let late = commit(store, &dead, finished(&dead)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    commit(store, &alive, finished(&alive)).await.unwrap();
    commit(store, &heir, finished(&heir)).await.unwrap();
}

// --- Joins

pub(crate) async fn two_new_records_of_one_meeting_become_one_lane(store: &dyn Store) {
    let (a, b) = (outlook("copy-a"), outlook("copy-b"));
    accept(store, vec![signal(&a, 0), signal(&b, 1)]).await;
    let mut claims = claim(store, 5_000).await;
    let (second, first) = (claims.pop().unwrap(), claims.pop().unwrap());
    assert!(matches!(join(store, &first, &[meeting("u1")]).await.unwrap(), Joined::Alone));
    let busy = join(store, &second, &[meeting("u1")]).await.unwrap();
    assert!(matches!(busy, Joined::Busy), "{busy:?}");
    let give_back = Commit { wake_at: Some(at(6_000)), release: true, ..Commit::default() };
    commit(store, &second, give_back).await.unwrap();
    let Joined::Merged(both) = join(store, &first, &[meeting("u1"), Alias::Record(b.clone())]).await.unwrap() else {
        panic!("the other lane is free now")
    };
    assert_eq!(both.fence.lane, first.fence.lane);
    assert_eq!(records(&both), [&a, &b]);
    let late = commit(store, &first, finished(&first)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "the claim from before the join is void: {late:?}");
    commit(store, &both, finished(&both)).await.unwrap();
    accept(store, vec![signal(&b, 20_000), signal(&a, 20_000)]).await;
    assert_eq!(records(&claim_one(store, 30_000).await), [&a, &b]);
}

pub(crate) async fn an_unlinked_record_joins_the_lane_of_its_link(store: &dyn Store) {
    let linked = linked_meeting(store, &link(1, Some(outlook("e1")), None)).await;
    let copy = RecordId::Outlook { mailbox: MailboxId::new("mbx-2"), event: "copy".to_owned() };
    accept(store, vec![signal(&copy, 10_000)]).await;
    let stray = claim_one(store, 20_000).await;
    let Joined::Merged(claim) = join(store, &stray, &[meeting("uid-1")]).await.unwrap() else {
        panic!("the lane of the link is free")
    };
    assert_ne!(claim.fence.lane, stray.fence.lane, "the lane with the link goes on");
    assert_eq!(claim.link.as_ref().map(|link| link.id), Some(linked.id));
    assert_eq!(records(&claim), [&copy]);
    commit(store, &claim, finished(&claim)).await.unwrap();
    assert!(matches!(commit(store, &stray, finished(&stray)).await, Err(StoreError::Fenced)));
}

pub(crate) async fn two_links_that_share_a_name_stay_apart(store: &dyn Store) {
    linked_meeting(store, &link(1, Some(outlook("e1")), None)).await;
    let record = outlook("e2");
    accept(store, vec![signal(&record, 2_000)]).await;
    let new = claim_one(store, 9_000).await;
    let run = Commit { link: Some(link(2, Some(record.clone()), None)), ..finished(&new) };
    commit(store, &new, run).await.unwrap();
    accept(store, vec![signal(&record, 10_000)]).await;
    let claim = claim_one(store, 20_000).await;
    assert!(matches!(join(store, &claim, &[meeting("uid-1")]).await.unwrap(), Joined::Alone));
    let still_ours = commit(store, &claim, finished(&claim)).await;
    assert!(still_ours.is_ok(), "{still_ours:?}");
}

pub(crate) async fn the_echo_of_a_creation_ends_in_the_lane_that_created(store: &dyn Store) {
    let created = salesforce("00U000000000009");
    accept(store, vec![signal(&outlook("e1"), 0)]).await;
    let creating = claim_one(store, 5_000).await;
    // The echo comes before the commit that knows the new record.
    accept(store, vec![signal(&created, 5_100)]).await;
    let run = Commit { link: Some(link(1, Some(outlook("e1")), Some(created.clone()))), ..finished(&creating) };
    commit(store, &creating, run).await.unwrap();
    let echo = claim_one(store, 9_000).await;
    assert_eq!(echo.fence.lane, creating.fence.lane);
    assert_eq!(records(&echo), [&created]);
    assert!(echo.link.is_some());
}

pub(crate) async fn a_stamp_found_in_a_record_leads_to_its_link(store: &dyn Store) {
    let linked: Link = linked_meeting(store, &link(1, Some(outlook("e1")), None)).await;
    accept(store, vec![signal(&salesforce("00U000000000003"), 10_000)]).await;
    let found = claim_one(store, 20_000).await;
    let unknown = LinkId::new(Uuid::from_u128(404));
    assert!(matches!(join(store, &found, &[Alias::Stamp(unknown)]).await.unwrap(), Joined::Alone));
    let joined = join(store, &found, &[Alias::Stamp(linked.id)]).await.unwrap();
    let Joined::Merged(claim) = joined else { panic!("the stamp names a link: {joined:?}") };
    assert_eq!(claim.link.map(|link| link.id), Some(linked.id));
}

pub(crate) async fn history_from_before_a_join_is_part_of_the_story(store: &dyn Store) {
    let stray = outlook("stray");
    accept(store, vec![signal(&stray, 0)]).await;
    let before = claim_one(store, 5_000).await;
    let run = Commit { journal: vec![decided(None, Outcome::Skip)], ..finished(&before) };
    commit(store, &before, run).await.unwrap();
    linked_meeting(store, &link(1, Some(outlook("e1")), None)).await;
    accept(store, vec![signal(&stray, 10_000)]).await;
    let claim = claim_one(store, 20_000).await;
    let Joined::Merged(joined) = join(store, &claim, &[meeting("uid-1")]).await.unwrap() else {
        panic!("the link's lane is free")
    };
    let found = store.trace(&TraceQuery::Text("stray".to_owned()), 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].lane, joined.fence.lane);
    assert_eq!(found[0].journal.len(), 2, "both lanes' history");
}
