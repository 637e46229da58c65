//! The pure core of calbridge: decides what is written. No async, no clock, no IO, no randomness.
//!
//! Two functions carry it. [`plan`](plan::plan) looks at one meeting on both sides and says what to do; [`settle`](settle::settle) takes in
//! what a remote answered. The engine around them reads, records intents, sends, and stores.
//!
//! ```text
//!   signals -> notices --.
//!   reads of both sides --+-> Case --plan(rules, now, fresh)--> Plan --> intents --> write --settle--> Link
//!   correlation row -----'
//! ```
//!
//! The contract on one screen: a new Outlook event crosses, and planning again afterwards finds nothing to do.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use calbridge_core::case::{Case, Enrolment, Fresh};
//! use calbridge_core::ids::{ConnectionId, LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
//! use calbridge_core::mapping::{Mapping, MappingSpec};
//! use calbridge_core::observed::{Observed, Snapshot, Traits};
//! use calbridge_core::plan::{Outcome, Planned, plan};
//! use calbridge_core::policy::{Policy, Rules};
//! use calbridge_core::settle::settle;
//! use calbridge_core::signal::Version;
//! use calbridge_core::value::{Fields, Value, When};
//! use calbridge_core::written::WriteResult;
//! use uuid::Uuid;
//!
//! let file = "version: 1\nfields:\n  - { name: time, outlook: time, salesforce: time }\n";
//! let mapping = MappingSpec::parse("example.yaml", file).and_then(|spec| Mapping::compile(&spec)).unwrap();
//! let rules = Rules { mapping, policy: Policy::default() };
//!
//! // The engine reads, and draws time and ids: the core does neither.
//! let now = "2026-11-02T08:00:00Z".parse().unwrap();
//! let fresh = Fresh {
//!     link: LinkId::new(Uuid::from_u128(1)),
//!     outlook: WriteToken::new(Uuid::from_u128(2)),
//!     salesforce: WriteToken::new(Uuid::from_u128(3)),
//! };
//! let (mailbox, user) = (MailboxId::new("8c1f"), SalesforceId::parse("0055000000Gv7qJ").unwrap());
//! let nine = Value::When(When::Timed {
//!     start: "2026-12-01T09:00:00Z".parse().unwrap(),
//!     end: "2026-12-01T10:00:00Z".parse().unwrap(),
//!     zone: None,
//! });
//! let snapshot = |record: &RecordId, version| Snapshot {
//!     record: record.clone(),
//!     version,
//!     read_at: now,
//!     created: now,
//!     modified: now,
//!     modified_by: None,
//!     stamp: None,
//!     traits: Traits { is_organizer: true, ..Traits::default() },
//!     fields: Fields::from([("time".to_owned(), nine.clone())]),
//! };
//! let event = RecordId::Outlook { mailbox: mailbox.clone(), event: "AAk=".to_owned() };
//! let read = Observed::Present(Box::new(snapshot(&event, Version::ChangeKey("k1".to_owned()))));
//! let mut case = Case {
//!     connection: ConnectionId::new("main"),
//!     link: None,
//!     reads: BTreeMap::from([(event, read)]),
//!     notices: Vec::new(),
//!     enrolments: vec![Enrolment { mailbox, user, enrolled_at: "2026-11-01T00:00:00Z".parse().unwrap() }],
//!     lookups: Vec::new(),
//!     facts: Vec::new(),
//!     instruction: None,
//!     tries: 0,
//! };
//!
//! let Planned::Plan(created) = plan(&case, &rules, now, &fresh) else { panic!("nothing to look up") };
//! let [step] = created.steps.as_slice() else { panic!("one step") };
//! assert_eq!((step.action.name(), &step.fields["time"]), ("create", &nine));
//! // The step is an open intent of `created.next`: that is stored first, then sent, then its answer is settled.
//! let row = RecordId::Salesforce(SalesforceId::parse("00U5000000Gv7qJ").unwrap());
//! let answer = WriteResult::Applied { record: row.clone(), version: None, snapshot: None };
//! let settled = settle(created.next.unwrap(), step, &answer, &rules, now);
//!
//! let mut written = snapshot(&row, Version::Modstamp(now));
//! written.stamp = Some(step.stamp.clone());
//! case.reads.insert(row, Observed::Present(Box::new(written)));
//! case.link = Some(settled.link);
//! let Planned::Plan(again) = plan(&case, &rules, now, &fresh) else { panic!("nothing to look up") };
//! assert_eq!((again.outcome, again.steps), (Outcome::InStep, Vec::new()));
//! ```

pub mod case;
pub mod document;
pub mod ids;
pub mod link;
pub mod mapping;
pub mod observed;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod settle;
pub mod side;
pub mod signal;
pub mod value;
pub mod written;
