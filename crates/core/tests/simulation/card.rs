//! The obvious recipe, as a contrast: remember event id and version, ignore own writes by their version, copy all fields.
//!
//! It forgets nothing and is quick. What it lacks is a base to compare with, intents, and doubt about reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use calbridge_core::ids::{LinkId, MailboxId, RecordId, WriteToken};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::observed::{Observed, Snapshot, Stamp};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::Version;
use calbridge_core::value::Fields;
use calbridge_core::written::WriteResult;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::oracle::Account;
use crate::sim::{Engine, Stage};
use crate::world::{FIELDS, MAILBOXES, Message, USERS, field_of};

#[derive(Debug, Default)]
pub(crate) struct Card {
    seen: BTreeSet<(RecordId, Option<Version>)>,
    last_written: BTreeMap<RecordId, Version>,
    partners: BTreeMap<RecordId, RecordId>,
    queue: VecDeque<(RecordId, usize, DateTime<Utc>)>,
    ids: u128,
}

impl Card {
    fn intent(&mut self, side: Side, action: Action, fields: Fields, now: DateTime<Utc>) -> Intent {
        self.ids += 1;
        let (token, link) = (WriteToken::new(Uuid::from_u128(self.ids)), LinkId::new(Uuid::from_u128(self.ids)));
        Intent {
            token,
            link,
            side,
            action,
            fields,
            agreed: BTreeMap::new(),
            replaced: Fields::new(),
            expected: None,
            stamp: Stamp { link, partner: String::new(), token: Some(token) },
            recorded_at: now,
            send_by: now,
            give_up_at: now,
            sends: 1,
            mails: 0,
            unexplained: false,
            reason: Reason::OutlookChanged,
        }
    }

    fn copy(&mut self, stage: &mut Stage, meeting: usize, snapshot: &Snapshot) {
        let side = snapshot.record.side().other();
        let fields = (0..FIELDS.len()).filter_map(|rule| {
            let value = snapshot.fields.get(field_of(rule, side.other()))?;
            Some((field_of(rule, side).to_owned(), value.clone()))
        });
        let home = match side {
            Side::Outlook => Home::Mailbox(MailboxId::new(MAILBOXES[0])),
            Side::Salesforce => Home::Owner(USERS[0].to_owned()),
        };
        let partner = self.partners.get(&snapshot.record).cloned();
        let action = partner.clone().map_or(Action::Create(home), Action::Update);
        let mut intent = self.intent(side, action, fields.collect(), stage.world.now);
        // It asks for no precondition, so the write is never refused for one.
        intent.expected = partner.as_ref().and_then(|id| version_now(stage, id));
        if let WriteResult::Applied { record, .. } = stage.world.apply(&mut stage.dice, meeting, &intent) {
            // The echo may come before the answer does.
            let written = version_now(stage, &record).expect("written just now");
            self.last_written.insert(record.clone(), written);
            self.partners.insert(snapshot.record.clone(), record.clone());
            self.partners.insert(record, snapshot.record.clone());
        }
    }
}

/// The version that a record has by now.
fn version_now(stage: &Stage, record: &RecordId) -> Option<Version> {
    let index = stage.world.find(record)?;
    Some(stage.world.entries[index].now().shown.version.clone())
}

impl Engine for Card {
    fn signal(&mut self, now: DateTime<Utc>, Message { record, meeting, version, .. }: Message) {
        let own = version.is_some() && self.last_written.get(&record) == version.as_ref();
        if self.seen.insert((record.clone(), version)) && !own {
            self.queue.push_back((record, meeting, now));
        }
    }

    fn due(&self) -> Option<DateTime<Utc>> {
        self.queue.front().map(|(.., at)| *at)
    }

    fn knows(&self, _record: &RecordId) -> bool {
        true
    }

    fn run(&mut self, stage: &mut Stage) -> Result<(), String> {
        let Some((record, meeting, _)) = self.queue.pop_front() else { return Ok(()) };
        match stage.world.read(&mut stage.dice, &record) {
            Observed::Present(snapshot) => self.copy(stage, meeting, &snapshot),
            Observed::Absent(_) => {
                if let Some(partner) = self.partners.get(&record).cloned() {
                    let side = partner.side();
                    let mut intent = self.intent(side, Action::Delete(partner.clone()), Fields::new(), stage.world.now);
                    intent.expected = version_now(stage, &partner);
                    stage.world.apply(&mut stage.dice, meeting, &intent);
                }
            }
            Observed::Unread(_) => {}
        }
        stage.note(|_| format!("copied {record}"));
        Ok(())
    }

    fn account(&mut self, _stage: &mut Stage, _meeting: usize) -> Result<Account, String> {
        Ok(Account::default())
    }
}
