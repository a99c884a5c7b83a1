//! What can go wrong at the store's database.

/// Why capture could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The database refused; a locked one is worth a retry ([`CaptureError::is_busy`]), most other
    /// reasons need a person.
    #[error("{doing}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it is, as far as the agent goes by it.
        trouble: Trouble,
        /// The database's own reason.
        source: Box<dyn std::error::Error + Send + Sync>,
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
    /// Whether it is about one table or value, so that others can go on; else about the database.
    pub fn is_of_one_table(&self) -> bool {
        match self {
            Self::Refused { trouble, .. } => *trouble == Trouble::Other,
            Self::Unsupported { .. } | Self::Usage(_) | Self::NoSuchTable { .. } | Self::Damaged(_) => true,
            _ => false,
        }
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Refused { trouble, .. } => *trouble == Trouble::DiskFull,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// Whether another program held the database locked; trying again later is right.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { trouble: Trouble::Busy, .. })
    }
}

/// Why a database refused, as far as the agent goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Another program holds it locked.
    Busy,
    /// Its disk is full.
    DiskFull,
    /// It cannot be reached, read or written at all.
    Unreachable,
    /// Anything else: one statement or value.
    Other,
}
