//! What can go wrong with the lake, by what the caller should do.

/// Why a lake operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The object store did not do what was asked; it may work later. Whether a write took effect
    /// was looked up already.
    #[error("{doing}")]
    Store {
        /// What was being done.
        doing: String,
        /// The store's reason.
        source: object_store::Error,
    },
    /// What is in the lake cannot be read; a person must look.
    #[error("the lake is damaged: {0}")]
    Damaged(String),
    /// One file with rows is not there, or not as it was written; the others are.
    #[error("the data file {path} is damaged: {what}")]
    DamagedFile {
        /// Where it is in the lake.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// These rows of a site cannot be taken.
    #[error("{0}")]
    Rows(String),
    /// Rows could not be written as Parquet or read back.
    #[error("{doing}")]
    Parquet {
        /// What was being done.
        doing: &'static str,
        /// The library's reason.
        source: parquet::errors::ParquetError,
    },
    /// Arrow refused the rows.
    #[error("{doing}")]
    Arrow {
        /// What was being done.
        doing: &'static str,
        /// The library's reason.
        source: arrow_schema::ArrowError,
    },
    /// Others kept winning the race for the next version; try again later.
    #[error("gave up after {0} attempts to commit: too many writers")]
    Contention(usize),
    /// What is asked for cannot be done with what is there.
    #[error("{0}")]
    Other(String),
    /// The commit was worked out from another state than there is.
    #[error("a commit to {table} removes {path}, which is not in it; nothing is written")]
    Foreign {
        /// The table.
        table: String,
        /// The file.
        path: String,
    },
    /// Another process holds this directory.
    #[error("{0} is in use by another `rollcall hq`; stop that one first, or give this one another --data directory")]
    InUse(String),
    /// There is no object store at this address.
    #[error("{0}")]
    NoStore(String),
    /// The object store overwrites where it should refuse.
    #[error(
        "this object store does not refuse to overwrite (PUT with If-None-Match: *), and several nodes would lose each \
         other's commits; use one that does, such as S3, MinIO, Ceph or R2"
    )]
    NoConditionalPut,
    /// A secret could not be opened: wrong key or damaged.
    #[error(
        "the secret private/{0} cannot be opened with this node's key: put it, or node.key, back from a backup, or copy node.key from \
         the node that made this lake"
    )]
    Sealed(String),
    /// A background task ended before its work.
    #[error("a background task failed: {0}")]
    Task(String),
}

impl LakeError {
    /// The same for another who waits for the same thing: by what to do, with the reason as text.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Contention(attempts) => Self::Contention(*attempts),
            Self::Damaged(what) => Self::Damaged(what.clone()),
            Self::DamagedFile { path, what } => Self::DamagedFile { path: path.clone(), what: what.clone() },
            Self::Rows(what) => Self::Rows(what.clone()),
            Self::Store { doing, source } => {
                let source = object_store::Error::Generic { store: "lake", source: source.to_string().into() };
                Self::Store { doing: doing.clone(), source }
            }
            other => Self::Task(other.to_string()),
        }
    }

    pub(crate) fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Damaged(what.to_string())
    }
}

pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, LakeError>;
}

impl<T> Doing<T> for Result<T, object_store::Error> {
    fn doing(self, doing: &'static str) -> Result<T, LakeError> {
        self.map_err(|source| LakeError::Store { doing: doing.to_owned(), source })
    }
}

impl<T> Doing<T> for Result<T, parquet::errors::ParquetError> {
    fn doing(self, doing: &'static str) -> Result<T, LakeError> {
        self.map_err(|source| LakeError::Parquet { doing, source })
    }
}

impl<T> Doing<T> for Result<T, arrow_schema::ArrowError> {
    fn doing(self, doing: &'static str) -> Result<T, LakeError> {
        self.map_err(|source| LakeError::Arrow { doing, source })
    }
}

impl<T> Doing<T> for Result<T, rollcall_runtime::Broken> {
    fn doing(self, doing: &'static str) -> Result<T, LakeError> {
        self.map_err(|error| LakeError::Task(format!("{doing}: {error}")))
    }
}
