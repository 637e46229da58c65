//! Salesforce as it should never be: each answer ends with a code, no secret goes elsewhere, nothing is taken for empty.

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::{ConnectionId, LinkId, RecordId, SalesforceId};
use calbridge_core::observed::Observed;
use calbridge_core::side::Side;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::json as value;
use uuid::Uuid;

use super::super::calendar::{Describe, QueryPage};
use super::super::error::Failure;
use super::super::settings::{Grant, Settings};
use super::super::{SalesforceCalendar, StampFields};
use super::stand_in::{ORG, USER, client_with, clock, describe};
use crate::http::hostile::{Raw, RawServer, answer, bomb, endless, json, redirect};
use crate::ports::{Calendar, Retry};

fn calendar_at(login: &str) -> SalesforceCalendar {
    let client_secret = SecretString::from("the-secret").into();
    let grant = Grant::ClientCredentials { client_id: "key".to_owned(), client_secret };
    let settings =
        Settings::new(ConnectionId::new("c"), login.to_owned(), grant, vec!["time".to_owned(), "Subject".to_owned()]);
    SalesforceCalendar::new(client_with(&settings), clock(), &settings).unwrap()
}

/// What a sign-in answers when it is well.
fn session(instance: &str) -> Raw {
    let token = value!({
        "access_token": "the-session", "instance_url": instance, "id": format!("{instance}/id/{ORG}/{USER}"),
        "token_type": "Bearer",
    });
    json(200, &token.to_string())
}

/// A calendar whose sign-in and describe work and which is answered everything else with `rest`.
async fn calendar_with(rest: impl Fn(&str) -> Raw + Send + Sync + 'static) -> (SalesforceCalendar, RawServer) {
    let instance = RawServer::start(move |head| {
        if head.contains("/describe ") {
            json(200, &describe(StampFields { link: true, link_unique: true, token: true }).to_string())
        } else {
            rest(head)
        }
    })
    .await;
    let base = instance.base.clone();
    let login = RawServer::start(move |_| session(&base)).await;
    (calendar_at(&login.base), instance)
}

fn record() -> RecordId {
    RecordId::Salesforce(SalesforceId::parse("00U500000000001").unwrap())
}

fn stamped() -> Lookup {
    Lookup::Stamped { side: Side::Salesforce, link: LinkId::new(Uuid::from_u128(1)), mailbox: None }
}

fn broken() -> Vec<(&'static str, Raw, &'static str)> {
    let deep = format!("{{\"records\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"records\":[".to_vec();
    vec![
        ("a page for people", answer(200, "Content-Type: text/html\r\n", b"<html>sign in</html>"), "CB1363"),
        ("an error with status 200", json(200, r#"[{"errorCode":"X","message":"secret subject"}]"#), "CB1363"),
        ("an empty object", json(200, "{}"), "CB1363"),
        ("a list", json(200, "[]"), "CB1363"),
        ("null", json(200, "null"), "CB1363"),
        ("nothing", json(200, ""), "CB1363"),
        ("nothing, and a status that says so", answer(204, "", b""), "CB1363"),
        ("half of a page", json(200, r#"{"records":["#), "CB1363"),
        ("rows that are none", json(200, r#"{"records":5,"done":true}"#), "CB1363"),
        ("a page cut on its way", Raw::Bytes(cut), "CB1351"),
        ("no HTTP at all", Raw::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), "CB1351"),
        ("a compression that is none", answer(200, "Content-Encoding: gzip\r\n", b"not gzip"), "CB1351"),
        ("nested 10 000 deep", json(200, &deep), "CB1363"),
        ("a bomb", bomb(64 * 1024 * 1024), "CB1368"),
        ("no end", endless(), "CB1368"),
        ("a redirect", redirect(302, "/services/data"), "CB1367"),
        ("a status nobody knows", json(799, "{}"), "CB1363"),
    ]
}

#[tokio::test]
async fn no_broken_answer_is_taken_for_an_empty_one() {
    for (name, raw, code) in broken() {
        let (calendar, _server) = calendar_with(move |_| raw.clone()).await;
        let failed = calendar.list(None, None).await.expect_err(name);
        assert_eq!(failed.code, code, "{name}: {failed}");
        assert_ne!(failed.retry, Retry::Never, "{name}: it may pass");
        assert!(!failed.message.contains("secret"), "{name}: {failed}");
        // An empty list here would make a second event of one that is there.
        let answers = calendar.search(&[stamped()]).await;
        assert!(matches!(answers[0], Answer::Failed(_)), "{name}: {answers:?}");
        let observed = calendar.fetch(&[record()]).await;
        assert!(matches!(observed[0], Observed::Unread(_)), "{name}: {observed:?}");
    }
}

#[tokio::test]
async fn a_redirect_takes_neither_session_nor_secret_elsewhere() {
    let trap = RawServer::trap().await;
    for status in [301, 302, 307, 308] {
        let to = format!("{}/services/data", trap.base);
        let there = to.clone();
        let (calendar, server) = calendar_with(move |_| redirect(status, &to)).await;
        assert_eq!(calendar.list(None, None).await.unwrap_err().code, "CB1367");
        assert!(server.requests().iter().any(|head| head.contains("the-session")), "it went to the instance itself");
        let login = RawServer::start(move |_| redirect(status, &there)).await;
        let failed = calendar_at(&login.base).list(None, None).await.unwrap_err();
        assert_eq!(failed.code, "CB1367", "{failed}");
    }
    assert!(trap.requests().is_empty(), "{:?}", trap.requests());
}

#[tokio::test]
async fn addresses_in_answers_lead_nowhere_but_to_the_instance() {
    let trap = RawServer::trap().await;
    let away = trap.base.trim_start_matches("http://").to_owned();
    for next in [trap.base.clone(), format!("//{away}/services/data"), format!("@{away}/x"), "\\\\evil\\x".to_owned()] {
        let body = value!({ "records": [], "done": false, "nextRecordsUrl": next }).to_string();
        let (calendar, server) = calendar_with(move |_| json(200, &body)).await;
        // Followed or not, all calls stay with the instance; a look-up of pages without end is given up.
        assert!(matches!(calendar.search(&[stamped()]).await[0], Answer::Failed(_)), "{next}");
        assert!(!server.requests().is_empty());
    }
    // An instance that would show the session to everybody on the way, or is no address.
    for instance in ["http://acme.my.salesforce.com", "ftp://127.0.0.1", "javascript:alert(1)", ""] {
        let login = RawServer::start(move |_| session(instance)).await;
        let failed = calendar_at(&login.base).list(None, None).await.unwrap_err();
        assert_eq!(failed.code, "CB1354", "{instance}: {failed}");
        assert!(!failed.message.contains("the-session"), "{failed}");
    }
    assert!(trap.requests().is_empty(), "{:?}", trap.requests());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_makes_a_reader_panic(text in "[\\[\\]{}\":,a-zA-Z0-9 .-]{0,120}", status in 100_u16..1_000) {
        let failure = Failure::from_answer(status, text.as_bytes());
        prop_assert!(failure.message.chars().count() <= 1_000);
        let quoted = value!([{ "errorCode": text, "message": text, "fields": [text] }]).to_string();
        let failure = Failure::from_answer(status, quoted.as_bytes());
        prop_assert!(failure.message.chars().count() <= 1_000);
        let _page = serde_json::from_str::<QueryPage>(&text);
        let _described = serde_json::from_str::<Describe>(&text);
    }
}
