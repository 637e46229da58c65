//! Occurrences of a series: which there are, and what each looks like before anybody edits it.

use chrono::{DateTime, NaiveDate, TimeDelta};

use super::error::GraphError;
use super::ids;
use super::ids::ItemKey;
use super::mailbox::{Item, Window};
use super::zones::When;

fn start_on(master: &Item, date: NaiveDate) -> When {
    When { local: date.and_time(master.content.start.local.time()), zone: master.content.start.zone.clone() }
}

/// Returns the original starts (seconds since 1970) of the occurrences in a window, deleted ones left out.
pub(crate) fn originals(master: &Item, window: &Window) -> Vec<i64> {
    let Some(recurrence) = &master.content.recurrence else {
        return Vec::new();
    };
    // One day more on each side covers every zone.
    let until = (window.end + TimeDelta::days(1)).date_naive();
    let length = master.content.duration();
    recurrence
        .dates(until)
        .into_iter()
        .map(|date| start_on(master, date).instant())
        .filter(|start| *start < window.end && (*start + length > window.start || *start >= window.start))
        .map(|start| start.timestamp())
        .filter(|original| !master.cancelled.contains(original))
        .collect()
}

/// Makes the unedited occurrence of an original start; none if the series has none there or it was deleted.
pub(crate) fn occurrence(master: &Item, original: i64) -> Option<Item> {
    let recurrence = master.content.recurrence.as_ref()?;
    let local = master.content.start.zone.local(DateTime::from_timestamp(original, 0)?);
    let dates = recurrence.dates(local.date());
    let fits = dates.last().is_some_and(|last| start_on(master, *last).instant().timestamp() == original);
    if !fits || master.cancelled.contains(&original) {
        return None;
    }
    occurrence_at(master, original)
}

/// Makes the occurrence of an original start that is known to exist.
pub(crate) fn occurrence_at(master: &Item, original: i64) -> Option<Item> {
    let zone = &master.content.start.zone;
    let local = zone.local(DateTime::from_timestamp(original, 0)?);
    let mut item = master.clone();
    item.key = ItemKey::occurrence(master.key.item, original);
    item.ical_uid = ids::occurrence_uid(&master.ical_uid, original);
    let length = master.content.duration();
    item.content.start.local = local;
    item.content.end.local = local + length;
    item.content.recurrence = None;
    item.cancelled.clear();
    item.transaction_id = None;
    item.is_exception = false;
    Some(item)
}

/// Refuses a new start of an occurrence that reaches or passes the day of its neighbours.
///
/// Rule: <https://learn.microsoft.com/en-us/graph/api/event-update>, `ErrorOccurrenceCrossingBoundary`.
pub(crate) fn check_boundary(master: &Item, original: i64, moved: &When) -> Result<(), GraphError> {
    let Some(recurrence) = &master.content.recurrence else {
        return Ok(());
    };
    let zone = &master.content.start.zone;
    let Some(own) = DateTime::from_timestamp(original, 0).map(|at| zone.local(at).date()) else {
        return Ok(());
    };
    let target = zone.local(moved.instant()).date();
    // A neighbour within ten years is enough: patterns with longer intervals cannot be crossed by mistake.
    let dates = recurrence.dates(own + TimeDelta::days(3660));
    let before = dates.iter().rev().find(|date| **date < own);
    let after = dates.iter().find(|date| **date > own);
    if before.is_some_and(|date| target <= *date) || after.is_some_and(|date| target >= *date) {
        return Err(GraphError::new(
            400,
            "ErrorOccurrenceCrossingBoundary",
            "Modified occurrence is crossing or overlapping adjacent occurrence.",
        ));
    }
    Ok(())
}
