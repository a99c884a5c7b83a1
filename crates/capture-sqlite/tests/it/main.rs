//! Capture against real SQLite files, with the SQLite command-line shell as the store's own
//! program.
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod conformance;
mod handles;
mod incoming;
mod incoming_rules;
mod manifest;
mod model;
mod names;
mod random;
mod shared;
mod store;
mod trouble;
mod withheld;
