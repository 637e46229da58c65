//! Settling: takes the answer to a write into the link.

use chrono::{DateTime, TimeDelta, Utc};

use crate::link::{Action, Intent, Link, LinkState};
use crate::observed::{Snapshot, Why};
use crate::plan::Settled;
use crate::policy::Rules;
use crate::reason::Reason;
use crate::side::Side;
use crate::written::{TOO_LATE, WriteResult};

/// Takes in what a remote answered to a write.
///
/// A refusal closes the intent only when the request was the only one ever sent for it: the answer to a repeat says
/// nothing about the first one, which may have taken effect. What stays open is decided by a later read.
pub fn settle(mut link: Link, intent: &Intent, result: &WriteResult, rules: &Rules, now: DateTime<Utc>) -> Settled {
    let only_request = intent.sends == 1;
    let timers = &rules.policy.timers;
    let (reason, wake_at, why) = match result {
        WriteResult::Applied { record, version, snapshot } => {
            close(&mut link, intent);
            link.care.failed_writes = 0;
            link.take_in(intent, record.clone());
            learn(&mut link, intent, version.as_ref(), snapshot.as_deref(), rules);
            if let Action::Delete(_) = intent.action {
                link.state = LinkState::Tombstone { reason: intent.reason, at: now };
            } else if link.intents.get(intent.side.other()).is_none() {
                link.in_step_at = Some(now);
            }
            (Reason::WriteConfirmed, None, None)
        }
        WriteResult::AlreadyExists(why) => (Reason::WriteUnknown, Some(now), Some(why)),
        WriteResult::Conflict(why) | WriteResult::Gone(why) if only_request => {
            close(&mut link, intent);
            (Reason::ChangedUnderneath, Some(now), Some(why))
        }
        WriteResult::Refused(why) if only_request => {
            close(&mut link, intent);
            link.state = LinkState::DeadLetter { reason: Reason::Refused, at: now };
            (Reason::Refused, None, Some(why))
        }
        WriteResult::NotNow(why) if only_request => {
            close(&mut link, intent);
            // What never left says nothing about the meeting, only about this machine.
            link.care.failed_writes = link.care.failed_writes.saturating_add(u32::from(why.code != TOO_LATE));
            (Reason::WriteFailed, Some(now + pause(why, timers.retry_min)), Some(why))
        }
        WriteResult::Conflict(why) | WriteResult::Gone(why) | WriteResult::Refused(why) => {
            (Reason::WriteUnknown, Some(now), Some(why))
        }
        WriteResult::NotNow(why) | WriteResult::Unknown(why) => {
            (Reason::WriteUnknown, Some(now + pause(why, timers.retry_min)), Some(why))
        }
    };
    let unspent = !matches!(reason, Reason::WriteConfirmed | Reason::WriteUnknown);
    Settled { link, reason, wake_at, error: why.map(|why| why.code.clone()), token: intent.token, unspent }
}

fn close(link: &mut Link, intent: &Intent) {
    *link.intents.get_mut(intent.side) = None;
}

/// Learns what the answer shows beyond "it worked": the new version, and values as the remote normalised them.
fn learn(
    link: &mut Link,
    intent: &Intent,
    version: Option<&crate::signal::Version>,
    snapshot: Option<&Snapshot>,
    rules: &Rules,
) {
    if let Some(snapshot) = snapshot {
        for rule in rules.mapping.rules().iter().filter(|rule| intent.agreed.contains_key(&rule.name)) {
            let seen = rule.read(intent.side, &snapshot.fields);
            if let Some(base) = link.base.get_mut(&rule.name) {
                match intent.side {
                    Side::Outlook => base.outlook = seen,
                    Side::Salesforce => base.salesforce = seen,
                }
            }
        }
        if let Some(uid) = snapshot.traits.ical_uid.as_ref().filter(|_| intent.side == Side::Outlook) {
            link.ical_uid.clone_from(uid);
        }
    }
    let Some(replica) = link.replicas.get_mut(intent.side) else {
        return;
    };
    if let Some(snapshot) = snapshot {
        replica.advance(snapshot);
        replica.organizer = snapshot.traits.is_organizer;
    } else if let Some(version) = version {
        replica.note_version(version.clone());
    }
}

/// Returns how long to wait before looking again.
fn pause(why: &Why, least: TimeDelta) -> TimeDelta {
    let asked = why.retry_after_ms.and_then(|ms| i64::try_from(ms).ok()).map(TimeDelta::milliseconds);
    asked.unwrap_or_default().max(least)
}
