//! `cargo bench --bench intake`: how fast signals become durable, beside the parts that no intake can do without.
//!
//! ```text
//!   stand-in of Event Hubs (own process, plain AMQP on loopback)
//!      ├──> bare:    the SDK's receiver, counting                                  (own process)
//!      └──> intake:  listener ─> decode ─> dedup in Redis ─> `dirty` rows ─> position   (own process, real files)
//!   upserts: the same rows into the same kind of database, without our logic       (own process)
//! ```
//!
//! All run one after the other on the same workload, so the ratios hold on any machine. Needs `redis-server`.

#![expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says why and ends")]

mod bare;
mod full;
mod memory;
#[path = "../../tests/suite/support/redis.rs"]
#[expect(dead_code, reason = "shared with the suite, which uses all of it")]
mod redis;
mod stand_in;
mod upserts;
mod workload;

use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use self::redis::RedisServer;
use self::workload::Workload;

/// What one part found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Seconds from its start to the last signal.
    pub(crate) seconds: f64,
    /// Resident memory in KiB at the start, in the middle, at the end.
    pub(crate) memory: [u64; 3],
    /// Signals dropped as seen before.
    pub(crate) duplicates: u64,
}

/// What a part is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) workload: Workload,
    /// Port of the stand-in.
    pub(crate) port: u16,
    /// Address of Redis.
    pub(crate) redis: String,
}

/// Reads a variable of the environment; the shared Redis helper asks for it.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever starts a benchmark says by the environment what must be present"
)]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn main() {
    calbridge_sandbox::tls::install_crypto_provider();
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let [_, part, task] = arguments.as_slice() {
        let task: Task = serde_json::from_str(task).unwrap();
        runtime.block_on(async {
            match part.as_str() {
                "stand-in" => stand_in::serve(task.workload).await,
                "bare" => tell(&bare::receive(&task).await),
                "upserts" => tell(&upserts::write(&task).await),
                "intake" => tell(&full::take_in(&task).await),
                other => panic!("`{other}` is no part of this benchmark"),
            }
        });
        return;
    }
    runtime.block_on(compare());
}

fn tell(measured: &Measured) {
    println!("{}", serde_json::to_string(measured).unwrap());
}

async fn compare() {
    let workload = Workload {
        signals: number("CALBRIDGE_BENCH_SIGNALS").unwrap_or(Workload::default().signals),
        ..Workload::default()
    };
    let Some(redis) = RedisServer::start().await else {
        eprintln!("this benchmark needs `redis-server` on the path; install Redis and run it again");
        std::process::exit(2);
    };
    let runs = number("CALBRIDGE_BENCH_RUNS").unwrap_or(3);
    println!(
        "{} signals on {} records, {} % redelivered, {} mailboxes, {} partitions, one signal a message; {runs} runs",
        workload.signals, workload.records, workload.redelivered_percent, workload.mailboxes, workload.partitions
    );
    println!(
        "on this machine: {} cores; stand-in, Redis and the measured process share them\n",
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    );
    println!(
        "{:<6} {:>12} {:>12} {:>12} {:>9} {:>9} {:>8}",
        "run", "bare SDK/s", "upserts/s", "intake/s", "of bare", "of ups.", "of slower"
    );
    let mut ratios = Vec::new();
    for run in 1..=runs {
        let _: String = redis.ask(&["FLUSHALL"]).await;
        let (mut hub, port) = start_stand_in(workload).await;
        let task = Task { workload, port, redis: redis.url() };
        let bare = measure("bare", &task).await;
        let upserts = measure("upserts", &task).await;
        let intake = measure("intake", &task).await;
        hub.kill().await.unwrap();
        let rate = |measured: &Measured| workload.signals as f64 / measured.seconds;
        let (bare, upserts, taken) = (rate(&bare), rate(&upserts), rate(&intake));
        let ratio = taken / bare.min(upserts);
        ratios.push(ratio);
        println!(
            "{run:<6} {bare:>12.0} {upserts:>12.0} {taken:>12.0} {:>8.0}% {:>8.0}% {:>7.0}%   {} duplicates dropped; memory {:.0} / {:.0} / {:.0} MiB",
            100.0 * taken / bare,
            100.0 * taken / upserts,
            100.0 * ratio,
            intake.duplicates,
            mib(intake.memory[0]),
            mib(intake.memory[1]),
            mib(intake.memory[2]),
        );
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let verdict = if median >= 0.8 { "met" } else { "not met" };
    println!("\ngoal: intake >= 80 % of the slower of the two; median {:.0} %: {verdict}", 100.0 * median);
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn number(name: &str) -> Option<usize> {
    environment(name).and_then(|text| text.parse().ok())
}

/// Runs one part in a process of its own.
async fn measure(part: &str, task: &Task) -> Measured {
    let output = start(part, task).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "the part `{part}` failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn start_stand_in(workload: Workload) -> (Child, u16) {
    let task = Task { workload, port: 0, redis: String::new() };
    let mut child = start("stand-in", &task).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.next_line().await.unwrap().expect("the stand-in tells its port");
    (child, port.parse().unwrap())
}

fn start(part: &str, task: &Task) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([part, &serde_json::to_string(task).unwrap()]);
    command
}
