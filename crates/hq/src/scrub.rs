//! Looks, over days, whether the lake's files are still what was written, and mends logs from what this process knows.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{maintenance::all_tables, node::Shared};

/// Each data file is read again after so long.
const EVERY: Duration = Duration::from_secs(7 * 86_400);
/// How often a few are.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Bytes read at a look: 20 MB a second at most.
const BYTES_MAX: u64 = 200 << 20;
/// How often logs are looked at.
const LOGS_EVERY: Duration = Duration::from_secs(3600);

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut read: HashMap<String, Instant> = HashMap::new();
    let mut logs_looked_at = Instant::now();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        if !shared.is_acting() {
            continue;
        }
        let state = shared.lake.state().table().clone();
        let tables = all_tables(&shared).into_iter().chain([state, shared.lake.quarantine().clone()]);
        let tables: Vec<_> = tables.filter(|table| table.set_aside().is_none()).collect();
        if logs_looked_at.elapsed() >= LOGS_EVERY {
            logs_looked_at = Instant::now();
            for table in &tables {
                shared.health.note(format!("read the log of {}", table.root()), &table.heal().await);
            }
        }
        let mut bytes = 0;
        for table in &tables {
            let root = table.root().to_string();
            while bytes < BYTES_MAX {
                let is_due = |path: &str| read.get(&format!("{root}/{path}")).is_none_or(|at| at.elapsed() >= EVERY);
                let scrubbed = table.scrub(is_due).await;
                shared.health.note(format!("look at data files of {root}"), &scrubbed);
                let Ok(Some((path, size))) = scrubbed else { break };
                bytes += size;
                read.insert(format!("{root}/{path}"), Instant::now());
            }
        }
        // Files that are no more were compacted away long before.
        read.retain(|_, at| at.elapsed() < EVERY * 2);
    }
}
