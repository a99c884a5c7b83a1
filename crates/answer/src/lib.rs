//! What HQ says of its own answers: how complete they are, the tables it keeps about itself, and
//! the count of what sites stated.
//!
//! [`Answers::extras`] is what goes with every question; [`reconcile`] and [`rulings`] find out in
//! the background what answers must tell of.
#![forbid(unsafe_code)]

mod answers;
/// How complete each site is for a question.
pub mod coverage;
mod coverage_function;
mod groups;
/// Lives of sites' journals that may lack what was confirmed before.
pub mod lives;
/// What rows are worth.
pub mod measures;
mod misfit_counter;
/// Counts again what sites say they captured.
pub mod reconcile;
/// What every column of HQ's own tables means.
pub mod reference;
mod restated;
/// Puts contested lives of sites' journals to people.
pub mod rulings;
/// What people say of a site table.
pub mod table_settings;
/// What HQ knows, as tables for SQL.
pub mod tables;
#[cfg(test)]
mod tests;
mod unreconciled;
mod windows;

pub use answers::{Answers, AnswersParts};
