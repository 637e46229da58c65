//! Change notifications and lifecycle notifications: their JSON and their way to hub or webhook.
//!
//! Form: <https://learn.microsoft.com/en-us/graph/api/resources/changenotification>. One hub message is one collection.

use rand::Rng as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::due::Due;
use super::ids::{self, ItemKey};
use super::subscriptions::{Channel, Subscription};
use super::tenant::{State, Tenant};
use super::webhook::Post;
use crate::faults::Strike;

/// A change that a subscription is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Notification {
    subscription: Uuid,
    change: &'static str,
    home: Uuid,
    key: ItemKey,
    change_key: String,
}

impl Tenant {
    /// Tells every subscription of the mailbox about a change.
    pub(crate) fn notify(&self, state: &mut State, home: Uuid, key: ItemKey, change: &'static str) {
        let item = state.mailboxes.get(&home).and_then(|mailbox| mailbox.find(key));
        // A deleted item has no key any more; whether Graph sends its last one is unconfirmed.
        let change_key = item.map(|item| item.change_key.clone()).unwrap_or_default();
        let interested: Vec<Uuid> = state
            .subscriptions
            .values()
            .filter(|subscription| subscription.mailbox == home && subscription.wants(change))
            .map(|subscription| subscription.id)
            .collect();
        for subscription in interested {
            let change_key = change_key.clone();
            self.dispatch(state, Notification { subscription, change, home, key, change_key });
        }
    }

    /// Puts notifications into messages and sends them; those of a subscription that is gone are lost.
    pub(crate) fn deliver(&self, state: &mut State, notifications: Vec<Notification>) {
        let mut hub = Vec::new();
        let mut posts = Vec::new();
        for notification in notifications {
            let Some(subscription) = state.subscriptions.get(&notification.subscription) else {
                continue;
            };
            let item = self.notification_item(subscription, &notification);
            match &subscription.channel {
                Channel::Hub => {
                    if !self.world.strikes(Strike::HubDrop) {
                        hub.push(item);
                    }
                }
                Channel::Webhook(url) => posts.push((url.clone(), item)),
            }
        }
        while !hub.is_empty() {
            let most = if self.is_office() { self.world.draw(|random| random.random_range(1..=10)) } else { 1 };
            let rest = hub.split_off(most.min(hub.len()));
            self.publish_message(&hub);
            hub = rest;
        }
        for (url, item) in posts {
            self.schedule(state, 0, Due::Call(Post { url, body: json!({"value": [item]}), attempt: 0 }));
        }
    }

    fn publish_message(&self, items: &[Value]) {
        let body = json!({"value": items}).to_string().into_bytes();
        if self.world.strikes(Strike::HubDuplicate) {
            self.world.meters.notifications(items.len() as u64);
            (self.publish)(body.clone());
        }
        if self.world.strikes(Strike::HubValidationNoise) {
            self.send_validation();
        }
        self.world.meters.notifications(items.len() as u64);
        (self.publish)(body);
    }

    fn notification_item(&self, subscription: &Subscription, notification: &Notification) -> Value {
        let id = ids::encode(subscription.form, notification.home, notification.key);
        let path = format!("Users/{}/Events/{id}", notification.home);
        let mut data = json!({"@odata.type": "#Microsoft.Graph.Event", "@odata.id": path, "id": id});
        if !notification.change_key.is_empty() {
            data["@odata.etag"] = json!(ids::etag(&notification.change_key));
        }
        let mut item = self.envelope(subscription);
        item["id"] = json!(self.draw_uuid());
        item["changeType"] = json!(notification.change);
        item["resource"] = json!(path);
        item["resourceData"] = data;
        item
    }

    fn envelope(&self, subscription: &Subscription) -> Value {
        let expiration = subscription.expiration.format("%Y-%m-%dT%H:%M:%S%.6f0+00:00").to_string();
        json!({
            "subscriptionId": subscription.id,
            "subscriptionExpirationDateTime": expiration,
            "clientState": subscription.client_state,
            "tenantId": self.identity.tenant_id,
        })
    }

    /// Sends a lifecycle event (`missed`, `subscriptionRemoved`, `reauthorizationRequired`) to the lifecycle URL, if there is one.
    pub(crate) fn send_lifecycle(&self, state: &mut State, subscription: &Subscription, event: &'static str) {
        let Some(channel) = &subscription.lifecycle_channel else {
            return;
        };
        let mut item = self.envelope(subscription);
        item["lifecycleEvent"] = json!(event);
        match channel {
            Channel::Hub => self.publish_message(&[item]),
            Channel::Webhook(url) => {
                let post = Post { url: url.clone(), body: json!({"value": [item]}), attempt: 0 };
                self.schedule(state, 0, Due::Call(post));
            }
        }
    }

    /// Puts the message on the hub that Graph sends at the creation of each subscription; all its values are `NA`.
    pub(crate) fn send_validation(&self) {
        let change = format!(
            "Validation: Testing client application reachability for subscription Request-Id: {}",
            self.draw_uuid()
        );
        let body = json!({"value": [{
            "subscriptionId": "NA", "subscriptionExpirationDateTime": "NA", "clientState": "NA", "changeType": change,
            "resource": "NA", "resourceData": {"@odata.type": "NA", "@odata.id": "NA", "id": "NA"},
        }]});
        (self.publish)(body.to_string().into_bytes());
    }
}
