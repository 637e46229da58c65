//! Which call a path means.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::super::error::GraphError;

/// A known path; mailboxes are named by user id or address, events by id of either form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Batch,
    Me,
    Subscriptions,
    Subscription(String),
    Reauthorize(String),
    Users,
    UsersDelta,
    User(String),
    /// Mailbox settings, or one of them.
    Settings(String, Option<String>),
    Calendar(String),
    Calendars(String),
    Translate(String),
    Events(String),
    EventsDelta(String),
    Event(String, String),
    Instances(String, String),
    Cancel(String, String),
    /// Answer to an invitation.
    Respond(String, String, &'static str),
    View(String),
    ViewDelta(String),
}

impl Route {
    /// Finds the call of a method and a path after `/v1.0`.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, GraphError> {
        let route = Self::of(path).ok_or_else(|| GraphError::no_route(stranger(path)))?;
        if route.methods().contains(&method.as_str()) {
            Ok(route)
        } else {
            Err(GraphError::new(
                405,
                "Request_BadRequest",
                "Specified HTTP method is not allowed for the request target.",
            ))
        }
    }

    fn of(path: &str) -> Option<Self> {
        let mut segments = Vec::new();
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let segment = percent_decode_str(segment).decode_utf8().ok()?.into_owned();
            split_key(&segment, &mut segments);
        }
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let own = |text: &str| text.to_owned();
        Some(match segments.as_slice() {
            ["$batch"] => Self::Batch,
            ["me", ..] => Self::Me,
            ["subscriptions"] => Self::Subscriptions,
            ["subscriptions", id] => Self::Subscription(own(id)),
            ["subscriptions", id, "reauthorize"] => Self::Reauthorize(own(id)),
            ["users"] => Self::Users,
            ["users", "delta"] => Self::UsersDelta,
            ["users", user] => Self::User(own(user)),
            ["users", user, "mailboxSettings"] => Self::Settings(own(user), None),
            ["users", user, "mailboxSettings", name] => Self::Settings(own(user), Some(own(name))),
            ["users", user, "translateExchangeIds"] => Self::Translate(own(user)),
            ["users", user, "calendar"] | ["users", user, "calendars", _] => Self::Calendar(own(user)),
            ["users", user, "calendars"] => Self::Calendars(own(user)),
            // There is one calendar per mailbox, so all three trees are one.
            ["users", user, "calendar", rest @ ..] | ["users", user, "calendars", _, rest @ ..] => {
                Self::items(user, rest)?
            }
            ["users", user, rest @ ..] => Self::items(user, rest)?,
            _ => return None,
        })
    }

    fn items(user: &str, rest: &[&str]) -> Option<Self> {
        let user = user.to_owned();
        Some(match rest {
            ["events"] => Self::Events(user),
            ["events", "delta"] => Self::EventsDelta(user),
            ["calendarView"] => Self::View(user),
            ["calendarView", "delta"] => Self::ViewDelta(user),
            ["events" | "calendarView", id] => Self::Event(user, (*id).to_owned()),
            ["events", id, "instances"] => Self::Instances(user, (*id).to_owned()),
            ["events", id, "cancel"] => Self::Cancel(user, (*id).to_owned()),
            ["events", id, "accept"] => Self::Respond(user, (*id).to_owned(), "accepted"),
            ["events", id, "decline"] => Self::Respond(user, (*id).to_owned(), "declined"),
            ["events", id, "tentativelyAccept"] => Self::Respond(user, (*id).to_owned(), "tentativelyAccepted"),
            _ => return None,
        })
    }

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Me => &["GET", "POST", "PATCH", "PUT", "DELETE"],
            Self::Subscriptions | Self::Events(_) => &["GET", "POST"],
            Self::Subscription(_) | Self::Event(..) => &["GET", "PATCH", "DELETE"],
            Self::Batch | Self::Reauthorize(_) | Self::Translate(_) | Self::Cancel(..) | Self::Respond(..) => &["POST"],
            _ => &["GET"],
        }
    }

    /// Returns the mailbox of the call, if it is about one.
    pub(super) fn mailbox(&self) -> Option<&str> {
        match self {
            Self::Settings(user, _)
            | Self::Calendar(user)
            | Self::Calendars(user)
            | Self::Translate(user)
            | Self::Events(user)
            | Self::EventsDelta(user)
            | Self::Event(user, _)
            | Self::Instances(user, _)
            | Self::Cancel(user, _)
            | Self::Respond(user, _, _)
            | Self::View(user)
            | Self::ViewDelta(user) => Some(user),
            _ => None,
        }
    }

    /// Returns the application permissions of which one is needed; empty means none.
    pub(super) fn roles(&self, method: &Method) -> &'static [&'static str] {
        match self {
            Self::Batch | Self::Me | Self::Translate(_) => &[],
            Self::Users | Self::UsersDelta | Self::User(_) => {
                &["User.Read.All", "User.ReadBasic.All", "User.ReadWrite.All", "Directory.Read.All"]
            }
            Self::Settings(..) => &["MailboxSettings.Read", "MailboxSettings.ReadWrite"],
            Self::Subscriptions | Self::Subscription(_) | Self::Reauthorize(_) => {
                &["Calendars.Read", "Calendars.ReadWrite"]
            }
            _ if method == Method::GET => &["Calendars.Read", "Calendars.ReadWrite"],
            _ => &["Calendars.ReadWrite"],
        }
    }

    /// Returns the name under which the call is counted.
    pub(super) fn name(&self, method: &Method) -> &'static str {
        match (self, method.as_str()) {
            (Self::Batch, _) => "graph.batch",
            (Self::Me, _) => "graph.me",
            (Self::Subscriptions, "POST") => "graph.create_subscription",
            (Self::Subscriptions, _) => "graph.list_subscriptions",
            (Self::Subscription(_), "PATCH") => "graph.renew_subscription",
            (Self::Subscription(_), "DELETE") => "graph.delete_subscription",
            (Self::Subscription(_), _) => "graph.get_subscription",
            (Self::Reauthorize(_), _) => "graph.reauthorize_subscription",
            (Self::Users, _) => "graph.list_users",
            (Self::UsersDelta, _) => "graph.users_delta",
            (Self::User(_), _) => "graph.get_user",
            (Self::Settings(..), _) => "graph.mailbox_settings",
            (Self::Calendar(_) | Self::Calendars(_), _) => "graph.calendars",
            (Self::Translate(_), _) => "graph.translate_ids",
            (Self::Events(_), "POST") => "graph.create_event",
            (Self::Events(_), _) => "graph.list_events",
            (Self::EventsDelta(_), _) => "graph.events_delta",
            (Self::Event(..), "PATCH") => "graph.update_event",
            (Self::Event(..), "DELETE") => "graph.delete_event",
            (Self::Event(..), _) => "graph.get_event",
            (Self::Instances(..), _) => "graph.instances",
            (Self::Cancel(..), _) => "graph.cancel_event",
            (Self::Respond(..), _) => "graph.respond_event",
            (Self::View(_), _) => "graph.calendar_view",
            (Self::ViewDelta(_), _) => "graph.calendar_view_delta",
        }
    }
}

/// Returns the segment that an unknown path is refused for.
fn stranger(path: &str) -> &str {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let first = segments.next().unwrap_or_default();
    let known = ["users", "me", "subscriptions", "$batch"].iter().any(|known| first.split('(').next() == Some(known));
    if known { segments.next_back().unwrap_or(first) } else { first }
}

/// Takes a segment apart: `users('x')` is two, and `microsoft.graph.delta()` is `delta`.
fn split_key(segment: &str, segments: &mut Vec<String>) {
    let plain = segment.strip_suffix("()").unwrap_or(segment);
    let plain = plain.strip_prefix("microsoft.graph.").unwrap_or(plain);
    match plain.strip_suffix("')").and_then(|start| start.split_once("('")) {
        Some((name, key)) => segments.extend([name.to_owned(), key.to_owned()]),
        None => segments.push(plain.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_delta_are_one_call() {
        for path in [
            "/users/u/calendarView/delta",
            "/users/u/calendarView/delta()",
            "/users/u/calendarView/microsoft.graph.delta()",
            "/users/u/calendar/calendarView/delta",
            "/users('u')/calendars/c/calendarView/delta%28%29",
        ] {
            assert_eq!(Route::find(&Method::GET, path).unwrap(), Route::ViewDelta("u".to_owned()), "{path}");
        }
    }

    #[test]
    fn encoded_ids_are_decoded() {
        let route = Route::find(&Method::GET, "/users/a%40b.example/events/AAMk%3D").unwrap();
        assert_eq!(route, Route::Event("a@b.example".to_owned(), "AAMk=".to_owned()));
    }

    #[test]
    fn unknown_paths_and_methods_are_refused() {
        for (path, segment) in [("/users/u/nonsense", "nonsense"), ("/v1.0/users/u", "v1.0"), ("/", "")] {
            let error = Route::find(&Method::GET, path).unwrap_err();
            assert_eq!((error.status, error.code), (400, "BadRequest"), "{path}");
            assert_eq!(error.message, format!("Resource not found for the segment '{segment}'."));
        }
        assert_eq!(Route::find(&Method::DELETE, "/users/u/events").unwrap_err().status, 405);
    }
}
