//! The conformance suite on SQLite, in a file and in memory, and what only a file has: restart, lock, sealing.

use std::path::Path;
use std::sync::Arc;

use calbridge_core::ids::StreamId;
use calbridge_core::plan::Outcome;
use tempfile::TempDir;

use super::{SqliteStore, StoreSettings};
use crate::clock::EngineClock;
use crate::ports::{Commit, IntakeBatch, Store, StoreError};
use crate::store::contract::{self, CANARY, accept, at, claim, claim_one, commit, decided, finished, link, outlook};
use crate::store::contract::{intent, linked_meeting, main_connection, position, salesforce, signal};
use crate::store::seal::KeySource;
use crate::store::{contract_facts, contract_lanes, contract_trace};

fn clock() -> Arc<EngineClock> {
    Arc::new(EngineClock::wall())
}

async fn open(folder: &Path) -> SqliteStore {
    let settings = StoreSettings::new(folder.join("calbridge.db").display().to_string());
    SqliteStore::open(settings, clock()).await.unwrap()
}

async fn read_only(folder: &Path) -> Result<SqliteStore, StoreError> {
    let settings = StoreSettings::new(format!("sqlite://{}", folder.join("calbridge.db").display()));
    SqliteStore::open_read_only(settings, clock()).await
}

macro_rules! conformance {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        mod in_a_file { $($(
            #[tokio::test]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                super::$module::$case(&super::open(folder.path()).await).await;
            }
        )*)* }
        mod in_memory { $($(
            #[tokio::test]
            async fn $case() {
                let store = super::SqliteStore::open(super::StoreSettings::in_memory(), super::clock()).await.unwrap();
                super::$module::$case(&store).await;
            }
        )*)* }
    };
}

conformance! {
    contract:
        a_burst_becomes_one_row_that_is_due_after_the_quiet_window,
        an_unending_burst_is_due_at_its_longest_wait,
        a_deletion_in_a_burst_is_not_forgotten,
        a_signal_during_a_run_survives_it_and_counts_once,
        thousands_of_records_are_accepted_in_one_batch,
        positions_duplicates_and_rejects_are_kept,
        a_flood_of_messages_is_counted_and_only_the_newest_of_each_reason_are_kept,
        a_link_comes_back_as_it_was_written,
        a_link_is_not_written_over_a_newer_revision,
        two_links_never_share_a_record_but_a_tombstone_gives_it_free,
        a_fenced_commit_leaves_no_trace_and_its_neighbours_stand,
        a_dead_letter_stays_one_until_its_meeting_is_mended;
    contract_facts:
        facts_come_in_the_order_of_the_stream_and_again_until_they_are_dropped,
        a_change_event_delivered_again_adds_nothing,
        what_says_nothing_about_mapped_fields_is_not_kept,
        a_change_during_a_run_is_given_to_the_next_one,
        facts_follow_their_record_into_the_lane_that_takes_it_in,
        a_meeting_that_is_over_keeps_its_facts_until_told_otherwise,
        values_come_back_as_they_were_told;
    contract_lanes:
        a_held_lane_is_not_given_to_a_second_worker,
        a_dead_workers_lane_is_taken_over_even_without_a_signal,
        the_longest_waiting_lanes_come_first_and_no_more_than_asked,
        a_lane_that_waits_runs_at_its_time_or_at_the_next_signal,
        two_new_records_of_one_meeting_become_one_lane,
        an_unlinked_record_joins_the_lane_of_its_link,
        two_links_that_share_a_name_stay_apart,
        the_echo_of_a_creation_ends_in_the_lane_that_created,
        a_stamp_found_in_a_record_leads_to_its_link,
        history_from_before_a_join_is_part_of_the_story;
    contract_trace:
        a_meeting_is_found_by_every_name_it_has,
        a_meeting_is_found_by_words_of_any_subject_it_had,
        a_meeting_is_found_by_versions_it_had,
        a_deleted_meeting_and_one_that_was_never_linked_are_found,
        a_mailboxs_day_lists_the_meetings_that_start_in_it,
        an_enrolment_keeps_its_first_day,
        subscriptions_are_kept_until_dropped,
        status_counts_what_waits;
}

async fn filled(folder: &TempDir) -> SqliteStore {
    let store = open(folder.path()).await;
    let mut new = link(1, Some(outlook("e1")), Some(salesforce("00U000000000001")));
    new.intents.salesforce = Some(intent(&new, 5));
    linked_meeting(&store, &new).await;
    store
}

#[tokio::test]
async fn after_a_restart_everything_is_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(&folder).await;
    let batch = IntakeBatch {
        signals: vec![signal(&outlook("e1"), 10_000)],
        positions: vec![(main_connection(), position("hub/0", 7))],
        ..IntakeBatch::default()
    };
    store.accept(&batch, at(10_000)).await.unwrap();
    let epoch = store.epoch().to_owned();
    let held = claim_one(&store, 20_000).await;
    drop(store);

    let store = open(folder.path()).await;
    assert_eq!(store.epoch(), epoch);
    assert_eq!(store.checkpoint(&main_connection(), &StreamId::new("hub/0")).await.unwrap().as_deref(), Some("7"));
    let again = claim_one(&store, 20_000).await;
    assert_eq!(again.fence.lane, held.fence.lane, "what the dead engine held is due at once");
    assert_eq!(again.link, held.link);
    assert_eq!(again.notices[0].notice, held.notices[0].notice);
    let late = commit(&store, &held, finished(&held)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
}

#[tokio::test]
async fn a_second_engine_is_refused_and_told_who_has_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let settings = StoreSettings::new(folder.path().join("calbridge.db").display().to_string());
    let error = SqliteStore::open(settings, clock()).await.unwrap_err();
    let StoreError::InUse(text) = &error else { panic!("{error}") };
    assert!(text.contains(&format!("process {} on ", std::process::id())), "{text}");
    assert!(text.contains(" since 20"), "{text}");
    let settings = StoreSettings::new(folder.path().join("calbridge.db").display().to_string());
    assert_eq!(SqliteStore::held(&settings).map(|held| held.to_string()), Some(error.to_string()));
    drop(store);
    assert!(SqliteStore::held(&settings).is_none(), "the file that is left behind means nothing");
    open(folder.path()).await;
}

#[tokio::test]
async fn trace_and_status_read_beside_a_running_engine_and_after_it() {
    let folder = tempfile::tempdir().unwrap();
    assert!(read_only(folder.path()).await.is_err(), "there is nothing to read yet");
    let store = filled(&folder).await;
    let reader = read_only(folder.path()).await.unwrap();
    assert_eq!(contract_trace::find(&reader, "uid-1").await.len(), 1);
    linked_meeting(&store, &link(2, Some(outlook("e2")), None)).await;
    assert_eq!(contract_trace::find(&reader, "uid-2").await.len(), 1, "it sees what the engine commits");
    let batch = IntakeBatch { signals: vec![signal(&outlook("x"), 0)], ..IntakeBatch::default() };
    assert!(reader.accept(&batch, at(0)).await.is_err());
    reader.close().await;
    store.close().await;
    let reader = read_only(folder.path()).await.unwrap();
    let found = contract_trace::find(&reader, "zimtschnecke").await;
    assert_eq!(found.len(), 2);
    assert!(found[0].link.is_some() && !found[0].journal[0].images.is_empty());
    assert_eq!(reader.status().await.unwrap().links.get("live"), Some(&2));
}

#[tokio::test]
async fn no_field_value_occurs_in_any_byte_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(&folder).await;
    let reject = crate::ports::Reject {
        connection: main_connection(),
        side: calbridge_core::side::Side::Outlook,
        reason: calbridge_core::reason::Reason::Undecodable,
        detail: "broken",
        raw: CANARY.as_bytes().to_vec(),
        size: CANARY.len(),
        items: 1,
        position: None,
    };
    let signals = vec![contract_facts::change("t/1", CANARY, 0)];
    let batch = IntakeBatch { signals, rejects: vec![reject], ..IntakeBatch::default() };
    store.accept(&batch, at(0)).await.unwrap();
    let files = || {
        std::fs::read_dir(folder.path())
            .unwrap()
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect::<Vec<_>>()
    };
    let occurs = |text: &str| {
        let lower = text.to_lowercase();
        files().iter().any(|bytes| String::from_utf8_lossy(bytes).to_lowercase().contains(&lower))
    };
    assert!(occurs("ck-1"), "the search itself works");
    assert!(!occurs(CANARY), "while the write-ahead log is there");
    store.close().await;
    assert!(occurs("ck-1") && !occurs(CANARY), "and after it was folded in");
}

#[tokio::test]
async fn erased_values_are_gone_and_the_story_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(&folder).await;
    let id = contract_trace::find(&store, "uid-1").await[0].link.as_ref().unwrap().id;
    accept(&store, vec![contract_facts::change("t/1", CANARY, 2_000)]).await;
    store.erase_values(id).await.unwrap();
    assert!(contract_trace::find(&store, CANARY).await.is_empty());
    let found = contract_trace::find(&store, "uid-1").await;
    let link = found[0].link.as_ref().unwrap();
    assert!(link.base.is_empty() && link.intents.salesforce.is_none());
    assert!(found[0].journal[0].images.is_empty());
    assert_eq!(found[0].journal[0].fields, ["subject", "time"]);
    accept(&store, vec![contract_facts::change("t/2", "later", 3_000)]).await;
    let claim = claim_one(&store, 20_000).await;
    let told: Vec<&str> = claim.facts.iter().map(|fact| fact.facts.transaction.as_str()).collect();
    assert_eq!(told, ["t/2"], "what came before is erased too, what comes later is sealed anew");
}

#[tokio::test]
async fn another_key_does_not_open_the_database() {
    let folder = tempfile::tempdir().unwrap();
    filled(&folder).await.close().await;
    let mut settings = StoreSettings::new(folder.path().join("calbridge.db").display().to_string());
    settings.key = KeySource::Given(Box::new([9; 32]));
    let error = SqliteStore::open(settings, clock()).await.unwrap_err();
    assert!(error.to_string().contains("store key"), "{error}");
    std::fs::remove_file(folder.path().join("calbridge.db.key")).unwrap();
    let error = read_only(folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("calbridge.db.key"), "{error}");
}

#[tokio::test]
async fn opening_twice_migrates_once_and_the_view_shows_no_values() {
    let folder = tempfile::tempdir().unwrap();
    filled(&folder).await.close().await;
    let store = open(folder.path()).await;
    let applied: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations").fetch_one(&store.writer).await.unwrap();
    assert_eq!(applied, 3);
    let (state, starts, rows): (String, String, i64) =
        sqlx::query_as("SELECT state, starts_utc, journal_rows FROM meeting").fetch_one(&store.writer).await.unwrap();
    assert_eq!((state.as_str(), starts.as_str(), rows), ("live", "2026-03-02 09:00:00", 1));
}

#[tokio::test]
async fn workers_that_claim_at_once_share_no_lane() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()).await);
    let records: Vec<_> = (0..60).map(|n| outlook(&format!("e{n}"))).collect();
    accept(&*store, records.iter().map(|record| signal(record, 0)).collect()).await;
    let workers = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let claims = store.claim("worker", at(5_000), contract::LEASE, 3).await.unwrap();
                if claims.is_empty() {
                    return held;
                }
                for claim in claims {
                    let run = Commit { journal: vec![decided(None, Outcome::Skip)], ..finished(&claim) };
                    commit(&*store, &claim, run).await.unwrap();
                    held.push(claim.fence.lane);
                }
            }
        })
    });
    let mut held: Vec<_> = futures::future::join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    held.sort();
    let runs = held.len();
    held.dedup();
    assert_eq!((held.len(), runs), (60, 60));
    assert!(claim(&*store, 1_000_000).await.is_empty());
}
