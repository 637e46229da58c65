//! Conformance cases of what people look up.

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{MailboxId, SalesforceId};
use calbridge_core::link::{BaseField, Link, LinkState};
use calbridge_core::plan::{Alias, Outcome};
use calbridge_core::reason::Reason;
use calbridge_core::signal::Version;
use calbridge_core::value::{Value, When};
use chrono::{NaiveDate, TimeDelta};

use super::contract::{
    CANARY, LEASE, accept, at, claim_one, commit, decided, finished, intent, link, linked_meeting, main_connection,
    outlook, salesforce, signal,
};
use crate::ports::{Commit, EnrolmentRow, JournalEntry, Store, SubscriptionRow, TraceQuery, Traced};

pub(crate) async fn find(store: &dyn Store, text: &str) -> Vec<Traced> {
    store.trace(&TraceQuery::Text(text.to_owned()), 10).await.unwrap()
}

pub(crate) async fn a_meeting_is_found_by_every_name_it_has(store: &dyn Store) {
    let mut new = link(1, Some(outlook("AAMkAGI1+/=")), Some(salesforce("00U000000000001")));
    new.intents.salesforce = Some(intent(&new, 0xfeed));
    let stored = linked_meeting(store, &new).await;
    linked_meeting(store, &link(2, Some(outlook("other")), None)).await;
    let names = [
        "AAMkAGI1+/=",
        "o:mbx-1:AAMkAGI1+/=",
        "00U000000000001",
        "00U000000000001EAA",
        "  uid-1 ",
        "ck-1",
        "00000000-0000-0000-0000-000000000001",
        "{00000000-0000-0000-0000-000000000001}",
        "0000000000000000000000000000feed",
    ];
    for name in names {
        let found = find(store, name).await;
        assert_eq!(found.len(), 1, "`{name}` leads to one meeting");
        assert_eq!(found[0].link.as_ref(), Some(&stored), "`{name}`");
        assert_eq!(found[0].journal.len(), 1);
    }
    assert!(find(store, "AAMKAGI1+/=").await.is_empty(), "event ids are case-sensitive");
    assert!(find(store, "").await.is_empty());
    assert!(find(store, "nothing-like-this").await.is_empty());
}

pub(crate) async fn a_meeting_is_found_by_words_of_any_subject_it_had(store: &dyn Store) {
    linked_meeting(store, &link(1, Some(outlook("e1")), None)).await;
    for words in [CANARY, "zimtschnecke review", "REVIEW, Zimtschnecke!", "zimtschnecke draft"] {
        assert_eq!(find(store, words).await.len(), 1, "`{words}`");
    }
    assert!(find(store, "zimtschnecke budget").await.is_empty(), "every word must fit");
}

pub(crate) async fn a_meeting_is_found_by_versions_it_had(store: &dyn Store) {
    let stored = linked_meeting(store, &link(1, Some(outlook("e1")), None)).await;
    let mut told = signal(&outlook("e1"), 2_000);
    told.signal.version = Some(Version::ChangeKey("100%_told".to_owned()));
    accept(store, vec![told]).await;
    assert_eq!(find(store, "100%_told").await.len(), 1, "while it waits");
    let claim = claim_one(store, 9_000).await;
    let mut newer = stored;
    newer.replicas.outlook.as_mut().unwrap().note_version(Version::ChangeKey("ck-newer".to_owned()));
    let run = Commit { link: Some(newer), ..finished(&claim) };
    commit(store, &claim, run).await.unwrap();
    for key in ["100%_told", "ck-1", "ck-newer", "old-change-key", "key-0"] {
        assert_eq!(find(store, key).await.len(), 1, "`{key}`");
    }
}

pub(crate) async fn a_deleted_meeting_and_one_that_was_never_linked_are_found(store: &dyn Store) {
    let stored = linked_meeting(store, &link(1, Some(outlook("e1")), None)).await;
    accept(store, vec![signal(&outlook("e1"), 2_000)]).await;
    let claim = claim_one(store, 9_000).await;
    let run = Commit {
        link: Some(Link { state: LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: at(9_000) }, ..stored }),
        journal: vec![decided(None, Outcome::Deleted)],
        ..finished(&claim)
    };
    commit(store, &claim, run).await.unwrap();
    let found = find(store, "zimtschnecke").await;
    assert!(matches!(found[0].link.as_ref().unwrap().state, LinkState::Tombstone { .. }));

    accept(store, vec![signal(&outlook("skipped"), 20_000)]).await;
    assert_eq!(find(store, "skipped").await[0].wake_at, Some(at(20_750)), "waiting");
    let claim = claim_one(store, 30_000).await;
    let run = Commit { journal: vec![decided(None, Outcome::Skip)], ..finished(&claim) };
    commit(store, &claim, run).await.unwrap();
    let found = find(store, "skipped").await;
    assert!(found[0].link.is_none() && found[0].wake_at.is_none());
    let written = decided(None, Outcome::Skip);
    let read = &found[0].journal[0];
    assert_eq!(read.lane, Some(claim.fence.lane));
    let comparable = JournalEntry { sequence: 0, lane: None, ..read.clone() };
    assert_eq!(comparable, written, "a journal row comes back as it was written, images included");
}

pub(crate) async fn a_mailboxs_day_lists_the_meetings_that_start_in_it(store: &dyn Store) {
    let mailbox = MailboxId::new("mbx-1");
    // Auckland is 13 hours ahead of UTC in March: its 3 March begins at 11:00 UTC on the 2nd.
    enrol(store, "Pacific/Auckland", 0).await;
    let all_day = |link: Link, day: u32| {
        let when = Value::When(When::AllDay {
            first: NaiveDate::from_ymd_opt(2026, 3, day).unwrap(),
            last: NaiveDate::from_ymd_opt(2026, 3, day).unwrap(),
        });
        let field = BaseField { outlook: when.clone(), salesforce: when, rule: "r1".to_owned() };
        Link { base: [("time".to_owned(), field)].into(), ..link }
    };
    linked_meeting(store, &link(1, Some(outlook("at nine UTC on the 2nd")), None)).await;
    linked_meeting(store, &all_day(link(2, Some(outlook("all the 2nd")), None), 2)).await;
    linked_meeting(store, &all_day(link(3, Some(outlook("all the 3rd")), None), 3)).await;
    let from = at(2 * 3_600_000) - TimeDelta::days(1);
    let mut events = Vec::new();
    for day in 0..2 {
        let query = TraceQuery::Day {
            mailbox: mailbox.clone(),
            from: from + TimeDelta::days(day),
            until: from + TimeDelta::days(day + 1),
        };
        let found = store.trace(&query, 10).await.unwrap();
        let mut names: Vec<String> = found
            .iter()
            .map(|traced| traced.link.as_ref().unwrap().replicas.outlook.as_ref().unwrap())
            .map(|replica| replica.record.remote_id().to_owned())
            .collect();
        names.sort();
        events.push(names);
    }
    assert_eq!(events[0], ["all the 2nd", "at nine UTC on the 2nd"]);
    assert_eq!(events[1], ["all the 3rd"]);
}

/// Names and messages from outside may be longer than an index takes, and hold what a database's texts cannot.
pub(crate) async fn a_name_of_any_length_and_content_is_kept_and_found(store: &dyn Store) {
    let uid: String = (0..3_000_u32).map(|n| char::from_u32(0x4e00 + n * 7 % 20_000).unwrap()).collect();
    let long = Link { ical_uid: uid.clone(), ..link(1, Some(outlook("e1")), None) };
    let odd = Link { ical_uid: "a\0b".to_owned(), ..link(2, Some(outlook("e2")), None) };
    for link in [long, odd] {
        let stored = linked_meeting(store, &link).await;
        let found = find(store, &link.ical_uid).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].link, Some(stored), "the link itself is as it was");
    }
    accept(store, vec![signal(&outlook("copy"), 20_000)]).await;
    let copy = claim_one(store, 30_000).await;
    let joined = store.join(&copy, &[Alias::ICalUid(uid, String::new())], "worker", LEASE).await;
    assert!(matches!(joined, Ok(crate::ports::Joined::Merged(_))), "{joined:?}");
    let Ok(crate::ports::Joined::Merged(claim)) = joined else { return };
    let failed = JournalEntry { error: Some("a\0b".to_owned()), ..decided(None, Outcome::Skip) };
    let run = Commit { journal: vec![failed], ..finished(&claim) };
    commit(store, &claim, run).await.unwrap();
}

pub(crate) async fn an_enrolment_keeps_its_first_day(store: &dyn Store) {
    enrol(store, "Europe/Berlin", 1_000).await;
    enrol(store, "Europe/Vienna", 2_000).await;
    let rows = store.enrolments(&main_connection()).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].enrolment.enrolled_at, rows[0].zone.as_str()), (at(1_000), "Europe/Vienna"));
    assert!(store.enrolments(&calbridge_core::ids::ConnectionId::new("other")).await.unwrap().is_empty());
}

pub(crate) async fn subscriptions_are_kept_until_dropped(store: &dyn Store) {
    let row = |id: &str, minutes: i64| SubscriptionRow {
        connection: main_connection(),
        id: id.to_owned(),
        mailbox: MailboxId::new("mbx-1"),
        notification_url: "EventHub:https://example.invalid/eventhubname/h".to_owned(),
        expires_at: at(minutes * 60_000),
    };
    for (id, minutes) in [("late", 90), ("early", 30), ("early", 60)] {
        store.put_subscription(&row(id, minutes)).await.unwrap();
    }
    let stored = store.subscriptions(&main_connection()).await.unwrap();
    assert_eq!(stored, [row("early", 60), row("late", 90)]);
    store.drop_subscription(&main_connection(), "early").await.unwrap();
    assert_eq!(store.subscriptions(&main_connection()).await.unwrap(), [row("late", 90)]);
}

pub(crate) async fn status_counts_what_waits(store: &dyn Store) {
    accept(store, vec![signal(&outlook("e1"), 5), signal(&outlook("e2"), 9)]).await;
    let status = store.status().await.unwrap();
    assert_eq!((status.waiting, status.oldest_waiting), (2, Some(at(5))));
    assert_eq!(store.epoch().len(), 32);
}

async fn enrol(store: &dyn Store, zone: &str, enrolled_ms: i64) {
    let row = EnrolmentRow {
        connection: main_connection(),
        enrolment: Enrolment {
            mailbox: MailboxId::new("mbx-1"),
            user: SalesforceId::parse("005000000000001").unwrap(),
            enrolled_at: at(enrolled_ms),
        },
        address: "ada@example.com".to_owned(),
        zone: zone.to_owned(),
        first_round_done: true,
    };
    store.enrol(&row).await.unwrap();
}
