//! Delta rounds over a calendar view or over all events.
//!
//! A round walks the mailbox's order of changes from where the last one ended; tokens carry the window and the position, so
//! the server keeps nothing. Rules: <https://learn.microsoft.com/en-us/graph/delta-query-events>.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::GraphError;
use super::ids::ItemKey;
use super::mailbox::{Item, Mailbox, Window};
use super::tenant::Tenant;
use super::view::{self, Style};
use crate::faults::Strike;

/// What a delta link or next link carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Generation of the tenant's sync state.
    #[serde(rename = "g")]
    generation: u64,
    /// Window of a calendar view in seconds; none for all events.
    #[serde(rename = "w")]
    window: Option<(i64, i64)>,
    /// Changes up to here were told in earlier rounds.
    #[serde(rename = "f")]
    from: u64,
    /// Changes up to here were told in this round.
    #[serde(rename = "p")]
    position: u64,
    /// Where this round ends; 0 when it has not begun.
    #[serde(rename = "u")]
    until: u64,
}

/// What a page of a round says.
#[derive(Debug)]
pub(crate) struct Page {
    pub values: Vec<Value>,
    pub token: Token,
    /// Tells a next link from a delta link.
    pub more: bool,
}

impl Token {
    pub(crate) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("numbers always serialise"))
    }

    fn window(&self) -> Option<Window> {
        let (start, end) = self.window?;
        Some(Window { start: DateTime::from_timestamp(start, 0)?, end: DateTime::from_timestamp(end, 0)? })
    }
}

impl Tenant {
    /// Makes the token of a first round.
    pub(crate) fn first_round(&self, window: Option<(DateTime<Utc>, DateTime<Utc>)>) -> Token {
        Token {
            generation: self.delta_generation.load(Ordering::Acquire),
            window: window.map(|(start, end)| (start.timestamp(), end.timestamp())),
            from: 0,
            position: 0,
            until: 0,
        }
    }

    /// Reads a token from a link.
    ///
    /// # Errors
    /// 410 when the sync state is gone.
    pub(crate) fn read_token(&self, text: &str) -> Result<Token, GraphError> {
        let gone = |generation: u64| {
            GraphError::new(
                410,
                "SyncStateNotFound",
                format!(
                    "The sync state generation is not found; generation={generation};[highest={}].",
                    generation + 1
                ),
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_error| {
            GraphError::new(400, "ErrorInvalidUrlQuery", "The following sync token is badly formed.")
        })?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_error| {
            GraphError::new(400, "ErrorInvalidUrlQuery", "The following sync token is badly formed.")
        })?;
        let current = self.delta_generation.load(Ordering::Acquire);
        let forgotten = self.world.strikes(Strike::OutlookDeltaGone);
        if token.generation != current || forgotten { Err(gone(token.generation)) } else { Ok(token) }
    }

    /// Makes every delta and next link given out so far answer 410.
    pub fn forget_delta_links(&self) {
        self.delta_generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// One thing in the order of changes.
enum Change<'a> {
    Present(&'a Item),
    Removed(ItemKey),
}

/// Makes the next page of a round.
pub(crate) fn page(mailbox: &Mailbox, mut token: Token, size: usize, style: &Style) -> Page {
    if token.until == 0 {
        token.until = mailbox.modseq;
    }
    let first_round = token.from == 0;
    let open = |modseq: u64| modseq > token.position && modseq <= token.until;
    let mut changes: Vec<(u64, Change<'_>)> = mailbox
        .items
        .values()
        .filter(|item| open(item.modseq) && !(first_round && item.is_exception))
        .map(|item| (item.modseq, Change::Present(item)))
        .collect();
    if !first_round {
        let removed = mailbox.removals.iter().filter(|removal| open(removal.modseq) && removal.modseq > token.from);
        changes.extend(removed.map(|removal| (removal.modseq, Change::Removed(removal.key))));
    }
    changes.sort_by_key(|(modseq, _)| *modseq);

    let window = token.window();
    let mut values = Vec::new();
    let mut more = false;
    for (modseq, change) in changes {
        if values.len() >= size {
            more = true;
            break;
        }
        match change {
            Change::Present(item) => tell(mailbox, item, window.as_ref(), first_round, style, &mut values),
            Change::Removed(key) => values.push(removed(mailbox, key, style)),
        }
        token.position = modseq;
    }
    if !more {
        token.from = token.until;
        token.position = token.until;
        token.until = 0;
    }
    Page { values, token, more }
}

fn tell(
    mailbox: &Mailbox,
    item: &Item,
    window: Option<&Window>,
    first_round: bool,
    style: &Style,
    values: &mut Vec<Value>,
) {
    let Some(window) = window else {
        values.push(view::event(mailbox, item, style));
        return;
    };
    if item.kind() == "seriesMaster" {
        let occurrences = mailbox.occurrences(item, window);
        if !occurrences.is_empty() {
            values.push(view::event(mailbox, item, style));
            values.extend(occurrences.iter().map(|occurrence| thin(mailbox, occurrence, style)));
        } else if !first_round {
            values.push(removed(mailbox, item.key, style));
        }
    } else if item.overlaps(window) {
        values.push(view::event(mailbox, item, style));
    } else if !first_round {
        // Graph says "removed" of events that were merely added or changed outside the window.
        values.push(removed(mailbox, item.key, style));
    }
}

/// Writes an occurrence as delta rounds do: exceptions in full, others with their times only (unconfirmed).
fn thin(mailbox: &Mailbox, occurrence: &Item, style: &Style) -> Value {
    let full = view::event(mailbox, occurrence, style);
    if occurrence.is_exception {
        return full;
    }
    let mut thin = json!({});
    for name in ["@odata.etag", "id", "type", "seriesMasterId", "start", "end"] {
        thin[name] = full[name].clone();
    }
    thin
}

fn removed(mailbox: &Mailbox, key: ItemKey, style: &Style) -> Value {
    json!({"id": mailbox.event_id(style.form, key), "@removed": {"reason": "deleted"}})
}
