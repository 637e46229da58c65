//! Secrets: given directly, or as the path of a file that holds them.

use std::path::Path;

use calbridge_core::document::{Place, Section};
use secrecy::SecretString;

use super::load::Files;
use super::problem::{ConfigProblem, SECRET, SECRET_OPEN};

/// Longest secret, in bytes: a certificate chain with its key fits, a wrong file mostly does not.
const MAX_BYTES: usize = 64 * 1024;

/// Reads a secret's file; noted when it cannot be used.
pub(super) fn from_file(
    files: &dyn Files,
    key: &str,
    path: &Path,
    place: &Place,
    problems: &mut Vec<ConfigProblem>,
) -> Option<SecretString> {
    let mut note = |message: String| problems.push(ConfigProblem::new(place, SECRET, message));
    match files.read(path) {
        Err(why) => {
            note(format!(
                "`{key}`: cannot read `{}`: {why}; give the path of a file that holds the secret",
                path.display()
            ));
            None
        }
        Ok(text) if text.trim().is_empty() => {
            note(format!("`{key}`: `{}` is empty; put the secret into it", path.display()));
            None
        }
        Ok(text) if text.len() > MAX_BYTES => {
            note(format!("`{key}`: `{}` is longer than {MAX_BYTES} bytes; is it the right file?", path.display()));
            None
        }
        Ok(text) => Some(SecretString::from(text.trim().to_owned())),
    }
}

/// Warns of a secret's file that everybody on the machine may read.
pub(super) fn open_to_all(files: &dyn Files, key: &str, path: &Path, place: &Place) -> Option<ConfigProblem> {
    files.is_open_to_all(path).then(|| {
        let message = format!(
            "`{key}`: everybody on this machine may read `{}`; take that right away (`chmod o-r`, or `defaultMode: 0440` \
             where an orchestrator mounts it)",
            path.display()
        );
        ConfigProblem::new(place, SECRET_OPEN, message)
    })
}

/// Notes a secret that is given both directly and as a file.
pub(super) fn only_once(top: &Section<'_>, section: &str, key: &str, problems: &mut Vec<ConfigProblem>) {
    let Some(section) = top.section(section) else { return };
    let file_key = format!("{key}_file");
    if let (Some(_), Some(file)) = (section.get(key), section.get(&file_key)) {
        let message = format!("`{}` and `{}` are both given; keep one", section.name(key), section.name(&file_key));
        problems.push(ConfigProblem::new(&file.place, SECRET, message));
    }
}
