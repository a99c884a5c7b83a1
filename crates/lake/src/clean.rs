//! Deletes what no version of a table names any more.
//!
//! No wall clock decides: another node's may differ, and any may be set. A file goes once this
//! process has seen for as long as it is to be kept, by the boot clock, that nothing needs it.

use std::{
    collections::{HashMap, VecDeque},
    sync::PoisonError,
    time::Duration,
};

use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};

use crate::{
    compact::{RETENTION_MIN, Retention},
    error::{Doing, LakeError},
    replay,
    table::Table,
};

/// What of a table nothing needs, by the boot time at which that was seen first.
#[derive(Debug, Default)]
pub(crate) struct Unwanted {
    /// Data files: removed ones, and ones whose commit never came.
    files: HashMap<String, Duration>,
    /// The log before these versions, oldest first.
    log: VecDeque<(Duration, u64)>,
}

impl Unwanted {
    /// Of the files unwanted now, those that have been for `keep`.
    fn files_to_delete(&mut self, unwanted: Vec<String>, now: Duration, keep: Duration) -> Vec<String> {
        let known = std::mem::take(&mut self.files);
        self.files =
            unwanted.into_iter().map(|path| (path.clone(), known.get(&path).copied().unwrap_or(now))).collect();
        let old = self.files.iter().filter(|(_, since)| now.saturating_sub(**since) >= keep);
        old.map(|(path, _)| path.clone()).collect()
    }

    /// The log is not needed before version `from` now; before which one has it not been for
    /// `keep`?
    fn log_to_delete(&mut self, from: u64, now: Duration, keep: Duration) -> u64 {
        if self.log.back().is_none_or(|(_, known)| *known < from) {
            self.log.push_back((now, from));
        }
        let is_old = |(since, _): &(Duration, u64)| now.saturating_sub(*since) >= keep;
        while self.log.get(1).is_some_and(is_old) {
            self.log.pop_front();
        }
        self.log.front().filter(|first| is_old(first)).map_or(0, |(_, from)| *from)
    }
}

impl Table {
    /// Deletes data files that no version within `retention` names: removed ones, and ones whose
    /// commit never came. The first call only notes them. Returns how many went.
    pub async fn vacuum(&self, retention: Retention) -> Result<usize, LakeError> {
        let listed: Vec<_> = self.store.list(Some(&self.root)).try_collect().await.doing("listing data files")?;
        // Newer than the list: what was committed meanwhile is in use.
        let snapshot = self.refresh().await?;
        let log = replay::log_path(&self.root);
        let data = listed.iter().filter(|meta| !meta.location.prefix_matches(&log));
        let unwanted = data.filter_map(|meta| relative(&self.root, &meta.location));
        let unwanted =
            unwanted.filter(|path| path.ends_with(".parquet") && !snapshot.files.contains_key(path.as_str()));
        let (unwanted, now) = (unwanted.collect(), self.clock.now());
        let goes = {
            let mut known = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
            known.files_to_delete(unwanted, now, retention.keep())
        };
        for path in &goes {
            self.store.delete(&self.root.clone().join(path.as_str())).await.doing("deleting a data file")?;
        }
        Ok(goes.len())
    }

    /// Deletes log entries and checkpoints that come before the last checkpoint but one and have
    /// for `keep`: were the last one damaged, the one before it and the log behind it are the
    /// table. Returns how many went.
    pub async fn clean_log(&self, keep: Duration) -> Result<usize, LakeError> {
        // Never below what the zombie rule needs.
        let keep = keep.max(RETENTION_MIN);
        let names = replay::files(self.store.as_ref(), &self.root).await?;
        let version = |name: &str| name.split('.').next().and_then(|digits| digits.parse::<u64>().ok());
        let checkpoints = replay::checkpoints_of(&names);
        let Some(from) = checkpoints.len().checked_sub(2).map(|place| checkpoints[place]) else { return Ok(0) };
        let before = {
            let mut known = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
            known.log_to_delete(from, self.clock.now(), keep)
        };
        let mut cleaned = 0;
        for meta in names {
            if meta.location.filename().and_then(version).is_some_and(|version| version < before) {
                self.store.delete(&meta.location).await.doing("cleaning a table's log")?;
                cleaned += 1;
            }
        }
        Ok(cleaned)
    }
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    path.prefix_match(root).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_file_goes_once_nothing_has_needed_it_for_long_enough() {
        let mut unwanted = Unwanted::default();
        let mut goes = |paths: &[&str], hours: u32| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let mut goes = unwanted.files_to_delete(paths, HOUR * hours, HOUR * 2);
            goes.sort();
            goes
        };
        assert!(goes(&["a", "b"], 10).is_empty());
        assert!(goes(&["a"], 11).is_empty(), "b was committed meanwhile");
        assert_eq!(goes(&["a", "b"], 12), ["a"]);
        assert!(goes(&["b"], 13).is_empty(), "it counts from when it was unwanted again");
        assert_eq!(goes(&["b"], 14), ["b"]);
    }

    #[test]
    fn the_log_goes_up_to_where_it_was_unneeded_for_long_enough() {
        let mut unwanted = Unwanted::default();
        let mut before = |from: u64, hours: u32| unwanted.log_to_delete(from, HOUR * hours, HOUR * 2);
        assert_eq!(before(100, 10), 0);
        assert_eq!(before(200, 11), 0);
        assert_eq!(before(200, 12), 100);
        assert_eq!(before(300, 13), 200);
        assert_eq!(before(300, 20), 300);
    }
}
