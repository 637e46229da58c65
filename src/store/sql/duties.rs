//! Duties: what one instance at a time does, divided fairly, taken over when its owner falls silent.
//!
//! Each ask is one short transaction behind a lock of the database, so all instances see the same picture in turn. Shares
//! differ by at most one and change as little as possible: who has more than its share gives back, but only what it no
//! longer runs; who has less takes what nobody has. So a duty rests for a moment when it moves, and is never done twice by
//! instances that heed their leases.

use std::collections::{BTreeMap, BTreeSet};

use calbridge_core::ids::{ConnectionId, MailboxId};

use super::SqlStore;
use super::dialect::{self, Connection, database_now};
use super::statement::{again, failed, span_ms};
use crate::ports::{DUTY_LEASE, StoreError};

/// A kind of duties of a connection, and who asks.
#[derive(Clone, Copy)]
struct Asking<'a> {
    connection: &'a str,
    kind: &'a str,
    instance: &'a str,
}

impl SqlStore {
    /// Renews, gives back and takes duties; returns those that this instance is to do until its lease ends.
    pub(super) async fn share_duties(
        &self,
        connection: &ConnectionId,
        kind: &str,
        duties: &[String],
        running: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        if !dialect::MANY_WRITERS {
            return Ok(duties.iter().cloned().collect());
        }
        let asking = Asking { connection: connection.as_str(), kind, instance: &self.instance };
        again(|| self.share_now(asking, duties, running)).await
    }

    async fn share_now(
        &self,
        asking: Asking<'_>,
        duties: &[String],
        running: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut tx = dialect::begin(&self.writer).await?;
        dialect::hold_duties(&mut tx).await?;
        let now = database_now(&mut tx).await?;
        let until = now.saturating_add(span_ms(DUTY_LEASE));
        let members = members(&mut tx, asking, !duties.is_empty(), now, until).await?;
        let owners = owners(&mut tx, asking, now).await?;

        let mine: Vec<&String> = {
            let held = owners.iter().filter(|(_, owner)| *owner == asking.instance).map(|(name, _)| name);
            // What runs is kept first: it costs nothing to keep it.
            let (first, then): (Vec<_>, Vec<_>) = held.partition(|name| running.contains(*name));
            first.into_iter().chain(then).collect()
        };
        let share = fair_share(&members, &owners, duties.len(), asking.instance);
        let mut ours: BTreeSet<String> =
            mine.iter().filter(|name| duties.contains(name)).take(share).map(|name| (*name).clone()).collect();
        for name in mine.iter().filter(|name| !ours.contains(**name)) {
            // What still runs stays ours until it is over, so that nobody begins before.
            let (owner, lease) = if running.contains(*name) { (asking.instance, until) } else { ("", 0) };
            set_owner(&mut tx, asking, name, owner, lease).await?;
        }
        let free = duties.iter().filter(|name| !owners.contains_key(*name));
        let taken: Vec<String> = free.take(share.saturating_sub(ours.len())).cloned().collect();
        ours.extend(taken);
        for name in &ours {
            set_owner(&mut tx, asking, name, asking.instance, until).await?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(ours)
    }

    /// Leaves word for the instance that keeps the subscriptions; the stronger of two for one mailbox stays.
    pub(super) async fn put_nudge(
        &self,
        connection: &ConnectionId,
        mailbox: &MailboxId,
        gone: bool,
    ) -> Result<(), StoreError> {
        if !dialect::MANY_WRITERS {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO nudge (connection, mailbox, gone) VALUES ($1, $2, $3) ON CONFLICT (connection, mailbox) \
             DO UPDATE SET gone = CASE WHEN nudge.gone = 1 THEN 1 ELSE excluded.gone END",
        )
        .bind(connection.as_str())
        .bind(mailbox.as_str())
        .bind(i64::from(gone))
        .execute(&self.writer)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Takes all that was left.
    pub(super) async fn drain_nudges(&self, connection: &ConnectionId) -> Result<Vec<(MailboxId, bool)>, StoreError> {
        if !dialect::MANY_WRITERS {
            return Ok(Vec::new());
        }
        let rows: Vec<(String, i64)> =
            sqlx::query_as("DELETE FROM nudge WHERE connection = $1 RETURNING mailbox, gone")
                .bind(connection.as_str())
                .fetch_all(&self.writer)
                .await
                .map_err(failed)?;
        Ok(rows.into_iter().map(|(mailbox, gone)| (MailboxId::new(mailbox), gone != 0)).collect())
    }
}

/// Tells the others that we are here, or that we leave; returns who is here.
async fn members(
    connection: &mut Connection,
    asking: Asking<'_>,
    staying: bool,
    now: i64,
    until: i64,
) -> Result<Vec<String>, StoreError> {
    sqlx::query(
        "INSERT INTO duty_member (connection, kind, instance, alive_until) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (connection, kind, instance) DO UPDATE SET alive_until = excluded.alive_until",
    )
    .bind(asking.connection)
    .bind(asking.kind)
    .bind(asking.instance)
    .bind(if staying { until } else { 0 })
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    sqlx::query("DELETE FROM duty_member WHERE connection = $1 AND kind = $2 AND alive_until <= $3")
        .bind(asking.connection)
        .bind(asking.kind)
        .bind(now)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    sqlx::query_scalar("SELECT instance FROM duty_member WHERE connection = $1 AND kind = $2 ORDER BY instance")
        .bind(asking.connection)
        .bind(asking.kind)
        .fetch_all(connection)
        .await
        .map_err(failed)
}

/// Returns who has which duty; what nobody has, or has no longer, is left out.
async fn owners(
    connection: &mut Connection,
    asking: Asking<'_>,
    now: i64,
) -> Result<BTreeMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, owner FROM duty WHERE connection = $1 AND kind = $2 AND owner <> '' AND lease_until > $3",
    )
    .bind(asking.connection)
    .bind(asking.kind)
    .bind(now)
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    Ok(rows.into_iter().collect())
}

async fn set_owner(
    connection: &mut Connection,
    asking: Asking<'_>,
    name: &str,
    owner: &str,
    lease_until: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO duty (connection, kind, name, owner, lease_until, fence) VALUES ($1, $2, $3, $4, $5, 1) \
         ON CONFLICT (connection, kind, name) DO UPDATE SET lease_until = excluded.lease_until, \
         fence = CASE WHEN duty.owner = excluded.owner THEN duty.fence ELSE duty.fence + 1 END, owner = excluded.owner",
    )
    .bind(asking.connection)
    .bind(asking.kind)
    .bind(name)
    .bind(owner)
    .bind(lease_until)
    .execute(connection)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Returns how many duties an instance is to have: an equal part, and where it does not come out even, one more for those
/// that have most already.
fn fair_share(members: &[String], owners: &BTreeMap<String, String>, duties: usize, instance: &str) -> usize {
    let count = members.len().max(1);
    let held = |member: &String| owners.values().filter(|owner| *owner == member).count();
    let mut order: Vec<&String> = members.iter().collect();
    order.sort_by_key(|member| (std::cmp::Reverse(held(member)), (*member).clone()));
    let place = order.iter().position(|member| *member == instance).unwrap_or(count);
    duties / count + usize::from(place < duties % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(members: &[&str], owners: &[(&str, &str)], duties: usize) -> Vec<usize> {
        let owners = owners.iter().map(|(name, owner)| ((*name).to_owned(), (*owner).to_owned())).collect();
        let members: Vec<String> = members.iter().map(|member| (*member).to_owned()).collect();
        members.iter().map(|member| fair_share(&members, &owners, duties, member)).collect()
    }

    #[test]
    fn shares_cover_everything_and_differ_by_one_at_most() {
        assert_eq!(shares(&["a"], &[], 4), [4]);
        assert_eq!(shares(&["a", "b"], &[], 4), [2, 2]);
        assert_eq!(shares(&["a", "b", "c"], &[], 4), [2, 1, 1]);
        assert_eq!(shares(&["a", "b", "c"], &[], 1), [1, 0, 0]);
        for members in [&["a", "b", "c", "d", "e"][..], &["a", "b"], &["a"]] {
            for duties in 0..20 {
                let shares = shares(members, &[], duties);
                assert_eq!(shares.iter().sum::<usize>(), duties);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn who_has_more_keeps_the_one_that_is_over() {
        assert_eq!(shares(&["a", "b"], &[("0", "b"), ("1", "b"), ("2", "b")], 3), [1, 2]);
        assert_eq!(shares(&["a", "b"], &[("listener", "b")], 1), [0, 1], "what runs does not move for nothing");
    }
}
