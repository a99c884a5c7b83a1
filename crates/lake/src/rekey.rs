//! A table gets another key: the first site proposed a wrong one.
//!
//! Which rows are versions of one row was told by the old key, and files were compacted by it. So
//! the sites must state their rows again afterwards, which is the caller's; what a complete load
//! states is told by the new key alone.

use std::sync::Arc;

use crate::{
    action::Action,
    error::LakeError,
    schema::TableSchema,
    snapshot::meta_data_for,
    table::{Put, Table},
};

impl Table {
    /// Whether the table can have this key; an error says why not.
    pub fn may_have_key(&self, key: &[String]) -> Result<(), String> {
        let snapshot = self.snapshot();
        let names = snapshot.schema().columns.iter().map(|column| column.name.as_str());
        let of_sites: Vec<&str> = names.filter(|name| !name.starts_with('_')).collect();
        match key.iter().find(|name| !of_sites.contains(&name.as_str())) {
            Some(unknown) => {
                Err(format!("{unknown:?} is no column of {}; its columns are {}", self.root(), of_sites.join(", ")))
            }
            None if key.is_empty() => Err("a key needs columns".to_owned()),
            None if snapshot.schema().key == key => Err(format!("the key of {} is this one already", self.root())),
            None => Ok(()),
        }
    }

    /// Gives the table another key, of columns that it has.
    pub async fn rekey(self: &Arc<Self>, key: &[String]) -> Result<(), LakeError> {
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.catch_up().await?;
            self.may_have_key(key).map_err(LakeError::Rows)?;
            let schema = TableSchema::new(base.schema().columns.clone(), key.to_vec());
            let meta_data = meta_data_for(&schema, Some(&base.meta_data), rollcall_runtime::now().as_millis());
            if matches!(self.put_entry(&base, "CHANGE KEY", vec![Action::meta_data(meta_data)]).await?, Put::Won) {
                self.checkpoint_if_due();
                return Ok(());
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }
}
