//! Events and calendar views.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::super::delta;
use super::super::error::GraphError;
use super::super::mailbox::{Item, Mailbox, Window};
use super::super::tenant::EXCHANGE;
use super::super::view::{self, Style};
use super::super::zones::parse_moment;
use super::options::Options;
use super::path::Route;
use super::{Answer, Call, Front, entity};
use crate::actor::Actor;
use crate::faults::Strike;

/// Properties and relations of an event, as clients may select, order and filter by them.
///
/// <https://learn.microsoft.com/en-us/graph/api/resources/event>
const PROPERTIES: &[&str] = &[
    "id",
    "changeKey",
    "createdDateTime",
    "lastModifiedDateTime",
    "categories",
    "transactionId",
    "subject",
    "body",
    "bodyPreview",
    "start",
    "end",
    "isAllDay",
    "location",
    "locations",
    "attendees",
    "organizer",
    "isOrganizer",
    "responseStatus",
    "responseRequested",
    "showAs",
    "sensitivity",
    "importance",
    "isReminderOn",
    "reminderMinutesBeforeStart",
    "recurrence",
    "type",
    "seriesMasterId",
    "occurrenceId",
    "originalStart",
    "originalStartTimeZone",
    "originalEndTimeZone",
    "cancelledOccurrences",
    "isCancelled",
    "isDraft",
    "isOnlineMeeting",
    "onlineMeetingProvider",
    "onlineMeeting",
    "onlineMeetingUrl",
    "allowNewTimeProposals",
    "hideAttendees",
    "hasAttachments",
    "iCalUId",
    "uid",
    "webLink",
    "attachments",
    "calendar",
    "extensions",
    "instances",
    "exceptionOccurrences",
    "singleValueExtendedProperties",
    "multiValueExtendedProperties",
];

/// Longest window of a calendar view; Graph refuses more than 1825 days.
const LONGEST_VIEW: i64 = 1825;

impl Front {
    /// Answers calls about a mailbox's events.
    pub(super) fn calendar(&self, route: &Route, call: &Call) -> Result<Answer, GraphError> {
        let tenant = &self.tenant;
        let style = call.prefer.style();
        let method = call.method.as_str();
        match (method, route) {
            ("POST", Route::Events(user)) => {
                let made = tenant.create_styled(&call.actor(), user, call.body()?, &style)?;
                Ok(Answer::json(201, entity(call, &event_context(user), made)))
            }
            ("PATCH", Route::Event(user, id)) => {
                let if_match = call.if_match.as_deref();
                self.change_underneath(call, user, id);
                let changed = tenant.update_styled(&call.actor(), user, id, call.body()?, if_match, &style)?;
                Ok(Answer::json(200, entity(call, &event_context(user), changed)))
            }
            ("DELETE", Route::Event(user, id)) => {
                self.change_underneath(call, user, id);
                tenant.delete_event(&call.actor(), user, id, call.if_match.as_deref())?;
                Ok(Answer::empty(204))
            }
            (_, Route::Cancel(user, id)) => {
                let comment = call.body.as_ref().and_then(|body| body.get("comment").or_else(|| body.get("Comment")));
                tenant.cancel_event(&call.actor(), user, id, comment.and_then(Value::as_str))?;
                Ok(Answer::empty(202))
            }
            (_, Route::Respond(user, id, answer)) => {
                let body = call.body.clone().unwrap_or(Value::Null);
                tenant.respond(&call.actor(), user, id, answer, &body)?;
                Ok(Answer::empty(202))
            }
            _ => self.read_calendar(route, call, &style),
        }
    }

    /// Lets Exchange touch an event right before a write that names its version, where the switch says so.
    fn change_underneath(&self, call: &Call, user: &str, id: &str) {
        let tenant = &self.tenant;
        if call.if_match.is_none() || !tenant.world.strikes(Strike::OutlookChangedUnderneath) {
            return;
        }
        let mut state = tenant.lock();
        let found = state.locate(user, id).map(|(mailbox, item)| (mailbox.id, item.key));
        if let Ok((home, key)) = found {
            let exchange = Actor::Automation(EXCHANGE.to_owned());
            let touched = tenant.edit_once(&mut state, &exchange, home, key, |_| {});
            debug_assert!(touched.is_ok(), "the event was there a moment ago");
        }
    }

    fn read_calendar(&self, route: &Route, call: &Call, style: &Style) -> Result<Answer, GraphError> {
        let state = self.tenant.lock();
        let user = route.mailbox().ok_or_else(|| GraphError::no_route(call.last_segment()))?;
        let mailbox = state.mailbox(state.mailbox_id(user)?)?;
        let answer = match route {
            Route::Event(user, id) => {
                let stale = self.tenant.world.strikes(Strike::OutlookStaleReads);
                let found =
                    if stale { state.locate_stale(user, id, self.tenant.world.lag()) } else { state.locate(user, id) };
                let (mailbox, item) = found?;
                let options = options(call)?;
                entity(call, &event_context(user), options.reduce(dressed(mailbox, &item, &options, style)))
            }
            Route::Events(_) => {
                let mut items: Vec<Item> =
                    mailbox.items.values().filter(|item| item.key.original.is_none()).cloned().collect();
                items.sort_by_key(|item| (item.created, item.key));
                list(call, mailbox, items, "events", style)?
            }
            Route::View(_) => list(call, mailbox, mailbox.view(&window(call)?), "calendarView", style)?,
            Route::Instances(user, id) => {
                let (_, master) = state.locate(user, id)?;
                if master.kind() != "seriesMaster" {
                    return Err(GraphError::invalid_request("Instances exist only for the master of a series."));
                }
                list(call, mailbox, mailbox.occurrences(&master, &window(call)?), "events", style)?
            }
            Route::ViewDelta(_) | Route::EventsDelta(_) => return self.delta(route, call, mailbox, style),
            _ => return Err(GraphError::no_route(call.last_segment())),
        };
        Ok(Answer::json(200, answer))
    }

    fn delta(&self, route: &Route, call: &Call, mailbox: &Mailbox, style: &Style) -> Result<Answer, GraphError> {
        for option in ["$select", "$expand", "$filter", "$orderby", "$search", "$top"] {
            if call.parameter(option).is_some() && matches!(route, Route::ViewDelta(_)) {
                let message = format!("The query parameter '{option}' is not supported with change tracking.");
                return Err(GraphError::new(400, "ErrorInvalidUrlQuery", message));
            }
        }
        let token = match call.parameter("$skiptoken").or_else(|| call.parameter("$deltatoken")) {
            Some(token) => self.tenant.read_token(token)?,
            None if matches!(route, Route::ViewDelta(_)) => {
                let window = window(call)?;
                self.tenant.first_round(Some((window.start, window.end)))
            }
            None => self.tenant.first_round(None),
        };
        let page = delta::page(mailbox, token, call.prefer.page_size.unwrap_or(10), style);
        let options = options(call)?;
        let values: Vec<Value> = page.values.into_iter().map(|value| options.reduce(value)).collect();
        let token = page.token.text();
        let (link, parameter) =
            if page.more { ("@odata.nextLink", "$skiptoken") } else { ("@odata.deltaLink", "$deltatoken") };
        let context = call.context("Collection(event)");
        let link_url = format!("{}/v1.0{}?{parameter}={token}", call.base, call.path);
        Ok(Answer::json(200, json!({"@odata.context": context, "value": values, link: link_url})))
    }
}

fn options(call: &Call) -> Result<Options, GraphError> {
    Options::parse(call)?.only("microsoft.graph.event", PROPERTIES)
}

fn event_context(user: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(user, percent_encoding::NON_ALPHANUMERIC);
    format!("users('{encoded}')/events/$entity")
}

/// Reads the window of a calendar view; a time without offset is UTC, `Prefer` has no say.
fn window(call: &Call) -> Result<Window, GraphError> {
    let bound = |name: &str| -> Result<DateTime<Utc>, GraphError> {
        let text = call.parameter(name).ok_or_else(|| {
            let message = "This request requires a time window specified by the query string parameters StartDateTime and \
                           EndDateTime.";
            GraphError::new(400, "ErrorInvalidParameter", message)
        })?;
        let moment = parse_moment(text).ok_or_else(|| {
            GraphError::new(400, "ErrorInvalidParameter", format!("The value of {name} is not a valid date and time."))
        })?;
        Ok(moment.in_utc())
    };
    let (start, end) = (bound("startDateTime")?, bound("endDateTime")?);
    if end < start {
        return Err(GraphError::new(400, "ErrorInvalidParameter", "EndDateTime is earlier than StartDateTime."));
    }
    if end - start > TimeDelta::days(LONGEST_VIEW) {
        return Err(GraphError::new(
            400,
            "ErrorCalendarViewRangeTooBig",
            "Your request can't be completed. The range is too large.",
        ));
    }
    Ok(Window { start, end })
}

fn list(call: &Call, mailbox: &Mailbox, items: Vec<Item>, name: &str, style: &Style) -> Result<Value, GraphError> {
    let options = options(call)?;
    let utc = Style::default();
    let items = items
        .into_iter()
        .map(|item| {
            if !options.compares() {
                return (Value::Null, item);
            }
            let mut compared = view::event(mailbox, &item, &utc);
            compared["singleValueExtendedProperties"] = json!(view::extended(&item, |_| true));
            (compared, item)
        })
        .collect();
    let context = format!("users('{}')/{name}", mailbox.id);
    Ok(options.answer(call, &context, items, |item| dressed(mailbox, &item, &options, style)))
}

/// Writes an event with what was expanded or is answered only when selected.
fn dressed(mailbox: &Mailbox, item: &Item, options: &Options, style: &Style) -> Value {
    let mut event = view::event(mailbox, item, style);
    if let Some(filter) = options.expands("singleValueExtendedProperties").and_then(|expand| expand.filter.as_ref()) {
        let found = view::extended(item, |property| filter.matches(property));
        // Without a match the property is left out altogether.
        if !found.is_empty() {
            event["singleValueExtendedProperties"] = json!(found);
        }
    }
    for empty in ["attachments", "extensions"] {
        if options.expands(empty).is_some() {
            event[empty] = json!([]);
        }
    }
    if options.expands("exceptionOccurrences").is_some() {
        let exceptions: Vec<Value> =
            mailbox.exceptions(item.key.master()).map(|exception| view::event(mailbox, exception, style)).collect();
        event["exceptionOccurrences"] = json!(exceptions);
    }
    if options.selects("cancelledOccurrences") && item.kind() == "seriesMaster" {
        event["cancelledOccurrences"] = json!(view::cancelled_occurrences(mailbox, item, style.form));
    }
    event
}
