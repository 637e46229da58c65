//! Subscriptions against the sandbox.

use calbridge_sandbox::Options;

use super::*;
use crate::outlook::testing::{LittleStore, Office, Running};

fn mailbox_of(batch: &Batch) -> (MailboxId, SignalCause) {
    match batch.signals.as_slice() {
        [Signal { target: Target::Mailbox(mailbox), cause, .. }] => (mailbox.clone(), *cause),
        other => panic!("{other:?}"),
    }
}

/// Takes `count` batches and returns mailboxes and causes, sorted.
async fn take(running: &mut Running, count: usize) -> Vec<(MailboxId, SignalCause)> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let batch = running.next().await;
        taken.push(mailbox_of(&batch));
        batch.receipt.done();
    }
    taken.sort();
    taken
}

fn all(office: &Office, cause: SignalCause) -> Vec<(MailboxId, SignalCause)> {
    let mut all: Vec<_> = (0..3).map(|number| (office.mailbox(number), cause)).collect();
    all.sort();
    all
}

fn first_rounds_are_done(office: &Office) {
    office.enrolments.send_modify(|rows| rows.iter_mut().for_each(|row| row.first_round_done = true));
}

fn live(office: &Office) -> Vec<String> {
    let app = &office.sandbox.endpoints().microsoft.client_id;
    let live = office.sandbox.tenant().subscriptions(Some(app));
    let mut ids: Vec<String> = live.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

fn stored(store: &LittleStore) -> Vec<String> {
    store.rows().into_iter().map(|row| row.id).collect()
}

async fn subscribed(office: &Office, store: &Arc<LittleStore>) -> Running {
    let mut running = Running::start(office.outlook.subscriptions(Arc::clone(store) as Arc<dyn Store>));
    take(&mut running, 3).await;
    store.until(|rows| rows.len() == 3).await;
    running
}

#[tokio::test]
async fn each_mailbox_gets_a_subscription_and_is_read_for_the_first_time() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = Running::start(office.outlook.subscriptions(Arc::clone(&store) as Arc<dyn Store>));
    assert_eq!(take(&mut running, 3).await, all(&office, SignalCause::Enrolment));
    store.until(|rows| rows.len() == 3).await;
    assert_eq!(live(&office), stored(&store));
    for row in store.rows() {
        let life = row.expires_at - office.clock.now();
        assert!(life > TimeDelta::days(2) && life <= TimeDelta::days(3), "{life}");
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_signal_that_intake_drops_is_given_again_after_a_restart() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = Running::start(office.outlook.subscriptions(Arc::clone(&store) as Arc<dyn Store>));
    drop(running.next().await);
    assert!(matches!(running.stop().await, Err(ListenError::Passing(_)) | Ok(())));
    assert_eq!(store.rows(), []);
    let again = subscribed(&office, &store).await;
    assert_eq!(live(&office), stored(&store));
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_what_is_alive_and_signals_nothing() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    subscribed(&office, &store).await.stop().await.unwrap();
    first_rounds_are_done(&office);
    let before = live(&office);
    // The third mailbox loses its subscription while nobody looks.
    let lost = store.rows().into_iter().find(|row| row.mailbox == office.mailbox(2)).unwrap();
    assert!(office.sandbox.tenant().drop_subscription(&lost.id));
    let restarted = office.restarted();
    let mut running = Running::start(restarted.subscriptions(Arc::clone(&store) as Arc<dyn Store>));
    assert_eq!(take(&mut running, 1).await, [(office.mailbox(2), SignalCause::Gap)]);
    store.until(|rows| rows.len() == 3 && rows.iter().all(|row| row.id != lost.id)).await;
    let kept = live(&office).into_iter().filter(|id| before.contains(id)).count();
    assert_eq!(kept, 2);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn leftovers_with_another_secret_are_replaced() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    subscribed(&office, &store).await.stop().await.unwrap();
    first_rounds_are_done(&office);
    let before = live(&office);
    // A new secret of the app: the old clientState proves nothing any more.
    let mut renewed = office.restarted();
    renewed.states = ClientStates::new(&SecretString::from("rotated".to_owned()), &office.settings.connection);
    let mut running = Running::start(renewed.subscriptions(Arc::clone(&store) as Arc<dyn Store>));
    assert_eq!(take(&mut running, 3).await, all(&office, SignalCause::Gap));
    store.until(|rows| rows.len() == 3 && rows.iter().all(|row| !before.contains(&row.id))).await;
    assert_eq!(live(&office), stored(&store));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn renewal_comes_before_the_end() {
    // An hour passes in less than four seconds.
    let mut office = Office::open_with(Options { speed: 1000.0, ..Options::default() }).await;
    office.settings.subscriptions.lifetime = TimeDelta::hours(1);
    office.outlook = office.restarted();
    let store = Arc::new(LittleStore::default());
    let running = subscribed(&office, &store).await;
    first_rounds_are_done(&office);
    let first: Vec<_> = store.rows();
    store
        .until(|rows| {
            rows.iter().all(|row| first.iter().any(|old| old.id == row.id && old.expires_at < row.expires_at))
        })
        .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_nudge_renews_at_once_and_recreates_what_was_removed() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = subscribed(&office, &store).await;
    first_rounds_are_done(&office);
    let row = store.rows().into_iter().find(|row| row.mailbox == office.mailbox(1)).unwrap();
    office.outlook.nudges.give(office.mailbox(1), Nudge::Renew);
    store.until(|rows| rows.iter().any(|now| now.id == row.id && now.expires_at > row.expires_at)).await;
    office.sandbox.tenant().drop_subscription(&row.id);
    office.outlook.nudges.give(office.mailbox(1), Nudge::Recreate);
    assert_eq!(take(&mut running, 1).await, [(office.mailbox(1), SignalCause::Gap)]);
    store.until(|rows| rows.len() == 3 && rows.iter().all(|now| now.id != row.id)).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn mailboxes_come_and_go_with_their_enrolment() {
    let office = Office::open().await;
    let third = office.enrolments.borrow()[2].clone();
    office.enrolments.send_modify(|rows| rows.truncate(2));
    let store = Arc::new(LittleStore::default());
    let mut running = Running::start(office.outlook.subscriptions(Arc::clone(&store) as Arc<dyn Store>));
    take(&mut running, 2).await;
    store.until(|rows| rows.len() == 2).await;
    office.enrolments.send_modify(|rows| {
        rows.remove(0);
        rows.push(third);
    });
    assert_eq!(take(&mut running, 1).await, [(office.mailbox(2), SignalCause::Enrolment)]);
    let wanted = [office.mailbox(1), office.mailbox(2)];
    store.until(|rows| rows.len() == 2 && rows.iter().all(|row| wanted.contains(&row.mailbox))).await;
    assert_eq!(live(&office), stored(&store));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_subscribed_does_not_stop_the_others() {
    let office = Office::open().await;
    office.enrolments.send_modify(|rows| {
        rows[0].enrolment.mailbox = MailboxId::new("00000000-0000-4000-8000-000000000000");
    });
    let store = Arc::new(LittleStore::default());
    let mut running = Running::start(office.outlook.subscriptions(Arc::clone(&store) as Arc<dyn Store>));
    let mut wanted = [1, 2].map(|number| (office.mailbox(number), SignalCause::Enrolment));
    wanted.sort();
    assert_eq!(take(&mut running, 2).await, wanted);
    running.stop().await.unwrap();
}

#[test]
fn secrets_differ_by_mailbox_and_connection_and_are_never_printed() {
    let secret = SecretString::from("secret".to_owned());
    let states = ClientStates::new(&secret, &ConnectionId::new("main"));
    let other = ClientStates::new(&secret, &ConnectionId::new("other"));
    let (a, b) = (MailboxId::new("a"), MailboxId::new("b"));
    assert!(states.matches(&a, &states.of(&a)));
    assert!(states.matches(&a, &states.of(&a).to_uppercase()));
    for wrong in [states.of(&b), other.of(&a), String::new(), "zz".to_owned(), "abc".to_owned()] {
        assert!(!states.matches(&a, &wrong));
    }
    assert!(states.of(&a).len() <= 128);
    assert_eq!(format!("{states:?}"), "ClientStates(..)");
}
