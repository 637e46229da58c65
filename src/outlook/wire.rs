//! What Graph sends, as types of ours: events, subscriptions, notifications.
//!
//! Lenient where Graph varies (letter case, missing parts, offsets), silent about fields nobody asked for. Field names:
//! <https://learn.microsoft.com/graph/api/resources/event>, `.../subscription`, `.../changenotification`.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

/// An event; only what decisions look at. Mapped fields are read from the JSON by their path.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    /// Immutable id.
    pub(super) id: String,
    /// `W/"<change key>"`; on every answer.
    #[serde(rename = "@odata.etag")]
    pub(super) etag: Option<String>,
    /// Opaque version.
    pub(super) change_key: Option<String>,
    /// The same in every mailbox.
    pub(super) i_cal_u_id: Option<String>,
    /// When it was made.
    pub(super) created_date_time: Option<DateTime<Utc>>,
    /// When it last changed.
    pub(super) last_modified_date_time: Option<DateTime<Utc>>,
    /// Start, in the zone asked for (none asked: UTC).
    pub(super) start: Option<DateTimeTimeZone>,
    /// End, likewise; exclusive midnight for whole days.
    pub(super) end: Option<DateTimeTimeZone>,
    /// Zone that the organiser chose.
    pub(super) original_start_time_zone: Option<String>,
    /// Whole days.
    pub(super) is_all_day: Option<bool>,
    /// This copy is the organiser's.
    pub(super) is_organizer: Option<bool>,
    /// Who invites.
    pub(super) organizer: Option<Recipient>,
    /// Who is invited.
    pub(super) attendees: Option<Vec<Recipient>>,
    /// `normal`, `personal`, `private` or `confidential`.
    pub(super) sensitivity: Option<String>,
    /// Called off.
    pub(super) is_cancelled: Option<bool>,
    /// Not sent yet.
    pub(super) is_draft: Option<bool>,
    /// `singleInstance`, `occurrence`, `exception` or `seriesMaster`.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    /// Original start of an occurrence or exception.
    pub(super) original_start: Option<DateTime<Utc>>,
    /// Expanded extended properties.
    pub(super) single_value_extended_properties: Option<Vec<ExtendedProperty>>,
}

/// A local time with the name of its zone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DateTimeTimeZone {
    /// `2026-11-21T09:00:00.0000000`, without offset.
    pub(super) date_time: String,
    /// Windows or IANA name.
    pub(super) time_zone: Option<String>,
}

impl DateTimeTimeZone {
    /// Reads the time as it stands, without any zone.
    pub(super) fn local(&self) -> Option<NaiveDateTime> {
        let text = self.date_time.trim().trim_end_matches('Z');
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()
    }
}

/// Someone with an address.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recipient {
    email_address: Option<EmailAddress>,
}

impl Recipient {
    /// Returns the address in lower case.
    pub(super) fn address(&self) -> Option<String> {
        let address = self.email_address.as_ref()?.address.as_ref()?;
        Some(address.to_lowercase())
    }
}

#[derive(Debug, Deserialize)]
struct EmailAddress {
    address: Option<String>,
}

/// A named value that is kept with an event and shown to nobody.
#[derive(Debug, Deserialize)]
pub(super) struct ExtendedProperty {
    /// `String {guid} Name name`.
    pub(super) id: String,
    /// The value.
    pub(super) value: Option<String>,
}

/// One page of a collection.
#[derive(Debug, Deserialize)]
pub(super) struct Collection {
    /// The items; required, because an answer of another form is no empty list.
    pub(super) value: Vec<Value>,
    /// The next page.
    #[serde(rename = "@odata.nextLink")]
    pub(super) next_link: Option<String>,
    /// After the last page of a delta round.
    #[serde(rename = "@odata.deltaLink")]
    pub(super) delta_link: Option<String>,
}

/// An item of a delta round; occurrences come as little more than this.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeltaItem {
    /// Immutable id.
    pub(super) id: String,
    /// Set where the event left the round's window, deleted or not.
    #[serde(rename = "@removed")]
    pub(super) removed: Option<Value>,
    /// As in [`Event`].
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    /// The master of an occurrence.
    pub(super) series_master_id: Option<String>,
}

/// A user, as far as needed to find the mailbox.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    /// Object id.
    pub(super) id: String,
    /// Primary address.
    pub(super) mail: Option<String>,
    /// Sign-in name.
    #[serde(rename = "userPrincipalName")]
    pub(super) sign_in_name: Option<String>,
}

/// A mailbox's settings, as far as needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MailboxSettings {
    /// Windows or IANA name.
    pub(super) time_zone: Option<String>,
}

/// A subscription.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscription {
    /// Graph's id.
    pub(super) id: String,
    /// `users/{id}/events`.
    pub(super) resource: String,
    /// Where notifications go.
    pub(super) notification_url: Option<String>,
    /// When it ends.
    pub(super) expiration_date_time: DateTime<Utc>,
    /// Our secret; lists may leave it out.
    pub(super) client_state: Option<String>,
}

/// One item of a notification message.
///
/// Nothing is required: the message that tests the way to a hub holds `NA` everywhere.
/// <https://learn.microsoft.com/graph/change-notifications-delivery-event-hubs>
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Notification {
    /// The subscription; `NA` in a validation message.
    pub(super) subscription_id: Option<String>,
    /// The secret given at creation.
    pub(super) client_state: Option<String>,
    /// `created`, `updated`, `deleted`, or the text of a validation message.
    pub(super) change_type: Option<String>,
    /// The tenant.
    pub(super) tenant_id: Option<String>,
    /// Path of the event.
    pub(super) resource: Option<String>,
    /// Id and version of the event.
    pub(super) resource_data: Option<ResourceData>,
    /// `missed`, `subscriptionRemoved` or `reauthorizationRequired`.
    pub(super) lifecycle_event: Option<String>,
    /// Set where the content was too large for the message and lies in a blob store; only asked for with `blobStoreUrl`.
    pub(super) additional_payload_storage_id: Option<Value>,
}

/// What a notification says about the event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResourceData {
    /// Immutable id, if the subscription was made that way.
    pub(super) id: Option<String>,
    /// `W/"<change key>"`; may be missing for deletions (unconfirmed).
    #[serde(rename = "@odata.etag")]
    pub(super) etag: Option<String>,
}

/// Takes the change key out of `W/"<change key>"`; a bare key stays as it is.
pub(super) fn change_key(etag: &str) -> Option<&str> {
    let etag = etag.trim();
    let key = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    (!key.is_empty() && key != "NA").then_some(key)
}

/// Takes user and item out of a resource path: `Users/{id}/Events/{id}`, `users('{id}')/events('{id}')` or
/// `users/{id}@{tenant}/events/{id}`, in any letter case; the item may be missing.
///
/// <https://learn.microsoft.com/graph/outlook-change-notifications-overview>
pub(super) fn event_path(resource: &str) -> Option<(String, Option<String>)> {
    let resource = resource.split('?').next()?.trim_matches('/');
    let mut words = Vec::new();
    for part in resource.split('/') {
        match part.split_once("('") {
            Some((name, key)) => {
                words.push(name);
                words.push(key.strip_suffix("')")?);
            }
            None => words.push(part),
        }
    }
    let mut words = words.into_iter();
    let users = words.next()?;
    let user = words.next()?;
    let events = words.next()?;
    if !users.eq_ignore_ascii_case("users") || !events.eq_ignore_ascii_case("events") || user.is_empty() {
        return None;
    }
    let user = user.split('@').next().unwrap_or(user).to_lowercase();
    let event = words.next().filter(|id| !id.is_empty()).map(str::to_owned);
    Some((user, event))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outlook::client::read;

    #[test]
    fn all_three_spellings_of_a_resource_path_are_read() {
        for path in [
            "Users/8C1F/Events/AAk=",
            "users('8c1f')/events('AAk=')",
            "users/8c1f@72f9/events/AAk=",
            "/users/8c1f/events/AAk=?x=1",
        ] {
            assert_eq!(event_path(path), Some(("8c1f".to_owned(), Some("AAk=".to_owned()))), "{path}");
        }
        assert_eq!(event_path("users/8c1f/events"), Some(("8c1f".to_owned(), None)));
        assert_eq!(event_path("users/8c1f/messages/AAk="), None);
        assert_eq!(event_path("NA"), None);
    }

    #[test]
    fn change_keys_come_out_of_etags() {
        assert_eq!(change_key(r#"W/"q83v==""#), Some("q83v=="));
        assert_eq!(change_key("q83v=="), Some("q83v=="));
        assert_eq!(change_key("NA"), None);
        assert_eq!(change_key(""), None);
    }

    #[test]
    fn a_sparse_event_is_read_and_a_wrong_one_names_the_path() {
        let event: Event = read(&json!({"id": "a", "attendees": null, "unknown": 1}), "event").unwrap();
        assert_eq!(event.id, "a");
        let error = read::<Event>(&json!({"id": "a", "start": {"dateTime": 5}}), "event").unwrap_err();
        assert!(error.message.contains("start.dateTime"), "{error}");
    }

    #[test]
    fn expirations_with_offsets_and_seven_digits_are_read() {
        let subscription: Subscription = read(
            &json!({"id": "s", "resource": "users/1/events", "expirationDateTime": "2026-11-28T10:12:13.0000000+01:00"}),
            "subscription",
        )
        .unwrap();
        assert_eq!(subscription.expiration_date_time.to_rfc3339(), "2026-11-28T09:12:13+00:00");
    }

    #[test]
    fn local_times_are_read_with_and_without_fractions() {
        for text in ["2026-11-21T09:00:00.0000000", "2026-11-21T09:00:00"] {
            let time = DateTimeTimeZone { date_time: text.to_owned(), time_zone: None };
            assert_eq!(time.local().unwrap().to_string(), "2026-11-21 09:00:00");
        }
    }
}
