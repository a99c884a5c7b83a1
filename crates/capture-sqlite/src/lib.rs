//! Captures the changes of a store's SQLite database into a journal inside the same file, and reads
//! that journal.
//!
//! Triggers write every change into `_rollcall_journal` within the store's own transaction, so any
//! program in any language is captured, and a power cut keeps or loses a change together with its
//! journal row. [`SqliteSource`] is the agent's hold on one database: it installs the triggers,
//! reads changes in order, states the rows that were there before (`load.rs`), notices when capture
//! was broken, and prunes what HQ has confirmed. [`SqliteIncoming`] puts HQ's tables into it. What
//! both promise is written in `rollcall-capture`.
//!
//! This crate knows neither the network nor HQ. Its own write transactions in the store's file are
//! short; the store's journal mode and settings are never changed.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod counts;
mod database;
mod error;
mod file;
mod health;
mod incoming;
mod install;
mod layout;
mod listing;
mod load;
mod manifest;
mod read;
mod schema;
mod shape;
mod shared;
mod source;
mod stored;
mod triggers;
mod value;
mod withheld;

pub use database::SqliteDatabase;
pub use incoming::SqliteIncoming;
pub use source::SqliteSource;
