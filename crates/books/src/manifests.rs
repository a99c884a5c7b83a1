//! What sites' newest manifests say, and what became of them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rollcall_types::{Seq, SiteId, Stated, Timestamp};

/// What became of one table's part of a site's newest manifest.
#[derive(Debug, Clone)]
pub struct Reconciled {
    /// What the manifest says of the table.
    pub stated: Stated,
    /// Changes behind this position are counted.
    pub after: Seq,
    /// Changes up to and including this position are counted.
    pub through: Seq,
    /// Rows in the lake; none where they could not be counted.
    pub found: Option<u64>,
    /// When HQ received the manifest.
    pub at: Timestamp,
}

/// What was reconciled last, by site and table.
#[derive(Debug, Default)]
pub struct Reconciliation {
    all: Mutex<BTreeMap<(SiteId, String), Reconciled>>,
}

impl Reconciliation {
    /// What was reconciled last, by site and table as the store calls it; locked until let go.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<(SiteId, String), Reconciled>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
