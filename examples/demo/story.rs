//! The story: what three people do on both sides, and what of it crosses.

use calbridge::ports::{JournalKind, TraceQuery};
use calbridge_sandbox::history::{Cloud, EffectKind};
use calbridge_sandbox::person::Person;
use chrono::{DateTime, Datelike as _, Days, NaiveDate, Utc, Weekday};
use serde_json::{Map, Value, json};

use crate::screen::{Screen, count, seconds, short};
use crate::stage::{Crossing, Stage, name};

/// Edits of the burst.
const BURST: usize = 10;

/// What the story leaves behind for the ending.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The record whose whole life the trace tells.
    pub(crate) traced: Option<String>,
    /// Outlook records that people made and that stay where they are.
    pub(crate) staying: Vec<String>,
    /// What went otherwise than it should.
    pub(crate) faults: Vec<String>,
}

/// Plays the story.
pub(crate) async fn play(stage: &Stage, screen: &Screen, told: &mut Told) -> anyhow::Result<()> {
    let cast = Cast::of(stage);
    let plan = meeting_from_outlook(stage, screen, &cast).await?;
    burst(stage, screen, &cast, &plan, told).await?;
    edit_in_salesforce(stage, screen, &cast, &plan).await?;
    edits_on_both_sides(stage, screen, &cast, &plan, told).await?;
    let visit = meeting_from_salesforce(stage, screen, &cast).await?;
    told.traced = Some(visit.outlook.clone());
    three_mailboxes(stage, screen, &cast, told).await?;
    private_meeting(stage, screen, &cast, told).await?;
    deletion(stage, screen, &cast, &visit).await
}

/// The people.
struct Cast {
    ada: Person,
    ben: Person,
    chiara: Person,
    /// The day on which everything takes place: a working day soon.
    day: NaiveDate,
}

impl Cast {
    fn of(stage: &Stage) -> Self {
        let mut day = stage.clock.now().date_naive() + Days::new(3);
        while matches!(day.weekday(), Weekday::Sat | Weekday::Sun) {
            day = day + Days::new(1);
        }
        Self { ada: stage.person(0), ben: stage.person(1), chiara: stage.person(2), day }
    }

    /// An Outlook event body, in the zone of Berlin by its Windows name.
    fn in_outlook(&self, subject: &str, from: &str, to: &str) -> Value {
        let time =
            |time: &str| json!({"dateTime": format!("{}T{time}:00", self.day), "timeZone": "W. Europe Standard Time"});
        json!({"subject": subject, "start": time(from), "end": time(to), "showAs": "busy"})
    }

    fn on(&self) -> String {
        self.day.format("%a %-d %b").to_string()
    }
}

/// A meeting on both sides.
struct Pair {
    outlook: String,
    salesforce: String,
}

async fn meeting_from_outlook(stage: &Stage, screen: &Screen, cast: &Cast) -> anyhow::Result<Pair> {
    screen.title("1  A meeting made in Outlook appears in Salesforce");
    let body = with(
        cast.in_outlook("Quarterly plan", "10:00", "11:00"),
        &json!({
            "location": {"displayName": "Room 1"}, "body": {"contentType": "text", "content": "1. Numbers\n2. Hiring"},
        }),
    );
    let (seen, at) = (stage.seen(), stage.clock.now());
    let outlook = id_of(&cast.ada.create_in_outlook(&body)?);
    screen.act(at, &format!("Ada, in Outlook, creates \"Quarterly plan\", {} 10:00 in Berlin, Room 1", cast.on()));
    let crossing = stage.crossing(screen, seen, at, Cloud::Salesforce, EffectKind::Create).await?;
    show(stage, screen, &outlook, &crossing, seen, at, "the edit").await?;
    Ok(Pair { outlook, salesforce: crossing.to.1 })
}

async fn burst(stage: &Stage, screen: &Screen, cast: &Cast, pair: &Pair, told: &mut Told) -> anyhow::Result<()> {
    screen.title(&format!("2  {BURST} quick edits become one write"));
    stage.calm(screen).await?;
    let (seen, first) = (stage.seen(), stage.clock.now());
    let mut last = first;
    for edit in 1..=BURST {
        let patch = json!({"subject": format!("Quarterly plan, draft {edit}"), "location": {"displayName": format!("Room {edit}")}});
        last = stage.clock.now();
        cast.ada.update_in_outlook(&pair.outlook, &patch)?;
    }
    let span = (last - first).num_milliseconds();
    screen.act(first, &format!("Ada, in Outlook, edits subject and room {BURST} times within {span} ms"));
    let crossing = stage.crossing(screen, seen, last, Cloud::Salesforce, EffectKind::Update).await?;
    stage.calm(screen).await?;
    let writes = show(stage, screen, &pair.outlook, &crossing, seen, first, "the last edit").await?;
    if writes != 1 {
        told.faults.push(format!("the burst caused {writes} writes instead of 1"));
    }
    Ok(())
}

async fn edit_in_salesforce(stage: &Stage, screen: &Screen, cast: &Cast, pair: &Pair) -> anyhow::Result<()> {
    screen.title("3  An edit on the other side comes back");
    let (seen, at) = (stage.seen(), stage.clock.now());
    let start = berlin(cast.day, 14)?;
    let end = berlin(cast.day, 15)?;
    let patch = json!({"StartDateTime": start.to_rfc3339(), "EndDateTime": end.to_rfc3339()});
    cast.ben.update_in_salesforce(&pair.salesforce, &object(patch))?;
    screen.act(at, &format!("Ben, in Salesforce, moves it to {}", start.format("%H:%M UTC")));
    let crossing = stage.crossing(screen, seen, at, Cloud::Outlook, EffectKind::Update).await?;
    show(stage, screen, &pair.salesforce, &crossing, seen, at, "the edit").await?;
    Ok(())
}

async fn edits_on_both_sides(
    stage: &Stage,
    screen: &Screen,
    cast: &Cast,
    pair: &Pair,
    told: &mut Told,
) -> anyhow::Result<()> {
    screen.title("4  Two people edit different fields at the same moment: both edits survive");
    stage.calm(screen).await?;
    let (seen, at) = (stage.seen(), stage.clock.now());
    cast.ada.update_in_outlook(&pair.outlook, &json!({"location": {"displayName": "Auditorium"}}))?;
    let second = stage.clock.now();
    cast.ben.update_in_salesforce(&pair.salesforce, &object(json!({"Subject": "Quarterly plan, final"})))?;
    screen.act(at, "Ada, in Outlook, changes the room to \"Auditorium\"");
    screen.act(second, "Ben, in Salesforce, changes the subject to \"Quarterly plan, final\"");
    let there = stage.crossing(screen, seen, at, Cloud::Salesforce, EffectKind::Update).await?;
    let back = stage.crossing(screen, seen, second, Cloud::Outlook, EffectKind::Update).await?;
    stage.calm(screen).await?;
    screen.outcome(there.at, &line(&pair.outlook, &there));
    screen.outcome(back.at, &line(&pair.salesforce, &back));
    let signals = stage.signals_in(&pair.outlook, at).await?;
    let writes = stage.writes_since(seen).len() as u64;
    let (slowest, counts) = (there.latency_ms.max(back.latency_ms), in_and_out(signals, writes));
    screen.detail(&format!("{} after the edits; {counts}", seconds(slowest)));
    let row = stage.sandbox.org().get(&pair.salesforce).unwrap_or_default();
    let event = stage.sandbox.tenant().get_event(&cast.ada.mailbox().address, &pair.outlook).unwrap_or_default();
    let (subject, room) = ("Quarterly plan, final", "Auditorium");
    let kept = row["Subject"] == subject && row["Location"] == room;
    if kept && event["subject"] == subject && event["location"]["displayName"] == room {
        screen.detail(&format!("both sides now say \"{subject}\" in the {room}"));
    } else {
        told.faults.push("an edit of the two at the same moment was lost".to_owned());
    }
    Ok(())
}

async fn meeting_from_salesforce(stage: &Stage, screen: &Screen, cast: &Cast) -> anyhow::Result<Pair> {
    screen.title("5  A meeting made in Salesforce appears in Outlook");
    let fields = json!({
        "Subject": "Visit at Fabrikam", "Location": "Reception", "ShowAs": "Busy",
        "StartDateTime": berlin(cast.day, 16)?.to_rfc3339(), "EndDateTime": berlin(cast.day, 17)?.to_rfc3339(),
    });
    let (seen, at) = (stage.seen(), stage.clock.now());
    let salesforce = cast.ben.create_in_salesforce(object(fields))?;
    screen.act(at, &format!("Ben, in Salesforce, creates \"Visit at Fabrikam\", {}", cast.on()));
    let crossing = stage.crossing(screen, seen, at, Cloud::Outlook, EffectKind::Create).await?;
    show(stage, screen, &salesforce, &crossing, seen, at, "the edit").await?;
    Ok(Pair { outlook: crossing.to.1, salesforce })
}

async fn three_mailboxes(stage: &Stage, screen: &Screen, cast: &Cast, told: &mut Told) -> anyhow::Result<()> {
    let subject = "Budget round";
    screen.title("6  One meeting in three mailboxes is one Salesforce event");
    let people = [&cast.ben, &cast.chiara].map(|person| {
        let mailbox = person.mailbox();
        json!({"emailAddress": {"address": mailbox.address, "name": mailbox.name}, "type": "required"})
    });
    let body = with(cast.in_outlook(subject, "09:00", "09:45"), &json!({"attendees": people}));
    let (seen, at) = (stage.seen(), stage.clock.now());
    let outlook = id_of(&cast.ada.create_in_outlook(&body)?);
    screen.act(at, &format!("Ada, in Outlook, invites Ben and Chiara to \"{subject}\"; each gets a copy"));
    let crossing = stage.crossing(screen, seen, at, Cloud::Salesforce, EffectKind::Create).await?;
    let copies = stage
        .until(screen, "the copies in the other mailboxes lead to the same meeting", async || {
            let meeting = stage.traced(&outlook).await?.and_then(|traced| traced.link).map(|link| link.id);
            let mut copies = Vec::new();
            for person in [&cast.ben, &cast.chiara] {
                for event in stage.sandbox.tenant().events(&person.mailbox().address) {
                    let known = stage.traced(&id_of(&event)).await?.and_then(|traced| traced.link).map(|link| link.id);
                    if event["subject"] == subject && known.is_some() && known == meeting {
                        copies.push(id_of(&event));
                    }
                }
            }
            Ok((copies.len() == 2).then_some(copies))
        })
        .await?;
    show(stage, screen, &outlook, &crossing, seen, at, "the invitation").await?;
    let copies: Vec<String> = copies.iter().map(|id| short(id)).collect();
    let events = stage.salesforce_events(subject).len();
    screen.detail(&format!("copies {} and {} belong to it: {events} in Salesforce", copies[0], copies[1]));
    if events != 1 {
        told.faults.push(format!("the meeting in three mailboxes is {events} Salesforce events"));
    }
    Ok(())
}

async fn private_meeting(stage: &Stage, screen: &Screen, cast: &Cast, told: &mut Told) -> anyhow::Result<()> {
    screen.title("7  A private meeting stays");
    let body = with(cast.in_outlook("Doctor", "08:00", "08:30"), &json!({"sensitivity": "private"}));
    let at = stage.clock.now();
    let outlook = id_of(&cast.chiara.create_in_outlook(&body)?);
    screen.act(at, "Chiara, in Outlook, creates a private meeting");
    let decision = stage.decided(screen, &outlook).await?;
    let reason = decision.reasons.first().copied();
    let words = reason.map_or_else(String::new, |reason| format!("{} ({} {})", reason.words(), reason.code(), reason));
    screen.outcome(decision.at, &format!("Outlook {}  stays: {words}", short(&outlook)));
    if !stage.salesforce_events("Doctor").is_empty() {
        told.faults.push("a private meeting reached Salesforce".to_owned());
    }
    told.staying.push(outlook);
    Ok(())
}

async fn deletion(stage: &Stage, screen: &Screen, cast: &Cast, pair: &Pair) -> anyhow::Result<()> {
    screen.title("8  Deleted on one side is deleted on the other, and stays so");
    let (seen, at) = (stage.seen(), stage.clock.now());
    cast.ben.delete_in_outlook(&pair.outlook)?;
    screen.act(at, "Ben, in Outlook, deletes \"Visit at Fabrikam\"");
    screen.detail("calbridge waits 10 s, in case it is one of many: those a person must approve");
    let crossing = stage.crossing(screen, seen, at, Cloud::Salesforce, EffectKind::Delete).await?;
    show(stage, screen, &pair.outlook, &crossing, seen, at, "the deletion").await?;
    Ok(())
}

/// Shows one crossing; returns how many values of the other side calbridge changed for it.
async fn show(
    stage: &Stage,
    screen: &Screen,
    from: &str,
    crossing: &Crossing,
    seen: usize,
    since: DateTime<Utc>,
    after: &str,
) -> anyhow::Result<u64> {
    let to = crossing.to.0;
    let signals = stage.signals_in(from, since).await?;
    let writes = stage.writes_since(seen).iter().filter(|effect| effect.cloud == to).count() as u64;
    screen.outcome(crossing.at, &line(from, crossing));
    let counts = in_and_out(signals, writes);
    screen.detail(&format!("{} after {after}; {counts}", seconds(crossing.latency_ms)));
    Ok(writes)
}

/// Writes what a crossing took.
pub(crate) fn in_and_out(signals: u64, writes: u64) -> String {
    format!("{} in, {} out", count(signals, "notification"), count(writes, "write"))
}

/// Writes a crossing as an arrow between two records.
pub(crate) fn line(from: &str, crossing: &Crossing) -> String {
    let verb = match crossing.kind {
        EffectKind::Create => "created",
        EffectKind::Update => "updated",
        EffectKind::Touch => "stamped",
        EffectKind::Delete => "deleted",
        EffectKind::Undelete => "restored",
    };
    let (to, id) = &crossing.to;
    format!("{} {}  --{verb}-->  {} {}", name(to.other()), short(from), name(*to), short(id))
}

/// Collects every meeting that the engine knows of, with its history.
pub(crate) async fn all_meetings(stage: &Stage) -> anyhow::Result<Vec<calbridge::ports::Traced>> {
    let mut found: Vec<calbridge::ports::Traced> = Vec::new();
    let mut records: Vec<String> = Vec::new();
    for effect in stage.sandbox.world().history.since(0) {
        if effect.kind == EffectKind::Create {
            records.push(effect.record);
        }
    }
    for record in records {
        let known = found.iter().any(|traced| {
            traced.journal.iter().any(|row| {
                row.kind != JournalKind::Rejected
                    && row.record.as_ref().is_some_and(|known| known.remote_id() == record)
            })
        });
        if !known {
            for traced in stage.store.trace(&TraceQuery::Text(record), 2).await? {
                if !found.iter().any(|other| other.lane == traced.lane) {
                    found.push(traced);
                }
            }
        }
    }
    Ok(found)
}

fn berlin(day: NaiveDate, hour: u32) -> anyhow::Result<DateTime<Utc>> {
    let local =
        day.and_hms_opt(hour, 0, 0).and_then(|time| time.and_local_timezone(chrono_tz::Europe::Berlin).earliest());
    local.map(|time| time.to_utc()).ok_or_else(|| anyhow::anyhow!("{day} has no {hour} o'clock in Berlin"))
}

fn with(mut body: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn id_of(event: &Value) -> String {
    event["id"].as_str().unwrap_or_default().to_owned()
}
