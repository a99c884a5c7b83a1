//! The protocol between a site and HQ: protobuf messages, framing, and rows as compressed Arrow
//! IPC.
//!
//! A [`batch::Batch`] is what travels: consecutive changes of a journal, split by table.
//! [`batch::Encoder`] packs it, [`framing::frames`] cuts it into frames of at most
//! [`FRAME_BYTES_MAX`], [`framing::Assembler`] puts frames together again and refuses what exceeds
//! its bounds or does not match its own hash. This crate knows neither the journal nor the lake.
#![forbid(unsafe_code)]

pub mod batch;
mod cause;
mod codec;
pub mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod ipc;
pub mod published;
mod refusal;
pub mod proto {
    //! Messages and services generated from `proto/rollcall.proto`, which documents them.
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    tonic::include_proto!("rollcall.v1");
}

pub use refusal::Refusal;

/// The protocol version this build speaks.
pub const PROTOCOL: u32 = 1;
/// The oldest protocol version this build still speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// No data frame's chunk is larger, so that a beacon never waits long behind one.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// No batch is larger than this, before or after compression.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// No batch holds more changes.
pub const BATCH_ROWS_MAX: usize = 100_000;
/// No batch has parts of more tables.
pub const BATCH_PARTS_MAX: usize = 1000;
/// No message of a fetch holds more rows' bytes, before compression.
pub const FETCH_BYTES_MAX: usize = 768 * 1024;
/// The applied table under whose name a site tells which settings it follows.
pub const SETTINGS_TABLE: &str = "rollcall.settings";
/// Default port of HQ's gateway.
pub const SITES_PORT: u16 = 7400;
