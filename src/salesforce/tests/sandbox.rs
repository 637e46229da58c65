//! The adapter against the local sandbox, over real sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use calbridge_core::case::{Answer, Lookup};
use calbridge_core::ids::{ConnectionId, LinkId, RecordId, SalesforceId, WriteToken};
use calbridge_core::link::{Action, Home, Intent};
use calbridge_core::observed::{Evidence, Observed, Snapshot, Stamp};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::signal::{Change, SignalCause, Target};
use calbridge_core::value::{Fields, Value, When};
use calbridge_core::written::WriteResult;
use calbridge_sandbox::{Options, Sandbox};
use chrono::DateTime;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::pubsub::{ChangeEvents, ReadCheckpoint};
use super::super::settings::{Grant, Settings};
use super::super::{Client, SalesforceCalendar, StampFields};
use super::stand_in::{clock, limits};
use crate::http::{HttpOptions, client};
use crate::ports::{Batch, Calendar, ListenError, Listener};
use crate::secret::Secret;

/// A running listener: its task, readiness, stop and what it hands over.
type Listening = (JoinHandle<Result<(), ListenError>>, watch::Receiver<bool>, CancellationToken, mpsc::Receiver<Batch>);

struct Rig {
    sandbox: Sandbox,
    settings: Settings,
    client: Arc<Client>,
    calendar: SalesforceCalendar,
}

impl Rig {
    async fn start() -> Self {
        Self::with_grant(|sandbox| {
            let salesforce = &sandbox.endpoints().salesforce;
            Grant::ClientCredentials {
                client_id: salesforce.client_id.clone(),
                client_secret: SecretString::from(salesforce.client_secret.as_str()).into(),
            }
        })
        .await
    }

    async fn with_grant(grant: impl FnOnce(&Sandbox) -> Grant) -> Self {
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let endpoints = sandbox.endpoints().clone();
        let fields = ["time", "Subject", "Location", "Description", "ShowAs"].map(str::to_owned).to_vec();
        let ca_file = Some(PathBuf::from(&endpoints.ca_certificate));
        let mut settings =
            Settings::new(ConnectionId::new("c"), &endpoints.salesforce.login_https, grant(&sandbox), fields);
        settings.pubsub.endpoint.clone_from(&endpoints.salesforce.pubsub);
        settings.pubsub.ca_file.clone_from(&ca_file);
        settings.pubsub.settle = Duration::from_millis(1);
        settings.pubsub.retry_min = Duration::from_millis(1);
        settings.short_pause = Duration::from_millis(1);
        settings.long_pause = Duration::from_millis(1);
        let http = client(&HttpOptions { timeout: Duration::from_secs(10), ca_file }).unwrap();
        let client = Client::new(http, clock(), limits(), &settings).unwrap();
        let calendar = SalesforceCalendar::new(Arc::clone(&client), clock(), &settings).unwrap();
        Self { sandbox, settings, client, calendar }
    }

    fn listen(&self, stored: Option<String>) -> Listening {
        let checkpoint: ReadCheckpoint = Box::new(move || {
            let stored = stored.clone();
            Box::pin(async move { Ok(stored) })
        });
        let events = ChangeEvents::starting_from(Arc::clone(&self.client), checkpoint, clock(), &self.settings);
        let ready = events.ready();
        let stop = CancellationToken::new();
        let (out, batches) = mpsc::channel(16);
        (tokio::spawn(Box::new(events).run(out, stop.clone())), ready, stop, batches)
    }

    fn owner(&self) -> String {
        self.sandbox.endpoints().mailboxes[0].salesforce_user_id.clone()
    }

    fn create(&self, n: u128) -> Intent {
        intent(n, Action::Create(Home::Owner(self.owner())), timed("2026-12-01T09:00:00Z", "2026-12-01T09:30:00Z"))
    }

    async fn made(&self, n: u128) -> RecordId {
        match self.calendar.write(&[self.create(n)]).await.remove(0) {
            WriteResult::Applied { record, .. } => record,
            other => panic!("{other:?}"),
        }
    }

    async fn present(&self, record: &RecordId) -> Snapshot {
        match self.calendar.fetch(std::slice::from_ref(record)).await.remove(0) {
            Observed::Present(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    }
}

fn timed(start: &str, end: &str) -> When {
    When::Timed { start: start.parse().unwrap(), end: end.parse().unwrap(), zone: None }
}

fn intent(n: u128, action: Action, when: When) -> Intent {
    let link = LinkId::new(Uuid::from_u128(n));
    Intent {
        token: WriteToken::new(Uuid::from_u128(1000 + n)),
        link,
        side: Side::Salesforce,
        action,
        fields: Fields::from([
            ("Subject".to_owned(), Value::text(format!("subject {n}"))),
            ("Location".to_owned(), Value::Null),
            ("time".to_owned(), Value::When(when)),
        ]),
        agreed: std::collections::BTreeMap::default(),
        replaced: Fields::new(),
        expected: None,
        stamp: Stamp { link, partner: String::new(), token: Some(WriteToken::new(Uuid::from_u128(1000 + n))) },
        recorded_at: DateTime::UNIX_EPOCH,
        send_by: DateTime::<chrono::Utc>::MAX_UTC,
        give_up_at: DateTime::UNIX_EPOCH,
        sends: 1,
        mails: 0,
        unexplained: false,
        reason: Reason::Created,
    }
}

#[tokio::test]
async fn check_finds_everything_in_order_or_says_what_to_create() {
    let rig = Rig::start().await;
    let findings = rig.calendar.check().await;
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.what.ends_with("change events")));
    let all = StampFields { link: true, link_unique: true, token: true };
    assert_eq!(rig.calendar.stamp_fields().await.unwrap(), all);
    rig.sandbox.world().faults.change(|switches| switches.salesforce_token_field = false);
    let findings = rig.calendar.check().await;
    let missing: Vec<_> = findings.iter().filter(|finding| !finding.ok).collect();
    assert!(missing.len() == 1 && missing[0].what.ends_with("Calbridge_Token__c"), "{missing:?}");
    let names = [rig.sandbox.endpoints().mailboxes[0].address.clone(), "nobody@nowhere.example".to_owned()];
    let accounts = rig.calendar.accounts(&names).await.unwrap();
    assert_eq!(accounts[0].as_ref().unwrap().id, rig.owner());
    assert_eq!(accounts[1], None);
    rig.sandbox.stop().await;
}

#[tokio::test]
async fn a_key_pair_signs_in_too() {
    let rig = Rig::with_grant(|sandbox| {
        let salesforce = &sandbox.endpoints().salesforce;
        Grant::JwtBearer {
            client_id: salesforce.client_id.clone(),
            username: salesforce.username.clone(),
            private_key_pem: SecretString::from(std::fs::read_to_string(&salesforce.jwt_key_file).unwrap()).into(),
            audience: None,
        }
    })
    .await;
    let session = rig.client.session().await.unwrap();
    assert_eq!(session.org().as_str(), rig.sandbox.endpoints().salesforce.org_id);
    rig.sandbox.stop().await;
}

#[tokio::test]
async fn a_key_that_changed_in_its_file_is_tried_before_giving_up() {
    let rig = Rig::with_grant(|sandbox| {
        let salesforce = &sandbox.endpoints().salesforce;
        let before = calbridge_sandbox::oauth::salesforce::JwtKey::generate().unwrap();
        Grant::JwtBearer {
            client_id: salesforce.client_id.clone(),
            username: salesforce.username.clone(),
            private_key_pem: Secret::in_file(
                SecretString::from(before.private_pem()),
                PathBuf::from(&salesforce.jwt_key_file),
            ),
            audience: None,
        }
    })
    .await;
    let session = rig.client.session().await.unwrap();
    assert_eq!(session.org().as_str(), rig.sandbox.endpoints().salesforce.org_id);
    rig.sandbox.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_is_refused_with_the_oauth_error() {
    let rig = Rig::with_grant(|sandbox| Grant::ClientCredentials {
        client_id: sandbox.endpoints().salesforce.client_id.clone(),
        client_secret: SecretString::from("wrong").into(),
    })
    .await;
    let findings = rig.calendar.check().await;
    assert_eq!((findings.len(), findings[0].code), (1, Some("CB1354")));
    assert!(findings[0].detail.contains("invalid_client"), "{findings:?}");
    rig.sandbox.stop().await;
}

#[tokio::test]
async fn rows_are_created_once_changed_and_deleted() {
    let rig = Rig::start().await;
    let record = rig.made(1).await;
    let again = rig.calendar.write(&[rig.create(1)]).await;
    assert!(matches!(again[0], WriteResult::AlreadyExists(_)), "{again:?}");
    let snapshot = rig.present(&record).await;
    assert_eq!(snapshot.fields["Subject"], Value::text("subject 1"));
    assert_eq!(snapshot.traits.owner, Some(rig.owner()));
    let stamp = snapshot.stamp.clone().unwrap();
    assert_eq!(stamp.token, Some(WriteToken::new(Uuid::from_u128(1001))));

    let days = When::AllDay { first: "2026-12-03".parse().unwrap(), last: "2026-12-04".parse().unwrap() };
    let mut change = intent(2, Action::Update(record.clone()), days.clone());
    change.expected = Some(snapshot.version.clone());
    change.link = stamp.link;
    let results = rig.calendar.write(&[change]).await;
    assert!(matches!(results[0], WriteResult::Applied { .. }), "{results:?}");
    let changed = rig.present(&record).await;
    assert_eq!(changed.fields["time"], Value::When(days));
    assert_eq!(changed.stamp.unwrap().link, stamp.link);

    let back = timed("2026-12-05T10:00:00Z", "2026-12-05T10:45:00Z");
    let results = rig.calendar.write(&[intent(3, Action::Update(record.clone()), back.clone())]).await;
    assert!(matches!(results[0], WriteResult::Applied { .. }), "{results:?}");
    assert_eq!(rig.present(&record).await.fields["time"], Value::When(back));

    let results = rig
        .calendar
        .write(&[intent(4, Action::Delete(record.clone()), timed("2026-12-05T10:00:00Z", "2026-12-05T10:45:00Z"))])
        .await;
    assert!(matches!(results[0], WriteResult::Applied { .. }), "{results:?}");
    let never = RecordId::Salesforce(SalesforceId::parse("00U000000000ZZZ").unwrap());
    let seen = rig.calendar.fetch(&[record.clone(), never]).await;
    assert_eq!(seen, [Observed::Absent(Evidence::Deleted), Observed::Absent(Evidence::NotFound)]);
    let results = rig
        .calendar
        .write(&[intent(5, Action::Delete(record), timed("2026-12-05T10:00:00Z", "2026-12-05T10:45:00Z"))])
        .await;
    assert!(matches!(results[0], WriteResult::Gone(_)), "{results:?}");
    rig.sandbox.stop().await;
}

#[tokio::test]
async fn batches_take_few_calls_and_answer_row_by_row() {
    let rig = Rig::start().await;
    let taken = rig.made(1).await;
    let writes = [
        rig.create(2),
        rig.create(1),
        rig.create(3),
        intent(1, Action::Update(taken.clone()), timed("2026-12-01T11:00:00Z", "2026-12-01T11:30:00Z")),
    ];
    let results = rig.calendar.write(&writes).await;
    assert!(matches!(results[0], WriteResult::Applied { .. }), "{results:?}");
    assert!(matches!(results[1], WriteResult::AlreadyExists(_)), "{results:?}");
    assert!(matches!(results[2], WriteResult::Applied { .. }), "{results:?}");
    assert!(matches!(results[3], WriteResult::Applied { .. }), "{results:?}");
    let page = rig.calendar.list(None, None).await.unwrap();
    assert_eq!(page.records.len(), 3);
    let resumed = rig.calendar.list(None, page.resume.as_deref()).await.unwrap();
    assert_eq!(resumed.records.len(), 3, "the overlap lists them again");
    let stamped = Lookup::Stamped { side: Side::Salesforce, link: LinkId::new(Uuid::from_u128(1)), mailbox: None };
    let enrolment = calbridge_core::case::Enrolment {
        mailbox: calbridge_core::ids::MailboxId::new("m"),
        user: SalesforceId::parse(&rig.owner()).unwrap(),
        enrolled_at: DateTime::UNIX_EPOCH,
    };
    let person = rig.sandbox.person_number(0).unwrap();
    let own = serde_json::json!({ "Subject": "own", "StartDateTime": "2026-12-01T09:00:00Z", "DurationInMinutes": 30 });
    let own = person.create_in_salesforce(own.as_object().unwrap().clone()).unwrap();
    let candidates =
        Lookup::candidates(Side::Salesforce, &enrolment, &timed("2026-12-01T09:00:00Z", "2026-12-01T09:30:00Z"));
    let answers = rig.calendar.search(&[stamped, candidates]).await;
    assert!(matches!(&answers[0], Answer::Found(found) if found.len() == 1 && found[0].0 == taken), "{answers:?}");
    let own = RecordId::Salesforce(SalesforceId::parse(&own).unwrap());
    assert!(matches!(&answers[1], Answer::Found(found) if found.len() == 1 && found[0].0 == own), "{answers:?}");
    rig.sandbox.stop().await;
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_stamp_tells_later() {
    let rig = Rig::start().await;
    rig.calendar.stamp_fields().await.unwrap();
    rig.sandbox.world().faults.change(|switches| switches.salesforce_cut_answer_next = 1);
    let results = rig.calendar.write(&[rig.create(1)]).await;
    assert!(matches!(results[0], WriteResult::Unknown(_)), "{results:?}");
    let stamped = Lookup::Stamped { side: Side::Salesforce, link: LinkId::new(Uuid::from_u128(1)), mailbox: None };
    let answers = rig.calendar.search(&[stamped]).await;
    assert!(matches!(&answers[0], Answer::Found(found) if found.len() == 1), "{answers:?}");
    let faults = &rig.sandbox.world().faults;
    for expected in ["CB1357", "CB1356", "CB1353"] {
        faults.change(|switches| match expected {
            "CB1357" => switches.salesforce_lock_next = 1,
            "CB1356" => switches.salesforce_limit_next = 1,
            _ => switches.salesforce_unavailable_next = 1,
        });
        let mut result = rig.calendar.write(&[rig.create(2)]).await.remove(0);
        // What the fault before left behind is a pause of a millisecond.
        while matches!(&result, WriteResult::NotNow(why) if why.message.contains("pause")) {
            tokio::task::yield_now().await;
            result = rig.calendar.write(&[rig.create(2)]).await.remove(0);
        }
        // Only an outage may have struck behind the effect.
        let certain = matches!(&result, WriteResult::NotNow(why) if why.code == expected);
        let unknown = matches!(&result, WriteResult::Unknown(why) if why.code == expected);
        assert!(if expected == "CB1353" { unknown } else { certain }, "{result:?}");
    }
    faults.change(|switches| switches.salesforce_revoke_tokens = true);
    let mut result = rig.calendar.write(&[rig.create(3)]).await.remove(0);
    while matches!(&result, WriteResult::NotNow(why) if why.message.contains("pause")) {
        tokio::task::yield_now().await;
        result = rig.calendar.write(&[rig.create(3)]).await.remove(0);
    }
    assert!(matches!(result, WriteResult::Applied { .. }), "{result:?}");
    rig.sandbox.stop().await;
}

async fn next_signal(batches: &mut mpsc::Receiver<Batch>) -> (calbridge_core::signal::Signal, String) {
    loop {
        let batch = batches.recv().await.expect("the listener runs");
        let position = batch.positions.first().map(|position| position.value.clone());
        let signal = batch.signals.into_iter().find(|signal| signal.target != Target::Org);
        batch.receipt.done();
        if let (Some(signal), Some(position)) = (signal, position) {
            return (signal, position);
        }
    }
}

#[tokio::test]
async fn changes_arrive_over_tls_and_a_restart_goes_on_where_it_stopped() {
    let rig = Rig::start().await;
    let (task, mut ready, stop, mut batches) = rig.listen(None);
    ready.wait_for(|ready| *ready).await.unwrap();
    let person = rig.sandbox.person_number(0).unwrap();
    let row = serde_json::json!({ "Subject": "a", "StartDateTime": "2026-12-01T09:00:00Z", "DurationInMinutes": 30 });
    let id = person.create_in_salesforce(row.as_object().unwrap().clone()).unwrap();
    let (signal, _) = next_signal(&mut batches).await;
    assert_eq!(signal.change, Change::Created);
    assert!(matches!(&signal.target, Target::Record(record) if record.remote_id() == id));
    rig.sandbox.world().faults.change(|switches| switches.salesforce_revoke_tokens = true);
    let record = rig.made(7).await;
    let (signal, position) = next_signal(&mut batches).await;
    assert!(matches!(&signal.target, Target::Record(target) if *target == record));
    let facts = signal.facts.unwrap();
    assert!(facts.origin.contains("client=calbridge/1"), "{facts:?}");
    assert_eq!(facts.token, Some(WriteToken::new(Uuid::from_u128(1007))));
    stop.cancel();
    task.await.unwrap().unwrap();

    let change = serde_json::json!({ "Subject": "b" });
    person.update_in_salesforce(&id, change.as_object().unwrap()).unwrap();
    rig.sandbox.world().faults.change(|switches| switches.salesforce_end_stream_next = 1);
    let (task, _ready, stop, mut batches) = rig.listen(Some(position));
    let (signal, _) = next_signal(&mut batches).await;
    assert_eq!(signal.change, Change::Updated);
    assert!(signal.facts.unwrap().changed.contains("Subject"));
    person.delete_in_salesforce(&id).unwrap();
    let (signal, _) = next_signal(&mut batches).await;
    assert_eq!(signal.change, Change::Deleted);
    stop.cancel();
    task.await.unwrap().unwrap();
    rig.sandbox.stop().await;
}

#[tokio::test]
async fn gaps_and_a_forgotten_place_ask_for_another_look() {
    let rig = Rig::start().await;
    let record = rig.made(1).await;
    let (task, mut ready, stop, mut batches) = rig.listen(None);
    ready.wait_for(|ready| *ready).await.unwrap();
    rig.sandbox.org().publish_gap(Some(record.remote_id()));
    let (signal, position) = next_signal(&mut batches).await;
    assert_eq!((signal.cause, &signal.target), (SignalCause::Gap, &Target::Record(record.clone())));
    rig.sandbox.org().publish_gap(None);
    let overflow = batches.recv().await.unwrap();
    assert_eq!((overflow.signals[0].cause, &overflow.signals[0].target), (SignalCause::Gap, &Target::Org));
    overflow.receipt.done();
    stop.cancel();
    task.await.unwrap().unwrap();

    rig.sandbox.org().forget_change_events();
    let (task, _ready, stop, mut batches) = rig.listen(Some(position));
    let lost = batches.recv().await.unwrap();
    assert_eq!((lost.signals[0].cause, &lost.signals[0].target), (SignalCause::Gap, &Target::Org));
    let made = rig.made(2).await;
    let (signal, _) = next_signal(&mut batches).await;
    assert_eq!(signal.target, Target::Record(made));
    stop.cancel();
    task.await.unwrap().unwrap();
    rig.sandbox.stop().await;
}
