//! Checkpoints of a table's log.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use object_store::PutMode;

use super::Table;

use crate::{checkpoint, error::LakeError};

/// A checkpoint is due after this much log …
pub(super) const CHECKPOINT_BYTES: usize = 8 * 1024 * 1024;

/// … or this many entries.
pub(super) const CHECKPOINT_ENTRIES: u64 = 1000;

/// Removed files are listed in checkpoints for this long; vacuum deletes them long before.
pub(super) const TOMBSTONES_KEPT: Duration = Duration::from_secs(24 * 3600);

impl Table {
    /// Takes a checkpoint in the background when enough log has gathered since the last.
    pub fn checkpoint_if_due(self: &Arc<Self>) {
        let due = {
            let live = self.live();
            live.log_bytes >= CHECKPOINT_BYTES || live.log_entries >= CHECKPOINT_ENTRIES
        };
        if due && self.set_aside().is_none() && !self.checkpointing.swap(true, Ordering::AcqRel) {
            let table = self.clone();
            rollcall_runtime::spawn(async move {
                let outcome = table.checkpoint().await;
                *table.checkpointed.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                table.checkpointing.store(false, Ordering::Release);
            });
        }
    }

    /// How the last checkpoint taken in the background ended, once. After one that failed the log
    /// stays longer.
    pub fn take_checkpointed(&self) -> Option<Result<(), LakeError>> {
        self.checkpointed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Writes a checkpoint of the newest version; none if this node fell so far behind that its
    /// newest may be long outdated.
    pub async fn checkpoint(&self) -> Result<(), LakeError> {
        let (snapshot, log_bytes, log_entries) = {
            let mut live = self.live();
            let horizon = rollcall_runtime::now().before(TOMBSTONES_KEPT).as_millis();
            let removed = live.snapshot.removed.iter().filter(|(_, removed)| **removed >= horizon);
            live.snapshot.removed = removed.map(|(path, removed)| (path.clone(), *removed)).collect();
            (live.snapshot.clone(), live.log_bytes, live.log_entries)
        };
        if self.is_stale() {
            return Ok(());
        }
        checkpoint::put(self.store.as_ref(), &self.root, snapshot, PutMode::Create).await?;
        let mut live = self.live();
        live.log_bytes = live.log_bytes.saturating_sub(log_bytes);
        live.log_entries = live.log_entries.saturating_sub(log_entries);
        Ok(())
    }
}
