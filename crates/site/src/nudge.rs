//! Being told that the database's files changed, where the system tells it (inotify on Linux): an
//! idle agent then sleeps, and a quiet store's next sale is seen at once. It is a hint only: files
//! are looked at all the same, only less often.

use std::path::Path;

#[cfg(target_os = "linux")]
use {
    rustix::fs::inotify::{self, CreateFlags, WatchFlags},
    std::{ffi::OsStr, mem::MaybeUninit, os::fd::OwnedFd, os::unix::ffi::OsStrExt},
    tokio::io::unix::AsyncFd,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Nudges {
    #[cfg(target_os = "linux")]
    watched: Option<(AsyncFd<OwnedFd>, [Vec<u8>; 2])>,
}

#[cfg(target_os = "linux")]
impl Nudges {
    /// Watches a database's file and its WAL; where that cannot be done nothing is ever told.
    pub(crate) fn of(database: &Path) -> Self {
        let watched = watch(database).inspect_err(|error| {
            tracing::debug!(%error, "the system will not tell when the database's files change");
        });
        Self { watched: watched.ok() }
    }

    /// Whether changes are told.
    pub(crate) fn are_told(&self) -> bool {
        self.watched.is_some()
    }

    /// A change was not told, as on file systems of other machines: there will be no more of them.
    pub(crate) fn distrust(&mut self) {
        self.watched = None;
    }

    /// Returns after a change; never if changes are not told. Cancel-safe: what was not returned is
    /// told again.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Some((queue, names)) = &self.watched else { return std::future::pending().await };
            let Ok(mut ready) = queue.readable().await else {
                self.watched = None;
                continue;
            };
            let (mut buffer, mut is_ours) = ([MaybeUninit::uninit(); 4096], false);
            let mut events = inotify::Reader::new(queue.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => {
                        // An overflow names no file.
                        let name = event.file_name().map(|name| name.to_bytes());
                        is_ours |= name.is_none_or(|name| names.iter().any(|of| of == name));
                    }
                    Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                        ready.clear_ready();
                        break;
                    }
                    Err(_) => {
                        self.watched = None;
                        return;
                    }
                }
            }
            if is_ours {
                return;
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn watch(database: &Path) -> std::io::Result<(AsyncFd<OwnedFd>, [Vec<u8>; 2])> {
    let directory = database.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = database.file_name().map(OsStr::as_bytes).unwrap_or_default().to_vec();
    let wal = [name.as_slice(), b"-wal"].concat();
    let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let told = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&queue, directory, told)?;
    // What is deprecated is that a type could close or exchange its descriptor meanwhile; an owned
    // one does not.
    #[expect(deprecated, reason = "the successor is unsafe, and this crate forbids that")]
    let queue = AsyncFd::new(queue)?;
    Ok((queue, [name, wal]))
}

#[cfg(not(target_os = "linux"))]
impl Nudges {
    pub(crate) fn of(_: &Path) -> Self {
        Self {}
    }

    pub(crate) fn are_told(&self) -> bool {
        false
    }

    pub(crate) fn distrust(&mut self) {}

    pub(crate) async fn changed(&mut self) {
        std::future::pending().await
    }
}
