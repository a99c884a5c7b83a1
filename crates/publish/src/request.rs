//! What is asked of HQ's tables, and what comes of it.

use arrow_array::RecordBatch;
use rollcall_books::definitions::{AtStoresChange, Counts};
use rollcall_types::{Seq, TableName, shared::Rule};
use serde::{Deserialize, Serialize};

/// What is done with rows that are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are added, or take the place of those with their keys. Columns that are not given stay
    /// as they are.
    Merge,
    /// They are added, and none may be there.
    Insert,
    /// They are the whole table: rows not among them go.
    Replace,
}

/// Something to be published.
#[derive(Debug, Clone)]
pub struct Request {
    /// The table that is to change.
    pub table: TableName,
    /// The rows that are given; without columns if there are none.
    pub rows: RecordBatch,
    /// Rows with these keys go at the same time.
    pub gone: Option<RecordBatch>,
    /// What is done with them.
    pub mode: Mode,
    /// Needed for the first publication of a table; then it may be left out.
    pub key: Vec<String>,
    /// Likewise; for every site if never said.
    pub to: Option<String>,
    /// Whether rows that a site changed are put right; none: as before, or yes at first.
    pub mends: Option<bool>,
    /// Whether sites change it as well, and the rule; `Some(None)` ends it.
    pub shared: Option<Option<Rule>>,
    /// What changes of how its rows and the stores' own rules live together.
    pub at_stores: AtStoresChange,
    /// Who publishes it.
    pub by: String,
    /// What is noted with it; may be empty.
    pub note: String,
    /// Only says what it would do.
    pub dry_run: bool,
    /// The version on which the rows were worked out; nothing is published on another.
    pub based_on: Option<Seq>,
    /// The number of what was scheduled, if it is that: it is published once, however often this is
    /// asked for.
    pub scheduled: Option<u64>,
}

impl Request {
    /// HQ's own: rows that come and keys that go, of a table that is published already.
    pub(crate) fn internal(table: &TableName, rows: RecordBatch, gone: RecordBatch, by: &str, note: String) -> Self {
        Self {
            table: table.clone(),
            rows,
            gone: Some(gone),
            mode: Mode::Merge,
            key: Vec::new(),
            to: None,
            mends: None,
            shared: None,
            at_stores: AtStoresChange::default(),
            by: by.to_owned(),
            note,
            dry_run: false,
            based_on: None,
            scheduled: None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The table that was to change.
    pub table: TableName,
    /// The version it came to, or would; of what is scheduled, that of the next table.
    pub version: Seq,
    /// The table's version before.
    pub previous: Seq,
    /// What it did, or would.
    pub counts: Counts,
    /// Sites that have the table.
    pub audience: usize,
    /// Sites for which something changes.
    pub sites_touched: usize,
    /// Nothing was done: the rest is what would have come of it.
    pub dry_run: bool,
}
