//! Looks, over a week, whether the lake's files are still what was written, and mends logs from
//! what this process knows.
//!
//! Each data file has its second of the week, by its name: so all are read once a week, evenly,
//! whichever node acts and however often it is started anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rollcall_lake::Table;
use rollcall_runtime::Instant;

use rollcall_registry::Registry;

use crate::tidying::all_tables;

/// Each data file is read again after so long.
const WEEK_SECONDS: i64 = 7 * 86_400;
/// How often those that are due are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often logs are looked at.
const LOGS_EVERY: Duration = Duration::from_secs(3600);

/// Whether the second of a file lies behind `from`, up to `to`; both in seconds of HQ's time.
fn is_due(path: &str, from: i64, to: i64) -> bool {
    // Names are random, so that any sum of them spreads evenly; it must be the same in every
    // process.
    let sum = path.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let second = i64::try_from(sum % WEEK_SECONDS.unsigned_abs()).unwrap_or_default();
    let since = (to - second).rem_euclid(WEEK_SECONDS);
    since < to - from
}

/// Runs until the node stops.
pub async fn run(registry: Arc<Registry>) {
    let mut timer = rollcall_runtime::every(LOOK_EVERY);
    let (started, mut logs_looked_at) = (registry.now().as_seconds(), Instant::now());
    // By table, up to when its files were looked at: what the store did not give is asked for
    // again.
    let mut looked: HashMap<String, i64> = HashMap::new();
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let to = registry.now().as_seconds();
        if !registry.is_acting() {
            looked.values_mut().for_each(|since| *since = to);
            continue;
        }
        let own = [registry.lake.state().table().clone(), registry.lake.quarantine().clone()];
        let tables: Vec<Arc<Table>> =
            all_tables(&registry.lake).into_iter().chain(own).filter(|table| table.set_aside().is_none()).collect();
        let looks_at_logs = logs_looked_at.elapsed() >= LOGS_EVERY;
        if looks_at_logs {
            logs_looked_at = Instant::now();
        }
        for table in &tables {
            if looks_at_logs {
                registry.health.note(format!("read the log of {}", table.root()), &table.heal().await);
            }
            let since = looked.entry(table.root().to_string()).or_insert(started);
            let scrubbed = table.scrub(|path| is_due(path, *since, to)).await;
            if scrubbed.is_ok() {
                *since = to;
            }
            registry.health.note(format!("look at data files of {}", table.root()), &scrubbed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_looked_at_once_a_week() {
        for path in ["part-1.parquet", "part-2.parquet", "x"] {
            let starts = (0..WEEK_SECONDS / 60).map(|minute| 1_800_000_000 + minute * 60);
            assert_eq!(starts.filter(|from| is_due(path, *from, from + 60)).count(), 1, "{path}");
        }
        assert!(!is_due("x", 5, 5));
    }
}
