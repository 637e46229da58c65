//! The table of all switches: name, default, meaning. Features say how a cloud behaves, faults strike.

use serde::{Deserialize, Serialize};

/// Declares the switches once: their fields, their defaults, and which of them [`Switches::calm`] resets.
macro_rules! switches {
    (
        features { $($(#[$about_feature:meta])* $feature:ident: $feature_type:ty = $feature_default:expr;)* }
        faults { $($(#[$about_fault:meta])* $fault:ident: $fault_type:ty = $fault_default:expr;)* }
    ) => {
        /// All switches; the default is a well-behaved cloud with every optional feature on.
        ///
        /// Set as a whole or by a partial JSON object through the control API. A count is used up by the next so many cases.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Switches {
            $($(#[$about_feature])* pub $feature: $feature_type,)*
            $($(#[$about_fault])* pub $fault: $fault_type,)*
        }

        impl Default for Switches {
            fn default() -> Self {
                Self { $($feature: $feature_default,)* $($fault: $fault_default,)* }
            }
        }

        impl Switches {
            /// Ends every fault; features stay as they are.
            pub fn calm(&mut self) {
                let normal = Self::default();
                $(self.$fault = normal.$fault;)*
                self.hostile = false;
            }
        }
    };
}

switches! {
    features {
        /// Graph honours `If-Match` on events (unconfirmed; off: last write wins).
        outlook_if_match: bool = true;
        /// Graph remembers `transactionId` and answers a repeated create with the first event (unconfirmed for how long).
        outlook_transaction_id: bool = true;
        /// A second subscription for the same resource and change types is refused with 409.
        outlook_duplicate_subscription_conflict: bool = true;
        /// Life of Graph tokens issued from now on, in real seconds; Entra's own are 3599 to 5399.
        outlook_token_life_secs: u32 = 3599;
        /// Graph requests that an app may make to one mailbox in 10 minutes; 0: any number.
        outlook_requests_per_mailbox: u32 = 10_000;
        /// Graph requests of an app that may be under way for one mailbox at once; 0: any number.
        outlook_requests_at_once: u32 = 4;
        /// Graph requests that an app may make in 10 seconds, over all mailboxes; 0: any number.
        outlook_requests_per_app: u32 = 130_000;
        /// Milliseconds of sandbox time between a Graph request's effect and its answer; it stays under way so long.
        outlook_answer_ms: u32 = 0;
        /// `Calbridge_Link__c` exists on Event.
        salesforce_link_field: bool = true;
        /// `Calbridge_Link__c` is unique (off: an unknown create must wait and search).
        salesforce_link_unique: bool = true;
        /// `Calbridge_Token__c` exists on Event.
        salesforce_token_field: bool = true;
        /// An administrator has added the custom field `Floor__c` to Event: its change events have another schema from then on.
        salesforce_extra_field: bool = false;
        /// `Sforce-Call-Options: client=` reaches `changeOrigin` for sObject Collections and Composite too (undocumented).
        salesforce_collections_tagged: bool = true;
        /// Events may last longer than 1440 minutes.
        salesforce_multiday: bool = true;
        /// Events of an inactive user may be changed (an org's permission "Update Records with Inactive Owners").
        salesforce_update_inactive_owners: bool = true;
        /// REST requests that the org may be asked in 24 hours, by everybody; 0: any number. The default is an Enterprise
        /// org's basic allowance, that of long requests below likewise:
        /// <https://developer.salesforce.com/docs/platform/salesforce-app-limits-cheatsheet/guide/salesforce-app-limits-platform-api.html>
        salesforce_requests_per_day: u32 = 100_000;
        /// Long REST requests (20 s and more) that may be under way at once; 0: any number.
        salesforce_long_requests: u32 = 25;
        /// Milliseconds of sandbox time between a REST request's effect and its answer; it stays under way so long.
        salesforce_answer_ms: u32 = 0;
        /// A trigger appends a space-separated marker to the Location in the same transaction as each API write.
        salesforce_trigger_edits: bool = false;
        /// So many seconds (sandbox time) after each API write a flow of the org appends a marker to the Location, as the
        /// automated process user; 0: never.
        salesforce_automation_secs: u32 = 0;
        /// Life of Event Hubs tokens issued from now on, in real seconds.
        hub_token_life_secs: u32 = 3599;
        /// Longest time until a late write takes effect, in seconds of sandbox time; drawn anew for each.
        late_apply_secs: u32 = 60;
    }
    faults {
        /// The next n Graph requests to a mailbox are answered 429 with `Retry-After`.
        outlook_throttle_next: u32 = 0;
        /// The next n Graph requests to a mailbox are answered 429 without `Retry-After`.
        outlook_throttle_bare_next: u32 = 0;
        /// The next n Graph requests are answered 500.
        outlook_internal_error_next: u32 = 0;
        /// The next n Graph requests are answered 503.
        outlook_unavailable_next: u32 = 0;
        /// The next n Graph requests are answered 504.
        outlook_gateway_timeout_next: u32 = 0;
        /// The next n Graph writes take effect and are answered 500.
        outlook_internal_error_after_next: u32 = 0;
        /// The next n Graph writes take effect and are answered 503 with `Retry-After`.
        outlook_unavailable_after_next: u32 = 0;
        /// The next n Graph writes take effect and are answered 504.
        outlook_gateway_timeout_after_next: u32 = 0;
        /// The next n Graph writes take effect, but the connection is cut before the answer.
        outlook_cut_answer_next: u32 = 0;
        /// The next n Graph writes get no answer and take effect up to `late_apply_secs` later.
        outlook_late_apply_next: u32 = 0;
        /// Exchange touches the event right before the next n Graph writes that name a version: 412 where that is honoured.
        outlook_changed_underneath_next: u32 = 0;
        /// The next n Graph token requests give tokens that are expired at once.
        outlook_expired_tokens_next: u32 = 0;
        /// All Graph tokens issued so far are answered 401 InvalidAuthenticationToken once set to true; resets itself to false.
        outlook_revoke_tokens: bool = false;
        /// The next n Graph requests are answered 401 InvalidAuthenticationToken, whatever their token.
        outlook_refuse_tokens_next: u32 = 0;
        /// The next n token requests to Entra are answered 503.
        entra_unavailable_next: u32 = 0;
        /// The next n delta links are answered 410, as if the sync state had been forgotten.
        outlook_delta_gone_next: u32 = 0;
        /// The next n reads of one event show its state before its last change, "not found" right after its creation.
        outlook_stale_reads_next: u32 = 0;
        /// The next n REST requests are answered 429 with `Retry-After`.
        salesforce_throttle_next: u32 = 0;
        /// The next n REST requests are answered 429 without `Retry-After`.
        salesforce_throttle_bare_next: u32 = 0;
        /// The next n REST requests are answered 403 REQUEST_LIMIT_EXCEEDED for the requests of the day.
        salesforce_limit_next: u32 = 0;
        /// The next n REST requests are answered 403 REQUEST_LIMIT_EXCEEDED for too many long ones at once.
        salesforce_concurrent_limit_next: u32 = 0;
        /// The next n REST requests are answered 500 UNKNOWN_EXCEPTION.
        salesforce_internal_error_next: u32 = 0;
        /// The next n REST requests are answered 503 SERVER_UNAVAILABLE.
        salesforce_unavailable_next: u32 = 0;
        /// The next n REST requests are answered 504 by a gateway, without an error code.
        salesforce_gateway_timeout_next: u32 = 0;
        /// The next n Salesforce writes take effect and are answered 500 UNKNOWN_EXCEPTION.
        salesforce_internal_error_after_next: u32 = 0;
        /// The next n Salesforce writes take effect and are answered 503 SERVER_UNAVAILABLE.
        salesforce_unavailable_after_next: u32 = 0;
        /// The next n Salesforce writes take effect and are answered 504 by a gateway, without an error code.
        salesforce_gateway_timeout_after_next: u32 = 0;
        /// The next n Salesforce writes take effect, but the connection is cut before the answer.
        salesforce_cut_answer_next: u32 = 0;
        /// The next n Salesforce writes get no answer and take effect up to `late_apply_secs` later.
        salesforce_late_apply_next: u32 = 0;
        /// The next n Salesforce row writes are answered 400 UNABLE_TO_LOCK_ROW.
        salesforce_lock_next: u32 = 0;
        /// All issued Salesforce tokens are answered 401 INVALID_SESSION_ID once set to true; resets itself to false.
        salesforce_revoke_tokens: bool = false;
        /// The next n REST requests are answered 401 INVALID_SESSION_ID, whatever their session.
        salesforce_refuse_sessions_next: u32 = 0;
        /// The next n reads of rows show each row as it was before its last change, none right after its creation.
        salesforce_stale_reads_next: u32 = 0;
        /// The next n Subscribe streams are ended by the server after their first response.
        salesforce_end_stream_next: u32 = 0;
        /// The org's event deliveries of 24 hours are used up: streams end with subscription.limit.exceeded.
        salesforce_deliveries_exhausted: bool = false;
        /// The next n GetSchema calls are answered UNAVAILABLE.
        salesforce_schema_unavailable_next: u32 = 0;
        /// The next n GetSchema calls are never answered.
        salesforce_schema_silent_next: u32 = 0;
        /// The next n change events are delivered twice.
        salesforce_duplicate_next: u32 = 0;
        /// The next n change events are never published (rare, and unrecoverable from the stream).
        salesforce_drop_next: u32 = 0;
        /// Milliseconds of sandbox time between a commit and its change events, which keep their order.
        salesforce_delay_ms: u32 = 0;
        /// All Event Hubs tokens issued so far become invalid once set to true, and their readers are detached; resets itself to false.
        hub_revoke_tokens: bool = false;
        /// The next n hub messages are delivered twice.
        hub_duplicate_next: u32 = 0;
        /// The next n hub notifications are lost.
        hub_drop_next: u32 = 0;
        /// The next n notifications come 5 s of sandbox time late: those after them overtake them.
        hub_reorder_next: u32 = 0;
        /// Milliseconds of sandbox time between a change and its notification.
        hub_delay_ms: u32 = 0;
        /// Graph's validation message comes along with each of the next n hub messages.
        hub_validation_noise_next: u32 = 0;
        /// In the profile `hostile`: faults strike at random; off: only those that are switched on by name.
        hostile: bool = true;
    }
}
