//! The directory and mailbox settings: users, calendars, time zone, translation of ids.

use serde_json::{Value, json};

use super::super::error::GraphError;
use super::super::ids::{self, IdForm, ItemKey};
use super::super::mailbox::Mailbox;
use super::options::Options;
use super::path::Route;
use super::{Answer, Call, Front, entity};

/// Properties of a user that come without `$select`.
const DEFAULT: &[&str] = &[
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
];

impl Front {
    /// Answers calls about users and mailbox settings; none for other calls.
    pub(super) fn directory(&self, route: &Route, call: &Call) -> Result<Option<Answer>, GraphError> {
        let state = self.tenant.lock();
        let by_name = |name: &str| state.mailbox_id(name).and_then(|id| state.mailbox(id));
        let answer = match route {
            Route::Users => {
                let options = Options::parse(call)?;
                let list = state.mailboxes.values().map(|mailbox| (user(mailbox), user(mailbox))).collect();
                options.answer(call, "users", list, |user| basic(&options, user))
            }
            Route::UsersDelta => {
                // The token is the number of users already told; users do not change in the sandbox, they only come.
                let token = call.parameter("$deltatoken").unwrap_or("0");
                let told = if token == "latest" { usize::MAX } else { token.parse().unwrap_or(0) };
                let options = Options::parse(call)?;
                let all = state.mailboxes.len();
                let new = if told >= all { Vec::new() } else { state.mailboxes.values().map(user).collect() };
                let values: Vec<Value> = new.into_iter().map(|user| basic(&options, user)).collect();
                json!({"@odata.context": call.context("users"), "value": values,
                    "@odata.deltaLink": format!("{}/v1.0/users/delta?$deltatoken={all}", call.base)})
            }
            Route::User(name) => {
                let mailbox = by_name(name).map_err(|_error| GraphError::user_not_found(name))?;
                let options = Options::parse(call)?;
                let mut found = basic(&options, user(mailbox));
                if options.selects("mailboxSettings") {
                    found["mailboxSettings"] = settings(mailbox);
                }
                entity(call, "users/$entity", found)
            }
            Route::Settings(name, None) => {
                let mailbox = by_name(name)?;
                let what = format!("users('{}')/mailboxSettings", mailbox.id);
                entity(call, &what, Options::parse(call)?.reduce(settings(mailbox)))
            }
            Route::Settings(name, Some(setting)) => {
                let mailbox = by_name(name)?;
                let value = settings(mailbox).get(setting).cloned();
                let value = value.ok_or_else(|| GraphError::no_route(call.last_segment()))?;
                let what = format!("users('{}')/mailboxSettings/{setting}", mailbox.id);
                entity(call, &what, json!({"value": value}))
            }
            Route::Calendar(name) => {
                let mailbox = by_name(name)?;
                let what = format!("users('{}')/calendar/$entity", mailbox.id);
                entity(call, &what, calendar(mailbox))
            }
            Route::Calendars(name) => {
                let mailbox = by_name(name)?;
                let context = call.context(&format!("users('{}')/calendars", mailbox.id));
                json!({"@odata.context": context, "value": [calendar(mailbox)]})
            }
            Route::Translate(name) => {
                by_name(name)?;
                let form = match call.body()?.get("targetIdType").and_then(Value::as_str) {
                    Some("restImmutableEntryId") => IdForm::Immutable,
                    Some("restId") => IdForm::Mutable,
                    _ => {
                        return Err(GraphError::invalid_request(
                            "targetIdType must be restId or restImmutableEntryId.",
                        ));
                    }
                };
                let inputs = call.body()?.get("inputIds").and_then(Value::as_array);
                let inputs = inputs.ok_or_else(|| GraphError::invalid_request("inputIds is missing."))?;
                let mut values = Vec::with_capacity(inputs.len());
                for input in inputs {
                    let source = input.as_str().ok_or_else(GraphError::malformed_id)?;
                    let (home, key) = ids::decode(source).ok_or_else(GraphError::malformed_id)?;
                    values.push(json!({"sourceId": source, "targetId": ids::encode(form, home, key)}));
                }
                json!({"@odata.context": call.context("Collection(microsoft.graph.convertIdResult)"), "value": values})
            }
            _ => return Ok(None),
        };
        Ok(Some(Answer::json(200, answer)))
    }
}

fn user(mailbox: &Mailbox) -> Value {
    let person = &mailbox.person;
    let (given, surname) = person.name.split_once(' ').unwrap_or((person.name.as_str(), ""));
    json!({
        "id": mailbox.id, "displayName": person.name, "givenName": given, "surname": surname, "mail": person.address,
        "userPrincipalName": person.address, "jobTitle": null, "mobilePhone": null, "officeLocation": null,
        "businessPhones": [], "preferredLanguage": "en-US", "accountEnabled": true, "userType": "Member",
        "mailNickname": person.address.split('@').next().unwrap_or_default(), "otherMails": [],
        "proxyAddresses": [format!("SMTP:{}", person.address)],
    })
}

fn basic(options: &Options, mut user: Value) -> Value {
    if options.select.is_some() {
        return options.reduce(user);
    }
    if let Some(all) = user.as_object_mut() {
        all.retain(|name, _| DEFAULT.contains(&name.as_str()));
    }
    user
}

fn settings(mailbox: &Mailbox) -> Value {
    let zone = mailbox.zone.windows_name();
    json!({
        "archiveFolder": null, "timeZone": zone, "delegateMeetingMessageDeliveryOptions": "sendToDelegateOnly",
        "dateFormat": "M/d/yyyy", "timeFormat": "h:mm tt", "userPurpose": "user",
        "language": {"locale": "en-US", "displayName": "English (United States)"},
        "workingHours": {
            "daysOfWeek": ["monday", "tuesday", "wednesday", "thursday", "friday"],
            "startTime": "08:00:00.0000000", "endTime": "17:00:00.0000000", "timeZone": {"name": zone},
        },
    })
}

fn calendar(mailbox: &Mailbox) -> Value {
    json!({
        "id": mailbox.event_id(IdForm::Mutable, ItemKey::whole(mailbox.id)), "name": "Calendar", "color": "auto",
        "hexColor": "", "isDefaultCalendar": true, "canShare": true, "canViewPrivateItems": true, "canEdit": true,
        "isRemovable": false, "isTallyingResponses": true, "allowedOnlineMeetingProviders": ["teamsForBusiness"],
        "defaultOnlineMeetingProvider": "teamsForBusiness", "changeKey": ids::change_key(mailbox.id, 0),
        "owner": {"name": mailbox.person.name, "address": mailbox.person.address},
    })
}
