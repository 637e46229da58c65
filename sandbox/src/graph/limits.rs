//! Limits of Graph: how many requests an app may make to one mailbox and in all, and how many at once.
//!
//! <https://learn.microsoft.com/en-us/graph/throttling-limits>. Pages disagree whether the four at once are per app and
//! mailbox or per app; here they are per app and mailbox, as the newer ones say. The upload volume (150 MB in 5 minutes) is not
//! modelled. The numbers are switches (`outlook_requests_*`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::error::GraphError;
use crate::faults::Switches;

/// Span in which requests to one mailbox are counted.
const MAILBOX_SPAN: TimeDelta = TimeDelta::minutes(10);
/// Span in which all requests of an app are counted.
const APP_SPAN: TimeDelta = TimeDelta::seconds(10);

/// What apps have asked for lately, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Limits {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    apps: BTreeMap<String, Recent>,
    mailboxes: BTreeMap<(String, Uuid), Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    recent: Recent,
    under_way: u32,
}

/// Times of requests, oldest first.
#[derive(Debug, Default)]
struct Recent(VecDeque<DateTime<Utc>>);

impl Recent {
    /// Counts a request; returns for how long there are too many, itself included.
    ///
    /// Refused requests count too: retrying at once keeps an app out.
    fn count(&mut self, now: DateTime<Utc>, span: TimeDelta, most: u32) -> Option<TimeDelta> {
        while self.0.front().is_some_and(|oldest| *oldest <= now - span) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most == 0 || self.0.len() <= most {
            return None;
        }
        // There is room for one more as soon as fewer than `most` are left.
        self.0.get(self.0.len() - most).map(|last_too_many| *last_too_many + span - now)
    }
}

/// A limit that a request went past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Too many requests to the mailbox at once.
    AtOnce,
    /// Too many requests to the mailbox in ten minutes; time until there is room.
    Mailbox(TimeDelta),
    /// Too many requests of the app in ten seconds; time until there is room.
    App(TimeDelta),
}

impl Past {
    /// Returns the name under which the refusal is counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "graph.mailbox_concurrency",
            Self::Mailbox(_) => "graph.mailbox_requests",
            Self::App(_) => "graph.app_requests",
        }
    }

    /// Makes the answer: 429, always with `Retry-After` in whole seconds.
    pub(super) fn error(self) -> GraphError {
        let seconds = |left: TimeDelta| u64::try_from(left.num_seconds()).unwrap_or_default() + 1;
        let throttled = |message: &str| GraphError::new(429, "ApplicationThrottled", message);
        match self {
            Self::AtOnce => throttled("Application is over its MailboxConcurrency limit.").after(1),
            Self::Mailbox(left) => throttled("Application is over its MailboxRequests limit.").after(seconds(left)),
            Self::App(left) => GraphError::new(429, "TooManyRequests", "Too many requests.").after(seconds(left)),
        }
    }
}

/// The place of a request under way; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    state: Arc<Mutex<State>>,
    key: (String, Uuid),
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(mailbox) = lock(&self.state).mailboxes.get_mut(&self.key) {
            mailbox.under_way = mailbox.under_way.saturating_sub(1);
        }
    }
}

impl Limits {
    /// Counts a request and lets it in, or says which limit it went past; one about no mailbox needs no seat.
    pub(super) fn enter(
        &self,
        app: &str,
        mailbox: Option<Uuid>,
        switches: &Switches,
        now: DateTime<Utc>,
    ) -> Result<Option<Seat>, Past> {
        let mut state = lock(&self.state);
        let over =
            state.apps.entry(app.to_owned()).or_default().count(now, APP_SPAN, switches.outlook_requests_per_app);
        let Some(id) = mailbox else {
            return over.map_or(Ok(None), |left| Err(Past::App(left)));
        };
        let key = (app.to_owned(), id);
        let mailbox = state.mailboxes.entry(key.clone()).or_default();
        let many = mailbox.recent.count(now, MAILBOX_SPAN, switches.outlook_requests_per_mailbox);
        if let Some(left) = over {
            return Err(Past::App(left));
        }
        if let Some(left) = many {
            return Err(Past::Mailbox(left));
        }
        let at_once = switches.outlook_requests_at_once;
        if at_once > 0 && mailbox.under_way >= at_once {
            return Err(Past::AtOnce);
        }
        mailbox.under_way += 1;
        Ok(Some(Seat { state: Arc::clone(&self.state), key }))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no counting panics while holding the lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switches(per_mailbox: u32, at_once: u32, per_app: u32) -> Switches {
        Switches {
            outlook_requests_per_mailbox: per_mailbox,
            outlook_requests_at_once: at_once,
            outlook_requests_per_app: per_app,
            ..Switches::default()
        }
    }

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).unwrap()
    }

    #[test]
    fn requests_past_the_limit_of_ten_minutes_wait_until_enough_are_forgotten() {
        let limits = Limits::default();
        let (mailbox, rules) = (Some(Uuid::from_u128(1)), switches(3, 0, 0));
        let enter = |at| limits.enter("app", mailbox, &rules, at).map(|_seat| ());
        let second = TimeDelta::seconds(1);
        for number in 0..3 {
            assert_eq!(enter(start() + second * number), Ok(()));
        }
        let refused = enter(start() + second * 5);
        assert_eq!(refused, Err(Past::Mailbox(TimeDelta::seconds(596))), "the second of the four must go too");
        assert_eq!(Past::error(refused.unwrap_err()).retry_after, Some(597));
        assert_eq!(enter(start() + TimeDelta::seconds(601)), Ok(()));
        assert_eq!(enter(start() + TimeDelta::seconds(601)), Err(Past::Mailbox(second * 4)), "the refused one counts");
    }

    #[test]
    fn each_mailbox_and_each_app_has_seats_of_its_own() {
        let limits = Limits::default();
        let rules = switches(0, 1, 0);
        let enter = |app: &str, mailbox| limits.enter(app, Some(Uuid::from_u128(mailbox)), &rules, start());
        let seat = enter("a", 1).unwrap();
        assert_eq!(enter("a", 1).unwrap_err(), Past::AtOnce);
        assert!(enter("a", 2).is_ok() && enter("b", 1).is_ok());
        drop(seat);
        assert!(enter("a", 1).is_ok());
    }

    #[test]
    fn an_app_past_its_own_limit_is_refused_for_every_mailbox_and_without_one() {
        let limits = Limits::default();
        let rules = switches(0, 0, 2);
        let enter = |mailbox: Option<u128>| limits.enter("a", mailbox.map(Uuid::from_u128), &rules, start()).is_ok();
        assert!(enter(Some(1)) && enter(Some(2)) && !enter(Some(3)) && !enter(None));
        assert!(limits.enter("b", None, &rules, start()).is_ok());
    }
}
