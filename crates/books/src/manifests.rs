//! What sites' newest manifests say, and what became of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rollcall_types::{Seq, SiteId, Stated, TableName, Timestamp, columns};

use crate::{
    quarantine::hq_name,
    restate::{Captured, CapturedTables},
    site_log::Received,
};

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
    captured: Mutex<Captured>,
}

impl Reconciliation {
    /// What each site captures, by its newest manifest.
    pub fn captured(&self) -> Captured {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what a site's newest manifest says it captures.
    pub fn note_captured(&self, site: &SiteId, received: &Received) {
        let manifest = &received.manifest;
        let gone = manifest.tables.iter().filter(|stated| !stated.gone.is_empty());
        let newest = CapturedTables {
            epoch: received.epoch,
            through: manifest.through,
            tables: manifest.tables.iter().map(|stated| hq_name(&stated.table)).collect(),
            uncaptured: manifest.uncaptured.iter().filter_map(|table| TableName::at_hq(table).ok()).collect(),
            gone: gone
                .filter_map(|stated| {
                    let columns = stated.gone.iter().map(|column| columns::at_hq(column)).collect();
                    Some((TableName::at_hq(&stated.table).ok()?, columns))
                })
                .collect(),
        };
        self.captured.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone(), Arc::new(newest));
    }

    /// What was reconciled last, by site and table as the store calls it; locked until let go.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<(SiteId, String), Reconciled>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
