//! Compaction, clean-up and what is worked out anew now and then.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rollcall_alert::TICKS;
use rollcall_answer::{Answers, coverage::lives, measures, table_settings};
use rollcall_lake::{CompactionLimits, CompactionReport, Lake, LakeError, Retention, Table};
use rollcall_registry::{Health, Registry, presence::PRESENCE, roster::COUNTER};
use rollcall_runtime::every;
use rollcall_types::SiteNumber;

use crate::own_disk;

/// What HQ cannot do where its own disk has little room.
const ROOM: &str = "go on for long with the room it has";
/// Kinds of records of which older versions are no history.
const PASSING: [&str; 3] = [PRESENCE.name(), TICKS, COUNTER.name()];
/// How often small files are looked for.
const COMPACT_EVERY: Duration = Duration::from_secs(5);
/// How often old log entries and unreferenced data files are deleted.
const CLEAN_EVERY: Duration = Duration::from_secs(1800);
/// How often the worth of rows is worked out.
const MEASURE_EVERY: Duration = Duration::from_secs(3600);
/// How often it is looked what sites propose for their tables.
const PROPOSALS_EVERY: Duration = Duration::from_secs(5);

/// What compaction needs of how the node is set up.
pub struct Tidying {
    /// Whose lake it is.
    pub registry: Arc<Registry>,
    /// Asks what must be known of rows.
    pub answers: Arc<Answers>,
    /// This node's data directory.
    pub directory: PathBuf,
    /// Which files are merged.
    pub limits: CompactionLimits,
}

impl Tidying {
    /// Compacts and cleans until the node stops.
    pub async fn run(self) {
        let (registry, answers) = (&self.registry, &self.answers);
        let mut compact_tick = every(COMPACT_EVERY);
        let mut clean_tick = every(CLEAN_EVERY);
        let mut measure_tick = every(MEASURE_EVERY);
        let mut propose_tick = every(PROPOSALS_EVERY);
        loop {
            tokio::select! {
                () = registry.stop.cancelled() => return,
                _ = compact_tick.tick() => self.compact().await,
                _ = measure_tick.tick() => measures::refresh(registry, &answers.engine, &answers.books.worths).await,
                _ = propose_tick.tick() => table_settings::adopt(answers).await,
                _ = clean_tick.tick() => self.clean().await,
            }
        }
    }

    async fn compact(&self) {
        let registry = &self.registry;
        // Each node has a disk of its own.
        match own_disk::problem(&self.directory) {
            Some(problem) => registry.health.broken(ROOM, &problem),
            None => registry.health.done(ROOM),
        }
        if !registry.is_acting() {
            return;
        }
        for table in all_tables(&registry.lake) {
            let using = format!("use {}", table.root());
            if let Some(what) = table.set_aside() {
                registry.health.broken(using, &what);
                continue;
            }
            registry.health.done(using);
            let sites = async || {
                // Not older than the version to be compacted: a life may have begun a moment ago.
                registry.lake.state().refresh().await?;
                let roster = registry.roster.all();
                let lives = lives(&roster);
                let number = move |site: &str| roster.get(site).map(|record| SiteNumber(record.number));
                Ok((number, lives))
            };
            note_compaction(&registry.health, &table, table.compact(self.limits, sites).await);
        }
        let state = registry.lake.state();
        let compacted = state.compact(self.limits, &PASSING).await;
        note_compaction(&registry.health, state.table(), compacted);
    }

    async fn clean(&self) {
        let registry = &self.registry;
        if !registry.is_acting() {
            return;
        }
        table_settings::expire_history(&self.answers).await;
        let state = registry.lake.state().table();
        let sound = |table: &&Arc<Table>| table.set_aside().is_none();
        // While it is in doubt, a file that nothing names may be the only one that has a record.
        let state = Some(state).filter(|_| registry.lake.doubt().is_none());
        for table in all_tables(&registry.lake).iter().filter(sound).chain(state) {
            registry.health.note(format!("clean up {}", table.root()), &clean(table).await);
        }
    }
}

fn note_compaction(health: &Health, table: &Table, compacted: Result<CompactionReport, LakeError>) {
    health.note(format!("compact {}", table.root()), &compacted);
    if let Some(report) = compacted.ok().filter(|report| report.files > 0) {
        tracing::debug!(table = %table.root(), files = report.files, rows = report.rows, "compacted");
    }
    if let Some(outcome) = table.take_checkpointed() {
        health.note(format!("take a checkpoint of {}", table.root()), &outcome);
    }
    let damaged = table.damaged();
    let reading = format!("read all data files of {}", table.root());
    match damaged.iter().next() {
        None => health.done(reading),
        Some(first) => health.broken(reading, &format!("{} damaged, such as {first}", damaged.len())),
    }
}

/// All but the state log's, which is compacted in its own way.
pub(crate) fn all_tables(lake: &Lake) -> Vec<Arc<Table>> {
    let own = [lake.site_log(), lake.contacts(), lake.rhythms(), lake.untold(), lake.audit()];
    lake.tables().into_values().chain(own.into_iter().cloned()).collect()
}

async fn clean(table: &Table) -> Result<(), LakeError> {
    let retention = Retention::default();
    table.vacuum(retention).await?;
    table.clean_log(retention.keep()).await?;
    Ok(())
}
