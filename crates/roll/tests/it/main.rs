//! The watch against simulated fleets whose truth is known.
#![allow(missing_docs)]

mod calls;
mod fleet;
mod scenes;
