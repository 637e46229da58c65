//! Trace: from whatever a person pastes to lanes, and from lanes to whole stories.

use std::collections::BTreeSet;
use std::str::FromStr;

use calbridge_core::ids::{LaneId, MailboxId, SalesforceId};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::SqlStore;
use super::desk::{DEAD_LETTER_COLUMNS, dead_letter};
use super::dialect::{Connection, Db};
use super::journal::{JOURNAL_COLUMNS, entry};
use super::rows::{DIRTY_COLUMNS, dirty_row, get, instant, ms, parse, storable, stored_name};
use super::statement::{failed, push_list};
use crate::ports::{StoreError, TraceQuery, Traced};

/// A lane that was taken in by another one is found as that other one.
const SURVIVOR: &str =
    "SELECT DISTINCT COALESCE(lane.merged_into, lane.lane_id) AS lane_id FROM lane WHERE lane.lane_id IN ";

impl SqlStore {
    /// Finds meetings, the one that something happened to last in front.
    pub(super) async fn find_meetings(&self, query: &TraceQuery, limit: usize) -> Result<Vec<Traced>, StoreError> {
        let mut connection = self.readers().acquire().await.map_err(failed)?;
        let found = match query {
            TraceQuery::Text(text) => self.lanes_by_text(&mut connection, text.trim()).await?,
            TraceQuery::Day { mailbox, from, until } => lanes_by_day(&mut connection, mailbox, *from, *until).await?,
        };
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let found: Vec<String> = found.into_iter().collect();
        let mut survivors = QueryBuilder::<Db>::new(
            "SELECT found.lane_id, (SELECT MAX(sequence) FROM journal WHERE journal.lane_id = found.lane_id) AS latest \
             FROM (",
        );
        survivors.push(SURVIVOR);
        push_list(&mut survivors, &found);
        survivors.push(") AS found ORDER BY latest DESC NULLS LAST, found.lane_id LIMIT ");
        survivors.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = survivors.build().fetch_all(&mut *connection).await.map_err(failed)?;
        let mut meetings = Vec::with_capacity(rows.len());
        for row in &rows {
            meetings.push(self.story(&mut connection, get(row, "lane_id")?).await?);
        }
        Ok(meetings)
    }

    /// Tries what a text may be, the most certain first; the first kind that finds something is the answer.
    async fn lanes_by_text(&self, connection: &mut Connection, text: &str) -> Result<BTreeSet<String>, StoreError> {
        if text.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut names = vec![stored_name(text)];
        // Salesforce shows 15 characters, its API 18; ids of ours are accepted in any letter case and with braces.
        names.extend(SalesforceId::parse(text).ok().map(|id| id.to_string()));
        names.extend(Uuid::parse_str(text).ok().map(|id| id.to_string()));
        for statement in [
            "SELECT lane_id FROM lane_alias WHERE remote_id IN ",
            "SELECT lane_id FROM lane_alias WHERE kind = 'record' AND value IN ",
            "SELECT lane_id FROM correlation WHERE link_id IN ",
            "SELECT lane_id FROM lane WHERE lane_id IN ",
            "SELECT lane_id FROM intent WHERE token IN ",
            "SELECT lane_id FROM journal WHERE lane_id IS NOT NULL AND token IN ",
            "SELECT lane_id FROM correlation WHERE outlook_change_key IN ",
            "SELECT lane_id FROM seen_version WHERE version IN ",
        ] {
            let mut query = QueryBuilder::<Db>::new(statement);
            push_list(&mut query, &names);
            let lanes: Vec<String> = query.build_query_scalar().fetch_all(&mut *connection).await.map_err(failed)?;
            if !lanes.is_empty() {
                return Ok(lanes.into_iter().collect());
            }
        }
        let text = &storable(text);
        let lanes = waiting_with_version(connection, text).await?;
        if !lanes.is_empty() {
            return Ok(lanes);
        }
        self.lanes_by_words(connection, text).await
    }

    /// Finds lanes whose subjects held all of these words, in any order.
    async fn lanes_by_words(&self, connection: &mut Connection, text: &str) -> Result<BTreeSet<String>, StoreError> {
        let hashes: Vec<String> = self.sealer.word_hashes(text).into_iter().collect();
        if hashes.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut query = QueryBuilder::<Db>::new(
            "SELECT COALESCE(lane.merged_into, lane.lane_id) FROM word JOIN lane ON lane.lane_id = word.lane_id \
             WHERE word.hash IN ",
        );
        push_list(&mut query, &hashes);
        query.push(" GROUP BY COALESCE(lane.merged_into, lane.lane_id) HAVING COUNT(DISTINCT word.hash) = ");
        query.push_bind(i64::try_from(hashes.len()).unwrap_or(i64::MAX));
        let lanes: Vec<String> = query.build_query_scalar().fetch_all(connection).await.map_err(failed)?;
        Ok(lanes.into_iter().collect())
    }

    /// Reads everything known about one lane and those that it took in.
    async fn story(&self, connection: &mut Connection, lane: &str) -> Result<Traced, StoreError> {
        let members: Vec<String> =
            sqlx::query_scalar("SELECT lane_id FROM lane WHERE lane_id = $1 OR merged_into = $1")
                .bind(lane)
                .fetch_all(&mut *connection)
                .await
                .map_err(failed)?;

        let mut query = QueryBuilder::<Db>::new("SELECT ");
        query.push(DIRTY_COLUMNS);
        query.push(" FROM dirty WHERE lane_id = ");
        query.push_bind(lane.to_owned());
        query.push(" ORDER BY record");
        let waiting = query.build().fetch_all(&mut *connection).await.map_err(failed)?;

        let mut query = QueryBuilder::<Db>::new("SELECT ");
        query.push(JOURNAL_COLUMNS);
        query.push(
            " FROM journal LEFT JOIN image ON image.sequence = journal.sequence \
             LEFT JOIN data_key ON data_key.key_id = image.key_id WHERE journal.lane_id IN ",
        );
        push_list(&mut query, &members);
        query.push(" ORDER BY journal.sequence");
        let journal = query.build().fetch_all(&mut *connection).await.map_err(failed)?;

        let mut query = QueryBuilder::<Db>::new("SELECT ");
        query.push(DEAD_LETTER_COLUMNS);
        query.push(" FROM dead_letter WHERE closed_at IS NULL AND lane_id IN ");
        push_list(&mut query, &members);
        query.push(" ORDER BY at");
        let dead_letters = query.build().fetch_all(&mut *connection).await.map_err(failed)?;

        let due_at: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(t) FROM (SELECT wake_at AS t FROM lane WHERE lane_id = $1 \
             UNION ALL SELECT MIN(due_at) FROM dirty WHERE lane_id = $1) AS times",
        )
        .bind(lane)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        let link = self.links_of(connection, &[lane]).await?.into_iter().map(|(_, link)| link).next();
        Ok(Traced {
            lane: parse::<LaneId>("lane id", lane)?,
            link,
            waiting: waiting.iter().map(|row| dirty_row(row).map(|(_, dirty)| dirty)).collect::<Result<_, _>>()?,
            wake_at: due_at.map(instant).transpose()?,
            journal: journal.iter().map(|row| entry(row, &self.sealer)).collect::<Result<_, _>>()?,
            dead_letters: dead_letters.iter().map(dead_letter).collect::<Result<_, _>>()?,
        })
    }
}

/// Finds lanes that were told of a version which no run has covered yet.
async fn waiting_with_version(connection: &mut Connection, text: &str) -> Result<BTreeSet<String>, StoreError> {
    let quoted = super::rows::to_json(&text);
    let mut pattern = String::from("%");
    for c in quoted.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    // LIKE folds letter case, which change keys do not: the parsed list decides.
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT lane_id, versions FROM dirty WHERE versions LIKE $1 ESCAPE '!'")
            .bind(pattern)
            .fetch_all(connection)
            .await
            .map_err(failed)?;
    Ok(rows.into_iter().filter(|(_, versions)| versions.contains(&quoted)).map(|(lane, _)| lane).collect())
}

/// Finds linked meetings that start in a mailbox on a day; all-day ones by their date in the mailbox's zone.
async fn lanes_by_day(
    connection: &mut Connection,
    mailbox: &MailboxId,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<BTreeSet<String>, StoreError> {
    let zone: Option<String> = sqlx::query_scalar("SELECT zone FROM enrolment WHERE mailbox = $1 LIMIT 1")
        .bind(mailbox.as_str())
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
    let zone = zone.and_then(|name| Tz::from_str(&name).ok()).unwrap_or(Tz::UTC);
    let lanes: Vec<String> = sqlx::query_scalar(
        "SELECT lane_id FROM correlation \
         WHERE (mailbox = $1 OR link_id IN (SELECT link_id FROM copy WHERE copy.mailbox = $1)) \
         AND ((starts_at >= $2 AND starts_at < $3) OR first_day = $4)",
    )
    .bind(mailbox.as_str())
    .bind(ms(from))
    .bind(ms(until))
    .bind(from.with_timezone(&zone).date_naive().to_string())
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    Ok(lanes.into_iter().collect())
}
