//! One agent runs on a database at a time: two would take turns at HQ, and be taken for a clone.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    time::Duration,
};

use crate::{error::SiteError, state::StateDirectory};

/// Locked by the agent that runs; its text is the agent's process.
pub(crate) const FILE: &str = "agent.lock";

/// The agent's claim; it ends with this value, or with the process.
#[derive(Debug)]
pub(crate) struct Claim {
    _file: Option<File>,
}

/// Who asks whether an agent runs holds the lock for a moment: an agent that starts then tries
/// again, so often …
const TRIES: usize = 20;
/// … after so long.
const PAUSE: Duration = Duration::from_millis(10);

/// Claims the directory. Where the file system knows no locks, or has no room, there is no claim:
/// the agent runs all the same.
pub(crate) fn claim(directory: &StateDirectory) -> Result<Claim, SiteError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(directory.file(FILE));
    let Ok(mut file) = opened else { return Ok(Claim { _file: None }) };
    let mut locked = file.try_lock();
    for _ in 1..TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(PAUSE);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {
            let noted =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
            if let Err(error) = noted {
                tracing::debug!(%error, "the agent's process could not be noted");
            }
            Ok(Claim { _file: Some(file) })
        }
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let read = file.read_to_string(&mut process);
            Err(SiteError::AgentRuns(if read.is_ok() && !process.is_empty() { process } else { "unknown".to_owned() }))
        }
        Err(TryLockError::Error(_)) => Ok(Claim { _file: None }),
    }
}

/// Whether an agent runs on the directory; none where that cannot be told: an earlier agent claimed
/// nothing.
pub(crate) fn is_claimed(directory: &StateDirectory) -> Option<bool> {
    let file = File::open(directory.file(FILE)).ok()?;
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_asks_whether_an_agent_runs_keeps_none_from_starting() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::of(directory.path(), Some(directory.path()));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    is_claimed(&directory);
                }
            });
            let refused = (0..3000).filter(|_| claim(&directory).is_err()).count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
        let held = claim(&directory).expect("nobody has it");
        assert_eq!(is_claimed(&directory), Some(true));
        assert!(claim(&directory).is_err());
        drop(held);
        assert_eq!(is_claimed(&directory), Some(false));
    }
}
