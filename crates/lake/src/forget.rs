//! A table of the stores' is emptied of all that sites proposed for it: rows, columns, key.
//!
//! The cursors stay: what a site knows to be confirmed must not seem to be gone. Sites that have
//! the table state it again, which is the caller's to ask; the first of them proposes columns and
//! key anew.

use std::sync::Arc;

use crate::{
    action::{Action, Remove},
    error::LakeError,
    schema::TableSchema,
    snapshot::{Snapshot, forgotten_meta_data},
    table::{Put, Table},
};

impl Table {
    /// Takes away all rows and columns of the stores', and the key. Gives how many rows there were.
    pub async fn forget(self: &Arc<Self>) -> Result<u64, LakeError> {
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.catch_up().await?;
            if base.is_published() {
                return Err(LakeError::Rows(format!("{} is HQ's own", self.root())));
            }
            let rows = base.files().map(|file| file.stats.num_records).sum();
            if matches!(self.put_entry(&base, "FORGET", emptied(&base)).await?, Put::Won) {
                self.checkpoint_if_due();
                return Ok(rows);
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }
}

fn emptied(base: &Snapshot) -> Vec<Action> {
    let now_ms = rollcall_runtime::now().as_millis();
    let removed = base.files().map(|file| {
        let (path, deletion_timestamp) = (file.path.clone(), Some(now_ms));
        Action::remove(Remove { path, deletion_timestamp, data_change: true })
    });
    let blank = TableSchema::for_sites(Vec::new());
    std::iter::once(Action::meta_data(forgotten_meta_data(&blank, &base.meta_data, now_ms))).chain(removed).collect()
}
