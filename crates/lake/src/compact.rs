//! Many small files become few large ones, superseded versions move to files of their own, and what
//! no version names any more is deleted. Ingest goes on meanwhile: only the commit itself takes its
//! turn.

mod choose;
mod fold;
mod merge;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rollcall_types::{SiteNumber, Timestamp};

pub(crate) use self::fold::Fold;
use self::{
    choose::{Inputs, Job, WEEK_MS, choose, week},
    fold::Changes,
    merge::merge,
};
use crate::{
    action::{Action, Remove},
    error::{Doing, LakeError},
    snapshot::{DataFile, Lives, Snapshot},
    table::{Put, Table},
};

/// When and how much to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionLimits {
    /// Files below this, in bytes, are small: as ingest writes them, in the order in which rows
    /// came.
    pub small_file_bytes: u64,
    /// Compaction waits for this many small files.
    pub files_min: usize,
    /// One run takes at most this many rows of small files and sorts them in memory, which bounds
    /// that.
    pub rows_max: u64,
    /// What was sorted is merged further, as a stream, up to this many bytes a file.
    pub target_bytes: u64,
}

impl CompactionLimits {
    /// Nothing is compacted.
    pub const NONE: Self = Self { small_file_bytes: 0, files_min: usize::MAX, rows_max: 0, target_bytes: 0 };
}

impl Default for CompactionLimits {
    /// Small is under 32 MB; at least 16 of those, at most 3 million rows at a time; files of 128
    /// MB in the end.
    fn default() -> Self {
        Self { small_file_bytes: 32 << 20, files_min: 16, rows_max: 3_000_000, target_bytes: 128 << 20 }
    }
}

/// What a run of compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionReport {
    /// Files merged.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Of these, rows moved to the history only.
    pub superseded: u64,
}

/// Nothing is deleted younger than this: it must stay well above the time a paused node may sleep
/// before its commit.
pub(crate) const RETENTION_MIN: Duration = Duration::from_secs(2 * 3600);

/// How long removed files and old log entries are kept for queries and nodes that still use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(Duration);

impl Retention {
    /// At least two hours, whatever is asked for.
    pub fn new(keep: Duration) -> Self {
        Self(keep.max(RETENTION_MIN))
    }

    /// How long.
    pub fn keep(self) -> Duration {
        self.0
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self(RETENTION_MIN)
    }
}

impl Table {
    /// Merges small files, if there are enough of them, else larger ones, if there are enough of
    /// those; or files of history. One run is bounded in memory; call it again until it does
    /// nothing. `sites` tells numbers of sites whose rows are not all current, and which of their
    /// lives may be: it is asked once the version to be compacted is pinned, and what it says must
    /// not be older than that.
    pub async fn compact<N, F>(
        self: &Arc<Self>,
        limits: CompactionLimits,
        sites: F,
    ) -> Result<CompactionReport, LakeError>
    where
        N: Fn(&str) -> Option<SiteNumber> + Send + 'static,
        F: AsyncFnOnce() -> Result<(N, Lives), LakeError>,
    {
        let base = self.snapshot();
        if choose(&base, limits, &self.damaged()).is_none() {
            return Ok(CompactionReport::default());
        }
        let (site_number, lives) = sites().await?;
        let fold = |inputs: &[Arc<DataFile>]| {
            // Only when every current file takes part is it known that no older version lies
            // elsewhere.
            let is_whole = base.files().filter(|file| !file.superseded).count() == inputs.len();
            let mutations: u64 = inputs.iter().map(|file| file.mutations).sum();
            // Their keys are in memory. Where there are too many, versions stay together; questions
            // tell them apart, as before.
            let folds = mutations <= limits.rows_max;
            let special = base.special_sites(&lives).collect();
            let site_number = Box::new(site_number);
            Fold::Rows(Changes::new(base.schema(), special, is_whole && folds, mutations > 0 && folds, site_number))
        };
        self.merge(&base, limits, fold).await.map(|(report, _)| report)
    }

    /// Chooses files, merges them and commits that; what came of it, and the new files. `fold` says
    /// how current rows are found in such files.
    pub(crate) async fn merge(
        self: &Arc<Self>,
        base: &Snapshot,
        limits: CompactionLimits,
        fold: impl FnOnce(&[Arc<DataFile>]) -> Fold,
    ) -> Result<(CompactionReport, Vec<DataFile>), LakeError> {
        let Some(Job { files: inputs, kind }) = choose(base, limits, &self.damaged()) else {
            return Ok(Default::default());
        };
        let fold = if kind == Inputs::History { Fold::History } else { fold(&inputs) };
        let mut files = Vec::new();
        for file in &inputs {
            let bytes = self.get_data_file(file).await;
            if matches!(bytes, Err(LakeError::DamagedFile { .. })) {
                // The next run does without it.
                self.note_damaged(file);
            }
            files.push(bytes?);
        }
        let schema = base.schema().clone();
        let merged = rollcall_runtime::blocking(move || merge(files, kind == Inputs::Small, &schema, fold));
        let mut report = CompactionReport { files: inputs.len(), ..CompactionReport::default() };
        let mut outputs = Vec::new();
        for (bytes, mut file) in merged.await.doing("compacting")?? {
            report.rows += file.stats.num_records;
            if kind == Inputs::History {
                // Its rows are as old as they were: see `Table::expire_history`.
                file.modified_ms = inputs.iter().map(|input| input.modified_ms).max().unwrap_or(file.modified_ms);
            } else if file.superseded {
                report.superseded += file.stats.num_records;
                // Another node's clock may be ahead: what is superseded later must not seem older.
                let newest = base.files().filter(|other| other.superseded).map(|other| other.modified_ms).max();
                file.modified_ms = file.modified_ms.max(newest.unwrap_or_default());
            }
            self.put_data_file(bytes, &file).await?;
            outputs.push(file);
        }
        let committed = self.exchange(base, &inputs, &outputs, "OPTIMIZE").await?;
        if !committed {
            return Ok(Default::default());
        }
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.counters.compacted_files.fetch_add(inputs.len() as u64, Ordering::Relaxed);
        Ok((report, outputs))
    }

    /// Takes out of the table what was superseded before a time: the rows of it that compaction
    /// moved to files of their own, by whole weeks. Says how many rows those were.
    pub async fn expire_history(self: &Arc<Self>, before: Timestamp) -> Result<u64, LakeError> {
        let base = self.snapshot();
        let week_of_end = (before.as_micros() / 1000).div_euclid(WEEK_MS);
        let is_over = |file: &&Arc<DataFile>| file.superseded && week(file) < week_of_end;
        let expired: Vec<Arc<DataFile>> = base.files().filter(is_over).cloned().collect();
        if expired.is_empty() || !self.exchange(&base, &expired, &[], "DELETE").await? {
            return Ok(0);
        }
        Ok(expired.iter().map(|file| file.stats.num_records).sum())
    }

    /// Commits the exchange of files, unless someone else removed one of the inputs meanwhile.
    async fn exchange(
        self: &Arc<Self>,
        pinned: &Snapshot,
        inputs: &[Arc<DataFile>],
        outputs: &[DataFile],
        operation: &str,
    ) -> Result<bool, LakeError> {
        let now_ms = rollcall_runtime::now().as_millis();
        let rows_in: u64 = inputs.iter().map(|file| file.stats.num_records).sum();
        // Where rows go, the data is another; else only its files are.
        let data_change = outputs.iter().map(|file| file.stats.num_records).sum::<u64>() < rows_in;
        let mut actions: Vec<Action> = inputs
            .iter()
            .map(|file| {
                let path = file.path.clone();
                Action::remove(Remove { path, deletion_timestamp: Some(now_ms), data_change })
            })
            .collect();
        for file in outputs {
            actions.push(Action::add(file.to_add(data_change)?));
        }
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.snapshot();
            let still_there = inputs.iter().all(|file| base.files.contains_key(file.path.as_str()));
            // A load that was completed meanwhile only makes more rows superseded; the next run
            // sees to them.
            if !still_there || base.schema() != pinned.schema() {
                return Ok(false);
            }
            match self.put_entry(&base, operation, actions.clone()).await? {
                Put::Won => {
                    self.checkpoint_if_due();
                    return Ok(true);
                }
                Put::Lost(_) => {}
                // The new files may be gone; the next run makes them again.
                Put::Slept => return Ok(false),
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }
}
