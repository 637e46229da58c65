//! What people read, as it stands on their screen.

use std::collections::BTreeMap;
use std::slice::from_ref;

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{MailboxId, SalesforceId, WriteToken};
use calbridge_core::link::{Link, LinkState};
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use calbridge_core::side::{BothSides, Side};
use uuid::Uuid;

use super::{Timeline, Verdict, json, story, text};
use crate::ports::{DeadLetter, DirtyRow, EnrolmentRow, JournalEntry, JournalKind, Traced};
use crate::store::contract::{
    CANARY, at, decided, intent, link, main_connection, outlook, position, salesforce, signal,
};

fn berlin() -> EnrolmentRow {
    EnrolmentRow {
        connection: main_connection(),
        enrolment: Enrolment {
            mailbox: MailboxId::new("mbx-1"),
            user: SalesforceId::parse("005000000000001").unwrap(),
            enrolled_at: at(0),
        },
        address: "ada@example.com".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        first_round_done: true,
    }
}

fn traced(link: Option<Link>, journal: Vec<JournalEntry>) -> Traced {
    Traced {
        lane: calbridge_core::ids::LaneId::new(Uuid::from_u128(9)),
        link,
        waiting: Vec::new(),
        wake_at: None,
        journal,
        dead_letters: Vec::new(),
    }
}

fn crossed() -> Traced {
    let link = link(1, Some(outlook("AAMkAGI1")), Some(salesforce("00U000000000001")));
    let write = JournalEntry { reasons: vec![Reason::OutlookChanged], ..decided(Some(&link), Outcome::Write) };
    let settled = JournalEntry {
        at: at(1_400),
        kind: JournalKind::Settled,
        side: Some(Side::Salesforce),
        outcome: None,
        reasons: vec![Reason::WriteConfirmed],
        versions: vec!["salesforce:2026-03-02T09:00:01Z".to_owned()],
        positions: Vec::new(),
        signals: 0,
        echoes: 0,
        images: BTreeMap::new(),
        ..write.clone()
    };
    traced(Some(link), vec![write, settled])
}

fn told(traced: &Traced) -> Timeline {
    story(traced, &[berlin()], false)
}

#[test]
fn the_story_of_a_crossing_reads_like_this() {
    let expected = "\
in step since 2026-03-02 09:00:00 UTC (2026-03-02 10:00:00 Europe/Berlin)

  connection    main
  link          00000000-0000-0000-0000-000000000001
  mailbox       mbx-1 (ada@example.com)
  Outlook       AAMkAGI1
  change key    ck-1
  iCalUId       uid-1
  Salesforce    00U000000000001EAA
  modstamp      2026-03-02 09:00:00 UTC
  mails         no mail was caused

UTC                      Berlin          side        what
2026-03-02 09:00:01.000  03-02 10:00:01  outlook     after 3 notifications (1 of them our own writes
                                                     coming back): decided to write: subject, time
      CB2011 outlook_changed: Outlook changed and Salesforce had not
      version outlook:old-change-key | position hub/0@12 | 812 ms after the first notification | 4
        request units | token 00000000-0000-0000-0000-00000000004d
2026-03-02 09:00:01.400  03-02 10:00:01  salesforce  the write to Salesforce took effect: subject,
                                                     time
      CB2065 write_confirmed: the write took effect
      version salesforce:2026-03-02T09:00:01Z | 812 ms after the first notification | 4 request
        units | token 00000000-0000-0000-0000-00000000004d
";
    assert_eq!(text(&[told(&crossed())]), expected);
}

#[test]
fn no_line_is_wider_than_a_hundred_columns_and_long_ids_stay_whole_when_joined() {
    let id = "AAMkAGI1".repeat(20);
    let mut long = crossed();
    long.link.as_mut().unwrap().replicas.outlook.as_mut().unwrap().record = outlook(&id);
    let printed = text(&[told(&long)]);
    assert!(printed.lines().all(|line| line.chars().count() <= 100), "{printed}");
    let joined: String = printed.split_whitespace().collect();
    assert!(joined.contains(&id));
}

#[test]
fn values_are_shown_only_when_asked_for() {
    let crossed = crossed();
    let hidden = told(&crossed);
    assert!(!text(from_ref(&hidden)).contains(CANARY) && !json(&[hidden]).contains(CANARY));
    let shown = story(&crossed, &[berlin()], true);
    assert!(text(from_ref(&shown)).contains(&format!("before subject = {CANARY} Draft")));
    assert!(json(&[shown]).contains(CANARY));
}

#[test]
fn mails_are_counted_and_shown_where_they_were_expected() {
    let mut mailed = crossed();
    mailed.journal[0].mails = 3;
    mailed.journal[0].mail_author = Some("005000000000001AAA".to_owned());
    let story = told(&mailed);
    assert_eq!(
        (story.mails_expected, story.mails.as_str()),
        (3, "3 mails expected, for changes by 005000000000001AAA; see the lines below")
    );
    assert!(text(&[story]).contains("mails expected: 3"));

    // The write was refused because of an edit that came first: nobody was mailed.
    let token = Some(WriteToken::new(Uuid::from_u128(7)));
    let intended = JournalEntry { kind: JournalKind::Intended, mails: 0, token, ..mailed.journal[0].clone() };
    mailed.journal[1].side = Some(Side::Outlook);
    mailed.journal[1].reasons = vec![Reason::ChangedUnderneath];
    mailed.journal[1].token = token;
    mailed.journal.insert(1, intended);
    let story = told(&mailed);
    assert_eq!((story.mails_expected, story.mails.as_str()), (0, "no mail was caused"));
}

#[test]
fn the_verdict_names_what_a_person_must_do_before_anything_else() {
    let mut dead = crossed();
    dead.dead_letters.push(DeadLetter {
        held: false,
        connection: main_connection(),
        link: None,
        record: None,
        reason: Reason::Refused,
        detail: "CB1355 FIELD_CUSTOM_VALIDATION_EXCEPTION".to_owned(),
        at: at(2_000),
        message: None,
    });
    dead.wake_at = Some(at(9_000));
    let printed = text(&[told(&dead)]);
    assert!(printed.starts_with("dead letter since 2026-03-02 09:00:02 UTC"), "{printed}");
    assert!(printed.contains("CB1355 FIELD_CUSTOM_VALIDATION_EXCEPTION"), "{printed}");
    assert!(printed.contains("docs/errors/CB2080.md"), "{printed}");

    let held = traced(None, vec![JournalEntry { reasons: vec![Reason::NeedsAdopt], ..decided(None, Outcome::Hold) }]);
    assert!(matches!(told(&held).verdict, Verdict::Held { reason, .. } if reason.name == "needs_adopt"));
}

#[test]
fn the_verdict_says_what_is_waited_for_and_until_when() {
    let mut open = crossed();
    let link = open.link.as_mut().unwrap();
    link.intents = BothSides { outlook: None, salesforce: Some(intent(link, 5)) };
    assert_eq!(
        told(&open).verdict,
        Verdict::Waiting { waits_for: "the result of the update in Salesforce".to_owned(), until: Some(at(71_000)) }
    );

    let notified = signal(&outlook("e1"), 100);
    let mut burst = traced(None, Vec::new());
    burst.wake_at = Some(at(850));
    burst.waiting.push(DirtyRow {
        notice: calbridge_core::case::Notice {
            record: outlook("e1"),
            deleted: false,
            versions: notified.signal.version.into_iter().collect(),
            last_signal_at: at(100),
            cause: notified.signal.cause,
        },
        generation: 2,
        signals: 2,
        positions: vec![position("hub/0", 7)],
        first_signal_at: at(0),
    });
    let story = told(&burst);
    assert!(
        matches!(&story.verdict, Verdict::Waiting { waits_for, until } if waits_for.contains("2 notifications") && *until == Some(at(850)))
    );
    assert_eq!(story.lines[0].what, "waiting: 2 notifications");
    assert_eq!(story.identity.outlook_event_id.as_deref(), Some("e1"));

    let mut retry =
        traced(None, vec![JournalEntry { reasons: vec![Reason::ReadFailed], ..decided(None, Outcome::Wait) }]);
    retry.wake_at = Some(at(60_000));
    assert!(matches!(told(&retry).verdict, Verdict::Waiting { waits_for, .. } if waits_for.contains("a read failed")));
}

#[test]
fn the_verdict_of_what_rests_is_in_step_deleted_or_not_synced() {
    let mut deleted = crossed();
    deleted.link.as_mut().unwrap().state = LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: at(5_000) };
    let printed = text(&[told(&deleted)]);
    assert!(printed.starts_with("deleted since 2026-03-02 09:00:05 UTC"), "{printed}");

    let private = traced(None, vec![JournalEntry { reasons: vec![Reason::Private], ..decided(None, Outcome::Skip) }]);
    let story = told(&private);
    assert!(matches!(&story.verdict, Verdict::NotSynced { reason, .. } if reason.name == "private"));
    assert!(text(&[story]).starts_with("not synced since"));
    assert_eq!(told(&traced(None, Vec::new())).verdict, Verdict::NeverSeen);
    assert!(text(&[]).starts_with("never seen"));
}

#[test]
fn json_carries_the_same_story_for_machines() {
    let printed = json(&[told(&crossed())]);
    let read: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(read[0]["verdict"]["is"], "in_step");
    assert_eq!(read[0]["identity"]["salesforce_id"], "00U000000000001EAA");
    assert_eq!(read[0]["lines"][1]["at"], "2026-03-02T09:00:01.400Z");
    assert_eq!(read[0]["lines"][1]["at_local"], "2026-03-02T10:00:01.400+01:00");
    assert_eq!(read[0]["lines"][0]["reasons"][0]["code"], "CB2011");
}
