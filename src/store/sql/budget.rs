//! What is limited: deletions and mails. Counted in the transaction that commits a plan, so that many plans made at the
//! same moment cannot use up more than there is.

use std::collections::HashMap;

use super::SqlStore;
use super::dialect::Connection;
use super::rows::ms;
use super::statement::failed;
use crate::ports::{CensusQuestion, StoreError};
use calbridge_core::case::Census;
use calbridge_core::ids::{ConnectionId, LinkId, MailboxId};
use calbridge_core::plan::Spend;
use calbridge_core::policy::Guard;
use chrono::{DateTime, Utc};

impl SqlStore {
    /// Counts what meetings other than the asking one have used up or wait to use up.
    pub(super) async fn take_census(
        &self,
        connection: &ConnectionId,
        questions: &[CensusQuestion],
        now: DateTime<Utc>,
    ) -> Result<Vec<Census>, StoreError> {
        let mut links: HashMap<&MailboxId, u32> = HashMap::new();
        let mut counted = Vec::with_capacity(questions.len());
        for question in questions {
            let mut census = Census::default();
            let deletes_since = now - Guard::DELETES_WITHIN;
            if let Some(mailbox) = &question.mailbox {
                census.links_in_mailbox = match links.get(mailbox) {
                    Some(known) => *known,
                    None => self.links_in(connection, mailbox).await?,
                };
                links.insert(mailbox, census.links_in_mailbox);
                let wanted = self.wanted(connection, "mailbox", mailbox.as_str(), question.link).await?;
                let spent = self
                    .spent(connection, "deletes_in_mailbox", mailbox.as_str(), question.link, deletes_since)
                    .await?;
                census.deletes_in_mailbox = wanted + spent;
            }
            if let Some(author) = &question.author {
                let wanted = self.wanted(connection, "wants_author", author, question.link).await?;
                let spent = self.spent(connection, "deletes_by_author", author, question.link, deletes_since).await?;
                census.deletes_by_author = wanted + spent;
                let mails_since = now - Guard::MAILS_WITHIN;
                census.mails_by_author =
                    self.spent(connection, "mails_by_author", author, question.link, mails_since).await?;
            }
            counted.push(census);
        }
        Ok(counted)
    }

    async fn links_in(&self, connection: &ConnectionId, mailbox: &MailboxId) -> Result<u32, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM correlation WHERE connection = $1 AND mailbox = $2 AND state <> 'tombstone'",
        )
        .bind(connection.as_str())
        .bind(mailbox.as_str())
        .fetch_one(&self.readers)
        .await
        .map_err(failed)?;
        Ok(number(count))
    }

    /// Counts deletions that wait or are held, by mailbox or by author.
    async fn wanted(
        &self,
        connection: &ConnectionId,
        by: &'static str,
        name: &str,
        asking: LinkId,
    ) -> Result<u32, StoreError> {
        let statement = match by {
            "mailbox" => {
                "SELECT COUNT(*) FROM correlation \
                 WHERE connection = $1 AND wants = 'delete' AND mailbox = $2 AND link_id <> $3"
            }
            _ => {
                "SELECT COUNT(*) FROM correlation \
                 WHERE connection = $1 AND wants = 'delete' AND wants_author = $2 AND link_id <> $3"
            }
        };
        let count: i64 = sqlx::query_scalar(statement)
            .bind(connection.as_str())
            .bind(name)
            .bind(asking.to_string())
            .fetch_one(&self.readers)
            .await
            .map_err(failed)?;
        Ok(number(count))
    }

    async fn spent(
        &self,
        connection: &ConnectionId,
        budget: &str,
        name: &str,
        asking: LinkId,
        since: DateTime<Utc>,
    ) -> Result<u32, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM spent \
             WHERE connection = $1 AND budget = $2 AND name = $3 AND at > $4 AND link_id <> $5",
        )
        .bind(connection.as_str())
        .bind(budget)
        .bind(name)
        .bind(ms(since))
        .bind(asking.to_string())
        .fetch_one(&self.readers)
        .await
        .map_err(failed)?;
        Ok(number(count))
    }
}

/// Takes down what a plan uses up, or refuses it where there is nothing left.
pub(super) async fn spend(
    connection: &mut Connection,
    owner: &ConnectionId,
    link: LinkId,
    spends: &[Spend],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    for spend in spends {
        let (budget, name) = spend.budget.parts();
        sqlx::query("DELETE FROM spent WHERE connection = $1 AND budget = $2 AND name = $3 AND at <= $4")
            .bind(owner.as_str())
            .bind(budget)
            .bind(name)
            .bind(ms(spend.since))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        let used: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM spent WHERE connection = $1 AND budget = $2 AND name = $3 AND link_id <> $4",
        )
        .bind(owner.as_str())
        .bind(budget)
        .bind(name)
        .bind(link.to_string())
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        if used >= i64::from(spend.limit) {
            return Err(StoreError::Spent(link));
        }
        sqlx::query("INSERT INTO spent (connection, budget, name, link_id, at) VALUES ($1, $2, $3, $4, $5)")
            .bind(owner.as_str())
            .bind(budget)
            .bind(name)
            .bind(link.to_string())
            .bind(ms(now))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Gives back what a link used up from then on.
pub(super) async fn give_back(
    connection: &mut Connection,
    owner: &ConnectionId,
    link: LinkId,
    since: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM spent WHERE connection = $1 AND link_id = $2 AND at >= $3")
        .bind(owner.as_str())
        .bind(link.to_string())
        .bind(ms(since))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    Ok(())
}

fn number(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
