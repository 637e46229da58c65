//! Reaching the Pub/Sub API: address, TLS, and the three headers that carry the session.
//!
//! Headers: <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/supported-auth.html>.

use calbridge_core::side::Side;
use calbridge_pubsub_proto::TopicRequest;
use calbridge_pubsub_proto::pub_sub_client::PubSubClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::super::auth::Session;
use super::super::client::Client;
use super::super::settings::{PubSubSettings, SettingsError, trusted_base};
use super::verdict::{self, Verdict};
use crate::ports::{RemoteError, Retry};

/// Largest answer taken: 100 events of 1 MB, the most that credit and the event size allow, and some room.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// How often a quiet connection is tested by an HTTP/2 ping; found dead, the stream is opened anew.
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(30);

pub(super) type Stub = PubSubClient<Channel>;

/// Prepares a connection; it is made by the first call.
pub(super) fn open(settings: &PubSubSettings) -> Result<Stub, SettingsError> {
    let plain = settings.endpoint.starts_with("http://");
    let address = if plain {
        settings.endpoint.clone()
    } else {
        format!("https://{}", settings.endpoint.trim_start_matches("https://"))
    };
    let refuse = |why| SettingsError::Address { url: settings.endpoint.clone(), why };
    let url = trusted_base(&address)?;
    let mut endpoint = Endpoint::from_shared(address)
        .map_err(|_no_address| refuse("give it as `HOST:PORT`"))?
        .connect_timeout(settings.timeout)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(settings.timeout)
        .keep_alive_while_idle(true);
    if !plain {
        let host = url.host_str().unwrap_or_default();
        let mut tls =
            ClientTlsConfig::new().with_enabled_roots().domain_name(settings.tls_name.as_deref().unwrap_or(host));
        if let Some(path) = &settings.ca_file {
            let pem = std::fs::read(path)
                .map_err(|error| SettingsError::CaFile { path: path.display().to_string(), why: error.to_string() })?;
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        endpoint = endpoint.tls_config(tls).map_err(|error| match &settings.ca_file {
            Some(path) => SettingsError::CaFile { path: path.display().to_string(), why: error.to_string() },
            None => refuse("TLS cannot be set up for it"),
        })?;
    }
    Ok(PubSubClient::new(endpoint.connect_lazy()).max_decoding_message_size(MAX_ANSWER))
}

/// Adds the session to a request.
pub(super) fn authorised<T>(message: T, session: &Session) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let values = [
        ("accesstoken", session.token()),
        ("instanceurl", session.instance_url()),
        ("tenantid", session.org().as_str()),
    ];
    for (name, value) in values {
        let mut value = AsciiMetadataValue::try_from(value)
            .map_err(|_not_ascii| Status::internal("the session cannot be sent as a header"))?;
        value.set_sensitive(true);
        request.metadata_mut().insert(name, value);
    }
    Ok(request)
}

/// Asks whether the topic may be subscribed to; returns its name.
pub(in super::super) async fn probe(client: &Client, settings: &PubSubSettings) -> Result<String, RemoteError> {
    let failed = |code, message: String| RemoteError { code, message, retry: Retry::Never, side: Side::Salesforce };
    let session = client.session().await?;
    let mut stub = open(settings).map_err(|error| failed("CB1451", error.to_string()))?;
    let topic = settings.topic.clone();
    let asked = async {
        let request = authorised(TopicRequest { topic_name: topic }, &session)?;
        stub.get_topic(request).await
    };
    let answer = tokio::time::timeout(settings.timeout, asked)
        .await
        .unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no answer in time")));
    match answer {
        Ok(answer) if answer.get_ref().can_subscribe => Ok(answer.into_inner().topic_name),
        Ok(_) => Err(failed(
            "CB1451",
            format!(
                "the integration user may not subscribe to `{}`; give it `View All Data` and select Event in Change Data \
                 Capture",
                settings.topic
            ),
        )),
        Err(status) => Err(match verdict::of(&status) {
            Verdict::Fatal(message) => failed("CB1451", message),
            _ => failed("CB1450", verdict::words(&status)),
        }),
    }
}
