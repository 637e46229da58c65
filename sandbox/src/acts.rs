//! Acts upon the clouds that no switch can name: they strike once, at the moment when they are called for.
//!
//! The control API takes them as `POST /acts/{name}`, the command line as `calbridge-sandbox act NAME`, tests as
//! [`crate::Sandbox::act`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::assembly::{Clouds, UnknownPerson};
use crate::event_hubs::DetachReason;
use crate::graph::Tenant;

/// One act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// Drops every Event Hubs connection without a word.
    CutHub,
    /// Detaches every reader of the hub with `amqp:link:detach-forced`.
    DetachReaders,
    /// Detaches every reader of the hub with `amqp:link:stolen`, as if a reader with a higher epoch had come.
    StealPartitions,
    /// Ends every subscription at once and tells nobody, as one that expired while its renewal was not heard.
    ExpireSubscriptions,
    /// Removes every subscription and says so by `subscriptionRemoved`.
    RemoveSubscriptions,
    /// Says of every subscription that notifications were missed.
    MissNotifications,
    /// Lets every change event so far, and its replay id, count as expired.
    ForgetChangeEvents,
    /// Publishes a gap event of a record: header only.
    Gap {
        /// Salesforce id.
        record: String,
    },
    /// Publishes an overflow event: too many changes in one transaction, no record ids.
    Overflow,
    /// Ends every open Subscribe stream.
    EndStreams,
    /// Archives events: plain queries no longer show them, and a gap event tells of each.
    ArchiveEvents {
        /// Salesforce ids; none means every event that is over.
        #[serde(default)]
        records: Vec<String>,
    },
    /// Purges the recycle bin: `queryAll` no longer shows what was deleted, and no event tells of it.
    PurgeRecycleBin,
    /// Deactivates a person's Salesforce user.
    DeactivateUser {
        /// Address or id.
        person: String,
    },
    /// Activates a person's Salesforce user again.
    ActivateUser {
        /// Address or id.
        person: String,
    },
    /// Takes a person's Exchange licence: Graph no longer finds the mailbox.
    TakeLicence {
        /// Address or id.
        person: String,
    },
    /// Gives a person's Exchange licence back: the mailbox is as it was.
    GiveLicence {
        /// Address or id.
        person: String,
    },
    /// Ends all faults: switches, random strikes, missing licences, inactive users. Late writes still take effect.
    Calm,
}

impl Act {
    /// Returns its name, as the control API takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CutHub => "cut_hub",
            Self::DetachReaders => "detach_readers",
            Self::StealPartitions => "steal_partitions",
            Self::ExpireSubscriptions => "expire_subscriptions",
            Self::RemoveSubscriptions => "remove_subscriptions",
            Self::MissNotifications => "miss_notifications",
            Self::ForgetChangeEvents => "forget_change_events",
            Self::Gap { .. } => "gap",
            Self::Overflow => "overflow",
            Self::EndStreams => "end_streams",
            Self::ArchiveEvents { .. } => "archive_events",
            Self::PurgeRecycleBin => "purge_recycle_bin",
            Self::DeactivateUser { .. } => "deactivate_user",
            Self::ActivateUser { .. } => "activate_user",
            Self::TakeLicence { .. } => "take_licence",
            Self::GiveLicence { .. } => "give_licence",
            Self::Calm => "calm",
        }
    }
}

impl Clouds {
    /// Does it; returns how many connections, subscriptions, records or people it befell.
    pub(crate) fn act(&self, act: &Act) -> Result<usize, UnknownPerson> {
        let affected = match act {
            Act::CutHub => self.hub_handle.cut_connections(),
            Act::DetachReaders => self.hub_handle.detach_readers(None, DetachReason::DetachForced),
            Act::StealPartitions => self.hub_handle.detach_readers(None, DetachReason::Stolen),
            Act::ExpireSubscriptions => self.tenant.expire_subscriptions(),
            Act::RemoveSubscriptions => self.tenant.each_subscription(Tenant::drop_subscription),
            Act::MissNotifications => self.tenant.each_subscription(Tenant::announce_missed),
            Act::ForgetChangeEvents => {
                self.org.forget_change_events();
                1
            }
            Act::Gap { record } => {
                self.org.publish_gap(Some(record));
                1
            }
            Act::Overflow => {
                self.org.publish_gap(None);
                1
            }
            Act::EndStreams => self.org.end_streams(),
            Act::ArchiveEvents { records } => self.org.archive(&records.iter().cloned().collect::<BTreeSet<_>>()),
            Act::PurgeRecycleBin => self.org.purge_recycle_bin(),
            Act::DeactivateUser { person } => self.activate(person, false)?,
            Act::ActivateUser { person } => self.activate(person, true)?,
            Act::TakeLicence { person } => self.license(person, false)?,
            Act::GiveLicence { person } => self.license(person, true)?,
            Act::Calm => self.calm(),
        };
        self.world.meters.struck(act.name());
        Ok(affected)
    }

    fn activate(&self, person: &str, active: bool) -> Result<usize, UnknownPerson> {
        let person = self.person(person)?;
        self.org.set_active(&person.mailbox().salesforce_user_id, active);
        Ok(1)
    }

    fn license(&self, person: &str, licensed: bool) -> Result<usize, UnknownPerson> {
        let person = self.person(person)?;
        self.tenant.set_licensed(&person.mailbox().user_id, licensed);
        Ok(1)
    }

    fn calm(&self) -> usize {
        self.world.faults.change(crate::faults::Switches::calm);
        for mailbox in &self.endpoints.mailboxes {
            self.org.set_active(&mailbox.salesforce_user_id, true);
            self.tenant.set_licensed(&mailbox.user_id, true);
        }
        self.world.late.waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_is_called_by_its_name_and_has_a_row_in_the_readme() {
        let person = || "ada".to_owned();
        let all = [
            Act::CutHub,
            Act::DetachReaders,
            Act::StealPartitions,
            Act::ExpireSubscriptions,
            Act::RemoveSubscriptions,
            Act::MissNotifications,
            Act::ForgetChangeEvents,
            Act::Gap { record: person() },
            Act::Overflow,
            Act::EndStreams,
            Act::ArchiveEvents { records: Vec::new() },
            Act::PurgeRecycleBin,
            Act::DeactivateUser { person: person() },
            Act::ActivateUser { person: person() },
            Act::TakeLicence { person: person() },
            Act::GiveLicence { person: person() },
            Act::Calm,
        ];
        let readme = include_str!("../README.md");
        for act in all {
            assert_eq!(serde_json::to_value(&act).unwrap()["act"], act.name());
            assert!(readme.contains(&format!("`{}`", act.name())), "`{}` is in sandbox/README.md", act.name());
        }
    }
}
