//! The one HTTP client: timeouts, user agent, roots, and what it never does: follow a redirect, read without a limit.

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
        // Neither cloud's API redirects. Following one would carry tokens, or the client secret of a sign-in, to
        // whatever host an answer names.
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_mins(1));
    if let Some(path) = &options.ca_file {
        for certificate in roots(path)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| HttpError::Build(error.to_string()))
}

/// Largest answer read, in bytes after decompression.
///
/// A page of 100 events, a batch of 20 with long bodies or 200 Salesforce rows stay far below; more is no answer to what
/// we ask, and would have to be held in memory as a whole.
pub const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

/// Why an answer could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It goes on beyond [`LARGEST_ANSWER`].
    #[error("the answer is larger than {} MiB", LARGEST_ANSWER / (1024 * 1024))]
    TooLarge,
    /// The connection broke, or took too long.
    #[error(transparent)]
    Transport(#[from] reqwest::Error),
}

/// Reads an answer's body, at most [`LARGEST_ANSWER`] bytes of it; what a compressed one holds is counted, not its length.
///
/// # Errors
/// [`ReadError`].
pub async fn body(mut answer: reqwest::Response) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn roots(path: &Path) -> Result<Vec<reqwest::Certificate>, HttpError> {
    let failed = |why: String| HttpError::CaFile { path: path.display().to_string(), why };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
pub(crate) mod hostile;

#[cfg(test)]
mod tests {
    use super::hostile::{Raw, RawServer, bomb, endless, redirect};
    use super::*;

    fn ours() -> reqwest::Client {
        client(&HttpOptions { timeout: Duration::from_secs(30), ca_file: None }).unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_the_limit_however_it_is_made_to_look_small() {
        for script in [bomb(4 * LARGEST_ANSWER), endless()] {
            let packed = matches!(script, Raw::Bytes(_));
            let server = RawServer::start(move |_| script.clone()).await;
            let answer = ours().get(&server.base).send().await.unwrap();
            assert!(matches!(body(answer).await, Err(ReadError::TooLarge)), "packed: {packed}");
            // Beyond the limit no more is taken than what was on its way.
            assert!(server.sent() < 2 * LARGEST_ANSWER as u64, "{} bytes were sent", server.sent());
        }
        let server = RawServer::start(|_| bomb(LARGEST_ANSWER / 2)).await;
        let answer = ours().get(&server.base).send().await.unwrap();
        // Its checksum is missing on purpose; what matters is that its size was no reason.
        assert!(!matches!(body(answer).await, Err(ReadError::TooLarge)));
    }

    #[tokio::test]
    async fn no_redirect_is_followed() {
        let trap = RawServer::trap().await;
        for status in [301, 302, 303, 307, 308] {
            let to = trap.base.clone();
            let server = RawServer::start(move |_| redirect(status, &to)).await;
            let answer = ours().post(&server.base).form(&[("client_secret", "s")]).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
        }
        assert!(trap.requests().is_empty(), "{:?}", trap.requests());
    }
}
