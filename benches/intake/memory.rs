//! Resident memory of this process, as Linux tells it.

use crate::Measured;

/// Returns `VmRSS` in KiB; 0 where there is no such file.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Makes a result without duplicates.
pub(crate) fn measured(seconds: f64, memory: [u64; 3]) -> Measured {
    Measured { seconds, memory, duplicates: 0 }
}
