//! The ports on which people and programs ask HQ.
#![forbid(unsafe_code)]

pub mod pg;
