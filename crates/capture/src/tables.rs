//! Tables that can be captured, and those that are.

use serde::Serialize;

/// One table to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name in the store's database; case does not matter.
    pub table: String,
    /// Columns never to be journalled.
    pub excluded: Vec<String>,
}

/// A table of the store's, as a person sees it who is to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedTable {
    /// Its name.
    pub table: String,
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// Its primary key; empty where SQLite's row number is all it has.
    pub key: Vec<String>,
    /// Rows in it now; none where they cannot be counted.
    pub rows: Option<u64>,
    /// It is captured already.
    pub is_captured: bool,
    /// Why it cannot be captured, and what to do; none if it can.
    pub problem: Option<String>,
}

/// What the agent keeps of capture outside the store's database, so that tables of ours that a
/// program of the store's drops can be made again. Only the kind that wrote it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration(String);

impl Registration {
    /// One that was kept as text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// As it is to be kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
