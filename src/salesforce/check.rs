//! `calbridge check` for Salesforce: does what the engine will do, and names the mend of what fails.

use calbridge_core::mapping::TIME;
use reqwest::Method;
use serde::Deserialize;

use super::calendar::{Describe, SalesforceCalendar};
use super::client::Call;
use super::error::Failure;
use super::pubsub;
use super::wire::{LINK_FIELD, LINK_LENGTH, TOKEN_FIELD, TOKEN_LENGTH};
use crate::ports::{Finding, RemoteError};

/// What is used of the org's limits.
#[derive(Debug, Deserialize)]
struct Limits {
    #[serde(rename = "DailyApiRequests")]
    api: Option<Limit>,
    #[serde(rename = "DailyDeliveredPlatformEvents")]
    delivered: Option<Limit>,
}

#[derive(Debug, Deserialize)]
struct Limit {
    #[serde(rename = "Max")]
    max: i64,
    #[serde(rename = "Remaining")]
    remaining: i64,
}

impl SalesforceCalendar {
    /// Tries everything in the order in which the engine needs it; stops where the rest cannot work either.
    pub(super) async fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match self.client.session().await {
            Ok(session) => {
                let detail = format!("signed in to org {} as user {}", session.org(), session.user());
                findings.push(good("sign in", detail));
            }
            Err(error) => {
                findings.push(bad("sign in", error.code, error.message));
                return findings;
            }
        }
        match self.describe().await {
            Ok(describe) => {
                findings.push(access(&describe));
                findings.push(mapped_fields(&describe, &self.fields));
                findings.extend(stamp_fields(&describe));
            }
            Err(failure) => {
                findings.push(failed("Event object", &failure, "give the integration user access to Activities"));
            }
        }
        findings.push(match pubsub::probe(&self.client, &self.pubsub).await {
            Ok(topic) => good("change events", format!("may subscribe to `{topic}`")),
            Err(RemoteError { code, message, .. }) => bad("change events", code, message),
        });
        findings.push(self.limits_left().await);
        findings
    }

    async fn limits_left(&self) -> Finding {
        let limits = match self.client.call(Call::new(Method::GET, "/limits", "limits")).await {
            Ok(reply) => reply.read::<Limits>(),
            Err(failure) => Err(failure),
        };
        match limits {
            Ok(limits) => {
                let parts: Vec<String> = [("API calls", limits.api), ("event deliveries", limits.delivered)]
                    .into_iter()
                    .filter_map(|(what, limit)| limit.map(|l| format!("{} of {} {what} left", l.remaining, l.max)))
                    .collect();
                good("limits", parts.join(", "))
            }
            Err(failure) => failed("limits", &failure, "the daily limits cannot be read"),
        }
    }
}

fn access(describe: &Describe) -> Finding {
    let missing: Vec<&str> =
        [("create", describe.createable), ("update", describe.updateable), ("delete", describe.deletable)]
            .into_iter()
            .filter_map(|(what, may)| (!may).then_some(what))
            .collect();
    if missing.is_empty() {
        good("Event object", "may read, create, update and delete".to_owned())
    } else {
        let detail =
            format!("the integration user may not {}; give it the permission `Edit Events`", missing.join(", "));
        bad("Event object", "CB1362", detail)
    }
}

fn mapped_fields(describe: &Describe, mapped: &[String]) -> Finding {
    let hidden: Vec<&str> =
        mapped.iter().map(String::as_str).filter(|name| *name != TIME && describe.field(name).is_none()).collect();
    if hidden.is_empty() {
        return good("mapped fields", format!("all {} are visible", mapped.len()));
    }
    let detail = format!(
        "Event has no field `{}` that the integration user can see; correct the mapping, or create the field and grant \
         field-level security",
        hidden.join("`, `")
    );
    bad("mapped fields", "CB1364", detail)
}

/// Looks at both stamp fields: there, writable, long enough, unique where it must be.
fn stamp_fields(describe: &Describe) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, length) in [(LINK_FIELD, LINK_LENGTH), (TOKEN_FIELD, TOKEN_LENGTH)] {
        let what = format!("field {name}");
        let finding = match describe.field(name) {
            None => bad(
                &what,
                "CB1365",
                format!(
                    "Event has no field `{name}` that the integration user can see; create it on Activity as Text({length}) \
                     and grant field-level security; until then nothing is written to salesforce"
                ),
            ),
            Some(field) if !(field.createable && field.updateable) => bad(
                &what,
                "CB1365",
                format!("`{name}` is read-only for the integration user; grant edit access in field-level security"),
            ),
            Some(field) if field.length > 0 && field.length < length => {
                bad(&what, "CB1365", format!("`{name}` holds {} characters; make it Text({length})", field.length))
            }
            Some(field) if name == LINK_FIELD && !field.unique => bad(
                &what,
                "CB1366",
                format!(
                    "`{name}` is not unique; set `Unique` on it if the org allows; without it a creation whose answer was \
                     lost waits and is searched for"
                ),
            ),
            Some(_) => good(&what, "visible and writable".to_owned()),
        };
        findings.push(finding);
    }
    findings
}

fn good(what: &str, detail: String) -> Finding {
    Finding { what: format!("salesforce: {what}"), ok: true, detail, code: None }
}

fn bad(what: &str, code: &'static str, detail: String) -> Finding {
    Finding { what: format!("salesforce: {what}"), ok: false, detail, code: Some(code) }
}

fn failed(what: &str, failure: &Failure, mend: &str) -> Finding {
    bad(what, failure.kind.code(), format!("{}; {mend}", failure.message))
}
