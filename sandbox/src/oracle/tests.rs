//! Made-up histories: each verdict is reached where it must be and only there.

use serde_json::{Map, json};

use super::*;
use crate::history::EffectKind;
use crate::mails::MailKind;

const STAMP: &str = "String {b3c0f0a2-6f0d-4f6e-9d5e-2f6b7c1a9e44} Name calbridge";

/// A world of one meeting: Outlook event `oA` (iCalUId `uid`) and Salesforce row `sA`, with what tests add.
struct Story {
    effects: Vec<Effect>,
    outlook: Vec<Value>,
    salesforce: Vec<Value>,
    mails: Vec<Mail>,
    minute: i64,
}

fn person() -> Actor {
    Actor::Person("ada@contoso.example".to_owned())
}

fn bridge() -> Actor {
    Actor::App("bridge".to_owned())
}

fn start() -> DateTime<Utc> {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

fn outlook_values(subject: &str) -> Value {
    json!({ "subject": subject, "isAllDay": false, "showAs": "busy", "location": {"displayName": "Room 1"},
        "start": {"dateTime": "2026-12-01T10:00:00.0000000", "timeZone": "UTC"},
        "end": {"dateTime": "2026-12-01T11:00:00.0000000", "timeZone": "UTC"} })
}

fn row_values(subject: &str) -> Value {
    json!({ "Subject": subject, "IsAllDayEvent": false, "ShowAs": "Busy", "Location": "Room 1",
        "StartDateTime": "2026-12-01T10:00:00.000+0000", "EndDateTime": "2026-12-01T11:00:00.000+0000" })
}

fn stamp(link: &str) -> Value {
    json!({ "singleValueExtendedProperties": [{ "id": STAMP, "value": format!("v1;{link};sA;t1") }] })
}

impl Story {
    fn new() -> Self {
        Self { effects: Vec::new(), outlook: Vec::new(), salesforce: Vec::new(), mails: Vec::new(), minute: 0 }
    }

    /// Ada's meeting, created in Outlook and carried over once.
    fn crossed() -> Self {
        let mut story = Self::new();
        story.on_outlook("oA", &person(), EffectKind::Create, &outlook_values("Plan"));
        story.on_salesforce("sA", &bridge(), EffectKind::Create, &row_values("Plan"));
        story.on_salesforce("sA", &bridge(), EffectKind::Touch, &json!({ "Calbridge_Link__c": "L1" }));
        story.on_outlook("oA", &bridge(), EffectKind::Touch, &stamp("L1"));
        story
    }

    fn on_outlook(&mut self, id: &str, actor: &Actor, kind: EffectKind, changed: &Value) {
        self.push(Cloud::Outlook, id, "uid", actor, kind, changed);
    }

    fn on_salesforce(&mut self, id: &str, actor: &Actor, kind: EffectKind, changed: &Value) {
        self.push(Cloud::Salesforce, id, "", actor, kind, changed);
    }

    /// Appends an effect, a minute after the last one, and keeps the present states in line.
    fn push(&mut self, cloud: Cloud, id: &str, uid: &str, actor: &Actor, kind: EffectKind, changed: &Value) {
        self.minute += 1;
        let changed = changed.as_object().cloned().unwrap_or_default();
        let key = if cloud == Cloud::Outlook { "id" } else { "Id" };
        let mut now = match cloud {
            Cloud::Outlook => take(&mut self.outlook, |event| event["id"] == id).unwrap_or_default(),
            Cloud::Salesforce => take(&mut self.salesforce, |row| row["Id"] == id).unwrap_or_default(),
        };
        if now.is_null() {
            now = json!({});
        }
        now[key] = json!(id);
        for (name, value) in &changed {
            now[name] = value.clone();
        }
        if kind != EffectKind::Delete {
            match cloud {
                Cloud::Outlook => self.outlook.push(now),
                Cloud::Salesforce => self.salesforce.push(now),
            }
        }
        self.effects.push(Effect {
            sequence: self.effects.len() as u64 + 1,
            at: start() + TimeDelta::minutes(self.minute),
            cloud,
            scope: "scope".to_owned(),
            record: id.to_owned(),
            ical_uid: uid.to_owned(),
            actor: actor.clone(),
            kind,
            changed,
            before: Map::new(),
            version: self.minute.to_string(),
        });
    }

    /// Lets Exchange mail about the last effect.
    fn mail(&mut self, kind: MailKind) {
        let last = self.effects.last().unwrap();
        self.mails.push(Mail {
            at: last.at,
            sequence: last.sequence,
            actor: last.actor.clone(),
            kind,
            mailbox: last.scope.clone(),
            record: last.record.clone(),
            ical_uid: last.ical_uid.clone(),
            recipients: vec!["bo@contoso.example".to_owned()],
            past: false,
        });
    }

    fn judge(&self) -> Report {
        self.judge_after(TimeDelta::minutes(10), &Terms::default())
    }

    fn judge_after(&self, wait: TimeDelta, terms: &Terms) -> Report {
        let evidence = Evidence {
            effects: self.effects.clone(),
            mails: self.mails.clone(),
            outlook: self.outlook.clone(),
            salesforce: self.salesforce.clone(),
            people: vec![("scope".to_owned(), "005A".to_owned())],
            now: start() + TimeDelta::minutes(self.minute) + wait,
        };
        judge(&evidence, terms)
    }
}

fn take<T>(items: &mut Vec<T>, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
    let at = items.iter().position(is_wanted)?;
    Some(items.remove(at))
}

#[test]
fn a_meeting_that_crossed_once_is_clean() {
    let report = Story::crossed().judge();
    assert!(report.is_clean(), "{}", report.table());
    assert_eq!(report.meetings.len(), 1);
    assert_eq!(report.meetings[0].state, MeetingState::InStep);
    assert_eq!(report.meetings[0].on_outlook, Tally { edits: 1, automation: 0, writes: 0, touches: 1 });
    assert_eq!(report.meetings[0].on_salesforce, Tally { edits: 0, automation: 0, writes: 1, touches: 1 });
}

#[test]
fn edits_on_both_sides_that_cross_are_clean() {
    let mut story = Story::crossed();
    story.on_outlook("oA", &person(), EffectKind::Update, &json!({ "subject": "Plan B" }));
    story.on_salesforce("sA", &bridge(), EffectKind::Update, &json!({ "Subject": "Plan B" }));
    story.on_salesforce("sA", &person(), EffectKind::Update, &json!({ "Location": "Room 2" }));
    story.on_outlook("oA", &bridge(), EffectKind::Update, &json!({ "location": {"displayName": "Room 2"} }));
    let report = story.judge();
    assert!(report.is_clean(), "{}", report.table());
}

#[test]
fn a_source_without_a_stamp_is_found_by_its_looks() {
    let mut story = Story::new();
    story.on_outlook("oA", &person(), EffectKind::Create, &outlook_values("Plan"));
    story.on_outlook("oA", &person(), EffectKind::Update, &json!({ "subject": "Plan 2" }));
    // Somebody else's meeting looks the same from the start.
    story.push(Cloud::Outlook, "oTwin", "uid-2", &person(), EffectKind::Create, &outlook_values("Plan 2"));
    for (id, link) in [("sA", "L1"), ("sB", "L2")] {
        let mut row = row_values("Plan 2");
        row["Calbridge_Link__c"] = json!(link);
        story.on_salesforce(id, &bridge(), EffectKind::Create, &row);
    }
    let report = story.judge();
    assert!(report.is_clean(), "{}", report.table());
    assert_eq!((report.meetings.len(), report.unlinked_outlook), (2, 0));
    // A third row under a link of its own can only be a duplicate.
    let mut row = row_values("Plan 2");
    row["Calbridge_Link__c"] = json!("L3");
    story.on_salesforce("sC", &bridge(), EffectKind::Create, &row);
    let report = story.judge();
    assert_eq!(report.duplicated.len(), 1, "{}", report.table());
}

#[test]
fn an_edit_that_never_crosses_is_lost_and_leaves_the_pair_diverged() {
    let mut story = Story::crossed();
    story.on_salesforce("sA", &person(), EffectKind::Update, &json!({ "Subject": "Only here" }));
    let report = story.judge();
    assert_eq!(report.lost.len(), 1);
    assert_eq!((report.lost[0].field, report.lost[0].cloud), (Field::Subject, Cloud::Salesforce));
    assert_eq!(report.diverged.len(), 1);
    assert_eq!(report.meetings[0].state, MeetingState::Faulty);
}

#[test]
fn an_edit_that_the_bridge_wipes_out_is_lost_although_both_sides_agree() {
    let mut story = Story::crossed();
    story.on_salesforce("sA", &person(), EffectKind::Update, &json!({ "Subject": "Wiped" }));
    story.on_salesforce("sA", &bridge(), EffectKind::Update, &json!({ "Subject": "Plan" }));
    let report = story.judge();
    assert_eq!(report.lost.len(), 1);
    assert!(report.diverged.is_empty());
}

#[test]
fn the_loser_of_two_simultaneous_edits_is_overridden_not_lost() {
    let mut story = Story::crossed();
    story.on_outlook("oA", &person(), EffectKind::Update, &json!({ "subject": "From Outlook" }));
    story.on_salesforce("sA", &person(), EffectKind::Update, &json!({ "Subject": "From Salesforce" }));
    story.on_salesforce("sA", &bridge(), EffectKind::Update, &json!({ "Subject": "From Outlook" }));
    let report = story.judge();
    assert!(report.is_clean(), "{}", report.table());
    assert_eq!(report.overridden.len(), 1);
}

#[test]
fn an_edit_replaced_by_a_later_one_is_not_lost() {
    let mut story = Story::crossed();
    for subject in ["One", "Two", "Three"] {
        story.on_outlook("oA", &person(), EffectKind::Update, &json!({ "subject": subject }));
    }
    story.on_salesforce("sA", &bridge(), EffectKind::Update, &json!({ "Subject": "Three" }));
    assert!(story.judge().is_clean());
}

#[test]
fn what_happened_just_now_is_pending_not_diverged() {
    let mut story = Story::crossed();
    story.on_outlook("oA", &person(), EffectKind::Update, &json!({ "subject": "Just now" }));
    let report = story.judge_after(TimeDelta::seconds(5), &Terms::default());
    assert!(report.is_clean() && report.is_pending());
    assert!(!story.judge_after(TimeDelta::seconds(31), &Terms::default()).is_clean());
}

#[test]
fn two_rows_with_one_link_or_for_one_meeting_are_duplicated() {
    let mut story = Story::crossed();
    story.on_salesforce("sB", &bridge(), EffectKind::Create, &row_values("Plan"));
    story.on_salesforce("sB", &bridge(), EffectKind::Touch, &json!({ "Calbridge_Link__c": "L1" }));
    let report = story.judge();
    assert_eq!(report.duplicated.len(), 1);
    assert_eq!(report.duplicated[0].records, ["sA", "sB"]);
    assert_eq!(report.looped.len(), 1);
    assert!(report.table().starts_with("NOT CLEAN"));

    let mut story = Story::crossed();
    // Another mailbox's copy of the same meeting was carried over under a link of its own.
    story.on_outlook("oCopy", &Actor::Automation("mail".to_owned()), EffectKind::Create, &outlook_values("Plan"));
    story.on_salesforce("sB", &bridge(), EffectKind::Create, &row_values("Plan"));
    story.on_salesforce("sB", &bridge(), EffectKind::Touch, &json!({ "Calbridge_Link__c": "L2" }));
    story.on_outlook("oCopy", &bridge(), EffectKind::Touch, &stamp("L2"));
    assert_eq!(story.judge().duplicated.len(), 1);
}

#[test]
fn two_outlook_meetings_of_one_salesforce_event_are_duplicated() {
    let mut story = Story::new();
    story.on_salesforce("sA", &person(), EffectKind::Create, &row_values("Call"));
    for (id, uid) in [("oA", "uid-1"), ("oB", "uid-2")] {
        story.push(Cloud::Outlook, id, uid, &bridge(), EffectKind::Create, &outlook_values("Call"));
        story.push(Cloud::Outlook, id, uid, &bridge(), EffectKind::Touch, &stamp("L1"));
    }
    let report = story.judge();
    assert_eq!(report.duplicated[0].cloud, Cloud::Outlook);
    assert_eq!(report.duplicated[0].records, ["uid-1", "uid-2"]);
}

#[test]
fn more_writes_than_edits_are_a_loop_and_touches_are_not() {
    let mut story = Story::crossed();
    story.on_outlook("oA", &person(), EffectKind::Touch, &json!({}));
    story.on_salesforce("sA", &bridge(), EffectKind::Touch, &json!({ "Calbridge_Token__c": "t2" }));
    assert!(story.judge().is_clean());
    // The echo of the first write is written back.
    story.on_outlook("oA", &bridge(), EffectKind::Update, &json!({ "location": {"displayName": "Room 1 "} }));
    let report = story.judge();
    assert_eq!(report.looped.len(), 1);
    assert_eq!((report.looped[0].cloud, report.looped[0].writes, report.looped[0].edits), (Cloud::Outlook, 1, 0));
}

#[test]
fn copies_that_follow_the_organiser_explain_no_writes() {
    let mut story = Story::crossed();
    let transport = Actor::Automation("mail".to_owned());
    story.on_outlook("oCopy", &transport, EffectKind::Create, &outlook_values("Plan"));
    story.on_outlook("oCopy", &transport, EffectKind::Update, &json!({ "subject": "Plan" }));
    for subject in ["x", "Plan"] {
        story.on_salesforce("sA", &bridge(), EffectKind::Update, &json!({ "Subject": subject }));
    }
    assert_eq!(story.judge().looped.len(), 1);
}

#[test]
fn a_side_that_vanished_alone_is_diverged_and_both_gone_is_fine() {
    let mut story = Story::crossed();
    story.on_outlook("oA", &person(), EffectKind::Delete, &json!({}));
    let report = story.judge();
    assert_eq!(report.diverged.len(), 1);
    assert_eq!(report.diverged[0].field, None);
    story.on_salesforce("sA", &bridge(), EffectKind::Delete, &json!({}));
    let report = story.judge();
    assert!(report.is_clean(), "{}", report.table());
    assert_eq!(report.meetings[0].state, MeetingState::Deleted);
}

#[test]
fn an_edit_of_a_meeting_that_was_already_deleted_elsewhere_is_overridden() {
    let mut story = Story::crossed();
    story.on_salesforce("sA", &person(), EffectKind::Delete, &json!({}));
    story.on_outlook("oA", &person(), EffectKind::Update, &json!({ "subject": "Too late" }));
    story.on_outlook("oA", &bridge(), EffectKind::Delete, &json!({}));
    let report = story.judge();
    assert!(report.is_clean(), "{}", report.table());
    assert_eq!(report.overridden.len(), 1);
}

#[test]
fn differing_values_are_diverged_whatever_the_history_says() {
    let mut story = Story::crossed();
    story.salesforce[0]["EndDateTime"] = json!("2026-12-01T11:30:00.000+0000");
    let report = story.judge();
    assert_eq!(report.diverged.len(), 1);
    assert_eq!(report.diverged[0].field, Some(Field::Time));
}

#[test]
fn salesforce_edits_of_meetings_with_attendees_are_held_back_only_where_the_terms_or_the_copy_say_so() {
    let mut story = Story::crossed();
    let attendees = json!({ "attendees": [{ "emailAddress": { "address": "bo@contoso.example" } }] });
    story.on_outlook("oA", &person(), EffectKind::Update, &attendees);
    story.on_salesforce("sA", &person(), EffectKind::Update, &json!({ "Subject": "Mine" }));
    for (organizer, attendees_one_way, is_held_back) in [(true, false, false), (true, true, true), (false, false, true)]
    {
        story.outlook[0]["isOrganizer"] = json!(organizer);
        let terms = Terms { attendees_one_way, ..Terms::default() };
        let report = story.judge_after(TimeDelta::minutes(10), &terms);
        assert_eq!(report.is_clean(), is_held_back, "{}", report.table());
        assert_eq!(report.held_back.len(), usize::from(is_held_back));
        assert_eq!(report.meetings[0].state == MeetingState::HeldBack, is_held_back);
    }
}

#[test]
fn pairs_without_stamps_can_be_named_and_other_applications_count_as_editors() {
    let mut story = Story::new();
    story.on_outlook("oA", &person(), EffectKind::Create, &outlook_values("Plan"));
    story.on_salesforce("sA00000000000001AA", &bridge(), EffectKind::Create, &row_values("Other words"));
    let other = Actor::App("importer".to_owned());
    story.on_salesforce("sA00000000000001AA", &other, EffectKind::Update, &json!({ "Subject": "Bulk" }));
    assert_eq!((story.judge().meetings.len(), story.judge().unlinked_outlook), (0, 1));
    let terms = Terms {
        pairs: vec![("oA".to_owned(), "sA0000000000000".to_owned())],
        bridge: Some(BTreeSet::from(["bridge".to_owned()])),
        ..Terms::default()
    };
    let report = story.judge_after(TimeDelta::minutes(5), &terms);
    assert_eq!(report.meetings.len(), 1);
    assert_eq!(report.meetings[0].on_salesforce.edits, 1);
    assert!(report.looped.is_empty());
    assert_eq!(report.diverged.len(), 1);
}

fn place(room: &str) -> (Value, Value) {
    (json!({ "Location": room }), json!({ "location": { "displayName": room } }))
}

#[test]
fn a_mail_that_carries_a_persons_edit_is_explained() {
    let mut story = Story::crossed();
    let (row, event) = place("Room 2");
    story.on_salesforce("sA", &person(), EffectKind::Update, &row);
    story.on_outlook("oA", &bridge(), EffectKind::Update, &event);
    story.mail(MailKind::Update);
    story.on_salesforce("sA", &person(), EffectKind::Delete, &json!({}));
    story.on_outlook("oA", &bridge(), EffectKind::Delete, &json!({}));
    story.mail(MailKind::Cancellation);
    let report = story.judge();
    assert!(report.is_clean(), "{}", report.table());
}

#[test]
fn three_mails_for_one_edit_are_two_too_many_and_for_three_edits_none() {
    for (edits, unexplained) in [(1, 2), (3, 0)] {
        let mut story = Story::crossed();
        for number in 0..edits {
            story.on_salesforce("sA", &person(), EffectKind::Update, &place(&format!("Room {number}")).0);
        }
        for number in 0..3 {
            story.on_outlook("oA", &bridge(), EffectKind::Update, &place(&format!("Room {number}")).1);
            story.mail(MailKind::Update);
        }
        assert_eq!(story.judge().mailed.len(), unexplained, "{edits} edits");
    }
}

#[test]
fn a_mail_before_the_edit_or_about_something_else_or_of_another_meeting_is_not_explained() {
    let mut story = Story::crossed();
    let (row, event) = place("Room 2");
    story.on_outlook("oA", &bridge(), EffectKind::Update, &event);
    story.mail(MailKind::Update);
    story.on_salesforce("sA", &person(), EffectKind::Update, &row);
    let report = story.judge();
    assert_eq!(report.mailed.len(), 1, "{}", report.table());
    assert!(!report.is_clean() && report.table().contains("mailed: Update of oA to 1 people"), "{}", report.table());

    let mut story = Story::crossed();
    story.on_salesforce("sA", &person(), EffectKind::Update, &row);
    story.on_outlook("oA", &bridge(), EffectKind::Update, &json!({ "subject": "Echo" }));
    story.mail(MailKind::Update);
    assert_eq!(story.judge().mailed.len(), 1);

    let mut story = Story::crossed();
    story.on_salesforce("sB", &person(), EffectKind::Create, &row_values("Another"));
    story.on_outlook("oA", &bridge(), EffectKind::Update, &event);
    story.mail(MailKind::Update);
    assert_eq!(story.judge().mailed.len(), 1);
}

#[test]
fn automation_triggers_and_edits_in_outlook_explain_no_mail() {
    let (row, event) = place("Room 2");
    for author in ["flow", "trigger", "bulk of ada@contoso.example"] {
        let mut story = Story::crossed();
        story.on_salesforce("sA", &Actor::Automation(author.to_owned()), EffectKind::Update, &row);
        story.on_outlook("oA", &bridge(), EffectKind::Update, &event);
        story.mail(MailKind::Update);
        assert_eq!(story.judge().mailed.len(), 1, "{author}");
    }
    let mut story = Story::crossed();
    story.on_outlook("oA", &person(), EffectKind::Update, &json!({ "subject": "Mine" }));
    story.mail(MailKind::Update);
    story.on_salesforce("sA", &bridge(), EffectKind::Update, &json!({ "Subject": "Mine" }));
    assert!(story.judge().is_clean(), "a person's own mails are theirs");
    story.on_outlook("oA", &bridge(), EffectKind::Update, &event);
    story.mail(MailKind::Update);
    assert_eq!(story.judge().mailed.len(), 1);
}

#[test]
fn a_cancellation_needs_a_deletion_or_a_meeting_made_private() {
    let cancelled = |edit: EffectKind, changed: &Value| {
        let mut story = Story::crossed();
        story.on_salesforce("sA", &person(), edit, changed);
        story.on_outlook("oA", &bridge(), EffectKind::Delete, &json!({}));
        story.mail(MailKind::Cancellation);
        story.judge().mailed.len()
    };
    assert_eq!(cancelled(EffectKind::Delete, &json!({})), 0);
    assert_eq!(cancelled(EffectKind::Update, &json!({ "IsPrivate": true })), 0);
    assert_eq!(cancelled(EffectKind::Update, &json!({ "Location": "Room 2" })), 1);
}
