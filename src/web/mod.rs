//! The listener for machines: is the process alive, is it ready, what has it counted.
//!
//! It has no sign-in and shows no data of meetings; it belongs inside the cluster.

mod health;
mod router;

pub use health::{Health, Part};
pub use router::{WebError, bind, router, serve};
