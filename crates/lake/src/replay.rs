//! Reads a table's log: the newest checkpoint, then the entries behind it.

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use serde::Deserialize;

use crate::{
    checkpoint,
    digest::Digest,
    entry::Entry,
    error::{Doing, LakeError},
    objects::get_optional,
    snapshot::Snapshot,
};

/// The path of a table's log entry.
pub(crate) fn entry_path(root: &Path, version: u64) -> Path {
    log_path(root).join(format!("{version:020}.json"))
}

pub(crate) fn checkpoint_path(root: &Path, version: u64) -> Path {
    log_path(root).join(format!("{version:020}.checkpoint.parquet"))
}

pub(crate) fn last_checkpoint_path(root: &Path) -> Path {
    log_path(root).join("_last_checkpoint")
}

pub(crate) fn log_path(root: &Path) -> Path {
    root.clone().join("_delta_log")
}

/// Where the digest of a checkpoint is.
pub(crate) fn checkpoint_digest_path(root: &Path, version: u64) -> Path {
    log_path(root).join(format!("{version:020}.checkpoint.sha256"))
}

/// One log entry; none when it does not exist (yet).
pub(crate) async fn read_entry(store: &dyn ObjectStore, root: &Path, version: u64) -> Result<Option<Entry>, LakeError> {
    let path = entry_path(root, version);
    let Some(text) = get_optional(store, &path).await? else { return Ok(None) };
    Entry::read(&text).map(Some).map_err(|what| LakeError::damaged(format!("the log entry {path}: {what}")))
}

/// A table as found in the store.
pub(crate) struct Opened {
    pub(crate) snapshot: Snapshot,
    /// Log bytes and entries behind the newest checkpoint.
    pub(crate) log_bytes: usize,
    pub(crate) log_entries: u64,
}

/// Log entries fetched at a time.
const READ_AHEAD: usize = 16;

/// Opens the table at `root`; none when there is none.
pub(crate) async fn open(store: &dyn ObjectStore, root: &Path) -> Result<Option<Opened>, LakeError> {
    let mut from = match last_checkpoint(store, root).await? {
        Some(named) => sound_checkpoint(store, root, named).await?,
        None => None,
    };
    if from.is_none() {
        from = newest_checkpoint(store, root, 0).await?;
    }
    loop {
        let opened = read_log(store, root, from).await?;
        let end = opened.as_ref().map_or(0, |opened| opened.snapshot.version() + 1);
        if !is_hole(store, root, end).await? {
            return Ok(opened);
        }
        // Entries were cleaned away, so a newer checkpoint holds them: somebody wrote this one,
        // slept, and named it last. Who took the hole for the end would commit into it.
        let newer = newest_checkpoint(store, root, end).await?;
        from = Some(newer.ok_or_else(|| LakeError::damaged(format!("the log of {root} lacks entry {end}")))?);
    }
}

/// What of a damaged table can be relied on.
pub(crate) struct Sound {
    /// The state before the damage; none if that begins with the table.
    pub(crate) opened: Option<Opened>,
    /// The greatest version that a file of the log names.
    pub(crate) newest: u64,
    /// What can be read of the entries behind the state, by version.
    pub(crate) behind: Vec<(u64, Result<Entry, LakeError>)>,
}

/// Reads a damaged table's log as far as it can be relied on, and what can be read behind that.
pub(crate) async fn sound(store: &dyn ObjectStore, root: &Path) -> Result<Sound, LakeError> {
    let names = files(store, root).await?;
    let mut versions: Vec<u64> = names.iter().filter_map(|meta| version_of(meta, ".json")).collect();
    versions.sort_unstable();
    let newest = versions.last().copied().unwrap_or(0).max(checkpoints_of(&names).last().copied().unwrap_or(0));
    let from = newest_checkpoint(store, root, 0).await?;
    let mut next = from.as_ref().map_or(0, |from| from.version + 1);
    let mut opened = from.map(|snapshot| Opened { snapshot, log_bytes: 0, log_entries: 0 });
    let (mut behind, mut is_sound, start) = (Vec::new(), true, next);
    for version in versions.into_iter().filter(|version| *version >= start) {
        let read = read_entry(store, root, version).await;
        let entry = match read {
            Err(error @ LakeError::Store { .. }) => return Err(error),
            Ok(None) => Err(LakeError::damaged(format!("the log entry {} is gone", entry_path(root, version)))),
            Ok(Some(entry)) => Ok(entry),
            Err(error) => Err(error),
        };
        is_sound &= version == next;
        if let Ok(entry) = &entry
            && is_sound
        {
            let state = opened.as_ref().map(|opened| opened.snapshot.clone());
            if let Ok(snapshot) = after(state, root, version, entry.clone()) {
                let known = opened.take().map_or((0, 0), |opened| (opened.log_bytes, opened.log_entries));
                opened = Some(Opened { snapshot, log_bytes: known.0 + entry.bytes, log_entries: known.1 + 1 });
                next = version + 1;
                continue;
            }
        }
        is_sound = false;
        behind.push((version, entry));
    }
    Ok(Sound { opened, newest, behind })
}

/// The state after an entry; a table begins with one that has metadata.
fn after(state: Option<Snapshot>, root: &Path, version: u64, entry: Entry) -> Result<Snapshot, LakeError> {
    let mut snapshot = match state {
        Some(snapshot) => snapshot,
        None => {
            let begins = entry.begins(root);
            begins
                .map_err(|what| LakeError::damaged(format!("the log entry {}: {what}", entry_path(root, version))))?;
            let meta_data = entry.actions.iter().find_map(|action| action.meta_data.clone());
            let meta_data = meta_data.ok_or_else(|| LakeError::damaged(format!("{root} begins without metadata")))?;
            Snapshot::empty(*meta_data)?
        }
    };
    snapshot.take(root, version, entry)?;
    Ok(snapshot)
}

/// Whether there is no entry `version`, but later ones.
async fn is_hole(store: &dyn ObjectStore, root: &Path, version: u64) -> Result<bool, LakeError> {
    let doing = "listing a table's log";
    let log = log_path(root);
    let behind: Vec<_> =
        store.list_with_offset(Some(&log), &entry_path(root, version)).try_collect().await.doing(doing)?;
    if !behind.iter().filter_map(|meta| version_of(meta, ".json")).any(|later| later > version) {
        return Ok(false);
    }
    // It may have come, and others behind it, since the log was read.
    Ok(get_optional(store, &entry_path(root, version)).await?.is_none())
}

/// The version that a log file is of, if that is its kind.
fn version_of(meta: &ObjectMeta, suffix: &str) -> Option<u64> {
    meta.location.filename()?.strip_suffix(suffix)?.parse().ok()
}

/// The table as of the checkpoint, or from the beginning, and all entries behind that.
async fn read_log(store: &dyn ObjectStore, root: &Path, from: Option<Snapshot>) -> Result<Option<Opened>, LakeError> {
    let mut next = from.as_ref().map_or(0, |from| from.version + 1);
    let mut snapshot = from;
    let (mut log_bytes, mut log_entries) = (0, 0);
    'log: loop {
        let versions = next..next + READ_AHEAD as u64;
        let mut entries = futures::stream::iter(
            versions.map(|version| async move { (version, read_entry(store, root, version).await) }),
        )
        .buffered(READ_AHEAD);
        while let Some((version, entry)) = entries.next().await {
            let Some(entry) = entry? else { break 'log };
            log_bytes += entry.bytes;
            snapshot = Some(after(snapshot.take(), root, version, entry)?);
            log_entries += 1;
            next = version + 1;
        }
    }
    Ok(snapshot.map(|snapshot| Opened { snapshot, log_bytes, log_entries }))
}

#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
}

/// The table as of a checkpoint; none if it is not there, or damaged: an older one and more of the
/// log will do.
pub(crate) async fn sound_checkpoint(
    store: &dyn ObjectStore,
    root: &Path,
    version: u64,
) -> Result<Option<Snapshot>, LakeError> {
    let path = checkpoint_path(root, version);
    let Some(bytes) = get_optional(store, &path).await? else { return Ok(None) };
    let told = get_optional(store, &checkpoint_digest_path(root, version)).await?;
    // Bytes from outside: the reader is known to panic on some that are malformed.
    let read = rollcall_runtime::blocking(move || match told {
        Some(told) if told != Digest::of(&bytes).to_string() => Err(LakeError::damaged("it is not what was written")),
        _ => checkpoint::read(version, bytes),
    });
    let read = read.await.doing("reading a checkpoint").flatten();
    match read {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(error) => {
            let error = rollcall_types::describe(&error);
            tracing::error!(%path, error, "a checkpoint is damaged; the log is read from the one before");
            Ok(None)
        }
    }
}

/// The version that `_last_checkpoint` names.
pub(crate) async fn last_checkpoint(store: &dyn ObjectStore, root: &Path) -> Result<Option<u64>, LakeError> {
    let named = get_optional(store, &last_checkpoint_path(root)).await?;
    Ok(named.and_then(|bytes| serde_json::from_slice::<LastCheckpoint>(&bytes).ok()).map(|last| last.version))
}

/// The newest sound checkpoint there is from `version` on.
async fn newest_checkpoint(store: &dyn ObjectStore, root: &Path, version: u64) -> Result<Option<Snapshot>, LakeError> {
    for found in checkpoints_of(&files(store, root).await?).into_iter().rev().take_while(|found| *found >= version) {
        if let Some(snapshot) = sound_checkpoint(store, root, found).await? {
            return Ok(Some(snapshot));
        }
    }
    Ok(None)
}

/// What is in a table's log.
pub(crate) async fn files(store: &dyn ObjectStore, root: &Path) -> Result<Vec<ObjectMeta>, LakeError> {
    store.list(Some(&log_path(root))).try_collect().await.doing("listing a table's log")
}

/// The versions of which there are checkpoints among the files of a log, ascending.
pub(crate) fn checkpoints_of(files: &[ObjectMeta]) -> Vec<u64> {
    let mut found: Vec<u64> = files.iter().filter_map(|meta| version_of(meta, ".checkpoint.parquet")).collect();
    found.sort_unstable();
    found
}
