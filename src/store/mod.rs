//! Everything durable, and the dedup cache.
//!
//! [`sqlite`] is the embedded database, [`postgres`] the server that several engines share; [`seen_memory`] and [`seen_redis`] remember what was delivered before. Backends of
//! one port are right when they pass `contract`, respectively the shared cases of the caches.

#[cfg(test)]
pub(crate) mod contract;
#[cfg(test)]
mod contract_crowd;
#[cfg(test)]
mod contract_facts;
#[cfg(test)]
mod contract_lanes;
#[cfg(test)]
mod contract_list;
#[cfg(test)]
mod contract_people;
#[cfg(test)]
mod contract_trace;
pub mod postgres;
mod seal;
#[cfg(test)]
mod seen_contract;
pub mod seen_memory;
pub mod seen_redis;
pub mod sqlite;

pub use postgres::{PostgresSettings, PostgresStore};
pub use seal::KeySource;
pub use seen_memory::MemorySeenCache;
pub use seen_redis::{RedisSeenCache, RedisSettings};
pub use sqlite::{SqliteStore, StoreSettings};
