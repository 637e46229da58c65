//! Starts logs and metrics.

use std::io::IsTerminal as _;

use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::names;
use crate::config::{LogConfig, LogFormat};

/// Bounds of the crossing histogram in seconds: the quiet window (0.75 s) and the goals (2 s, 8 s) are among them.
const CROSSING_BOUNDS: &[f64] = &[0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 60.0, 300.0];

/// Why telemetry did not start.
#[derive(Debug, Error)]
pub enum InitError {
    /// Something else in this process takes the logs or metrics already.
    #[error("cannot start {what}: {why}")]
    Taken {
        /// Logs or metrics.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// The recorded metrics.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Returns everything recorded in the Prometheus text form.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what was recorded since the last call; the listener calls it now and then so that memory stays flat.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Sends logs to stderr in the configured form.
///
/// # Errors
/// [`InitError`] when the process has a subscriber already.
pub fn logs(config: &LogConfig) -> Result<(), InitError> {
    let failed = |why: String| InitError::Taken { what: "logs", why };
    // The SDKs tell of every connection at `info` and log addresses at `debug`: below a warning they are not ours to show.
    let level = config.level.as_str();
    let others = if level == "error" { "error" } else { "warn" };
    let filter = format!("{others},calbridge={level},calbridge_core={level}");
    let filter = EnvFilter::try_new(filter).map_err(|error| failed(error.to_string()))?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    let started = match config.format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    started.map_err(|error| failed(error.to_string()))
}

/// Records metrics of this process.
///
/// # Errors
/// [`InitError`] when the process has a recorder already.
pub fn metrics() -> Result<Metrics, InitError> {
    let failed = |why: String| InitError::Taken { what: "metrics", why };
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(names::CROSSING_SECONDS.to_owned()), CROSSING_BOUNDS)
        .map_err(|error| failed(error.to_string()))?
        .install_recorder()
        .map_err(|error| failed(error.to_string()))?;
    for (name, help) in names::HELP {
        let name = *name;
        if name == names::CROSSING_SECONDS {
            metrics::describe_histogram!(name, *help);
        } else if name.ends_with("_total") {
            metrics::describe_counter!(name, *help);
        } else {
            metrics::describe_gauge!(name, *help);
        }
    }
    begin_at_zero();
    Ok(Metrics(handle))
}

/// Shows the counters that alerts are made on before anything was counted: an absent series looks like a broken scrape,
/// and the first step from nothing to 1 is no increase.
fn begin_at_zero() {
    for side in Side::BOTH {
        metrics::counter!(names::CROSSINGS, "to" => side.name()).increment(0);
        metrics::counter!(names::ECHOES, "side" => side.name()).increment(0);
        metrics::counter!(names::SIGNALS, "side" => side.name()).increment(0);
        for operation in ["create", "update", "delete"] {
            metrics::counter!(names::WRITES, "side" => side.name(), "operation" => operation).increment(0);
        }
    }
    for reason in [Reason::Refused, Reason::TooManyTries, Reason::DuplicateLink] {
        metrics::counter!(names::DEAD_LETTERS, "reason" => reason.name()).increment(0);
    }
    metrics::counter!(names::MAILS_EXPECTED).increment(0);
}
