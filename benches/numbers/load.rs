//! Figures under load, and without any.

use std::collections::BTreeMap;
use std::time::Duration;

use calbridge_sandbox::history::{Cloud, EffectKind};
use calbridge_sandbox::meters::Counts;
use chrono::{DateTime, TimeDelta, Utc};

use crate::Plan;
use crate::moments::resident_mib;
use crate::office::{Office, move_meeting, until_agreed};
use crate::table::Table;

/// Calls that keep subscriptions alive or belong to the sweep.
const NO_POLLING: [&str; 2] = ["graph.renew_subscription", "graph.list_subscriptions"];

/// Edits at a steady rate, each with a value of its own by which its arrival is found.
pub(crate) async fn run(office: &Office, plan: Plan, table: &mut Table) {
    let rehearsal = &office.bench.rehearsal;
    let world = rehearsal.sandbox.world();
    let (from, before) = (world.history.len(), world.meters.read());
    let edits = plan.rate * plan.seconds;
    let step = TimeDelta::nanoseconds(1_000_000_000 / i64::try_from(plan.rate).unwrap());
    let mut next = rehearsal.clock.now();
    let started = next;
    for edit in 0..edits {
        let meeting = &office.meetings[edit % office.meetings.len()];
        let round = edit / office.meetings.len();
        move_meeting(&office.bench, meeting, (meeting.number + round).is_multiple_of(2), &format!("edit {edit:07}"));
        next += step;
        rehearsal.clock.sleep_until(next).await;
    }
    let lasted = (rehearsal.clock.now() - started).as_seconds_f64();
    let memory = resident_mib(&office.running);
    until_agreed(&office.bench, &office.meetings).await;

    let after = world.meters.read();
    let effects = world.history.since(from);
    let mut made: BTreeMap<String, (Cloud, DateTime<Utc>)> = BTreeMap::new();
    let mut latencies = Vec::new();
    for effect in effects.iter().filter(|effect| effect.kind != EffectKind::Touch) {
        let Some(name) = edit_name(&serde_json::to_string(&effect.changed).unwrap()) else { continue };
        if !effect.actor.is_app() {
            made.insert(name, (effect.cloud, effect.at));
        } else if let Some((cloud, at)) = made.get(&name)
            && *cloud != effect.cloud
        {
            latencies.push((effect.at - *at).as_seconds_f64());
        }
    }
    latencies.sort_by(f64::total_cmp);
    let percentile = |part: usize| latencies[(latencies.len() - 1) * part / 100];
    let (p50, p99) = (percentile(50), percentile(99));
    let crossed = latencies.len();
    let what = format!("edits made, a second, crossed (of {edits})");
    table.add(&what, "", format!("{:.1}/s, {crossed}", edits as f64 / lasted), None);
    table.add("latency p50, first notification to visible", "<= 2 s", format!("{p50:.2} s"), Some(p50 <= 2.0));
    table.add("latency p99", "<= 8 s", format!("{p99:.2} s"), Some(p99 <= 8.0));
    let http = http_calls(&after, &[]) - http_calls(&before, &[]);
    let per_change = http as f64 / crossed as f64;
    table.add("HTTP calls per synced change", "<= 0.5", format!("{per_change:.2} ({http})"), Some(per_change <= 0.5));
    let units = units(&after) - units(&before);
    let per_change = units as f64 / crossed as f64;
    table.add("request units per synced change", "<= 5", format!("{per_change:.2} ({units})"), Some(per_change <= 5.0));
    for (kind, calls) in kinds(&after) {
        let calls = calls - kinds(&before).get(&kind).copied().unwrap_or_default();
        if calls > 0 {
            println!("      {kind}: {calls}");
        }
    }
    let refused: u64 = after.refusals.values().flat_map(BTreeMap::values).sum();
    table.add("requests refused for a limit", "0", refused.to_string(), Some(refused == 0));
    table.add(
        &format!("resident memory under load, {} mailboxes", plan.mailboxes),
        "",
        format!("{memory:.0} MiB"),
        None,
    );
}

/// Waits for what still follows the load, then counts calls of a quiet office.
pub(crate) async fn idle(office: &Office, plan: Plan, table: &mut Table) {
    // Versions that a read did not show are looked at once more 30 s after their signal.
    tokio::time::sleep(Duration::from_secs(35)).await;
    office.bench.rehearsal.settled().await;
    let meters = &office.bench.rehearsal.sandbox.world().meters;
    let before = meters.read();
    tokio::time::sleep(Duration::from_secs(plan.idle)).await;
    let polled = http_calls(&meters.read(), &NO_POLLING) - http_calls(&before, &NO_POLLING);
    let what = format!("polling calls in {} s of silence", plan.idle);
    table.add(&what, "0", polled.to_string(), Some(polled == 0));
}

/// Finds the name of an edit in a change.
fn edit_name(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("edit ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (digits.len() == 7).then_some(digits)
}

/// Sums calls to Graph and Salesforce's REST API by all apps; streams are no calls.
fn http_calls(counts: &Counts, without: &[&str]) -> u64 {
    kinds(counts).iter().filter(|(kind, _)| !without.contains(&kind.as_str())).map(|(_, calls)| calls).sum()
}

fn kinds(counts: &Counts) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for (kind, calls) in counts.calls.values().flatten() {
        if kind.starts_with("graph.") || kind.starts_with("salesforce.") {
            *kinds.entry(kind.clone()).or_default() += calls;
        }
    }
    kinds
}

fn units(counts: &Counts) -> u64 {
    counts.units.values().sum()
}
