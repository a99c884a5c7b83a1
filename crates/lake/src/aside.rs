//! Tables set aside: their logs are damaged, and nothing of them is read or written until they are
//! repaired.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use object_store::{ObjectStore, path::Path};
use rollcall_types::SiteNumber;

use crate::{
    clock::BootClock,
    error::LakeError,
    replay::{self, Opened},
    schema::TableSchema,
    snapshot::{CursorField, Snapshot, meta_data_for},
    table::{Live, Table},
};

/// A table set aside.
#[derive(Debug, Clone)]
pub(crate) struct Aside {
    /// What is wrong with its log.
    what: String,
    /// The sites that had come behind what can be relied on, as far as that can be read.
    sites: HashSet<SiteNumber>,
}

impl Table {
    /// The table at `root`, whose log is damaged as `what` says, set aside: as of before the
    /// damage, and neither read nor written until it is repaired.
    pub(crate) async fn open_aside(
        store: Arc<dyn ObjectStore>,
        root: Path,
        clock: BootClock,
        what: String,
    ) -> Result<Arc<Self>, LakeError> {
        let read_at = clock.now();
        let sound = replay::sound(store.as_ref(), &root).await?;
        let entries = sound.behind.iter().filter_map(|(_, entry)| entry.as_ref().ok());
        let txns = entries.flat_map(|entry| &entry.actions).filter_map(|action| action.txn.as_ref());
        let sites = txns.filter_map(|txn| CursorField::parse(&txn.app_id)).map(|(site, ..)| site).collect();
        let opened = match sound.opened {
            Some(opened) => opened,
            None => {
                let meta_data = meta_data_for(&TableSchema::for_sites(Vec::new()), None, 0);
                Opened { snapshot: Snapshot::empty(meta_data)?, log_bytes: 0, log_entries: 0 }
            }
        };
        tracing::error!(table = %root, what, "a table is damaged and set aside; `rollcall lake check` says more");
        Ok(Self::with(store, root, clock, Live::new(opened, read_at), Some(Aside { what, sites })))
    }

    /// Why the table is set aside, if it is: nothing of it is read or written until it is repaired.
    pub fn set_aside(&self) -> Option<String> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|aside| aside.what.clone())
    }

    /// Whether the table is set aside and has, or had, rows of this site.
    pub fn is_aside_for(&self, site: SiteNumber) -> bool {
        let aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        let has_rows = || self.snapshot().epochs(site).next().is_some();
        aside.as_ref().is_some_and(|aside| aside.sites.contains(&site) || has_rows())
    }

    pub(crate) fn put_aside(&self, what: String) {
        tracing::error!(table = %self.root, what, "a table is damaged and set aside; `rollcall lake check` says more");
        let aside = Aside { what, sites: HashSet::new() };
        *self.aside.lock().unwrap_or_else(PoisonError::into_inner) = Some(aside);
    }

    /// An error if the table is set aside.
    pub fn must_be_sound(&self) -> Result<(), LakeError> {
        match self.set_aside() {
            None => Ok(()),
            Some(what) => Err(LakeError::Damaged(format!(
                "{} is set aside until it is repaired (`rollcall lake check`, `rollcall lake repair`): {what}",
                self.root
            ))),
        }
    }
}
