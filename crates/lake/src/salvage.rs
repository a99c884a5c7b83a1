//! What of a damaged log can be used, and how it becomes a log again: a checkpoint of that takes
//! the place of what came before.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint, data_file,
    digest::Digest,
    error::{Doing, LakeError},
    objects::get_optional,
    replay::{self, Sound},
    schema::TableSchema,
    snapshot::{DataFile, FileStats, Snapshot, meta_data_for},
};

/// What of HQ's own state may be older than it was: people and rights are not believed until
/// somebody looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// What is lost, or may be.
    pub what: Vec<String>,
}

fn doubt_path() -> Path {
    Path::from("rollcall/doubt.json")
}

impl Doubt {
    pub(crate) async fn read(store: &dyn ObjectStore) -> Result<Option<Self>, LakeError> {
        let Some(bytes) = get_optional(store, &doubt_path()).await? else { return Ok(None) };
        let unreadable = |_| Self { what: vec![format!("{} cannot be read", doubt_path())] };
        Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(unreadable)))
    }

    /// Adds to what is doubted.
    pub(crate) async fn add(store: &dyn ObjectStore, what: Vec<String>) -> Result<Option<Self>, LakeError> {
        let mut doubt = Self::read(store).await?;
        if what.is_empty() {
            return Ok(doubt);
        }
        let all = doubt.get_or_insert(Self { what: Vec::new() });
        for what in what.into_iter().filter(|what| !all.what.contains(what)).collect::<Vec<_>>() {
            all.what.push(what);
        }
        let text = serde_json::to_vec(&all).map_err(LakeError::damaged)?;
        store.put(&doubt_path(), text.into()).await.doing("noting what is in doubt")?;
        Ok(doubt)
    }

    /// Somebody looked.
    pub(crate) async fn end(store: &dyn ObjectStore) -> Result<(), LakeError> {
        match store.delete(&doubt_path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error).doing("ending a doubt"),
        }
    }
}

/// Takes every entry that can be read, whatever is missing between them: for tables whose rows
/// stand each for itself. The log ends then with a checkpoint of that, not before `noted`. Returns
/// what is lost.
pub(crate) async fn take_what_is_there(
    store: &dyn ObjectStore,
    root: &Path,
    schema: &TableSchema,
    noted: u64,
) -> Result<Vec<String>, LakeError> {
    let Sound { opened, newest, behind } = replay::sound(store, root).await?;
    let mut snapshot = match opened {
        Some(opened) => opened.snapshot,
        None => Snapshot::empty(meta_data_for(schema, None, rollcall_runtime::now().as_millis()))?,
    };
    let (mut lost, mut next) = (Vec::new(), snapshot.version + 1);
    let mut digest = snapshot.digest;
    for (version, entry) in behind {
        if version > next {
            lost.push(format!("the log entries {next} to {} of {root} are gone", version - 1));
        }
        next = version + 1;
        let applied = entry.and_then(|entry| {
            let path = replay::entry_path(root, version);
            let is_other = digest.is_some() && entry.previous() != digest;
            entry
                .begins(root)
                .or_else(|what| if version == 0 { Err(what) } else { Ok(()) })
                .and(if is_other { Err("it followed another entry than stands before it") } else { Ok(()) })
                .map_err(|what| LakeError::damaged(format!("the log entry {path}: {what}")))?;
            digest = entry.digest;
            let mut after = snapshot.clone();
            after.apply(version, entry.actions)?;
            Ok(after)
        });
        match applied {
            Ok(after) => snapshot = after,
            Err(error) => {
                digest = None;
                lost.push(rollcall_types::describe(&error));
            }
        }
    }
    if schema.columns.iter().any(|column| snapshot.schema().column(&column.name) != Some(column)) {
        // An entry of another table stood here.
        let own = Snapshot::empty(meta_data_for(schema, None, rollcall_runtime::now().as_millis()))?;
        (snapshot.meta_data, snapshot.schema) = (own.meta_data, own.schema);
    }
    lost.extend(adopt(store, root, &mut snapshot).await?);
    (snapshot.version, snapshot.digest) = (newest.max(noted), digest.filter(|_| newest >= noted));
    checkpoint::put(store, root, snapshot, PutMode::Overwrite).await?;
    Ok(lost)
}

/// Takes in data files that are there and that no entry names: those of entries that cannot be
/// read. Rows that were taken out before may be among them again; each stands for itself. What
/// cannot be read is said.
async fn adopt(store: &dyn ObjectStore, root: &Path, snapshot: &mut Snapshot) -> Result<Vec<String>, LakeError> {
    let listed: Vec<_> = store.list(Some(root)).try_collect().await.doing("listing data files")?;
    let (log, mut lost) = (replay::log_path(root), Vec::new());
    for meta in listed.into_iter().filter(|meta| !meta.location.prefix_matches(&log)) {
        let Some(name) = meta.location.filename().filter(|name| name.ends_with(".parquet")) else { continue };
        if snapshot.files.contains_key(name) {
            continue;
        }
        let Some(bytes) = get_optional(store, &meta.location).await? else { continue };
        let (schema, read) = (snapshot.schema().clone(), bytes.clone());
        // Bytes from outside: the reader is known to panic on some that are malformed.
        let read =
            rollcall_runtime::blocking(move || data_file::read(read, &schema)).await.doing("reading a data file");
        let rows = match read.flatten() {
            Ok(batches) => batches.iter().map(|rows| rows.num_rows() as u64).sum(),
            Err(error) => {
                lost.push(format!("{}: {}", meta.location, rollcall_types::describe(&error)));
                continue;
            }
        };
        let file = DataFile {
            path: name.to_owned(),
            size: bytes.len() as u64,
            modified_ms: meta.last_modified.timestamp_millis(),
            stats: FileStats { num_records: rows, ..FileStats::default() },
            mutations: 0,
            superseded: false,
            digest: Some(Digest::of(&bytes)),
        };
        snapshot.files.insert(name.into(), Arc::new(file));
    }
    Ok(lost)
}

/// Takes a damaged table back to where it was before the damage. What came behind that is not part
/// of it any more: its log goes on after `newest`. Returns the state it has then.
pub(crate) async fn roll_back(store: &dyn ObjectStore, root: &Path, newest: u64) -> Result<Snapshot, LakeError> {
    let sound = replay::sound(store, root).await?;
    let mut snapshot = match sound.opened {
        Some(opened) => opened.snapshot,
        None => {
            let schema = TableSchema::for_sites(Vec::new());
            Snapshot::empty(meta_data_for(&schema, None, rollcall_runtime::now().as_millis()))?
        }
    };
    (snapshot.version, snapshot.digest) = (newest.max(sound.newest), None);
    checkpoint::put(store, root, snapshot.clone(), PutMode::Overwrite).await?;
    Ok(snapshot)
}
