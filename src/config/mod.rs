//! Configuration: defaults, a file, the environment; checked as a whole, then typed.
//!
//! ```text
//!   config/calbridge.default.yaml  <-  file  <-  environment  --check(OPTIONS)-->  values  --build-->  Config
//! ```
//! Layers are trees that know the line of each value, so that every problem points into the file that a person wrote.
//! What runs is built elsewhere (`engine/build.rs`) from [`Config`]; this module starts nothing.

mod address;
mod build;
mod check;
mod enrolments;
mod load;
mod model;
pub mod options;
mod problem;
pub mod reach;
pub mod reference;
pub mod sandbox;
mod secrets;
mod values;

pub use load::{DEFAULT_MAPPING, DEFAULT_YAML, Disk, Files, Sources, load, load_file};
pub use model::{
    Config, Enrolment, EventHubs, LogConfig, LogFormat, MappingSource, Network, Outlook, Redis, Rehearsal, Salesforce,
    SalesforceAuth, StoreConfig, StorePlace, Sweep, SyncConfig, Web,
};
pub use problem::ConfigProblem;

#[cfg(test)]
mod tests;
