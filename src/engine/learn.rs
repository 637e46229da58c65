//! Learns what plans must know of the Salesforce org: what writes can stamp, and whose edits are no person's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use calbridge_core::policy::Rules;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ports::{Calendar, RemoteError};
use crate::telemetry::events;

/// Learns at the start and again with each sweep.
pub(super) struct Learner {
    pub(super) salesforce: Arc<dyn Calendar>,
    pub(super) automation_users: Vec<String>,
    pub(super) rules: watch::Sender<Arc<Rules>>,
    /// Set once something is known: before, there is nothing that a lane could safely do.
    pub(super) learned: watch::Sender<bool>,
    pub(super) again_after: Duration,
}

impl Learner {
    /// Runs until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut pause = Duration::from_secs(1);
        loop {
            match self.learn().await {
                Ok(()) => {
                    self.learned.send_replace(true);
                    pause = self.again_after;
                }
                Err(error) => {
                    events::remote_failed(&error);
                    pause = pause.min(Duration::from_secs(30));
                    pause = (pause * 2).min(Duration::from_mins(1));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn learn(&self) -> Result<(), RemoteError> {
        let found = self.salesforce.capabilities().await?;
        let accounts = match self.automation_users.as_slice() {
            [] => Vec::new(),
            names => self.salesforce.accounts(names).await?,
        };
        let missing = accounts.iter().filter(|account| account.is_none()).count();
        if missing > 0 {
            events::automation_users_missing(missing);
        }
        let users: BTreeSet<String> =
            accounts.into_iter().flatten().map(|account| account.id).chain(found.user.clone()).collect();
        self.rules.send_modify(|rules| {
            let policy = &mut Arc::make_mut(rules).policy;
            policy.salesforce_stampable = found.link_field && found.token_field;
            policy.automation_users = users;
        });
        events::capabilities_learned(&found);
        Ok(())
    }
}
