//! Turns what a run did into journal rows: the product for support staff.

use std::collections::BTreeMap;

use calbridge_core::ids::ConnectionId;
use calbridge_core::link::Intent;
use calbridge_core::plan::{Decision, Plan, Settled};
use calbridge_core::policy::Rules;
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Position, Version};
use calbridge_core::value::{Fields, Value};
use calbridge_core::written::WriteResult;
use chrono::{DateTime, Utc};

use crate::ports::{Claim, JournalEntry, JournalKind};

/// Name of the image that holds what a write of ours covered before anybody saw it.
pub(super) const OVERWRITTEN: &str = "overwritten";

/// Writes the row of a run, and one row for each write that it is about to send.
///
/// Edits that an earlier write covered unseen come first, in rows of their own: they are about that write, not this run.
pub(super) fn decided(
    connection: &ConnectionId,
    claim: &Claim,
    plan: &Plan,
    rules: &Rules,
    calls: u32,
    now: DateTime<Utc>,
) -> Vec<JournalEntry> {
    let first = claim.notices.first().map(|row| &row.notice.record);
    let link = plan.next.as_ref().or(claim.link.as_ref());
    let mut row = JournalEntry {
        side: first.map(calbridge_core::ids::RecordId::side),
        record: first.cloned(),
        outcome: Some(plan.outcome),
        reasons: plan.reasons.clone(),
        fields: plan.decisions.iter().filter(|one| !is_lost(one)).map(|one| one.rule.clone()).collect(),
        versions: versions(claim, plan),
        positions: positions(claim),
        signals: claim.notices.iter().map(|row| row.signals).sum(),
        echoes: plan.echoes,
        calls,
        mails: plan.mail.recipients,
        mail_author: plan.mail.author.clone(),
        latency_ms: latency_ms(claim, now),
        images: images(plan),
        ..row(connection, claim, JournalKind::Decided, rules, now)
    };
    row.link = link.map(|link| link.id);
    let mut rows: Vec<JournalEntry> = plan
        .decisions
        .iter()
        .filter(|decision| is_lost(decision))
        .map(|lost| JournalEntry { link: link.map(|link| link.id), ..overwritten(connection, claim, lost, rules, now) })
        .collect();
    rows.push(row);
    for step in &plan.steps {
        rows.push(JournalEntry {
            link: Some(step.link),
            side: Some(step.side),
            record: step.action.record().cloned(),
            outcome: Some(plan.outcome),
            reasons: vec![step.reason],
            fields: step.fields.keys().cloned().collect(),
            versions: step.expected.iter().map(|version| version_text(step.side, version)).collect(),
            token: Some(step.token),
            images: BTreeMap::from([
                ("before".to_owned(), step.replaced.clone()),
                ("after".to_owned(), step.fields.clone()),
            ]),
            ..self::row(connection, claim, JournalKind::Intended, rules, now)
        });
    }
    rows
}

/// Writes the row about the answer to a write.
pub(super) fn settled(
    connection: &ConnectionId,
    claim: &Claim,
    intent: &Intent,
    settled: &Settled,
    result: &WriteResult,
    rules: &Rules,
    now: DateTime<Utc>,
) -> JournalEntry {
    let (record, version) = match result {
        WriteResult::Applied { record, version, .. } => (Some(record.clone()), version.as_ref()),
        _ => (intent.action.record().cloned(), None),
    };
    JournalEntry {
        link: Some(settled.link.id),
        side: Some(intent.side),
        record,
        reasons: vec![settled.reason],
        fields: intent.fields.keys().cloned().collect(),
        versions: version.iter().map(|version| version_text(intent.side, version)).collect(),
        token: Some(intent.token),
        calls: 1,
        latency_ms: latency_ms(claim, now),
        error: settled.error.as_ref().map(|code| format!("{code}: {}", detail(result))),
        ..row(connection, claim, JournalKind::Settled, rules, now)
    }
}

/// Returns the remote's message, without personal content.
pub(super) fn detail(result: &WriteResult) -> String {
    match result {
        WriteResult::Applied { .. } => String::new(),
        WriteResult::Conflict(why)
        | WriteResult::Gone(why)
        | WriteResult::AlreadyExists(why)
        | WriteResult::Refused(why)
        | WriteResult::NotNow(why)
        | WriteResult::Unknown(why) => why.message.clone(),
    }
}

/// Returns the milliseconds since the first signal of a claim.
pub(super) fn latency_ms(claim: &Claim, now: DateTime<Utc>) -> Option<i64> {
    let first = claim.notices.iter().map(|row| row.first_signal_at).min()?;
    Some((now - first).num_milliseconds().max(0))
}

/// Tells whether a decision is about an edit that an earlier write of ours covered unseen.
fn is_lost(decision: &Decision) -> bool {
    decision.reason == Reason::OverwrittenUnseen
}

/// Writes the row of one edit that was covered unseen, with its value where the change event carried it.
fn overwritten(
    connection: &ConnectionId,
    claim: &Claim,
    lost: &Decision,
    rules: &Rules,
    now: DateTime<Utc>,
) -> JournalEntry {
    let replica = claim.link.as_ref().and_then(|link| link.replicas.salesforce.as_ref());
    let written = claim.link.as_ref().and_then(|link| link.unaudited.last()).map(|write| &write.record);
    let image = |value: &Value| Fields::from([(lost.rule.clone(), value.clone())]);
    JournalEntry {
        side: Some(Side::Salesforce),
        record: replica.map(|replica| &replica.record).or(written).cloned(),
        reasons: vec![lost.reason],
        fields: vec![lost.rule.clone()],
        images: BTreeMap::from([
            (OVERWRITTEN.to_owned(), image(&lost.salesforce)),
            ("after".to_owned(), image(&lost.agreed)),
        ]),
        ..row(connection, claim, JournalKind::Decided, rules, now)
    }
}

fn row(connection: &ConnectionId, claim: &Claim, kind: JournalKind, rules: &Rules, now: DateTime<Utc>) -> JournalEntry {
    JournalEntry {
        sequence: 0,
        at: now,
        connection: connection.clone(),
        lane: Some(claim.fence.lane),
        link: claim.link.as_ref().map(|link| link.id),
        kind,
        side: None,
        record: None,
        outcome: None,
        reasons: Vec::new(),
        fields: Vec::new(),
        versions: Vec::new(),
        positions: Vec::new(),
        signals: 0,
        echoes: 0,
        token: None,
        calls: 0,
        mails: 0,
        mail_author: None,
        latency_ms: None,
        error: None,
        config_version: rules.mapping.version().to_owned(),
        images: BTreeMap::new(),
    }
}

fn versions(claim: &Claim, plan: &Plan) -> Vec<String> {
    let notified = claim.notices.iter().flat_map(|row| {
        let side = row.notice.record.side();
        row.notice.versions.iter().map(move |version| version_text(side, version))
    });
    let seen = plan.next.iter().flat_map(|link| {
        Side::BOTH.into_iter().filter_map(|side| {
            let replica = link.replicas.get(side).as_ref()?;
            replica.version.as_ref().map(|version| version_text(side, version))
        })
    });
    let mut all: Vec<String> = notified.chain(seen).collect();
    all.dedup();
    all
}

fn version_text(side: Side, version: &Version) -> String {
    match version {
        Version::ChangeKey(key) => format!("{side} {key}"),
        Version::Modstamp(at) => format!("{side} {}", at.format("%Y-%m-%dT%H:%M:%S%.3fZ")),
    }
}

fn positions(claim: &Claim) -> Vec<Position> {
    claim.notices.iter().flat_map(|row| row.positions.iter().cloned()).collect()
}

/// Returns what both sides held for each decided field, and what they agreed on.
fn images(plan: &Plan) -> BTreeMap<String, Fields> {
    let mut outlook = Fields::new();
    let mut salesforce = Fields::new();
    for decision in plan.decisions.iter().filter(|decision| !is_lost(decision)) {
        outlook.insert(decision.rule.clone(), decision.outlook.clone());
        salesforce.insert(decision.rule.clone(), decision.salesforce.clone());
    }
    if outlook.is_empty() {
        return BTreeMap::new();
    }
    BTreeMap::from([("outlook".to_owned(), outlook), ("salesforce".to_owned(), salesforce)])
}
