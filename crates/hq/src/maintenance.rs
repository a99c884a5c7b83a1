//! Housekeeping beside the parts' own work: compaction, clean-up, what must be stored now and then.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use rollcall_alert::{Alerts, TICKS};
use rollcall_answer::{Answers, coverage::lives, measures, table_settings};
use rollcall_api::{Api, Credentials};
use rollcall_books::Books;
use rollcall_gateway::{Authority, capacity};
use rollcall_lake::{CompactionLimits, CompactionReport, Lake, LakeError, Retention, Table};
use rollcall_publish::{
    Publisher,
    arrivals::{self, LackingSince},
    note_orphans, scheduled, shared_tables, tables,
};
use rollcall_registry::{Health, Registry, doors::Doors, presence::PRESENCE, roster::COUNTER};
use rollcall_types::SiteNumber;

use crate::own_disk;

/// What HQ cannot do where its own disk has little room.
const ROOM: &str = "go on for long with the room it has";
/// How often small files are looked for.
const COMPACT_EVERY: Duration = Duration::from_secs(5);
/// How often old log entries and unreferenced data files are deleted.
const CLEAN_EVERY: Duration = Duration::from_secs(1800);
/// How often what changed of sites' presence is stored.
const REMEMBER_EVERY: Duration = Duration::from_secs(60);
/// How often completeness is looked at again for sites that wait for a cursor.
const ADVANCE_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether other sites should have other tables.
const PUBLISHED_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked who has not taken what was published.
const ARRIVALS_EVERY: Duration = Duration::from_secs(5);
/// How often the worth of rows is worked out.
const MEASURE_EVERY: Duration = Duration::from_secs(3600);
/// How often what other nodes committed is taken over.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How often secrets that another node changed are looked for.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// What one node changed of secrets every other one knows after this time.
pub(crate) const KNOWN_EVERYWHERE: Duration = Duration::from_secs(30);

/// Tasks that must go on, or the service manager starts HQ again.
const TASKS: [&str; 4] = [ADVANCE, FOLLOW, LATECOMERS, REMEMBER];
const ADVANCE: &str = "advance";
const FOLLOW: &str = "follow publications";
const LATECOMERS: &str = "look for latecomers";
const REMEMBER: &str = "remember";

/// A timer that does not catch up: two looks in a row would see the same.
fn every(period: Duration) -> tokio::time::Interval {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    timer
}

/// Moves sites' completeness along with the lake, until the node stops.
pub(crate) async fn advance(registry: Arc<Registry>, answers: Arc<Answers>) {
    let mut timer = every(ADVANCE_EVERY);
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        registry.ledger.advance_all(&registry.lake, &registry.roster.all());
        answers.refresh_progress();
        registry.health.beat(ADVANCE, &TASKS);
    }
}

/// Takes over what is published and what is in quarantine, until the node stops.
pub(crate) async fn follow_publications(registry: Arc<Registry>, books: Arc<Books>, publisher: Arc<Publisher>) {
    let mut timer = every(PUBLISHED_EVERY);
    let mut unwanted = scheduled::Unwanted::new();
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        tables::refresh(&publisher).await;
        let looked = books.quarantine.look(&registry.roster.all()).await;
        registry.health.note("read what is in quarantine", &looked);
        if registry.is_acting() {
            scheduled::look(&publisher, &mut unwanted).await;
        }
        registry.health.beat(FOLLOW, &TASKS);
    }
}

/// Tells the watch who is late with what was published, and people of strangers at the doors, until
/// the node stops.
pub(crate) async fn look_for_latecomers(
    alerts: Arc<Alerts>,
    publisher: Arc<Publisher>,
    doors: Arc<Doors>,
    api: Arc<Api>,
) {
    const GUESSED: &str = "tell users from somebody who guesses";
    let (registry, mut timer, mut lacking) = (&alerts.registry, every(ARRIVALS_EVERY), LackingSince::new());
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        for late in arrivals::late(&publisher, &|| alerts.roll(), &mut lacking) {
            let mut watch = alerts.watching.watch();
            watch.set_publication(late.table.as_str(), &late.members, &late.text, registry.now());
        }
        doors.tell(&registry.health);
        match api.told_of_guesses() {
            Some(text) => registry.health.broken(GUESSED, &text),
            None => registry.health.done(GUESSED),
        }
        registry.health.beat(LATECOMERS, &TASKS);
    }
}

/// Stores what must survive a stop, until the node stops.
pub(crate) async fn remember(
    registry: Arc<Registry>,
    publisher: Arc<Publisher>,
    authority: Arc<Authority>,
    capacity: usize,
) {
    const STORE: &str = "store what was heard of sites";
    let (mut news, mut timer, mut orphans) = (every(ARRIVALS_EVERY), every(REMEMBER_EVERY), BTreeMap::new());
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = news.tick() => {
                if registry.ledger.has_news() {
                    registry.health.note(STORE, &registry.store_presence(false).await);
                }
            }
            _ = timer.tick() => {
                if registry.is_acting() {
                    registry.health.note("note publications", &note_orphans(&publisher, &mut orphans).await);
                }
                let count = registry.sessions.count();
                if capacity::is_nearly_full(count, capacity) {
                    tracing::error!(count, capacity, "nearly as many sites as this process may open files: add a node, or raise the limit");
                }
                registry.health.note("renew this node's certificate", &authority.reload().await);
                registry.health.note(STORE, &registry.store_presence(false).await);
                if registry.is_acting() {
                    registry.health.note("note how far the lake has come", &registry.lake.note_heads().await);
                }
            }
        }
        registry.health.beat(REMEMBER, &TASKS);
    }
}

/// Decides on what sites change in shared tables, until the node stops. Much of that takes its
/// time; nothing else waits for it.
pub(crate) async fn decide_on_edits(publisher: Arc<Publisher>) {
    let (mut timer, mut seen) = (tokio::time::interval(PUBLISHED_EVERY), shared_tables::Seen::default());
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = publisher.registry.stop.cancelled() => return,
            // Whether this node acts is looked at when the time has come: as a condition of waiting
            // it would be for once and all.
            _ = timer.tick() => {
                if publisher.registry.is_acting() {
                    shared_tables::look(&publisher, &mut seen).await;
                }
            }
        }
    }
}

/// Takes over what other nodes write, until the node stops.
pub(crate) async fn follow(
    registry: Arc<Registry>,
    authority: Arc<Authority>,
    credentials: Arc<Credentials>,
    alerts: Arc<Alerts>,
) {
    if registry.relay().is_none() {
        return;
    }
    let (mut timer, mut reload_tick) = (every(FOLLOW_EVERY), every(RELOAD_EVERY));
    let mut roster = registry.roster.all();
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {
                registry.health.note("read what other nodes wrote", &registry.lake.follow().await);
                let newest = registry.roster.all();
                if !Arc::ptr_eq(&roster, &newest) {
                    roster = newest;
                    registry.sessions.cut_strangers(|session| {
                        let record = roster.get(&session.site);
                        // One that is to send everything again hears of it when it comes next.
                        let is_to_resend = record.and_then(|record| record.resend.as_ref()).is_some_and(|resend| resend.epoch.is_none());
                        let key = record.and_then(|record| record.key_hash.as_deref());
                        !is_to_resend && key == Some(session.peer.key_hash.as_str())
                    });
                }
            }
            _ = reload_tick.tick() => {
                let reloaded = async {
                    authority.reload().await?;
                    credentials.reload().await?;
                    alerts.notifiers.reload().await
                };
                registry.health.note("read users, channels and certificates anew", &reloaded.await);
            }
        }
    }
}

/// What compaction needs of how the node is set up.
pub(crate) struct Tidying {
    pub(crate) registry: Arc<Registry>,
    pub(crate) answers: Arc<Answers>,
    /// This node's data directory.
    pub(crate) directory: PathBuf,
    pub(crate) limits: CompactionLimits,
}

impl Tidying {
    /// Compacts and cleans until the node stops.
    pub(crate) async fn run(self) {
        let (registry, answers) = (&self.registry, &self.answers);
        let mut compact_tick = every(COMPACT_EVERY);
        let mut clean_tick = tokio::time::interval(CLEAN_EVERY);
        let mut measure_tick = tokio::time::interval(MEASURE_EVERY);
        let mut propose_tick = tokio::time::interval(ARRIVALS_EVERY);
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
        let compacted = state.compact(self.limits, &[PRESENCE, TICKS, COUNTER]).await;
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
