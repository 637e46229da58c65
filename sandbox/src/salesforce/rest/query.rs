//! Query, queryAll and the locators of long answers.

use rand::Rng;
use serde_json::{Value, json};

use super::super::error::SalesforceError;
use super::super::soql;
use super::super::tx::Tx;
use super::{ApiAnswer, ApiRequest, Version};

/// Rows of a page where the client asks for none.
const PAGE: usize = 2000;
/// Open locators kept; the oldest is closed beyond it.
const CURSORS: usize = 100;

pub(super) fn query(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    first_page(tx, version, request, false)
}

pub(super) fn query_all(
    tx: &mut Tx<'_>,
    version: &Version,
    request: &ApiRequest,
) -> Result<ApiAnswer, SalesforceError> {
    first_page(tx, version, request, true)
}

/// Returns the next page of a locator such as `01gSb0000ABC-2000`.
pub(super) fn more(tx: &mut Tx<'_>, version: &Version, request: &ApiRequest) -> Result<ApiAnswer, SalesforceError> {
    let invalid = || SalesforceError::bad("INVALID_QUERY_LOCATOR", "invalid query locator");
    let (id, from) = request.part(1).rsplit_once('-').ok_or_else(invalid)?;
    let from: usize = from.parse().map_err(|_error| invalid())?;
    let cursor = tx.state.cursors.iter().find(|(known, _)| known == id);
    let rows = cursor.map(|(_, rows)| rows).filter(|rows| from < rows.len()).ok_or_else(invalid)?;
    let answer = page(id, rows, rows.len(), from, page_size(request), version);
    Ok(ApiAnswer::ok(answer))
}

fn first_page(
    tx: &mut Tx<'_>,
    version: &Version,
    request: &ApiRequest,
    include_deleted: bool,
) -> Result<ApiAnswer, SalesforceError> {
    let Some(query) = request.query("q").filter(|query| !query.trim().is_empty()) else {
        return Err(SalesforceError::bad("MALFORMED_QUERY", "SOQL statements cannot be empty"));
    };
    let found = soql::run(&tx.state, query, &version.0, &tx.switches, tx.now, include_deleted)?;
    let size = page_size(request);
    let id = format!("01gSb{}", tx.org.world.draw(|random| random.random_range(1_000_000_000_u64..9_999_999_999)));
    let answer = page(&id, &found.records, found.total, 0, size, version);
    if found.records.len() > size {
        tx.state.cursors.push_back((id, found.records));
        if tx.state.cursors.len() > CURSORS {
            tx.state.cursors.pop_front();
        }
    }
    Ok(ApiAnswer::ok(answer))
}

fn page(id: &str, rows: &[Value], total: usize, from: usize, size: usize, version: &Version) -> Value {
    let until = from.saturating_add(size).min(rows.len());
    let done = until == rows.len();
    let mut answer = json!({ "totalSize": total, "done": done });
    if !done {
        // The path says `query` even where the first page came from queryAll.
        answer["nextRecordsUrl"] = Value::from(format!("/services/data/v{}/query/{id}-{until}", version.0));
    }
    answer["records"] = rows.get(from..until).unwrap_or_default().into();
    answer
}

/// Reads `Sforce-Query-Options: batchSize=n`, 200 to 2000.
fn page_size(request: &ApiRequest) -> usize {
    let options = request.header("sforce-query-options").unwrap_or_default();
    let wanted = options.split([';', ',']).filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("batchSize").then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    wanted.map_or(PAGE, |size| size.clamp(200, PAGE))
}
