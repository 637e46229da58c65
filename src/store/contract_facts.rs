//! Conformance cases of what change events said about records: kept once, given to every run, dropped when told to.

use calbridge_core::case::Fact;
use calbridge_core::ids::{ConnectionId, WriteToken};
use calbridge_core::link::{Link, LinkState};
use calbridge_core::plan::Alias;
use calbridge_core::reason::Reason;
use calbridge_core::signal::{Change, ChangeFact, SignalCause};
use calbridge_core::value::{Fields, Value};
use uuid::Uuid;

use super::contract::{
    CANARY, LEASE, accept, at, claim, claim_one, commit, finished, link, linked_meeting, main_connection, outlook,
    salesforce, signal,
};
use crate::ports::{Claim, Commit, DueSignal, Joined, Store};

const ROW: &str = "00U000000000001";

/// A change event that sets the subject of [`ROW`], received `ms` after the start.
pub(crate) fn change(transaction: &str, subject: &str, ms: i64) -> DueSignal {
    let mut due = signal(&salesforce(ROW), ms);
    due.signal.facts = Some(ChangeFact {
        transaction: transaction.to_owned(),
        committed: at(ms),
        changed: ["Subject".to_owned()].into(),
        values: Fields::from([("Subject".to_owned(), Value::text(subject))]),
        ..ChangeFact::default()
    });
    due
}

fn subjects(facts: &[Fact]) -> Vec<&str> {
    facts.iter().filter_map(|fact| fact.facts.values.get("Subject")?.as_text()).collect()
}

/// Runs the lane once; what it was given, and with which commit it ended.
async fn run(store: &dyn Store, ms: i64, end: impl FnOnce(&Claim) -> Commit) -> Vec<Fact> {
    let claim = claim_one(store, ms).await;
    let end = end(&claim);
    commit(store, &claim, end).await.unwrap();
    claim.facts
}

pub(crate) async fn facts_come_in_the_order_of_the_stream_and_again_until_they_are_dropped(store: &dyn Store) {
    linked_meeting(store, &link(1, Some(outlook("e1")), Some(salesforce(ROW)))).await;
    let ours = WriteToken::new(Uuid::from_u128(9));
    let mut own = change("t/3", "three", 3_000);
    own.signal.facts.as_mut().unwrap().token = Some(ours);
    accept(store, vec![change("t/1", "one", 2_000), change("t/2", "two", 2_500), own]).await;
    let first = run(store, 9_000, finished).await;
    assert_eq!(subjects(&first), ["one", "two", "three"]);
    assert_eq!((first[0].facts.committed, first[2].facts.token), (at(2_000), Some(ours)));
    assert!(first.iter().all(|fact| fact.record == salesforce(ROW) && !fact.deleted));

    // The row was cleared, the facts were not.
    let mut deleted = signal(&salesforce(ROW), 10_000);
    deleted.signal.change = Change::Deleted;
    deleted.signal.facts = Some(ChangeFact { transaction: "t/4".to_owned(), ..ChangeFact::default() });
    accept(store, vec![deleted]).await;
    let second = run(store, 20_000, |claim| Commit { facts_from: Some(at(2_500)), ..finished(claim) }).await;
    assert_eq!(subjects(&second), ["one", "two", "three"]);
    assert!(second[3].deleted);

    accept(store, vec![signal(&outlook("e1"), 21_000)]).await;
    let third = run(store, 30_000, |claim| Commit { facts_from: Some(at(30_000)), ..finished(claim) }).await;
    assert_eq!(subjects(&third), ["two", "three"], "what came before 2.5 s is dropped");
    accept(store, vec![signal(&outlook("e1"), 31_000)]).await;
    assert!(run(store, 40_000, finished).await.is_empty());
}

pub(crate) async fn a_change_event_delivered_again_adds_nothing(store: &dyn Store) {
    accept(store, vec![change("t/1", "one", 0), change("t/1", "one", 10)]).await;
    accept(store, vec![change("t/1", "one", 20), change("t/2", "two", 30)]).await;
    // Another record, another connection: events of the same transaction.
    let mut sibling = change("t/1", "sibling", 40);
    sibling.record = salesforce("00U000000000002");
    let mut stranger = change("t/1", "stranger", 40);
    stranger.signal.connection = ConnectionId::new("other");
    accept(store, vec![sibling, stranger]).await;
    let claims = claim(store, 9_000).await;
    let mut facts: Vec<Vec<&str>> = claims.iter().map(|claim| subjects(&claim.facts)).collect();
    facts.sort();
    assert_eq!(facts, [vec!["one", "two"], vec!["sibling"], vec!["stranger"]]);
}

pub(crate) async fn what_says_nothing_about_mapped_fields_is_not_kept(store: &dyn Store) {
    let mut touched = change("t/1", "-", 0);
    touched.signal.facts = Some(ChangeFact { transaction: "t/1".to_owned(), ..ChangeFact::default() });
    let mut gap = touched.clone();
    gap.signal.cause = SignalCause::Gap;
    accept(store, vec![touched, gap, signal(&salesforce(ROW), 10)]).await;
    assert!(claim_one(store, 9_000).await.facts.is_empty());
}

pub(crate) async fn a_change_during_a_run_is_given_to_the_next_one(store: &dyn Store) {
    accept(store, vec![change("t/1", "one", 0)]).await;
    let held = claim_one(store, 5_000).await;
    accept(store, vec![change("t/2", "two", 6_000)]).await;
    // A run that finds no meeting to link drops what it knew.
    commit(store, &held, Commit { facts_from: Some(at(5_000)), ..finished(&held) }).await.unwrap();
    assert_eq!(subjects(&run(store, 20_000, finished).await), ["two"]);
}

pub(crate) async fn facts_follow_their_record_into_the_lane_that_takes_it_in(store: &dyn Store) {
    let uid = [Alias::ICalUid("uid-9".to_owned(), String::new())];
    accept(store, vec![change("t/1", "one", 0)]).await;
    let ours = claim_one(store, 1_000).await;
    assert!(matches!(store.join(&ours, &uid, "worker", LEASE).await.unwrap(), Joined::Alone));
    commit(store, &ours, Commit { release: true, wake_at: Some(at(60_000)), ..Commit::default() }).await.unwrap();

    accept(store, vec![signal(&outlook("e1"), 2_000)]).await;
    let other = claim_one(store, 9_000).await;
    let Joined::Merged(merged) = store.join(&other, &uid, "worker", LEASE).await.unwrap() else {
        panic!("the other lane knows the name")
    };
    assert_eq!(subjects(&merged.facts), ["one"]);
    let end = Commit { facts_from: Some(at(9_000)), ..finished(&merged) };
    commit(store, &merged, end).await.unwrap();
    accept(store, vec![change("t/2", "two", 10_000)]).await;
    assert_eq!(subjects(&claim_one(store, 70_000).await.facts), ["two"], "dropped under the lane that took it in");
}

pub(crate) async fn a_meeting_that_is_over_keeps_its_facts_until_told_otherwise(store: &dyn Store) {
    let stored = linked_meeting(store, &link(1, Some(outlook("e1")), Some(salesforce(ROW)))).await;
    accept(store, vec![change("t/1", "one", 2_000)]).await;
    let buried = Link { state: LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: at(2_000) }, ..stored };
    run(store, 9_000, |claim| Commit { link: Some(buried.clone()), ..finished(claim) }).await;
    accept(store, vec![change("t/2", "two", 10_000)]).await;
    let last = run(store, 20_000, |claim| Commit { facts_from: Some(at(20_000)), ..finished(claim) }).await;
    assert_eq!(subjects(&last), ["one", "two"], "the audit of its deletion may need them");
    accept(store, vec![signal(&salesforce(ROW), 21_000)]).await;
    assert!(run(store, 30_000, finished).await.is_empty());
}

/// What a person wrote into a canary subject must be readable for the run and for nobody else; files are looked through by
/// the backend's own tests.
pub(crate) async fn values_come_back_as_they_were_told(store: &dyn Store) {
    let mut told = change("t/1", CANARY, 0);
    let facts = told.signal.facts.as_mut().unwrap();
    facts.values.insert("Location".to_owned(), Value::Null);
    facts.private = true;
    let told_facts = facts.clone();
    accept(store, vec![told]).await;
    let claim = claim_one(store, 9_000).await;
    assert_eq!(claim.facts[0].facts, told_facts);
    assert_eq!(claim.connection, main_connection());
}
