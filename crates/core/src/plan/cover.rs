//! Which notices the reads of a run answer; the others are looked at once more.

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
        let read_anyway = is_read_anyway(run, notice);
        if !read_anyway && matches!(run.case.reads.get(&notice.record), Some(Observed::Unread(_))) {
            let again_at = run.now + run.backoff();
            run.wake(again_at);
            run.reasons.push(Reason::ReadFailed);
            continue;
        }
        let again_at = notice.last_signal_at + settle_read;
        if read_anyway || again_at <= run.now {
            run.covered.insert(notice.record.clone());
        }
        if again_at > run.now {
            run.wake(again_at);
            run.reasons.push(Reason::VersionNotSeen);
        }
    }
}

fn is_read_anyway(run: &Run<'_>, notice: &Notice) -> bool {
    let link = run.link.iter();
    let mut replicas = link.flat_map(|link| Side::BOTH.into_iter().filter_map(|side| link.replicas.get(side).as_ref()));
    replicas.any(|replica| replica.record == notice.record)
}

fn is_visible(run: &Run<'_>, notice: &Notice) -> bool {
    match run.case.reads.get(&notice.record) {
        Some(Observed::Absent(_)) => notice.deleted,
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
