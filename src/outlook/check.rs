//! `calbridge check` for Outlook: does what the engine will do, and names the permission that is missing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use serde_json::Value as Json;

use super::auth::GRAPH_SCOPE;
use super::calendar::OutlookCalendar;
use super::client::{Call, TENANT, encode};
use super::listen::hub_connection;
use crate::ports::{Calendar, Finding, RemoteError};

/// Application permissions that the engine uses: <https://learn.microsoft.com/graph/permissions-reference>.
const WRITE_PERMISSION: &str = "Calendars.ReadWrite";

/// Tries everything once; later tries are left out when an earlier failure makes them useless.
pub(super) async fn run(calendar: &OutlookCalendar) -> Vec<Finding> {
    let mut findings = Vec::new();
    let token = match calendar.client.tokens().token(GRAPH_SCOPE).await {
        Ok(token) => token,
        Err(error) => {
            findings.push(failed("outlook: sign in", &error));
            findings.extend(hub(calendar).await);
            return findings;
        }
    };
    findings.push(fine("outlook: sign in", roles(token.secret())));
    findings.extend(mailboxes(calendar).await);
    findings.push(subscriptions(calendar).await);
    findings.extend(hub(calendar).await);
    findings
}

async fn mailboxes(calendar: &OutlookCalendar) -> Vec<Finding> {
    let addresses = &calendar.settings.mailboxes;
    let accounts = match calendar.accounts(addresses).await {
        Ok(accounts) => accounts,
        Err(error) => return vec![failed("outlook: find users", &error)],
    };
    let now = calendar.clock.now();
    let mut findings = Vec::new();
    for (address, account) in addresses.iter().zip(accounts) {
        let what = format!("outlook: mailbox {address}");
        let Some(account) = account else {
            findings.push(Finding {
                what,
                ok: false,
                detail: "no such user in the tenant; correct the address or remove the enrolment".to_owned(),
                code: Some(super::error::NO_MAILBOX),
            });
            continue;
        };
        let path = format!(
            "/users/{}/calendarView?startDateTime={}&endDateTime={}&$select=id&$top=1",
            encode(&account.id),
            encode(&now.to_rfc3339()),
            encode(&(now + TimeDelta::days(1)).to_rfc3339())
        );
        let answer = calendar.client.send(Call::get(account.id.as_str(), path)).await;
        let zone = account.zone.unwrap_or_else(|| "unknown; the permission `MailboxSettings.Read` shows it".to_owned());
        findings.push(
            match answer.map_err(|failure| failure.error().clone()).and_then(super::client::Reply::success) {
                Ok(_) => fine(what, format!("calendar can be read; time zone {zone}")),
                Err(error) => failed(what, &error),
            },
        );
    }
    findings
}

async fn subscriptions(calendar: &OutlookCalendar) -> Finding {
    let what = "outlook: subscriptions";
    let answer = calendar.client.send(Call::get(TENANT, "/subscriptions")).await;
    match answer.map_err(|failure| failure.error().clone()).and_then(super::client::Reply::success) {
        Ok(body) => {
            let count = body.get("value").and_then(Json::as_array).map_or(0, Vec::len);
            fine(what, format!("may be listed; {count} on the first page"))
        }
        Err(error) => failed(what, &error),
    }
}

async fn hub(calendar: &OutlookCalendar) -> Option<Finding> {
    let hub = calendar.settings.hub.as_ref()?;
    let what = format!("outlook: event hub {}", hub.hub);
    Some(match hub_connection::partitions(hub, calendar.client.tokens()).await {
        Ok(partitions) => fine(what, format!("{} partitions can be seen", partitions.len())),
        Err(error) => failed(what, &error),
    })
}

/// Reads the roles out of an app token, to say early what Graph would refuse later.
fn roles(token: &str) -> String {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|json| serde_json::from_slice::<Json>(&json).ok());
    let Some(claims) = claims else {
        return "token received; its permissions cannot be seen".to_owned();
    };
    let roles: Vec<&str> = claims
        .get("roles")
        .and_then(Json::as_array)
        .map(|roles| roles.iter().filter_map(Json::as_str).collect())
        .unwrap_or_default();
    if roles.contains(&WRITE_PERMISSION) {
        format!("token received with {}", roles.join(", "))
    } else {
        format!("token received without `{WRITE_PERMISSION}`: grant it, or a role for applications in Exchange")
    }
}

fn fine(what: impl Into<String>, detail: impl Into<String>) -> Finding {
    Finding { what: what.into(), ok: true, detail: detail.into(), code: None }
}

fn failed(what: impl Into<String>, error: &RemoteError) -> Finding {
    Finding { what: what.into(), ok: false, detail: error.message.clone(), code: Some(error.code) }
}
