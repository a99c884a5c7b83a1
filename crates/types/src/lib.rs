//! The words every part of Rollcall shares: ids, positions in a journal, times, states and
//! coverage.
//!
//! Only values live here: no I/O, no clock, no runtime. A word has one meaning everywhere;
//! `ARCHITECTURE.md` lists them.
#![forbid(unsafe_code)]

pub mod calendar;
pub mod columns;
mod coverage;
mod decimal;
mod describe;
mod id;
mod load_reason;
mod manifest;
mod plain;
mod position;
pub mod shared;
mod state;
mod time;
mod words;

pub use coverage::{ColumnMisfits, Coverage, GroupCoverage, MissingSite, Share, Shortfall, Unlisted};
pub use decimal::parse_decimal;
pub use describe::describe;
pub use id::{HQ_SITE, InvalidName, SiteId, SiteNumber, TableName, hq_identifier};
pub use load_reason::LoadReason;
pub use manifest::{Manifest, Stated};
pub use plain::{TEXT_BYTES_MAX, plain, steers};
pub use position::{ChainHash, Epoch, Seq};
pub use state::{Cause, SiteState, roll_sentence};
pub use time::{InvalidTime, Timestamp};
pub use words::{counted, is_meant, nearest};
