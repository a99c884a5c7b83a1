//! HQ's tables at a store.

use std::time::Duration;

use rollcall_types::Seq;
use serde::{Deserialize, Serialize};

/// What is applied of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedTable {
    /// The position of the newest row.
    pub version: Seq,
    /// See [`IncomingTable::audience`].
    pub audience: u64,
    /// Rows found changed at the site, ever; put right, or left as HQ asks.
    pub edits: u64,
    /// Whether they are put right.
    pub mends: bool,
    /// The store's programs change it as well; see [`crate::Incoming::settle`].
    pub shared: bool,
    /// When HQ published the version, microseconds since 1970; 0 if that is not known.
    pub published_at: i64,
    /// Rows that are not as HQ sent them: a rule of the store's changed or refused them, or its
    /// people changed them and HQ leaves that.
    pub differing: u64,
    /// The first of them and why, for people; empty if there are none.
    pub differences: String,
    /// Rows of the store's own that name rows of this table which are not there.
    pub dangling: u64,
}

/// A fetch that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// See [`IncomingTable::audience`].
    pub audience: u64,
    /// Rows published up to here are staged.
    pub through: Seq,
    /// Whether it is the whole table, or a change.
    pub whole: bool,
    /// The version that the change is one of; 0 for the whole table.
    pub base: Seq,
}

/// Rows of one of HQ's tables that are put into another at their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueChange {
    /// The table that changes.
    pub table: String,
    /// The table that has the rows.
    pub next: String,
    /// Which rows of it.
    pub number: u64,
    /// When, by this machine's clock, microseconds since 1970.
    pub at_micros: i64,
    /// The version of `next` that has them.
    pub version: Seq,
}

/// What applying did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows written.
    pub written: u64,
    /// Rows removed.
    pub removed: u64,
    /// How long the store's own writers had to wait at most.
    pub locked: Duration,
}

/// How a published table is to be at the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncomingTable {
    /// Its name.
    pub name: String,
    /// Names and types; the types as Delta calls them.
    pub columns: Vec<(String, String)>,
    /// The columns that name a row.
    pub key: Vec<String>,
    /// Which rows of HQ's table the site gets: it changes with the rule and with the site's
    /// attributes.
    pub audience: u64,
    /// Whether rows changed at the site are put right, or only told of.
    pub mends: bool,
    /// The store's programs change it as well.
    #[serde(default)]
    pub shared: bool,
    /// A row that the store's own rows name by a foreign key does not go; else they name one that
    /// is not there.
    #[serde(default)]
    pub keeps_referenced: bool,
    /// Columns in which the store may have other values than HQ sent, by a rule of its own.
    #[serde(default)]
    pub rewritten: Vec<String>,
}

/// How one of HQ's tables stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is what was applied.
    AsApplied,
    /// Its rows were changed here; which, is known ([`crate::Incoming::compare`]).
    AsFound,
    /// Its rows were changed here, or it is gone.
    Changed,
}
