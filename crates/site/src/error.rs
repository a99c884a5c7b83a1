//! What can go wrong at the agent, by what helps.

use rollcall_capture::CaptureError;
use rollcall_types::Cause;
use rollcall_wire::Refusal;

/// Why the agent could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The store's database.
    #[error(transparent)]
    Capture(#[from] CaptureError),
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
    /// What answers is HQ's key, and a certificate's dates do not fit the time that HQ says it is.
    #[error("the certificate shown at {address} does not fit the time: {reason}")]
    Clock {
        /// The address tried.
        address: String,
        /// What does not fit.
        reason: String,
    },
    /// The connection ended.
    #[error("the connection to HQ ended: {0}")]
    Ended(String),
    /// Another agent runs on the same database.
    #[error("an agent runs on this database already (process {0}); stop it first")]
    AgentRuns(String),
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
    /// Why, in the words that HQ uses as well; none where the trouble is none with site, line or
    /// HQ.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Capture(error) if error.is_disk_full() => Some(Cause::Disk),
            Self::Capture(CaptureError::Rewound(_)) => Some(Cause::CloneOrRewind),
            Self::Capture(_) => Some(Cause::CaptureStuck),
            Self::Unreachable { .. } | Self::Ended(_) => Some(Cause::PowerOrLink),
            Self::Refused { code, .. } if code == Refusal::Clone.code() => Some(Cause::CloneOrRewind),
            Self::Refused { .. } => Some(Cause::HqRefuses),
            Self::NotOurHq { .. } => Some(Cause::Void),
            Self::Clock { .. } => Some(Cause::Clock),
            Self::State { source, .. } if is_disk_full(source.as_ref()) => Some(Cause::Disk),
            Self::State { .. } | Self::Usage(_) | Self::AgentRuns(_) => None,
        }
    }

    pub(crate) fn state(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::State { doing: doing.into(), source: source.into() }
    }
}

/// Whether an error of the agent's own files, or what it comes from, is a full disk.
fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_full = |error: &(dyn std::error::Error + 'static)| {
        let of_system = error.downcast_ref::<std::io::Error>();
        let of_sqlite = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        of_system.is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
            || of_sqlite == Some(rusqlite::ErrorCode::DiskFull)
    };
    std::iter::successors(Some(error), |error| error.source()).any(is_full)
}
