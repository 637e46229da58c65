//! `run`: starts logs, metrics, the listener for probes and the engine; stops them in order.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::args::RunArgs;
use super::backend::{Backend, Failure, RunContext};
use super::config;
use super::output::{Exit, Output};
use crate::clock::EngineClock;
use crate::config::{Config, Rehearsal, reach};
use crate::http::{self, HttpOptions};
use crate::ports::Clock;
use crate::web::Health;
use crate::{telemetry, web};

/// Runs until a signal stops it.
pub(super) async fn run(args: &RunArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    let mut config = match config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            output.problems(&problems);
            return Exit::Refused;
        }
    };
    config.store.restored = args.restored;
    if let Err(error) = telemetry::logs(&config.log) {
        output.complain(&error.to_string());
        return Exit::Failed;
    }
    let metrics = match telemetry::metrics() {
        Ok(metrics) => metrics,
        Err(error) => {
            output.complain(&error.to_string());
            return Exit::Failed;
        }
    };
    let listener = match web::bind(config.web.address).await {
        Ok(listener) => listener,
        Err(error) => {
            output.complain(&error.to_string());
            // The address is most often taken by the engine that holds the database too; that is the better news.
            if let Some(holder) = backend.holder(&config) {
                output.complain(&holder);
            }
            return Exit::Refused;
        }
    };
    let stop = CancellationToken::new();
    let web_stop = CancellationToken::new();
    let health = Health::waiting_for(["engine"]);
    let web = tokio::spawn(web::serve(listener, health.clone(), Some(metrics), web_stop.clone()));
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let probes = tokio::spawn(warn_about_unreachable(config.clone(), stop.clone()));

    info!(version = env!("CARGO_PKG_VERSION"), connection = %config.connection, mailboxes = config.enrolments.len(),
        probes = %config.web.address, "starting");
    for warning in &config.warnings {
        warn!(error.code = warning.code, "{warning}");
    }
    let context = RunContext { clock: clock(&config.rehearsal).await, health: health.clone(), stop: stop.clone() };
    let ended = backend.run(config, context).await;

    stop.cancel();
    web_stop.cancel();
    signals.abort();
    probes.abort();
    if let Ok(Err(error)) = web.await {
        warn!(error = %error, "the listener for probes did not stop cleanly");
    }
    match ended {
        Ok(()) => {
            info!("stopped");
            Exit::Done
        }
        Err(failure) => {
            output.complain(&failure.to_string());
            match failure {
                Failure::Refused(_) => Exit::Refused,
                Failure::Failed(_) => Exit::Failed,
            }
        }
    }
}

/// What the local sandbox answers about its time.
#[derive(serde::Deserialize)]
struct SandboxTime {
    now: DateTime<Utc>,
    speed: f64,
}

/// Makes the engine's clock: the wall clock, or in a rehearsal one that goes with the sandbox's.
async fn clock(rehearsal: &Rehearsal) -> Arc<dyn Clock> {
    let wall = EngineClock::wall();
    let told = match &rehearsal.clock_url {
        Some(url) => match ask_time(url).await {
            Ok(time) => Some((time.now, time.speed)),
            Err(error) => {
                warn!(error = %error, "the sandbox does not tell its time; starting at `rehearsal.start_at`");
                None
            }
        },
        None => None,
    };
    let (start_at, speed) = told.unwrap_or((rehearsal.start_at.unwrap_or_else(|| wall.now()), rehearsal.speed));
    if told.is_none() && rehearsal.start_at.is_none() && (speed - 1.0).abs() < f64::EPSILON {
        return Arc::new(wall);
    }
    info!(start_at = %start_at, speed, "rehearsing: the engine's clock is not the wall clock");
    Arc::new(EngineClock::rehearsal(start_at, speed))
}

async fn ask_time(url: &str) -> anyhow::Result<SandboxTime> {
    let client = http::client(&HttpOptions { timeout: Duration::from_secs(5), ca_file: None })?;
    let time: SandboxTime = client.get(url).send().await?.error_for_status()?.json().await?;
    anyhow::ensure!(time.speed > 0.0, "it says that its time stands still");
    Ok(time)
}

/// Cancels `stop` at SIGTERM or ctrl-c.
async fn stop_on_signal(stop: CancellationToken) {
    let asked = async {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            match signal(SignalKind::terminate()) {
                Ok(mut terminate) => {
                    tokio::select! {
                        _ = terminate.recv() => "SIGTERM",
                        _ = tokio::signal::ctrl_c() => "ctrl-c",
                    }
                }
                Err(error) => {
                    warn!(error = %error, "cannot listen for SIGTERM; ctrl-c still stops");
                    let _asked = tokio::signal::ctrl_c().await;
                    "ctrl-c"
                }
            }
        }
        #[cfg(not(unix))]
        {
            let _asked = tokio::signal::ctrl_c().await;
            "ctrl-c"
        }
    }
    .await;
    info!(signal = asked, "stopping: finishing what is under way");
    stop.cancel();
}

/// Warns about addresses that do not answer. The engine starts all the same: outages pass, and it must come up in one.
async fn warn_about_unreachable(config: Config, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        problems = reach::probe(&config) => {
            for problem in problems {
                warn!(error.code = problem.code, error = %problem, "an address does not answer; carrying on");
            }
        }
    }
}
