//! The whole sandbox as a client sees it: over its addresses, with its certificate, driven by people.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which may fail loudly")]

use std::process::{Command, Stdio};
use std::time::Duration;

use calbridge_pubsub_proto::pub_sub_client::PubSubClient;
use calbridge_pubsub_proto::{FetchRequest, FetchResponse, ReplayPreset};
use calbridge_sandbox::event_hubs::HubLog;
use calbridge_sandbox::oracle::Terms;
use calbridge_sandbox::{Actor, Endpoints, Options, Sandbox};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Streaming};

/// Ends a test that waits for something that never comes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn start(options: Options) -> Sandbox {
    Box::pin(Sandbox::start(options)).await.unwrap()
}

fn small() -> Options {
    Options { mailboxes: 2, partitions: 1, ..Options::default() }
}

/// A client that trusts the sandbox's own authority and nothing else.
fn web(endpoints: &Endpoints) -> reqwest::Client {
    let pem = std::fs::read(&endpoints.ca_certificate).unwrap();
    let authority = reqwest::Certificate::from_pem(&pem).unwrap();
    reqwest::Client::builder().tls_certs_only([authority]).no_proxy().timeout(PATIENCE).build().unwrap()
}

async fn graph_token(web: &reqwest::Client, endpoints: &Endpoints, authority: &str) -> String {
    let microsoft = &endpoints.microsoft;
    let form = [
        ("client_id", microsoft.client_id.as_str()),
        ("client_secret", microsoft.client_secret.as_str()),
        ("scope", "https://graph.microsoft.com/.default"),
        ("grant_type", "client_credentials"),
    ];
    let url = format!("{authority}/{}/oauth2/v2.0/token", microsoft.tenant_id);
    let answer: Value = web.post(url).form(&form).send().await.unwrap().json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

async fn salesforce_token(web: &reqwest::Client, endpoints: &Endpoints) -> Value {
    let salesforce = &endpoints.salesforce;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", salesforce.client_id.as_str()),
        ("client_secret", salesforce.client_secret.as_str()),
    ];
    let url = format!("{}/services/oauth2/token", salesforce.login_https);
    web.post(url).form(&form).send().await.unwrap().json().await.unwrap()
}

/// Waits for the first hub message from `sequence` on that satisfies `wanted`.
async fn hub_message(hub: &HubLog, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut arrivals = hub.watch(0).unwrap();
    tokio::time::timeout(PATIENCE, async {
        loop {
            for event in hub.read(0, 0, 1_000) {
                let message: Value = serde_json::from_slice(event.body()).unwrap();
                if wanted(&message) {
                    return message;
                }
            }
            arrivals.changed().await.unwrap();
        }
    })
    .await
    .expect("a notification within the time")
}

async fn change_events(endpoints: &Endpoints, token: &str) -> (mpsc::Sender<FetchRequest>, Streaming<FetchResponse>) {
    let pem = std::fs::read(&endpoints.ca_certificate).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).domain_name("localhost");
    let address = format!("https://{}", endpoints.salesforce.pubsub);
    let channel = Channel::from_shared(address).unwrap().tls_config(tls).unwrap().connect().await.unwrap();
    let (requests, outgoing) = mpsc::channel(4);
    let fetch = FetchRequest {
        topic_name: "/data/EventChangeEvent".to_owned(),
        replay_preset: ReplayPreset::Latest.into(),
        num_requested: 10,
        ..FetchRequest::default()
    };
    requests.send(fetch).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    for (name, value) in [
        ("accesstoken", token),
        ("instanceurl", &endpoints.salesforce.instance_https),
        ("tenantid", &endpoints.salesforce.org_id),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let responses = PubSubClient::new(channel).subscribe(request).await.unwrap().into_inner();
    (requests, responses)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_in_outlook_is_seen_by_graph_clients_the_hub_and_the_oracle() {
    let sandbox = start(small()).await;
    let endpoints = sandbox.endpoints().clone();
    let web = web(&endpoints);
    let me = endpoints.mailboxes[0].clone();
    let token = graph_token(&web, &endpoints, &endpoints.microsoft.authority_https).await;

    let subscription: Value = web
        .post(format!("{}/subscriptions", endpoints.microsoft.graph_https))
        .bearer_auth(&token)
        .json(&json!({
            "changeType": "created,updated,deleted",
            "resource": format!("users/{}/events", me.user_id),
            "notificationUrl": endpoints.event_hubs.notification_url,
            "clientState": "secret",
            "expirationDateTime": (sandbox.world().clock.now() + chrono::TimeDelta::days(2)).to_rfc3339(),
        }))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json()
        .await
        .unwrap();
    hub_message(sandbox.hub(), |message| message["value"][0]["subscriptionId"] == "NA").await;

    let event = json!({
        "subject": "Kick-off",
        "start": { "dateTime": "2026-12-01T10:00:00", "timeZone": "Europe/Berlin" },
        "end": { "dateTime": "2026-12-01T11:00:00", "timeZone": "Europe/Berlin" },
    });
    let people = format!("{}/people/{}/outlook/events", endpoints.control_url, me.address);
    let created = web.post(&people).json(&event).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    let created: Value = created.json().await.unwrap();
    let notified = hub_message(sandbox.hub(), |message| message["value"][0]["changeType"] == "created").await;
    assert_eq!(notified["value"][0]["subscriptionId"], subscription["id"]);

    // The same event over plain http, with the immutable id that the person was given.
    let plain_token = graph_token(&web, &endpoints, &endpoints.microsoft.authority_http).await;
    let url =
        format!("{}/users/{}/events/{}", endpoints.microsoft.graph_http, me.user_id, created["id"].as_str().unwrap());
    let seen = web.get(&url).bearer_auth(&plain_token).header("Prefer", "IdType=\"ImmutableId\"").send().await.unwrap();
    let seen: Value = seen.error_for_status().unwrap().json().await.unwrap();
    assert_eq!((&seen["subject"], &seen["id"]), (&json!("Kick-off"), &created["id"]));

    let counters: Value =
        web.get(format!("{}/counters", endpoints.control_url)).send().await.unwrap().json().await.unwrap();
    assert_eq!(counters["calls"][&endpoints.microsoft.client_id]["entra.token"], 2);
    assert_eq!(counters["records"][0]["actor"], json!({ "kind": "person", "id": me.address }));

    let oracle = sandbox.oracle();
    assert!(oracle.is_clean());
    assert_eq!(oracle.unlinked_outlook, 1);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_in_salesforce_is_seen_by_rest_clients_and_as_a_change_event() {
    let sandbox = start(small()).await;
    let endpoints = sandbox.endpoints().clone();
    let web = web(&endpoints);
    let session = salesforce_token(&web, &endpoints).await;
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(session["instance_url"], json!(endpoints.salesforce.instance_https));
    let (_requests, mut responses) = change_events(&endpoints, token).await;

    let me = &endpoints.mailboxes[1];
    let people = format!("{}/people/{}/salesforce/events", endpoints.control_url, me.address);
    let fields = json!({ "Subject": "Call", "StartDateTime": "2026-12-01T10:00:00Z", "DurationInMinutes": 30 });
    let created: Value = web.post(&people).json(&fields).send().await.unwrap().json().await.unwrap();
    let id = created["id"].as_str().unwrap();

    let received = tokio::time::timeout(PATIENCE, async {
        loop {
            let response = responses.message().await.unwrap().unwrap();
            if !response.events.is_empty() {
                return response.events.len();
            }
        }
    });
    assert_eq!(received.await.expect("a change event within the time"), 1);

    for base in [&endpoints.salesforce.instance_http, &endpoints.salesforce.instance_https] {
        let url = format!("{base}/services/data/v66.0/sobjects/Event/{id}");
        let row: Value = web.get(url).bearer_auth(token).send().await.unwrap().json().await.unwrap();
        assert_eq!((&row["Subject"], &row["OwnerId"]), (&json!("Call"), &json!(me.salesforce_user_id)));
    }

    let url = format!("{people}/{id}");
    assert_eq!(web.delete(&url).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let again = web.delete(&url).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    assert!(again.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("salesforce refuses"));
    sandbox.stop().await;
}

/// Carries Ada's meeting over as a bridge would, with a stamp on the side that is written.
fn carry_over(sandbox: &Sandbox, bridge: &Actor, event: &Value, link: &str) -> String {
    let fields = json!({
        "Subject": event["subject"], "StartDateTime": "2026-12-01T09:00:00Z", "DurationInMinutes": 60, "ShowAs": "Busy",
        "OwnerId": sandbox.endpoints().mailboxes[0].salesforce_user_id,
        "Calbridge_Link__c": link, "Calbridge_Token__c": "t1",
    });
    sandbox.org().create(bridge, Some("bridge/1"), fields.as_object().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oracle_follows_a_bridge_through_both_clouds() {
    let sandbox = start(small()).await;
    let (ada, ben) = (sandbox.person_number(0).unwrap(), sandbox.person_number(1).unwrap());
    let bridge = Actor::App("bridge".to_owned());
    let at_once = Terms { settle: chrono::TimeDelta::zero(), ..Terms::default() };
    let event = ada
        .create_in_outlook(&json!({
            "subject": "Plan", "attendees": [{ "emailAddress": { "address": ben.mailbox().address } }],
            "start": { "dateTime": "2026-12-01T10:00:00", "timeZone": "Europe/Berlin" },
            "end": { "dateTime": "2026-12-01T11:00:00", "timeZone": "Europe/Berlin" },
        }))
        .unwrap();
    let row = carry_over(&sandbox, &bridge, &event, "L1");
    let report = sandbox.judge(&at_once);
    assert!(report.is_clean(), "{}", report.table());
    assert_eq!((report.meetings.len(), report.unlinked_outlook, report.unlinked_salesforce), (1, 0, 0));
    assert_eq!(report.meetings[0].salesforce, std::slice::from_ref(&row));

    // An edit that does not cross is lost; written back with a stamp on the other side, all is well again.
    let id = event["id"].as_str().unwrap();
    ada.update_in_outlook(id, &json!({ "subject": "Plan B" })).unwrap();
    let report = sandbox.judge(&at_once);
    assert_eq!((report.lost.len(), report.diverged.len()), (1, 1), "{}", report.table());
    let edit = json!({ "Subject": "Plan B", "Calbridge_Token__c": "t2" });
    sandbox.org().update(&bridge, Some("bridge/1"), &row, edit.as_object().unwrap()).unwrap();
    let stamp = json!({ "singleValueExtendedProperties": [{
        "id": "String {b3c0f0a2-6f0d-4f6e-9d5e-2f6b7c1a9e44} Name calbridge", "value": format!("v1;L1;{row};t3") }] });
    sandbox.tenant().update_event(&bridge, &ada.mailbox().user_id, id, &stamp, None).unwrap();
    let report = sandbox.judge(&at_once);
    assert!(report.is_clean(), "{}", report.table());
    assert_eq!((report.meetings[0].on_salesforce.writes, report.meetings[0].on_outlook.writes), (2, 0));
    assert!(report.meetings[0].on_outlook.touches >= 1);

    // The same meeting once more under another link is a duplicate.
    carry_over(&sandbox, &bridge, &json!({ "subject": "Plan B" }), "L2");
    assert_eq!(sandbox.judge(&at_once).duplicated.len(), 1);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_api_explains_what_is_wrong() {
    let sandbox = start(small()).await;
    let control = sandbox.endpoints().control_url.clone();
    let web = web(sandbox.endpoints());
    for (path, status, words) in [
        ("/nonsense", 404, "not a path"),
        ("/mailboxes/nobody@contoso.example/events", 404, "nobody@contoso.example"),
        ("/oracle?settle=3", 400, "settle_secs"),
        ("/oracle?format=pdf", 400, "table"),
        ("/history?from=minus", 400, "from"),
        ("/hub/cut", 405, "GET"),
        ("/secrets/microsoft", 405, "GET"),
    ] {
        let answer = web.get(format!("{control}{path}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let error = answer.json::<Value>().await.unwrap()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "{path}: {error}");
    }
    let third = web.post(format!("{control}/secrets/google")).send().await.unwrap();
    assert_eq!(third.status(), StatusCode::NOT_FOUND);
    assert!(third.text().await.unwrap().contains("`microsoft` or `salesforce`"));
    let misspelt = web.patch(format!("{control}/switches")).json(&json!({ "hub_drop_nxt": 1 })).send().await.unwrap();
    assert_eq!(misspelt.status(), StatusCode::BAD_REQUEST);
    assert!(misspelt.text().await.unwrap().contains("hub_drop_next"));
    let broken = web.post(format!("{control}/calendars")).body("hello").send().await.unwrap();
    assert!(broken.text().await.unwrap().contains("VCALENDAR"));
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_text_is_loaded_with_a_reason_for_what_is_not() {
    let sandbox = start(small()).await;
    let calendar = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:Dinner\r\nDTSTART;TZID=W. Europe Standard Time:20261201T190000\r\n\
        DTEND;TZID=W. Europe Standard Time:20261201T210000\r\nEND:VEVENT\r\n\
        BEGIN:VEVENT\r\nSUMMARY:Weekly\r\nDTSTART:20261201T090000Z\r\nRRULE:FREQ=WEEKLY;BYDAY=TU;COUNT=4\r\nEND:VEVENT\r\n\
        BEGIN:VEVENT\r\nSUMMARY:Odd\r\nDTSTART:20261201T090000Z\r\nRRULE:FREQ=HOURLY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
    let url =
        format!("{}/calendars?mailbox={}", sandbox.endpoints().control_url, sandbox.endpoints().mailboxes[1].address);
    let loaded: Value = web(sandbox.endpoints()).post(url).body(calendar).send().await.unwrap().json().await.unwrap();
    assert_eq!(loaded["created"].as_array().unwrap().len(), 2, "{loaded}");
    assert_eq!(loaded["not_loaded"][0]["subject"], "Odd");
    let events = sandbox.tenant().events(&sandbox.endpoints().mailboxes[1].user_id);
    let dinner = events.iter().find(|event| event["subject"] == "Dinner").unwrap();
    assert_eq!(dinner["start"], json!({ "dateTime": "2026-12-01T18:00:00.0000000", "timeZone": "UTC" }));
    let weekly = events.iter().find(|event| event["subject"] == "Weekly").unwrap();
    assert_eq!(weekly["type"], "seriesMaster");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sandboxes_of_one_seed_are_alike_and_do_not_disturb_each_other() {
    let (one, two) = (start(small()).await, start(small()).await);
    assert_eq!(one.endpoints().microsoft.tenant_id, two.endpoints().microsoft.tenant_id);
    assert_eq!(one.endpoints().mailboxes[1].user_id, two.endpoints().mailboxes[1].user_id);
    assert_ne!(one.endpoints().control_url, two.endpoints().control_url);
    one.stop().await;
    two.stop().await;
}

/// Runs the binary against an endpoints file and returns exit code, stdout, stderr.
fn command(folder: &std::path::Path, arguments: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_calbridge-sandbox")).current_dir(folder).args(arguments).output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_serves_acts_and_judges() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = tokio::process::Command::new(env!("CARGO_BIN_EXE_calbridge-sandbox"))
        .current_dir(folder.path())
        .args(["serve", "--mailboxes", "2", "--start-at", "2026-12-01T08:00:00Z"])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(server.stderr.take().unwrap()));
    tokio::time::timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("ready") {
                return;
            }
        }
        panic!("the sandbox ended before it was ready");
    })
    .await
    .unwrap();

    let here = folder.path();
    let (code, id, _) = command(here, &["person", "outlook", "create", "--subject", "Plan"]);
    assert_eq!(code, 0);
    assert_eq!(command(here, &["person", "outlook", "update", &id, "--location", "Room 2"]).0, 0);
    let (code, row, _) = command(here, &["person", "salesforce", "create", "--start", "2026-12-02T10:00"]);
    assert_eq!((code, row.len()), (0, 18));
    let (code, _, error) = command(here, &["switch", "hub_dropnext=1"]);
    assert_eq!(code, 1);
    assert!(error.contains("did you mean `hub_drop_next`?"), "{error}");
    assert!(command(here, &["switch", "hub_drop_next=1"]).1.contains("hub_drop_next=1"));
    assert!(command(here, &["counters"]).1.contains("outlook updates"));
    assert!(command(here, &["oracle"]).1.starts_with("clean: lost 0"));
    assert_eq!(command(here, &["person", "outlook", "delete", &id]).0, 0);

    // Two rows with one link id: the oracle must see it and the exit code must say so.
    let stamped = ["person", "salesforce", "create", "--json", "{\"Calbridge_Link__c\": \"L1\"}"];
    assert_eq!(command(here, &["switch", "salesforce_link_unique=off"]).0, 0);
    assert_eq!((command(here, &stamped).0, command(here, &stamped).0), (0, 0));
    let (code, table, _) = command(here, &["oracle"]);
    assert_eq!(code, 3);
    assert!(table.contains("duplicated in salesforce"), "{table}");

    let pid = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, server.wait()).await.expect("an end within the time").unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(!here.join("sandbox-endpoints.json").exists());
    let (code, _, error) = command(here, &["oracle"]);
    assert_eq!(code, 1);
    assert!(error.contains("serve"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_replaced_through_the_control_api() {
    let sandbox = start(small()).await;
    let endpoints = sandbox.endpoints().clone();
    let web = web(&endpoints);
    let sign_in = |cloud: &'static str, secret: String| {
        let (url, id, scope) = match cloud {
            "microsoft" => {
                let microsoft = &endpoints.microsoft;
                let url = format!("{}/{}/oauth2/v2.0/token", microsoft.authority_http, microsoft.tenant_id);
                (url, microsoft.client_id.clone(), "https://graph.microsoft.com/.default")
            }
            _ => (
                format!("{}/services/oauth2/token", endpoints.salesforce.login_http),
                endpoints.salesforce.client_id.clone(),
                "api",
            ),
        };
        let grant = "client_credentials".to_owned();
        let form = [("grant_type", grant), ("client_id", id), ("client_secret", secret), ("scope", scope.to_owned())];
        let request = web.post(url).form(&form);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    for (cloud, first, refused) in [
        ("microsoft", endpoints.microsoft.client_secret.clone(), 401),
        ("salesforce", endpoints.salesforce.client_secret.clone(), 400),
    ] {
        assert_eq!(sign_in(cloud, first.clone()).await, 200);
        let answer = web.post(format!("{}/secrets/{cloud}", endpoints.control_url)).send().await.unwrap();
        let second = answer.json::<Value>().await.unwrap()["client_secret"].as_str().unwrap().to_owned();
        assert_eq!(sign_in(cloud, first).await, refused);
        assert_eq!(sign_in(cloud, second).await, 200);
    }
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_api_acts_upon_the_clouds_and_tells_of_mails() {
    let sandbox = start(small()).await;
    let endpoints = sandbox.endpoints().clone();
    let web = web(&endpoints);
    let (control, me) = (endpoints.control_url.clone(), endpoints.mailboxes[0].clone());
    let post = |path: &str, body: Value| web.post(format!("{control}{path}")).json(&body).send();
    let get = |path: &str| web.get(format!("{control}{path}")).send();

    let taken = post("/acts/take_licence", json!({ "person": me.address })).await.unwrap();
    assert_eq!(taken.json::<Value>().await.unwrap(), json!({ "affected": 1 }));
    for (path, body, status) in [
        ("/acts/take_licence", json!({ "person": "nobody@contoso.example" }), StatusCode::NOT_FOUND),
        ("/acts/take_licence", json!({}), StatusCode::BAD_REQUEST),
        ("/acts/take_license", json!({ "person": me.address }), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(post(path, body).await.unwrap().status(), status, "{path}");
    }
    let calm = web.post(format!("{control}/acts/calm")).send().await.unwrap();
    assert_eq!(calm.status(), StatusCode::OK);
    assert_eq!(get("/switches").await.unwrap().json::<Value>().await.unwrap()["hostile"], false);

    let person = sandbox.person_number(0).unwrap();
    let event = json!({ "subject": "Invited", "attendees": [{ "emailAddress": { "address": "guest@elsewhere.example" } }],
        "start": { "dateTime": "2026-12-01T10:00:00", "timeZone": "UTC" },
        "end": { "dateTime": "2026-12-01T11:00:00", "timeZone": "UTC" } });
    person.create_in_outlook(&event).unwrap();
    let mails: Value = get("/mails").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&mails[0]["kind"], &mails[0]["recipients"]),
        (&json!("invitation"), &json!(["guest@elsewhere.example"]))
    );

    let fields = json!({ "Subject": "Call", "StartDateTime": "2026-12-01T09:00:00Z", "DurationInMinutes": 30 });
    let ids = [(); 2].map(|()| person.create_in_salesforce(fields.as_object().cloned().unwrap()).unwrap());
    let many = format!("/people/{}/salesforce/many", me.address);
    let moved = post(&many, json!({ "ids": ids, "update": { "Location": "Hall" }, "road": "flow" })).await.unwrap();
    assert_eq!(moved.status(), StatusCode::NO_CONTENT);
    assert!(sandbox.org().records().iter().all(|row| row["Location"] == "Hall"));
    let gone = post("/salesforce/flow", json!({ "ids": ids })).await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert!(sandbox.org().records().is_empty());
    assert_eq!(post(&many, json!({ "ids": ids })).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert!(sandbox.oracle().is_clean());
    sandbox.stop().await;
}
