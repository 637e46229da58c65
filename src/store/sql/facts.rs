//! What change events said about records: kept at intake, given to the run, dropped once no write of ours needs it.
//!
//! A fact outlives the dirty row that came with it: the audit of a write needs every change between the read and the
//! write's own change, however many runs lie between. It is sealed with the key of the meeting's link, or of the lane while
//! there is no link, so that erasing a meeting's values erases these too.

use std::collections::HashMap;

use calbridge_core::case::Fact;
use calbridge_core::ids::{ConnectionId, LaneId, RecordId};
use calbridge_core::signal::{Change, ChangeFact};
use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::SqlStore;
use super::dialect::{Connection, Db};
use super::rows::{get, ms, parse, record, to_json};
use super::statement::{chunks, failed, push_list};
use crate::ports::{DueSignal, StoreError};
use crate::store::seal::DataKey;

/// Name under which facts are sealed.
const CHANGE: &str = "change";

/// A fact on its way into the table.
pub(super) struct Kept<'a> {
    lane: LaneId,
    record: &'a RecordId,
    due: &'a DueSignal,
    facts: &'a ChangeFact,
}

/// Keys by lane, each with the id under which it is stored.
type Keys = HashMap<LaneId, (String, DataKey)>;

impl SqlStore {
    /// Keeps facts in the order of their stream; one that is there already stays as it is.
    pub(super) async fn keep_facts(
        &self,
        connection: &mut Connection,
        kept: &[Kept<'_>],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if kept.is_empty() {
            return Ok(());
        }
        let keys = self.keys_of_lanes(connection, kept, ms(now)).await?;
        for chunk in chunks(kept) {
            let mut sealed = Vec::with_capacity(chunk.len());
            for fact in chunk {
                let (key_id, key) = keys.get(&fact.lane).expect("every lane was given a key");
                sealed.push((fact, key_id, key.seal(CHANGE, key_id, to_json(fact.facts).as_bytes())?));
            }
            let mut query = QueryBuilder::<Db>::new(
                "INSERT INTO change (connection, record, transaction_key, received_at, deleted, key_id, sealed) ",
            );
            query.push_values(sealed, |mut columns, (fact, key_id, body)| {
                let signal = &fact.due.signal;
                columns
                    .push_bind(signal.connection.as_str().to_owned())
                    .push_bind(fact.record.key())
                    .push_bind(fact.facts.transaction.clone())
                    .push_bind(ms(signal.received_at))
                    .push_bind(i64::from(signal.change == Change::Deleted))
                    .push_bind(key_id.clone())
                    .push_bind(body);
            });
            query.push(" ON CONFLICT (connection, record, transaction_key) DO NOTHING");
            query.build().execute(&mut *connection).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Returns the key of each lane: that of its link, else its own, drawn where there is none yet.
    async fn keys_of_lanes(
        &self,
        connection: &mut Connection,
        kept: &[Kept<'_>],
        now: i64,
    ) -> Result<Keys, StoreError> {
        let owners: HashMap<LaneId, &ConnectionId> =
            kept.iter().map(|fact| (fact.lane, &fact.due.signal.connection)).collect();
        let lanes: Vec<String> = owners.keys().map(ToString::to_string).collect();
        let mut keys = Keys::new();
        for chunk in chunks(&lanes) {
            let mut query = QueryBuilder::<Db>::new(
                "SELECT data_key.key_id AS lane_id, data_key.key_id, data_key.wrapped, 0 AS place FROM data_key \
                 WHERE data_key.key_id IN ",
            );
            push_list(&mut query, chunk);
            query.push(
                " UNION ALL SELECT correlation.lane_id, data_key.key_id, data_key.wrapped, \
                 CASE correlation.state WHEN 'tombstone' THEN 1 ELSE 2 END AS place \
                 FROM correlation JOIN data_key ON data_key.key_id = correlation.key_id WHERE correlation.lane_id IN ",
            );
            push_list(&mut query, chunk);
            // The last one stays: the link in force.
            query.push(" ORDER BY place");
            for row in query.build().fetch_all(&mut *connection).await.map_err(failed)? {
                let key_id: String = get(&row, "key_id")?;
                let key = self.sealer.unwrap_data_key(&key_id, get(&row, "wrapped")?)?;
                keys.insert(parse("lane id", get(&row, "lane_id")?)?, (key_id, key));
            }
        }
        let mut drawn = Vec::new();
        for (lane, owner) in owners.into_iter().filter(|(lane, _)| !keys.contains_key(lane)).collect::<Vec<_>>() {
            let key_id = lane.to_string();
            let (key, wrapped) = self.sealer.new_data_key(&key_id)?;
            drawn.push((key_id.clone(), owner.as_str().to_owned(), wrapped));
            keys.insert(lane, (key_id, key));
        }
        for chunk in chunks(&drawn) {
            let mut query = QueryBuilder::<Db>::new("INSERT INTO data_key (key_id, connection, wrapped, created_at) ");
            query.push_values(chunk, |mut columns, (key_id, owner, wrapped)| {
                columns.push_bind(key_id.clone()).push_bind(owner.clone()).push_bind(wrapped.clone()).push_bind(now);
            });
            query.build().execute(&mut *connection).await.map_err(failed)?;
        }
        Ok(keys)
    }

    /// Reads the facts of the records that lead to these lanes, in the order of their stream.
    ///
    /// A fact whose key was erased is left out, also where a new key was drawn for the same meeting since.
    pub(super) async fn facts_of(
        &self,
        connection: &mut Connection,
        lanes: &[String],
    ) -> Result<Vec<(LaneId, Fact)>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT lane_alias.lane_id, change.record, change.deleted, change.key_id, change.sealed, data_key.wrapped \
             FROM lane_alias JOIN change ON change.connection = lane_alias.connection \
             AND change.record = lane_alias.value JOIN data_key ON data_key.key_id = change.key_id \
             WHERE lane_alias.kind = 'record' AND lane_alias.lane_id IN ",
        );
        push_list(&mut query, lanes);
        query.push(" ORDER BY change.sequence");
        let mut found = Vec::new();
        for row in query.build().fetch_all(connection).await.map_err(failed)? {
            let key_id: &str = get(&row, "key_id")?;
            let key = self.sealer.unwrap_data_key(key_id, get(&row, "wrapped")?)?;
            let Ok(plain) = key.open(CHANGE, key_id, get(&row, "sealed")?) else { continue };
            let facts: ChangeFact = serde_json::from_slice(&plain)
                .map_err(|error| super::rows::corrupt("change event", &error.to_string()))?;
            let fact =
                Fact { record: record(get(&row, "record")?)?, deleted: get::<i64>(&row, "deleted")? != 0, facts };
            found.push((parse("lane id", get(&row, "lane_id")?)?, fact));
        }
        Ok(found)
    }
}

/// Drops the facts of a lane's records that came before `from`.
pub(super) async fn forget(
    connection: &mut Connection,
    owner: &ConnectionId,
    lane: LaneId,
    from: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM change WHERE connection = $1 AND received_at < $2 AND record IN \
         (SELECT value FROM lane_alias WHERE connection = $1 AND kind = 'record' AND lane_id = $3)",
    )
    .bind(owner.as_str())
    .bind(ms(from))
    .bind(lane.to_string())
    .execute(connection)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Picks a signal that says something: which mapped fields changed, that a write of ours made it, or that the record went.
pub(super) fn worth_keeping(lane: LaneId, due: &DueSignal) -> Option<Kept<'_>> {
    let facts = due.signal.facts.as_ref()?;
    let says = !facts.changed.is_empty() || facts.token.is_some() || due.signal.change == Change::Deleted;
    says.then_some(Kept { lane, record: &due.record, due, facts })
}
