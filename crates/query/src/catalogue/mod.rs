//! What clients of PostgreSQL ask about a server, and how it is answered: `pg_catalog` and
//! `information_schema` over the tables that a question sees.
//!
//! A *catalogue question* reads nothing but these two schemas. It alone is rewritten until it can
//! be planned, or answered by another of the same meaning; a question that reads anything else is
//! planned as its author wrote it.

mod columns;
mod contents;
mod expressions;
mod functions;
mod information_schema;
mod keys;
mod questions;
mod recognise;
mod relations;
mod rewrite;
mod rules;
mod system;
mod types;

pub use columns::{OID_ALIAS, VECTOR};
pub(crate) use columns::{object_number, oids};
pub(crate) use information_schema::InformationSchema;
pub(crate) use keys::Key;
pub(crate) use questions::plannable;
pub use recognise::is_catalogue_question;
use rewrite::rewritten;
pub use system::System;
