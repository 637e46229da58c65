//! What is ready and what is not; the engine keeps it current.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// State of the parts that must work before the engine is ready; cheap to clone, all clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Part>>>);

/// State of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Whether it works.
    pub ready: bool,
    /// What is seen; for a part that does not work, why.
    pub detail: String,
}

impl Health {
    /// Makes a state in which the named parts are not ready yet.
    pub fn waiting_for<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let health = Self::default();
        for part in parts {
            health.down(part, "starting");
        }
        health
    }

    /// Notes that a part works.
    pub fn up(&self, part: &str) {
        self.set(part, true, "ok");
    }

    /// Notes that a part does not work; `why` has no personal content.
    pub fn down(&self, part: &str, why: &str) {
        self.set(part, false, why);
    }

    /// Forgets a part.
    pub fn remove(&self, part: &str) {
        self.parts_mut().remove(part);
    }

    /// Returns whether every part works.
    pub fn is_ready(&self) -> bool {
        let parts = self.parts_mut();
        !parts.is_empty() && parts.values().all(|part| part.ready)
    }

    /// Returns all parts by name.
    pub fn parts(&self) -> BTreeMap<String, Part> {
        self.parts_mut().clone()
    }

    fn set(&self, part: &str, ready: bool, detail: &str) {
        self.parts_mut().insert(part.to_owned(), Part { ready, detail: detail.to_owned() });
    }

    fn parts_mut(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Part>> {
        // Each change is one insertion, so the map is whole even if a holder panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
