//! What happened in this run, as the recipe's simulation needs it.
//!
//! Sources: the sandbox's history (who changed what, when), the hub's log (every notification with its time), and the
//! engine's journal (when a write was sent, when its answer was in, when a notification reached it).

use std::collections::{BTreeMap, BTreeSet};

use calbridge::ports::{JournalEntry, JournalKind, Traced};
use calbridge_core::ids::WriteToken;
use calbridge_core::side::Side;
use calbridge_sandbox::Sandbox;
use calbridge_sandbox::history::{Cloud, Effect, EffectKind};
use calbridge_sandbox::oracle::{Field, Shown};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::recipe::{Change, Message, Millis, Recording, Shows, WriteTimes};

/// A notification on the hub.
#[derive(Debug)]
struct Notice {
    enqueued: DateTime<Utc>,
    place: (usize, i64),
    event: String,
    change_key: Option<String>,
}

/// Numbers of a run that the table and its explanation name.
#[derive(Debug, Default)]
pub(crate) struct Transit {
    /// Messages that told of the engine's own writes.
    pub(crate) own: u64,
    /// From the hub to the engine, and from a Salesforce change to the engine: medians.
    pub(crate) hub: Millis,
    pub(crate) salesforce: Millis,
}

/// Reads a run; `meetings` is everything that the engine's database knows.
pub(crate) fn read(sandbox: &Sandbox, meetings: &[Traced]) -> (Recording, Transit) {
    let effects = sandbox.world().history.since(0);
    let notices = notices(sandbox);
    let journal: Vec<&JournalEntry> = meetings.iter().flat_map(|traced| &traced.journal).collect();
    let mut transit = transit(&journal, &notices, &effects);
    let origins = origins(&effects, meetings);
    let causes = causes(&effects);
    let kept_out = kept_out(&effects);

    let mut recording = Recording::default();
    let mut states: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    let mut deletions: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, effect) in effects.iter().enumerate() {
        if effect.kind == EffectKind::Delete {
            deletions.insert(&effect.record, index);
        } else {
            versions.insert(&effect.version, index);
        }
        let state = states.entry(&effect.record).or_default();
        let before = shown(effect.cloud, state);
        state.extend(effect.changed.clone());
        let after = shown(effect.cloud, state);
        if !effect.ical_uid.is_empty() {
            recording.uids.insert(effect.record.clone(), effect.ical_uid.clone());
        }
        // Each change of a Salesforce record is one change event.
        transit.own += u64::from(causes[index].is_app() && effect.cloud == Cloud::Salesforce);
        if causes[index].is_app() || kept_out.contains(effect.record.as_str()) {
            continue;
        }
        let created = effect.kind == EffectKind::Create;
        let changed = Field::ALL.into_iter().filter(|field| created || !before.same(&after, *field));
        recording.changes.push(Change {
            at: millis(effect.at),
            cloud: effect.cloud,
            meeting: origin(&origins, &effect.record),
            shows: changed.map(|field| (field, plain(&after, field))).collect::<Shows>(),
            deletes: effect.kind == EffectKind::Delete,
            by_person: effect.actor.is_person(),
        });
        if effect.cloud == Cloud::Salesforce {
            recording.messages.push(Message {
                at: millis(effect.at) + transit.salesforce,
                cloud: Cloud::Salesforce,
                meeting: origin(&origins, &effect.record),
                version: (effect.kind != EffectKind::Delete).then(|| effect.version.clone()),
            });
        }
    }
    // Notifications of writes and of what followed from them become samples of how the recipe's writes are told.
    let mut told: BTreeMap<usize, Vec<(Millis, u32)>> = BTreeMap::new();
    for notice in &notices {
        let known = match &notice.change_key {
            Some(key) => versions.get(key.as_str()),
            None => deletions.get(notice.event.as_str()),
        };
        let Some(&index) = known else { continue };
        let effect = &effects[index];
        let arrived = millis(notice.enqueued) + transit.hub;
        match &causes[index] {
            Cause::App(write) => {
                transit.own += 1;
                let further = u32::try_from(index - write).unwrap_or(u32::MAX);
                told.entry(*write).or_default().push((arrived - millis(effects[*write].at), further));
            }
            Cause::Other if !kept_out.contains(effect.record.as_str()) => recording.messages.push(Message {
                at: arrived,
                cloud: Cloud::Outlook,
                meeting: origin(&origins, &effect.record),
                version: notice.change_key.clone(),
            }),
            Cause::Other => {}
        }
    }
    for (index, (sent, answered)) in own_writes(&journal, &effects) {
        let effect = &effects[index];
        let times = WriteTimes {
            takes: (millis(effect.at) - sent).max(0),
            answered: (answered - millis(effect.at)).max(0),
            told: match effect.cloud {
                Cloud::Outlook => told.remove(&index).unwrap_or_default(),
                Cloud::Salesforce => vec![(transit.salesforce, 0)],
            },
        };
        match effect.cloud {
            Cloud::Outlook => recording.outlook_writes.push(times),
            Cloud::Salesforce => recording.salesforce_writes.push(times),
        }
    }
    (recording, transit)
}

/// Who is behind an effect in the end.
#[derive(Debug, Clone, Copy)]
enum Cause {
    /// A write of the engine, by its place in the history.
    App(usize),
    Other,
}

impl Cause {
    fn is_app(self) -> bool {
        matches!(self, Self::App(_))
    }
}

/// Finds who is behind each effect: machinery follows whoever changed the meeting last.
fn causes(effects: &[Effect]) -> Vec<Cause> {
    let mut last: BTreeMap<&str, Cause> = BTreeMap::new();
    let mut causes = Vec::with_capacity(effects.len());
    for (index, effect) in effects.iter().enumerate() {
        let meeting = if effect.ical_uid.is_empty() { effect.record.as_str() } else { effect.ical_uid.as_str() };
        let cause = if effect.actor.is_app() {
            Cause::App(index)
        } else if effect.actor.is_person() {
            Cause::Other
        } else {
            last.get(meeting).copied().unwrap_or(Cause::Other)
        };
        last.insert(meeting, cause);
        causes.push(cause);
    }
    causes
}

/// Maps each record that the engine created to the one that people made.
fn origins<'a>(effects: &'a [Effect], meetings: &[Traced]) -> BTreeMap<&'a str, String> {
    let created = effects.iter().filter(|effect| effect.kind == EffectKind::Create);
    let by_engine = created.filter(|effect| effect.actor.is_app());
    let partner = |record: &str| {
        let names = |journal: &[JournalEntry], side: Side| {
            let records = journal.iter().filter_map(|row| row.record.as_ref()).filter(|known| known.side() == side);
            records.map(|known| known.remote_id().to_owned()).collect::<Vec<_>>()
        };
        meetings.iter().find_map(|traced| {
            let (outlook, salesforce) =
                (names(&traced.journal, Side::Outlook), names(&traced.journal, Side::Salesforce));
            if salesforce.iter().any(|id| id == record) {
                outlook.into_iter().next()
            } else if outlook.iter().any(|id| id == record) {
                salesforce.into_iter().next()
            } else {
                None
            }
        })
    };
    by_engine.filter_map(|effect| Some((effect.record.as_str(), partner(&effect.record)?))).collect()
}

fn origin(origins: &BTreeMap<&str, String>, record: &str) -> String {
    origins.get(record).cloned().unwrap_or_else(|| record.to_owned())
}

/// Returns the records that the recipe is spared: private ones and series, as calbridge leaves them too.
fn kept_out(effects: &[Effect]) -> BTreeSet<&str> {
    let out = effects.iter().filter(|effect| {
        let private =
            matches!(effect.changed.get("sensitivity").and_then(Value::as_str), Some("private" | "confidential"));
        private || effect.changed.get("recurrence").is_some_and(|recurrence| !recurrence.is_null())
    });
    out.map(|effect| effect.record.as_str()).collect()
}

/// Returns when each write of the engine was sent and when its answer was in.
fn own_writes(journal: &[&JournalEntry], effects: &[Effect]) -> BTreeMap<usize, (Millis, Millis)> {
    let rows = |kind: JournalKind| journal.iter().filter(move |row| row.kind == kind);
    let sent: BTreeMap<WriteToken, DateTime<Utc>> =
        rows(JournalKind::Intended).filter_map(|row| Some((row.token?, row.at))).collect();
    let mut writes = BTreeMap::new();
    for row in rows(JournalKind::Settled) {
        let Some((record, sent)) = row.record.as_ref().zip(row.token.and_then(|token| sent.get(&token))) else {
            continue;
        };
        let place = effects.iter().position(|effect| {
            let ours = effect.actor.is_app() && effect.record == record.remote_id();
            ours && effect.at >= *sent && effect.at <= row.at
        });
        if let Some(place) = place {
            writes.insert(place, (millis(*sent), millis(row.at)));
        }
    }
    writes
}

/// Measures how long messages were on the way to the engine.
fn transit(journal: &[&JournalEntry], notices: &[Notice], effects: &[Effect]) -> Transit {
    let (mut hub, mut salesforce) = (Vec::new(), Vec::new());
    for row in journal.iter().filter(|row| row.kind == JournalKind::Decided) {
        let (Some(latency), Some(record)) = (row.latency_ms, row.record.as_ref()) else { continue };
        let received = millis(row.at) - latency;
        let on_hub = row.positions.iter().map(|position| place(position.stream.as_str(), &position.value));
        if !row.positions.is_empty()
            && let Some(places) = on_hub.collect::<Option<Vec<_>>>()
        {
            let first = notices.iter().filter(|notice| places.contains(&notice.place)).map(|notice| notice.enqueued);
            hub.extend(first.min().map(|enqueued| received - millis(enqueued)));
        } else if row.positions.iter().all(|position| position.stream.as_str().starts_with("pubsub/")) {
            let changes = effects.iter().filter(|effect| effect.record == record.remote_id());
            let last = changes.map(|effect| millis(effect.at)).filter(|at| *at <= received).max();
            salesforce.extend(last.map(|at| received - at).filter(|_| !row.positions.is_empty()));
        }
    }
    Transit { own: 0, hub: median(hub), salesforce: median(salesforce) }
}

fn median(mut samples: Vec<Millis>) -> Millis {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default().max(0)
}

/// Reads a stream position of the hub: partition and sequence number.
fn place(stream: &str, value: &str) -> Option<(usize, i64)> {
    let partition = stream.strip_prefix("event_hubs/")?.rsplit('/').next()?.parse().ok()?;
    Some((partition, value.parse().ok()?))
}

fn notices(sandbox: &Sandbox) -> Vec<Notice> {
    let hub = sandbox.hub();
    let mut notices = Vec::new();
    for partition in 0..hub.partitions() {
        for event in hub.read(partition, 0, usize::MAX) {
            let body: Value = serde_json::from_slice(event.body()).unwrap_or_default();
            for item in body["value"].as_array().into_iter().flatten() {
                let data = &item["resourceData"];
                let Some(id) = data["id"].as_str().filter(|id| *id != "NA") else { continue };
                let etag = data["@odata.etag"].as_str();
                let key = etag.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
                notices.push(Notice {
                    enqueued: event.enqueued,
                    place: (partition, event.sequence),
                    event: id.to_owned(),
                    change_key: key,
                });
            }
        }
    }
    notices.sort_by_key(|notice| notice.enqueued);
    notices
}

fn shown(cloud: Cloud, state: &Map<String, Value>) -> Shown {
    match cloud {
        Cloud::Outlook => Shown::of_outlook(state),
        Cloud::Salesforce => Shown::of_salesforce(state),
    }
}

/// Returns a value in a form that both clouds share: Salesforce has three kinds of show-as only.
fn plain(shown: &Shown, field: Field) -> Value {
    let value = shown.value(field);
    if field != Field::ShowAs {
        return value;
    }
    match value.as_str() {
        Some("oof" | "outofoffice") => json!("away"),
        Some("free") => json!("free"),
        _ => json!("busy"),
    }
}

fn millis(at: DateTime<Utc>) -> Millis {
    at.timestamp_millis()
}
