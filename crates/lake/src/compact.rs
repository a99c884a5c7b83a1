//! Many small files become few large ones, superseded versions move to files of their own, and what no version names any
//! more is deleted. Ingest goes on meanwhile: only the commit itself takes its turn.

mod fold;
mod merge;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};
use rollcall_types::SiteNumber;

use self::{fold::Fold, merge::merge};
use crate::{
    action::{Action, Remove},
    error::{Doing, LakeError},
    objects::get_optional,
    snapshot::{DataFile, Snapshot},
    table::{Put, Table},
};

/// When and how much to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionLimits {
    /// Files below this, in bytes, are small: as ingest writes them, in the order in which rows came.
    pub small_file_bytes: u64,
    /// Compaction waits for this many small files.
    pub files_min: usize,
    /// One run takes at most this many rows of small files and sorts them in memory, which bounds that.
    pub rows_max: u64,
    /// What was sorted is merged further, as a stream, up to this many bytes a file.
    pub target_bytes: u64,
}

impl Default for CompactionLimits {
    /// Small is under 32 MB; at least 16 of those, at most 3 million rows at a time; files of 128 MB in the end.
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

/// Nothing is deleted younger than this: it must stay well above the time a paused node may sleep before its commit.
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
    /// Merges small files, if there are enough of them, else larger ones, if there are enough of those. One run is bounded in
    /// memory; call it again until it does nothing. `site_number` tells numbers of sites whose rows are not all current.
    pub async fn compact(
        self: &Arc<Self>,
        limits: CompactionLimits,
        site_number: impl Fn(&str) -> Option<SiteNumber> + Send + 'static,
    ) -> Result<CompactionReport, LakeError> {
        let base = self.snapshot();
        let Some((inputs, are_small)) = choose(&base, limits) else { return Ok(CompactionReport::default()) };
        let mut files = Vec::new();
        for file in &inputs {
            let path = self.root.clone().join(file.path.as_str());
            let bytes = get_optional(self.store.as_ref(), &path).await?;
            files.push(bytes.ok_or_else(|| LakeError::damaged(format!("data file {path} is gone")))?);
        }
        // Only when every current file takes part is it known that no older version lies elsewhere.
        let is_whole = base.files().filter(|file| !file.superseded).count() == inputs.len();
        let mutations: u64 = inputs.iter().map(|file| file.mutations).sum();
        // Their keys are in memory. Where there are too many, versions stay together; questions tell them apart, as before.
        let folds = mutations <= limits.rows_max;
        let (is_whole, has_mutations) = (is_whole && folds, mutations > 0 && folds);
        let schema = base.schema().clone();
        let special = base.special_sites().collect();
        let merged = tokio::task::spawn_blocking(move || {
            let fold = Fold::new(&schema, special, is_whole, has_mutations, site_number);
            merge(files, are_small, &schema, fold)
        });
        let outputs = merged.await.doing("compacting")??;
        let mut report = CompactionReport { files: inputs.len(), ..CompactionReport::default() };
        for (bytes, file) in &outputs {
            report.rows += file.stats.num_records;
            report.superseded += if file.superseded { file.stats.num_records } else { 0 };
            self.put_data_file(bytes.clone(), file).await?;
        }
        let committed = self.replace(&base, &inputs, outputs.iter().map(|(_, file)| file)).await?;
        Ok(if committed { report } else { CompactionReport::default() })
    }

    /// Commits the exchange of files, unless someone else removed one of the inputs meanwhile.
    async fn replace(
        self: &Arc<Self>,
        pinned: &Snapshot,
        inputs: &[Arc<DataFile>],
        outputs: impl Iterator<Item = &DataFile>,
    ) -> Result<bool, LakeError> {
        let now_ms = Utc::now().timestamp_millis();
        let mut actions: Vec<Action> = inputs
            .iter()
            .map(|file| {
                let path = file.path.clone();
                Action::remove(Remove { path, deletion_timestamp: Some(now_ms), data_change: false })
            })
            .collect();
        for file in outputs {
            actions.push(Action::add(file.to_add(false)?));
        }
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.snapshot();
            let still_there = inputs.iter().all(|file| base.files.contains_key(file.path.as_str()));
            // A load that was completed meanwhile only makes more rows superseded; the next run sees to them.
            if !still_there || base.schema() != pinned.schema() {
                return Ok(false);
            }
            match self.put_entry(&base, "OPTIMIZE", actions.clone()).await? {
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

    /// Deletes data files that no version within `retention` names: removed ones, and ones whose commit never came.
    pub async fn vacuum(&self, retention: Retention) -> Result<usize, LakeError> {
        let snapshot = self.refresh().await?;
        let horizon = Utc::now() - retention.keep();
        let removed_before =
            |path: &str| snapshot.removed.get(path).is_none_or(|removed| *removed < horizon.timestamp_millis());
        let listed: Vec<_> = self.store.list(Some(&self.root)).try_collect().await.doing("listing data files")?;
        let log = crate::replay::log_path(&self.root);
        let mut deleted = 0;
        for meta in listed {
            let Some(path) = relative(&self.root, &meta.location) else { continue };
            let is_data = !meta.location.prefix_matches(&log) && path.ends_with(".parquet");
            let in_use = snapshot.files.contains_key(path.as_str());
            if is_data && !in_use && meta.last_modified < horizon && removed_before(&path) {
                self.store.delete(&meta.location).await.doing("deleting a data file")?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    path.prefix_match(root).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
}

/// As many runs of small files, full ones, make one large file at most.
const RUNS_MERGED: u64 = 4;
/// Compressed bytes of small files that one run takes; uncompressed they are about ten times as much.
const INPUT_BYTES_MAX: u64 = 96 << 20;

/// What one run is to merge, and whether that is small files. Those which such runs made come first: there are always small ones.
fn choose(base: &Snapshot, limits: CompactionLimits) -> Option<(Vec<Arc<DataFile>>, bool)> {
    let is_small =
        |file: &DataFile| file.size < limits.small_file_bytes && file.stats.num_records < limits.rows_max / 2;
    let (small, larger): (Vec<_>, Vec<_>) =
        base.files().filter(|file| !file.superseded).cloned().partition(|file| is_small(file));
    let larger = neighbours(larger, base, limits).map(|files| (files, false));
    larger.or_else(|| Some((oldest(small, limits)?, true)))
}

/// The oldest small files, up to the limit of rows.
fn oldest(mut small: Vec<Arc<DataFile>>, limits: CompactionLimits) -> Option<Vec<Arc<DataFile>>> {
    small.sort_by_key(|file| file.modified_ms);
    let (all, mut rows, mut bytes) = (small.len(), 0, 0);
    let fits = |file: &Arc<DataFile>| {
        rows += file.stats.num_records;
        bytes += file.size;
        rows <= limits.rows_max && bytes <= INPUT_BYTES_MAX
    };
    let taken: Vec<_> = small.into_iter().take_while(fits).collect();
    // A full run waits for no more files: they would not fit.
    let is_full = taken.len() < all && taken.len() > 1;
    (taken.len() >= limits.files_min || is_full).then_some(taken)
}

/// Files that follow each other in time and make one large one together. A file is merged once this way, or twice if its
/// neighbours are long in coming: what is more than half of the target is left alone. Rows are bounded like bytes.
fn neighbours(mut larger: Vec<Arc<DataFile>>, base: &Snapshot, limits: CompactionLimits) -> Option<Vec<Arc<DataFile>>> {
    let rows_max = limits.rows_max * RUNS_MERGED;
    larger.retain(|file| file.size <= limits.target_bytes / 2 && file.stats.num_records <= rows_max / 2);
    let time = merge::time_column(base.schema());
    let begins = |file: &DataFile| file.stats.min_values.get(time).map(ToString::to_string);
    larger.sort_by_cached_key(|file| (begins(file), file.modified_ms));
    let mut group: Vec<Arc<DataFile>> = Vec::new();
    let (mut bytes, mut rows) = (0, 0);
    for file in larger {
        (bytes, rows) = (bytes + file.size, rows + file.stats.num_records);
        if bytes > limits.target_bytes || rows > rows_max {
            // It has at least two, since none is more than half.
            return Some(group);
        }
        group.push(file);
    }
    (group.len() > 1 && bytes >= limits.target_bytes / 4 * 3).then_some(group)
}
