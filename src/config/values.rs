//! Checked values by key, from which the typed configuration is built.

use std::collections::BTreeMap;
use std::path::PathBuf;

use calbridge_core::document::Place;

use crate::secret::Secret;

/// A checked value.
#[derive(Debug)]
pub(super) enum Checked {
    Text(String),
    Path(PathBuf),
    Secret(Secret),
    Flag(bool),
    Whole(i64),
    Decimal(f64),
}

/// All checked values with their places.
///
/// Asking for a value that is not there gives the type's empty value: it happens only where a problem was noted, and then
/// nothing is built from it.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<&'static str, (Checked, Place)>);

impl Values {
    pub(super) fn insert(&mut self, key: &'static str, value: Checked, place: &Place) {
        self.0.insert(key, (value, place.clone()));
    }

    pub(super) fn place(&self, key: &str) -> Option<&Place> {
        self.0.get(key).map(|(_, place)| place)
    }

    pub(super) fn optional_text(&self, key: &str) -> Option<String> {
        match self.0.get(key) {
            Some((Checked::Text(text), _)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> String {
        self.optional_text(key).unwrap_or_default()
    }

    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        match self.0.get(key) {
            Some((Checked::Path(path), _)) => Some(path.clone()),
            _ => None,
        }
    }

    /// Returns a secret given directly or, failing that, by its file.
    pub(super) fn secret(&self, key: &str) -> Option<Secret> {
        [key.to_owned(), format!("{key}_file")].iter().find_map(|key| match self.0.get(key.as_str()) {
            Some((Checked::Secret(secret), _)) => Some(secret.clone()),
            _ => None,
        })
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some((Checked::Flag(true), _)))
    }

    pub(super) fn whole(&self, key: &str) -> i64 {
        match self.0.get(key) {
            Some((Checked::Whole(number), _)) => *number,
            _ => 0,
        }
    }

    /// Returns a whole number whose range in the table has no negative values.
    pub(super) fn count<T: TryFrom<i64> + Default>(&self, key: &str) -> T {
        T::try_from(self.whole(key)).unwrap_or_default()
    }

    pub(super) fn decimal(&self, key: &str) -> f64 {
        match self.0.get(key) {
            Some((Checked::Decimal(number), _)) => *number,
            _ => 0.0,
        }
    }
}
