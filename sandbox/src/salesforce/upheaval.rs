//! What befalls an org as a whole: archiving, the purge of the recycle bin, users that come and go, streams that end.
//!
//! None of it is the deletion of a meeting, and none but the archiving is told by a change event.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::cell::Cell;
use super::ids;
use super::org::Org;
use super::schema::Object;
use super::tx::{Row, State};

impl Org {
    /// Archives these events, or all that are over when none is named; returns how many.
    ///
    /// Archived rows show in `queryAll` alone. It is a change at the level of the database: stamps stay, and a gap event
    /// tells of each (of what change type is unconfirmed; here `GAP_UPDATE`).
    pub fn archive(&self, records: &BTreeSet<String>) -> usize {
        let wanted: BTreeSet<String> = records.iter().filter_map(|id| ids::normalise(id)).collect();
        let now = self.world.clock.now();
        let mut archived = Vec::new();
        let mut state = self.lock();
        for row in state.rows.values_mut().filter(|row| row.object == Object::Event && !row.is_deleted()) {
            let chosen = if records.is_empty() { is_over(row, now) } else { wanted.contains(&row.id) };
            if chosen && !row.cell("IsArchived").is_true() {
                row.cells.insert("IsArchived", Cell::Bool(true));
                archived.push(row.id.clone());
            }
        }
        drop(state);
        for id in &archived {
            self.publish_gap(Some(id));
        }
        archived.len()
    }

    /// Removes everything in the recycle bin for good; returns how many rows. No event tells of it.
    pub fn purge_recycle_bin(&self) -> usize {
        let mut state = self.lock();
        let State { rows, before, .. } = &mut *state;
        let all = rows.len();
        rows.retain(|_, row| !row.is_deleted());
        before.retain(|id, _| rows.contains_key(id));
        all - rows.len()
    }

    /// Activates or deactivates a user; their events stay as they are.
    pub fn set_active(&self, user_id: &str, active: bool) {
        let mut state = self.lock();
        if let Some(user) = state.rows.get_mut(user_id).filter(|row| row.object == Object::User) {
            user.cells.insert("IsActive", Cell::Bool(active));
        }
    }

    /// Ends every open Subscribe stream as a server does that is taken out of service; returns how many listened.
    pub fn end_streams(&self) -> usize {
        let ended = self.stream_ends.receiver_count();
        self.stream_ends.send_modify(|times| *times += 1);
        ended
    }

    /// Returns the 18-character id of the user whom the org's automation runs as.
    pub fn automated_user_id(&self) -> &str {
        &self.automated_user
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no transaction panics while holding the lock")
    }
}

fn is_over(row: &Row, now: DateTime<Utc>) -> bool {
    row.cell("EndDateTime").as_datetime().is_some_and(|end| end < now)
}
