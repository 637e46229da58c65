//! Single moments: start, a burst, recovery, and the memory of a large office.

use std::time::{Duration, Instant};

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::json;
use tokio::process::Command;

use crate::office::{agree, meet, move_meeting, until_agreed};
use crate::support::meetings::in_outlook;
use crate::support::process::{Bench, Running};
use crate::table::Table;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Edits of a burst, and the time between two of them: all within 250 ms.
const BURST: usize = 100;
const BURST_STEP: Duration = Duration::from_micros(2_200);
/// Meetings and edits around a kill.
const MEETINGS: usize = 20;

/// From nothing to the first meeting on both sides: sandbox, program, connections, one meeting.
///
/// Returns the memory of this small office.
pub(crate) async fn start(table: &mut Table, settings: &str) -> f64 {
    let started = Instant::now();
    let bench = Bench::set_up(Options::default(), settings).await;
    let sandbox = started.elapsed();
    let running = bench.run().await;
    let listening = started.elapsed();
    bench.rehearsal.person(0).create_in_outlook(&in_outlook("First")).unwrap();
    until(|| bench.rehearsal.salesforce().len() == 1).await;
    let seconds = started.elapsed().as_secs_f64();
    let parts = format!(
        "{seconds:.1} s (sandbox {:.1}, engine listening {:.1})",
        sandbox.as_secs_f64(),
        listening.as_secs_f64()
    );
    table.add("start to first synced meeting, sandbox included", "<= 5 s", parts, Some(seconds <= 5.0));
    let resident = resident_mib(&running);
    running.stop().await;
    bench.end().await;
    resident
}

/// A hundred edits of one meeting within 250 ms.
pub(crate) async fn burst(table: &mut Table, settings: &str) {
    let bench = Bench::set_up(Options::default(), settings).await;
    let running = bench.run().await;
    let meetings = meet(&bench, 1).await;
    let before = bench.rehearsal.writes(Cloud::Salesforce).len();
    let started = Instant::now();
    for number in 0..BURST {
        move_meeting(&bench, &meetings[0], true, &format!("room {number}"));
        // Spinning, because a timer is coarser than the step.
        while started.elapsed() < BURST_STEP * u32::try_from(number + 1).unwrap() {
            tokio::task::yield_now().await;
        }
    }
    let lasted = started.elapsed();
    let last = json!(format!("room {}", BURST - 1));
    until(|| bench.rehearsal.salesforce()[0]["Location"] == last).await;
    bench.rehearsal.settled().await;
    let writes = bench.rehearsal.writes(Cloud::Salesforce).len() - before;
    let measured = format!("{writes} (edits within {} ms)", lasted.as_millis());
    table.add("writes for a burst of 100 edits of one meeting", "1", measured, Some(writes == 1));
    running.stop().await;
    bench.end().await;
}

/// Kills the program among edits and measures from the next start until both sides agree.
pub(crate) async fn recovery(table: &mut Table, settings: &str) {
    let bench = Bench::set_up(Options { mailboxes: MEETINGS, ..Options::default() }, settings).await;
    let running = bench.run().await;
    let meetings = meet(&bench, MEETINGS).await;
    for (number, meeting) in meetings.iter().enumerate() {
        move_meeting(&bench, meeting, number % 2 == 0, &format!("before {number}"));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    // The first of them are being written now.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let id = running.id();
    let killed = Command::new("sh").args(["-c", &format!("kill -KILL {id}")]).status().await;
    assert!(killed.is_ok_and(|status| status.success()), "SIGKILL can be sent");
    for (number, meeting) in meetings.iter().enumerate().skip(MEETINGS / 2) {
        move_meeting(&bench, meeting, number % 2 == 0, &format!("while it was dead {number}"));
    }
    assert!(!agree(&bench, &meetings), "something is left to do");
    let started = Instant::now();
    let again = bench.start();
    until_agreed(&bench, &meetings).await;
    let seconds = started.elapsed().as_secs_f64();
    table.add(
        "recovery after kill -9, start to agreement",
        "<= 30 s",
        format!("{seconds:.1} s"),
        Some(seconds <= 30.0),
    );
    drop(running);
    again.stop().await;
    bench.end().await;
}

/// Memory of the program with many mailboxes: enrolled, subscribed, first rounds over.
///
/// `small` is what a hardly used program takes: what lies between the two grows with the mailboxes.
pub(crate) async fn memory(table: &mut Table, settings: &str, mailboxes: usize, small: f64) {
    let bench = Bench::set_up(Options { mailboxes, ..Options::default() }, settings).await;
    let started = Instant::now();
    let running = bench.start();
    let meters = &bench.rehearsal.sandbox.world().meters;
    let all = mailboxes as u64;
    until(|| {
        let calls = meters.read().calls;
        let count = |kind: &str| -> u64 { calls.values().filter_map(|kinds| kinds.get(kind)).sum() };
        count("graph.create_subscription") >= all && count("graph.calendar_view_delta") >= all
    })
    .await;
    bench.rehearsal.settled().await;
    let resident = resident_mib(&running);
    let measured = format!("{resident:.0} MiB ({:.0} s until all were enrolled)", started.elapsed().as_secs_f64());
    table.add(&format!("resident memory, {mailboxes} mailboxes"), "", measured, None);
    let expected = small + (resident - small).max(0.0) * 10_000.0 / mailboxes as f64;
    let how = if mailboxes >= 10_000 { "measured" } else { "extrapolated" };
    let megabytes = expected * 1.048_576;
    let measured = format!("{megabytes:.0} MB ({how}; {small:.0} MiB with 3 mailboxes)");
    table.add("resident memory, 10000 mailboxes", "<= 250 MB", measured, Some(megabytes <= 250.0));
    running.stop().await;
    bench.end().await;
}

/// Returns the resident memory of a process in MiB.
pub(crate) fn resident_mib(running: &Running) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    kib / 1024.0
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(LOOK).await;
    }
}
