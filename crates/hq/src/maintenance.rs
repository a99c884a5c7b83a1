//! Housekeeping beside ingest: compaction, clean-up, what must be remembered, contact history.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow_array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use rollcall_lake::{CompactionReport, LakeError, Record, Retention, StateView, Table};
use rollcall_types::{SiteId, SiteNumber, Timestamp};

use crate::{
    capacity,
    coverage::lives,
    health::Health,
    ledger::Remembered,
    node::Shared,
    own_disk,
    published::{
        self,
        arrivals::{self, LackingSince},
        scheduled, shared as edits,
    },
    roster::COUNTER,
    table_settings,
    watching::TICKS,
};

const PRESENCE: &str = "presence";
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

/// Hours of contact are another node's to store; here they are kept for so long.
const HOURS_LEFT: Duration = Duration::from_secs(2 * 3600);
/// How often what other nodes committed is taken over.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How often secrets that another node changed are looked for.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// What one node changed of secrets every other one knows after this time.
pub(crate) const KNOWN_EVERYWHERE: Duration = Duration::from_secs(30);

/// Takes what was remembered before a restart.
pub(crate) fn restore(shared: &Shared) {
    for record in shared.lake.state().view().of_kind(PRESENCE) {
        let (Ok(site), Ok(remembered)) = (record.id.parse::<SiteId>(), record.parse::<Remembered>()) else { continue };
        if let Some(at) = remembered.last_heard {
            shared.watching.watch().restore_heard(&site, at, remembered.said_goodbye);
        }
        shared.ledger.restore(site, remembered);
    }
}

/// The record by which a site's rows are not known to be complete any more: some were taken out of
/// the lake.
pub(crate) fn forget_completeness(
    view: &StateView,
    site: &SiteId,
    now: Timestamp,
) -> Result<Option<Record>, LakeError> {
    let Some(record) = view.get(PRESENCE, site.as_str()) else { return Ok(None) };
    let remembered = Remembered { complete_through: None, ..record.parse()? };
    view.next(PRESENCE, site.as_str(), &remembered, now, "hq").map(Some)
}

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut advance = tokio::time::interval(ADVANCE_EVERY);
    let mut remember_tick = tokio::time::interval(REMEMBER_EVERY);
    let mut published_tick = tokio::time::interval(PUBLISHED_EVERY);
    // Two looks in a row would see the same.
    published_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut arrivals_tick = tokio::time::interval(ARRIVALS_EVERY);
    let (mut lacking, mut orphans, mut unwanted) = (LackingSince::new(), BTreeMap::new(), scheduled::Unwanted::new());
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = advance.tick() => {
                shared.ledger.advance_all(&shared.lake, &shared.roster.all());
                shared.standings.refresh(&shared);
                shared.health.beat();
            }
            _ = published_tick.tick() => {
                published::refresh(&shared).await;
                let looked = shared.quarantine.look(&shared.roster.all()).await;
                shared.health.note("read what is in quarantine", &looked);
                if shared.is_acting() {
                    scheduled::look(&shared, &mut unwanted).await;
                }
            }
            _ = arrivals_tick.tick() => {
                arrivals::watch(&shared, &mut lacking);
                if shared.ledger.has_news() {
                    shared.health.note("store what was heard of sites", &remember(&shared, false).await);
                }
                shared.doors.tell(&shared.health);
                const GUESSED: &str = "tell users from somebody who guesses";
                match shared.guesses.told(shared.now()) {
                    Some(text) => shared.health.broken(GUESSED, &text),
                    None => shared.health.done(GUESSED),
                }
            }
            _ = remember_tick.tick() => {
                if shared.is_acting() {
                    let noted = published::note_orphans(&shared, &mut orphans).await;
                    shared.health.note("note publications", &noted);
                }
                let (count, capacity) = (shared.sessions.count(), shared.capacity);
                if capacity::is_nearly_full(count, capacity) {
                    tracing::error!(count, capacity, "nearly as many sites as this process may open files: add a node, or raise the limit");
                }
                shared.health.note("renew this node's certificate", &shared.authority.reload().await);
                shared.health.note("store what was heard of sites", &remember(&shared, false).await);
                if shared.is_acting() {
                    shared.health.note("note how far the lake has come", &shared.lake.note_heads().await);
                }
            }
        }
    }
}

/// Decides on what sites change in shared tables, until the node stops. Much of that takes its
/// time; nothing else waits for it.
pub(crate) async fn decide_on_edits(shared: Arc<Shared>) {
    let (mut timer, mut seen) = (tokio::time::interval(PUBLISHED_EVERY), edits::Seen::default());
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            // Whether this node acts is looked at when the time has come: as a condition of waiting
            // it would be for once and all.
            _ = timer.tick() => {
                if shared.is_acting() {
                    edits::look(&shared, &mut seen).await;
                }
            }
        }
    }
}

/// Takes over what other nodes write, until the node stops.
pub(crate) async fn follow(shared: Arc<Shared>) {
    if shared.relay.is_none() {
        return;
    }
    let mut timer = tokio::time::interval(FOLLOW_EVERY);
    let mut reload_tick = tokio::time::interval(RELOAD_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut roster = shared.roster.all();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = timer.tick() => {
                shared.health.note("read what other nodes wrote", &shared.lake.follow().await);
                let newest = shared.roster.all();
                if !Arc::ptr_eq(&roster, &newest) {
                    roster = newest;
                    shared.sessions.cut_strangers(|session| {
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
                    shared.authority.reload().await?;
                    shared.credentials.reload().await?;
                    shared.notifiers.reload().await
                };
                shared.health.note("read users, channels and certificates anew", &reloaded.await);
            }
        }
    }
}

/// Compacts and cleans until the node stops.
pub(crate) async fn keep_tidy(shared: Arc<Shared>) {
    let mut compact_tick = tokio::time::interval(COMPACT_EVERY);
    let mut clean_tick = tokio::time::interval(CLEAN_EVERY);
    let mut measure_tick = tokio::time::interval(MEASURE_EVERY);
    let mut propose_tick = tokio::time::interval(ARRIVALS_EVERY);
    compact_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = compact_tick.tick() => {
                // Each node has a disk of its own.
                match own_disk::problem(&shared.config.data) {
                    Some(problem) => shared.health.broken(ROOM, &problem),
                    None => shared.health.done(ROOM),
                }
                if !shared.is_acting() {
                    continue;
                }
                let limits = shared.config.compaction;
                for table in all_tables(&shared) {
                    let using = format!("use {}", table.root());
                    if let Some(what) = table.set_aside() {
                        shared.health.broken(using, &what);
                        continue;
                    }
                    shared.health.done(using);
                    let sites = async || {
                        // Not older than the version to be compacted: a life may have begun a
                        // moment ago.
                        shared.lake.state().refresh().await?;
                        let roster = shared.roster.all();
                        let lives = lives(&roster);
                        let number = move |site: &str| roster.get(site).map(|record| SiteNumber(record.number));
                        Ok((number, lives))
                    };
                    tell(&shared.health, &table, table.compact(limits, sites).await);
                }
                let state = shared.lake.state();
                tell(&shared.health, state.table(), state.compact(limits, &[PRESENCE, TICKS, COUNTER]).await);
            }
            _ = measure_tick.tick() => shared.measures.refresh(&shared).await,
            _ = propose_tick.tick() => shared.proposed.adopt(&shared).await,
            _ = clean_tick.tick() => {
                if !shared.is_acting() {
                    continue;
                }
                table_settings::expire_history(&shared).await;
                let state = shared.lake.state().table();
                let sound = |table: &&Arc<Table>| table.set_aside().is_none();
                // While it is in doubt, a file that nothing names may be the only one that has a
                // record.
                let state = Some(state).filter(|_| shared.lake.doubt().is_none());
                for table in all_tables(&shared).iter().filter(sound).chain(state) {
                    shared.health.note(format!("clean up {}", table.root()), &clean(table).await);
                }
            }
        }
    }
}

fn tell(health: &Health, table: &Table, compacted: Result<CompactionReport, LakeError>) {
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
pub(crate) fn all_tables(shared: &Shared) -> Vec<Arc<Table>> {
    let lake = &shared.lake;
    let own = [lake.site_log(), lake.contacts(), lake.rhythms(), lake.untold(), lake.audit()];
    lake.tables().into_values().chain(own.into_iter().cloned()).collect()
}

async fn clean(table: &Table) -> Result<(), LakeError> {
    let retention = Retention::default();
    table.vacuum(retention).await?;
    table.clean_log(retention.keep()).await?;
    Ok(())
}

/// Stores what changed of sites' presence, and hours of contact that are over (with `all`, the
/// running ones too).
pub(crate) async fn remember(shared: &Shared, all: bool) -> Result<(), LakeError> {
    let now = shared.now();
    if !shared.is_acting() {
        // Every node knows the same; the one that acts stores it.
        shared.ledger.leave_hours(now.before(HOURS_LEFT));
        return Ok(());
    }
    let changed = shared.ledger.unstored(now, all);
    if !changed.is_empty() {
        let records = |view: &StateView| {
            changed.iter().map(|(site, value)| view.next(PRESENCE, site.as_str(), value, now, "hq")).collect()
        };
        if !shared.acting(records).await? {
            return Ok(());
        }
        shared.ledger.stored(&changed);
    }
    let hours = shared.ledger.take_hours(all);
    if !hours.is_empty() {
        let table = shared.lake.contacts();
        let sites = StringArray::from_iter_values(hours.iter().map(|(site, _, _)| site.as_str()));
        let starts = TimestampMicrosecondArray::from_iter_values(hours.iter().map(|(_, start, _)| start.as_micros()));
        let minutes = Int64Array::from_iter_values(hours.iter().map(|(_, _, minutes)| *minutes as i64));
        let schema = table.snapshot().schema().arrow().clone();
        let columns: Vec<Arc<dyn arrow_array::Array>> =
            vec![Arc::new(sites), Arc::new(starts.with_timezone("UTC")), Arc::new(minutes)];
        let rows = RecordBatch::try_new(schema, columns)
            .map_err(|source| LakeError::Arrow { doing: "writing contact history", source })?;
        let appended = table.append_rows(rows).await;
        if appended.is_err() {
            shared.ledger.put_back_hours(hours);
        }
        appended?;
    }
    Ok(())
}
