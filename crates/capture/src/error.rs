//! What can go wrong at the store's database.

/// Why capture could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// SQLite refused; a locked file is worth a retry ([`CaptureError::is_busy`]), most other
    /// reasons need a person.
    #[error("{doing}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The table is not in the database.
    #[error("no table {table:?} in this database{}", .nearest.as_ref().map_or_else(String::new, |near| format!("; is {near:?} meant?")))]
    NoSuchTable {
        /// As it was called.
        table: String,
        /// A table that is called nearly so.
        nearest: Option<String>,
    },
    /// The table cannot be captured faithfully.
    #[error("table {table:?} cannot be captured: {reason}")]
    Unsupported {
        /// Which table.
        table: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The store's table cannot take HQ's rows; a person at the store must decide.
    #[error("table {table:?} cannot take HQ's rows: {reason}")]
    Differs {
        /// Which table.
        table: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A table or column named by the operator does not exist or cannot be left out.
    #[error("{0}")]
    Usage(String),
    /// A transaction of the store's was broken off. Only a connection that writes may undo it, and
    /// ours that read do not.
    #[error(
        "{doing}: the store's database was left in the middle of a transaction (a power cut); SQLite puts it right when the store's \
         own program opens it next"
    )]
    BrokenOff {
        /// What was being done.
        doing: &'static str,
    },
    /// The path leads to another file than before: it was replaced, or a link was switched.
    #[error("the database file was replaced by another one")]
    Replaced,
    /// The journal went back in time: it is not the one that was read before.
    #[error("{0}")]
    Rewound(String),
    /// There is no journal in this file.
    #[error("this database has no journal; run `rollcall-site join` first")]
    NotInstalled,
    /// What this crate wrote into the file is not what it reads back.
    #[error("the journal in this database is damaged: {0}")]
    Damaged(String),
    /// A file beside the database could not be read or synced.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl CaptureError {
    /// Whether it is about one table or value, so that others can go on; else about the file.
    pub(crate) fn is_of_one_table(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => !matches!(
                source.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseLocked
                        | rusqlite::ErrorCode::DiskFull
                        | rusqlite::ErrorCode::CannotOpen
                        | rusqlite::ErrorCode::ReadOnly
                        | rusqlite::ErrorCode::NotADatabase
                        | rusqlite::ErrorCode::SystemIoFailure
                )
            ),
            Self::Unsupported { .. } | Self::Usage(_) | Self::NoSuchTable { .. } | Self::Damaged(_) => true,
            _ => false,
        }
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// Whether another program held the file locked; trying again later is right.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if matches!(source.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)))
    }
}

/// Adds what was being done to an error of SQLite or the system.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, CaptureError>;
}

impl<T> Doing<T> for Result<T, rusqlite::Error> {
    fn doing(self, doing: &'static str) -> Result<T, CaptureError> {
        use rusqlite::ffi::{SQLITE_READONLY_RECOVERY, SQLITE_READONLY_ROLLBACK};
        self.map_err(|source| match source.sqlite_extended_error_code() {
            Some(SQLITE_READONLY_ROLLBACK | SQLITE_READONLY_RECOVERY) => CaptureError::BrokenOff { doing },
            _ => CaptureError::Sqlite { doing, source },
        })
    }
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing(self, doing: &'static str) -> Result<T, CaptureError> {
        self.map_err(|source| CaptureError::Io { doing, source })
    }
}
