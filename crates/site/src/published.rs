//! HQ's tables at this site: asks for what it should have, applies it, looks whether it stays so,
//! and says what it has.

mod updates;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rollcall_capture::{AppliedTable, CaptureError, Database, DueChange, Incoming, Report, clock_micros};
use rollcall_types::{Seq, describe, shared::EDITS_SUFFIX};
use rollcall_wire::proto::{Applied, WantedTable};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::updates::RETRY_AFTER;
pub(crate) use self::updates::Updates;

use crate::{error::SiteError, feed::REST_AFTER, state::StateDirectory};

/// Shared access to HQ's tables in the store's database; one call at a time. What was not used for
/// a moment is let go of.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    /// None: it is let go of. Whoever applies a table holds the lock as long as that takes.
    incoming: Arc<Mutex<Option<Box<dyn Incoming>>>>,
    /// When it was used last; no lock that is held for long.
    used: Arc<Mutex<Option<Instant>>>,
    database: Arc<dyn Database>,
    directory: StateDirectory,
    /// Whether somebody waits to let go.
    rests: Arc<AtomicBool>,
    /// Why tables are not up to date, beyond a connection's life.
    problems: Arc<Mutex<BTreeMap<String, String>>>,
    /// Told when something is to take effect that was not before.
    scheduled: Arc<Notify>,
}

/// Under this name is what was staged of HQ's tables.
pub(crate) const STAGED: &str = "incoming.sqlite";

impl Shelf {
    pub(crate) fn new(database: Arc<dyn Database>, directory: &StateDirectory) -> Self {
        Self {
            incoming: Arc::default(),
            used: Arc::default(),
            database,
            directory: directory.clone(),
            rests: Arc::default(),
            problems: Arc::default(),
            scheduled: Arc::default(),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Incoming) -> Result<T, CaptureError> + Send + 'static,
    ) -> Result<T, SiteError> {
        let shelf = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            // SQLite rolled back whatever a panic interrupted.
            let mut opened = shelf.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            let incoming = match opened.take().filter(|incoming| incoming.is_current()) {
                Some(incoming) => incoming,
                None => {
                    shelf.directory.prepare(STAGED)?;
                    shelf.database.incoming(shelf.directory.path())?
                }
            };
            let done = work(opened.insert(incoming).as_mut());
            *shelf.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            Ok(done?)
        });
        let done = done.await;
        if !self.rests.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().rest_when_idle());
        }
        done.map_err(|error| SiteError::state("applying HQ's tables", error))?
    }

    async fn rest_when_idle(self) {
        loop {
            let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
            match used.map(|used| used + REST_AFTER).filter(|due| *due > Instant::now()) {
                Some(due) => sleep_until(due).await,
                // Work is under way: nobody waits for that, neither here nor in a thread that
                // others need.
                None if self.is_in_use() => tokio::time::sleep(REST_AFTER).await,
                None => break,
            }
        }
        self.rests.store(false, Ordering::Release);
        self.rest().await;
    }

    fn is_in_use(&self) -> bool {
        matches!(self.incoming.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Lets go of the file.
    pub(crate) async fn rest(&self) {
        let incoming = self.incoming.clone();
        let rest = move || drop(incoming.lock().unwrap_or_else(PoisonError::into_inner).take());
        // A panic in it would leave the file open; the next use goes on with that.
        let _ = tokio::task::spawn_blocking(rest).await;
    }

    /// What the site has of HQ's tables.
    pub(crate) async fn applied(&self) -> Result<Vec<Applied>, SiteError> {
        let applied = self.call(|incoming| incoming.applied()).await?;
        Ok(told(&applied, &self.problems()))
    }

    /// HQ was restored from a backup: what it says it published may not be what came here.
    pub(crate) async fn distrust(&self) -> Result<(), SiteError> {
        self.call(|incoming| incoming.distrust()).await
    }

    /// Notes what is to take effect later.
    async fn schedule(&self, wanted: &[WantedTable]) -> Result<(), SiteError> {
        let of_table = |wanted: &WantedTable| {
            let due = wanted.due.iter().map(|due| DueChange {
                table: wanted.table.clone(),
                next: wanted.next.clone(),
                number: due.number,
                at_micros: due.at_micros,
                version: Seq(due.version),
            });
            due.collect::<Vec<_>>()
        };
        let due: Vec<DueChange> = wanted.iter().flat_map(of_table).collect();
        let scheduled = self.scheduled.clone();
        // Told from within: whoever asked may have gone when it is noted.
        self.call(move |incoming| {
            let noted = incoming.schedule(&due);
            scheduled.notify_one();
            noted
        })
        .await
    }

    /// Puts rows into effect when their time comes, for ever: with HQ or without.
    pub(crate) async fn keep_time(self) {
        let mut wait = Duration::ZERO;
        // When something is due next, if anything is; none while that is not known. Until then the
        // store's file is not opened.
        let mut next: Option<Option<i64>> = None;
        loop {
            tokio::select! {
                () = self.scheduled.notified() => next = None,
                () = tokio::time::sleep(wait) => {}
            }
            wait = RETRY_AFTER;
            if self.directory.paused_until().is_some() {
                continue;
            }
            if next.is_none_or(|due| due.is_some_and(|due| due <= clock_micros())) {
                next = None;
                if !self.take_effect().await {
                    continue;
                }
                next = self.call(|incoming| incoming.next_due()).await.ok();
            }
            if let Some(due) = next {
                let left = due.map(|due| due.saturating_sub(clock_micros()).max(0));
                // The clock may be set meanwhile.
                wait = left.map_or(CLOCK_LOOK, |left| Duration::from_micros(left.unsigned_abs()).min(CLOCK_LOOK));
            }
        }
    }

    /// Puts into effect what is due; false if that has to be tried again.
    async fn take_effect(&self) -> bool {
        let Ok(tables) = self.call(|incoming| incoming.due_tables()).await else { return false };
        let mut is_done = true;
        for table in tables {
            let name = table.clone();
            match self.call(move |incoming| incoming.take_effect(&name)).await {
                Ok(Some(Report { written, removed, .. })) => {
                    tracing::info!(table, written, removed, "what was scheduled takes effect");
                }
                // Its rows are on their way: the fetch looks again.
                Ok(None) => is_done = false,
                Err(error) => {
                    tracing::warn!(table, error = %describe(&error), "what was scheduled could not be put into effect");
                    is_done = false;
                    if !matches!(&error, SiteError::Capture(error) if error.is_busy()) {
                        self.problems().insert(table, describe(&error));
                    }
                }
            }
        }
        is_done
    }

    /// The tables that stand beside shared ones, with what the store's programs changed in them.
    pub(crate) async fn edit_tables(&self) -> Result<Vec<String>, SiteError> {
        let edited = self.call(|incoming| incoming.edited()).await?;
        Ok(edited.into_iter().map(|name| format!("{name}{EDITS_SUFFIX}")).collect())
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(applied: &BTreeMap<String, AppliedTable>, problems: &BTreeMap<String, String>) -> Vec<Applied> {
    let nothing = AppliedTable::default();
    let mut tables: Vec<&String> = applied.keys().chain(problems.keys()).collect();
    tables.sort();
    tables.dedup();
    let tell = |table: &String| {
        let known = applied.get(table).unwrap_or(&nothing);
        Applied {
            table: table.clone(),
            version: known.version.0,
            audience: known.audience,
            problem: problems.get(table).unwrap_or(&known.differences).clone(),
            edits: known.edits,
            published_at: known.published_at,
            dangling: known.dangling,
            differing: known.differing,
        }
    };
    tables.into_iter().map(tell).collect()
}

/// The clock is looked at so often.
const CLOCK_LOOK: Duration = Duration::from_secs(30);
