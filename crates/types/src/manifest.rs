//! What a site says it journalled, so that HQ can count the same rows again.

use serde::{Deserialize, Serialize};

use crate::Seq;

/// The changes journalled behind `after`, up to and including `through`. Zero is a statement,
/// absence is not: every captured table is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// The end of the manifest before.
    pub after: Seq,
    /// The end of this one.
    pub through: Seq,
    /// Per captured table.
    pub tables: Vec<Stated>,
}

/// One table's part of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// Its name in the store's database.
    pub table: String,
    /// Changes journalled.
    pub rows: u64,
    /// The largest row number in the table itself, journalled or not: when it moves and nothing was
    /// journalled, capture is gone. None for a table without row numbers, or an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_key: Option<i64>,
}
