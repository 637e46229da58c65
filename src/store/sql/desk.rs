//! What people and the engine's caretakers look up: enrolments, subscriptions, dead letters, numbers.

use std::collections::BTreeMap;

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{ConnectionId, LinkId, MailboxId, SalesforceId};

use super::SqlStore;
use super::dialect::{self, Row};
use super::rows::{
    connection as read_connection, corrupt, from_json, from_name, get, instant, ms, parse, reason, record,
};
use super::statement::failed;
use crate::ports::{DeadLetter, EnrolmentRow, MessageLetter, StoreError, StoreStatus, SubscriptionRow};

/// Columns that [`dead_letter`] reads.
pub(super) const DEAD_LETTER_COLUMNS: &str = "dead_letter_id, connection, link_id, record, side, reason, detail, at, \
     CAST(CASE WHEN raw IS NULL THEN 0 ELSE 1 END AS BIGINT) AS is_message, size, times, last_at, position";

impl SqlStore {
    /// Stores an enrolment; an earlier `enrolled_at` and a first round that is done are kept.
    pub(super) async fn put_enrolment(&self, row: &EnrolmentRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO enrolment (connection, mailbox, salesforce_user, enrolled_at, address, zone, first_round_done) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (connection, mailbox) DO UPDATE SET \
             salesforce_user = excluded.salesforce_user, address = excluded.address, zone = excluded.zone, \
             first_round_done = CASE WHEN enrolment.first_round_done = 1 THEN 1 ELSE excluded.first_round_done END, \
             enrolled_at = CASE WHEN excluded.enrolled_at < enrolment.enrolled_at \
             THEN excluded.enrolled_at ELSE enrolment.enrolled_at END",
        )
        .bind(row.connection.as_str())
        .bind(row.enrolment.mailbox.as_str())
        .bind(row.enrolment.user.as_str())
        .bind(ms(row.enrolment.enrolled_at))
        .bind(&row.address)
        .bind(&row.zone)
        .bind(i64::from(row.first_round_done))
        .execute(&self.writer)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Returns all enrolments of a connection, by mailbox.
    pub(super) async fn read_enrolments(&self, connection: &ConnectionId) -> Result<Vec<EnrolmentRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM enrolment WHERE connection = $1 ORDER BY mailbox")
            .bind(connection.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter()
            .map(|row| {
                let user = SalesforceId::parse(get(row, "salesforce_user")?)
                    .map_err(|error| corrupt("enrolment", &error.to_string()))?;
                Ok(EnrolmentRow {
                    connection: read_connection(row)?,
                    enrolment: Enrolment {
                        mailbox: MailboxId::new(get::<String>(row, "mailbox")?),
                        user,
                        enrolled_at: instant(get(row, "enrolled_at")?)?,
                    },
                    address: get(row, "address")?,
                    zone: get(row, "zone")?,
                    first_round_done: get::<i64>(row, "first_round_done")? != 0,
                })
            })
            .collect()
    }

    /// Stores a subscription.
    pub(super) async fn write_subscription(&self, row: &SubscriptionRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO subscription (connection, subscription_id, mailbox, notification_url, expires_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (connection, subscription_id) DO UPDATE SET \
             mailbox = excluded.mailbox, notification_url = excluded.notification_url, expires_at = excluded.expires_at",
        )
        .bind(row.connection.as_str())
        .bind(&row.id)
        .bind(row.mailbox.as_str())
        .bind(&row.notification_url)
        .bind(ms(row.expires_at))
        .execute(&self.writer)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Forgets a subscription.
    pub(super) async fn delete_subscription(&self, connection: &ConnectionId, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM subscription WHERE connection = $1 AND subscription_id = $2")
            .bind(connection.as_str())
            .bind(id)
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Returns the stored subscriptions of a connection, those that end first in front.
    pub(super) async fn read_subscriptions(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<SubscriptionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM subscription WHERE connection = $1 ORDER BY expires_at")
            .bind(connection.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter()
            .map(|row| {
                Ok(SubscriptionRow {
                    connection: read_connection(row)?,
                    id: get(row, "subscription_id")?,
                    mailbox: MailboxId::new(get::<String>(row, "mailbox")?),
                    notification_url: get(row, "notification_url")?,
                    expires_at: instant(get(row, "expires_at")?)?,
                })
            })
            .collect()
    }

    /// Returns open dead letters, newest first.
    pub(super) async fn open_dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let mut query = sqlx::QueryBuilder::new("SELECT ");
        query.push(DEAD_LETTER_COLUMNS);
        query.push(
            " FROM dead_letter WHERE closed_at IS NULL \
             ORDER BY COALESCE(last_at, at) DESC, dead_letter_id DESC LIMIT ",
        );
        query.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(&self.readers).await.map_err(failed)?;
        rows.iter().map(dead_letter).collect()
    }

    /// Counts what `status`, metrics and readiness show.
    pub(super) async fn count_everything(&self) -> Result<StoreStatus, StoreError> {
        let numbers = sqlx::query(
            "SELECT \
             (SELECT COUNT(*) FROM (SELECT lane_id FROM dirty UNION SELECT lane_id FROM lane \
              WHERE wake_at IS NOT NULL) AS lanes) AS waiting, \
             (SELECT MIN(first_signal_at) FROM dirty) AS oldest, \
             (SELECT COUNT(*) FROM intent) AS intents, \
             (SELECT COUNT(*) FROM dead_letter WHERE closed_at IS NULL) AS dead_letters, \
             (SELECT COUNT(*) FROM journal) AS journal",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed)?;
        let number = |column| get::<i64>(&numbers, column).map(|n| u64::try_from(n).unwrap_or_default());
        Ok(StoreStatus {
            links: self.pairs("SELECT state, COUNT(*) FROM correlation GROUP BY state").await?,
            waiting: number("waiting")?,
            oldest_waiting: get::<Option<i64>>(&numbers, "oldest")?.map(instant).transpose()?,
            intents: number("intents")?,
            dead_letters: number("dead_letters")?,
            checkpoints: sqlx::query_as::<_, (String, String)>("SELECT stream, value FROM checkpoint")
                .fetch_all(&self.readers)
                .await
                .map_err(failed)?
                .into_iter()
                .collect(),
            duplicates: self
                .pairs("SELECT stream, CAST(SUM(signals) AS BIGINT) FROM duplicate GROUP BY stream")
                .await?,
            journal: number("journal")?,
            rejects: self.count_rejects().await?,
        })
    }

    /// Erases the field values of a meeting: bases, images and searchable words; ids and history stay.
    ///
    /// For a link whose state is a tombstone; a live one would lose its bases and merge anew by `initial`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn erase_values(&self, link: LinkId) -> Result<(), StoreError> {
        const LANES: &str = "SELECT lane.lane_id FROM lane JOIN correlation \
             ON correlation.lane_id = lane.lane_id OR correlation.lane_id = lane.merged_into \
             WHERE correlation.link_id = $1";
        let mut connection = self.writer.acquire().await.map_err(failed)?;
        dialect::before_erasing(&mut connection).await?;
        for statement in [
            format!("DELETE FROM word WHERE lane_id IN ({LANES})"),
            format!("DELETE FROM data_key WHERE key_id = $1 OR key_id IN ({LANES})"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(link.to_string())
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        dialect::after_erasing(&mut connection).await
    }

    async fn pairs(&self, statement: &'static str) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows = sqlx::query_as::<_, (String, i64)>(statement).fetch_all(&self.readers).await.map_err(failed)?;
        Ok(rows.into_iter().map(|(name, count)| (name, u64::try_from(count).unwrap_or_default())).collect())
    }
}

/// Reads a dead letter.
pub(super) fn dead_letter(row: &Row) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        connection: read_connection(row)?,
        link: get::<Option<&str>>(row, "link_id")?.map(|link| parse("link id", link)).transpose()?,
        record: get::<Option<&str>>(row, "record")?.map(record).transpose()?,
        reason: reason(get(row, "reason")?)?,
        detail: get(row, "detail")?,
        at: instant(get(row, "at")?)?,
        message: message(row)?,
    })
}

/// Reads what only dead letters of messages have; those of an earlier release lack some of it.
fn message(row: &Row) -> Result<Option<MessageLetter>, StoreError> {
    let side: Option<&str> = get(row, "side")?;
    let (true, Some(side)) = (get::<i64>(row, "is_message")? != 0, side) else { return Ok(None) };
    let last_at: Option<i64> = get(row, "last_at")?;
    Ok(Some(MessageLetter {
        id: get(row, "dead_letter_id")?,
        side: from_name("side", side)?,
        position: get::<Option<&str>>(row, "position")?.map(|text| from_json("position", text)).transpose()?,
        size: u64::try_from(get::<Option<i64>>(row, "size")?.unwrap_or_default()).unwrap_or_default(),
        times: u64::try_from(get::<i64>(row, "times")?).unwrap_or_default(),
        last_at: instant(last_at.unwrap_or(get(row, "at")?))?,
    }))
}
