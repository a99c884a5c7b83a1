//! Where a store's database is.

use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rollcall_capture::{CaptureError, Database, Fingerprint, Incoming, Source};

use crate::{SqliteIncoming, SqliteSource, file::times};

/// A SQLite database in a file.
#[derive(Debug, Clone)]
pub struct SqliteDatabase {
    path: PathBuf,
}

impl SqliteDatabase {
    /// The one at this path.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Database for SqliteDatabase {
    fn source(&self) -> Result<Box<dyn Source>, CaptureError> {
        Ok(Box::new(SqliteSource::open(&self.path)?))
    }

    fn incoming(&self, directory: &Path) -> Result<Box<dyn Incoming>, CaptureError> {
        Ok(Box::new(SqliteIncoming::open(&self.path, directory)?))
    }

    fn fingerprint(&self) -> Fingerprint {
        let [file, wal] = times(&self.path).map(|look| {
            look.map_or([0, 0], |(changed, length)| {
                let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
                [since.as_nanos() as u64, length + 1]
            })
        });
        Fingerprint([file[0], file[1], wal[0], wal[1]])
    }
}
