//! The roads by which Graph's notifications come; each turns wire messages into signals by the same reader.

pub mod event_hubs;
pub(super) mod hub_connection;
pub(super) mod notification;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use calbridge_core::ids::MailboxId;
use tokio::sync::Notify;

/// What a lifecycle notification asks the keeper of subscriptions to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nudge {
    /// Renew before the timer does.
    Renew,
    /// It is gone: make another one.
    Recreate,
}

/// Carries lifecycle notifications from the listeners to the keeper of subscriptions; outlives restarts of either.
#[derive(Debug, Clone, Default)]
pub struct Nudges(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_mailbox: Mutex<BTreeMap<MailboxId, Nudge>>,
    arrived: Notify,
}

impl Nudges {
    /// Leaves a nudge; the stronger of two for one mailbox stays.
    pub(super) fn give(&self, mailbox: MailboxId, nudge: Nudge) {
        let mut waiting = self.0.by_mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        let known = waiting.entry(mailbox).or_insert(nudge);
        *known = (*known).max(nudge);
        drop(waiting);
        self.0.arrived.notify_one();
    }

    /// Waits for nudges and takes all there are.
    pub(super) async fn take(&self) -> BTreeMap<MailboxId, Nudge> {
        loop {
            let taken = {
                let mut waiting = self.0.by_mailbox.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *waiting)
            };
            if !taken.is_empty() {
                return taken;
            }
            self.0.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nudges_of_a_mailbox_become_the_strongest_one() {
        let nudges = Nudges::default();
        let mailbox = MailboxId::new("m");
        nudges.give(mailbox.clone(), Nudge::Recreate);
        nudges.give(mailbox.clone(), Nudge::Renew);
        assert_eq!(nudges.take().await, BTreeMap::from([(mailbox, Nudge::Recreate)]));
    }
}
