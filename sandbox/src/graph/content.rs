//! What a person can write into an event: the content of one item, and how it is compared.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::recurrence::Recurrence;
use super::zones::{When, Zone};

/// Somebody with a mail address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Person {
    pub name: String,
    pub address: String,
}

impl Person {
    pub(crate) fn render(&self) -> Value {
        json!({"emailAddress": {"name": self.name, "address": self.address}})
    }

    pub(crate) fn is(&self, address: &str) -> bool {
        self.address.eq_ignore_ascii_case(address)
    }
}

/// An invited person with their answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attendee {
    pub person: Person,
    /// `required`, `optional` or `resource`.
    pub kind: &'static str,
    pub response: Response,
}

/// An answer to an invitation; no time means never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub answer: &'static str,
    pub time: Option<String>,
}

impl Response {
    pub(crate) fn of(answer: &'static str) -> Self {
        Self { answer, time: None }
    }

    pub(crate) fn render(&self) -> Value {
        json!({"response": self.answer, "time": self.time.as_deref().unwrap_or("0001-01-01T00:00:00Z")})
    }
}

/// A body in both forms; Graph answers HTML unless text is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Body {
    pub html: String,
    pub text: String,
}

impl Body {
    /// Keeps a text and the minimal HTML document that Graph makes of it.
    pub(crate) fn from_text(text: &str) -> Self {
        let text = text.replace("\r\n", "\n");
        let mut escaped = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '\n' => escaped.push_str("<br>\r\n"),
                _ => escaped.push(c),
            }
        }
        let html = if text.is_empty() { String::new() } else { document(&escaped) };
        Self { html, text: text.replace('\n', "\r\n") }
    }

    /// Keeps HTML, wrapped into a document where it is a fragment, and its text.
    pub(crate) fn from_html(html: &str) -> Self {
        if html.trim().is_empty() {
            return Self::default();
        }
        let text = html2text::config::plain_no_decorate()
            .string_from_read(html.as_bytes(), 10_000)
            .unwrap_or_default()
            .trim_end()
            .replace('\n', "\r\n");
        let whole = html.to_ascii_lowercase().contains("<html");
        Self { html: if whole { html.to_owned() } else { document(html) }, text }
    }

    pub(crate) fn preview(&self) -> String {
        self.text.chars().take(255).collect()
    }
}

fn document(inner: &str) -> String {
    format!(
        "<html>\r\n<head>\r\n<meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\">\r\n</head>\r\n\
         <body>\r\n{inner}\r\n</body>\r\n</html>\r\n"
    )
}

/// Everything about an event that its owner may write.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the resource has these properties")]
pub(crate) struct Content {
    pub subject: String,
    pub body: Body,
    pub start: When,
    pub end: When,
    pub is_all_day: bool,
    pub locations: Vec<Value>,
    pub attendees: Vec<Attendee>,
    pub show_as: &'static str,
    pub sensitivity: &'static str,
    pub importance: &'static str,
    pub categories: Vec<String>,
    pub is_reminder_on: bool,
    pub reminder_minutes: i32,
    pub response_requested: bool,
    pub allow_new_time_proposals: bool,
    pub hide_attendees: bool,
    pub recurrence: Option<Recurrence>,
    pub is_online_meeting: bool,
    pub online_meeting_provider: &'static str,
    /// Extended properties by canonical id.
    pub extended: BTreeMap<String, String>,
}

impl Content {
    pub(crate) fn new(start: When, end: When) -> Self {
        Self {
            subject: String::new(),
            body: Body::default(),
            start,
            end,
            is_all_day: false,
            locations: Vec::new(),
            attendees: Vec::new(),
            show_as: "busy",
            sensitivity: "normal",
            importance: "normal",
            categories: Vec::new(),
            is_reminder_on: true,
            reminder_minutes: 15,
            response_requested: true,
            allow_new_time_proposals: true,
            hide_attendees: false,
            recurrence: None,
            is_online_meeting: false,
            online_meeting_provider: "unknown",
            extended: BTreeMap::new(),
        }
    }

    pub(crate) fn duration(&self) -> TimeDelta {
        self.end.local - self.start.local
    }

    pub(crate) fn location(&self) -> Value {
        self.locations.first().cloned().unwrap_or_else(|| {
            json!({"displayName": "", "locationType": "default", "uniqueIdType": "unknown",
                   "address": {}, "coordinates": {}})
        })
    }

    pub(crate) fn attendee_mut(&mut self, address: &str) -> Option<&mut Attendee> {
        self.attendees.iter_mut().find(|attendee| attendee.person.is(address))
    }

    /// Takes over what an invitation or its update carries; the rest is the attendee's own.
    ///
    /// Reminder, free-busy, categories and extended properties under a private GUID do not travel
    /// (propagation of the latter: unconfirmed).
    pub(crate) fn take_invitation(&mut self, from: &Self) {
        self.subject.clone_from(&from.subject);
        self.body.clone_from(&from.body);
        self.start.clone_from(&from.start);
        self.end.clone_from(&from.end);
        self.is_all_day = from.is_all_day;
        self.locations.clone_from(&from.locations);
        self.attendees.clone_from(&from.attendees);
        self.sensitivity = from.sensitivity;
        self.importance = from.importance;
        self.response_requested = from.response_requested;
        self.allow_new_time_proposals = from.allow_new_time_proposals;
        self.hide_attendees = from.hide_attendees;
        self.recurrence.clone_from(&from.recurrence);
        self.is_online_meeting = from.is_online_meeting;
        self.online_meeting_provider = from.online_meeting_provider;
    }

    /// Tells whether the difference is one that Exchange mails to every attendee.
    ///
    /// The list (time, recurrence, location, subject, body) is unconfirmed: Microsoft documents none.
    pub(crate) fn mails_everybody(&self, before: &Self) -> bool {
        self.subject != before.subject
            || self.body != before.body
            || self.start != before.start
            || self.end != before.end
            || self.is_all_day != before.is_all_day
            || self.locations != before.locations
            || self.recurrence != before.recurrence
    }

    /// Returns the values that the history compares, under Graph's names and with times in UTC.
    ///
    /// `body` carries both forms: `content` is the HTML, `text` the plain text. Answers of attendees are left out: they are
    /// the server's bookkeeping, not a value that the organiser edits.
    pub(crate) fn facts(&self) -> Map<String, Value> {
        let attendees: Vec<Value> = self
            .attendees
            .iter()
            .map(|a| json!({"type": a.kind, "emailAddress": {"name": a.person.name, "address": a.person.address}}))
            .collect();
        let mut facts = Map::new();
        let mut put = |key: &str, value: Value| facts.insert(key.to_owned(), value);
        put("subject", json!(self.subject));
        put("body", json!({"contentType": "html", "content": self.body.html, "text": self.body.text}));
        put("start", self.start.render(&Zone::utc(), self.is_all_day));
        put("end", self.end.render(&Zone::utc(), self.is_all_day));
        put("isAllDay", json!(self.is_all_day));
        put("location", self.location());
        put("attendees", Value::Array(attendees));
        put("showAs", json!(self.show_as));
        put("sensitivity", json!(self.sensitivity));
        put("importance", json!(self.importance));
        put("categories", json!(self.categories));
        put("isReminderOn", json!(self.is_reminder_on));
        put("reminderMinutesBeforeStart", json!(self.reminder_minutes));
        put("recurrence", self.recurrence.as_ref().map_or(Value::Null, Recurrence::render));
        put("isOnlineMeeting", json!(self.is_online_meeting));
        let extended: Vec<Value> = self.extended.iter().map(|(id, value)| json!({"id": id, "value": value})).collect();
        put("singleValueExtendedProperties", Value::Array(extended));
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_a_document_and_comes_back_unchanged() {
        let body = Body::from_text("a < b\nsecond & last");
        assert!(body.html.starts_with("<html>") && body.html.contains("a &lt; b<br>"));
        assert_eq!(body.text, "a < b\r\nsecond & last");
    }

    #[test]
    fn html_is_kept_and_its_text_derived() {
        let body = Body::from_html("<p>Bring <b>the</b> report</p><p>and coffee</p>");
        assert!(body.html.contains("<body>\r\n<p>Bring"));
        assert_eq!(body.text, "Bring the report\r\n\r\nand coffee");
        assert_eq!(Body::from_html("<html><body>x</body></html>").html, "<html><body>x</body></html>");
    }
}
