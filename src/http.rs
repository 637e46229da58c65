//! The one HTTP client: timeouts, user agent, roots.

use std::path::Path;
use std::time::Duration;

use thiserror::Error;

/// How the client behaves.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Longest time for one request, answer included.
    pub timeout: Duration,
    /// PEM file with further roots to trust, beside the platform's.
    pub ca_file: Option<std::path::PathBuf>,
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The file with roots cannot be used.
    #[error("cannot use CA file `{path}`: {why}; give a PEM file with one or more certificates")]
    CaFile {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// The client cannot be built.
    #[error("cannot build the HTTP client: {0}")]
    Build(String),
}

/// Builds the client that every HTTP call of the engine goes through.
///
/// # Errors
/// [`HttpError`].
pub fn client(options: &HttpOptions) -> Result<reqwest::Client, HttpError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("calbridge/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.timeout.min(Duration::from_secs(5)))
        .timeout(options.timeout)
        .pool_idle_timeout(Duration::from_mins(1));
    if let Some(path) = &options.ca_file {
        for certificate in roots(path)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| HttpError::Build(error.to_string()))
}

fn roots(path: &Path) -> Result<Vec<reqwest::Certificate>, HttpError> {
    let failed = |why: String| HttpError::CaFile { path: path.display().to_string(), why };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))
}
