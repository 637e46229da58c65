//! Which resource a method and path name, and what its calls are counted as.

use axum::http::{Method, StatusCode};

use super::super::error::SalesforceError;
use super::super::schema::Object;
use super::{ApiRequest, Resource, collections, composite, describe, query, replication, rows};

/// Finds the resource; the text is the kind that meters count.
pub(super) fn find(request: &ApiRequest) -> Result<(&'static str, Resource), SalesforceError> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    // HEAD asks for the headers of GET; the server leaves the body out.
    let method = if request.method == Method::HEAD { "GET" } else { request.method.as_str() };
    let found: (&'static str, Resource) = match (method, path.as_slice()) {
        ("GET", []) => ("salesforce.resources", describe::resources),
        ("GET", ["limits"]) => ("salesforce.limits", describe::limits),
        ("GET", ["query"]) => ("salesforce.query", query::query),
        ("GET", ["queryAll"]) => ("salesforce.query_all", query::query_all),
        ("GET", ["query" | "queryAll", _]) => ("salesforce.query_more", query::more),
        ("GET", ["event", "eventSchema", _]) => ("salesforce.event_schema", describe::event_schema_by_id),
        ("GET", ["sobjects", _, "eventSchema"]) => ("salesforce.event_schema", describe::event_schema_by_name),
        ("GET", ["sobjects"]) => ("salesforce.describe", describe::global),
        ("GET", ["sobjects", _]) => ("salesforce.describe", describe::basic),
        ("GET", ["sobjects", _, "describe"]) => ("salesforce.describe", describe::full),
        ("GET", ["sobjects", _, "updated"]) => ("salesforce.updated", replication::updated),
        ("GET", ["sobjects", _, "deleted"]) => ("salesforce.deleted", replication::deleted),
        ("POST", ["sobjects", _] | ["sobjects", _, "Id"]) => ("salesforce.create", rows::create),
        ("GET", ["sobjects", _, _]) => ("salesforce.get", rows::get),
        ("PATCH", ["sobjects", _, _]) => ("salesforce.update", rows::update),
        ("DELETE", ["sobjects", _, _]) => ("salesforce.delete", rows::delete),
        ("GET", ["sobjects", _, _, _]) => ("salesforce.get_by_external_id", rows::get_by_external_id),
        ("PATCH", ["sobjects", _, _, _]) => ("salesforce.upsert", rows::upsert),
        ("DELETE", ["sobjects", _, _, _]) => ("salesforce.delete_by_external_id", rows::delete_by_external_id),
        ("POST", ["composite"]) => ("salesforce.composite", composite::composite),
        ("POST", ["composite", "sobjects"]) => ("salesforce.create_many", collections::create),
        ("PATCH", ["composite", "sobjects"]) => ("salesforce.update_many", collections::update),
        ("DELETE", ["composite", "sobjects"]) => ("salesforce.delete_many", collections::delete),
        ("GET" | "POST", ["composite", "sobjects", _]) => ("salesforce.get_many", collections::retrieve),
        ("PATCH", ["composite", "sobjects", _, _]) => ("salesforce.upsert_many", collections::upsert),
        (_, ["limits" | "composite"] | ["query" | "queryAll" | "sobjects", ..] | ["composite", "sobjects", ..]) => {
            return Err(not_allowed(&request.method));
        }
        _ => return Err(SalesforceError::not_found()),
    };
    Ok(found)
}

/// Returns the object that the second part of a path names.
pub(super) fn object(name: &str) -> Result<Object, SalesforceError> {
    Object::named(name).ok_or_else(SalesforceError::not_found)
}

/// Says that the resource takes other methods.
pub(super) fn not_allowed(method: &Method) -> SalesforceError {
    let message = format!("HTTP Method '{method}' not allowed. Allowed are HEAD,GET,POST,PATCH,DELETE");
    SalesforceError::with(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
}
