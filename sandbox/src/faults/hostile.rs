//! What strikes at random in the profile `hostile`, and how often.
//!
//! Strikes upon requests, reads and messages are drawn where they strike ([`crate::World::strikes`]); what befalls
//! connections, tokens and streams is drawn by [`run`] every few real seconds, since reconnecting takes real time
//! however fast the sandbox's clock runs. All draws come from the world's seed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::switches::Switches;
use crate::acts::Act;
use crate::assembly::Clouds;
use crate::options::Profile;

/// How far a read may lag behind in the profile `hostile`; a bridge may rely on it.
pub(crate) const LAG: TimeDelta = TimeDelta::seconds(10);
/// Real milliseconds between two disturbances of connections, tokens and streams.
const PAUSE_MS: Range<u64> = 4_000..12_000;

/// Declares the strikes: their counters, and how many of a thousand cases they hit in the profile `hostile`.
macro_rules! strikes {
    ($($name:ident: $counter:ident, $per_mille:literal;)*) => {
        /// A fault that may strike at one point of a cloud.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Strike { $($name,)* }

        impl Strike {
            /// All of them.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the switch that counts how often it strikes for certain.
            pub(crate) fn counter(self, switches: &mut Switches) -> &mut u32 {
                match self { $(Self::$name => &mut switches.$counter,)* }
            }

            /// Returns the name of its switch.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($counter),)* }
            }

            /// Returns how many of a thousand cases it hits in the profile `hostile`.
            pub(crate) fn per_mille(self) -> u32 {
                match self { $(Self::$name => $per_mille,)* }
            }
        }
    };
}

strikes! {
    OutlookThrottle: outlook_throttle_next, 10;
    OutlookThrottleBare: outlook_throttle_bare_next, 5;
    OutlookInternalError: outlook_internal_error_next, 5;
    OutlookUnavailable: outlook_unavailable_next, 10;
    OutlookGatewayTimeout: outlook_gateway_timeout_next, 5;
    OutlookInternalErrorAfter: outlook_internal_error_after_next, 20;
    OutlookUnavailableAfter: outlook_unavailable_after_next, 20;
    OutlookGatewayTimeoutAfter: outlook_gateway_timeout_after_next, 20;
    OutlookCutAnswer: outlook_cut_answer_next, 40;
    OutlookLateApply: outlook_late_apply_next, 40;
    OutlookChangedUnderneath: outlook_changed_underneath_next, 40;
    OutlookExpiredTokens: outlook_expired_tokens_next, 0;
    OutlookRefuseTokens: outlook_refuse_tokens_next, 2;
    EntraUnavailable: entra_unavailable_next, 0;
    OutlookDeltaGone: outlook_delta_gone_next, 20;
    OutlookStaleReads: outlook_stale_reads_next, 50;
    SalesforceThrottle: salesforce_throttle_next, 5;
    SalesforceThrottleBare: salesforce_throttle_bare_next, 5;
    SalesforceLimit: salesforce_limit_next, 0;
    SalesforceConcurrentLimit: salesforce_concurrent_limit_next, 2;
    SalesforceInternalError: salesforce_internal_error_next, 5;
    SalesforceUnavailable: salesforce_unavailable_next, 10;
    SalesforceGatewayTimeout: salesforce_gateway_timeout_next, 5;
    SalesforceInternalErrorAfter: salesforce_internal_error_after_next, 20;
    SalesforceUnavailableAfter: salesforce_unavailable_after_next, 20;
    SalesforceGatewayTimeoutAfter: salesforce_gateway_timeout_after_next, 20;
    SalesforceCutAnswer: salesforce_cut_answer_next, 40;
    SalesforceLateApply: salesforce_late_apply_next, 40;
    SalesforceLock: salesforce_lock_next, 30;
    SalesforceRefuseSessions: salesforce_refuse_sessions_next, 2;
    SalesforceStaleReads: salesforce_stale_reads_next, 50;
    SalesforceEndStream: salesforce_end_stream_next, 50;
    SalesforceSchemaUnavailable: salesforce_schema_unavailable_next, 0;
    SalesforceSchemaSilent: salesforce_schema_silent_next, 0;
    SalesforceDuplicate: salesforce_duplicate_next, 100;
    SalesforceDrop: salesforce_drop_next, 0;
    HubDuplicate: hub_duplicate_next, 100;
    HubDrop: hub_drop_next, 0;
    HubReorder: hub_reorder_next, 50;
    HubValidationNoise: hub_validation_noise_next, 20;
}

/// Disturbs connections, tokens and streams in the profile `hostile` until told to stop.
pub(crate) async fn run(clouds: Arc<Clouds>, stop: CancellationToken) {
    if clouds.world.profile != Profile::Hostile {
        return;
    }
    loop {
        let pause = clouds.world.draw(|random| random.random_range(PAUSE_MS));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
        if clouds.world.faults.read().hostile {
            disturb(&clouds);
        }
    }
}

fn disturb(clouds: &Clouds) {
    let drawn = clouds.world.draw(|random| random.random_range(0..100));
    let revoke = |name: &str, change: fn(&mut Switches)| {
        clouds.world.meters.struck(name);
        clouds.world.faults.change(change);
    };
    let act = match drawn {
        0..20 => Act::CutHub,
        20..45 => Act::DetachReaders,
        45..55 => Act::StealPartitions,
        55..65 => return revoke("outlook_revoke_tokens", |switches| switches.outlook_revoke_tokens = true),
        65..75 => return revoke("hub_revoke_tokens", |switches| switches.hub_revoke_tokens = true),
        75..85 => return revoke("salesforce_revoke_tokens", |switches| switches.salesforce_revoke_tokens = true),
        85..95 => Act::EndStreams,
        _ => Act::Overflow,
    };
    let affected = clouds.act(&act);
    tracing::debug!(?act, ?affected, "the hostile profile struck");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_gives_the_rates_at_which_faults_strike() {
        let readme = include_str!("../../README.md");
        for strike in Strike::ALL {
            let rate = f64::from(strike.per_mille()) / 10.0;
            let told = if rate > 0.0 { format!("| {rate} % |") } else { "| |".to_owned() };
            let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", strike.name())));
            assert!(row.is_some_and(|row| row.ends_with(&told)), "{}: {told} in {row:?}", strike.name());
        }
    }
}
