use std::collections::BTreeMap;
use std::sync::OnceLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use proto::pub_sub_client::PubSubClient;
use proto::{FetchRequest, FetchResponse, ReplayPreset};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::super::org::OrgIdentity;
use super::*;
use crate::actor::Actor;
use crate::clock::SandboxClock;
use crate::oauth::salesforce::JwtKey;
use crate::options::Profile;
use crate::world::World;

const TOPIC: &str = "/data/EventChangeEvent";

#[derive(Clone)]
struct Headers {
    token: String,
    tenant: String,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("accesstoken", self.token.parse().unwrap());
        metadata.insert("instanceurl", "https://localhost:9".parse().unwrap());
        metadata.insert("tenantid", self.tenant.parse().unwrap());
        Ok(request)
    }
}

type Client = PubSubClient<InterceptedService<Channel, Headers>>;

struct Fixture {
    org: Arc<Org>,
    address: String,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn new_org(profile: Profile, speed: f64) -> Arc<Org> {
    static KEY: OnceLock<Arc<JwtKey>> = OnceLock::new();
    let key = Arc::clone(KEY.get_or_init(|| Arc::new(JwtKey::generate().unwrap())));
    let clock = SandboxClock::new("2026-11-20T12:00:00Z".parse().unwrap(), speed);
    let world = World::new(clock, profile, 7);
    let identity = OrgIdentity::draw(&world, key);
    Org::new(world, identity)
}

async fn fixture(profile: Profile, speed: f64) -> Fixture {
    let org = new_org(profile, speed);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(axum::serve(listener, router(Arc::clone(&org))).into_future());
    Fixture { org, address, server }
}

struct Stream {
    requests: mpsc::Sender<FetchRequest>,
    responses: Streaming<FetchResponse>,
}

impl Fixture {
    async fn client_with(&self, token: &str) -> Client {
        let channel = Channel::from_shared(self.address.clone()).unwrap().connect().await.unwrap();
        let tenant = self.org.identity.org_id.clone();
        PubSubClient::with_interceptor(channel, Headers { token: token.to_owned(), tenant })
    }

    async fn client(&self) -> Client {
        let token = self.org.issue_token("app", self.org.integration_user_id());
        self.client_with(&token).await
    }

    async fn subscribe(&self, preset: ReplayPreset, replay_id: &[u8], wanted: i32) -> Result<Stream, Status> {
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(fetch(TOPIC, preset, replay_id, wanted)).await.unwrap();
        let mut client = self.client().await;
        let responses = client.subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Stream { requests, responses })
    }

    fn create(&self, subject: &str) -> String {
        let fields = json!({
            "Subject": subject, "StartDateTime": "2026-11-20T17:00:00Z", "DurationInMinutes": 30, "Location": "Room",
        });
        self.org.create(&app(), Some("calbridge/1"), fields.as_object().unwrap()).unwrap()
    }

    fn update(&self, id: &str, fields: &Value) {
        self.org.update(&app(), Some("calbridge/1"), id, fields.as_object().unwrap()).unwrap();
    }

    async fn decode(&self, event: &proto::ConsumerEvent) -> BTreeMap<String, Avro> {
        let event = event.event.clone().unwrap();
        let request = proto::SchemaRequest { schema_id: event.schema_id };
        let info = self.client().await.get_schema(request).await.unwrap().into_inner();
        let schema = Schema::parse_str(&info.schema_json).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let Avro::Record(mut fields) = reader.read_value(&mut &*event.payload).unwrap() else { panic!("no record") };
        let Avro::Record(header) = fields.remove(0).1 else { panic!("no header") };
        header.into_iter().chain(fields).collect()
    }
}

impl Stream {
    /// Reads until `count` events have come; each response must name a place to resume from.
    async fn events(&mut self, count: usize) -> Vec<proto::ConsumerEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.responses.message().await.unwrap().unwrap();
            assert_eq!(response.latest_replay_id.len(), 10);
            events.extend(response.events);
        }
        events
    }
}

fn app() -> Actor {
    Actor::App("app".into())
}

fn fetch(topic: &str, preset: ReplayPreset, replay_id: &[u8], wanted: i32) -> FetchRequest {
    FetchRequest {
        topic_name: topic.into(),
        replay_preset: preset.into(),
        replay_id: replay_id.to_vec(),
        num_requested: wanted,
        auth_refresh: String::new(),
    }
}

fn text(value: &str) -> Avro {
    Avro::String(value.into())
}

fn some(value: Avro) -> Avro {
    Avro::Union(1, Box::new(value))
}

fn none() -> Avro {
    Avro::Union(0, Box::new(Avro::Null))
}

fn trailer(status: &Status, name: &str) -> String {
    status.metadata().get(name).unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_change_reaches_a_subscriber_with_header_values_and_bitmaps() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    let mut stream = fixture.subscribe(ReplayPreset::Latest, &[], 10).await.unwrap();
    let id = fixture.create("Review");
    fixture.update(&id, &json!({"Subject": "Moved", "Location": null, "EndDateTime": "2026-11-20T18:00:00Z"}));
    fixture.org.delete(&Actor::Person("nobody@example.com".into()), None, &id).unwrap();
    let events = stream.events(3).await;

    let created = fixture.decode(&events[0]).await;
    assert_eq!(created["changeType"], Avro::Enum(0, "CREATE".into()));
    assert_eq!(created["recordIds"], Avro::Array(vec![text(&id)]));
    assert_eq!(created["changeOrigin"], text("com/salesforce/api/rest/66.0;client=calbridge/1"));
    assert_eq!(created["commitUser"], text(fixture.org.integration_user_id()));
    assert_eq!(created["Subject"], some(text("Review")));
    assert_eq!(created["DurationInMinutes"], some(Avro::Int(30)));
    assert_eq!(created["ActivityDate"], some(Avro::Long(1_795_132_800_000)));
    assert_eq!(created["changedFields"], Avro::Array(vec![]));
    let Avro::Long(commit) = created["commitTimestamp"] else { panic!("no time") };
    assert_eq!(commit % 1000, 0);

    let updated = fixture.decode(&events[1]).await;
    assert_eq!(updated["changeType"], Avro::Enum(1, "UPDATE".into()));
    assert_eq!((&updated["Subject"], &updated["Location"]), (&some(text("Moved")), &none()));
    assert_eq!((&updated["DurationInMinutes"], &updated["ShowAs"]), (&some(Avro::Int(60)), &none()));
    assert!(!updated.contains_key("EndDateTime"));
    // Fields 3, 4 and 8 (Subject, Location, DurationInMinutes) and 20 (LastModifiedDate).
    assert_eq!(updated["changedFields"], Avro::Array(vec![text("0x100118")]));
    assert_eq!(updated["nulledFields"], Avro::Array(vec![text("0x10")]));

    let deleted = fixture.decode(&events[2]).await;
    assert_eq!(deleted["changeType"], Avro::Enum(2, "DELETE".into()));
    assert_eq!(deleted["Subject"], none());
    assert_eq!(deleted["changeOrigin"], text("com/salesforce/api/soap/66.0;client=SfdcInternalAPI/"));
}

#[tokio::test]
async fn credit_bounds_what_is_sent_and_a_new_request_adds_to_it() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    for number in 0..5 {
        fixture.create(&number.to_string());
    }
    let mut stream = fixture.subscribe(ReplayPreset::Earliest, &[], 3).await.unwrap();
    let mut seen = 0;
    let mut last = None;
    while seen < 3 {
        let response = stream.responses.message().await.unwrap().unwrap();
        seen += response.events.len();
        last = Some(response.pending_num_requested);
    }
    assert_eq!((seen, last), (3, Some(0)));
    stream.requests.send(fetch("", ReplayPreset::Latest, &[], 500)).await.unwrap();
    let response = stream.responses.message().await.unwrap().unwrap();
    assert_eq!(response.pending_num_requested + i32::try_from(response.events.len()).unwrap(), 100);
}

#[tokio::test]
async fn custom_resumes_after_a_replay_id_of_8_or_10_bytes() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    for subject in ["one", "two", "three"] {
        fixture.create(subject);
    }
    let events = fixture.subscribe(ReplayPreset::Earliest, &[], 10).await.unwrap().events(3).await;
    for length in [8, 10] {
        let id = &events[0].replay_id[..length];
        let mut stream = fixture.subscribe(ReplayPreset::Custom, id, 10).await.unwrap();
        let rest = stream.events(2).await;
        assert_eq!(fixture.decode(&rest[0]).await["Subject"], some(text("two")));
    }
}

#[tokio::test]
async fn wrong_requests_end_with_their_error_code_in_the_trailers() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    let expired = fixture.subscribe(ReplayPreset::Custom, &[0; 10], 1).await.map(|_| ()).unwrap_err();
    assert_eq!(expired.code(), Code::InvalidArgument);
    assert_eq!(trailer(&expired, "error-code"), "sfdc.platform.eventbus.grpc.subscription.fetch.replayid.corrupted");
    assert_eq!(trailer(&expired, "type"), "Subscribe");
    assert!(expired.message().ends_with(&format!("rpcId: {}", trailer(&expired, "rpc-id"))));
    for (preset, wanted, suffix) in [
        (ReplayPreset::Custom, 1, "subscription.fetch.replayid.validation.failed"),
        (ReplayPreset::Latest, 0, "subscription.fetch.requested.events.invalid"),
    ] {
        let status = fixture.subscribe(preset, &[], wanted).await.map(|_| ()).unwrap_err();
        assert!(trailer(&status, "error-code").ends_with(suffix), "{suffix}");
    }
    let mut client = fixture.client().await;
    let topic = client.get_topic(proto::TopicRequest { topic_name: "/data/NoChangeEvent".into() }).await.unwrap_err();
    assert!(trailer(&topic, "error-code").ends_with("topic.not.found"));
    let schema = client.get_schema(proto::SchemaRequest { schema_id: "none".into() }).await.unwrap_err();
    assert!(trailer(&schema, "error-code").ends_with("schema.validation.failed"));
    let publish = proto::PublishRequest { topic_name: TOPIC.into(), ..proto::PublishRequest::default() };
    assert_eq!(client.publish(publish).await.unwrap_err().code(), Code::PermissionDenied);
    let mut stranger = fixture.client_with("wrong").await;
    let refused = stranger.get_topic(proto::TopicRequest { topic_name: TOPIC.into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(trailer(&refused, "error-code").ends_with("service.auth.error"));
}

#[tokio::test]
async fn another_topic_on_an_open_stream_ends_it() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    let mut stream = fixture.subscribe(ReplayPreset::Latest, &[], 1).await.unwrap();
    stream.requests.send(fetch("/data/ChangeEvents", ReplayPreset::Latest, &[], 1)).await.unwrap();
    let status = stream.responses.message().await.unwrap_err();
    assert!(trailer(&status, "error-code").ends_with("subscription.fetch.topic.mismatch"));
}

#[tokio::test]
async fn a_revoked_token_ends_the_stream_at_the_next_request() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    let mut stream = fixture.subscribe(ReplayPreset::Latest, &[], 1).await.unwrap();
    fixture.org.world.faults.change(|switches| switches.salesforce_revoke_tokens = true);
    stream.requests.send(fetch("", ReplayPreset::Latest, &[], 1)).await.unwrap();
    assert_eq!(stream.responses.message().await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_an_idle_one_is_closed() {
    // 270 sandbox seconds are 54 ms here.
    let fixture = fixture(Profile::Quiet, 5_000.0).await;
    let mut quiet = fixture.subscribe(ReplayPreset::Latest, &[], 1).await.unwrap();
    let alive = quiet.responses.message().await.unwrap().unwrap();
    assert_eq!((alive.events.len(), alive.pending_num_requested), (0, 1));
    let mut resumed = fixture.subscribe(ReplayPreset::Custom, &alive.latest_replay_id, 1).await.unwrap();
    fixture.create("Review");
    assert_eq!(resumed.events(1).await.len(), 1);
    // The credit is used up and nothing is asked for: the server closes without an error.
    assert!(resumed.responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn switches_repeat_events_drop_them_and_end_streams() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    fixture.org.world.faults.change(|switches| {
        switches.salesforce_duplicate_next = 1;
        switches.salesforce_drop_next = 1;
    });
    fixture.create("lost");
    fixture.create("repeated");
    let mut stream = fixture.subscribe(ReplayPreset::Earliest, &[], 10).await.unwrap();
    let events = stream.events(2).await;
    assert_eq!(events[0], events[1]);
    assert_eq!(fixture.decode(&events[0]).await["Subject"], some(text("repeated")));

    fixture.org.world.faults.change(|switches| switches.salesforce_end_stream_next = 1);
    let mut ending = fixture.subscribe(ReplayPreset::Earliest, &[], 10).await.unwrap();
    assert!(ending.responses.message().await.unwrap().is_some());
    assert!(ending.responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_schema_change_shows_in_later_events_only() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    fixture.create("before");
    fixture.org.world.faults.change(|switches| switches.salesforce_token_field = false);
    fixture.create("after");
    let events = fixture.subscribe(ReplayPreset::Earliest, &[], 10).await.unwrap().events(2).await;
    assert!(fixture.decode(&events[0]).await.contains_key("Calbridge_Token__c"));
    assert!(!fixture.decode(&events[1]).await.contains_key("Calbridge_Token__c"));
}

#[tokio::test]
async fn gaps_carry_a_header_only_and_forgotten_ids_are_corrupted() {
    let fixture = fixture(Profile::Quiet, 1.0).await;
    let id = fixture.create("Review");
    fixture.org.publish_gap(Some(&id));
    fixture.org.publish_gap(None);
    let events = fixture.subscribe(ReplayPreset::Earliest, &[], 10).await.unwrap().events(3).await;
    let gap = fixture.decode(&events[1]).await;
    assert_eq!((&gap["changeType"], &gap["Subject"]), (&Avro::Enum(5, "GAP_UPDATE".into()), &none()));
    assert_eq!(fixture.decode(&events[2]).await["recordIds"], Avro::Array(vec![text("000000000000000AAA")]));
    fixture.org.forget_change_events();
    let status = fixture.subscribe(ReplayPreset::Custom, &events[2].replay_id, 1).await.map(|_| ()).unwrap_err();
    assert!(trailer(&status, "error-code").ends_with("replayid.corrupted"));
}

#[tokio::test]
async fn office_automation_follows_up_people_and_stops_with_the_org() {
    let fixture = fixture(Profile::Office, 2_000.0).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&fixture.org).run(stop.clone()));
    let person = Actor::Person("nobody@example.com".into());
    let mut effects = fixture.org.world.history.watch();
    for number in 0..40 {
        let fields = json!({
            "Subject": number.to_string(), "StartDateTime": "2026-11-20T17:00:00Z", "DurationInMinutes": 30,
        });
        fixture.org.create(&person, None, fields.as_object().unwrap()).unwrap();
    }
    let touched = || {
        let effects = fixture.org.world.history.since(0);
        effects.into_iter().find(|effect| matches!(&effect.actor, Actor::Automation(_)))
    };
    while touched().is_none() {
        effects.changed().await.unwrap();
    }
    let touch = touched().unwrap();
    assert_eq!(touch.kind, crate::history::EffectKind::Touch);
    assert!(touch.changed.is_empty());
    let mut stream = fixture.subscribe(ReplayPreset::Latest, &[], 100).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    let status = loop {
        match stream.responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
}
