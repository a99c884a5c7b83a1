//! What can go wrong at the store's database.

use rollcall_capture::Trouble;
use rusqlite::ErrorCode;

pub(crate) use rollcall_capture::CaptureError;

/// What the agent goes by of an error of SQLite's.
fn trouble_of(error: &rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Busy,
        Some(ErrorCode::DiskFull) => Trouble::DiskFull,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure) => {
            Trouble::Unreachable
        }
        _ => Trouble::Other,
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
            _ => CaptureError::Refused { doing, trouble: trouble_of(&source), source: Box::new(source) },
        })
    }
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing(self, doing: &'static str) -> Result<T, CaptureError> {
        self.map_err(|source| CaptureError::Io { doing, source })
    }
}
