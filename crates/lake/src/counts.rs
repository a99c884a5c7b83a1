//! What this process did to a table since it opened it, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the table was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Log entries that this process wrote.
    pub commits: u64,
    /// Log entries that another process was ahead with.
    pub conflicts: u64,
    /// Merges of data files that were committed.
    pub compactions: u64,
    /// Data files that these merges took out of the table.
    pub compacted_files: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) compacted_files: AtomicU64,
}

impl Counters {
    pub(crate) fn get(&self) -> TableCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TableCounts {
            commits: now(&self.commits),
            conflicts: now(&self.conflicts),
            compactions: now(&self.compactions),
            compacted_files: now(&self.compacted_files),
        }
    }
}
