//! The port that sites connect to: enrolment, control, data, and the way of batches into the lake.
//!
//! A [`Gateway`] is made from a registry, the books and what HQ publishes ([`Publications`], which
//! another part implements), and serves sites on a listener until the node stops. It judges who
//! calls and what it comes with; what it hears goes to the registry as facts, and rows go through
//! [`Ingest`] to their tables. It asks the lake no questions.
#![forbid(unsafe_code)]

mod authority;
pub mod capacity;
mod control;
mod data_stream;
mod decode;
mod epochs;
mod gateway;
mod ingest;
mod lines;
mod metrics;
mod news;
mod publications;
mod services;
mod sites_port;
mod texts;
mod tls_line;
mod welcome;

#[cfg(test)]
mod tests;

pub use authority::{Authority, Rotation};
pub use decode::problems;
pub use gateway::{Gateway, GatewayParts};
pub use ingest::{GatherLimits, Ingest};
pub use publications::Publications;

/// Why nobody is let in from elsewhere.
pub const IN_DOUBT: &str = "HQ's own state was damaged and may be older than it was, users and rights among it: until somebody has looked \
     (`rollcall lake check` and `rollcall lake repair` on HQ's machine), only commands there are carried out";
