//! Doors for the fuzz targets, which are in a workspace of their own.

use rollcall_types::{Epoch, SiteNumber};

use crate::{
    action::Action,
    checkpoint,
    entry::Entry,
    schema::TableSchema,
    snapshot::{CursorField, Snapshot, meta_data_for},
};

fn actions() -> Vec<Action> {
    let meta_data = meta_data_for(&TableSchema::for_sites(Vec::new()), None, 0);
    let cursor = Action::txn(CursorField::Seq.app_id(SiteNumber(7), Epoch(1)), 42);
    vec![Action::protocol(), Action::meta_data(meta_data), cursor]
}

/// The text of a sound entry.
pub fn written_entry() -> Vec<u8> {
    Entry::write("WRITE", actions(), None).map(|(_, text, _)| text.to_vec()).unwrap_or_default()
}

/// Whether this is taken for an entry.
pub fn entry(bytes: &[u8]) -> bool {
    Entry::read(bytes).is_ok()
}

/// The bytes of a sound checkpoint.
pub fn written_checkpoint() -> Vec<u8> {
    let written = || {
        let mut snapshot = Snapshot::empty(meta_data_for(&TableSchema::for_sites(Vec::new()), None, 0))?;
        snapshot.apply(3, actions())?;
        checkpoint::write(&snapshot)
    };
    written().map(|(bytes, _)| bytes).unwrap_or_default()
}

/// Whether this is taken for a checkpoint. The reader of Parquet is known to panic on some that are
/// not: a table's log takes that for damage, and so does this.
pub fn checkpoint(bytes: Vec<u8>) -> bool {
    std::panic::catch_unwind(|| checkpoint::read(3, bytes.into()).is_ok()).unwrap_or(false)
}
