//! The command line's backend: the engine itself.

use std::str::FromStr as _;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{NaiveDate, TimeZone as _, Utc};
use chrono_tz::Tz;

use super::backend::{Backend, Failure, RunContext, TraceAnswer, TraceRequest};
use crate::clock::EngineClock;
use crate::config::Config;
use crate::engine::{self, Engine, Looked, StartError};
use crate::ports::{EnrolmentRow, Finding, Store, StoreError, TraceQuery};
use crate::trace;

/// Most meetings that one trace shows.
const MOST_MEETINGS: usize = 20;

/// Runs the real thing.
#[derive(Debug, Default)]
pub struct LiveBackend;

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => error.into(),
            // Settings that the config's own checks cannot see through: the person must change something.
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::InUse(_) | StoreError::Corrupt { .. } => Self::Refused(error.to_string()),
            error => Self::Failed(error.into()),
        }
    }
}

#[async_trait]
impl Backend for LiveBackend {
    async fn run(&self, config: Config, context: RunContext) -> Result<(), Failure> {
        let engine = Engine::build(&config, context.clock).await?;
        let health = context.health;
        engine
            .run(context.stop, &move |part, fault| match fault {
                None => health.up(part),
                Some(why) => health.down(part, why),
            })
            .await;
        Ok(())
    }

    fn holder(&self, config: &Config) -> Option<String> {
        engine::holder(config).map(|holder| holder.to_string())
    }

    async fn check(&self, config: &Config) -> Vec<Finding> {
        match engine::check(config, Arc::new(EngineClock::wall())).await {
            Ok(findings) => findings,
            Err(error) => {
                vec![Finding { what: "settings".to_owned(), ok: false, detail: error.to_string(), code: None }]
            }
        }
    }

    async fn open_store(&self, config: &Config) -> Result<Arc<dyn Store>, Failure> {
        Ok(engine::open_read_only(config, Arc::new(EngineClock::wall())).await?)
    }

    async fn open_desk(&self, config: &Config) -> Result<Arc<dyn Store>, Failure> {
        Ok(engine::open_desk(config, Arc::new(EngineClock::wall())).await?)
    }

    async fn trace(&self, config: &Config, request: &TraceRequest, values: bool) -> Result<TraceAnswer, Failure> {
        let store = self.open_store(config).await?;
        if let TraceRequest::Anything(text) = request
            && let Some(answer) = set_aside(&*store, text.trim(), values).await?
        {
            return Ok(answer);
        }
        let enrolments = store.enrolments(&config.connection).await?;
        let query = match request {
            TraceRequest::Anything(text) => Some(TraceQuery::Text(text.clone())),
            TraceRequest::Day { mailbox, on } => day(&enrolments, mailbox, *on),
        };
        let found = match query {
            Some(query) => store.trace(&query, MOST_MEETINGS).await?,
            None => Vec::new(),
        };
        if let (true, TraceRequest::Anything(text)) = (found.is_empty(), request) {
            return never_seen(config, &*store, text).await;
        }
        let stories: Vec<_> = found.iter().map(|traced| trace::story(traced, &enrolments, values)).collect();
        let json = serde_json::to_value(&stories).map_err(|error| Failure::Failed(error.into()))?;
        Ok(TraceAnswer { found: stories.len(), text: trace::text(&stories), json })
    }
}

/// Tells about a message that was set aside, if the text is the id of its dead letter.
async fn set_aside(store: &dyn Store, text: &str, values: bool) -> Result<Option<TraceAnswer>, Failure> {
    if uuid::Uuid::parse_str(text).is_err() {
        return Ok(None);
    }
    let Some((letter, raw)) = store.kept_message(text).await? else { return Ok(None) };
    Ok(letter.message.as_ref().map(|about| {
        let (text, json) = trace::message(&letter, about, values.then_some(raw.as_slice()));
        TraceAnswer { found: 1, text, json }
    }))
}

/// Tells what would happen to a record that no signal ever named, from a live look at it.
async fn never_seen(config: &Config, store: &dyn Store, text: &str) -> Result<TraceAnswer, Failure> {
    // Words are no id: only a single token can be looked up.
    let looked = if text.split_whitespace().count() == 1 {
        engine::look(config, Arc::new(EngineClock::wall()), store, text).await?
    } else {
        Looked::Nowhere
    };
    Ok(match looked {
        Looked::There { record, outcome, reasons } => {
            let reason = reasons.first().copied();
            let why = reason.map_or_else(String::new, |reason| format!(" ({}: {})", reason.code(), reason.words()));
            let side = record.side();
            TraceAnswer {
                found: 1,
                text: format!(
                    "never seen: no notification or sweep named it yet\n\nlooked up just now: it is in {side}; a run would \
                     end with `{}`{why}\n",
                    outcome.name()
                ),
                json: serde_json::json!([{
                    "verdict": {"is": "never_seen"},
                    "live": {"record": record.key(), "side": side, "outcome": outcome, "reasons": reasons},
                }]),
            }
        }
        Looked::Unread { code, message } => TraceAnswer {
            found: 0,
            text: format!(
                "never seen; looking it up just now failed: {message} ({code}; see `calbridge explain {code}`)\n"
            ),
            json: serde_json::json!([]),
        },
        Looked::Nowhere => TraceAnswer { found: 0, text: trace::text(&[]), json: serde_json::json!([]) },
    })
}

/// Returns the query for a day of an enrolled mailbox, in the mailbox's zone.
fn day(enrolments: &[EnrolmentRow], address: &str, on: NaiveDate) -> Option<TraceQuery> {
    let row = enrolments.iter().find(|row| row.address.eq_ignore_ascii_case(address))?;
    let zone = Tz::from_str(&row.zone).unwrap_or(Tz::UTC);
    let midnight = |day: NaiveDate| {
        let local = day.and_hms_opt(0, 0, 0)?;
        // Where midnight does not exist, the clock was put forward: the day starts an hour later.
        let start = zone.from_local_datetime(&local).earliest();
        let start = start.or_else(|| zone.from_local_datetime(&(local + chrono::TimeDelta::hours(1))).earliest());
        start.map(|at| at.with_timezone(&Utc))
    };
    Some(TraceQuery::Day {
        mailbox: row.enrolment.mailbox.clone(),
        from: midnight(on)?,
        until: midnight(on.succ_opt()?)?,
    })
}
