//! Which files one run of compaction merges.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{CompactionLimits, merge::time_column};
use crate::snapshot::{DataFile, Snapshot};

/// What one run is to merge.
pub(super) struct Job {
    pub(super) files: Vec<Arc<DataFile>>,
    pub(super) kind: Inputs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inputs {
    /// As ingest writes them.
    Small,
    /// Sorted ones, as earlier runs made them.
    Larger,
    /// Of superseded rows.
    History,
}

/// As many runs of small files, full ones, make one large file at most.
const RUNS_MERGED: u64 = 4;
/// Compressed bytes of small files that one run takes; uncompressed they are about ten times as
/// much.
const INPUT_BYTES_MAX: u64 = 96 << 20;

/// What one run is to merge; files found damaged are left. What such runs made comes first, and is
/// rarely enough: there are always small files.
pub(super) fn choose(base: &Snapshot, limits: CompactionLimits, damaged: &HashSet<String>) -> Option<Job> {
    let sound = base.files().filter(|file| !damaged.contains(&file.path)).cloned();
    let (history, current): (Vec<_>, Vec<_>) = sound.partition(|file| file.superseded);
    if let Some(files) = of_an_age(history, limits) {
        return Some(Job { files, kind: Inputs::History });
    }
    let is_small =
        |file: &DataFile| file.size < limits.small_file_bytes && file.stats.num_records < limits.rows_max / 2;
    let (small, larger): (Vec<_>, Vec<_>) = current.into_iter().partition(|file| is_small(file));
    if let Some(files) = neighbours(larger, base, limits) {
        return Some(Job { files, kind: Inputs::Larger });
    }
    Some(Job { files: oldest(small, limits)?, kind: Inputs::Small })
}

/// The week (of Unix time) in which the newest rows of a file of history were superseded. History
/// ends by whole weeks, and no file of two is made: else a deletion could be forgotten before the
/// row that it deleted, which would be there again to engines that read everything.
pub(super) fn week(file: &DataFile) -> i64 {
    file.modified_ms.div_euclid(WEEK_MS)
}

pub(super) const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

/// Files of history of one week and about one size, once there are as many as of small ones; so a
/// row is written again once for each sixteenfold of its file's size (a log-structured merge by
/// size).
fn of_an_age(mut history: Vec<Arc<DataFile>>, limits: CompactionLimits) -> Option<Vec<Arc<DataFile>>> {
    let rows_max = limits.rows_max * RUNS_MERGED;
    history.retain(|file| file.size <= limits.target_bytes / 2 && file.stats.num_records <= rows_max / 2);
    history.sort_by_key(|file| file.modified_ms);
    let mut groups: HashMap<(i64, u32), Vec<Arc<DataFile>>> = HashMap::new();
    for file in history {
        let group = groups.entry((week(&file), file.size.max(1).ilog2() / 4)).or_default();
        let (bytes, rows) = sums(group);
        // There are two at least, since none is more than half.
        if bytes + file.size > limits.target_bytes || rows + file.stats.num_records > rows_max {
            return Some(std::mem::take(group));
        }
        group.push(file);
        if group.len() >= limits.files_min {
            return Some(std::mem::take(group));
        }
    }
    None
}

fn sums(files: &[Arc<DataFile>]) -> (u64, u64) {
    files.iter().fold((0, 0), |(bytes, rows), file| (bytes + file.size, rows + file.stats.num_records))
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

/// Files that follow each other in time and make one large one together. A file is merged once this
/// way, or twice if its neighbours are long in coming: what is more than half of the target is left
/// alone. Rows are bounded like bytes.
fn neighbours(mut larger: Vec<Arc<DataFile>>, base: &Snapshot, limits: CompactionLimits) -> Option<Vec<Arc<DataFile>>> {
    let rows_max = limits.rows_max * RUNS_MERGED;
    larger.retain(|file| file.size <= limits.target_bytes / 2 && file.stats.num_records <= rows_max / 2);
    let time = time_column(base.schema());
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
