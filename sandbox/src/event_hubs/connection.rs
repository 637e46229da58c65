//! One client's connection: its sessions, and which task serves each link that it attaches.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fe2o3_amqp::acceptor::{
    ConnectionAcceptor, LinkAcceptor, LinkEndpoint, ListenerConnectionHandle, ListenerSessionHandle, SessionAcceptor,
    SupportedReceiverSettleModes,
};
use fe2o3_amqp_types::definitions::{AmqpError, ConnectionError, Error, Fields, Role};
use fe2o3_amqp_types::messaging::{Source, Target, TargetArchetype};
use fe2o3_amqp_types::performatives::Attach;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::{self, BadFilter, Node, Start};
use super::handle::{ConnectionSeat, ReaderSeat, ReaderView, custom};
use super::links::{self, Replies, ReplySeat};
use super::log::HubLog;
use super::tokens::{Grants, Sasl};
use super::{HubAccess, wire};

/// Largest frame taken, in bytes.
const MAX_FRAME: u32 = 65_536;

/// Largest message taken, in bytes; clients size their batches by it.
const MAX_MESSAGE: u64 = 1_048_576;

/// Highest channel number.
const CHANNEL_MAX: u16 = 4_999;

/// Highest link handle of a session; must be given, since pyamqp compares with it.
const HANDLE_MAX: u32 = 1_023;

/// Silence after which a client is taken for dead, in milliseconds; the service's own figure.
const IDLE_MILLIS: u32 = 240_000;

/// How long a client may take to open, and to answer a close.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);

/// How often the tokens behind open links are looked at again.
const TOKEN_CHECK: Duration = Duration::from_secs(1);

/// What the links of a connection share.
#[derive(Clone)]
struct Context {
    log: Arc<HubLog>,
    access: Arc<HubAccess>,
    grants: Arc<Grants>,
    connection: u64,
    gone: CancellationToken,
    tasks: TaskTracker,
}

/// Serves one client until it leaves, is cut off, or the server stops.
pub(super) async fn serve<S>(stream: S, log: Arc<HubLog>, access: Arc<HubAccess>, seat: ConnectionSeat)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (near, far) = tokio::io::duplex(wire::BUFFER);
    let tasks = TaskTracker::new();
    // Ends the links' tasks whichever way this function is left.
    let gone = CancellationToken::new();
    let _ends_links = gone.clone().drop_guard();
    tasks.spawn(wire::relay(stream, far, access.latency, seat.cut.clone()));
    let signed_in = Arc::new(AtomicBool::new(false));
    let acceptor = ConnectionAcceptor::builder()
        .container_id("calbridge-sandbox")
        .max_frame_size(MAX_FRAME)
        .channel_max(CHANNEL_MAX)
        .idle_time_out(IDLE_MILLIS)
        .buffer_size(4096)
        .sasl_acceptor(Sasl::new(Arc::clone(&access), Arc::clone(&signed_in)))
        .build();
    let opened = tokio::time::timeout(EXCHANGE_LIMIT, acceptor.accept(near));
    let opened = tokio::select! {
        opened = opened => opened,
        () = seat.cut.cancelled() => return,
        () = seat.force.cancelled() => return seat.cut.cancel(),
    };
    let connection = match opened {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "AMQP connection not opened");
            return;
        }
        Err(_) => {
            tracing::debug!("AMQP connection took too long to open");
            return seat.cut.cancel();
        }
    };
    let grants = Arc::new(Grants::new(Arc::clone(&access), signed_in));
    let context = Context { log, access, grants, connection: seat.id, gone, tasks: tasks.clone() };
    run(connection, &context, &seat).await;
    context.gone.cancel();
    tasks.close();
    if tokio::time::timeout(EXCHANGE_LIMIT, tasks.wait()).await.is_err() {
        seat.cut.cancel();
        tasks.wait().await;
    }
}

async fn run(mut connection: ListenerConnectionHandle, context: &Context, seat: &ConnectionSeat) {
    let sessions = SessionAcceptor::builder().handle_max(HANDLE_MAX).build();
    let mut token_check = tokio::time::interval(TOKEN_CHECK);
    loop {
        tokio::select! {
            biased;
            () = seat.cut.cancelled() => return,
            () = seat.force.cancelled() => {
                let text = "The connection was closed by the service".to_owned();
                let closed = connection.close_with_error(Error::new(ConnectionError::ConnectionForced, text, None));
                drop(tokio::time::timeout(EXCHANGE_LIMIT, closed).await);
                return;
            }
            incoming = connection.next_incoming_session() => {
                let Some(incoming) = incoming else {
                    if let Err(error) = connection.on_close().await {
                        tracing::debug!(?error, "AMQP connection ended with an error");
                    }
                    return;
                };
                match sessions.accept_incoming_session(incoming, &mut connection).await {
                    Ok(session) => drop(context.tasks.spawn(serve_session(session, context.clone()))),
                    Err(error) => tracing::debug!(%error, "AMQP session not begun"),
                }
            }
            _ = token_check.tick() => {
                context.access.handle.end_uncovered(context.connection, |path| context.grants.covers(path));
            }
        }
    }
}

async fn serve_session(mut session: ListenerSessionHandle, context: Context) {
    let replies = Replies::default();
    let acceptor = LinkAcceptor::builder()
        .max_message_size(MAX_MESSAGE)
        // Python asks for Second and then waits for ever for a settled disposition.
        .supported_receiver_settle_modes(SupportedReceiverSettleModes::First)
        .build();
    while let Some(Some(attach)) = context.gone.run_until_cancelled(session.next_incoming_attach()).await {
        let plan = Plan::of(&attach, &context, &replies);
        match acceptor.accept_incoming_attach(attach, &mut session).await {
            Ok(link) => {
                let gone = context.gone.clone();
                let served = serve_link(link, plan, context.clone(), replies.clone());
                context.tasks.spawn(async move { gone.run_until_cancelled(served).await });
            }
            Err(error) => tracing::debug!(%error, "AMQP link not attached"),
        }
    }
}

/// What a link is for, decided before it is accepted.
enum Plan {
    Read { seat: ReaderSeat, partition: usize, from: i64, with_metrics: bool },
    Produce { partition: Option<usize> },
    Requests { node: Node },
    Replies(ReplySeat),
    Refuse(Error),
}

async fn serve_link(link: LinkEndpoint, plan: Plan, context: Context, replies: Replies) {
    let Context { log, grants, .. } = context;
    match (link, plan) {
        (LinkEndpoint::Sender(sender), Plan::Read { seat, partition, from, with_metrics }) => {
            links::read(sender, seat, log, partition, from, with_metrics).await;
        }
        (LinkEndpoint::Sender(sender), Plan::Replies(seat)) => links::reply(sender, seat).await,
        (LinkEndpoint::Sender(sender), Plan::Refuse(error)) => links::close_sender(sender, error).await,
        (LinkEndpoint::Receiver(receiver), Plan::Produce { partition }) => {
            links::produce(receiver, log, partition).await;
        }
        (LinkEndpoint::Receiver(receiver), Plan::Requests { node }) => {
            links::answer_requests(receiver, node, log, grants, replies).await;
        }
        (LinkEndpoint::Receiver(receiver), Plan::Refuse(error)) => links::close_receiver(receiver, error).await,
        // A plan is made from the role that also decides the endpoint.
        (LinkEndpoint::Sender(_) | LinkEndpoint::Receiver(_), _) => tracing::error!("link does not fit its plan"),
    }
}

impl Plan {
    fn of(attach: &Attach, context: &Context, replies: &Replies) -> Self {
        let source = attach.source.as_deref();
        let target = target_of(attach);
        let address = match attach.role {
            Role::Receiver => source.and_then(|source| source.address.as_deref()),
            Role::Sender => target.and_then(|target| target.address.as_deref()),
        };
        let address = address.unwrap_or_default();
        let node = address::parse(address);
        let planned = match (&attach.role, node) {
            (Role::Receiver, node @ (Node::Tokens | Node::Management)) => {
                let target = target.and_then(|target| target.address.clone());
                // In the list before the client can ask: some send their first request without waiting.
                Ok(Self::Replies(replies.add(node, attach.name.clone(), target)))
            }
            (Role::Sender, node @ (Node::Tokens | Node::Management)) => Ok(Self::Requests { node }),
            (Role::Receiver, Node::Reader { hub, group, partition }) => {
                let place = Place { address, hub: &hub, partition: Some(&partition), claim: "Listen" };
                source.map_or_else(|| Err(not_found(address)), |source| place.reader(&group, source, attach, context))
            }
            (Role::Sender, Node::Hub { hub }) => {
                Place { address, hub: &hub, partition: None, claim: "Send" }.producer(context)
            }
            (Role::Sender, Node::Partition { hub, partition }) => {
                Place { address, hub: &hub, partition: Some(&partition), claim: "Send" }.producer(context)
            }
            _ => Err(not_found(address)),
        };
        planned.unwrap_or_else(Self::Refuse)
    }
}

/// The entity that a link wants.
struct Place<'a> {
    address: &'a str,
    hub: &'a str,
    partition: Option<&'a str>,
    claim: &'a str,
}

impl Place<'_> {
    /// Checks token, hub and partition, in this order: strangers do not learn what exists.
    fn enter(&self, context: &Context) -> Result<Option<usize>, Error> {
        let path = address::segments(self.address);
        if !context.grants.covers(&path) {
            let text = format!(
                "Unauthorized access. '{}' claim(s) are required to perform this operation. Resource: 'sb://localhost/{}'.",
                self.claim,
                path.join("/")
            );
            return Err(Error::new(AmqpError::UnauthorizedAccess, text, None));
        }
        if !self.hub.eq_ignore_ascii_case(context.log.hub()) {
            return Err(not_found(self.address));
        }
        let Some(id) = self.partition else { return Ok(None) };
        let partition = id.parse().ok().filter(|partition| *partition < context.log.partitions());
        partition.map(Some).ok_or_else(|| {
            let text =
                format!("The specified partition is invalid for an EventHub partition sender or receiver: '{id}'.");
            Error::new(custom("com.microsoft:argument-out-of-range"), text, None)
        })
    }

    fn producer(&self, context: &Context) -> Result<Plan, Error> {
        self.enter(context).map(|partition| Plan::Produce { partition })
    }

    fn reader(&self, group: &str, source: &Source, attach: &Attach, context: &Context) -> Result<Plan, Error> {
        let partition = self.enter(context)?.unwrap_or_default();
        let group = group.to_lowercase();
        if !context.access.consumer_groups.iter().any(|known| known.to_lowercase() == group) {
            return Err(not_found(self.address));
        }
        let start = address::start_of(source).map_err(|BadFilter(filter)| {
            argument_error(format!("The filter '{filter}' is not a valid amqp filter for EventHub entities"))
        })?;
        let from = resolve(&context.log, partition, start)?;
        let properties = attach.properties.as_ref();
        let view = ReaderView { group, partition, epoch: epoch_of(properties), name: name_of(properties) };
        let path = address::segments(self.address);
        let seat = context.access.handle.admit(context.connection, view, path)?;
        let metric = Symbol::from("com.microsoft:enable-receiver-runtime-metric");
        let with_metrics = attach.desired_capabilities.as_ref().is_some_and(|wanted| wanted.0.contains(&metric));
        Ok(Plan::Read { seat, partition, from, with_metrics })
    }
}

fn resolve(log: &HubLog, partition: usize, start: Start) -> Result<i64, Error> {
    log.resolve(partition, start).map_err(|beyond| {
        argument_error(format!(
            "The supplied {what} '{supplied}' is invalid. The last {what} in the system is '{last}'",
            what = beyond.what,
            supplied = beyond.supplied,
            last = beyond.last
        ))
    })
}

fn target_of(attach: &Attach) -> Option<&Target> {
    match attach.target.as_deref()? {
        TargetArchetype::Target(target) => Some(target),
    }
}

fn epoch_of(properties: Option<&Fields>) -> Option<i64> {
    match properties?.get(&Symbol::from("com.microsoft:epoch"))? {
        Value::Long(epoch) => Some(*epoch),
        Value::Int(epoch) => Some(i64::from(*epoch)),
        Value::Uint(epoch) => Some(i64::from(*epoch)),
        Value::Ulong(epoch) => i64::try_from(*epoch).ok(),
        _ => None,
    }
}

fn name_of(properties: Option<&Fields>) -> String {
    let named = |key: &str| match properties?.get(&Symbol::from(key))? {
        Value::String(name) => Some(name.clone()),
        _ => None,
    };
    // The Rust client spells it differently from the others.
    named("com.microsoft:receiver-name")
        .or_else(|| named("com.microsoft.com:receiver-name"))
        .unwrap_or_else(|| "nil".to_owned())
}

fn not_found(address: &str) -> Error {
    let path = address::segments(address).join("/");
    let text = format!("The messaging entity 'sb://localhost/{path}' could not be found.");
    Error::new(AmqpError::NotFound, text, None)
}

fn argument_error(text: String) -> Error {
    Error::new(custom("com.microsoft:argument-error"), text, None)
}
