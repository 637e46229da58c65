//! Faults and unconfirmed behaviours, each a named switch.

use std::sync::RwLock;

use serde::{Deserialize, Serialize};

/// All switches; the default is a well-behaved cloud with every optional feature on.
///
/// Set as a whole or by a partial JSON object through the control API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each bool is one named switch")]
pub struct Switches {
    /// Graph honours `If-Match` on events (unconfirmed; off: last write wins).
    pub outlook_if_match: bool,
    /// Graph remembers `transactionId` and answers a repeated create with the first event (unconfirmed for how long).
    pub outlook_transaction_id: bool,
    /// A second subscription for the same resource and change types is refused with 409.
    pub outlook_duplicate_subscription_conflict: bool,
    /// The next n Graph requests to a mailbox are answered 429 with `Retry-After`.
    pub outlook_throttle_next: u32,
    /// The next n Graph requests are answered 503.
    pub outlook_unavailable_next: u32,
    /// The next n Graph writes take effect, but the connection is cut before the answer.
    pub outlook_cut_answer_next: u32,
    /// The next n Graph token requests give tokens that are expired at once.
    pub outlook_expired_tokens_next: u32,
    /// Life of Graph tokens issued from now on, in real seconds; Entra's own are 3599 to 5399.
    pub outlook_token_life_secs: u32,
    /// All Graph tokens issued so far are answered 401 InvalidAuthenticationToken once set to true; resets itself to false.
    pub outlook_revoke_tokens: bool,
    /// The next n Graph requests are answered 401 InvalidAuthenticationToken, whatever their token.
    pub outlook_refuse_tokens_next: u32,
    /// The next n token requests to Entra are answered 503.
    pub entra_unavailable_next: u32,
    /// The next n delta links are answered 410, as if the sync state had been forgotten.
    pub outlook_delta_gone_next: u32,
    /// The next n reads of one event show its state before its last change, "not found" right after its creation.
    pub outlook_stale_reads_next: u32,
    /// Graph requests that an app may make to one mailbox in 10 minutes; 0: any number.
    pub outlook_requests_per_mailbox: u32,
    /// Graph requests of an app that may be under way for one mailbox at once; 0: any number.
    pub outlook_requests_at_once: u32,
    /// Graph requests that an app may make in 10 seconds, over all mailboxes; 0: any number.
    pub outlook_requests_per_app: u32,
    /// Milliseconds of sandbox time between a Graph request's effect and its answer; it stays under way so long.
    pub outlook_answer_ms: u32,
    /// `Calbridge_Link__c` exists on Event.
    pub salesforce_link_field: bool,
    /// `Calbridge_Link__c` is unique (off: an unknown create must wait and search).
    pub salesforce_link_unique: bool,
    /// `Calbridge_Token__c` exists on Event.
    pub salesforce_token_field: bool,
    /// `Sforce-Call-Options: client=` reaches `changeOrigin` for sObject Collections and Composite too (undocumented).
    pub salesforce_collections_tagged: bool,
    /// Events may last longer than 1440 minutes.
    pub salesforce_multiday: bool,
    /// REST requests that the org may be asked in 24 hours, by everybody; 0: any number.
    pub salesforce_requests_per_day: u32,
    /// Long REST requests (20 s and more) that may be under way at once; 0: any number.
    pub salesforce_long_requests: u32,
    /// Milliseconds of sandbox time between a REST request's effect and its answer; it stays under way so long.
    pub salesforce_answer_ms: u32,
    /// The next n REST requests are answered 403 REQUEST_LIMIT_EXCEEDED.
    pub salesforce_limit_next: u32,
    /// The next n REST requests are answered 503 SERVER_UNAVAILABLE.
    pub salesforce_unavailable_next: u32,
    /// The next n Salesforce writes take effect, but the connection is cut before the answer.
    pub salesforce_cut_answer_next: u32,
    /// All issued Salesforce tokens are answered 401 INVALID_SESSION_ID once set to true; resets itself to false.
    pub salesforce_revoke_tokens: bool,
    /// The next n REST requests are answered 401 INVALID_SESSION_ID, whatever their session.
    pub salesforce_refuse_sessions_next: u32,
    /// A trigger appends a space-separated marker to the Location in the same transaction as each API write.
    pub salesforce_trigger_edits: bool,
    /// The next n Subscribe streams are ended by the server after their first response.
    pub salesforce_end_stream_next: u32,
    /// The next n GetSchema calls are answered UNAVAILABLE.
    pub salesforce_schema_unavailable_next: u32,
    /// The next n GetSchema calls are never answered.
    pub salesforce_schema_silent_next: u32,
    /// The next n change events are delivered twice.
    pub salesforce_duplicate_next: u32,
    /// The next n change events are never published (rare, and unrecoverable from the stream).
    pub salesforce_drop_next: u32,
    /// The next n Salesforce row writes are answered 400 UNABLE_TO_LOCK_ROW.
    pub salesforce_lock_next: u32,
    /// Life of Event Hubs tokens issued from now on, in real seconds.
    pub hub_token_life_secs: u32,
    /// All Event Hubs tokens issued so far become invalid once set to true, and their readers are detached; resets itself to false.
    pub hub_revoke_tokens: bool,
    /// The next n hub messages are delivered twice.
    pub hub_duplicate_next: u32,
    /// The next n hub notifications are lost.
    pub hub_drop_next: u32,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            outlook_if_match: true,
            outlook_transaction_id: true,
            outlook_duplicate_subscription_conflict: true,
            outlook_throttle_next: 0,
            outlook_unavailable_next: 0,
            outlook_cut_answer_next: 0,
            outlook_expired_tokens_next: 0,
            outlook_token_life_secs: 3599,
            outlook_revoke_tokens: false,
            outlook_refuse_tokens_next: 0,
            entra_unavailable_next: 0,
            outlook_delta_gone_next: 0,
            outlook_stale_reads_next: 0,
            outlook_requests_per_mailbox: 10_000,
            outlook_requests_at_once: 4,
            outlook_requests_per_app: 130_000,
            outlook_answer_ms: 0,
            salesforce_link_field: true,
            salesforce_link_unique: true,
            salesforce_token_field: true,
            salesforce_collections_tagged: true,
            salesforce_multiday: true,
            // An Enterprise org's basic allowance and its 25 long requests:
            // https://developer.salesforce.com/docs/platform/salesforce-app-limits-cheatsheet/guide/salesforce-app-limits-platform-api.html
            salesforce_requests_per_day: 100_000,
            salesforce_long_requests: 25,
            salesforce_answer_ms: 0,
            salesforce_limit_next: 0,
            salesforce_unavailable_next: 0,
            salesforce_cut_answer_next: 0,
            salesforce_revoke_tokens: false,
            salesforce_refuse_sessions_next: 0,
            salesforce_trigger_edits: false,
            salesforce_end_stream_next: 0,
            salesforce_schema_unavailable_next: 0,
            salesforce_schema_silent_next: 0,
            salesforce_duplicate_next: 0,
            salesforce_drop_next: 0,
            salesforce_lock_next: 0,
            hub_token_life_secs: 3599,
            hub_revoke_tokens: false,
            hub_duplicate_next: 0,
            hub_drop_next: 0,
        }
    }
}

/// The switches as shared state.
#[derive(Debug, Default)]
pub struct Faults {
    switches: RwLock<Switches>,
}

impl Faults {
    /// Returns a copy of all switches.
    pub fn read(&self) -> Switches {
        self.switches.read().expect("no switch update panics while holding the lock").clone()
    }

    /// Changes switches.
    pub fn change(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.switches.write().expect("no switch update panics while holding the lock"));
    }

    /// Takes one from a `*_next` counter; tells whether there was one to take.
    pub fn take(&self, counter: impl Fn(&mut Switches) -> &mut u32) -> bool {
        let mut switches = self.switches.write().expect("no switch update panics while holding the lock");
        let left = counter(&mut switches);
        let taken = *left > 0;
        *left = left.saturating_sub(1);
        taken
    }
}
