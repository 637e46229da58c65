//! The list of enrolments: mailboxes with their Salesforce users.

use std::collections::BTreeMap;

use calbridge_core::document::{Found, Place, Section, Shape};

use super::model::Enrolment;
use super::options::ENROLMENT_KEYS;
use super::problem::{ConfigProblem, ENROLMENT};

/// Reads the list; what is wrong is noted.
pub(super) fn read(top: &Section<'_>, problems: &mut Vec<ConfigProblem>) -> Vec<Enrolment> {
    let mut list = Vec::new();
    let mut mailboxes = BTreeMap::new();
    let mut users = BTreeMap::new();
    for section in top.sections("enrolments") {
        section.only(ENROLMENT_KEYS);
        section.require("mailbox", "`mailbox: anna@contoso.com`");
        let mailbox = section.text("mailbox");
        let user = section.text("salesforce_user");
        if let Some(found) = mailbox.as_ref().filter(|found| !is_address(&found.value)) {
            let message = format!("`{}` is not an address; give the mailbox as `name@domain`", section.name("mailbox"));
            problems.push(ConfigProblem::new(&found.place, ENROLMENT, message));
        }
        if let Some(found) = user.as_ref().filter(|found| !is_user(&found.value)) {
            let message = format!(
                "`{}` is not a Salesforce user; give the user name `name@domain` or the id of 15 or 18 characters",
                section.name("salesforce_user")
            );
            problems.push(ConfigProblem::new(&found.place, ENROLMENT, message));
        }
        once(&mut mailboxes, mailbox.as_ref(), &section.name("mailbox"), problems);
        once(&mut users, user.as_ref(), &section.name("salesforce_user"), problems);
        if let Some(mailbox) = mailbox {
            list.push(Enrolment {
                mailbox: mailbox.value,
                salesforce_user: user.map(|user| user.value),
                place: section.place().clone(),
            });
        }
    }
    if let Some(node) = top.get("enrolments")
        && matches!(&node.shape, Shape::List(items) if items.is_empty())
    {
        let message = "`enrolments` is empty, so nothing would be synced; add `- mailbox: anna@contoso.com`";
        problems.push(ConfigProblem::new(&node.place, ENROLMENT, message));
    }
    list
}

fn once(
    seen: &mut BTreeMap<String, Place>,
    found: Option<&Found<String>>,
    name: &str,
    problems: &mut Vec<ConfigProblem>,
) {
    let Some(found) = found else { return };
    match seen.get(&found.value.to_lowercase()) {
        Some(first) => {
            let message = format!("`{name}` was already enrolled at {first}; keep one of the two");
            problems.push(ConfigProblem::new(&found.place, ENROLMENT, message));
        }
        None => {
            seen.insert(found.value.to_lowercase(), found.place.clone());
        }
    }
}

fn is_address(text: &str) -> bool {
    match text.split_once('@') {
        Some((name, domain)) => {
            !name.is_empty() && !domain.is_empty() && !domain.contains('@') && !text.contains(char::is_whitespace)
        }
        None => false,
    }
}

fn is_user(text: &str) -> bool {
    is_address(text) || calbridge_core::ids::SalesforceId::parse(text).is_ok()
}
