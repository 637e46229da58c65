//! Lanes: who works on which meeting, for how long, under which fence.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use calbridge_core::case::{Fact, Instruction};
use calbridge_core::ids::{ConnectionId, LaneId, RecordId};
use calbridge_core::link::Link;
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, QueryBuilder};

use super::SqlStore;
use super::dialect::{self, Connection, Pool, database_now};
use super::rows::{self, DIRTY_COLUMNS, LINK_COLUMNS, get, instant, ms, parse};
use super::statement::{again, chunks, failed, push_list, span_ms};
use crate::ports::{Claim, DirtyRow, Fence, StoreError};

/// Lanes that are due and that nobody holds: a record's window closed, a wake-up came, or a worker died holding it.
const DUE_LANES: &str = "SELECT lane.lane_id FROM lane JOIN (SELECT due.lane_id, MIN(due.due_at) AS first_due FROM ( \
         SELECT lane_id, due_at FROM dirty WHERE due_at <= $1 \
         UNION ALL SELECT lane_id, wake_at FROM lane WHERE wake_at <= $1 \
         UNION ALL SELECT lane_id, 0 FROM lane WHERE owner <> '' AND lease_until <= $2) AS due GROUP BY due.lane_id \
     ) AS waiting ON waiting.lane_id = lane.lane_id \
     WHERE lane.lease_until <= $2 ORDER BY waiting.first_due LIMIT $3";

/// An abandoned lane counts as due for so long: it need not wait for company.
const OVERDUE: Duration = Duration::from_mins(1);

impl SqlStore {
    /// Takes due lanes, longest waiting first.
    pub(super) async fn claim_due(
        &self,
        owner: &str,
        now: DateTime<Utc>,
        lease_for: Duration,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        if due_lanes(&mut reader, "", now, 1).await?.is_empty() {
            return Ok(Vec::new());
        }
        drop(reader);
        again(|| self.claim_now(owner, now, lease_for, limit)).await
    }

    async fn claim_now(
        &self,
        owner: &str,
        now: DateTime<Utc>,
        lease_for: Duration,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        let mut tx = dialect::begin(&self.writer).await?;
        let lanes = due_lanes(&mut tx, dialect::TAKE_LANES, now, limit).await?;
        let claims = self.take(&mut tx, &lanes, owner, lease_for).await?;
        tx.commit().await.map_err(failed)?;
        Ok(claims)
    }

    /// Puts lanes under a new fence and reads all that waits in them; order kept.
    pub(super) async fn take(
        &self,
        connection: &mut Connection,
        lanes: &[String],
        owner: &str,
        lease_for: Duration,
    ) -> Result<Vec<Claim>, StoreError> {
        let lease_until = database_now(connection).await?.saturating_add(span_ms(lease_for));
        let mut fences: HashMap<LaneId, (ConnectionId, i64, u32, Option<Instruction>)> = HashMap::new();
        let mut notices: HashMap<LaneId, Vec<DirtyRow>> = HashMap::new();
        let mut links: HashMap<LaneId, Link> = HashMap::new();
        let mut facts: HashMap<LaneId, Vec<Fact>> = HashMap::new();
        for chunk in chunks(lanes) {
            let mut query = QueryBuilder::new("UPDATE lane SET fence = fence + 1, owner = ");
            query.push_bind(owner.to_owned());
            query.push(", lease_until = ");
            query.push_bind(lease_until);
            query.push(" WHERE lane_id IN ");
            push_list(&mut query, chunk);
            query.push(" RETURNING lane_id, connection, fence, tries, instruction");
            for row in query.build().fetch_all(&mut *connection).await.map_err(failed)? {
                let tries = u32::try_from(get::<i64>(&row, "tries")?).unwrap_or(u32::MAX);
                let instruction: Option<&str> = get(&row, "instruction")?;
                let instruction = instruction.map(|text| rows::from_json("instruction", text)).transpose()?;
                let held = (rows::connection(&row)?, get(&row, "fence")?, tries, instruction);
                fences.insert(parse("lane id", get(&row, "lane_id")?)?, held);
            }

            let mut query = QueryBuilder::new("UPDATE dirty SET claimed = 1 WHERE lane_id IN ");
            push_list(&mut query, chunk);
            query.push(" RETURNING ");
            query.push(DIRTY_COLUMNS.replace("dirty.", ""));
            for row in query.build().fetch_all(&mut *connection).await.map_err(failed)? {
                let (lane, dirty) = rows::dirty_row(&row)?;
                notices.entry(lane).or_default().push(dirty);
            }

            for (lane, link) in self.links_of(&mut *connection, chunk).await? {
                links.entry(lane).or_insert(link);
            }

            for (lane, fact) in self.facts_of(&mut *connection, chunk).await? {
                facts.entry(lane).or_default().push(fact);
            }
        }
        let mut claims = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let lane: LaneId = parse("lane id", lane)?;
            let Some((connection, number, tries, instruction)) = fences.remove(&lane) else {
                continue;
            };
            let mut notices = notices.remove(&lane).unwrap_or_default();
            notices.sort_by(|a, b| a.notice.record.cmp(&b.notice.record));
            let facts = facts.remove(&lane).unwrap_or_default();
            let fence = Fence { lane, number };
            claims.push(Claim { fence, connection, notices, facts, link: links.remove(&lane), tries, instruction });
        }
        Ok(claims)
    }

    /// Reads the links of lanes; where a lane has several generations, the one in force comes first.
    pub(super) async fn links_of<T: AsRef<str>>(
        &self,
        connection: &mut Connection,
        lanes: &[T],
    ) -> Result<Vec<(LaneId, Link)>, StoreError> {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(LINK_COLUMNS);
        query.push(
            " FROM correlation LEFT JOIN data_key ON data_key.key_id = correlation.key_id \
             WHERE correlation.lane_id IN ",
        );
        push_list(&mut query, lanes);
        query.push(
            " ORDER BY CASE correlation.state WHEN 'tombstone' THEN 1 ELSE 0 END, correlation.generation DESC, \
             correlation.created_at DESC",
        );
        let found = query.build().fetch_all(connection).await.map_err(failed)?;
        found.iter().map(|row| rows::link(row, &self.sealer)).collect()
    }

    /// Finds those of the records that some link names as one of its sides.
    pub(super) async fn linked_records(
        &self,
        connection: &ConnectionId,
        records: &[RecordId],
    ) -> Result<Vec<RecordId>, StoreError> {
        let keys: Vec<String> = records.iter().map(RecordId::key).collect();
        let mut known = BTreeSet::new();
        for column in ["outlook_record", "salesforce_record"] {
            for chunk in chunks(&keys) {
                let mut query = QueryBuilder::new("SELECT ");
                query.push(column).push(" AS record FROM correlation WHERE connection = ");
                query.push_bind(connection.as_str().to_owned());
                query.push(" AND ").push(column).push(" IN ");
                push_list(&mut query, chunk);
                for row in query.build().fetch_all(&self.readers).await.map_err(failed)? {
                    known.insert(get::<String>(&row, "record")?);
                }
            }
        }
        Ok(records.iter().filter(|record| known.contains(&record.key())).cloned().collect())
    }

    /// Returns when the next lane that nobody holds becomes due.
    pub(super) async fn first_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        let database_now = database_now(&mut reader).await?;
        let row = sqlx::query(
            "SELECT \
               (SELECT dirty.due_at FROM dirty JOIN lane ON lane.lane_id = dirty.lane_id \
                WHERE lane.lease_until <= $1 ORDER BY dirty.due_at LIMIT 1) AS due_at, \
               (SELECT wake_at FROM lane WHERE wake_at IS NOT NULL AND lease_until <= $1 \
                ORDER BY wake_at LIMIT 1) AS wake_at, \
               (SELECT COUNT(*) FROM lane WHERE owner <> '' AND lease_until <= $1) AS abandoned",
        )
        .bind(database_now)
        .fetch_one(&mut *reader)
        .await
        .map_err(failed)?;
        let abandoned = get::<i64>(&row, "abandoned")? != 0;
        let abandoned = abandoned.then(|| ms(self.clock.now()) - span_ms(OVERDUE));
        let times = [get(&row, "due_at")?, get(&row, "wake_at")?, abandoned];
        times.into_iter().flatten().min().map(instant).transpose()
    }

    /// Prolongs leases; returns those whose lane has a newer fence or was given back.
    pub(super) async fn renew_leases(&self, fences: &[Fence], lease_for: Duration) -> Result<Vec<Fence>, StoreError> {
        again(|| self.renew_now(fences, lease_for)).await
    }

    async fn renew_now(&self, fences: &[Fence], lease_for: Duration) -> Result<Vec<Fence>, StoreError> {
        let mut tx = dialect::begin(&self.writer).await?;
        let lanes: Vec<String> = fences.iter().map(|fence| fence.lane.to_string()).collect();
        dialect::hold_lanes(&mut tx, &lanes).await?;
        let lease_until = database_now(&mut tx).await?.saturating_add(span_ms(lease_for));
        let mut lost = Vec::new();
        for fence in fences {
            let renewed =
                sqlx::query("UPDATE lane SET lease_until = $1 WHERE lane_id = $2 AND fence = $3 AND owner <> ''")
                    .bind(lease_until)
                    .bind(fence.lane.to_string())
                    .bind(fence.number)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
            if renewed.rows_affected() == 0 {
                lost.push(*fence);
            }
        }
        tx.commit().await.map_err(failed)?;
        Ok(lost)
    }

    /// Returns the pool for reading.
    pub(super) fn readers(&self) -> &Pool {
        &self.readers
    }
}

async fn due_lanes(
    connection: &mut Connection,
    locking: &'static str,
    now: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let database_now = database_now(connection).await?;
    let statement = format!("{DUE_LANES}{locking}");
    sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(ms(now))
        .bind(database_now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(failed)
}
