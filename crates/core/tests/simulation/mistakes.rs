//! What mutants do to what the core is given: links that remember too little or too much, and reads that are taken wrongly.

use calbridge_core::ids::RecordId;
use calbridge_core::link::{Action, Approval, Link, LinkState, Replica, Wish};
use calbridge_core::observed::{Evidence, Observed};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use chrono::DateTime;

use crate::mutants::Mutant;
use crate::world::USERS;

impl Mutant {
    /// Changes what a link remembers; `approved` where a person approved anything at any time.
    pub(crate) fn misremember(self, link: &mut Link, approved: bool) {
        match self {
            Self::MailsAtOnce => link.care.mailed_at = None,
            Self::ForgetsUnexplained => link.care.unexplained.clear(),
            Self::ApprovesForEver if approved => {
                link.care.approved = Some(Approval { reason: Reason::MailNeedsPerson, wish: Wish::Mail });
            }
            Self::RestoresByStaleRead => {
                if let LinkState::Tombstone { at, .. } = &mut link.state {
                    *at = DateTime::UNIX_EPOCH;
                    for side in Side::BOTH {
                        if let Some(replica) = link.replicas.get_mut(side) {
                            *replica = Replica::new(replica.record.clone());
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Changes what a read seems to say.
    pub(crate) fn misread(self, link: Option<&Link>, record: &RecordId, observed: &mut Observed) {
        if self == Self::BelievesOneMiss && *observed == Observed::Absent(Evidence::NotFound) {
            *observed = Observed::Absent(Evidence::Deleted);
        }
        let Observed::Present(snapshot) = observed else { return };
        match (self, link) {
            (Self::JudgesByValue, Some(link)) => {
                if let Some(intent) = link.intents.get(record.side())
                    && let (Action::Update(_), Some(stamp)) = (&intent.action, &mut snapshot.stamp)
                {
                    let mut written = intent.fields.iter();
                    let looks_written = written.all(|(name, value)| snapshot.fields.get(name) == Some(value));
                    stamp.token = looks_written.then_some(intent.token);
                }
            }
            (Self::TrustsTheBackup, Some(link)) => {
                let replica = link.replicas.get(record.side()).as_ref();
                let ours = snapshot.stamp.as_ref().is_some_and(|stamp| stamp.link == link.id);
                if let Some(replica) = replica.filter(|_| ours) {
                    snapshot.stamp.clone_from(&replica.stamped);
                }
            }
            (Self::MailsWithoutAPerson, _) => snapshot.modified_by = Some(USERS[0].to_owned()),
            _ => {}
        }
    }
}

/// Forgets what confirmed writes of the link made.
pub(crate) fn forget_own_writes(link: &mut Link) {
    for side in Side::BOTH {
        if let Some(replica) = link.replicas.get_mut(side).as_mut().filter(|replica| replica.stamped.is_some()) {
            (replica.modified, replica.stamped) = (None, None);
            replica.superseded.clear();
        }
    }
}
