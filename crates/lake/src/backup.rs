//! A copy of a lake as of one moment, while HQ goes on.
//!
//! Log entries and data files never change once they are written, and clean-up leaves what no
//! version names for two
//! hours. So it is enough to read how far each log has come, within a moment, and to copy at
//! leisure what these versions
//! name. The order in which the logs are read is what makes the copy whole, as after a crash at
//! that moment: tables of
//! sites' rows first, then quarantine (what a site's rows lack is in it before they are anywhere
//! else), then HQ's own
//! state (a life of a journal is allotted before any row of it comes), and what HQ publishes last.

use std::sync::Arc;

use futures::{StreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    check::{CheckReport, check},
    error::{Doing, LakeError},
    lake::{OWN, table_roots},
    objects::get_optional,
    replay,
    snapshot::{DataFile, Snapshot},
    table::get_data_file,
};

/// Files copied at a time.
const AT_ONCE: usize = 4;
/// Objects beside the tables that belong to a lake.
const OTHERS: [&str; 2] = ["rollcall/lake.json", "rollcall/doubt.json"];
/// What a copy says of itself; its being there says that the copy is complete.
const MANIFEST: &str = "rollcall/backup.json";

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The lake's id.
    pub lake: String,
    /// By table: how far it had come, and what is in it.
    pub tables: Vec<CopiedTable>,
    /// Bytes of all data files.
    pub bytes: u64,
}

/// One table of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedTable {
    /// Where it is in the lake.
    pub table: String,
    /// Its version.
    pub version: u64,
    /// Rows in it, history included.
    pub rows: u64,
    /// Data files.
    pub files: usize,
}

struct Known {
    root: Path,
    snapshot: Snapshot,
}

/// Copies the lake in `from` to `to`, which may hold an earlier copy of the same lake: what is
/// there already is not read again. Then reads the copy as a lake is read, and compares. `progress`
/// hears how many data files of how many are done.
pub async fn back_up(
    from: &Arc<dyn ObjectStore>,
    to: &Arc<dyn ObjectStore>,
    mut progress: impl FnMut(&str, usize, usize),
) -> Result<Copied, LakeError> {
    let lake = id_of(from.as_ref()).await?.ok_or_else(|| LakeError::damaged("there is no lake"))?;
    if let Some(other) = id_of(to.as_ref()).await?.filter(|other| *other != lake) {
        return Err(LakeError::Other(format!("a copy of another lake is there already ({other}); name another place")));
    }
    // A copy that is not complete says nothing of itself.
    match to.delete(&Path::from(MANIFEST)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(source) => return Err(LakeError::Store { doing: "beginning a copy".to_owned(), source }),
    }
    let heads = get_optional(from.as_ref(), &Path::from("rollcall/heads")).await?;
    let known = versions(from).await?;
    let files: Vec<(Path, Arc<DataFile>)> =
        known.iter().flat_map(|known| known.snapshot.files().map(|file| (known.root.clone(), file.clone()))).collect();
    let (count, mut bytes) = (files.len(), 0);
    progress("copying", 0, count);
    let mut copying = stream::iter(files)
        .map(|(root, file)| async move { copy_file(from, to, &root, &file).await.map(|()| file.size) })
        .buffer_unordered(AT_ONCE);
    let mut done = 0;
    while let Some(size) = copying.next().await {
        bytes += size?;
        done += 1;
        progress("copying", done, count);
    }
    drop(copying);
    for known in &known {
        copy_log(from.as_ref(), to.as_ref(), known).await?;
    }
    copy_secrets(from.as_ref(), to.as_ref()).await?;
    for path in OTHERS.map(Path::from) {
        if let Some(body) = get_optional(from.as_ref(), &path).await? {
            put(to.as_ref(), &path, body).await?;
        }
    }
    // It says less than there is; the next HQ notes what there is.
    if let Some(body) = heads {
        put(to.as_ref(), &Path::from("rollcall/heads"), body).await?;
    }
    let tables = known.iter().map(|known| counted(known.root.as_ref(), &known.snapshot)).collect();
    let copied = Copied { lake, tables, bytes };
    let report = verify(to, &copied, |done, of| progress("reading the copy", done, of)).await?;
    if let Some(finding) = report.findings.first() {
        return Err(LakeError::Other(format!("the copy is not what was copied: {}", finding.what)));
    }
    let text = serde_json::to_string_pretty(&copied).map_err(LakeError::damaged)?;
    put(to.as_ref(), &Path::from(MANIFEST), text.into_bytes().into()).await?;
    Ok(copied)
}

/// What a copy says of itself; none if none is there, or it is not complete.
pub async fn manifest(store: &dyn ObjectStore) -> Result<Option<Copied>, LakeError> {
    let Some(body) = get_optional(store, &Path::from(MANIFEST)).await? else { return Ok(None) };
    serde_json::from_slice(&body).map(Some).map_err(LakeError::damaged)
}

/// Reads all of a copy and compares it with what was to be in it.
async fn verify(
    store: &Arc<dyn ObjectStore>,
    copied: &Copied,
    progress: impl FnMut(usize, usize),
) -> Result<CheckReport, LakeError> {
    let report = check(store, progress).await?;
    for table in &copied.tables {
        let opened = replay::open(store.as_ref(), &Path::from(table.table.as_str())).await?;
        let found = opened.map(|opened| counted(&table.table, &opened.snapshot));
        if found.as_ref() != Some(table) {
            return Err(LakeError::Other(format!("the copy of {} holds {found:?}, not {table:?}", table.table)));
        }
    }
    Ok(report)
}

/// Whose lake is in a store; none if there is none.
pub async fn id_of(store: &dyn ObjectStore) -> Result<Option<String>, LakeError> {
    let Some(body) = get_optional(store, &Path::from(OTHERS[0])).await? else { return Ok(None) };
    let value: serde_json::Value = serde_json::from_slice(&body).map_err(LakeError::damaged)?;
    Ok(value["id"].as_str().map(str::to_owned))
}

/// What there is of a table.
fn counted(table: &str, snapshot: &Snapshot) -> CopiedTable {
    let (version, rows, files) = (snapshot.version(), snapshot.rows(), snapshot.files().count());
    CopiedTable { table: table.to_owned(), version, rows, files }
}

/// How far each log has come, in the order that the module explains.
async fn versions(store: &Arc<dyn ObjectStore>) -> Result<Vec<Known>, LakeError> {
    let open = |root: Path| async move {
        let opened = replay::open(store.as_ref(), &root).await?;
        Ok::<_, LakeError>(opened.map(|opened| Known { root, snapshot: opened.snapshot }))
    };
    let mut known = Vec::new();
    let roots: Vec<Path> = table_roots(store.as_ref()).await?.into_iter().map(|(_, root)| root).collect();
    let mut published = Vec::new();
    for root in roots {
        match open(root).await? {
            Some(of_hq) if of_hq.snapshot.is_published() => published.push(of_hq.root),
            other => known.extend(other),
        }
    }
    // Quarantine and state last of HQ's own.
    let is_late = |name: &&&str| matches!(**name, "quarantine" | "state");
    let early = OWN.iter().filter(|name| !is_late(name)).copied();
    for name in early.chain(["quarantine", "state"]) {
        known.extend(open(Path::from("rollcall").join(name)).await?);
    }
    for root in published {
        known.extend(open(root).await?);
    }
    Ok(known)
}

async fn copy_file(
    from: &Arc<dyn ObjectStore>,
    to: &Arc<dyn ObjectStore>,
    root: &Path,
    file: &DataFile,
) -> Result<(), LakeError> {
    let path = root.clone().join(file.path.as_str());
    // A name is given once: what is there is the same, and is read with all the rest in the end.
    if to.head(&path).await.is_ok_and(|there| there.size == file.size) {
        return Ok(());
    }
    let body = get_data_file(from.as_ref(), root, file).await?;
    put(to.as_ref(), &path, body).await
}

/// The log up to the version that was read.
async fn copy_log(from: &dyn ObjectStore, to: &dyn ObjectStore, known: &Known) -> Result<(), LakeError> {
    for meta in replay::files(from, &known.root).await? {
        let name = meta.location.filename().unwrap_or_default();
        let version = name.split('.').next().and_then(|version| version.parse::<u64>().ok());
        // What names the newest checkpoint may name one beyond; who reads the copy looks for
        // itself.
        if version.is_none_or(|version| version > known.snapshot.version()) {
            continue;
        }
        // What clean-up takes meanwhile is in a checkpoint.
        if let Some(body) = get_optional(from, &meta.location).await? {
            put(to, &meta.location, body).await?;
        }
    }
    Ok(())
}

async fn copy_secrets(from: &dyn ObjectStore, to: &dyn ObjectStore) -> Result<(), LakeError> {
    let listed = from.list_with_delimiter(Some(&Path::from("private"))).await.doing("listing secrets")?;
    for meta in listed.objects {
        if let Some(body) = get_optional(from, &meta.location).await? {
            put(to, &meta.location, body).await?;
        }
    }
    Ok(())
}

async fn put(to: &dyn ObjectStore, path: &Path, body: bytes::Bytes) -> Result<(), LakeError> {
    to.put(path, body.into())
        .await
        .map_err(|source| LakeError::Store { doing: format!("writing {path} of the copy"), source })?;
    Ok(())
}

/// Reads all of a backup, of which [`manifest`] says this: what is damaged is not to be restored.
pub async fn check_backup(
    store: &Arc<dyn ObjectStore>,
    said: &Copied,
    progress: impl FnMut(usize, usize),
) -> Result<(), LakeError> {
    match verify(store, said, progress).await?.findings.first() {
        Some(finding) => Err(LakeError::Other(format!("the backup is damaged: {}", finding.what))),
        None => Ok(()),
    }
}

/// Puts a backup that was checked into a store in which there is no lake.
pub async fn restore(
    from: &Arc<dyn ObjectStore>,
    to: &Arc<dyn ObjectStore>,
    progress: impl FnMut(&str, usize, usize),
) -> Result<Copied, LakeError> {
    if let Some(there) = id_of(to.as_ref()).await? {
        return Err(LakeError::Other(format!("there is a lake already ({there})")));
    }
    let restored = back_up(from, to, progress).await?;
    // It is a lake now, and no copy.
    to.delete(&Path::from(MANIFEST)).await.doing("completing a restore")?;
    Ok(restored)
}
