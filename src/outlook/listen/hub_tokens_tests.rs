//! Tokens of the hub end, are renewed and are refused while a partition is being read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use calbridge_sandbox::event_hubs::{HubAccess, HubLog};
use secrecy::SecretString;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::tests::{notification, read_until};
use super::*;
use crate::outlook::auth::AuthSettings;
use crate::outlook::testing::{LittleStore, Office, PATIENCE, Running, http, serve};

/// A hub and an authority of a test's own: which tokens are good, and how long they live, is the test's choice.
struct Guarded {
    log: Arc<HubLog>,
    access: HubAccess,
    endpoint: String,
    tokens: Arc<TokenSource>,
    authority: Arc<Authority>,
}

#[derive(Default)]
struct Authority {
    /// Seconds that a token is said to live.
    lives: AtomicUsize,
    asked: AtomicUsize,
    /// Tokens that the hub no longer takes.
    revoked: Mutex<BTreeSet<String>>,
    /// Tokens that the hub was shown.
    shown: watch::Sender<BTreeSet<String>>,
    /// The tokens of the last checks. A token is checked when it is put, and that of the open link every 50 ms.
    checked: Mutex<VecDeque<String>>,
}

impl Authority {
    fn takes(&self, token: &str) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.push_back(token.to_owned());
        let beyond = checked.len().saturating_sub(5);
        checked.drain(..beyond);
        drop(checked);
        let good = !self.revoked.lock().unwrap_or_else(PoisonError::into_inner).contains(token);
        if good {
            self.shown.send_if_modified(|shown| shown.insert(token.to_owned()));
        }
        good
    }

    fn revoke_all(&self) -> usize {
        let shown = self.shown.borrow().clone();
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(shown);
        revoked.len()
    }
}

async fn give_token(State(authority): State<Arc<Authority>>) -> Json<serde_json::Value> {
    let number = authority.asked.fetch_add(1, Ordering::SeqCst);
    let lives = authority.lives.load(Ordering::SeqCst);
    Json(json!({"token_type": "Bearer", "expires_in": lives, "access_token": format!("token-{number}")}))
}

impl Guarded {
    async fn open(office: &Office, lives: usize) -> Self {
        let authority = Arc::new(Authority::default());
        authority.lives.store(lives, Ordering::SeqCst);
        let router = Router::new().route("/tenant/oauth2/v2.0/token", post(give_token));
        let address = serve(router.with_state(Arc::clone(&authority))).await;
        let settings = AuthSettings {
            authority: address,
            tenant: "tenant".to_owned(),
            client_id: "app".to_owned(),
            client_secret: SecretString::from("secret".to_owned()).into(),
        };
        let tokens = Arc::new(TokenSource::new(http(), settings).unwrap());
        let hub = office.sandbox.hub().hub().to_owned();
        let log = HubLog::new(office.sandbox.world().clock, &hub, 1);
        let check = Arc::clone(&authority);
        let mut access = HubAccess::new(&hub, "Root", "key", Arc::new(move |token: &str| check.takes(token)));
        access.token_check_every = Duration::from_millis(50);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("amqp://localhost:{}", listener.local_addr().unwrap().port());
        let (served, stop) = (Arc::clone(&log), CancellationToken::new());
        tokio::spawn(calbridge_sandbox::event_hubs::serve(listener, None, served, access.clone(), stop));
        Self { log, access, endpoint, tokens, authority }
    }

    fn listen(&self, office: &Office, store: &Arc<LittleStore>) -> Running {
        let mut listener = office.outlook.hub(Arc::clone(store) as Arc<dyn Store>).unwrap();
        listener.settings.custom_endpoint = Some(self.endpoint.clone());
        listener.tokens = Arc::clone(&self.tokens);
        Running::start(listener)
    }

    fn publish(&self, office: &Office, event: &str) {
        self.log.publish(notification(office, event), None);
    }
}

#[tokio::test]
async fn tokens_are_renewed_in_flight_and_the_link_outlives_the_old_ones() {
    let office = Office::open().await;
    // The SDK renews six minutes before the end, give or take five seconds: at once, up to a dozen seconds from now.
    let hub = Guarded::open(&office, 367).await;
    let store = Arc::new(LittleStore::default());
    let mut running = hub.listen(&office, &store);
    hub.publish(&office, "with-the-first-token");
    read_until(&mut running, &store, "with-the-first-token").await;
    let mut readers = hub.access.handle.watch_readers();
    timeout(PATIENCE, readers.wait_for(|readers| *readers == 1)).await.unwrap().unwrap();
    readers.mark_unchanged();
    // From now on tokens live an hour, so that one renewal is all that is due.
    hub.authority.lives.store(3600, Ordering::SeqCst);
    let old = hub.authority.shown.borrow().clone();
    // Renewed is what the open link is covered by, not only what the questions go with.
    let renewed = async {
        let covered_anew = || {
            let checked = hub.authority.checked.lock().unwrap_or_else(PoisonError::into_inner);
            checked.len() == 5 && checked.iter().all(|token| !old.contains(token))
        };
        while !covered_anew() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("tokens are renewed");
    hub.authority.revoked.lock().unwrap().extend(old.iter().cloned());
    // A link whose token is no longer good is detached at the next check.
    hub.authority.checked.lock().unwrap().clear();
    timeout(PATIENCE, async {
        while hub.authority.checked.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    hub.publish(&office, "with-the-second-token");
    assert_eq!(read_until(&mut running, &store, "with-the-second-token").await, ["with-the-second-token"]);
    assert!(!readers.has_changed().unwrap(), "the link was attached anew");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_link_whose_token_is_no_longer_taken_is_attached_anew_with_another_and_skips_nothing() {
    let office = Office::open().await;
    let hub = Guarded::open(&office, 365).await;
    let store = Arc::new(LittleStore::default());
    let mut running = hub.listen(&office, &store);
    hub.publish(&office, "before");
    assert_eq!(read_until(&mut running, &store, "before").await, ["before"]);
    let mut readers = hub.access.handle.watch_readers();
    timeout(PATIENCE, readers.wait_for(|readers| *readers == 1)).await.unwrap().unwrap();
    readers.mark_unchanged();
    assert!(hub.authority.revoke_all() > 0);
    hub.publish(&office, "meanwhile");
    let mut read = read_until(&mut running, &store, "meanwhile").await;
    // The message may have come by the old link or by the new one; gone and there again may be one change.
    let anew = async {
        loop {
            readers.changed().await.unwrap();
            if *readers.borrow_and_update() == 1 {
                return;
            }
        }
    };
    timeout(PATIENCE, anew).await.expect("the link is attached anew");
    hub.publish(&office, "after");
    read.extend(read_until(&mut running, &store, "after").await);
    assert_eq!(read, ["meanwhile", "after"]);
    running.stop().await.unwrap();
}
