//! Secrets that may change while the engine runs: a text, and the file it came from, if it came from one.
//!
//! A secret that was given directly stays as it is until a restart. One in a file is read again when a cloud refuses it,
//! so that a rotated one is taken up without a restart.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

/// A secret as it was given.
#[derive(Clone)]
pub struct Secret {
    text: SecretString,
    file: Option<PathBuf>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("file", &self.file).finish_non_exhaustive()
    }
}

impl From<SecretString> for Secret {
    fn from(text: SecretString) -> Self {
        Self { text, file: None }
    }
}

impl Secret {
    /// Makes a secret that was read from a file.
    pub fn in_file(text: SecretString, file: PathBuf) -> Self {
        Self { text, file: Some(file) }
    }

    /// Returns the secret as it was given at the start.
    pub fn text(&self) -> &SecretString {
        &self.text
    }

    /// Returns what its file holds now; the text of the start where there is no file, or nothing readable in it.
    pub async fn newest(&self) -> SecretString {
        let Some(file) = &self.file else { return self.text.clone() };
        match tokio::fs::read_to_string(file).await {
            Ok(text) if !text.trim().is_empty() => SecretString::from(text.trim().to_owned()),
            _ => self.text.clone(),
        }
    }
}

/// A secret in use; clones share it.
#[derive(Clone, Debug)]
pub struct LiveSecret {
    file: Option<PathBuf>,
    current: Arc<Mutex<SecretString>>,
}

impl LiveSecret {
    /// Starts to use a secret.
    pub fn new(secret: &Secret) -> Self {
        Self { file: secret.file.clone(), current: Arc::new(Mutex::new(secret.text.clone())) }
    }

    /// Returns the newest text that is known.
    pub fn current(&self) -> SecretString {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns another text than `refused`, which was not accepted: one that was taken up meanwhile, or what the file
    /// holds by now. None where there is no other, which means that the refusal stands.
    pub async fn other_than(&self, refused: &SecretString) -> Option<SecretString> {
        let known = self.current();
        if !same(&known, refused) {
            return Some(known);
        }
        let file = self.file.as_ref()?;
        let text = match tokio::fs::read_to_string(file).await {
            Ok(text) => SecretString::from(text.trim().to_owned()),
            Err(error) => {
                tracing::warn!(error = %error, "a refused secret's file `{}` cannot be read again", file.display());
                return None;
            }
        };
        if text.expose_secret().is_empty() || same(&text, refused) {
            return None;
        }
        tracing::info!("a refused secret has changed in its file `{}`; trying the new one", file.display());
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&text);
        Some(text)
    }
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[tokio::test]
    async fn a_file_that_changed_gives_another_secret_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "old\n").unwrap();
        let live = LiveSecret::new(&Secret::in_file(text("old"), path.clone()));
        assert!(live.other_than(&text("old")).await.is_none());
        std::fs::write(&path, " new\n").unwrap();
        assert_eq!(live.other_than(&text("old")).await.unwrap().expose_secret(), "new");
        assert_eq!(live.current().expose_secret(), "new");
        assert_eq!(Secret::in_file(text("old"), path.clone()).newest().await.expose_secret(), "new");
        // A second caller whose old one was refused meanwhile gets what the first one found.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(live.other_than(&text("old")).await.unwrap().expose_secret(), "new");
        assert!(live.other_than(&text("new")).await.is_none());
    }

    #[tokio::test]
    async fn an_emptied_file_and_a_secret_without_a_file_give_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(Secret::in_file(text("old"), path.clone()).newest().await.expose_secret(), "old");
        assert!(LiveSecret::new(&Secret::in_file(text("old"), path)).other_than(&text("old")).await.is_none());
        assert!(LiveSecret::new(&text("old").into()).other_than(&text("old")).await.is_none());
    }

    #[test]
    fn the_text_is_not_printed() {
        let secret = Secret::in_file(text("hidden"), PathBuf::from("/run/secrets/outlook"));
        assert!(!format!("{secret:?} {:?}", LiveSecret::new(&secret)).contains("hidden"));
    }
}
