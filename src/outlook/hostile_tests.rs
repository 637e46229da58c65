//! Graph and Entra as they should never be: each answer ends with a code, no secret goes elsewhere, nothing is taken for empty.

use std::collections::BTreeSet;
use std::time::Duration;

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::{LinkId, MailboxId, RecordId};
use calbridge_core::observed::Observed;
use calbridge_core::side::Side;
use proptest::prelude::*;
use uuid::Uuid;

use super::testing::{http, settings_for};
use super::*;
use crate::clock::EngineClock;
use crate::http::hostile::{Raw, RawServer, answer, bomb, endless, json, redirect};
use crate::ports::{Calendar, Retry};

const TOKEN: &str = r#"{"access_token":"the-token","expires_in":3600}"#;

/// An Outlook whose sign-in works and whose Graph answers everything with `graph`.
async fn outlook_with(graph: impl Fn(&str) -> Raw + Send + Sync + 'static) -> (Outlook, RawServer) {
    let server =
        RawServer::start(move |head| if head.contains("/oauth2/v2.0/token ") { json(200, TOKEN) } else { graph(head) })
            .await;
    (outlook_at(&server.base), server)
}

fn outlook_at(base: &str) -> Outlook {
    let clock = Arc::new(EngineClock::wall());
    let (_told, enrolments) = watch::channel(Vec::new());
    Outlook::new(settings_for(base), http(), clock, enrolments).unwrap()
}

fn mailbox() -> MailboxId {
    MailboxId::new("8c1f7a52-0000-4000-8000-000000000001")
}

fn record() -> RecordId {
    RecordId::Outlook { mailbox: mailbox(), event: "AAk=".to_owned() }
}

fn stamped() -> Lookup {
    Lookup::Stamped { side: Side::Outlook, link: LinkId::new(Uuid::from_u128(1)), mailbox: Some(mailbox()) }
}

/// Answers that are no answer to anything, and the code that a round must end with.
fn broken() -> Vec<(&'static str, Raw, &'static str)> {
    let deep = format!("{{\"value\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"value\":[".to_vec();
    let compressed = "Content-Encoding: gzip\r\n";
    vec![
        ("a page for people", answer(200, "Content-Type: text/html\r\n", b"<html>sign in</html>"), error::UNREADABLE),
        (
            "an error with status 200",
            json(200, r#"{"error":{"code":"x","message":"secret subject"}}"#),
            error::UNREADABLE,
        ),
        ("an empty object", json(200, "{}"), error::UNREADABLE),
        ("a list", json(200, "[]"), error::UNREADABLE),
        ("null", json(200, "null"), error::UNREADABLE),
        ("nothing", json(200, ""), error::UNREADABLE),
        ("nothing, and a status that says so", answer(204, "", b""), error::UNREADABLE),
        ("a page that leads nowhere", json(200, r#"{"value":[]}"#), error::UNREADABLE),
        ("half of a page", json(200, r#"{"value":["#), error::UNREADABLE),
        ("a page cut on its way", Raw::Bytes(cut), error::UNREACHABLE),
        ("no HTTP at all", Raw::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), error::UNREACHABLE),
        ("a compression that is none", answer(200, compressed, b"not gzip"), error::UNREACHABLE),
        ("nested 10 000 deep", json(200, &deep), error::UNREADABLE),
        ("a bomb", bomb(64 * 1024 * 1024), error::TOO_LARGE),
        ("no end", endless(), error::TOO_LARGE),
        ("a status nobody knows", json(799, "{}"), error::UNAVAILABLE),
    ]
}

#[tokio::test]
async fn no_broken_answer_is_taken_for_an_empty_one() {
    for (name, raw, code) in broken() {
        let (outlook, _server) = outlook_with(move |_| raw.clone()).await;
        let calendar = outlook.calendar();
        let failed = calendar.list(Some(&mailbox()), None).await.expect_err(name);
        assert_eq!(failed.code, code, "{name}: {failed}");
        assert_ne!(failed.retry, Retry::Never, "{name}: it may pass");
        assert!(!failed.message.contains("secret"), "{name}: {failed}");
        if name == "a page that leads nowhere" {
            // Of a search it is the whole answer.
            continue;
        }
        // An empty list here would make a second meeting of one that is there.
        let answers = calendar.search(&[stamped()]).await;
        assert!(matches!(answers[0], Answer::Failed(_)), "{name}: {answers:?}");
        let observed = calendar.fetch(&[record()]).await;
        assert!(matches!(observed[0], Observed::Unread(_)), "{name}: {observed:?}");
    }
}

#[tokio::test]
async fn a_redirect_takes_neither_token_nor_secret_elsewhere() {
    let trap = RawServer::trap().await;
    for status in [301, 302, 307, 308] {
        let to = format!("{}/v1.0/users", trap.base);
        let there = to.clone();
        let (outlook, server) = outlook_with(move |_| redirect(status, &to)).await;
        let failed = outlook.calendar().list(Some(&mailbox()), None).await.unwrap_err();
        assert_eq!((failed.code, failed.retry), (error::REDIRECTED, Retry::After(Duration::from_mins(1))));
        assert!(server.requests().iter().any(|head| head.contains("the-token")), "the token went to Graph itself");

        let authority = RawServer::start(move |_| redirect(status, &there)).await;
        let failed = outlook_at(&authority.base).calendar().list(Some(&mailbox()), None).await.unwrap_err();
        assert_eq!(failed.code, error::REDIRECTED, "{failed}");
    }
    assert!(trap.requests().is_empty(), "{:?}", trap.requests());
}

#[tokio::test]
async fn links_that_lead_away_are_refused_before_anything_is_taken_from_their_page() {
    let trap = RawServer::trap().await;
    let away = trap.base.trim_start_matches("http://").to_owned();
    for name in ["@odata.nextLink", "@odata.deltaLink"] {
        for link in [
            format!("http://{away}/v1.0/users/x/calendarView/delta?$skiptoken=1"),
            "https://graph.microsoft.com.evil.example/v1.0/users".to_owned(),
            format!("http://127.0.0.1@{away}/v1.0/users"),
            "file:///etc/passwd".to_owned(),
            "//evil.example/v1.0/users".to_owned(),
            "/v1.0/users".to_owned(),
            "x".repeat(100_000),
        ] {
            let body = serde_json::json!({ "value": [], name: link }).to_string();
            let (outlook, server) = outlook_with(move |_| json(200, &body)).await;
            let failed = outlook.calendar().list(Some(&mailbox()), None).await.unwrap_err();
            assert_eq!(failed.code, error::LINK_LEADS_AWAY, "{link}");
            assert_eq!(server.requests().len(), 2, "a sign-in and one page");
        }
    }
    // One that was stored when another address was in force is as good as expired: the round begins anew.
    let (outlook, _server) = outlook_with(|_| json(200, "{}")).await;
    let stored = format!("http://{away}/v1.0/users/x");
    let failed = outlook.calendar().list(Some(&mailbox()), Some(&stored)).await.unwrap_err();
    assert_eq!(failed.code, error::CURSOR_EXPIRED);
    assert!(trap.requests().is_empty(), "{:?}", trap.requests());
}

#[tokio::test]
async fn no_answer_makes_a_mailbox_wait_for_a_year() {
    for (asked, least) in [
        ("31536000", 3_600),
        ("1e300", 3_600),
        ("99999999999999999999999999", 3_600),
        ("inf", 3_600),
        ("-5", 1),
        ("NaN", 1),
        ("", 1),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 1),
    ] {
        let headers = format!("Retry-After: {asked}\r\n");
        let (outlook, _server) = outlook_with(move |_| answer(429, &headers, b"")).await;
        let failed = outlook.calendar().list(Some(&mailbox()), None).await.unwrap_err();
        assert_eq!(failed.code, error::THROTTLED, "{asked}");
        let Retry::After(pause) = failed.retry else { panic!("{asked}: {failed:?}") };
        assert!(pause <= Duration::from_secs(least), "{asked}: {pause:?}");
    }
}

#[tokio::test]
async fn a_token_that_claims_to_live_for_ever_is_believed_for_a_day() {
    let server = RawServer::start(|_| json(200, &format!(r#"{{"access_token":"t","expires_in":{}}}"#, u64::MAX))).await;
    let source = TokenSource::new(http(), settings_for(&server.base).auth).unwrap();
    let credential = HubCredential::new(Arc::new(source));
    let token =
        azure_core::credentials::TokenCredential::get_token(&credential, &[EVENT_HUBS_SCOPE], None).await.unwrap();
    let left = token.expires_on - azure_core::time::OffsetDateTime::now_utc();
    assert!(left.whole_hours() <= 28, "{left}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any JSON in the place of an answer: a reasoned failure or a page, never a panic.
    #[test]
    fn no_json_makes_a_reader_panic(text in "[\\[\\]{}\":,a-z0-9 .-]{0,80}", id in "\\PC{0,20}") {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| serde_json::json!({
            "id": id, "start": {"dateTime": text, "timeZone": id}, "attendees": [{"emailAddress": {"address": text}}],
            "@odata.etag": text, "value": [text], "type": id,
        }));
        let _event = client::read::<wire::Event>(&value, "event");
        let _page = client::read::<wire::Collection>(&value, "page");
        let _item = client::read::<wire::DeltaItem>(&value, "item");
        let fault = error::GraphFault::read(500, &value, None);
        prop_assert!(fault.message.chars().count() <= 200 && fault.code.len() <= 80);
        let _names: BTreeSet<_> = wire::event_path(&text).into_iter().collect();
    }
}
