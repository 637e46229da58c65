//! Entry: hands the process to the command line.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use calbridge::cli::{self, Backend, Failure, RunContext, TraceAnswer, TraceRequest};
use calbridge::config::Config;
use calbridge::ports::{Finding, Store};

fn main() -> ExitCode {
    cli::start(&NoEngine)
}

/// Stands where the engine will be plugged in; every command that needs it says so and fails.
#[derive(Debug)]
struct NoEngine;

fn absent() -> Failure {
    Failure::Failed(anyhow::anyhow!("this build has no engine"))
}

#[async_trait]
impl Backend for NoEngine {
    async fn run(&self, _config: Config, _context: RunContext) -> Result<(), Failure> {
        Err(absent())
    }

    async fn check(&self, _config: &Config) -> Vec<Finding> {
        vec![Finding {
            what: "engine".to_owned(),
            ok: false,
            detail: absent().to_string(),
            code: None,
        }]
    }

    async fn open_store(&self, _config: &Config) -> Result<Arc<dyn Store>, Failure> {
        Err(absent())
    }

    async fn trace(&self, _config: &Config, _request: &TraceRequest, _values: bool) -> Result<TraceAnswer, Failure> {
        Err(absent())
    }
}
