//! The contract of a captured database.
//!
//! An agent captures the changes of a store's database in order, and puts HQ's rows into it. What
//! that takes is written down here as three traits: a [`Database`] is where it is, a [`Source`] is
//! the agent's hold on its changes, and [`Incoming`] its hold on HQ's tables there. A kind of
//! database is one crate that implements them, such as `rollcall-capture-sqlite`, and passes
//! `rollcall-capture-conformance`. No agent code knows which kind it is given.
//!
//! What every kind promises:
//!
//! - **A change is journalled in the transaction that makes it**, whatever program makes it, so
//!   that both are kept or lost together.
//! - **Positions have no gaps**, and each row's changes keep their order. A change that is read is
//!   on stable storage: its position is never counted again.
//! - **`I` is new**: a change is an insert only if its key was proven absent. What cannot be proven
//!   is an update.
//! - **Rows that were there before** are stated beside live changes, and no state of a row
//!   overtakes a later change of it.
//! - **What breaks capture is noticed** by [`Source::check`], and mended where that is possible.
//! - **HQ's rows** are applied together with their version, in one transaction.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time is the store's machine's")]

mod changes;
mod contract;
mod error;
mod health;
mod published;
mod tables;

pub use changes::{
    Anchor, Changes, Heads, JOURNAL_BYTES_MAX, JournalState, KEPT_CONFIRMED, LoadMark, LoadProgress, PruneLimits,
    TableChanges,
};
pub use contract::{Database, Fingerprint, Incoming, Source, clock_micros};
pub use error::{CaptureError, Trouble};
pub use health::{Health, Problem};
pub use published::{AppliedTable, DueChange, IncomingTable, Report, Staged, Standing};
pub use tables::{ListedTable, Registration, TableSpec};
