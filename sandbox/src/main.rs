//! `calbridge-sandbox`: the local sandbox of both clouds, and a person's hands in it.

mod cli;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run().await
}
