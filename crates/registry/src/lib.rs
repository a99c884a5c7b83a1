//! Which sites there are, what was heard of each, and which node acts.
//!
//! A [`Registry`] is what every other part of a node is given: the roster, what each site's
//! connections said ([`SiteFact`]), and whether this node is the one that acts. It needs a lake and
//! a clock, and no network: see `examples/roll.rs`.
#![forbid(unsafe_code)]

mod attributes;
mod chance;
/// Digests of what is in memory.
pub mod digest;
/// Callers that were turned away, and places for those of one address.
pub mod doors;
mod error;
/// What a node learns from a site's connection.
pub mod facts;
/// What HQ itself must keep doing.
pub mod health;
/// HQ's time.
pub mod hq_clock;
mod inbox;
/// Invitations to join.
pub mod invitations;
mod kept_secret;
/// What is known of a site's clock.
pub mod known_clock;
mod lanes;
mod lease;
/// What was heard of each site.
pub mod ledger;
/// What the registry and the lake export.
pub mod metrics;
mod peer;
/// What was heard of each site, as it is stored.
pub mod presence;
/// How complete each site is.
pub mod progress;
mod registry;
mod relay;
/// The roster of sites.
pub mod roster;
mod roster_file;
/// Which connection speaks for a site.
pub mod sessions;
#[cfg(test)]
mod testing;
mod zones;

pub use attributes::Attributes;
pub use chance::{random_bytes, token_hash};
pub use error::HqError;
pub use facts::{Heard, SiteFact};
pub use health::Health;
pub use hq_clock::HqClock;
pub use inbox::Inbox;
pub use kept_secret::KeptSecret;
pub use lanes::{Lane, Lanes};
pub use lease::{Leader, Nobody};
pub use ledger::{Ledger, RollEntry};
pub use peer::{CaId, Peer};
pub use registry::{Registry, RegistryParts};
pub use relay::Relay;
pub use roster::{Roster, SiteRecord, Sites};
pub use roster_file::RosterFile;
pub use sessions::Sessions;
