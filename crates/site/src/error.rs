//! What can go wrong at the agent, by what helps.

/// Why the agent could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The store's database.
    #[error(transparent)]
    Capture(#[from] rollcall_capture::CaptureError),
    /// HQ could not be reached or the connection broke; the agent tries again by itself.
    #[error("HQ cannot be reached at {address}: {reason}")]
    Unreachable {
        /// The address tried.
        address: String,
        /// Why it failed.
        reason: String,
    },
    /// HQ answered and said no; trying again does not help before a person acts.
    #[error("HQ refuses this site ({code}): {message}")]
    Refused {
        /// HQ's word for it.
        code: String,
        /// HQ's reason, and what to do.
        message: String,
    },
    /// What answers is not the HQ this site was enrolled with.
    #[error("what answers at {address} is not the HQ this site belongs to: {reason}")]
    NotOurHq {
        /// The address tried.
        address: String,
        /// What gave it away.
        reason: String,
    },
    /// The connection ended.
    #[error("the connection to HQ ended: {0}")]
    Ended(String),
    /// The agent's own files.
    #[error("{doing}")]
    State {
        /// What was being done.
        doing: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

impl SiteError {
    pub(crate) fn state(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::State { doing: doing.into(), source: source.into() }
    }
}
