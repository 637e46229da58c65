//! What the simulation found, as text: printed, and kept in a file that `scripts/test.sh` shows in the end.

use std::fs::OpenOptions;
use std::io::Write as _;

const REPORT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/simulation.txt");

/// Prints a part of the report, and adds it to the file in one piece: tests run beside each other.
#[expect(clippy::print_stdout, reason = "the report is for whoever runs the test")]
pub(crate) fn tell(part: &str) {
    println!("{part}");
    let file = OpenOptions::new().create(true).append(true).open(REPORT);
    file.and_then(|mut file| file.write_all(format!("{part}\n\n").as_bytes())).expect("the report can be written");
}
