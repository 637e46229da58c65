//! The literal recipe, simulated: drop eventId+changeKey seen before, ignore own writes, copy everything else.
//!
//! It is fed with what really happened ([`Recording`]): the edits, the messages that told of them and how long writes,
//! answers and notifications took. It gets two workers, one a stream, each of which finishes a message before it takes the
//! next: the kindest reading. What it does:
//!
//! ```text
//!   message ──> key seen before? drop ──> key of an own write, as far as its answer is in? drop
//!           ──> read the record, write all its fields to the partner (or create it, or delete it)
//! ```
//!
//! Own writes in Salesforce are known by their author, so that nothing has to be remembered for them. In Outlook only the
//! change key tells, and it comes with the answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use calbridge_sandbox::history::Cloud;
use calbridge_sandbox::oracle::Field;
use serde_json::Value;

/// Milliseconds of the clock.
pub(crate) type Millis = i64;

/// What a record shows.
pub(crate) type Shows = BTreeMap<Field, Value>;

/// A change that no bridge made.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) at: Millis,
    pub(crate) cloud: Cloud,
    /// The meeting as the recipe sees it: one event id is one meeting.
    pub(crate) meeting: String,
    /// New values.
    pub(crate) shows: Shows,
    pub(crate) deletes: bool,
    /// A person's own edit; else the cloud's machinery.
    pub(crate) by_person: bool,
}

/// A message that told of such a change.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) at: Millis,
    pub(crate) cloud: Cloud,
    pub(crate) meeting: String,
    /// Change key, or what identifies a change event; none for a deletion.
    pub(crate) version: Option<String>,
}

/// How one write of this run went.
#[derive(Debug, Clone)]
pub(crate) struct WriteTimes {
    /// From sending to the effect.
    pub(crate) takes: Millis,
    /// From the effect to the answer.
    pub(crate) answered: Millis,
    /// From the effect to each notification of it, with a number for each further change key.
    pub(crate) told: Vec<(Millis, u32)>,
}

/// What happened in a run, without what calbridge did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) changes: Vec<Change>,
    pub(crate) messages: Vec<Message>,
    /// Writes to Outlook and to Salesforce; used in turn.
    pub(crate) outlook_writes: Vec<WriteTimes>,
    pub(crate) salesforce_writes: Vec<WriteTimes>,
    /// iCalUId of each Outlook event: what its copies share.
    pub(crate) uids: BTreeMap<String, String>,
}

/// What the recipe would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) writes: u64,
    /// Messages dropped because they had come before.
    pub(crate) repeated: u64,
    /// Own writes that came back and were known.
    pub(crate) echoes_known: u64,
    /// Own writes that came back, were not known, and were written back.
    pub(crate) echoes_written: u64,
    /// People's edits that are not on both sides in the end, although no later edit replaced them.
    pub(crate) lost: BTreeSet<(String, Field)>,
    /// Salesforce events created beyond one a meeting: to the recipe, each copy's event id is a meeting.
    pub(crate) surplus: u64,
}

/// Plays the recipe through a recording.
pub(crate) fn play(recording: &Recording) -> Damage {
    let mut play = Play { recording, ..Play::new(recording) };
    for (index, change) in recording.changes.iter().enumerate() {
        play.later(change.at, Step::Change(index));
    }
    for message in &recording.messages {
        play.later(message.at, Step::Arrive(message.clone(), false));
    }
    while let Some(((now, _), step)) = play.steps.pop_first() {
        play.step(now, step);
    }
    play.damage.lost = play.lost();
    play.damage
}

/// Something that happens at a time.
#[derive(Debug)]
enum Step {
    Change(usize),
    /// A message reaches its worker; `true` for one that tells of an own write.
    Arrive(Message, bool),
    /// A write takes effect: cloud, meeting, new values (none deletes).
    Effect(Cloud, String, Option<Shows>, WriteTimes),
    /// The answer to a write is in: the worker's stream, meeting, the new change key.
    Answer(Cloud, String, String),
}

#[derive(Debug, Default)]
struct Worker {
    queue: VecDeque<(Message, bool)>,
    busy: bool,
}

struct Play<'a> {
    recording: &'a Recording,
    steps: BTreeMap<(Millis, u64), Step>,
    counter: u64,
    records: BTreeMap<(Cloud, String), Shows>,
    seen: BTreeSet<(Cloud, String, String)>,
    /// Change keys of own writes to Outlook whose answers are in.
    own: BTreeSet<(String, String)>,
    outlook: Worker,
    salesforce: Worker,
    sent: [usize; 2],
    /// iCalUIds of the meetings created in Salesforce.
    created: BTreeSet<String>,
    damage: Damage,
}

impl<'a> Play<'a> {
    fn new(recording: &'a Recording) -> Self {
        Self {
            recording,
            steps: BTreeMap::new(),
            counter: 0,
            records: BTreeMap::new(),
            seen: BTreeSet::new(),
            own: BTreeSet::new(),
            outlook: Worker::default(),
            salesforce: Worker::default(),
            sent: [0, 0],
            created: BTreeSet::new(),
            damage: Damage::default(),
        }
    }

    fn later(&mut self, at: Millis, step: Step) {
        self.counter += 1;
        self.steps.insert((at, self.counter), step);
    }

    fn worker(&mut self, cloud: Cloud) -> &mut Worker {
        match cloud {
            Cloud::Outlook => &mut self.outlook,
            Cloud::Salesforce => &mut self.salesforce,
        }
    }

    fn step(&mut self, now: Millis, step: Step) {
        match step {
            Step::Change(index) => {
                let change = &self.recording.changes[index];
                let place = (change.cloud, change.meeting.clone());
                if change.deletes {
                    self.records.remove(&place);
                } else {
                    self.records.entry(place).or_default().extend(change.shows.clone());
                }
            }
            Step::Arrive(message, own) => {
                let cloud = message.cloud;
                self.worker(cloud).queue.push_back((message, own));
                self.work(now, cloud);
            }
            Step::Effect(cloud, meeting, shows, times) => self.take_effect(now, cloud, meeting, shows, &times),
            Step::Answer(stream, meeting, version) => {
                self.own.insert((meeting, version));
                self.worker(stream).busy = false;
                self.work(now, stream);
            }
        }
    }

    fn take_effect(&mut self, now: Millis, cloud: Cloud, meeting: String, shows: Option<Shows>, times: &WriteTimes) {
        let deletes = shows.is_none();
        match shows {
            Some(shows) => self.records.entry((cloud, meeting.clone())).or_default().extend(shows),
            None => {
                self.records.remove(&(cloud, meeting.clone()));
            }
        }
        self.counter += 1;
        let version = |key: u32| format!("own {} {key}", self.counter);
        let first = version(0);
        let told: Vec<(Millis, Message)> = times
            .told
            .iter()
            .map(|(after, key)| {
                let version = (!deletes).then(|| version(*key));
                (now + after, Message { at: now + after, cloud, meeting: meeting.clone(), version })
            })
            .collect();
        for (at, message) in told {
            self.later(at, Step::Arrive(message, true));
        }
        self.later(now + times.answered, Step::Answer(cloud.other(), meeting, first));
    }

    /// Lets a worker take messages until one of them makes it write.
    fn work(&mut self, now: Millis, cloud: Cloud) {
        while !self.worker(cloud).busy {
            let Some((message, own)) = self.worker(cloud).queue.pop_front() else { return };
            if self.drops(&message, own) {
                continue;
            }
            let source = self.records.get(&(cloud, message.meeting.clone())).cloned();
            let there = self.records.contains_key(&(cloud.other(), message.meeting.clone()));
            if source.is_none() && !there {
                continue;
            }
            self.damage.writes += 1;
            self.damage.echoes_written += u64::from(own);
            if !there && cloud == Cloud::Outlook {
                self.create(&message.meeting);
            }
            let times = self.times(cloud.other());
            self.worker(cloud).busy = true;
            self.later(now + times.takes, Step::Effect(cloud.other(), message.meeting, source, times));
        }
    }

    fn create(&mut self, meeting: &str) {
        let uid = self.recording.uids.get(meeting).map_or(meeting, String::as_str);
        self.damage.surplus += u64::from(!self.created.insert(uid.to_owned()));
    }

    fn drops(&mut self, message: &Message, own: bool) -> bool {
        let Some(version) = &message.version else {
            self.damage.echoes_known += u64::from(own);
            return own;
        };
        if !self.seen.insert((message.cloud, message.meeting.clone(), version.clone())) {
            self.damage.repeated += 1;
            return true;
        }
        let known = match message.cloud {
            Cloud::Outlook => self.own.contains(&(message.meeting.clone(), version.clone())),
            Cloud::Salesforce => own,
        };
        self.damage.echoes_known += u64::from(known);
        known
    }

    /// Returns how the next write to a cloud goes: as those of the run did, in turn.
    fn times(&mut self, to: Cloud) -> WriteTimes {
        let (samples, sent) = match to {
            Cloud::Outlook => (&self.recording.outlook_writes, &mut self.sent[0]),
            Cloud::Salesforce => (&self.recording.salesforce_writes, &mut self.sent[1]),
        };
        let sample = samples.get(*sent % samples.len().max(1)).cloned();
        *sent += 1;
        sample.unwrap_or(WriteTimes { takes: 0, answered: 0, told: Vec::new() })
    }

    fn lost(&self) -> BTreeSet<(String, Field)> {
        let mut last: BTreeMap<(String, Field), &Value> = BTreeMap::new();
        for change in self.recording.changes.iter().filter(|change| change.by_person) {
            for (field, value) in &change.shows {
                last.insert((change.meeting.clone(), *field), value);
            }
        }
        let lost = last.into_iter().filter(|((meeting, field), wanted)| {
            let both = [Cloud::Outlook, Cloud::Salesforce].map(|cloud| self.records.get(&(cloud, meeting.clone())));
            // A meeting that is gone has nothing left to lose.
            let [Some(outlook), Some(salesforce)] = both else { return false };
            outlook.get(field) != Some(*wanted) || salesforce.get(field) != Some(*wanted)
        });
        lost.map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edit(at: Millis, cloud: Cloud, field: Field, value: &str) -> Change {
        let shows = Shows::from([(field, json!(value))]);
        Change { at, cloud, meeting: "m".to_owned(), shows, deletes: false, by_person: true }
    }

    fn message(at: Millis, cloud: Cloud, version: &str) -> Message {
        Message { at, cloud, meeting: "m".to_owned(), version: Some(version.to_owned()) }
    }

    fn recording(changes: Vec<Change>, messages: Vec<Message>, told_after: Millis) -> Recording {
        let times = WriteTimes { takes: 5, answered: 10, told: vec![(told_after, 0)] };
        let uids = ["m", "copy"].map(|id| (id.to_owned(), "uid".to_owned())).into();
        Recording { changes, messages, outlook_writes: vec![times.clone()], salesforce_writes: vec![times], uids }
    }

    #[test]
    fn every_edit_of_a_burst_is_a_write_and_a_second_delivery_is_none() {
        let changes = (0..10).map(|n| edit(n, Cloud::Outlook, Field::Subject, &n.to_string())).collect();
        let mut messages: Vec<_> = (0..10).map(|n| message(n + 1, Cloud::Outlook, &n.to_string())).collect();
        messages.push(message(50, Cloud::Outlook, "9"));
        let damage = play(&recording(changes, messages, 3));
        assert_eq!((damage.writes, damage.repeated, damage.surplus), (10, 1, 0));
        assert!(damage.lost.is_empty());
    }

    #[test]
    fn a_copy_in_another_mailbox_becomes_a_second_salesforce_event() {
        let mut copy = edit(5, Cloud::Outlook, Field::Subject, "plan");
        copy.meeting = "copy".to_owned();
        let mut told = message(6, Cloud::Outlook, "2");
        told.meeting = "copy".to_owned();
        let changes = vec![edit(0, Cloud::Outlook, Field::Subject, "plan"), copy];
        let damage = play(&recording(changes, vec![message(1, Cloud::Outlook, "1"), told], 3));
        assert_eq!((damage.writes, damage.surplus), (2, 1));
    }

    #[test]
    fn an_own_write_to_outlook_is_known_only_once_its_answer_is_in() {
        let story = |told_after| {
            let changes = vec![edit(0, Cloud::Salesforce, Field::Subject, "visit")];
            play(&recording(changes, vec![message(1, Cloud::Salesforce, "1")], told_after))
        };
        let late = story(20);
        assert_eq!((late.writes, late.echoes_known, late.echoes_written), (1, 1, 0));
        let early = story(2);
        assert_eq!((early.writes, early.echoes_written), (2, 1));
    }

    #[test]
    fn edits_of_different_fields_at_the_same_moment_overwrite_each_other() {
        let start = edit(0, Cloud::Outlook, Field::Subject, "plan");
        let place = edit(0, Cloud::Outlook, Field::Location, "room 1");
        let changes = vec![
            start,
            place,
            edit(100, Cloud::Outlook, Field::Location, "hall"),
            edit(101, Cloud::Salesforce, Field::Subject, "final plan"),
        ];
        let messages = vec![
            message(1, Cloud::Outlook, "1"),
            message(102, Cloud::Outlook, "2"),
            message(103, Cloud::Salesforce, "3"),
        ];
        let damage = play(&recording(changes, messages, 30));
        assert!(!damage.lost.is_empty());
    }
}
