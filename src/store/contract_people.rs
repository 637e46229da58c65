//! What every store must do about holds, instructions and what is limited.

use std::time::Duration;

use calbridge_core::case::{Census, Instruction};
use calbridge_core::ids::{LinkId, MailboxId};
use calbridge_core::link::{Care, Link, LinkState, Pending, Wish};
use calbridge_core::plan::{Budget, Outcome, Spend};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use chrono::TimeDelta;
use uuid::Uuid;

use super::contract::{
    LEASE, accept, at, claim, claim_one, commit, decided, finished, link, main_connection, outlook, salesforce, signal,
};
use crate::ports::{CensusQuestion, Claim, Commit, DeadLetter, Store, StoreError};

const ADA: &str = "005000000000001AAA";

/// Stores a link whose Salesforce deletion by Ada waits, and returns its claim.
async fn waiting_deletion(store: &dyn Store, number: u128) -> (Claim, Link) {
    let record = outlook(&format!("e{number}"));
    accept(store, vec![signal(&record, 0)]).await;
    let claim = claim(store, 5_000)
        .await
        .into_iter()
        .find(|claim| claim.notices.iter().any(|row| row.notice.record == record))
        .unwrap();
    let pending = Pending {
        wish: Wish::Delete,
        side: Side::Outlook,
        since: at(0),
        changed_at: at(0),
        version: None,
        author: Some(ADA.to_owned()),
    };
    let row = salesforce(&format!("00U{number:012}"));
    let link =
        Link { care: Care { pending: Some(pending), ..Care::default() }, ..link(number, Some(record), Some(row)) };
    let run = Commit { link: Some(link.clone()), release: false, ..finished(&claim) };
    commit(store, &claim, run).await.unwrap();
    (claim, Link { revision: 1, ..link })
}

fn question(link: u128) -> CensusQuestion {
    CensusQuestion {
        link: LinkId::new(Uuid::from_u128(link)),
        mailbox: Some(MailboxId::new("mbx-1")),
        author: Some(ADA.to_owned()),
    }
}

async fn census(store: &dyn Store, link: u128, ms: i64) -> Census {
    store.census(&main_connection(), &[question(link)], at(ms)).await.unwrap().remove(0)
}

fn spend(limit: u32) -> Vec<Spend> {
    let budgets = [Budget::DeletesInMailbox(MailboxId::new("mbx-1")), Budget::DeletesByAuthor(ADA.to_owned())];
    let since = at(1_000) - TimeDelta::hours(1);
    budgets.into_iter().map(|budget| Spend { budget, limit, since }).collect()
}

pub(crate) async fn a_census_counts_what_others_want_and_what_they_used_up(store: &dyn Store) {
    let (first, link) = waiting_deletion(store, 1).await;
    waiting_deletion(store, 2).await;
    waiting_deletion(store, 3).await;
    let wanted = census(store, 1, 1_000).await;
    assert_eq!((wanted.links_in_mailbox, wanted.deletes_in_mailbox, wanted.deletes_by_author), (3, 2, 2));
    assert_eq!(census(store, 99, 1_000).await.deletes_in_mailbox, 3);

    // The first one leaves: no longer wanted, but used up for an hour.
    let done = Link { care: Care::default(), ..link };
    let run = Commit { link: Some(done.clone()), spends: spend(10), ..Commit::default() };
    commit(store, &first, run).await.unwrap();
    assert_eq!(census(store, 99, 1_000).await.deletes_in_mailbox, 3);
    assert_eq!(census(store, 1, 1_000).await.deletes_in_mailbox, 2, "one's own use does not count");
    assert_eq!(census(store, 99, 3_602_000).await.deletes_in_mailbox, 2);
    assert_eq!(census(store, 99, 1_000).await.mails_by_author, 0);
    let elsewhere = CensusQuestion { mailbox: Some(MailboxId::new("mbx-9")), author: None, ..question(99) };
    let counted = store.census(&main_connection(), &[elsewhere], at(1_000)).await.unwrap();
    assert_eq!(counted, [Census::default()]);

    // It was not sent after all.
    let done = Link { revision: done.revision + 1, ..done };
    let run = Commit { link: Some(done), unspent_since: Some(at(1_000)), release: true, ..Commit::default() };
    commit(store, &first, run).await.unwrap();
    assert_eq!(census(store, 99, 1_000).await.deletes_in_mailbox, 2, "what the others want");
}

pub(crate) async fn no_more_is_used_up_than_there_is_and_a_refused_plan_leaves_no_trace(store: &dyn Store) {
    let mut runs = Vec::new();
    for number in 1..=5 {
        let (claim, link) = waiting_deletion(store, number).await;
        let link = Link { care: Care::default(), ..link };
        let run = Commit { link: Some(link), spends: spend(3), release: true, ..Commit::default() };
        runs.push((claim.fence, run));
    }
    let results = store.commit(runs, at(1_000)).await;
    let refused = results.iter().filter(|result| matches!(result, Err(StoreError::Spent(_)))).count();
    assert_eq!((results.iter().filter(|result| result.is_ok()).count(), refused), (3, 2));
    let counted = census(store, 99, 1_000).await;
    assert_eq!(counted.deletes_in_mailbox, 5, "three used up, two still wanted: nothing of a refused plan is stored");
}

pub(crate) async fn what_is_held_is_listed_until_it_is_held_no_more(store: &dyn Store) {
    let (claim, link) = waiting_deletion(store, 1).await;
    let state = LinkState::Held { reason: Reason::MassDelete, at: at(0) };
    let letter = DeadLetter {
        held: true,
        connection: main_connection(),
        link: Some(link.id),
        record: Some(outlook("e1")),
        reason: Reason::MassDelete,
        detail: "delete it on the other side".to_owned(),
        at: at(0),
        message: None,
    };
    let held = Link { state, ..link.clone() };
    let run = Commit {
        link: Some(held.clone()),
        dead_letter: Some(letter.clone()),
        journal: vec![decided(Some(&link), Outcome::Hold)],
        release: true,
        ..Commit::default()
    };
    commit(store, &claim, run).await.unwrap();
    let listed = store.letters(true, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].letter, listed[0].lane), (&letter, Some(claim.fence.lane)));
    assert_eq!(listed[0].mailbox, Some(MailboxId::new("mbx-1")));
    assert_eq!(listed[0].outlook.as_deref(), Some("e1"));
    assert!(store.letters(false, 10).await.unwrap().is_empty());
    let status = store.status().await.unwrap();
    assert_eq!((status.dead_letters, status.holds.get("mass_delete")), (0, Some(&1)));

    accept(store, vec![signal(&outlook("e1"), 20_000)]).await;
    let claim = claim_one(store, 30_000).await;
    let run = Commit { link: Some(Link { state: LinkState::Live, revision: 2, ..link }), ..finished(&claim) };
    commit(store, &claim, run).await.unwrap();
    assert!(store.letters(true, 10).await.unwrap().is_empty());
}

pub(crate) async fn who_answers_a_hold_without_a_link_has_its_record_read(store: &dyn Store) {
    let record = outlook("e1");
    accept(store, vec![signal(&record, 0)]).await;
    let first = claim_one(store, 5_000).await;
    let letter = DeadLetter {
        held: true,
        connection: main_connection(),
        link: None,
        record: Some(record.clone()),
        reason: Reason::NeedsAdopt,
        detail: String::new(),
        at: at(5_000),
        message: None,
    };
    commit(store, &first, Commit { dead_letter: Some(letter), ..finished(&first) }).await.unwrap();
    assert!(claim(store, 9_000).await.is_empty());
    store.instruct(&[first.fence.lane], Instruction::Approve).await.unwrap();
    let second = claim_one(store, 9_000).await;
    let read: Vec<_> = second.notices.iter().map(|row| row.notice.record.clone()).collect();
    assert_eq!((read, second.instruction), (vec![record], Some(Instruction::Approve)));
}

pub(crate) async fn an_instruction_wakes_its_lane_and_stays_until_it_is_followed(store: &dyn Store) {
    let record = outlook("e1");
    accept(store, vec![signal(&record, 0)]).await;
    let first = claim_one(store, 5_000).await;
    assert_eq!(first.instruction, None);
    commit(store, &first, finished(&first)).await.unwrap();
    assert!(claim(store, 9_000).await.is_empty());

    let lane = first.fence.lane;
    assert_eq!(store.instruct(&[lane], Instruction::Keep(Side::Outlook)).await.unwrap(), 1);
    let second = claim_one(store, 9_000).await;
    assert_eq!(second.instruction, Some(Instruction::Keep(Side::Outlook)));
    // The run could not decide anything: the instruction waits with the lane.
    let wait =
        Commit { instruction: second.instruction, wake_at: Some(at(20_000)), release: true, ..Commit::default() };
    commit(store, &second, wait).await.unwrap();
    assert!(claim(store, 19_000).await.is_empty());
    let third = claim_one(store, 20_000).await;
    assert_eq!(third.instruction, second.instruction);

    // Another one comes while the first is followed: it stays, and the lane is due at once.
    store.instruct(&[lane], Instruction::Skip).await.unwrap();
    let followed = Commit { instruction: third.instruction, instructed: true, release: true, ..Commit::default() };
    commit(store, &third, followed).await.unwrap();
    let fourth = claim_one(store, 20_000).await;
    assert_eq!(fourth.instruction, Some(Instruction::Skip));
    let followed = Commit { instruction: fourth.instruction, instructed: true, release: true, ..Commit::default() };
    commit(store, &fourth, followed).await.unwrap();
    assert!(claim(store, 90_000).await.is_empty());
    accept(store, vec![signal(&record, 95_000)]).await;
    let fifth = store.claim("worker", at(100_000), LEASE, 10).await.unwrap().remove(0);
    assert_eq!(fifth.instruction, None);
    assert!(LEASE > Duration::ZERO);
}
