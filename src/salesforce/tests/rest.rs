//! Reads, look-ups, writes, rounds and sign-in over HTTP.

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::{LinkId, MailboxId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::observed::{Evidence, Observed, Stamp};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::Version;
use calbridge_core::value::{Fields, Value, When};
use calbridge_core::written::WriteResult;
use chrono::DateTime;
use reqwest::Method;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::super::StampFields;
use super::stand_in::{Seen, StandIn, USER, client_with, describe};
use crate::ports::{Calendar, Retry};

const ALL: StampFields = StampFields { link: true, link_unique: true, token: true };

fn id(n: u32) -> SalesforceId {
    SalesforceId::parse(&format!("00U50000{n:07}")).unwrap()
}

fn record(n: u32) -> RecordId {
    RecordId::Salesforce(id(n))
}

fn row(n: u32) -> Json {
    json!({
        "attributes": { "type": "Event" }, "Id": id(n).as_str(), "IsDeleted": false, "OwnerId": USER,
        "SystemModstamp": "2026-11-20T17:00:01.000+0000", "CreatedDate": "2026-11-20T17:00:01.000+0000",
        "LastModifiedDate": "2026-11-20T17:00:01.000+0000", "StartDateTime": "2026-12-01T09:00:00.000+0000",
        "EndDateTime": "2026-12-01T09:30:00.000+0000", "IsAllDayEvent": false, "Subject": format!("s{n}"),
    })
}

fn page(rows: &[Json]) -> (u16, Json) {
    (200, json!({ "totalSize": rows.len(), "done": true, "records": rows }))
}

fn refusal(status: u16, code: &str) -> (u16, Json) {
    (status, json!([{ "errorCode": code, "message": "m", "fields": [] }]))
}

fn intent(n: u32, action: Action) -> Intent {
    let link = LinkId::new(Uuid::from_u128(u128::from(n)));
    Intent {
        token: WriteToken::new(Uuid::from_u128(100 + u128::from(n))),
        link,
        side: Side::Salesforce,
        action,
        fields: Fields::from([("Subject".to_owned(), Value::text(format!("s{n}")))]),
        agreed: std::collections::BTreeMap::default(),
        replaced: Fields::new(),
        expected: Some(Version::Modstamp("2026-11-20T17:00:01.250Z".parse().unwrap())),
        stamp: Stamp {
            link,
            partner: "AAk=".to_owned(),
            token: Some(WriteToken::new(Uuid::from_u128(100 + u128::from(n)))),
        },
        recorded_at: DateTime::UNIX_EPOCH,
        send_by: DateTime::<chrono::Utc>::MAX_UTC,
        give_up_at: DateTime::UNIX_EPOCH,
        sends: 1,
        mails: 0,
        unexplained: false,
        reason: Reason::Created,
    }
}

fn create(n: u32) -> Intent {
    intent(n, Action::Create(Home::Owner(USER.to_owned())))
}

fn update(n: u32) -> Intent {
    intent(n, Action::Update(record(n)))
}

fn delete(n: u32) -> Intent {
    intent(n, Action::Delete(record(n)))
}

#[tokio::test]
async fn many_records_are_read_in_one_call_with_evidence_of_absence() {
    let stand_in = StandIn::start(|seen| {
        if seen.is(&Method::GET, "/describe") {
            return (200, describe(ALL));
        }
        let mut deleted = row(2);
        deleted["IsDeleted"] = json!(true);
        page(&[deleted, row(1)])
    })
    .await;
    let seen = stand_in.calendar().fetch(&[record(1), record(2), record(3)]).await;
    assert!(matches!(&seen[0], Observed::Present(snapshot) if snapshot.fields["Subject"] == Value::text("s1")));
    assert_eq!(seen[1], Observed::Absent(Evidence::Deleted));
    assert_eq!(seen[2], Observed::Absent(Evidence::NotFound));
    let calls = stand_in.seen();
    assert_eq!(calls.len(), 2, "one describe, one query");
    assert!(calls[1].is(&Method::GET, "/services/data/v66.0/queryAll"));
    assert!(calls[1].soql().contains("Calbridge_Link__c"), "{}", calls[1].soql());
    assert_eq!(calls[1].headers["Sforce-Call-Options"], "client=calbridge/1");
}

#[tokio::test]
async fn a_failed_read_is_never_absence() {
    let stand_in = StandIn::start(|seen| {
        if seen.is(&Method::GET, "/describe") { (200, describe(ALL)) } else { refusal(404, "NOT_FOUND") }
    })
    .await;
    let seen = stand_in.calendar().fetch(&[record(1)]).await;
    assert!(matches!(&seen[0], Observed::Unread(why) if why.code == "CB1358"));
}

#[tokio::test]
async fn an_org_without_stamp_fields_can_still_be_read() {
    let stand_in = StandIn::start(|seen| {
        if seen.is(&Method::GET, "/describe") {
            (200, describe(StampFields::default()))
        } else if seen.soql().contains("Calbridge") {
            refusal(400, "INVALID_FIELD")
        } else {
            page(&[row(1)])
        }
    })
    .await;
    let calendar = stand_in.calendar();
    assert_eq!(calendar.stamp_fields().await.unwrap(), StampFields::default());
    assert!(matches!(&calendar.fetch(&[record(1)]).await[0], Observed::Present(_)));
    let stamped = Lookup::Stamped { side: Side::Salesforce, link: LinkId::new(Uuid::from_u128(1)), mailbox: None };
    assert_eq!(calendar.search(&[stamped]).await, [Answer::Found(Vec::new())]);
}

#[tokio::test]
async fn an_ended_session_is_renewed_once_for_all_callers() {
    let stand_in = StandIn::start(|seen| {
        if seen.headers["authorization"] == "Bearer token-1" {
            refusal(401, "INVALID_SESSION_ID")
        } else if seen.is(&Method::GET, "/describe") {
            (200, describe(ALL))
        } else {
            page(&[])
        }
    })
    .await;
    let calendar = stand_in.calendar();
    let reads = (1..=8).map(|n| {
        let calendar = &calendar;
        async move { calendar.fetch(&[record(n)]).await }
    });
    for seen in futures::future::join_all(reads).await {
        assert_eq!(seen, [Observed::Absent(Evidence::NotFound)]);
    }
    assert_eq!(stand_in.tokens(), 2);
}

#[tokio::test]
async fn a_request_limit_pauses_the_whole_org_without_further_calls() {
    let stand_in = StandIn::start(|_| refusal(403, "REQUEST_LIMIT_EXCEEDED")).await;
    let calendar = stand_in.calendar();
    let results = calendar.write(&[update(1)]).await;
    let WriteResult::NotNow(why) = &results[0] else { panic!("{results:?}") };
    assert_eq!((why.code.as_str(), why.retry_after_ms), ("CB1356", Some(7_200_000)));
    let error = calendar.list(None, None).await.unwrap_err();
    assert!(matches!(error.retry, Retry::After(pause) if pause.as_secs() > 3600), "{error:?}");
    assert_eq!(stand_in.seen().len(), 1);
}

#[tokio::test]
async fn single_writes_use_the_row_and_are_conditional() {
    let stand_in = StandIn::start(|seen| match seen.method {
        Method::POST => (201, json!({ "id": id(9).as_str(), "success": true, "errors": [] })),
        _ => (204, Json::Null),
    })
    .await;
    let calendar = stand_in.calendar();
    for (write, expected) in [(create(1), record(9)), (update(2), record(2)), (delete(3), record(3))] {
        let results = calendar.write(&[write]).await;
        assert!(
            matches!(&results[0], WriteResult::Applied { record, version: None, snapshot: None } if *record == expected),
            "{results:?}"
        );
    }
    let [made, changed, removed] = stand_in.seen().try_into().unwrap();
    assert!(made.is(&Method::POST, "/sobjects/Event"));
    assert_eq!(made.body["OwnerId"], USER);
    assert_eq!(made.body["Calbridge_Link__c"], Uuid::from_u128(1).to_string());
    assert!(changed.is(&Method::PATCH, &format!("/sobjects/Event/{}", id(2))));
    assert_eq!(changed.headers["If-Unmodified-Since"], "Fri, 20 Nov 2026 17:00:02 GMT");
    assert_eq!(
        changed.body,
        json!({
            "Subject": "s2", "Calbridge_Link__c": Uuid::from_u128(2).to_string(),
            "Calbridge_Token__c": format!("v1;{};AAk=;{}", Uuid::from_u128(2), Uuid::from_u128(102)),
        })
    );
    assert!(removed.is(&Method::DELETE, &format!("/sobjects/Event/{}", id(3))));
}

#[tokio::test]
async fn many_writes_use_collections_and_each_row_gets_its_own_result() {
    let failed =
        |code: &str| json!({ "success": false, "errors": [{ "statusCode": code, "message": "", "fields": [] }] });
    let stand_in = StandIn::start(move |seen| match seen.method {
        Method::POST => {
            (200, json!([{ "id": id(11).as_str(), "success": true, "errors": [] }, failed("DUPLICATE_VALUE")]))
        }
        Method::PATCH => {
            (200, json!([failed("ENTITY_IS_DELETED"), failed("UNABLE_TO_LOCK_ROW"), failed("STRING_TOO_LONG")]))
        }
        _ => (
            200,
            json!([{ "id": id(6).as_str(), "success": true, "errors": [] }, failed("INVALID_CROSS_REFERENCE_KEY")]),
        ),
    })
    .await;
    let unguarded = |n: u32| Intent { expected: None, ..update(n) };
    let writes = [create(1), delete(6), unguarded(3), create(2), unguarded(4), delete(7), unguarded(5)];
    let results = stand_in.calendar().write(&writes).await;
    assert!(matches!(&results[0], WriteResult::Applied { record, .. } if *record == record_11()));
    assert!(matches!(&results[1], WriteResult::Applied { .. }));
    assert!(matches!(&results[2], WriteResult::Gone(_)));
    assert!(matches!(&results[3], WriteResult::AlreadyExists(_)));
    assert!(matches!(&results[4], WriteResult::NotNow(_)));
    assert!(matches!(&results[5], WriteResult::Gone(_)));
    assert!(matches!(&results[6], WriteResult::Refused(_)));
    let calls = stand_in.seen();
    assert_eq!(calls.len(), 3);
    let sent = |method: Method| -> &Seen { calls.iter().find(|call| call.method == method).unwrap() };
    assert_eq!(sent(Method::PATCH).body["allOrNone"], false);
    assert_eq!(sent(Method::PATCH).body["records"][0]["id"], id(3).as_str());
    assert!(sent(Method::DELETE).query.contains("allOrNone=false"));
}

#[tokio::test]
async fn many_conditional_updates_share_a_composite_call_and_keep_their_conditions() {
    let stand_in = StandIn::start(|seen| match seen.method {
        Method::POST => {
            let part = |name: &str, status: u16, body: Json| {
                json!({ "referenceId": name, "httpStatusCode": status, "httpHeaders": {}, "body": body })
            };
            let gone = json!([{ "errorCode": "ENTITY_IS_DELETED", "message": "" }]);
            // In another order than asked, and one is missing.
            let parts = [part("row1", 412, json!([])), part("row0", 204, Json::Null), part("row2", 404, gone)];
            (200, json!({ "compositeResponse": parts }))
        }
        _ => (204, Json::Null),
    })
    .await;
    let mut referring = update(6);
    referring.fields.insert("Subject".to_owned(), Value::text("see @{row0.id}"));
    let writes = [update(2), update(3), referring, update(4), update(5)];
    let results = stand_in.calendar().write(&writes).await;
    assert!(
        matches!(&results[0], WriteResult::Applied { record: changed, .. } if *changed == record(2)),
        "{results:?}"
    );
    assert!(matches!(&results[1], WriteResult::Conflict(_)), "{results:?}");
    assert!(
        matches!(&results[2], WriteResult::Applied { record: changed, .. } if *changed == record(6)),
        "{results:?}"
    );
    assert!(matches!(&results[3], WriteResult::Gone(_)), "{results:?}");
    assert!(matches!(&results[4], WriteResult::Unknown(_)), "{results:?}");
    let calls = stand_in.seen();
    assert_eq!(calls.len(), 2, "what looks like a reference goes by itself");
    let composite = calls.iter().find(|call| call.is(&Method::POST, "/composite")).unwrap();
    let first = &composite.body["compositeRequest"][0];
    assert_eq!(first["url"], format!("/services/data/v66.0/sobjects/Event/{}", id(2)));
    assert_eq!(first["httpHeaders"]["If-Unmodified-Since"], "Fri, 20 Nov 2026 17:00:02 GMT");
    assert_eq!(first["body"]["Subject"], "s2");
    assert_eq!(composite.body["allOrNone"], false);
}

fn record_11() -> RecordId {
    record(11)
}

#[tokio::test]
async fn a_write_whose_answer_makes_no_sense_is_unknown() {
    for answer in [(200, json!([])), (502, Json::Null), (200, json!({ "odd": 1 }))] {
        let stand_in = StandIn::start(move |_| answer.clone()).await;
        let results = stand_in.calendar().write(&[create(1), create(2)]).await;
        assert!(results.iter().all(|result| matches!(result, WriteResult::Unknown(_))), "{results:?}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_took_nothing() {
    let stand_in = StandIn::quiet().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = stand_in.settings();
    settings.login_url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let calendar =
        super::super::SalesforceCalendar::new(client_with(&settings), super::stand_in::clock(), &settings).unwrap();
    let results = calendar.write(&[create(1)]).await;
    assert!(matches!(&results[0], WriteResult::NotNow(why) if why.code == "CB1350"), "{results:?}");
}

#[tokio::test]
async fn stamped_and_candidate_lookups_are_answered_in_order() {
    let stand_in = StandIn::start(|seen| {
        if seen.is(&Method::GET, "/describe") {
            return (200, describe(ALL));
        }
        let link = Uuid::from_u128(5).to_string();
        if seen.soql().contains("Calbridge_Link__c IN") {
            let (mut live, mut gone) = (row(1), row(2));
            live["Calbridge_Link__c"] = json!(link);
            gone["Calbridge_Link__c"] = json!(link);
            gone["IsDeleted"] = json!(true);
            page(&[live, gone])
        } else {
            page(&[row(3)])
        }
    })
    .await;
    let stamped =
        |n: u128| Lookup::Stamped { side: Side::Salesforce, link: LinkId::new(Uuid::from_u128(n)), mailbox: None };
    let when = When::Timed {
        start: "2026-12-01T09:00:00Z".parse().unwrap(),
        end: "2026-12-01T09:30:00Z".parse().unwrap(),
        zone: None,
    };
    let candidates = Lookup::Candidates {
        side: Side::Salesforce,
        enrolment: (MailboxId::new("m"), SalesforceId::parse(USER).unwrap()),
        when: serde_json::to_string(&when).unwrap(),
    };
    let answers = stand_in.calendar().search(&[stamped(4), candidates, stamped(5)]).await;
    assert_eq!(answers[0], Answer::Found(Vec::new()));
    assert!(matches!(&answers[1], Answer::Found(found) if found[0].0 == record(3)));
    let Answer::Found(found) = &answers[2] else { panic!("{answers:?}") };
    assert!(matches!(found[0].1, Observed::Present(_)));
    assert_eq!(found[1], (record(2), Observed::Absent(Evidence::Deleted)));
    let candidates = stand_in.seen().iter().map(Seen::soql).find(|soql| soql.contains("StartDateTime =")).unwrap();
    assert!(candidates.contains("StartDateTime = 2026-12-01T09:00:00.000Z"), "{candidates}");
}

#[tokio::test]
async fn a_round_is_paged_and_resumes_with_an_overlap() {
    let stand_in = StandIn::start(|seen| {
        if seen.path.ends_with("/query/01g-2") {
            return page(&[json!({ "Id": id(2).as_str(), "IsDeleted": true })]);
        }
        let next = "/services/data/v66.0/query/01g-2";
        let rows = [json!({ "Id": id(1).as_str(), "IsDeleted": false })];
        (200, json!({ "done": false, "nextRecordsUrl": next, "records": rows }))
    })
    .await;
    let calendar = stand_in.calendar();
    let first = calendar.list(None, None).await.unwrap();
    assert_eq!(first.records, [(record(1), false)]);
    assert_eq!(first.resume, None);
    let second = calendar.list(None, first.next.as_deref()).await.unwrap();
    assert_eq!((second.records, second.next), (vec![(record(2), true)], None));
    calendar.list(None, second.resume.as_deref()).await.unwrap();
    let calls = stand_in.seen();
    assert!(!calls[0].soql().contains("SystemModstamp >="));
    assert!(calls[2].soql().contains("SystemModstamp >= 20"), "{}", calls[2].soql());
}

#[tokio::test]
async fn a_forgotten_page_starts_the_round_anew() {
    let stand_in = StandIn::start(|_| refusal(400, "INVALID_QUERY_LOCATOR")).await;
    let calendar = stand_in.calendar();
    let cursor = json!({ "since": null, "began": null, "next": "/services/data/v66.0/query/01g" }).to_string();
    assert_eq!(calendar.list(None, Some(&cursor)).await.unwrap_err().code, "CB1310");
    assert_eq!(calendar.list(None, Some("{not ours")).await.unwrap_err().code, "CB1310");
}

#[tokio::test]
async fn accounts_are_found_by_username_before_address() {
    let stand_in = StandIn::start(|_| {
        let user = |n: u32, username: &str, email: &str| {
            let id = format!("00550000{n:07}");
            json!({ "Id": id, "Username": username, "Email": email, "TimeZoneSidKey": "Europe/Berlin" })
        };
        page(&[
            user(1, "a@x.example", "shared@x.example"),
            user(2, "b@x.example", "shared@x.example"),
            user(3, "c.sf@x.example", "C@x.example"),
        ])
    })
    .await;
    let names = ["B@x.example", "shared@x.example", "c@x.example", "nobody@x.example"].map(str::to_owned);
    let found = stand_in.calendar().accounts(&names).await.unwrap();
    assert!(found[0].as_ref().unwrap().id.starts_with("005500000000002"));
    assert_eq!(found[1], None, "two users share the address");
    assert_eq!(found[2].as_ref().unwrap().zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(found[3], None);
}

#[tokio::test]
async fn check_names_what_is_missing_and_the_mend() {
    let stand_in = StandIn::start(|seen| {
        if seen.is(&Method::GET, "/describe") {
            (200, describe(StampFields { link: true, ..StampFields::default() }))
        } else {
            (200, json!({ "DailyApiRequests": { "Max": 15000, "Remaining": 14990 } }))
        }
    })
    .await;
    let mut settings = stand_in.settings();
    settings.fields.push("Nowhere__c".to_owned());
    settings.pubsub.endpoint = "http://127.0.0.1:1".to_owned();
    let client = client_with(&settings);
    let calendar = super::super::SalesforceCalendar::new(client, super::stand_in::clock(), &settings).unwrap();
    let findings = calendar.check().await;
    let of = |what: &str| findings.iter().find(|finding| finding.what.ends_with(what)).unwrap();
    assert!(of("sign in").ok && of("Event object").ok && of("limits").ok);
    assert!(of("mapped fields").detail.contains("Nowhere__c"));
    assert_eq!(of("Calbridge_Link__c").code, Some("CB1366"));
    assert_eq!(of("Calbridge_Token__c").code, Some("CB1365"));
    assert!(of("Calbridge_Token__c").detail.contains("create it on Activity"));
    assert_eq!(of("change events").code, Some("CB1450"));
    assert_eq!(stand_in.tokens(), 1);
}
