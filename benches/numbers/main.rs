//! `cargo bench --bench numbers`: the product's figures, each beside its goal.
//!
//! The engine is the real program in a process of its own, so that its memory is its own; the sandbox runs in this one, and
//! both share the machine. Redis is used where `redis-server` is installed. Nothing is asserted: a goal that is missed says so.

#![expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says why and ends")]

mod load;
mod moments;
mod office;
#[path = "../../tests/suite/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the suite, which uses all of it")]
mod support;
mod table;

use self::office::Office;
use self::support::environment;
use self::support::redis::RedisServer;
use self::table::Table;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Mailboxes under load.
    pub(crate) mailboxes: usize,
    /// Seconds of load.
    pub(crate) seconds: usize,
    /// Edits a second.
    pub(crate) rate: usize,
    /// Mailboxes for the measurement of memory.
    pub(crate) many: usize,
    /// Seconds without an edit.
    pub(crate) idle: u64,
}

fn main() {
    calbridge_sandbox::tls::install_crypto_provider();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}

fn number(name: &str, default: usize) -> usize {
    environment(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn measure() {
    let plan = Plan {
        mailboxes: number("CALBRIDGE_BENCH_MAILBOXES", 200),
        seconds: number("CALBRIDGE_BENCH_SECONDS", 60),
        rate: number("CALBRIDGE_BENCH_RATE", 50),
        many: number("CALBRIDGE_BENCH_MANY", 2_000),
        idle: number("CALBRIDGE_BENCH_IDLE", 30) as u64,
    };
    let redis = RedisServer::start().await;
    let settings = match &redis {
        Some(server) => format!("redis:\n  url: {}\n", server.url()),
        None => String::new(),
    };
    println!(
        "{} mailboxes, {} edits/s on both sides for {} s, profile quiet; Redis: {}; {} cores for engine, sandbox and Redis\n",
        plan.mailboxes,
        plan.rate,
        plan.seconds,
        if redis.is_some() { "yes" } else { "not installed, in-process memory instead" },
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    );
    let mut table = Table::default();
    let small = moments::start(&mut table, &settings).await;
    moments::burst(&mut table, &settings).await;
    moments::recovery(&mut table, &settings).await;
    let office = Office::open(plan.mailboxes, &settings).await;
    load::run(&office, plan, &mut table).await;
    load::idle(&office, plan, &mut table).await;
    office.close().await;
    if plan.many > 0 {
        moments::memory(&mut table, &settings, plan.many, small).await;
    }
    table.print();
}
