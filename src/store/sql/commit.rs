//! What runs decided: many commits in one transaction, each behind its fence and in a savepoint of its own.

use std::collections::BTreeSet;

use calbridge_core::ids::{ConnectionId, LaneId, RecordId};
use calbridge_core::link::{Link, LinkState, Replica};
use calbridge_core::plan::{Alias, Outcome};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::Version;
use calbridge_core::value::When;
use chrono::{DateTime, Utc};
use sqlx::{Acquire as _, QueryBuilder};
use uuid::Uuid;

use super::SqlStore;
use super::budget::{give_back, spend};
use super::dialect::{self, Connection, Db};
use super::facts::forget;
use super::journal::{append, data_key, index_versions, index_words};
use super::merge::{absorb_provisional, register};
use super::rows::{
    connection as read_connection, from_json, get, link_body, meeting_time, ms, name_parts, searchable, state_parts,
    storable, stored_name, subjects, to_json,
};
use super::statement::{again, chunks, failed, is_taken};
use crate::ports::{Commit, DeadLetter, Fence, JournalKind, StoreError};

/// How soon a lane runs again whose record another lane works on.
const LOOK_AGAIN_MS: i64 = 1_000;

impl SqlStore {
    /// Commits runs; a fenced or outdated one leaves no trace and does not harm its neighbours.
    pub(super) async fn commit_all(
        &self,
        commits: Vec<(Fence, Commit)>,
        now: DateTime<Utc>,
    ) -> Vec<Result<(), StoreError>> {
        match again(|| self.commit_in_one(&commits, now)).await {
            Ok(results) => results,
            // The transaction as a whole failed: none of them took effect.
            Err(error) => {
                let text = error.to_string();
                commits.iter().map(|_| Err(StoreError::Database(text.clone()))).collect()
            }
        }
    }

    async fn commit_in_one(
        &self,
        commits: &[(Fence, Commit)],
        now: DateTime<Utc>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut results = Vec::with_capacity(commits.len());
        let mut tx = dialect::begin(&self.writer).await?;
        if dialect::MANY_WRITERS {
            hold_everything(&mut tx, commits).await?;
        }
        for (fence, commit) in commits {
            let mut savepoint = tx.begin().await.map_err(failed)?;
            let result = Box::pin(self.apply(&mut savepoint, *fence, commit, now)).await;
            match &result {
                Ok(()) => savepoint.commit().await.map_err(failed)?,
                // All of them again: what this one waits for may wait for its neighbours.
                Err(StoreError::Contended(_)) => return Err(result.expect_err("it was matched as an error")),
                Err(_) => savepoint.rollback().await.map_err(failed)?,
            }
            results.push(result);
        }
        tx.commit().await.map_err(failed)?;
        Ok(results)
    }

    async fn apply(
        &self,
        connection: &mut Connection,
        fence: Fence,
        commit: &Commit,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let lane = fence.lane;
        let owner = hold(connection, fence, commit).await?;
        if let Some(link) = commit.link.as_ref().filter(|_| !commit.spends.is_empty()) {
            spend(connection, &owner, link.id, &commit.spends, now).await?;
        }
        if let (Some(link), Some(since)) = (&commit.link, commit.unspent_since) {
            give_back(connection, &owner, link.id, since).await?;
        }
        if let Some(link) = &commit.link {
            self.write_link(connection, lane, link, now).await?;
            write_intents(connection, lane, link).await?;
            write_copies(connection, link).await?;
            index_words(connection, self, &owner, lane, subjects(link, &self.subject_fields)).await?;
            index_versions(connection, &owner, lane, &current_versions(link)).await?;
        }
        let aliases = names(commit);
        register(connection, &owner, &aliases, lane).await?;
        // Left alone, the other lane would keep its record: what is signalled of it would never lead to the link.
        if absorb_provisional(connection, &owner, &aliases, lane).await? && commit.link.is_some() && commit.release {
            sqlx::query("UPDATE lane SET wake_at = $2 WHERE lane_id = $1 AND (wake_at IS NULL OR wake_at > $2)")
                .bind(lane.to_string())
                .bind(ms(now) + LOOK_AGAIN_MS)
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        let mut covered = BTreeSet::new();
        for (record, generation) in &commit.cleared {
            covered.extend(clear(connection, &owner, lane, record, *generation).await?);
        }
        index_versions(connection, &owner, lane, &covered).await?;
        if let Some(from) = commit.facts_from {
            forget(connection, &owner, lane, from).await?;
        }
        append(connection, self, Some(lane), &commit.journal).await?;
        match &commit.dead_letter {
            Some(dead) => open_dead_letter(connection, lane, dead).await?,
            None if is_mended(commit) => close_dead_letters(connection, lane, now, false).await?,
            None if commit.link.is_some() => close_dead_letters(connection, lane, now, true).await?,
            None => {}
        }
        if let (true, Some(wake_at)) = (commit.release, commit.wake_at) {
            // What the run knew and did not cover waits with the lane; what came meanwhile keeps its own time.
            sqlx::query("UPDATE dirty SET due_at = $2 WHERE lane_id = $1 AND claimed = 1")
                .bind(lane.to_string())
                .bind(ms(wake_at))
                .execute(connection)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Writes the correlation row at the revision that was read.
    async fn write_link(
        &self,
        connection: &mut Connection,
        lane: LaneId,
        link: &Link,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        const COLUMNS: [&str; 28] = [
            "link_id",
            "connection",
            "lane_id",
            "ical_uid",
            "original_start",
            "generation",
            "mailbox",
            "outlook_record",
            "outlook_event_id",
            "outlook_change_key",
            "salesforce_record",
            "salesforce_id",
            "salesforce_modstamp",
            "state",
            "state_reason",
            "state_at",
            "last_writer",
            "starts_at",
            "ends_at",
            "first_day",
            "last_day",
            "created_at",
            "in_step_at",
            "body",
            "sealed",
            "key_id",
            "wants",
            "wants_author",
        ];
        const TIME_COLUMNS: [&str; 4] = ["starts_at", "ends_at", "first_day", "last_day"];
        let key_id = link.id.to_string();
        let key = data_key(connection, &self.sealer, &link.connection, &key_id, ms(now)).await?;
        let (body, sealed) = link_body(link, &key, &key_id)?;
        let (state, state_reason, state_at) = state_parts(&link.state);
        let outlook = link.replicas.outlook.as_ref();
        let salesforce = link.replicas.salesforce.as_ref();
        let (starts_at, ends_at, first_day, last_day) = match meeting_time(link) {
            Some(When::Timed { start, end, .. }) => (Some(ms(*start)), Some(ms(*end)), None, None),
            Some(When::AllDay { first, last }) => (None, None, Some(first.to_string()), Some(last.to_string())),
            None => (None, None, None, None),
        };
        let wanted = link.care.pending.as_ref();
        let revision = i64::try_from(link.revision).unwrap_or(i64::MAX);

        let mut query = QueryBuilder::<Db>::new("INSERT INTO correlation (");
        query.push(COLUMNS.join(", "));
        query.push(", revision) SELECT ");
        let mut values = query.separated(", ");
        values
            .push_bind(key_id.clone())
            .push_bind(link.connection.as_str().to_owned())
            .push_bind(lane.to_string())
            .push_bind(stored_name(&link.ical_uid))
            .push_bind(link.original_start.clone())
            .push_bind(i64::from(link.generation))
            .push_bind(outlook.and_then(|replica| replica.record.mailbox()).map(ToString::to_string))
            .push_bind(outlook.map(|replica| replica.record.key()))
            .push_bind(outlook.map(|replica| replica.record.remote_id().to_owned()))
            .push_bind(outlook.and_then(change_key))
            .push_bind(salesforce.map(|replica| replica.record.key()))
            .push_bind(salesforce.map(|replica| replica.record.remote_id().to_owned()))
            .push_bind(salesforce.and_then(modstamp))
            .push_bind(state)
            .push_bind(state_reason)
            .push_bind(state_at)
            .push_bind(link.last_writer.map(Side::name))
            .push_bind(starts_at)
            .push_bind(ends_at)
            .push_bind(first_day)
            .push_bind(last_day)
            .push_bind(ms(link.created))
            .push_bind(link.in_step_at.map(ms))
            .push_bind(body)
            .push_bind(sealed)
            .push_bind(key_id.clone())
            .push_bind(wanted.map(|pending| pending.wish.name()).unwrap_or_default())
            .push_bind(wanted.and_then(|pending| pending.author.clone()).unwrap_or_default())
            .push_bind(revision + 1);
        // A link that was read must still be there; one that is new must not be.
        query.push(" WHERE ");
        query.push_bind(revision);
        query.push(" = COALESCE((SELECT revision FROM correlation WHERE link_id = ");
        query.push_bind(key_id);
        query.push("), 0) ON CONFLICT (link_id) DO UPDATE SET revision = excluded.revision");
        // A meeting keeps its time when its values are gone, so that a day still lists it.
        let keeps_time = meeting_time(link).is_none();
        for column in COLUMNS.into_iter().skip(2) {
            if !(keeps_time && TIME_COLUMNS.contains(&column)) {
                query.push(format_args!(", {column} = excluded.{column}"));
            }
        }
        match query.build().execute(connection).await {
            Ok(done) if done.rows_affected() == 1 => Ok(()),
            Ok(_) => Err(StoreError::Outdated(link.id)),
            // Another link took one of the records meanwhile: reading again finds it.
            Err(error) if is_taken(&error) => Err(StoreError::Outdated(link.id)),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Takes the lanes of all commits, and the names that they are the first to use, before any of them is applied.
async fn hold_everything(connection: &mut Connection, commits: &[(Fence, Commit)]) -> Result<(), StoreError> {
    let lanes: Vec<String> = commits.iter().map(|(fence, _)| fence.lane.to_string()).collect();
    dialect::hold_lanes(connection, &lanes).await?;
    let mut new = Vec::new();
    for (_, commit) in commits {
        // Only a commit that names a link brings names that nobody else may know yet; a join took the others.
        if let Some(link) = &commit.link {
            new.extend(names(commit).into_iter().map(|alias| (&link.connection, name_parts(&alias))));
        }
    }
    dialect::hold_new_names(connection, &new).await?;
    let budgets: BTreeSet<(&str, &str)> =
        commits.iter().flat_map(|(_, commit)| &commit.spends).map(|spend| spend.budget.parts()).collect();
    dialect::hold_budgets(connection, &budgets).await
}

/// Returns the names that a commit makes lead to its lane.
fn names(commit: &Commit) -> Vec<Alias> {
    let mut aliases: BTreeSet<Alias> = commit.aliases.iter().cloned().collect();
    aliases.extend(commit.link.iter().flat_map(own_aliases));
    aliases.into_iter().collect()
}

/// Proves the fence, stores what the lane itself keeps, and gives it back where the run is over.
async fn hold(connection: &mut Connection, fence: Fence, commit: &Commit) -> Result<ConnectionId, StoreError> {
    let row = sqlx::query(
        "UPDATE lane SET tries = $3, \
         wake_at = CASE WHEN instruction IS NOT NULL AND instruction <> $6 THEN wake_at ELSE $4 END, \
         instruction = CASE WHEN $7 = 1 AND instruction = $6 THEN NULL ELSE instruction END, \
         owner = CASE WHEN $5 = 1 THEN '' ELSE owner END, \
         lease_until = CASE WHEN $5 = 1 THEN 0 ELSE lease_until END \
         WHERE lane_id = $1 AND fence = $2 AND owner <> '' RETURNING connection",
    )
    .bind(fence.lane.to_string())
    .bind(fence.number)
    .bind(i64::from(commit.tries))
    .bind(commit.wake_at.map(ms))
    .bind(i64::from(commit.release))
    .bind(commit.instruction.as_ref().map(to_json).unwrap_or_default())
    .bind(i64::from(commit.instructed))
    .fetch_optional(connection)
    .await
    .map_err(failed)?;
    row.as_ref().map_or(Err(StoreError::Fenced), read_connection)
}

async fn write_intents(connection: &mut Connection, lane: LaneId, link: &Link) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM intent WHERE link_id = $1")
        .bind(link.id.to_string())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    for intent in [&link.intents.outlook, &link.intents.salesforce].into_iter().flatten() {
        sqlx::query(
            "INSERT INTO intent (token, connection, link_id, lane_id, side, action, record, reason, sends, recorded_at, \
             give_up_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(intent.token.to_string())
        .bind(link.connection.as_str())
        .bind(link.id.to_string())
        .bind(lane.to_string())
        .bind(intent.side.name())
        .bind(intent.action.name())
        .bind(intent.action.record().map(RecordId::key))
        .bind(intent.reason.name())
        .bind(i64::from(intent.sends))
        .bind(ms(intent.recorded_at))
        .bind(ms(intent.give_up_at))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    }
    Ok(())
}

async fn write_copies(connection: &mut Connection, link: &Link) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM copy WHERE connection = $1 AND link_id = $2")
        .bind(link.connection.as_str())
        .bind(link.id.to_string())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    let copies: Vec<&RecordId> = link.copies.iter().collect();
    for chunk in chunks(&copies) {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO copy (connection, record, link_id, mailbox) ");
        query.push_values(chunk, |mut columns, record| {
            columns
                .push_bind(link.connection.as_str().to_owned())
                .push_bind(record.key())
                .push_bind(link.id.to_string())
                .push_bind(record.mailbox().map(ToString::to_string).unwrap_or_default());
        });
        query.build().execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

/// Clears a row at the generation that was claimed; returns the versions that it had been told.
///
/// A row that signals reached meanwhile stays, less what the run covered.
async fn clear(
    connection: &mut Connection,
    owner: &ConnectionId,
    lane: LaneId,
    record: &RecordId,
    generation: i64,
) -> Result<BTreeSet<String>, StoreError> {
    let names = |text: &str| -> Result<BTreeSet<String>, StoreError> {
        let versions: Vec<Version> = from_json("versions", text)?;
        Ok(versions.iter().filter_map(searchable).collect())
    };
    let cleared: Option<String> = sqlx::query_scalar(
        "DELETE FROM dirty WHERE connection = $1 AND record = $2 AND lane_id = $3 AND generation = $4 AND claimed = 1 \
         RETURNING versions",
    )
    .bind(owner.as_str())
    .bind(record.key())
    .bind(lane.to_string())
    .bind(generation)
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    if let Some(versions) = cleared {
        return names(&versions);
    }
    let newer = sqlx::query(
        "SELECT generation, positions, versions FROM dirty \
         WHERE connection = $1 AND record = $2 AND lane_id = $3 AND generation > $4 AND claimed = 0",
    )
    .bind(owner.as_str())
    .bind(record.key())
    .bind(lane.to_string())
    .bind(generation)
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    let Some(row) = newer else {
        return Ok(BTreeSet::new());
    };
    let left = get::<i64>(&row, "generation")? - generation;
    let mut positions: Vec<serde_json::Value> = from_json("positions", get(&row, "positions")?)?;
    let uncovered = usize::try_from(left).unwrap_or(usize::MAX).min(positions.len());
    positions.drain(..positions.len() - uncovered);
    sqlx::query(
        "UPDATE dirty SET signals = $3, positions = $4, first_signal_at = burst_started_at \
         WHERE connection = $1 AND record = $2",
    )
    .bind(owner.as_str())
    .bind(record.key())
    .bind(left)
    .bind(to_json(&positions))
    .execute(connection)
    .await
    .map_err(failed)?;
    names(get(&row, "versions")?)
}

async fn open_dead_letter(connection: &mut Connection, lane: LaneId, dead: &DeadLetter) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO dead_letter (dead_letter_id, connection, lane_id, link_id, record, side, reason, detail, at, held) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (lane_id) WHERE lane_id IS NOT NULL AND closed_at IS NULL DO UPDATE SET \
         link_id = excluded.link_id, record = excluded.record, side = excluded.side, reason = excluded.reason, \
         detail = excluded.detail, held = excluded.held",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(dead.connection.as_str())
    .bind(lane.to_string())
    .bind(dead.link.map(|link| link.to_string()))
    .bind(dead.record.as_ref().map(RecordId::key))
    .bind(dead.record.as_ref().map(|record| record.side().name()))
    .bind(dead.reason.name())
    .bind(storable(&dead.detail))
    .bind(ms(dead.at))
    .bind(i64::from(dead.held))
    .execute(connection)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Closes what no longer needs a person, or only what is no longer held.
async fn close_dead_letters(
    connection: &mut Connection,
    lane: LaneId,
    now: DateTime<Utc>,
    only_held: bool,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE dead_letter SET closed_at = $2 WHERE closed_at IS NULL AND held >= $3 \
         AND lane_id IN (SELECT lane_id FROM lane WHERE lane_id = $1 OR merged_into = $1)",
    )
    .bind(lane.to_string())
    .bind(ms(now))
    .bind(i64::from(only_held))
    .execute(connection)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Tells whether a run came to a good end, so that an earlier failure needs nobody any more.
fn is_mended(commit: &Commit) -> bool {
    let still_dead = commit
        .link
        .as_ref()
        .is_some_and(|link| matches!(link.state, LinkState::DeadLetter { .. } | LinkState::Held { .. }));
    // A write that was only decided may still be refused: then the old dead letter goes on.
    !still_dead
        && commit.journal.iter().any(|entry| match entry.kind {
            JournalKind::Decided => {
                matches!(entry.outcome, Some(Outcome::InStep | Outcome::Skip | Outcome::Deleted))
            }
            JournalKind::Settled => entry.reasons.first() == Some(&Reason::WriteConfirmed),
            JournalKind::Intended | JournalKind::Rejected => false,
        })
}

/// Returns the names that lead to a linked meeting, whether or not a plan mentioned them.
fn own_aliases(link: &Link) -> Vec<Alias> {
    let mut aliases = vec![Alias::Stamp(link.id)];
    let replicas = [&link.replicas.outlook, &link.replicas.salesforce];
    let records = replicas.into_iter().flatten().map(|replica| &replica.record);
    aliases.extend(records.chain(&link.copies).cloned().map(Alias::Record));
    if !link.ical_uid.is_empty() {
        aliases.push(Alias::ICalUid(link.ical_uid.clone(), link.original_start.clone()));
    }
    aliases
}

fn current_versions(link: &Link) -> BTreeSet<String> {
    [&link.replicas.outlook, &link.replicas.salesforce]
        .into_iter()
        .flatten()
        .filter_map(|replica| replica.version.as_ref())
        .filter_map(searchable)
        .collect()
}

fn change_key(replica: &Replica) -> Option<String> {
    match &replica.version {
        Some(Version::ChangeKey(key)) => Some(key.clone()),
        _ => None,
    }
}

fn modstamp(replica: &Replica) -> Option<i64> {
    match &replica.version {
        Some(Version::Modstamp(at)) => Some(ms(*at)),
        _ => None,
    }
}
