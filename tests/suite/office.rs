//! An office day, sped up: random edits of many meetings on both sides under bursts, duplicates and changed keys without
//! change. Counts writes against edits, meeting by meeting.

use std::collections::BTreeMap;

use calbridge_sandbox::history::{Cloud, Effect, EffectKind};
use calbridge_sandbox::{Options, Profile};
use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use crate::support::meetings::{id_of, with_attendees};
use crate::support::{Rehearsal, environment};

/// Meetings, two of which have attendees.
const MEETINGS: usize = 12;
/// Edits in all, creations and deletions included.
const EDITS: usize = 200;
/// Edits this far apart are each written; the promise.
const APART: TimeDelta = TimeDelta::seconds(30);
/// Sandbox seconds a real second.
const SPEED: f64 = 10.0;
/// Set to a number to repeat a run's choices.
const SEED: &str = "CALBRIDGE_TEST_SEED";

/// What a person did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Made, changed or deleted something.
    Edit,
    /// Changed something and changed it back at once.
    Undone,
}

#[derive(Debug, Clone)]
struct Edit {
    at: DateTime<Utc>,
    cloud: Cloud,
    act: Act,
    #[expect(dead_code, reason = "printed when a check fails")]
    what: String,
}

/// A meeting and the people who edit it.
struct Meeting {
    number: usize,
    /// Stands in the body on both sides and nowhere else.
    mark: String,
    home: usize,
    made_in: Cloud,
    invites: bool,
    choices: StdRng,
    edits: Vec<Edit>,
    left: usize,
    due: DateTime<Utc>,
}

impl Meeting {
    fn new(number: usize, seed: u64, now: DateTime<Utc>) -> Self {
        let mut choices = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number as u64));
        let invites = number < 2;
        let in_outlook = invites || choices.random_bool(0.5);
        let due = now + TimeDelta::milliseconds(choices.random_range(0..20_000));
        Self {
            number,
            mark: format!("mark-{number:02}-of-{MEETINGS}"),
            home: number % 3,
            made_in: if in_outlook { Cloud::Outlook } else { Cloud::Salesforce },
            invites,
            choices,
            edits: Vec::new(),
            left: EDITS / MEETINGS + usize::from(number < EDITS % MEETINGS),
            due,
        }
    }

    /// Lets a person do the next thing, and says when the one after that is due.
    fn act(&mut self, rehearsal: &Rehearsal) {
        let last = self.left == 1;
        let (cloud, act, what) = if self.edits.is_empty() {
            self.make(rehearsal);
            (self.made_in, Act::Edit, "made".to_owned())
        } else {
            let cloud = self.side(rehearsal);
            let (act, what) = match self.choices.random_range(0..10) {
                _ if last && self.number.is_multiple_of(2) => {
                    self.delete(rehearsal, cloud);
                    (Act::Edit, "deleted".to_owned())
                }
                0 => {
                    self.change_and_undo(rehearsal, cloud);
                    (Act::Undone, "undone".to_owned())
                }
                _ => (Act::Edit, self.change(rehearsal, cloud)),
            };
            (cloud, act, what)
        };
        let now = rehearsal.clock.now();
        self.edits.push(Edit { at: now, cloud, act, what });
        self.left -= 1;
        let gap = match self.choices.random_range(0..10) {
            0..6 => self.choices.random_range(30_500..38_000),
            6..8 => self.choices.random_range(0..700),
            _ => self.choices.random_range(700..10_000),
        };
        self.due = now + TimeDelta::milliseconds(gap);
    }

    /// Picks the side of the next edit: only Outlook where attendees hold back the other, and only where there is a record.
    fn side(&mut self, rehearsal: &Rehearsal) -> Cloud {
        let other = self.made_in.other();
        let wants_other = self.choices.random_bool(0.5) && !self.invites;
        let there = match other {
            Cloud::Outlook => self.event(rehearsal).is_some(),
            Cloud::Salesforce => self.row(rehearsal).is_some(),
        };
        if wants_other && there { other } else { self.made_in }
    }

    fn event(&self, rehearsal: &Rehearsal) -> Option<Value> {
        let marked = |event: &Value| event["body"]["content"].as_str().is_some_and(|body| body.contains(&self.mark));
        rehearsal.outlook(self.home).into_iter().find(marked)
    }

    fn row(&self, rehearsal: &Rehearsal) -> Option<Value> {
        let marked = |row: &Value| row["Description"].as_str().is_some_and(|body| body.contains(&self.mark));
        rehearsal.salesforce().into_iter().find(marked)
    }

    fn make(&mut self, rehearsal: &Rehearsal) {
        let person = rehearsal.person(self.home);
        if self.made_in == Cloud::Salesforce {
            let mut made = Map::new();
            made.insert("Subject".to_owned(), json!(format!("meeting {}", self.number)));
            made.insert("Description".to_owned(), json!(self.mark));
            made.extend(salesforce_time(0, false));
            person.create_in_salesforce(made).unwrap();
            return;
        }
        let guests: Vec<String> =
            (1..3).map(|n| rehearsal.person((self.home + n) % 3).mailbox().address.clone()).collect();
        let guests: Vec<&str> = guests.iter().filter(|_| self.invites).map(String::as_str).collect();
        let mut made = with_attendees(&format!("meeting {}", self.number), &guests);
        made["body"]["content"] = json!(self.mark);
        person.create_in_outlook(&made).unwrap();
    }

    /// Changes one field; returns what was sent.
    fn change(&mut self, rehearsal: &Rehearsal, cloud: Cloud) -> String {
        match cloud {
            Cloud::Outlook => {
                let event = self.event(rehearsal).expect("the side was picked for its record");
                let patch = self.outlook_patch(&event);
                rehearsal.person(self.home).update_in_outlook(&id_of(&event), &patch).unwrap();
                patch.to_string()
            }
            Cloud::Salesforce => {
                let row = self.row(rehearsal).expect("the side was picked for its record");
                let patch = self.salesforce_patch(&row);
                rehearsal.person(self.home).update_in_salesforce(&id_of(&row), &patch).unwrap();
                Value::Object(patch).to_string()
            }
        }
    }

    /// No two edits of a meeting give the same value, so that each changes something.
    fn outlook_patch(&mut self, event: &Value) -> Value {
        let number = self.edits.len();
        match self.choices.random_range(0..5) {
            0 => json!({"subject": format!("meeting {} as of {number}", self.number)}),
            1 => json!({"location": {"displayName": format!("Place {number}")}}),
            2 => json!({"body": {"contentType": "text", "content": format!("{} as of {number}", self.mark)}}),
            3 => {
                let now = event["showAs"].as_str().unwrap_or_default();
                json!({"showAs": another(&mut self.choices, &["free", "busy", "oof"], now)})
            }
            _ => outlook_time(number, self.choices.random_bool(0.25)),
        }
    }

    fn salesforce_patch(&mut self, row: &Value) -> Map<String, Value> {
        let number = self.edits.len();
        let patch = match self.choices.random_range(0..4) {
            0 => json!({"Subject": format!("meeting {} as of {number}", self.number)}),
            1 => json!({"Location": format!("Place {number}")}),
            2 => {
                let now = row["ShowAs"].as_str().unwrap_or_default();
                json!({"ShowAs": another(&mut self.choices, &["Free", "Busy", "OutOfOffice"], now)})
            }
            _ => return salesforce_time(number, self.choices.random_bool(0.25)),
        };
        patch.as_object().cloned().expect("it is an object")
    }

    fn change_and_undo(&mut self, rehearsal: &Rehearsal, cloud: Cloud) {
        let person = rehearsal.person(self.home);
        let other = format!("not for long {}", self.edits.len());
        match cloud {
            Cloud::Outlook => {
                let event = self.event(rehearsal).expect("the side was picked for its record");
                let id = id_of(&event);
                person.update_in_outlook(&id, &json!({"subject": other})).unwrap();
                person.update_in_outlook(&id, &json!({"subject": event["subject"]})).unwrap();
            }
            Cloud::Salesforce => {
                let row = self.row(rehearsal).expect("the side was picked for its record");
                let subject = |value: Value| Map::from_iter([("Subject".to_owned(), value)]);
                person.update_in_salesforce(&id_of(&row), &subject(json!(other))).unwrap();
                person.update_in_salesforce(&id_of(&row), &subject(row["Subject"].clone())).unwrap();
            }
        }
    }

    fn delete(&self, rehearsal: &Rehearsal, cloud: Cloud) {
        let person = rehearsal.person(self.home);
        match cloud {
            Cloud::Outlook => person.delete_in_outlook(&id_of(&self.event(rehearsal).expect("it is there"))).unwrap(),
            Cloud::Salesforce => {
                person.delete_in_salesforce(&id_of(&self.row(rehearsal).expect("it is there"))).unwrap();
            }
        }
    }

    /// Returns edits that stand closer together than the promise reaches.
    fn clusters(&self) -> Vec<&[Edit]> {
        self.edits.chunk_by(|one, next| next.at - one.at < APART).collect()
    }

    /// Checks the promise for this meeting; returns how many edits stood alone.
    fn check(&self, writes: &[&Effect]) -> usize {
        let clusters = self.clusters();
        let mut alone = 0;
        for (index, cluster) in clusters.iter().enumerate() {
            let from = cluster[0].at - TimeDelta::milliseconds(500);
            let until = clusters
                .get(index + 1)
                .map_or(DateTime::<Utc>::MAX_UTC, |next| next[0].at - TimeDelta::milliseconds(500));
            let within: Vec<&&Effect> = writes.iter().filter(|write| (from..until).contains(&write.at)).collect();
            let written = |cloud: Cloud| within.iter().filter(|write| write.cloud == cloud).count();
            let edited =
                |cloud: Cloud| cluster.iter().filter(|edit| edit.cloud == cloud && edit.act == Act::Edit).count();
            let story = || {
                format!("meeting {}: {cluster:#?} were written as {within:#?}; all writes: {writes:#?}", self.number)
            };
            for cloud in [Cloud::Outlook, Cloud::Salesforce] {
                let most = edited(cloud.other());
                assert!(written(cloud) <= most, "more writes than edits in {cloud:?}; {}", story());
                if cluster.len() == 1 {
                    assert_eq!(written(cloud), most, "an edit that stands alone; {}", story());
                }
            }
            alone += usize::from(cluster.len() == 1);
        }
        alone
    }
}

fn another(choices: &mut StdRng, all: &[&'static str], now: &str) -> &'static str {
    let others: Vec<&'static str> = all.iter().copied().filter(|choice| *choice != now).collect();
    others[choices.random_range(0..others.len())]
}

/// A time that no other edit of the meeting gives.
fn outlook_time(number: usize, all_day: bool) -> Value {
    let (day, after, minute) = (number % 27 + 1, number % 27 + 2, number % 50 + 10);
    let time = |time: String| json!({"dateTime": time, "timeZone": "Eastern Standard Time"});
    if all_day {
        let days = |day: usize| time(format!("2027-02-{day:02}T00:00:00"));
        return json!({"isAllDay": true, "start": days(day), "end": days(after)});
    }
    let hours = |hour: usize| time(format!("2027-02-{day:02}T{hour:02}:{minute}:00"));
    json!({"isAllDay": false, "start": hours(9), "end": hours(10)})
}

fn salesforce_time(number: usize, all_day: bool) -> Map<String, Value> {
    let (day, minute) = (number % 27 + 1, number % 50 + 10);
    let fields = if all_day {
        let midnight = format!("2027-03-{day:02}T00:00:00Z");
        json!({"IsAllDayEvent": true, "StartDateTime": midnight, "EndDateTime": midnight})
    } else {
        let hours = |hour: usize| format!("2027-03-{day:02}T{hour:02}:{minute}:00Z");
        json!({"IsAllDayEvent": false, "StartDateTime": hours(9), "EndDateTime": hours(10)})
    };
    fields.as_object().cloned().expect("it is an object")
}

/// Sorts what the engine wrote by meeting: a record belongs to the meeting whose mark it was created with.
fn by_meeting<'a>(history: &'a [Effect], meetings: &[Meeting]) -> BTreeMap<usize, Vec<&'a Effect>> {
    let mut owners: BTreeMap<(Cloud, &str), usize> = BTreeMap::new();
    let mut sorted: BTreeMap<usize, Vec<&Effect>> = BTreeMap::new();
    for effect in history {
        if effect.kind == EffectKind::Create {
            let content = Value::Object(effect.changed.clone()).to_string();
            if let Some(meeting) = meetings.iter().find(|meeting| content.contains(&meeting.mark)) {
                owners.insert((effect.cloud, &effect.record), meeting.number);
            }
        }
        if effect.actor.is_app() && effect.kind != EffectKind::Touch {
            let owner = owners.get(&(effect.cloud, effect.record.as_str()));
            let owner = owner.unwrap_or_else(|| panic!("the engine wrote to a record of no meeting: {effect:#?}"));
            sorted.entry(*owner).or_default().push(effect);
        }
    }
    sorted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_random_edits_are_each_written_once_on_the_other_side_and_never_on_their_own() {
    let seed: u64 = environment(SEED).map_or_else(rand::random, |seed| seed.parse().expect("the seed is a number"));
    eprintln!("{SEED}={seed}");
    let settings = "outlook:\n  requests_per_mailbox_per_min: 900\nsalesforce:\n  requests_per_min: 100000\n";
    let options = Options { speed: SPEED, profile: Profile::Office, seed, ..Options::default() };
    let rehearsal = Rehearsal::start(options, settings).await;
    let mut meetings: Vec<Meeting> = (0..MEETINGS).map(|n| Meeting::new(n, seed, rehearsal.clock.now())).collect();
    while let Some(next) = meetings.iter_mut().filter(|meeting| meeting.left > 0).min_by_key(|meeting| meeting.due) {
        rehearsal.clock.sleep_until(next.due).await;
        if next.edits.last().is_some_and(|last| next.due - last.at >= APART) {
            // A busy machine may need longer for what an idle one has long done.
            rehearsal.settled().await;
        }
        next.act(&rehearsal);
    }
    rehearsal.pass(APART).await;
    rehearsal.settled().await;
    let after_rest = rehearsal.app_effects().iter().filter(|effect| effect.kind != EffectKind::Touch).count();
    // As long again, and until Exchange's last change key without a change was looked at.
    rehearsal.pass(APART).await;
    rehearsal.settled().await;

    let history = rehearsal.sandbox.world().history.since(0);
    let written = by_meeting(&history, &meetings);
    let mut alone = 0;
    for meeting in &meetings {
        alone += meeting.check(written.get(&meeting.number).map(Vec::as_slice).unwrap_or_default());
    }
    let writes: usize = written.values().map(Vec::len).sum();
    let edits: usize = meetings.iter().map(|meeting| meeting.edits.len()).sum();
    let counts = rehearsal.sandbox.world().meters.read();
    eprintln!(
        "{edits} edits, {alone} of them alone, {writes} writes, {} notifications, {} change events, {} duplicates dropped",
        counts.notifications,
        counts.change_events,
        rehearsal.duplicates().await
    );
    assert_eq!(edits, EDITS);
    assert!(alone >= EDITS / 4, "the schedule leaves enough edits alone to mean something");
    assert_eq!(writes, after_rest, "nothing is written on its own");
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    rehearsal.assert_clean();
    rehearsal.end().await;
}
