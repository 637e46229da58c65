//! The conformance suite on a real PostgreSQL, with one store and with two, and what only a server has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;

use crate::clock::EngineClock;
use crate::ports::{Store, StoreError};
use crate::store::contract::{self, CANARY, accept, at, claim_one, commit, finished, intent, link, linked_meeting};
use crate::store::contract::{outlook, salesforce, signal};
use crate::store::contract_list::{cases, crowds};
use crate::store::seal::KeySource;
use crate::store::{contract_crowd, contract_facts, contract_lanes, contract_people, contract_trace};

use super::{PostgresSettings, PostgresStore};

#[path = "../../../tests/suite/support/postgres.rs"]
mod server;

use server::{Database, PASSWORD};

fn clock() -> Arc<EngineClock> {
    Arc::new(EngineClock::wall())
}

fn settings(database: &Database) -> PostgresSettings {
    PostgresSettings {
        password: Some(PASSWORD.into()),
        ..PostgresSettings::new(database.url(), KeySource::Given(Box::new([7; 32])))
    }
}

async fn open(database: &Database) -> PostgresStore {
    PostgresStore::open(settings(database), clock()).await.unwrap()
}

macro_rules! conformance {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        mod on_a_server { $($(
            #[tokio::test]
            async fn $case() {
                let Some(database) = super::Database::create().await else { return };
                let store = super::open(&database).await;
                super::$module::$case(&store).await;
                store.close().await;
            }
        )*)* }
    };
}

macro_rules! two_instances {
    ($($case:ident),* $(,)?) => {
        mod two_instances { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let Some(database) = super::Database::create().await else { return };
                let stores = [super::open(&database).await, super::open(&database).await].map(std::sync::Arc::new);
                super::contract_crowd::$case(stores.clone().map(|store| store as _)).await;
                for store in stores {
                    store.close().await;
                }
            }
        )* }
    };
}

cases!(conformance);
crowds!(two_instances);

async fn refused(settings: PostgresSettings) -> String {
    let error = PostgresStore::open(settings, clock()).await.unwrap_err();
    assert_eq!(error.code(), "CB1204", "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD) && !text.contains("Pfeffer"), "{text}");
    text
}

#[tokio::test]
async fn what_keeps_the_server_from_letting_us_in_is_said_in_words() {
    let Some(database) = Database::named_only() else { return };
    let good = settings(&database);
    let text = refused(good.clone()).await;
    assert!(text.contains("there is no database `t") && text.contains("createdb --owner=calbridge"), "{text}");
    let wrong = PostgresSettings { password: Some("Salz und Pfeffer".into()), ..good.clone() };
    let text = refused(wrong).await;
    assert!(text.contains("refuses user `calbridge`") && text.contains("store.password_file"), "{text}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = refused(PostgresSettings { url: format!("postgres://c@{nobody}/x"), ..good.clone() }).await;
    assert!(text.contains("cannot be reached (connection refused)") && text.contains("store.url"), "{text}");
    // Bound and never accepted from: the system completes the connection, and nothing ever comes back.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://c@{}/x", mute.local_addr().unwrap());
    let text = refused(PostgresSettings { url, patience: Duration::from_millis(50), ..good.clone() }).await;
    assert!(text.contains("did not answer within"), "{text}");
    // The test's server speaks no TLS: what was asked for is not done without.
    let url = format!("{}?sslmode=require", database.url());
    let text = refused(PostgresSettings { url, ..good.clone() }).await;
    assert!(text.contains("no encrypted connection") && text.contains("sslmode"), "{text}");
    let text = refused(PostgresSettings { url: "mysql://x".to_owned(), ..good }).await;
    assert!(text.contains("`store.url` is no `postgres://"), "{text}");
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_left_alone() {
    let Some(database) = Database::create().await else { return };
    let store = open(&database).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9000, 'from the future', TRUE, '\\x00', 0)",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    store.close().await;
    let text = refused(settings(&database)).await;
    assert!(text.contains("a newer calbridge made this database (its migration 9000"), "{text}");
    let error = PostgresStore::open_read_only(settings(&database), clock()).await.unwrap_err();
    assert!(error.to_string().contains("a newer calbridge made this database"), "{error}");
}

#[tokio::test]
async fn a_database_is_read_beside_the_engines_and_not_written_to() {
    let Some(database) = Database::create().await else { return };
    let error = PostgresStore::open_read_only(settings(&database), clock()).await.unwrap_err();
    assert!(error.to_string().contains("was not made by calbridge"), "{error}");
    let store = open(&database).await;
    linked_meeting(&store, &link(1, Some(outlook("e1")), None)).await;
    let reader = PostgresStore::open_read_only(settings(&database), clock()).await.unwrap();
    assert_eq!(contract_trace::find(&reader, "uid-1").await.len(), 1);
    let batch = crate::ports::IntakeBatch { signals: vec![signal(&outlook("x"), 0)], ..Default::default() };
    assert!(reader.accept(&batch, at(0)).await.is_err());
    assert_eq!(reader.status().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn instances_share_the_epoch_and_need_the_same_key() {
    let Some(database) = Database::create().await else { return };
    // Both meet the new database at the same time.
    let (one, two) = tokio::join!(open(&database), open(&database));
    assert_eq!(one.epoch(), two.epoch());
    let other = PostgresSettings { key: KeySource::Given(Box::new([9; 32])), ..settings(&database) };
    let error = PostgresStore::open(other, clock()).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains("store key"), "{error}");
    let applied: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations").fetch_one(&one.writer).await.unwrap();
    assert_eq!(usize::try_from(applied).unwrap(), super::dialect::MIGRATIONS.len());
}

#[tokio::test]
async fn what_a_dead_instance_held_waits_for_its_lease_and_not_for_a_restart() {
    let Some(database) = Database::create().await else { return };
    let store = open(&database).await;
    accept(&store, vec![signal(&outlook("e1"), 0)]).await;
    let held = claim_one(&store, 5_000).await;
    store.close().await;
    let store = open(&database).await;
    assert!(contract::claim(&store, 5_000).await.is_empty(), "the other instance may well be alive");
    assert!(store.renew(&[held.fence], Duration::ZERO).await.unwrap().is_empty());
    let again = claim_one(&store, 5_000).await;
    assert_eq!(again.fence.lane, held.fence.lane);
}

/// Asks until nothing is to be given back any more, as an instance does whose tasks end at once.
async fn share(store: &PostgresStore, running: &mut BTreeSet<String>) -> usize {
    let all: Vec<String> = (0..5).map(|n| n.to_string()).collect();
    for _ in 0..2 {
        *running = store.share(&contract::main_connection(), "hub", &all, running).await.unwrap();
    }
    running.len()
}

#[tokio::test]
async fn duties_are_shared_fairly_given_back_when_they_rest_and_taken_over_from_the_dead() {
    let Some(database) = Database::create().await else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    let (mut first, mut second) = (BTreeSet::new(), BTreeSet::new());
    assert_eq!(share(&one, &mut first).await, 5, "alone it has all");
    assert_eq!(share(&two, &mut second).await, 0, "they run elsewhere");
    let all: Vec<String> = first.iter().cloned().collect();
    let connection = contract::main_connection();
    let told = one.share(&connection, "hub", &all, &first).await.unwrap();
    assert_eq!(told.len(), 3, "it is to give two back");
    assert_eq!(share(&two, &mut second).await, 0, "and has them until they rest");
    assert_eq!(share(&one, &mut first).await, 3);
    assert_eq!((share(&two, &mut second).await, share(&one, &mut first).await), (2, 3));
    assert!(first.is_disjoint(&second));
    assert_eq!(two.share(&connection, "other kind", &all, &BTreeSet::new()).await.unwrap().len(), 5);

    // The first one falls silent: its time ends by the database's clock.
    let mut admin = database.admin().await;
    for statement in [
        "UPDATE duty SET lease_until = 0 WHERE kind = 'hub' AND name = ANY($1)",
        "UPDATE duty_member SET alive_until = 0 WHERE kind = 'hub' AND $1 = $1 AND instance <> (SELECT MAX(owner) FROM duty \
         WHERE lease_until > 0 AND kind = 'hub')",
    ] {
        let names: Vec<String> = first.iter().cloned().collect();
        sqlx::query(statement).bind(names).execute(&mut admin).await.unwrap();
    }
    assert_eq!(share(&two, &mut second).await, 5);
    assert_eq!(share(&one, &mut first).await, 0, "it comes back and must not go on");
    // One that leaves in good order is not waited for.
    assert!(two.share(&connection, "hub", &[], &BTreeSet::new()).await.unwrap().is_empty());
    assert_eq!(share(&one, &mut first).await, 5);

    let mailbox = calbridge_core::ids::MailboxId::new("mbx-1");
    for gone in [true, false] {
        one.leave_nudge(&connection, &mailbox, gone).await.unwrap();
    }
    assert_eq!(two.take_nudges(&connection).await.unwrap(), [(mailbox, true)], "the stronger one stays");
    assert!(one.take_nudges(&connection).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_restart_of_the_server_costs_nothing_but_time() {
    let Some(database) = Database::create().await else { return };
    let store = open(&database).await;
    accept(&store, vec![signal(&outlook("e1"), 0)]).await;
    let held = claim_one(&store, 5_000).await;
    assert!(database.cut_connections().await > 0);
    commit(&store, &held, finished(&held)).await.unwrap();
    assert!(contract::claim(&store, 1_000_000).await.is_empty());
}

#[tokio::test]
async fn no_field_value_occurs_in_any_row_and_the_view_shows_none() {
    let Some(database) = Database::create().await else { return };
    let store = open(&database).await;
    let mut new = link(1, Some(outlook("e1")), Some(salesforce("00U000000000001")));
    new.intents.salesforce = Some(intent(&new, 5));
    linked_meeting(&store, &new).await;
    let mut admin = database.admin().await;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT table_name::TEXT FROM information_schema.tables WHERE table_schema = 'public'")
            .fetch_all(&mut admin)
            .await
            .unwrap();
    let mut everything = String::new();
    for table in tables {
        // Sealed bytes come as hexadecimal digits.
        let rows: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT STRING_AGG(t::TEXT, ' ') FROM \"{table}\" AS t")))
                .fetch_one(&mut admin)
                .await
                .unwrap();
        everything += &rows.unwrap_or_default().to_lowercase();
    }
    let hex = CANARY.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    assert!(everything.contains("ck-1"), "the search itself works");
    assert!(!everything.contains(&CANARY.to_lowercase()) && !everything.contains(&hex));
    let (state, starts, rows): (String, String, i64) =
        sqlx::query_as("SELECT state, starts_utc, journal_rows FROM meeting").fetch_one(&store.writer).await.unwrap();
    assert_eq!((state.as_str(), starts.as_str(), rows), ("live", "2026-03-02 09:00:00", 1));
    store.erase_values(new.id).await.unwrap();
    assert!(contract_trace::find(&store, CANARY).await.is_empty());
}
