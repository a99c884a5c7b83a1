//! Which sites there are, what was heard of each, and which node acts.
//!
//! A [`Registry`] is what every other part of a node is given: the roster, what each site's
//! connections said ([`SiteFact`]), and whether this node is the one that acts. It needs a lake and
//! a clock, and no network: see `examples/roll.rs`.
#![forbid(unsafe_code)]

mod acts;
mod attributes;
mod chance;
pub mod digest;
pub mod doors;
mod error;
pub mod facts;
pub mod health;
pub mod hq_clock;
mod inbox;
pub mod invitations;
mod kept_secret;
pub mod known_clock;
mod lanes;
mod lease;
pub mod ledger;
pub mod metrics;
mod peer;
pub mod presence;
pub mod progress;
mod registry;
mod relay;
pub mod roster;
mod roster_file;
pub mod sessions;
#[cfg(test)]
mod testing;
mod wrong_times;
mod zones;

pub use acts::Act;
pub use attributes::{Attributes, meant_attribute};
pub use chance::{random_bytes, token_hash};
pub use error::HqError;
pub use facts::{Heard, SiteFact};
pub use health::Health;
pub use hq_clock::HqClock;
pub use inbox::Inbox;
pub use kept_secret::KeptSecret;
pub use lanes::{Lane, Lanes};
pub use lease::Leader;
pub use ledger::{Ledger, RollEntry};
pub use peer::{CaId, Peer};
pub use registry::{Registry, RegistryParts};
pub use relay::Relay;
pub use roster::{Roster, SiteRecord, Sites};
pub use roster_file::RosterFile;
pub use sessions::Sessions;
pub use wrong_times::WrongTimes;
