//! Messages that are no signals: counted by cause, journaled once an hour, a few of them kept for a person.
//!
//! Everything here is bounded, whatever a producer sends: causes come from closed lists, a message that comes again is
//! counted on its dead letter, and of each reason only the newest [`KEPT_LETTERS`] different messages are kept.

use std::collections::{BTreeMap, HashMap};

use calbridge_core::ids::ConnectionId;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::Position;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::SqlStore;
use super::desk::{DEAD_LETTER_COLUMNS, dead_letter};
use super::dialect::{self, Connection};
use super::journal;
use super::rows::{from_name, get, instant, ms, reason, to_json};
use super::statement::failed;
use crate::ports::{DeadLetter, JournalEntry, JournalKind, Reject, RejectCount, StoreError};

/// Different messages of one reason that are kept; the oldest goes when another one comes.
const KEPT_LETTERS: usize = 20;
/// Positions that a journal row names.
const KEPT_POSITIONS: usize = 16;
/// Pause between two journal rows about the same cause, in milliseconds; those in between are counted in the next row.
const JOURNAL_EVERY: i64 = 60 * 60 * 1000;
/// Name under which messages are sealed.
const MESSAGE: &str = "message";

/// What counts as the same cause.
type Cause<'a> = (&'a ConnectionId, Side, &'a str, Reason, &'static str);

/// Of what the newest messages are kept.
type Kind<'a> = (&'a ConnectionId, Side, Reason);

/// Messages of one cause in one batch.
#[derive(Default)]
struct Counted {
    items: i64,
    positions: Vec<Position>,
}

/// Equal messages of one batch.
struct Kept<'a> {
    reject: &'a Reject,
    times: i64,
    /// Place of the newest one in the batch.
    newest: usize,
}

impl SqlStore {
    /// Takes note of messages that are no signals.
    pub(super) async fn record_rejects(
        &self,
        connection: &mut Connection,
        rejects: &[Reject],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if rejects.is_empty() {
            return Ok(());
        }
        dialect::hold_rejects(connection).await?;
        let mut causes: BTreeMap<Cause<'_>, Counted> = BTreeMap::new();
        for reject in rejects {
            let stream = reject.position.as_ref().map_or("", |position| position.stream.as_str());
            let cause = (&reject.connection, reject.side, stream, reject.reason, reject.detail);
            let counted = causes.entry(cause).or_default();
            counted.items += i64::from(reject.items);
            counted.positions.extend(reject.position.clone());
            if counted.positions.len() > KEPT_POSITIONS {
                counted.positions.remove(0);
            }
        }
        for (cause, counted) in causes {
            self.count_cause(connection, cause, counted, now).await?;
        }
        self.keep_messages(connection, rejects, now).await
    }

    async fn count_cause(
        &self,
        connection: &mut Connection,
        (owner, side, stream, reason, detail): Cause<'_>,
        counted: Counted,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (owing, journaled_at): (i64, i64) = sqlx::query_as(
            "INSERT INTO reject (connection, side, stream, reason, detail, messages, unjournaled, journaled_at, \
             first_at, last_at) VALUES ($1, $2, $3, $4, $5, $6, $6, 0, $7, $7) \
             ON CONFLICT (connection, side, stream, reason, detail) DO UPDATE SET \
             messages = reject.messages + excluded.messages, \
             unjournaled = reject.unjournaled + excluded.unjournaled, last_at = excluded.last_at \
             RETURNING unjournaled, journaled_at",
        )
        .bind(owner.as_str())
        .bind(side.name())
        .bind(stream)
        .bind(reason.name())
        .bind(detail)
        .bind(counted.items)
        .bind(ms(now))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        if journaled_at != 0 && ms(now) - journaled_at < JOURNAL_EVERY {
            return Ok(());
        }
        let entry = entry((owner, side, reason, detail), owing, counted.positions, now);
        journal::append(connection, self, None, &[entry]).await?;
        sqlx::query(
            "UPDATE reject SET unjournaled = 0, journaled_at = $6 \
             WHERE connection = $1 AND side = $2 AND stream = $3 AND reason = $4 AND detail = $5",
        )
        .bind(owner.as_str())
        .bind(side.name())
        .bind(stream)
        .bind(reason.name())
        .bind(detail)
        .bind(ms(now))
        .execute(connection)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Keeps the newest different messages of each reason that a person may want to see.
    async fn keep_messages(
        &self,
        connection: &mut Connection,
        rejects: &[Reject],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut by_reason: BTreeMap<Kind<'_>, Vec<(String, Kept<'_>)>> = BTreeMap::new();
        let mut places: HashMap<(Kind<'_>, String), usize> = HashMap::new();
        for (place_in_batch, reject) in rejects.iter().enumerate() {
            // Without its bytes there is nothing to look at: it was one of too many in its batch.
            if !reject.reason.keeps_message() || (reject.raw.is_empty() && reject.size > 0) {
                continue;
            }
            let fingerprint = self.fingerprint(reject);
            let kind = (&reject.connection, reject.side, reject.reason);
            let known = by_reason.entry(kind).or_default();
            let place = *places.entry((kind, fingerprint.clone())).or_insert_with(|| {
                known.push((fingerprint, Kept { reject, times: 0, newest: 0 }));
                known.len() - 1
            });
            known[place].1.times += i64::from(reject.items);
            known[place].1.reject = reject;
            known[place].1.newest = place_in_batch;
        }
        for ((owner, side, reason), mut known) in by_reason {
            // One that keeps coming is not pushed out by those that came once.
            known.sort_by_key(|(_, kept)| kept.newest);
            let skipped = known.len().saturating_sub(KEPT_LETTERS);
            for (fingerprint, kept) in known.into_iter().skip(skipped) {
                self.keep_message(connection, &fingerprint, &kept, now).await?;
            }
            forget_oldest(connection, owner, side, reason).await?;
        }
        Ok(())
    }

    async fn keep_message(
        &self,
        connection: &mut Connection,
        fingerprint: &str,
        Kept { reject, times, .. }: &Kept<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let position = reject.position.as_ref().map(to_json);
        let again = sqlx::query(
            "UPDATE dead_letter SET times = times + $5, last_at = $6, position = $7 \
             WHERE connection = $1 AND side = $2 AND reason = $3 AND fingerprint = $4 AND closed_at IS NULL",
        )
        .bind(reject.connection.as_str())
        .bind(reject.side.name())
        .bind(reject.reason.name())
        .bind(fingerprint)
        .bind(times)
        .bind(ms(now))
        .bind(&position)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
        if again.rows_affected() > 0 {
            return Ok(());
        }
        let id = Uuid::now_v7().to_string();
        let key = journal::data_key(connection, &self.sealer, &reject.connection, &id, ms(now)).await?;
        sqlx::query(
            "INSERT INTO dead_letter (dead_letter_id, connection, side, reason, detail, at, raw, key_id, fingerprint, \
             size, times, last_at, position) VALUES ($1, $2, $3, $4, $5, $6, $7, $1, $8, $9, $10, $6, $11)",
        )
        .bind(&id)
        .bind(reject.connection.as_str())
        .bind(reject.side.name())
        .bind(reject.reason.name())
        .bind(reject.detail)
        .bind(ms(now))
        .bind(key.seal(MESSAGE, &id, &reject.raw)?)
        .bind(fingerprint)
        .bind(i64::try_from(reject.size).unwrap_or(i64::MAX))
        .bind(times)
        .bind(&position)
        .execute(connection)
        .await
        .map_err(failed)?;
        Ok(())
    }

    fn fingerprint(&self, reject: &Reject) -> String {
        self.sealer.fingerprint(&[reject.detail.as_bytes(), &reject.size.to_be_bytes(), &reject.raw])
    }

    /// Opens a kept message.
    pub(super) async fn read_message(&self, id: &str) -> Result<Option<(DeadLetter, Vec<u8>)>, StoreError> {
        let mut query = sqlx::QueryBuilder::new("SELECT ");
        query.push(DEAD_LETTER_COLUMNS);
        query.push(", raw, (SELECT wrapped FROM data_key WHERE data_key.key_id = dead_letter.key_id) AS wrapped");
        query.push(" FROM dead_letter WHERE raw IS NOT NULL AND dead_letter_id = ").push_bind(id.to_owned());
        let Some(row) = query.build().fetch_optional(&self.readers).await.map_err(failed)? else { return Ok(None) };
        let raw = match get::<Option<Vec<u8>>>(&row, "wrapped")? {
            Some(wrapped) => {
                let key = self.sealer.unwrap_data_key(id, &wrapped)?;
                key.open(MESSAGE, id, get(&row, "raw")?)?
            }
            // Its key was deleted, and with it what was sealed.
            None => Vec::new(),
        };
        Ok(Some((dead_letter(&row)?, raw)))
    }

    /// Returns the counts, most frequent first.
    pub(super) async fn count_rejects(&self) -> Result<Vec<RejectCount>, StoreError> {
        let rows = sqlx::query(
            "SELECT side, stream, reason, detail, messages, first_at, last_at FROM reject \
             ORDER BY messages DESC, side, stream, reason, detail",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| {
                Ok(RejectCount {
                    side: from_name("side", get(row, "side")?)?,
                    stream: get(row, "stream")?,
                    reason: reason(get(row, "reason")?)?,
                    detail: get(row, "detail")?,
                    count: u64::try_from(get::<i64>(row, "messages")?).unwrap_or_default(),
                    first_at: instant(get(row, "first_at")?)?,
                    last_at: instant(get(row, "last_at")?)?,
                })
            })
            .collect()
    }
}

async fn forget_oldest(
    connection: &mut Connection,
    owner: &ConnectionId,
    side: Side,
    reason: Reason,
) -> Result<(), StoreError> {
    let gone: Vec<String> = sqlx::query_scalar(
        "SELECT dead_letter_id FROM dead_letter WHERE connection = $1 AND side = $2 AND reason = $3 \
         AND fingerprint IS NOT NULL AND closed_at IS NULL ORDER BY last_at DESC, times DESC, dead_letter_id DESC LIMIT 9223372036854775807 OFFSET $4",
    )
    .bind(owner.as_str())
    .bind(side.name())
    .bind(reason.name())
    .bind(i64::try_from(KEPT_LETTERS).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    for id in gone {
        for statement in ["DELETE FROM dead_letter WHERE dead_letter_id = $1", "DELETE FROM data_key WHERE key_id = $1"]
        {
            sqlx::query(statement).bind(&id).execute(&mut *connection).await.map_err(failed)?;
        }
    }
    Ok(())
}

fn entry(
    (owner, side, reason, detail): (&ConnectionId, Side, Reason, &str),
    items: i64,
    positions: Vec<Position>,
    now: DateTime<Utc>,
) -> JournalEntry {
    JournalEntry {
        sequence: 0,
        at: now,
        connection: owner.clone(),
        lane: None,
        link: None,
        kind: JournalKind::Rejected,
        side: Some(side),
        record: None,
        outcome: None,
        reasons: vec![reason],
        fields: Vec::new(),
        versions: Vec::new(),
        positions,
        signals: u32::try_from(items).unwrap_or(u32::MAX),
        echoes: 0,
        token: None,
        calls: 0,
        mails: 0,
        mail_author: None,
        latency_ms: None,
        error: Some(detail.to_owned()),
        config_version: String::new(),
        images: BTreeMap::new(),
    }
}
