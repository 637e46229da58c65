//! The conformance suite on SQLite, in a file and in memory, and what only a file has: restart, lock, sealing.

use std::path::Path;
use std::sync::Arc;

use calbridge_core::ids::StreamId;
use tempfile::TempDir;

use super::{SqliteStore, StoreSettings};
use crate::clock::EngineClock;
use crate::ports::{IntakeBatch, Store, StoreError};
use crate::store::contract::{self, CANARY, accept, at, claim_one, commit, finished, link, outlook};
use crate::store::contract::{intent, linked_meeting, main_connection, position, salesforce, signal};
use crate::store::contract_list::{cases, crowds};
use crate::store::seal::KeySource;
use crate::store::{contract_crowd, contract_facts, contract_lanes, contract_people, contract_trace};

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

macro_rules! at_once {
    ($($case:ident),* $(,)?) => {
        mod at_once { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                let store = std::sync::Arc::new(super::open(folder.path()).await);
                super::contract_crowd::$case([store.clone(), store]).await;
            }
        )* }
    };
}

cases!(conformance);
crowds!(at_once);

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
    assert_eq!(applied, 4);
    let (state, starts, rows): (String, String, i64) =
        sqlx::query_as("SELECT state, starts_utc, journal_rows FROM meeting").fetch_one(&store.writer).await.unwrap();
    assert_eq!((state.as_str(), starts.as_str(), rows), ("live", "2026-03-02 09:00:00", 1));
}
