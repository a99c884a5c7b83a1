//! What can go wrong at HQ, for the operator.

/// Why HQ could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HqError {
    /// The lake refused or failed.
    #[error(transparent)]
    Lake(#[from] rollcall_lake::LakeError),
    /// The query engine failed.
    #[error("the query engine failed")]
    Query(#[from] rollcall_query::QueryError),
    /// Certificates could not be made or read.
    #[error("certificates: {0}")]
    Certificate(String),
    /// The request is wrong; the text says what to do.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// What is to be made exists.
    #[error("{0}")]
    Exists(String),
    /// It was worked out on a version that is not the newest any more.
    #[error("others changed the table at the same time; try again")]
    Outdated,
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
    /// A port or file could not be used.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl From<rcgen::Error> for HqError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}
