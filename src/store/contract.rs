//! What every store backend must do: a backend is right when it passes these cases.
//!
//! This file owns the building blocks and the cases of intake and commit; `contract_lanes` those of claims and joins,
//! `contract_facts` those of what change events said, `contract_trace` those of what people look up. Each case starts on an empty store.

use std::collections::BTreeMap;
use std::time::Duration;

use calbridge_core::ids::{ConnectionId, LinkId, MailboxId, RecordId, SalesforceId, StreamId, WriteToken};
use calbridge_core::link::{Action, BaseField, Care, Intent, Link, LinkState, Replica};
use calbridge_core::observed::Stamp;
use calbridge_core::plan::Outcome;
use calbridge_core::reason::Reason;
use calbridge_core::side::{BothSides, Side};
use calbridge_core::signal::{Change, Position, Signal, SignalCause, Target, Version};
use calbridge_core::value::{Fields, Value, When};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::ports::{
    Claim, Commit, DeadLetter, DueSignal, IntakeBatch, JournalEntry, JournalKind, Reject, Store, StoreError,
};

/// The word that must never be found in a database file.
pub(crate) const CANARY: &str = "Zimtschnecke";
/// A lease that does not end during a test.
pub(crate) const LEASE: Duration = Duration::from_mins(10);
/// A lease that is over at once.
pub(crate) const NO_LEASE: Duration = Duration::ZERO;

/// Monday, 2 March 2026, 09:00 UTC, plus milliseconds.
pub(crate) fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_772_442_000_000 + ms).unwrap()
}

pub(crate) fn main_connection() -> ConnectionId {
    ConnectionId::new("main")
}

pub(crate) fn outlook(event: &str) -> RecordId {
    RecordId::Outlook { mailbox: MailboxId::new("mbx-1"), event: event.to_owned() }
}

pub(crate) fn salesforce(id: &str) -> RecordId {
    RecordId::Salesforce(SalesforceId::parse(id).unwrap())
}

/// A notification about a record, received `ms` after the start, with the default windows.
pub(crate) fn signal(record: &RecordId, ms: i64) -> DueSignal {
    DueSignal {
        signal: Signal {
            connection: main_connection(),
            side: record.side(),
            target: Target::Record(record.clone()),
            change: Change::Updated,
            cause: SignalCause::Notification,
            version: Some(Version::ChangeKey(format!("key-{ms}"))),
            facts: None,
            position: Some(position("hub/0", ms)),
            received_at: at(ms),
        },
        record: record.clone(),
        quiet: Duration::from_millis(750),
        max_wait: Duration::from_secs(5),
    }
}

pub(crate) fn position(stream: &str, value: i64) -> Position {
    Position { stream: StreamId::new(stream), value: value.to_string() }
}

pub(crate) async fn accept(store: &dyn Store, signals: Vec<DueSignal>) {
    let batch = IntakeBatch { signals, ..IntakeBatch::default() };
    store.accept(&batch, at(0)).await.unwrap();
}

/// Claims everything due `ms` after the start.
pub(crate) async fn claim(store: &dyn Store, ms: i64) -> Vec<Claim> {
    store.claim("worker", at(ms), LEASE, 100).await.unwrap()
}

/// Claims what must be the one lane due.
pub(crate) async fn claim_one(store: &dyn Store, ms: i64) -> Claim {
    let mut claims = claim(store, ms).await;
    assert_eq!(claims.len(), 1, "exactly one lane is due");
    claims.pop().unwrap()
}

pub(crate) async fn commit(store: &dyn Store, claim: &Claim, commit: Commit) -> Result<(), StoreError> {
    store.commit(vec![(claim.fence, commit)], at(1_000)).await.pop().unwrap()
}

/// Returns open dead letters.
pub(crate) async fn dead_letters(store: &dyn Store, limit: usize) -> Vec<DeadLetter> {
    store.letters(false, limit).await.unwrap().into_iter().map(|open| open.letter).collect()
}

/// A run that covers everything claimed and ends.
pub(crate) fn finished(claim: &Claim) -> Commit {
    Commit { cleared: cleared(claim), release: true, ..Commit::default() }
}

pub(crate) fn cleared(claim: &Claim) -> Vec<(RecordId, i64)> {
    claim.notices.iter().map(|row| (row.notice.record.clone(), row.generation)).collect()
}

/// A link over two records with an agreed subject and time.
pub(crate) fn link(number: u128, outlook: Option<RecordId>, salesforce: Option<RecordId>) -> Link {
    let replica = |record: RecordId, version: Version| Replica { version: Some(version), ..Replica::new(record) };
    let same = |value: Value| BaseField { outlook: value.clone(), salesforce: value, rule: "r1".to_owned() };
    let when = When::Timed { start: at(0), end: at(3_600_000), zone: None };
    Link {
        id: LinkId::new(Uuid::from_u128(number)),
        connection: main_connection(),
        ical_uid: format!("uid-{number}"),
        original_start: String::new(),
        generation: 0,
        replicas: BothSides {
            outlook: outlook.map(|record| replica(record, Version::ChangeKey(format!("ck-{number}")))),
            salesforce: salesforce.map(|record| replica(record, Version::Modstamp(at(7)))),
        },
        copies: [].into(),
        base: BTreeMap::from([
            ("subject".to_owned(), same(Value::text(format!("{CANARY} Review")))),
            ("time".to_owned(), same(Value::When(when))),
        ]),
        intents: BothSides::default(),
        unaudited: Vec::new(),
        care: Care::default(),
        state: LinkState::Live,
        revision: 0,
        last_writer: Some(Side::Outlook),
        created: at(500),
        in_step_at: Some(at(900)),
    }
}

pub(crate) fn intent(link: &Link, token: u128) -> Intent {
    Intent {
        token: WriteToken::new(Uuid::from_u128(token)),
        link: link.id,
        side: Side::Salesforce,
        action: Action::Update(salesforce("00U000000000001")),
        fields: Fields::from([("Subject".to_owned(), Value::text(CANARY))]),
        agreed: BTreeMap::new(),
        replaced: Fields::new(),
        expected: None,
        stamp: Stamp { link: link.id, partner: String::new(), token: None },
        recorded_at: at(1_000),
        send_by: at(11_000),
        give_up_at: at(71_000),
        sends: 0,
        mails: 0,
        unexplained: false,
        reason: Reason::OutlookChanged,
    }
}

/// A journal row of a decision, with a subject in its images.
pub(crate) fn decided(link: Option<&Link>, outcome: Outcome) -> JournalEntry {
    JournalEntry {
        sequence: 0,
        at: at(1_000),
        connection: main_connection(),
        lane: None,
        link: link.map(|link| link.id),
        kind: JournalKind::Decided,
        side: Some(Side::Outlook),
        record: Some(outlook("e1")),
        outcome: Some(outcome),
        reasons: vec![Reason::OutlookChanged, Reason::Echo],
        fields: vec!["subject".to_owned(), "time".to_owned()],
        versions: vec!["outlook:old-change-key".to_owned()],
        positions: vec![position("hub/0", 12)],
        signals: 3,
        echoes: 1,
        token: Some(WriteToken::new(Uuid::from_u128(77))),
        calls: 4,
        mails: 0,
        mail_author: None,
        latency_ms: Some(812),
        error: None,
        config_version: "m1".to_owned(),
        images: BTreeMap::from([(
            "before".to_owned(),
            Fields::from([("subject".to_owned(), Value::text(format!("{CANARY} Draft")))]),
        )]),
    }
}

/// Claims a new record, links it and gives the lane back in step.
pub(crate) async fn linked_meeting(store: &dyn Store, link: &Link) -> Link {
    let record = link.replicas.outlook.as_ref().unwrap().record.clone();
    accept(store, vec![signal(&record, 0)]).await;
    let claim = claim_one(store, 1_000).await;
    let run =
        Commit { link: Some(link.clone()), journal: vec![decided(Some(link), Outcome::InStep)], ..finished(&claim) };
    commit(store, &claim, run).await.unwrap();
    Link { revision: link.revision + 1, ..link.clone() }
}

// --- Intake

pub(crate) async fn a_burst_becomes_one_row_that_is_due_after_the_quiet_window(store: &dyn Store) {
    let record = outlook("e1");
    accept(store, vec![signal(&record, 0), signal(&record, 100)]).await;
    accept(store, vec![signal(&record, 200)]).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(950)));
    assert!(claim(store, 949).await.is_empty());
    let claim = claim_one(store, 950).await;
    let [row] = claim.notices.as_slice() else { panic!("one record, one row") };
    assert_eq!((row.generation, row.signals), (3, 3));
    assert_eq!(row.notice.versions.len(), 3);
    assert_eq!(row.positions.last(), Some(&position("hub/0", 200)));
    assert_eq!((row.first_signal_at, row.notice.last_signal_at), (at(0), at(200)));
    assert!(claim.link.is_none());
}

pub(crate) async fn an_unending_burst_is_due_at_its_longest_wait(store: &dyn Store) {
    let record = outlook("e1");
    accept(store, (0..20).map(|n| signal(&record, n * 500)).collect()).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(5_000)));
    let row = claim_one(store, 5_000).await.notices.remove(0);
    assert_eq!(row.notice.versions.len(), 16, "the newest versions are kept");
    assert_eq!(row.notice.versions.last(), Some(&Version::ChangeKey("key-9500".to_owned())));
    assert_eq!(row.positions.len(), 16);
}

pub(crate) async fn a_deletion_in_a_burst_is_not_forgotten(store: &dyn Store) {
    let record = salesforce("00U000000000001");
    let mut deletion = signal(&record, 10);
    deletion.signal.change = Change::Deleted;
    accept(store, vec![signal(&record, 0), deletion]).await;
    accept(store, vec![signal(&record, 20)]).await;
    assert!(claim_one(store, 5_000).await.notices[0].notice.deleted);
}

pub(crate) async fn a_signal_during_a_run_survives_it_and_counts_once(store: &dyn Store) {
    let record = outlook("e1");
    accept(store, vec![signal(&record, 0), signal(&record, 10)]).await;
    let first = claim_one(store, 5_000).await;
    accept(store, vec![signal(&record, 6_000)]).await;
    commit(store, &first, finished(&first)).await.unwrap();
    assert!(claim(store, 6_749).await.is_empty(), "a new window was opened");
    let second = claim_one(store, 6_750).await;
    let row = &second.notices[0];
    assert_eq!((row.generation, row.signals), (3, 1));
    assert_eq!(row.positions, [position("hub/0", 6_000)]);
    assert_eq!(row.first_signal_at, at(6_000));
    commit(store, &second, finished(&second)).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), None);
}

pub(crate) async fn thousands_of_records_are_accepted_in_one_batch(store: &dyn Store) {
    let records: Vec<RecordId> = (0..2_500).map(|n| outlook(&format!("e{n}"))).collect();
    for round in 0..2 {
        accept(store, records.iter().map(|record| signal(record, round)).collect()).await;
    }
    let claims = store.claim("worker", at(10_000), LEASE, 5_000).await.unwrap();
    assert_eq!(claims.len(), records.len());
    assert!(claims.iter().all(|claim| claim.notices[0].signals == 2));
}

pub(crate) async fn positions_duplicates_and_rejects_are_kept(store: &dyn Store) {
    let hub = StreamId::new("hub/0");
    let reject = |reason| Reject {
        connection: main_connection(),
        side: Side::Outlook,
        reason,
        detail: "no `value`",
        raw: CANARY.as_bytes().to_vec(),
        size: CANARY.len(),
        items: 1,
        position: Some(position("hub/0", 40)),
    };
    for offset in [41, 42] {
        let batch = IntakeBatch {
            rejects: vec![reject(Reason::Undecodable), reject(Reason::ForeignMessage)],
            positions: vec![(main_connection(), position("hub/0", offset))],
            duplicates: [(hub.clone(), 5)].into(),
            ..IntakeBatch::default()
        };
        store.accept(&batch, at(0)).await.unwrap();
    }
    let stored = store.checkpoint(&main_connection(), &hub).await.unwrap();
    assert_eq!(stored.as_deref(), Some("42"));
    let other = store.checkpoint(&ConnectionId::new("other"), &hub).await.unwrap();
    assert_eq!(other, None, "positions belong to their connection");
    let status = store.status().await.unwrap();
    assert_eq!(status.duplicates.get("hub/0"), Some(&10));
    assert_eq!(status.checkpoints.get("hub/0").map(String::as_str), Some("42"));
    assert_eq!((status.journal, status.dead_letters), (2, 1), "the same again is counted");
    let dead = dead_letters(store, 10).await;
    assert!(dead.iter().all(|letter| letter.reason == Reason::Undecodable && letter.detail == "no `value`"));
    let about = dead[0].message.as_ref().unwrap();
    assert_eq!(
        (about.times, about.size, about.position.as_ref()),
        (2, CANARY.len() as u64, Some(&position("hub/0", 40)))
    );
    let (letter, raw) = store.kept_message(&about.id).await.unwrap().unwrap();
    assert_eq!((letter.reason, raw.as_slice()), (Reason::Undecodable, CANARY.as_bytes()));
    assert!(store.kept_message("nobody").await.unwrap().is_none());
}

/// Messages of many forms, each a few times, as somebody who floods the hub sends them.
pub(crate) async fn a_flood_of_messages_is_counted_and_only_the_newest_of_each_reason_are_kept(store: &dyn Store) {
    let reject = |number: usize| {
        let raw = format!("garbage {}", number / 2).into_bytes();
        Reject {
            connection: main_connection(),
            side: if number.is_multiple_of(3) { Side::Salesforce } else { Side::Outlook },
            reason: [Reason::Undecodable, Reason::UnknownKind, Reason::ForeignMessage][number % 3],
            detail: "garbage",
            size: raw.len(),
            raw,
            items: 1,
            position: Some(position("hub/0", i64::try_from(number).unwrap())),
        }
    };
    for (round, first) in (0..2_000).step_by(100).enumerate() {
        let rejects = (first..first + 100).map(reject).collect();
        let now = at(i64::try_from(round).unwrap() * 60_000);
        store.accept(&IntakeBatch { rejects, ..IntakeBatch::default() }, now).await.unwrap();
    }
    let status = store.status().await.unwrap();
    let counts: Vec<(Reason, u64)> = status.rejects.iter().map(|reject| (reject.reason, reject.count)).collect();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 2_000);
    assert_eq!(counts.len(), 3, "one row for each cause: {counts:?}");
    assert_eq!(status.journal, 3, "one row for each cause within an hour");
    assert_eq!(status.dead_letters, 40, "twenty of each reason that keeps messages");
    let newest = dead_letters(store, 1).await.remove(0).message.unwrap();
    assert_eq!(newest.last_at, at(19 * 60_000));

    // An hour later the journal says what came in between.
    store.accept(&IntakeBatch { rejects: vec![reject(2)], ..IntakeBatch::default() }, at(3_700_000)).await.unwrap();
    assert_eq!(store.status().await.unwrap().journal, 4);
}

// --- Commit

pub(crate) async fn a_link_comes_back_as_it_was_written(store: &dyn Store) {
    let mut link = link(1, Some(outlook("e1")), Some(salesforce("00U000000000001")));
    link.intents.salesforce = Some(intent(&link, 5));
    link.copies = [RecordId::Outlook { mailbox: MailboxId::new("mbx-2"), event: "copy".to_owned() }].into();
    let stored = linked_meeting(store, &link).await;
    assert_eq!(store.status().await.unwrap().intents, 1);
    accept(store, vec![signal(&salesforce("00U000000000001"), 2_000)]).await;
    let claim = claim_one(store, 9_000).await;
    assert_eq!(claim.link, Some(stored.clone()), "found by its other record");

    let settled = Link { intents: BothSides::default(), copies: [].into(), ..stored };
    let run = Commit { link: Some(settled.clone()), ..Commit::default() };
    commit(store, &claim, run).await.unwrap();
    let status = store.status().await.unwrap();
    assert_eq!((status.intents, status.links.get("live")), (0, Some(&1)));
}

pub(crate) async fn a_link_is_not_written_over_a_newer_revision(store: &dyn Store) {
    let first = link(1, Some(outlook("e1")), None);
    let second = linked_meeting(store, &first).await;
    accept(store, vec![signal(&outlook("e1"), 2_000)]).await;
    let claim = claim_one(store, 9_000).await;
    for stale in [first, Link { revision: second.revision + 1, ..second.clone() }] {
        let run = Commit { link: Some(stale.clone()), ..finished(&claim) };
        let error = commit(store, &claim, run).await.unwrap_err();
        assert!(matches!(error, StoreError::Outdated(id) if id == stale.id), "{error}");
    }
    let run = Commit { link: Some(second), ..finished(&claim) };
    commit(store, &claim, run).await.unwrap();
}

pub(crate) async fn two_links_never_share_a_record_but_a_tombstone_gives_it_free(store: &dyn Store) {
    let one = linked_meeting(store, &link(1, Some(outlook("e1")), Some(salesforce("00U000000000001")))).await;
    accept(store, vec![signal(&outlook("e2"), 2_000)]).await;
    let claim = claim_one(store, 9_000).await;
    let two = link(2, Some(outlook("e2")), Some(salesforce("00U000000000001")));
    let run = || Commit { link: Some(two.clone()), ..Commit::default() };
    let refused = commit(store, &claim, run()).await;
    assert!(matches!(refused, Err(StoreError::Outdated(_))), "{refused:?}");

    accept(store, vec![signal(&outlook("e1"), 9_000)]).await;
    let old = claim_one(store, 20_000).await;
    let tombstone = Link { state: LinkState::Tombstone { reason: Reason::DeletedInOutlook, at: at(9_000) }, ..one };
    let end = Commit { link: Some(tombstone), ..finished(&old) };
    commit(store, &old, end).await.unwrap();
    commit(store, &claim, run()).await.unwrap();
    let links = store.status().await.unwrap().links;
    assert_eq!(links, BTreeMap::from([("live".to_owned(), 1), ("tombstone".to_owned(), 1)]));
}

pub(crate) async fn a_fenced_commit_leaves_no_trace_and_its_neighbours_stand(store: &dyn Store) {
    accept(store, vec![signal(&outlook("a"), 0), signal(&outlook("b"), 0), signal(&outlook("c"), 0)]).await;
    let lost = store.claim("slow", at(5_000), NO_LEASE, 100).await.unwrap();
    let held = claim(store, 5_000).await;
    assert_eq!((lost.len(), held.len()), (3, 3));
    let run = |claim: &Claim, number: u128, event: &str| {
        let link = link(number, Some(outlook(event)), None);
        let run = Commit { journal: vec![decided(Some(&link), Outcome::InStep)], link: Some(link), ..finished(claim) };
        (claim.fence, run)
    };
    let event = |claim: &Claim| claim.notices[0].notice.record.remote_id().to_owned();
    let commits = vec![
        run(&held[0], 1, &event(&held[0])),
        run(&lost[1], 2, &event(&lost[1])),
        run(&held[2], 3, &event(&held[2])),
    ];
    let results = store.commit(commits, at(6_000)).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(StoreError::Fenced)), "{results:?}");
    let status = store.status().await.unwrap();
    assert_eq!((status.journal, status.links.get("live"), status.waiting), (2, Some(&2), 1));
}

pub(crate) async fn a_dead_letter_stays_one_until_its_meeting_is_mended(store: &dyn Store) {
    let record = outlook("e1");
    for round in 0..2 {
        accept(store, vec![signal(&record, round * 10_000)]).await;
        let claim = claim_one(store, round * 10_000 + 5_000).await;
        let run = Commit {
            dead_letter: Some(DeadLetter {
                held: false,
                connection: main_connection(),
                link: None,
                record: Some(record.clone()),
                reason: Reason::Refused,
                detail: format!("FIELD_INTEGRITY_EXCEPTION {round}"),
                at: at(round),
                message: None,
            }),
            journal: vec![decided(None, Outcome::DeadLetter)],
            ..finished(&claim)
        };
        commit(store, &claim, run).await.unwrap();
    }
    let dead = dead_letters(store, 10).await;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].at, dead[0].detail.as_str()), (at(0), "FIELD_INTEGRITY_EXCEPTION 1"));
    let good_end = JournalEntry {
        kind: JournalKind::Settled,
        outcome: None,
        reasons: vec![Reason::WriteConfirmed],
        ..decided(None, Outcome::Write)
    };
    for (row, still_open) in [(decided(None, Outcome::Write), 1), (good_end, 0)] {
        accept(store, vec![signal(&record, 30_000)]).await;
        let claim = claim_one(store, 40_000).await;
        let run = Commit { journal: vec![row], ..finished(&claim) };
        commit(store, &claim, run).await.unwrap();
        assert_eq!(dead_letters(store, 10).await.len(), still_open);
    }
}
