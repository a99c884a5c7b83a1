//! Captures the changes of a store's SQLite database into a journal inside the same file, and reads
//! that journal.
//!
//! Triggers write every change into `_rollcall_journal` within the store's own transaction, so any
//! program in any language is captured, and a power cut keeps or loses a change together with its
//! journal row. [`Source`] is the agent's hold on one database: it installs the triggers, reads
//! changes in order, states the rows that were there before (`load.rs`), notices when capture was
//! broken, and prunes what HQ has confirmed.
//!
//! This crate knows neither the network nor HQ. Its own write transactions in the store's file are
//! short; the store's journal mode and settings are never changed.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod counts;
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

pub use error::CaptureError;
pub use file::{Fingerprint, fingerprint};
pub use health::{Health, Problem};
pub use incoming::{AppliedTable, DueChange, Incoming, IncomingTable, Report, Staged, Standing};
pub use install::{Registration, TableSpec};
pub use listing::ListedTable;
pub use load::LoadProgress;
pub use read::{Anchor, Changes, Heads, LoadMark, TableChanges};
pub use source::{JOURNAL_BYTES_MAX, JournalState, KEPT_CONFIRMED, PruneLimits, Source};
