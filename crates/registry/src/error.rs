//! What can go wrong at HQ, for the operator.

/// Why HQ could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HqError {
    /// The lake refused or failed.
    #[error(transparent)]
    Lake(#[from] rollcall_lake::LakeError),
    /// The query engine failed; its own error is the source.
    #[error("the query engine failed")]
    Query(#[source] Box<dyn std::error::Error + Send + Sync>),
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

impl HqError {
    /// The query engine failed with this.
    pub fn query(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Query(Box::new(error))
    }

    /// Certificates could not be made or read, for this reason.
    pub fn certificate(error: impl std::fmt::Display) -> Self {
        Self::Certificate(error.to_string())
    }
}
