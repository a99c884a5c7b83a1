//! Simulated stores.
//!
//! [`Till`] sells in a real SQLite database, as a store's own program would. [`Relay`] is a network
//! that can be cut, [`LostReplies`] a lake whose commits take effect without saying so. [`fleet`]
//! drives many sites over the real protocol with generated rows, for load and benchmarks;
//! [`stages`] says where the time goes.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

pub mod fleet;
mod lost_replies;
mod relay;
mod retail;
pub mod stages;
mod till;

pub use lost_replies::LostReplies;
pub use relay::Relay;
pub use till::{Till, count_sales, create_store};
