//! The four kinds of link: readers, producers, requests, replies. One task each, gone when the link is.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fe2o3_amqp::link::delivery::{Delivery, Sendable};
use fe2o3_amqp::link::{Receiver, RecvError, Sender};
use fe2o3_amqp_types::definitions::{AmqpError, Error};
use fe2o3_amqp_types::messaging::annotations::OwnedKey;
use fe2o3_amqp_types::messaging::message::__private::Deserializable;
use fe2o3_amqp_types::messaging::{AmqpValue, Annotations, Body, DeliveryAnnotations, Message};
use fe2o3_amqp_types::primitives::{Symbol, Value};
use tokio::sync::mpsc;

use super::address::Node;
use super::handle::ReaderSeat;
use super::log::{HubLog, PARTITION_KEY, StoredEvent};
use super::requests::{self, Letter};
use super::tokens::Grants;

/// Message format of a batch envelope: each data section is a whole encoded message.
const BATCH_FORMAT: u32 = 0x8001_3700;

/// Events taken from the log at once.
const READ_AHEAD: usize = 64;

/// How long a peer may take to answer a closing detach.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Answers that may wait for a slow client before its requests are no longer read.
const REPLIES: usize = 16;

/// Sends a partition's events as far as credit allows, until the client or the hub ends the link.
pub(super) async fn read(
    mut sender: Sender,
    mut seat: ReaderSeat,
    log: Arc<HubLog>,
    partition: usize,
    from: i64,
    with_metrics: bool,
) {
    let Some(mut grown) = log.watch(partition) else { return };
    let mut next = from;
    loop {
        let events = log.read(partition, next, READ_AHEAD);
        if events.is_empty() {
            tokio::select! {
                biased;
                error = &mut seat.ended => return refuse_reader(sender, error).await,
                _ = sender.on_detach() => return,
                alive = async { grown.wait_for(|end| *end > next).await.is_ok() } => if !alive { return },
            }
            continue;
        }
        for event in events {
            tokio::select! {
                biased;
                error = &mut seat.ended => return refuse_reader(sender, error).await,
                sent = send(&mut sender, &event, &log, partition, with_metrics) => if !sent { return },
            }
            next = event.sequence + 1;
        }
    }
}

async fn refuse_reader(sender: Sender, error: Result<Error, tokio::sync::oneshot::error::RecvError>) {
    if let Ok(error) = error {
        close_sender(sender, error).await;
    }
}

/// Waits for credit and sends; false when the link is gone. Nothing is sent if dropped while it waits.
async fn send(sender: &mut Sender, event: &StoredEvent, log: &HubLog, partition: usize, with_metrics: bool) -> bool {
    let sent = if let Some(body) = &event.as_it_is {
        let Sendable { message, message_format, settled } = event.sendable.clone();
        let message = message.map_body(|_replaced| AmqpValue(body.clone()));
        sender.send_batchable(Sendable { message, message_format, settled }).await
    } else if with_metrics {
        let mut sendable = event.sendable.clone();
        sendable.message.delivery_annotations = metrics_of(log, partition);
        sender.send_batchable(sendable).await
    } else {
        sender.send_batchable_ref(&event.sendable).await
    };
    // Settlement is not waited for: the log keeps the event either way.
    sent.map(drop).is_ok()
}

/// What a reader with `com.microsoft:enable-receiver-runtime-metric` gets beside each event.
fn metrics_of(log: &HubLog, partition: usize) -> Option<DeliveryAnnotations> {
    let known = log.properties(partition)?;
    let mut annotations = Annotations::new();
    let mut set = |key: &str, value: Value| annotations.insert(Symbol::from(key).into(), value);
    set("last_enqueued_sequence_number", Value::Long(known.last_sequence));
    set("last_enqueued_offset", Value::String(known.last_offset));
    set("last_enqueued_time_utc", requests::timestamp(known.last_enqueued));
    set("runtime_info_retrieval_time_utc", requests::timestamp(log.now()));
    Some(DeliveryAnnotations(annotations))
}

/// Takes in what a client sends, to a partition or to wherever its key belongs, until the link ends.
pub(super) async fn produce(mut receiver: Receiver, log: Arc<HubLog>, partition: Option<usize>) {
    while let Some(delivery) = next_delivery(&mut receiver).await {
        let settled = match unpack(&delivery) {
            Ok((key, messages)) => {
                let partition = partition.unwrap_or_else(|| log.route(key.as_deref()));
                for (own_key, message) in messages {
                    log.append(partition, own_key.as_deref().or(key.as_deref()), message);
                }
                receiver.accept(&delivery).await
            }
            Err(error) => receiver.reject(&delivery, error).await,
        };
        if settled.is_err() {
            return;
        }
    }
}

/// Answers requests to `$cbs` or `$management` until the link ends.
pub(super) async fn answer_requests(
    mut receiver: Receiver,
    node: Node,
    log: Arc<HubLog>,
    grants: Arc<Grants>,
    replies: Replies,
) {
    while let Some(delivery) = next_delivery(&mut receiver).await {
        if receiver.accept(&delivery).await.is_err() {
            return;
        }
        let request = delivery.message();
        let answer = requests::answer(&node, request, &log, &grants);
        if let Some(reply) = replies.find(&node, requests::reply_to(request)) {
            // A reply link that ended meanwhile has nobody to tell.
            drop(reply.send(answer).await);
        } else {
            tracing::debug!("request without a link to answer on");
        }
    }
}

/// Carries answers to the client until the link ends.
pub(super) async fn reply(mut sender: Sender, mut seat: ReplySeat) {
    loop {
        tokio::select! {
            biased;
            _ = sender.on_detach() => return,
            letter = seat.letters.recv() => {
                let Some(message) = letter else { return };
                let sendable = Sendable { message, message_format: 0, settled: Some(true) };
                if sender.send_batchable(sendable).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Closes a link that the client may not have, or not any longer.
pub(super) async fn close_sender(sender: Sender, error: Error) {
    // A peer that never answers the detach loses the link with its session.
    drop(tokio::time::timeout(CLOSE_LIMIT, sender.close_with_error(error)).await);
}

/// Closes a link that the client may not have.
pub(super) async fn close_receiver(receiver: Receiver, error: Error) {
    drop(tokio::time::timeout(CLOSE_LIMIT, receiver.close_with_error(error)).await);
}

/// Waits for the next message that can be decoded; those that cannot are rejected. None when the link is gone.
async fn next_delivery(receiver: &mut Receiver) -> Option<Delivery<Body<Value>>> {
    loop {
        match receiver.recv::<Body<Value>>().await {
            Ok(delivery) => return Some(delivery),
            Err(RecvError::MessageDecode(undecodable)) => {
                let error = Error::new(AmqpError::DecodeError, "The message is not valid AMQP".to_owned(), None);
                receiver.reject(undecodable.info, error).await.ok()?;
            }
            Err(error) => {
                tracing::debug!(%error, "incoming link ended");
                return None;
            }
        }
    }
}

/// A message with its own partition key.
type Keyed = (Option<String>, Message<Body<Value>>);

/// Returns the key that decides the partition, and the messages inside a delivery.
fn unpack(delivery: &Delivery<Body<Value>>) -> Result<(Option<String>, Vec<Keyed>), Error> {
    let envelope = delivery.message();
    let key = key_of(envelope);
    if *delivery.message_format() != Some(BATCH_FORMAT) {
        return Ok((key.clone(), vec![(key, envelope.clone())]));
    }
    let invalid = || Error::new(AmqpError::DecodeError, "The batch is not valid".to_owned(), None);
    let Body::Data(sections) = &envelope.body else {
        return Err(invalid());
    };
    let mut messages = Vec::with_capacity(sections.len());
    for section in sections {
        let decoded = serde_amqp::from_slice::<Deserializable<Message<Body<Value>>>>(&section.0);
        let Ok(Deserializable(message)) = decoded else {
            return Err(invalid());
        };
        messages.push((key_of(&message), message));
    }
    Ok((key, messages))
}

fn key_of(message: &Message<Body<Value>>) -> Option<String> {
    let annotations = message.message_annotations.as_ref()?;
    match annotations.get(&OwnedKey::from(PARTITION_KEY))? {
        Value::String(key) => Some(key.clone()),
        Value::Symbol(key) => Some(key.as_str().to_owned()),
        Value::Binary(key) => String::from_utf8(key.to_vec()).ok(),
        _ => None,
    }
}

/// The links of one session that answers go out on.
#[derive(Debug, Clone, Default)]
pub(super) struct Replies {
    links: Arc<Mutex<Vec<ReplyLink>>>,
}

#[derive(Debug)]
struct ReplyLink {
    node: Node,
    name: String,
    target: Option<String>,
    letters: mpsc::Sender<Letter>,
}

/// The receiving end of a reply link's queue.
#[derive(Debug)]
pub(super) struct ReplySeat {
    letters: mpsc::Receiver<Letter>,
}

impl Replies {
    /// Takes a new reply link into the list.
    pub(super) fn add(&self, node: Node, name: String, target: Option<String>) -> ReplySeat {
        let (sender, letters) = mpsc::channel(REPLIES);
        let mut links = self.lock();
        links.retain(|link| !link.letters.is_closed());
        links.push(ReplyLink { node, name, target, letters: sender });
        ReplySeat { letters }
    }

    /// Finds the link to answer on: clients name it by its target address, by its name, or not at all.
    fn find(&self, node: &Node, reply_to: Option<&str>) -> Option<mpsc::Sender<Letter>> {
        let links = self.lock();
        let open = || links.iter().filter(|link| link.node == *node && !link.letters.is_closed());
        let named = reply_to.and_then(|wanted| {
            open()
                .find(|link| link.target.as_deref() == Some(wanted))
                .or_else(|| open().find(|link| link.name == wanted))
        });
        named.or_else(|| open().next_back()).map(|link| link.letters.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ReplyLink>> {
        self.links.lock().expect("no change panics while holding the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_link_by_target_by_name_or_as_the_only_one() {
        let replies = Replies::default();
        let mut tokens = replies.add(Node::Tokens, "link-1".into(), Some("box".into()));
        let mut management = replies.add(Node::Management, "link-2".into(), None);
        let letter = || Message::builder().body(Body::Empty).build();
        for reply_to in [Some("box"), Some("link-1"), None] {
            replies.find(&Node::Tokens, reply_to).unwrap().try_send(letter()).unwrap();
            assert!(tokens.letters.try_recv().is_ok(), "{reply_to:?}");
        }
        replies.find(&Node::Management, Some("link-2")).unwrap().try_send(letter()).unwrap();
        assert!(management.letters.try_recv().is_ok());
        drop(tokens);
        assert!(replies.find(&Node::Tokens, Some("box")).is_none());
    }
}
