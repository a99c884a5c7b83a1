//! Tables that HQ owns and sites have, tables that both change, and the settings that sites follow.
//!
//! A [`Publisher`] knows the newest of each as of its last [`tables::refresh`]. What a site should
//! have is worked out from its place on the roster; how it comes there is the gateway's work.
#![forbid(unsafe_code)]

pub mod arrivals;
mod changes;
mod fetch;
mod image;
mod metrics;
mod publisher;
mod publishing;
mod request;
pub mod rows;
pub mod scheduled;
pub mod settings;
pub mod shared_tables;
pub mod sql;
pub mod tables;
#[cfg(test)]
mod tests;
mod withdraw;

pub use publisher::Publisher;
pub use publishing::{note_orphans, publish};
pub use withdraw::withdraw;
