//! The ending: one meeting's trace, the numbers of the run, and the verdict.

use calbridge::ports::{JournalEntry, JournalKind, Traced};
use calbridge::trace;
use calbridge_core::reason::Reason;
use calbridge_sandbox::history::EffectKind;
use calbridge_sandbox::oracle::{Report, Terms};
use chrono::TimeDelta;

use crate::recipe::{self, Recording};
use crate::recording::{self, Transit};
use crate::screen::{Screen, Tone, count};
use crate::stage::{Stage, notified};
use crate::story::{self, Told};

/// How long nothing may have changed before the oracle calls a difference a fault.
pub(crate) const SETTLE_SECS: i64 = 5;
/// Widths of the table's columns.
const NAMES: usize = 34;
const NUMBERS: usize = 26;

/// What the run amounts to.
#[derive(Debug)]
struct Numbers {
    edits: u64,
    notifications: u64,
    writes: u64,
    repeated: u64,
    echoes: u64,
    mails_expected: u64,
    mails_sent: u64,
    mails_by_people: u64,
}

/// Waits until both sides are at rest and old enough to be judged; returns the oracle's report, and how many writes came
/// while everybody rested.
pub(crate) async fn judged(stage: &Stage, screen: &Screen) -> anyhow::Result<(Report, String)> {
    stage.rest(screen).await?;
    let seen = stage.seen();
    let terms = Terms { settle: TimeDelta::seconds(SETTLE_SECS), ..Terms::default() };
    let report = stage
        .until(screen, &format!("nothing has changed for {SETTLE_SECS} s"), async || {
            let report = stage.sandbox.judge(&terms);
            Ok((!report.is_pending()).then_some(report))
        })
        .await?;
    let writes = stage.writes_since(seen).len() as u64;
    Ok((report, if writes == 0 { "no write".to_owned() } else { count(writes, "write") }))
}

/// Prints the story of one meeting as `calbridge trace` does.
pub(crate) async fn trace_of(stage: &Stage, screen: &Screen, told: &Told) -> anyhow::Result<()> {
    let Some(record) = &told.traced else { return Ok(()) };
    let Some(traced) = stage.traced(record).await? else { return Ok(()) };
    screen.title("The life of one meeting, as `calbridge trace` tells it");
    screen.gap();
    let story = trace::story(&traced, &stage.enrolments().await?, false);
    screen.block(&trace::text(&[story]));
    Ok(())
}

/// Prints the table; the recipe beside it is played on this very run.
pub(crate) async fn table(stage: &Stage, screen: &Screen, report: &Report) -> anyhow::Result<()> {
    let meetings = story::all_meetings(stage).await?;
    let numbers = numbers(stage, &meetings).await?;
    let (recording, transit) = recording::read(&stage.sandbox, &meetings);
    let damage = recipe::play(&recording);
    screen.title("In numbers");
    screen.gap();
    let row = |name: &str, ours: &str, recipe: &str| {
        screen.block(&format!("   {name:<NAMES$}{ours:>NUMBERS$}{recipe:>NUMBERS$}"));
    };
    let number = |name: &str, ours: u64, recipe: u64| row(name, &ours.to_string(), &recipe.to_string());
    let people = recording.changes.iter().filter(|change| change.by_person).count() as u64;
    row("", "calbridge, this run", "the literal recipe");
    number("edits by people", numbers.edits, people);
    number("notifications of them", numbers.notifications.saturating_sub(transit.own), recording.messages.len() as u64);
    number("writes sent", numbers.writes, damage.writes);
    number("dropped: delivered before", numbers.repeated, damage.repeated);
    number("own writes coming back", transit.own, damage.echoes_known + damage.echoes_written);
    number("  recognised", numbers.echoes, damage.echoes_known);
    number("  written back as if new", looped(report), damage.echoes_written);
    number("edits lost", report.lost.len() as u64, damage.lost.len() as u64);
    number("surplus Salesforce events", surplus(report), damage.surplus);
    row("mails expected by calbridge", &numbers.mails_expected.to_string(), "not simulated");
    row("mails its writes caused", &numbers.mails_sent.to_string(), "not simulated");
    screen.gap();
    screen.paragraph(Tone::Quiet, 3, &explanation(&recording, &transit, numbers.mails_by_people));
    Ok(())
}

async fn numbers(stage: &Stage, meetings: &[Traced]) -> anyhow::Result<Numbers> {
    let counts = stage.sandbox.world().meters.read();
    let effects = stage.sandbox.world().history.since(0);
    let people = effects.iter().filter(|effect| effect.actor.is_person() && effect.kind != EffectKind::Touch);
    let journal = meetings.iter().flat_map(|traced| &traced.journal);
    let decisions: Vec<_> = journal.clone().filter(|row| row.kind == JournalKind::Decided).collect();
    let endpoints = stage.sandbox.endpoints();
    let apps = [&endpoints.microsoft.client_id, &endpoints.salesforce.client_id];
    let mails = |ours: bool| -> u64 {
        let of = counts.mails.iter().filter(|(caller, _)| apps.contains(caller) == ours);
        of.map(|(_, mails)| mails).sum()
    };
    Ok(Numbers {
        edits: people.count() as u64,
        notifications: counts.notifications + counts.change_events,
        writes: journal.filter(|row| row.kind == JournalKind::Intended).count() as u64,
        repeated: stage.store.status().await?.duplicates.values().sum(),
        echoes: decisions.iter().map(|row| u64::from(echoes(row))).sum(),
        mails_expected: decisions.iter().map(|row| u64::from(row.mails)).sum(),
        mails_sent: mails(true),
        mails_by_people: mails(false),
    })
}

fn looped(report: &Report) -> u64 {
    report.looped.iter().map(|found| found.writes.saturating_sub(found.edits)).sum()
}

fn surplus(report: &Report) -> u64 {
    report.duplicated.iter().map(|found| found.records.len().saturating_sub(1) as u64).sum()
}

/// Counts the own writes among the notifications that a decision covers: deletions come back to a tombstone.
fn echoes(row: &JournalEntry) -> u32 {
    let tombstone = row.reasons.first() == Some(&Reason::DeletedStaysDeleted);
    if tombstone { notified(row) } else { row.echoes.min(notified(row)) }
}

fn explanation(recording: &Recording, transit: &Transit, mails_by_people: u64) -> String {
    let people = recording.changes.iter().filter(|change| change.by_person).count() as u64;
    let middle = |times: Vec<i64>| {
        let mut times = times;
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let answered = middle(recording.outlook_writes.iter().map(|write| write.answered).collect());
    let told =
        middle(recording.outlook_writes.iter().filter_map(|write| write.told.first()).map(|told| told.0).collect());
    format!(
        "The recipe's column is computed by playing it (examples/demo/recipe.rs) through this run's {} and {} with the \
         times measured here: a message takes {} ms from the hub and {} ms from Salesforce; an Outlook write is answered \
         {answered} ms after its effect and notified after {told} ms; private and recurring meetings are left out. \
         People's own invitations and cancellations caused {}.",
        count(people, "edit"),
        count(recording.messages.len() as u64, "message"),
        transit.hub,
        transit.salesforce,
        count(mails_by_people, "mail"),
    )
}

/// Prints the verdict; true if everything is as it should be.
pub(crate) fn verdict(screen: &Screen, report: &Report, told: &Told) -> bool {
    screen.title("Verdict");
    screen.gap();
    let counts = format!(
        "lost {}, duplicated {}, looped {}, diverged {}",
        report.lost.len(),
        report.duplicated.len(),
        report.looped.len(),
        report.diverged.len()
    );
    let staying = told.staying.len();
    let without = report.unlinked_outlook.saturating_sub(staying) + report.unlinked_salesforce;
    let mut good = report.is_clean() && without == 0 && told.faults.is_empty();
    for fault in &told.faults {
        screen.paragraph(Tone::Bad, 3, fault);
    }
    if without > 0 {
        screen.paragraph(
            Tone::Bad,
            3,
            &format!("{} without a partner on the other side", count(without as u64, "event")),
        );
    }
    if report.is_clean() {
        let text = format!("The sandbox's oracle, which shares no code with calbridge, is content: {counts}.");
        screen.paragraph(Tone::Good, 3, &text);
    } else {
        good = false;
        screen.paragraph(Tone::Bad, 3, &format!("The sandbox's oracle found faults: {counts}."));
        screen.block(&report.table());
    }
    if good {
        screen.paragraph(Tone::Good, 3, "Everything that should cross has crossed; everything else says why it stays.");
    }
    good
}
