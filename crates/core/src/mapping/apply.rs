//! Applying rules: canonical values, conversion, and the law that makes comparison safe.

use super::compile::{Kind, Rule};
use crate::side::Side;
use crate::value::{Fields, Value, When};

impl Rule {
    /// Returns the canonical value that a record of `side` holds for this rule.
    ///
    /// Canonical means: differences that the remotes make on their own (line ends, outer blanks) are gone.
    pub fn read(&self, side: Side, fields: &Fields) -> Value {
        let value = fields.get(self.field(side)).cloned().unwrap_or_default();
        self.canonical(side, value)
    }

    /// Returns the canonical form of a value of `side`.
    pub fn canonical(&self, side: Side, value: Value) -> Value {
        match (&self.kind, value) {
            (Kind::Text { .. }, Value::Text(text)) => Value::text(tidy(&text)),
            (Kind::Text { .. }, Value::Number(number)) => Value::Text(number.to_string()),
            (Kind::Text { .. }, Value::Flag(flag)) => Value::Text(flag.to_string()),
            (Kind::Time, Value::When(When::Timed { start, end, zone })) => {
                let zone = if side == Side::Outlook { zone } else { None };
                Value::When(When::Timed { start: whole_second(start), end: whole_second(end), zone })
            }
            (_, value) => value,
        }
    }

    /// Converts a canonical value of the other side into `side`'s form.
    ///
    /// `present` is what `side` holds now: what the other side cannot express (the zone) is kept from it.
    pub fn convert(&self, side: Side, value: &Value, present: &Value) -> Value {
        match (&self.kind, value) {
            (Kind::Text { .. } | Kind::Time, Value::Null) => Value::Null,
            (Kind::Text { max_length }, Value::Text(text)) if side == Side::Salesforce => {
                Value::text(cut(text, max_length.unwrap_or(usize::MAX)))
            }
            (Kind::Choice { to_salesforce, to_outlook }, Value::Text(choice)) => {
                let (table, back) = match side {
                    Side::Salesforce => (to_salesforce, to_outlook),
                    Side::Outlook => (to_outlook, to_salesforce),
                };
                // Several choices may become one; while the other side still says the same, its own finer choice stays.
                if let Some(kept) = present.as_text().filter(|kept| back.get(*kept) == Some(choice)) {
                    return Value::text(kept);
                }
                // A choice without a counterpart changes nothing on the other side.
                table.get(choice).map_or_else(|| present.clone(), Value::text)
            }
            (Kind::Choice { .. }, _) => present.clone(),
            (Kind::Time, Value::When(When::Timed { start, end, .. })) if side == Side::Outlook => {
                let zone = match present {
                    Value::When(When::Timed { zone, .. }) => *zone,
                    _ => None,
                };
                Value::When(When::Timed { start: *start, end: *end, zone })
            }
            (Kind::Time, Value::When(When::Timed { start, end, .. })) => {
                Value::When(When::Timed { start: *start, end: *start + whole_minutes(*end - *start), zone: None })
            }
            (_, value) => value.clone(),
        }
    }

    /// Tells whether canonical values of both sides say the same.
    pub fn agree(&self, outlook: &Value, salesforce: &Value) -> bool {
        self.convert(Side::Salesforce, outlook, salesforce) == *salesforce
            || self.convert(Side::Outlook, salesforce, outlook) == *outlook
    }
}

/// The law that every rule must keep: a value that went across and back is recognised when it goes across again.
#[derive(Debug, Clone, Copy)]
pub struct Law;

impl Law {
    /// Returns whether `to_S(to_O(to_S(x))) = to_S(x)` holds for a value of `side` (mirrored for the other side).
    pub fn holds(rule: &Rule, side: Side, value: &Value) -> bool {
        let value = rule.canonical(side, value.clone());
        let across = rule.canonical(side.other(), rule.convert(side.other(), &value, &Value::Null));
        let back = rule.canonical(side, rule.convert(side, &across, &Value::Null));
        rule.canonical(side.other(), rule.convert(side.other(), &back, &Value::Null)) == across
    }
}

/// Unifies line ends and drops blanks that remotes add or remove at the end of lines and texts.
fn tidy(text: &str) -> String {
    let unified = text.replace("\r\n", "\n").replace('\r', "\n").replace('\u{a0}', " ");
    let lines: Vec<&str> = unified.split('\n').map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

/// Cuts a text to a number of characters, never inside one, and never leaving a blank at the end.
fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((at, _)) => text.get(..at).unwrap_or(text).trim_end().to_owned(),
    }
}

/// Salesforce counts the length of an event in whole minutes (`DurationInMinutes`); what it would cut off must not be
/// taken for a change when it is read back.
///
/// <https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_event.htm>
fn whole_minutes(length: chrono::TimeDelta) -> chrono::TimeDelta {
    chrono::TimeDelta::minutes(length.num_minutes())
}

/// Salesforce keeps whole seconds of a meeting's start and end; so must any comparison.
fn whole_second(instant: chrono::DateTime<chrono::Utc>) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(instant.timestamp(), 0).unwrap_or(instant)
}
