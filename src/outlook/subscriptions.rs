//! Graph subscriptions: one for each enrolled mailbox, made, renewed at two thirds of its life, and made again when lost.
//!
//! A subscription that had to be made again means a gap, the first one means an enrolment: both become a signal for the
//! whole mailbox. That signal is durable before the subscription is stored, so a crash in between repeats it.
//! One mailbox's failure never stops the others. <https://learn.microsoft.com/graph/api/resources/subscription>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use calbridge_core::ids::{ConnectionId, MailboxId};
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, Signal, SignalCause, Target};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::{StreamExt, stream};
use hmac::{Hmac, Mac};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::Sha256;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{Answered, Call, GraphClient, TENANT, encode, read};
use super::error;
use super::listen::{Nudge, Nudges};
use super::wire::{Collection, Subscription};
use crate::ports::{Batch, Clock, EnrolmentRow, ListenError, Listener, Receipt, RemoteError, Store, SubscriptionRow};

/// Subscriptions that are made or renewed at once.
const AT_ONCE: usize = 4;
/// First pause after a failure; doubles.
const FIRST_RETRY: TimeDelta = TimeDelta::seconds(5);
/// How often the store is asked for nudges that other instances heard, in real time.
const LOOK_FOR_NUDGES: std::time::Duration = std::time::Duration::from_secs(1);
/// Longest pause after failures.
const LONGEST_RETRY: TimeDelta = TimeDelta::minutes(5);

/// How subscriptions are made.
#[derive(Debug, Clone)]
pub struct SubscriptionSettings {
    /// Where notifications go, such as `EventHub:https://ns.servicebus.windows.net/eventhubname/hub?tenantId=domain`.
    pub notification_url: String,
    /// Life asked for, by the engine's clock; at most 10,080 minutes, less than 45 minutes is raised by Graph. Default 3 days.
    pub lifetime: TimeDelta,
}

/// The secret of each subscription, derived so that it needs no storage and survives restarts.
#[derive(Clone)]
pub struct ClientStates(Hmac<Sha256>);

impl ClientStates {
    /// Derives the key from the app's secret; a new secret makes all subscriptions new.
    pub fn new(secret: &SecretString, connection: &ConnectionId) -> Self {
        let mut key =
            Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
        key.update(b"calbridge subscription\n");
        key.update(connection.as_str().as_bytes());
        key.update(b"\n");
        Self(key)
    }

    /// Returns the `clientState` of a mailbox's subscription: 64 hex digits, Graph takes up to 128 characters.
    pub fn of(&self, mailbox: &MailboxId) -> String {
        use fmt::Write as _;
        let digest = self.mac(mailbox).finalize().into_bytes();
        digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
    }

    /// Tells whether a `clientState` is the mailbox's, in a time that does not depend on where it differs.
    pub fn matches(&self, mailbox: &MailboxId, state: &str) -> bool {
        let Some(bytes) = unhex(state) else { return false };
        self.mac(mailbox).verify_slice(&bytes).is_ok()
    }

    fn mac(&self, mailbox: &MailboxId) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(mailbox.as_str().as_bytes());
        mac
    }
}

impl fmt::Debug for ClientStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientStates(..)")
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// Keeps the subscriptions of one connection.
#[derive(Clone)]
pub struct SubscriptionListener {
    pub(super) connection: ConnectionId,
    pub(super) settings: SubscriptionSettings,
    pub(super) client: Arc<GraphClient>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) enrolments: watch::Receiver<Vec<EnrolmentRow>>,
    pub(super) states: ClientStates,
    pub(super) nudges: Nudges,
    pub(super) store: Arc<dyn Store>,
}

impl fmt::Debug for SubscriptionListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionListener")
            .field("connection", &self.connection)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What is known of one mailbox's subscription.
#[derive(Debug, Clone)]
struct Kept {
    /// Graph's id; none while there is no live one.
    id: Option<String>,
    /// When to act next.
    due: DateTime<Utc>,
    /// Failures since the last success.
    failures: u32,
    /// Why the mailbox must be read as a whole once there is a subscription.
    owes: Option<SignalCause>,
}

/// What is to be done for one mailbox now.
#[derive(Debug, Clone)]
struct Work {
    mailbox: MailboxId,
    kept: Kept,
}

#[async_trait]
impl Listener for SubscriptionListener {
    fn name(&self) -> String {
        "graph_subscriptions".to_owned()
    }

    async fn run(self: Box<Self>, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), ListenError> {
        let keeper = *self;
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            result = keeper.keep(&out) => result,
        }
    }
}

/// Waits for nudges: from the listener of this process, or, where instances share the work, from any of theirs.
async fn next_nudges(nudges: &Nudges, store: &dyn Store, connection: &ConnectionId) -> BTreeMap<MailboxId, Nudge> {
    if !store.is_shared() {
        return nudges.take().await;
    }
    loop {
        tokio::time::sleep(LOOK_FOR_NUDGES).await;
        match store.take_nudges(connection).await {
            Ok(left) if !left.is_empty() => {
                let nudge = |gone| if gone { Nudge::Recreate } else { Nudge::Renew };
                return left.into_iter().map(|(mailbox, gone)| (mailbox, nudge(gone))).collect();
            }
            Ok(_) => {}
            Err(error) => warn!(error = %error, "cannot look for word from other instances"),
        }
    }
}

impl SubscriptionListener {
    async fn keep(mut self, out: &mpsc::Sender<Batch>) -> Result<(), ListenError> {
        let mut kept = BTreeMap::new();
        let mut watched = true;
        self.reconcile(&mut kept).await?;
        loop {
            self.work(&mut kept, out).await?;
            let next = kept.values().map(|kept: &Kept| kept.due).min();
            let clock = Arc::clone(&self.clock);
            let timer = async move {
                match next {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                changed = self.enrolments.changed(), if watched => {
                    // Once nobody can change them any more, the timers go on alone.
                    watched = changed.is_ok();
                    self.reconcile(&mut kept).await?;
                }
                nudges = next_nudges(&self.nudges, &*self.store, &self.connection) => {
                    for (mailbox, nudge) in nudges {
                        if let Some(kept) = kept.get_mut(&mailbox) {
                            kept.due = self.clock.now();
                            if nudge == Nudge::Recreate {
                                // Renewing finds that it is gone. The listener has signalled the gap already; this
                                // one comes after the new subscription and covers what happened in between.
                                kept.owes.get_or_insert(SignalCause::Gap);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Brings what is kept in line with the enrolments: looks for live subscriptions of new mailboxes, ends those of
    /// mailboxes that are no longer enrolled.
    async fn reconcile(&self, kept: &mut BTreeMap<MailboxId, Kept>) -> Result<(), ListenError> {
        let rows: Vec<(MailboxId, bool)> = {
            let rows = self.enrolments.borrow();
            rows.iter().map(|row| (row.enrolment.mailbox.clone(), row.first_round_done)).collect()
        };
        let enrolled: BTreeSet<&MailboxId> = rows.iter().map(|(mailbox, _)| mailbox).collect();
        let gone: Vec<MailboxId> = kept.keys().filter(|mailbox| !enrolled.contains(mailbox)).cloned().collect();
        for mailbox in &gone {
            kept.remove(mailbox);
        }
        let new: Vec<&(MailboxId, bool)> = rows.iter().filter(|(mailbox, _)| !kept.contains_key(mailbox)).collect();
        if new.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let stored = self.stored().await?;
        let live = match self.live().await {
            Ok(live) => live,
            Err(error) => return Err(ListenError::Passing(error.to_string())),
        };
        let now = self.clock.now();
        for (mailbox, first_round_done) in new {
            let known = stored.iter().any(|row| row.mailbox == *mailbox);
            let reusable = live.iter().find(|subscription| self.is_reusable(subscription, mailbox, &stored, now));
            let owes = match (reusable, known) {
                _ if !first_round_done => Some(SignalCause::Enrolment),
                (Some(_), true) => None,
                (Some(_) | None, _) => Some(SignalCause::Gap),
            };
            let due = match (reusable, owes) {
                (Some(subscription), None) => renewal(now, subscription.expiration_date_time),
                _ => now,
            };
            kept.insert(
                mailbox.clone(),
                Kept { id: reusable.map(|subscription| subscription.id.clone()), due, failures: 0, owes },
            );
        }
        self.end_leftovers(&live, &stored, kept).await;
        Ok(())
    }

    /// Ends subscriptions that lead to us and are kept for nobody.
    async fn end_leftovers(&self, live: &[Subscription], stored: &[SubscriptionRow], kept: &BTreeMap<MailboxId, Kept>) {
        let used: BTreeSet<&str> = kept.values().filter_map(|kept| kept.id.as_deref()).collect();
        for subscription in live.iter().filter(|subscription| !used.contains(subscription.id.as_str())) {
            let ours = subscription.notification_url.as_deref() == Some(&self.settings.notification_url)
                || stored.iter().any(|row| row.id == subscription.id);
            if ours && let Err(error) = self.end(&subscription.id).await {
                warn!(error.code = error.code, error = %error, "could not end a subscription that is no longer used");
            }
        }
        for row in stored.iter().filter(|row| !used.contains(row.id.as_str())) {
            let forgotten = self.store.drop_subscription(&self.connection, &row.id).await;
            if let Err(error) = forgotten {
                warn!(error = %error, "could not forget a subscription");
            }
        }
    }

    fn is_reusable(
        &self,
        subscription: &Subscription,
        mailbox: &MailboxId,
        stored: &[SubscriptionRow],
        now: DateTime<Utc>,
    ) -> bool {
        let right_place = subscription.notification_url.as_deref() == Some(&self.settings.notification_url)
            && is_for(subscription, mailbox);
        let right_secret = match subscription.client_state.as_deref() {
            Some(state) => self.states.matches(mailbox, state),
            // Where the answer leaves the secret out, our own record must vouch for it.
            None => stored.iter().any(|row| row.id == subscription.id),
        };
        right_place && right_secret && subscription.expiration_date_time > now
    }

    async fn stored(&self) -> Result<Vec<SubscriptionRow>, ListenError> {
        self.store.subscriptions(&self.connection).await.map_err(|error| ListenError::Passing(error.to_string()))
    }

    /// Lists all subscriptions of the app.
    async fn live(&self) -> Result<Vec<Subscription>, RemoteError> {
        let mut live = Vec::new();
        let mut answer = self.client.send(Call::get(TENANT, "/subscriptions")).await;
        loop {
            let page: Collection = read(&success(answer)?, "list of subscriptions")?;
            for json in &page.value {
                // Subscriptions to other things may look otherwise; they are none of ours.
                live.extend(read::<Subscription>(json, "subscription").ok());
            }
            match page.next_link {
                Some(link) => answer = self.client.follow(TENANT, &link).await,
                None => return Ok(live),
            }
        }
    }

    /// Does everything that is due, a few mailboxes at a time.
    async fn work(&self, kept: &mut BTreeMap<MailboxId, Kept>, out: &mpsc::Sender<Batch>) -> Result<(), ListenError> {
        let now = self.clock.now();
        let due: Vec<Work> = kept
            .iter()
            .filter(|(_, kept)| kept.due <= now)
            .map(|(mailbox, kept)| Work { mailbox: mailbox.clone(), kept: kept.clone() })
            .collect();
        let done: Vec<Result<Work, ListenError>> =
            stream::iter(due).map(|work| self.attend(work, out)).buffer_unordered(AT_ONCE).collect().await;
        for work in done {
            let work = work?;
            kept.insert(work.mailbox, work.kept);
        }
        Ok(())
    }

    /// Renews or makes one mailbox's subscription and pays the signal that it owes.
    async fn attend(&self, mut work: Work, out: &mpsc::Sender<Batch>) -> Result<Work, ListenError> {
        let outcome = match &work.kept.id {
            Some(id) => match self.renew(id).await {
                Ok(Some(subscription)) => Ok(subscription),
                Ok(None) => {
                    warn!(
                        error.code = error::SUBSCRIPTION_LOST,
                        mailbox = %work.mailbox,
                        "a subscription was gone; making another one and reading the mailbox again"
                    );
                    let id = id.clone();
                    self.forget(&id).await;
                    work.kept.id = None;
                    work.kept.owes.get_or_insert(SignalCause::Gap);
                    self.create(&work.mailbox).await
                }
                Err(error) => Err(error),
            },
            None => self.create(&work.mailbox).await,
        };
        let now = self.clock.now();
        match outcome {
            Ok(subscription) => {
                if let Some(cause) = work.kept.owes {
                    self.emit(&work.mailbox, cause, out).await?;
                    work.kept.owes = None;
                }
                self.remember(&work.mailbox, &subscription).await?;
                work.kept.due = renewal(now, subscription.expiration_date_time);
                work.kept.id = Some(subscription.id);
                work.kept.failures = 0;
            }
            Err(error) => {
                work.kept.failures += 1;
                let pause = FIRST_RETRY * (1 << work.kept.failures.min(10).saturating_sub(1));
                work.kept.due = now + pause.min(LONGEST_RETRY);
                warn!(
                    error.code = error::SUBSCRIPTION,
                    cause.code = error.code,
                    error = %error,
                    mailbox = %work.mailbox,
                    attempt = work.kept.failures,
                    "could not subscribe to a mailbox; trying again"
                );
            }
        }
        Ok(work)
    }

    /// Prolongs a subscription; none when Graph does not know it any more.
    async fn renew(&self, id: &str) -> Result<Option<Subscription>, RemoteError> {
        let path = format!("/subscriptions/{}", encode(id));
        let body = json!({ "expirationDateTime": self.expiry() });
        let answer = self.client.send(Call::new(TENANT, Method::PATCH, path).with_body(body)).await;
        let reply = answer.map_err(|failure| failure.error().clone())?;
        if reply.status == 404 {
            return Ok(None);
        }
        read(&reply.success()?, "subscription").map(Some)
    }

    async fn create(&self, mailbox: &MailboxId) -> Result<Subscription, RemoteError> {
        let first = self.try_create(mailbox).await;
        let reply = first.map_err(|failure| failure.error().clone())?;
        let reply = if reply.status == 409 {
            // Another one for the same mailbox exists, made by a run whose record is lost; its secret is unknown.
            for subscription in self.live().await? {
                if is_for(&subscription, mailbox) {
                    self.end(&subscription.id).await?;
                }
            }
            let again = self.try_create(mailbox).await;
            again.map_err(|failure| failure.error().clone())?
        } else {
            reply
        };
        let subscription: Subscription = read(&reply.success()?, "subscription")?;
        info!(mailbox = %mailbox, expires = %subscription.expiration_date_time, "subscribed to a mailbox");
        Ok(subscription)
    }

    async fn try_create(&self, mailbox: &MailboxId) -> Answered {
        let url = &self.settings.notification_url;
        let body = json!({
            "changeType": "created,updated,deleted",
            "notificationUrl": url,
            // Cannot be added later: <https://learn.microsoft.com/graph/change-notifications-lifecycle-events>
            "lifecycleNotificationUrl": url,
            "resource": resource(mailbox),
            "expirationDateTime": self.expiry(),
            "clientState": self.states.of(mailbox),
        });
        self.client.send(Call::new(TENANT, Method::POST, "/subscriptions").with_body(body)).await
    }

    /// Ends a subscription; one that is gone already is fine.
    async fn end(&self, id: &str) -> Result<(), RemoteError> {
        let path = format!("/subscriptions/{}", encode(id));
        let answer = self.client.send(Call::new(TENANT, Method::DELETE, path)).await;
        let reply = answer.map_err(|failure| failure.error().clone())?;
        if reply.status != 404 {
            reply.success()?;
        }
        Ok(())
    }

    fn expiry(&self) -> String {
        (self.clock.now() + self.settings.lifetime).to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    async fn emit(
        &self,
        mailbox: &MailboxId,
        cause: SignalCause,
        out: &mpsc::Sender<Batch>,
    ) -> Result<(), ListenError> {
        let (receipt, done) = Receipt::new();
        let batch = Batch {
            signals: vec![Signal {
                connection: self.connection.clone(),
                side: Side::Outlook,
                target: Target::Mailbox(mailbox.clone()),
                change: Change::Unknown,
                cause,
                version: None,
                facts: None,
                position: None,
                received_at: self.clock.now(),
            }],
            rejects: Vec::new(),
            positions: Vec::new(),
            receipt,
        };
        let not_taken = || ListenError::Passing("intake did not take a batch".to_owned());
        out.send(batch).await.map_err(|_closed| not_taken())?;
        done.await.map_err(|_dropped| not_taken())
    }

    async fn remember(&self, mailbox: &MailboxId, subscription: &Subscription) -> Result<(), ListenError> {
        let row = SubscriptionRow {
            connection: self.connection.clone(),
            id: subscription.id.clone(),
            mailbox: mailbox.clone(),
            notification_url: self.settings.notification_url.clone(),
            expires_at: subscription.expiration_date_time,
        };
        self.store.put_subscription(&row).await.map_err(|error| ListenError::Passing(error.to_string()))
    }

    async fn forget(&self, id: &str) {
        if let Err(error) = self.store.drop_subscription(&self.connection, id).await {
            warn!(error = %error, "could not forget a subscription");
        }
    }
}

fn success(answer: Answered) -> Result<serde_json::Value, RemoteError> {
    match answer {
        Ok(reply) => reply.success(),
        Err(failure) => Err(failure.error().clone()),
    }
}

fn resource(mailbox: &MailboxId) -> String {
    format!("users/{mailbox}/events")
}

fn is_for(subscription: &Subscription, mailbox: &MailboxId) -> bool {
    let resource = subscription.resource.trim_matches('/');
    super::wire::event_path(resource).is_some_and(|(user, event)| user == mailbox.as_str() && event.is_none())
}

/// Returns when two thirds of the life that is left are over.
fn renewal(now: DateTime<Utc>, expires: DateTime<Utc>) -> DateTime<Utc> {
    let left = (expires - now).max(TimeDelta::zero());
    now + left / 3 * 2
}

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
