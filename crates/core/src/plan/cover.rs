//! Which notices the reads of a run answer; the others are looked at once more.

use chrono::{DateTime, Utc};

use super::run::Run;
use crate::case::Notice;
use crate::observed::Observed;
use crate::reason::Reason;
use crate::side::Side;
use crate::signal::Version;

/// Marks notices as covered and asks for one more read where a notified version was not visible yet.
///
/// A read may be served from a replica that lags behind the notification, so "read after the signal" proves nothing
/// until some time has passed. A linked meeting's two records are read again through the lane's timer: by then every
/// version that was notified before is visible. Any other record stays dirty instead, because nothing else would lead to it:
/// one without a link, or a copy of the meeting in another mailbox, which may be the organiser's.
pub(super) fn cover(run: &mut Run<'_>) {
    let settle_read = run.rules.policy.timers.settle_read;
    for notice in &run.case.notices {
        if is_visible(run, notice) {
            run.covered.insert(notice.record.clone());
            continue;
        }
        let again_at = notice.last_signal_at + settle_read;
        let read_anyway = look_again(run, notice, again_at);
        if !read_anyway && matches!(run.case.reads.get(&notice.record), Some(Observed::Unread(_))) {
            let again_at = run.now + run.backoff();
            run.wake(again_at);
            run.reasons.push(Reason::ReadFailed);
            continue;
        }
        if read_anyway || again_at <= run.now {
            run.covered.insert(notice.record.clone());
        }
        if again_at > run.now {
            run.wake(again_at);
            run.reasons.push(Reason::VersionNotSeen);
        }
    }
}

/// Lets a linked record remember when it must be read once more; false where the link has no such record.
fn look_again(run: &mut Run<'_>, notice: &Notice, at: DateTime<Utc>) -> bool {
    let Some(link) = &mut run.link else { return false };
    let replica = link.replicas.get_mut(notice.record.side()).as_mut();
    let Some(replica) = replica.filter(|replica| replica.record == notice.record) else { return false };
    replica.look_at = replica.look_at.max(Some(at));
    true
}

/// Asks for another run where a linked record must be read once more: a run in between does not stand for that.
pub(super) fn remember(run: &mut Run<'_>) {
    let now = run.now;
    let Some(link) = &mut run.link else { return };
    let replicas = Side::BOTH.into_iter().filter_map(|side| link.replicas.get(side).as_ref());
    let next = replicas.filter_map(|replica| replica.look_at).filter(|at| *at > now).min();
    for side in Side::BOTH {
        if let Some(replica) = link.replicas.get_mut(side) {
            replica.look_at = replica.look_at.filter(|at| *at > now);
        }
    }
    if let Some(at) = next {
        run.wake(at);
    }
}

fn is_visible(run: &Run<'_>, notice: &Notice) -> bool {
    match run.case.reads.get(&notice.record) {
        // Of two changes, the other one may have brought the record back after its deletion.
        Some(Observed::Absent(_)) => notice.deleted && notice.versions.len() < 2,
        Some(Observed::Unread(_)) | None => false,
        Some(Observed::Present(snapshot)) => {
            !notice.deleted && notice.versions.iter().all(|version| is_covered(run, version, &snapshot.version))
        }
    }
}

fn is_covered(run: &Run<'_>, notified: &Version, read: &Version) -> bool {
    if let (Version::Modstamp(notified), Version::Modstamp(read)) = (notified, read) {
        return read >= notified;
    }
    let replica = run.link.as_ref().and_then(|link| link.replicas.outlook.as_ref());
    notified == read || replica.is_some_and(|replica| replica.superseded.contains(notified))
}
