//! Tables that HQ owns and sites have, tables that both change, and the settings that sites follow.
//!
//! A [`Publisher`] knows the newest of each as of its last [`tables::refresh`]. What a site should
//! have is worked out from its place on the roster; how it comes there is the gateway's work.
#![forbid(unsafe_code)]

/// Who has what was published.
pub mod arrivals;
mod changes;
mod fetch;
mod image;
mod metrics;
mod publisher;
mod publishing;
mod request;
/// Rows as people give them.
pub mod rows;
/// Publications that take effect later.
pub mod scheduled;
/// How sites are to behave.
pub mod settings;
/// Tables that sites change as well as HQ.
pub mod shared_tables;
/// `INSERT`, `UPDATE` and `DELETE` on published tables.
pub mod sql;
/// The published tables.
pub mod tables;
#[cfg(test)]
mod tests;
mod withdraw;

pub use publisher::Publisher;
pub use publishing::{note_orphans, publish};
pub use withdraw::withdraw;
