//! What is known of the rows of each site beside the rows themselves: batches in quarantine, values
//! that do not fit, tables that are stated again or are captured no longer, what manifests say.
//!
//! [`Books`] is the state, and what people decide about it; nothing here asks a question of the
//! lake's tables, so that it is built and tested without a query engine.
#![forbid(unsafe_code)]

mod books;
/// What was said of tables that HQ publishes.
pub mod definitions;
/// What sites' newest manifests say.
pub mod manifests;
/// Values that did not fit their column.
pub mod misfits;
/// Batches of which not everything could be taken.
pub mod quarantine;
/// How much a site may have HQ keep.
pub mod quotas;
/// Tables that sites are to state again.
pub mod restate;
/// What sites journal about their journals.
pub mod site_log;
/// Tables that sites capture no longer.
pub mod stopped;
/// What people say of a site table.
pub mod table_settings;
/// What a row is worth.
pub mod worth;

pub use books::Books;
