//! The port `Calendar` for Salesforce: reads and look-ups. Writes are in `writes`, rounds in `catchup`, proof in `check`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::{LinkId, MailboxId, RecordId, SalesforceId};
use calbridge_core::link::Intent;
use calbridge_core::mapping::TIME;
use calbridge_core::observed::{Evidence, Observed, Stamp, Why};
use calbridge_core::side::Side;
use calbridge_core::value::When;
use calbridge_core::written::WriteResult;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::client::{Call, Client};
use super::error::{Failure, Kind};
use super::settings::{PubSubSettings, Settings, SettingsError, is_field_name};
use super::wire::{self, LINK_FIELD, TOKEN_FIELD};
use crate::ports::{Account, Calendar, Capabilities, Clock, Finding, Page, RemoteError};

/// Records in one read or one collection call.
///
/// Collections take 200 rows:
/// <https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-sobjects-collections-create.html>;
/// 200 ids also keep a query's address under 8 KiB.
pub(super) const BATCH: usize = 200;
/// Outlook ids of up to 152 characters that one query looks for: it travels in an address of at most 16 kB.
const NAMES: usize = 20;

/// Names in one search for users: each stands in the address twice, and addresses are long.
const ACCOUNTS: usize = 50;

/// Pages followed within one read; a read of 200 ids needs one, unless Salesforce makes pages smaller.
const MAX_PAGES: usize = 50;

/// Which stamp fields the org has, as its describe tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StampFields {
    /// `Calbridge_Link__c` exists, can be read and written.
    pub link: bool,
    /// It is unique, so that a repeated creation is refused.
    pub link_unique: bool,
    /// `Calbridge_Token__c` exists, can be read and written.
    pub token: bool,
}

/// Reads and writes the Events of one org.
#[derive(Debug)]
pub struct SalesforceCalendar {
    pub(super) client: Arc<Client>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fields: Vec<String>,
    pub(super) conditional_updates: bool,
    pub(super) list_overlap: chrono::TimeDelta,
    pub(super) pubsub: PubSubSettings,
    stamps: RwLock<Option<StampFields>>,
}

/// What is used of a describe of Event.
#[derive(Debug, Deserialize)]
pub(super) struct Describe {
    #[serde(default)]
    pub(super) createable: bool,
    #[serde(default)]
    pub(super) updateable: bool,
    #[serde(default)]
    pub(super) deletable: bool,
    #[serde(default)]
    pub(super) fields: Vec<DescribedField>,
}

/// One field of a describe.
#[derive(Debug, Deserialize)]
pub(super) struct DescribedField {
    pub(super) name: String,
    #[serde(default)]
    pub(super) createable: bool,
    #[serde(default)]
    pub(super) updateable: bool,
    #[serde(default)]
    pub(super) unique: bool,
    #[serde(default)]
    pub(super) length: u32,
}

/// One page of a query.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryPage {
    pub(super) done: bool,
    #[serde(default)]
    pub(super) next_records_url: Option<String>,
    pub(super) records: Vec<Json>,
}

impl Describe {
    pub(super) fn field(&self, name: &str) -> Option<&DescribedField> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    pub(super) fn stamp_fields(&self) -> StampFields {
        let usable = |name| self.field(name).filter(|field| field.createable && field.updateable);
        StampFields {
            link: usable(LINK_FIELD).is_some(),
            link_unique: usable(LINK_FIELD).is_some_and(|field| field.unique),
            token: usable(TOKEN_FIELD).is_some(),
        }
    }
}

impl SalesforceCalendar {
    /// Prepares the calendar; calls nobody yet.
    ///
    /// # Errors
    /// [`SettingsError::Field`] for a mapped name that no field can have.
    pub fn new(client: Arc<Client>, clock: Arc<dyn Clock>, settings: &Settings) -> Result<Self, SettingsError> {
        if let Some(name) = settings.fields.iter().find(|name| *name != TIME && !is_field_name(name)) {
            return Err(SettingsError::Field(name.clone()));
        }
        Ok(Self {
            client,
            clock,
            fields: settings.fields.clone(),
            conditional_updates: settings.conditional_updates,
            list_overlap: chrono::TimeDelta::from_std(settings.list_overlap).unwrap_or(chrono::TimeDelta::MAX),
            pubsub: settings.pubsub.clone(),
            stamps: RwLock::new(None),
        })
    }

    /// Asks the org which stamp fields it has.
    ///
    /// # Errors
    /// [`RemoteError`] when it cannot be asked.
    pub async fn stamp_fields(&self) -> Result<StampFields, RemoteError> {
        Ok(self.describe().await?.stamp_fields())
    }

    pub(super) async fn describe(&self) -> Result<Describe, Failure> {
        let call = Call::new(Method::GET, "/sobjects/Event/describe", "describe");
        let describe: Describe = self.client.call(call).await?.read()?;
        *self.stamps.write().unwrap_or_else(PoisonError::into_inner) = Some(describe.stamp_fields());
        Ok(describe)
    }

    /// Returns the stamp fields, asking the org the first time.
    async fn known_stamps(&self) -> Result<StampFields, Failure> {
        let known = *self.stamps.read().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(stamps) => Ok(stamps),
            None => Ok(self.describe().await?.stamp_fields()),
        }
    }

    /// Runs a query to its end; `all` includes deleted and archived rows.
    pub(super) async fn query(&self, soql: &str, all: bool) -> Result<Vec<Json>, Failure> {
        let (path, kind) = if all { ("/queryAll", "query_all") } else { ("/query", "query") };
        let first = Call::new(Method::GET, path, kind).query("q", soql);
        let mut page: QueryPage = self.client.call(first).await?.read()?;
        let mut rows = page.records;
        for _ in 0..MAX_PAGES {
            let Some(next) = page.next_records_url.filter(|_| !page.done) else {
                return Ok(rows);
            };
            page = self.client.call(Call::new(Method::GET, &next, "query_more")).await?.read()?;
            rows.append(&mut page.records);
        }
        Err(Failure::new(Kind::Unreadable, "salesforce's answer has more pages than rows were asked for"))
    }

    /// Reads events by a condition: the snapshots, and the stamp each row carries, deleted ones too.
    async fn events(&self, condition: &str, all: bool) -> Result<Vec<(RecordId, Observed, Option<Stamp>)>, Failure> {
        let mut asked_again = false;
        loop {
            let stamps = self.known_stamps().await?;
            let select = wire::select_list(&self.fields, stamps);
            let read_at = self.clock.now();
            match self.query(&format!("SELECT {select} FROM Event WHERE {condition}"), all).await {
                Ok(rows) => {
                    let seen = rows.iter().filter_map(|row| {
                        let (record, observed) = wire::observe(row, &self.fields, read_at)?;
                        Some((record, observed, wire::stamp(row)))
                    });
                    return Ok(seen.collect());
                }
                // A stamp field may have gone (or become hidden) since the describe; a mapped one is for `check` to name.
                Err(failure) if failure.kind == Kind::UnknownField && !asked_again => {
                    asked_again = true;
                    if self.describe().await?.stamp_fields() == stamps {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn fetch_batch(&self, ids: &[&SalesforceId]) -> Result<BTreeMap<RecordId, Observed>, Failure> {
        let condition = format!("Id IN ({})", list(ids.iter().map(|id| id.as_str())));
        let seen = self.events(&condition, true).await?;
        Ok(seen.into_iter().map(|(record, observed, _)| (record, observed)).collect())
    }

    async fn stamped(&self, links: &[LinkId]) -> BTreeMap<LinkId, Result<Vec<(RecordId, Observed)>, Failure>> {
        let mut answers: BTreeMap<LinkId, Result<Vec<_>, Failure>> =
            links.iter().map(|link| (*link, Ok(Vec::new()))).collect();
        let has_field = match self.known_stamps().await {
            Ok(stamps) => Ok(stamps.link),
            Err(failure) => Err(failure),
        };
        for batch in links.chunks(BATCH) {
            let found = match &has_field {
                // Where there is no such field, no record can carry a link.
                Ok(false) => Ok(Vec::new()),
                Ok(true) => {
                    let ids: Vec<String> = batch.iter().map(ToString::to_string).collect();
                    // Copies for invited users may repeat the main event's fields; they are never ours.
                    let condition =
                        format!("IsChild = false AND {LINK_FIELD} IN ({})", list(ids.iter().map(String::as_str)));
                    self.events(&condition, true).await
                }
                Err(failure) => Err(failure.clone()),
            };
            match found {
                Ok(found) => {
                    for (record, observed, stamp) in found {
                        if let Some(Ok(answer)) = stamp.and_then(|stamp| answers.get_mut(&stamp.link)) {
                            answer.push((record, observed));
                        }
                    }
                }
                Err(failure) => {
                    for link in batch {
                        answers.insert(*link, Err(failure.clone()));
                    }
                }
            }
        }
        answers
    }

    /// Finds the rows, deleted ones too, whose stamp names an Outlook event as their partner.
    async fn partners(&self, events: &[&str]) -> BTreeMap<String, Result<Vec<(RecordId, Observed)>, Failure>> {
        let mut answers: BTreeMap<String, Result<Vec<_>, Failure>> =
            events.iter().map(|event| ((*event).to_owned(), Ok(Vec::new()))).collect();
        for batch in events.chunks(NAMES) {
            let found = match self.known_stamps().await {
                // Where there are no such fields, no row can name a partner.
                Ok(stamps) if !stamps.link || !stamps.token => Ok(Vec::new()),
                Ok(_) => self.events(&wire::partners_condition(batch), true).await,
                Err(failure) => Err(failure),
            };
            match found {
                Ok(found) => {
                    for (record, observed, stamp) in found {
                        // The search takes no notice of case; ids of Outlook differ in nothing else.
                        if let Some(Ok(answer)) = stamp.and_then(|stamp| answers.get_mut(&stamp.partner)) {
                            answer.push((record, observed));
                        }
                    }
                }
                Err(failure) => {
                    answers.extend(batch.iter().map(|event| ((*event).to_owned(), Err(failure.clone()))));
                }
            }
        }
        answers
    }

    async fn candidates(&self, owner: &SalesforceId, when: &str) -> Result<Vec<(RecordId, Observed)>, Failure> {
        let when: When = serde_json::from_str(when)
            .map_err(|_other_form| Failure::new(Kind::Unreadable, "the look-up names no readable time"))?;
        let stamps = self.known_stamps().await?;
        let seen = self.events(&wire::candidates_condition(owner, &when, stamps), false).await?;
        Ok(seen.into_iter().map(|(record, observed, _)| (record, observed)).collect())
    }
}

#[async_trait]
impl Calendar for SalesforceCalendar {
    fn side(&self) -> Side {
        Side::Salesforce
    }

    async fn check(&self) -> Vec<Finding> {
        self.findings().await
    }

    async fn capabilities(&self) -> Result<Capabilities, RemoteError> {
        let found = self.stamp_fields().await?;
        let session = self.client.session().await?;
        Ok(Capabilities {
            link_field: found.link,
            link_unique: found.link_unique,
            token_field: found.token,
            user: SalesforceId::parse(session.user()).ok().map(|user| user.to_string()),
        })
    }

    async fn accounts(&self, names: &[String]) -> Result<Vec<Option<Account>>, RemoteError> {
        let mut found: Vec<Option<Account>> = Vec::with_capacity(names.len());
        for batch in names.chunks(ACCOUNTS) {
            let quoted = list(batch.iter().map(String::as_str));
            let soql = format!(
                "SELECT Id, Username, Email, TimeZoneSidKey FROM User \
                 WHERE IsActive = true AND (Username IN ({quoted}) OR Email IN ({quoted}))"
            );
            let users = self.query(&soql, false).await?;
            found.extend(batch.iter().map(|name| account(&users, name)));
        }
        Ok(found)
    }

    async fn fetch(&self, records: &[RecordId]) -> Vec<Observed> {
        let mut seen: BTreeMap<RecordId, Observed> = BTreeMap::new();
        let ids: Vec<&SalesforceId> = records
            .iter()
            .filter_map(|record| match record {
                RecordId::Salesforce(id) => Some(id),
                RecordId::Outlook { .. } => None,
            })
            .collect();
        for batch in ids.chunks(BATCH) {
            match self.fetch_batch(batch).await {
                Ok(found) => seen.extend(found),
                Err(failure) => {
                    let unread = Observed::Unread(failure.why());
                    seen.extend(batch.iter().map(|id| (RecordId::Salesforce((*id).clone()), unread.clone())));
                }
            }
        }
        let read = |record: &RecordId| match record {
            RecordId::Salesforce(_) => seen.get(record).cloned().unwrap_or(Observed::Absent(Evidence::NotFound)),
            RecordId::Outlook { .. } => Observed::Unread(not_here()),
        };
        records.iter().map(read).collect()
    }

    async fn search(&self, lookups: &[Lookup]) -> Vec<Answer> {
        let mut reads = Vec::new();
        let mut links = Vec::new();
        let mut named = Vec::new();
        for lookup in lookups {
            match lookup {
                Lookup::Read(record) => reads.push(record.clone()),
                Lookup::Stamped { link, .. } => links.push(*link),
                Lookup::Partners { of, .. } => named.push(of.remote_id()),
                Lookup::Candidates { .. } | Lookup::Census { .. } => {}
            }
        }
        let mut read: BTreeMap<RecordId, Observed> = BTreeMap::new();
        if !reads.is_empty() {
            let observed = self.fetch(&reads).await;
            read.extend(reads.into_iter().zip(observed));
        }
        let stamped = if links.is_empty() { BTreeMap::new() } else { self.stamped(&links).await };
        let partners = self.partners(&named).await;
        let mut answers = Vec::with_capacity(lookups.len());
        for lookup in lookups {
            let found = match lookup {
                Lookup::Read(record) => {
                    Ok(read.get(record).map(|seen| (record.clone(), seen.clone())).into_iter().collect())
                }
                Lookup::Stamped { link, .. } => stamped.get(link).cloned().unwrap_or(Ok(Vec::new())),
                Lookup::Partners { of, .. } => partners.get(of.remote_id()).cloned().unwrap_or(Ok(Vec::new())),
                Lookup::Candidates { enrolment, when, .. } => self.candidates(&enrolment.1, when).await,
                // The store counts; nobody asks a remote.
                Lookup::Census { .. } => Ok(Vec::new()),
            };
            answers.push(match found {
                Ok(found) => Answer::Found(found),
                Err(failure) => Answer::Failed(failure.why()),
            });
        }
        answers
    }

    async fn write(&self, writes: &[Intent]) -> Vec<WriteResult> {
        self.send(writes).await
    }

    async fn list(&self, _mailbox: Option<&MailboxId>, cursor: Option<&str>) -> Result<Page, RemoteError> {
        Ok(self.page(cursor).await?)
    }
}

/// Finds the user of a name: a username first, else the one user with this address; two with it are nobody.
fn account(users: &[Json], name: &str) -> Option<Account> {
    let with = |field: &str| -> Vec<&Json> {
        users
            .iter()
            .filter(|user| wire::text_of(user, field).is_some_and(|text| text.eq_ignore_ascii_case(name)))
            .collect()
    };
    let by_name = with("Username");
    let matching = if by_name.is_empty() { with("Email") } else { by_name };
    let [user] = matching.as_slice() else { return None };
    Some(Account {
        id: SalesforceId::parse(wire::text_of(user, "Id")?).ok()?.as_str().to_owned(),
        name: wire::text_of(user, "Username")?.to_owned(),
        zone: wire::text_of(user, "TimeZoneSidKey").map(str::to_owned),
    })
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.map(wire::quoted).collect();
    quoted.join(",")
}

/// Answers for a record of the other side, which no caller gives.
fn not_here() -> Why {
    Failure::new(Kind::Refused, "an Outlook record was looked for in salesforce").why()
}
