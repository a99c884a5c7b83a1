//! The store's database, asked from async code: every call runs where blocking is allowed.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rollcall_capture::{CaptureError, Changes, Source};
use rollcall_types::Seq;
use rollcall_wire::{
    batch::Part,
    proto::{Mark, mark::Kind},
};

use crate::error::SiteError;

/// Shared access to the store's database; one call at a time.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Mutex<Source>>);

/// One batch's worth of changes.
const ROWS_MAX: usize = 1000;
pub(crate) const BATCH_BYTES: usize = 1 << 20;

impl Feed {
    pub(crate) fn open(database: &Path) -> Result<Self, SiteError> {
        Ok(Self(Arc::new(Mutex::new(Source::open(database)?))))
    }

    /// Runs `work` on the database.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Source) -> Result<T, CaptureError> + Send + 'static,
    ) -> Result<T, SiteError> {
        let source = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            // SQLite rolled back whatever a panic interrupted.
            work(&mut source.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Ok(done.await.map_err(|error| SiteError::state("using the store's database", error))??)
    }

    /// The next batch's worth of changes behind `after`.
    pub(crate) async fn next(&self, after: Seq, bytes_max: usize) -> Result<Option<Changes>, SiteError> {
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
