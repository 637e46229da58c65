//! Token endpoints of both clouds.

pub mod salesforce;
