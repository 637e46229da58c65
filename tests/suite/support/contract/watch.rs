//! Listens to one sandbox from start to end, fails the test at its end, and adds up what the process has judged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use calbridge_sandbox::World;
use calbridge_sandbox::tap::Heard;

use super::judge::Fault;
use super::spec::Contract;

/// Faults that a failed test shows.
const SHOWN: usize = 10;

/// Where the sums of this process are kept, for `scripts/test.sh` to print.
const SUMMARY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/graph-contract.txt");

/// What was judged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// HTTP requests.
    pub(crate) exchanges: u64,
    /// Items of batches.
    pub(crate) items: u64,
    /// Messages on the hub.
    pub(crate) messages: u64,
    /// Notifications in them.
    pub(crate) notifications: u64,
    /// Requests that were answered 401.
    pub(crate) unauthorised: u64,
    /// Requests and items, by operation.
    pub(crate) operations: BTreeMap<String, u64>,
}

impl Totals {
    /// Prints what was judged, by operation.
    #[expect(clippy::print_stdout, reason = "counts are for people")]
    pub(crate) fn print(&self) {
        print!("{self}");
    }
}

/// Returns the description; none where it does not lie beside the repository, which is said once.
pub(crate) fn described() -> Option<&'static Contract> {
    static CONTRACT: OnceLock<Option<Contract>> = OnceLock::new();
    CONTRACT
        .get_or_init(|| {
            let path: PathBuf =
                [env!("CARGO_MANIFEST_DIR"), "..", "shared", "data", "graph-openapi-subset.json"].iter().collect();
            let Ok(text) = std::fs::read_to_string(&path) else {
                let said =
                    "skipped: Graph traffic is not judged; `../shared/data/graph-openapi-subset.json` is missing\n";
                // Past the capture of the test harness, which shows what is printed only where a test fails.
                std::io::stderr().write_all(said.as_bytes()).expect("stderr can be written");
                keep(said);
                return None;
            };
            let document = serde_json::from_str(&text).expect("the description is JSON");
            Some(Contract::read(&document))
        })
        .as_ref()
}

/// A listener at work.
pub(crate) struct Watch {
    world: Arc<World>,
    judging: Option<JoinHandle<(Totals, Vec<Fault>)>>,
}

impl Watch {
    /// Listens to a sandbox from now on.
    pub(crate) fn on(world: &Arc<World>) -> Self {
        let judging = described().map(|contract| {
            let heard = world.tap.listen();
            std::thread::spawn(move || judge(contract, &heard))
        });
        Self { world: Arc::clone(world), judging }
    }

    /// Ends listening; panics where something was not as described.
    pub(crate) fn finish(mut self) -> Totals {
        let (totals, faults) = self.collect();
        assert!(faults.is_empty(), "{}", complaint(&faults));
        totals
    }

    fn collect(&mut self) -> (Totals, Vec<Fault>) {
        let Some(judging) = self.judging.take() else {
            return (Totals::default(), Vec::new());
        };
        self.world.tap.close();
        let (totals, faults) = judging.join().expect("judging does not panic");
        add_up(&totals);
        (totals, faults)
    }
}

impl Drop for Watch {
    /// A test that ends without [`Watch::finish`] is judged all the same; one that has failed already is only told more.
    #[expect(clippy::print_stderr, reason = "a test that fails must show what else was wrong")]
    fn drop(&mut self) {
        let (_, faults) = self.collect();
        if faults.is_empty() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", complaint(&faults));
        } else {
            panic!("{}", complaint(&faults));
        }
    }
}

fn judge(contract: &Contract, heard: &Receiver<Heard>) -> (Totals, Vec<Fault>) {
    let mut totals = Totals::default();
    let mut faults = Vec::new();
    for heard in heard {
        match heard {
            Heard::Exchange(exchange) => {
                totals.exchanges += 1;
                totals.unauthorised += u64::from(exchange.status == 401);
                let (items, unanswered) = contract.items(&exchange);
                totals.items += items.len() as u64;
                faults.extend(unanswered);
                for exchange in std::iter::once(&*exchange).chain(&items) {
                    let (operation, wrong) = contract.judge(exchange);
                    if let Some(operation) = operation {
                        *totals.operations.entry(operation.to_owned()).or_default() += 1;
                    }
                    faults.extend(wrong);
                }
            }
            Heard::HubMessage(message) => {
                let (notifications, wrong) = contract.message(&message);
                totals.messages += 1;
                totals.notifications += notifications as u64;
                faults.extend(wrong);
            }
        }
    }
    (totals, faults)
}

fn complaint(faults: &[Fault]) -> String {
    let mut text = format!("Graph's description does not allow {} things of this test:", faults.len());
    for fault in faults.iter().take(SHOWN) {
        write!(text, "\n  {fault}").expect("writing to a String cannot fail");
    }
    text
}

fn add_up(more: &Totals) {
    static SUM: Mutex<Option<Totals>> = Mutex::new(None);
    let mut sum = SUM.lock().expect("adding does not panic");
    let sum = sum.get_or_insert_default();
    sum.exchanges += more.exchanges;
    sum.items += more.items;
    sum.unauthorised += more.unauthorised;
    sum.messages += more.messages;
    sum.notifications += more.notifications;
    for (operation, count) in &more.operations {
        *sum.operations.entry(operation.clone()).or_default() += count;
    }
    keep(&sum.to_string());
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "judged by Graph's description: {} requests, {} items of batches, {} hub messages with {} notifications; {} operations",
            self.exchanges,
            self.items,
            self.messages,
            self.notifications,
            self.operations.len()
        )?;
        for (operation, count) in &self.operations {
            writeln!(f, "{count:>8}  {operation}")?;
        }
        Ok(())
    }
}

fn keep(text: &str) {
    std::fs::create_dir_all(Path::new(SUMMARY).parent().expect("it has a folder")).expect("the folder can be made");
    std::fs::write(SUMMARY, text).expect("the summary can be written");
}
