//! People at work on both sides: random edits whose every value can be found again wherever it went.
//!
//! Each value that a person gives carries a number of its own: texts as `s0042` (subject), `l0042` (place), `b0042` (body),
//! times as a day of its own. So a value that was overwritten can be looked for on the other side and in the journal.

use calbridge_sandbox::history::{Cloud, EffectKind};
use chrono::{Days, NaiveDate, TimeDelta};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::Rehearsal;
use super::meetings::{fields, id_of};

/// Days after which the marks of times begin anew: Exchange's calendar does not end before, and hardly a run is so long.
const DAYS: u32 = 20_000;

/// What a person may set, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Subject,
    Time,
    Place,
    Body,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Subject, Self::Time, Self::Place, Self::Body];

    /// Returns the field that carries it.
    pub(crate) fn field(self, cloud: Cloud) -> &'static str {
        match (self, cloud) {
            (Self::Subject, Cloud::Outlook) => "subject",
            (Self::Subject, Cloud::Salesforce) => "Subject",
            (Self::Time, Cloud::Outlook) => "start",
            (Self::Time, Cloud::Salesforce) => "StartDateTime",
            (Self::Place, Cloud::Outlook) => "location",
            (Self::Place, Cloud::Salesforce) => "Location",
            (Self::Body, Cloud::Outlook) => "body",
            (Self::Body, Cloud::Salesforce) => "Description",
        }
    }

    /// Writes the mark of a value: what is found in it wherever it went.
    pub(crate) fn mark(self, number: u32) -> String {
        match self {
            Self::Subject => format!("s{number:04}"),
            Self::Place => format!("l{number:04}"),
            Self::Body => format!("b{number:04}"),
            // Nine in the morning of Greenwich is the same day in every zone of the sandbox's people.
            Self::Time => {
                let first = NaiveDate::from_ymd_opt(2026, 12, 1).expect("a day of the calendar");
                first.checked_add_days(Days::new(u64::from(number % DAYS))).expect("some decades").to_string()
            }
        }
    }

    fn in_outlook(self, number: u32) -> Map<String, Value> {
        let mark = self.mark(number);
        let at = |hour: u8| json!({"dateTime": format!("{mark}T{hour:02}:00:00"), "timeZone": "UTC"});
        fields(match self {
            Self::Subject => json!({"subject": format!("Meeting {mark}")}),
            Self::Place => json!({"location": {"displayName": format!("Room {mark}")}}),
            Self::Body => json!({"body": {"contentType": "text", "content": format!("agenda {mark}")}}),
            Self::Time => json!({"start": at(9), "end": at(10)}),
        })
    }

    fn in_salesforce(self, number: u32) -> Map<String, Value> {
        let mark = self.mark(number);
        let at = |hour: u8| format!("{mark}T{hour:02}:00:00.000Z");
        fields(match self {
            Self::Subject => json!({"Subject": format!("Meeting {mark}")}),
            Self::Place => json!({"Location": format!("Room {mark}")}),
            Self::Body => json!({"Description": format!("agenda {mark}")}),
            Self::Time => json!({"StartDateTime": at(9), "EndDateTime": at(10)}),
        })
    }
}

/// A meeting that can be edited: its Outlook event as its organiser sees it, its Salesforce event, or both.
#[derive(Debug, Clone)]
struct Known {
    outlook: Option<(usize, String)>,
    salesforce: Option<String>,
    guests: bool,
}

/// People of a rehearsal; makes so many edits and counts them.
pub(crate) struct People {
    pub(crate) choices: StdRng,
    /// Whether they also change, in Salesforce, meetings to which somebody is invited: Exchange mails the guests then.
    pub(crate) mailing: bool,
    made: u32,
}

impl People {
    pub(crate) fn new(choices: StdRng) -> Self {
        Self { choices, mailing: false, made: 0 }
    }

    /// Returns how many edits were made.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Makes one meeting in each mailbox and one for each Salesforce user.
    pub(crate) fn settle_in(&mut self, rehearsal: &Rehearsal) {
        for person in 0..3 {
            self.create(rehearsal, person, Cloud::Outlook, false);
            self.create(rehearsal, person, Cloud::Salesforce, false);
        }
        self.create(rehearsal, 0, Cloud::Outlook, true);
    }

    /// Makes one edit, or one on each side of a meeting.
    pub(crate) fn edit(&mut self, rehearsal: &Rehearsal) {
        let before = self.made;
        // A record may vanish between the look and the edit; then somebody else does something else.
        while self.made == before {
            let known = meetings(rehearsal);
            let person = self.choices.random_range(0..3);
            match self.choices.random_range(0..100) {
                0..10 => self.create(rehearsal, person, Cloud::Outlook, false),
                10..20 => self.create(rehearsal, person, Cloud::Salesforce, false),
                20..24 => self.create(rehearsal, person, Cloud::Outlook, true),
                24..34 => self.delete(rehearsal, &known),
                34..60 => self.change_some(rehearsal, &known, &[Cloud::Outlook]),
                60..85 => self.change_some(rehearsal, &known, &[Cloud::Salesforce]),
                _ => self.change_some(rehearsal, &known, &[Cloud::Outlook, Cloud::Salesforce]),
            }
        }
    }

    /// Edits the meeting whose record a request names, on the side where the request goes.
    pub(crate) fn edit_named(&mut self, rehearsal: &Rehearsal, request: &str, cloud: Cloud) {
        let named = |meeting: &Known| {
            let outlook = meeting.outlook.as_ref().is_some_and(|(_, id)| request.contains(id.as_str()));
            outlook || meeting.salesforce.as_ref().is_some_and(|id| request.contains(id.as_str()))
        };
        if let Some(meeting) = meetings(rehearsal).into_iter().find(named) {
            // The very field that is about to be written, if one is.
            let parts = Part::ALL.into_iter().filter(|part| request.contains(&format!("\"{}\"", part.field(cloud))));
            let parts: Vec<Part> = parts.collect();
            let part = if parts.is_empty() { self.part() } else { parts[self.choices.random_range(0..parts.len())] };
            self.change(rehearsal, &meeting, cloud, part);
        }
    }

    fn part(&mut self) -> Part {
        Part::ALL[self.choices.random_range(0..Part::ALL.len())]
    }

    /// Makes one meeting on some side.
    pub(crate) fn create_some(&mut self, rehearsal: &Rehearsal) {
        let person = self.choices.random_range(0..3);
        let cloud = if self.choices.random_bool(0.5) { Cloud::Outlook } else { Cloud::Salesforce };
        self.create(rehearsal, person, cloud, false);
    }

    fn create(&mut self, rehearsal: &Rehearsal, person: usize, cloud: Cloud, guests: bool) {
        let number = self.made;
        let one = rehearsal.person(person);
        let done = match cloud {
            Cloud::Outlook => {
                let mut body = Map::from_iter([("showAs".to_owned(), json!("busy"))]);
                body.extend(Part::ALL.into_iter().flat_map(|part| part.in_outlook(number)));
                if guests {
                    let others = (0..3).filter(|other| *other != person).map(|other| {
                        let address = rehearsal.person(other).mailbox().address.clone();
                        json!({"type": "required", "emailAddress": {"address": address, "name": address}})
                    });
                    body.insert("attendees".to_owned(), others.collect());
                }
                one.create_in_outlook(&Value::Object(body)).is_ok()
            }
            Cloud::Salesforce => {
                let mut row = Map::from_iter([("ShowAs".to_owned(), json!("Busy"))]);
                row.extend(Part::ALL.into_iter().flat_map(|part| part.in_salesforce(number)));
                one.create_in_salesforce(row).is_ok()
            }
        };
        self.made += u32::from(done);
    }

    fn change_some(&mut self, rehearsal: &Rehearsal, known: &[Known], clouds: &[Cloud]) {
        let Some(meeting) = self.pick(known) else { return };
        let part = self.part();
        for (place, cloud) in clouds.iter().enumerate() {
            // Both sides at once: half of the time the same field.
            let part = if place > 0 && self.choices.random_bool(0.5) { self.part() } else { part };
            self.change(rehearsal, &meeting, *cloud, part);
        }
    }

    fn change(&mut self, rehearsal: &Rehearsal, meeting: &Known, cloud: Cloud, part: Part) {
        let number = self.made;
        let done = match (cloud, meeting) {
            (Cloud::Outlook, Known { outlook: Some((person, id)), .. }) => {
                let patch = Value::Object(part.in_outlook(number));
                rehearsal.person(*person).update_in_outlook(id, &patch).is_ok()
            }
            (Cloud::Salesforce, Known { salesforce: Some(id), guests, .. }) if !guests || self.mailing => {
                let person = self.choices.random_range(0..3);
                rehearsal.person(person).update_in_salesforce(id, &part.in_salesforce(number)).is_ok()
            }
            _ => false,
        };
        self.made += u32::from(done);
    }

    fn delete(&mut self, rehearsal: &Rehearsal, known: &[Known]) {
        let Some(meeting) = self.pick(known) else { return };
        if meeting.outlook.as_ref().is_some_and(|(_, id)| was_just_made_by_engine(rehearsal, id)) {
            return;
        }
        let outlook_first = self.choices.random_bool(0.5);
        let done = match &meeting {
            Known { outlook: Some((person, id)), salesforce, guests }
                if outlook_first || (*guests && !self.mailing) || salesforce.is_none() =>
            {
                rehearsal.person(*person).delete_in_outlook(id).is_ok()
            }
            Known { salesforce: Some(id), guests, .. } if !guests || self.mailing => {
                rehearsal.person(0).delete_in_salesforce(id).is_ok()
            }
            Known { .. } => false,
        };
        self.made += u32::from(done);
    }

    fn pick(&mut self, known: &[Known]) -> Option<Known> {
        if known.is_empty() {
            return None;
        }
        Some(known[self.choices.random_range(0..known.len())].clone())
    }
}

/// Tells whether the engine made an event so lately that it may not know of it yet.
///
/// Outlook takes the repeated creation of an event that is deleted for a new one, and nobody can see there that one was
/// deleted. That is a stated limit (docs/CORRECTNESS.md), so nobody deletes such an event here.
fn was_just_made_by_engine(rehearsal: &Rehearsal, event: &str) -> bool {
    let lately = rehearsal.clock.now() - TimeDelta::minutes(1);
    let history = rehearsal.sandbox.world().history.since(0);
    let mut young = history.iter().rev().take_while(|effect| effect.at > lately);
    young.any(|effect| effect.record == event && effect.kind == EffectKind::Create && effect.actor.is_app())
}

/// Returns what can be edited now: pairs that the stamps join, and records that stand alone.
fn meetings(rehearsal: &Rehearsal) -> Vec<Known> {
    let events: Vec<(usize, Value)> = (0..3)
        .flat_map(|person| rehearsal.outlook(person).into_iter().map(move |event| (person, event)))
        .filter(|(_, event)| event["isOrganizer"] == true && event["isCancelled"] != true)
        .collect();
    let rows: Vec<String> = rehearsal.salesforce().iter().map(id_of).collect();
    let report = rehearsal.sandbox.oracle();
    let mut paired = Vec::new();
    let mut known = Vec::new();
    for (person, event) in &events {
        let id = id_of(event);
        let meeting = report.meetings.iter().find(|meeting| meeting.outlook.contains(&id));
        let row = meeting.and_then(|meeting| rows.iter().find(|row| meeting.salesforce.contains(*row)));
        paired.extend(row.cloned());
        let guests = event["attendees"].as_array().is_some_and(|guests| !guests.is_empty());
        known.push(Known { outlook: Some((*person, id)), salesforce: row.cloned(), guests });
    }
    let alone = rows.into_iter().filter(|row| !paired.contains(row));
    // A row whose event was just deleted may be one of a meeting with guests: it is left alone.
    let linked = |row: &String| report.meetings.iter().any(|meeting| meeting.salesforce.contains(row));
    known.extend(alone.filter(|row| !linked(row)).map(|row| Known {
        outlook: None,
        salesforce: Some(row),
        guests: false,
    }));
    known
}
