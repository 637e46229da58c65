//! The rules of every kind of schedule.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{MailboxId, SalesforceId};
use calbridge_core::mapping::{Conflict, Direction, FieldSpec, Initial, Mapping, MappingSpec};
use calbridge_core::policy::{DeleteConflict, MailPolicy, Policy, Rules};
use chrono::DateTime;

use crate::swarm::{Limits, Preconditions, Swarm};
use crate::world::{AUTOMATION, FIELDS, MAILBOXES, USERS};

/// What never changes within a schedule.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) rules: &'static Rules,
    pub(crate) enrolments: &'static [Enrolment],
}

impl std::fmt::Debug for Setting {
    /// Short, because an exploration compares states by this form.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Setting")
    }
}

/// The rules of every kind of schedule, compiled once: that takes longer than a schedule.
pub(crate) fn setting(swarm: &Swarm) -> Setting {
    type Kind = (Conflict, Direction, bool, MailPolicy, Limits, DeleteConflict);
    static RULES: LazyLock<Vec<(Kind, Rules)>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for conflict in [Conflict::OutlookWins, Conflict::SalesforceWins, Conflict::Latest, Conflict::Manual] {
            for location in [Direction::Both, Direction::ToSalesforce] {
                let mapping = mapping(conflict, location);
                for outlook_conditional_writes in [true, false] {
                    for mail in [MailPolicy::Never, MailPolicy::PersonEdits, MailPolicy::Always] {
                        for limits in Limits::ALL {
                            for delete_conflict in [DeleteConflict::DeleteWins, DeleteConflict::EditWins] {
                                let policy = Policy {
                                    outlook_conditional_writes,
                                    mail,
                                    guard: limits.guard(),
                                    delete_conflict,
                                    automation_users: AUTOMATION.map(str::to_owned).into(),
                                    ..Policy::default()
                                };
                                let kind =
                                    (conflict, location, outlook_conditional_writes, mail, limits, delete_conflict);
                                all.push((kind, Rules { mapping: mapping.clone(), policy }));
                            }
                        }
                    }
                }
            }
        }
        all
    });
    static ENROLMENTS: LazyLock<Vec<Enrolment>> = LazyLock::new(|| {
        let enrolment = |(mailbox, user)| Enrolment {
            mailbox: MailboxId::new(mailbox),
            user: SalesforceId::parse(user).unwrap(),
            enrolled_at: DateTime::UNIX_EPOCH,
        };
        MAILBOXES.into_iter().zip(USERS).map(enrolment).collect()
    });
    let conditional = swarm.preconditions != Preconditions::Off;
    let kind = (swarm.conflict, swarm.location, conditional, swarm.mail, swarm.limits, swarm.delete_conflict);
    let rules = RULES.iter().find(|(known, _)| *known == kind).map(|(_, rules)| rules).expect("every kind is there");
    Setting { rules, enrolments: &ENROLMENTS }
}

fn mapping(conflict: Conflict, location: Direction) -> Mapping {
    let field = |(name, outlook, salesforce): (&str, &str, &str)| FieldSpec {
        name: name.to_owned(),
        line: 1,
        outlook: outlook.to_owned(),
        salesforce: salesforce.to_owned(),
        direction: if name == "location" { location } else { Direction::Both },
        on_create: true,
        conflict: if name == "time" { Conflict::OutlookWins } else { conflict },
        initial: Initial::Outlook,
        max_length: None,
        to_salesforce: BTreeMap::new(),
        to_outlook: BTreeMap::new(),
    };
    let fields = FIELDS.into_iter().map(field).collect();
    let spec = MappingSpec { file: "simulation".to_owned(), fields, tests: Vec::new() };
    Mapping::compile(&spec).expect("the rules are sound")
}
