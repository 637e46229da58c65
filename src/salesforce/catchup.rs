//! Rounds over the whole org: every event, or every one changed since the round before.
//!
//! Change events may be lost and commits may become visible late, so a round begins some minutes before the end of the
//! one before it. Deleted rows are listed too, for as long as the recycle bin keeps them (15 days).

use calbridge_core::ids::{RecordId, SalesforceId};
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::calendar::{QueryPage, SalesforceCalendar};
use super::client::Call;
use super::error::{Failure, Kind};
use super::wire::{flag_of, instant_text, text_of};
use crate::ports::Page;

/// What a cursor holds; opaque to everybody else.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    /// Rows changed before this are not listed; none lists all.
    since: Option<DateTime<Utc>>,
    /// When the round began.
    began: Option<DateTime<Utc>>,
    /// Address of the next page within the round.
    next: Option<String>,
}

impl SalesforceCalendar {
    /// Lists one page.
    pub(super) async fn page(&self, cursor: Option<&str>) -> Result<Page, Failure> {
        let cursor: Cursor = match cursor {
            None => Cursor { since: None, began: None, next: None },
            Some(text) => serde_json::from_str(text).map_err(|_not_ours| expired())?,
        };
        let began = cursor.began.unwrap_or_else(|| self.clock.now());
        let (path, query) = match &cursor.next {
            Some(next) => (next.as_str(), None),
            None => ("/queryAll", Some(soql(cursor.since))),
        };
        let mut call = Call::new(Method::GET, path, "list");
        if let Some(soql) = query {
            call = call.query("q", soql);
        }
        let reply = self.client.call(call).await;
        // Salesforce forgets a page marker after a while; its address is then no longer found.
        let reply = reply.map_err(|failure| match failure.kind {
            Kind::Cursor | Kind::Gone if cursor.next.is_some() => expired(),
            _ => failure,
        })?;
        let page: QueryPage = reply.read()?;
        let records = page
            .records
            .iter()
            .filter_map(|row| {
                let id = SalesforceId::parse(text_of(row, "Id")?).ok()?;
                Some((RecordId::Salesforce(id), flag_of(row, "IsDeleted")))
            })
            .collect();
        let next = page.next_records_url.filter(|_| !page.done);
        let resume = next.is_none().then(|| {
            text(&Cursor {
                since: Some(began.checked_sub_signed(self.list_overlap).unwrap_or(DateTime::UNIX_EPOCH)),
                began: None,
                next: None,
            })
        });
        let next = next.map(|next| text(&Cursor { since: cursor.since, began: Some(began), next: Some(next) }));
        Ok(Page { records, next, resume })
    }
}

fn soql(since: Option<DateTime<Utc>>) -> String {
    let since = since.map_or_else(String::new, |since| format!(" AND SystemModstamp >= {}", instant_text(since)));
    format!("SELECT Id, IsDeleted FROM Event WHERE IsChild = false{since} ORDER BY SystemModstamp")
}

fn text(cursor: &Cursor) -> String {
    serde_json::to_string(cursor).expect("plain data always serialises")
}

fn expired() -> Failure {
    Failure::new(Kind::Cursor, "the round's place is no longer known; it starts anew")
}
