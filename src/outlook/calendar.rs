//! Outlook as a [`Calendar`]: reads, writes, look-ups, rounds, and the check of permissions.
//!
//! Decides what an answer of Graph means for the core. How a request travels is `client`'s business, how an event looks
//! is `convert`'s.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::{LinkId, MailboxId, RecordId};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::mapping::TIME;
use calbridge_core::observed::{Evidence, Observed, Snapshot};
use calbridge_core::side::Side;
use calbridge_core::signal::Version;
use calbridge_core::value::{Value, When};
use calbridge_core::written::WriteResult;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::Method;
use serde_json::Value as Json;
use tokio::sync::watch;

use super::client::{Answered, Call, GraphClient, Reply, TENANT, encode, read};
use super::convert::{self, STAMP_PROPERTY};
use super::error::{self, CallFailure, remote, why};
use super::wire::{Collection, DeltaItem, MailboxSettings, User};
use super::{Settings, check, zones};
use crate::ports::{Account, Calendar, Capabilities, Clock, EnrolmentRow, Finding, Page, RemoteError, Retry};

/// Events that a page of a search or of a round holds at most.
const PAGE_SIZE: usize = 100;
/// Pages of one search that are followed; more than 1,000 meetings at one instant are no candidates for anything.
const SEARCH_PAGES: usize = 10;

/// Reads and writes the events of one tenant's mailboxes.
#[derive(Debug)]
pub struct OutlookCalendar {
    pub(super) client: Arc<GraphClient>,
    pub(super) settings: Arc<Settings>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) enrolments: watch::Receiver<Vec<EnrolmentRow>>,
}

impl OutlookCalendar {
    fn event_path(mailbox: &MailboxId, event: &str) -> String {
        format!("/users/{}/events/{}", encode(mailbox.as_str()), encode(event))
    }

    /// `$select` and `$expand` of every read.
    fn view(&self) -> String {
        let expand = format!("singleValueExtendedProperties($filter=id eq '{STAMP_PROPERTY}')");
        format!("$select={}&$expand={}", encode(&convert::select(&self.settings.fields)), encode(&expand))
    }

    fn observed(&self, record: &RecordId, answer: &Answered, read_at: DateTime<Utc>) -> Observed {
        let reply = match answer {
            Ok(reply) => reply,
            Err(failure) => return Observed::Unread(why(failure.error())),
        };
        if reply.is_success() {
            return match self.snapshot(record.mailbox(), &reply.body, read_at) {
                Ok(snapshot) => Observed::Present(Box::new(snapshot)),
                Err(error) => Observed::Unread(why(&error)),
            };
        }
        let fault = reply.fault();
        if fault.is_item_missing() {
            return Observed::Absent(Evidence::NotFound);
        }
        Observed::Unread(why(&fault.to_error()))
    }

    fn snapshot(
        &self,
        mailbox: Option<&MailboxId>,
        json: &Json,
        read_at: DateTime<Utc>,
    ) -> Result<Snapshot, RemoteError> {
        let mailbox = mailbox.ok_or_else(not_ours)?;
        let mut snapshot = convert::snapshot(mailbox, json, &self.settings.fields, read_at)?;
        if !snapshot.traits.is_organizer {
            snapshot.traits.organizer = convert::organizer_address(json).and_then(|address| self.enrolled_as(address));
        }
        Ok(snapshot)
    }

    /// Returns the enrolled mailbox with an address.
    fn enrolled_as(&self, address: &str) -> Option<MailboxId> {
        let rows = self.enrolments.borrow();
        let row = rows.iter().find(|row| row.address.eq_ignore_ascii_case(address));
        row.map(|row| row.enrolment.mailbox.clone())
    }

    /// Runs a search to its end.
    async fn collect(&self, mailbox: &MailboxId, first: Answered) -> Result<Vec<Snapshot>, RemoteError> {
        let mut found = Vec::new();
        let mut answer = first;
        for _ in 0..SEARCH_PAGES {
            let read_at = self.clock.now();
            let body = success(answer)?;
            let page: Collection = read(&body, "list of events")?;
            for json in &page.value {
                found.push(self.snapshot(Some(mailbox), json, read_at)?);
            }
            match page.next_link {
                Some(link) => answer = self.client.follow(mailbox.as_str(), &link).await,
                None => break,
            }
        }
        Ok(found)
    }

    /// Asks for events that carry the stamp of a link.
    fn stamped_call(&self, mailbox: &MailboxId, link: LinkId) -> Call {
        // The value goes on with partner and token; quotes cannot occur in a uuid.
        self.stamps_call(mailbox, &format!("startswith(ep/value,'v1;{link};')"))
    }

    /// Asks for events whose stamp names a Salesforce Event as their partner.
    fn partners_call(&self, mailbox: &MailboxId, row: &str) -> Call {
        // Letters and digits only; in any case, as the filter takes no notice of it: what is found is compared again.
        self.stamps_call(mailbox, &format!("contains(ep/value,';{row};')"))
    }

    /// Asks for events by what their stamp says.
    ///
    /// <https://learn.microsoft.com/graph/api/singlevaluelegacyextendedproperty-get>: `contains`, `startswith`, `eq`, `ne`.
    fn stamps_call(&self, mailbox: &MailboxId, condition: &str) -> Call {
        let filter = format!("singleValueExtendedProperties/Any(ep: ep/id eq '{STAMP_PROPERTY}' and {condition})");
        let path = format!(
            "/users/{}/events?$filter={}&{}&$top={PAGE_SIZE}",
            encode(mailbox.as_str()),
            encode(&filter),
            self.view()
        );
        Call::get(mailbox.as_str(), path)
    }

    async fn stamped(&self, link: LinkId, mailboxes: Vec<MailboxId>) -> Result<Vec<Snapshot>, RemoteError> {
        let calls = mailboxes.iter().map(|mailbox| self.stamped_call(mailbox, link)).collect();
        let answers = self.client.send_together(calls).await;
        let mut found = Vec::new();
        for (mailbox, answer) in mailboxes.iter().zip(answers) {
            found.extend(self.collect(mailbox, answer).await?);
        }
        found.retain(|snapshot| snapshot.stamp.as_ref().is_some_and(|stamp| stamp.link == link));
        Ok(found)
    }

    /// Asks for events of a mailbox around the start of a meeting.
    fn candidates_call(&self, mailbox: &MailboxId, when: &When) -> Call {
        let (from, until) = match when {
            When::Timed { start, .. } => (*start, *start + TimeDelta::minutes(1)),
            When::AllDay { first, .. } => {
                let midnight = first.and_time(chrono::NaiveTime::MIN).and_utc();
                // Wherever the service thinks that the day begins.
                (midnight - TimeDelta::hours(14), midnight + TimeDelta::hours(36))
            }
        };
        let path = format!(
            "/users/{}/calendarView?startDateTime={}&endDateTime={}&{}&$top={PAGE_SIZE}",
            encode(mailbox.as_str()),
            encode(&utc(from)),
            encode(&utc(until)),
            self.view()
        );
        Call::get(mailbox.as_str(), path)
    }

    /// Turns a look-up into the requests that answer it, one a mailbox.
    fn question(&self, lookup: &Lookup) -> Result<Vec<(MailboxId, Call)>, RemoteError> {
        match lookup {
            Lookup::Read(RecordId::Outlook { mailbox, event }) => {
                let path = format!("{}?{}", Self::event_path(mailbox, event), self.view());
                Ok(vec![(mailbox.clone(), Call::get(mailbox.as_str(), path))])
            }
            Lookup::Stamped { link, mailbox, .. } => {
                let mailboxes = match mailbox {
                    Some(mailbox) => vec![mailbox.clone()],
                    None => self.enrolled(),
                };
                let ask = |mailbox: MailboxId| {
                    let call = self.stamped_call(&mailbox, *link);
                    (mailbox, call)
                };
                Ok(mailboxes.into_iter().map(ask).collect())
            }
            Lookup::Partners { of: RecordId::Salesforce(row), mailbox, .. } => {
                let mailboxes = mailbox.clone().map_or_else(|| self.enrolled(), |mailbox| vec![mailbox]);
                let ask = |mailbox: MailboxId| {
                    let call = self.partners_call(&mailbox, row.as_str());
                    (mailbox, call)
                };
                Ok(mailboxes.into_iter().map(ask).collect())
            }
            Lookup::Candidates { enrolment, when, .. } => {
                let when: When = serde_json::from_str(when).map_err(|_not_ours| not_ours())?;
                Ok(vec![(enrolment.0.clone(), self.candidates_call(&enrolment.0, &when))])
            }
            Lookup::Read(RecordId::Salesforce(_))
            | Lookup::Partners { of: RecordId::Outlook { .. }, .. }
            | Lookup::Census { .. } => Err(not_ours()),
        }
    }

    async fn conclude(&self, lookup: &Lookup, answers: Vec<(MailboxId, Answered)>, read_at: DateTime<Utc>) -> Answer {
        if let Lookup::Read(record) = lookup {
            let observed = answers.first().map(|(_, answer)| self.observed(record, answer, read_at));
            return Answer::Found(observed.map(|observed| (record.clone(), observed)).into_iter().collect());
        }
        let mut found = Vec::new();
        for (mailbox, answer) in answers {
            match self.collect(&mailbox, answer).await {
                Ok(more) => found.extend(more),
                Err(error) => return Answer::Failed(why(&error)),
            }
        }
        found.retain(|snapshot| fits(lookup, snapshot));
        Answer::Found(
            found
                .into_iter()
                .map(|snapshot| (snapshot.record.clone(), Observed::Present(Box::new(snapshot))))
                .collect(),
        )
    }

    fn enrolled(&self) -> Vec<MailboxId> {
        let rows = self.enrolments.borrow();
        rows.iter().map(|row| row.enrolment.mailbox.clone()).collect()
    }

    /// Makes the request of an intent.
    fn write_call(&self, intent: &Intent) -> Result<Call, RemoteError> {
        let (mailbox, mut call) = match &intent.action {
            Action::Create(Home::Mailbox(mailbox)) => {
                let path = format!("/users/{}/events", encode(mailbox.as_str()));
                (mailbox, Call::new(mailbox.as_str(), Method::POST, path).with_body(convert::body(intent)?))
            }
            Action::Update(RecordId::Outlook { mailbox, event }) => {
                let call = Call::new(mailbox.as_str(), Method::PATCH, Self::event_path(mailbox, event));
                (mailbox, call.with_body(convert::body(intent)?))
            }
            Action::Delete(RecordId::Outlook { mailbox, event }) => {
                (mailbox, Call::new(mailbox.as_str(), Method::DELETE, Self::event_path(mailbox, event)))
            }
            Action::Create(Home::Owner(_)) | Action::Update(_) | Action::Delete(_) => return Err(not_ours()),
        };
        if self.settings.conditional_writes
            && intent.action.record().is_some()
            && let Some(Version::ChangeKey(key)) = &intent.expected
        {
            call.if_match = Some(format!("W/\"{key}\""));
        }
        mailbox.as_str().clone_into(&mut call.key);
        call.send_by = Some(intent.send_by);
        Ok(call)
    }

    /// Finds out whether an earlier send of a creation took effect; none when it certainly did not so far.
    async fn created_before(&self, intent: &Intent) -> Option<WriteResult> {
        let Action::Create(Home::Mailbox(mailbox)) = &intent.action else {
            return None;
        };
        match self.stamped(intent.link, vec![mailbox.clone()]).await {
            Err(error) => Some(WriteResult::Unknown(why(&error))),
            Ok(found) => {
                let snapshot = found.into_iter().next()?;
                let ours = snapshot.stamp.as_ref().and_then(|stamp| stamp.token) == Some(intent.token);
                Some(if ours {
                    applied(snapshot)
                } else {
                    WriteResult::AlreadyExists(why(&remote(
                        error::CHANGED,
                        "the mailbox has an event with this link already",
                        Retry::Never,
                    )))
                })
            }
        }
    }

    fn write_result(&self, intent: &Intent, answer: Answered, read_at: DateTime<Utc>) -> WriteResult {
        let reply = match answer {
            Ok(reply) => reply,
            Err(CallFailure::NotSent(error)) => return WriteResult::NotNow(why(&error)),
            Err(CallFailure::Lost(error)) => return WriteResult::Unknown(why(&error)),
        };
        if !reply.is_success() {
            return refusal(&reply);
        }
        if let Action::Delete(record) = &intent.action {
            return WriteResult::Applied { record: record.clone(), version: None, snapshot: None };
        }
        let mailbox = match &intent.action {
            Action::Create(Home::Mailbox(mailbox)) => Some(mailbox),
            action => action.record().and_then(RecordId::mailbox),
        };
        match (self.snapshot(mailbox, &reply.body, read_at), &intent.action) {
            (Ok(mut snapshot), _) => {
                // Extended properties are not part of the answer to the write that sets them.
                snapshot.stamp.get_or_insert_with(|| intent.stamp.clone());
                applied(snapshot)
            }
            (Err(_), Action::Update(record)) => {
                WriteResult::Applied { record: record.clone(), version: None, snapshot: None }
            }
            (Err(error), _) => WriteResult::Unknown(why(&error)),
        }
    }
}

#[async_trait]
impl Calendar for OutlookCalendar {
    fn side(&self) -> Side {
        Side::Outlook
    }

    async fn check(&self) -> Vec<Finding> {
        check::run(self).await
    }

    async fn capabilities(&self) -> Result<Capabilities, RemoteError> {
        // An extended property needs no set-up, and `transactionId` makes a repeated creation harmless.
        Ok(Capabilities { link_field: true, link_unique: true, token_field: true, user: None })
    }

    async fn accounts(&self, names: &[String]) -> Result<Vec<Option<Account>>, RemoteError> {
        let calls = names
            .iter()
            .map(|name| {
                let path = format!("/users/{}?$select=id,mail,userPrincipalName", encode(name));
                Call::get(TENANT, path)
            })
            .collect();
        let mut users: Vec<Option<User>> = Vec::with_capacity(names.len());
        for answer in self.client.send_all(calls).await {
            let reply = answer.map_err(|failure| failure.error().clone())?;
            users.push(match reply.status {
                404 => None,
                _ => Some(read(&reply.success()?, "user")?),
            });
        }
        let settings = users
            .iter()
            .flatten()
            .map(|user| {
                let mailbox = user.id.to_lowercase();
                let path = format!("/users/{}/mailboxSettings", encode(&mailbox));
                Call::get(mailbox, path)
            })
            .collect();
        let mut settings = self.client.send_all(settings).await.into_iter();
        let mut accounts = Vec::with_capacity(users.len());
        for user in users {
            let Some(user) = user else {
                accounts.push(None);
                continue;
            };
            // Without the permission for settings the zone stays unknown; nothing else depends on it.
            let zone = settings
                .next()
                .and_then(|answer| success(answer).ok())
                .and_then(|body| read::<MailboxSettings>(&body, "mailbox settings").ok())
                .and_then(|settings| zones::iana(&settings.time_zone?));
            accounts.push(Some(Account {
                id: user.id.to_lowercase(),
                name: user.mail.or(user.sign_in_name).unwrap_or_default(),
                zone,
            }));
        }
        Ok(accounts)
    }

    async fn fetch(&self, records: &[RecordId]) -> Vec<Observed> {
        let view = self.view();
        let calls: Vec<Option<Call>> = records
            .iter()
            .map(|record| match record {
                RecordId::Outlook { mailbox, event } => {
                    Some(Call::get(mailbox.as_str(), format!("{}?{view}", Self::event_path(mailbox, event))))
                }
                RecordId::Salesforce(_) => None,
            })
            .collect();
        let read_at = self.clock.now();
        let known: Vec<bool> = calls.iter().map(Option::is_some).collect();
        let mut answers = self.client.send_together(calls.into_iter().flatten().collect()).await.into_iter();
        records
            .iter()
            .zip(known)
            .map(|(record, known)| match if known { answers.next() } else { None } {
                Some(answer) => self.observed(record, &answer, read_at),
                None => Observed::Unread(why(&not_ours())),
            })
            .collect()
    }

    async fn search(&self, lookups: &[Lookup]) -> Vec<Answer> {
        let read_at = self.clock.now();
        let mut calls = Vec::new();
        let mut questions = Vec::with_capacity(lookups.len());
        for lookup in lookups {
            questions.push(self.question(lookup).map(|asked| {
                asked
                    .into_iter()
                    .map(|(mailbox, call)| {
                        calls.push(call);
                        mailbox
                    })
                    .collect::<Vec<_>>()
            }));
        }
        let mut answers = self.client.send_together(calls).await.into_iter();
        let mut concluded = Vec::with_capacity(lookups.len());
        for (lookup, mailboxes) in lookups.iter().zip(questions) {
            concluded.push(match mailboxes {
                Ok(mailboxes) => {
                    let theirs = mailboxes.into_iter().zip(answers.by_ref()).collect();
                    self.conclude(lookup, theirs, read_at).await
                }
                Err(error) => Answer::Failed(why(&error)),
            });
        }
        concluded
    }

    async fn write(&self, writes: &[Intent]) -> Vec<WriteResult> {
        let read_at = self.clock.now();
        let prepared = futures::future::join_all(writes.iter().map(|intent| async move {
            if intent.sends > 1
                && let Some(result) = self.created_before(intent).await
            {
                return Err(result);
            }
            self.write_call(intent).map_err(|error| WriteResult::Refused(why(&error)))
        }))
        .await;
        let calls = prepared.iter().filter_map(|call| call.as_ref().ok().cloned()).collect();
        let mut answers = self.client.send_together(calls).await.into_iter();
        writes
            .iter()
            .zip(prepared)
            .map(|(intent, prepared)| match prepared {
                Err(result) => result,
                Ok(_) => match answers.next() {
                    Some(answer) => self.write_result(intent, answer, read_at),
                    None => WriteResult::Unknown(why(&not_ours())),
                },
            })
            .collect()
    }

    async fn list(&self, mailbox: Option<&MailboxId>, cursor: Option<&str>) -> Result<Page, RemoteError> {
        let mailbox = mailbox.ok_or_else(not_ours)?;
        let answer = if let Some(link) = cursor {
            match self.client.follow(mailbox.as_str(), link).await {
                // A link of another address was given by a service that is no longer the one we talk to.
                Err(CallFailure::NotSent(error)) if error.code == error::LINK_LEADS_AWAY => {
                    return Err(remote(error::CURSOR_EXPIRED, "the delta link is another service's", Retry::Never));
                }
                answer => answer,
            }
        } else {
            let now = self.clock.now();
            let path = format!(
                "/users/{}/calendarView/delta?startDateTime={}&endDateTime={}",
                encode(mailbox.as_str()),
                encode(&utc(now - self.settings.window_back)),
                encode(&utc(now + self.settings.window_ahead)),
            );
            let mut call = Call::get(mailbox.as_str(), path);
            call.prefer = Some(format!("odata.maxpagesize={PAGE_SIZE}"));
            self.client.send(call).await
        };
        let page: Collection = read(&success(answer)?, "delta page")?;
        // Before anything is taken from the page: a round that began anew for such a link would find it again at once.
        self.client.expect_own(page.next_link.as_deref())?;
        self.client.expect_own(page.delta_link.as_deref())?;
        if page.next_link.is_none() && page.delta_link.is_none() {
            let message = "Graph's delta page names neither a next page nor where to go on later";
            return Err(remote(error::UNREADABLE, message, Retry::After(Duration::from_mins(1))));
        }
        let mut seen = BTreeSet::new();
        let mut records = Vec::new();
        for json in &page.value {
            let item: DeltaItem = read(json, "delta item")?;
            // A series is looked at through its master, once, however many occurrences the window shows.
            let id = match (item.kind.as_deref(), item.series_master_id) {
                (Some(kind), Some(master)) if kind.eq_ignore_ascii_case("occurrence") => master,
                _ => item.id,
            };
            let removed = item.removed.is_some();
            if seen.insert((id.clone(), removed)) {
                let record = RecordId::Outlook { mailbox: mailbox.clone(), event: id };
                records.push((record, removed));
            }
        }
        Ok(Page { records, next: page.next_link, resume: page.delta_link })
    }
}

fn success(answer: Answered) -> Result<Json, RemoteError> {
    match answer {
        Ok(reply) => reply.success(),
        Err(failure) => Err(failure.error().clone()),
    }
}

fn applied(snapshot: Snapshot) -> WriteResult {
    WriteResult::Applied {
        record: snapshot.record.clone(),
        version: Some(snapshot.version.clone()),
        snapshot: Some(Box::new(snapshot)),
    }
}

/// Says what a status other than 2xx means for a write.
fn refusal(reply: &Reply) -> WriteResult {
    let fault = reply.fault();
    let error = fault.to_error();
    let why = why(&error);
    match reply.status {
        _ if fault.is_mailbox_offline() => WriteResult::NotNow(why),
        409 | 412 => WriteResult::Conflict(why),
        // The mailbox may come back with its licence; an event that is not found will not.
        404 if error.code == error::NO_MAILBOX => WriteResult::NotNow(why),
        404 | 410 => WriteResult::Gone(why),
        401 | 403 | 423 | 424 => WriteResult::NotNow(why),
        _ if reply.is_throttled() => WriteResult::NotNow(why),
        // Whoever redirects is not Graph; what it did with the request before is unknown.
        300..=399 | 408 | 500.. => WriteResult::Unknown(why),
        _ => WriteResult::Refused(why),
    }
}

/// Tells whether an event found is what a look-up asks for; the remote's filter is only the first sieve.
fn fits(lookup: &Lookup, snapshot: &Snapshot) -> bool {
    match lookup {
        Lookup::Read(_) | Lookup::Census { .. } => true,
        Lookup::Stamped { link, .. } => snapshot.stamp.as_ref().is_some_and(|stamp| stamp.link == *link),
        Lookup::Partners { of, .. } => snapshot.stamp.as_ref().is_some_and(|stamp| stamp.partner == of.remote_id()),
        Lookup::Candidates { when, .. } => {
            let asked = serde_json::from_str::<When>(when).ok();
            let held = snapshot.fields.get(TIME).and_then(Value::as_when);
            let same = match (asked, held) {
                (Some(When::Timed { start, .. }), Some(When::Timed { start: other, .. })) => start == *other,
                (Some(When::AllDay { first, .. }), Some(When::AllDay { first: other, .. })) => first == *other,
                _ => false,
            };
            same && snapshot.stamp.is_none()
        }
    }
}

fn not_ours() -> RemoteError {
    remote(error::NOT_WRITABLE, "what was asked for is no event of a mailbox", Retry::After(Duration::ZERO))
}

fn utc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
