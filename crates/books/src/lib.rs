//! What is known of the rows of each site beside the rows themselves: batches in quarantine, values
//! that do not fit, tables that are stated again or are captured no longer, what manifests say.
//!
//! [`Books`] is the state, and what people decide about it; nothing here asks a question of the
//! lake's tables, so that it is built and tested without a query engine.
#![forbid(unsafe_code)]

mod books;
pub mod captured;
pub mod definitions;
pub mod manifests;
pub mod misfits;
pub mod quarantine;
pub mod quotas;
pub mod restate;
pub mod site_log;
pub mod stopped;
pub mod table_settings;
pub mod worth;

pub use books::Books;
