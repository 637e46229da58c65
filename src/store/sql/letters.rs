//! What waits for a person, dead letters and holds, and what a person says about it.

use calbridge_core::case::Instruction;
use calbridge_core::ids::{LaneId, MailboxId};
use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::SqlStore;
use super::desk::{DEAD_LETTER_COLUMNS, dead_letter};
use super::dialect::{self, Db};
use super::rows::{from_json, get, ms, parse, to_json};
use super::statement::{again, chunks, failed, push_list};
use crate::ports::{OpenLetter, StoreError};

impl SqlStore {
    /// Returns open dead letters, or what is held, newest first, with the names of their meetings.
    pub(super) async fn open_letters(&self, held: bool, limit: usize) -> Result<Vec<OpenLetter>, StoreError> {
        let mut query = QueryBuilder::<Db>::new("SELECT ");
        query.push(DEAD_LETTER_COLUMNS);
        query.push(
            ", dead_letter.lane_id AS letter_lane, correlation.mailbox AS mailbox, \
             correlation.outlook_event_id AS outlook_event_id, correlation.salesforce_id AS salesforce_id, \
             lane.instruction AS instruction FROM dead_letter \
             LEFT JOIN correlation ON correlation.link_id = dead_letter.link_id \
             LEFT JOIN lane ON lane.lane_id = dead_letter.lane_id \
             WHERE dead_letter.closed_at IS NULL AND dead_letter.held = ",
        );
        query.push_bind(i64::from(held));
        query.push(
            " ORDER BY COALESCE(dead_letter.last_at, dead_letter.at) DESC, dead_letter.dead_letter_id DESC LIMIT ",
        );
        query.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(&self.readers).await.map_err(failed)?;
        rows.iter()
            .map(|row| {
                let lane: Option<&str> = get(row, "letter_lane")?;
                let instruction: Option<&str> = get(row, "instruction")?;
                Ok(OpenLetter {
                    id: get(row, "dead_letter_id")?,
                    lane: lane.map(|lane| parse("lane id", lane)).transpose()?,
                    letter: dead_letter(row)?,
                    mailbox: get::<Option<String>>(row, "mailbox")?.map(MailboxId::new),
                    outlook: get(row, "outlook_event_id")?,
                    salesforce: get(row, "salesforce_id")?,
                    instruction: instruction.map(|text| from_json("instruction", text)).transpose()?,
                })
            })
            .collect()
    }

    /// Takes down an instruction for lanes and makes them due; a lane that was taken in by another passes it on.
    ///
    /// Due since ever: whoever says something may have another clock than the engine.
    pub(super) async fn take_down(&self, lanes: &[LaneId], instruction: Instruction) -> Result<u64, StoreError> {
        let mut names: Vec<String> = lanes.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        again(|| self.take_down_now(&names, instruction)).await
    }

    async fn take_down_now(&self, names: &[String], instruction: Instruction) -> Result<u64, StoreError> {
        let mut tx = dialect::begin(&self.writer).await?;
        dialect::hold_lanes(&mut tx, names).await?;
        let mut found = 0;
        for chunk in chunks(names) {
            let mut query = QueryBuilder::<Db>::new("UPDATE lane SET instruction = ");
            query.push_bind(to_json(&instruction));
            query.push(
                ", wake_at = 0 WHERE lane_id IN (SELECT COALESCE(merged_into, lane_id) FROM lane WHERE lane_id IN ",
            );
            push_list(&mut query, chunk);
            query.push(")");
            found += query.build().execute(&mut *tx).await.map_err(failed)?.rows_affected();
            // Nothing but the letter knows which record is meant where the meeting has no link.
            let mut notices = QueryBuilder::<Db>::new(
                "INSERT INTO dirty (connection, record, lane_id, generation, signals, deleted, cause, versions, \
                 positions, first_signal_at, burst_started_at, last_signal_at, due_at, claimed) \
                 SELECT dead_letter.connection, dead_letter.record, COALESCE(lane.merged_into, lane.lane_id), \
                 1, 1, 0, 'operator', '[]', '[]', dead_letter.at, dead_letter.at, dead_letter.at, 0, 0 \
                 FROM dead_letter JOIN lane ON lane.lane_id = dead_letter.lane_id \
                 WHERE dead_letter.closed_at IS NULL AND dead_letter.held = 1 AND dead_letter.link_id IS NULL \
                 AND dead_letter.record IS NOT NULL AND dead_letter.lane_id IN ",
            );
            push_list(&mut notices, chunk);
            notices.push(" ON CONFLICT (connection, record) DO NOTHING");
            notices.build().execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(found)
    }

    /// Closes the dead letter of a message.
    pub(super) async fn close_letter(&self, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE dead_letter SET closed_at = $2 WHERE dead_letter_id = $1 AND lane_id IS NULL AND closed_at IS NULL",
        )
        .bind(id)
        .bind(ms(now))
        .execute(&self.writer)
        .await
        .map_err(failed)?;
        Ok(done.rows_affected() > 0)
    }
}
