//! Writes that may not leave at once, or not without a person: deletions, mails, and what nobody's edit explains.
//!
//! | write | waits | held when |
//! |---|---|---|
//! | deletion | a moment, in case it is one of many | it is one of many |
//! | deletion that mails | a minute | no person made it; its author mailed too much |
//! | change that mails | for its change event; not the first, later ones for quiet | no person made it; its author mailed too much |
//! | any change | | never: too many that no edit explains are a dead letter |
//!
//! Exchange mails attendees whenever the organiser's copy changes, and Graph has no switch against it:
//! <https://learn.microsoft.com/graph/api/event-update>. Which properties it leaves out is not published; all count as loud.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::run::{Run, Stop};
use super::{Budget, MailEffect, Spend};
use crate::case::{Answer, Census, Fact, Lookup};
use crate::link::{Pending, Wish};
use crate::mapping::TIME;
use crate::observed::Snapshot;
use crate::policy::{Guard, MailPolicy};
use crate::reason::Reason;
use crate::side::Side;
use crate::value::{Value, When};

/// Who made a change, as far as the remote tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Author {
    /// A Salesforce user who is not automation, by id, or the person who gave an instruction.
    Person(String),
    /// A flow, an integration, a bulk load, or calbridge's own user.
    Automation(String),
    /// Outlook does not tell, and a sweep does not always.
    Unknown,
}

impl Author {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Person(id) | Self::Automation(id) => Some(id),
            Self::Unknown => None,
        }
    }
}

/// Whether a write may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// Now.
    Open,
    /// Not before this time.
    Later(DateTime<Utc>, Reason),
    /// Not without a person.
    Held(Reason),
}

/// Tells why an Outlook record may not be written at all.
pub(super) fn refusal(run: &Run<'_>, snapshot: &Snapshot) -> Option<Reason> {
    let policy = &run.rules.policy;
    if snapshot.record.side() == Side::Salesforce {
        None
    } else if !snapshot.traits.is_organizer {
        Some(Reason::NotOrganizer)
    } else if snapshot.traits.attendees == 0 {
        None
    } else if policy.mail == MailPolicy::Never {
        Some(Reason::AttendeesNeedMailPolicy)
    } else if !policy.past_meetings && is_past(snapshot, run.now) {
        Some(Reason::PastMeeting)
    } else {
        None
    }
}

fn is_past(snapshot: &Snapshot, now: DateTime<Utc>) -> bool {
    match snapshot.fields.get(TIME).and_then(Value::as_when) {
        Some(When::Timed { end, .. }) => *end < now,
        Some(When::AllDay { last, .. }) => *last < now.date_naive(),
        None => false,
    }
}

/// Returns how many people Exchange mails when a record is written.
fn recipients(snapshot: &Snapshot) -> u32 {
    match snapshot.record.side() {
        Side::Outlook if snapshot.traits.is_organizer => snapshot.traits.attendees,
        Side::Outlook | Side::Salesforce => 0,
    }
}

/// Finds out who last changed some fields of the Salesforce record.
///
/// A change event tells it field by field. The row names only who changed it last, and knows best when events are missing.
pub(super) fn author_of_change(run: &Run<'_>, salesforce: &Snapshot, fields: &BTreeSet<&str>) -> Author {
    if run.keep.is_some() {
        return Author::Person(OPERATOR.to_owned());
    }
    let told = run.case.facts.iter().rev().find(|fact| {
        let mut changed = fact.facts.changed.iter().filter(|field| fields.contains(field.as_str()));
        fact.record == salesforce.record && changed.any(|field| is_shown(run, fact, salesforce, field))
    });
    if let Some(fact) = told.filter(|fact| is_latest(fact, salesforce)) {
        return author(run, &fact.facts.user, &fact.facts.origin);
    }
    // The row's last author changed something else, as its event tells.
    if is_told(run, salesforce) {
        return Author::Unknown;
    }
    salesforce.modified_by.as_deref().map_or(Author::Unknown, |user| author(run, user, ""))
}

/// Tells whether the change event of the row's present state has come.
fn is_told(run: &Run<'_>, salesforce: &Snapshot) -> bool {
    let mut facts = run.case.facts.iter().filter(|fact| fact.record == salesforce.record);
    facts.any(|fact| {
        let mut changed = fact.facts.changed.iter();
        is_latest(fact, salesforce) && changed.all(|field| is_shown(run, fact, salesforce, field))
    })
}

/// Tells whether a read may show what a change event said of a field: where the values differ, the event is of another state
/// of the row.
fn is_shown(run: &Run<'_>, fact: &Fact, salesforce: &Snapshot, field: &str) -> bool {
    let rule = run.rules.mapping.rules().iter().find(|rule| rule.field(Side::Salesforce) == field);
    rule.filter(|_| fact.facts.values.contains_key(field)).is_none_or(|rule| {
        rule.read(Side::Salesforce, &fact.facts.values) == rule.read(Side::Salesforce, &salesforce.fields)
    })
}

fn is_latest(fact: &Fact, salesforce: &Snapshot) -> bool {
    // Both times are whole seconds of one clock.
    fact.facts.committed + TimeDelta::seconds(1) >= salesforce.modified
}

/// Stands for the person who gave an instruction; what was asked for by name counts as approved.
const OPERATOR: &str = "operator";

fn author(run: &Run<'_>, user: &str, origin: &str) -> Author {
    // `com/salesforce/api/bulkapi/66.0`:
    // https://developer.salesforce.com/docs/atlas.en-us.change_data_capture.meta/change_data_capture/cdc_event_fields_header.htm
    let bulk = origin.contains("/bulkapi/");
    if user.is_empty() {
        Author::Unknown
    } else if bulk || run.rules.policy.automation_users.contains(user) {
        Author::Automation(user.to_owned())
    } else {
        Author::Person(user.to_owned())
    }
}

/// Finds out who deleted the Salesforce record of the run's link: what its change event said, now or in an earlier run.
///
/// Whose edit waited before that is another question.
fn author_of_deletion(run: &Run<'_>) -> Author {
    let Some(replica) = &run.link().replicas.salesforce else { return Author::Unknown };
    let told = run.case.facts.iter().rev().find(|fact| fact.record == replica.record && fact.deleted);
    let waited = run.pending_before.as_ref().filter(|pending| pending.wish == Wish::Delete);
    let remembered = waited.and_then(|pending| pending.author.clone());
    match (told, remembered) {
        (Some(fact), _) => author(run, &fact.facts.user, &fact.facts.origin),
        (None, Some(user)) => author(run, &user, ""),
        (None, None) => Author::Unknown,
    }
}

/// Decides whether a deletion of the side that is left may leave.
pub(super) fn deletion(run: &mut Run<'_>, left: &Snapshot, reason: Reason) -> Result<Passage, Stop> {
    // What became private may not stay on the other side a moment longer than needed.
    let people = recipients(left);
    if reason == Reason::BecamePrivate {
        return Ok(pass(run, people, &Author::Unknown));
    }
    let side = left.record.side();
    let author = if side == Side::Outlook { author_of_deletion(run) } else { Author::Unknown };
    let before = run.pending_before.clone().filter(|pending| pending.wish == Wish::Delete && pending.side == side);
    let since = before.map_or(run.now, |pending| pending.since);
    let wanted = Pending {
        wish: Wish::Delete,
        side,
        since,
        changed_at: since,
        version: None,
        author: author.id().map(str::to_owned),
    };
    run.link_mut().care.pending = Some(wanted);
    if run.is_approved(Wish::Delete) {
        return Ok(pass(run, people, &author));
    }
    let timers = &run.rules.policy.timers;
    let due = since + if people > 0 { timers.mail_quiet } else { timers.delete_wait };
    if run.now < due {
        return Ok(Passage::Later(due, Reason::DeleteWaits));
    }
    let census = census(run, &author)?;
    let guard = run.rules.policy.guard;
    let in_mailbox = guard.deletes_in_mailbox(census.links_in_mailbox);
    if census.deletes_in_mailbox >= in_mailbox || census.deletes_by_author >= guard.deletes_by_author {
        return Ok(Passage::Held(Reason::MassDelete));
    }
    if let Some(reason) = mail_refused(run, people, &author, census) {
        return Ok(Passage::Held(reason));
    }
    let mailbox = run.link().replicas.outlook.as_ref().and_then(|replica| replica.record.mailbox().cloned());
    let mailbox = mailbox.map(|mailbox| (Budget::DeletesInMailbox(mailbox), in_mailbox));
    let author_id = author.id().map(|id| (Budget::DeletesByAuthor(id.to_owned()), guard.deletes_by_author));
    for (budget, limit) in mailbox.into_iter().chain(author_id) {
        run.spends.push(Spend { budget, limit, since: run.now - Guard::DELETES_WITHIN });
    }
    spend_mail(run, people, &author);
    Ok(pass(run, people, &author))
}

/// Decides whether a change of the Outlook record may leave.
pub(super) fn change(
    run: &mut Run<'_>,
    outlook: &Snapshot,
    cause: &Snapshot,
    author: &Author,
) -> Result<Passage, Stop> {
    let people = recipients(outlook);
    if people == 0 {
        return Ok(Passage::Open);
    }
    let before = run.pending_before.clone().filter(|pending| pending.wish == Wish::Mail);
    let same = before.as_ref().is_some_and(|pending| pending.version.as_ref() == Some(&cause.version));
    let wanted = Pending {
        wish: Wish::Mail,
        side: Side::Outlook,
        since: before.as_ref().map_or(run.now, |pending| pending.since),
        changed_at: before.filter(|_| same).map_or(run.now, |pending| pending.changed_at),
        version: Some(cause.version.clone()),
        author: author.id().map(str::to_owned),
    };
    run.link_mut().care.pending = Some(wanted.clone());
    if run.is_approved(Wish::Mail) {
        return Ok(pass(run, people, author));
    }
    let timers = &run.rules.policy.timers;
    // Until the row's own change event has come, nobody knows who changed which field.
    let told_by = wanted.changed_at.min(cause.modified) + timers.settle_read;
    if run.rules.policy.mail == MailPolicy::PersonEdits && run.now < told_by && !is_told(run, cause) {
        return Ok(Passage::Later(told_by, Reason::MailWaits));
    }
    if let Some(reason) = mail_refused(run, people, author, Census::default()) {
        return Ok(Passage::Held(reason));
    }
    let lately = run.link().care.mailed_at.is_some_and(|at| run.now - at < timers.mail_max_wait);
    let due = (wanted.changed_at + timers.mail_quiet).min(wanted.since + timers.mail_max_wait);
    if lately && run.now < due {
        return Ok(Passage::Later(due, Reason::MailWaits));
    }
    let census = census(run, author)?;
    if let Some(reason) = mail_refused(run, people, author, census) {
        return Ok(Passage::Held(reason));
    }
    spend_mail(run, people, author);
    Ok(pass(run, people, author))
}

/// Tells why a write that mails people needs a person.
fn mail_refused(run: &Run<'_>, people: u32, author: &Author, census: Census) -> Option<Reason> {
    let policy = &run.rules.policy;
    if people == 0 {
        return None;
    }
    let by_person = matches!(author, Author::Person(_));
    if policy.mail == MailPolicy::PersonEdits && !by_person {
        return Some(Reason::MailNeedsPerson);
    }
    (census.mails_by_author >= policy.guard.mails_by_author).then_some(Reason::MailFuse)
}

fn spend_mail(run: &mut Run<'_>, people: u32, author: &Author) {
    if let (1.., Some(id)) = (people, author.id()) {
        let limit = run.rules.policy.guard.mails_by_author;
        let since = run.now - Guard::MAILS_WITHIN;
        run.spends.push(Spend { budget: Budget::MailsByAuthor(id.to_owned()), limit, since });
    }
}

fn pass(run: &mut Run<'_>, people: u32, author: &Author) -> Passage {
    run.link_mut().care.pending = None;
    if people > 0 {
        run.mail = MailEffect { recipients: people, author: author.id().map(str::to_owned) };
    }
    Passage::Open
}

fn census(run: &mut Run<'_>, author: &Author) -> Result<Census, Stop> {
    let mailbox = run.link().replicas.outlook.as_ref().and_then(|replica| replica.record.mailbox().cloned());
    let lookup = Lookup::Census { link: run.link().id, mailbox, author: author.id().map(str::to_owned) };
    match run.answer(&lookup)? {
        Answer::Counted(census) => Ok(*census),
        Answer::Found(_) => Err(Stop::Need(vec![lookup])),
        Answer::Failed(why) => Err(run.wait_for_read(why)),
    }
}

/// How a change about to be written came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A person's edit, as far as anybody can tell.
    Explained,
    /// No person's edit, as far as anybody can tell.
    Unexplained,
    /// The same, and there were too many of these.
    GoesRound,
}

/// Tells how a change about to be written came about.
///
/// Explained is what a person did in Salesforce. Outlook tells no authors: there, a change that comes soon after our own
/// write to the same side is taken for a reaction to it, which is what two programs that disagree do to each other. Only
/// writes that took effect count: nobody reacts to others.
pub(super) fn origin(run: &mut Run<'_>, written: Side, author: &Author) -> Origin {
    let now = run.now;
    let policy = &run.rules.policy;
    let guard = policy.guard;
    let (reaction, since_day, since_10) =
        (policy.timers.reaction, now - TimeDelta::days(1), now - TimeDelta::minutes(10));
    let from = written.other();
    let care = &mut run.link_mut().care;
    let reacts = care.wrote.get(from).is_some_and(|at| now - at < reaction);
    let explained = match (from, author) {
        (Side::Salesforce, Author::Person(_)) => true,
        (Side::Salesforce, Author::Automation(_)) => false,
        (Side::Salesforce, Author::Unknown) | (Side::Outlook, _) => !reacts,
    };
    care.unexplained.retain(|at| *at > since_day);
    if explained {
        return Origin::Explained;
    }
    let lately = care.unexplained.iter().filter(|at| **at > since_10).count();
    let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    if lately >= limit(guard.unexplained_in_10_minutes) || care.unexplained.len() >= limit(guard.unexplained_in_a_day) {
        return Origin::GoesRound;
    }
    Origin::Unexplained
}
