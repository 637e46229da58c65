//! Work that falls due later: bursts, copies, answers, notifications, renewal reminders.
//!
//! All delays are in sandbox time. The quiet profile does everything at once; the office profile follows what offices see
//! (`facts/graph.md` 1.6): every change is followed by further change keys within 20 s, deliveries repeat, some come late.

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::error::GraphError;
use super::ids::ItemKey;
use super::notifications::Notification;
use super::tenant::{EXCHANGE, State, Tenant};
use super::webhook::{Post, Webhooks};
use crate::actor::Actor;
use crate::faults::Strike;

/// Within how long after a change Exchange's own writes follow, milliseconds.
const BURST: Range<i64> = 200..20_000;
/// How long a notification that keeps its order is on the way, milliseconds.
const DELIVERY: Range<i64> = 50..1_500;
/// How much longer one of those takes that come out of order, milliseconds.
const LATE: Range<i64> = 2_000..20_000;
/// How long after the first a second delivery comes, milliseconds.
const AGAIN: Range<i64> = 100..10_000;
/// How late a notification comes that those after it overtake, milliseconds.
const OVERTAKEN: i64 = 5_000;
/// Notifications due within this time of each other may share a message, milliseconds.
const GATHER: i64 = 400;

/// Something to do later.
#[derive(Debug, Clone)]
pub(crate) enum Due {
    /// A staged write of Exchange that changes nothing but the change key.
    Touch { home: Uuid, key: ItemKey },
    /// The organiser's copy reaches an attendee's mailbox.
    Copy { organizer: Uuid, item: Uuid, attendee: Uuid, renew: bool },
    /// An attendee's answer reaches the organiser's copy.
    Answer { organizer: Uuid, item: Uuid, address: String, answer: &'static str },
    /// A notification is delivered.
    Deliver(Notification),
    /// A webhook is called.
    Call(Post),
}

impl Tenant {
    /// Does the background work until told to stop: delayed changes and notifications, webhooks, expiry of subscriptions.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let webhooks = Arc::new(Webhooks::new());
        let calls = TaskTracker::new();
        loop {
            let woken = self.wake.notified();
            let posts = self.step(self.world.clock.now());
            if !posts.is_empty() {
                // A slow endpoint must not hold up the rest.
                let (tenant, webhooks) = (Arc::clone(&self), Arc::clone(&webhooks));
                calls.spawn(async move {
                    for failed in webhooks.deliver(posts).await {
                        tenant.retry_later(failed);
                    }
                });
                continue;
            }
            let wait = self.next_due().map(|at| at - self.world.clock.now());
            let wait = wait.map(|wait| wait.max(TimeDelta::milliseconds(1)).to_std().unwrap_or_default());
            tokio::select! {
                () = stop.cancelled() => break,
                () = woken => {}
                () = async {
                    match wait {
                        Some(wait) => self.world.clock.sleep(wait).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
        calls.close();
        calls.wait().await;
    }

    /// Does everything that is due at a time; returns the webhooks to call.
    pub(crate) fn step(&self, now: DateTime<Utc>) -> Vec<Post> {
        let mut state = self.lock();
        let mut ready = Vec::new();
        let mut posts = Vec::new();
        while let Some(entry) = state.due.first_entry() {
            // Once one notification is due, those that follow closely share its message.
            let gather = matches!(entry.get(), Due::Deliver(_)) && !ready.is_empty();
            let horizon = if gather { now + TimeDelta::milliseconds(GATHER) } else { now };
            if entry.key().0 > horizon {
                break;
            }
            match entry.remove() {
                Due::Deliver(notification) => ready.push(notification),
                Due::Call(post) => posts.push(post),
                other => self.perform(&mut state, other),
            }
        }
        self.deliver(&mut state, ready);
        self.sweep(&mut state, now);
        posts
    }

    /// Returns when the next thing falls due.
    fn next_due(&self) -> Option<DateTime<Utc>> {
        let state = self.lock();
        let first = state.due.keys().next().map(|(at, _)| *at);
        let subscription = state.subscriptions.values().map(super::subscriptions::Subscription::next_event).min();
        first.into_iter().chain(subscription).min()
    }

    /// Does a thing at once under the quiet profile, and within a span of milliseconds under the office one.
    pub(crate) fn later(&self, state: &mut State, delay: Range<i64>, due: Due) {
        if self.is_office() {
            let delay = self.world.draw(|random| random.random_range(delay));
            self.schedule(state, delay, due);
        } else {
            self.perform(state, due);
        }
    }

    pub(crate) fn schedule(&self, state: &mut State, milliseconds: i64, due: Due) {
        state.due_counter += 1;
        let at = self.world.clock.now() + TimeDelta::milliseconds(milliseconds);
        state.due.insert((at, state.due_counter), due);
        self.wake.notify_one();
    }

    /// Lets Exchange's staged writes follow a change: at least `least`, at most three.
    pub(crate) fn stir(&self, state: &mut State, home: Uuid, key: ItemKey, least: u32) {
        if !self.is_office() {
            return;
        }
        let times = self.world.draw(|random| random.random_range(least..=3));
        for _ in 0..times {
            self.later(state, BURST, Due::Touch { home, key });
        }
    }

    /// Sends a notification on its way: at once, or late, twice and out of order.
    pub(crate) fn dispatch(&self, state: &mut State, notification: Notification) {
        let delay = i64::from(self.world.faults.read().hub_delay_ms)
            + if self.world.strikes(Strike::HubReorder) { OVERTAKEN } else { 0 };
        if !self.is_office() {
            if delay > 0 {
                self.schedule(state, delay, Due::Deliver(notification));
            } else {
                self.deliver(state, vec![notification]);
            }
            return;
        }
        let (first, again) = self.world.draw(|random| {
            let late = if random.random_bool(0.05) { random.random_range(LATE) } else { 0 };
            let first = random.random_range(DELIVERY) + late + delay;
            (first, random.random_bool(0.5).then(|| first + random.random_range(AGAIN)))
        });
        if let Some(again) = again {
            self.schedule(state, again, Due::Deliver(notification.clone()));
        }
        self.schedule(state, first, Due::Deliver(notification));
    }

    fn perform(&self, state: &mut State, due: Due) {
        let outcome = match due {
            Due::Touch { home, key } => {
                let present = state.mailboxes.get(&home).is_some_and(|mailbox| mailbox.items.contains_key(&key));
                let exchange = Actor::Automation(EXCHANGE.to_owned());
                if present { self.edit_once(state, &exchange, home, key, |_| {}) } else { Ok(()) }
            }
            Due::Copy { organizer, item, attendee, renew } => self.follow(state, organizer, item, attendee, renew),
            Due::Answer { organizer, item, address, answer } => {
                self.take_answer(state, organizer, item, &address, answer)
            }
            Due::Deliver(notification) => {
                self.deliver(state, vec![notification]);
                Ok(())
            }
            Due::Call(post) => {
                self.schedule(state, 0, Due::Call(post));
                Ok(())
            }
        };
        if let Err(GraphError { code, .. }) = outcome {
            // Only a mailbox or item that vanished in between; there is nobody to answer to.
            tracing::debug!(error.code = code, "delayed outlook work found nothing to do");
        }
    }

    fn retry_later(&self, post: Post) {
        if let Some(delay) = post.retry_after() {
            let mut state = self.lock();
            self.schedule(&mut state, delay, Due::Call(post.again()));
        }
    }
}
