//! Token services: one file per cloud.

pub mod entra;
pub mod salesforce;
