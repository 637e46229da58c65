//! Which records changed or were deleted within a span of time.
//!
//! <https://developer.salesforce.com/docs/platform/api-rest/guide/resources-getupdated.html>

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::super::cell::{parse_datetime, rest_datetime, whole_second};
use super::super::error::SalesforceError;
use super::super::tx::Tx;
use super::{ApiAnswer, ApiRequest, Version, routes};

pub(super) fn updated(tx: &mut Tx<'_>, _: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    let (start, end) = span(tx, request, 30)?;
    let changed = |stamp: DateTime<Utc>| stamp >= start && stamp < end;
    let rows = tx.state.rows.values().filter(|row| row.object == object && !row.is_deleted());
    let ids: Vec<&str> = rows.filter(|row| changed(row.modstamp())).map(|row| row.id.as_str()).collect();
    Ok(ApiAnswer::ok(json!({ "ids": ids, "latestDateCovered": rest_datetime(end.min(whole_second(tx.now))) })))
}

pub(super) fn deleted(tx: &mut Tx<'_>, _: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let object = routes::object(request.part(1))?;
    let (start, end) = span(tx, request, 15)?;
    let rows = tx.state.rows.values().filter(|row| row.object == object);
    let records: Vec<_> = rows
        .filter_map(|row| Some((row, row.deleted_at?)))
        .filter(|(_, at)| *at >= start && *at < end)
        .map(|(row, at)| json!({ "id": row.id, "deletedDate": rest_datetime(whole_second(at)) }))
        .collect();
    Ok(ApiAnswer::ok(json!({
        "deletedRecords": records,
        "earliestDateAvailable": rest_datetime(whole_second(tx.now - TimeDelta::days(15))),
        "latestDateCovered": rest_datetime(end.min(whole_second(tx.now))),
    })))
}

fn span(tx: &Tx<'_>, request: &ApiRequest, days: i64) -> Result<(DateTime<Utc>, DateTime<Utc>), SalesforceError> {
    let read = |name: &str| {
        let text = request.query(name).unwrap_or_default();
        parse_datetime(text)
            .ok_or_else(|| SalesforceError::bad("INVALID_REPLICATION_DATE", format!("{name} is not a date and time")))
    };
    let (start, end) = (read("start")?, read("end")?);
    let message = if end < start + TimeDelta::minutes(1) {
        "startDate must be at least one minute before endDate"
    } else if start < tx.now - TimeDelta::days(days) {
        "startDate is further back than records are kept"
    } else {
        return Ok((start, end));
    };
    Err(SalesforceError::bad("INVALID_REPLICATION_DATE", message))
}
