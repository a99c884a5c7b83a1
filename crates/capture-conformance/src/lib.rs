//! What every kind of captured database is held against: random histories, replayed by HQ's own
//! rules, are the store's rows.
//!
//! A kind hands in a [`Store`] that it can write to as a store's own program does. It has a table
//! with several unique keys and one with a key of two columns; their shapes are those of
//! [`TABLES`]. The suite writes to it, captures it, loads it, breaks capture off, and compares.

#![forbid(unsafe_code)]

mod model;
mod suite;

pub use model::Model;
pub use suite::{Act, Store, TABLES, acts, any_history, load_all, what_is_promised};
