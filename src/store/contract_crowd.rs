//! Conformance cases of many workers at the same time, as two instances on one database have them.
//!
//! Each case is given two stores on one empty database; where a database serves one instance, both are the same store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use calbridge_core::ids::RecordId;
use calbridge_core::plan::{Alias, Outcome};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use futures::future::join_all;

use super::contract::{
    LEASE, NO_LEASE, accept, at, claim, commit, dead_letters, decided, finished, link, main_connection, outlook,
    position, salesforce, signal,
};
use crate::ports::{Claim, Commit, IntakeBatch, Joined, Reject, Store, StoreError};

type Stores = [Arc<dyn Store>; 2];

/// Workers in each case: half of them on each store.
const WORKERS: usize = 8;

/// Runs so many workers at the same time, each with its number and its store.
async fn crowd<R: Future<Output = ()> + Send + 'static>(stores: &Stores, work: impl Fn(usize, Arc<dyn Store>) -> R) {
    let workers = (0..WORKERS).map(|number| tokio::spawn(work(number, Arc::clone(&stores[number % 2]))));
    for ended in join_all(workers).await {
        ended.expect("no worker panics");
    }
}

/// Claims everything that is due and checks that each record is waiting in one lane only.
async fn everything(store: &dyn Store) -> Vec<Claim> {
    let claims = store.claim("at the end", at(1_000_000), LEASE, 10_000).await.unwrap();
    let records: Vec<&RecordId> =
        claims.iter().flat_map(|claim| &claim.notices).map(|row| &row.notice.record).collect();
    let distinct: BTreeSet<&RecordId> = records.iter().copied().collect();
    assert_eq!(records.len(), distinct.len(), "no record waits twice");
    claims
}

fn ms(number: usize) -> i64 {
    i64::try_from(number).unwrap()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

fn signals_in(claims: &[Claim]) -> usize {
    claims.iter().flat_map(|claim| &claim.notices).map(|row| usize::try_from(row.signals).unwrap()).sum()
}

pub(crate) async fn workers_that_claim_at_once_share_no_lane(stores: Stores) {
    let records: Vec<_> = (0..60).map(|n| outlook(&format!("e{n}"))).collect();
    accept(&*stores[0], records.iter().map(|record| signal(record, 0)).collect()).await;
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = Arc::clone(&held);
    crowd(&stores, move |_, store| {
        let held = Arc::clone(&held);
        async move {
            loop {
                let claims = store.claim("worker", at(5_000), LEASE, 3).await.unwrap();
                if claims.is_empty() {
                    return;
                }
                for claim in claims {
                    let run = Commit { journal: vec![decided(None, Outcome::Skip)], ..finished(&claim) };
                    commit(&*store, &claim, run).await.unwrap();
                    held.lock().unwrap().push(claim.fence.lane);
                }
            }
        }
    })
    .await;
    // A worker may have found nothing because others were taking the last lanes just then: none may be left for ever.
    let left = everything(&*stores[1]).await;
    let mut held: Vec<_> = all.lock().unwrap().clone();
    held.extend(left.iter().map(|claim| claim.fence.lane));
    let runs = held.len();
    held.sort();
    held.dedup();
    assert_eq!((held.len(), runs), (60, 60));
    assert_eq!(stores[0].status().await.unwrap().journal + count(left.len()), 60);
}

pub(crate) async fn signals_taken_in_at_once_are_all_counted(stores: Stores) {
    const RECORDS: usize = 30;
    const BATCHES: usize = 12;
    crowd(&stores, |worker, store| async move {
        for batch in 0..BATCHES {
            // Each worker in another order, so that they meet everywhere.
            let order = (0..RECORDS).map(|n| (n * 7 + worker * 11 + batch * 13) % RECORDS);
            accept(&*store, order.map(|n| signal(&outlook(&format!("e{n}")), ms(batch))).collect()).await;
        }
    })
    .await;
    let claims = everything(&*stores[0]).await;
    assert_eq!(claims.len(), RECORDS, "one lane a record");
    for row in claims.iter().flat_map(|claim| &claim.notices) {
        assert_eq!((i64::from(row.signals), row.generation), (ms(WORKERS * BATCHES), ms(WORKERS * BATCHES)));
        assert_eq!(row.notice.versions.len(), BATCHES);
    }
}

pub(crate) async fn signals_during_runs_are_neither_lost_nor_counted_twice(stores: Stores) {
    const RECORDS: usize = 20;
    const ROUNDS: usize = 15;
    let covered = Arc::new(AtomicUsize::new(0));
    let sum = Arc::clone(&covered);
    crowd(&stores, move |worker, store| {
        let covered = Arc::clone(&covered);
        async move {
            for round in 0..ROUNDS {
                if worker < WORKERS / 2 {
                    let order = (0..RECORDS).map(|n| (n * 7 + worker + round) % RECORDS);
                    accept(&*store, order.map(|n| signal(&outlook(&format!("e{n}")), ms(round))).collect()).await;
                    continue;
                }
                let claims = store.claim("worker", at(100_000), LEASE, RECORDS / 4).await.unwrap();
                let commits = claims.iter().map(|claim| (claim.fence, finished(claim))).collect();
                for result in store.commit(commits, at(100_000)).await {
                    result.unwrap();
                }
                covered.fetch_add(signals_in(&claims), Ordering::Relaxed);
            }
        }
    })
    .await;
    let left = signals_in(&everything(&*stores[1]).await);
    assert_eq!(sum.load(Ordering::Relaxed) + left, RECORDS * ROUNDS * WORKERS / 2);
}

/// Two copies of each meeting become known at once; every run learns the meeting's name only by reading.
pub(crate) async fn records_of_one_meeting_end_in_one_lane_whoever_joins_first(stores: Stores) {
    const MEETINGS: usize = 24;
    let copies = |n: usize| [outlook(&format!("a{n}")), outlook(&format!("b{n}"))];
    let all = move || (0..MEETINGS).flat_map(copies).map(|record| signal(&record, 0)).collect::<Vec<_>>();
    accept(&*stores[0], all()).await;
    crowd(&stores, |_, store| async move {
        let mut idle = 0;
        while idle < 3 {
            let claims = store.claim("worker", at(5_000), LEASE, 4).await.unwrap();
            idle = if claims.is_empty() { idle + 1 } else { 0 };
            for claim in claims {
                let meeting = claim.notices[0].notice.record.remote_id().trim_start_matches(['a', 'b']);
                let name = Alias::ICalUid(format!("uid-{meeting}"), String::new());
                match store.join(&claim, &[name], "worker", LEASE).await.unwrap() {
                    Joined::Alone => commit(&*store, &claim, finished(&claim)).await.unwrap(),
                    Joined::Merged(claim) => commit(&*store, &claim, finished(&claim)).await.unwrap(),
                    Joined::Busy => {
                        let again = Commit { wake_at: Some(at(5_000)), release: true, ..Commit::default() };
                        commit(&*store, &claim, again).await.unwrap();
                        idle = 0;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(everything(&*stores[0]).await.is_empty(), "all runs came to their end");
    accept(&*stores[1], all()).await;
    let claims = everything(&*stores[1]).await;
    assert_eq!(claims.len(), MEETINGS);
    assert!(claims.iter().all(|claim| claim.notices.len() == 2));
}

/// The creating run commits while its echo is taken in: whichever is first, the echo's record leads to the link.
pub(crate) async fn the_echo_of_a_creation_ends_in_its_lane_whichever_is_first(stores: Stores) {
    const EACH: usize = 15;
    let original = |n: usize| outlook(&format!("e{n}"));
    let created = |n: usize| salesforce(&format!("00U{n:012}"));
    let total = EACH * WORKERS / 2;
    accept(&*stores[0], (0..total).map(|n| signal(&original(n), 0)).collect()).await;
    let mut claims: BTreeMap<RecordId, Claim> = claim(&*stores[0], 5_000)
        .await
        .into_iter()
        .map(|claim| (claim.notices[0].notice.record.clone(), claim))
        .collect();
    let claims: Arc<Vec<Claim>> = Arc::new((0..total).map(|n| claims.remove(&original(n)).unwrap()).collect());
    crowd(&stores, move |worker, store| {
        let claims = Arc::clone(&claims);
        async move {
            let mine: Vec<usize> = (worker / 2 * EACH..(worker / 2 + 1) * EACH).collect();
            if worker % 2 == 0 {
                let run = |n: usize| {
                    let link = link(u128::try_from(n).unwrap() + 1, Some(original(n)), Some(created(n)));
                    (claims[n].fence, Commit { link: Some(link), ..finished(&claims[n]) })
                };
                for some in mine.chunks(5) {
                    for result in store.commit(some.iter().copied().map(run).collect(), at(6_000)).await {
                        result.unwrap();
                    }
                }
            } else {
                for some in mine.rchunks(4) {
                    accept(&*store, some.iter().map(|n| signal(&created(*n), 5_100)).collect()).await;
                }
            }
        }
    })
    .await;
    let echoes = everything(&*stores[0]).await;
    assert_eq!(echoes.len(), total);
    for claim in echoes {
        let link = claim.link.as_ref().expect("the echo leads to the link");
        assert_eq!(&claim.notices[0].notice.record, &link.replicas.salesforce.as_ref().unwrap().record);
    }
}

pub(crate) async fn rejects_of_two_listeners_are_counted_once_each(stores: Stores) {
    const BATCHES: usize = 10;
    crowd(&stores, |worker, store| async move {
        for number in 0..BATCHES {
            let reject = |text: &str, reason| Reject {
                connection: main_connection(),
                side: Side::Outlook,
                reason,
                detail: "garbage",
                raw: text.as_bytes().to_vec(),
                size: text.len(),
                items: 1,
                position: Some(position(&format!("hub/{worker}"), ms(number))),
            };
            let batch = IntakeBatch {
                rejects: vec![
                    reject("the same from everybody", Reason::Undecodable),
                    reject(&format!("{worker}, {number}"), Reason::Undecodable),
                ],
                positions: vec![(main_connection(), position(&format!("hub/{worker}"), ms(number)))],
                duplicates: [(position("hub/shared", 0).stream, 1)].into(),
                ..IntakeBatch::default()
            };
            store.accept(&batch, at(ms(number))).await.unwrap();
        }
    })
    .await;
    let status = stores[0].status().await.unwrap();
    assert_eq!(status.rejects.iter().map(|cause| cause.count).sum::<u64>(), count(2 * WORKERS * BATCHES));
    assert_eq!(status.duplicates.get("hub/shared"), Some(&count(WORKERS * BATCHES)));
    let letters = dead_letters(&*stores[1], 100).await;
    assert_eq!(letters.len(), 20, "the newest different ones are kept");
    let most = letters.iter().filter_map(|letter| letter.message.as_ref()).map(|message| message.times).max();
    assert!(most <= Some(count(WORKERS * BATCHES)));
}

pub(crate) async fn a_second_instance_takes_over_and_the_first_is_fenced(stores: Stores) {
    let [first, second] = stores;
    accept(&*first, vec![signal(&outlook("e1"), 0)]).await;
    let lost = first.claim("first", at(5_000), NO_LEASE, 10).await.unwrap().remove(0);
    let taken = second.claim("second", at(5_000), LEASE, 10).await.unwrap().remove(0);
    assert_eq!(lost.fence.lane, taken.fence.lane);
    assert!(taken.fence.number > lost.fence.number);
    let run = |claim: &Claim, number: u128| Commit {
        link: Some(link(number, Some(outlook("e1")), None)),
        journal: vec![decided(None, Outcome::InStep)],
        ..finished(claim)
    };
    let late = commit(&*first, &lost, run(&lost, 1)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    let late = first.join(&lost, &[Alias::Record(outlook("e2"))], "first", LEASE).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    commit(&*second, &taken, run(&taken, 2)).await.unwrap();
    let status = first.status().await.unwrap();
    assert_eq!((status.links.get("live"), status.journal), (Some(&1), 1));
}
