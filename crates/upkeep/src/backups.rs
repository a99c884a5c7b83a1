//! `rollcall backup` and `restore`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use object_store::ObjectStore;
use rollcall_lake::{
    DurableDirectory, Lake, LakeOptions,
    backup::{self, Copied},
    lock_directory,
};
use rollcall_types::{SiteId, SiteNumber, Timestamp};
use serde::Serialize;

use rollcall_api::NODE_KEY_FILE;
use rollcall_registry::{Act, HqError, roster::sites};

use crate::lake_care::{LakePlace, refuse_while_nodes_run};

/// Folders and files of a directory that are the lake, and not the node's own.
const OF_LAKE: [&str; 3] = ["rollcall", "tables", "private"];

/// What a restore did.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// What is there now.
    pub copied: Copied,
    /// Where what was there before is now.
    pub moved_to: Option<PathBuf>,
    /// Sites that had come further than the backup, or, where what was there cannot be read, all
    /// that ever joined.
    pub sites: BTreeSet<SiteId>,
    /// The key that opens the lake's secrets is there.
    pub has_key: bool,
}

/// A place for a copy: an object store's address, or a directory, which is made.
fn place(address: &str, is_new: bool) -> Result<Arc<dyn ObjectStore>, HqError> {
    if address.contains("://") {
        return Ok(rollcall_lake::store_at(address)?);
    }
    let path = Path::new(address);
    let failed = |source| HqError::Io { doing: format!("opening {address}"), source };
    if is_new && !path.exists() {
        fs::create_dir_all(path).map_err(failed)?;
        // It holds every store's rows.
        #[cfg(unix)]
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)?;
    }
    fs::metadata(path).map_err(failed)?;
    let directory = DurableDirectory::new(path);
    Ok(Arc::new(directory.map_err(|source| failed(std::io::Error::other(source)))?))
}

/// Copies a lake as of now, also while HQ runs, and reads the copy. `node.key` is no part of it,
/// unless `with_key`.
pub async fn back_up(
    from: &LakePlace,
    to: &str,
    with_key: bool,
    progress: impl FnMut(&str, usize, usize),
) -> Result<Copied, HqError> {
    if with_key && to.contains("://") {
        let text = "node.key is put into directories only; keep it apart from the store";
        return Err(HqError::Invalid(text.to_owned()));
    }
    refuse_within(from, to)?;
    let copied = backup::back_up(&from.store()?, &place(to, true)?, progress).await?;
    if with_key {
        copy_key(&from.data, Path::new(to))?;
    }
    Ok(copied)
}

/// Refuses a place where the files of the copy and those of the lake would meet: that would end HQ.
fn refuse_within(from: &LakePlace, to: &str) -> Result<(), HqError> {
    let meets = match &from.store {
        Some(store) => {
            let [store, to] = [store, to].map(|place| format!("{}/", place.trim_end_matches('/')));
            to.starts_with(&store) || OF_LAKE.iter().any(|part| store.starts_with(&format!("{to}{part}/")))
        }
        None if to.contains("://") => false,
        None => {
            let [data, to] = [&from.data, Path::new(to)].map(whole_path);
            to.starts_with(&data) || OF_LAKE.iter().any(|part| data.starts_with(to.join(part)))
        }
    };
    match meets {
        false => Ok(()),
        true => Err(HqError::Invalid(format!("{to} is where the lake itself is; name another place for the backup"))),
    }
}

/// The path without links and relative parts, also of what is not there yet.
fn whole_path(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            part => {
                whole.push(part);
                whole = fs::canonicalize(&whole).unwrap_or(whole);
            }
        }
    }
    whole
}

fn copy_key(from: &Path, to: &Path) -> Result<(), HqError> {
    let failed = |source| HqError::Io { doing: format!("copying {NODE_KEY_FILE} to {}", to.display()), source };
    // Its rights go with it.
    fs::copy(from.join(NODE_KEY_FILE), to.join(NODE_KEY_FILE)).map(|_| ()).map_err(failed)
}

/// Puts a backup in place. A directory in use is refused, and so is one that holds a lake, unless
/// `replaces`: that lake is then moved
/// into a folder beside.
pub async fn restore(
    from: &str,
    to: &LakePlace,
    replaces: bool,
    now: Timestamp,
    mut progress: impl FnMut(&str, usize, usize),
) -> Result<Restored, HqError> {
    let source = place(from, false)?;
    let said = backup::manifest(source.as_ref()).await?;
    let said = said.ok_or_else(|| {
        HqError::Invalid(format!(
            "{from} holds no complete backup: `rollcall backup` writes rollcall/backup.json into it when it is done"
        ))
    })?;
    let Some(address) = &to.store else {
        // Nobody else may begin with it before this is done.
        let _lock = lock_directory(&to.data)?;
        refuse_used(&to.data, replaces)?;
        // Nothing is moved aside for what cannot take its place.
        backup::check_backup(&source, &said, |done, of| progress("reading the backup", done, of)).await?;
        return restore_directory(from, &source, &to.data, now, progress).await;
    };
    backup::check_backup(&source, &said, |done, of| progress("reading the backup", done, of)).await?;
    let target = rollcall_lake::store_at(address)?;
    refuse_while_nodes_run(target.as_ref()).await?;
    let copied = backup::restore(&source, &target, progress).await?;
    record_restore(from, &target, now).await;
    let sites = positions(target).await?.into_keys().collect();
    Ok(Restored { copied, moved_to: None, sites, has_key: to.data.join(NODE_KEY_FILE).exists() })
}

/// Says in the restored lake itself that it was restored, and leaves the numbers of incidents that
/// it does not know alone.
async fn record_restore(from: &str, target: &Arc<dyn ObjectStore>, now: Timestamp) {
    let act = Act {
        at: now,
        by: "whoever has HQ's machine".to_owned(),
        from: "HQ's machine".to_owned(),
        what: format!("restore from {from}"),
        outcome: "restored".to_owned(),
        before: None,
        after: None,
    };
    let write = async {
        let lake = Lake::open(target.clone(), LakeOptions::default()).await?;
        rollcall_alert::leave_room_for_numbers(&lake, now).await?;
        act.record(&lake).await
    };
    // What was restored is whole without it.
    if let Err(error) = write.await {
        tracing::warn!(error = %rollcall_types::describe(&error), "the restore could not be noted in the lake");
    }
}

/// Whether a directory holds a lake, or parts of one.
fn is_used(data: &Path) -> bool {
    OF_LAKE.iter().any(|name| data.join(name).exists())
}

fn refuse_used(data: &Path, replaces: bool) -> Result<(), HqError> {
    if replaces || !is_used(data) {
        return Ok(());
    }
    let data = data.display();
    Err(HqError::Invalid(format!("{data} holds a lake; --replace moves it aside, into a folder of that directory")))
}

/// The same for a directory that is locked. What is there is moved aside.
async fn restore_directory(
    from: &str,
    source: &Arc<dyn ObjectStore>,
    data: &Path,
    now: Timestamp,
    progress: impl FnMut(&str, usize, usize),
) -> Result<Restored, HqError> {
    let (mut moved_to, mut before) = (None, None);
    if is_used(data) {
        let failed = |source| HqError::Io { doing: format!("moving aside what is in {}", data.display()), source };
        // What cannot be read says nothing.
        before = match place(&data.to_string_lossy(), false) {
            Ok(store) => positions(store).await.ok(),
            Err(_) => None,
        };
        let aside = data.join(format!("before-restore-{}", now.to_chrono().format("%Y%m%dT%H%M%SZ")));
        fs::create_dir(&aside).map_err(failed)?;
        for name in OF_LAKE.iter().filter(|name| data.join(name).exists()) {
            fs::rename(data.join(name), aside.join(name)).map_err(failed)?;
        }
        moved_to = Some(aside);
    }
    let target = place(&data.to_string_lossy(), false)?;
    let copied = backup::restore(source, &target, progress).await?;
    record_restore(from, &target, now).await;
    if !data.join(NODE_KEY_FILE).exists() && Path::new(from).join(NODE_KEY_FILE).exists() {
        copy_key(Path::new(from), data)?;
    }
    let after = positions(target).await?;
    let has_come_further = |site: &SiteId, known: &BTreeMap<(String, u32), u64>| {
        // One that joined after the backup is not in it at all.
        let Some(now) = after.get(site) else { return true };
        known.iter().any(|(table, seq)| now.get(table).is_none_or(|now| now < seq))
    };
    let sites = match before {
        Some(before) => {
            before.into_iter().filter(|(site, known)| has_come_further(site, known)).map(|(site, _)| site).collect()
        }
        None => after.keys().cloned().collect(),
    };
    Ok(Restored { copied, moved_to, sites, has_key: data.join(NODE_KEY_FILE).exists() })
}

/// How far each site that joined has come, by table and life of its journal.
type Positions = BTreeMap<SiteId, BTreeMap<(String, u32), u64>>;

async fn positions(store: Arc<dyn ObjectStore>) -> Result<Positions, HqError> {
    let lake = Lake::open(store, LakeOptions::default()).await?;
    let view = lake.state().view();
    let roster = sites(&view).filter(|(_, record)| record.enrolled_at.is_some() && record.retired.is_none());
    let mut numbers = BTreeMap::new();
    let mut positions = Positions::new();
    for (site, record) in roster {
        numbers.insert(SiteNumber(record.number), site.clone());
        positions.entry(site).or_default();
    }
    for (name, table) in lake.tables() {
        for (number, epoch, cursor) in table.snapshot().cursors() {
            if let Some(of_site) = numbers.get(&number).and_then(|site| positions.get_mut(site)) {
                of_site.insert((name.to_string(), epoch.0), cursor.seq.0);
            }
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_beside_the_lake_and_never_in_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("hq");
        fs::create_dir(&data).expect("made");
        let refused = |store: Option<&str>, to: &str| {
            refuse_within(&LakePlace { data: data.clone(), store: store.map(str::to_owned) }, to).is_err()
        };
        let at = |name: &str| directory.path().join(name).display().to_string();
        for place in ["hq", "hq/", "hq/backup", "hq/deep/down", "hq/../hq", "other/../hq", "./hq/../other/../hq/new"] {
            assert!(refused(None, &at(place)), "{place}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&data, directory.path().join("link")).expect("linked");
            assert!(refused(None, &at("link")) && refused(None, &at("link/backup")));
        }
        for place in ["hq2", "backup", "hq-backup/hq", ".", "hq/new/../../backup"] {
            assert!(!refused(None, &at(place)), "{place}");
        }
        assert!(!refused(None, "s3://bucket/hq"));
        assert!(
            refused(Some("s3://bucket/hq"), "s3://bucket/hq/") && refused(Some("s3://bucket/hq"), "s3://bucket/hq/x")
        );
        assert!(refused(Some("s3://bucket/tables"), "s3://bucket") && !refused(Some("s3://bucket/hq"), "s3://bucket"));
        assert!(
            !refused(Some("s3://bucket/hq"), "s3://bucket/hq-backup") && !refused(Some("s3://bucket/hq"), &at("hq"))
        );
    }
}
