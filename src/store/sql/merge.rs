//! Lanes that turn out to be one meeting become one lane, before any intent.
//!
//! A lane that was taken in keeps its row, pointing at the one that took it: history stays where it was written, and
//! trace follows the pointer.

use std::collections::BTreeMap;
use std::time::Duration;

use calbridge_core::ids::{ConnectionId, LaneId};
use calbridge_core::plan::Alias;
use sqlx::QueryBuilder;

use super::SqlStore;
use super::dialect::{self, Connection, Db, database_now};
use super::rows::{get, name_parts, parse, stored_name};
use super::statement::{again, chunks, failed, moved};
use crate::ports::{Claim, Joined, StoreError};

/// Another lane that knows one of our names.
struct Other {
    lane: LaneId,
    leased: bool,
    linked: bool,
}

impl SqlStore {
    /// Registers names for a claimed lane and brings it together with lanes that know one of them already.
    ///
    /// Names are registered at once, so that of two workers that find the same new name only one goes on alone.
    pub(super) async fn join_lanes(
        &self,
        claim: &Claim,
        aliases: &[Alias],
        owner: &str,
        lease_for: Duration,
    ) -> Result<Joined, StoreError> {
        again(|| self.join_now(claim, aliases, owner, lease_for)).await
    }

    async fn join_now(
        &self,
        claim: &Claim,
        aliases: &[Alias],
        owner: &str,
        lease_for: Duration,
    ) -> Result<Joined, StoreError> {
        let ours = claim.fence.lane;
        let mut tx = dialect::begin(&self.writer).await?;
        let mut query = QueryBuilder::<Db>::new("SELECT lane_id FROM lane WHERE lane_id = ");
        query.push_bind(ours.to_string()).push(" AND fence = ").push_bind(claim.fence.number);
        query.push(" AND owner <> ''").push(dialect::HOLD_ROW);
        if query.build().fetch_optional(&mut *tx).await.map_err(failed)?.is_none() {
            return Err(StoreError::Fenced);
        }
        if dialect::MANY_WRITERS {
            let names: Vec<_> = aliases.iter().map(|alias| (&claim.connection, name_parts(alias))).collect();
            dialect::hold_new_names(&mut tx, &names).await?;
        }
        register(&mut tx, &claim.connection, aliases, ours).await?;
        let others = others(&mut tx, &claim.connection, aliases, ours).await?;
        if others.iter().any(|other| other.leased) {
            return Ok(Joined::Busy);
        }
        let we_are_linked = !self.links_of(&mut tx, &[ours.to_string()]).await?.is_empty();
        // One link stays one lane: two links that share a name are a matter for a person, not for a merge.
        let winner = match others.iter().find(|other| other.linked) {
            Some(linked) if !we_are_linked => linked.lane,
            _ => ours,
        };
        let losers: Vec<LaneId> = others
            .iter()
            .filter(|other| !other.linked)
            .map(|other| other.lane)
            .chain((winner != ours).then_some(ours))
            .collect();
        if losers.is_empty() {
            tx.commit().await.map_err(failed)?;
            return Ok(Joined::Alone);
        }
        for loser in &losers {
            absorb(&mut tx, *loser, winner).await?;
        }
        let claim = self
            .take(&mut tx, &[winner.to_string()], owner, lease_for)
            .await?
            .pop()
            .ok_or_else(|| StoreError::Database(format!("lane `{winner}` vanished while it was joined")))?;
        tx.commit().await.map_err(failed)?;
        Ok(Joined::Merged(Box::new(claim)))
    }
}

/// Makes names lead to a lane, except those that lead elsewhere already.
pub(super) async fn register(
    connection: &mut Connection,
    owner: &ConnectionId,
    aliases: &[Alias],
    lane: LaneId,
) -> Result<(), StoreError> {
    for chunk in chunks(aliases) {
        let mut query =
            QueryBuilder::<Db>::new("INSERT INTO lane_alias (connection, kind, value, lane_id, remote_id) ");
        query.push_values(chunk, |mut columns, alias| {
            let (kind, value) = name_parts(alias);
            columns
                .push_bind(owner.as_str().to_owned())
                .push_bind(kind)
                .push_bind(value)
                .push_bind(lane.to_string())
                .push_bind(remote_id(alias));
        });
        query.push(" ON CONFLICT (connection, kind, value) DO NOTHING");
        query.build().execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

/// Takes in lanes that know one of these names, where nobody works on them and they have no link.
///
/// The echo of a creation often comes before its commit and opens a provisional lane for the new record: it ends here.
/// Returns whether somebody works on such a lane right now, so that it is to be taken in a moment later.
pub(super) async fn absorb_provisional(
    connection: &mut Connection,
    owner: &ConnectionId,
    aliases: &[Alias],
    lane: LaneId,
) -> Result<bool, StoreError> {
    let mut busy = false;
    for other in others(connection, owner, aliases, lane).await?.into_iter().filter(|other| !other.linked) {
        if other.leased {
            busy = true;
        } else {
            absorb(connection, other.lane, lane).await?;
        }
    }
    Ok(busy)
}

/// Finds the other lanes that these names lead to, in the order of their ids, and takes them for the transaction.
///
/// # Errors
/// [`StoreError::Contended`] where another transaction has one of them, or moved a name meanwhile: waiting for it while we
/// hold lanes ourselves could be waiting in a circle.
async fn others(
    connection: &mut Connection,
    owner: &ConnectionId,
    aliases: &[Alias],
    lane: LaneId,
) -> Result<Vec<Other>, StoreError> {
    let found = look_for_others(connection, owner, aliases, lane).await?;
    if !dialect::MANY_WRITERS || found.is_empty() {
        return Ok(found);
    }
    let lanes: Vec<LaneId> = found.iter().map(|other| other.lane).collect();
    let free = dialect::hold_free_lanes(connection, &lanes).await?;
    // What was read before the lanes were ours may be out of date.
    let found = look_for_others(connection, owner, aliases, lane).await?;
    if found.iter().all(|other| free.contains(&other.lane)) {
        return Ok(found);
    }
    Err(moved("a lane with the same name"))
}

async fn look_for_others(
    connection: &mut Connection,
    owner: &ConnectionId,
    aliases: &[Alias],
    lane: LaneId,
) -> Result<Vec<Other>, StoreError> {
    let database_now = database_now(connection).await?;
    let mut found = BTreeMap::new();
    for chunk in chunks(aliases) {
        // Joined rather than `IN`: a row value would make SQLite read every alias of the connection.
        let mut query = QueryBuilder::<Db>::new("WITH name (kind, value) AS (");
        query.push_values(chunk, |mut columns, alias| {
            let (kind, value) = name_parts(alias);
            columns.push_bind(kind).push_bind(value);
        });
        query.push(
            ") SELECT DISTINCT lane.lane_id, lane.lease_until, \
             (SELECT COUNT(*) FROM correlation WHERE correlation.lane_id = lane.lane_id) AS linked FROM name \
             JOIN lane_alias ON lane_alias.kind = name.kind AND lane_alias.value = name.value \
             AND lane_alias.connection = ",
        );
        query.push_bind(owner.as_str().to_owned());
        query.push(" JOIN lane ON lane.lane_id = lane_alias.lane_id WHERE lane_alias.lane_id <> ");
        query.push_bind(lane.to_string());
        for row in query.build().fetch_all(&mut *connection).await.map_err(failed)? {
            let other = Other {
                lane: parse("lane id", get(&row, "lane_id")?)?,
                leased: get::<i64>(&row, "lease_until")? > database_now,
                linked: get::<i64>(&row, "linked")? != 0,
            };
            found.insert(other.lane, other);
        }
    }
    Ok(found.into_values().collect())
}

/// Moves everything that waits in or leads to a lane into another one.
async fn absorb(connection: &mut Connection, from: LaneId, into: LaneId) -> Result<(), StoreError> {
    const MOVES: [&str; 5] = [
        "UPDATE dirty SET lane_id = $2 WHERE lane_id = $1",
        "UPDATE lane_alias SET lane_id = $2 WHERE lane_id = $1",
        "UPDATE lane SET merged_into = $2 WHERE merged_into = $1",
        "UPDATE lane SET instruction = COALESCE(instruction, (SELECT instruction FROM lane WHERE lane_id = $1)) \
         WHERE lane_id = $2",
        "UPDATE lane SET merged_into = $2, owner = '', lease_until = 0, wake_at = NULL, fence = fence + 1 \
         WHERE lane_id = $1",
    ];
    for statement in MOVES {
        sqlx::query(statement)
            .bind(from.to_string())
            .bind(into.to_string())
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Returns the part of a name that a person pastes.
fn remote_id(alias: &Alias) -> String {
    match alias {
        Alias::Record(record) => record.remote_id().to_owned(),
        Alias::ICalUid(uid, _) => stored_name(uid),
        Alias::Stamp(link) => link.to_string(),
    }
}
