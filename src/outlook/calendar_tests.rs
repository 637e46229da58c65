//! The calendar against the sandbox, over real sockets.

use std::collections::BTreeMap;

use calbridge_core::case::Enrolment;
use calbridge_core::ids::{SalesforceId, WriteToken};
use calbridge_core::observed::Stamp;
use calbridge_core::reason::Reason;
use calbridge_core::value::Fields;
use chrono_tz::Tz;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::outlook::testing::Office;

fn meeting(subject: &str) -> Json {
    json!({
        "subject": subject,
        "body": {"contentType": "html", "content": "<html><body><p>See you</p></body></html>"},
        "start": {"dateTime": "2026-11-24T10:00:00", "timeZone": "W. Europe Standard Time"},
        "end": {"dateTime": "2026-11-24T11:00:00", "timeZone": "W. Europe Standard Time"},
        "location": {"displayName": "Room 4"},
        "showAs": "tentative",
    })
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn timed(start: &str, end: &str, zone: Option<Tz>) -> Value {
    Value::When(When::Timed { start: instant(start), end: instant(end), zone })
}

fn intent(action: Action, fields: Fields) -> Intent {
    let token = WriteToken::new(Uuid::now_v7());
    let link = LinkId::new(Uuid::now_v7());
    Intent {
        token,
        link,
        side: Side::Outlook,
        action,
        fields,
        agreed: BTreeMap::new(),
        replaced: Fields::new(),
        expected: None,
        stamp: Stamp { link, partner: "00U000000000001AAA".to_owned(), token: Some(token) },
        recorded_at: instant("2026-11-23T08:00:00Z"),
        send_by: instant("2100-01-01T00:00:00Z"),
        give_up_at: instant("2026-11-23T08:01:10Z"),
        sends: 1,
        mails: 0,
        unexplained: false,
        reason: Reason::Created,
    }
}

fn fields(pairs: &[(&str, Value)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn creation(office: &Office) -> Intent {
    let values = fields(&[
        ("subject", Value::text("From Salesforce")),
        ("time", timed("2026-11-25T09:00:00Z", "2026-11-25T09:30:00Z", None)),
        ("location.displayName", Value::text("Phone")),
        ("body.text", Value::text("First line\nsecond line")),
        ("showAs", Value::text("busy")),
    ]);
    intent(Action::Create(Home::Mailbox(office.mailbox(0))), values)
}

async fn present(calendar: &OutlookCalendar, record: &RecordId) -> Snapshot {
    match calendar.fetch(std::slice::from_ref(record)).await.pop() {
        Some(Observed::Present(snapshot)) => *snapshot,
        other => panic!("{other:?}"),
    }
}

async fn write(calendar: &OutlookCalendar, intent: &Intent) -> WriteResult {
    calendar.write(std::slice::from_ref(intent)).await.pop().unwrap()
}

fn applied_to(result: WriteResult) -> (RecordId, Snapshot) {
    match result {
        WriteResult::Applied { record, snapshot: Some(snapshot), .. } => (record, *snapshot),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_event_is_read_by_the_names_of_the_mapping() {
    let office = Office::open().await;
    let record = office.create(0, &meeting("Planning"));
    let snapshot = present(&office.outlook.calendar(), &record).await;
    assert_eq!(snapshot.record, record);
    assert_eq!(snapshot.fields["subject"], Value::text("Planning"));
    assert_eq!(snapshot.fields["location.displayName"], Value::text("Room 4"));
    assert_eq!(snapshot.fields["showAs"], Value::text("tentative"));
    assert_eq!(snapshot.fields["body.text"].as_text().map(str::trim), Some("See you"));
    assert_eq!(
        snapshot.fields["time"],
        timed("2026-11-24T09:00:00Z", "2026-11-24T10:00:00Z", Some(Tz::Europe__Berlin))
    );
    assert!(snapshot.traits.is_organizer && !snapshot.traits.private);
    assert!(snapshot.traits.ical_uid.is_some());
    assert_eq!(snapshot.stamp, None);
}

#[tokio::test]
async fn a_private_event_gives_its_time_and_no_words() {
    let office = Office::open().await;
    let mut body = meeting("Doctor");
    body["sensitivity"] = json!("private");
    let record = office.create(0, &body);
    let snapshot = present(&office.outlook.calendar(), &record).await;
    assert!(snapshot.traits.private);
    assert_eq!(snapshot.fields.keys().collect::<Vec<_>>(), ["time"]);
}

#[tokio::test]
async fn whole_days_are_read_and_written_as_dates() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let (first, last) = ("2026-11-30".parse().unwrap(), "2026-12-01".parse().unwrap());
    let when = Value::When(When::AllDay { first, last });
    for zone in ["Tokyo Standard Time", "Pacific Standard Time", "UTC"] {
        let body = json!({
            "subject": "Fair", "isAllDay": true,
            "start": {"dateTime": "2026-11-30T00:00:00", "timeZone": zone},
            "end": {"dateTime": "2026-12-02T00:00:00", "timeZone": zone},
        });
        let record = office.create(0, &body);
        assert_eq!(present(&calendar, &record).await.fields["time"], when, "{zone}");
    }
    let values = fields(&[("subject", Value::text("Fair")), ("time", when.clone())]);
    let result = write(&calendar, &intent(Action::Create(Home::Mailbox(office.mailbox(2))), values)).await;
    let (record, answered) = applied_to(result);
    assert_eq!(answered.fields["time"], when);
    assert_eq!(present(&calendar, &record).await.fields["time"], when);
}

#[tokio::test]
async fn attendees_are_counted_without_the_organiser() {
    let office = Office::open().await;
    let mailboxes = &office.sandbox.endpoints().mailboxes;
    let mut body = meeting("Board");
    body["attendees"] = json!([
        {"type": "required", "emailAddress": {"address": mailboxes[0].address.to_uppercase(), "name": "Self"}},
        {"type": "required", "emailAddress": {"address": mailboxes[1].address, "name": "Other"}},
    ]);
    let record = office.create(0, &body);
    let snapshot = present(&office.outlook.calendar(), &record).await;
    assert_eq!(snapshot.traits.attendees, 1);
}

#[tokio::test]
async fn absence_of_an_event_is_told_from_absence_of_a_mailbox() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let there = office.create(0, &meeting("There"));
    let gone = office.create(0, &meeting("Gone"));
    office.person(0).delete_in_outlook(gone.remote_id()).unwrap();
    let nowhere = RecordId::Outlook {
        mailbox: MailboxId::new("00000000-0000-4000-8000-000000000000"),
        event: gone.remote_id().to_owned(),
    };
    let foreign = RecordId::Salesforce(SalesforceId::parse("00U000000000001").unwrap());
    let read = calendar.fetch(&[foreign, gone, nowhere, there.clone()]).await;
    assert!(matches!(&read[0], Observed::Unread(_)), "{read:?}");
    assert_eq!(read[1], Observed::Absent(Evidence::NotFound));
    assert!(matches!(&read[2], Observed::Unread(why) if why.code == error::NO_MAILBOX), "{read:?}");
    assert!(matches!(&read[3], Observed::Present(snapshot) if snapshot.record == there), "{read:?}");
}

#[tokio::test]
async fn many_events_are_read_in_few_calls() {
    let office = Office::open().await;
    let records: Vec<RecordId> =
        (0..45).map(|number| office.create(number % 3, &meeting(&format!("Meeting {number}")))).collect();
    let read = office.outlook.calendar().fetch(&records).await;
    for (number, (record, observed)) in records.iter().zip(&read).enumerate() {
        let Observed::Present(snapshot) = observed else { panic!("{observed:?}") };
        assert_eq!(&snapshot.record, record);
        assert_eq!(snapshot.fields["subject"], Value::text(format!("Meeting {number}")));
    }
    assert_eq!(office.calls("graph.batch"), 3);
}

#[tokio::test]
async fn a_creation_leaves_its_stamp_and_a_repeat_finds_it() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let mut creation = creation(&office);
    let (record, answered) = applied_to(write(&calendar, &creation).await);
    assert_eq!(answered.stamp.as_ref(), Some(&creation.stamp));
    let read = present(&calendar, &record).await;
    assert_eq!(read.stamp, Some(creation.stamp.clone()));
    assert_eq!(read.version, answered.version);
    assert_eq!(read.fields, answered.fields);
    assert_eq!(read.fields["body.text"].as_text().map(str::trim_end), Some("First line\nsecond line"));
    assert_eq!(read.fields["time"], creation.fields["time"], "a time without a zone stays without one");

    creation.sends = 2;
    let (again, _) = applied_to(write(&calendar, &creation).await);
    assert_eq!(again, record);
    assert_eq!(office.sandbox.tenant().events(office.mailbox(0).as_str()).len(), 1);

    creation.token = WriteToken::new(Uuid::now_v7());
    assert!(matches!(write(&calendar, &creation).await, WriteResult::AlreadyExists(_)));
}

#[tokio::test]
async fn a_creation_that_is_sent_again_without_a_trace_is_sent() {
    let office = Office::open().await;
    let mut creation = creation(&office);
    creation.sends = 2;
    applied_to(write(&office.outlook.calendar(), &creation).await);
    assert_eq!(office.sandbox.tenant().events(office.mailbox(0).as_str()).len(), 1);
}

#[tokio::test]
async fn an_update_holds_only_for_the_version_it_was_made_from() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let record = office.create(0, &meeting("Before"));
    let seen = present(&calendar, &record).await;
    let values = fields(&[("subject", Value::text("After")), ("location.displayName", Value::Null)]);
    let mut update = intent(Action::Update(record.clone()), values);
    update.expected = Some(seen.version.clone());
    let (_, answered) = applied_to(write(&calendar, &update).await);
    assert_ne!(answered.version, seen.version);
    let read = present(&calendar, &record).await;
    assert_eq!(read.fields["subject"], Value::text("After"));
    assert_eq!(read.fields["location.displayName"], Value::Null);
    assert_eq!(read.fields["showAs"], seen.fields["showAs"]);
    assert_eq!(read.stamp, Some(update.stamp.clone()));

    let stale = write(&calendar, &update).await;
    assert!(matches!(&stale, WriteResult::Conflict(why) if why.code == error::CHANGED), "{stale:?}");
    update.action = Action::Delete(record);
    assert!(matches!(write(&calendar, &update).await, WriteResult::Conflict(_)));
}

#[tokio::test]
async fn a_zone_written_is_the_zone_read() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let record = office.create(0, &meeting("Move"));
    let moved = timed("2026-11-24T12:00:00Z", "2026-11-24T13:00:00Z", Some(Tz::Asia__Kolkata));
    let update = intent(Action::Update(record.clone()), fields(&[("time", moved.clone())]));
    let (_, answered) = applied_to(write(&calendar, &update).await);
    assert_eq!(answered.fields["time"], moved);
    assert_eq!(present(&calendar, &record).await.fields["time"], moved);
}

#[tokio::test]
async fn a_deletion_applies_once() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let record = office.create(0, &meeting("Short-lived"));
    let mut deletion = intent(Action::Delete(record.clone()), Fields::new());
    deletion.expected = Some(present(&calendar, &record).await.version);
    assert!(matches!(write(&calendar, &deletion).await, WriteResult::Applied { .. }));
    assert!(matches!(write(&calendar, &deletion).await, WriteResult::Gone(_)));
}

#[tokio::test]
async fn many_writes_share_a_call_and_fail_one_by_one() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let mut writes: Vec<Intent> = (0..4).map(|_| creation(&office)).collect();
    let missing = office.record(0, "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A");
    writes.insert(2, intent(Action::Update(missing), fields(&[("subject", Value::text("x"))])));
    writes[1].fields.insert("time".to_owned(), Value::Null);
    let results = calendar.write(&writes).await;
    assert!(matches!(&results[1], WriteResult::Refused(why) if why.code == error::NOT_WRITABLE), "{results:?}");
    assert!(matches!(&results[2], WriteResult::Gone(_) | WriteResult::Refused(_)), "{results:?}");
    for number in [0, 3, 4] {
        let WriteResult::Applied { snapshot, .. } = &results[number] else { panic!("{results:?}") };
        assert_eq!(snapshot.as_ref().unwrap().stamp.as_ref(), Some(&writes[number].stamp));
    }
    assert_eq!(office.calls("graph.batch"), 1);
}

#[tokio::test]
async fn a_lost_answer_to_a_write_is_unknown() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let mut creation = creation(&office);
    office.sandbox.world().faults.change(|switches| switches.outlook_cut_answer_next = 1);
    assert!(matches!(write(&calendar, &creation).await, WriteResult::Unknown(_)));
    creation.sends = 2;
    applied_to(write(&calendar, &creation).await);
    assert_eq!(office.sandbox.tenant().events(office.mailbox(0).as_str()).len(), 1);
}

#[tokio::test]
async fn expired_tokens_and_short_throttling_are_survived_inside_the_call() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let records: Vec<RecordId> = (0..6).map(|number| office.create(number % 3, &meeting("Read me"))).collect();
    let all_read = |read: &[Observed]| read.iter().all(|observed| matches!(observed, Observed::Present(_)));
    office.sandbox.world().faults.change(|switches| switches.outlook_expired_tokens_next = 1);
    let read = calendar.fetch(&records).await;
    assert!(all_read(&read), "{read:?}");
    let throttle = || office.sandbox.world().faults.change(|switches| switches.outlook_throttle_next = 1);
    throttle();
    // Both of one mailbox: nobody else waits.
    let read = calendar.fetch(&[records[0].clone(), records[3].clone()]).await;
    assert!(all_read(&read), "{read:?}");
    throttle();
    assert!(matches!(write(&calendar, &creation(&office)).await, WriteResult::Applied { .. }));
}

#[tokio::test]
async fn a_throttled_mailbox_is_told_when_to_come_again_and_the_others_are_read() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let records: Vec<RecordId> = (0..6).map(|number| office.create(number % 3, &meeting("Read me"))).collect();
    office.sandbox.world().faults.change(|switches| switches.outlook_throttle_next = 1);
    let read = calendar.fetch(&records).await;
    let unread: Vec<_> = read
        .iter()
        .filter_map(|observed| match observed {
            Observed::Unread(why) => Some(why),
            _ => None,
        })
        .collect();
    let [why] = unread.as_slice() else { panic!("{read:?}") };
    assert_eq!((why.code.as_str(), why.retry_after_ms), (error::THROTTLED, Some(1_000)));
}

#[tokio::test]
async fn a_wrong_secret_is_not_now_and_says_why() {
    let office = Office::open().await;
    let mut settings = office.settings.clone();
    settings.auth.client_secret = secrecy::SecretString::from("wrong".to_owned()).into();
    let watched = office.enrolments.subscribe();
    let wrong =
        crate::outlook::Outlook::new(settings, crate::outlook::testing::http(), Arc::clone(&office.clock), watched);
    let result = write(&wrong.unwrap().calendar(), &creation(&office)).await;
    let WriteResult::NotNow(why) = result else { panic!("{result:?}") };
    assert_eq!(why.code, error::SIGN_IN);
    assert!(why.message.contains("AADSTS7000215"), "{why:?}");
}

#[tokio::test]
async fn a_round_lists_the_window_and_then_only_changes() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let mailbox = office.mailbox(0);
    let near = office.create(0, &meeting("Near"));
    let mut far = meeting("Far");
    far["start"]["dateTime"] = json!("2028-11-24T10:00:00");
    far["end"]["dateTime"] = json!("2028-11-24T11:00:00");
    let far = office.create(0, &far);
    let mut daily = meeting("Daily");
    daily["recurrence"] = json!({
        "pattern": {"type": "daily", "interval": 1},
        "range": {"type": "numbered", "startDate": "2026-11-24", "numberOfOccurrences": 20},
    });
    let daily = office.create(0, &daily);
    let (first, resume) = round(&calendar, &mailbox, None).await;
    let mut seen: Vec<&RecordId> = first.iter().map(|(record, _)| record).collect();
    seen.sort();
    seen.dedup();
    let mut wanted = [&near, &daily];
    wanted.sort();
    assert_eq!(seen, wanted, "a series is listed through its master only, {far} is outside");

    let (nothing, resume) = round(&calendar, &mailbox, Some(resume)).await;
    assert_eq!(nothing, []);
    office.person(0).delete_in_outlook(near.remote_id()).unwrap();
    let (removed, resume) = round(&calendar, &mailbox, Some(resume)).await;
    assert_eq!(removed, [(near, true)]);

    office.sandbox.world().faults.change(|switches| switches.outlook_delta_gone_next = 1);
    let expired = calendar.list(Some(&mailbox), Some(&resume)).await.unwrap_err();
    assert_eq!(expired.code, error::CURSOR_EXPIRED);
    let foreign = calendar.list(Some(&mailbox), Some("http://127.0.0.1:1/v1.0/x")).await.unwrap_err();
    assert_eq!(foreign.code, error::CURSOR_EXPIRED);
}

async fn round(
    calendar: &OutlookCalendar,
    mailbox: &MailboxId,
    resume: Option<String>,
) -> (Vec<(RecordId, bool)>, String) {
    let mut records = Vec::new();
    let mut cursor = resume;
    loop {
        let page = calendar.list(Some(mailbox), cursor.as_deref()).await.unwrap();
        records.extend(page.records);
        if let Some(resume) = page.resume {
            return (records, resume);
        }
        cursor = Some(page.next.unwrap());
    }
}

#[tokio::test]
async fn look_ups_find_what_is_stamped_and_what_is_a_candidate() {
    let office = Office::open().await;
    let calendar = office.outlook.calendar();
    let creation = creation(&office);
    let (stamped, _) = applied_to(write(&calendar, &creation).await);
    let mut twin = meeting("Same time");
    twin["start"] = json!({"dateTime": "2026-11-25T10:00:00", "timeZone": "W. Europe Standard Time"});
    twin["end"] = json!({"dateTime": "2026-11-25T10:30:00", "timeZone": "W. Europe Standard Time"});
    let twin = office.create(0, &twin);
    let mut longer = meeting("Begins earlier");
    longer["start"] = json!({"dateTime": "2026-11-25T09:00:00", "timeZone": "W. Europe Standard Time"});
    longer["end"] = json!({"dateTime": "2026-11-25T12:00:00", "timeZone": "W. Europe Standard Time"});
    office.create(0, &longer);
    let enrolment = Enrolment {
        mailbox: office.mailbox(0),
        user: SalesforceId::parse(&office.sandbox.endpoints().mailboxes[0].salesforce_user_id).unwrap(),
        enrolled_at: instant("2026-01-01T00:00:00Z"),
    };
    let when = creation.fields["time"].as_when().unwrap().clone();
    let link = creation.link;
    let lookups = [
        Lookup::Stamped { side: Side::Outlook, link, mailbox: Some(office.mailbox(0)) },
        Lookup::Candidates {
            side: Side::Outlook,
            enrolment: (enrolment.mailbox.clone(), enrolment.user.clone()),
            when: serde_json::to_string(&when).unwrap(),
        },
        Lookup::Read(twin.clone()),
        Lookup::Stamped { side: Side::Outlook, link, mailbox: None },
        Lookup::Stamped { side: Side::Outlook, link: LinkId::new(Uuid::now_v7()), mailbox: None },
    ];
    let found: Vec<Vec<RecordId>> = calendar
        .search(&lookups)
        .await
        .into_iter()
        .map(|answer| match answer {
            Answer::Found(found) => found.into_iter().map(|(record, _)| record).collect(),
            answer => panic!("{answer:?}"),
        })
        .collect();
    assert_eq!(found, [vec![stamped.clone()], vec![twin.clone()], vec![twin], vec![stamped], vec![]]);
}

#[tokio::test]
async fn accounts_are_found_by_address_with_their_zone() {
    let office = Office::open().await;
    let known = office.sandbox.endpoints().mailboxes[0].clone();
    let names = [known.address.clone(), "nobody@contoso.example".to_owned()];
    let accounts = office.outlook.calendar().accounts(&names).await.unwrap();
    let found = accounts[0].as_ref().unwrap();
    assert_eq!((&found.id, found.zone.as_deref()), (&known.user_id, Some(known.zone.as_str())));
    assert_eq!(found.name, known.address);
    assert_eq!(accounts[1], None);
}

#[tokio::test]
async fn check_tries_everything_and_names_what_fails() {
    let office = Office::open().await;
    let findings = office.outlook.calendar().check().await;
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    assert_eq!(findings.len(), 3 + 3);

    let mut settings = office.settings.clone();
    settings.auth.client_secret = secrecy::SecretString::from("wrong".to_owned()).into();
    settings.hub.as_mut().unwrap().hub = "missing".to_owned();
    let watched = office.enrolments.subscribe();
    let http = crate::outlook::testing::http();
    let wrong = crate::outlook::Outlook::new(settings, http, Arc::clone(&office.clock), watched).unwrap();
    let findings = wrong.calendar().check().await;
    assert!(findings.iter().all(|finding| !finding.ok), "{findings:?}");
    assert_eq!(findings[0].code, Some(error::SIGN_IN));
    assert_eq!(findings[1].code, Some(error::SIGN_IN));
}
