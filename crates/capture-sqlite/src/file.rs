//! The store's database file: connections to it are opened when they are needed and let go soon
//! after.
//!
//! Why none is kept. SQLite finds a rollback journal and a WAL by the *path* of the database. A
//! connection that outlives an exchange of the file takes the new file's journal for its own, and
//! rolls it back into the old one: the store's next write fails. One that outlives the store's last
//! writer keeps a WAL alive, which then undoes a backup that is put in place. And one that is
//! merely open refuses `locking_mode = EXCLUSIVE` and a change of the journal mode to the store's
//! own program.
//!
//! So: what reads cannot write, and so cannot roll back anything; what writes is opened for one
//! piece of work. Before each use the path is looked at again, and what leads to another file is an
//! error ([`CaptureError::Replaced`]) until it is taken up.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, OpenFlags};

use crate::error::{CaptureError, Doing};

/// How long a statement of ours waits for the store's programs.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Which file a path leads to: a file that was replaced has another one.
pub(crate) type FileIdentity = (u64, u64);

/// Which file a path leads to now.
#[cfg(unix)]
pub(crate) fn file_identity(path: &Path) -> Result<FileIdentity, CaptureError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).doing("looking at the database file")?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Which file a path leads to now: its time of creation is the best that is to be had here.
#[cfg(not(unix))]
pub(crate) fn file_identity(path: &Path) -> Result<FileIdentity, CaptureError> {
    let metadata = std::fs::metadata(path).doing("looking at the database file")?;
    let created = metadata.created().doing("looking at the database file")?;
    let since = created.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok((0, since.as_nanos() as u64))
}

/// What a database's files look like: time of change and length of the file itself and of its WAL.
/// It differs when something was committed since. Looks at file times only and takes no lock.
pub(crate) fn times(database: &Path) -> Times {
    let look = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    // SQLite puts the WAL beside the file itself, not beside a link to it.
    let resolved = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    // A WAL without content is as good as none: it comes and goes with the connections.
    [look(&resolved), look(&wal_path(&resolved)).filter(|(_, length)| *length > 0)]
}

/// See [`times`].
pub(crate) type Times = [Option<(SystemTime, u64)>; 2];

/// File systems keep times of change to two seconds at worst.
const TIME_GRAIN: Duration = Duration::from_secs(3);
/// A commit to the WAL is written, then synced, and only then seen by readers: on a slow disk the
/// file may look as it will for so long before.
const SYNC_MAX: Duration = Duration::from_secs(20);

/// Whether a file that looked like this at `at`, and looks the same now, was not changed in
/// between: its last change must then be so far from `at` that another one would show.
pub(crate) fn is_settled(seen: &Times, at: SystemTime) -> bool {
    let mut looks = seen.iter().zip([TIME_GRAIN, SYNC_MAX]);
    looks.all(|(look, long)| look.is_none_or(|(changed, _)| at.duration_since(changed).is_ok_and(|age| age >= long)))
}

/// However the file looks, it is looked into this often.
const LOOK_ANYWAY: Duration = Duration::from_secs(300);

/// How the file looked, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    seen: Times,
    at: SystemTime,
    since: Instant,
}

impl Look {
    pub(crate) fn at(path: &Path) -> Self {
        Self { seen: times(path), at: SystemTime::now(), since: Instant::now() }
    }

    /// Whether the file cannot have changed since.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        is_settled(&self.seen, self.at) && self.since.elapsed() < LOOK_ANYWAY && times(path) == self.seen
    }
}

pub(crate) fn wal_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Opens a database for one piece of work that writes.
pub(crate) fn open_to_write(path: &Path) -> Result<Connection, CaptureError> {
    let doing = "opening the store's database";
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).doing(doing)?;
    conn.busy_timeout(BUSY_TIMEOUT).doing(doing)?;
    // The store's own connections keep checkpointing; ours do not, so that no write of ours takes
    // long.
    conn.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -512;")
        .doing(doing)?;
    Ok(conn)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StoreFile {
    /// As it was given; links in it are followed anew at each use.
    path: PathBuf,
    /// Which file it led to when it was first used, or taken up last.
    identity: Option<FileIdentity>,
    reader: Option<Connection>,
    /// How the files looked when the reader was opened.
    opened: Times,
    used: Option<Instant>,
}

/// By which files are synced. They are the process's, and not a [`StoreFile`]'s: closing any handle
/// of a file drops all locks that SQLite has on it in this process, those of other connections too.
/// So each is opened once, when it is first needed, and kept while a path leads to its file.
static HANDLES: Mutex<BTreeMap<FileIdentity, Handle>> = Mutex::new(BTreeMap::new());

struct Handle {
    /// The path that led to the file.
    path: PathBuf,
    file: Arc<File>,
}

/// The handle by which the file at `path`, which is the one of this identity, is synced.
fn handle(path: &Path, identity: FileIdentity) -> Result<Arc<File>, CaptureError> {
    let doing = "syncing the store's database";
    forget_others(path, identity);
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = handles.get(&identity) {
        return Ok(known.file.clone());
    }
    let file = Arc::new(File::open(path).doing(doing)?);
    // It may have been replaced between the two looks.
    if file_identity(path)? != identity {
        return Err(CaptureError::Replaced);
    }
    handles.insert(identity, Handle { path: path.to_owned(), file: file.clone() });
    Ok(file)
}

/// Closes the handles of files that the path led to before, and of deleted ones, whose blocks a
/// handle would keep from being freed: what is locked there is not the store's database any more.
fn forget_others(path: &Path, identity: FileIdentity) {
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    handles.retain(|known, handle| *known == identity || (handle.path != path && !is_deleted(&handle.file)));
}

/// Whether no path leads to the file any more.
#[cfg(unix)]
fn is_deleted(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

/// Whether no path leads to the file any more; a file that is open cannot be deleted here.
#[cfg(not(unix))]
fn is_deleted(_: &File) -> bool {
    false
}

impl StoreFile {
    /// Opens nothing yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: None, reader: None, opened: [None, None], used: None }
    }

    /// When the file was used last, if it is open.
    pub(crate) fn used(&self) -> Option<Instant> {
        self.used.filter(|_| self.reader.is_some())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path without links, as SQLite would have it.
    fn resolved(&self) -> Result<PathBuf, CaptureError> {
        self.path.canonicalize().doing("opening the store's database")
    }

    /// Notices whether the path leads to the same file as before; lets go of the file that it led
    /// to.
    pub(crate) fn look(&mut self) -> Result<FileIdentity, CaptureError> {
        let now = match file_identity(&self.path) {
            Ok(now) => now,
            Err(error) => {
                self.reader = None;
                return Err(error);
            }
        };
        if self.identity.is_some_and(|known| known != now) {
            self.reader = None;
            return Err(CaptureError::Replaced);
        }
        self.identity = Some(now);
        Ok(now)
    }

    /// Takes up the file that the path leads to now.
    pub(crate) fn take_up(&mut self) {
        self.reader = None;
        self.identity = None;
        if let Ok(now) = file_identity(&self.path) {
            forget_others(&self.path, now);
        }
    }

    /// A connection that reads.
    pub(crate) fn reader(&mut self) -> Result<&Connection, CaptureError> {
        let doing = "opening the store's database";
        let identity = self.look()?;
        self.used = Some(Instant::now());
        // SQLite believes its cache while the file's change counter is what it was. A program that
        // writes the whole file from an image of its own may well write the same number. (In WAL
        // mode none can.)
        let now = times(&self.path);
        if now != self.opened && now[1].is_none() {
            self.reader = None;
        }
        if self.reader.is_none() {
            self.opened = now;
            let path = self.resolved()?;
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn = Connection::open_with_flags(&path, flags).doing(doing)?;
            conn.busy_timeout(BUSY_TIMEOUT).doing(doing)?;
            conn.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -512;").doing(doing)?;
            // It may have been replaced between the two looks.
            if file_identity(&self.path)? != identity {
                return Err(CaptureError::Replaced);
            }
            self.reader = Some(conn);
        }
        self.reader.as_ref().ok_or(CaptureError::Replaced)
    }

    /// A connection for one piece of work that writes.
    pub(crate) fn writer(&mut self) -> Result<Connection, CaptureError> {
        let identity = self.look()?;
        let conn = open_to_write(&self.resolved()?)?;
        if file_identity(&self.path)? != identity {
            return Err(CaptureError::Replaced);
        }
        Ok(conn)
    }

    /// Brings what was read to stable storage.
    pub(crate) fn sync(&mut self) -> Result<(), CaptureError> {
        let doing = "syncing the store's database";
        let identity = self.look()?;
        let path = self.resolved()?;
        match File::open(wal_path(&path)) {
            // SQLite takes no lock on this file, so that closing it here is harmless.
            Ok(wal) => wal.sync_data().doing(doing)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Without a WAL a commit is the removal of the rollback journal, which is the
                // directory's to remember.
                #[cfg(unix)]
                if let Some(directory) = path.parent() {
                    File::open(directory).and_then(|directory| directory.sync_all()).doing(doing)?;
                }
            }
            Err(source) => return Err(CaptureError::Io { doing, source }),
        }
        handle(&self.path, identity)?.sync_data().doing(doing)
    }

    /// Lets go of the file. Whoever is the last to close a database in WAL mode folds its WAL; a
    /// connection that only reads cannot, so one that writes goes last.
    pub(crate) fn rest(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let has_wal = self.resolved().is_ok_and(|path| wal_path(&path).exists());
        let last = if has_wal && self.look().is_ok() { self.writer().ok() } else { None };
        if let Some(last) = &last {
            // A connection learns of the WAL with its first read.
            let _ = last.query_row("PRAGMA schema_version", [], |_| Ok(()));
        }
        drop(reader);
        drop(last);
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        self.rest();
    }
}
