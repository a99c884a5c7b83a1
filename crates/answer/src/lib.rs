//! What HQ says of its own answers: how complete they are, the tables it keeps about itself, and
//! the count of what sites stated.
//!
//! [`Answers::extras`] is what goes with every question; [`reconcile`] and [`rulings`] find out in
//! the background what answers must tell of.
#![forbid(unsafe_code)]

mod answers;
pub mod coverage;
mod coverage_function;
mod groups;
pub mod lives;
pub mod measures;
mod misfit_counter;
pub mod reconcile;
pub mod reference;
mod restated;
pub mod rulings;
mod seen;
pub mod table_settings;
pub mod tables;
#[cfg(test)]
mod tests;
mod unreconciled;
mod windows;

pub use answers::Answers;
