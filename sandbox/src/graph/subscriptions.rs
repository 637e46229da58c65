//! Subscriptions: creating, renewing and ending them.
//!
//! Rules: <https://learn.microsoft.com/en-us/graph/api/resources/subscription> and
//! <https://learn.microsoft.com/en-us/graph/change-notifications-delivery-event-hubs>. Rich notifications and `$filter`
//! are not offered.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use super::error::GraphError;
use super::ids::IdForm;
use super::input;
use super::tenant::{State, Tenant};
use super::webhook::Webhooks;
use super::zones::{graph_instant, parse_moment};

/// Longest life of a subscription to events, minutes.
const LONGEST: i64 = 10_080;
/// Shorter lives are raised to this, minutes.
const SHORTEST: i64 = 45;
/// From this long before the end on, reminders to reauthorise are sent, minutes.
const REMIND_BEFORE: i64 = 60;
/// Pause between reminders, minutes.
const REMIND_EVERY: i64 = 15;
const CHANGES: &[&str] = &["created", "updated", "deleted"];

/// Where notifications go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The tenant's event hub.
    Hub,
    /// An endpoint over http or https.
    Webhook(String),
}

/// One subscription.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub id: Uuid,
    pub app: String,
    pub resource: String,
    pub mailbox: Uuid,
    pub change_type: String,
    pub url: String,
    pub channel: Channel,
    pub lifecycle_url: Option<String>,
    pub lifecycle_channel: Option<Channel>,
    pub client_state: Option<String>,
    pub expiration: DateTime<Utc>,
    pub form: IdForm,
    pub tls: String,
    pub reminded: Option<DateTime<Utc>>,
}

impl Subscription {
    pub(crate) fn wants(&self, change: &str) -> bool {
        self.change_type.split(',').any(|wanted| wanted == change)
    }

    /// Returns when something happens to it next: a reminder or its end.
    pub(crate) fn next_event(&self) -> DateTime<Utc> {
        if self.lifecycle_channel.is_none() {
            return self.expiration;
        }
        let first = self.expiration - TimeDelta::minutes(REMIND_BEFORE);
        self.reminded.map_or(first, |last| last + TimeDelta::minutes(REMIND_EVERY)).min(self.expiration)
    }

    fn render(&self) -> Value {
        json!({
            "id": self.id, "resource": self.resource, "applicationId": self.app, "changeType": self.change_type,
            "clientState": self.client_state, "notificationUrl": self.url, "notificationQueryOptions": null,
            "lifecycleNotificationUrl": self.lifecycle_url, "expirationDateTime": graph_instant(self.expiration),
            "creatorId": self.app, "includeResourceData": null, "latestSupportedTlsVersion": self.tls,
            "encryptionCertificate": null, "encryptionCertificateId": null, "notificationUrlAppId": null,
        })
    }
}

fn invalid(message: impl Into<String>) -> GraphError {
    GraphError::new(400, "InvalidRequest", message)
}

fn gone() -> GraphError {
    GraphError::new(404, "ResourceNotFound", "The object was not found.")
}

fn required<'a>(body: &'a Map<String, Value>, name: &str) -> Result<&'a str, GraphError> {
    let value = body.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    value.ok_or_else(|| invalid(format!("{name} is a required property for subscription creation.")))
}

impl Tenant {
    /// Creates a subscription for an application.
    pub(crate) async fn create_subscription(&self, app: &str, body: &Value, form: IdForm) -> Result<Value, GraphError> {
        let wanted = {
            let state = self.lock();
            self.read_subscription(&state, app, input::object(body)?, form)?
        };
        self.validate(Some(&wanted.channel)).await?;
        self.validate(wanted.lifecycle_channel.as_ref()).await?;
        let mut state = self.lock();
        let twin = state.subscriptions.values().find(|known| {
            known.app == app
                && known.resource.eq_ignore_ascii_case(&wanted.resource)
                && known.change_type == wanted.change_type
        });
        if let Some(twin) = twin.filter(|_| self.world.faults.read().outlook_duplicate_subscription_conflict) {
            let message = format!("Subscription Id {} already exists for the requested combination", twin.id);
            return Err(GraphError::new(409, "Conflict", message));
        }
        let answer = wanted.render();
        state.subscriptions.insert(wanted.id, wanted);
        drop(state);
        self.wake.notify_one();
        Ok(answer)
    }

    async fn validate(&self, channel: Option<&Channel>) -> Result<(), GraphError> {
        match channel {
            Some(Channel::Hub) => self.send_validation(),
            Some(Channel::Webhook(url)) => Webhooks::new().shake_hands(url).await?,
            None => {}
        }
        Ok(())
    }

    fn read_subscription(
        &self,
        state: &State,
        app: &str,
        body: &Map<String, Value>,
        form: IdForm,
    ) -> Result<Subscription, GraphError> {
        let resource = required(body, "resource")?;
        let mut change_types = Vec::new();
        for change in required(body, "changeType")?.split(',') {
            change_types.push(input::pick("changeType", &json!(change.trim()), CHANGES)?);
        }
        change_types.sort_unstable_by_key(|change| CHANGES.iter().position(|known| known == change));
        change_types.dedup();
        if body.get("includeResourceData").and_then(Value::as_bool) == Some(true) {
            return Err(invalid("Notifications with resource data are not offered by the local sandbox."));
        }
        let client_state = match body.get("clientState") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.len() <= 128 => Some(text.clone()),
            Some(_) => return Err(invalid("clientState must be a string of at most 128 characters.")),
        };
        let url = required(body, "notificationUrl")?;
        let lifecycle_url = body.get("lifecycleNotificationUrl").and_then(Value::as_str).map(str::to_owned);
        Ok(Subscription {
            id: self.draw_uuid(),
            app: app.to_owned(),
            resource: resource.to_owned(),
            mailbox: subscribed_mailbox(state, resource)?,
            change_type: change_types.join(","),
            url: url.to_owned(),
            channel: self.channel(url)?,
            lifecycle_channel: lifecycle_url.as_deref().map(|url| self.channel(url)).transpose()?,
            lifecycle_url,
            client_state,
            expiration: self.expiration(body)?,
            form,
            tls: body.get("latestSupportedTlsVersion").and_then(Value::as_str).unwrap_or("v1_2").to_owned(),
            reminded: None,
        })
    }

    fn expiration(&self, body: &Map<String, Value>) -> Result<DateTime<Utc>, GraphError> {
        let text = required(body, "expirationDateTime")?;
        let wanted = parse_moment(text).ok_or_else(|| invalid("expirationDateTime is not a valid date and time."))?;
        let now = self.world.clock.now();
        let wanted = wanted.in_utc();
        if wanted <= now {
            return Err(invalid("Subscription expiration must be in the future."));
        }
        // A minute of grace: the client's clock and ours need not agree to the second.
        if wanted > now + TimeDelta::minutes(LONGEST + 1) {
            let message = format!("Subscription expiration can only be {LONGEST} minutes in the future.");
            return Err(GraphError::new(400, "ValidationError", message));
        }
        Ok(wanted.max(now + TimeDelta::minutes(SHORTEST)))
    }

    /// Reads a notification URL: the hub by role (RBAC), the hub by a Key Vault secret, or a webhook.
    fn channel(&self, url: &str) -> Result<Channel, GraphError> {
        let wrong = || invalid(format!("Invalid event hub notification url='{url}'"));
        let prefix = url.get(..9).filter(|prefix| prefix.eq_ignore_ascii_case("EventHub:"));
        if prefix.is_none() {
            let known = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
            return if known {
                Ok(Channel::Webhook(url.to_owned()))
            } else {
                Err(invalid("Invalid notification url."))
            };
        }
        let target = Url::parse(url.get(9..).unwrap_or_default()).map_err(|_error| wrong())?;
        let tenant = target.query_pairs().find(|(name, _)| name.eq_ignore_ascii_case("tenantId"));
        let tenant = tenant.map(|(_, value)| value.to_string()).ok_or_else(wrong)?;
        let own = tenant.eq_ignore_ascii_case(&self.identity.domain)
            || tenant.eq_ignore_ascii_case(&self.identity.tenant_id.to_string());
        let mut path = target.path_segments().ok_or_else(wrong)?;
        let (kind, name) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
        let known = match kind.to_ascii_lowercase().as_str() {
            "eventhubname" => name.eq_ignore_ascii_case(&self.identity.hub),
            // The secret would hold a connection string; every secret leads to the one hub here.
            "secrets" => !name.is_empty(),
            _ => false,
        };
        if target.scheme() == "https" && own && known { Ok(Channel::Hub) } else { Err(wrong()) }
    }

    /// Returns the subscriptions of one application, or all.
    pub fn subscriptions(&self, app: Option<&str>) -> Vec<Value> {
        let state = self.lock();
        let mine = state.subscriptions.values().filter(|known| app.is_none_or(|app| known.app == app));
        mine.map(Subscription::render).collect()
    }

    pub(crate) fn subscription(&self, app: &str, id: &str) -> Result<Value, GraphError> {
        let state = self.lock();
        owned(&state, app, id).map(Subscription::render)
    }

    pub(crate) async fn renew_subscription(&self, app: &str, id: &str, body: &Value) -> Result<Value, GraphError> {
        let body = input::object(body)?;
        if body.contains_key("lifecycleNotificationUrl") {
            return Err(invalid(
                "lifecycleNotificationUrl cannot be changed; delete the subscription and create it anew.",
            ));
        }
        owned(&self.lock(), app, id)?;
        let expiration = body.contains_key("expirationDateTime").then(|| self.expiration(body)).transpose()?;
        let url = body.get("notificationUrl").and_then(Value::as_str);
        let channel = url.map(|url| self.channel(url)).transpose()?;
        self.validate(channel.as_ref()).await?;
        let mut state = self.lock();
        let known = owned_mut(&mut state, app, id)?;
        if let Some(expiration) = expiration {
            known.expiration = expiration;
            known.reminded = None;
        }
        if let (Some(url), Some(channel)) = (url, channel) {
            url.clone_into(&mut known.url);
            known.channel = channel;
        }
        let answer = known.render();
        drop(state);
        self.wake.notify_one();
        Ok(answer)
    }

    pub(crate) fn reauthorize_subscription(&self, app: &str, id: &str) -> Result<(), GraphError> {
        let now = self.world.clock.now();
        owned_mut(&mut self.lock(), app, id)?.reminded = Some(now);
        Ok(())
    }

    pub(crate) fn delete_subscription(&self, app: &str, id: &str) -> Result<(), GraphError> {
        let mut state = self.lock();
        let id = owned(&state, app, id)?.id;
        state.subscriptions.remove(&id);
        Ok(())
    }

    /// Loses a subscription as Graph sometimes does; tells whether it existed.
    pub fn drop_subscription(&self, id: &str) -> bool {
        let mut state = self.lock();
        let removed = Uuid::parse_str(id).ok().and_then(|id| state.subscriptions.remove(&id));
        if let Some(removed) = &removed {
            self.send_lifecycle(&mut state, removed, "subscriptionRemoved");
        }
        removed.is_some()
    }

    /// Ends every subscription and tells nobody; returns how many.
    pub fn expire_subscriptions(&self) -> usize {
        std::mem::take(&mut self.lock().subscriptions).len()
    }

    /// Does something to every subscription; returns to how many.
    pub(crate) fn each_subscription(&self, act: impl Fn(&Self, &str) -> bool) -> usize {
        let ids: Vec<String> = self.lock().subscriptions.keys().map(ToString::to_string).collect();
        ids.iter().filter(|id| act(self, id)).count()
    }

    /// Tells a subscription that notifications were missed; tells whether it existed.
    pub fn announce_missed(&self, id: &str) -> bool {
        let mut state = self.lock();
        let known = Uuid::parse_str(id).ok().and_then(|id| state.subscriptions.get(&id).cloned());
        if let Some(known) = &known {
            self.send_lifecycle(&mut state, known, "missed");
        }
        known.is_some()
    }

    /// Ends what has expired and reminds of what soon will.
    pub(crate) fn sweep(&self, state: &mut State, now: DateTime<Utc>) {
        let touched: Vec<Uuid> =
            state.subscriptions.values().filter(|known| known.next_event() <= now).map(|known| known.id).collect();
        for id in touched {
            let Some(known) = state.subscriptions.get_mut(&id) else {
                continue;
            };
            if known.expiration <= now {
                if let Some(ended) = state.subscriptions.remove(&id) {
                    self.send_lifecycle(state, &ended, "subscriptionRemoved");
                }
            } else {
                known.reminded = Some(now);
                let known = known.clone();
                self.send_lifecycle(state, &known, "reauthorizationRequired");
            }
        }
    }
}

fn owned<'a>(state: &'a State, app: &str, id: &str) -> Result<&'a Subscription, GraphError> {
    let id = Uuid::parse_str(id).map_err(|_error| gone())?;
    state.subscriptions.get(&id).filter(|known| known.app == app).ok_or_else(gone)
}

fn owned_mut<'a>(state: &'a mut State, app: &str, id: &str) -> Result<&'a mut Subscription, GraphError> {
    let id = Uuid::parse_str(id).map_err(|_error| gone())?;
    state.subscriptions.get_mut(&id).filter(|known| known.app == app).ok_or_else(gone)
}

/// Reads `users/{id}/events`, the one documented resource of events of a user.
fn subscribed_mailbox(state: &State, resource: &str) -> Result<Uuid, GraphError> {
    let (path, query) = resource.split_once('?').unwrap_or((resource, ""));
    if query.contains("$filter") {
        return Err(invalid("$filter in a subscription is not offered by the local sandbox."));
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        [users, user, events] if users.eq_ignore_ascii_case("users") && events.eq_ignore_ascii_case("events") => {
            let mailbox = state.mailbox(state.mailbox_id(user)?)?;
            if mailbox.licensed { Ok(mailbox.id) } else { Err(GraphError::without_licence()) }
        }
        [me, ..] if me.eq_ignore_ascii_case("me") => {
            Err(GraphError::bad_request("/me request is only valid with delegated authentication flow."))
        }
        _ => Err(invalid("The resource of the subscription is not supported: use 'users/{id}/events'.")),
    }
}
