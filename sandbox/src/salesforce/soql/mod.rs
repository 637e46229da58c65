//! The SOQL subset of the stand-in: SELECT list, WHERE, ORDER BY, LIMIT, OFFSET, COUNT().
//!
//! <https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select.htm>.
//! Subqueries, GROUP BY and HAVING are answered MALFORMED_QUERY.

mod eval;
mod lexer;
mod parser;

pub(crate) use eval::run;

use super::error::SalesforceError;

fn malformed(message: impl Into<String>) -> SalesforceError {
    SalesforceError::bad("MALFORMED_QUERY", message)
}
