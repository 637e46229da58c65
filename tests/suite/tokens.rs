//! Tokens and secrets: what ends, is taken back, refused, wrong or replaced while the engine runs costs one sign-in for
//! each credential and loses nothing; what a person must do is said with a code and the cloud's own words.

use std::sync::Arc;
use std::time::Duration;

use calbridge::http::{self, HttpOptions};
use calbridge::outlook::{AuthSettings, EVENT_HUBS_SCOPE, GRAPH_SCOPE, TokenSource};
use calbridge::rate_limit::{Quota, RateLimits};
use calbridge::salesforce;
use calbridge_core::ids::ConnectionId;
use calbridge_sandbox::Options;
use calbridge_sandbox::oauth::entra::Audience;
use chrono::TimeDelta;
use secrecy::SecretString;
use serde_json::json;

use crate::support::contract::described;
use crate::support::meetings::{id_of, in_outlook, in_salesforce};
use crate::support::process::{Bench, Ended, Running};
use crate::support::production::SecretFiles;
use crate::support::{PATIENCE, Rehearsal, alone};

/// Callers at once, or edits at once.
const MANY: usize = 200;

/// How each token of the sandbox's Entra begins; a shorter piece may come up in an id by chance.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJh";

/// Edits one after the other.
const EDITS: u64 = 20;

/// Switches that count down never reach their end in a test.
const ALL: u32 = u32::MAX;

/// Sign-ins so far: Graph, Event Hubs, Salesforce.
fn sign_ins(rehearsal: &Rehearsal) -> [u64; 3] {
    let entra = rehearsal.sandbox.tenant().entra();
    [entra.issued_for(Audience::Graph), entra.issued_for(Audience::EventHubs), rehearsal.calls("salesforce.token")]
}

fn http() -> reqwest::Client {
    http::client(&HttpOptions { timeout: Duration::from_secs(30), ca_file: None }).unwrap()
}

/// Makes as many meetings in Outlook as are wanted, over all mailboxes.
fn make(rehearsal: &Rehearsal, count: usize, what: &str) {
    let people = rehearsal.sandbox.endpoints().mailboxes.len();
    for number in 0..count {
        rehearsal.person(number % people).create_in_outlook(&in_outlook(&format!("{what} {number}"))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_under_hundreds_of_calls_is_fetched_once() {
    let rehearsal = Rehearsal::without_engine(Options::default(), "").await;
    let endpoints = rehearsal.sandbox.endpoints().clone();
    let settings = AuthSettings {
        authority: endpoints.microsoft.authority_http.clone(),
        tenant: endpoints.microsoft.tenant_id.clone(),
        client_id: endpoints.microsoft.client_id.clone(),
        client_secret: SecretString::from(endpoints.microsoft.client_secret.clone()).into(),
    };
    let source = Arc::new(TokenSource::new(http(), settings).unwrap());
    for (number, scope) in [GRAPH_SCOPE, EVENT_HUBS_SCOPE].into_iter().enumerate() {
        let issued = || sign_ins(&rehearsal)[number];
        let first = futures::future::try_join_all((0..MANY).map(|_| source.token(scope))).await.unwrap();
        assert_eq!(issued(), 1, "{scope}");
        // All of them are refused at the same time.
        let second = futures::future::try_join_all(first.iter().map(|old| source.replace(scope, old))).await.unwrap();
        assert_eq!(issued(), 2, "{scope}");
        assert!(second.iter().all(|token| token.secret() != first[0].secret()));
        // The fresh one is refused as well: that no third would help is known without asking for it.
        futures::future::try_join_all(second.iter().map(|old| source.replace(scope, old))).await.unwrap();
        assert_eq!(issued(), 2, "{scope}");
    }

    let grant = salesforce::Grant::ClientCredentials {
        client_id: endpoints.salesforce.client_id.clone(),
        client_secret: SecretString::from(endpoints.salesforce.client_secret.clone()).into(),
    };
    let settings =
        salesforce::Settings::new(ConnectionId::new("c"), &endpoints.salesforce.login_http, grant, Vec::new());
    let quota = Quota { in_flight: 10, units: 1000.try_into().unwrap(), period: Duration::from_mins(1) };
    let client =
        salesforce::Client::new(http(), Arc::clone(&rehearsal.clock), RateLimits::new(quota), &settings).unwrap();
    let first = futures::future::try_join_all((0..MANY).map(|_| client.session())).await.unwrap();
    assert_eq!(sign_ins(&rehearsal)[2], 1);
    let second = futures::future::try_join_all(first.iter().map(|stale| client.renew(stale))).await.unwrap();
    assert_eq!(sign_ins(&rehearsal)[2], 2);
    futures::future::try_join_all(second.iter().map(|stale| client.renew(stale))).await.unwrap();
    assert_eq!(sign_ins(&rehearsal)[2], 2);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_taken_back_under_hundreds_of_edits_cost_one_sign_in_for_each_credential_and_lose_nothing() {
    let _busy = alone().await;
    let options = Options { mailboxes: 10, speed: 10.0, ..Options::default() };
    let (mut rehearsal, _files) = Rehearsal::without_engine(options, "").await.like_production("");
    rehearsal.start_engine().await;
    let before = sign_ins(&rehearsal);
    assert_eq!(before, [1, 1, 1], "one sign-in for each credential at the start");
    rehearsal.switch(|switches| {
        switches.outlook_revoke_tokens = true;
        switches.hub_revoke_tokens = true;
        switches.salesforce_revoke_tokens = true;
    });
    make(&rehearsal, MANY, "At the moment of the end");
    rehearsal.person(0).create_in_salesforce(in_salesforce("The other way")).unwrap();
    rehearsal
        .until("all of them crossed", |r| {
            let back = r.outlook(0).iter().any(|event| event["subject"] == "The other way");
            back && r.salesforce().len() == MANY + 1
        })
        .await;
    // The hub looks at its connections every second and may do so after the meetings have crossed.
    rehearsal.until("each credential signed in again", |r| sign_ins(r).iter().all(|count| *count >= 2)).await;
    rehearsal.until("readers are back", |r| r.sandbox.hub_handle().readers().len() == 4).await;
    rehearsal.rest().await;
    assert_eq!(sign_ins(&rehearsal), [2, 2, 2]);
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nears_its_end_is_renewed_before_any_call_is_refused() {
    let rehearsal = Rehearsal::without_engine(Options::default(), "").await;
    rehearsal.switch(|switches| switches.outlook_token_life_secs = 6);
    let (mut rehearsal, _files) = rehearsal.like_production("");
    rehearsal.start_engine().await;
    let mut made = 0;
    while sign_ins(&rehearsal)[0] < 4 {
        made += 1;
        make(&rehearsal, 1, &format!("Edit {made}"));
        rehearsal.until("it crossed", |r| r.salesforce().len() == made).await;
    }
    rehearsal.settled().await;
    rehearsal.assert_clean();
    let totals = rehearsal.end_and_count().await;
    if described().is_some() {
        assert_eq!(totals.unauthorised, 0, "{totals}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_token_is_renewed_in_flight_and_no_reader_notices() {
    // The SDK renews 6 minutes before the end, give or take 5 seconds: here within some seconds of the start.
    let rehearsal = Rehearsal::without_engine(Options::default(), "").await;
    rehearsal.switch(|switches| switches.hub_token_life_secs = 372);
    let (mut rehearsal, _files) = rehearsal.like_production("");
    rehearsal.start_engine().await;
    rehearsal.switch(|switches| switches.hub_token_life_secs = 3599);
    let taken = |r: &Rehearsal| r.sandbox.hub_handle().tokens_taken();
    let at_start = taken(&rehearsal);
    let per_reader = at_start / 4;
    assert!(per_reader >= 1, "{at_start}");
    rehearsal.until("every connection has renewed", |r| taken(r) >= at_start + 4 * per_reader.min(2)).await;
    rehearsal.pass(TimeDelta::seconds(12)).await;
    assert_eq!(sign_ins(&rehearsal)[1], 2, "one for all connections");
    let renewed = taken(&rehearsal);

    // Only the second token is good from now on; the hub looks every second.
    rehearsal.sandbox.tenant().entra().revoke(Audience::EventHubs, 1);
    rehearsal.pass(TimeDelta::seconds(3)).await;
    make(&rehearsal, 8, "After the renewal");
    rehearsal.until("they crossed", |r| r.salesforce().len() == 8).await;
    assert_eq!(rehearsal.sandbox.hub_handle().readers().len(), 4);
    assert_eq!((taken(&rehearsal), sign_ins(&rehearsal)[1]), (renewed, 2), "nobody had to connect again");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_refuses_fresh_tokens_too_gets_no_sign_in_per_request_and_the_meetings_wait_with_a_code() {
    let options = Options { speed: 10.0, ..Options::default() };
    let (mut rehearsal, _files) = Rehearsal::without_engine(options, "").await.like_production("");
    rehearsal.start_engine().await;
    let refused = |r: &Rehearsal| {
        let switches = r.sandbox.world().faults.read();
        [
            u64::from(ALL - switches.outlook_refuse_tokens_next),
            u64::from(ALL - switches.salesforce_refuse_sessions_next),
        ]
    };
    for (side, sign_in, code) in [(0, 0, "CB1303"), (1, 2, "CB1355")] {
        let before = sign_ins(&rehearsal)[sign_in];
        rehearsal.switch(|switches| {
            switches.outlook_refuse_tokens_next = ALL;
            switches.salesforce_refuse_sessions_next = ALL;
            // Only one of the clouds refuses.
            if side == 0 {
                switches.salesforce_refuse_sessions_next = 0;
            } else {
                switches.outlook_refuse_tokens_next = 0;
            }
        });
        let mut made = String::new();
        for number in 1..=EDITS {
            made = id_of(&rehearsal.person(0).create_in_outlook(&in_outlook(&format!("Waits {number}"))).unwrap());
            // Each call is made twice: with the token, and with a fresh one or the same again.
            rehearsal.until("it was tried", |r| refused(r)[side] >= 2 * number).await;
        }
        let (calls, fetched) = (refused(&rehearsal)[side], sign_ins(&rehearsal)[sign_in] - before);
        assert!(fetched >= 1 && fetched * 4 < calls, "{fetched} sign-ins for {calls} refused calls");
        told_by_its_story(&rehearsal, &made, code).await;
        rehearsal.switch(|switches| {
            (switches.outlook_refuse_tokens_next, switches.salesforce_refuse_sessions_next) = (0, 0);
        });
        let all = usize::try_from(EDITS).unwrap() * (side + 1);
        rehearsal.until("they crossed", |r| r.salesforce().len() == all).await;
        rehearsal.settled().await;
    }
    rehearsal.assert_clean();
    rehearsal.end().await;
}

fn failed(ended: &Ended) -> Vec<String> {
    ended.data.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned).collect()
}

/// Waits until the story of a meeting gives a code.
async fn told_by_its_story(rehearsal: &Rehearsal, made: &str, code: &str) {
    let mut last = String::new();
    let waiting = async {
        while !last.contains(code) {
            rehearsal.pass(TimeDelta::milliseconds(500)).await;
            last = json!(rehearsal.trace(made).await).to_string();
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(ended.is_ok(), "gave up waiting for {code}: {last}");
}

/// Waits until the log tells of a refused sign-in with code, the cloud's own words and what to do.
async fn told(running: &Running, code: &str, words: &str, mend: &str) {
    running
        .log_until(&format!("{code} with {words}"), |line| {
            line.contains(code) && line.contains(words) && line.contains(mend)
        })
        .await;
}

const ENTRA_SAYS: &str = "AADSTS7000215: Invalid client secret provided";
const ENTRA_MEND: &str = "give the value of the client secret, not its id";
const SALESFORCE_SAYS: &str = "`invalid_client` (invalid client credentials)";
const SALESFORCE_MEND: &str = "check the consumer secret";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_told_by_check_and_in_the_log_of_run_with_code_words_and_mend() {
    let bench = Bench::set_up(Options::default(), "").await;
    let files = bench.like_production("log:\n  format: json\n  level: debug\n");
    let right = (
        bench.rehearsal.sandbox.endpoints().microsoft.client_secret.clone(),
        bench.rehearsal.sandbox.endpoints().salesforce.client_secret.clone(),
    );
    files.store(&("quince~wrong".to_owned(), "QUINCE-WRONG".to_owned()));
    let ended = Bench::check_in_production(&files).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let lines = failed(&ended);
    for (what, all) in [
        ("outlook: sign in", ["CB1302", ENTRA_SAYS, ENTRA_MEND]),
        ("outlook: event hub", ["CB1302", ENTRA_SAYS, ENTRA_MEND]),
        ("salesforce: sign in", ["CB1354", SALESFORCE_SAYS, SALESFORCE_MEND]),
    ] {
        let line = lines.iter().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {lines:#?}"));
        assert!(all.iter().all(|part| line.contains(part)), "{what}: {line}");
    }
    assert!(!format!("{ended:?}").to_lowercase().contains("quince"), "{ended:?}");

    let running = Bench::start_in_production(&files);
    told(&running, "CB1302", ENTRA_SAYS, ENTRA_MEND).await;
    told(&running, "CB1354", SALESFORCE_SAYS, SALESFORCE_MEND).await;
    // It waits for the mend, and needs no restart.
    files.store(&right);
    let person = bench.rehearsal.person(0);
    bench.rehearsal.until("it listens", |r| r.calls("graph.calendar_view_delta") >= 3).await;
    bench.answers("/readyz", |status, _| status == 200).await;
    person.create_in_outlook(&in_outlook("After the mend")).unwrap();
    bench.rehearsal.until("it crossed", |r| r.salesforce().iter().any(|row| row["Subject"] == "After the mend")).await;
    let ended = running.stop().await;
    assert_eq!(ended.code, 0);
    assert!(!ended.complaints.to_lowercase().contains("quince"), "the log holds a secret");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_replaced_in_their_files_are_taken_up_without_a_restart_and_without_a_trace_of_them() {
    let bench = Bench::set_up(Options::default(), "").await;
    let files = bench.like_production("log:\n  format: json\n  level: debug\nsync:\n  retry_max_secs: 1\n");
    let rehearsal = &bench.rehearsal;
    let first = (
        rehearsal.sandbox.endpoints().microsoft.client_secret.clone(),
        rehearsal.sandbox.endpoints().salesforce.client_secret.clone(),
    );
    let running = Bench::start_in_production(&files);
    bench.answers("/readyz", |status, _| status == 200).await;
    rehearsal.until("it listens", |r| r.calls("graph.calendar_view_delta") >= 3).await;
    bench.rehearsal.next_second().await;
    let end_tokens = || {
        rehearsal.switch(|switches| {
            switches.outlook_revoke_tokens = true;
            switches.hub_revoke_tokens = true;
            switches.salesforce_revoke_tokens = true;
        });
    };

    // The files first, as a careful administrator does: nobody is refused for more than a moment.
    let second = SecretFiles::rotate(rehearsal);
    files.store(&second);
    end_tokens();
    make(rehearsal, 20, "Careful");
    rehearsal.until("they crossed", |r| r.salesforce().len() == 20).await;
    let signs = |line: &String| line.contains("CB1302") || line.contains("CB1354");
    assert!(!running.log().iter().any(signs), "{:#?}", running.log());
    assert_eq!(running.log().iter().filter(|line| line.contains("has changed in its file")).count(), 2);

    // The cloud first: what happens meanwhile waits, and crosses when the files follow.
    let third = SecretFiles::rotate(rehearsal);
    end_tokens();
    make(rehearsal, 20, "Careless");
    told(&running, "CB1302", ENTRA_SAYS, ENTRA_MEND).await;
    files.store(&third);
    rehearsal.until("they crossed", |r| r.salesforce().len() == 40).await;
    rehearsal.person(0).create_in_salesforce(in_salesforce("The other way")).unwrap();
    rehearsal.until("it crossed", |r| r.outlook(0).iter().any(|event| event["subject"] == "The other way")).await;
    rehearsal.settled().await;
    rehearsal.assert_clean();
    let ended = running.stop().await;
    assert_eq!(ended.code, 0);
    for secret in [&first, &second, &third] {
        assert!(
            !ended.complaints.contains(&secret.0) && !ended.complaints.contains(&secret.1),
            "a secret is in the log"
        );
    }
    let session = format!("{}!", rehearsal.sandbox.endpoints().salesforce.org_id.chars().take(15).collect::<String>());
    for start in [TOKEN, &session, "Bearer ", "SharedAccessSignature"] {
        let holds = ended.complaints.lines().find(|line| line.contains(start));
        assert!(holds.is_none(), "a token is in the log: {holds:?}");
    }
    bench.end().await;
}
