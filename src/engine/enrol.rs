//! Enrolment: pairs each configured mailbox with its Salesforce user.

use std::sync::Arc;
use std::time::Duration;

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{ConnectionId, MailboxId, SalesforceId};
use calbridge_core::side::BothSides;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ports::{Account, Calendar, Clock, EnrolmentRow, RemoteError, Store};
use crate::telemetry::events;

/// A mailbox to enrol, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedEnrolment {
    /// Address of the mailbox.
    pub mailbox: String,
    /// Salesforce user name or address; the mailbox's address when not given.
    pub salesforce_user: Option<String>,
}

/// Pairs mailboxes with users and tells everyone.
pub(super) struct Enroller {
    pub(super) connection: ConnectionId,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) calendars: BothSides<Arc<dyn Calendar>>,
    pub(super) wanted: Vec<WantedEnrolment>,
    pub(super) told: watch::Sender<Vec<EnrolmentRow>>,
    /// Set once the stored pairs are told: a lane that ran before would take everybody for unknown, and what is new for
    /// nobody's.
    pub(super) known: watch::Sender<bool>,
    /// Whether this instance is the one that asks the remotes.
    pub(super) ours: watch::Receiver<bool>,
}

/// How often an instance looks at the pairs that another one stores.
const LOOK: Duration = Duration::from_secs(1);

impl Enroller {
    /// Tells the stored pairs at once, then asks the remotes until every wanted mailbox has its pair or is unknown.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !self.tell().await {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
        }
        self.known.send_replace(true);
        while !*self.ours.borrow_and_update() {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => self.tell_news().await,
                changed = self.ours.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
        let mut pause = Duration::from_secs(1);
        loop {
            match self.pair().await {
                Ok(()) => {
                    let _told = self.tell().await;
                    return;
                }
                Err(error) => events::remote_failed(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(Duration::from_mins(1));
        }
    }

    async fn pair(&self) -> Result<(), RemoteError> {
        let addresses: Vec<String> = self.wanted.iter().map(|wanted| wanted.mailbox.clone()).collect();
        let users: Vec<String> = self
            .wanted
            .iter()
            .map(|wanted| wanted.salesforce_user.clone().unwrap_or_else(|| wanted.mailbox.clone()))
            .collect();
        let mailboxes = self.calendars.outlook.accounts(&addresses).await?;
        let users = self.calendars.salesforce.accounts(&users).await?;
        for (index, (mailbox, user)) in mailboxes.into_iter().zip(users).enumerate() {
            match self.row(mailbox, user) {
                Ok(row) => {
                    if let Err(error) = self.store.enrol(&row).await {
                        events::store_failed(&format!("store an enrolment: {error}"));
                    }
                }
                Err(missing) => events::enrolment_refused(index, missing),
            }
        }
        Ok(())
    }

    fn row(&self, mailbox: Option<Account>, user: Option<Account>) -> Result<EnrolmentRow, &'static str> {
        let mailbox = mailbox.ok_or("no such mailbox in the tenant")?;
        let user = user.ok_or("no active Salesforce user with this name or address")?;
        let user = SalesforceId::parse(&user.id).map_err(|_invalid| "Salesforce answered with an invalid user id")?;
        Ok(EnrolmentRow {
            connection: self.connection.clone(),
            enrolment: Enrolment { mailbox: MailboxId::new(mailbox.id), user, enrolled_at: self.clock.now() },
            address: mailbox.name,
            zone: mailbox.zone.unwrap_or_else(|| "UTC".to_owned()),
            first_round_done: false,
        })
    }

    /// Tells what another instance stored since we looked.
    async fn tell_news(&self) {
        match self.store.enrolments(&self.connection).await {
            Ok(rows) if *self.told.borrow() != rows => {
                events::enrolled(rows.len());
                self.told.send_replace(rows);
            }
            Ok(_) => {}
            Err(error) => events::store_failed(&format!("read enrolments: {error}")),
        }
    }

    /// Tells the stored pairs; returns whether they could be read.
    async fn tell(&self) -> bool {
        match self.store.enrolments(&self.connection).await {
            Ok(rows) => {
                events::enrolled(rows.len());
                self.told.send_replace(rows);
                true
            }
            Err(error) => {
                events::store_failed(&format!("read enrolments: {error}"));
                false
            }
        }
    }
}
