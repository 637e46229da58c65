//! A linked meeting in step, ready to be disturbed: each test changes what it is about and asks for the plan.

use std::collections::BTreeMap;

use calbridge_core::case::{Answer, Case, Census, Enrolment, Fresh, Lookup, Notice};
use calbridge_core::ids::{ConnectionId, LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::{Action, BaseField, Care, Intent, Link, LinkState, Replica};
use calbridge_core::mapping::{Conflict, Direction, FieldSpec, Initial, Mapping, MappingSpec};
use calbridge_core::observed::{Evidence, Observed, Snapshot, Stamp, Traits, Why};
use calbridge_core::plan::{Plan, Planned, plan};
use calbridge_core::policy::{Policy, Rules, Timers};
use calbridge_core::side::{BothSides, Side};
use calbridge_core::signal::{SignalCause, Version};
use calbridge_core::value::{Fields, Value, When};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

pub(crate) const USER: &str = "005000000000001AAA";

/// Everything that a plan is made from.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) case: Case,
    pub(crate) rules: Rules,
    pub(crate) now: DateTime<Utc>,
    pub(crate) fresh: Fresh,
    /// What other meetings have used up.
    pub(crate) census: Census,
    /// What a search for stamps that name a record finds.
    pub(crate) partners: Vec<(RecordId, Observed)>,
}

pub(crate) fn now() -> DateTime<Utc> {
    "2026-11-02T08:00:00Z".parse().unwrap()
}

pub(crate) fn token(number: u128) -> WriteToken {
    WriteToken::new(Uuid::from_u128(number))
}

pub(crate) fn link_id() -> LinkId {
    LinkId::new(Uuid::from_u128(1))
}

pub(crate) fn mailbox(number: u32) -> MailboxId {
    MailboxId::new(format!("mailbox-{number}"))
}

/// The event of a mailbox.
pub(crate) fn event(number: u32) -> RecordId {
    RecordId::Outlook { mailbox: mailbox(number), event: format!("event-{number}") }
}

/// The Salesforce Event.
pub(crate) fn row() -> RecordId {
    RecordId::Salesforce(SalesforceId::parse("00U000000000001EAA").unwrap())
}

pub(crate) fn record(side: Side) -> RecordId {
    match side {
        Side::Outlook => event(1),
        Side::Salesforce => row(),
    }
}

/// The `number`th version of a side.
pub(crate) fn version(side: Side, number: i64) -> Version {
    match side {
        Side::Outlook => Version::ChangeKey(format!("key-{number}")),
        Side::Salesforce => Version::Modstamp(now() - TimeDelta::hours(2) + TimeDelta::seconds(number)),
    }
}

pub(crate) fn why(code: &str) -> Why {
    Why { code: code.to_owned(), message: "a message".to_owned(), retry_after_ms: None }
}

pub(crate) fn timed(start: &str, end: &str) -> Value {
    Value::When(When::Timed { start: start.parse().unwrap(), end: end.parse().unwrap(), zone: None })
}

/// A rule between two text fields.
pub(crate) fn text_rule(name: &str, outlook: &str, salesforce: &str) -> FieldSpec {
    FieldSpec {
        name: name.to_owned(),
        line: 1,
        outlook: outlook.to_owned(),
        salesforce: salesforce.to_owned(),
        direction: Direction::Both,
        on_create: false,
        conflict: Conflict::OutlookWins,
        initial: Initial::Outlook,
        max_length: None,
        to_salesforce: BTreeMap::new(),
        to_outlook: BTreeMap::new(),
    }
}

pub(crate) fn mapping(fields: Vec<FieldSpec>) -> Mapping {
    let spec = MappingSpec { file: "scene".to_owned(), fields, tests: Vec::new() };
    Mapping::compile(&spec).expect("the rules are sound")
}

/// Rules for subject and time. Deletions do not wait here: `caution.rs` tells when they do.
pub(crate) fn rules() -> Rules {
    let fields = vec![text_rule("subject", "subject", "Subject"), text_rule("time", "time", "time")];
    let timers = Timers { delete_wait: TimeDelta::zero(), ..Timers::default() };
    Rules { mapping: mapping(fields), policy: Policy { timers, ..Policy::default() } }
}

/// A record as it stands while both sides are in step, at version 1.
pub(crate) fn snapshot(side: Side) -> Snapshot {
    let subject = if side == Side::Outlook { "subject" } else { "Subject" };
    Snapshot {
        record: record(side),
        version: version(side, 1),
        read_at: now(),
        created: now() - TimeDelta::hours(3),
        modified: now() - TimeDelta::hours(2),
        modified_by: None,
        stamp: None,
        traits: Traits {
            ical_uid: (side == Side::Outlook).then(|| "uid-1".to_owned()),
            is_organizer: true,
            owner: (side == Side::Salesforce).then(|| USER.to_owned()),
            ..Traits::default()
        },
        fields: Fields::from([
            (subject.to_owned(), Value::text("lunch")),
            ("time".to_owned(), timed("2026-12-01T09:00:00Z", "2026-12-01T10:00:00Z")),
        ]),
    }
}

impl Scene {
    /// Both sides hold the same, the link knows it, and nobody said anything.
    pub(crate) fn in_step() -> Self {
        let mut scene = Self::unlinked(Side::Outlook);
        for side in Side::BOTH {
            scene.put(snapshot(side));
        }
        let rules = &scene.rules;
        let replica = |side| {
            let mut replica = Replica::new(record(side));
            replica.advance(&snapshot(side));
            Some(replica)
        };
        let base = rules.mapping.rules().iter().map(|rule| {
            let agreed = BaseField {
                outlook: rule.read(Side::Outlook, &snapshot(Side::Outlook).fields),
                salesforce: rule.read(Side::Salesforce, &snapshot(Side::Salesforce).fields),
                rule: rule.hash().to_owned(),
            };
            (rule.name.clone(), agreed)
        });
        scene.case.link = Some(Link {
            id: link_id(),
            connection: ConnectionId::new("c"),
            ical_uid: "uid-1".to_owned(),
            original_start: String::new(),
            generation: 0,
            replicas: BothSides { outlook: replica(Side::Outlook), salesforce: replica(Side::Salesforce) },
            copies: std::collections::BTreeSet::new(),
            base: base.collect(),
            intents: BothSides::default(),
            unaudited: Vec::new(),
            care: Care::default(),
            state: LinkState::Live,
            revision: 1,
            last_writer: None,
            created: now() - TimeDelta::hours(2),
            in_step_at: Some(now() - TimeDelta::hours(1)),
        });
        scene
    }

    /// One record that no link knows, signalled once, in the calendar of an enrolled user.
    pub(crate) fn unlinked(side: Side) -> Self {
        let mut scene = Self {
            case: Case {
                connection: ConnectionId::new("c"),
                link: None,
                reads: BTreeMap::new(),
                notices: Vec::new(),
                enrolments: vec![Enrolment {
                    mailbox: mailbox(1),
                    user: SalesforceId::parse(USER).unwrap(),
                    enrolled_at: now() - TimeDelta::days(1),
                }],
                lookups: Vec::new(),
                facts: Vec::new(),
                instruction: None,
                tries: 0,
            },
            rules: rules(),
            now: now(),
            fresh: Fresh { link: link_id(), outlook: token(101), salesforce: token(102) },
            census: Census::default(),
            partners: Vec::new(),
        };
        scene.put(snapshot(side));
        scene
    }

    /// Lets a read show a snapshot.
    pub(crate) fn put(&mut self, snapshot: Snapshot) {
        self.case.reads.insert(snapshot.record.clone(), Observed::Present(Box::new(snapshot)));
    }

    pub(crate) fn read(&mut self, record: RecordId, observed: Observed) {
        self.case.reads.insert(record, observed);
    }

    pub(crate) fn absent(&mut self, side: Side, evidence: Evidence) {
        self.read(record(side), Observed::Absent(evidence));
    }

    /// Changes what a side's read shows, as a person's edit does: with a new version and modification time.
    pub(crate) fn edit(&mut self, side: Side, change: impl FnOnce(&mut Snapshot)) {
        let Some(Observed::Present(snapshot)) = self.case.reads.get_mut(&record(side)) else {
            panic!("{side} is not there");
        };
        snapshot.version = version(side, 2);
        snapshot.modified = now() - TimeDelta::minutes(1);
        change(snapshot);
    }

    /// Gives a side another subject.
    pub(crate) fn set_subject(&mut self, side: Side, subject: &str) {
        self.edit(side, |snapshot| {
            let field = if side == Side::Outlook { "subject" } else { "Subject" };
            snapshot.fields.insert(field.to_owned(), Value::text(subject));
        });
    }

    pub(crate) fn link(&mut self) -> &mut Link {
        self.case.link.as_mut().expect("the scene is linked")
    }

    pub(crate) fn replica(&mut self, side: Side) -> &mut Replica {
        self.link().replicas.get_mut(side).as_mut().expect("the side is there")
    }

    /// Adds a notice that came just now.
    pub(crate) fn signal(&mut self, record: RecordId, deleted: bool, versions: Vec<Version>) {
        self.case.notices.push(Notice {
            record,
            deleted,
            versions,
            last_signal_at: self.now,
            cause: SignalCause::Notification,
        });
    }

    pub(crate) fn answer(&mut self, lookup: Lookup, answer: Answer) {
        self.case.lookups.push((lookup, answer));
    }

    /// The plan, which must need no look-up but the census and the search for partners.
    #[track_caller]
    pub(crate) fn plan(&self) -> Plan {
        match self.decide() {
            Planned::Plan(plan) => *plan,
            Planned::Need(lookups) => panic!("needs {lookups:?}"),
        }
    }

    /// The look-ups that the plan needs first.
    #[track_caller]
    pub(crate) fn needs(&self) -> Vec<Lookup> {
        match self.decide() {
            Planned::Need(lookups) => lookups,
            Planned::Plan(plan) => panic!("needs nothing: {plan:?}"),
        }
    }

    fn decide(&self) -> Planned {
        let mut case = self.case.clone();
        loop {
            match plan(&case, &self.rules, self.now, &self.fresh) {
                Planned::Need(lookups) if lookups.iter().all(|lookup| matches!(lookup, Lookup::Census { .. })) => {
                    case.lookups.extend(lookups.into_iter().map(|lookup| (lookup, Answer::Counted(self.census))));
                }
                Planned::Need(lookups) if matches!(lookups.as_slice(), [Lookup::Partners { .. }]) => {
                    let found = Answer::Found(self.partners.clone());
                    case.lookups.extend(lookups.into_iter().map(|lookup| (lookup, found.clone())));
                }
                planned => return planned,
            }
        }
    }

    /// Opens an intent whose result is unknown, as recorded half a minute ago.
    pub(crate) fn open(&mut self, side: Side, action: Action) -> Intent {
        let subject = if side == Side::Outlook { "subject" } else { "Subject" };
        let rule = self.rules.mapping.rules().first().expect("there is a rule").hash().to_owned();
        let target = Value::text("written");
        let agreed = BaseField { outlook: target.clone(), salesforce: target.clone(), rule };
        let intent = Intent {
            token: token(7),
            link: link_id(),
            side,
            fields: Fields::from([(subject.to_owned(), target)]),
            agreed: BTreeMap::from([("subject".to_owned(), agreed)]),
            replaced: Fields::new(),
            expected: action.record().map(|_| version(side, 1)),
            action,
            stamp: Stamp {
                link: link_id(),
                partner: record(side.other()).remote_id().to_owned(),
                token: Some(token(7)),
            },
            recorded_at: self.now - TimeDelta::seconds(30),
            send_by: self.now + TimeDelta::seconds(10),
            give_up_at: self.now + TimeDelta::seconds(40),
            sends: 1,
            mails: 0,
            unexplained: false,
            reason: calbridge_core::reason::Reason::OutlookChanged,
        };
        *self.link().intents.get_mut(side) = Some(intent.clone());
        intent
    }
}
