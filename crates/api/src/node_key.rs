//! The key with which a node opens the secrets of its lake.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::Path,
    time::SystemTime,
};

use rollcall_lake::{Lake, VaultKey};
use rollcall_registry::HqError;
use rollcall_types::Timestamp;

/// The file in the data directory with the node's key.
pub const NODE_KEY_FILE: &str = "node.key";
/// The next node's key, while secrets are being sealed with it.
const NEXT_KEY_FILE: &str = "node.key.next";

/// The key with which this node opens secrets: in the data directory, readable by its owner alone.
/// A new lake gets a new one; a lake that has secrets is opened with the key of the node that made
/// it.
pub async fn node_key(directory: &Path, lake: &Lake) -> Result<VaultKey, HqError> {
    let path = directory.join(NODE_KEY_FILE);
    if directory.join(NEXT_KEY_FILE).exists() {
        let text = "secrets are being sealed with a new key, and that broke off: run `rollcall secrets rotate node-key` once more";
        return Err(HqError::Invalid(text.to_owned()));
    }
    match read_key(&path)? {
        Some(key) => Ok(key),
        None => {
            if lake.has_secrets().await? {
                let wanted = path.display();
                return Err(HqError::Invalid(format!(
                    "this lake's secrets are sealed; copy {NODE_KEY_FILE} from the node that made it to {wanted}"
                )));
            }
            let key = VaultKey::generate()?;
            write_private(&path, key.as_bytes())?;
            Ok(key)
        }
    }
}

fn read_key(path: &Path) -> Result<Option<VaultKey>, HqError> {
    match fs::read(path) {
        Ok(bytes) => match VaultKey::from_bytes(&bytes) {
            Some(key) => Ok(Some(key)),
            None => Err(HqError::Invalid(format!(
                "{} is damaged, it must hold 32 bytes: put it back from a backup, or copy it from another node",
                path.display()
            ))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HqError::Io { doing: format!("reading {}", path.display()), source }),
    }
}

/// When this node's key was written, by its file.
pub(crate) fn node_key_at(directory: &Path) -> Option<Timestamp> {
    let written: Option<SystemTime> = fs::metadata(directory.join(NODE_KEY_FILE)).and_then(|file| file.modified()).ok();
    written.map(|written| chrono::DateTime::<chrono::Utc>::from(written).into())
}

/// Seals all secrets of a lake that no node has open with a new key, and puts that in the place of
/// the old one. Gives how many secrets were sealed anew. What broke off goes on when it is begun
/// again.
pub async fn rotate_node_key(directory: &Path, lake: &Lake) -> Result<usize, HqError> {
    let (path, next_path) = (directory.join(NODE_KEY_FILE), directory.join(NEXT_KEY_FILE));
    let Some(old) = read_key(&path)? else {
        return Err(HqError::Invalid(format!("there is no {}", path.display())));
    };
    // One that is not whole was never used: nothing is sealed before it is on disk.
    let next = match read_key(&next_path) {
        Ok(Some(next)) => next,
        Ok(None) | Err(HqError::Invalid(_)) => {
            let next = VaultKey::generate()?;
            write_private(&next_path, next.as_bytes())?;
            next
        }
        Err(error) => return Err(error),
    };
    let count = lake.vault(old).reseal(&next).await?;
    let failed = |source| HqError::Io { doing: format!("putting {} in place", path.display()), source };
    fs::rename(&next_path, &path).map_err(failed)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(count)
}

/// Writes a file that only its owner can read. Durable on return.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HqError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| HqError::Io { doing: format!("writing {}", path.display()), source })
}
