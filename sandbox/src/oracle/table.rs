//! The report for a terminal.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::{LostEdit, MeetingState, Report};
use crate::history::Cloud;

/// Most meetings listed; a healthy world of thousands needs no thousand lines.
const MAX_ROWS: usize = 40;

/// Draws verdicts first, then the meetings, faulty ones on top.
pub(super) fn draw(report: &Report) -> String {
    let mut out = String::new();
    let line = format!(
        "{}: lost {}, duplicated {}, looped {}, diverged {}, mailed {}",
        if report.is_clean() { "clean" } else { "NOT CLEAN" },
        report.lost.len(),
        report.duplicated.len(),
        report.looped.len(),
        report.diverged.len(),
        report.mailed.len(),
    );
    let pending = report.meetings.iter().filter(|meeting| meeting.state == MeetingState::Pending).count();
    push(&mut out, &line);
    push(
        &mut out,
        &format!(
            "linked meetings {} (pending {pending}), without partner: outlook {}, salesforce {}; overridden edits {}, held back {}",
            report.meetings.len(),
            report.unlinked_outlook,
            report.unlinked_salesforce,
            report.overridden.len(),
            report.held_back.len(),
        ),
    );
    verdict_lines(report, &mut out);
    if !report.meetings.is_empty() {
        push(&mut out, &meetings(report).to_string());
        if report.meetings.len() > MAX_ROWS {
            push(&mut out, &format!("and {} more meetings; --json lists all", report.meetings.len() - MAX_ROWS));
        }
    }
    out
}

fn verdict_lines(report: &Report, out: &mut String) {
    for edit in &report.lost {
        push(out, &lost_line("lost", edit));
    }
    for duplicate in &report.duplicated {
        let records: Vec<String> = duplicate.records.iter().map(|id| short(id)).collect();
        push(out, &format!("  duplicated in {}: {}", cloud(duplicate.cloud), records.join(", ")));
    }
    for found in &report.looped {
        let records: Vec<String> = found.records.iter().map(|id| short(id)).collect();
        push(
            out,
            &format!(
                "  looped: {} writes in {} on {} for {} edits on the other side",
                found.writes,
                cloud(found.cloud),
                records.join(", "),
                found.edits
            ),
        );
    }
    for pair in &report.diverged {
        let what = pair.field.map_or("existence", super::Field::name);
        push(
            out,
            &format!(
                "  diverged in {what}: outlook {} has {}, salesforce {} has {}",
                short(&pair.outlook),
                pair.in_outlook,
                pair.salesforce,
                pair.in_salesforce
            ),
        );
    }
    for found in &report.mailed {
        let mail = &found.mail;
        push(
            out,
            &format!(
                "  mailed: {:?} of {} to {} people at {}, explained by none of {} edits in salesforce",
                mail.kind,
                short(&mail.record),
                mail.recipients.len(),
                mail.at.format("%H:%M:%S"),
                found.edits
            ),
        );
    }
    for edit in &report.overridden {
        push(out, &lost_line("overridden by a simultaneous edit", edit));
    }
}

fn lost_line(word: &str, edit: &LostEdit) -> String {
    format!(
        "  {word}: {} of {} {} at {} (history {})",
        edit.field.name(),
        cloud(edit.cloud),
        short(&edit.record),
        edit.at.format("%H:%M:%S"),
        edit.sequence
    )
}

fn meetings(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "outlook",
        "edits",
        "writes",
        "touches",
        "salesforce",
        "edits",
        "writes",
        "touches",
        "link",
        "state",
    ]);
    let mut sorted: Vec<&super::Meeting> = report.meetings.iter().collect();
    sorted.sort_by_key(|meeting| meeting.state != MeetingState::Faulty);
    for meeting in sorted.into_iter().take(MAX_ROWS) {
        let (left, right) = (meeting.on_outlook, meeting.on_salesforce);
        table.add_row([
            meeting.outlook.first().map(|id| short(id)).unwrap_or_default(),
            (left.edits + left.automation).to_string(),
            left.writes.to_string(),
            left.touches.to_string(),
            meeting.salesforce.first().cloned().unwrap_or_default(),
            (right.edits + right.automation).to_string(),
            right.writes.to_string(),
            right.touches.to_string(),
            meeting.links.first().map(|id| short(id)).unwrap_or_default(),
            state(meeting.state).to_owned(),
        ]);
    }
    for column in [1, 2, 3, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn push(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("writing to a string cannot fail");
}

/// Outlook ids are long and differ in the middle and at the end.
fn short(id: &str) -> String {
    let characters: Vec<char> = id.chars().collect();
    if characters.len() <= 20 {
        return id.to_owned();
    }
    let tail: String = characters.iter().skip(characters.len() - 12).collect();
    let head: String = characters.iter().take(6).collect();
    format!("{head}…{tail}")
}

fn cloud(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Outlook => "outlook",
        Cloud::Salesforce => "salesforce",
    }
}

fn state(state: MeetingState) -> &'static str {
    match state {
        MeetingState::InStep => "in step",
        MeetingState::Pending => "pending",
        MeetingState::Deleted => "deleted",
        MeetingState::Faulty => "FAULTY",
        MeetingState::HeldBack => "held back",
    }
}
