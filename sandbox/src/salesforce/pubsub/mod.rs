//! The Pub/Sub API: topics, schemas and subscriptions over gRPC.
//!
//! <https://developer.salesforce.com/docs/platform/pub-sub-api/guide/pub-sub-api-intro.html>.
//! Publishing and managed subscriptions are refused with proper error codes: an org's change events come from its own
//! transactions only.

mod status;
mod subscription;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use calbridge_pubsub_proto as proto;
use futures::Stream;
use proto::pub_sub_server::{PubSub, PubSubServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use self::status::{Fault, Rpc};
use self::subscription::{Subscription, Topic};
use super::ids;
use super::org::Org;
use crate::faults::Strike;

/// How long a client may take to send its first request.
const FIRST_REQUEST: Duration = Duration::from_mins(1);
/// Responses that wait for a slow reader before the server waits too.
const BUFFERED: usize = 16;

/// Returns the Pub/Sub API of an org, to be served over HTTP/2.
pub fn router(org: Arc<Org>) -> axum::Router {
    Routes::new(PubSubServer::new(Service { org })).into_axum_router()
}

#[derive(Debug)]
struct Service {
    org: Arc<Org>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// Checks the three metadata entries of every call; returns the access token.
    fn authorise(&self, metadata: &MetadataMap, rpc: &Rpc) -> Result<String, Status> {
        let entry = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (token, instance, tenant) = (entry("accesstoken"), entry("instanceurl"), entry("tenantid"));
        if token.is_empty() || !instance.starts_with("http") || tenant.is_empty() {
            return Err(rpc.fail(Fault::AuthHeaders));
        }
        let session = self.org.session(token);
        let caller = session.as_ref().map_or("anonymous", |session| session.client_id.as_str());
        self.org.world.meters.call(caller, rpc.kind);
        // Some clients send a tenant path such as `core/prod/<org id>`.
        let tenant = tenant.rsplit('/').next().and_then(ids::normalise);
        if session.is_none() || tenant.as_deref() != Some(self.org.identity.org_id.as_str()) {
            return Err(rpc.fail(Fault::Auth));
        }
        Ok(token.to_owned())
    }

    fn rpc(&self, name: &'static str, kind: &'static str) -> Rpc {
        Rpc::new(&self.org.world, name, kind)
    }
}

#[tonic::async_trait]
impl PubSub for Service {
    type SubscribeStream = Answers<proto::FetchResponse>;
    type PublishStreamStream = Answers<proto::PublishResponse>;
    type ManagedSubscribeStream = Answers<proto::ManagedFetchResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::FetchRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let rpc = self.rpc("Subscribe", "pubsub.subscribe");
        let token = self.authorise(request.metadata(), &rpc)?;
        let mut requests = request.into_inner();
        // The position is fixed before the response headers go out: whoever has them misses nothing published later.
        let first = tokio::select! {
            first = requests.message() => first?,
            () = self.org.world.clock.sleep(FIRST_REQUEST) => None,
        };
        let Some(first) = first else {
            return Err(rpc.fail(Fault::FetchRequest));
        };
        let (sender, receiver) = mpsc::channel(BUFFERED);
        let subscription = Subscription::open(Arc::clone(&self.org), rpc, token, &first, sender)?;
        tokio::spawn(subscription.run(requests));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_schema(&self, request: Request<proto::SchemaRequest>) -> Result<Response<proto::SchemaInfo>, Status> {
        let rpc = self.rpc("GetSchema", "pubsub.get_schema");
        self.authorise(request.metadata(), &rpc)?;
        let schema_id = request.into_inner().schema_id;
        let world = &self.org.world;
        if world.strikes(Strike::SalesforceSchemaUnavailable) {
            return Err(rpc.fail(Fault::Unavailable));
        }
        if world.strikes(Strike::SalesforceSchemaSilent) {
            self.org.closing.cancelled().await;
            return Err(rpc.fail(Fault::Unavailable));
        }
        let schema_json = self.org.schema_text(&schema_id).ok_or_else(|| rpc.fail(Fault::UnknownSchema))?;
        Ok(Response::new(proto::SchemaInfo { schema_json, schema_id, rpc_id: rpc.id }))
    }

    async fn get_topic(&self, request: Request<proto::TopicRequest>) -> Result<Response<proto::TopicInfo>, Status> {
        let rpc = self.rpc("GetTopic", "pubsub.get_topic");
        self.authorise(request.metadata(), &rpc)?;
        let name = request.into_inner().topic_name;
        let topic = Topic::named(&name).map_err(|fault| rpc.fail(fault))?;
        let switches = self.org.world.faults.read();
        let info = proto::TopicInfo {
            topic_name: name,
            tenant_guid: format!("core/prod/{}", self.org.identity.org_id),
            can_publish: false,
            can_subscribe: true,
            // A channel of several objects has no one schema.
            schema_id: topic
                .object()
                .map(|object| self.org.event_schema(object, &switches).id.clone())
                .unwrap_or_default(),
            rpc_id: rpc.id,
        };
        Ok(Response::new(info))
    }

    async fn publish(
        &self,
        request: Request<proto::PublishRequest>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let rpc = self.rpc("Publish", "pubsub.publish");
        self.authorise(request.metadata(), &rpc)?;
        Err(rpc.fail(cannot_publish(&request.into_inner().topic_name)))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<proto::PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let rpc = self.rpc("PublishStream", "pubsub.publish");
        self.authorise(request.metadata(), &rpc)?;
        let first = request.into_inner().message().await?;
        Err(rpc.fail(cannot_publish(&first.map(|request| request.topic_name).unwrap_or_default())))
    }

    async fn managed_subscribe(
        &self,
        request: Request<Streaming<proto::ManagedFetchRequest>>,
    ) -> Result<Response<Self::ManagedSubscribeStream>, Status> {
        let rpc = self.rpc("ManagedSubscribe", "pubsub.managed_subscribe");
        self.authorise(request.metadata(), &rpc)?;
        Err(rpc.fail(Fault::NoManagedSubscription))
    }
}

fn cannot_publish(topic: &str) -> Fault {
    Topic::named(topic).map_or_else(|fault| fault, |_| Fault::TopicPermission)
}
