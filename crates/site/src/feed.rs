//! The store's database, asked from async code: every call runs where blocking is allowed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rollcall_capture::{Anchor, CaptureError, Changes, Database, Fingerprint, Source};
use rollcall_types::Seq;
use rollcall_wire::{
    batch::Part,
    proto::{Mark, mark::Kind},
};

use crate::error::SiteError;

/// Shared access to the store's database; one call at a time. What was not used for a moment is let
/// go of.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Access>);

#[derive(Debug)]
struct Access {
    database: Arc<dyn Database>,
    source: Mutex<Box<dyn Source>>,
    /// Whether somebody waits to let go.
    rests: AtomicBool,
}

/// One batch's worth of changes.
const ROWS_MAX: usize = 1000;
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// The file is let go of after so long without use.
pub(crate) const REST_AFTER: Duration = Duration::from_secs(1);

impl Feed {
    pub(crate) fn open(database: Arc<dyn Database>) -> Result<Self, SiteError> {
        let source = Mutex::new(database.source()?);
        Ok(Self(Arc::new(Access { database, source, rests: AtomicBool::new(false) })))
    }

    /// Runs `work` on the database.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Source) -> Result<T, CaptureError> + Send + 'static,
    ) -> Result<T, SiteError> {
        let access = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            // SQLite rolled back whatever a panic interrupted.
            work(access.source.lock().unwrap_or_else(PoisonError::into_inner).as_mut())
        });
        let done = done.await;
        if !self.0.rests.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().rest_when_idle());
        }
        Ok(done.map_err(|error| SiteError::state("using the store's database", error))??)
    }

    async fn rest_when_idle(self) {
        while let Some(due) = self.used().await.map(|used| used + REST_AFTER).filter(|due| *due > Instant::now()) {
            tokio::time::sleep_until(due.into()).await;
        }
        self.0.rests.store(false, Ordering::Release);
        self.rest().await;
    }

    /// When the file was used last; none if it is let go of.
    async fn used(&self) -> Option<Instant> {
        let access = self.0.clone();
        let used = move || access.source.lock().unwrap_or_else(PoisonError::into_inner).used();
        tokio::task::spawn_blocking(used).await.ok().flatten()
    }

    /// What the database looks like now; waits for nobody who uses it.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.0.database.fingerprint()
    }

    /// Lets go of the file.
    pub(crate) async fn rest(&self) {
        let access = self.0.clone();
        let rest = move || access.source.lock().unwrap_or_else(PoisonError::into_inner).rest();
        // A panic in it would leave the file open; the next use goes on with that.
        let _ = tokio::task::spawn_blocking(rest).await;
    }

    /// The next batch's worth of changes behind a place.
    pub(crate) async fn next(&self, after: Anchor, bytes_max: usize) -> Result<Option<Changes>, SiteError> {
        self.call(move |source| source.read(after, ROWS_MAX, bytes_max)).await
    }
}

/// Changes as parts of a batch; positions are filled in by the outbox.
pub(crate) fn parts(changes: Changes) -> Vec<Part> {
    let tables = changes.tables.into_iter();
    tables
        .map(|table| Part {
            table: table.table,
            previous: Seq(0),
            rows: table.rows,
            marks: table
                .marks
                .iter()
                .map(|mark| {
                    let kind = if mark.complete { Kind::LoadComplete } else { Kind::LoadBegun };
                    Mark { kind: kind.into(), seq: mark.seq.0, begin: mark.begin.0 }
                })
                .collect(),
        })
        .collect()
}
