//! Writing to stdout and stderr without panicking on a closed pipe.

use std::io::{self, Write};

/// Writes data and a final line break to stdout.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.trim_end().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes JSON, indented, to stdout.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Writes an error to stderr; there is nowhere to report that this fails.
pub(super) fn complain(text: &str) {
    if let Err(error) = writeln!(io::stderr().lock(), "error: {text}") {
        tracing::debug!(%error, "cannot write to stderr");
    }
}

/// Tells whether the reader of stdout went away, as `| head` does.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
